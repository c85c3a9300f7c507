//! What the layers of a network are given in one step.

use super::junction::Junction;
use crate::activation::Activation;
use crate::error::Result;
use crate::mask::MaskKey;
use crate::unit::Side;

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

    /// What is dropped of the input and of the output of layer `l`.
    pub(super) fn sides<'a>(
        &self,
        l: usize,
        junctions: &'a [Junction],
    ) -> Result<(Side<'a>, Side<'a>)> {
        let input = match l {
            0 => junctions[0].side(self.key(0)?),
            _ => junctions[l].side_after(),
        };
        let output = match junctions.get(l + 1) {
            Some(junction) => junction.side(self.key(l + 1)?),
            None => Side::WHOLE,
        };
        Ok((input, output))
    }
}
