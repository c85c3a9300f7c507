//! The reference of dropout whose decisions are shared along axes of a tensor.

use super::{Real, decides, given, parts};
use crate::elementwise::{BroadcastDropout, DY_DX, Names, XY};
use crate::error::Result;
use crate::mask::MaskSource;
use crate::view::InOut;

/// `y = keep ? x · scale : 0`, with one decision for all elements that share it.
///
/// # Errors
///
/// As for the fast function.
pub fn broadcast_dropout_forward<'a, 'm, T: Real>(
    args: &BroadcastDropout,
    xy: impl Into<InOut<'a, T>>,
    mask: impl Into<MaskSource<'m>>,
) -> Result<()> {
    run(args, xy.into(), XY, mask.into())
}

/// `dx = keep ? dy · scale : 0`.
///
/// # Errors
///
/// As for the fast function.
pub fn broadcast_dropout_backward<'a, 'm, T: Real>(
    args: &BroadcastDropout,
    dy_dx: impl Into<InOut<'a, T>>,
    mask: impl Into<MaskSource<'m>>,
) -> Result<()> {
    run(args, dy_dx.into(), DY_DX, mask.into())
}

fn run<T: Real>(
    args: &BroadcastDropout,
    xy: InOut<'_, T>,
    names: (Names, Names),
    mask: MaskSource<'_>,
) -> Result<()> {
    args.check(&xy, names, &mask)?;
    let given = given(mask, &args.dropout)?;
    let (x, mut y) = parts(xy);
    for (i, x) in x.into_iter().enumerate() {
        let mut indices = args.shape.dims().to_vec();
        let mut rest = i;
        for index in indices.iter_mut().rev() {
            (*index, rest) = (rest % *index, rest / *index);
        }
        let place = args.shape.mask_index(&indices);
        let kept = place.is_some_and(|(row, col)| decides(given, &args.dropout, row, col));
        let value = if kept { x * T::scale(args.dropout.dropout()) } else { T::ZERO };
        y.put(i / y.cols(), i % y.cols(), value);
    }
    Ok(())
}
