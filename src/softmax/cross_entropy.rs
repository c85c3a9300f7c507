//! Softmax and cross-entropy, value and gradient in one pass.

use crate::Level;
use crate::error::{Error, Result, check_equal, check_shape};
use crate::isa::{Isa, Kernel, Scalar, load, store};
use crate::math;
use crate::threads::for_each;
use crate::view::{MatMut, MatRef, Source, Target};

/// Rows whose losses are added before they are added to the others.
pub(crate) const LOSS_BLOCK: usize = 256;
/// Virtual lanes of a sum over a row, the same for every level.
const LANES: usize = 16;

/// The loss of a mini-batch.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Loss {
    /// The sum of the examples' cross-entropies.
    pub sum: f64,
    /// Examples whose largest logit (the first of equals) is not their label's.
    pub errors: usize,
    /// Number of examples.
    pub examples: usize,
}

impl Loss {
    /// The mean cross-entropy; 0 without examples.
    pub fn mean(&self) -> f64 {
        self.sum / self.examples.max(1) as f64
    }
}

/// `Ok` when there is a label for each row, and each names a class.
pub(crate) fn check_labels(labels: &[u32], rows: usize, classes: usize) -> Result<()> {
    check_equal("number of labels", labels.len(), "rows of the logits", rows)?;
    match labels.iter().position(|&label| label as usize >= classes) {
        Some(index) => Err(Error::Label { index, label: labels[index], classes }),
        None => Ok(()),
    }
}

/// Cross-entropy of the softmax of each row of logits [batch, classes], and the gradient of its mean.
///
/// ```text
/// e = exp(z - max z),  p = e / sum e,  loss = ln(sum e) - (z[label] - max z)
/// gradient = (p - [label]) · (1 / batch)
/// ```
///
/// The largest logit is subtracted first, so nothing overflows. A row is summed in 16 virtual
/// lanes and a fixed tree.
///
/// # Errors
///
/// When shapes disagree, or a label names no class.
pub fn softmax_cross_entropy(
    logits: MatRef<'_>,
    labels: &[u32],
    mut gradient: Option<MatMut<'_>>,
) -> Result<Loss> {
    let (rows, classes) = (logits.rows(), logits.cols());
    check_labels(labels, rows, classes)?;
    if let Some(gradient) = &gradient {
        check_shape(gradient.named("the gradient"), logits.named("the logits"))?;
    }
    let level = Level::current()?;
    let gradient = gradient.as_mut().map(MatMut::target);
    let logits = logits.source();
    let total = std::sync::Mutex::new(Blocks::default());
    let blocks = rows.div_ceil(LOSS_BLOCK);
    // Blocks are added in their order, so a wave of them runs before any sum is taken.
    for wave in (0..blocks).step_by(WAVE) {
        for_each(WAVE.min(blocks - wave), |i| {
            let first = (wave + i) * LOSS_BLOCK;
            let labels = &labels[first..rows.min(first + LOSS_BLOCK)];
            let loss = level.vectorize(Rows { logits, gradient, labels, first, rows, classes });
            if let Ok(mut total) = total.lock() {
                total.0[i] = loss;
            }
        });
        if let Ok(mut total) = total.lock() {
            total.collect();
        }
    }
    Ok(total.into_inner().map_or_else(|error| error.into_inner().1, |total| total.1))
}

/// Blocks of rows that run side by side.
const WAVE: usize = 64;

/// The losses of a wave of blocks, and of all before.
struct Blocks([Loss; WAVE], Loss);

impl Default for Blocks {
    fn default() -> Self {
        Self([Loss::default(); WAVE], Loss::default())
    }
}

impl Blocks {
    fn collect(&mut self) {
        for block in &mut self.0 {
            self.1.sum += block.sum;
            self.1.errors += block.errors;
            self.1.examples += block.examples;
            *block = Loss::default();
        }
    }
}

/// A block of rows.
struct Rows<'a> {
    logits: Source,
    gradient: Option<Target>,
    labels: &'a [u32],
    first: usize,
    rows: usize,
    classes: usize,
}

impl Kernel for Rows<'_> {
    type Output = Loss;

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> Loss {
        let mut loss = Loss { examples: self.labels.len(), ..Loss::default() };
        for (i, &label) in self.labels.iter().enumerate() {
            let row = self.first + i;
            let largest = self.largest(row);
            // SAFETY: rows and classes are the matrices'; the label is checked.
            unsafe {
                let max = *self.logits.at(row, largest);
                let sum = self.sum_of_exponentials(isa, row, max);
                if let Some(gradient) = self.gradient {
                    self.gradient(isa, row, gradient, max, sum);
                    let at = gradient.at(row, label as usize);
                    let p = math::exp(Scalar, *self.logits.at(row, label as usize) - max);
                    *at = (p / sum - 1.0) * (1.0 / self.rows as f32);
                }
                let of_label = f64::from(*self.logits.at(row, label as usize)) - f64::from(max);
                loss.sum += libm::log(f64::from(sum)) - of_label;
            }
            loss.errors += usize::from(largest != label as usize);
        }
        loss
    }
}

impl Rows<'_> {
    /// The first of the largest logits.
    #[inline(always)]
    fn largest(&self, row: usize) -> usize {
        // SAFETY: the columns are the matrix's.
        let z = |c| unsafe { *self.logits.at(row, c) };
        (1..self.classes).fold(0, |best, c| if z(best) < z(c) { c } else { best })
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
                for (i, lane) in lanes.iter_mut().enumerate().take(n) {
                    *lane = *self.logits.at(row, c + i);
                }
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
        for half in [8, 4, 2, 1] {
            for i in 0..half {
                lanes[i] += lanes[i + half];
            }
        }
        lanes[0]
    }

    /// Writes `p / batch`.
    ///
    /// # Safety
    ///
    /// The row lies in both matrices, and is this task's.
    #[inline(always)]
    unsafe fn gradient<I: Isa>(&self, isa: I, row: usize, to: Target, max: f32, sum: f32) {
        let (sum, batch) = (isa.splat(sum), isa.splat(1.0 / self.rows as f32));
        let mut c = 0;
        // SAFETY: the caller's promise.
        unsafe {
            while c < self.classes {
                let n = I::LANES.min(self.classes - c);
                let e = math::exp(isa, self.shifted(isa, row, c, n, max));
                let p = isa.mul(isa.div(e, sum), batch);
                if to.col_step == 1 {
                    store(isa, to.at(row, c), n, p);
                } else {
                    let mut lanes = [0.0; LANES];
                    isa.store(lanes.as_mut_ptr(), p);
                    for (i, lane) in lanes.iter().enumerate().take(n) {
                        *to.at(row, c + i) = *lane;
                    }
                }
                c += n;
            }
        }
    }
}
