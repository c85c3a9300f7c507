//! The reference of Gaussian dropout, and of its numbers.

use super::{Real, for_each, parts};
use crate::elementwise::GaussianDropout;
use crate::error::Result;
use crate::mask::{KeyedDropout, MaskKey};
use crate::philox::philox4x32_10;
use crate::view::{InOut, MatMut};

/// The standard normal number of row `row`, column `col` of an operation.
#[must_use]
pub fn normal<T: Real>(key: &MaskKey, row: usize, col: usize) -> T {
    let (row, col) = (key.row0().wrapping_add(row as u64), key.col0().wrapping_add(col as u64));
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
    for_each(z.rows(), z.cols(), |r, c| z.put(r, c, normal(key, r, c)));
    Ok(())
}

/// `y = x · (1 + σ z)`.
///
/// # Errors
///
/// As for the fast function.
pub fn gaussian_dropout_forward<'a, T: Real>(
    xy: impl Into<InOut<'a, T>>,
    dropout: &KeyedDropout<GaussianDropout>,
) -> Result<()> {
    run(xy.into(), ("x", "y"), dropout)
}

/// `dx = dy · (1 + σ z)`.
///
/// # Errors
///
/// As for the fast function.
pub fn gaussian_dropout_backward<'a, T: Real>(
    dy_dx: impl Into<InOut<'a, T>>,
    dropout: &KeyedDropout<GaussianDropout>,
) -> Result<()> {
    run(dy_dx.into(), ("dy", "dx"), dropout)
}

fn run<T: Real>(
    xy: InOut<'_, T>,
    (input, output): (&'static str, &'static str),
    dropout: &KeyedDropout<GaussianDropout>,
) -> Result<()> {
    let (rows, cols) = xy.check(input, output)?;
    let key = dropout.key();
    key.noise().check(rows, cols)?;
    let (x, mut y) = parts(xy);
    let sigma = T::from_f64(dropout.dropout().sigma_f64());
    for_each(rows, cols, |r, c| {
        let factor = sigma.mul_add(normal(key, r, c), T::from_f64(1.0));
        y.put(r, c, x[r * cols + c] * factor);
    });
    Ok(())
}
