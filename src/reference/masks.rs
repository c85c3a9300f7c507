//! The reference of shared decisions, of rates for rows and columns, and of rates for steps.

use super::{Real, at, decides, for_each, given_mask};
use crate::elementwise::BroadcastDropout;
use crate::error::{Result, check_equal, check_shape};
use crate::mask::{ForwardMask, Mask, MaskKey, RateSchedule, Rates};
use crate::philox::philox4x32_10;
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

/// [`RateSchedule::rate_at`]: 1 minus the keep probability of the step.
///
/// # Errors
///
/// As for the fast function.
pub fn rate_at(schedule: &RateSchedule, rate: f64, step: u32) -> Result<f64> {
    // Refuses what the fast function does.
    schedule.rate_at(rate, step)?;
    let (keep, t) = (1.0 - rate, f64::from(step));
    Ok(match *schedule {
        RateSchedule::Linear { from, steps } if step < steps => {
            let share = t / f64::from(steps);
            from * (1.0 - share) + rate * share
        }
        RateSchedule::Constant | RateSchedule::Linear { .. } => rate,
        RateSchedule::Curriculum { gamma } => 1.0 - ((1.0 - keep) * (-gamma * t).exp() + keep),
    })
}

/// `most · u`, where the bits of u after the binary point are the 32 of word 1 and the upper 21 of word
/// 0 of the block with the counter `[2, row, step, layer << 7 | 2 << 5]`.
///
/// # Errors
///
/// As for the fast function.
pub fn drawn_rate(most: f64, key: &MaskKey, row: u32) -> Result<f64> {
    crate::mask::drawn_rate(most, key, row)?;
    let (counter, seed) = key.selection().counter(row, 2, 0);
    let words = philox4x32_10(counter, seed);
    let bit = |word: usize, i: u32| f64::from(words[word] >> i & 1);
    let high: f64 = (0..32).map(|i| bit(1, i) * 2f64.powi(i as i32 - 32)).sum();
    let low: f64 = (11..32).map(|i| bit(0, i) * 2f64.powi(i as i32 - 64)).sum();
    Ok(most * (high + low))
}
