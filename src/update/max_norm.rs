//! The max-norm constraint, of all weights or of those of a gather index.

use super::TASK;
use crate::Level;
use crate::error::{Error, Result};
use crate::gather::{Columns, GatherIndex};
use crate::isa::{Isa, Kernel, load, store};
use crate::threads::{Grid, Part, for_each};
use crate::view::{MatMut, Target};

/// Scales each unit's incoming weights, a column of `w` [inputs, units], back to the norm `limit`
/// where they are longer (Srebro and Shraibman 2005; Srivastava et al. 2014, section 5.1).
///
/// The squared norm of a column is one chain of fused multiply-adds, inputs ascending.
///
/// ```
/// use fused_dropout::{MatMut, update::max_norm};
///
/// // Two units: (3, 4) is of length 5, (0, 1) of length 1.
/// let mut w = [3.0, 0.0, 4.0, 1.0];
/// max_norm(MatMut::new(&mut w, 2, 2)?, 2.5)?;
/// assert_eq!(w, [1.5, 0.0, 2.0, 1.0]);
/// # Ok::<(), fused_dropout::Error>(())
/// ```
///
/// # Errors
///
/// When `limit` is NaN or not positive.
pub fn max_norm(mut w: MatMut<'_>, limit: f32) -> Result<()> {
    check_limit(limit)?;
    let level = Level::current()?;
    let (rows, cols) = (w.rows(), w.cols());
    let w = w.target();
    match w.col_step {
        1 => gathered_max_norm(level, w, GatherIndex::ALL, (rows, cols), false, limit),
        _ => gathered_max_norm(level, w.t(), GatherIndex::ALL, (cols, rows), true, limit),
    }
    Ok(())
}

pub(crate) fn check_limit(limit: f32) -> Result<()> {
    if limit > 0.0 {
        return Ok(());
    }
    Err(Error::Parameter { name: "max_norm", value: limit.into(), expected: "positive" })
}

/// [`max_norm`] of the matrix that consists of the `rows` x `cols` weights of the index: the norm
/// of a column is that of these weights, one chain, rows ascending, and only they are scaled. The
/// stored rows of `w` are contiguous and are its inputs, or its units if `transposed`.
pub(crate) fn gathered_max_norm(
    level: Level,
    w: Target,
    index: GatherIndex,
    (rows, cols): (usize, usize),
    transposed: bool,
    limit: f32,
) {
    let strip = |chain: usize| (TASK / chain.max(1)).max(1).next_multiple_of(64);
    let grid = if transposed {
        Grid::with_parts(rows, cols, strip(cols), cols)
    } else {
        Grid::with_parts(rows, cols, rows, strip(rows))
    };
    for_each(grid.len(), |i| {
        // SAFETY: the part lies in the lists, these in the matrix, and it is this task's alone:
        // parts begin at multiples of 64 columns, and no window leaves the columns of its vector.
        level.vectorize(unsafe { MaxNorm::new(grid.part(i), w, index, transposed, limit) });
    });
}

struct MaxNorm {
    /// Positions in the lists.
    part: Part,
    w: Target,
    index: GatherIndex,
    transposed: bool,
    limit: f32,
}

impl MaxNorm {
    /// # Safety
    ///
    /// - The part has whole columns, or rows if `transposed`; it lies in the lists of the index,
    ///   these in the matrix, all are alive, and no other task accesses what is between the first
    ///   and the last column of a vector.
    /// - The index was made for the level that the kernel runs on.
    /// - The rows of `w` are contiguous.
    unsafe fn new(part: Part, w: Target, index: GatherIndex, transposed: bool, limit: f32) -> Self {
        Self { part, w, index, transposed, limit }
    }
}

impl Kernel for MaxNorm {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Self { part: Part { row, rows, col, cols }, w, index, .. } = self;
        // SAFETY: `MaxNorm::new`.
        unsafe {
            if self.transposed {
                for r in row..row + rows {
                    let row = w.at(index.row(r), 0);
                    self.units(isa, 1, cols, |c| row.add(index.column(c)));
                }
                return;
            }
            let mut c = col;
            while c < col + cols {
                let mut n = I::LANES.min(col + cols - c);
                match index.cols {
                    Some(columns) if n == I::LANES => self.vector(isa, columns, c),
                    Some(columns) => {
                        n = 1;
                        let column = columns.column(c);
                        self.units(isa, n, rows, |r| w.in_row(index.row(r), column, 1));
                    }
                    None if index.is_all() => self.units(isa, n, rows, |r| w.in_row(r, c, n)),
                    None => self.units(isa, n, rows, |r| w.in_row(index.row(r), c, n)),
                }
                c += n;
            }
        }
    }
}

impl MaxNorm {
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
    /// As for [`Columns::load`], for all rows of the index; no other task accesses them between the
    /// vector's first and last column.
    #[inline(always)]
    unsafe fn vector<I: Isa>(&self, isa: I, columns: Columns, col: usize) {
        let rows = self.part.rows;
        // SAFETY: the caller's promise.
        unsafe {
            let mut squares = isa.splat(0.0);
            for r in 0..rows {
                let row = self.w.at(self.index.row(r), 0);
                let w = columns.load(isa, row.cast_const(), col);
                squares = isa.mul_add(w, w, squares);
            }
            let factor = self.factor(isa, squares);
            for r in 0..rows {
                let row = self.w.at(self.index.row(r), 0);
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
