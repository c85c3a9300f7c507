//! Loss and updates - softmax with cross-entropy, stochastic gradient descent, max-norm - against
//! the reference on every level, and what they refuse.

mod common;

use common::{
    Padded, assert_same, bits, for_each_level, matrix, matrix_mut, numbers, sgd_step, with_threads,
};
use fused_dropout::softmax::{Loss, softmax_cross_entropy};
use fused_dropout::update::{SgdStep, apply, max_norm};
use fused_dropout::{Error, reference, testing};
use proptest::prelude::*;

const STEP: SgdStep = sgd_step(0.1, 0.9, 0.01, 0.02);

fn shapes() -> impl Strategy<Value = (usize, usize)> {
    prop_oneof![(0usize..=5, 0usize..=70), (0usize..=70, 0usize..=9), (0usize..=50, 0usize..=50)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn apply_equals_the_reference(
        (rows, cols) in shapes(),
        with_velocity: bool, transposed: [bool; 3], extra in 0usize..4, seed in 0u64..1000,
        step in prop_oneof![
            Just(STEP),
            Just(sgd_step(0.1, 0.0, 0.0, 0.02)),
            Just(sgd_step(0.1, 0.9, 0.01, 0.0)),
            Just(sgd_step(0.0, 0.9, 0.01, 0.02)),
        ],
    ) {
        let padded = |i: usize| {
            let values = numbers(rows * cols, seed + i as u64);
            Padded::new(&values, rows, cols, extra, transposed[i])
        };
        let (w, dw, velocity) = (padded(0), padded(1), padded(2));
        let (mut w_expected, mut v_expected) = (w.clone(), velocity.clone());
        let v = with_velocity.then(|| v_expected.view_mut());
        reference::apply(w_expected.view_mut(), dw.view(), v, step).unwrap();
        for_each_level(|level| {
            let (mut w, mut velocity) = (w.clone(), velocity.clone());
            let v = with_velocity.then(|| velocity.view_mut());
            apply(w.view_mut(), dw.view(), v, step).unwrap();
            assert_same(level, &w.values(), &w_expected.values(), (1, 2.0), "w");
            assert_same(level, &velocity.values(), &v_expected.values(), (1, 2.0), "velocity");
        });
        prop_assert_eq!(bits(&dw.data), bits(&padded(1).data), "the gradient was modified");
    }

    #[test]
    fn max_norm_equals_the_reference(
        (rows, cols) in shapes(), transposed: bool, extra in 0usize..4, seed in 0u64..1000,
        limit in prop_oneof![Just(1e-3f32), Just(1.0), Just(5.0), Just(f32::INFINITY)],
    ) {
        let w = Padded::new(&numbers(rows * cols, seed), rows, cols, extra, transposed);
        let mut expected = w.clone();
        reference::max_norm(expected.view_mut(), limit).unwrap();
        for_each_level(|level| {
            let mut w = w.clone();
            max_norm(w.view_mut(), limit).unwrap();
            assert_same(level, &w.values(), &expected.values(), (rows, 2.0), "w");
        });
    }

    #[test]
    fn softmax_cross_entropy_equals_the_reference(
        (rows, cols) in prop_oneof![(0usize..=9, 1usize..=70), (250usize..=520, 1usize..=5)],
        size in prop_oneof![Just(1.0f32), Just(40.0), Just(1e30)],
        with_gradient: bool, transposed: [bool; 2], extra in 0usize..4, seed in 0u64..1000,
    ) {
        let values: Vec<f32> = numbers(rows * cols, seed).iter().map(|x| x * size).collect();
        let labels: Vec<u32> =
            numbers(rows, seed + 1).iter().map(|x| ((x + 2.0) / 4.0 * cols as f32) as u32).collect();
        let logits = Padded::new(&values, rows, cols, extra, transposed[0]);
        let fresh = Padded::new(&vec![9.0; rows * cols], rows, cols, extra, transposed[1]);
        let mut expected = fresh.clone();
        let gradient = with_gradient.then(|| expected.view_mut());
        let loss = reference::softmax_cross_entropy(logits.view(), &labels, gradient).unwrap();
        for_each_level(|level| {
            let mut gradient = fresh.clone();
            let to = with_gradient.then(|| gradient.view_mut());
            let fast = softmax_cross_entropy(logits.view(), &labels, to).unwrap();
            assert_same(level, &gradient.values(), &expected.values(), (cols, 1.0), "gradient");
            assert_eq!((fast.errors, fast.examples), (loss.errors, loss.examples));
            if level.has_fma() {
                assert_eq!(fast.sum.to_bits(), loss.sum.to_bits(), "{level}");
            } else {
                assert!((fast.sum - loss.sum).abs() <= 1e-5 * loss.sum.abs().max(rows as f64));
            }
        });
        prop_assert_eq!(bits(&logits.view().get(0, 0).map_or(vec![], |x| vec![x])),
            bits(&values[..values.len().min(1)]), "the logits were modified");
    }
}

/// Large enough for several tasks, and for several waves of blocks of rows.
#[test]
fn threads_do_not_show() {
    for (rows, cols) in [(700, 401), (3, 100_000)] {
        let (w, dw) = (numbers(rows * cols, 1), numbers(rows * cols, 2));
        let (mut w_expected, mut v_expected) = (w.clone(), dw.clone());
        let gradient = matrix(&dw, rows, cols);
        let v = matrix_mut(&mut v_expected, rows, cols);
        reference::apply(matrix_mut(&mut w_expected, rows, cols), gradient, Some(v), STEP).unwrap();
        reference::max_norm(matrix_mut(&mut w_expected, rows, cols), 1.5).unwrap();
        for_each_level(|level| {
            for threads in [1, 2, 3, 8] {
                let (mut w, mut v) = (w.clone(), dw.clone());
                with_threads(threads, || {
                    testing::at_level(level, || {
                        let v = matrix_mut(&mut v, rows, cols);
                        apply(matrix_mut(&mut w, rows, cols), gradient, Some(v), STEP).unwrap();
                        max_norm(matrix_mut(&mut w, rows, cols), 1.5).unwrap();
                    })
                })
                .unwrap();
                assert_same(level, &w, &w_expected, (rows, 2.0), &format!("w, {threads} threads"));
                assert_same(level, &v, &v_expected, (1, 2.0), &format!("v, {threads} threads"));
            }
        });
    }
    // 64 blocks of 256 rows run side by side.
    let (rows, cols) = (64 * 256 + 700, 3);
    let logits = numbers(rows * cols, 3);
    let labels: Vec<u32> = (0..rows as u32).map(|i| i % 3).collect();
    let view = matrix(&logits, rows, cols);
    let mut gradient = vec![0.0; rows * cols];
    let to = Some(matrix_mut(&mut gradient, rows, cols));
    let loss = reference::softmax_cross_entropy(view, &labels, to).unwrap();
    let expected = (loss, bits(&gradient));
    for_each_level(|level| {
        let run = |threads| {
            let mut gradient = vec![9.0; rows * cols];
            let to = Some(matrix_mut(&mut gradient, rows, cols));
            let run = || testing::at_level(level, || softmax_cross_entropy(view, &labels, to));
            (with_threads(threads, run).unwrap().unwrap(), bits(&gradient))
        };
        for threads in [1, 2, 3, 8] {
            assert!(run(threads) == run(1), "{level} on {threads} threads");
        }
        if level.has_fma() {
            assert!(run(2) == expected, "{level}");
        }
    });
}

/// Mean loss, gradient and errors of one batch.
fn softmax(logits: &[f32], classes: usize, labels: &[u32]) -> (Loss, Vec<f32>) {
    let mut gradient = vec![9.0; logits.len()];
    let view = matrix(logits, labels.len(), classes);
    let to = matrix_mut(&mut gradient, labels.len(), classes);
    let loss = softmax_cross_entropy(view, labels, Some(to)).unwrap();
    (loss, gradient)
}

#[test]
fn the_loss_is_close_to_exact() {
    let (rows, cols) = (70, 37);
    let logits: Vec<f32> = numbers(rows * cols, 5).iter().map(|x| x * 8.0).collect();
    let labels: Vec<u32> = (0..rows as u32).map(|i| i * 7 % 37).collect();
    let exact: f64 = (0..rows)
        .map(|r| {
            let row: Vec<f64> = logits[r * cols..][..cols].iter().map(|x| (*x).into()).collect();
            row.iter().map(|z| z.exp()).sum::<f64>().ln() - row[labels[r] as usize]
        })
        .sum();
    for_each_level(|level| {
        let (loss, gradient) = softmax(&logits, cols, &labels);
        // The exponentials differ by some 3 ULP each (32 where a rounding is added), their
        // differences by another 2^-24 · 32, and sums of 37 by 8 roundings.
        let bound = rows as f64 * 80.0 * 2f64.powi(-24);
        assert!((loss.sum - exact).abs() <= bound, "{level}: {} is not {exact}", loss.sum);
        assert_eq!(loss.mean(), loss.sum / rows as f64);
        for (r, row) in gradient.chunks(cols).enumerate() {
            let sum: f64 = row.iter().map(|x| f64::from(*x)).sum();
            assert!(sum.abs() <= 80.0 * 2f64.powi(-24) / rows as f64, "{level}: row {r}: {sum:e}");
        }
    });
}

#[test]
fn extreme_logits() {
    for_each_level(|_| {
        let (loss, gradient) = softmax(&[3e38, -3e38, 1e38], 3, &[0]);
        assert_eq!((loss.sum, loss.errors), (0.0, 0));
        assert_eq!(gradient, [0.0, 0.0, 0.0]);
        let (loss, gradient) = softmax(&[1000.0, 0.0], 2, &[1]);
        assert_eq!((loss.sum, loss.errors), (1000.0, 1));
        assert_eq!(gradient, [1.0, -1.0]);

        let (loss, gradient) = softmax(&[5.0, -7.0], 1, &[0, 0]);
        assert_eq!((loss.sum, loss.errors, loss.examples), (0.0, 0, 2), "one class");
        assert_eq!(gradient, [0.0, 0.0]);
        assert_eq!(softmax(&[], 4, &[]).0.mean(), 0.0);

        // Equal logits: the first counts as the largest.
        assert_eq!(softmax(&[2.0, 2.0], 2, &[0]).0.errors, 0);
        assert_eq!(softmax(&[2.0, 2.0], 2, &[1]).0.errors, 1);

        // A NaN shows, and stays in its row.
        for at in 0..20 {
            let mut logits = numbers(60, 1);
            logits[20 + at] = f32::NAN;
            let (loss, gradient) = softmax(&logits, 20, &[1, 2, 3]);
            assert!(loss.sum.is_nan());
            assert!(gradient[20..40].iter().all(|x| x.is_nan()), "{at}");
            assert!(gradient[..20].iter().chain(&gradient[40..]).all(|x| x.is_finite()), "{at}");
        }
    });
}

#[test]
fn labels_and_shapes_are_checked() {
    let logits = numbers(12, 1);
    let view = matrix(&logits, 3, 4);
    let mut gradient = vec![9.0; 16];
    let mut run = |labels: &[u32], rows, cols| {
        let to = matrix_mut(&mut gradient, rows, cols);
        let result = softmax_cross_entropy(view, labels, Some(to));
        assert_eq!(gradient, [9.0; 16], "an output was touched");
        let to = matrix_mut(&mut gradient, rows, cols);
        assert_eq!(reference::softmax_cross_entropy(view, labels, Some(to)), result);
        result
    };
    assert_eq!(run(&[0, 4, 5], 3, 4), Err(Error::Label { index: 1, label: 4, classes: 4 }));
    assert_eq!(
        run(&[0, 1, u32::MAX], 3, 4),
        Err(Error::Label { index: 2, label: u32::MAX, classes: 4 })
    );
    assert!(matches!(
        run(&[0, 1], 3, 4),
        Err(Error::Mismatch { left_value: 2, right_value: 3, .. })
    ));
    assert!(matches!(run(&[0, 1, 2], 4, 4), Err(Error::Shape { left_rows: 4, right_rows: 3, .. })));
    let nothing = matrix(&[], 2, 0);
    let error = softmax_cross_entropy(nothing, &[0, 0], None);
    assert_eq!(error, Err(Error::Label { index: 0, label: 0, classes: 0 }), "no classes");
}

#[test]
fn updates_check_their_numbers_and_shapes() {
    let original = numbers(12, 1);
    let (mut w, dw, mut v) = (original.clone(), numbers(12, 2), original.clone());
    let mut run = |step: SgdStep, dw_shape: (usize, usize), v_shape: (usize, usize)| {
        let dw = matrix(&dw, dw_shape.0, dw_shape.1);
        let velocity = matrix_mut(&mut v, v_shape.0, v_shape.1);
        let result = apply(matrix_mut(&mut w, 3, 4), dw, Some(velocity), step);
        assert_eq!((&w, &v), (&original, &original), "an output was touched");
        result.unwrap_err()
    };
    for bad in [-0.1, f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for (name, step) in [
            ("learning_rate", sgd_step(bad, 0.9, 0.01, 0.02)),
            ("momentum", sgd_step(0.1, bad, 0.01, 0.02)),
            ("weight_decay", sgd_step(0.1, 0.9, bad, 0.02)),
            ("l1", sgd_step(0.1, 0.9, 0.01, bad)),
        ] {
            let error = run(step, (3, 4), (3, 4));
            let Error::Parameter { name: said, value, .. } = error else { panic!("{error}") };
            assert_eq!((said, value.to_bits()), (name, f64::from(bad).to_bits()));
        }
    }
    let error = run(STEP, (3, 3), (3, 4));
    assert!(matches!(
        error,
        Error::Shape { left: "w", right: "dw", left_cols: 4, right_cols: 3, .. }
    ));
    assert!(matches!(run(STEP, (3, 4), (4, 3)), Error::Shape { left_rows: 3, right_rows: 4, .. }));

    for bad in [0.0, -1.0, f32::NAN, f32::NEG_INFINITY] {
        let error = max_norm(matrix_mut(&mut w, 3, 4), bad).unwrap_err();
        assert!(matches!(error, Error::Parameter { name: "max_norm", .. }), "{error}");
        assert_eq!(w, original);
    }
}

/// The L1 term is `± l1`, and nothing for a weight of 0; without it the bits are those of a step that
/// has no such term, also where the gradient is -0.
#[test]
fn the_l1_penalty_by_hand() {
    let original = [2.0, -2.0, 0.0, -0.0, f32::INFINITY, 1e-40, f32::NAN];
    let run = |l1: f32, gradient: f32| {
        let (mut w, mut v) = (original, [-9.0; 7]);
        let step = sgd_step(0.5, 0.0, 0.0, l1);
        let dw = [gradient; 7];
        apply(matrix_mut(&mut w, 1, 7), matrix(&dw, 1, 7), Some(matrix_mut(&mut v, 1, 7)), step)
            .unwrap();
        (bits(&w), bits(&v))
    };
    for_each_level(|_| {
        let (w, v) = run(0.25, 1.0);
        // Of an infinite weight 0 · w, its part of the L2 penalty, is NaN.
        assert_eq!(v, bits(&[1.25, 0.75, 1.0, 1.0, f32::NAN, 1.25, f32::NAN]));
        assert_eq!(w, bits(&[1.375, -2.375, -0.5, -0.5, f32::NAN, 1e-40 - 0.625, f32::NAN]));
        for l1 in [0.0, -0.0] {
            let (_, v) = run(l1, -0.0);
            assert_eq!(v[1], bits(&[-0.0])[0], "the sign of a zero");
        }
    });
}

#[test]
fn max_norm_bounds_long_columns_and_keeps_short_ones() {
    // Columns of norm 5, 1, 0 and NaN; the last two stay as they are.
    let original = [3.0, 0.6, 0.0, f32::NAN, 4.0, 0.8, -0.0, 1.0];
    for_each_level(|_| {
        let mut w = original;
        max_norm(matrix_mut(&mut w, 2, 4), 2.5).unwrap();
        assert_eq!(bits(&w), bits(&[1.5, 0.6, 0.0, f32::NAN, 2.0, 0.8, -0.0, 1.0]));
    });
}
