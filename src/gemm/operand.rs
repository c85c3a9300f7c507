//! A matrix that a product reads: as it is, or changed on its way into the panels.

use super::dropped::{Apply, Dropped};
use crate::gather::{Gather, Kept};
use crate::isa::Isa;
use crate::mask::{Dropout, MaskKey};
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
    /// The elements after a dropout.
    Dropped(Dropped),
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

    /// `keep ? x · scale : 0` in place of the matrix; or the matrix itself.
    pub(crate) fn dropped(source: Source, dropout: Option<(Dropout, MaskKey)>) -> Self {
        match dropout {
            Some((dropout, key)) if dropout.drops() => {
                let (dropped, transposed) = Dropped::new(source, &dropout, &key);
                Self { source: dropped.source, form: Form::Dropped(dropped), transposed }
            }
            _ => Self::new(source),
        }
    }

    /// The transposed matrix.
    pub(crate) fn t(self) -> Self {
        Self { transposed: !self.transposed, ..self }
    }

    /// Whether rows, as the product reads them, are contiguous, and only have to be copied.
    pub(super) fn is_copied(&self) -> bool {
        matches!(self.form, Form::Plain) && self.source().col_step == 1
    }

    /// Whether columns, as the product reads them, are contiguous, and only have to be transposed.
    pub(super) fn is_transposed(&self) -> bool {
        matches!(self.form, Form::Plain) && self.source().row_step == 1
    }

    /// Whether elements are computed before they are packed.
    pub(super) fn is_computed(&self) -> bool {
        matches!(self.form, Form::Dropped(_) | Form::Kept(_))
    }

    /// The dropout, if the rows that it is applied to are those that the product reads.
    pub(super) fn dropped_rows(&self) -> Option<Dropped> {
        match self.form {
            Form::Dropped(dropped) if !self.transposed => Some(dropped),
            _ => None,
        }
    }

    /// The same operand with the bits of a dropout made in advance for `part`, which is in the
    /// product's coordinates and starts at multiples of 32.
    ///
    /// # Safety
    ///
    /// The part lies in the operand, of which no other is read through the result. `scratch` has room
    /// for its bits, rows or columns padded to a word, and holds them as long as the result is used.
    #[inline(always)]
    pub(super) unsafe fn with_bits<I: Isa>(self, isa: I, part: Part, scratch: &mut [u32]) -> Self {
        match self.form {
            Form::Dropped(dropped) => {
                // SAFETY: the caller's promise.
                let dropped = unsafe { dropped.with_bits(isa, self.stored(part), scratch) };
                Self { form: Form::Dropped(dropped), ..self }
            }
            _ => self,
        }
    }

    /// A part of the stored matrix, given in the product's coordinates.
    fn stored(&self, part: Part) -> Part {
        if self.transposed {
            Part { row: part.col, rows: part.cols, col: part.row, cols: part.rows }
        } else {
            part
        }
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
        let stored = self.stored(part);
        let (source, out) = (self.source, buffer);
        match self.form {
            Form::Plain | Form::Packed(_) => {
                let source = self.source();
                // SAFETY: the caller's promise.
                let first = unsafe { source.at(part.row, part.col) };
                return (first, source.row_step, source.col_step);
            }
            Form::Dropped(dropped) => isa.vectorize(Apply { dropped, part: stored, out }),
            Form::Kept(kept) => {
                let step = stored.cols;
                isa.vectorize(Gather { source, kept, scale: 1.0, part: stored, out, step });
            }
        }
        if self.transposed { (buffer, 1, stored.cols) } else { (buffer, stored.cols, 1) }
    }
}
