//! What the layers of a network do in one step.

use super::junction::Junction;
use super::spec::MlpSpec;
use crate::activation::{Activation, Needs};
use crate::error::Result;
use crate::layer::{DenseLayer, Side};
use crate::mask::MaskKey;

/// How the layers of a network are applied in one step, to rows of the mini-batch from `first_row` on.
#[derive(Clone, Copy)]
pub(super) struct Mode<'a> {
    pub(super) spec: &'a MlpSpec,
    pub(super) step: u32,
    pub(super) first_row: u64,
}

impl Mode<'_> {
    pub(super) fn activation_of(&self, l: usize) -> Activation {
        self.spec.activation_of(l)
    }

    /// What backward needs of layer `l`. With a residual the output does not tell the activation.
    pub(super) fn needs(&self, l: usize) -> Needs {
        match self.activation_of(l).needs() {
            Needs::Output if self.spec.is_residual(l) => Needs::PreActivation,
            needs => needs,
        }
    }

    /// The key of a junction, for the rows.
    pub(super) fn key(&self, junction: usize) -> Result<MaskKey> {
        Ok(self.step_key(junction)?.with_origin(self.first_row, 0))
    }

    /// The key of a junction, for what is one in the whole step.
    pub(super) fn step_key(&self, junction: usize) -> Result<MaskKey> {
        MaskKey::new(self.spec.seed, junction as u32, self.step)
    }

    /// Layer `l`, with what is dropped of its input and of its output.
    pub(super) fn layer<'a>(&self, l: usize, junctions: &'a [Junction]) -> Result<DenseLayer<'a>> {
        let input = match l {
            0 => junctions[0].side(self.key(0)?),
            _ => junctions[l].side_after(),
        };
        let output = match junctions.get(l + 1) {
            Some(junction) => junction.side(self.key(l + 1)?),
            None => Side::Whole,
        };
        Ok(DenseLayer::new(self.activation_of(l)).with_input(input).with_output(output))
    }
}
