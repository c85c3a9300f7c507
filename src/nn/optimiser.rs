//! How a network is trained: the numbers of its updates, and how the learning rate changes.

use crate::error::Result;
use crate::sgd::{SgdStep, check_limit};

/// How the learning rate changes from step to step.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
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

/// Stochastic gradient descent: the numbers of an update, a limit of norms, and a schedule.
///
/// ```
/// # use fused_dropout::nn::{LearningRateSchedule, Sgd};
/// let sgd = Sgd::new(0.05)
///     .with_momentum(0.9)
///     .with_schedule(LearningRateSchedule::Linear { steps: 100 });
/// assert_eq!(sgd.step_at(50)?.learning_rate, 0.025);
/// # Ok::<(), fused_dropout::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
#[must_use]
pub struct Sgd {
    /// The numbers of the first step; the learning rate is the one that the schedule starts from.
    pub step: SgdStep,
    /// The largest norm of a unit's incoming weights; biases do not count.
    pub max_norm: Option<f32>,
    /// How the learning rate changes.
    pub schedule: LearningRateSchedule,
}

impl Sgd {
    /// A constant learning rate, and nothing else.
    pub fn new(learning_rate: f32) -> Self {
        let schedule = LearningRateSchedule::Constant;
        Self { step: SgdStep::new(learning_rate), max_norm: None, schedule }
    }

    /// The same with this share of the velocity left from step to step.
    pub fn with_momentum(mut self, momentum: f32) -> Self {
        self.step.momentum = momentum;
        self
    }

    /// The same with an L2 penalty; biases are not penalised.
    pub fn with_weight_decay(mut self, weight_decay: f32) -> Self {
        self.step.weight_decay = weight_decay;
        self
    }

    /// The same with an L1 penalty; biases are not penalised.
    pub fn with_l1(mut self, l1: f32) -> Self {
        self.step.l1 = l1;
        self
    }

    /// The same with a largest norm of a unit's incoming weights.
    pub fn with_max_norm(self, limit: f32) -> Self {
        Self { max_norm: Some(limit), ..self }
    }

    /// The same with this schedule of the learning rate.
    pub fn with_schedule(self, schedule: LearningRateSchedule) -> Self {
        Self { schedule, ..self }
    }

    /// The numbers of a step, counted from 0.
    ///
    /// # Errors
    ///
    /// When a number is negative or not finite, or the norm's limit is not positive.
    pub fn step_at(&self, step: u32) -> Result<SgdStep> {
        self.step.check()?;
        self.max_norm.map_or(Ok(()), check_limit)?;
        let mut numbers = self.step;
        numbers.learning_rate = self.schedule.at(self.step.learning_rate, step);
        Ok(numbers)
    }
}
