//! The max-norm constraint of a thinned layer.

use crate::Level;
use crate::gather::{Columns, Kept};
use crate::isa::{Isa, Kernel, load, store};
use crate::threads::{Grid, Part, for_each};
use crate::view::Target;

/// Elements worth a task.
const TASK: usize = crate::threads::work::COPY;

/// `max_norm` of the matrix that consists of `rows` x `cols` kept weights: the norm of a column is
/// that of its kept weights, one chain, rows ascending, and only they are scaled. The stored rows of
/// `w` are contiguous and are its inputs, or its units if `transposed`.
pub(crate) fn kept_max_norm(
    level: Level,
    w: Target,
    kept: Kept,
    (rows, cols): (usize, usize),
    transposed: bool,
    limit: f32,
) {
    let strip = (TASK / rows.max(1)).max(1).next_multiple_of(64);
    let grid = if transposed {
        Grid::with_parts(rows, cols, strip, cols)
    } else {
        Grid::with_parts(rows, cols, rows, strip)
    };
    for_each(grid.len(), |i| {
        level.vectorize(KeptNorm { part: grid.part(i), w, kept, transposed, limit });
    });
}

struct KeptNorm {
    /// Positions in the lists.
    part: Part,
    w: Target,
    kept: Kept,
    transposed: bool,
    limit: f32,
}

impl Kernel for KeptNorm {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Self { part: Part { row, rows, col, cols }, w, kept, .. } = self;
        // SAFETY: the part lies in the lists, these in the matrix, and it is this task's alone: parts
        // begin at multiples of 64 columns, and no window leaves the columns of its vector.
        unsafe {
            let at = |r, c| w.at(kept.row(r), kept.column(c));
            if self.transposed {
                for r in row..row + rows {
                    self.units(isa, 1, cols, |c| at(r, c));
                }
                return;
            }
            let mut c = col;
            while c < col + cols {
                let mut n = I::LANES.min(col + cols - c);
                match kept.cols {
                    Some(columns) if n == I::LANES => self.vector(isa, columns, c),
                    Some(_) => {
                        n = 1;
                        self.units(isa, n, rows, |r| at(r, c));
                    }
                    None => self.units(isa, n, rows, |r| at(r, c)),
                }
                c += n;
            }
        }
    }
}

impl KeptNorm {
    /// The factors that bring sums of squares within the limit.
    #[inline(always)]
    fn factor<I: Isa>(&self, isa: I, squares: I::F32) -> I::F32 {
        let (limit, norm) = (isa.splat(self.limit), isa.sqrt(squares));
        isa.select(isa.lt(limit, norm), isa.div(limit, norm), isa.splat(1.0))
    }

    /// Constrains `n` units side by side, whose `count` weights are at `at`.
    ///
    /// # Safety
    ///
    /// The addresses are valid for `n` floats that no other task accesses.
    #[inline(always)]
    unsafe fn units<I: Isa>(&self, isa: I, n: usize, count: usize, at: impl Fn(usize) -> *mut f32) {
        // SAFETY: the caller's promise.
        unsafe {
            let mut squares = isa.splat(0.0);
            for i in 0..count {
                let w = load(isa, at(i).cast_const(), n);
                squares = isa.mul_add(w, w, squares);
            }
            let factor = self.factor(isa, squares);
            for i in 0..count {
                let w = load(isa, at(i).cast_const(), n);
                store(isa, at(i), n, isa.mul(w, factor));
            }
        }
    }

    /// Constrains the vector of units at position `col`.
    ///
    /// # Safety
    ///
    /// As for [`Columns::load`], for all kept rows; no other task accesses them between the vector's
    /// first and last column.
    #[inline(always)]
    unsafe fn vector<I: Isa>(&self, isa: I, columns: Columns, col: usize) {
        let rows = self.part.rows;
        // SAFETY: the caller's promise.
        unsafe {
            let mut squares = isa.splat(0.0);
            for r in 0..rows {
                let row = self.w.at(self.kept.row(r), 0);
                let w = columns.load(isa, row.cast_const(), col);
                squares = isa.mul_add(w, w, squares);
            }
            let factor = self.factor(isa, squares);
            for r in 0..rows {
                let row = self.w.at(self.kept.row(r), 0);
                for window in columns.windows(isa, col, col + I::LANES) {
                    let (at, put) = (row.add(columns.start(window)), columns.put(isa, window));
                    let old = isa.load(at.cast_const());
                    let new = isa.mul(old, isa.permute(factor, put));
                    isa.store(at, isa.select(isa.negative(put), old, new));
                }
            }
        }
    }
}
