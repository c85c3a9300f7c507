//! The weights after 200 steps on the digits have one SHA-256: on every level with fused
//! multiply-add, on any number of threads, on any machine.

mod common;
#[path = "common/digits.rs"]
mod digits;

use common::{for_each_level, with_threads};
use digits::{CLASSES, Digits, PIXELS};
use fused_dropout::nn::{LearningRateSchedule, Mlp, MlpSpec, Optimiser};
use fused_dropout::testing;
use fused_dropout::update::SgdStep;
use sha2::{Digest, Sha256};

/// The bytes of all weights and biases, layer after layer, each float little end first.
const SHA_256: &str = "80551d28f90e64215ac73a323fba8d9a82b61e95d742efb1cced892b4ba52bd8";

/// The recipe of the example `train_digits`: 64-256-256-10, ReLU, rates 0.1 and 0.5, momentum.
fn weights_after_200_steps() -> String {
    let digits = Digits::all();
    let sizes = [PIXELS, 256, 256, CLASSES];
    let spec = MlpSpec::new(&sizes).with_input_rate(0.1).with_hidden_rate(0.5);
    let schedule = LearningRateSchedule::Linear { steps: 200 };
    let sgd = Optimiser::new(SgdStep::new(0.05).with_momentum(0.9)).with_schedule(schedule);
    let mut mlp = Mlp::new(&spec).unwrap();
    for step in 0..200 {
        let rows: Vec<usize> = (0..50).map(|i| (step * 50 + i) % digits.len()).collect();
        let batch = digits.pick(&rows);
        mlp.train_step(batch.x(), &batch.labels, &sgd).unwrap();
    }
    let mut hash = Sha256::new();
    for layer in mlp.layers() {
        for number in layer.weights().iter().chain(layer.bias()) {
            hash.update(number.to_le_bytes());
        }
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn trained_weights_have_one_hash() {
    for_each_level(|level| {
        if level.has_fma() {
            for threads in [1, 2, 8] {
                let run = || testing::at_level(level, weights_after_200_steps).unwrap();
                assert_eq!(with_threads(threads, run), SHA_256, "{level} on {threads} threads");
            }
        }
    });
}
