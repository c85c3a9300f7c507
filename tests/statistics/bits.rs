//! A matrix of bits, packed as the masks are, on which statistics are taken and defects planted.

use fused_dropout::{Mask, Result};
use rand_xoshiro::rand_core::Rng;

/// Rows of packed 32-bit words, bit `c % 32` of word `c / 32` for column `c`, unused bits 0.
#[derive(Clone)]
pub(crate) struct Bits {
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    words: Vec<u32>,
}

impl Bits {
    pub(crate) fn zeros(rows: usize, cols: usize) -> Bits {
        Bits { rows, cols, words: vec![0; rows * cols.div_ceil(32)] }
    }

    pub(crate) fn from_mask(mask: &Mask) -> Bits {
        Bits { rows: mask.rows(), cols: mask.cols(), words: mask.words().to_vec() }
    }

    /// One-row masks under each other.
    pub(crate) fn stack(cols: usize, rows: impl Iterator<Item = Result<Mask>>) -> Result<Bits> {
        let mut bits = Bits::zeros(0, cols);
        for mask in rows {
            bits.words.extend_from_slice(mask?.words());
            bits.rows += 1;
        }
        Ok(bits)
    }

    /// Bits from a generator that has nothing to do with the masks: one draw a bit, 32 bits against
    /// the threshold.
    pub(crate) fn independent(
        rows: usize,
        cols: usize,
        threshold: u64,
        rng: &mut impl Rng,
    ) -> Bits {
        let mut bits = Bits::zeros(rows, cols);
        for row in 0..rows {
            for col in 0..cols {
                bits.set(row, col, rng.next_u64() >> 32 < threshold);
            }
        }
        bits
    }

    /// Words in a row.
    pub(crate) fn stride(&self) -> usize {
        self.cols.div_ceil(32)
    }

    /// The bits of the last word of a row that belong to columns.
    pub(crate) fn last_valid(&self) -> u32 {
        u32::MAX >> (self.stride() * 32 - self.cols)
    }

    pub(crate) fn row(&self, row: usize) -> &[u32] {
        &self.words[row * self.stride()..][..self.stride()]
    }

    pub(crate) fn row_mut(&mut self, row: usize) -> &mut [u32] {
        let stride = self.stride();
        &mut self.words[row * stride..][..stride]
    }

    pub(crate) fn get(&self, row: usize, col: usize) -> bool {
        self.row(row)[col / 32] >> (col % 32) & 1 == 1
    }

    pub(crate) fn set(&mut self, row: usize, col: usize, bit: bool) {
        let word = &mut self.row_mut(row)[col / 32];
        *word = *word & !(1 << (col % 32)) | u32::from(bit) << (col % 32);
    }

    /// Where two matrices of one shape differ.
    pub(crate) fn xor(&self, other: &Bits) -> Bits {
        assert_eq!((self.rows, self.cols), (other.rows, other.cols));
        let words = self.words.iter().zip(&other.words).map(|(a, b)| a ^ b).collect();
        Bits { words, ..*self }
    }

    /// Ones of every row.
    pub(crate) fn row_sums(&self) -> Vec<u64> {
        (0..self.rows).map(|row| ones_of(self.row(row))).collect()
    }

    /// Ones of every column.
    pub(crate) fn column_sums(&self) -> Vec<u64> {
        let mut sums = vec![0_u32; self.stride() * 32];
        for row in 0..self.rows {
            for (word, sums) in self.row(row).iter().zip(sums.as_chunks_mut::<32>().0) {
                for (i, sum) in sums.iter_mut().enumerate() {
                    *sum = sum.wrapping_add(word >> i & 1);
                }
            }
        }
        sums.truncate(self.cols);
        sums.into_iter().map(u64::from).collect()
    }

    /// One column, 32 rows a word.
    pub(crate) fn column(&self, col: usize) -> Vec<u32> {
        let mut column = vec![0; self.rows.div_ceil(32)];
        for row in 0..self.rows {
            column[row / 32] |= u32::from(self.get(row, col)) << (row % 32);
        }
        column
    }

    /// All rows behind each other, without the padding between them.
    pub(crate) fn stream(&self) -> Stream {
        let len = self.rows * self.cols;
        let mut words = vec![0_u64; len / 64 + 2];
        let mut at = 0;
        for row in 0..self.rows {
            for (i, &word) in self.row(row).iter().enumerate() {
                let bit = at + 32 * i;
                let wide = u128::from(word) << (bit % 64);
                words[bit / 64] |= wide as u64;
                words[bit / 64 + 1] |= (wide >> 64) as u64;
            }
            at += self.cols;
        }
        Stream { words, len, ones: ones_of(&self.words) }
    }
}

/// Ones of some packed words.
pub(crate) fn ones_of(words: &[u32]) -> u64 {
    ones(words.iter().map(|&word| u64::from(word)))
}

/// Ones of all words. The sum wraps, which it cannot: a checked one is not vectorised.
pub(crate) fn ones(words: impl Iterator<Item = u64>) -> u64 {
    words.fold(0, |sum, word| sum.wrapping_add(u64::from(word.count_ones())))
}

/// A sequence of bits, 64 a word, and zeros after the last bit to the end of the words: at least 64.
pub(crate) struct Stream {
    pub(crate) words: Vec<u64>,
    pub(crate) len: usize,
    /// How many of the bits are 1.
    pub(crate) ones: u64,
}

impl Stream {
    /// The 64 bits that start at `bit`, the next 64, and so on.
    pub(crate) fn words_from(&self, bit: usize) -> impl Iterator<Item = u64> {
        let shift = bit % 64;
        let pairs = self.words[bit / 64..].windows(2);
        pairs.map(move |pair| pair[0] >> shift | pair[1] << 1 << (63 - shift))
    }

    /// The 64 bits that start at `bit`.
    pub(crate) fn at(&self, bit: usize) -> u64 {
        self.words_from(bit).next().unwrap_or(0)
    }

    /// Ones among the `len` bits from `start`.
    pub(crate) fn ones_in(&self, start: usize, len: usize) -> u64 {
        let whole = self.words_from(start).take(len / 64);
        let rest = self.at(start + len / 64 * 64) & low_bits(len % 64);
        ones(whole) + u64::from(rest.count_ones())
    }
}

/// A word whose lowest `count` bits are set, for counts below 64.
pub(crate) fn low_bits(count: usize) -> u64 {
    (1 << count) - 1
}
