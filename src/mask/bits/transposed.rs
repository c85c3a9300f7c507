//! The bits of a transposed matrix: bit (r, c) is that of (c, r) of the mask.

use super::square::transpose;
use super::threshold::Single;
use super::walk::Walk;
use crate::isa::{Isa, Kernel};
use crate::mask::key::MaskKey;
use crate::threads::Part;

/// Computes the bits of a part of the transposed mask, in its coordinates.
pub(super) struct TransposedWalk {
    key: MaskKey,
    threshold: Single,
    part: Part,
    out: *mut u32,
    stride: usize,
}

impl TransposedWalk {
    /// # Safety
    ///
    /// `out` is valid for writes of the part's rows, each padded to a word, `stride` words apart.
    #[inline(always)]
    pub(super) unsafe fn new(
        key: MaskKey,
        threshold: Single,
        part: Part,
        out: *mut u32,
        stride: usize,
    ) -> Self {
        Self { key, threshold, part, out, stride }
    }

    /// Rows from row `r` of the part on, one at least, that are columns of the same block of the
    /// mask.
    fn rows_to_block_end(&self, r: usize) -> usize {
        128 - ((self.key.col0() + (self.part.row + r) as u64) % 128) as usize
    }
}

impl Kernel for TransposedWalk {
    type Output = ();

    // 32 rows of a block of 128 columns at a time, which become 128 rows of a word.
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Self { key, threshold, part, out, stride } = self;
        let mut r = 0;
        while r < part.rows {
            let rows = self.rows_to_block_end(r).min(part.rows - r);
            for c in (0..part.cols).step_by(32) {
                let mut block = [0u32; 32 * 4];
                let mirrored = Part {
                    row: part.col + c,
                    rows: 32.min(part.cols - c),
                    col: part.row + r,
                    cols: rows,
                };
                // SAFETY: up to 32 rows of up to 128 columns.
                let walk = unsafe { Walk::new(key, threshold, mirrored, block.as_mut_ptr(), 4) };
                isa.vectorize(walk);
                for (w, first) in (0..rows).step_by(32).enumerate() {
                    let mut square = [0; 32];
                    for (word, row) in square.iter_mut().zip(block.chunks_exact(4)) {
                        *word = row[w];
                    }
                    transpose(&mut square);
                    for (i, word) in square.iter().enumerate().take(rows - first) {
                        // SAFETY: the row lies in the part, which `new` was promised room for.
                        unsafe { *out.add((r + first + i) * stride + c / 32) = *word };
                    }
                }
            }
            r += rows;
        }
    }
}
