//! Software-pipelined epilogues: the sums of a tile wait in a buffer, and are finished a row at a
//! time while the sums of the next tile are made.
//!
//! An update reads and writes weights and velocities, of which each row is in other pages and
//! mostly in the same sets of the caches as the one before. At the end of a tile the multiply-adds
//! would wait for them. Between the steps of k loads and stores have room, and other multiply-adds
//! are there to be done.

use super::super::ProductArgs;
use super::super::blocking::panels;
use super::super::microkernel::{StepHook, accumulate};
use super::super::tile::{Area, Task, load_sums, store_sums};
use super::{Epilogue, InMemory, Place, RegisterEnd, RowOfTiles};
use crate::isa::{Isa, Kernel};
use crate::mask::Tile;
use crate::threads::Part;

/// A tile that waits for its epilogue.
#[derive(Clone, Copy)]
pub(in crate::gemm) struct Pipeline {
    /// Where sums wait.
    buffer: *mut f32,
    /// What of the tile is not finished, and its sums, row after row.
    waiting: Area,
    sums: *const f32,
    /// The four steps of k at which the next row is finished, and how many there are from row to
    /// row.
    due: usize,
    every: usize,
    /// Rows of the tile whose sums are being made that have not been prefetched.
    ahead: Part,
}

impl Pipeline {
    /// No tile waits.
    ///
    /// # Safety
    ///
    /// `buffer` has room for the sums of any tile, and is not used for anything else as long as the
    /// pipeline is.
    pub(in crate::gemm) unsafe fn new(buffer: *mut f32) -> Self {
        let bits = Tile { words: std::ptr::null(), stride: 0 };
        let waiting = Area { part: Part::default(), bits, shift: 0 };
        Self { buffer, waiting, sums: buffer, due: usize::MAX, every: 0, ahead: Part::default() }
    }
}

/// A pipeline and the epilogue of its tiles, of `NV` vectors.
struct Rows<'a, E, const NV: usize> {
    epilogue: E,
    pipeline: &'a mut Pipeline,
}

impl<E: Epilogue, const NV: usize> Rows<'_, E, NV> {
    /// Spreads what waits over the `k` steps of the tile `ahead`; rows for which there is no room
    /// are finished at once.
    #[inline(always)]
    fn spread<I: Isa>(&mut self, isa: I, k: usize, ahead: Part) {
        self.pipeline.ahead = ahead;
        while self.pipeline.waiting.part.rows > k / 4 {
            self.finish_row(isa);
        }
        let rows = self.pipeline.waiting.part.rows;
        self.pipeline.every = k / 4 / rows.max(1);
        self.pipeline.due = if rows > 0 { 0 } else { usize::MAX };
    }

    /// Finishes what waits.
    #[inline(always)]
    fn drain<I: Isa>(&mut self, isa: I) {
        self.pipeline.ahead.rows = 0;
        while self.pipeline.waiting.part.rows > 0 {
            self.finish_row(isa);
        }
    }

    /// Finishes a row, and prefetches one of the tile ahead.
    #[inline(always)]
    fn finish_row<I: Isa>(&mut self, isa: I) {
        let Self { epilogue, pipeline } = self;
        let Area { part: Part { row, col, .. }, bits, shift } = pipeline.waiting;
        // SAFETY: what `RegisterEnd::tiles` was promised of the tile; both parts lie in the
        // matrices.
        unsafe {
            let word = isa.word(if E::MASKED { *bits.words >> shift } else { 0 });
            let mut sums = [isa.splat(0.0); NV];
            for (v, sum) in sums.iter_mut().enumerate() {
                *sum = isa.load(pipeline.sums.add(v * I::LANES));
            }
            epilogue.finish(isa, Place { row, col, cols: NV * I::LANES }, sums, word);
            if pipeline.ahead.rows > 0 {
                epilogue.prefetch(isa, Part { rows: 1, ..pipeline.ahead });
                pipeline.ahead.row += 1;
                pipeline.ahead.rows -= 1;
            }
        }
        pipeline.waiting.part.row += 1;
        pipeline.waiting.part.rows -= 1;
        pipeline.waiting.bits.words = bits.words.wrapping_add(bits.stride);
        pipeline.sums = pipeline.sums.wrapping_add(NV * I::LANES);
    }
}

impl<E: Epilogue, const NV: usize> StepHook for Rows<'_, E, NV> {
    #[inline(always)]
    fn before_steps<I: Isa>(&mut self, isa: I, step: usize) {
        if step == self.pipeline.due {
            self.finish_row(isa);
            let waits = self.pipeline.waiting.part.rows > 0;
            self.pipeline.due = if waits { step + self.pipeline.every } else { usize::MAX };
        }
    }
}

/// The end of whole tiles of `MR` or `MR1` rows and `NV` vectors whose epilogue is software-pipelined.
pub(in crate::gemm) struct Pipelined<E, const MR: usize, const MR1: usize, const NV: usize>(
    pub(in crate::gemm) E,
);

impl<I: Isa, E: Epilogue, const MR: usize, const MR1: usize, const NV: usize> RegisterEnd<I>
    for Pipelined<E, MR, MR1, NV>
{
    unsafe fn tiles(&self, isa: I, row: RowOfTiles<'_>, pipeline: &mut Pipeline) {
        // SAFETY: the caller's promise.
        isa.vectorize(unsafe { PipelinedTiles::<E, MR, MR1, NV>::new(self.0, row, pipeline) });
    }

    unsafe fn drain(&self, isa: I, pipeline: &mut Pipeline) {
        // SAFETY: the caller's promise.
        isa.vectorize(unsafe { Drain::<E, NV>::new(self.0, pipeline) });
    }
}

/// A row of tiles, each of which takes the place of the one that waits.
struct PipelinedTiles<'a, E, const MR: usize, const MR1: usize, const NV: usize> {
    rows: Rows<'a, E, NV>,
    row: RowOfTiles<'a>,
}

impl<'a, E: Epilogue, const MR: usize, const MR1: usize, const NV: usize>
    PipelinedTiles<'a, E, MR, MR1, NV>
{
    /// # Safety
    ///
    /// As for [`RegisterEnd::tiles`].
    unsafe fn new(epilogue: E, row: RowOfTiles<'a>, pipeline: &'a mut Pipeline) -> Self {
        Self { rows: Rows { epilogue, pipeline }, row }
    }
}

impl<E: Epilogue, const MR: usize, const MR1: usize, const NV: usize> Kernel
    for PipelinedTiles<'_, E, MR, MR1, NV>
{
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Self { rows: Rows { epilogue, pipeline }, mut row } = self;
        // A copy can be in registers.
        let mut local = *pipeline;
        let mut rows = Rows::<E, NV> { epilogue, pipeline: &mut local };
        for (first, height) in panels(row.area.part.rows, MR) {
            // All panels of B, so that what the epilogue reads of a row lies side by side.
            for panel in 0..row.panels {
                let task = row.task_of_panel(panel, NV * I::LANES, (first, height));
                // SAFETY: `PipelinedTiles::new`.
                unsafe {
                    if height == MR {
                        rows.tile::<I, MR>(isa, row.product, &task);
                    } else if height == MR1 {
                        rows.tile::<I, MR1>(isa, row.product, &task);
                    } else {
                        row.through_memory(isa, &task, Some(&InMemory(rows.epilogue)));
                    }
                }
            }
        }
        *pipeline = local;
    }
}

impl<E: Epilogue, const NV: usize> Rows<'_, E, NV> {
    /// A whole tile of `R` rows.
    ///
    /// # Safety
    ///
    /// As for [`RegisterEnd::tiles`]; the tile has `R` rows.
    #[inline(always)]
    unsafe fn tile<I: Isa, const R: usize>(&mut self, isa: I, product: &ProductArgs, task: &Task) {
        let nr = NV * I::LANES;
        self.spread(isa, task.depth.count, task.area.part);
        // SAFETY: the caller's promise; nothing waits any more when the sums take the buffer.
        unsafe {
            let (from, from_step) = product.start(task);
            let mut acc = load_sums::<I, R, NV>(isa, from, from_step);
            accumulate(isa, &task.panels, nr, &mut acc, self);
            store_sums(isa, acc, self.pipeline.buffer, nr);
        }
        (self.pipeline.waiting, self.pipeline.sums) = (task.area, self.pipeline.buffer);
    }
}

/// Finishes the tile that waits.
struct Drain<'a, E, const NV: usize> {
    rows: Rows<'a, E, NV>,
}

impl<'a, E: Epilogue, const NV: usize> Drain<'a, E, NV> {
    /// # Safety
    ///
    /// As for [`RegisterEnd::drain`].
    unsafe fn new(epilogue: E, pipeline: &'a mut Pipeline) -> Self {
        Self { rows: Rows { epilogue, pipeline } }
    }
}

impl<E: Epilogue, const NV: usize> Kernel for Drain<'_, E, NV> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(mut self, isa: I) {
        self.rows.drain(isa);
    }
}
