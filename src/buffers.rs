//! Memory: buffers that start at a cache line, and what a thread keeps from call to call.
//!
//! All growth is fallible: what cannot be had is [`Error::Memory`].

use std::any::Any;
use std::cell::RefCell;
use std::ops::{Deref, DerefMut};

use crate::error::{Error, Result};
use crate::threads;

mod huge_pages;
#[cfg(test)]
mod tests;

/// Floats of a cache line, which is also the widest vector.
const LINE: usize = 16;

/// Floats that start at a cache line: where rows have a multiple of 16, a line holds floats of one row,
/// and no vector lies in two lines.
#[derive(Debug, Default)]
pub(crate) struct AlignedBuffer {
    memory: Vec<f32>,
    /// Where the floats start in it.
    first: usize,
}

impl AlignedBuffer {
    /// `len` times 0.
    pub(crate) fn zeros(len: usize) -> Result<Self> {
        let mut memory = Vec::new();
        if len > 0 {
            reserve(&mut memory, len.saturating_add(LINE - 1))?;
            huge_pages::advise(&memory);
        }
        Ok(Self::within(memory, len))
    }

    /// `len` times 0 in memory that has room for them from the first line on.
    fn within(mut memory: Vec<f32>, len: usize) -> Self {
        let first = memory.as_ptr().align_offset(4 * LINE).min(memory.capacity() - len);
        memory.resize(first + len, 0.0);
        Self { memory, first }
    }

    /// The first `len` floats, with arbitrary contents; what they were is lost if there were fewer.
    pub(crate) fn grow(&mut self, len: usize) -> Result<&mut [f32]> {
        if self.len() < len {
            // The old ones first, so that both do not exist together.
            *self = Self::default();
            *self = Self::zeros(len)?;
        }
        Ok(&mut self[..len])
    }

    /// Room for a matrix, as by [`AlignedBuffer::grow`].
    pub(crate) fn room(&mut self, rows: usize, cols: usize) -> Result<&mut [f32]> {
        let len = rows.checked_mul(cols).filter(|n| *n <= isize::MAX as usize / 4 - LINE);
        self.grow(len.ok_or(Error::Overflow { rows, stride: cols })?)
    }
}

/// As that of a `Vec`, a clone ends the program where there is no memory for it.
impl Clone for AlignedBuffer {
    fn clone(&self) -> Self {
        let mut copy = Self::default();
        if !self.is_empty() {
            copy = Self::within(Vec::with_capacity(self.len() + LINE - 1), self.len());
            copy.copy_from_slice(self);
        }
        copy
    }
}

impl Deref for AlignedBuffer {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.memory[self.first..]
    }
}

impl DerefMut for AlignedBuffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.memory[self.first..]
    }
}

/// Room for `len` elements in all.
pub(crate) fn reserve<T>(memory: &mut Vec<T>, len: usize) -> Result<()> {
    let bytes = len.saturating_mul(size_of::<T>());
    let more = len.saturating_sub(memory.len());
    memory.try_reserve_exact(more).map_err(|_| Error::Memory { bytes })
}

/// The first `len` elements, with arbitrary contents; the memory never shrinks.
pub(crate) fn grow<T: Clone + Default>(memory: &mut Vec<T>, len: usize) -> Result<&mut [T]> {
    if memory.len() < len {
        // What is there need not be copied.
        memory.clear();
        reserve(memory, len)?;
        memory.resize(len, T::default());
    }
    Ok(&mut memory[..len])
}

/// `len` times the default.
pub(crate) fn zeros<T: Clone + Default>(len: usize) -> Result<Vec<T>> {
    let mut vec = Vec::new();
    resize(&mut vec, len)?;
    Ok(vec)
}

/// The same elements, as far as there are `len`, then the default; unchanged where memory is short.
pub(crate) fn resize<T: Clone + Default>(vec: &mut Vec<T>, len: usize) -> Result<()> {
    reserve(vec, len)?;
    vec.resize(len, T::default());
    Ok(())
}

/// The items, of which there are `len`.
pub(crate) fn collect<T>(len: usize, items: impl IntoIterator<Item = T>) -> Result<Vec<T>> {
    let mut vec = Vec::new();
    reserve(&mut vec, len)?;
    vec.extend(items);
    Ok(vec)
}

/// What is kept in the workspace of a thread, by what it is for. Operations that are at work at the same
/// time on one thread, one calling the other, use different ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Slot {
    /// Panels of a product, and the mask bits of its block.
    Panels,
    /// Mask bits of outputs that a product leaves by rows.
    Bits,
    /// What a pass of a layer needs for itself.
    Layer,
    /// y or dx by rows, where the caller's is not.
    Output,
    /// z by rows, where the caller's is not.
    PreActivation,
    /// The residual by rows, where the caller's is not.
    Residual,
    /// The rows of a sweep, where the caller's are not contiguous.
    Rows,
    /// Decisions that several elements share.
    Decisions,
    /// Sums of rows.
    Sums,
    /// Bit planes of thresholds.
    Planes,
    /// What a network keeps from layer to layer in inference.
    Inference,
}

impl Slot {
    const COUNT: usize = Slot::Inference as usize + 1;

    /// What the thread keeps here, or, where that is in use already, or the thread is about to end, new
    /// and empty memory. It goes back when the lease ends.
    pub(crate) fn take<T: Any + Default>(self) -> Lease<T> {
        let kept = WORKSPACE.try_with(|slots| slots.borrow_mut()[self as usize].take());
        let kept = kept.ok().flatten().and_then(|kept| kept.downcast::<T>().ok());
        Lease { memory: Some(kept.unwrap_or_default()), slot: self }
    }
}

/// The memory of one thread.
type Workspace = [Option<Box<dyn Any>>; Slot::COUNT];

thread_local! {
    static WORKSPACE: RefCell<Workspace> = const { RefCell::new([const { None }; Slot::COUNT]) };
}

/// Memory of this thread's workspace, in use.
#[derive(Debug)]
pub(crate) struct Lease<T: Any + Default> {
    /// Some, until the lease ends.
    memory: Option<Box<T>>,
    slot: Slot,
}

impl<T: Any + Default> Drop for Lease<T> {
    fn drop(&mut self) {
        let Some(memory) = self.memory.take() else { return };
        // Where the thread is about to end there is no workspace, and the memory is freed.
        let other =
            WORKSPACE.try_with(|slots| slots.borrow_mut()[self.slot as usize].replace(memory));
        drop(other);
    }
}

impl<T: Any + Default> Deref for Lease<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.memory.as_ref().unwrap_or_else(|| unreachable!("the lease has not ended"))
    }
}

impl<T: Any + Default> DerefMut for Lease<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.memory.as_mut().unwrap_or_else(|| unreachable!("the lease has not ended"))
    }
}

/// Frees the memory that operations keep from call to call: that of the calling thread, and that of the
/// threads of its executor: of the rayon pool it is in, or of the global pool where it is in none.
///
/// Inside of [`Executor::run`](crate::Executor::run) with a custom executor, that is handed as many tasks
/// as it has threads, each of which frees the memory of the thread it runs on: threads that get none of
/// them keep theirs.
///
/// A thread keeps packed panels, and where an operation needs them, matrices of the size of the output
/// gradient, of a transposed output, or of the weights. They grow with the largest operation so far,
/// and stay until the thread ends or this is called. Operations that run meanwhile are not disturbed.
/// It waits for each thread of a rayon pool to end what it is at.
///
/// ```
/// // ... a large batch, after which only small ones follow ...
/// fused_dropout::release_buffers();
/// ```
pub fn release_buffers() {
    threads::on_each_thread(|| {
        // A thread that is about to end has no workspace any more.
        let memory = WORKSPACE.try_with(|slots| slots.replace([const { None }; Slot::COUNT]));
        drop(memory);
    });
}
