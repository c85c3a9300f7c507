//! A matrix cut into parts, one a task.

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
