//! Buffers for packed panels: one set a thread, kept from call to call.

use std::cell::Cell;

/// A cache line, so that panels start at one.
#[repr(C, align(64))]
#[derive(Clone, Copy)]
struct Line([f32; 16]);

/// A buffer that grows and never shrinks.
#[derive(Default)]
pub(super) struct Buffer(Vec<Line>);

impl Buffer {
    /// Room for `len` floats, with arbitrary contents.
    pub(super) fn room(&mut self, len: usize) -> *mut f32 {
        let lines = len.div_ceil(16);
        if self.0.len() < lines {
            self.0.resize(lines, Line([0.0; 16]));
        }
        self.0.as_mut_ptr().cast()
    }

    pub(super) fn as_ptr(&self) -> *const f32 {
        self.0.as_ptr().cast()
    }
}

/// The buffers of one thread.
#[derive(Default)]
pub(super) struct Scratch {
    pub(super) a: Buffer,
    pub(super) b: Buffer,
    pub(super) operand: Buffer,
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
