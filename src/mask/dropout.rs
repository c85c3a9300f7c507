//! The rate of a dropout, checked, with the threshold and the scale that follow from it.

use crate::error::{Error, Result};

/// When the scale that makes up for dropped elements is applied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "kebab-case"))]
#[non_exhaustive]
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
/// ```text
/// T     = round((1 - rate) · 2^32)        computed in f64, 0 to 2^32
/// keep  = T / 2^32                        the keep probability that masks have
/// scale = 2^32 / T                        0 where T is 0; 1 with classical scaling
/// ```
///
/// The rate is the probability to drop; Srivastava et al. 2014 ("Dropout: a simple way to prevent
/// neural networks from overfitting", JMLR 15) write p for the probability to keep. It becomes a
/// mask by a [`MaskKey`](crate::MaskKey): [`with_key`](Self::with_key).
///
/// ```
/// # use fused_dropout::Dropout;
/// let dropout = Dropout::new(0.2)?;
/// assert_eq!(dropout.threshold(), 3435973837);
/// assert_eq!(dropout.scale(), 1.25);
/// # Ok::<(), fused_dropout::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[must_use]
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
    pub const fn rate(&self) -> f64 {
        self.rate
    }

    /// `T = round((1 - rate) · 2^32)`.
    pub const fn threshold(&self) -> u64 {
        self.threshold
    }

    /// The keep probability that the masks have: `T / 2^32`.
    pub const fn keep(&self) -> f64 {
        self.threshold as f64 / 4_294_967_296.0
    }

    /// When the scale is applied.
    pub const fn scaling(&self) -> Scaling {
        self.scaling
    }

    /// The factor of kept elements in training: `2^32 / T`, computed in f64 and rounded once; 0
    /// where `T` is 0, and 1 with classical scaling.
    pub const fn scale(&self) -> f32 {
        self.scale_f64() as f32
    }

    /// The same factor in f64.
    pub const fn scale_f64(&self) -> f64 {
        match (self.scaling, self.threshold) {
            (Scaling::Classical, _) => 1.0,
            (Scaling::Inverted, 0) => 0.0,
            (Scaling::Inverted, threshold) => 4_294_967_296.0 / threshold as f64,
        }
    }

    /// Whether an element may be dropped.
    pub(crate) const fn drops(&self) -> bool {
        self.threshold < 1 << 32
    }

    /// What undoes the scale, so that an activation can be read back from its output.
    pub(crate) fn unscale(&self) -> f64 {
        match self.scaling {
            Scaling::Classical => 1.0,
            Scaling::Inverted => self.keep(),
        }
    }
}
