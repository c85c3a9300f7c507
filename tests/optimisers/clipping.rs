//! The global norm and the factor that clips.

use fused_dropout::update::{Gradient, SgdStep, State, apply, clip_factor, global_norm};
use fused_dropout::{Error, MatRef, reference};

use crate::common::{Padded, for_each_level, matrix, matrix_mut, numbers, with_threads};

/// The norm in f64.
fn exact(parts: &[&[f32]]) -> f64 {
    parts.iter().flat_map(|part| *part).map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt()
}

#[test]
fn the_norm_has_the_bits_of_the_reference() {
    check(&[(1, 1, false), (3, 17, true), (2, 1100, false)]);
}

/// Several chunks of a row, and several tasks.
#[test]
fn large_norms_have_the_bits_of_the_reference() {
    check(&[(40, 1024, false), (7, 5000, false), (700, 300, true)]);
}

/// Matrices of these rows and columns, stored by columns or not.
fn check(shapes: &[(usize, usize, bool)]) {
    for &(rows, cols, transposed) in shapes {
        let (dw, db) = (numbers(rows * cols, 1), numbers(cols, 2));
        let padded = Padded::new(&dw, rows, cols, 3, transposed);
        let parts = [padded.view(), MatRef::row_vector(&db)];
        let expected = reference::global_norm(&parts).unwrap();
        let bound = 70.0 * f64::from(f32::EPSILON);
        assert!((expected / exact(&[&dw, &db]) - 1.0).abs() < bound);
        for_each_level(|level| {
            for threads in [1, 3] {
                let norm = with_threads(threads, || {
                    fused_dropout::testing::at_level(level, || global_norm(&parts)).unwrap()
                });
                let norm = norm.unwrap();
                match level.has_fma() {
                    true => assert_eq!(norm.to_bits(), expected.to_bits(), "{level}"),
                    false => assert!((norm / expected - 1.0).abs() < bound, "{level}"),
                }
            }
        });
    }
    assert_eq!(global_norm(&[]), Ok(0.0));
    assert_eq!(global_norm(&[matrix(&[], 0, 5), matrix(&[], 5, 0)]), Ok(0.0));
}

/// Squares that no f32 holds, large and small.
#[test]
fn the_norm_of_huge_and_tiny_gradients() {
    for_each_level(|_| {
        for g in [1e30f32, 1e-30, f32::MAX, f32::MIN_POSITIVE] {
            let norm = global_norm(&[matrix(&[3.0 * g.min(1e38), 0.0, 4.0 * g.min(8e37)], 1, 3)]);
            let exact = exact(&[&[3.0 * g.min(1e38), 0.0, 4.0 * g.min(8e37)]]);
            // Squares that are 0 in f32 are not seen where all are.
            let lost = g < 1e-22 && norm == Ok(0.0);
            assert!(
                lost || (norm.clone().unwrap() / exact - 1.0).abs() < 1e-6,
                "{norm:?}, {exact}"
            );
        }
        assert!(global_norm(&[matrix(&[f32::NAN], 1, 1)]).unwrap().is_nan());
        assert_eq!(global_norm(&[matrix(&[f32::NEG_INFINITY], 1, 1)]), Ok(f64::INFINITY));
    });
}

#[test]
fn clipping_scales_to_the_limit() {
    assert_eq!(clip_factor(2.0, 4.0), Ok(1.0));
    assert_eq!(clip_factor(0.0, 4.0), Ok(1.0));
    assert_eq!(clip_factor(8.0, 4.0), Ok(0.5));
    assert_eq!(clip_factor(8.0, f64::INFINITY), Ok(1.0));
    for (norm, limit) in [(f64::NAN, 1.0), (f64::INFINITY, 1.0), (1.0, 0.0), (1.0, f64::NAN)] {
        assert!(matches!(clip_factor(norm, limit), Err(Error::Parameter { .. })));
    }
    let dw = [3.0, 4.0];
    let scale = clip_factor(global_norm(&[matrix(&dw, 1, 2)]).unwrap(), 2.5).unwrap();
    let mut w = [1.0, 1.0];
    let clipped = Gradient::scaled(matrix(&dw, 1, 2), scale);
    apply(matrix_mut(&mut w, 1, 2), clipped, State::None, SgdStep::new(1.0)).unwrap();
    assert_eq!(w, [-0.5, -1.0]);
    for bad in [f32::NAN, f32::INFINITY] {
        let clipped = Gradient::scaled(matrix(&dw, 1, 2), bad);
        let result = apply(matrix_mut(&mut w, 1, 2), clipped, State::None, SgdStep::new(1.0));
        assert!(matches!(result, Err(Error::Parameter { name: "factor of the gradient", .. })));
        assert_eq!(w, [-0.5, -1.0]);
    }
}
