//! What a trainer of small networks touches: a multi-layer perceptron with dropout, its loss, and
//! stochastic gradient descent with a schedule.
//!
//! Training is a function of the seed, the data and the options: the same seed gives the same
//! weights, bit for bit, whatever the number of threads.

mod dense;
mod junction;
mod mlp;
mod mode;
mod monte_carlo;
mod prediction;
mod sgd;
mod spec;

use crate::buffers::AlignedBuffer;
use crate::error::Result;
use crate::view::MatMut;

pub use dense::Dense;
pub use mlp::{Evaluation, Mlp};
pub use prediction::{Combination, Prediction};
pub use sgd::{Schedule, Sgd};
pub use spec::{Granularity, MlpSpec, Noise, StepRate};

/// Room for a matrix in a buffer.
fn room(buffer: &mut AlignedBuffer, rows: usize, cols: usize) -> Result<MatMut<'_>> {
    MatMut::new(buffer.room(rows, cols)?, rows, cols)
}
