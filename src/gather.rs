//! Some rows and columns of a matrix, by their indices: how they are read together, and what of a
//! row they are written back to.
//!
//! Rows are a matter of addresses. Columns are taken a vector at a time: the `LANES` listed columns
//! from position `q * LANES` on lie in a few windows, stretches of `LANES` stored columns that
//! begin at the first listed column not yet covered (the last one earlier, so that it ends with the
//! vector's last). A permutation moves the lanes of a window to those of the vector, and another
//! one back.
//!
//! ```text
//! stored    . a . . b c . d . e f . . . g h     a to h are listed, LANES = 8
//! window 1    a . . b c . d .                   -> a b c d
//! window 2                  . e f . . . g h     -> e f g h: begins one earlier
//! ```
//!
//! No window leaves the stretch from a vector's first to its last column, so what a window writes
//! back beside its listed columns belongs to no other vector.

use std::ops::Range;

use crate::Level;
use crate::isa::{Isa, Kernel, load, store};
use crate::threads::{Grid, Part, for_each};
use crate::view::{Source, Target};

/// Elements that are worth a task.
const TASK: usize = crate::threads::work::COPY;
/// Rows that are prefetched before they are gathered: no more than the ways of the level-1 cache, all
/// of whose lines have one place where rows are a power of two apart.
const ROWS_AHEAD: usize = 8;

/// The memory of a gather index: the windows of a list of columns, reused from call to call.
#[derive(Debug, Default)]
pub(crate) struct IndexBuffers {
    /// For each vector its first window, and the end of all.
    first: Vec<u32>,
    /// For each window its first stored column.
    start: Vec<u32>,
    /// For each window, lane by lane: the window's lane for each lane of the vector, then the other
    /// way round; -1 for none.
    lanes: Vec<i32>,
}

impl IndexBuffers {
    /// The index of these rows and columns, ascending lists, of a matrix (all where there is no
    /// list), for operations on `level`. It is valid as long as the lists, and until the next call.
    pub(crate) fn index(
        &mut self,
        level: Level,
        rows: Option<&[u32]>,
        cols: Option<&[u32]>,
    ) -> GatherIndex {
        if let Some(list) = cols {
            level.vectorize(Build { list, buffers: self });
        }
        let cols = cols.map(|list| Columns {
            list: list.as_ptr(),
            first: self.first.as_ptr(),
            start: self.start.as_ptr(),
            lanes: self.lanes.as_ptr(),
        });
        GatherIndex { rows: rows.map(<[u32]>::as_ptr), cols }
    }
}

/// Finds the windows of a list.
struct Build<'a> {
    list: &'a [u32],
    buffers: &'a mut IndexBuffers,
}

impl Kernel for Build<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, _: I) {
        let IndexBuffers { first, start, lanes } = self.buffers;
        first.clear();
        start.clear();
        lanes.clear();
        for vector in self.list.chunks_exact(I::LANES) {
            first.push(start.len() as u32);
            let last = vector[I::LANES - 1] + 1 - I::LANES as u32;
            let mut i = 0;
            while i < I::LANES {
                let column = vector[i].min(last);
                let at = lanes.len();
                lanes.resize(at + 2 * I::LANES, -1);
                let (take, put) = lanes[at..].split_at_mut(I::LANES);
                while i < I::LANES && ((vector[i] - column) as usize) < I::LANES {
                    let lane = (vector[i] - column) as usize;
                    (take[i], put[lane]) = (lane as i32, i as i32);
                    i += 1;
                }
                start.push(column);
            }
        }
        first.push(start.len() as u32);
    }
}

/// Which rows and columns of a matrix whose rows are contiguous.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GatherIndex {
    rows: Option<*const u32>,
    pub(crate) cols: Option<Columns>,
}

/// A list of columns, and its windows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Columns {
    list: *const u32,
    first: *const u32,
    start: *const u32,
    lanes: *const i32,
}

// SAFETY: the pointers are shared borrows of lists that nobody writes while an operation runs.
unsafe impl Send for GatherIndex {}
// SAFETY: as above.
unsafe impl Sync for GatherIndex {}

impl GatherIndex {
    /// All rows and columns.
    pub(crate) const ALL: Self = Self { rows: None, cols: None };

    /// Whether these are all rows and columns.
    pub(crate) fn is_all(&self) -> bool {
        self.rows.is_none() && self.cols.is_none()
    }

    /// The stored row at position `row`.
    ///
    /// # Safety
    ///
    /// The position lies in the list, which is alive.
    #[inline(always)]
    pub(crate) unsafe fn row(&self, row: usize) -> usize {
        match self.rows {
            // SAFETY: the caller's promise.
            Some(rows) => unsafe { *rows.add(row) as usize },
            None => row,
        }
    }

    /// The stored column at position `col`.
    ///
    /// # Safety
    ///
    /// As for [`GatherIndex::row`].
    #[inline(always)]
    pub(crate) unsafe fn column(&self, col: usize) -> usize {
        match self.cols {
            // SAFETY: the caller's promise.
            Some(columns) => unsafe { columns.column(col) },
            None => col,
        }
    }
}

impl Columns {
    /// The stored column at position `col`.
    ///
    /// # Safety
    ///
    /// The position lies in the list, which is alive.
    #[inline(always)]
    pub(crate) unsafe fn column(&self, col: usize) -> usize {
        // SAFETY: the caller's promise.
        unsafe { *self.list.add(col) as usize }
    }

    /// The windows of the vectors from position `col` on, which is a multiple of `LANES`, to `end`,
    /// which is another one.
    ///
    /// # Safety
    ///
    /// The positions lie in the list; it and its windows, made for this level, are alive.
    #[inline(always)]
    pub(crate) unsafe fn windows<I: Isa>(&self, _: I, col: usize, end: usize) -> Range<usize> {
        // SAFETY: the caller's promise: there is an entry for each whole vector, and one for the
        // end.
        unsafe {
            *self.first.add(col / I::LANES) as usize..*self.first.add(end / I::LANES) as usize
        }
    }

    /// The first stored column of a window.
    ///
    /// # Safety
    ///
    /// The window is one of [`Columns::windows`].
    #[inline(always)]
    pub(crate) unsafe fn start(&self, window: usize) -> usize {
        // SAFETY: the caller's promise.
        unsafe { *self.start.add(window) as usize }
    }

    /// For each lane of the vector its lane of the window; negative where it is in another window.
    ///
    /// # Safety
    ///
    /// As for [`Columns::start`].
    #[inline(always)]
    pub(crate) unsafe fn take<I: Isa>(&self, isa: I, window: usize) -> I::I32 {
        // SAFETY: the caller's promise: there are 2 * LANES numbers a window.
        unsafe { isa.as_bits(isa.load(self.lanes.add(2 * window * I::LANES).cast())) }
    }

    /// For each lane of the window its lane of the vector; negative where the column is not listed,
    /// or in another window.
    ///
    /// # Safety
    ///
    /// As for [`Columns::start`].
    #[inline(always)]
    pub(crate) unsafe fn put<I: Isa>(&self, isa: I, window: usize) -> I::I32 {
        // SAFETY: the caller's promise: there are 2 * LANES numbers a window.
        unsafe { isa.as_bits(isa.load(self.lanes.add((2 * window + 1) * I::LANES).cast())) }
    }

    /// The vector at position `col`, a multiple of `LANES`, of a stored row.
    ///
    /// # Safety
    ///
    /// As for [`Columns::windows`]; the columns of the list lie in the row.
    #[inline(always)]
    pub(crate) unsafe fn load<I: Isa>(&self, isa: I, row: *const f32, col: usize) -> I::F32 {
        let mut vector = isa.splat(0.0);
        // SAFETY: the caller's promise; windows lie between listed columns.
        unsafe {
            for window in self.windows(isa, col, col + I::LANES) {
                let take = self.take(isa, window);
                let lanes = isa.permute(isa.load(row.add(self.start(window))), take);
                vector = isa.select(isa.negative(take), vector, lanes);
            }
        }
        vector
    }
}

/// `out = source[index] · scale`, `rows` x `cols` elements; the rows of both are contiguous.
pub(crate) fn gather(
    level: Level,
    source: Source,
    index: GatherIndex,
    scale: f32,
    out: Target,
    (rows, cols): (usize, usize),
) {
    let strip = (TASK / cols.max(1)).max(1);
    let grid = Grid::with_parts(rows, cols, strip, cols);
    for_each(grid.len(), |i| {
        let part = grid.part(i);
        // SAFETY: the part lies in the lists and in the output, where it is this task's alone.
        level.vectorize(unsafe {
            let to = out.in_row(part.row, part.col, part.cols);
            Gather::new((source, index), part, scale, to, out.row_step)
        });
    });
}

/// Writes the listed elements of a part times `scale`, row after row.
pub(crate) struct Gather {
    source: Source,
    index: GatherIndex,
    scale: f32,
    /// Positions in the lists.
    part: Part,
    /// Where the part goes, and the distance from one of its rows to the next.
    out: *mut f32,
    step: usize,
}

impl Gather {
    /// # Safety
    ///
    /// - The part lies in the lists of the index, these in the source, and all are alive.
    /// - The index was made for the level that the kernel runs on.
    /// - `out` has room for the part, and no other task accesses it.
    pub(crate) unsafe fn new(
        (source, index): (Source, GatherIndex),
        part: Part,
        scale: f32,
        out: *mut f32,
        step: usize,
    ) -> Self {
        Self { source, index, scale, part, out, step }
    }
}

impl Kernel for Gather {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Self { source, index, part, out, step, .. } = self;
        if part.rows == 0 || part.cols == 0 {
            return;
        }
        // SAFETY: `Gather::new`.
        unsafe {
            let (first, last) = (index.column(part.col), index.column(part.col + part.cols - 1));
            for r in 0..part.rows {
                if r + ROWS_AHEAD < part.rows {
                    let next = index.row(part.row + r + ROWS_AHEAD);
                    for line in (first..last + 1).step_by(16) {
                        isa.prefetch(source.near(next, line));
                    }
                }
                let row = source.at(index.row(part.row + r), 0);
                let out = out.add(r * step);
                match index.cols {
                    Some(columns) => self.columns(isa, columns, row, out),
                    None => self.row(isa, row.add(part.col), out),
                }
            }
        }
    }
}

impl Gather {
    /// All columns of a row.
    ///
    /// # Safety
    ///
    /// `row` is valid for reads, `out` for writes of the part's columns.
    #[inline(always)]
    unsafe fn row<I: Isa>(&self, isa: I, row: *const f32, out: *mut f32) {
        let scale = isa.splat(self.scale);
        for c in (0..self.part.cols).step_by(I::LANES) {
            let n = I::LANES.min(self.part.cols - c);
            // SAFETY: the caller's promise.
            unsafe { store(isa, out.add(c), n, isa.mul(load(isa, row.add(c), n), scale)) };
        }
    }

    /// The listed columns of a row.
    ///
    /// # Safety
    ///
    /// The listed columns lie in the row at `row`; `out` is valid for writes of the part's columns.
    #[inline(always)]
    unsafe fn columns<I: Isa>(&self, isa: I, columns: Columns, row: *const f32, out: *mut f32) {
        let Part { col, cols, .. } = self.part;
        let scale = isa.splat(self.scale);
        let whole = if col.is_multiple_of(I::LANES) { cols / I::LANES * I::LANES } else { 0 };
        // SAFETY: the caller's promise.
        unsafe {
            for c in (0..whole).step_by(I::LANES) {
                let vector = columns.load(isa, row, col + c);
                isa.store(out.add(c), isa.mul(vector, scale));
            }
            for c in whole..cols {
                *out.add(c) = *row.add(columns.column(col + c)) * self.scale;
            }
        }
    }
}
