//! Random initial weights.

use crate::elementwise::standard_normal;
use crate::error::{Error, Result};
use crate::mask::MaskKey;
use crate::philox::philox4x32_10;
use crate::view::MatMut;

/// What the variance of initial weights is divided by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Fan {
    /// The number of inputs.
    Inputs,
    /// The mean of the numbers of inputs and units.
    Mean,
}

/// The distribution of initial weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Distribution {
    /// N(0, variance); no weight is further than 6.8 standard deviations from 0.
    Normal,
    /// U(-a, a) with `a = sqrt(3 · variance)`.
    Uniform,
}

/// How initial weights are drawn: with the variance `gain / fan`.
///
/// | | gain | fan | for | source |
/// |---|---|---|---|---|
/// | He | 2 | inputs | ReLU and its relatives | He et al. 2015, "Delving deep into rectifiers", section 2.2 |
/// | Glorot | 1 | mean | tanh, sigmoid | Glorot and Bengio 2010, "Understanding the difficulty of training deep feedforward neural networks", section 4.2 |
/// | LeCun | 1 | inputs | SELU, tanh | LeCun et al. 1998, "Efficient BackProp", section 4.6 |
///
/// A weight is a function of the key, its row and its column, so a part of a matrix, with its origin in
/// the key, gets its part of the numbers (and their variance, where the fans are the same).
///
/// ```
/// use fused_dropout::nn::Initialiser;
/// use fused_dropout::{MaskKey, MatMut};
///
/// let mut w = [0.0; 100 * 50];
/// let key = MaskKey::new(42, 1, Initialiser::STEP)?;
/// Initialiser::he_uniform().fill(MatMut::new(&mut w, 100, 50)?, &key)?;
/// let limit = (3.0f32 * 2.0 / 100.0).sqrt();
/// assert!(w.iter().all(|w| w.abs() <= limit) && w.iter().any(|w| w.abs() > 0.99 * limit));
/// # Ok::<(), fused_dropout::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
#[must_use]
pub struct Initialiser {
    /// The variance times the fan.
    pub gain: f64,
    /// What the gain is divided by.
    pub fan: Fan,
    /// The distribution.
    pub distribution: Distribution,
}

impl Initialiser {
    /// A step that no network takes: its numbers are free for initial weights.
    pub const STEP: u32 = u32::MAX;

    const fn new(gain: f64, fan: Fan, distribution: Distribution) -> Self {
        Self { gain, fan, distribution }
    }

    /// He, normal.
    pub const fn he_normal() -> Self {
        Self::new(2.0, Fan::Inputs, Distribution::Normal)
    }

    /// He, uniform.
    pub const fn he_uniform() -> Self {
        Self::new(2.0, Fan::Inputs, Distribution::Uniform)
    }

    /// Glorot, normal.
    pub const fn glorot_normal() -> Self {
        Self::new(1.0, Fan::Mean, Distribution::Normal)
    }

    /// Glorot, uniform.
    pub const fn glorot_uniform() -> Self {
        Self::new(1.0, Fan::Mean, Distribution::Uniform)
    }

    /// LeCun, normal.
    pub const fn lecun_normal() -> Self {
        Self::new(1.0, Fan::Inputs, Distribution::Normal)
    }

    /// LeCun, uniform.
    pub const fn lecun_uniform() -> Self {
        Self::new(1.0, Fan::Inputs, Distribution::Uniform)
    }

    /// The same with another gain.
    pub const fn with_gain(self, gain: f64) -> Self {
        Self { gain, ..self }
    }

    /// The standard deviation of the weights [inputs, units] of a layer.
    pub fn deviation(&self, inputs: usize, units: usize) -> f64 {
        let fan = match self.fan {
            Fan::Inputs => inputs as f64,
            Fan::Mean => (inputs as f64 + units as f64) / 2.0,
        };
        libm::sqrt(self.gain / fan.max(1.0))
    }

    /// Draws the weights `w` [inputs, units] of a layer: the deviation times the standard normal numbers
    /// of the key ([`standard_normal`]), or times `sqrt(3) · (2 u - 1)` with
    /// `u = (W + 1/2) / 2^32` of the word W that is each column's for those numbers.
    ///
    /// # Errors
    ///
    /// When the gain is negative or not finite, or the key's origin and the shape go past what a mask
    /// can address.
    pub fn fill(&self, mut w: MatMut<'_>, key: &MaskKey) -> Result<()> {
        if !(self.gain.is_finite() && self.gain >= 0.0) {
            let (name, value) = ("gain", self.gain);
            return Err(Error::Parameter { name, value, expected: "finite and not negative" });
        }
        let (rows, cols) = (w.rows(), w.cols());
        let deviation = self.deviation(rows, cols);
        match self.distribution {
            Distribution::Normal => {
                standard_normal(w.reborrow(), key)?;
                each(&mut w, |z, _, _| (deviation * f64::from(z)) as f32);
            }
            Distribution::Uniform => {
                key.noise().check(rows, cols)?;
                let limit = libm::sqrt(3.0) * deviation;
                each(&mut w, |_, r, c| (limit * symmetric(key, r, c)) as f32);
            }
        }
        Ok(())
    }
}

/// Replaces each element by a function of itself, its row and its column.
fn each(w: &mut MatMut<'_>, f: impl Fn(f32, usize, usize) -> f32) {
    for r in 0..w.rows() {
        for c in 0..w.cols() {
            let old = w.as_ref().at(r, c);
            w.put(r, c, f(old, r, c));
        }
    }
}

/// The number from U(-1, 1) of an element.
fn symmetric(key: &MaskKey, row: usize, col: usize) -> f64 {
    let (row, col) = (key.row0() + row as u64, key.col0() + col as u64);
    let i = (col % 128) as u32;
    let (counter, philox_key) = key.noise().counter(row as u32, (col / 128) as u32, i / 4);
    let word = philox4x32_10(counter, philox_key)[i as usize % 4];
    (f64::from(word) + 0.5) / f64::from(1u32 << 31) - 1.0
}
