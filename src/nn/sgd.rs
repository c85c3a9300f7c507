//! Stochastic gradient descent: its options, and how the learning rate changes.

use crate::error::Result;
use crate::sgd::{SgdStep, check_limit};

/// How the learning rate changes from step to step.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Schedule {
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

/// Options of stochastic gradient descent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sgd {
    /// The learning rate that the schedule starts from.
    pub learning_rate: f32,
    /// What is left of the velocity from step to step.
    pub momentum: f32,
    /// The L2 penalty's factor; biases are not penalised.
    pub weight_decay: f32,
    /// The L1 penalty's factor; biases are not penalised. [`SgdStep`] has the formula of both.
    pub l1: f32,
    /// The largest norm of a unit's incoming weights; biases do not count.
    pub max_norm: Option<f32>,
    /// How the learning rate changes.
    pub schedule: Schedule,
}

impl Sgd {
    /// A constant learning rate, and nothing else.
    pub fn new(learning_rate: f32) -> Self {
        Self {
            learning_rate,
            momentum: 0.0,
            weight_decay: 0.0,
            l1: 0.0,
            max_norm: None,
            schedule: Schedule::Constant,
        }
    }

    /// The learning rate of a step, counted from 0.
    pub fn learning_rate_at(&self, step: u32) -> f32 {
        let done = |steps: u32| f64::from(step.min(steps)) / f64::from(steps.max(1));
        let factor = match self.schedule {
            Schedule::Constant => 1.0,
            Schedule::Linear { steps } => 1.0 - done(steps),
            Schedule::Cosine { steps } => 0.5 + 0.5 * libm::cos(std::f64::consts::PI * done(steps)),
        };
        (f64::from(self.learning_rate) * factor) as f32
    }

    /// The numbers of a step.
    ///
    /// # Errors
    ///
    /// When a number is negative or not finite, or the norm's limit is not positive.
    pub fn step(&self, step: u32) -> Result<SgdStep> {
        let numbers = SgdStep {
            learning_rate: self.learning_rate,
            momentum: self.momentum,
            weight_decay: self.weight_decay,
            l1: self.l1,
        };
        numbers.check()?;
        self.max_norm.map_or(Ok(()), check_limit)?;
        Ok(SgdStep { learning_rate: self.learning_rate_at(step), ..numbers })
    }
}
