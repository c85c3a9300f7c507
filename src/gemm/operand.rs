//! A matrix that a product reads: as it is, or changed on its way into the panels.

use super::kept::{Gather, Kept};
use crate::isa::{Isa, Kernel};
use crate::mask::{Bits, TILE_COLS, TILE_WORDS};
use crate::threads::Part;
use crate::view::Source;

/// A factor of a product.
#[derive(Clone, Copy)]
pub(crate) struct Operand {
    source: Source,
    form: Form,
    /// Whether the product reads the stored matrix in transposed order.
    transposed: bool,
}

/// What the product reads in place of the stored elements.
#[derive(Clone, Copy)]
enum Form {
    /// The elements themselves.
    Plain,
    /// The elements after a dropout, mask and scale, in the coordinates of the stored matrix.
    Dropped(Bits, f32),
    /// Some of the rows and columns of the stored matrix.
    Kept(Kept),
    /// Panels of B that were packed before.
    Packed(*const f32),
}

impl Operand {
    /// The matrix as it is.
    pub(crate) fn new(source: Source) -> Self {
        Self { source, form: Form::Plain, transposed: false }
    }

    /// A matrix whose panels of B, for the same level, are at `panels`.
    pub(super) fn packed(source: Source, panels: *const f32) -> Self {
        Self { source, form: Form::Packed(panels), transposed: false }
    }

    /// The kept rows and columns of a matrix whose rows are contiguous.
    pub(crate) fn kept(source: Source, kept: Kept) -> Self {
        let form = if kept.is_all() { Form::Plain } else { Form::Kept(kept) };
        Self { source, form, transposed: false }
    }

    /// `keep ? x · scale : 0` in place of the matrix. The bits are made from a key.
    pub(crate) fn dropped(source: Source, bits: Bits, scale: f32) -> Self {
        let form = if bits.keeps_all() { Form::Plain } else { Form::Dropped(bits, scale) };
        Self { source, form, transposed: false }
    }

    /// The transposed matrix.
    pub(crate) fn t(self) -> Self {
        Self { transposed: !self.transposed, ..self }
    }

    /// Whether rows, as the product reads them, are contiguous, and only have to be copied.
    pub(super) fn is_copied(&self) -> bool {
        matches!(self.form, Form::Plain) && self.source().col_step == 1
    }

    /// Whether elements are computed before they are packed.
    pub(super) fn is_computed(&self) -> bool {
        matches!(self.form, Form::Dropped(..) | Form::Kept(_))
    }

    /// The panels of B, if they were packed before.
    pub(super) fn panels(&self) -> Option<*const f32> {
        match self.form {
            Form::Packed(panels) => Some(panels),
            _ => None,
        }
    }

    /// The stored elements in the order in which the product reads them.
    pub(super) fn source(&self) -> Source {
        if self.transposed { self.source.t() } else { self.source }
    }

    /// The elements of `part`, which is in the product's coordinates: where they are, and the steps
    /// to the next row and column. What has to be computed goes to `buffer`.
    ///
    /// # Safety
    ///
    /// The part lies in the operand; `buffer` has room for its elements.
    #[inline(always)]
    pub(super) unsafe fn elements<I: Isa>(
        &self,
        isa: I,
        part: Part,
        buffer: *mut f32,
    ) -> (*const f32, usize, usize) {
        let stored = if self.transposed {
            Part { row: part.col, rows: part.cols, col: part.row, cols: part.rows }
        } else {
            part
        };
        let (source, out) = (self.source, buffer);
        match self.form {
            Form::Plain | Form::Packed(_) => {
                let source = self.source();
                // SAFETY: the caller's promise.
                let first = unsafe { source.at(part.row, part.col) };
                return (first, source.row_step, source.col_step);
            }
            Form::Dropped(bits, scale) => {
                isa.vectorize(Dropped { source, bits, scale, part: stored, out });
            }
            Form::Kept(kept) => {
                let step = stored.cols;
                isa.vectorize(Gather { source, kept, scale: 1.0, part: stored, out, step });
            }
        }
        if self.transposed { (buffer, 1, stored.cols) } else { (buffer, stored.cols, 1) }
    }
}

/// Writes a part with dropout applied, row after row.
struct Dropped {
    source: Source,
    bits: Bits,
    scale: f32,
    part: Part,
    out: *mut f32,
}

impl Kernel for Dropped {
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
                // SAFETY: the tile lies in the part, which `Operand::elements` was promised to lie
                // in the matrix; bits made from a key may start at any column.
                unsafe {
                    let bits = self.bits.tile(isa, tile, &mut scratch);
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

impl Dropped {
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
        let scale = isa.splat(self.scale);
        // SAFETY: the caller's promise.
        unsafe {
            if self.source.col_step == 1 {
                let x = self.source.at(row, col);
                let mut c = 0;
                while c + 32 <= cols {
                    let word = isa.word(*words.add(c / 32));
                    let mut at = 0;
                    while at < 32 {
                        let v = isa.mul(isa.load(x.add(c + at)), scale);
                        isa.store(out.add(c + at), isa.keep(isa.lanes(word, at), v));
                        at += I::LANES;
                    }
                    c += 32;
                }
                for c in c..cols {
                    let kept = *words.add(c / 32) >> (c % 32) & 1 == 1;
                    *out.add(c) = if kept { *x.add(c) * self.scale } else { 0.0 };
                }
            } else {
                for c in 0..cols {
                    let kept = *words.add(c / 32) >> (c % 32) & 1 == 1;
                    let x = *self.source.at(row, col + c);
                    *out.add(c) = if kept { x * self.scale } else { 0.0 };
                }
            }
        }
    }
}
