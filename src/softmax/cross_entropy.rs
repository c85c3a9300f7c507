//! Softmax and cross-entropy, value and gradient in one pass.

use super::waves::for_each_in_order;
use crate::Level;
use crate::error::{Error, Result, check_equal, check_shape};
use crate::isa::{Isa, Kernel, Scalar, load, store};
use crate::math;
use crate::math::lanes::{LANES, tree};
use crate::view::{MatMut, MatRef, Source, Target};

/// Rows whose losses are added before they are added to the others.
pub(crate) const LOSS_BLOCK: usize = 256;

/// The loss of a mini-batch, by [`softmax_cross_entropy`].
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Loss {
    /// The sum of the examples' cross-entropies.
    pub sum: f64,
    /// Examples whose largest logit (the first of equals) is not their label's, or one of whose logits
    /// is NaN.
    pub errors: usize,
    /// Number of examples.
    pub examples: usize,
}

impl Loss {
    /// The mean cross-entropy; 0 without examples.
    pub fn mean(&self) -> f64 {
        self.sum / self.examples.max(1) as f64
    }

    /// The share of errors, 0 to 1; 0 without examples.
    pub fn error_rate(&self) -> f64 {
        self.errors as f64 / self.examples.max(1) as f64
    }

    /// Adds the loss of other examples.
    pub(crate) fn add(&mut self, other: Loss) {
        self.sum += other.sum;
        self.errors += other.errors;
        self.examples += other.examples;
    }
}

/// `Ok` when there is a label for each row, and each names a class.
pub(crate) fn check_labels(
    labels: &[u32],
    (name, rows): (&'static str, usize),
    classes: usize,
) -> Result<()> {
    check_equal("number of labels", labels.len(), name, rows)?;
    match labels.iter().position(|&label| label as usize >= classes) {
        Some(index) => Err(Error::Label { index, label: labels[index], classes }),
        None => Ok(()),
    }
}

/// Cross-entropy of the softmax of each row of logits [batch, classes], and the gradient of its mean,
/// of the same shape.
///
/// ```text
/// e = exp(z - max z),  p = e / sum e,  loss = ln(sum e) - (z[label] - max z)
/// gradient = (p - [label]) · (1 / batch)
/// ```
///
/// The largest logit is subtracted first, so nothing overflows. A row is summed in 16 virtual lanes and
/// a fixed tree, and the logarithm is taken in f64.
///
/// A NaN logit makes the loss and its row's gradient NaN, and the example an error whatever its label.
///
/// # Accuracy
///
/// Of a row of n finite logits, the computed loss is within
///
/// ```text
/// (ln n + n/16 + 8) · 1.06 · 2^-24
/// ```
///
/// of the exact one, and each element of the gradient within `(ln n + n/16 + 15) · 1.06 · 2^-24 / batch`.
/// Beside that there are the roundings of f64, of the order of 2^-53 of the loss.
///
/// For a logit d below the largest, the rounding of `z - max z` is at most d · 2^-24, which is a relative
/// error of e; the exponential adds 1.6 ULP, 3.2 · 2^-24. In the sum, the errors d weigh as the
/// probabilities p do, and `sum of p · d = entropy - ln(sum e)` is at most ln n. A lane adds n/16 terms,
/// the tree 4. So the sum has the relative error, and its logarithm the absolute error,
/// (ln n + n/16 + 7.2) · 2^-24. In the gradient, the exponential's own error counts once more, p d being
/// at most 1/e, and four roundings follow. 1.06 is for products of errors, up to n = 10^6. All of this
/// is for levels with fused multiply-add.
///
/// ```
/// use fused_dropout::softmax::softmax_cross_entropy;
/// use fused_dropout::{MatMut, MatRef};
///
/// let (logits, mut gradient) = ([0.0, 0.0, 9.0, 1.0], [9.0; 4]);
/// let to = MatMut::new(&mut gradient, 2, 2)?;
/// let loss = softmax_cross_entropy(MatRef::new(&logits, 2, 2)?, &[1, 0], Some(to))?;
/// assert_eq!((loss.examples, loss.errors, loss.error_rate()), (2, 1, 0.5));
/// assert!((loss.sum - (2f64.ln() + (-8f64).exp().ln_1p())).abs() < 1e-6);
/// assert_eq!(gradient[..2], [0.25, -0.25]);
/// # Ok::<(), fused_dropout::Error>(())
/// ```
///
/// # Errors
///
/// When shapes disagree, or a label names no class.
pub fn softmax_cross_entropy(
    logits: MatRef<'_>,
    labels: &[u32],
    gradient: Option<MatMut<'_>>,
) -> Result<Loss> {
    smoothed_cross_entropy(logits, labels, (0.0, labels.len()), gradient)
}

/// [`softmax_cross_entropy`] with a share of the target spread evenly over the classes, and with the
/// gradient of the mean over a batch of which these are some rows.
///
/// # Errors
///
/// As for [`softmax_cross_entropy`].
pub(crate) fn smoothed_cross_entropy(
    logits: MatRef<'_>,
    labels: &[u32],
    (smoothing, batch): (f64, usize),
    mut gradient: Option<MatMut<'_>>,
) -> Result<Loss> {
    let (rows, classes) = (logits.rows(), logits.cols());
    check_labels(labels, ("rows of the logits", rows), classes)?;
    if let Some(gradient) = &gradient {
        check_shape(gradient.named("the gradient"), logits.named("the logits"))?;
    }
    let level = Level::current()?;
    let gradient = gradient.as_mut().map(MatMut::target);
    let logits = logits.source();
    let mut total = Loss::default();
    let of_block = |i| {
        let first = i * LOSS_BLOCK;
        let labels = &labels[first..rows.min(first + LOSS_BLOCK)];
        let block = Rows { logits, gradient, labels, smoothing, first, batch, classes };
        // SAFETY: labels were checked, and blocks of rows do not overlap.
        level.vectorize(unsafe { Block::new(block) })
    };
    for_each_in_order(rows.div_ceil(LOSS_BLOCK), of_block, |loss| total.add(loss));
    Ok(total)
}

/// The target of the label's class and that of every other, of labels smoothed by this much.
pub(crate) fn targets(smoothing: f64, classes: usize) -> (f64, f64) {
    let other = smoothing / classes as f64;
    (1.0 - smoothing + other, other)
}

/// Rows of the matrices, from the first on, one a label.
struct Rows<'a> {
    logits: Source,
    gradient: Option<Target>,
    labels: &'a [u32],
    smoothing: f64,
    first: usize,
    /// Rows of the whole batch, over which the gradient is a mean.
    batch: usize,
    classes: usize,
}

/// A block of rows, one a task.
struct Block<'a>(Rows<'a>);

impl<'a> Block<'a> {
    /// # Safety
    ///
    /// Until the kernel has run, the matrices have `classes` columns, nobody else accesses the rows of
    /// the gradient from `first` on, one a label, and each label is below `classes`.
    unsafe fn new(rows: Rows<'a>) -> Self {
        Self(rows)
    }
}

impl Kernel for Block<'_> {
    type Output = Loss;

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> Loss {
        let Self(rows) = self;
        let mut loss = Loss { examples: rows.labels.len(), ..Loss::default() };
        for (i, &label) in rows.labels.iter().enumerate() {
            let (row, label) = (rows.first + i, label as usize);
            let largest = rows.largest(row);
            // SAFETY: rows and classes are the matrices'; the label is checked.
            let sum = unsafe {
                let max = *rows.logits.at(row, largest);
                let sum = rows.sum_of_exponentials(isa, row, max);
                if let Some(gradient) = rows.gradient {
                    rows.gradient(isa, row, label, gradient, max, sum);
                }
                loss.sum += libm::log(f64::from(sum)) - rows.expected(row, label, max);
                sum
            };
            let wrong = largest != label || (sum.is_nan() && rows.has_nan(row));
            loss.errors += usize::from(wrong);
        }
        loss
    }
}

impl Rows<'_> {
    /// The first of the largest logits, or of all where the first is NaN.
    #[inline(always)]
    fn largest(&self, row: usize) -> usize {
        // SAFETY: the columns are the matrix's.
        let z = |c| unsafe { *self.logits.at(row, c) };
        (1..self.classes).fold(0, |best, c| if z(best) < z(c) { c } else { best })
    }

    /// Whether a logit is NaN. The sum of the exponentials is NaN then, and where the largest is
    /// infinite.
    #[inline(never)]
    fn has_nan(&self, row: usize) -> bool {
        // SAFETY: the columns are the matrix's.
        (0..self.classes).any(|c| unsafe { *self.logits.at(row, c) }.is_nan())
    }

    /// `n` logits from column `c` on, less the largest.
    ///
    /// # Safety
    ///
    /// The columns lie in the matrix.
    #[inline(always)]
    unsafe fn shifted<I: Isa>(&self, isa: I, row: usize, c: usize, n: usize, max: f32) -> I::F32 {
        let mut lanes = [0.0; LANES];
        // SAFETY: the caller's promise; a vector has at most LANES lanes.
        unsafe {
            let z = if self.logits.col_step == 1 {
                load(isa, self.logits.at(row, c), n)
            } else {
                self.logits.gather_row(row, c, &mut lanes[..n]);
                isa.load(lanes.as_ptr())
            };
            isa.sub(z, isa.splat(max))
        }
    }

    /// # Safety
    ///
    /// The row lies in the matrix.
    #[inline(always)]
    unsafe fn sum_of_exponentials<I: Isa>(&self, isa: I, row: usize, max: f32) -> f32 {
        let mut lanes = [0.0f32; LANES];
        let mut c = 0;
        // SAFETY: the caller's promise; lanes at `c % LANES` on are LANES for a whole vector.
        unsafe {
            while c < self.classes {
                let n = I::LANES.min(self.classes - c);
                let e = math::exp(isa, self.shifted(isa, row, c, n, max));
                let lane = lanes.as_mut_ptr().add(c % LANES);
                let sum = isa.add(isa.load(lane), e);
                store(isa, lane, n, sum);
                c += I::LANES;
            }
        }
        tree(lanes)
    }

    /// The logits of a row, less the largest, weighted with the targets: in f64, where no difference
    /// of two logits overflows.
    ///
    /// # Safety
    ///
    /// The row lies in the matrix, and the label is a column.
    #[inline(always)]
    unsafe fn expected(&self, row: usize, label: usize, max: f32) -> f64 {
        // SAFETY: the caller's promise.
        let of_label = unsafe { f64::from(*self.logits.at(row, label)) - f64::from(max) };
        // An infinite logit of another class has no part in a target that is not smoothed.
        if self.smoothing == 0.0 {
            return of_label;
        }
        let mut lanes = [0.0; LANES];
        for c in (0..self.classes).step_by(LANES) {
            let n = LANES.min(self.classes - c);
            // SAFETY: the caller's promise. The lanes without a logit add 0.
            let z = unsafe { self.logits.chunk::<LANES>(row, c, n, max) };
            for i in 0..LANES {
                lanes[i] += f64::from(z[i]) - f64::from(max);
            }
        }
        let mean = tree(lanes) / self.classes as f64;
        (1.0 - self.smoothing) * of_label + self.smoothing * mean
    }

    /// Writes `(p - target) / batch`.
    ///
    /// # Safety
    ///
    /// The row lies in both matrices and is this task's, and the label is a column.
    #[inline(always)]
    unsafe fn gradient<I: Isa>(
        &self,
        isa: I,
        row: usize,
        label: usize,
        to: Target,
        max: f32,
        sum: f32,
    ) {
        let (of_label, of_others) = targets(self.smoothing, self.classes);
        // SAFETY: the caller's promise.
        unsafe {
            self.probabilities(isa, row, to, (max, sum), of_others as f32);
            let p = math::exp(Scalar, *self.logits.at(row, label) - max) / sum;
            *to.at(row, label) = (p - of_label as f32) * (1.0 / self.batch as f32);
        }
    }

    /// Writes `(p - target) / batch` with one target for all classes.
    ///
    /// # Safety
    ///
    /// The row lies in both matrices, and is this task's.
    #[inline(always)]
    unsafe fn probabilities<I: Isa>(
        &self,
        isa: I,
        row: usize,
        to: Target,
        (max, sum): (f32, f32),
        target: f32,
    ) {
        let (sum, batch) = (isa.splat(sum), isa.splat(1.0 / self.batch as f32));
        let target = isa.splat(target);
        let mut c = 0;
        // SAFETY: the caller's promise.
        unsafe {
            while c < self.classes {
                let n = I::LANES.min(self.classes - c);
                let e = math::exp(isa, self.shifted(isa, row, c, n, max));
                let p = isa.mul(isa.sub(isa.div(e, sum), target), batch);
                if to.col_step == 1 {
                    store(isa, to.at(row, c), n, p);
                } else {
                    let mut lanes = [0.0; LANES];
                    isa.store(lanes.as_mut_ptr(), p);
                    to.scatter_row(row, c, &lanes[..n]);
                }
                c += n;
            }
        }
    }
}
