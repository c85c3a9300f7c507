//! The rows of a sweep: how they are handed to tasks, and where they are in memory.

use crate::Level;
use crate::buffers::{Lease, Slot, reserve};
use crate::error::Result;
use crate::isa::{Isa, Kernel};
use crate::threads::{Grid, Part, try_for_each};
use crate::view::{Source, Target};

/// Elements of a tile: 16 KiB of floats a stream.
const TILE: usize = 4096;
/// Most rows of a tile: with a word each they fill a sixteenth of the buffer for bits.
pub(super) const ROWS: usize = 64;
/// Elements worth a task: some 20 microseconds.
const TASK: usize = crate::threads::work::FUNCTION;

/// The scores of all rows, and which of them a row sees.
#[derive(Clone, Copy)]
pub(super) struct Shape {
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) causal: Option<usize>,
}

/// What is done to a range of rows.
pub(super) trait Sweep: Copy + Send + Sync {
    /// # Safety
    ///
    /// The rows lie in the matrices and are this task's alone.
    unsafe fn rows<I: Isa>(self, isa: I, first: usize, count: usize) -> Result<()>;
}

struct Task<S> {
    sweep: S,
    part: Part,
}

impl<S: Sweep> Kernel for Task<S> {
    type Output = Result<()>;

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> Result<()> {
        // SAFETY: parts are disjoint, and lie in the matrices by the promise of `Shape::run`.
        unsafe { self.sweep.rows(isa, self.part.row, self.part.rows) }
    }
}

impl Shape {
    /// Runs the sweep over all rows.
    ///
    /// # Safety
    ///
    /// The sweep's matrices have this shape, and nobody else accesses what it writes.
    pub(super) unsafe fn run<S: Sweep>(self, level: Level, sweep: S) -> Result<()> {
        let tile = self.tile_rows();
        let rows = (TASK / self.cols.max(1)).max(1).next_multiple_of(tile);
        let grid = Grid::with_parts(self.rows, self.cols, rows, self.cols);
        try_for_each(grid.len(), |i| level.vectorize(Task { sweep, part: grid.part(i) }))
    }

    pub(super) fn tile_rows(self) -> usize {
        (TILE / self.cols.max(1)).clamp(1, ROWS)
    }

    /// Columns that a row sees.
    #[inline(always)]
    pub(super) fn seen(self, row: usize) -> usize {
        self.causal
            .map_or(self.cols, |offset| self.cols.min(row.saturating_add(offset).saturating_add(1)))
    }
}

/// A row in each matrix: two to read and two to write. Those that a sweep has not got are null.
#[derive(Clone, Copy)]
pub(super) struct Line {
    pub(super) inputs: [*const f32; 2],
    pub(super) outputs: [*mut f32; 2],
}

/// Where a sweep finds its rows: where they are, or in buffers where a view is not stored by rows.
pub(super) struct Lines {
    inputs: [Option<Source>; 2],
    outputs: [Option<Target>; 2],
    cols: usize,
    /// Empty where all views are stored by rows.
    buffer: Lease<Vec<f32>>,
}

impl Lines {
    pub(super) fn new(
        inputs: [Option<Source>; 2],
        outputs: [Option<Target>; 2],
        cols: usize,
    ) -> Result<Self> {
        let by_rows = inputs.iter().flatten().all(|s| s.col_step == 1)
            && outputs.iter().flatten().all(|t| t.col_step == 1);
        let mut buffer: Lease<Vec<f32>> = Slot::Rows.take();
        buffer.clear();
        if !by_rows {
            reserve(&mut buffer, 4 * cols)?;
            buffer.resize(4 * cols, 0.0);
        }
        Ok(Self { inputs, outputs, cols, buffer })
    }

    /// Rows that may be worked on at once.
    pub(super) fn at_once(&self, rows: usize) -> usize {
        if self.buffer.is_empty() { rows } else { 1 }
    }

    /// # Safety
    ///
    /// The row lies in the matrices.
    #[inline(always)]
    pub(super) unsafe fn line(&mut self, row: usize) -> Line {
        let mut line = Line { inputs: [std::ptr::null(); 2], outputs: [std::ptr::null_mut(); 2] };
        for (i, part) in self.buffer.chunks_exact_mut(self.cols.max(1)).enumerate() {
            match i {
                0 | 1 => line.inputs[i] = part.as_ptr(),
                _ => line.outputs[i - 2] = part.as_mut_ptr(),
            }
        }
        for i in 0..2 {
            // SAFETY: the caller's promise.
            unsafe {
                if let (Some(source), true) = (self.inputs[i], self.buffer.is_empty()) {
                    line.inputs[i] = source.at(row, 0);
                }
                match self.outputs[i] {
                    Some(target) if self.buffer.is_empty() => line.outputs[i] = target.at(row, 0),
                    Some(_) => {}
                    None => line.outputs[i] = std::ptr::null_mut(),
                }
            }
        }
        line
    }

    /// Fills the buffers of the inputs, if there are buffers.
    ///
    /// # Safety
    ///
    /// As for [`Lines::line`].
    #[inline(always)]
    pub(super) unsafe fn gather(&mut self, row: usize) {
        for (source, buffer) in
            self.inputs.iter().zip(self.buffer.chunks_exact_mut(self.cols.max(1)))
        {
            if let Some(source) = source {
                // SAFETY: the caller's promise.
                unsafe { source.gather_row(row, 0, buffer) };
            }
        }
    }

    /// Writes what the buffers of the outputs hold, if there are buffers.
    ///
    /// # Safety
    ///
    /// As for [`Lines::line`], and the row is this task's alone.
    #[inline(always)]
    pub(super) unsafe fn scatter(&self, row: usize) {
        let buffers = self.buffer.chunks_exact(self.cols.max(1)).skip(2);
        for (target, buffer) in self.outputs.iter().zip(buffers) {
            if let Some(target) = target {
                // SAFETY: the caller's promise.
                unsafe { target.scatter_row(row, 0, buffer) };
            }
        }
    }
}

/// Zeros from `from` on.
///
/// # Safety
///
/// `out` is null, or valid for writes of `cols` floats.
#[inline(always)]
pub(super) unsafe fn hide(out: *mut f32, from: usize, cols: usize) {
    if !out.is_null() && from < cols {
        // SAFETY: the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(out.add(from), cols - from) }.fill(0.0);
    }
}
