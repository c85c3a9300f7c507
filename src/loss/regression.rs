//! Losses of the difference between outputs and targets.

use super::elements::{OfDifference, mean};
use super::{Objective, check_batch};
use crate::error::{Error, Result};
use crate::view::{MatMut, MatRef};

/// The targets of a mean squared error, of the shape of the outputs.
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct MeanSquaredError<'a, T = f32> {
    targets: MatRef<'a, T>,
    batch: usize,
}

impl<'a, T> MeanSquaredError<'a, T> {
    /// These targets.
    pub fn new(targets: MatRef<'a, T>) -> Self {
        let batch = targets.rows();
        Self { targets, batch }
    }

    /// The same as a part of a mini-batch of so many rows in all, over which the mean is.
    ///
    /// # Errors
    ///
    /// When there are more targets than rows in all.
    pub fn with_batch(self, batch: usize) -> Result<Self> {
        check_batch(self.targets.rows(), batch)?;
        Ok(Self { batch, ..self })
    }

    /// What the outputs should be.
    pub const fn targets(&self) -> MatRef<'a, T> {
        self.targets
    }

    /// The rows over which the mean is.
    #[must_use]
    pub const fn batch(&self) -> usize {
        self.batch
    }
}

/// The targets of Huber's loss, of the shape of the outputs, and where it becomes linear.
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct Huber<'a, T = f32> {
    targets: MatRef<'a, T>,
    delta: f32,
    batch: usize,
}

impl<'a, T> Huber<'a, T> {
    /// These targets, and a loss that is linear where the difference is larger than `delta`.
    ///
    /// # Errors
    ///
    /// When `delta` is NaN, infinite, or not positive.
    pub fn new(targets: MatRef<'a, T>, delta: f32) -> Result<Self> {
        if delta > 0.0 && delta.is_finite() {
            let batch = targets.rows();
            return Ok(Self { targets, delta, batch });
        }
        let (name, expected) = ("delta", "positive and finite");
        Err(Error::Parameter { name, value: delta.into(), expected })
    }

    /// The same as a part of a mini-batch of so many rows in all, over which the mean is.
    ///
    /// # Errors
    ///
    /// When there are more targets than rows in all.
    pub fn with_batch(self, batch: usize) -> Result<Self> {
        check_batch(self.targets.rows(), batch)?;
        Ok(Self { batch, ..self })
    }

    /// What the outputs should be.
    pub const fn targets(&self) -> MatRef<'a, T> {
        self.targets
    }

    /// The rows over which the mean is.
    #[must_use]
    pub const fn batch(&self) -> usize {
        self.batch
    }

    /// Where the loss becomes linear.
    #[must_use]
    pub const fn delta(&self) -> f32 {
        self.delta
    }
}

/// The mean squared error of outputs y and targets t over all elements, rows and columns, and its
/// gradient with respect to y, all [rows, cols].
///
/// ```text
/// loss = sum of (y - t)² / (rows · cols)
/// gradient = (y - t) · (2 / (rows · cols))
/// ```
///
/// This is the convention of PyTorch's `MSELoss`; a sum over columns is `cols` times as large.
///
/// The loss is computed in f64, where squares of f32 do not overflow. With n elements its relative error
/// is at most (n + 5) · 2^-53. The gradient is three roundings in f32, those of the difference, the
/// factor and the product: it is infinite where y - t overflows.
///
/// ```
/// use fused_dropout::loss::{MeanSquaredError, mean_squared_error};
/// use fused_dropout::{MatMut, MatRef};
///
/// let (targets, outputs, mut gradient) = ([1.0, 2.0, 3.0, 4.0], [1.0, 0.0, 3.0, 8.0], [9.0; 4]);
/// let args = MeanSquaredError::new(MatRef::new(&targets, 2, 2)?);
/// let to = MatMut::new(&mut gradient, 2, 2)?;
/// assert_eq!(mean_squared_error(&args, MatRef::new(&outputs, 2, 2)?, Some(to))?, 5.0);
/// assert_eq!(gradient, [0.0, -1.0, 0.0, 2.0]);
/// # Ok::<(), fused_dropout::Error>(())
/// ```
///
/// # Errors
///
/// When shapes differ.
pub fn mean_squared_error(
    args: &MeanSquaredError<'_>,
    outputs: MatRef<'_>,
    gradient: Option<MatMut<'_>>,
) -> Result<f64> {
    let factor = |n| (2.0 / n) as f32;
    let batch = (args.targets, args.batch);
    mean(outputs, batch, gradient, |n| Squared { factor: factor(n) })
}

/// Huber's loss of outputs y and targets t, the mean over all elements, rows and columns, and its
/// gradient with respect to y, all [rows, cols].
///
/// ```text
/// e = y - t
/// loss of an element = |e| > δ ? δ · (|e| - δ / 2) : e² / 2
/// gradient = (e > δ ? δ : e < -δ ? -δ : e) · (1 / (rows · cols))
/// ```
///
/// Huber 1964, "Robust estimation of a location parameter", section 1, with the scale and the mean of
/// PyTorch's `HuberLoss`: an outlier pulls no more than δ.
///
/// The loss is computed in f64. With n elements its relative error is at most (n + 5) · 2^-53. The
/// gradient is three roundings in f32, as that of [`mean_squared_error`], and finite where y - t is
/// infinite.
///
/// ```
/// use fused_dropout::loss::{Huber, huber};
/// use fused_dropout::{MatMut, MatRef};
///
/// let (targets, outputs, mut gradient) = ([1.0, 2.0, 3.0, 4.0], [1.0, 1.0, 3.0, 8.0], [9.0; 4]);
/// let args = Huber::new(MatRef::new(&targets, 2, 2)?, 2.0)?;
/// let to = MatMut::new(&mut gradient, 2, 2)?;
/// assert_eq!(huber(&args, MatRef::new(&outputs, 2, 2)?, Some(to))?, (0.5 + 6.0) / 4.0);
/// assert_eq!(gradient, [0.0, -0.25, 0.0, 0.5]);
/// # Ok::<(), fused_dropout::Error>(())
/// ```
///
/// # Errors
///
/// When shapes differ.
pub fn huber(args: &Huber<'_>, outputs: MatRef<'_>, gradient: Option<MatMut<'_>>) -> Result<f64> {
    let Huber { targets, delta, batch } = *args;
    mean(outputs, (targets, batch), gradient, |n| Clamped { delta, factor: (1.0 / n) as f32 })
}

impl Objective for MeanSquaredError<'_> {
    fn evaluate(&self, outputs: MatRef<'_>, gradient: MatMut<'_>) -> Result<f64> {
        mean_squared_error(self, outputs, Some(gradient))
    }
}

impl Objective for Huber<'_> {
    fn evaluate(&self, outputs: MatRef<'_>, gradient: MatMut<'_>) -> Result<f64> {
        huber(self, outputs, Some(gradient))
    }
}

/// The square of a difference.
#[derive(Clone, Copy)]
struct Squared {
    factor: f32,
}

impl OfDifference for Squared {
    #[inline(always)]
    fn value(self, difference: f64) -> f64 {
        difference * difference
    }

    #[inline(always)]
    fn gradient(self, difference: f32) -> f32 {
        difference * self.factor
    }
}

/// Half the square of a difference up to delta, and the tangent from there on.
#[derive(Clone, Copy)]
struct Clamped {
    delta: f32,
    factor: f32,
}

impl OfDifference for Clamped {
    #[inline(always)]
    fn value(self, difference: f64) -> f64 {
        let (size, delta) = (difference.abs(), f64::from(self.delta));
        let (square, line) = (0.5 * difference * difference, delta * (size - 0.5 * delta));
        if size > delta { line } else { square }
    }

    #[inline(always)]
    fn gradient(self, difference: f32) -> f32 {
        let (low, high) = (-self.delta, self.delta);
        let clamped = if difference > high { high } else { difference };
        // NaN compares false, and stays.
        (if clamped < low { low } else { clamped }) * self.factor
    }
}
