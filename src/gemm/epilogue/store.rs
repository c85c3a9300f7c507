//! Ends of a product that only store: its sums, or what a mask keeps of them.

use super::Activate;
use crate::activation::Activation;
use crate::view::Target;

/// `c = sum`: the sums stay where they end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Store {
    pub(crate) c: Target,
}

/// `c = keep ? sum · scale : 0`: the gradient through an input dropout.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MaskEnd {
    pub(crate) c: Target,
    pub(crate) scale: f32,
}

impl From<MaskEnd> for Activate {
    /// The same, as an activation that changes nothing.
    fn from(MaskEnd { c, scale }: MaskEnd) -> Self {
        let activation = Activation::Identity;
        Activate { activation, scale, y: c, z: None, residual: None }
    }
}
