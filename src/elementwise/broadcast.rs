//! Dropout whose decisions are shared along axes of a tensor.

mod runs;

use super::kernel::Pass;
use super::{Run, Step};
use crate::Level;
use crate::activation::Activation;
use crate::buffers::{Lease, Slot};
use crate::error::{Result, check_equal};
use crate::isa::caches;
use crate::mask::{Bits, BroadcastShape, Dropout, ForwardMask, Mask, MaskKey, Repeat};
use crate::view::{MatMut, MatRef, Source, Target};
use runs::Runs;

/// Elements from which on a run with one decision is scaled or cleared as a whole; the bits of a
/// shorter one are spread over its elements. At 64 a run has no more than one vector that is not
/// whole to four that are, on every level.
const RUN: usize = 64;

/// Dropout with one decision for all elements that share it.
#[derive(Clone, Copy, Debug)]
pub struct BroadcastDropout {
    /// The tensor, and the axes along which its elements share a decision.
    pub shape: BroadcastShape,
    /// How much to drop.
    pub dropout: Dropout,
    /// Which mask.
    pub key: MaskKey,
}

/// `y = keep ? x · scale : 0` for tensors of the shape of `args`, row-major, where elements share
/// decisions as [`BroadcastShape`] says. The mask, of the reduced shape, is made once; it is made,
/// stored or given as [`ForwardMask`] says.
///
/// # Errors
///
/// When a length is not that of the shape, a mask has not the shape
/// [`mask_shape`](BroadcastShape::mask_shape), or the key's origin and that shape go past what a mask
/// can address.
pub fn broadcast_dropout_forward<'m>(
    args: &BroadcastDropout,
    x: &[f32],
    y: &mut [f32],
    mask: impl Into<ForwardMask<'m>>,
) -> Result<()> {
    check_equal("length of x", x.len(), "length of y", y.len())?;
    let (x, mut y) = (MatRef::row_vector(x), MatMut::row_vector(y));
    run(args, ("length of x", x.cols()), x.source(), y.target(), mask.into())
}

/// [`broadcast_dropout_forward`] with `x` overwritten by `y`.
///
/// # Errors
///
/// As for [`broadcast_dropout_forward`].
pub fn broadcast_dropout_forward_in_place<'m>(
    args: &BroadcastDropout,
    x: &mut [f32],
    mask: impl Into<ForwardMask<'m>>,
) -> Result<()> {
    let len = x.len();
    let y = MatMut::row_vector(x).target();
    run(args, ("length of x", len), y.source(), y, mask.into())
}

/// `dx = keep ? dy · scale : 0`, with the stored mask or, without one, the mask of the key.
///
/// # Errors
///
/// As for [`broadcast_dropout_forward`].
pub fn broadcast_dropout_backward(
    args: &BroadcastDropout,
    dy: &[f32],
    dx: &mut [f32],
    mask: Option<&Mask>,
) -> Result<()> {
    check_equal("length of dy", dy.len(), "length of dx", dx.len())?;
    let (dy, mut dx) = (MatRef::row_vector(dy), MatMut::row_vector(dx));
    let mask = mask.map_or(ForwardMask::Forget, ForwardMask::Given);
    run(args, ("length of dy", dy.cols()), dy.source(), dx.target(), mask)
}

/// [`broadcast_dropout_backward`] with `dy` overwritten by `dx`.
///
/// # Errors
///
/// As for [`broadcast_dropout_forward`].
pub fn broadcast_dropout_backward_in_place(
    args: &BroadcastDropout,
    dy: &mut [f32],
    mask: Option<&Mask>,
) -> Result<()> {
    let len = dy.len();
    let dx = MatMut::row_vector(dy).target();
    let mask = mask.map_or(ForwardMask::Forget, ForwardMask::Given);
    run(args, ("length of dy", len), dx.source(), dx, mask)
}

impl BroadcastDropout {
    /// `Ok` when the operation can be applied to so many elements, given with their name, and this
    /// mask.
    pub(crate) fn check(
        &self,
        (name, len): (&'static str, usize),
        mask: &ForwardMask<'_>,
    ) -> Result<()> {
        check_equal(name, len, "elements of the shape", self.shape.len())?;
        let (rows, cols) = self.shape.mask_shape();
        self.key.check(rows, cols)?;
        mask.check(("the reduced tensor", rows, cols))
    }
}

fn run(
    args: &BroadcastDropout,
    named: (&'static str, usize),
    x: Source,
    y: Target,
    mask: ForwardMask<'_>,
) -> Result<()> {
    args.check(named, &mask)?;
    let level = Level::current()?;
    let (rows, cols) = args.shape.mask_shape();
    let nest = args.shape.nest();
    let pass = |rows, cols, bits| {
        // A tensor is stored without gaps, so it is a matrix of any shape of its size.
        let (main, out) = (x.in_rows_of(cols), y.in_rows_of(cols));
        let pass = Pass { rows, cols, main, second: None, bias: None, out, sum: None, bits };
        let step = Step::Forward { scale: args.dropout.scale() };
        Activation::Identity.with(Run { level, pass, step });
    };
    if nest.is_elements() {
        pass(rows, cols, mask.bits(&args.dropout, &args.key));
        return Ok(());
    }
    let mut reduced: Lease<Mask> = Slot::Decisions.take();
    reduce(args, mask, &mut reduced, |words| {
        let (outer, inner) = nest.split_inner();
        match inner {
            _ if named.1 == 0 => {}
            Some(inner) if inner.step == 0 && inner.size >= RUN => {
                let (len, scale) = (named.1, args.dropout.scale());
                // Where both tensors together are larger than the level-3 cache, the start of the output
                // would be gone from it before the end is written.
                let streams = len > caches().level_3 / 8 && !y.source().same_as(x);
                Runs { x, y, len, nest: outer, run: inner.size, words, scale, streams }.run(level);
            }
            _ => pass(1, named.1, Bits::Repeated(Repeat::new(words, nest))),
        }
    })
}

/// Calls `f` with the reduced mask, its bits following each other without padding.
fn reduce(
    args: &BroadcastDropout,
    mask: ForwardMask<'_>,
    reduced: &mut Mask,
    f: impl FnOnce(&[u32]),
) -> Result<()> {
    let (rows, cols) = args.shape.mask_shape();
    let stored = match mask {
        ForwardMask::Forget => {
            reduced.reshape(rows, cols)?;
            reduced.fill(&args.dropout, &args.key)?;
            None
        }
        ForwardMask::Store(mask) => {
            mask.fill(&args.dropout, &args.key)?;
            Some(&*mask)
        }
        ForwardMask::Given(mask) => Some(mask),
    };
    match stored {
        Some(mask) if mask.is_compact() => f(mask.words()),
        Some(mask) => {
            reduced.copy_from(mask)?;
            f(reduced.compact());
        }
        None => f(reduced.compact()),
    }
    Ok(())
}
