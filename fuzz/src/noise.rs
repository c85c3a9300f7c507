//! Gaussian dropout and alpha dropout against the reference.

use arbitrary::{Result, Unstructured};
use fused_dropout::elementwise::{
    AlphaDropout, GaussianDropout, alpha_dropout_backward, alpha_dropout_forward,
    gaussian_dropout_backward, gaussian_dropout_forward, standard_normal,
};
use fused_dropout::reference;

use crate::input::{self, Layout, Masking, Matrix, dropout, key, size};
use crate::{assert_same, assert_same_outcome, for_each_level};

/// A rate: one of a dropout, or any number.
fn rate(u: &mut Unstructured<'_>) -> Result<f64> {
    if u.ratio(1, 16)? { Ok(f64::from_bits(u.arbitrary()?)) } else { Ok(dropout(u)?.rate()) }
}

/// Rows and columns, of which one may be large.
fn shape(u: &mut Unstructured<'_>) -> Result<(usize, usize)> {
    Ok(match u.int_in_range(0..=2u8)? {
        0 => (size(u, 30)?, size(u, 150)?),
        1 => (size(u, 3)?, size(u, 3000)?),
        _ => (size(u, 300)?, size(u, 9)?),
    })
}

/// Runs Gaussian dropout forward and backward on every level.
pub fn gaussian(data: &[u8]) {
    let _ = run_gaussian(&mut Unstructured::new(data));
}

fn run_gaussian(u: &mut Unstructured<'_>) -> Result<()> {
    let rate = rate(u)?;
    let dropout = GaussianDropout::new(rate);
    assert_eq!(dropout.is_ok(), (0.0..1.0).contains(&rate), "rate {rate}");
    let Ok(dropout) = dropout else { return Ok(()) };
    let (key, (rows, cols)) = (key(u)?, shape(u)?);
    let layouts = [Layout::new(u)?, Layout::new(u)?];
    let x = Matrix::random(u, rows, cols, layouts[0])?;
    // Sometimes an output with a row too many.
    let out_rows = rows + usize::from(u.ratio(1, 32)?);
    let blank = Matrix::new(&vec![9.0; out_rows * cols], out_rows, cols, layouts[1]);

    let mut y = blank.clone();
    let outcome =
        reference::gaussian_dropout_forward((x.view(), y.view_mut()), &dropout.with_key(key));
    let mut dx = blank.clone();
    let backward =
        reference::gaussian_dropout_backward((x.view(), dx.view_mut()), &dropout.with_key(key));
    let mut normals = blank.clone();
    let drawn = reference::standard_normal(normals.view_mut(), &key);
    let (y, normals) = (y.values(), normals.values());

    for_each_level(|level| {
        let mut fast = blank.clone();
        let result = gaussian_dropout_forward((x.view(), fast.view_mut()), &dropout.with_key(key));
        assert_same_outcome(level, "forward", &result, &outcome);
        assert_same(level, "y", &fast.values(), &y);
        assert!(result.is_ok() || fast.values().iter().all(|y| *y == 9.0), "{level}: touched");
        let mut fast = blank.clone();
        let result = gaussian_dropout_backward((x.view(), fast.view_mut()), &dropout.with_key(key));
        assert_same_outcome(level, "backward", &result, &backward);
        assert_same(level, "dx", &fast.values(), &y);
        let mut fast = blank.clone();
        let result = standard_normal(fast.view_mut(), &key);
        assert_same_outcome(level, "normal numbers", &result, &drawn);
        assert_same(level, "normal numbers", &fast.values(), &normals);
        if out_rows == rows {
            for forward in [true, false] {
                let mut fast = x.clone();
                let result = match forward {
                    true => gaussian_dropout_forward(fast.view_mut(), &dropout.with_key(key)),
                    false => gaussian_dropout_backward(fast.view_mut(), &dropout.with_key(key)),
                };
                assert_eq!(result.is_ok(), outcome.is_ok(), "{level}: in place");
                let expected = if result.is_ok() { y.clone() } else { x.values() };
                assert_same(level, "in place", &fast.values(), &expected);
            }
        }
    });
    Ok(())
}

/// Runs alpha dropout, by elements or by features, forward and backward on every level.
pub fn alpha(data: &[u8]) {
    let _ = run_alpha(&mut Unstructured::new(data));
}

fn run_alpha(u: &mut Unstructured<'_>) -> Result<()> {
    let rate = rate(u)?;
    let dropout = AlphaDropout::new(rate);
    assert_eq!(dropout.is_ok(), (0.0..=1.0).contains(&rate), "rate {rate}");
    let Ok(dropout) = dropout else { return Ok(()) };
    let (mut key, (rows, cols)) = (key(u)?, shape(u)?);
    let features: bool = u.arbitrary()?;
    if features {
        key = key.units();
        if u.ratio(15, 16)? {
            key = key.with_origin(0, key.col0());
        }
    }
    let keyed = dropout.with_key(key);
    // A key from the input may be of features too: then this mask is refused.
    let given = input::mask(u, if features { 1 } else { rows }, cols)?;
    let masking = Masking::new(u)?;
    let layouts = [Layout::new(u)?, Layout::new(u)?];
    let x = Matrix::random(u, rows, cols, layouts[0])?;
    let blank = Matrix::new(&vec![9.0; rows * cols], rows, cols, layouts[1]);

    let (mut y, mut expected_mask) = (blank.clone(), given.clone());
    let to = masking.of(&given, &mut expected_mask);
    let forward = reference::alpha_dropout_forward((x.view(), y.view_mut()), &keyed, to);
    let saved = masking.saved(&expected_mask);
    let mut dx = blank.clone();
    let backward = reference::alpha_dropout_backward((x.view(), dx.view_mut()), &keyed, saved);
    let (y, dx) = (y.values(), dx.values());

    for_each_level(|level| {
        let (mut fast, mut mask) = (blank.clone(), given.clone());
        let to = masking.of(&given, &mut mask);
        let result = alpha_dropout_forward((x.view(), fast.view_mut()), &keyed, to);
        assert_same_outcome(level, "forward", &result, &forward);
        assert_same(level, "y", &fast.values(), &y);
        if result.is_ok() {
            assert_eq!(mask, expected_mask, "{level}: the mask");
        } else {
            assert!(fast.values().iter().all(|y| *y == 9.0) && mask == given, "{level}: touched");
        }
        let (mut fast, mut mask) = (x.clone(), given.clone());
        let to = masking.of(&given, &mut mask);
        let result = alpha_dropout_forward(fast.view_mut(), &keyed, to);
        assert_same_outcome(level, "forward in place", &result, &forward);
        let expected = if result.is_ok() { y.clone() } else { x.values() };
        assert_same(level, "y in place", &fast.values(), &expected);
        let mut fast = blank.clone();
        let result = alpha_dropout_backward((x.view(), fast.view_mut()), &keyed, saved);
        assert_same_outcome(level, "backward", &result, &backward);
        assert_same(level, "dx", &fast.values(), &dx);
        let mut fast = x.clone();
        let result = alpha_dropout_backward(fast.view_mut(), &keyed, saved);
        assert_same_outcome(level, "backward in place", &result, &backward);
        let expected = if result.is_ok() { dx.clone() } else { x.values() };
        assert_same(level, "dx in place", &fast.values(), &expected);
    });
    Ok(())
}
