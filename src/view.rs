//! Matrices as borrowed views: data, rows, columns, row stride, and reading in transposed order.
//!
//! | constructor | element (r, c) |
//! |---|---|
//! | `new(data, rows, cols)` | `data[r * cols + c]` |
//! | `with_stride(data, rows, cols, stride)` | `data[r * stride + c]` |
//! | `view.t()` | element (c, r) of `view` |
//!
//! A view's shape is checked when it is made. Elements between the end of a row and the next are
//! never read and never written, and are not borrowed either: they may be part of another view.

mod in_out;
#[cfg(feature = "ndarray")]
mod ndarray;
mod pointers;
mod shape;

use std::fmt;
use std::marker::PhantomData;
use std::ops::Range;

use crate::error::{Error, Result};
pub use in_out::InOut;
pub(crate) use pointers::{Source, Target};
use shape::Shape;

/// A matrix to read.
#[must_use]
pub struct MatRef<'a, T = f32> {
    /// Element (0, 0); aligned and not null, also where there is none.
    ptr: *const T,
    shape: Shape,
    /// The elements of the shape are borrowed, but not what lies between its rows.
    elements: PhantomData<&'a [T]>,
}

// SAFETY: a MatRef is a shared borrow of its elements.
unsafe impl<T: Sync> Send for MatRef<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Sync> Sync for MatRef<'_, T> {}

impl<T> Clone for MatRef<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for MatRef<'_, T> {}

impl<T: fmt::Debug> fmt::Debug for MatRef<'_, T> {
    /// Rows, columns, and the elements row after row.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Shape { rows, cols, .. } = self.shape;
        let row = |r| (0..cols).filter_map(move |c| self.element(r, c));
        let elements = fmt::from_fn(|f| {
            let rows = if cols == 0 { 0 } else { rows };
            let row = |r| fmt::from_fn(move |f| f.debug_list().entries(row(r)).finish());
            f.debug_list().entries((0..rows).map(row)).finish()
        });
        let mut matrix = f.debug_struct("Matrix");
        matrix.field("rows", &rows).field("cols", &cols).field("elements", &elements).finish()
    }
}

/// A matrix to write.
#[must_use]
pub struct MatMut<'a, T = f32> {
    /// As in [`MatRef`].
    ptr: *mut T,
    shape: Shape,
    elements: PhantomData<&'a mut [T]>,
}

// SAFETY: a MatMut is an exclusive borrow of its elements.
unsafe impl<T: Send> Send for MatMut<'_, T> {}
// SAFETY: a shared MatMut gives shared borrows of its elements.
unsafe impl<T: Sync> Sync for MatMut<'_, T> {}

impl<T: fmt::Debug> fmt::Debug for MatMut<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_ref().fmt(f)
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
        let shape = Shape::new(data.len(), rows, cols, stride)?;
        Ok(Self { ptr: data.as_ptr(), shape, elements: PhantomData })
    }

    /// A slice as one row.
    pub fn row_vector(data: &'a [T]) -> Self {
        let shape = Shape { rows: 1, cols: data.len(), row_step: data.len(), col_step: 1 };
        Self { ptr: data.as_ptr(), shape, elements: PhantomData }
    }

    /// The transposed matrix, over the same data.
    pub fn t(self) -> Self {
        Self { shape: self.shape.t(), ..self }
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
        self.element(row, col).copied()
    }

    /// `count` rows from `row` on.
    ///
    /// # Errors
    ///
    /// When the matrix has fewer rows.
    pub fn rows_from(self, row: usize, count: usize) -> Result<Self> {
        let (start, shape) = self.shape.rows_from(row, count)?;
        // SAFETY: the part starts at an element, or where the matrix does.
        Ok(Self { ptr: unsafe { self.ptr.add(start) }, shape, ..self })
    }

    /// `count` columns from `col` on.
    ///
    /// # Errors
    ///
    /// When the matrix has fewer columns.
    pub fn cols_from(self, col: usize, count: usize) -> Result<Self> {
        let (start, shape) = self.shape.cols_from(col, count)?;
        // SAFETY: the part starts at an element, or where the matrix does.
        Ok(Self { ptr: unsafe { self.ptr.add(start) }, shape, ..self })
    }

    /// Row `row`, if there is one, and its elements are contiguous (not those of a transposed view).
    pub fn row(&self, row: usize) -> Option<&'a [T]> {
        // SAFETY: a row of the matrix, whose elements are borrowed for as long.
        let slice = |range: Range<usize>| unsafe {
            std::slice::from_raw_parts(self.ptr.add(range.start), range.len())
        };
        self.shape.row(row).map(slice)
    }

    /// Element (row, col), which is known to lie in the matrix.
    pub(crate) fn at(&self, row: usize, col: usize) -> T
    where
        T: Copy,
    {
        match self.element(row, col) {
            Some(element) => *element,
            None => unreachable!("the element is known to lie in the matrix"),
        }
    }

    /// Element (row, col), if there is one.
    fn element(&self, row: usize, col: usize) -> Option<&'a T> {
        // SAFETY: an element of the matrix, which is borrowed for as long.
        self.shape.index(row, col).map(|i| unsafe { &*self.ptr.add(i) })
    }

    /// Name, rows and columns, for the checks.
    pub(crate) fn named(&self, name: &'static str) -> (&'static str, usize, usize) {
        (name, self.shape.rows, self.shape.cols)
    }

    /// Where the elements are.
    pub(crate) fn source(&self) -> Source<T> {
        let Shape { row_step, col_step, .. } = self.shape;
        Source { ptr: self.ptr, row_step, col_step, extents: self.shape.extents() }
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
        let shape = Shape::new(data.len(), rows, cols, stride)?;
        Ok(Self { ptr: data.as_mut_ptr(), shape, elements: PhantomData })
    }

    /// A slice as one row.
    pub fn row_vector(data: &'a mut [T]) -> Self {
        let shape = Shape { rows: 1, cols: data.len(), row_step: data.len(), col_step: 1 };
        Self { ptr: data.as_mut_ptr(), shape, elements: PhantomData }
    }

    /// The transposed matrix, over the same data.
    pub fn t(self) -> Self {
        Self { shape: self.shape.t(), ..self }
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
        MatRef { ptr: self.ptr, shape: self.shape, elements: PhantomData }
    }

    /// The same matrix, borrowed for a shorter time.
    pub fn reborrow(&mut self) -> MatMut<'_, T> {
        MatMut { ptr: self.ptr, shape: self.shape, elements: PhantomData }
    }

    /// Writes element (row, col).
    ///
    /// # Errors
    ///
    /// When the element lies outside the matrix.
    pub fn set(&mut self, row: usize, col: usize, value: T) -> Result<()> {
        let Shape { rows, cols, .. } = self.shape;
        let i = self.shape.index(row, col).ok_or(Error::Index { row, col, rows, cols })?;
        // SAFETY: an element of the matrix, which is borrowed exclusively.
        unsafe { *self.ptr.add(i) = value };
        Ok(())
    }

    /// `count` rows from `row` on.
    ///
    /// # Errors
    ///
    /// When the matrix has fewer rows.
    pub fn rows_from(self, row: usize, count: usize) -> Result<Self> {
        let (start, shape) = self.shape.rows_from(row, count)?;
        // SAFETY: the part starts at an element, or where the matrix does.
        Ok(Self { ptr: unsafe { self.ptr.add(start) }, shape, ..self })
    }

    /// `count` columns from `col` on.
    ///
    /// # Errors
    ///
    /// When the matrix has fewer columns.
    pub fn cols_from(self, col: usize, count: usize) -> Result<Self> {
        let (start, shape) = self.shape.cols_from(col, count)?;
        // SAFETY: the part starts at an element, or where the matrix does.
        Ok(Self { ptr: unsafe { self.ptr.add(start) }, shape, ..self })
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
        // SAFETY: a row of the matrix, whose elements are borrowed exclusively for as long.
        let slice = |range: Range<usize>| unsafe {
            std::slice::from_raw_parts_mut(self.ptr.add(range.start), range.len())
        };
        self.shape.row(row).map(slice)
    }

    /// Writes element (row, col), which is known to lie in the matrix.
    pub(crate) fn put(&mut self, row: usize, col: usize, value: T) {
        if self.set(row, col, value).is_err() {
            unreachable!("the element is known to lie in the matrix");
        }
    }

    /// Name, rows and columns, for the checks.
    pub(crate) fn named(&self, name: &'static str) -> (&'static str, usize, usize) {
        (name, self.shape.rows, self.shape.cols)
    }

    /// Where the elements are.
    pub(crate) fn target(&mut self) -> Target<T> {
        let Shape { row_step, col_step, .. } = self.shape;
        Target { ptr: self.ptr, row_step, col_step, extents: self.shape.extents() }
    }
}
