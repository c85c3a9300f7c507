//! The reference of alpha dropout.

use super::{Real, decides, for_each, given, parts};
use crate::elementwise::{AlphaDropout, check_alpha};
use crate::error::Result;
use crate::mask::{KeyedDropout, MaskSource};
use crate::view::InOut;

/// `y = keep ? a x + b : a α' + b`.
///
/// # Errors
///
/// As for the fast function.
pub fn alpha_dropout_forward<'a, 'm, T: Real>(
    xy: impl Into<InOut<'a, T>>,
    dropout: &KeyedDropout<AlphaDropout>,
    mask: impl Into<MaskSource<'m>>,
) -> Result<()> {
    let (alpha, number) = (dropout.dropout(), T::from_f64);
    let (scale, shift) = (number(alpha.scale()), number(alpha.shift()));
    let kept = |x: T| x.mul_add(scale, shift);
    run(xy.into(), ("x", "y"), dropout, mask.into(), kept, number(alpha.dropped()))
}

/// `dx = keep ? dy · a : 0`.
///
/// # Errors
///
/// As for the fast function.
pub fn alpha_dropout_backward<'a, 'm, T: Real>(
    dy_dx: impl Into<InOut<'a, T>>,
    dropout: &KeyedDropout<AlphaDropout>,
    mask: impl Into<MaskSource<'m>>,
) -> Result<()> {
    let scale = T::from_f64(dropout.dropout().scale());
    run(dy_dx.into(), ("dy", "dx"), dropout, mask.into(), |dy| dy * scale, T::ZERO)
}

/// `keep ? kept(x) : dropped`, with one decision a column where the key is of units.
fn run<T: Real>(
    xy: InOut<'_, T>,
    names: (&'static str, &'static str),
    dropout: &KeyedDropout<AlphaDropout>,
    mask: MaskSource<'_>,
    kept: impl Fn(T) -> T,
    dropped: T,
) -> Result<()> {
    let (rows, cols) = check_alpha(&xy, names, dropout.key(), &mask)?;
    let dropout = dropout.of_mask();
    let given = given(mask, &dropout)?;
    let (x, mut y) = parts(xy);
    for_each(rows, cols, |r, c| {
        let row = if dropout.key().is_units() { 0 } else { r };
        let keep = decides(given, &dropout, row, c);
        y.put(r, c, if keep { kept(x[r * cols + c]) } else { dropped });
    });
    Ok(())
}
