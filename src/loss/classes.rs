//! Cross-entropy of the softmax, with labels that are smoothed or not.

use super::{Objective, check_batch};
use crate::error::{Error, Result};
use crate::softmax::{Loss, smoothed_cross_entropy};
use crate::view::{MatMut, MatRef};

/// A label for each example, and how much they are smoothed.
///
/// With n classes and smoothing s the target of a row is
///
/// ```text
/// target = (1 - s) · [label] + s / n
/// ```
///
/// (Szegedy et al. 2016, "Rethinking the Inception architecture for computer vision", section 7).
#[derive(Clone, Copy, Debug, PartialEq)]
#[must_use]
pub struct CrossEntropy<'a> {
    labels: &'a [u32],
    label_smoothing: f64,
    batch: usize,
}

impl<'a> CrossEntropy<'a> {
    /// These labels, not smoothed.
    pub const fn new(labels: &'a [u32]) -> Self {
        Self { labels, label_smoothing: 0.0, batch: labels.len() }
    }

    /// The same as a part of a mini-batch of so many rows in all, over which means are: the losses and
    /// gradients of all parts are those of the whole.
    ///
    /// # Errors
    ///
    /// When there are more labels than rows in all.
    pub fn with_batch(self, batch: usize) -> Result<Self> {
        check_batch(self.labels.len(), batch)?;
        Ok(Self { batch, ..self })
    }

    /// The same with this share of each target spread evenly over all classes; 0.1 in the paper.
    ///
    /// # Errors
    ///
    /// When the share is negative, NaN, or not below 1, where labels would mean nothing.
    pub fn with_label_smoothing(self, label_smoothing: f64) -> Result<Self> {
        if (0.0..1.0).contains(&label_smoothing) {
            return Ok(Self { label_smoothing, ..self });
        }
        let (name, expected) = ("label_smoothing", "from 0 to below 1");
        Err(Error::Parameter { name, value: label_smoothing, expected })
    }

    /// The class of each example.
    #[must_use]
    pub const fn labels(&self) -> &'a [u32] {
        self.labels
    }

    /// The rows over which means are.
    #[must_use]
    pub const fn batch(&self) -> usize {
        self.batch
    }

    /// The share of a target that is spread evenly over all classes.
    #[must_use]
    pub const fn label_smoothing(&self) -> f64 {
        self.label_smoothing
    }
}

/// Cross-entropy of the softmax p of each row of logits z [batch, classes] with targets that may be
/// smoothed, and the gradient of its mean, of the same shape.
///
/// ```text
/// loss = -sum of target · log p = (1 - s) · -log p[label] + s · mean over classes of -log p
/// gradient = (p - target) · (1 / batch)
/// ```
///
/// As [`softmax_cross_entropy`](crate::softmax::softmax_cross_entropy), whose bits these are without
/// smoothing. With smoothing, `z - max z` of all classes is summed in f64, 16 virtual lanes and a fixed
/// tree, and the targets are rounded to f32 for the gradient.
///
/// A logit of -∞, of a class with probability 0, makes a smoothed loss infinite, as the formula says: its
/// target is not 0. The gradient is finite. A NaN, a logit of +∞, or none but -∞ make the loss of a row
/// and its gradient NaN.
///
/// The error is at most that of `softmax_cross_entropy`, and for the targets 1.06 · 2^-24 / batch more in the
/// gradient. Of the roundings of f64, those of the sum over n classes are at most
/// (n + 3) · 2^-53 · s · (mean of max z - z).
///
/// ```
/// use fused_dropout::loss::{CrossEntropy, cross_entropy};
/// use fused_dropout::{MatMut, MatRef};
///
/// let (logits, mut gradient) = ([0.0, 0.0, 3f32.ln(), 0.0], [9.0; 4]);
/// let args = CrossEntropy::new(&[1, 0]).with_label_smoothing(0.5)?;
/// let to = MatMut::new(&mut gradient, 2, 2)?;
/// let loss = cross_entropy(&args, MatRef::new(&logits, 2, 2)?, Some(to))?;
/// // Both targets are 3/4 and 1/4; p is (1/2, 1/2) and (3/4, 1/4).
/// assert_eq!(gradient[..2], [0.125, -0.125]);
/// assert!(gradient[2].abs() < 1e-7 && gradient[3].abs() < 1e-7);
/// let entropy = -(0.75 * 0.75f64.ln() + 0.25 * 0.25f64.ln());
/// assert!((loss.sum - (2f64.ln() + entropy)).abs() < 1e-6);
/// # Ok::<(), fused_dropout::Error>(())
/// ```
///
/// # Errors
///
/// When shapes disagree, or a label names no class.
pub fn cross_entropy(
    args: &CrossEntropy<'_>,
    logits: MatRef<'_>,
    gradient: Option<MatMut<'_>>,
) -> Result<Loss> {
    smoothed_cross_entropy(logits, args.labels, (args.label_smoothing, args.batch), gradient)
}

impl Objective for CrossEntropy<'_> {
    /// The mean of [`cross_entropy`], over the rows of the whole mini-batch.
    fn evaluate(&self, outputs: MatRef<'_>, gradient: MatMut<'_>) -> Result<f64> {
        let loss = cross_entropy(self, outputs, Some(gradient))?;
        Ok(loss.sum / self.batch.max(1) as f64)
    }
}
