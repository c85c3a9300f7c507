//! Rates that change from step to step: by a schedule, or drawn afresh.

use super::dropout::Dropout;
use super::key::MaskKey;
use crate::error::{Error, Result};
use crate::philox::philox4x32_10;

/// How the rate changes from step to step, on its way to a final rate.
///
/// ```
/// # use fused_dropout::{Error, mask::RateSchedule};
/// let rise = RateSchedule::Linear { from: 0.0, steps: 100 };
/// assert_eq!(rise.rate_at(0.5, 50)?, 0.25);
/// assert_eq!(rise.rate_at(0.5, 1000)?, 0.5);
/// let curriculum = RateSchedule::Curriculum { gamma: 0.1 };
/// assert_eq!(curriculum.rate_at(0.5, 0)?, 0.0);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "kebab-case", deny_unknown_fields))]
#[non_exhaustive]
pub enum RateSchedule {
    /// It does not.
    #[default]
    Constant,
    /// It goes linearly from `from` to the final rate over so many steps, and stays there:
    /// `from + (rate - from) · min(step / steps, 1)`.
    Linear {
        /// The rate of step 0.
        from: f64,
        /// Steps until it is the final one.
        steps: u32,
    },
    /// It grows from 0 to the final rate: `rate · (1 - exp(-gamma · step))`. In the words of
    /// Morerio et al. 2017 ("Curriculum dropout", ICCV), whose θ is the probability to retain,
    /// `θ(t) = (1 - θ̄) · exp(-γ t) + θ̄`. The authors take `gamma = 10 / steps` with the number of steps
    /// of the whole training, at whose end the rate is short of the final one by `rate · exp(-10)`.
    Curriculum {
        /// How fast it grows; above 0.
        gamma: f64,
    },
}

impl RateSchedule {
    /// The rate of a step, counted from 0, on the way to `rate`.
    ///
    /// # Errors
    ///
    /// When `rate` or the rate of step 0 is no probability, or gamma is not positive and finite.
    pub fn rate_at(&self, rate: f64, step: u32) -> Result<f64> {
        check_rate(rate)?;
        match *self {
            RateSchedule::Constant => Ok(rate),
            RateSchedule::Linear { from, steps } => {
                check_rate(from)?;
                if step >= steps {
                    return Ok(rate);
                }
                let done = f64::from(step) / f64::from(steps);
                Ok((from + (rate - from) * done).clamp(from.min(rate), from.max(rate)))
            }
            RateSchedule::Curriculum { gamma } if gamma > 0.0 && gamma.is_finite() => {
                Ok(-rate * libm::expm1(-gamma * f64::from(step)))
            }
            RateSchedule::Curriculum { gamma } => {
                let expected = "positive and finite";
                Err(Error::Parameter { name: "gamma", value: gamma, expected })
            }
        }
    }
}

fn check_rate(rate: f64) -> Result<()> {
    if (0.0..=1.0).contains(&rate) { Ok(()) } else { Err(Error::Rate { rate }) }
}

/// The first counter word of drawn rates; 0 and 1 belong to the selection of an exact number of
/// units.
const DRAWN_RATE: u32 = 2;

/// A rate drawn from U(0, `most`), a pure function of (seed, layer, step) and of `row`
/// (Bouthillier et al. 2015, "Dropout as data augmentation": a level of noise of its own for each
/// step, or for each example).
///
/// With domain 2 of the mask contract, whose first two blocks seed the selection of an exact number
/// of units,
///
/// ```text
/// R    = philox4x32_10(counter = [2, row, step, layer << 7 | 2 << 5], key = seed)
/// u    = (R[1] · 2^21 + floor(R[0] / 2^11)) / 2^53        in [0, 1)
/// rate = most · u
/// ```
///
/// The key's origin does not enter. For one rate a step, give row 0.
///
/// ```
/// # use fused_dropout::{Error, MaskKey, mask::{Rates, drawn_rate}};
/// let key = MaskKey::new(42, 1, 0)?;
/// let rates: Result<Vec<f64>, Error> = (0..8).map(|row| drawn_rate(0.4, &key, row)).collect();
/// assert_eq!(Rates::per_row(&rates?)?.len(), 8);
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
///
/// When `most` is no probability.
pub fn drawn_rate(most: f64, key: &MaskKey, row: u32) -> Result<f64> {
    check_rate(most)?;
    let (counter, seed) = key.selection().counter(row, DRAWN_RATE, 0);
    let [low, high, ..] = philox4x32_10(counter, seed);
    let u = u64::from(high) << 21 | u64::from(low >> 11);
    Ok(most * (u as f64 / (1u64 << 53) as f64))
}

impl Dropout {
    /// A dropout whose rate is drawn from U(0, `most`) for the key's seed, layer and step: see
    /// [`drawn_rate`].
    ///
    /// # Errors
    ///
    /// When `most` is no probability.
    pub fn drawn(most: f64, key: &MaskKey) -> Result<Self> {
        Self::new(drawn_rate(most, key, 0)?)
    }
}
