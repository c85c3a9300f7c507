//! What a trainer of small networks touches: a multi-layer perceptron with dropout, and how it
//! is trained: the loss, the optimiser and its schedule, gradients on request.
//!
//! Training is a function of the seed, the data and the options: the same seed gives the same
//! weights, bit for bit, whatever the number of threads.

#[cfg(feature = "safetensors")]
pub mod checkpoint;
mod dense;
mod gradients;
mod inference;
mod initialiser;
mod junction;
mod mlp;
mod mode;
mod monte_carlo;
mod optimiser;
mod prediction;
mod spec;
mod training;

use crate::buffers::AlignedBuffer;
use crate::error::Result;
use crate::view::MatMut;

pub use dense::{Dense, DenseState, Values};
pub use gradients::{LayerGradients, MlpGradients};
pub use initialiser::{Distribution, Fan, Initialiser};
pub use mlp::Mlp;
pub use optimiser::{LearningRateSchedule, Optimiser};
pub use prediction::{Combination, Prediction};
pub use spec::{Granularity, MlpSpec, Noise, StepRate};
pub use training::BatchPart;

/// Room for a matrix in a buffer.
fn room(buffer: &mut AlignedBuffer, rows: usize, cols: usize) -> Result<MatMut<'_>> {
    MatMut::new(buffer.room(rows, cols)?, rows, cols)
}
