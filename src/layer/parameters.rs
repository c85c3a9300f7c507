//! What an update of a layer changes.

use crate::error::Result;
use crate::update::{State, Step};
use crate::view::MatMut;

/// What [`dense_update`](super::dense_update) and [`dense_apply`](super::dense_apply) change.
#[derive(Debug)]
#[non_exhaustive]
#[must_use]
pub struct Parameters<'a, T = f32> {
    /// The weights, [inputs, units].
    pub w: MatMut<'a, T>,
    /// What the update keeps of the weights from step to step.
    pub w_state: State<'a, T>,
    /// The biases; they are not penalised, and do not decay.
    pub bias: Option<&'a mut [T]>,
    /// What the update keeps of the biases; matrices of one row.
    pub bias_state: State<'a, T>,
}

impl<'a, T> Parameters<'a, T> {
    /// Weights without state, and no bias.
    pub fn new(w: MatMut<'a, T>) -> Self {
        Self { w, w_state: State::None, bias: None, bias_state: State::None }
    }

    /// The same with a state of the weights: a velocity, or a pair of moments.
    pub fn with_w_state(self, state: impl Into<State<'a, T>>) -> Self {
        Self { w_state: state.into(), ..self }
    }

    /// The same with biases.
    pub fn with_bias(self, bias: &'a mut [T]) -> Self {
        Self { bias: Some(bias), ..self }
    }

    /// The same with a state of the biases: a velocity, or a pair of moments.
    pub fn with_bias_state(self, state: impl Into<State<'a, T>>) -> Self {
        Self { bias_state: state.into(), ..self }
    }

    /// `Ok` when the states have the shapes of what they belong to, and are what the step needs.
    pub(crate) fn check(&self, step: &Step) -> Result<()> {
        self.w_state.check_shape(self.w.named("W"))?;
        step.check_state("W", &self.w_state)?;
        self.bias_state.check_shape(("the bias", 1, self.w.cols()))?;
        match self.bias {
            Some(_) => step.check_state("the bias", &self.bias_state),
            None => Ok(()),
        }
    }
}
