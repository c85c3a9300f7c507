//! What a trainer of small networks touches: a multi-layer perceptron with dropout, its loss, and
//! stochastic gradient descent with a schedule.
//!
//! Training is a function of the seed, the data and the options: the same seed gives the same
//! weights, bit for bit, whatever the number of threads.

mod dense;
mod granularity;
mod mlp;
mod mode;
mod monte_carlo;
mod prediction;
mod sgd;

pub use dense::Dense;
pub use granularity::Granularity;
pub use mlp::{Evaluation, Mlp, MlpSpec};
pub use prediction::{Combination, Prediction};
pub use sgd::{Schedule, Sgd};
