//! Masks as values: to and from bytes and truth values, and the opposite of a mask.

use super::bits::first_bits;
use super::stored::Mask;
use crate::buffers;
use crate::error::{Error, Result, check_equal};

impl Mask {
    /// The mask that [`to_bytes`](Self::to_bytes) wrote: the words of all rows, little end first,
    /// `4 · cols.div_ceil(32)` bytes a row.
    ///
    /// # Errors
    ///
    /// When the number of bytes is another one, a bit is set that belongs to no column, the size
    /// overflows, or there is no memory for it.
    pub fn from_bytes(rows: usize, cols: usize, bytes: &[u8]) -> Result<Self> {
        // Before memory is asked for, of which a wrong shape may want more than there is.
        let expected = 4 * Self::words_of(rows, cols)?;
        check_equal("number of bytes", bytes.len(), "bytes of the mask", expected)?;
        let mut mask = Self::new(rows, cols)?;
        for (word, bytes) in mask.words.iter_mut().zip(bytes.as_chunks().0) {
            *word = u32::from_le_bytes(*bytes);
        }
        mask.check_unused()?;
        Ok(mask)
    }

    /// The words of all rows, little end first: the same bytes on every machine.
    ///
    /// ```
    /// # use fused_dropout::{Error, Mask};
    /// let mask = Mask::from_bools(2, 3, &[true, false, false, false, true, true])?;
    /// assert_eq!(mask.to_bytes()?, [1, 0, 0, 0, 6, 0, 0, 0]);
    /// assert_eq!(Mask::from_bytes(2, 3, &mask.to_bytes()?)?, mask);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// When there is no memory for them.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let bytes = self.words.iter().flat_map(|word| word.to_le_bytes());
        buffers::collect(self.size_in_bytes(), bytes)
    }

    /// The mask of these decisions, row after row; true keeps.
    ///
    /// # Errors
    ///
    /// When there are not `rows · cols` decisions, the size overflows, or there is no memory for
    /// it.
    pub fn from_bools(rows: usize, cols: usize, keep: &[bool]) -> Result<Self> {
        // What overflows cannot be the length of a slice.
        let elements = rows.checked_mul(cols).ok_or(Error::Overflow { rows, stride: cols })?;
        check_equal("number of decisions", keep.len(), "elements of the mask", elements)?;
        let mut mask = Self::new(rows, cols)?;
        if elements == 0 {
            return Ok(mask);
        }
        let per_row = mask.words_per_row();
        for (words, keep) in mask.words.chunks_mut(per_row).zip(keep.chunks(cols)) {
            for (word, keep) in words.iter_mut().zip(keep.chunks(32)) {
                *word = keep.iter().rev().fold(0, |word, keep| word << 1 | u32::from(*keep));
            }
        }
        Ok(mask)
    }

    /// The decisions, row after row; true keeps.
    ///
    /// ```
    /// # use fused_dropout::{Error, Mask};
    /// let keep = [true, false, false, false, true, true];
    /// assert_eq!(Mask::from_bools(2, 3, &keep)?.to_bools()?, keep);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// When there is no memory for them.
    pub fn to_bools(&self) -> Result<Vec<bool>> {
        if self.cols == 0 {
            return Ok(Vec::new());
        }
        let row = |words| (0..self.cols).map(move |c| bit(words, c));
        // A mask has a word for each 32 elements, so their number fits.
        buffers::collect(self.rows * self.cols, self.iter_rows().flat_map(row))
    }

    /// Keeps what was dropped, and drops what was kept.
    ///
    /// ```
    /// # use fused_dropout::{Error, Mask};
    /// let mut mask = Mask::from_bools(1, 3, &[true, false, false])?;
    /// mask.invert();
    /// assert_eq!(mask, Mask::from_bools(1, 3, &[false, true, true])?);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn invert(&mut self) {
        let (cols, per_row) = (self.cols, self.words_per_row());
        if per_row == 0 {
            return;
        }
        for words in self.words.chunks_mut(per_row) {
            for (i, word) in words.iter_mut().enumerate() {
                *word = !*word & first_bits(cols - 32 * i);
            }
        }
    }

    /// `Ok` when all bits are 0 that belong to no column.
    fn check_unused(&self) -> Result<()> {
        if self.cols.is_multiple_of(32) {
            return Ok(());
        }
        let used = first_bits(self.cols % 32);
        for (row, words) in self.iter_rows().enumerate() {
            if let Some(&word) = words.last().filter(|word| *word & !used != 0) {
                return Err(Error::UnusedBits { row, word, cols: self.cols });
            }
        }
        Ok(())
    }
}

fn bit(words: &[u32], col: usize) -> bool {
    words[col / 32] >> (col % 32) & 1 == 1
}
