//! What a product reads, and how it gets into panels.

mod ahead;
mod masked;
mod operand;
mod panel;
mod prepacked;

pub(super) use ahead::{AheadRows, PackAhead};
pub(super) use masked::MaskedOperand;
pub(crate) use operand::Operand;
pub(super) use panel::{PackA, PackB, PackPanel, padded};
pub(crate) use prepacked::PackedPanels;
