//! Matrices as pointers, for kernels: what a view becomes inside a task.

/// Rows and columns of a matrix behind a pointer, known where debug assertions are on: each address
/// is checked there, so that the ordinary tests are a test of bounds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Extents {
    #[cfg(debug_assertions)]
    rows: usize,
    #[cfg(debug_assertions)]
    cols: usize,
}

#[cfg(debug_assertions)]
impl Extents {
    pub(super) fn new(rows: usize, cols: usize) -> Self {
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
    pub(super) fn new(_: usize, _: usize) -> Self {
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

/// The elements of a [`MatRef`](super::MatRef), for kernels: element (r, c) is at `r * row_step + c * col_step`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Source<T = f32> {
    pub(super) ptr: *const T,
    pub(crate) row_step: usize,
    pub(crate) col_step: usize,
    pub(super) extents: Extents,
}

/// The elements of a [`MatMut`](super::MatMut), for kernels whose tasks write disjoint parts of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target<T = f32> {
    pub(super) ptr: *mut T,
    pub(crate) row_step: usize,
    pub(crate) col_step: usize,
    pub(super) extents: Extents,
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

    /// `n` elements of a row, from (row, col) on, and `fill` after them.
    ///
    /// # Safety
    ///
    /// As for [`Source::gather_row`]; `n` is at most `N`.
    #[inline(always)]
    pub(crate) unsafe fn chunk<const N: usize>(
        self,
        row: usize,
        col: usize,
        n: usize,
        fill: T,
    ) -> [T; N]
    where
        T: Copy,
    {
        // SAFETY: the caller's promise.
        unsafe {
            if n == N && self.col_step == 1 {
                return self.in_row(row, col, N).cast::<[T; N]>().read();
            }
            let mut chunk = [fill; N];
            self.gather_row(row, col, &mut chunk[..n]);
            chunk
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

    /// The address of `n` elements of a row, from (row, col) on: one, or contiguous ones.
    ///
    /// # Safety
    ///
    /// The elements lie in the matrix; the column step is 1 where there are several.
    #[inline(always)]
    #[cfg_attr(debug_assertions, track_caller)]
    pub(crate) unsafe fn run(self, row: usize, col: usize, n: usize) -> *mut T {
        debug_assert!(n <= 1 || self.col_step == 1, "rows are contiguous");
        self.extents.check(row, col, n);
        // SAFETY: as for `at`.
        unsafe { self.ptr.add(row * self.row_step + col * self.col_step) }
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

    /// Writes the first `n` elements of a chunk to a row, from (row, col) on: the way back of
    /// [`Source::chunk`].
    ///
    /// # Safety
    ///
    /// As for [`Target::scatter_row`]; `n` is at most `N`.
    #[inline(always)]
    pub(crate) unsafe fn put_chunk<const N: usize>(
        self,
        row: usize,
        col: usize,
        n: usize,
        chunk: [T; N],
    ) where
        T: Copy,
    {
        // SAFETY: the caller's promise.
        unsafe {
            if n == N && self.col_step == 1 {
                self.in_row(row, col, N).cast::<[T; N]>().write(chunk);
            } else {
                self.scatter_row(row, col, &chunk[..n]);
            }
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
