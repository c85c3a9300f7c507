//! One tile of C: sums start from the bias or a partial result, grow in registers, and wait in
//! memory for the next block of k or go to the epilogue.
//!
//! The loop nest calls each kind of tile through a pointer, so that it, and what it packs, is
//! compiled once for each instruction set and a tile once for each use:
//!
//! | kernel | rows | sums end | for |
//! |---|---|---|---|
//! | `MemoryTile` | any | in memory | edges, all blocks of k but the last, stores, long activations |
//! | `RegisterTiles` | MR, MR - 1 | in the epilogue | short activations |
//! | `PipelinedTiles` | MR, MR - 1 | in a buffer, until the next tile | updates of weights |

use super::super::ProductArgs;
use super::super::blocking::{Depth, panels};
use super::super::microkernel::Panels;
use super::super::pack::PackAhead;
use super::super::tile::{Area, MemoryTile, Task, prefetch_rows};
use super::{MemoryEnd, RegisterEnd};
use crate::isa::Isa;
use crate::mask::Tile;
use crate::threads::Part;

/// The ends of a product's tiles on one instruction set.
pub(in crate::gemm) struct Ends<'a, I> {
    /// For sums in memory; none where they stay there.
    pub(in crate::gemm) memory: Option<&'a dyn MemoryEnd<I>>,
    /// For sums in registers, where it pays.
    pub(in crate::gemm) registers: Option<&'a dyn RegisterEnd<I>>,
}

impl<I: Isa> Ends<'_, I> {
    /// Whether there are register tiles for the epilogues of this instruction set. With vectors of
    /// 128 bits the sums of a tile are few, and so is what it saves to keep them in registers: all
    /// epilogues share the tiles in memory there.
    pub(in crate::gemm) const HAS_REGISTER_TILES: bool = I::LANES > 4;
}

/// Loop 1: the tiles of one panel of B, or of some whole ones side by side, with all panels of a block
/// of A.
pub(in crate::gemm) struct RowOfTiles<'a> {
    pub(in crate::gemm) product: &'a ProductArgs,
    pub(in crate::gemm) depth: Depth,
    /// All tiles together.
    pub(in crate::gemm) area: Area,
    /// The panels of A, one after the other, `depth.count` floats a row.
    pub(in crate::gemm) a: *const f32,
    /// The first panel of B, how many there are, and the floats from one to the next.
    pub(in crate::gemm) b: *const f32,
    pub(in crate::gemm) panels: usize,
    pub(in crate::gemm) panel_step: usize,
    /// What the tiles pack or prefetch.
    pub(in crate::gemm) ahead: &'a mut PackAhead,
    /// Room for the sums of any tile.
    pub(in crate::gemm) buffer: *mut f32,
}

impl RowOfTiles<'_> {
    /// The next tile, of the only panel of B, which begins at this row and has so many.
    #[inline(always)]
    pub(in crate::gemm) fn task(&mut self, first: usize, rows: usize) -> Task {
        let Self { depth, area: Area { part, bits, shift }, a, b, .. } = *self;
        let words = bits.words.wrapping_add(first * bits.stride);
        let part = Part { row: part.row + first, rows, ..part };
        let a = a.wrapping_add(first * depth.count);
        let panels = Panels { a, b, k: depth.count, ahead: self.ahead.next_tile() };
        Task { depth, area: Area { part, bits: Tile { words, ..bits }, shift }, panels }
    }

    /// [`RowOfTiles::task`] of one of several panels of B, which have `nr` columns.
    #[inline(always)]
    pub(in crate::gemm) fn task_of_panel(
        &mut self,
        panel: usize,
        nr: usize,
        (first, rows): (usize, usize),
    ) -> Task {
        let Task { depth, area: Area { part, bits, shift }, panels } = self.task(first, rows);
        let at = shift + panel * nr;
        let bits = Tile { words: bits.words.wrapping_add(at / 32), ..bits };
        let part = Part { col: part.col + panel * nr, cols: nr, ..part };
        let b = panels.b.wrapping_add(panel * self.panel_step);
        Task { depth, area: Area { part, bits, shift: at % 32 }, panels: Panels { b, ..panels } }
    }

    /// The same row, for a shorter time.
    pub(in crate::gemm) fn reborrow(&mut self) -> RowOfTiles<'_> {
        RowOfTiles { ahead: self.ahead, ..*self }
    }

    /// Goes on to the panel after `panels` ones of `nr` columns, which has `cols`.
    pub(in crate::gemm) fn skip(&mut self, panels: usize, (nr, cols): (usize, usize)) {
        let at = self.area.shift + panels * nr;
        self.area.bits.words = self.area.bits.words.wrapping_add(at / 32);
        self.area.shift = at % 32;
        let part = self.area.part;
        self.area.part = Part { col: part.col + panels * nr, cols, ..part };
        self.b = self.b.wrapping_add(panels * self.panel_step);
        self.panels = 1;
    }

    /// Computes all tiles through memory.
    ///
    /// # Safety
    ///
    /// As for [`RowOfTiles::through_memory`], for each tile.
    pub(in crate::gemm) unsafe fn all_through_memory<I: Isa>(
        &mut self,
        isa: I,
        end: Option<&dyn MemoryEnd<I>>,
    ) {
        for (first, rows) in panels(self.area.part.rows, I::MR) {
            let task = self.task(first, rows);
            // SAFETY: the caller's promise.
            unsafe { self.through_memory(isa, &task, end) };
        }
    }

    /// A tile of any size: the one place for what does not fill a tile. Sums that wait for the next
    /// block of k, or are stored as they are, go to C; others to the buffer.
    ///
    /// # Safety
    ///
    /// - The tile lies in C and in every matrix of the epilogue, and no other task accesses it.
    /// - Its panels and its bits are valid; the buffer is used for nothing else.
    #[inline(never)]
    pub(in crate::gemm) unsafe fn through_memory<I: Isa>(
        &self,
        isa: I,
        task: &Task,
        end: Option<&dyn MemoryEnd<I>>,
    ) {
        let Self { product, buffer, .. } = *self;
        let Task { depth, area, panels } = task;
        let Part { row, rows, col, cols } = area.part;
        let (nr, step) = (I::NV * I::LANES, product.partial.row_step);
        let end = if depth.ends { end } else { None };
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
                // The sums are in C already.
                None => (),
            }
        }
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
