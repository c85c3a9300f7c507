//! Dropout masks: one bit an element, a pure function of where the element is.
//!
//! With `T = round((1 - rate) · 2^32)` and U the 32-bit number that Philox4x32-10 yields for
//! (seed, layer, step, row, column), bit by bit:
//!
//! ```text
//! b = column / 128,  w = (column % 128) / 32,  i = column % 32
//! R(j) = philox4x32_10(counter = [b, row, step, layer << 7 | domain << 5 | j], key = seed)
//! U    = sum over j = 0..31 of ((R(j)[w] >> i) & 1) << (31 - j)
//! keep <=> U < T,    scale = 2^32 / T
//! ```
//!
//! Nothing else enters: not the number of threads, the instruction set, the split of the matrix,
//! or whether a mask was stored or is computed again. It follows that
//!
//! - the keep probability is `T / 2^32`, with no bias between it and the scale;
//! - rate 0 keeps everything and draws nothing, rate 1 drops everything;
//! - for one key, the mask of a lower rate contains the mask of a higher one;
//! - a part of a matrix, given its origin, gets exactly its part of the whole mask.
//!
//! One block R(j) decides bit j for 128 columns at once, and the walk over j ends as soon as no
//! column is undecided: rate 0.5 costs one Philox block for 128 elements, 0.25 two, any rate about
//! ten. A flat slice is one row.
//!
//! T may differ from row to row or from column to column ([`Rates`]), and a decision may be that of many
//! elements ([`BroadcastShape`]): U is the same.

mod bits;
mod broadcast;
mod convert;
mod dropout;
mod key;
mod keyed;
mod nest;
mod planes;
mod rate_walk;
mod rates;
mod repeat;
mod schedule;
mod source;
mod transposed;

pub(crate) use bits::{Bits, TILE_COLS, TILE_WORDS, Tile};
pub use broadcast::BroadcastShape;
pub use dropout::{Dropout, Scaling};
pub use key::MaskKey;
pub use keyed::KeyedDropout;
pub(crate) use nest::Nest;
pub use rates::{RateAxis, Rates};
pub(crate) use repeat::Repeat;
pub use schedule::{RateSchedule, drawn_rate};
pub use source::{ForwardMask, MaskSource};

use crate::Level;
use crate::error::{Error, Result};
use crate::threads;

/// A stored mask: one bit an element, 1 to keep.
///
/// Bit `i` of word `w` of a row belongs to column `32 w + i`. Each row is padded to a whole word;
/// unused bits are 0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mask {
    words: Vec<u32>,
    rows: usize,
    cols: usize,
}

impl Mask {
    /// A mask that drops everything, to be filled by an operation.
    ///
    /// # Errors
    ///
    /// When the size overflows.
    pub fn new(rows: usize, cols: usize) -> Result<Self> {
        Ok(Self { words: vec![0; Self::words_of(rows, cols)?], rows, cols })
    }

    /// Number of words of a mask.
    fn words_of(rows: usize, cols: usize) -> Result<usize> {
        let per_row = cols.div_ceil(32);
        rows.checked_mul(per_row)
            .filter(|n| *n <= isize::MAX as usize / 4)
            .ok_or(Error::Overflow { rows, stride: per_row })
    }

    /// The mask of `rows` x `cols` elements, starting at the key's origin.
    ///
    /// # Errors
    ///
    /// When the matrix reaches past the rows or columns that a mask can address, or its size
    /// overflows.
    pub fn generate(rows: usize, cols: usize, dropout: &Dropout, key: &MaskKey) -> Result<Self> {
        key.check(rows, cols)?;
        let mut mask = Self::new(rows, cols)?;
        mask.fill(dropout, key)?;
        Ok(mask)
    }

    /// The same words for another shape, with whatever decisions they stand for.
    pub(crate) fn reshape(&mut self, rows: usize, cols: usize) -> Result<()> {
        let len = Self::words_of(rows, cols)?;
        self.words.resize(len, 0);
        (self.rows, self.cols) = (rows, cols);
        Ok(())
    }

    /// The decisions of another mask, in the words of this one.
    pub(crate) fn copy_from(&mut self, mask: &Mask) -> Result<()> {
        self.reshape(mask.rows, mask.cols)?;
        self.words.copy_from_slice(&mask.words);
        Ok(())
    }

    /// Generates this mask anew, in place.
    ///
    /// # Errors
    ///
    /// When the matrix reaches past the rows or columns that a mask can address.
    pub fn fill(&mut self, dropout: &Dropout, key: &MaskKey) -> Result<()> {
        key.check(self.rows, self.cols)?;
        let level = Level::current()?;
        let (rows, cols) = (self.rows, self.cols);
        let bits = Bits::generate(dropout, key, Some(self));
        // A strip of rows or of columns that is worth a task: at about 30 ps an element.
        let tasks = threads::Grid::new(rows, cols, threads::work::BIT, 8, TILE_COLS);
        threads::for_each(tasks.len(), |i| {
            let part = tasks.part(i);
            level.vectorize(bits::Fill { bits, part });
        });
        Ok(())
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Whether element (row, col) is kept; `None` outside the matrix.
    pub fn get(&self, row: usize, col: usize) -> Option<bool> {
        if row >= self.rows || col >= self.cols {
            return None;
        }
        Some((self.words[row * self.words_per_row() + col / 32] >> (col % 32)) & 1 == 1)
    }

    /// All words, row after row.
    pub fn words(&self) -> &[u32] {
        &self.words
    }

    /// The words of one row; empty outside the matrix.
    pub fn row(&self, row: usize) -> &[u32] {
        if row >= self.rows {
            return &[];
        }
        let per_row = self.words_per_row();
        self.words.get(row * per_row..(row + 1) * per_row).unwrap_or(&[])
    }

    /// The words of each row.
    pub fn iter_rows(&self) -> impl ExactSizeIterator<Item = &[u32]> {
        (0..self.rows).map(|row| self.row(row))
    }

    /// Number of kept elements.
    pub fn count(&self) -> u64 {
        self.words.iter().map(|word| u64::from(word.count_ones())).sum()
    }

    /// Bytes that the words take.
    pub fn size_in_bytes(&self) -> usize {
        self.words.len() * 4
    }

    /// Words from one row to the next.
    pub(crate) fn words_per_row(&self) -> usize {
        self.cols.div_ceil(32)
    }

    /// `Ok` when the mask has the shape of the matrix, given as name, rows and columns.
    pub(crate) fn check(&self, matrix: (&'static str, usize, usize)) -> Result<()> {
        crate::error::check_shape(("the mask", self.rows, self.cols), matrix)
    }
}
