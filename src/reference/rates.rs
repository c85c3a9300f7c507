//! The reference of dropout with a rate for each row or column.

use super::{Real, decides, for_each, keeps, parts, room};
use crate::elementwise::check_rates;
use crate::error::Result;
use crate::mask::{KeyedDropout, MaskSource, Rates};
use crate::view::InOut;

/// All bits of a mask with a rate for each row or column, row after row.
///
/// # Errors
///
/// As for the fast function.
pub fn mask_with_rates(
    rows: usize,
    cols: usize,
    rates: &KeyedDropout<&Rates>,
) -> Result<Vec<bool>> {
    rates.check_matrix(rows, cols)?;
    let mut mask = room(rows, cols)?;
    for_each(rows, cols, |r, c| mask.push(keeps(&rates.of(r, c), r, c)));
    Ok(mask)
}

/// `y = keep ? x · scale : 0` with the rate of the element's row or column.
///
/// # Errors
///
/// As for the fast function.
pub fn rates_dropout_forward<'a, 'm, T: Real>(
    xy: impl Into<InOut<'a, T>>,
    rates: &KeyedDropout<&Rates>,
    mask: impl Into<MaskSource<'m>>,
) -> Result<()> {
    run(xy.into(), ("x", "y"), rates, mask.into())
}

/// `dx = keep ? dy · scale : 0`.
///
/// # Errors
///
/// As for the fast function.
pub fn rates_dropout_backward<'a, 'm, T: Real>(
    dy_dx: impl Into<InOut<'a, T>>,
    rates: &KeyedDropout<&Rates>,
    mask: impl Into<MaskSource<'m>>,
) -> Result<()> {
    run(dy_dx.into(), ("dy", "dx"), rates, mask.into())
}

fn run<T: Real>(
    xy: InOut<'_, T>,
    names: (&'static str, &'static str),
    rates: &KeyedDropout<&Rates>,
    mask: MaskSource<'_>,
) -> Result<()> {
    let (rows, cols) = check_rates(&xy, names, rates, &mask)?;
    let given = match mask {
        MaskSource::Key => None,
        MaskSource::Store(mask) => mask.fill_with_rates(rates).map(|()| None)?,
        MaskSource::Given(mask) => Some(mask),
    };
    let (x, mut y) = parts(xy);
    for_each(rows, cols, |r, c| {
        let dropout = rates.of(r, c);
        let kept = decides(given, &dropout, r, c);
        let value = x[r * cols + c] * T::scale(dropout.dropout());
        y.put(r, c, if kept { value } else { T::ZERO });
    });
    Ok(())
}
