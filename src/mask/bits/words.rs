//! Bits in words of 32, little end first.

use crate::threads::Part;

/// The words of a mask that outlives the operation, written in disjoint parts by its tasks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WordsMut {
    ptr: *mut u32,
    stride: usize,
}

// SAFETY: tasks write disjoint parts of words that are borrowed exclusively.
unsafe impl Send for WordsMut {}
// SAFETY: as above.
unsafe impl Sync for WordsMut {}

impl WordsMut {
    /// Rows of `stride` words.
    pub(in crate::mask) fn new(words: &mut [u32], stride: usize) -> Self {
        Self { ptr: words.as_mut_ptr(), stride }
    }

    /// Where the words of a part start, and how far its rows are apart. The part's first column is
    /// a multiple of 32.
    #[inline(always)]
    pub(super) fn at(self, part: Part) -> (*mut u32, usize) {
        (self.ptr.wrapping_add(part.row * self.stride + part.col / 32), self.stride)
    }
}

/// The word whose first `n` bits (all for 32 or more) are ones.
#[inline(always)]
pub(in crate::mask) fn first_bits(n: usize) -> u32 {
    if n >= 32 { !0 } else { (1 << n) - 1 }
}

/// `n <= 32` bits from `bit` on; those past the end are 0.
#[inline(always)]
pub(super) fn bits_at(words: &[u32], bit: usize, n: usize) -> u32 {
    let word = |i| u64::from(words.get(i).copied().unwrap_or(0));
    let pair = word(bit / 32) | word(bit / 32 + 1) << 32;
    (pair >> (bit % 32)) as u32 & first_bits(n)
}

/// Copies `cols` bits from bit `offset < 128` on; the unused bits of the last word become zero.
///
/// # Safety
///
/// `out` is valid for writes of `cols.div_ceil(32)` words.
#[inline(always)]
pub(super) unsafe fn copy_bits(bits: &[u32], offset: usize, cols: usize, out: *mut u32) {
    let (skip, shift) = (offset / 32, offset % 32);
    let words = cols.div_ceil(32);
    let bits = &bits[skip..][..words + 1];
    for w in 0..words {
        let pair = u64::from(bits[w]) | u64::from(bits[w + 1]) << 32;
        let word = (pair >> shift) as u32 & first_bits(cols - 32 * w);
        // SAFETY: the caller's promise.
        unsafe { *out.add(w) = word };
    }
}

/// Keeps everything, or nothing.
///
/// # Safety
///
/// `out` is valid for writes of `rows` rows of `cols.div_ceil(32)` words, `stride` apart.
pub(super) unsafe fn fill_uniform(
    keep: bool,
    rows: usize,
    cols: usize,
    out: *mut u32,
    stride: usize,
) {
    for row in 0..rows {
        for word in 0..cols.div_ceil(32) {
            let value = if keep { first_bits(cols - 32 * word) } else { 0 };
            // SAFETY: the caller's promise.
            unsafe { *out.add(row * stride + word) = value };
        }
    }
}

/// Moves the bits of `rows` rows of `cols` bits, each padded to a whole word, together: bit (r, c)
/// becomes bit `r * cols + c`.
pub(in crate::mask) fn compact(words: &mut [u32], rows: usize, cols: usize) {
    if cols.is_multiple_of(32) || rows <= 1 {
        return;
    }
    let per_row = cols.div_ceil(32);
    let (mut bits, mut used, mut to) = (0u64, 0, 0);
    for row in 0..rows {
        for word in 0..per_row {
            // What is written lies before what is read: bit `r * cols` before word `r * per_row`.
            let n = (cols - 32 * word).min(32);
            bits |= u64::from(words[row * per_row + word]) << used;
            used += n;
            if used >= 32 {
                words[to] = bits as u32;
                to += 1;
                bits >>= 32;
                used -= 32;
            }
        }
    }
    if used > 0 {
        words[to] = bits as u32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_move_together() {
        for (rows, cols) in [(1usize, 5usize), (3, 1), (40, 33), (7, 31), (5, 64), (9, 95)] {
            let bit = |r: usize, c: usize| (r * 31 + c * 17) % 5 < 2;
            let per_row = cols.div_ceil(32);
            let mut words = vec![0u32; rows * per_row];
            for (r, row) in words.chunks_mut(per_row).enumerate() {
                for c in 0..cols {
                    row[c / 32] |= u32::from(bit(r, c)) << (c % 32);
                }
            }
            compact(&mut words, rows, cols);
            for i in 0..rows * cols {
                assert_eq!(
                    bits_at(&words, i, 1) == 1,
                    bit(i / cols, i % cols),
                    "{rows} {cols} {i}"
                );
            }
        }
    }
}
