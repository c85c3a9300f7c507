//! Buffers of floats, kept from call to call.

use std::ops::{Deref, DerefMut};

use crate::error::{Error, Result};

/// AlignedBuffer of a cache line, which is also the widest vector.
const LINE: usize = 16;

/// AlignedBuffer that start at a cache line: where rows have a multiple of 16, a line holds floats of one row,
/// and no vector lies in two lines.
#[derive(Debug, Default)]
pub(crate) struct AlignedBuffer {
    memory: Vec<f32>,
    /// Where the floats start in it.
    first: usize,
}

impl AlignedBuffer {
    /// `len` times 0.
    pub(crate) fn zeros(len: usize) -> Self {
        let mut memory: Vec<f32> = Vec::new();
        if len > 0 {
            memory.reserve_exact(len.saturating_add(LINE - 1));
        }
        let first = memory.as_ptr().align_offset(4 * LINE).min(memory.capacity() - len);
        memory.resize(first + len, 0.0);
        Self { memory, first }
    }

    /// The first `len` floats, with arbitrary contents; what they were is lost if there were fewer.
    pub(crate) fn grow(&mut self, len: usize) -> &mut [f32] {
        if self.len() < len {
            // The old ones first, so that both do not exist together.
            *self = Self::default();
            *self = Self::zeros(len);
        }
        &mut self[..len]
    }

    /// Room for a matrix, as by [`AlignedBuffer::grow`].
    pub(crate) fn room(&mut self, rows: usize, cols: usize) -> Result<&mut [f32]> {
        let len = rows.checked_mul(cols).filter(|n| *n <= isize::MAX as usize / 4 - LINE);
        Ok(self.grow(len.ok_or(Error::Overflow { rows, stride: cols })?))
    }
}

impl Clone for AlignedBuffer {
    fn clone(&self) -> Self {
        let mut copy = Self::zeros(self.len());
        copy.copy_from_slice(self);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_start_at_a_line() {
        for len in [0, 1, 15, 16, 17, 1000, 100_000] {
            let mut floats = AlignedBuffer::zeros(len);
            assert_eq!(*floats, vec![0.0; len]);
            floats.fill(1.5);
            let copy = floats.clone();
            assert_eq!(*copy, vec![1.5; len]);
            for floats in [&floats, &copy] {
                assert!(len == 0 || (floats.as_ptr() as usize).is_multiple_of(4 * LINE));
            }
        }
    }

    #[test]
    fn they_grow_and_never_shrink() {
        let mut floats = AlignedBuffer::default();
        assert_eq!(floats.room(3, 7).map(|room| room.len()), Ok(21));
        let first = floats.as_ptr();
        assert_eq!(floats.room(2, 5).map(|room| room.len()), Ok(10));
        assert_eq!((floats.as_ptr(), floats.len()), (first, 21));
        assert_eq!(floats.grow(0).len(), 0);
        let overflow = Error::Overflow { rows: usize::MAX, stride: 2 };
        assert_eq!(floats.room(usize::MAX, 2).unwrap_err(), overflow);
        assert!(floats.room(1, isize::MAX as usize / 4).is_err());
    }
}
