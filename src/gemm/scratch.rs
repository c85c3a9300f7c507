//! Buffers for packed panels: one set a thread, kept from call to call.

use std::cell::Cell;

use crate::buffers::AlignedBuffer;

/// The buffers of one thread.
#[derive(Default)]
pub(super) struct Scratch {
    pub(super) a: AlignedBuffer,
    pub(super) b: AlignedBuffer,
    pub(super) operand: AlignedBuffer,
    pub(super) bits: Vec<u32>,
}

thread_local! {
    static SCRATCH: Cell<Scratch> = Cell::default();
}

/// This thread's buffers; new ones where they are taken already.
pub(super) fn take() -> Scratch {
    SCRATCH.take()
}

/// Keeps the buffers for the next call.
pub(super) fn put_back(scratch: Scratch) {
    SCRATCH.set(scratch);
}
