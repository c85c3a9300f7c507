//! Matrices as borrowed views: data, rows, columns, row stride, and reading in transposed order.
//!
//! | constructor | element (r, c) |
//! |---|---|
//! | `new(data, rows, cols)` | `data[r * cols + c]` |
//! | `with_stride(data, rows, cols, stride)` | `data[r * stride + c]` |
//! | `view.t()` | element (c, r) of `view` |
//!
//! A view's shape is checked when it is made. Elements between the end of a row and the next are
//! never read and never written.

mod in_out;
mod pointers;

use crate::error::{Error, Result};
pub use in_out::InOut;
use pointers::Extents;
pub(crate) use pointers::{Source, Target};

/// A matrix to read.
#[derive(Debug)]
#[must_use]
pub struct MatRef<'a, T = f32> {
    data: &'a [T],
    shape: Shape,
}

impl<T> Clone for MatRef<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for MatRef<'_, T> {}

/// A matrix to write.
#[derive(Debug)]
#[must_use]
pub struct MatMut<'a, T = f32> {
    data: &'a mut [T],
    shape: Shape,
}

/// Rows and columns, and the distance in elements from one to the next; one of the two is 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shape {
    rows: usize,
    cols: usize,
    row_step: usize,
    col_step: usize,
}

impl Shape {
    /// The shape, if `len` elements hold it.
    fn new(len: usize, rows: usize, cols: usize, stride: usize) -> Result<Self> {
        if stride < cols {
            return Err(Error::Stride { stride, cols });
        }
        let needed = match (rows, cols) {
            (0, _) | (_, 0) => Some(0),
            _ => (rows - 1).checked_mul(stride).and_then(|n| n.checked_add(cols)),
        };
        // Addresses are counted in bytes, and pointer offsets are signed.
        let needed =
            needed.filter(|n| n.checked_mul(8).is_some_and(|b| isize::try_from(b).is_ok()));
        match needed {
            None => Err(Error::Overflow { rows, stride }),
            Some(needed) if needed > len => {
                Err(Error::TooShort { rows, cols, stride, needed, len })
            }
            Some(_) => {
                // Where there is no second row its distance means nothing, and may be anything.
                let row_step = if rows > 1 && cols > 0 { stride } else { cols };
                Ok(Self { rows, cols, row_step, col_step: 1 })
            }
        }
    }

    fn t(self) -> Self {
        Self { rows: self.cols, cols: self.rows, row_step: self.col_step, col_step: self.row_step }
    }

    fn extents(&self) -> Extents {
        Extents::new(self.rows, self.cols)
    }

    fn index(&self, row: usize, col: usize) -> Option<usize> {
        (row < self.rows && col < self.cols).then(|| row * self.row_step + col * self.col_step)
    }

    /// The part of the slice from `row` on, and the shape of `count` rows there.
    fn rows_from(self, row: usize, count: usize) -> Result<(usize, Self)> {
        check_range("row", row, count, self.rows)?;
        let start = if count == 0 || self.cols == 0 { 0 } else { row * self.row_step };
        Ok((start, Self { rows: count, ..self }))
    }

    /// The part of the slice from `col` on, and the shape of `count` columns there.
    fn cols_from(self, col: usize, count: usize) -> Result<(usize, Self)> {
        check_range("column", col, count, self.cols)?;
        let start = if count == 0 || self.rows == 0 { 0 } else { col * self.col_step };
        Ok((start, Self { cols: count, ..self }))
    }

    /// Where a row is in the slice, if its elements are contiguous.
    fn row(&self, row: usize) -> Option<std::ops::Range<usize>> {
        if row >= self.rows || (self.col_step != 1 && self.cols > 1) {
            return None;
        }
        let start = if self.cols == 0 { 0 } else { row * self.row_step };
        Some(start..start + self.cols)
    }
}

/// `Ok` when `count` rows or columns from `first` on lie in a matrix that has `all`.
fn check_range(what: &'static str, first: usize, count: usize, all: usize) -> Result<()> {
    match first.checked_add(count) {
        Some(end) if end <= all => Ok(()),
        _ => Err(Error::Range { what, first, count, all }),
    }
}

impl<'a, T> MatRef<'a, T> {
    /// A matrix whose rows follow each other without a gap.
    ///
    /// # Errors
    ///
    /// When `data` is too short, or the size overflows.
    pub fn new(data: &'a [T], rows: usize, cols: usize) -> Result<Self> {
        Self::with_stride(data, rows, cols, cols)
    }

    /// A matrix whose rows start `stride` elements apart.
    ///
    /// # Errors
    ///
    /// When `data` is too short, `stride < cols`, or the size overflows.
    pub fn with_stride(data: &'a [T], rows: usize, cols: usize, stride: usize) -> Result<Self> {
        Ok(Self { shape: Shape::new(data.len(), rows, cols, stride)?, data })
    }

    /// A slice as one row.
    pub fn row_vector(data: &'a [T]) -> Self {
        let shape = Shape { rows: 1, cols: data.len(), row_step: data.len(), col_step: 1 };
        Self { data, shape }
    }

    /// The transposed matrix, over the same data.
    pub fn t(self) -> Self {
        Self { data: self.data, shape: self.shape.t() }
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.shape.rows
    }

    /// Number of columns.
    pub fn cols(&self) -> usize {
        self.shape.cols
    }

    /// Element (row, col), if there is one.
    pub fn get(&self, row: usize, col: usize) -> Option<T>
    where
        T: Copy,
    {
        self.shape.index(row, col).map(|i| self.data[i])
    }

    /// `count` rows from `row` on.
    ///
    /// # Errors
    ///
    /// When the matrix has fewer rows.
    pub fn rows_from(self, row: usize, count: usize) -> Result<Self> {
        let (start, shape) = self.shape.rows_from(row, count)?;
        Ok(Self { data: &self.data[start..], shape })
    }

    /// `count` columns from `col` on.
    ///
    /// # Errors
    ///
    /// When the matrix has fewer columns.
    pub fn cols_from(self, col: usize, count: usize) -> Result<Self> {
        let (start, shape) = self.shape.cols_from(col, count)?;
        Ok(Self { data: &self.data[start..], shape })
    }

    /// Row `row`, if there is one, and its elements are contiguous (not those of a transposed view).
    pub fn row(&self, row: usize) -> Option<&'a [T]> {
        self.shape.row(row).map(|range| &self.data[range])
    }

    /// Element (row, col), which is known to lie in the matrix.
    pub(crate) fn at(&self, row: usize, col: usize) -> T
    where
        T: Copy,
    {
        debug_assert!(row < self.shape.rows && col < self.shape.cols, "an element of the matrix");
        self.data[row * self.shape.row_step + col * self.shape.col_step]
    }

    /// Name, rows and columns, for the checks.
    pub(crate) fn named(&self, name: &'static str) -> (&'static str, usize, usize) {
        (name, self.shape.rows, self.shape.cols)
    }

    /// Where the elements are.
    pub(crate) fn source(&self) -> Source<T> {
        let Shape { row_step, col_step, .. } = self.shape;
        Source { ptr: self.data.as_ptr(), row_step, col_step, extents: self.shape.extents() }
    }
}

impl<'a, T> MatMut<'a, T> {
    /// A matrix whose rows follow each other without a gap.
    ///
    /// # Errors
    ///
    /// When `data` is too short, or the size overflows.
    pub fn new(data: &'a mut [T], rows: usize, cols: usize) -> Result<Self> {
        Self::with_stride(data, rows, cols, cols)
    }

    /// A matrix whose rows start `stride` elements apart.
    ///
    /// # Errors
    ///
    /// When `data` is too short, `stride < cols`, or the size overflows.
    pub fn with_stride(data: &'a mut [T], rows: usize, cols: usize, stride: usize) -> Result<Self> {
        Ok(Self { shape: Shape::new(data.len(), rows, cols, stride)?, data })
    }

    /// A slice as one row.
    pub fn row_vector(data: &'a mut [T]) -> Self {
        let shape = Shape { rows: 1, cols: data.len(), row_step: data.len(), col_step: 1 };
        Self { data, shape }
    }

    /// The transposed matrix, over the same data.
    pub fn t(self) -> Self {
        Self { data: self.data, shape: self.shape.t() }
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.shape.rows
    }

    /// Number of columns.
    pub fn cols(&self) -> usize {
        self.shape.cols
    }

    /// The same matrix, to read.
    pub fn as_ref(&self) -> MatRef<'_, T> {
        MatRef { data: self.data, shape: self.shape }
    }

    /// The same matrix, borrowed for a shorter time.
    pub fn reborrow(&mut self) -> MatMut<'_, T> {
        MatMut { data: self.data, shape: self.shape }
    }

    /// Writes element (row, col).
    ///
    /// # Errors
    ///
    /// When the element lies outside the matrix.
    pub fn set(&mut self, row: usize, col: usize, value: T) -> Result<()> {
        let Shape { rows, cols, .. } = self.shape;
        let i = self.shape.index(row, col).ok_or(Error::Index { row, col, rows, cols })?;
        self.data[i] = value;
        Ok(())
    }

    /// `count` rows from `row` on.
    ///
    /// # Errors
    ///
    /// When the matrix has fewer rows.
    pub fn rows_from(self, row: usize, count: usize) -> Result<Self> {
        let (start, shape) = self.shape.rows_from(row, count)?;
        Ok(Self { data: &mut self.data[start..], shape })
    }

    /// `count` columns from `col` on.
    ///
    /// # Errors
    ///
    /// When the matrix has fewer columns.
    pub fn cols_from(self, col: usize, count: usize) -> Result<Self> {
        let (start, shape) = self.shape.cols_from(col, count)?;
        Ok(Self { data: &mut self.data[start..], shape })
    }

    /// Element (row, col), if there is one.
    pub fn get(&self, row: usize, col: usize) -> Option<T>
    where
        T: Copy,
    {
        self.as_ref().get(row, col)
    }

    /// Row `row`, if there is one, and its elements are contiguous (not those of a transposed view).
    pub fn row(&mut self, row: usize) -> Option<&mut [T]> {
        self.shape.row(row).map(|range| &mut self.data[range])
    }

    /// Writes element (row, col), which is known to lie in the matrix.
    pub(crate) fn put(&mut self, row: usize, col: usize, value: T) {
        debug_assert!(row < self.shape.rows && col < self.shape.cols, "an element of the matrix");
        self.data[row * self.shape.row_step + col * self.shape.col_step] = value;
    }

    /// Name, rows and columns, for the checks.
    pub(crate) fn named(&self, name: &'static str) -> (&'static str, usize, usize) {
        (name, self.shape.rows, self.shape.cols)
    }

    /// Where the elements are.
    pub(crate) fn target(&mut self) -> Target<T> {
        let Shape { row_step, col_step, .. } = self.shape;
        Target { ptr: self.data.as_mut_ptr(), row_step, col_step, extents: self.shape.extents() }
    }
}
