//! The bits of thresholds, plane by plane.

use super::bits::MAX_BLOCKS;

/// Lines of numbers: 32 planes, and two more.
pub(super) const LINES: usize = 34;
/// The line that says where a threshold is 2^32.
pub(super) const ALWAYS: usize = 32;
/// The line that says where a threshold is between 0 and 2^32.
pub(super) const OPEN: usize = 33;

/// The thresholds of columns in lines, so that a walk compares with those of many columns at once:
/// line `j` has bit `31 - j` of each threshold.
///
/// A line has two halves. Number `b` of the first is for columns 0 to 63 of block `b`, that of the
/// second for columns 64 to 127. After the last block there are zeros for all lanes of a walk.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Planes {
    numbers: Vec<u64>,
    stride: usize,
    depth: usize,
}

impl Planes {
    pub(super) const EMPTY: Planes = Planes { numbers: Vec::new(), stride: 0, depth: 0 };

    /// Takes these thresholds, the first at column `offset` of the first block.
    pub(super) fn set(&mut self, thresholds: &[u64], offset: usize) {
        let blocks = (offset + thresholds.len()).div_ceil(128);
        self.stride = blocks + MAX_BLOCKS;
        self.depth = 0;
        self.numbers.clear();
        self.numbers.resize(2 * LINES * self.stride, 0);
        for word in 0..4 * blocks {
            let threshold = |i: usize| {
                let column = (32 * word + i).checked_sub(offset);
                column.and_then(|column| thresholds.get(column)).copied().unwrap_or(0)
            };
            self.set_word(word, threshold);
        }
    }

    /// Takes the thresholds of 32 columns.
    fn set_word(&mut self, word: usize, threshold: impl Fn(usize) -> u64) {
        let (mut bits, mut all, mut always, mut open) = ([0; 32], 0, 0u32, 0u32);
        for (i, bits) in bits.iter_mut().enumerate() {
            let threshold = threshold(i);
            *bits = threshold as u32;
            all |= *bits;
            always |= u32::from(threshold >> 32 != 0) << i;
            open |= u32::from(*bits != 0) << i;
        }
        transpose(&mut bits);
        self.depth = self.depth.max(32 - all.trailing_zeros() as usize);
        let (block, half, shift) = (word / 4, word % 4 / 2, word % 2 * 32);
        for (line, bits) in bits.into_iter().rev().chain([always, open]).enumerate() {
            let at = (2 * line + half) * self.stride + block;
            self.numbers[at] |= u64::from(bits) << shift;
        }
    }

    /// All lines.
    pub(super) fn numbers(&self) -> &[u64] {
        &self.numbers
    }

    /// Numbers from a line's first half to its second, and on to the next line.
    pub(super) fn stride(&self) -> usize {
        self.stride
    }

    /// Planes after which no threshold has a one.
    pub(super) fn depth(&self) -> usize {
        self.depth
    }
}

/// Exchanges bit `i` of word `j` with bit `j` of word `i`: halves of the matrix off the diagonal change
/// places, then quarters, down to single bits.
fn transpose(words: &mut [u32; 32]) {
    let mut mask = 0x0000_ffff;
    for size in [16, 8, 4, 2, 1] {
        for i in (0..32).filter(|i| i & size == 0) {
            let differ = (words[i] >> size ^ words[i + size]) & mask;
            words[i] ^= differ << size;
            words[i + size] ^= differ;
        }
        mask ^= mask << (size / 2);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_change_places() {
        let words: [u32; 32] = std::array::from_fn(|i| (i as u32 + 1).wrapping_mul(0x9e37_79b9));
        let mut turned = words;
        transpose(&mut turned);
        for (i, word) in words.iter().enumerate() {
            for (j, column) in turned.iter().enumerate() {
                assert_eq!(word >> j & 1, column >> i & 1, "({i}, {j})");
            }
        }
    }
}
