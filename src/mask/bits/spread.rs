//! The decisions of a broadcast mask, spread over the elements that share them.

use super::words::{bits_at, first_bits};
use crate::mask::axes::{Axis, Nest};

/// A reduced mask, all its bits following each other, and the loops in which they are used.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spread {
    words: *const u32,
    len: usize,
    nest: Nest,
}

// SAFETY: the words are read only.
unsafe impl Send for Spread {}
// SAFETY: as above.
unsafe impl Sync for Spread {}

impl Spread {
    /// The mask of `words`, which outlives the operation.
    pub(super) fn new(words: &[u32], nest: Nest) -> Self {
        Self { words: words.as_ptr(), len: words.len(), nest }
    }

    /// Writes the bits of `n` elements of the flat tensor from `first` on, as many words as they
    /// take.
    ///
    /// # Safety
    ///
    /// The words that `self` was made of are alive and not written. `out` is valid for writes of
    /// `n.div_ceil(32)` words.
    #[inline(never)]
    pub(super) unsafe fn write(&self, first: usize, n: usize, out: *mut u32) {
        // SAFETY: the caller's promise.
        let (words, out) = unsafe {
            let words = std::slice::from_raw_parts(self.words, self.len);
            (words, std::slice::from_raw_parts_mut(out, n.div_ceil(32)))
        };
        spread(words, self.nest, first, n, out);
    }
}

/// The two innermost loops make a block; the outer ones say where its bits start.
fn spread(words: &[u32], nest: Nest, first: usize, n: usize, out: &mut [u32]) {
    let (nest, inner) = nest.split_inner();
    let (nest, outer) = nest.split_inner();
    let none = Axis { size: 1, step: 0 };
    let (inner, outer) = (inner.unwrap_or(none), outer.unwrap_or(none));
    let block = outer.size * inner.size;
    let mut turns = nest.walk_from(first / block);
    let mut at = first % block;
    let mut writer = Writer { out, bits: 0, used: 0, word: 0 };
    let mut done = 0;
    while done < n {
        let take = (block - at).min(n - done);
        if inner.step == 0 {
            writer.stretch(words, turns.bit(), at, take, inner.size);
        } else {
            writer.tile(words, turns.bit(), inner.size, at % inner.size, take);
        }
        (done, at) = (done + take, 0);
        turns.advance();
    }
    writer.flush();
}

/// Bits that follow each other, written word by word.
struct Writer<'a> {
    out: &'a mut [u32],
    /// The bits that do not fill a word yet.
    bits: u64,
    used: usize,
    word: usize,
}

impl Writer<'_> {
    /// Appends `n <= 32` bits; those of `bits` above are 0.
    #[inline(always)]
    fn append(&mut self, bits: u32, n: usize) {
        self.bits |= u64::from(bits) << self.used;
        self.used += n;
        if self.used >= 32 {
            self.flush();
            self.word += 1;
            self.bits >>= 32;
            self.used -= 32;
        }
    }

    /// Writes what does not fill a word.
    #[inline(always)]
    fn flush(&mut self) {
        if let (Some(word), true) = (self.out.get_mut(self.word), self.used > 0) {
            *word = self.bits as u32;
        }
    }

    /// `n` elements of a block in which each bit from `bit` on stands `length` times, from element
    /// `at` of the block on.
    fn stretch(&mut self, words: &[u32], bit: usize, at: usize, n: usize, length: usize) {
        let (mut bit, mut left) = (bit + at / length, n);
        let run = |writer: &mut Self, bit: usize, mut n: usize| {
            let ones = 0u32.wrapping_sub(bits_at(words, bit, 1));
            while n > 0 {
                let part = n.min(32);
                writer.append(ones & first_bits(part), part);
                n -= part;
            }
        };
        if !at.is_multiple_of(length) {
            let part = (length - at % length).min(left);
            run(self, bit, part);
            (bit, left) = (bit + 1, left - part);
        }
        // Several short runs make a word: bits placed `length` apart, times `length` ones.
        let together = 32 / length;
        let ones = first_bits(length);
        while together > 1 && left >= together * length {
            let bits = bits_at(words, bit, together);
            let mut apart = 0;
            for i in 0..together {
                apart |= (bits >> i & 1) << (i * length);
            }
            self.append(apart * ones, together * length);
            (bit, left) = (bit + together, left - together * length);
        }
        while left > 0 {
            let part = length.min(left);
            run(self, bit, part);
            (bit, left) = (bit + 1, left - part);
        }
    }

    /// `n` elements of a block that repeats the `period` bits from `bit` on, from the one at `phase`
    /// on. After the first period the output is its own source, twice as long each time.
    fn tile(&mut self, words: &[u32], bit: usize, period: usize, phase: usize, n: usize) {
        let head = (period - phase).min(n);
        self.copy(words, bit + phase, head);
        self.copy(words, bit, phase.min(n - head));
        let mut done = period.min(n);
        let start = 32 * self.word + self.used - done;
        while done < n {
            let part = done.min(n - done);
            self.copy_own(start, part);
            done += part;
        }
    }

    fn copy(&mut self, words: &[u32], bit: usize, n: usize) {
        for i in (0..n).step_by(32) {
            let part = (n - i).min(32);
            self.append(bits_at(words, bit + i, part), part);
        }
    }

    /// Appends `n` of the bits written before, from bit `from` on.
    fn copy_own(&mut self, from: usize, n: usize) {
        self.flush();
        for i in (0..n).step_by(32) {
            let part = (n - i).min(32);
            let bits = bits_at(self.out, from + i, part);
            self.append(bits, part);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decisions_are_spread() {
        let words: Vec<u32> = (1..40u32).map(|i| i.wrapping_mul(0x9e37_79b9)).collect();
        let shapes: [([usize; 5], [bool; 5]); 8] = [
            ([1, 1, 1, 40, 3], [true, true, true, false, true]),
            ([1, 1, 1, 40, 40], [true, true, true, false, true]),
            ([1, 1, 9, 7, 5], [true, true, false, true, false]),
            ([1, 1, 3, 1, 70], [true, true, true, false, false]),
            ([2, 3, 2, 5, 3], [true, false, true, false, true]),
            ([3, 2, 5, 2, 7], [false, true, false, true, false]),
            ([1, 1, 1, 90, 1], [false, false, true, true, true]),
            ([1, 1, 30, 2, 31], [false, false, true, true, false]),
        ];
        for (dims, shared) in shapes {
            let len: usize = dims.iter().product();
            let nest = Nest::new(&dims, &shared);
            let naive = |mut i: usize| {
                let (mut bit, mut step) = (0, 1);
                for axis in (0..5).rev().filter(|axis| dims[*axis] > 0) {
                    if !shared[axis] {
                        bit += i % dims[axis] * step;
                        step *= dims[axis];
                    }
                    i /= dims[axis];
                }
                bits_at(&words, bit, 1)
            };
            for first in [0, 1, 2, 31, 32, 33].into_iter().filter(|first| *first < len) {
                for n in [1, 2, 5, 32, 64, 65, len].into_iter().map(|n| n.min(len - first)) {
                    let mut out = vec![!0; n.div_ceil(32)];
                    spread(&words, nest, first, n, &mut out);
                    for i in 0..n {
                        let bit = out[i / 32] >> (i % 32) & 1;
                        assert_eq!(bit, naive(first + i), "{dims:?} {shared:?} {first} {i}");
                    }
                }
            }
        }
    }
}
