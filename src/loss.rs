//! Losses for trainers: value and gradient in one pass, and [`Objective`], what a trainer minimises.
//!
//! | function | value | gradient of the outputs |
//! |---|---|---|
//! | [`cross_entropy`] | mean over rows of -log softmax, labels smoothed or not | (p - target) / rows |
//! | [`mean_squared_error`] | mean over elements of (y - t)² | 2 (y - t) / elements |
//! | [`huber`] | mean over elements of e²/2 near 0, linear beyond ±δ; e = y - t | clamp(e, -δ, δ) / elements |
//!
//! Outputs, targets and gradients are [rows, cols], one row an example; labels are one a row. Each
//! function takes what is known of the examples as one argument, which is an [`Objective`] too.
//! [`softmax_cross_entropy`](crate::softmax::softmax_cross_entropy) is [`cross_entropy`] without options.
//!
//! The value is summed in f64 in an order that depends on the shape alone, so its bits are those of any
//! number of threads. [`reference`](mod@crate::reference) has each function once more, with the same bits
//! of values and gradients on every level with fused multiply-add; [`mean_squared_error`] and [`huber`]
//! never fuse, and have these bits on every level.
//!
//! | | value | gradient |
//! |---|---|---|
//! | an empty batch | 0 | nothing is written |
//! | a NaN among the outputs or targets | NaN | NaN there; with [`cross_entropy`] in its row |
//! | an infinite one | what the formula gives, infinite or NaN | likewise, in f32 |

mod classes;
mod elements;
mod regression;

pub use classes::{CrossEntropy, cross_entropy};
pub use regression::{Huber, MeanSquaredError, huber, mean_squared_error};

pub(crate) use elements::{check_targets, parts};

use crate::error::{Error, Result};
use crate::view::{MatMut, MatRef};

/// `Ok` when so many rows can be a part of a mini-batch.
fn check_batch(rows: usize, batch: usize) -> Result<()> {
    if rows <= batch {
        return Ok(());
    }
    let expected = "at least the number of rows of the part";
    Err(Error::Parameter {
        name: "number of rows of the mini-batch",
        value: batch as f64,
        expected,
    })
}

/// What training minimises: the loss of a network's outputs, and its gradient.
///
/// Implemented by [`CrossEntropy`], [`MeanSquaredError`] and [`Huber`], and by every closure of this
/// form; a type of one's own may implement it too. It is an object type, `&dyn Objective`.
///
/// ```
/// use fused_dropout::loss::{MeanSquaredError, Objective};
/// use fused_dropout::{MatMut, MatRef, Result};
///
/// let targets = [0.0, 1.0];
/// let squared = MeanSquaredError::new(MatRef::new(&targets, 2, 1)?);
/// let absolute = |outputs: MatRef<'_>, mut gradient: MatMut<'_>| -> Result<f64> {
///     let mut sum = 0.0;
///     for (r, target) in targets.iter().enumerate() {
///         let difference = outputs.get(r, 0).unwrap_or(f32::NAN) - target;
///         sum += f64::from(difference.abs());
///         gradient.set(r, 0, difference.signum() / 2.0)?;
///     }
///     Ok(sum / 2.0)
/// };
/// let objectives: [&dyn Objective; 2] = [&squared, &absolute];
/// let (outputs, mut gradient) = ([2.0, 2.0], [0.0; 2]);
/// for (objective, expected) in objectives.into_iter().zip([2.5, 1.5]) {
///     let to = MatMut::new(&mut gradient, 2, 1)?;
///     assert_eq!(objective.evaluate(MatRef::new(&outputs, 2, 1)?, to)?, expected);
/// }
/// assert_eq!(gradient, [0.5, 0.5]);
/// # Ok::<(), fused_dropout::Error>(())
/// ```
pub trait Objective {
    /// The loss of `outputs`, one row an example. Writes its derivative with respect to each output to
    /// the whole of `gradient`, which has the same shape.
    ///
    /// The loss of a batch is a mean, so that a learning rate does not depend on the batch's size.
    ///
    /// # Errors
    ///
    /// When the outputs do not fit the examples; the gradient should be untouched then.
    fn evaluate(&self, outputs: MatRef<'_>, gradient: MatMut<'_>) -> Result<f64>;
}

impl<F: Fn(MatRef<'_>, MatMut<'_>) -> Result<f64>> Objective for F {
    fn evaluate(&self, outputs: MatRef<'_>, gradient: MatMut<'_>) -> Result<f64> {
        self(outputs, gradient)
    }
}
