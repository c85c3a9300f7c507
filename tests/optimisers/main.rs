//! Updates by every method: formulas, the fused update of a layer, accumulated and clipped gradients.

#[path = "../common/mod.rs"]
mod common;

mod accumulation;
mod clipping;
mod formulas;
mod layers;

use fused_dropout::MatMut;
use fused_dropout::update::{AdamStep, SgdStep, State, Step};

use common::numbers;

/// Every kind of step, with all of its terms.
fn steps() -> [Step; 6] {
    let sgd = SgdStep::new(0.05).with_momentum(0.9).with_weight_decay(0.01);
    let adam = AdamStep::new(0.01).with_betas(0.8, 0.95).with_epsilon(1e-6).at_step(3);
    [
        sgd.into(),
        sgd.with_nesterov().into(),
        sgd.with_l1(0.02).with_nesterov().into(),
        adam.into(),
        adam.with_weight_decay(0.1).into(),
        adam.with_l2(0.1).into(),
    ]
}

/// The matrices of a state, as a step needs them: a velocity, or a first and a second moment. Second
/// moments are not near 0, where a rounding of the gradient would decide the sign of a step.
#[derive(Clone, Debug, PartialEq)]
struct Kept([Vec<f32>; 2]);

impl Kept {
    fn new(len: usize, seed: u64) -> Self {
        let second = numbers(len, seed + 1).into_iter().map(|v| v.abs() + 0.5).collect();
        Self([numbers(len, seed), second])
    }

    /// The state of a step, [rows, cols], or [cols, rows] transposed.
    fn state(&mut self, step: &Step, rows: usize, cols: usize, transposed: bool) -> State<'_> {
        let [first, second] = &mut self.0;
        let view = |data| match transposed {
            true => MatMut::new(data, cols, rows).unwrap().t(),
            false => MatMut::new(data, rows, cols).unwrap(),
        };
        match step {
            Step::Sgd(_) => view(first).into(),
            _ => (view(first), view(second)).into(),
        }
    }

    fn all(&self) -> Vec<f32> {
        self.0.concat()
    }
}
