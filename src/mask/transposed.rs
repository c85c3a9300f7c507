//! The bits of a transposed matrix: bit (r, c) is that of (c, r) of the mask.

use super::bits::{Stream, Walk};
use crate::isa::{Isa, Kernel};
use crate::threads::Part;

/// Computes the bits of a part of the transposed mask, in its coordinates.
pub(super) struct TransposedWalk {
    pub(super) stream: Stream,
    pub(super) part: Part,
    pub(super) out: *mut u32,
    pub(super) stride: usize,
}

impl Kernel for TransposedWalk {
    type Output = ();

    // 32 rows of a block of 128 columns at a time, which become 128 rows of a word.
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Self { stream, part, out, stride } = self;
        let mut r = 0;
        while r < part.rows {
            let rows = stream.columns_to_block_end(part.row + r).min(part.rows - r);
            for c in (0..part.cols).step_by(32) {
                let mut block = [0u32; 32 * 4];
                let mirrored = Part {
                    row: part.col + c,
                    rows: 32.min(part.cols - c),
                    col: part.row + r,
                    cols: rows,
                };
                isa.vectorize(Walk { stream, part: mirrored, out: block.as_mut_ptr(), stride: 4 });
                for (w, first) in (0..rows).step_by(32).enumerate() {
                    let mut square = [0; 32];
                    for (word, row) in square.iter_mut().zip(block.chunks_exact(4)) {
                        *word = row[w];
                    }
                    transpose(&mut square);
                    for (i, word) in square.iter().enumerate().take(rows - first) {
                        // SAFETY: the row lies in the part, which `Bits::tile` was promised room for.
                        unsafe { *out.add((r + first + i) * stride + c / 32) = *word };
                    }
                }
            }
            r += rows;
        }
    }
}

/// Bit `i` of word `k` becomes bit `k` of word `i`: quarters of the square are swapped, then quarters of
/// the quarters, and so on.
#[inline(always)]
fn transpose(square: &mut [u32; 32]) {
    let (mut half, mut low) = (16, 0x0000_ffffu32);
    while half > 0 {
        for k in (0..32).filter(|k| k & half == 0) {
            let swapped = (square[k] >> half ^ square[k + half]) & low;
            square[k + half] ^= swapped;
            square[k] ^= swapped << half;
        }
        half /= 2;
        low ^= low << half;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn squares_are_transposed() {
        let word = |k: usize| (k as u32 + 1).wrapping_mul(0x9e37_79b9);
        let mut square = std::array::from_fn(word);
        transpose(&mut square);
        for (i, bits) in square.into_iter().enumerate() {
            for k in 0..32 {
                assert_eq!(bits >> k & 1, word(k) >> i & 1, "{i} {k}");
            }
        }
    }
}
