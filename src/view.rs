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

use crate::error::{Error, Result};

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

/// The input and the output of an element-wise pass: two matrices, or one that is overwritten.
///
/// Functions take it as `impl Into<InOut>`, so that the argument is written `(x, y)` or `x`, with
/// views or, for one row, with slices:
///
/// ```
/// # use fused_dropout::{InOut, MatMut};
/// let (x, mut y) = ([1.0, 2.0], [0.0; 2]);
/// let separate = InOut::from((&x[..], &mut y[..]));
/// assert_eq!((separate.rows(), separate.cols()), (1, 2));
/// let in_place = InOut::from(MatMut::row_vector(&mut y));
/// assert_eq!((in_place.rows(), in_place.cols()), (1, 2));
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum InOut<'a, T = f32> {
    /// Read from one matrix, written to another.
    Separate(MatRef<'a, T>, MatMut<'a, T>),
    /// Read, and overwritten by the result.
    InPlace(MatMut<'a, T>),
}

impl<'a, T> From<(MatRef<'a, T>, MatMut<'a, T>)> for InOut<'a, T> {
    fn from((input, output): (MatRef<'a, T>, MatMut<'a, T>)) -> Self {
        InOut::Separate(input, output)
    }
}

impl<'a, T> From<MatMut<'a, T>> for InOut<'a, T> {
    fn from(matrix: MatMut<'a, T>) -> Self {
        InOut::InPlace(matrix)
    }
}

impl<'a, T> From<(&'a [T], &'a mut [T])> for InOut<'a, T> {
    fn from((input, output): (&'a [T], &'a mut [T])) -> Self {
        InOut::Separate(MatRef::row_vector(input), MatMut::row_vector(output))
    }
}

impl<'a, T> From<&'a mut [T]> for InOut<'a, T> {
    fn from(row: &'a mut [T]) -> Self {
        InOut::InPlace(MatMut::row_vector(row))
    }
}

impl<T> InOut<'_, T> {
    /// Number of rows of the input.
    pub fn rows(&self) -> usize {
        match self {
            InOut::Separate(input, _) => input.rows(),
            InOut::InPlace(matrix) => matrix.rows(),
        }
    }

    /// Number of columns of the input.
    pub fn cols(&self) -> usize {
        match self {
            InOut::Separate(input, _) => input.cols(),
            InOut::InPlace(matrix) => matrix.cols(),
        }
    }

    /// Rows and columns, if input and output, which are called this, have the same shape.
    pub(crate) fn check(
        &self,
        input: &'static str,
        output: &'static str,
    ) -> Result<(usize, usize)> {
        if let InOut::Separate(from, to) = self {
            crate::error::check_shape(from.named(input), to.named(output))?;
        }
        Ok((self.rows(), self.cols()))
    }

    /// Where the elements are read and written; the same place for an operation in place.
    pub(crate) fn pointers(&mut self) -> (Source<T>, Target<T>)
    where
        T: Copy,
    {
        match self {
            InOut::Separate(input, output) => (input.source(), output.target()),
            InOut::InPlace(matrix) => {
                let target = matrix.target();
                (target.source(), target)
            }
        }
    }
}

/// Rows and columns of a matrix behind a pointer, known where debug assertions are on: each address
/// is checked there, so that the ordinary tests are a test of bounds.
#[derive(Clone, Copy, Debug)]
struct Extents {
    #[cfg(debug_assertions)]
    rows: usize,
    #[cfg(debug_assertions)]
    cols: usize,
}

#[cfg(debug_assertions)]
impl Extents {
    fn new(rows: usize, cols: usize) -> Self {
        Self { rows, cols }
    }

    fn t(self) -> Self {
        Self { rows: self.cols, cols: self.rows }
    }

    /// Elements without gaps between rows, as a matrix with rows of `cols` elements.
    fn in_rows_of(self, cols: usize) -> Self {
        Self { rows: (self.rows * self.cols).div_ceil(cols.max(1)), cols }
    }

    /// Panics where the elements from (row, col) on, `n` of the row, are not in the matrix. No
    /// elements may be at the end of a row, or of the matrix.
    #[track_caller]
    fn check(self, row: usize, col: usize, n: usize) {
        let Self { rows, cols } = self;
        let within = row < rows && n <= cols && col <= cols - n;
        let past_the_last = row == rows && col == 0 && n == 0;
        debug_assert!(within || past_the_last, "{n} elements at ({row}, {col}) of {rows} x {cols}");
    }
}

#[cfg(not(debug_assertions))]
impl Extents {
    #[inline(always)]
    fn new(_: usize, _: usize) -> Self {
        Self {}
    }

    #[inline(always)]
    fn t(self) -> Self {
        self
    }

    #[inline(always)]
    fn in_rows_of(self, _: usize) -> Self {
        self
    }

    #[inline(always)]
    fn check(self, _: usize, _: usize, _: usize) {}
}

/// The elements of a [`MatRef`], for kernels: element (r, c) is at `r * row_step + c * col_step`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Source<T = f32> {
    ptr: *const T,
    pub(crate) row_step: usize,
    pub(crate) col_step: usize,
    extents: Extents,
}

/// The elements of a [`MatMut`], for kernels whose tasks write disjoint parts of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target<T = f32> {
    ptr: *mut T,
    pub(crate) row_step: usize,
    pub(crate) col_step: usize,
    extents: Extents,
}

// SAFETY: a Source is a shared borrow without its lifetime; whoever dereferences it promises that
// the borrow lives.
unsafe impl<T: Sync> Send for Source<T> {}
// SAFETY: as above.
unsafe impl<T: Sync> Sync for Source<T> {}
// SAFETY: a Target is an exclusive borrow without its lifetime; whoever dereferences it promises
// that the borrow lives and that no other task accesses the same element.
unsafe impl<T: Send> Send for Target<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Target<T> {}

impl<T> Source<T> {
    /// Whether both start at the same element.
    pub(crate) fn same_as(self, other: Self) -> bool {
        self.ptr == other.ptr
    }

    /// The address that element (row, col) has or would have, for prefetching: it is not checked.
    #[inline(always)]
    pub(crate) fn near(self, row: usize, col: usize) -> *const T {
        let offset = row.wrapping_mul(self.row_step).wrapping_add(col.wrapping_mul(self.col_step));
        self.ptr.wrapping_add(offset)
    }

    /// The address of element (row, col).
    ///
    /// # Safety
    ///
    /// The element lies in the matrix, or one past a row's last, or one past the last row's first.
    #[inline(always)]
    #[cfg_attr(debug_assertions, track_caller)]
    pub(crate) unsafe fn at(self, row: usize, col: usize) -> *const T {
        self.extents.check(row, col, 0);
        // SAFETY: the view's constructor checked that the whole matrix lies in its slice.
        unsafe { self.ptr.add(row * self.row_step + col * self.col_step) }
    }

    /// Copies elements (row, col), (row, col + 1), ... to `to`: a piece of a view that is not stored by
    /// rows, for a kernel that works on rows.
    ///
    /// # Safety
    ///
    /// The elements lie in the matrix, and nobody writes them.
    #[inline(always)]
    pub(crate) unsafe fn gather_row(self, row: usize, col: usize, to: &mut [T])
    where
        T: Copy,
    {
        for (i, to) in to.iter_mut().enumerate() {
            // SAFETY: the caller's promise.
            *to = unsafe { *self.at(row, col + i) };
        }
    }

    /// The address of `n` elements of a row, from (row, col) on, of a matrix whose rows are contiguous.
    ///
    /// # Safety
    ///
    /// The elements lie in the matrix; the column step is 1.
    #[inline(always)]
    #[cfg_attr(debug_assertions, track_caller)]
    pub(crate) unsafe fn in_row(self, row: usize, col: usize, n: usize) -> *const T {
        debug_assert_eq!(self.col_step, 1, "rows are contiguous");
        self.extents.check(row, col, n);
        // SAFETY: as for `at`.
        unsafe { self.ptr.add(row * self.row_step + col) }
    }

    /// The same elements, in transposed order.
    pub(crate) fn t(self) -> Self {
        let Self { ptr, row_step, col_step, extents } = self;
        Self { ptr, row_step: col_step, col_step: row_step, extents: extents.t() }
    }

    /// Elements that follow each other without gaps as a matrix with rows of `cols` elements, as many
    /// of them as there are.
    pub(crate) fn in_rows_of(self, cols: usize) -> Self {
        Self { row_step: cols, col_step: 1, extents: self.extents.in_rows_of(cols), ..self }
    }
}

impl<T> Target<T> {
    /// The address of element (row, col).
    ///
    /// # Safety
    ///
    /// As for [`Source::at`].
    #[inline(always)]
    #[cfg_attr(debug_assertions, track_caller)]
    pub(crate) unsafe fn at(self, row: usize, col: usize) -> *mut T {
        self.extents.check(row, col, 0);
        // SAFETY: the view's constructor checked that the whole matrix lies in its slice.
        unsafe { self.ptr.add(row * self.row_step + col * self.col_step) }
    }

    /// The address of `n` elements of a row, from (row, col) on, of a matrix whose rows are
    /// contiguous.
    ///
    /// # Safety
    ///
    /// As for [`Source::in_row`].
    #[inline(always)]
    #[cfg_attr(debug_assertions, track_caller)]
    pub(crate) unsafe fn in_row(self, row: usize, col: usize, n: usize) -> *mut T {
        debug_assert_eq!(self.col_step, 1, "rows are contiguous");
        self.extents.check(row, col, n);
        // SAFETY: as for `at`.
        unsafe { self.ptr.add(row * self.row_step + col) }
    }

    /// Copies `from` to elements (row, col), (row, col + 1), ...: the way back of
    /// [`Source::gather_row`].
    ///
    /// # Safety
    ///
    /// The elements lie in the matrix, and no other task accesses them.
    #[inline(always)]
    pub(crate) unsafe fn scatter_row(self, row: usize, col: usize, from: &[T])
    where
        T: Copy,
    {
        for (i, from) in from.iter().enumerate() {
            // SAFETY: the caller's promise.
            unsafe { *self.at(row, col + i) = *from };
        }
    }

    /// The same elements, to read: for operations in place.
    pub(crate) fn source(self) -> Source<T> {
        let Self { ptr, row_step, col_step, extents } = self;
        Source { ptr, row_step, col_step, extents }
    }

    /// The same elements, in transposed order.
    pub(crate) fn t(self) -> Self {
        let Self { ptr, row_step, col_step, extents } = self;
        Self { ptr, row_step: col_step, col_step: row_step, extents: extents.t() }
    }

    /// Elements that follow each other without gaps as a matrix with rows of `cols` elements, as many
    /// of them as there are.
    pub(crate) fn in_rows_of(self, cols: usize) -> Self {
        Self { row_step: cols, col_step: 1, extents: self.extents.in_rows_of(cols), ..self }
    }
}
