//! Dropout with a rate for each row or for each column.

use super::kernel::{Pass, Tensors};
use super::ops::Op;
use crate::Level;
use crate::error::Result;
use crate::isa::Isa;
use crate::mask::{Bits, KeyedDropout, MaskSource, RateAxis, Rates};
use crate::view::InOut;

/// `y = keep ? x · scale : 0` with the threshold and the scale of the element's row or column.
///
/// x, y and the mask are [rows, cols]; there is one rate a row or one a column, as
/// [`Rates`] says. The mask is made, stored or given as [`MaskSource`] says.
///
/// ```
/// use fused_dropout::elementwise::{rates_dropout_backward, rates_dropout_forward};
/// use fused_dropout::mask::Rates;
/// use fused_dropout::{MaskKey, MaskSource, MatMut, MatRef};
///
/// let rates = Rates::per_column(&[0.0, 0.5, 1.0])?;
/// let keyed = rates.with_key(MaskKey::new(42, 1, 0)?);
/// let (x, mut y) = ([1.0; 6], [9.0; 6]);
/// let xy = (MatRef::new(&x, 2, 3)?, MatMut::new(&mut y, 2, 3)?);
/// rates_dropout_forward(xy, &keyed, MaskSource::Key)?;
/// assert_eq!((y[0], y[2], y[3], y[5]), (1.0, 0.0, 1.0, 0.0));
///
/// let mut dx = [1.0; 6];
/// rates_dropout_backward(MatMut::new(&mut dx, 2, 3)?, &keyed, MaskSource::Key)?;
/// assert_eq!(dx, y);
/// # Ok::<(), fused_dropout::Error>(())
/// ```
///
/// # Errors
///
/// When shapes differ, also that of a mask, there is not one rate for each row or column, or the key's
/// origin and the shape go past what a mask can address.
pub fn rates_dropout_forward<'a, 'm>(
    xy: impl Into<InOut<'a>>,
    rates: &KeyedDropout<&Rates>,
    mask: impl Into<MaskSource<'m>>,
) -> Result<()> {
    run(xy.into(), ("x", "y"), rates, mask.into())
}

/// `dx = keep ? dy · scale : 0`, the gradient of [`rates_dropout_forward`], of the same shapes.
///
/// # Errors
///
/// As for [`rates_dropout_forward`].
pub fn rates_dropout_backward<'a, 'm>(
    dy_dx: impl Into<InOut<'a>>,
    rates: &KeyedDropout<&Rates>,
    mask: impl Into<MaskSource<'m>>,
) -> Result<()> {
    run(dy_dx.into(), ("dy", "dx"), rates, mask.into())
}

/// Rows and columns, if the arguments agree with each other; input and output have these names.
pub(crate) fn check_rates<T>(
    xy: &InOut<'_, T>,
    (input, output): (&'static str, &'static str),
    rates: &KeyedDropout<&Rates>,
    mask: &MaskSource<'_>,
) -> Result<(usize, usize)> {
    let (rows, cols) = xy.check(input, output)?;
    rates.check_matrix(rows, cols)?;
    mask.check((input, rows, cols))?;
    Ok((rows, cols))
}

fn run(
    mut xy: InOut<'_>,
    names: (&'static str, &'static str),
    rates: &KeyedDropout<&Rates>,
    mask: MaskSource<'_>,
) -> Result<()> {
    let (rows, cols) = check_rates(&xy, names, rates, &mask)?;
    let level = Level::current()?;
    if rows == 0 || cols == 0 {
        return Ok(());
    }
    let (main, out) = xy.pointers();
    let (scales, axis) = (rates.dropout().scales(), rates.dropout().axis());
    let bias = (axis == RateAxis::Column).then_some(scales);
    let run = |bits| {
        let tensors = Tensors { rows, cols, main, second: None, bias, out, sum: None, bits };
        // SAFETY: views of this shape, which are borrowed for this call, and their mask.
        let pass = unsafe { Pass::new(tensors) };
        match axis {
            RateAxis::Row => pass.run(level, &ScaleRows { scales, scale: 1.0 }),
            RateAxis::Column => pass.run(level, &ScaleColumns),
        }
    };
    match mask {
        MaskSource::Key => rates.with_bits(level, None, run)?,
        MaskSource::Store(mask) => rates.with_bits(level, Some(mask), run)?,
        MaskSource::Given(mask) => run(Bits::stored(mask)),
    }
    Ok(())
}

/// `keep ? main · scale : 0` with a scale for each row.
#[derive(Clone, Copy)]
struct ScaleRows<'a> {
    scales: &'a [f32],
    scale: f32,
}

impl Op for ScaleRows<'_> {
    const BY_ROW: bool = true;

    type General = Self;

    fn general(self) -> Self {
        self
    }

    #[inline(always)]
    fn at_row(self, row: usize) -> Self {
        Self { scale: self.scales[row], ..self }
    }

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I, main: I::F32, _: I::F32, _: I::F32, keep: I::Mask) -> I::F32 {
        isa.keep(keep, isa.mul(main, isa.splat(self.scale)))
    }
}

/// `keep ? main · scale : 0` with a scale for each column, in the place of the bias.
#[derive(Clone, Copy)]
struct ScaleColumns;

impl Op for ScaleColumns {
    type General = Self;

    fn general(self) -> Self {
        self
    }

    #[inline(always)]
    fn bias(self) -> bool {
        true
    }

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I, main: I::F32, _: I::F32, scale: I::F32, keep: I::Mask) -> I::F32 {
        isa.keep(keep, isa.mul(main, scale))
    }
}
