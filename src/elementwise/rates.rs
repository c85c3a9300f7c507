//! Dropout with a rate for each row or for each column.

use super::kernel::{Pass, Tensors};
use super::ops::Op;
use crate::Level;
use crate::error::{Result, check_shape};
use crate::isa::Isa;
use crate::mask::{Bits, ForwardMask, Mask, MaskKey, RateAxis, Rates};
use crate::view::{MatMut, MatRef, Source, Target};

/// `y = keep ? x · scale : 0` with the threshold and the scale of the element's row or column, the
/// mask made, stored or given as [`ForwardMask`] says. Shapes [rows, cols].
///
/// # Errors
///
/// When shapes differ, there is not one rate for each row or column, or the key's origin and the shape
/// go past what a mask can address.
pub fn rates_dropout_forward<'m>(
    x: MatRef<'_>,
    mut y: MatMut<'_>,
    rates: &Rates,
    key: &MaskKey,
    mask: impl Into<ForwardMask<'m>>,
) -> Result<()> {
    check_shape(x.named("x"), y.named("y"))?;
    let shape = (x.rows(), x.cols());
    run(("x", shape.0, shape.1), x.source(), y.target(), rates, key, mask.into())
}

/// [`rates_dropout_forward`] with `x` overwritten by `y`.
///
/// # Errors
///
/// As for [`rates_dropout_forward`].
pub fn rates_dropout_forward_in_place<'m>(
    mut x: MatMut<'_>,
    rates: &Rates,
    key: &MaskKey,
    mask: impl Into<ForwardMask<'m>>,
) -> Result<()> {
    let y = x.target();
    run(("x", x.rows(), x.cols()), y.source(), y, rates, key, mask.into())
}

/// `dx = keep ? dy · scale : 0`, with the stored mask or, without one, the mask of the key.
///
/// # Errors
///
/// As for [`rates_dropout_forward`].
pub fn rates_dropout_backward(
    dy: MatRef<'_>,
    mut dx: MatMut<'_>,
    rates: &Rates,
    key: &MaskKey,
    mask: Option<&Mask>,
) -> Result<()> {
    check_shape(dy.named("dy"), dx.named("dx"))?;
    let mask = mask.map_or(ForwardMask::Forget, ForwardMask::Given);
    run(("dy", dy.rows(), dy.cols()), dy.source(), dx.target(), rates, key, mask)
}

/// [`rates_dropout_backward`] with `dy` overwritten by `dx`.
///
/// # Errors
///
/// As for [`rates_dropout_forward`].
pub fn rates_dropout_backward_in_place(
    mut dy: MatMut<'_>,
    rates: &Rates,
    key: &MaskKey,
    mask: Option<&Mask>,
) -> Result<()> {
    let dx = dy.target();
    let mask = mask.map_or(ForwardMask::Forget, ForwardMask::Given);
    run(("dy", dy.rows(), dy.cols()), dx.source(), dx, rates, key, mask)
}

fn run(
    matrix: (&'static str, usize, usize),
    x: Source,
    y: Target,
    rates: &Rates,
    key: &MaskKey,
    mask: ForwardMask<'_>,
) -> Result<()> {
    let (_, rows, cols) = matrix;
    rates.check(rows, cols)?;
    key.check(rows, cols)?;
    mask.check(matrix)?;
    let level = Level::current()?;
    let scales = rates.scales();
    let bias = (rates.axis() == RateAxis::Column).then_some(scales);
    let run = |bits| {
        let tensors = Tensors { rows, cols, main: x, second: None, bias, out: y, sum: None, bits };
        // SAFETY: views of this shape, which are borrowed for this call, and their mask.
        let pass = unsafe { Pass::new(tensors) };
        match rates.axis() {
            RateAxis::Row => pass.run(level, &ScaleRows { scales, scale: 1.0 }),
            RateAxis::Column => pass.run(level, &ScaleColumns),
        }
    };
    match mask {
        ForwardMask::Forget => rates.with_bits(key, None, run),
        ForwardMask::Store(mask) => rates.with_bits(key, Some(mask), run),
        ForwardMask::Given(mask) => run(Bits::stored(mask)),
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
    #[inline(always)]
    fn bias(self) -> bool {
        true
    }

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I, main: I::F32, _: I::F32, scale: I::F32, keep: I::Mask) -> I::F32 {
        isa.keep(keep, isa.mul(main, scale))
    }
}
