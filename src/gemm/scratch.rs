//! What a task of a product needs for itself, kept from call to call.

use super::spans::Lists;
use crate::buffers::{AlignedBuffer, Lease, Slot};

/// The buffers of one thread.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    /// Panels of A.
    pub(super) a: AlignedBuffer,
    /// Panels of B.
    pub(super) b: AlignedBuffer,
    /// Elements of an operand that are computed before they are packed.
    pub(super) operand: AlignedBuffer,
    /// Sums of a strip of rows.
    pub(super) strip: AlignedBuffer,
    /// Mask bits: of the epilogue, and of a masked operand.
    pub(super) bits: Vec<u32>,
    /// Pieces of a product of which a part is computed.
    pub(super) lists: Lists,
}

/// This thread's buffers; new ones where they are taken already.
pub(super) fn take() -> Lease<Scratch> {
    Slot::Panels.take()
}
