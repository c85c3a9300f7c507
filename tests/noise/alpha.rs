//! Alpha dropout, by elements and by features.

use super::common::{
    Padded, RATES, assert_same, bits, for_each_level, matrix, matrix_mut, numbers, with_threads,
};
use super::{key, origins, shapes};
use fused_dropout::elementwise::{AlphaDropout, alpha_dropout_backward, alpha_dropout_forward};
use fused_dropout::{Error, Mask, MaskKey, MaskSource, reference, testing};
use proptest::prelude::*;

/// Runs every function on every level.
fn check(x: &Padded, fresh: &Padded, dropout: &AlphaDropout, key: &MaskKey, features: bool) {
    let (rows, cols) = (x.rows, x.cols);
    let key = if features { key.with_origin(0, key.col0()).units() } else { *key };
    let keyed = dropout.with_key(key);
    let new_mask = || Mask::new(if features { 1 } else { rows }, cols).unwrap();
    let (mut y, mut dx) = (vec![0.0; rows * cols], vec![0.0; rows * cols]);
    let mut expected_mask = new_mask();
    let (to, mask) = (matrix_mut(&mut y, rows, cols), Some(&mut expected_mask));
    reference::alpha_dropout_forward((x.view(), to), &keyed, mask).unwrap();
    let (to, mask) = (matrix_mut(&mut dx, rows, cols), Some(&expected_mask));
    reference::alpha_dropout_backward((x.view(), to), &keyed, mask).unwrap();
    for_each_level(|level| {
        let same = |got: &Padded, expected: &[f32], what: &str| {
            let size = 4.0 * (dropout.scale() + dropout.shift()) as f32 + 4.0;
            assert_same(level, &got.values(), expected, (1, size), what);
        };
        for store in [false, true] {
            let (mut out, mut mask) = (fresh.clone(), new_mask());
            let to = store.then_some(&mut mask);
            alpha_dropout_forward((x.view(), out.view_mut()), &keyed, to).unwrap();
            same(&out, &y, "forward");
            if store {
                assert_eq!(mask, expected_mask, "{level}");
            }
        }
        let mut out = x.clone();
        alpha_dropout_forward(out.view_mut(), &keyed, MaskSource::Key).unwrap();
        same(&out, &y, "forward in place");
        // The mask decides, not the key; the key says only whether there is one decision a column.
        let other = MaskKey::new(77, 7, 7).unwrap();
        let other = dropout.with_key(if features { other.units() } else { other });
        let mut out = fresh.clone();
        alpha_dropout_forward((x.view(), out.view_mut()), &other, &expected_mask).unwrap();
        same(&out, &y, "forward with a given mask");
        let mut out = x.clone();
        alpha_dropout_forward(out.view_mut(), &other, &expected_mask).unwrap();
        same(&out, &y, "forward in place with a given mask");
        let mut again = vec![0.0; rows * cols];
        let to = matrix_mut(&mut again, rows, cols);
        reference::alpha_dropout_forward((x.view(), to), &other, &expected_mask).unwrap();
        assert_eq!(bits(&again), bits(&y), "the reference with a given mask");
        for mask in [None, Some(&expected_mask)] {
            let mut out = fresh.clone();
            alpha_dropout_backward((x.view(), out.view_mut()), &keyed, mask).unwrap();
            same(&out, &dx, "backward");
            let mut out = x.clone();
            alpha_dropout_backward(out.view_mut(), &keyed, mask).unwrap();
            same(&out, &dx, "backward in place");
        }
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn alpha_dropout_equals_the_reference(
        (rows, cols) in shapes(), rate in proptest::sample::select(&RATES[..]), features: bool,
        transposed: [bool; 2], extra in 0usize..4, seed in 0u64..1000, origin in origins(),
    ) {
        let values = numbers(rows * cols, seed);
        let x = Padded::new(&values, rows, cols, extra, transposed[0]);
        let fresh = Padded::new(&vec![77.0; rows * cols], rows, cols, extra, transposed[1]);
        check(&x, &fresh, &AlphaDropout::new(rate).unwrap(), &key(seed, origin), features);
    }
}

#[test]
fn several_tasks_on_any_number_of_threads() {
    let dropout = AlphaDropout::new(0.1).unwrap();
    for (rows, cols, key) in [
        (1, 270_001, key(1, (3, 77))),
        (600, 300, key(1, (3, 77))),
        (600, 300, key(1, (0, 77)).units()),
    ] {
        let keyed = dropout.with_key(key);
        let x = numbers(rows * cols, 1);
        let mut expected = vec![0.0; rows * cols];
        let to = matrix_mut(&mut expected, rows, cols);
        reference::alpha_dropout_forward((matrix(&x, rows, cols), to), &keyed, MaskSource::Key)
            .unwrap();
        for_each_level(|level| {
            for threads in [1, 2, 3] {
                let mut y = vec![9.0; rows * cols];
                with_threads(threads, || {
                    testing::at_level(level, || {
                        let (x, y) = (matrix(&x, rows, cols), matrix_mut(&mut y, rows, cols));
                        alpha_dropout_forward((x, y), &keyed, MaskSource::Key).unwrap();
                    })
                })
                .unwrap();
                assert_same(level, &y, &expected, (1, 4.0), "on several threads");
            }
        });
    }
}

/// The numbers that the paper's formulas give for q = 0.9, computed with 30 digits.
#[test]
fn the_affine_map_is_the_papers() {
    let dropout = AlphaDropout::new(0.1).unwrap();
    let near = |x: f64, y: f64| (x - y).abs() < 1e-9;
    let (q, limit) = (dropout.dropout().keep(), -1.758_099_340_847_376_6);
    assert!(near(q, 0.9));
    let a = (q + limit * limit * q * (1.0 - q)).powf(-0.5);
    assert!(near(dropout.scale(), a), "{dropout:?}");
    assert!(near(dropout.shift(), -a * (1.0 - q) * limit), "{dropout:?}");
    assert!(near(dropout.dropped(), a * limit + dropout.shift()), "{dropout:?}");
    // Mean 0 and variance 1 of the mixture, for each rate.
    for rate in [1e-9, 0.1, 0.5, 0.9, 1.0 - 1e-9] {
        let dropout = AlphaDropout::new(rate).unwrap();
        let q = dropout.dropout().keep();
        let (a, b, c) = (dropout.scale(), dropout.shift(), dropout.dropped());
        assert!(near(q * b + (1.0 - q) * c, 0.0), "mean at {rate}");
        assert!(near(q * (a * a + b * b) + (1.0 - q) * c * c, 1.0), "variance at {rate}");
    }
}

#[test]
fn both_ends_of_the_rate() {
    let x = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0, -0.0, 1e-41, 3.5, -2.0];
    for_each_level(|level| {
        for key in [key(1, (0, 0)), key(1, (0, 0)).units()] {
            let none = AlphaDropout::new(0.0).unwrap().with_key(key);
            let mut y = x;
            alpha_dropout_forward(matrix_mut(&mut y, 2, 4), &none, MaskSource::Key).unwrap();
            assert_eq!(bits(&y), bits(&x), "{level}");
            alpha_dropout_backward(matrix_mut(&mut y, 2, 4), &none, MaskSource::Key).unwrap();
            assert_eq!(bits(&y), bits(&x), "{level}");
            let all = AlphaDropout::new(1.0).unwrap().with_key(key);
            let mut y = x;
            alpha_dropout_forward(matrix_mut(&mut y, 2, 4), &all, MaskSource::Key).unwrap();
            assert_eq!(bits(&y), [0; 8], "{level}");
            let mut y = x;
            alpha_dropout_backward(matrix_mut(&mut y, 2, 4), &all, MaskSource::Key).unwrap();
            assert_eq!(bits(&y), [0; 8], "{level}");
        }
    });
}

/// A dropped NaN is gone, forward and backward.
#[test]
fn what_is_dropped_does_not_matter() {
    let dropout = AlphaDropout::new(0.5).unwrap();
    for_each_level(|level| {
        let mut mask = Mask::new(1, 200).unwrap();
        let mut y = [f32::NAN; 200];
        let keyed = dropout.with_key(key(1, (0, 0)));
        alpha_dropout_forward(matrix_mut(&mut y, 1, 200), &keyed, Some(&mut mask)).unwrap();
        let mut dx = [f32::NAN; 200];
        alpha_dropout_backward(matrix_mut(&mut dx, 1, 200), &keyed, MaskSource::Key).unwrap();
        for c in 0..200 {
            let kept = mask.get(0, c).unwrap();
            assert_eq!(y[c].is_nan(), kept, "{level}");
            assert_eq!(dx[c].is_nan(), kept, "{level}");
            assert!(kept || y[c] == dropout.dropped() as f32 && dx[c].to_bits() == 0, "{level}");
        }
    });
}

#[test]
fn what_is_refused() {
    for rate in [f64::NAN, -0.1, 1.1] {
        assert!(matches!(AlphaDropout::new(rate), Err(Error::Rate { .. })), "{rate}");
    }
    let dropout = AlphaDropout::new(0.5).unwrap();
    let (x, mut y) = ([1.0; 6], [9.0; 6]);
    let element = key(1, (0, 0));
    let mut mask = Mask::new(2, 3).unwrap();
    let run = |y: &mut [f32], rows, cols, key: &MaskKey, mask: Option<&mut Mask>| {
        let (x, y) = (matrix(&x, 2, 3), matrix_mut(y, rows, cols));
        alpha_dropout_forward((x, y), &dropout.with_key(*key), mask)
    };
    assert!(matches!(run(&mut y, 3, 2, &element, None), Err(Error::Shape { .. })));
    let units = element.units();
    assert!(matches!(run(&mut y, 2, 3, &units, Some(&mut mask)), Err(Error::Shape { .. })));
    // One row of decisions is enough for both rows; the messages speak of it.
    let text = run(&mut y, 2, 3, &units, Some(&mut mask)).unwrap_err().to_string();
    assert!(text.contains("the mask is 2 x 3") && text.contains("one row of decisions"), "{text}");
    let text = run(&mut y, 2, 3, &units.with_origin(1, 0), None).unwrap_err().to_string();
    assert!(text.starts_with("the origin of a mask of units"), "{text}");
    let outside = units.with_origin(1, 0);
    assert!(matches!(run(&mut y, 2, 3, &outside, None), Err(Error::Address { .. })));
    let outside = element.with_origin((1 << 32) - 1, 0);
    assert!(matches!(run(&mut y, 2, 3, &outside, None), Err(Error::Address { .. })));
    let to = matrix_mut(&mut y, 2, 3);
    let mask = Mask::new(1, 3).unwrap();
    let error = alpha_dropout_forward((matrix(&x, 2, 3), to), &dropout.with_key(element), &mask);
    assert!(matches!(error, Err(Error::Shape { .. })), "{error:?}");
    let to = matrix_mut(&mut y, 2, 3);
    let error =
        alpha_dropout_backward((matrix(&x, 2, 3), to), &dropout.with_key(element), Some(&mask));
    assert!(matches!(error, Err(Error::Shape { .. })), "{error:?}");
    assert_eq!(y, [9.0; 6], "an output was touched");
}
