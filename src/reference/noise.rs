//! The reference of Gaussian dropout, alpha dropout, and softmax with dropout.

use super::{Real, at, decides, for_each, given_mask};
use crate::elementwise::{AlphaDropout, GaussianDropout, mask_of};
use crate::error::{Result, check_shape};
use crate::mask::{ForwardMask, Mask, MaskKey};
use crate::philox::philox4x32_10;
use crate::softmax::SoftmaxDropout;
use crate::view::{MatMut, MatRef};

/// The standard normal number of row `row`, column `col` of an operation.
pub fn normal<T: Real>(key: &MaskKey, row: usize, col: usize) -> T {
    let (row, col) = (key.row0() + row as u64, key.col0() + col as u64);
    let i = (col % 128) as u32;
    let word = |i: u32| {
        let (counter, key) = key.noise().counter(row as u32, (col / 128) as u32, i / 4);
        philox4x32_10(counter, key)[i as usize % 4]
    };
    let first = i / 32 * 32 + i % 16;
    let (z0, z1) = T::normals(word(first), word(first + 16));
    if i % 32 < 16 { z0 } else { z1 }
}

/// The standard normal numbers of a key.
///
/// # Errors
///
/// As for the fast function.
pub fn standard_normal<T: Real>(mut z: MatMut<'_, T>, key: &MaskKey) -> Result<()> {
    key.noise().check(z.rows(), z.cols())?;
    for_each(z.rows(), z.cols(), |r, c| z.set(r, c, normal(key, r, c)));
    Ok(())
}

/// `y = x · (1 + σ z)`.
///
/// # Errors
///
/// As for the fast function.
pub fn gaussian_dropout_forward<T: Real>(
    x: MatRef<'_, T>,
    mut y: MatMut<'_, T>,
    dropout: &GaussianDropout,
    key: &MaskKey,
) -> Result<()> {
    check_shape(x.named("x"), y.named("y"))?;
    key.noise().check(x.rows(), x.cols())?;
    for_each(x.rows(), x.cols(), |r, c| {
        let sigma = T::from_f64(dropout.sigma_f64());
        let factor = sigma.mul_add(normal(key, r, c), T::from_f64(1.0));
        y.set(r, c, at(&x, r, c) * factor);
    });
    Ok(())
}

/// `dx = dy · (1 + σ z)`.
///
/// # Errors
///
/// As for the fast function.
pub fn gaussian_dropout_backward<T: Real>(
    dy: MatRef<'_, T>,
    dx: MatMut<'_, T>,
    dropout: &GaussianDropout,
    key: &MaskKey,
) -> Result<()> {
    check_shape(dy.named("dy"), dx.named("dx"))?;
    gaussian_dropout_forward(dy, dx, dropout, key)
}

/// Whether an element is kept, with one decision a column where the key is of units.
fn keeps(
    given: Option<&Mask>,
    dropout: &AlphaDropout,
    key: &MaskKey,
    row: usize,
    col: usize,
) -> bool {
    decides(given, dropout.dropout(), key, if key.is_units() { 0 } else { row }, col)
}

/// `y = keep ? a x + b : a α' + b`.
///
/// # Errors
///
/// As for the fast function.
pub fn alpha_dropout_forward<'m, T: Real>(
    x: MatRef<'_, T>,
    mut y: MatMut<'_, T>,
    dropout: &AlphaDropout,
    key: &MaskKey,
    mask: impl Into<ForwardMask<'m>>,
) -> Result<()> {
    check_shape(x.named("x"), y.named("y"))?;
    let shape = mask_of("x", (x.rows(), x.cols()), key)?;
    let given = given_mask(mask.into(), shape, dropout.dropout(), key)?;
    let (scale, shift) = (T::from_f64(dropout.scale()), T::from_f64(dropout.shift()));
    for_each(x.rows(), x.cols(), |r, c| {
        let value = at(&x, r, c).mul_add(scale, shift);
        let kept = keeps(given, dropout, key, r, c);
        y.set(r, c, if kept { value } else { T::from_f64(dropout.dropped()) });
    });
    Ok(())
}

/// `dx = keep ? dy · a : 0`.
///
/// # Errors
///
/// As for the fast function.
pub fn alpha_dropout_backward<T: Real>(
    dy: MatRef<'_, T>,
    mut dx: MatMut<'_, T>,
    dropout: &AlphaDropout,
    key: &MaskKey,
    mask: Option<&Mask>,
) -> Result<()> {
    check_shape(dy.named("dy"), dx.named("dx"))?;
    let shape = mask_of("dy", (dy.rows(), dy.cols()), key)?;
    mask.map_or(Ok(()), |mask| mask.check(shape))?;
    for_each(dy.rows(), dy.cols(), |r, c| {
        let value = at(&dy, r, c) * T::from_f64(dropout.scale());
        dx.set(r, c, if keeps(mask, dropout, key, r, c) { value } else { T::ZERO });
    });
    Ok(())
}

/// Whether row `row` sees column `col`.
fn sees(args: &SoftmaxDropout, row: usize, col: usize) -> bool {
    args.causal.is_none_or(|offset| col <= row.saturating_add(offset))
}

/// The sum of 16 lanes, in the fixed tree.
fn tree<T: Real>(mut lanes: [T; 16]) -> T {
    for half in [8, 4, 2, 1] {
        for i in 0..half {
            lanes[i] = lanes[i] + lanes[i + half];
        }
    }
    lanes[0]
}

/// `y = keep ? softmax(x) · scale : 0`.
///
/// # Errors
///
/// As for the fast function.
pub fn softmax_dropout_forward<'m, T: Real>(
    args: &SoftmaxDropout,
    x: MatRef<'_, T>,
    mut y: MatMut<'_, T>,
    mut probabilities: Option<MatMut<'_, T>>,
    mask: impl Into<ForwardMask<'m>>,
) -> Result<()> {
    let SoftmaxDropout { dropout, key, .. } = args;
    check_shape(x.named("x"), y.named("y"))?;
    key.check(x.rows(), x.cols())?;
    if let Some(p) = &probabilities {
        check_shape(p.named("the probabilities"), x.named("x"))?;
    }
    let given = given_mask(mask.into(), x.named("x"), dropout, key)?;
    let nothing = T::from_f64(f64::NEG_INFINITY);
    for r in 0..x.rows() {
        let seen = (0..x.cols()).filter(|&c| sees(args, r, c)).map(|c| at(&x, r, c));
        let largest = seen.clone().fold(nothing, |most, x| if most < x { x } else { most });
        let shift = if largest == nothing { T::ZERO } else { largest };
        let mut lanes = [T::ZERO; 16];
        for (c, x) in seen.enumerate() {
            lanes[c % 16] = lanes[c % 16] + (x - shift).exp();
        }
        let sum = tree(lanes);
        let reciprocal = if sum == T::ZERO { T::ZERO } else { T::from_f64(1.0) / sum };
        for c in 0..x.cols() {
            let visible = sees(args, r, c);
            let p = if visible { (at(&x, r, c) - shift).exp() * reciprocal } else { T::ZERO };
            if let Some(probabilities) = &mut probabilities {
                probabilities.set(r, c, p);
            }
            let kept = visible && decides(given, dropout, key, r, c);
            y.set(r, c, if kept { p * T::scale(dropout) } else { T::ZERO });
        }
    }
    Ok(())
}

/// `dx = p · (g - sum of g · p)`, `g = keep ? dy · scale : 0`.
///
/// # Errors
///
/// As for the fast function.
pub fn softmax_dropout_backward<T: Real>(
    args: &SoftmaxDropout,
    probabilities: MatRef<'_, T>,
    dy: MatRef<'_, T>,
    mut dx: MatMut<'_, T>,
    mask: Option<&Mask>,
) -> Result<()> {
    let SoftmaxDropout { dropout, key, .. } = args;
    check_shape(dy.named("dy"), dx.named("dx"))?;
    check_shape(probabilities.named("the probabilities"), dy.named("dy"))?;
    key.check(dy.rows(), dy.cols())?;
    mask.map_or(Ok(()), |mask| mask.check(dy.named("dy")))?;
    let p = |r, c| at(&probabilities, r, c);
    let g = |r, c| {
        let kept = decides(mask, dropout, key, r, c);
        if kept { at(&dy, r, c) * T::scale(dropout) } else { T::ZERO }
    };
    for r in 0..dy.rows() {
        let mut lanes = [T::ZERO; 16];
        for c in (0..dy.cols()).filter(|&c| sees(args, r, c)) {
            lanes[c % 16] = g(r, c).mul_add(p(r, c), lanes[c % 16]);
        }
        let sum = tree(lanes);
        for c in 0..dy.cols() {
            dx.set(r, c, if sees(args, r, c) { p(r, c) * (g(r, c) - sum) } else { T::ZERO });
        }
    }
    Ok(())
}
