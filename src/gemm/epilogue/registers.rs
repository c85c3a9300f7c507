//! Short epilogues: the sums of a whole tile go to them from registers.

use super::super::ProductArgs;
use super::super::blocking::panels;
use super::super::microkernel::{NoHook, accumulate};
use super::super::tile::{Area, Task, load_sums, prefetch_rows};
use super::{Epilogue, InMemory, Pipeline, Place, RegisterEnd, RowOfTiles};
use crate::isa::{Isa, Kernel};
use crate::threads::Part;

/// [`RegisterEnd`] of an epilogue whose work on a tile is short.
pub(in crate::gemm) struct InRegisters<E, const MR: usize, const MR1: usize, const NV: usize>(
    pub(in crate::gemm) E,
);

impl<I: Isa, E: Epilogue, const MR: usize, const MR1: usize, const NV: usize> RegisterEnd<I>
    for InRegisters<E, MR, MR1, NV>
{
    unsafe fn tiles(&self, isa: I, row: RowOfTiles<'_>, _: &mut Pipeline) {
        // SAFETY: the caller's promise.
        isa.vectorize(unsafe { RegisterTiles::<E, MR, MR1, NV>::new(self.0, row) });
    }
}

/// A row of tiles whose sums go to the epilogue from registers.
struct RegisterTiles<'a, E, const MR: usize, const MR1: usize, const NV: usize> {
    epilogue: E,
    row: RowOfTiles<'a>,
}

impl<'a, E: Epilogue, const MR: usize, const MR1: usize, const NV: usize>
    RegisterTiles<'a, E, MR, MR1, NV>
{
    /// # Safety
    ///
    /// As for [`RegisterEnd::tiles`].
    unsafe fn new(epilogue: E, row: RowOfTiles<'a>) -> Self {
        Self { epilogue, row }
    }
}

impl<E: Epilogue, const MR: usize, const MR1: usize, const NV: usize> Kernel
    for RegisterTiles<'_, E, MR, MR1, NV>
{
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Self { epilogue, mut row } = self;
        for (first, rows) in panels(row.area.part.rows, MR) {
            let task = row.task(first, rows);
            // SAFETY: `RegisterTiles::new`.
            unsafe {
                // Panels of A have MR rows or one less, unless there are few rows in all.
                if rows == MR {
                    register_tile::<I, E, MR, NV>(isa, epilogue, row.product, &task);
                } else if rows == MR1 {
                    register_tile::<I, E, MR1, NV>(isa, epilogue, row.product, &task);
                } else {
                    row.through_memory(isa, &task, Some(&InMemory(epilogue)));
                }
            }
        }
    }
}

/// A whole tile of `R` rows and `NV` vectors in the last block of k.
///
/// # Safety
///
/// As for [`RegisterEnd::tiles`]; the tile has `R` rows.
#[inline(always)]
unsafe fn register_tile<I: Isa, E: Epilogue, const R: usize, const NV: usize>(
    isa: I,
    epilogue: E,
    product: &ProductArgs,
    task: &Task,
) {
    let Area { part: Part { row, col, cols, .. }, bits, shift } = task.area;
    let (nr, step) = (NV * I::LANES, product.partial.row_step);
    // SAFETY: the caller's promise.
    unsafe {
        let c = product.partial.in_row(row, col, cols).cast_const();
        prefetch_rows(isa, c.wrapping_add(R * step), step, R, nr);
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
