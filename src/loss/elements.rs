//! Losses that are a mean over elements, each a function of the difference of output and target.

use crate::Level;
use crate::error::{Result, check_shape};
use crate::isa::{Isa, Kernel};
use crate::math::lanes::{LANES, tree};
use crate::softmax::for_each_in_order;
use crate::threads::{Grid, Part};
use crate::view::{MatMut, MatRef, Source, Target};

/// Elements of a part, whose sum is taken before it is added to the others: some 20 microseconds. The
/// bits of a loss depend on it.
const PART: usize = 1 << 15;

/// A loss of one element, and its derivative.
pub(super) trait OfDifference: Copy + Send + Sync {
    /// The loss of a difference. Nothing of 0.
    fn value(self, difference: f64) -> f64;
    /// The derivative, divided by the number of elements.
    fn gradient(self, difference: f32) -> f32;
}

/// The parts whose sums are added in order; in a part the sums of rows are, and in a row there are 16
/// virtual lanes, counted from the part's first column.
pub(crate) fn parts(rows: usize, cols: usize) -> Grid {
    Grid::new(rows, cols, PART, 1, LANES)
}

/// `Ok` when outputs, targets and gradient have the same shape.
pub(crate) fn check_targets<T>(
    outputs: &MatRef<'_, T>,
    targets: &MatRef<'_, T>,
    gradient: Option<&MatMut<'_, T>>,
) -> Result<()> {
    check_shape(outputs.named("the outputs"), targets.named("the targets"))?;
    gradient.map_or(Ok(()), |g| check_shape(g.named("the gradient"), outputs.named("the outputs")))
}

/// The sum of what `loss` makes of each element, divided by the number of elements of all `batch` rows, of
/// which these are some; 0 of none. Writes the gradient.
///
/// # Errors
///
/// When shapes differ.
pub(super) fn mean<F: OfDifference>(
    outputs: MatRef<'_>,
    (targets, batch): (MatRef<'_>, usize),
    mut gradient: Option<MatMut<'_>>,
    loss: impl Fn(f64) -> F,
) -> Result<f64> {
    check_targets(&outputs, &targets, gradient.as_ref())?;
    let level = Level::current()?;
    let (rows, cols) = (outputs.rows(), outputs.cols());
    let parts = parts(rows, cols);
    if parts.len() == 0 {
        return Ok(0.0);
    }
    let number = batch as f64 * cols as f64;
    let loss = loss(number);
    let gradient = gradient.as_mut().map(MatMut::target);
    let (outputs, targets) = (outputs.source(), targets.source());
    let of_part = |i| {
        let part = parts.part(i);
        // SAFETY: the matrices are borrowed and of one shape, and parts do not overlap.
        level.vectorize(unsafe { Sum::new(Elements { loss, outputs, targets, gradient, part }) })
    };
    let mut sum = 0.0;
    for_each_in_order(parts.len(), of_part, |of_part| sum += of_part);
    Ok(sum / number)
}

/// A part of the matrices.
struct Elements<F> {
    loss: F,
    outputs: Source,
    targets: Source,
    gradient: Option<Target>,
    part: Part,
}

/// The sum of the losses of a part, whose gradient is written.
struct Sum<F>(Elements<F>);

impl<F> Sum<F> {
    /// # Safety
    ///
    /// Until the kernel has run, the part lies in the matrices, and nobody else accesses that of the
    /// gradient.
    unsafe fn new(elements: Elements<F>) -> Self {
        Self(elements)
    }
}

impl<F: OfDifference> Kernel for Sum<F> {
    type Output = f64;

    /// Loops over arrays that the compiler keeps in vectors: there are no verbs for f64.
    #[inline(always)]
    fn run<I: Isa>(self, _: I) -> f64 {
        let Elements { loss, outputs, targets, gradient, part } = self.0;
        let mut sum = 0.0;
        for row in part.row..part.row + part.rows {
            let (mut lanes, mut col) = ([0.0; LANES], part.col);
            while col < part.col + part.cols {
                let n = LANES.min(part.col + part.cols - col);
                // SAFETY: `Sum::new`. Lanes without an element are a difference of 0.
                unsafe {
                    let y = outputs.chunk::<LANES>(row, col, n, 0.0);
                    let t = targets.chunk::<LANES>(row, col, n, 0.0);
                    for i in 0..LANES {
                        lanes[i] += loss.value(f64::from(y[i]) - f64::from(t[i]));
                    }
                    if let Some(gradient) = gradient {
                        let mut slopes = [0.0; LANES];
                        for i in 0..LANES {
                            slopes[i] = loss.gradient(y[i] - t[i]);
                        }
                        gradient.put_chunk(row, col, n, slopes);
                    }
                }
                col += n;
            }
            sum += tree(lanes);
        }
        sum
    }
}
