//! An update of any kind: its numbers, and what it does to a vector of weights.

use super::adam::{AdamStep, Numbers};
use super::sgd::SgdStep;
use super::state::{State, StateTargets, StateVectors};
use crate::error::{Error, Result};
use crate::isa::Isa;

/// The numbers of one update, by the method.
///
/// ```
/// use fused_dropout::update::{AdamStep, SgdStep, Step};
///
/// let by_hand = Step::from(SgdStep::new(0.1).with_momentum(0.9));
/// let adam_w = Step::from(AdamStep::new(1e-3).with_weight_decay(0.01).at_step(7));
/// assert_ne!(by_hand, adam_w);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "kebab-case"))]
#[non_exhaustive]
#[must_use]
pub enum Step {
    /// Stochastic gradient descent: state is none, or a velocity.
    Sgd(SgdStep),
    /// Adam or AdamW: state is two moments.
    Adam(AdamStep),
}

impl From<SgdStep> for Step {
    fn from(step: SgdStep) -> Self {
        Step::Sgd(step)
    }
}

impl From<AdamStep> for Step {
    fn from(step: AdamStep) -> Self {
        Step::Adam(step)
    }
}

impl Step {
    /// `Ok` when each number is in its range.
    pub(crate) fn check(&self) -> Result<()> {
        match self {
            Step::Sgd(step) => step.check(),
            Step::Adam(step) => step.check(),
        }
    }

    /// `Ok` when the step has the state that it needs.
    pub(crate) fn check_state<T>(&self, of: &'static str, state: &State<'_, T>) -> Result<()> {
        let (step, needs) = match (self, state) {
            (Step::Sgd(step), State::None) if step.nesterov => {
                ("gradient descent with Nesterov's momentum", "a velocity")
            }
            (Step::Sgd(_), State::None | State::Velocity(_)) => return Ok(()),
            (Step::Adam(_), State::Moments { .. }) => return Ok(()),
            (Step::Sgd(_), State::Moments { .. }) => ("gradient descent", "none, or a velocity"),
            (Step::Adam(_), State::None | State::Velocity(_)) => ("Adam", "two moments"),
        };
        Err(Error::State { of, state: state.kind(), step, needs })
    }

    /// The step of the biases of a layer, which are not penalised.
    pub(crate) fn without_penalties(&self) -> Self {
        match self {
            Step::Sgd(step) => Step::Sgd(step.without_penalties()),
            Step::Adam(step) => Step::Adam(step.without_penalties()),
        }
    }

    /// The step for kernels.
    pub(crate) fn ready(&self) -> Ready {
        match self {
            Step::Sgd(step) => Ready::Sgd(*step),
            Step::Adam(step) => Ready::Adam(step.numbers().map(|number| number as f32)),
        }
    }
}

/// A step whose numbers are those of an element.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Ready {
    Sgd(SgdStep),
    Adam(Numbers<f32>),
}

impl Ready {
    /// Calls `work` with the same step and state, in a copy of the work for each kind of step that
    /// is often taken, so that there is no branch for a vector.
    #[inline(always)]
    pub(crate) fn unswitch<W: StepWork>(self, state: StateTargets, work: W) {
        let StateTargets { first, second } = state;
        match (self, first, second) {
            (Ready::Sgd(step), Some(velocity), _) if step.l1 == 0.0 && !step.nesterov => {
                let step = SgdStep { l1: 0.0, nesterov: false, ..step };
                work.call(Ready::Sgd(step), StateTargets { first: Some(velocity), second: None });
            }
            (Ready::Adam(numbers), Some(m), Some(v)) => {
                work.call(Ready::Adam(numbers), StateTargets { first: Some(m), second: Some(v) });
            }
            (step, first, _) => work.call(step, StateTargets { first, second: None }),
        }
    }

    /// The new weight and state.
    #[inline(always)]
    pub(crate) fn vector<I: Isa>(
        self,
        isa: I,
        w: I::F32,
        dw: I::F32,
        state: StateVectors<I>,
    ) -> (I::F32, StateVectors<I>) {
        match (self, state) {
            (Ready::Sgd(step), StateVectors { first, .. }) => {
                let (w, v) = step.vector(isa, w, dw, first);
                (w, StateVectors { first: first.map(|_| v), second: None })
            }
            (Ready::Adam(numbers), StateVectors { first: Some(m), second: Some(v) }) => {
                let (w, m, v) = numbers.vector(isa, w, dw, (m, v));
                (w, StateVectors { first: Some(m), second: Some(v) })
            }
            (Ready::Adam(_), _) => unreachable!("`Step::check_state` asked for both moments"),
        }
    }
}

/// What [`Ready::unswitch`] calls.
pub(crate) trait StepWork {
    fn call(self, step: Ready, state: StateTargets);
}
