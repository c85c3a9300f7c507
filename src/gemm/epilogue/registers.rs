//! Short epilogues: the sums of a whole tile go to them from registers.

use super::super::ProductArgs;
use super::super::microkernel::{NoHook, accumulate};
use super::super::tile::{Area, Task, load_sums, prefetch_rows};
use super::{Epilogue, Pipeline, Place, RegisterEnd};
use crate::isa::{Isa, Kernel};
use crate::threads::Part;

/// The end of whole tiles of `MR` or `MR1` rows and `NV` vectors whose sums are in registers.
pub(in crate::gemm) struct InRegisters<E, const MR: usize, const MR1: usize, const NV: usize>(
    pub(in crate::gemm) E,
);

impl<I: Isa, E: Epilogue, const MR: usize, const MR1: usize, const NV: usize> RegisterEnd<I>
    for InRegisters<E, MR, MR1, NV>
{
    unsafe fn tile(&self, isa: I, product: &ProductArgs, task: &Task, _: &mut Pipeline) {
        let epilogue = &self.0;
        // SAFETY: the caller's promise; there is no other number of rows.
        unsafe {
            if task.area.part.rows == MR {
                isa.vectorize(RegisterTile::<E, MR, NV>::new(epilogue, product, task));
            } else {
                isa.vectorize(RegisterTile::<E, MR1, NV>::new(epilogue, product, task));
            }
        }
    }
}

/// A whole tile of `R` rows and `NV` vectors in the last block of k.
pub(in crate::gemm) struct RegisterTile<'a, E, const R: usize, const NV: usize> {
    epilogue: &'a E,
    product: &'a ProductArgs,
    task: &'a Task,
}

impl<'a, E: Epilogue, const R: usize, const NV: usize> RegisterTile<'a, E, R, NV> {
    /// # Safety
    ///
    /// As for [`RegisterEnd::tile`]; the tile has `R` rows.
    pub(in crate::gemm) unsafe fn new(
        epilogue: &'a E,
        product: &'a ProductArgs,
        task: &'a Task,
    ) -> Self {
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
