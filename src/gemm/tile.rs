//! One tile of C: sums start from the bias or a partial result, grow in registers, and wait in
//! memory for the next block of k or go to the epilogue.
//!
//! The loop nest calls each kind of tile through one pointer, so that it, and what it packs, is
//! compiled once for each instruction set and a tile once for each use:
//!
//! | kernel | rows | sums end | for |
//! |---|---|---|---|
//! | [`MemoryTile`] | any | in memory | edges, all blocks of k but the last, stores, long activations |
//! | [`RegisterTile`] | MR, MR - 1 | in the epilogue | short activations |
//! | `PipelinedTile` | MR, MR - 1 | in a buffer, until the next tile | updates of weights |

use super::ProductArgs;
use super::blocking::Depth;
use super::epilogue::{Epilogue, Pipeline, Place};
use super::microkernel::{NoHook, Panels, accumulate};
use crate::isa::{Isa, Kernel, TileKernel};
use crate::mask::Tile;
use crate::threads::Part;

/// The sums of a tile of at most 12 x 2 vectors of 16, aligned for them.
#[repr(align(64))]
pub(super) struct Sums([f32; 12 * 2 * 16]);

impl Sums {
    pub(super) const ZERO: Self = Self([0.0; 12 * 2 * 16]);

    pub(super) fn as_mut_ptr(&mut self) -> *mut f32 {
        self.0.as_mut_ptr()
    }
}

/// A part of C, and its mask bits, from bit `shift` of each row's first word on.
#[derive(Clone, Copy)]
pub(super) struct Area {
    pub(super) part: Part,
    pub(super) bits: Tile,
    pub(super) shift: usize,
}

/// One tile's work: where it is, and what it reads.
#[derive(Clone, Copy)]
pub(super) struct Task {
    pub(super) depth: Depth,
    pub(super) area: Area,
    pub(super) panels: Panels,
}

/// The end of tiles whose sums are in memory.
pub(super) trait MemoryEnd<I: Isa> {
    /// Prefetches what [`MemoryEnd::finish`] will read of a part whose sums are about to be made.
    ///
    /// # Safety
    ///
    /// As for `finish`; the part is not empty.
    unsafe fn prefetch(&self, isa: I, part: Part);

    /// Turns sums into outputs.
    ///
    /// # Safety
    ///
    /// The area lies in every matrix of the epilogue, no other task accesses it, and its bits are
    /// its own. `sums` is valid for reads of its rows, `step` floats apart.
    unsafe fn finish(&self, isa: I, area: &Area, sums: *const f32, step: usize);
}

/// Whole tiles of `MR` or `MR - 1` rows in the last block of k, whose sums go to the epilogue from
/// registers.
pub(super) trait RegisterEnd<I: Isa> {
    /// Computes a tile. Its epilogue may be left for later in the pipeline.
    ///
    /// # Safety
    ///
    /// The tile lies in C and in every matrix of the epilogue, and no other task accesses it; its
    /// panels are valid, and so are its bits until it is finished.
    unsafe fn tile(&self, isa: I, product: &ProductArgs, task: &Task, pipeline: &mut Pipeline);

    /// Finishes what is left in the pipeline: nothing, unless the epilogue is software-pipelined.
    ///
    /// # Safety
    ///
    /// What [`RegisterEnd::tile`] was promised still holds.
    unsafe fn drain(&self, _: I, _: &mut Pipeline) {}
}

/// The ends of a product's tiles on one instruction set.
pub(super) struct Ends<'a, I> {
    /// For sums in memory; none where they stay there.
    pub(super) memory: Option<&'a dyn MemoryEnd<I>>,
    /// For sums in registers, where it pays.
    pub(super) registers: Option<&'a dyn RegisterEnd<I>>,
}

impl<I: Isa> Ends<'_, I> {
    /// Whether there are register tiles for the epilogues of this instruction set. With vectors of
    /// 128 bits the sums of a tile are few, and so is what it saves to keep them in registers: all
    /// epilogues share the tiles in memory there.
    pub(super) const HAS_REGISTER_TILES: bool = I::LANES > 4;

    /// Computes a tile; `buffer` has room for any.
    ///
    /// # Safety
    ///
    /// As for [`RegisterEnd::tile`]; the buffer is used for nothing else.
    #[inline]
    pub(super) unsafe fn tile(
        &self,
        isa: I,
        product: &ProductArgs,
        task: &Task,
        pipeline: &mut Pipeline,
        buffer: *mut f32,
    ) {
        let Task { depth, area: Area { part: Part { rows, cols, .. }, .. }, .. } = *task;
        // Panels of A have MR rows or one less, unless there are few rows in all.
        let whole = cols == I::NV * I::LANES && (rows == I::MR || rows + 1 == I::MR);
        // SAFETY: the caller's promise.
        unsafe {
            match self.registers {
                Some(end) if whole && depth.ends => end.tile(isa, product, task, pipeline),
                _ => self.through_memory(isa, product, task, buffer),
            }
        }
    }

    /// A tile of any size: the one place for what does not fill a tile. Sums that wait for the next
    /// block of k, or are stored as they are, go to C; others to the buffer.
    ///
    /// # Safety
    ///
    /// As for `tile`.
    unsafe fn through_memory(&self, isa: I, product: &ProductArgs, task: &Task, buffer: *mut f32) {
        let Task { depth, area, panels } = task;
        let Part { row, rows, col, cols } = area.part;
        let (nr, step) = (I::NV * I::LANES, product.partial.row_step);
        let end = if depth.ends { self.memory } else { None };
        // SAFETY: the caller's promise; lanes beyond the tile's columns stay in the buffer.
        unsafe {
            let c = product.partial.in_row(row, col, cols);
            if cols == nr && rows + 1 >= I::MR {
                prefetch_rows(isa, c.cast_const().wrapping_add(rows * step), step, rows, cols);
            }
            let (mut from, mut from_step) = product.start(task);
            if cols < nr && !from.is_null() {
                copy_rows(from, from_step, buffer, nr, rows, cols);
                (from, from_step) = (buffer, nr);
            }
            let (to, to_step) = if end.is_none() && cols == nr { (c, step) } else { (buffer, nr) };
            if let (Some(end), false) = (end, product.end.overwrites()) {
                end.prefetch(isa, area.part);
            }
            let vectors = cols.div_ceil(I::LANES);
            MemoryTile::new(panels, (rows, vectors), (from, from_step), (to, to_step)).run(isa);
            match end {
                Some(end) => end.finish(isa, area, buffer, nr),
                None if to == buffer => copy_rows(buffer, nr, c, step, rows, cols),
                None => (),
            }
        }
    }
}

impl ProductArgs {
    /// Where a tile's sums start, and the floats from row to row: null for zeros.
    ///
    /// # Safety
    ///
    /// The tile lies in C.
    #[inline(always)]
    pub(super) unsafe fn start(&self, task: &Task) -> (*const f32, usize) {
        let Part { row, col, cols, .. } = task.area.part;
        // SAFETY: the caller's promise; the bias has a value for each column.
        unsafe {
            match self.bias {
                _ if !task.depth.starts => {
                    let c = self.partial.in_row(row, col, cols);
                    (c.cast_const(), self.partial.row_step)
                }
                Some(bias) => (bias.add(col), 0),
                None => (std::ptr::null(), 0),
            }
        }
    }
}

/// Prefetches the rows of a tile of C, which are too far apart for the hardware to guess.
#[inline(always)]
fn prefetch_rows<I: Isa>(isa: I, first: *const f32, step: usize, rows: usize, cols: usize) {
    let mut row = first;
    for _ in 0..rows {
        let mut line = 0;
        while line < cols {
            isa.prefetch(row.wrapping_add(line));
            line += 16;
        }
        isa.prefetch(row.wrapping_add(cols - 1));
        row = row.wrapping_add(step);
    }
}

/// Copies a few rows of less than a tile's columns, for which a call of memcpy each is too much.
///
/// # Safety
///
/// `from` is valid for reads and `to` for writes of `rows` rows of `cols` floats.
#[inline(never)]
unsafe fn copy_rows(
    from: *const f32,
    from_step: usize,
    to: *mut f32,
    to_step: usize,
    rows: usize,
    cols: usize,
) {
    for r in 0..rows {
        for c in 0..cols {
            // SAFETY: the caller's promise.
            unsafe { *to.add(r * to_step + c) = *from.add(r * from_step + c) }
        }
    }
}

/// The sums of `R` rows of `V` vectors, `step` floats apart; zeros where `from` is null.
///
/// # Safety
///
/// `from` is null, or valid for reads of the rows.
#[inline(always)]
pub(super) unsafe fn load_sums<I: Isa, const R: usize, const V: usize>(
    isa: I,
    from: *const f32,
    step: usize,
) -> [[I::F32; V]; R] {
    let mut acc = [[isa.splat(0.0); V]; R];
    if !from.is_null() {
        for (r, sums) in acc.iter_mut().enumerate() {
            for (v, sum) in sums.iter_mut().enumerate() {
                // SAFETY: the caller's promise.
                *sum = unsafe { isa.load(from.add(r * step + v * I::LANES)) };
            }
        }
    }
    acc
}

/// Stores the sums of `R` rows of `V` vectors, `step` floats apart.
///
/// # Safety
///
/// `to` is valid for writes of the rows.
#[inline(always)]
pub(super) unsafe fn store_sums<I: Isa, const R: usize, const V: usize>(
    isa: I,
    acc: [[I::F32; V]; R],
    to: *mut f32,
    step: usize,
) {
    for (r, sums) in acc.into_iter().enumerate() {
        for (v, sum) in sums.into_iter().enumerate() {
            // SAFETY: the caller's promise.
            unsafe { isa.store(to.add(r * step + v * I::LANES), sum) };
        }
    }
}

/// A whole tile of `R` rows and `NV` vectors in the last block of k.
pub(super) struct RegisterTile<'a, E, const R: usize, const NV: usize> {
    epilogue: &'a E,
    product: &'a ProductArgs,
    task: &'a Task,
}

impl<'a, E: Epilogue, const R: usize, const NV: usize> RegisterTile<'a, E, R, NV> {
    /// # Safety
    ///
    /// As for [`RegisterEnd::tile`]; the tile has `R` rows.
    pub(super) unsafe fn new(epilogue: &'a E, product: &'a ProductArgs, task: &'a Task) -> Self {
        Self { epilogue, product, task }
    }
}

impl<E: Epilogue, const R: usize, const NV: usize> Kernel for RegisterTile<'_, E, R, NV> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Self { epilogue, product, task } = self;
        let Area { part: Part { row, col, cols, .. }, bits, shift } = task.area;
        let (nr, step) = (NV * I::LANES, product.partial.row_step);
        // SAFETY: `RegisterTile::new`.
        unsafe {
            let c = product.partial.in_row(row, col, cols).cast_const();
            prefetch_rows(isa, c.wrapping_add(R * step), step, R, nr);
            epilogue.prefetch(isa, task.area.part);
            let (from, from_step) = product.start(task);
            let mut acc = load_sums::<I, R, NV>(isa, from, from_step);
            accumulate(isa, &task.panels, nr, &mut acc, &mut NoHook);
            for (r, sums) in acc.into_iter().enumerate() {
                let word = if E::MASKED { *bits.words.add(r * bits.stride) >> shift } else { 0 };
                let place = Place { row: row + r, col, cols: nr };
                epilogue.finish(isa, place, sums, isa.word(word));
            }
        }
    }
}

/// A tile of any number of rows and vectors whose sums start and end in memory: one set of
/// instances for all epilogues.
pub(super) struct MemoryTile<'a> {
    panels: &'a Panels,
    rows: usize,
    vectors: usize,
    /// Where the sums start, and the floats between rows; zeros where it is null.
    from: *const f32,
    from_step: usize,
    /// Where they end.
    to: *mut f32,
    to_step: usize,
}

impl<'a> MemoryTile<'a> {
    /// # Safety
    ///
    /// - There are 1 to `MR` rows, and 1 or `NV` vectors.
    /// - The panels have this shape, as [`accumulate`] wants them.
    /// - `from` is null or valid for reads, and `to` for writes, of the rows.
    unsafe fn new(
        panels: &'a Panels,
        (rows, vectors): (usize, usize),
        (from, from_step): (*const f32, usize),
        (to, to_step): (*mut f32, usize),
    ) -> Self {
        Self { panels, rows, vectors, from, from_step, to, to_step }
    }

    /// Computes the tile.
    fn run<I: Isa>(&self, isa: I) {
        isa.tile(self);
    }
}

impl TileKernel for &MemoryTile<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa, const MR: usize, const MR1: usize, const NV: usize>(self, isa: I) {
        // The one list of row counts: up to those of the highest tile.
        macro_rules! rows {
            ($($rows:literal)*) => {
                match (self.rows, self.vectors) {
                    $(($rows, 1) if $rows <= MR && NV > 1 => {
                        isa.vectorize(MemoryRows::<$rows, 1>(self));
                    }
                    ($rows, _) if $rows <= MR => isa.vectorize(MemoryRows::<$rows, NV>(self)),)*
                    (rows, _) => unreachable!("a tile has 1 to {MR} rows, not {rows}"),
                }
            };
        }
        rows!(1 2 3 4 5 6 7 8 9 10 11 12);
    }
}

/// A [`MemoryTile`] of `R` rows and `V` vectors.
struct MemoryRows<'a, const R: usize, const V: usize>(&'a MemoryTile<'a>);

impl<const R: usize, const V: usize> Kernel for MemoryRows<'_, R, V> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let MemoryTile { panels, from, from_step, to, to_step, .. } = *self.0;
        // SAFETY: `MemoryTile::new`.
        unsafe {
            let mut acc = load_sums::<I, R, V>(isa, from, from_step);
            accumulate(isa, panels, I::NV * I::LANES, &mut acc, &mut NoHook);
            store_sums(isa, acc, to, to_step);
        }
    }
}
