//! One tile of C: sums start from the bias or a partial result, grow in registers, and wait in C for
//! the next block of k or go to the epilogue.

use super::Product;
use super::blocking::Depth;
use super::deferred::Deferred;
use super::epilogue::Epilogue;
use super::tile::{MemoryTile, Panels, accumulate};
use crate::isa::{Isa, Kernel, load};
use crate::mask::Tile;
use crate::threads::Part;

/// One tile's work: where it is, what it reads, and its mask bits, from bit `shift` of each row on.
#[derive(Clone, Copy)]
pub(super) struct Task {
    pub(super) depth: Depth,
    pub(super) part: Part,
    pub(super) panels: Panels,
    pub(super) bits: Tile,
    pub(super) shift: usize,
}

impl<E: Epilogue> Product<E> {
    /// Computes a tile; `buffer` has room for any. A deferred epilogue may be left for the next tile.
    ///
    /// # Safety
    ///
    /// The tile lies in C, and no other task accesses it; panels, bits and buffer are its own.
    #[inline(always)]
    pub(super) unsafe fn tile<I: Isa, const MR: usize, const NV: usize>(
        self,
        isa: I,
        task: Task,
        deferred: &mut Deferred<E>,
        buffer: *mut f32,
    ) {
        // A long epilogue takes its sums from memory: from C, from the buffer, or, deferred, from its own.
        let whole = task.part.cols == NV * I::LANES && (E::OVERWRITES || !E::LONG || E::DEFERRED);
        macro_rules! rows {
            ($($rows:literal)*) => {
                // SAFETY: the caller's promise.
                unsafe {
                    match task.part.rows {
                        $($rows if whole && ($rows == MR || $rows + 1 == MR) => {
                            self.in_registers::<I, $rows, NV>(isa, task, deferred);
                        })*
                        _ => self.through_memory::<I, NV>(isa, task, buffer),
                    }
                }
            };
        }
        // Panels of A have MR rows or one less, unless there are few rows in all.
        rows!(12 11 6 5 4 3);
    }

    /// A tile of `R` rows and `NV` vectors: the epilogue takes sums from registers, unless it is long or
    /// deferred.
    ///
    /// # Safety
    ///
    /// As for `tile`.
    #[inline(always)]
    unsafe fn in_registers<I: Isa, const R: usize, const NV: usize>(
        self,
        isa: I,
        task: Task,
        deferred: &mut Deferred<E>,
    ) {
        let Task { depth, part: Part { row, col, .. }, bits, shift, .. } = task;
        let nr = NV * I::LANES;
        let step = self.partial.row_step;
        let mut acc = [[isa.splat(0.0); NV]; R];
        // SAFETY: the caller's promise.
        unsafe {
            let c = self.partial.in_row(row, col);
            if E::DEFERRED {
                deferred.spread::<I, NV>(isa, depth.count, task.part);
            } else {
                prefetch_rows(isa, c.cast_const().wrapping_add(R * step), step, R, nr);
                if depth.ends {
                    self.epilogue.prefetch(isa, task.part);
                }
            }
            if !depth.starts {
                for (r, sums) in acc.iter_mut().enumerate() {
                    for (v, sum) in sums.iter_mut().enumerate() {
                        *sum = isa.load(c.add(r * step + v * I::LANES));
                    }
                }
            } else if let Some(bias) = self.bias {
                for sums in &mut acc {
                    for (v, sum) in sums.iter_mut().enumerate() {
                        *sum = isa.load(bias.add(col + v * I::LANES));
                    }
                }
            }
            accumulate(isa, task.panels, nr, &mut acc, deferred);
            if depth.ends && !E::LONG && !E::DEFERRED {
                for (r, sums) in acc.into_iter().enumerate() {
                    let word =
                        if E::MASKED { *bits.words.add(r * bits.stride) >> shift } else { 0 };
                    let word = isa.word(word);
                    for (v, sum) in sums.into_iter().enumerate() {
                        let (at, keep) = (col + v * I::LANES, isa.lanes(word, v * I::LANES));
                        self.epilogue.finish(isa, row + r, at, I::LANES, sum, keep);
                    }
                }
                return;
            }
            let (to, to_step) = if E::DEFERRED { (deferred.buffer(), nr) } else { (c, step) };
            for (r, sums) in acc.into_iter().enumerate() {
                for (v, sum) in sums.into_iter().enumerate() {
                    isa.store(to.add(r * to_step + v * I::LANES), sum);
                }
            }
            if E::DEFERRED {
                deferred.put_off(task.part, bits, shift);
            } else if depth.ends {
                self.finish(isa, task, c, step);
            }
        }
    }

    /// A tile of any size: the one place for what does not fill a tile. The epilogue takes its sums
    /// from a buffer.
    ///
    /// # Safety
    ///
    /// As for `tile`.
    #[inline(always)]
    unsafe fn through_memory<I: Isa, const NV: usize>(self, isa: I, task: Task, buffer: *mut f32) {
        let Task { depth, part: Part { row, rows, col, cols }, panels, .. } = task;
        let (nr, step) = (NV * I::LANES, self.partial.row_step);
        // SAFETY: the caller's promise; lanes beyond the tile's columns stay in the buffer.
        unsafe {
            let c = self.partial.in_row(row, col);
            let (mut from, mut from_step) = match self.bias {
                _ if !depth.starts => (c.cast_const(), step),
                Some(bias) => (bias.add(col), 0),
                None => (std::ptr::null(), 0),
            };
            if cols < nr && !from.is_null() {
                copy_rows(from, from_step, buffer, nr, rows, cols);
                (from, from_step) = (buffer, nr);
            }
            let waits = !depth.ends && cols == nr;
            let (to, to_step) = if waits { (c, step) } else { (buffer, nr) };
            let vectors = cols.div_ceil(I::LANES);
            if depth.ends {
                self.epilogue.prefetch(isa, task.part);
            }
            isa.vectorize(MemoryTile { panels, rows, vectors, from, from_step, to, to_step });
            if depth.ends {
                self.finish(isa, task, buffer, nr);
            } else if !waits {
                copy_rows(buffer, nr, c, step, rows, cols);
            }
        }
    }

    /// Hands sums in memory, rows `step` apart, to the epilogue.
    ///
    /// # Safety
    ///
    /// As for `tile`; `sums` holds the tile.
    #[inline(always)]
    pub(super) unsafe fn finish<I: Isa>(self, isa: I, task: Task, sums: *const f32, step: usize) {
        isa.vectorize(Finish { epilogue: self.epilogue, task, sums, step });
    }
}

/// Asks for the rows of a tile of C, which are too far apart for the hardware to guess.
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
#[inline(always)]
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

/// The epilogue for sums in memory.
struct Finish<E> {
    epilogue: E,
    task: Task,
    sums: *const f32,
    step: usize,
}

impl<E: Epilogue> Kernel for Finish<E> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Task { part, bits, .. } = self.task;
        // SAFETY: as below.
        if unsafe { self.epilogue.finish_part(isa, part, self.sums, self.step) } {
            return;
        }
        for r in 0..part.rows {
            // SAFETY: whoever made this kernel promised that the tile lies in the matrices, that its
            // bits follow each other from `shift` on, and that `sums` holds its rows.
            unsafe {
                let mut words = bits.words.wrapping_add(r * bits.stride);
                let mut shift = self.task.shift;
                let mut col = 0;
                while col < part.cols {
                    let bits = if E::MASKED { *words >> shift } else { 0 };
                    let keep = isa.lanes(isa.word(bits), 0);
                    let n = I::LANES.min(part.cols - col);
                    let sum = load(isa, self.sums.add(r * self.step + col), n);
                    self.epilogue.finish(isa, part.row + r, part.col + col, n, sum, keep);
                    col += I::LANES;
                    shift += I::LANES;
                    if shift == 32 {
                        (words, shift) = (words.wrapping_add(1), 0);
                    }
                }
            }
        }
    }
}
