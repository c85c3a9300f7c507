//! The rate of a dropout, checked, with the threshold and the scale that follow from it.

use crate::error::{Error, Result};

/// When the scale that makes up for dropped elements is applied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Scaling {
    /// Kept elements are divided by the keep probability in training; inference is the identity.
    #[default]
    Inverted,
    /// Nothing is scaled in training; at inference the weights that read the dropped units are
    /// multiplied by the keep probability (Srivastava et al. 2014, section 1).
    Classical,
}

/// How much to drop, and how to scale what is kept.
///
/// ```
/// # use fused_dropout::Dropout;
/// let dropout = Dropout::new(0.2)?;
/// assert_eq!(dropout.threshold(), 3435973837);
/// assert_eq!(dropout.scale(), 1.25);
/// # Ok::<(), fused_dropout::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dropout {
    rate: f64,
    threshold: u64,
    scaling: Scaling,
}

impl Dropout {
    /// Nothing is dropped.
    pub const NONE: Dropout = Dropout { rate: 0.0, threshold: 1 << 32, scaling: Scaling::Inverted };

    /// Drops with probability `rate` and divides what is kept by the keep probability.
    ///
    /// # Errors
    ///
    /// When `rate` is NaN, below 0 or above 1.
    pub fn new(rate: f64) -> Result<Self> {
        Self::with_scaling(rate, Scaling::Inverted)
    }

    /// Drops with probability `rate`, scaled as `scaling` says.
    ///
    /// # Errors
    ///
    /// When `rate` is NaN, below 0 or above 1.
    pub fn with_scaling(rate: f64, scaling: Scaling) -> Result<Self> {
        if !(0.0..=1.0).contains(&rate) {
            return Err(Error::Rate { rate });
        }
        // At most 2^32, which a u64 holds exactly.
        let threshold = ((1.0 - rate) * 4_294_967_296.0).round() as u64;
        Ok(Self { rate, threshold, scaling })
    }

    /// The probability to drop, as it was given.
    pub fn rate(&self) -> f64 {
        self.rate
    }

    /// `T = round((1 - rate) · 2^32)`.
    pub fn threshold(&self) -> u64 {
        self.threshold
    }

    /// The keep probability that the masks have: `T / 2^32`.
    pub fn keep(&self) -> f64 {
        self.threshold as f64 / 4_294_967_296.0
    }

    /// Whether an element may be dropped.
    pub(crate) fn drops(&self) -> bool {
        self.threshold < 1 << 32
    }

    /// When the scale is applied.
    pub fn scaling(&self) -> Scaling {
        self.scaling
    }

    /// The factor of kept elements in training: `2^32 / T`, computed in f64 and rounded once; 0
    /// where `T` is 0, and 1 with classical scaling.
    pub fn scale(&self) -> f32 {
        self.scale_f64() as f32
    }

    /// The same factor in f64.
    pub fn scale_f64(&self) -> f64 {
        match (self.scaling, self.threshold) {
            (Scaling::Classical, _) => 1.0,
            (Scaling::Inverted, 0) => 0.0,
            (Scaling::Inverted, threshold) => 4_294_967_296.0 / threshold as f64,
        }
    }

    /// What undoes the scale, so that an activation can be read back from its output.
    pub(crate) fn unscale(&self) -> f64 {
        match self.scaling {
            Scaling::Classical => 1.0,
            Scaling::Inverted => self.keep(),
        }
    }
}
