//! Tasks: how an operation is split, and where rayon is called.
//!
//! Tasks write disjoint parts of the output and share nothing, so how many there are, and on how
//! many threads they run, never shows in the result. The caller's rayon pool is used.

use rayon::prelude::*;

use crate::isa::Forced;

/// Calls `f(0)`, `f(1)`, ... `f(tasks - 1)`, on the threads of the current rayon pool.
pub(crate) fn for_each(tasks: usize, f: impl Fn(usize) + Send + Sync) {
    spread(tasks, &f);
}

/// [`for_each`], once for all tasks: rayon's machinery is much code.
fn spread(tasks: usize, f: &(dyn Fn(usize) + Send + Sync)) {
    if tasks <= 1 || rayon::current_num_threads() == 1 {
        (0..tasks).for_each(f);
    } else {
        // This thread runs what the pool has while it waits, also jobs that belong to others.
        let _unforced = Forced::set(None);
        (0..tasks).into_par_iter().with_max_len(1).for_each(f);
    }
}

/// A part of a matrix.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) row: usize,
    pub(crate) rows: usize,
    pub(crate) col: usize,
    pub(crate) cols: usize,
}

/// A matrix cut into parts of about equal size.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Grid {
    rows: usize,
    cols: usize,
    part_rows: usize,
    part_cols: usize,
    parts_across: usize,
    parts_down: usize,
}

impl Grid {
    /// Parts of about `work` elements, whose rows and columns are multiples of the given ones
    /// (save for the last of each). Rows are cut first.
    pub(crate) fn new(
        rows: usize,
        cols: usize,
        work: usize,
        multiple_of_rows: usize,
        multiple_of_cols: usize,
    ) -> Self {
        if rows == 0 || cols == 0 {
            return Self::with_parts(0, 0, 1, 1);
        }
        let part_rows = (work / cols).max(1).next_multiple_of(multiple_of_rows).min(rows);
        let part_cols = if part_rows >= rows {
            (work / rows).max(1).next_multiple_of(multiple_of_cols).min(cols)
        } else {
            (work / part_rows).max(1).next_multiple_of(multiple_of_cols).min(cols)
        };
        Self::with_parts(rows, cols, part_rows, part_cols)
    }

    /// Parts of `part_rows` x `part_cols`.
    pub(crate) fn with_parts(rows: usize, cols: usize, part_rows: usize, part_cols: usize) -> Self {
        let empty = rows == 0 || cols == 0;
        let count = |n: usize, part: usize| if empty { 0 } else { n.div_ceil(part.max(1)) };
        Self {
            rows,
            cols,
            part_rows,
            part_cols,
            parts_across: count(cols, part_cols),
            parts_down: count(rows, part_rows),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.parts_across * self.parts_down
    }

    /// The part with this number.
    pub(crate) fn part(&self, i: usize) -> Part {
        let row = i / self.parts_across * self.part_rows;
        let col = i % self.parts_across * self.part_cols;
        Part {
            row,
            rows: self.part_rows.min(self.rows - row),
            col,
            cols: self.part_cols.min(self.cols - col),
        }
    }
}
