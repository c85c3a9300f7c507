//! A matrix that a product reads: as it is, or changed on its way into the panels.

use super::masked::{Apply, MaskedOperand};
use crate::gather::{Gather, GatherIndex};
use crate::isa::Isa;
use crate::mask::KeyedDropout;
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
    Masked(MaskedOperand),
    /// Some of the rows and columns of the stored matrix.
    Gathered(GatherIndex),
    /// Panels of B that were packed before.
    Packed(*const f32),
}

impl Operand {
    /// The matrix as it is.
    pub(crate) fn new(source: Source) -> Self {
        Self { source, form: Form::Plain, transposed: false }
    }

    /// A matrix whose panels of B, for the same level, are at `panels`.
    pub(in crate::gemm) fn packed(source: Source, panels: *const f32) -> Self {
        Self { source, form: Form::Packed(panels), transposed: false }
    }

    /// The rows and columns of a gather index, of a matrix whose rows are contiguous.
    pub(crate) fn gathered(source: Source, index: GatherIndex) -> Self {
        let form = if index.is_all() { Form::Plain } else { Form::Gathered(index) };
        Self { source, form, transposed: false }
    }

    /// `keep ? x · scale : 0` in place of the matrix, or the matrix itself if nothing is dropped.
    pub(crate) fn masked(source: Source, dropout: &KeyedDropout) -> Self {
        if !dropout.drops() {
            return Self::new(source);
        }
        let (masked, transposed) = MaskedOperand::new(source, dropout);
        Self { source: masked.source(), form: Form::Masked(masked), transposed }
    }

    /// The transposed matrix.
    pub(crate) fn t(self) -> Self {
        Self { transposed: !self.transposed, ..self }
    }

    /// Whether rows, as the product reads them, are contiguous, and only have to be copied.
    pub(in crate::gemm) fn is_copied(&self) -> bool {
        matches!(self.form, Form::Plain) && self.source().col_step == 1
    }

    /// Whether columns, as the product reads them, are contiguous, and only have to be transposed.
    pub(in crate::gemm) fn is_transposed(&self) -> bool {
        matches!(self.form, Form::Plain) && self.source().row_step == 1
    }

    /// Whether elements are computed before they are packed.
    pub(in crate::gemm) fn is_computed(&self) -> bool {
        matches!(self.form, Form::Masked(_) | Form::Gathered(_))
    }

    /// The dropout, if the rows that it is applied to are those that the product reads.
    pub(in crate::gemm) fn masked_rows(&self) -> Option<MaskedOperand> {
        match self.form {
            Form::Masked(masked) if !self.transposed => Some(masked),
            _ => None,
        }
    }

    /// The same operand with the bits of a dropout made in advance for `part`, which is in the
    /// product's coordinates and starts at multiples of 32.
    ///
    /// # Safety
    ///
    /// The part lies in the operand, of which no other is read through the result. `scratch` has
    /// room for its bits, rows or columns padded to a word, and holds them as long as the result is
    /// used.
    #[inline(always)]
    pub(in crate::gemm) unsafe fn with_bits<I: Isa>(
        self,
        isa: I,
        part: Part,
        scratch: &mut [u32],
    ) -> Self {
        match self.form {
            Form::Masked(masked) => {
                // SAFETY: the caller's promise.
                let masked = unsafe { masked.with_bits(isa, self.stored(part), scratch) };
                Self { form: Form::Masked(masked), ..self }
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
    pub(in crate::gemm) fn panels(&self) -> Option<*const f32> {
        match self.form {
            Form::Packed(panels) => Some(panels),
            _ => None,
        }
    }

    /// The stored elements in the order in which the product reads them.
    pub(in crate::gemm) fn source(&self) -> Source {
        if self.transposed { self.source.t() } else { self.source }
    }

    /// The elements of `part`, which is in the product's coordinates: where they are, and the steps
    /// to the next row and column. What has to be computed goes to `buffer`.
    ///
    /// # Safety
    ///
    /// The part lies in the operand; `buffer` has room for its elements.
    #[inline(always)]
    pub(in crate::gemm) unsafe fn elements<I: Isa>(
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
            // SAFETY: the caller's promise.
            Form::Masked(masked) => isa.vectorize(unsafe { Apply::new(masked, stored, out) }),
            Form::Gathered(index) => {
                // SAFETY: the caller's promise.
                let gather = unsafe { Gather::new((source, index), stored, 1.0, out, stored.cols) };
                isa.vectorize(gather);
            }
        }
        if self.transposed { (buffer, 1, stored.cols) } else { (buffer, stored.cols, 1) }
    }
}
