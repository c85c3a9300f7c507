//! One tile of C: sums start from the bias or a partial result, grow in registers, and wait in
//! memory for the next block of k or go to the epilogue.
//!
//! The loop nest calls each kind of tile through one pointer, so that it, and what it packs, is
//! compiled once for each instruction set and a tile once for each use:
//!
//! | kernel | rows | sums end | for |
//! |---|---|---|---|
//! | `MemoryTile` | any | in memory | edges, all blocks of k but the last, stores, long activations |
//! | `RegisterTile` | MR, MR - 1 | in the epilogue | short activations |
//! | `PipelinedTile` | MR, MR - 1 | in a buffer, until the next tile | updates of weights |

use super::super::ProductArgs;
use super::super::tile::{Area, MemoryTile, Task, prefetch_rows};
use super::{MemoryEnd, Pipeline, RegisterEnd};
use crate::isa::Isa;
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

    /// Computes a tile; `buffer` has room for any.
    ///
    /// # Safety
    ///
    /// As for [`RegisterEnd::tile`]; the buffer is used for nothing else.
    #[inline]
    pub(in crate::gemm) unsafe fn tile(
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
