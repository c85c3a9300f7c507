//! Parameter updates, for weights whose gradient is in memory: stochastic gradient descent, Adam and
//! AdamW, and what is done to gradients and weights beside them: clipping, and the max-norm constraint
//! of the dropout papers.
//!
//! [`dense_update`](crate::layer::dense_update) makes the same updates, bit for bit, without the
//! gradient in memory. [`apply`] is for trainers that clip gradients, or share them, before they are
//! applied.

mod adam;
mod apply;
mod clip;
mod max_norm;
mod sgd;
mod state;
mod step;

pub use adam::AdamStep;
pub(crate) use apply::check_apply;
pub use apply::{Gradient, apply};
pub(crate) use clip::{CHUNK, SMALL_SUM, norm_of};
pub use clip::{clip_factor, global_norm};
pub use max_norm::max_norm;
pub(crate) use max_norm::{check_limit, gathered_max_norm};
pub use sgd::SgdStep;
pub use state::State;
pub(crate) use state::{StateTargets, StateVectors};
pub use step::Step;
pub(crate) use step::{Ready, StepWork};

/// Elements worth a task.
const TASK: usize = crate::threads::work::COPY;
