//! Dropout whose decisions are shared along axes of a tensor.

mod runs;

use super::kernel::{Pass, Tensors};
use super::run::scaled;
use crate::Level;
use crate::buffers::{Lease, Slot};
use crate::error::{Result, check_equal};
use crate::isa::caches;
use crate::mask::{Bits, BroadcastShape, KeyedDropout, Mask, MaskSource};
use crate::view::{InOut, MatRef, Source};
use runs::Runs;

/// Elements from which on a run with one decision is scaled or cleared as a whole; the bits of a
/// shorter one are spread over its elements. At 64 a run has no more than one vector that is not
/// whole to four that are, on every level.
const RUN: usize = 64;

/// Dropout with one decision for all elements that share it.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
#[must_use]
pub struct BroadcastDropout {
    /// The tensor, and the axes along which its elements share a decision.
    pub shape: BroadcastShape,
    /// How much to drop, and which mask.
    pub dropout: KeyedDropout,
}

impl BroadcastDropout {
    /// This dropout for tensors of this shape.
    pub fn new(shape: BroadcastShape, dropout: KeyedDropout) -> Self {
        Self { shape, dropout }
    }

    /// `Ok` when input and output hold the tensor, and the mask fits.
    pub(crate) fn check<T>(
        &self,
        xy: &InOut<'_, T>,
        (input, output): (Names, Names),
        mask: &MaskSource<'_>,
    ) -> Result<()> {
        match xy {
            InOut::Separate(x, y) => {
                self.check_tensor(x, input)?;
                self.check_tensor(&y.as_ref(), output)?;
            }
            InOut::InPlace(x) => self.check_tensor(&x.as_ref(), input)?,
        }
        let (rows, cols) = self.shape.mask_shape();
        self.dropout.check(rows, cols)?;
        mask.check(("the reduced tensor", rows, cols))
    }

    /// `Ok` when a matrix has the tensor's elements, one after the other.
    fn check_tensor<T>(&self, matrix: &MatRef<'_, T>, names: Names) -> Result<()> {
        let (rows, cols) = (matrix.rows(), matrix.cols());
        check_equal(names.elements, rows * cols, "elements of the shape", self.shape.len())?;
        let Source { row_step, col_step, .. } = matrix.source();
        if cols > 1 {
            check_equal(names.col_step, col_step, "the distance without gaps", 1)?;
        }
        if rows > 1 {
            check_equal(names.row_step, row_step, "the distance without gaps", cols)?;
        }
        Ok(())
    }
}

/// What a tensor's properties are called in errors.
#[derive(Clone, Copy)]
pub(crate) struct Names {
    elements: &'static str,
    row_step: &'static str,
    col_step: &'static str,
}

macro_rules! names {
    ($tensor:literal) => {
        Names {
            elements: concat!("number of elements of ", $tensor),
            row_step: concat!("distance of the rows of ", $tensor),
            col_step: concat!("distance of the columns of ", $tensor),
        }
    };
}

/// The names of the forward pass.
pub(crate) const XY: (Names, Names) = (names!("x"), names!("y"));
/// The names of the backward pass.
pub(crate) const DY_DX: (Names, Names) = (names!("dy"), names!("dx"));

/// `y = keep ? x · scale : 0` for tensors of the shape of `args`, row-major, where elements share
/// decisions as [`BroadcastShape`] says.
///
/// x and y are slices, or matrices of any shape with as many elements and without gaps between rows.
/// The mask is [`mask_shape`](BroadcastShape::mask_shape); it is made once, stored or given as
/// [`MaskSource`] says.
///
/// ```
/// use fused_dropout::elementwise::{
///     BroadcastDropout, broadcast_dropout_backward, broadcast_dropout_forward,
/// };
/// use fused_dropout::mask::BroadcastShape;
/// use fused_dropout::{Dropout, Mask, MaskKey, MaskSource};
///
/// // Two images of 3 channels of 4 x 4 pixels: whole channels are dropped.
/// let shape = BroadcastShape::channels_first(&[2, 3, 4, 4])?;
/// let args = BroadcastDropout::new(shape, Dropout::new(0.5)?.with_key(MaskKey::new(42, 1, 0)?));
/// let (x, mut y) = ([1.0; 96], [9.0; 96]);
/// let mut mask = Mask::new(2, 3)?;
/// broadcast_dropout_forward(&args, (&x[..], &mut y[..]), &mut mask)?;
/// for (i, channel) in y.chunks(16).enumerate() {
///     let value = if mask.get(i / 3, i % 3) == Some(true) { 2.0 } else { 0.0 };
///     assert_eq!(channel, [value; 16]);
/// }
///
/// let mut dx = [1.0; 96];
/// broadcast_dropout_backward(&args, &mut dx[..], MaskSource::Key)?;
/// assert_eq!(dx, y);
/// # Ok::<(), fused_dropout::Error>(())
/// ```
///
/// # Errors
///
/// When x or y has not the elements of the shape or has gaps, a mask has not the shape
/// [`mask_shape`](BroadcastShape::mask_shape), or the key's origin and that shape go past what a mask
/// can address.
pub fn broadcast_dropout_forward<'a, 'm>(
    args: &BroadcastDropout,
    xy: impl Into<InOut<'a>>,
    mask: impl Into<MaskSource<'m>>,
) -> Result<()> {
    run(args, xy.into(), XY, mask.into())
}

/// `dx = keep ? dy · scale : 0`, the gradient of [`broadcast_dropout_forward`], of the same shapes.
///
/// # Errors
///
/// As for [`broadcast_dropout_forward`].
pub fn broadcast_dropout_backward<'a, 'm>(
    args: &BroadcastDropout,
    dy_dx: impl Into<InOut<'a>>,
    mask: impl Into<MaskSource<'m>>,
) -> Result<()> {
    run(args, dy_dx.into(), DY_DX, mask.into())
}

fn run(
    args: &BroadcastDropout,
    mut xy: InOut<'_>,
    names: (Names, Names),
    mask: MaskSource<'_>,
) -> Result<()> {
    args.check(&xy, names, &mask)?;
    let level = Level::current()?;
    let len = args.shape.len();
    if len == 0 {
        return match mask {
            MaskSource::Store(mask) => mask.fill(&args.dropout),
            MaskSource::Key | MaskSource::Given(_) => Ok(()),
        };
    }
    let (x, y) = xy.pointers();
    let (rows, cols) = args.shape.mask_shape();
    let scale = args.dropout.dropout().scale();
    let pass = |rows, cols, bits| {
        // A tensor is stored without gaps, so it is a matrix of any shape of its size.
        let (main, out) = (x.in_rows_of(cols), y.in_rows_of(cols));
        let tensors = Tensors { rows, cols, main, second: None, bias: None, out, sum: None, bits };
        // SAFETY: slices of this size, which are borrowed for this call, and their mask.
        let pass = unsafe { Pass::new(tensors) };
        scaled(level, pass, scale);
    };
    let nest = args.shape.nest();
    if nest.is_elements() {
        pass(rows, cols, mask.bits(&args.dropout));
        return Ok(());
    }
    let mut reduced: Lease<Mask> = Slot::Decisions.take();
    reduce(args, mask, &mut reduced, |words| {
        let (outer, inner) = nest.split_inner();
        match inner {
            Some(inner) if inner.step == 0 && inner.size >= RUN => {
                // Where both tensors together are larger than the level-3 cache, the start of the output
                // would be gone from it before the end is written.
                let streams = len > caches().level_3 / 8 && !y.source().same_as(x);
                let (x, y) = (x.in_rows_of(len), y.in_rows_of(len));
                let run = inner.size;
                let runs = Runs { x, y, len, nest: outer, run, words, scale, streams };
                // SAFETY: both tensors have `len` elements without gaps, and the nest is theirs.
                unsafe { runs.run(level) };
            }
            _ => pass(1, len, Bits::spread(words, nest)),
        }
    })
}

/// Calls `f` with the reduced mask, its bits following each other without padding.
fn reduce(
    args: &BroadcastDropout,
    mask: MaskSource<'_>,
    reduced: &mut Mask,
    f: impl FnOnce(&[u32]),
) -> Result<()> {
    let (rows, cols) = args.shape.mask_shape();
    let stored = match mask {
        MaskSource::Key => {
            reduced.reshape(rows, cols)?;
            reduced.fill(&args.dropout)?;
            None
        }
        MaskSource::Store(mask) => {
            mask.fill(&args.dropout)?;
            Some(&*mask)
        }
        MaskSource::Given(mask) => Some(mask),
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
