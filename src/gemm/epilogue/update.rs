//! Epilogues that update weights, so that the gradient is never in memory.

use super::{Epilogue, finish_vectors};
use crate::gather::Kept;
use crate::isa::{Isa, load, store};
use crate::sgd::SgdStep;
use crate::threads::Part;
use crate::view::Target;

/// A step of stochastic gradient descent whose gradient is the sum.
#[derive(Clone, Copy)]
pub(crate) struct Update {
    pub(crate) w: Target,
    pub(crate) velocity: Option<Target>,
    pub(crate) step: SgdStep,
}

impl Epilogue for Update {
    const MASKED: bool = false;
    const LONG: bool = false;
    const OVERWRITES: bool = false;
    const DEFERRED: bool = true;

    #[inline(always)]
    unsafe fn prefetch<I: Isa>(self, isa: I, part: Part) {
        let Part { row, rows, col, cols } = part;
        for r in row..row + rows {
            let w = self.w.source().near(r, col);
            isa.prefetch(w);
            isa.prefetch(w.wrapping_add(cols - 1));
            if let Some(velocity) = self.velocity {
                let velocity = velocity.source().near(r, col);
                isa.prefetch(velocity);
                isa.prefetch(velocity.wrapping_add(cols - 1));
            }
        }
    }

    #[inline(always)]
    unsafe fn finish_row<I: Isa, const NV: usize>(
        self,
        isa: I,
        row: usize,
        col: usize,
        sums: *const f32,
        keep: I::Word,
    ) {
        // What most steps are, with no branch for a vector.
        let usual = Self { step: SgdStep { l1: 0.0, ..self.step }, ..self };
        // SAFETY: the caller's promise.
        unsafe {
            match self.velocity {
                Some(velocity) if self.step.l1 == 0.0 => {
                    let usual = Self { velocity: Some(velocity), ..usual };
                    finish_vectors::<I, Self, NV>(usual, isa, row, col, sums, keep);
                }
                _ => finish_vectors::<I, Self, NV>(self, isa, row, col, sums, keep),
            }
        }
    }

    #[inline(always)]
    unsafe fn finish<I: Isa>(
        self,
        isa: I,
        row: usize,
        col: usize,
        n: usize,
        sum: I::F32,
        _: I::Mask,
    ) {
        // SAFETY: the caller's promise.
        unsafe {
            let w = self.w.in_row(row, col);
            let velocity = self.velocity.map(|velocity| velocity.in_row(row, col));
            let old = velocity.map(|velocity| load(isa, velocity.cast_const(), n));
            let (w_new, v_new) = self.step.apply(isa, load(isa, w.cast_const(), n), sum, old);
            if let Some(velocity) = velocity {
                store(isa, velocity, n, v_new);
            }
            store(isa, w, n, w_new);
        }
    }
}

/// [`Update`] with the gradient `keep ? sum · scale : 0`, of weights with a dropout.
#[derive(Clone, Copy)]
pub(crate) struct DropUpdate {
    pub(crate) update: Update,
    pub(crate) scale: f32,
}

impl Epilogue for DropUpdate {
    const MASKED: bool = true;
    const LONG: bool = false;
    const OVERWRITES: bool = false;
    const DEFERRED: bool = true;

    #[inline(always)]
    unsafe fn prefetch<I: Isa>(self, isa: I, part: Part) {
        // SAFETY: the caller's promise.
        unsafe { self.update.prefetch(isa, part) }
    }

    #[inline(always)]
    unsafe fn finish<I: Isa>(
        self,
        isa: I,
        row: usize,
        col: usize,
        n: usize,
        sum: I::F32,
        keep: I::Mask,
    ) {
        let gradient = isa.keep(keep, isa.mul(sum, isa.splat(self.scale)));
        // SAFETY: the caller's promise.
        unsafe { self.update.finish(isa, row, col, n, gradient, keep) }
    }
}

/// [`Update`] of kept rows and columns; the others stay what they are.
#[derive(Clone, Copy)]
pub(crate) struct KeptUpdate {
    pub(crate) w: Target,
    pub(crate) velocity: Option<Target>,
    pub(crate) step: SgdStep,
    pub(crate) kept: Kept,
}

impl Epilogue for KeptUpdate {
    const MASKED: bool = false;
    const LONG: bool = true;
    const OVERWRITES: bool = false;
    const DEFERRED: bool = true;

    #[inline(always)]
    unsafe fn prefetch<I: Isa>(self, isa: I, part: Part) {
        let Part { row, rows, col, cols } = part;
        let (w, velocity) = (self.w.source(), self.velocity.map(Target::source));
        // SAFETY: the part lies in the lists.
        let (first, last) = unsafe { (self.kept.column(col), self.kept.column(col + cols - 1)) };
        for r in row..row + rows {
            // SAFETY: as above.
            let row = unsafe { self.kept.row(r) };
            let mut line = first;
            while line < last + 16 {
                let at = line.min(last);
                isa.prefetch(w.near(row, at));
                if let Some(velocity) = velocity {
                    isa.prefetch(velocity.near(row, at));
                }
                line += 16;
            }
        }
    }

    #[inline(always)]
    unsafe fn finish_row<I: Isa, const NV: usize>(
        self,
        isa: I,
        row: usize,
        col: usize,
        sums: *const f32,
        _: I::Word,
    ) {
        // What most steps are, with no branch for a window.
        let usual = Self { step: SgdStep { l1: 0.0, ..self.step }, ..self };
        // SAFETY: the caller's promise.
        unsafe {
            match self.velocity {
                Some(velocity) if self.step.l1 == 0.0 => {
                    let usual = Self { velocity: Some(velocity), ..usual };
                    usual.update_row::<I, NV>(isa, row, col, sums);
                }
                _ => self.update_row::<I, NV>(isa, row, col, sums),
            }
        }
    }

    // Tiles at the edges: a window of all rows, then the next, since the last one of a vector overlaps the
    // one before, whose stores would still be on their way to the cache.
    #[inline(always)]
    unsafe fn finish_part<I: Isa>(self, isa: I, part: Part, sums: *const f32, step: usize) -> bool {
        let Part { row, rows, col, cols } = part;
        let none = isa.negative(isa.splat_i32(0));
        // SAFETY: the caller's promise, for positions in the lists, which lie in the matrices. A window
        // lies between the first and the last column of its vector, which no other task accesses.
        unsafe {
            let whole = match self.kept.cols {
                Some(_) if col.is_multiple_of(I::LANES) => cols / I::LANES * I::LANES,
                _ => 0,
            };
            if let Some(columns) = self.kept.cols {
                for c in (0..whole).step_by(I::LANES) {
                    for window in columns.windows(isa, col + c, col + c + I::LANES) {
                        let put = columns.put(isa, window);
                        let (at, removed) = (columns.start(window), isa.negative(put));
                        for r in 0..rows {
                            let sum = isa.permute(isa.load(sums.add(r * step + c)), put);
                            let row = self.kept.row(row + r);
                            self.update(isa, row, at, I::LANES, sum, removed);
                        }
                    }
                }
            }
            for r in 0..rows {
                let row = self.kept.row(row + r);
                let mut c = whole;
                while c < cols {
                    let most = if self.kept.cols.is_some() { 1 } else { I::LANES };
                    let n = most.min(cols - c);
                    let sum = load(isa, sums.add(r * step + c), n);
                    self.update(isa, row, self.kept.column(col + c), n, sum, none);
                    c += n;
                }
            }
        }
        true
    }

    // Sums always come in rows or parts.
    #[inline(always)]
    unsafe fn finish<I: Isa>(self, _: I, _: usize, _: usize, _: usize, _: I::F32, _: I::Mask) {}
}

impl KeptUpdate {
    /// Updates `NV` whole vectors of a row.
    ///
    /// # Safety
    ///
    /// As for `finish_row`.
    #[inline(always)]
    unsafe fn update_row<I: Isa, const NV: usize>(
        self,
        isa: I,
        row: usize,
        col: usize,
        sums: *const f32,
    ) {
        let none = isa.negative(isa.splat_i32(0));
        // SAFETY: the caller's promise; columns of whole tiles start at multiples of the vectors'.
        unsafe {
            let row = self.kept.row(row);
            let mut at = 0;
            while at < NV * I::LANES {
                let sum = isa.load(sums.add(at));
                match self.kept.cols {
                    Some(columns) => {
                        for window in columns.windows(isa, col + at, col + at + I::LANES) {
                            let put = columns.put(isa, window);
                            let removed = isa.negative(put);
                            let sum = isa.permute(sum, put);
                            self.update(isa, row, columns.start(window), I::LANES, sum, removed);
                        }
                    }
                    None => self.update(isa, row, col + at, I::LANES, sum, none),
                }
                at += I::LANES;
            }
        }
    }

    /// Updates `n` elements, save those that are removed.
    ///
    /// # Safety
    ///
    /// The elements lie in the matrices, and no other task accesses them.
    #[inline(always)]
    unsafe fn update<I: Isa>(
        self,
        isa: I,
        row: usize,
        col: usize,
        n: usize,
        sum: I::F32,
        removed: I::Mask,
    ) {
        // SAFETY: the caller's promise.
        unsafe {
            let w = self.w.in_row(row, col);
            let w_old = load(isa, w.cast_const(), n);
            match self.velocity {
                Some(velocity) => {
                    let velocity = velocity.in_row(row, col);
                    let v_old = load(isa, velocity.cast_const(), n);
                    let (w_new, v_new) = self.step.apply(isa, w_old, sum, Some(v_old));
                    store(isa, velocity, n, isa.select(removed, v_old, v_new));
                    store(isa, w, n, isa.select(removed, w_old, w_new));
                }
                None => {
                    let (w_new, _) = self.step.apply(isa, w_old, sum, None);
                    store(isa, w, n, isa.select(removed, w_old, w_new));
                }
            }
        }
    }
}
