//! A mask that is stored.

use super::bits::{Bits, Fill, TILE_COLS, Tile, WordsMut, compact};
use super::keyed::KeyedDropout;
use crate::Level;
use crate::buffers;
use crate::error::{Error, Result, check_shape};
use crate::threads;

/// A stored mask: one bit an element, 1 to keep.
///
/// Bit `i` of word `w` of a row belongs to column `32 w + i`. Each row is padded to a whole word;
/// unused bits are 0.
///
/// The bits of a [`KeyedDropout`] are those of the [contract](mod@crate::mask). An operation makes
/// them itself and need not store them; store them to look at, to hand to another operation, or to
/// change.
///
/// ```
/// # use fused_dropout::{Dropout, Error, Mask, MaskKey};
/// let half = Dropout::new(0.5)?.with_key(MaskKey::new(42, 1, 0)?);
/// let mask = Mask::generate(20, 100, &half)?;
/// assert_eq!((mask.rows(), mask.cols(), mask.count()), (20, 100, 1029));
/// // A part of the matrix has its part of the mask.
/// let part = Mask::generate(1, 10, &half.with_key(half.key().with_origin(5, 90)))?;
/// assert!((0..10).all(|col| part.get(0, col) == mask.get(5, 90 + col)));
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Mask {
    pub(super) words: Vec<u32>,
    pub(super) rows: usize,
    pub(super) cols: usize,
}

impl Mask {
    /// A mask that drops everything, to be filled by an operation.
    ///
    /// # Errors
    ///
    /// When the size overflows, or there is no memory for it.
    pub fn new(rows: usize, cols: usize) -> Result<Self> {
        Ok(Self { words: buffers::zeros(Self::words_of(rows, cols)?)?, rows, cols })
    }

    /// The mask of `rows` x `cols` elements, starting at the key's origin.
    ///
    /// # Errors
    ///
    /// When the matrix reaches past the rows or columns that a mask can address, or as for
    /// [`new`](Self::new).
    pub fn generate(rows: usize, cols: usize, dropout: &KeyedDropout) -> Result<Self> {
        dropout.check(rows, cols)?;
        let mut mask = Self::new(rows, cols)?;
        mask.fill(dropout)?;
        Ok(mask)
    }

    /// Generates this mask anew, in place.
    ///
    /// ```
    /// # use fused_dropout::{Dropout, Error, Mask, MaskKey};
    /// let half = Dropout::new(0.5)?.with_key(MaskKey::new(42, 1, 0)?);
    /// let mut mask = Mask::generate(4, 9, &half)?;
    /// let next = half.with_key(half.key().with_step(1));
    /// mask.fill(&next)?;
    /// assert_eq!(mask, Mask::generate(4, 9, &next)?);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// When the matrix reaches past the rows or columns that a mask can address.
    pub fn fill(&mut self, dropout: &KeyedDropout) -> Result<()> {
        let (rows, cols) = (self.rows, self.cols);
        dropout.check(rows, cols)?;
        let level = Level::current()?;
        let bits = Bits::generate(dropout, Some(self));
        // A strip of rows or of columns that is worth a task: at about 30 ps an element.
        let tasks = threads::Grid::new(rows, cols, threads::work::BIT, 8, TILE_COLS);
        // SAFETY: the bits are stored in this mask, which is borrowed until all tasks are done; these
        // are disjoint parts of it, and start at multiples of 32 columns.
        unsafe { fill_parts(level, bits, &tasks) };
        Ok(())
    }

    /// Another size, with arbitrary bits; the memory never shrinks.
    pub(crate) fn resize(&mut self, rows: usize, cols: usize) -> Result<()> {
        let words = Self::words_of(rows, cols)?;
        self.words.truncate(words);
        buffers::resize(&mut self.words, words)?;
        (self.rows, self.cols) = (rows, cols);
        Ok(())
    }

    /// Drops everything.
    pub(crate) fn clear(&mut self) {
        self.words.fill(0);
    }

    /// Keeps an element, which the matrix has.
    pub(crate) fn set(&mut self, row: usize, col: usize) {
        let at = row * self.words_per_row() + col / 32;
        self.words[at] |= 1 << (col % 32);
    }

    /// Keeps the elements of a row from `start` to `end`, which the matrix has.
    pub(crate) fn set_run(&mut self, row: usize, (start, end): (usize, usize)) {
        let words = row * self.words_per_row();
        for word in start / 32..end.div_ceil(32) {
            let from = start.saturating_sub(32 * word);
            let to = (end - 32 * word).min(32);
            self.words[words + word] |= (u32::MAX >> (32 - (to - from))) << from;
        }
    }

    /// Copies row `from` to all rows after it, up to `end`.
    pub(crate) fn repeat_row(&mut self, from: usize, end: usize) {
        let per_row = self.words_per_row();
        for row in from + 1..end {
            self.words.copy_within(from * per_row..(from + 1) * per_row, row * per_row);
        }
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

    /// The words of one row; `None` outside the matrix.
    pub fn row(&self, row: usize) -> Option<&[u32]> {
        let per_row = self.words_per_row();
        (row < self.rows).then(|| &self.words[row * per_row..(row + 1) * per_row])
    }

    /// The words of each row.
    pub fn iter_rows(&self) -> impl ExactSizeIterator<Item = &[u32]> {
        {
            let per_row = self.words_per_row();
            (0..self.rows).map(move |row| &self.words[row * per_row..(row + 1) * per_row])
        }
    }

    /// Number of kept elements.
    pub fn count(&self) -> u64 {
        self.words.iter().map(|word| u64::from(word.count_ones())).sum()
    }

    /// Bytes that the words take.
    pub fn size_in_bytes(&self) -> usize {
        self.words.len() * 4
    }
}

/// What operations do with a mask.
impl Mask {
    /// Number of words of a mask.
    pub(super) fn words_of(rows: usize, cols: usize) -> Result<usize> {
        let per_row = cols.div_ceil(32);
        rows.checked_mul(per_row)
            .filter(|n| *n <= isize::MAX as usize / 4)
            .ok_or(Error::Overflow { rows, stride: per_row })
    }

    /// Words from one row to the next.
    pub(crate) fn words_per_row(&self) -> usize {
        self.cols.div_ceil(32)
    }

    /// `Ok` when the mask has the shape of the matrix, given as name, rows and columns.
    pub(crate) fn check(&self, matrix: (&'static str, usize, usize)) -> Result<()> {
        check_shape(("the mask", self.rows, self.cols), matrix)
    }

    /// The same words for another shape, with whatever decisions they stand for.
    pub(crate) fn reshape(&mut self, rows: usize, cols: usize) -> Result<()> {
        buffers::resize(&mut self.words, Self::words_of(rows, cols)?)?;
        (self.rows, self.cols) = (rows, cols);
        Ok(())
    }

    /// The decisions of another mask, in the words of this one.
    pub(crate) fn copy_from(&mut self, mask: &Mask) -> Result<()> {
        self.reshape(mask.rows, mask.cols)?;
        self.words.copy_from_slice(&mask.words);
        Ok(())
    }

    /// Whether there is no padding between rows.
    pub(crate) fn is_compact(&self) -> bool {
        self.cols.is_multiple_of(32) || self.rows <= 1
    }

    /// All bits, moved together: bit (r, c) becomes bit `r * cols + c`. After this the mask is only
    /// room for another.
    pub(crate) fn compact(&mut self) -> &[u32] {
        compact(&mut self.words, self.rows, self.cols);
        &self.words
    }

    /// Where an operation stores its bits.
    pub(super) fn words_mut(&mut self) -> WordsMut {
        let stride = self.words_per_row();
        WordsMut::new(&mut self.words, stride)
    }
}

/// The bits of masks that are stored.
impl Bits {
    /// The bits of a dropout, stored in `save` (which has the shape of the operation) if it is
    /// there.
    pub(crate) fn generate(dropout: &KeyedDropout, save: Option<&mut Mask>) -> Self {
        Self::keyed(dropout, save.map(Mask::words_mut))
    }

    /// The bits of a stored mask.
    pub(crate) fn stored(mask: &Mask) -> Self {
        Bits::Stored(Tile { words: mask.words.as_ptr(), stride: mask.words_per_row() })
    }

    /// The bits of a stored mask of one row, the same for every row of the operation.
    pub(crate) fn same_for_all_rows(mask: &Mask) -> Self {
        Bits::Stored(Tile { words: mask.words.as_ptr(), stride: 0 })
    }
}

/// Stores the bits of all parts of a grid.
///
/// # Safety
///
/// The bits are stored in a mask that is alive, exclusively borrowed, and of the grid's size. The
/// grid's parts start at multiples of 32 columns.
pub(super) unsafe fn fill_parts(level: Level, bits: Bits, parts: &threads::Grid) {
    threads::for_each(parts.len(), |i| {
        // SAFETY: the caller's promise; parts are disjoint.
        level.vectorize(unsafe { Fill::new(bits, parts.part(i)) });
    });
}
