//! The loop over tiles behind every element-wise operation, compiled once for each instruction set.

use std::marker::PhantomData;

use super::ops::Op;
use super::row_loops::{Rows, RowsOp, Strided};
use crate::Level;
use crate::isa::{Isa, Kernel, caches, is_fallback};
use crate::mask::{Bits, TILE_COLS, TILE_WORDS, Tile};
use crate::threads::{Grid, Part, for_each};
use crate::view::{Source, Target};

/// Elements of a tile: bits for so many are made, then used. 32 KiB of floats a stream keep the
/// hardware prefetchers going while the next bits are made.
const TILE: usize = 8192;
/// Blocks of 128 columns that a walk over a mask does at once with the widest vectors. Tiles of many
/// short rows have a multiple of so many.
const BLOCKS: usize = 16;
/// Elements worth a task: some 10 microseconds, ten times what it costs to hand one over.
pub(super) const TASK: usize = crate::threads::work::COPY;
/// Rows that are gathered together where a view is not stored by rows: a cache line of the columns
/// that it is stored by.
const GATHER_ROWS: usize = 16;
/// Columns that are gathered together: two words of bits, and 4 KiB a tensor with the rows.
const GATHER_COLS: usize = 64;

/// The tensors of a pass; all have `rows` x `cols` elements, bias and sum `cols`. Sums go on from what
/// `sum` holds.
pub(super) struct Tensors<'a> {
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) main: Source,
    pub(super) second: Option<Source>,
    pub(super) bias: Option<&'a [f32]>,
    pub(super) out: Target,
    pub(super) sum: Option<&'a mut [f32]>,
    pub(super) bits: Bits,
}

/// An element-wise pass over tensors, ready for an operation.
#[derive(Clone, Copy)]
pub(super) struct Pass<'a> {
    rows: usize,
    cols: usize,
    main: Source,
    second: Option<Source>,
    bias: Option<&'a [f32]>,
    out: Target,
    sum: Option<*mut f32>,
    bits: Bits,
    borrow: PhantomData<&'a mut [f32]>,
}

// SAFETY: tasks write disjoint parts of `out`, of `sum` and of a mask that is stored.
unsafe impl Send for Pass<'_> {}
// SAFETY: as above.
unsafe impl Sync for Pass<'_> {}

impl<'a> Pass<'a> {
    /// # Safety
    ///
    /// Until the pass has run:
    ///
    /// - `main` and `second` are readable, `out` is writable, each with `rows` x `cols` elements, and
    ///   the bits cover as many;
    /// - nobody else accesses `out`, and neither input overlaps it, save that `main` may be `out`,
    ///   element for element;
    /// - nobody else accesses a mask that the bits are stored in.
    pub(super) unsafe fn new(tensors: Tensors<'a>) -> Self {
        let Tensors { rows, cols, main, second, bias, out, sum, bits } = tensors;
        debug_assert!(bias.is_none_or(|bias| bias.len() == cols), "a bias a column");
        debug_assert!(sum.as_ref().is_none_or(|sum| sum.len() == cols), "a sum a column");
        let sum = sum.map(<[f32]>::as_mut_ptr);
        Self { rows, cols, main, second, bias, out, sum, bits, borrow: PhantomData }
    }

    /// Whether there is a second input.
    pub(super) fn has_second(&self) -> bool {
        self.second.is_some()
    }

    /// Whether each column has a value.
    pub(super) fn has_bias(&self) -> bool {
        self.bias.is_some()
    }

    /// Whether the columns of the output are summed.
    pub(super) fn has_sum(&self) -> bool {
        self.sum.is_some()
    }

    /// The same for an operation of one input.
    pub(super) fn without_second(self) -> Self {
        Self { second: None, ..self }
    }

    /// Runs the operation, which has those inputs and sums that the pass has.
    pub(super) fn run<O: Op>(self, level: Level, op: &O) {
        debug_assert!(!op.second() || self.has_second(), "the operation's second input");
        debug_assert!(!op.bias() || self.has_bias(), "the operation's bias");
        debug_assert_eq!(op.sum(), self.has_sum(), "sums where they are wanted");
        debug_assert!(O::STREAMS || !self.streams(), "an operation that streams");
        level.vectorize(Compiled { pass: &self, op });
    }

    /// All tasks. Not inlined, so that there is one copy for each instruction set.
    #[inline(never)]
    fn spread<I: Isa>(&self, isa: I, op: &dyn RowsOp<I>) {
        // A column's sum is one chain over all rows, so no task may have less than a column.
        let grid = match self.sum {
            Some(_) => {
                // Long pieces of rows keep the prefetchers going, so there is one strip a thread.
                let threads = crate::threads::count().min(self.rows * self.cols / TASK);
                let strip = self.cols.div_ceil(threads.max(1)).next_multiple_of(128);
                Grid::with_parts(self.rows, self.cols, self.rows, strip)
            }
            // A part of long rows is whole rows if tiles are in the order of memory.
            None => {
                let rows = if self.in_order() && self.cols > TILE { 1 } else { BLOCKS };
                Grid::new(self.rows, self.cols, TASK, rows, TILE_COLS)
            }
        };
        for_each(grid.len(), |i| {
            // SAFETY: the parts of a grid are disjoint.
            isa.vectorize(unsafe { Task::new(self, grid.part(i), isa, op) });
        });
    }

    /// Whether every tensor is stored by rows.
    fn is_by_rows(&self) -> bool {
        self.main.col_step == 1
            && self.out.col_step == 1
            && self.second.is_none_or(|second| second.col_step == 1)
    }

    /// Whether the tensors together are larger than the level-3 cache. The start of the output would
    /// then be gone from it before the end is written, and whoever reads it next would not find it:
    /// it is better stored past the caches, which saves reading each line before it is written.
    fn overflows_caches(&self) -> bool {
        let bytes_an_element = 4 * (2 + usize::from(self.has_second()));
        self.rows * self.cols > caches().level_3 / bytes_an_element
    }

    /// Whether the output is stored past the caches.
    pub(super) fn streams(&self) -> bool {
        let in_place = self.out.source().same_as(self.main);
        self.is_by_rows() && !in_place && self.overflows_caches()
    }

    /// Whether tiles follow each other as in memory, which bounds the pass then. Otherwise they go down
    /// strips of columns, whose bias and sums stay in the level-1 cache from row to row.
    fn in_order(&self) -> bool {
        self.is_by_rows() && !self.has_sum() && self.overflows_caches()
    }

    /// Rows and columns of the tiles of a part.
    fn tiles(&self, cols: usize) -> (usize, usize) {
        let widest = match (self.is_by_rows(), self.in_order()) {
            (true, true) => TILE,
            (true, false) => TILE_COLS,
            (false, _) => TILE / GATHER_ROWS,
        };
        let tile_cols = cols.min(widest);
        let most_rows = TILE_WORDS / tile_cols.div_ceil(32);
        let tile_rows = (TILE / tile_cols).clamp(1, most_rows);
        if tile_rows >= BLOCKS {
            return (tile_rows / BLOCKS * BLOCKS, tile_cols);
        }
        // Walks over the blocks of a tile do `BLOCKS` at once: so many rows that few are wasted.
        let across = tile_cols.div_ceil(128);
        let walked = |rows: usize| (rows * across).next_multiple_of(BLOCKS);
        let mut best = tile_rows;
        for rows in tile_rows + 1..=(2 * tile_rows + 1).min(most_rows) {
            if walked(rows) * best < walked(best) * rows {
                best = rows;
            }
        }
        (best, tile_cols)
    }
}

/// An operation that finds its instruction set.
struct Compiled<'a, O> {
    pass: &'a Pass<'a>,
    op: &'a O,
}

impl<O: Op> Kernel for Compiled<'_, O> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        if const { is_fallback::<I>() } {
            self.pass.spread(isa, &self.op.general());
        } else {
            self.pass.spread(isa, self.op);
        }
    }
}

/// One task's share of a pass, with an operation compiled for `J`.
struct Task<'a, J> {
    pass: &'a Pass<'a>,
    part: Part,
    isa: J,
    op: &'a dyn RowsOp<J>,
}

impl<'a, J: Isa> Task<'a, J> {
    /// # Safety
    ///
    /// The part lies in the pass's tensors and is this task's alone; its first column is a multiple of
    /// 128.
    unsafe fn new(pass: &'a Pass<'a>, part: Part, isa: J, op: &'a dyn RowsOp<J>) -> Self {
        let Part { row, rows, col, cols } = part;
        debug_assert!(row + rows <= pass.rows && col + cols <= pass.cols, "a part of the pass");
        debug_assert_eq!(col % 128, 0, "a part starts at a block of the mask");
        Self { pass, part, isa, op }
    }
}

impl<J: Isa> Kernel for Task<'_, J> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Part { row, rows, col, cols } = self.part;
        let pass = self.pass;
        let (tile_rows, tile_cols) = pass.tiles(cols);
        let (by_rows, streams) = (pass.is_by_rows(), pass.streams());
        let strip = if pass.in_order() { cols } else { tile_cols };
        let mut scratch = [0u32; TILE_WORDS];
        for first in (col..col + cols).step_by(strip) {
            let end = (first + strip).min(col + cols);
            for r in (row..row + rows).step_by(tile_rows) {
                let rows = tile_rows.min(row + rows - r);
                for c in (first..end).step_by(tile_cols) {
                    let tile = Part { row: r, rows, col: c, cols: tile_cols.min(end - c) };
                    // SAFETY: the tile lies in the pass's matrices and is this task's alone; its first
                    // column is a multiple of 128 (as parts and full tiles are), and it has at most
                    // TILE_WORDS words.
                    unsafe {
                        let bits = pass.bits.tile(isa, tile, &mut scratch);
                        if by_rows {
                            let rows = pass.rows_of(tile, bits, streams);
                            self.op.apply(self.isa, &rows.merged(self.op.differs_by_row()));
                        } else {
                            self.gathered(tile, bits);
                        }
                    }
                }
            }
        }
        isa.fence();
    }
}

impl Pass<'_> {
    /// The rows of a tile.
    ///
    /// # Safety
    ///
    /// The tile lies in the pass's tensors, and these are its bits.
    unsafe fn rows_of(&self, tile: Part, bits: Tile, streams: bool) -> Rows {
        let Part { row, rows, col, cols } = tile;
        // SAFETY: the caller's promise.
        unsafe {
            let second = self.second.map_or(std::ptr::null(), |second| second.at(row, col));
            Rows {
                row,
                rows,
                cols,
                main: Strided { start: self.main.at(row, col), step: self.main.row_step },
                second: Strided {
                    start: second,
                    step: self.second.map_or(0, |second| second.row_step),
                },
                out: Strided { start: self.out.at(row, col), step: self.out.row_step },
                bias: self.bias.map_or(std::ptr::null(), |bias| bias[col..].as_ptr()),
                sum: self.sum.map_or(std::ptr::null_mut(), |sum| sum.add(col)),
                words: Strided { start: bits.words, step: bits.stride },
                streams,
            }
        }
    }
}

/// A block of rows from a view that is not stored by rows.
type Block = [f32; GATHER_ROWS * GATHER_COLS];

impl<J: Isa> Task<'_, J> {
    /// A tile, in blocks: what is not stored by rows goes through buffers.
    ///
    /// # Safety
    ///
    /// The tile lies in the pass's tensors and is this task's alone, and these are its bits.
    #[inline(never)]
    unsafe fn gathered(&self, tile: Part, bits: Tile) {
        let (pass, isa) = (self.pass, self.isa);
        let mut blocks: [Block; 3] = [[0.0; GATHER_ROWS * GATHER_COLS]; 3];
        let [main, second, out] = &mut blocks;
        for i in (0..tile.rows).step_by(GATHER_ROWS) {
            for j in (0..tile.cols).step_by(GATHER_COLS) {
                let part = Part {
                    row: tile.row + i,
                    rows: GATHER_ROWS.min(tile.rows - i),
                    col: tile.col + j,
                    cols: GATHER_COLS.min(tile.cols - j),
                };
                // SAFETY: the part lies in the tile; GATHER_COLS is a multiple of 32.
                unsafe {
                    let words = bits.words.add(i * bits.stride + j / 32);
                    let mut rows = pass.rows_of(part, Tile { words, ..bits }, false);
                    if pass.main.col_step != 1 {
                        rows.main = gather(pass.main, part, main);
                    }
                    if let Some(source) = pass.second.filter(|second| second.col_step != 1) {
                        rows.second = gather(source, part, second);
                    }
                    if pass.out.col_step != 1 {
                        rows.out = Strided { start: out.as_mut_ptr(), step: GATHER_COLS };
                    }
                    self.op.apply(isa, &rows);
                    if pass.out.col_step != 1 {
                        scatter(out, part, pass.out);
                    }
                }
            }
        }
    }
}

/// The part of a view, row by row.
///
/// # Safety
///
/// The part lies in the view, and in a block.
unsafe fn gather(source: Source, part: Part, block: &mut Block) -> Strided<*const f32> {
    for j in 0..part.cols {
        for i in 0..part.rows {
            // SAFETY: the caller's promise.
            block[i * GATHER_COLS + j] = unsafe { *source.at(part.row + i, part.col + j) };
        }
    }
    Strided { start: block.as_ptr(), step: GATHER_COLS }
}

/// The rows of a block, back to the part of a view.
///
/// # Safety
///
/// The part lies in the view, and in a block; it is the caller's alone.
unsafe fn scatter(block: &Block, part: Part, target: Target) {
    for j in 0..part.cols {
        for i in 0..part.rows {
            // SAFETY: the caller's promise.
            unsafe { *target.at(part.row + i, part.col + j) = block[i * GATHER_COLS + j] };
        }
    }
}
