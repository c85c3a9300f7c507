//! Checkpoints: a network that is saved and loaded goes on as if nothing had been, and a file that is no
//! checkpoint of a network is refused.

#![cfg(feature = "safetensors")]

mod broken;
#[path = "../common/mod.rs"]
mod common;
mod files;
mod resume;

use fused_dropout::nn::{Mlp, MlpSpec, Optimiser};
use fused_dropout::update::{AdamStep, SgdStep};

use common::{matrix, numbers};

/// A network of two layers after a step, of which the file is small.
fn small(optimiser: impl Into<Optimiser>) -> Mlp {
    let mut mlp = Mlp::new(&MlpSpec::new(&[3, 4, 2]).with_hidden_rate(0.5).with_seed(5)).unwrap();
    let (x, labels) = (numbers(6 * 3, 1), [0, 1, 0, 1, 1, 0]);
    mlp.train_step(matrix(&x, 6, 3), &labels, &optimiser.into()).unwrap();
    mlp
}

fn with_velocity() -> Mlp {
    small(SgdStep::new(0.1).with_momentum(0.9))
}

fn with_moments() -> Mlp {
    small(Optimiser::new(AdamStep::new(0.01)))
}
