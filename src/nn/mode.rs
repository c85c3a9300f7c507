//! What the layers of a network do in one step.

use super::junction::Junction;
use crate::activation::Activation;
use crate::error::Result;
use crate::layer::{DenseLayer, Side};
use crate::mask::MaskKey;

/// How the layers of a network are applied in one step.
#[derive(Clone, Copy)]
pub(super) struct Mode {
    pub(super) activation: Activation,
    pub(super) seed: u64,
    pub(super) step: u32,
    pub(super) layers: usize,
}

impl Mode {
    pub(super) fn activation_of(&self, l: usize) -> Activation {
        if l + 1 == self.layers { Activation::Identity } else { self.activation }
    }

    pub(super) fn key(&self, layer: usize) -> Result<MaskKey> {
        MaskKey::new(self.seed, layer as u32, self.step)
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
