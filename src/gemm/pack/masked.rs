//! `keep ? x · scale : 0` in place of a factor's elements: dropout of an input or of weights.

use super::ahead::{PackAhead, RowMask};
use crate::isa::{Isa, Kernel};
use crate::mask::{Bits, KeyedDropout, TILE_COLS, TILE_WORDS};
use crate::threads::Part;
use crate::view::Source;

/// A matrix whose rows are contiguous, and its dropout.
#[derive(Clone, Copy)]
pub(in crate::gemm) struct MaskedOperand {
    source: Source,
    /// The bits, in the coordinates of the source.
    pub(in crate::gemm) bits: Bits,
    pub(in crate::gemm) scale: f32,
}

/// Rows of B that are prefetched before they are read: rows a power of two apart evict each other
/// from the level-1 cache when there are more.
const ROWS_AHEAD: usize = 8;

impl MaskedOperand {
    /// The dropout of a matrix, and whether the source of the result is its transposed: the one of
    /// the two whose rows are contiguous.
    pub(super) fn new(source: Source, dropout: &KeyedDropout) -> (Self, bool) {
        let (dropout, key) = (dropout.dropout(), dropout.key());
        let (scale, transposed) = (dropout.scale(), source.col_step != 1);
        let (source, bits) = if transposed {
            (source.t(), Bits::generate_transposed(&dropout.with_key(*key)))
        } else {
            (source, Bits::generate(&dropout.with_key(*key), None))
        };
        (Self { source, bits, scale }, transposed)
    }

    /// The matrix before the dropout.
    pub(super) fn source(&self) -> Source {
        self.source
    }

    /// The same with the bits of `part`, whose first column is a multiple of 32, made in advance.
    ///
    /// # Safety
    ///
    /// The part lies in the matrix; `scratch` has room for its bits, each row padded to a word, and
    /// is not used for anything else as long as the result is.
    #[inline(always)]
    pub(super) unsafe fn with_bits<I: Isa>(self, isa: I, part: Part, scratch: &mut [u32]) -> Self {
        // SAFETY: the caller's promise; bits can be made from a key for any part.
        let tile = unsafe { self.bits.tile(isa, part, scratch) };
        Self { bits: Bits::made(tile, part), ..self }
    }

    /// Adds the dropout of the elements from a place on to a panel that is packed ahead, if the
    /// bits of its rows were made in advance.
    pub(in crate::gemm) fn pack_ahead(
        &self,
        copy: PackAhead,
        row: usize,
        col: usize,
    ) -> Option<PackAhead> {
        let bits = self.bits.in_memory(row, col)?;
        let (words, step) = (bits.words, bits.stride);
        Some(copy.masked(RowMask { words, step, shift: col % 32, scale: self.scale }))
    }

    /// Packs a panel of `nr` columns, of which `part` has as many or fewer, the others zeros.
    ///
    /// # Safety
    ///
    /// The part lies in the matrix, and its bits, if they were made in advance, among those; its
    /// columns are those of one word of bits. `out` has room for the panel.
    #[inline(always)]
    pub(super) unsafe fn pack<I: Isa>(self, isa: I, part: Part, out: *mut f32, nr: usize) {
        let Part { row, rows, col, cols } = part;
        let shift = col % 32;
        let scale = isa.splat(self.scale);
        let mut scratch = [0u32; TILE_WORDS];
        for top in (0..rows).step_by(TILE_WORDS) {
            let tile = Part {
                row: row + top,
                rows: TILE_WORDS.min(rows - top),
                col: col - shift,
                cols: shift + cols,
            };
            // SAFETY: the caller's promise; what is prefetched need not be valid.
            unsafe {
                let bits = self.bits.tile(isa, tile, &mut scratch);
                for r in 0..tile.rows {
                    let x = self.source.at(tile.row + r, col);
                    let ahead = self.source.near(tile.row + r + ROWS_AHEAD, col);
                    isa.prefetch(ahead);
                    isa.prefetch(ahead.wrapping_add(nr - 1));
                    let word = isa.word(*bits.words.add(r * bits.stride) >> shift);
                    let to = out.add((top + r) * nr);
                    let mut c = 0;
                    while c < nr {
                        let (x, n) = (x.wrapping_add(c), cols.saturating_sub(c));
                        let x = if n >= I::LANES { isa.load(x) } else { isa.load_first(x, n) };
                        isa.store(to.add(c), isa.keep(isa.lanes(word, c), isa.mul(x, scale)));
                        c += I::LANES;
                    }
                }
            }
        }
    }
}

/// Writes a part with dropout applied, row after row.
pub(super) struct Apply {
    masked: MaskedOperand,
    part: Part,
    out: *mut f32,
}

impl Apply {
    /// # Safety
    ///
    /// - The part lies in the matrix, which is alive, and its bits, if they were made in advance,
    ///   among those; then its first column is a multiple of 32.
    /// - `out` has room for the part.
    pub(super) unsafe fn new(masked: MaskedOperand, part: Part, out: *mut f32) -> Self {
        Self { masked, part, out }
    }
}

impl Kernel for Apply {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Part { row, rows, col, cols } = self.part;
        let mut scratch = [0u32; TILE_WORDS];
        for c in (0..cols).step_by(TILE_COLS) {
            let tile_cols = TILE_COLS.min(cols - c);
            let tile_rows = TILE_WORDS / tile_cols.div_ceil(32);
            for r in (0..rows).step_by(tile_rows) {
                let tile = Part {
                    row: row + r,
                    rows: tile_rows.min(rows - r),
                    col: col + c,
                    cols: tile_cols,
                };
                // SAFETY: `Apply::new`; bits made from a key may start at any column.
                unsafe {
                    let bits = self.masked.bits.tile(isa, tile, &mut scratch);
                    for i in 0..tile.rows {
                        let words = bits.words.add(i * bits.stride);
                        let out = self.out.add((r + i) * cols + c);
                        self.row(isa, tile.row + i, tile.col, tile.cols, words, out);
                    }
                }
            }
        }
    }
}

impl Apply {
    /// # Safety
    ///
    /// The columns lie in the matrix; `words` holds their bits; `out` has room for them.
    #[inline(always)]
    unsafe fn row<I: Isa>(
        &self,
        isa: I,
        row: usize,
        col: usize,
        cols: usize,
        words: *const u32,
        out: *mut f32,
    ) {
        let MaskedOperand { source, scale, .. } = self.masked;
        let factor = isa.splat(scale);
        // SAFETY: the caller's promise.
        unsafe {
            let x = source.at(row, col);
            let mut c = 0;
            while c + 32 <= cols {
                let word = isa.word(*words.add(c / 32));
                let mut at = 0;
                while at < 32 {
                    let v = isa.mul(isa.load(x.add(c + at)), factor);
                    isa.store(out.add(c + at), isa.keep(isa.lanes(word, at), v));
                    at += I::LANES;
                }
                c += 32;
            }
            for c in c..cols {
                let kept = *words.add(c / 32) >> (c % 32) & 1 == 1;
                *out.add(c) = if kept { *x.add(c) * scale } else { 0.0 };
            }
        }
    }
}
