//! Clipping by the global norm of all gradients: one pass over them, and a factor for [`apply`].
//!
//! [`apply`]: super::apply

use super::TASK;
use crate::Level;
use crate::buffers::{Lease, Slot, grow};
use crate::error::{Error, Result};
use crate::isa::{Isa, Kernel, load, store};
use crate::math::lanes::{LANES, tree};
use crate::threads::{Grid, Part, for_each};
use crate::view::{MatMut, MatRef, Source, Target};

/// Columns of a row whose squares are added in f32: few enough for their rounding, enough for speed.
pub(crate) const CHUNK: usize = 1024;

/// The smallest sum of a chunk that is taken as it is, if it is not 0: below it, squares lose bits.
pub(crate) const SMALL_SUM: f32 = 1e-25;

/// The norm of all elements of all gradients together: `sqrt(sum of g²)` (Pascanu, Mikolov and Bengio
/// 2013, "On the difficulty of training recurrent neural networks", section 3.2).
///
/// The squares of 1024 columns of a row are added in f32, in 16 lanes and a tree, within (64 + 4) · 2^-24
/// of their sum; these sums are added in f64, row after row. Where the squares leave f32's range they are
/// made in f64, save that 1024 elements which are all below 2e-23 count as 0. So the bits depend on values
/// and shapes alone.
///
/// ```
/// use fused_dropout::MatRef;
/// use fused_dropout::update::{clip_factor, global_norm};
///
/// let (dw, db) = ([3.0, 0.0, 0.0, 0.0], [4.0, 0.0]);
/// let norm = global_norm(&[MatRef::new(&dw, 2, 2)?, MatRef::row_vector(&db)])?;
/// assert_eq!((norm, clip_factor(norm, 1.0)?), (5.0, 0.2));
/// # Ok::<(), fused_dropout::Error>(())
/// ```
///
/// # Errors
///
/// When the memory for a number a row cannot be had.
pub fn global_norm(gradients: &[MatRef<'_>]) -> Result<f64> {
    norm_of(gradients.iter().map(|gradient| Ok(*gradient)))
}

/// [`global_norm`] of gradients that are looked at one after the other.
pub(crate) fn norm_of<'a>(gradients: impl IntoIterator<Item = Result<MatRef<'a>>>) -> Result<f64> {
    let level = Level::current()?;
    let mut buffer: Lease<Vec<f64>> = Slot::Sums.take();
    let mut total = 0.0;
    for gradient in gradients {
        let gradient = gradient?;
        let (rows, cols) = (gradient.rows(), gradient.cols());
        if cols == 0 {
            continue;
        }
        let sums = grow(&mut buffer, rows)?;
        let to = MatMut::new(sums, rows, 1)?.target();
        let grid = Grid::with_parts(rows, cols, (TASK / cols).max(1), cols);
        for_each(grid.len(), |i| {
            // SAFETY: the part lies in both matrices, and is this task's alone.
            level.vectorize(unsafe { Squares::new(grid.part(i), gradient.source(), to) });
        });
        total = sums.iter().fold(total, |total, sum| total + sum);
    }
    Ok(libm::sqrt(total))
}

/// The factor for [`Gradient::scaled`](super::Gradient::scaled) with which gradients of this norm have at
/// most the norm `limit`: `limit / norm` where the norm is larger, else 1.
///
/// # Errors
///
/// When the limit is NaN or not positive, or the norm is NaN or infinite, as after a step that was too
/// large.
pub fn clip_factor(norm: f64, limit: f64) -> Result<f32> {
    if limit.is_nan() || limit <= 0.0 {
        let name = "limit of the norm";
        return Err(Error::Parameter { name, value: limit, expected: "positive" });
    }
    if !norm.is_finite() {
        let name = "norm of the gradients";
        return Err(Error::Parameter { name, value: norm, expected: "finite" });
    }
    Ok(if norm > limit { (limit / norm) as f32 } else { 1.0 })
}

/// The sums of squares of some rows.
struct Squares {
    part: Part,
    from: Source,
    to: Target<f64>,
}

impl Squares {
    /// # Safety
    ///
    /// The rows of the part lie in both matrices, which are alive, and no other task accesses what is
    /// written. The part has all columns.
    unsafe fn new(part: Part, from: Source, to: Target<f64>) -> Self {
        Self { part, from, to }
    }

    /// The sum of `n` squares of a row, from column `first` on.
    ///
    /// # Safety
    ///
    /// The elements lie in the matrix.
    #[inline(always)]
    unsafe fn chunk<I: Isa>(&self, isa: I, row: usize, first: usize, n: usize) -> f64 {
        let mut lanes = [0.0f32; LANES];
        let mut c = 0;
        // SAFETY: the caller's promise; lanes at `c % LANES` on are LANES for a whole vector.
        unsafe {
            while c < n {
                let some = I::LANES.min(n - c);
                let mut copy = [0.0f32; LANES];
                let g = if self.from.col_step == 1 {
                    load(isa, self.from.at(row, first + c), some)
                } else {
                    self.from.gather_row(row, first + c, &mut copy[..some]);
                    isa.load(copy.as_ptr())
                };
                let lane = lanes.as_mut_ptr().add(c % LANES);
                store(isa, lane, some, isa.mul_add(g, g, isa.load(lane)));
                c += I::LANES;
            }
        }
        let sum = tree(lanes);
        if sum == 0.0 || (sum.is_finite() && sum >= SMALL_SUM) {
            return sum.into();
        }
        // SAFETY: the caller's promise.
        let g = |c| f64::from(unsafe { *self.from.at(row, first + c) });
        (0..n).fold(0.0, |sum, c| sum + g(c) * g(c))
    }
}

impl Kernel for Squares {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Part { row, rows, cols, .. } = self.part;
        for r in row..row + rows {
            let mut sum = 0.0;
            for first in (0..cols).step_by(CHUNK) {
                // SAFETY: `Squares::new`.
                sum += unsafe { self.chunk(isa, r, first, CHUNK.min(cols - first)) };
            }
            // SAFETY: as above.
            unsafe { *self.to.at(r, 0) = sum };
        }
    }
}
