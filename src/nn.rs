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

use crate::error::{Error, Result};
use crate::view::MatMut;

pub use dense::Dense;
pub use mlp::{Evaluation, Mlp};
pub use prediction::{Combination, Prediction};
pub use sgd::{Schedule, Sgd};
pub use spec::{Granularity, MlpSpec, Noise, StepRate};

/// A buffer as a matrix, grown to just that size if it is too small; what it held is lost then.
fn room(buffer: &mut Vec<f32>, rows: usize, cols: usize) -> Result<MatMut<'_>> {
    let len = rows.checked_mul(cols).ok_or(Error::Overflow { rows, stride: cols })?;
    if buffer.len() < len {
        // Not by `resize`: old and new one would exist together, and the new one might be larger.
        *buffer = Vec::new();
        buffer.reserve_exact(len);
        buffer.resize(len, 0.0);
    }
    MatMut::new(buffer, rows, cols)
}
