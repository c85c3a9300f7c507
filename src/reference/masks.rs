//! The reference of shared decisions, and of rates for rows and columns.

use super::{Real, at, decides, for_each, given_mask};
use crate::elementwise::BroadcastDropout;
use crate::error::{Result, check_equal, check_shape};
use crate::mask::{ForwardMask, Mask, MaskKey, Rates};
use crate::view::{MatMut, MatRef};

/// `y = keep ? x · scale : 0`, with one decision for all elements that share it.
///
/// # Errors
///
/// As for the fast function.
pub fn broadcast_dropout_forward<'m, T: Real>(
    args: &BroadcastDropout,
    x: &[T],
    y: &mut [T],
    mask: impl Into<ForwardMask<'m>>,
) -> Result<()> {
    check_equal("length of x", x.len(), "length of y", y.len())?;
    let mask = mask.into();
    args.check(("length of x", x.len()), &mask)?;
    let (rows, cols) = args.shape.mask_shape();
    let given = given_mask(mask, ("the reduced tensor", rows, cols), &args.dropout, &args.key)?;
    for (i, (x, y)) in x.iter().zip(y).enumerate() {
        let mut indices = args.shape.dims().to_vec();
        let mut rest = i;
        for index in indices.iter_mut().rev() {
            (*index, rest) = (rest % *index, rest / *index);
        }
        let place = args.shape.mask_index(&indices);
        let kept =
            place.is_some_and(|(row, col)| decides(given, &args.dropout, &args.key, row, col));
        *y = if kept { *x * T::scale(&args.dropout) } else { T::ZERO };
    }
    Ok(())
}

/// `dx = keep ? dy · scale : 0`.
///
/// # Errors
///
/// As for the fast function.
pub fn broadcast_dropout_backward<T: Real>(
    args: &BroadcastDropout,
    dy: &[T],
    dx: &mut [T],
    mask: Option<&Mask>,
) -> Result<()> {
    let mask = mask.map_or(ForwardMask::Forget, ForwardMask::Given);
    broadcast_dropout_forward(args, dy, dx, mask)
}

/// All bits of a mask with a rate for each row or column, row after row.
///
/// # Errors
///
/// As for the fast function.
pub fn mask_with_rates(
    rows: usize,
    cols: usize,
    rates: &Rates,
    key: &MaskKey,
) -> Result<Vec<bool>> {
    rates.check(rows, cols)?;
    key.check(rows, cols)?;
    let mut mask = Vec::with_capacity(rows * cols);
    for_each(rows, cols, |r, c| mask.push(super::keeps(&rates.of(r, c), key, r, c)));
    Ok(mask)
}

/// `y = keep ? x · scale : 0` with the rate of the element's row or column.
///
/// # Errors
///
/// As for the fast function.
pub fn rates_dropout_forward<'m, T: Real>(
    x: MatRef<'_, T>,
    mut y: MatMut<'_, T>,
    rates: &Rates,
    key: &MaskKey,
    mask: impl Into<ForwardMask<'m>>,
) -> Result<()> {
    check_shape(x.named("x"), y.named("y"))?;
    rates.check(x.rows(), x.cols())?;
    key.check(x.rows(), x.cols())?;
    let mask = mask.into();
    mask.check(x.named("x"))?;
    let given = match mask {
        ForwardMask::Forget => None,
        ForwardMask::Store(mask) => mask.fill_with_rates(rates, key).map(|()| None)?,
        ForwardMask::Given(mask) => Some(mask),
    };
    for_each(x.rows(), x.cols(), |r, c| {
        let dropout = rates.of(r, c);
        let kept = decides(given, &dropout, key, r, c);
        y.set(r, c, if kept { at(&x, r, c) * T::scale(&dropout) } else { T::ZERO });
    });
    Ok(())
}

/// `dx = keep ? dy · scale : 0`.
///
/// # Errors
///
/// As for the fast function.
pub fn rates_dropout_backward<T: Real>(
    dy: MatRef<'_, T>,
    dx: MatMut<'_, T>,
    rates: &Rates,
    key: &MaskKey,
    mask: Option<&Mask>,
) -> Result<()> {
    let mask = mask.map_or(ForwardMask::Forget, ForwardMask::Given);
    rates_dropout_forward(dy, dx, rates, key, mask)
}
