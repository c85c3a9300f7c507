//! The bits of many thresholds, plane by plane.

use super::square::transpose;
use super::threshold::{Elements, MAX_BLOCKS, Place, Threshold, VECTORS};
use crate::buffers;
use crate::error::Result;
use crate::isa::Isa;

/// Lines of numbers: 32 planes, and two more.
const LINES: usize = 34;
/// The line that says where a threshold is 2^32.
const ALWAYS: usize = 32;
/// The line that says where a threshold is between 0 and 2^32.
const OPEN: usize = 33;

/// The thresholds of columns in lines, so that a walk compares with those of many columns at once:
/// line `j` has bit `31 - j` of each threshold.
///
/// A line has two halves. Number `b` of the first is for columns 0 to 63 of block `b`, that of the
/// second for columns 64 to 127. After the last block there are zeros for all lanes of a walk.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::mask) struct Planes {
    numbers: Vec<u64>,
    stride: usize,
    last: u32,
}

impl Planes {
    /// Those of no columns.
    pub(in crate::mask) const EMPTY: Planes = Planes { numbers: Vec::new(), stride: 0, last: 0 };

    /// Takes these thresholds, the first at column `offset` of the first block.
    pub(in crate::mask) fn set(&mut self, thresholds: &[u64], offset: usize) -> Result<()> {
        let blocks = (offset + thresholds.len()).div_ceil(128);
        let stride = blocks + MAX_BLOCKS;
        self.numbers.clear();
        // Fewer than 9 numbers a threshold and 1100 besides, so this does not overflow.
        buffers::resize(&mut self.numbers, 2 * LINES * stride)?;
        (self.stride, self.last) = (stride, 0);
        for word in 0..4 * blocks {
            // Before the first column and after the last there are thresholds of 0.
            let (start, end) = (32 * word, 32 * (word + 1));
            let from = start.saturating_sub(offset).min(thresholds.len());
            let to = end.saturating_sub(offset).min(thresholds.len());
            let mut those = [0; 32];
            let at = (from + offset).saturating_sub(start).min(32);
            those[at..][..to - from].copy_from_slice(&thresholds[from..to]);
            self.set_word(word, &those);
        }
        Ok(())
    }

    /// Takes the thresholds of 32 columns.
    fn set_word(&mut self, word: usize, thresholds: &[u64; 32]) {
        let (mut bits, mut all, mut always, mut open) = ([0; 32], 0, 0u32, 0u32);
        for (i, (bits, &threshold)) in bits.iter_mut().zip(thresholds).enumerate() {
            *bits = threshold as u32;
            all |= *bits;
            always |= u32::from(threshold >> 32 != 0) << i;
            open |= u32::from(*bits != 0) << i;
        }
        transpose(&mut bits);
        self.last = self.last.max(last(all));
        let (block, half, shift) = (word / 4, word % 4 / 2, word % 2 * 32);
        for (line, bits) in bits.into_iter().rev().chain([always, open]).enumerate() {
            let at = (2 * line + half) * self.stride + block;
            self.numbers[at] |= u64::from(bits) << shift;
        }
    }

    /// The lines from the first block on.
    pub(super) fn lines(&self) -> Lines {
        let (line, half) = (2 * self.stride, self.stride);
        Lines { first: self.numbers.as_ptr(), line, half, last: self.last }
    }
}

/// The thresholds of the rows of a walk, in lines: number `i` of line `j` is all ones where row
/// `i`'s threshold has bit `31 - j`.
pub(super) struct RowPlanes {
    numbers: [[u64; MAX_BLOCKS]; LINES],
    last: u32,
}

impl RowPlanes {
    /// Takes the thresholds of `count` rows; where there are fewer, 0 for the others.
    #[inline(always)]
    pub(super) fn set(&mut self, thresholds: &[u64], count: usize) {
        let mut most = 0;
        for lane in 0..count {
            let threshold = thresholds.get(lane).copied().unwrap_or(0);
            let low = threshold as u32;
            most = most.max(last(low));
            let all = |condition: bool| 0u64.wrapping_sub(u64::from(condition));
            for (plane, numbers) in self.numbers[..32].iter_mut().enumerate() {
                numbers[lane] = all(low >> (31 - plane) & 1 == 1);
            }
            self.numbers[ALWAYS][lane] = all(threshold >> 32 != 0);
            self.numbers[OPEN][lane] = all(low != 0);
        }
        self.last = most;
    }

    /// The lines, which are those of any block of columns.
    #[inline(always)]
    pub(super) fn lines(&self) -> Lines {
        Lines { first: self.numbers.as_ptr().cast(), line: MAX_BLOCKS, half: 0, last: self.last }
    }
}

impl Default for RowPlanes {
    /// Thresholds of 0.
    #[inline(always)]
    fn default() -> Self {
        Self { numbers: [[0; MAX_BLOCKS]; LINES], last: 0 }
    }
}

/// The plane of the lowest one of a threshold, or of those of several; 0 where there is none.
#[inline(always)]
fn last(bits: u32) -> u32 {
    31u32.saturating_sub(bits.trailing_zeros())
}

/// Where the bits of thresholds are: lines of numbers, whose planes outlive the operation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lines {
    first: *const u64,
    /// From one line to the next, and from a line's first half to its second.
    line: usize,
    half: usize,
    last: u32,
}

// SAFETY: the planes are read only.
unsafe impl Send for Lines {}
// SAFETY: as above.
unsafe impl Sync for Lines {}

impl Lines {
    /// The lines from `block` on.
    #[inline(always)]
    pub(super) fn at_block(self, block: usize) -> Self {
        Self { first: self.first.wrapping_add(block), ..self }
    }

    /// The thresholds of a walk: a number for each lane, or, if `SAME`, the first for all.
    ///
    /// # Safety
    ///
    /// The planes are alive, and have numbers for as many blocks as a walk has: from any block of
    /// the matrix on.
    #[inline(always)]
    pub(super) unsafe fn walked<'a, const SAME: bool>(self) -> WalkedLines<'a, SAME> {
        WalkedLines { lines: self, planes: std::marker::PhantomData }
    }
}

/// Lines that a walk compares with.
#[derive(Clone, Copy)]
pub(super) struct WalkedLines<'a, const SAME: bool> {
    lines: Lines,
    planes: std::marker::PhantomData<&'a u64>,
}

impl<const SAME: bool> WalkedLines<'_, SAME> {
    /// The lanes of a half of a vector in a line.
    #[inline(always)]
    fn lanes<I: Isa>(self, isa: I, line: usize, Place { vector, half }: Place) -> I::U64 {
        debug_assert!(line < LINES && half < 2 && vector < VECTORS, "a vector of a line");
        let Lines { first, line: lines_apart, half: halves_apart, .. } = self.lines;
        // SAFETY: what `walked` was promised.
        unsafe {
            let first = first.add(line * lines_apart + half * halves_apart);
            if SAME { isa.splat_u64(*first) } else { isa.load_u64(first.add(vector * I::WIDE)) }
        }
    }
}

impl<const SAME: bool> Threshold for WalkedLines<'_, SAME> {
    #[inline(always)]
    fn last(self) -> u32 {
        self.lines.last
    }

    #[inline(always)]
    fn start<I: Isa>(self, isa: I, place: Place) -> Elements<I> {
        let (keep, undecided) = (self.lanes(isa, ALWAYS, place), self.lanes(isa, OPEN, place));
        Elements { keep, undecided }
    }

    #[inline(always)]
    fn compare<I: Isa>(
        self,
        isa: I,
        plane: u32,
        place: Place,
        Elements { keep, undecided }: Elements<I>,
        bits: I::U64,
    ) -> Elements<I> {
        let t = self.lanes(isa, plane as usize, place);
        let below = isa.and_not_u64(bits, isa.and_u64(undecided, t));
        let equal = isa.and_not_u64(isa.xor_u64(bits, t), undecided);
        Elements { keep: isa.or_u64(keep, below), undecided: equal }
    }
}
