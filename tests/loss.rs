//! The losses of trainers: the bits of the reference on every level, exact sums, what is not finite, and
//! what is refused.

mod common;

use common::{
    Padded, assert_same, bits, for_each_level, matrix, matrix_mut, numbers, with_threads,
};
use fused_dropout::loss::{
    CrossEntropy, Huber, MeanSquaredError, Objective, cross_entropy, huber, mean_squared_error,
};
use fused_dropout::softmax::softmax_cross_entropy;
use fused_dropout::{Error, MatMut, MatRef, Result, reference, testing};
use proptest::prelude::*;

/// A loss of differences, fast or of the reference.
#[derive(Clone, Copy, Debug)]
enum Regression {
    Squared,
    Huber(f32),
}

impl Regression {
    fn fast(
        self,
        outputs: MatRef<'_>,
        targets: MatRef<'_>,
        gradient: Option<MatMut<'_>>,
    ) -> Result<f64> {
        match self {
            Self::Squared => mean_squared_error(&MeanSquaredError::new(targets), outputs, gradient),
            Self::Huber(delta) => huber(&Huber::new(targets, delta)?, outputs, gradient),
        }
    }

    fn reference(
        self,
        outputs: MatRef<'_>,
        targets: MatRef<'_>,
        gradient: Option<MatMut<'_>>,
    ) -> Result<f64> {
        match self {
            Self::Squared => {
                reference::mean_squared_error(&MeanSquaredError::new(targets), outputs, gradient)
            }
            Self::Huber(delta) => reference::huber(&Huber::new(targets, delta)?, outputs, gradient),
        }
    }
}

fn regressions() -> impl Strategy<Value = Regression> {
    prop_oneof![
        Just(Regression::Squared),
        prop_oneof![Just(1e-30f32), Just(0.3), Just(1.0), Just(3e38)].prop_map(Regression::Huber),
    ]
}

fn labels(rows: usize, classes: usize) -> Vec<u32> {
    (0..rows).map(|r| ((r * 7 + 3) % classes) as u32).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn regression_equals_the_reference(
        loss in regressions(),
        (rows, cols) in prop_oneof![
            20 => (0usize..=20, 0usize..=70),
            1 => (1usize..=3, 30_000usize..=70_000),
            1 => (30_000usize..=70_000, 1usize..=3),
        ],
        size in prop_oneof![Just(1.0f32), Just(1e-30), Just(1e38)],
        transposed: [bool; 3], extra in 0usize..4, seed in 0u64..1000,
    ) {
        let padded = |i: usize| {
            let values: Vec<f32> =
                numbers(rows * cols, seed + i as u64).iter().map(|x| x * size).collect();
            Padded::new(&values, rows, cols, extra, transposed[i])
        };
        let (outputs, targets, fresh) = (padded(0), padded(1), padded(2));
        let mut expected = fresh.clone();
        let to = Some(expected.view_mut());
        let value = loss.reference(outputs.view(), targets.view(), to).unwrap();
        for_each_level(|level| {
            let mut gradient = fresh.clone();
            let to = Some(gradient.view_mut());
            let fast = loss.fast(outputs.view(), targets.view(), to).unwrap();
            assert_eq!(fast.to_bits(), value.to_bits(), "{loss:?} on {level}");
            assert_eq!(bits(&gradient.values()), bits(&expected.values()), "{loss:?} on {level}");
            let alone = loss.fast(outputs.view(), targets.view(), None).unwrap();
            assert_eq!(alone.to_bits(), value.to_bits(), "{loss:?} on {level}");
        });
        prop_assert_eq!(bits(&outputs.data), bits(&padded(0).data), "the outputs were modified");
        prop_assert_eq!(bits(&targets.data), bits(&padded(1).data), "the targets were modified");
    }

    #[test]
    fn smoothed_cross_entropy_equals_the_reference(
        (rows, classes) in prop_oneof![(0usize..=9, 1usize..=70), (250usize..=520, 1usize..=5)],
        smoothing in prop_oneof![Just(0.0), Just(1e-9), Just(0.1), Just(1.0 - f64::EPSILON)],
        size in prop_oneof![Just(1.0f32), Just(40.0), Just(1e38)],
        transposed: [bool; 2], extra in 0usize..4, seed in 0u64..1000,
    ) {
        let values: Vec<f32> = numbers(rows * classes, seed).iter().map(|x| x * size).collect();
        let labels = labels(rows, classes);
        let args = CrossEntropy::new(&labels).with_label_smoothing(smoothing).unwrap();
        let logits = Padded::new(&values, rows, classes, extra, transposed[0]);
        let fresh = Padded::new(&vec![9.0; rows * classes], rows, classes, extra, transposed[1]);
        let mut expected = fresh.clone();
        let loss = reference::cross_entropy(&args, logits.view(), Some(expected.view_mut())).unwrap();
        for_each_level(|level| {
            let mut gradient = fresh.clone();
            let fast = cross_entropy(&args, logits.view(), Some(gradient.view_mut())).unwrap();
            assert_same(level, &gradient.values(), &expected.values(), (classes, 1.0), "gradient");
            assert_eq!((fast.errors, fast.examples), (loss.errors, loss.examples));
            if level.has_fma() {
                assert_eq!(fast.sum.to_bits(), loss.sum.to_bits(), "{level}");
            } else {
                assert!((fast.sum - loss.sum).abs() <= 1e-5 * loss.sum.abs().max(rows as f64));
            }
            assert_eq!(cross_entropy(&args, logits.view(), None), Ok(fast));
            if smoothing == 0.0 {
                let mut plain = fresh.clone();
                let to = Some(plain.view_mut());
                assert_eq!(softmax_cross_entropy(logits.view(), &labels, to), Ok(fast));
                assert_eq!(bits(&plain.values()), bits(&gradient.values()));
            }
        });
    }

    /// The bounds of the documentation, and 4 times as much where products are rounded.
    #[test]
    fn smoothed_cross_entropy_is_close_to_exact(
        (rows, classes) in prop_oneof![(1usize..=9, 1usize..=70), (1usize..=2, 500usize..=1500)],
        smoothing in prop_oneof![Just(0.01), Just(0.1), Just(0.9)],
        size in prop_oneof![Just(0.0f32), Just(1.0), Just(50.0)], seed in 0u64..1000,
    ) {
        let narrow: Vec<f32> = numbers(rows * classes, seed).iter().map(|x| x * size).collect();
        let wide: Vec<f64> = narrow.iter().map(|x| f64::from(*x)).collect();
        let labels = labels(rows, classes);
        let args = CrossEntropy::new(&labels).with_label_smoothing(smoothing).unwrap();
        let mut exact = vec![0.0; rows * classes];
        let to = MatMut::new(&mut exact, rows, classes).unwrap();
        let logits = MatRef::new(&wide, rows, classes).unwrap();
        let value = reference::cross_entropy(&args, logits, Some(to)).unwrap().sum;
        for_each_level(|level| {
            let unit = 1.06 / 16_777_216.0 * if level.has_fma() { 1.0 } else { 4.0 };
            let terms = (classes as f64).ln() + classes as f64 / 16.0;
            let mut gradient = vec![9.0; rows * classes];
            let to = matrix_mut(&mut gradient, rows, classes);
            let loss = cross_entropy(&args, matrix(&narrow, rows, classes), Some(to)).unwrap();
            let bound = rows as f64 * (terms + 8.0) * unit + 1e-12 * value;
            assert!((loss.sum - value).abs() <= bound, "{level}: {} is not {value}", loss.sum);
            for (g, exact) in gradient.iter().zip(&exact) {
                let error = (f64::from(*g) - exact).abs();
                assert!(error <= (terms + 16.0) * unit / rows as f64, "{level}: {g} is not {exact}");
            }
        });
    }

    /// Differences are multiples of 2^-50, so the exact sum of squares is an integer.
    #[test]
    fn sums_are_close_to_exact(
        (rows, cols) in prop_oneof![(1usize..=20, 1usize..=70), (1usize..=300, 1usize..=300)],
        scale in prop_oneof![Just(0i32), Just(-28)],
        delta in prop_oneof![Just(None), Just(Some(0.3f32)), Just(Some(1.5))],
        seed in 0u64..1000,
    ) {
        let n = rows * cols;
        let outputs: Vec<f32> = numbers(n, seed).iter().map(|x| x * 2f32.powi(scale)).collect();
        let targets = numbers(n, seed + 1);
        let units = |x: f32| (f64::from(x) * 2f64.powi(50)) as i128;
        // Twice Huber's loss; without delta the square.
        let exact: i128 = outputs.iter().zip(&targets).map(|(y, t)| {
            let size = (units(*y) - units(*t)).abs();
            match delta.map(units) {
                Some(delta) if size > delta => 2 * delta * size - delta * delta,
                _ => size * size,
            }
        }).sum();
        let halves = if delta.is_some() { 0.5 } else { 1.0 };
        let exact = exact as f64 * 2f64.powi(-100) * halves / n as f64;
        let loss = delta.map_or(Regression::Squared, Regression::Huber);
        let value = loss.fast(matrix(&outputs, rows, cols), matrix(&targets, rows, cols), None).unwrap();
        // Two roundings are those of `exact`.
        let bound = (n + 7) as f64 * 2f64.powi(-53) * exact;
        prop_assert!((value - exact).abs() <= bound, "{value:e}, not {exact:e}");
    }
}

/// Several parts of rows, and rows of several parts, more than a wave of them.
#[test]
fn threads_do_not_show() {
    for (rows, cols) in [(300, 801), (2, 1_100_000), (70_000, 3)] {
        let (outputs, targets) = (numbers(rows * cols, 1), numbers(rows * cols, 2));
        let (outputs, targets) = (matrix(&outputs, rows, cols), matrix(&targets, rows, cols));
        for loss in [Regression::Squared, Regression::Huber(0.7)] {
            let value = loss.reference(outputs, targets, None).unwrap();
            for_each_level(|level| {
                for threads in [1, 2, 5] {
                    let run = || loss.fast(outputs, targets, None).unwrap();
                    let run = || testing::at_level(level, run).unwrap();
                    let fast = with_threads(threads, run);
                    assert_eq!(fast.to_bits(), value.to_bits(), "{threads} threads on {level}");
                }
            });
        }
    }
}

/// Value and gradient of one row, with those of the reference.
fn row(loss: Regression, outputs: &[f32], targets: &[f32]) -> (f64, Vec<f32>) {
    let (outputs, targets) = (MatRef::row_vector(outputs), MatRef::row_vector(targets));
    let (mut gradient, mut expected) = (vec![9.0; outputs.cols()], vec![9.0; outputs.cols()]);
    let value = loss.fast(outputs, targets, Some(MatMut::row_vector(&mut gradient))).unwrap();
    let to = Some(MatMut::row_vector(&mut expected));
    let same = loss.reference(outputs, targets, to).unwrap();
    assert_eq!(value.is_nan(), same.is_nan());
    assert!(value.is_nan() || value == same, "{value} is not {same}");
    assert_eq!(bits(&gradient), bits(&expected));
    (value, gradient)
}

#[test]
fn regression_of_what_is_not_finite() {
    const TOP: f32 = f32::INFINITY;
    for_each_level(|_| {
        for cols in [1, 5, 16, 40] {
            for loss in [Regression::Squared, Regression::Huber(1.0)] {
                for (at, swap) in (0..cols).flat_map(|at| [(at, false), (at, true)]) {
                    let (mut y, t) = (numbers(cols, 1), numbers(cols, 2));
                    y[at] = f32::NAN;
                    let (value, gradient) =
                        if swap { row(loss, &t, &y) } else { row(loss, &y, &t) };
                    assert!(value.is_nan());
                    for (i, g) in gradient.iter().enumerate() {
                        assert_eq!(g.is_nan(), i == at, "a NaN stays where it is");
                    }
                }
            }
        }
        let (value, gradient) = row(Regression::Squared, &[TOP, 0.0], &[0.0, 0.0]);
        assert_eq!((value, gradient), (f64::INFINITY, vec![TOP, 0.0]));
        let (value, gradient) = row(Regression::Huber(2.0), &[-TOP, 0.0], &[0.0, 0.0]);
        assert_eq!((value, gradient), (f64::INFINITY, vec![-1.0, 0.0]));
        let (value, gradient) = row(Regression::Huber(2.0), &[TOP, 0.0], &[TOP, 0.0]);
        assert!(value.is_nan() && gradient[0].is_nan() && gradient[1] == 0.0);
        // The difference overflows in f32, and does not in f64.
        let (value, gradient) = row(Regression::Squared, &[3e38], &[-3e38]);
        assert!((value / 3.6e77 - 1.0).abs() < 1e-6 && gradient == [TOP]);
        let (value, gradient) = row(Regression::Huber(1.0), &[3e38], &[-3e38]);
        assert!((value / 6e38 - 1.0).abs() < 1e-6 && gradient == [1.0]);
        // At the kink both formulas are the same.
        let (value, gradient) = row(Regression::Huber(2.0), &[2.0, -2.0], &[0.0, 0.0]);
        assert_eq!((value, gradient), (2.0, vec![1.0, -1.0]));
    });
}

#[test]
fn smoothing_of_logits_that_are_not_finite() {
    const TOP: f32 = f32::INFINITY;
    let run = |logits: &[f32], smoothing| {
        let args = CrossEntropy::new(&[0]).with_label_smoothing(smoothing).unwrap();
        let mut gradient = vec![9.0; logits.len()];
        let to = Some(MatMut::row_vector(&mut gradient));
        let loss = cross_entropy(&args, MatRef::row_vector(logits), to).unwrap();
        let same = reference::cross_entropy(&args, MatRef::row_vector(logits), None).unwrap();
        assert_eq!((loss.sum.is_nan(), loss.errors), (same.sum.is_nan(), same.errors));
        (loss.sum, gradient)
    };
    for_each_level(|_| {
        let (loss, gradient) = run(&[0.0, -TOP, 0.0], 0.0);
        assert!((loss - 2f64.ln()).abs() < 1e-6 && gradient == [-0.5, 0.0, 0.5]);
        let (loss, gradient) = run(&[0.0, -TOP, 0.0], 0.3);
        assert_eq!(loss, f64::INFINITY);
        assert!((gradient[1] + 0.1).abs() < 1e-7 && (gradient[0] + 0.3).abs() < 1e-6);
        // Differences overflow in f32: the loss is 0.25 · mean of (0, 6e38).
        let (loss, gradient) = run(&[3e38, -3e38], 0.25);
        assert!((loss / (0.25 * 3e38) - 1.0).abs() < 1e-6 && gradient == [0.125, -0.125]);
        for logits in [[f32::NAN, 0.0, 1.0], [0.0, 1.0, f32::NAN], [TOP, 0.0, 0.0], [-TOP; 3]] {
            let (loss, gradient) = run(&logits, 0.3);
            assert!(loss.is_nan() && gradient.iter().all(|g| g.is_nan()), "{logits:?}");
        }
    });
}

#[test]
fn smoothing_by_hand() {
    // Uniform predictions: the loss is ln n whatever the targets, and the gradient 1/n less the target.
    let args = CrossEntropy::new(&[3]).with_label_smoothing(0.2).unwrap();
    let mut gradient = [9.0; 4];
    let to = Some(MatMut::row_vector(&mut gradient));
    let loss = cross_entropy(&args, MatRef::row_vector(&[7.0; 4]), to).unwrap();
    assert!((loss.sum - 4f64.ln()).abs() < 1e-6);
    let expected = [0.2f32, 0.2, 0.2, -0.6];
    for (g, e) in gradient.iter().zip(expected) {
        assert!((g - e).abs() < 1e-7, "{gradient:?}");
    }
    assert_eq!((args.labels(), args.label_smoothing()), (&[3u32][..], 0.2));
}

#[test]
fn numbers_out_of_range_are_refused() {
    for bad in [-1e-9, 1.0, 1.5, f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let error = CrossEntropy::new(&[]).with_label_smoothing(bad).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("label_smoothing is {bad}: it must be from 0 to below 1")
        );
    }
    for bad in [0.0, -0.0, -1.0, f32::NAN, f32::INFINITY] {
        let error = Huber::new(MatRef::row_vector(&[0.0]), bad).unwrap_err();
        assert_eq!(error.to_string(), format!("delta is {bad}: it must be positive and finite"));
    }
    let huber = Huber::new(MatRef::row_vector(&[5.0]), 1e-40).unwrap();
    assert_eq!((huber.delta(), huber.targets().get(0, 0)), (1e-40, Some(5.0)));
}

#[test]
fn shapes_and_labels_that_disagree_are_refused() {
    let (data, mut gradient) = ([1.0; 12], [9.0; 12]);
    let view = |rows, cols| matrix(&data, rows, cols);
    for loss in [Regression::Squared, Regression::Huber(1.0)] {
        let mut run = |outputs: (usize, usize), targets: (usize, usize), to: (usize, usize)| {
            let (outputs, targets) = (view(outputs.0, outputs.1), view(targets.0, targets.1));
            let error = loss.fast(outputs, targets, Some(matrix_mut(&mut gradient, to.0, to.1)));
            let same =
                loss.reference(outputs, targets, Some(matrix_mut(&mut gradient, to.0, to.1)));
            assert_eq!(error, same);
            assert_eq!(gradient, [9.0; 12], "an output was touched");
            error.unwrap_err().to_string()
        };
        let text = run((3, 4), (4, 3), (3, 4));
        assert!(text.starts_with("the outputs is 3 x 4, but the targets is 4 x 3"), "{text}");
        let text = run((3, 4), (3, 4), (3, 3));
        assert!(text.starts_with("the gradient is 3 x 3, but the outputs is 3 x 4"), "{text}");
        run((0, 4), (0, 3), (0, 4));
    }
    let mut run = |labels: &[u32], rows, cols| {
        let args = CrossEntropy::new(labels).with_label_smoothing(0.1).unwrap();
        let to = matrix_mut(&mut gradient, rows, cols);
        let error = cross_entropy(&args, view(3, 4), Some(to)).unwrap_err();
        let to = matrix_mut(&mut gradient, rows, cols);
        assert_eq!(reference::cross_entropy(&args, view(3, 4), Some(to)), Err(error.clone()));
        assert_eq!(gradient, [9.0; 12], "an output was touched");
        error
    };
    assert_eq!(run(&[0, 4, 5], 3, 4), Error::Label { index: 1, label: 4, classes: 4 });
    assert!(matches!(run(&[0, 1], 3, 4), Error::Mismatch { left_value: 2, right_value: 3, .. }));
    assert!(matches!(run(&[0, 1, 2], 2, 4), Error::Shape { left_rows: 2, right_rows: 3, .. }));
}

#[test]
fn batches_without_elements() {
    for (rows, cols) in [(0, 0), (0, 3), (3, 0), (0, usize::MAX), (usize::MAX, 0)] {
        let view = MatRef::new(&[], rows, cols).unwrap();
        for loss in [Regression::Squared, Regression::Huber(1.0)] {
            let to = MatMut::new(&mut [], rows, cols).unwrap();
            assert_eq!(loss.fast(view, view, Some(to)), Ok(0.0));
            assert_eq!(loss.reference(view, view, None), Ok(0.0));
        }
        if rows == 0 {
            let args = CrossEntropy::new(&[]).with_label_smoothing(0.5).unwrap();
            let to = MatMut::new(&mut [], rows, cols).unwrap();
            assert_eq!(args.evaluate(view, to), Ok(0.0));
        }
    }
}

/// Structs, closures and types of one's own behind one trait.
#[test]
fn objectives() {
    struct Constant(f64);
    impl Objective for Constant {
        fn evaluate(&self, _: MatRef<'_>, mut gradient: MatMut<'_>) -> Result<f64> {
            for r in 0..gradient.rows() {
                gradient.row(r).into_iter().for_each(|row| row.fill(0.0));
            }
            Ok(self.0)
        }
    }
    let (outputs, targets) = (numbers(6, 1), numbers(6, 2));
    let (outputs, targets) = (matrix(&outputs, 2, 3), matrix(&targets, 2, 3));
    let labels = CrossEntropy::new(&[2, 0]).with_label_smoothing(0.1).unwrap();
    let squared = MeanSquaredError::new(targets);
    let huber_args = Huber::new(targets, 0.5).unwrap();
    let half = |outputs: MatRef<'_>, gradient: MatMut<'_>| -> Result<f64> {
        Ok(0.5 * squared.evaluate(outputs, gradient)?)
    };
    let value = mean_squared_error(&squared, outputs, None).unwrap();
    let cases: [(&dyn Objective, f64); 5] = [
        (&labels, cross_entropy(&labels, outputs, None).unwrap().mean()),
        (&squared, value),
        (&huber_args, huber(&huber_args, outputs, None).unwrap()),
        (&half, value / 2.0),
        (&Constant(7.0), 7.0),
    ];
    for (objective, expected) in cases {
        let mut gradient = [f32::NAN; 6];
        let to = matrix_mut(&mut gradient, 2, 3);
        assert_eq!(objective.evaluate(outputs, to), Ok(expected));
        assert!(gradient.iter().all(|g| g.is_finite()), "the whole gradient is written");
        let to = matrix_mut(&mut gradient, 2, 2);
        assert!(expected == 7.0 || objective.evaluate(outputs, to).is_err());
    }
}
