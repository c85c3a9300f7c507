//! How a network is trained: the numbers of its updates, limits of norms, and how the learning rate
//! changes.

use crate::error::Result;
use crate::update::{SgdStep, Step, check_limit, clip_factor};

/// How the learning rate changes from step to step, after a warm-up if there is one.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "kebab-case", deny_unknown_fields))]
#[non_exhaustive]
pub enum LearningRateSchedule {
    /// It does not.
    #[default]
    Constant,
    /// It falls linearly to 0 over so many steps: `learning_rate · (1 - step / steps)`.
    Linear {
        /// Steps until it is 0.
        steps: u32,
    },
    /// It falls to 0 along half a cosine: `learning_rate · (1 + cos(π · step / steps)) / 2`
    /// (Loshchilov and Hutter 2017, "SGDR", without restarts).
    Cosine {
        /// Steps until it is 0.
        steps: u32,
    },
}

impl LearningRateSchedule {
    /// The learning rate of a step, counted from 0, where `learning_rate` is that of step 0.
    pub fn at(&self, learning_rate: f32, step: u32) -> f32 {
        let done = |steps: u32| f64::from(step.min(steps)) / f64::from(steps.max(1));
        let factor = match *self {
            Self::Constant => 1.0,
            Self::Linear { steps } => 1.0 - done(steps),
            Self::Cosine { steps } => 0.5 + 0.5 * libm::cos(std::f64::consts::PI * done(steps)),
        };
        (f64::from(learning_rate) * factor) as f32
    }
}

/// How parameters are updated: the method and its numbers, limits of norms, and the learning rate of each
/// step.
///
/// ```
/// # use fused_dropout::nn::{LearningRateSchedule, Optimiser};
/// # use fused_dropout::update::{AdamStep, SgdStep};
/// let sgd = Optimiser::new(SgdStep::new(0.05).with_momentum(0.9))
///     .with_schedule(LearningRateSchedule::Linear { steps: 100 });
/// assert_eq!(sgd.learning_rate(50), 0.025);
///
/// // AdamW, 10 steps of warm-up, and gradients of at most the norm 1.
/// let adam_w = Optimiser::new(AdamStep::new(1e-3).with_weight_decay(0.01))
///     .with_schedule(LearningRateSchedule::Cosine { steps: 90 })
///     .with_warm_up(10)
///     .with_clip_norm(1.0);
/// assert_eq!((adam_w.learning_rate(4), adam_w.learning_rate(10)), (5e-4, 1e-3));
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
#[non_exhaustive]
#[must_use]
pub struct Optimiser {
    /// The method and its numbers; the learning rate is the one that the schedule starts from, and the
    /// network counts Adam's steps itself.
    pub step: Step,
    /// The largest norm of a unit's incoming weights; biases do not count.
    pub max_norm: Option<f32>,
    /// The largest norm of all gradients together: they are scaled down to it.
    pub clip_norm: Option<f64>,
    /// How the learning rate changes.
    pub schedule: LearningRateSchedule,
    /// Steps before the schedule starts, in which the learning rate rises in equal parts.
    pub warm_up: u32,
}

impl From<SgdStep> for Optimiser {
    fn from(step: SgdStep) -> Self {
        Self::new(step)
    }
}

impl Optimiser {
    /// This method with a constant learning rate, and nothing else.
    pub fn new(step: impl Into<Step>) -> Self {
        let schedule = LearningRateSchedule::Constant;
        Self { step: step.into(), max_norm: None, clip_norm: None, schedule, warm_up: 0 }
    }

    /// The same with a largest norm of a unit's incoming weights.
    pub fn with_max_norm(self, limit: f32) -> Self {
        Self { max_norm: Some(limit), ..self }
    }

    /// The same with a largest norm of all gradients together. They are all made before the first update
    /// then, which costs a pass over memory.
    pub fn with_clip_norm(self, limit: f64) -> Self {
        Self { clip_norm: Some(limit), ..self }
    }

    /// The same with this schedule of the learning rate.
    pub fn with_schedule(self, schedule: LearningRateSchedule) -> Self {
        Self { schedule, ..self }
    }

    /// The same with so many steps of warm-up before the schedule starts (Goyal et al. 2017, "Accurate,
    /// large minibatch SGD", section 2.2).
    pub fn with_warm_up(self, steps: u32) -> Self {
        Self { warm_up: steps, ..self }
    }

    /// The learning rate of a step, counted from 0: `learning_rate · (step + 1) / warm_up` in the
    /// warm-up, then that of the schedule, whose step 0 is the first one after it.
    pub fn learning_rate(&self, step: u32) -> f32 {
        let rate = match self.step {
            Step::Sgd(step) => step.learning_rate,
            Step::Adam(step) => step.learning_rate,
        };
        match step.checked_sub(self.warm_up) {
            Some(step) => self.schedule.at(rate, step),
            None => {
                let part = (f64::from(step) + 1.0) / f64::from(self.warm_up);
                (f64::from(rate) * part) as f32
            }
        }
    }

    /// The numbers of a step, counted from 0, which is step `moments` of Adam's, counted from 1.
    ///
    /// # Errors
    ///
    /// When a number is out of its range, or the limit of a norm is not positive.
    pub fn step_at(&self, step: u32, moments: u32) -> Result<Step> {
        let rate = self.learning_rate(step);
        let numbers = match self.step {
            Step::Sgd(sgd) => {
                sgd.check()?;
                Step::Sgd(SgdStep { learning_rate: rate, ..sgd })
            }
            Step::Adam(adam) => {
                let adam = adam.at_step(moments);
                adam.check()?;
                Step::Adam(adam.with_learning_rate(rate))
            }
        };
        self.max_norm.map_or(Ok(()), check_limit)?;
        self.clip_norm.map_or(Ok(1.0), |limit| clip_factor(0.0, limit))?;
        Ok(numbers)
    }
}
