//! Matrices whose rows are not contiguous, for products, which read and write whole rows.

use crate::buffers::{AlignedBuffer, Lease, Slot};
use crate::error::Result;
use crate::view::{MatMut, MatRef, Source, Target};

/// An output by rows: the matrix itself, or a buffer that is copied to it in the end.
pub(super) struct RowsMut<'a> {
    matrix: MatMut<'a>,
    buffer: Option<Lease<AlignedBuffer>>,
}

impl<'a> RowsMut<'a> {
    /// The rows of `matrix`, which are written by [`RowsMut::finish`] at the latest.
    pub(super) fn new(slot: Slot, mut matrix: MatMut<'a>) -> Result<Self> {
        if matrix.target().col_step == 1 {
            return Ok(Self { matrix, buffer: None });
        }
        let mut buffer: Lease<AlignedBuffer> = slot.take();
        buffer.room(matrix.rows(), matrix.cols())?;
        Ok(Self { matrix, buffer: Some(buffer) })
    }

    /// Where a product writes.
    pub(super) fn target(&mut self) -> Result<Target> {
        let (rows, cols) = (self.matrix.rows(), self.matrix.cols());
        Ok(match &mut self.buffer {
            None => self.matrix.target(),
            Some(buffer) => MatMut::new(buffer, rows, cols)?.target(),
        })
    }

    /// Copies the buffer to the matrix, if there is one.
    pub(super) fn finish(mut self) {
        if let Some(buffer) = self.buffer {
            let (rows, cols) = (self.matrix.rows(), self.matrix.cols());
            for (i, value) in buffer.iter().enumerate().take(rows * cols) {
                self.matrix.put(i / cols, i % cols, *value);
            }
        }
    }
}

/// An input by rows: the matrix itself, or a copy.
pub(super) struct Rows<'a> {
    matrix: MatRef<'a>,
    buffer: Option<Lease<AlignedBuffer>>,
}

impl<'a> Rows<'a> {
    /// The rows of `matrix`.
    pub(super) fn new(slot: Slot, matrix: MatRef<'a>) -> Result<Self> {
        if matrix.source().col_step == 1 {
            return Ok(Self { matrix, buffer: None });
        }
        let (rows, cols) = (matrix.rows(), matrix.cols());
        let mut buffer: Lease<AlignedBuffer> = slot.take();
        for (i, value) in buffer.room(rows, cols)?.iter_mut().enumerate() {
            *value = matrix.at(i / cols, i % cols);
        }
        Ok(Self { matrix, buffer: Some(buffer) })
    }

    /// Where a product reads.
    pub(super) fn source(&self) -> Result<Source> {
        match &self.buffer {
            None => Ok(self.matrix.source()),
            Some(buffer) => {
                Ok(MatRef::new(buffer, self.matrix.rows(), self.matrix.cols())?.source())
            }
        }
    }
}
