//! The error of softmax and cross-entropy against f64, within the documented bound, on every level; and
//! what counts as an error of the network.
//!
//! ```text
//! |loss - exact| <= (ln n + n/16 + 8) · 1.06 · 2^-24                    of one row of n logits
//! |gradient - exact| <= (ln n + n/16 + 15) · 1.06 · 2^-24 / batch
//! ```
//!
//! Where a level rounds a product before it is added, the exponential's error is larger, so both bounds
//! are four times as large.

mod common;

use common::{Padded, bits, for_each_level, matrix, matrix_mut, numbers, with_threads};
use fused_dropout::softmax::{Loss, softmax_cross_entropy};
use fused_dropout::{Level, MatMut, MatRef, reference};
use proptest::prelude::*;

const UNIT: f64 = 1.06 / 16_777_216.0;

fn roundings(level: Level) -> f64 {
    if level.has_fma() { 1.0 } else { 4.0 }
}

/// Losses of the rows one by one, and the gradient of the batch.
struct Exact {
    losses: Vec<f64>,
    gradient: Vec<f64>,
}

fn exact(z: &[f32], rows: usize, classes: usize, labels: &[u32]) -> Exact {
    let wide: Vec<f64> = z.iter().map(|z| f64::from(*z)).collect();
    let one = |(r, label): (usize, &u32)| {
        let row = MatRef::row_vector(&wide[r * classes..][..classes]);
        reference::softmax_cross_entropy(row, &[*label], None).unwrap().sum
    };
    let losses = labels.iter().enumerate().map(one).collect();
    let mut gradient = vec![0.0; z.len()];
    let logits = MatRef::new(&wide, rows, classes).unwrap();
    let to = MatMut::new(&mut gradient, rows, classes).unwrap();
    let _ = reference::softmax_cross_entropy(logits, labels, Some(to)).unwrap();
    Exact { losses, gradient }
}

/// Both errors, of views that are stored in transposed order or not; and on levels with fused
/// multiply-add the bits of the reference.
fn check(rows: usize, classes: usize, size: f32, seed: u64, transposed: bool) {
    let mut z = numbers(rows * classes, seed);
    z.iter_mut().for_each(|z| *z *= size);
    let labels: Vec<u32> = (0..rows).map(|r| ((r * 7 + 3) % classes) as u32).collect();
    let exact = exact(&z, rows, classes, &labels);
    let terms = (classes as f64).ln() + classes as f64 / 16.0;
    let logits = Padded::new(&z, rows, classes, 3, transposed);
    let mut expected = vec![9.0; z.len()];
    let to = matrix_mut(&mut expected, rows, classes);
    let of_reference = reference::softmax_cross_entropy(logits.view(), &labels, Some(to)).unwrap();
    for_each_level(|level| {
        let what = format!("{rows} x {classes} of {size} on {level}");
        let bound = roundings(level) * UNIT * (terms + 8.0);
        for (r, exact) in exact.losses.iter().enumerate() {
            let row = logits.view().rows_from(r, 1).unwrap();
            let loss = softmax_cross_entropy(row, &labels[r..=r], None).unwrap().sum;
            let error = (loss - exact).abs();
            assert!(error <= bound + 1e-15 * exact, "{what}: {loss}, not {exact}, {error:e}");
        }
        let mut gradient = Padded::new(&vec![9.0; z.len()], rows, classes, 1, transposed);
        let loss =
            softmax_cross_entropy(logits.view(), &labels, Some(gradient.view_mut())).unwrap();
        assert_eq!((loss.examples, loss.errors), (rows, of_reference.errors), "{what}");
        let sum: f64 = exact.losses.iter().sum();
        assert!((loss.sum - sum).abs() <= rows as f64 * bound + 1e-12 * sum, "{what}");
        let bound = roundings(level) * UNIT * (terms + 15.0) / rows as f64;
        let gradient = gradient.values();
        for (g, exact) in gradient.iter().zip(&exact.gradient) {
            let error = (f64::from(*g) - exact).abs();
            assert!(error <= bound, "{what}: {g:e}, not {exact:e}");
        }
        if level.has_fma() {
            assert_eq!(loss.sum.to_bits(), of_reference.sum.to_bits(), "{what}");
            assert_eq!(bits(&gradient), bits(&expected), "{what}");
        }
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn errors_are_within_the_bound(
        (rows, classes) in prop_oneof![(1usize..=20, 1usize..=50), (1usize..=3, 1usize..=1500)],
        size in prop_oneof![Just(0.0f32), Just(0.01), Just(1.0), Just(10.0), Just(100.0)],
        seed in 0u64..1000, transposed: bool,
    ) {
        check(rows, classes, size, seed, transposed);
    }
}

/// Equal logits have the largest entropy, and a lane the most terms of full size.
#[test]
fn long_rows() {
    for (classes, size) in [(1000, 0.0), (30_000, 0.1), (30_000, 4.0)] {
        check(2, classes, size, 1, false);
    }
}

/// More than a block of rows, and more than a wave of blocks, on any number of threads.
#[test]
fn threads_do_not_show() {
    let (rows, classes) = (64 * 256 + 300, 3);
    let z = numbers(rows * classes, 5);
    let labels: Vec<u32> = (0..rows).map(|r| r as u32 % 3).collect();
    let logits = matrix(&z, rows, classes);
    let expected = reference::softmax_cross_entropy(logits, &labels, None).unwrap();
    for_each_level(|level| {
        for threads in [1, 2, 5] {
            let loss = with_threads(threads, || {
                fused_dropout::testing::at_level(level, || {
                    softmax_cross_entropy(logits, &labels, None).unwrap()
                })
            })
            .unwrap();
            assert_eq!((loss.errors, loss.examples), (expected.errors, rows));
            if level.has_fma() {
                assert_eq!(loss, expected, "{threads} threads on {level}");
            }
        }
    });
}

/// A NaN among the logits is an error whatever the label is; infinities are compared as usual.
#[test]
fn rows_with_nan_are_errors() {
    const NAN: f32 = f32::NAN;
    const TOP: f32 = f32::INFINITY;
    let rows: [[f32; 3]; 8] = [
        [NAN, NAN, NAN],
        [NAN, 1.0, 2.0],
        [1.0, NAN, 2.0],
        [1.0, 2.0, NAN],
        [TOP, NAN, 2.0],
        [1.0, 2.0, TOP],
        [1.0, 2.0, -TOP],
        [1.0, 1.0, 0.0],
    ];
    for_each_level(|level| {
        for (i, row) in rows.iter().enumerate() {
            for label in 0..3 {
                let best = [3, 3, 3, 3, 3, 2, 1, 0][i];
                let expected = usize::from(label as usize != best);
                for transposed in [false, true] {
                    let logits = Padded::new(row, 1, 3, 0, transposed);
                    let (mut g, mut exact) = ([9.0; 3], [9.0; 3]);
                    let to = MatMut::row_vector(&mut g);
                    let loss = softmax_cross_entropy(logits.view(), &[label], Some(to)).unwrap();
                    assert_eq!(loss.errors, expected, "{row:?}, {label} on {level}");
                    assert_eq!(loss.error_rate(), expected as f64);
                    let to = MatMut::row_vector(&mut exact);
                    let same = reference::softmax_cross_entropy(logits.view(), &[label], Some(to));
                    let same = same.unwrap();
                    assert_eq!(same.errors, expected, "{row:?}, {label} in the reference");
                    assert_eq!(same.sum.is_nan(), loss.sum.is_nan(), "{row:?} on {level}");
                    assert_eq!(loss.sum.is_nan(), best > 2 || i == 5, "{row:?} on {level}");
                    if level.has_fma() {
                        assert_eq!(bits(&g), bits(&exact), "{row:?} on {level}");
                    }
                }
            }
        }
    });
}

#[test]
fn means_and_rates() {
    let (logits, labels) = ([0.0f32, 9.0, 9.0, 0.0, 1.0, 0.0, 5.0, 1.0], [1, 0, 1, 0]);
    let loss = softmax_cross_entropy(matrix(&logits, 4, 2), &labels, None).unwrap();
    assert_eq!((loss.examples, loss.errors, loss.error_rate()), (4, 1, 0.25));
    assert_eq!(loss.mean(), loss.sum / 4.0);
    let none = softmax_cross_entropy(matrix(&[], 0, 5), &[], None).unwrap();
    assert_eq!((none, none.mean(), none.error_rate()), (Loss::default(), 0.0, 0.0));
}

#[test]
fn what_is_refused() {
    let (logits, mut gradient) = ([1.0; 6], [9.0; 6]);
    let logits = matrix(&logits, 2, 3);
    let to = matrix_mut(&mut gradient, 2, 3);
    let error = softmax_cross_entropy(logits, &[0, 3], Some(to)).unwrap_err();
    let text = error.to_string();
    assert_eq!(text, "label 3 of example 1 names no class: there are 3");
    let to = matrix_mut(&mut gradient, 2, 3);
    let text = softmax_cross_entropy(logits, &[0], Some(to)).unwrap_err().to_string();
    assert_eq!(text, "number of labels is 1, but rows of the logits is 2: they must be equal");
    let to = matrix_mut(&mut gradient, 3, 2);
    let text = softmax_cross_entropy(logits, &[0, 1], Some(to)).unwrap_err().to_string();
    assert!(text.starts_with("the gradient is 3 x 2, but the logits is 2 x 3"), "{text}");
    let error = softmax_cross_entropy(matrix(&[], 2, 0), &[0, 0], None);
    assert!(error.is_err(), "there is no class 0 of none");
    assert_eq!(gradient, [9.0; 6], "an output was touched");
}
