//! Epilogues that update weights, so that the gradient is never in memory.

use super::{Epilogue, Place};
use crate::gather::{Columns, GatherIndex};
use crate::isa::{Isa, load, store};
use crate::threads::Part;
use crate::update::{Ready, StateTargets, StateVectors, StepWork};
use crate::view::Target;

/// An update of weights and their state whose gradient is the sum.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Update {
    pub(crate) w: Target,
    pub(crate) state: StateTargets,
    pub(crate) step: Ready,
}

impl Update {
    /// Calls `work` with the update, in a copy for each kind of step that is often taken.
    #[inline(always)]
    fn unswitch(self, work: impl UpdateWork) {
        self.step.unswitch(self.state, Work { w: self.w, work });
    }

    /// Updates `n` elements; those that are `removed` keep their bits.
    ///
    /// # Safety
    ///
    /// The elements lie in the matrices, and no other task accesses them.
    #[inline(always)]
    unsafe fn vector<I: Isa>(
        self,
        isa: I,
        Place { row, col, cols: n }: Place,
        sum: I::F32,
        removed: Option<I::Mask>,
    ) {
        // SAFETY: the caller's promise.
        unsafe {
            let (w, state) = (self.w.in_row(row, col, n), self.state.run(row, col, n));
            let (w_old, state_old) = (load(isa, w.cast_const(), n), state.load(isa, n));
            let (mut w_new, mut state_new) = self.step.vector(isa, w_old, sum, state_old);
            if let Some(removed) = removed {
                w_new = isa.select(removed, w_old, w_new);
                state_new = StateVectors::select(isa, removed, state_old, state_new);
            }
            state.store(isa, n, state_new);
            store(isa, w, n, w_new);
        }
    }
}

/// What [`Update::unswitch`] calls.
trait UpdateWork {
    fn call(self, update: Update);
}

/// Weights, and what is done to them.
struct Work<W> {
    w: Target,
    work: W,
}

impl<W: UpdateWork> StepWork for Work<W> {
    #[inline(always)]
    fn call(self, step: Ready, state: StateTargets) {
        self.work.call(Update { w: self.w, state, step });
    }
}

impl Epilogue for Update {
    const MASKED: bool = false;

    #[inline(always)]
    unsafe fn prefetch<I: Isa>(self, isa: I, part: Part) {
        let Part { row, rows, col, cols } = part;
        for r in row..row + rows {
            let w = self.w.source().near(r, col);
            isa.prefetch(w);
            isa.prefetch(w.wrapping_add(cols - 1));
            for matrix in self.state.iter() {
                let state = matrix.source().near(r, col);
                isa.prefetch(state);
                isa.prefetch(state.wrapping_add(cols - 1));
            }
        }
    }

    #[inline(always)]
    unsafe fn finish<I: Isa, const V: usize>(
        self,
        isa: I,
        place: Place,
        sums: [I::F32; V],
        _: I::Word,
    ) {
        self.unswitch(Vectors { isa, place, sums });
    }
}

/// The update of some vectors side by side.
struct Vectors<I: Isa, const V: usize> {
    isa: I,
    place: Place,
    sums: [I::F32; V],
}

impl<I: Isa, const V: usize> UpdateWork for Vectors<I, V> {
    #[inline(always)]
    fn call(self, update: Update) {
        let Self { isa, place, sums } = self;
        for (v, sum) in sums.into_iter().enumerate() {
            let (col, cols) = place.vector::<I, V>(isa, v);
            // SAFETY: what `Epilogue::finish` was promised.
            unsafe { update.vector(isa, Place { col, cols, ..place }, sum, None) };
        }
    }
}

/// [`Update`] with the gradient `keep ? sum · scale : 0`, of weights with a dropout.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MaskedUpdate {
    pub(crate) update: Update,
    pub(crate) scale: f32,
}

impl Epilogue for MaskedUpdate {
    const MASKED: bool = true;

    #[inline(always)]
    unsafe fn prefetch<I: Isa>(self, isa: I, part: Part) {
        // SAFETY: the caller's promise.
        unsafe { self.update.prefetch(isa, part) }
    }

    #[inline(always)]
    unsafe fn finish<I: Isa, const V: usize>(
        self,
        isa: I,
        place: Place,
        mut sums: [I::F32; V],
        keep: I::Word,
    ) {
        for (v, sum) in sums.iter_mut().enumerate() {
            let kept = isa.lanes(keep, v * I::LANES);
            *sum = isa.keep(kept, isa.mul(*sum, isa.splat(self.scale)));
        }
        // SAFETY: the caller's promise.
        unsafe { self.update.finish(isa, place, sums, keep) }
    }
}

/// [`Update`] of the rows and columns of a gather index; the others stay what they are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GatheredUpdate {
    pub(crate) update: Update,
    pub(crate) index: GatherIndex,
}

impl Epilogue for GatheredUpdate {
    const MASKED: bool = false;

    #[inline(always)]
    unsafe fn prefetch<I: Isa>(self, isa: I, part: Part) {
        let Part { row, rows, col, cols } = part;
        let Update { w, state, .. } = self.update;
        // SAFETY: the part lies in the lists.
        let (first, last) = unsafe { (self.index.column(col), self.index.column(col + cols - 1)) };
        for r in row..row + rows {
            // SAFETY: as above.
            let row = unsafe { self.index.row(r) };
            let mut line = first;
            while line < last + 16 {
                let at = line.min(last);
                isa.prefetch(w.source().near(row, at));
                for matrix in state.iter() {
                    isa.prefetch(matrix.source().near(row, at));
                }
                line += 16;
            }
        }
    }

    #[inline(always)]
    unsafe fn finish<I: Isa, const V: usize>(
        self,
        isa: I,
        place: Place,
        sums: [I::F32; V],
        _: I::Word,
    ) {
        // SAFETY: the caller's promise: the row lies in the list.
        let row = unsafe { self.index.row(place.row) };
        match self.index.cols {
            None => self.update.unswitch(Vectors { isa, place: Place { row, ..place }, sums }),
            Some(columns) => {
                self.update.unswitch(GatheredVectors { isa, row, columns, place, sums });
            }
        }
    }
}

/// The update of some vectors side by side, whose columns are scattered over a row.
struct GatheredVectors<I: Isa, const V: usize> {
    isa: I,
    /// The stored row.
    row: usize,
    columns: Columns,
    place: Place,
    sums: [I::F32; V],
}

impl<I: Isa, const V: usize> UpdateWork for GatheredVectors<I, V> {
    #[inline(always)]
    fn call(self, update: Update) {
        let Self { isa, row, columns, place, sums } = self;
        for (v, sum) in sums.into_iter().enumerate() {
            let (position, n) = place.vector::<I, V>(isa, v);
            // SAFETY: what `Epilogue::finish` was promised, for positions in the lists, which lie
            // in the matrices. A window lies between the first and the last column of its vector,
            // which no other task accesses.
            unsafe {
                if n == I::LANES && (V > 1 || position.is_multiple_of(I::LANES)) {
                    for window in columns.windows(isa, position, position + I::LANES) {
                        let put = columns.put(isa, window);
                        let (sum, removed) = (isa.permute(sum, put), isa.negative(put));
                        let place = Place { row, col: columns.start(window), cols: I::LANES };
                        update.vector(isa, place, sum, Some(removed));
                    }
                } else {
                    let mut lanes = [0.0f32; 16];
                    store(isa, lanes.as_mut_ptr(), n, sum);
                    for (lane, sum) in lanes[..n].iter().enumerate() {
                        let place = Place { row, col: columns.column(position + lane), cols: 1 };
                        update.vector(isa, place, isa.splat(*sum), None);
                    }
                }
            }
        }
    }
}
