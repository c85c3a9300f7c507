//! Rows, columns and steps of a view.

use super::pointers::Extents;
use crate::error::{Error, Result};

/// Rows and columns, and the distance in elements from one to the next; one of the two is 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) row_step: usize,
    pub(super) col_step: usize,
}

impl Shape {
    /// The shape, if `len` elements hold it.
    pub(super) fn new(len: usize, rows: usize, cols: usize, stride: usize) -> Result<Self> {
        if stride < cols {
            return Err(Error::Stride { stride, cols });
        }
        let needed = span(rows, cols, stride);
        match needed {
            None => Err(Error::Overflow { rows, stride }),
            Some(needed) if needed > len => {
                Err(Error::TooShort { rows, cols, stride, needed, len })
            }
            Some(_) => {
                // Where there is no second row its distance means nothing, and may be anything.
                let row_step = if rows > 1 && cols > 0 { stride } else { cols };
                Ok(Self { rows, cols, row_step, col_step: 1 })
            }
        }
    }

    /// The shape with these distances in elements from one row, and from one column, to the next, if it
    /// is stored by rows or by columns that do not overlap. Along an axis of one element the distance
    /// means nothing.
    #[cfg(feature = "ndarray")]
    pub(super) fn with_steps(
        (rows, cols): (usize, usize),
        (row_step, col_step): (isize, isize),
    ) -> Option<Self> {
        // The step from line to line.
        let step = |step: isize, lines: usize, line: usize| match usize::try_from(step) {
            _ if lines <= 1 => Some(line),
            Ok(step) if step >= line => Some(step),
            Ok(_) | Err(_) => None,
        };
        if rows == 0 || cols == 0 {
            Some(Self { rows, cols, row_step: cols, col_step: 1 })
        } else if col_step == 1 || cols == 1 {
            Some(Self { rows, cols, row_step: step(row_step, rows, cols)?, col_step: 1 })
        } else if row_step == 1 || rows == 1 {
            Some(Self { rows, cols, row_step: 1, col_step: step(col_step, cols, rows)? })
        } else {
            None
        }
    }

    pub(super) fn t(self) -> Self {
        Self { rows: self.cols, cols: self.rows, row_step: self.col_step, col_step: self.row_step }
    }

    pub(super) fn extents(&self) -> Extents {
        Extents::new(self.rows, self.cols)
    }

    pub(super) fn index(&self, row: usize, col: usize) -> Option<usize> {
        (row < self.rows && col < self.cols).then(|| row * self.row_step + col * self.col_step)
    }

    /// The part of the slice from `row` on, and the shape of `count` rows there.
    pub(super) fn rows_from(self, row: usize, count: usize) -> Result<(usize, Self)> {
        check_range("row", row, count, self.rows)?;
        let start = if count == 0 || self.cols == 0 { 0 } else { row * self.row_step };
        Ok((start, Self { rows: count, ..self }))
    }

    /// The part of the slice from `col` on, and the shape of `count` columns there.
    pub(super) fn cols_from(self, col: usize, count: usize) -> Result<(usize, Self)> {
        check_range("column", col, count, self.cols)?;
        let start = if count == 0 || self.rows == 0 { 0 } else { col * self.col_step };
        Ok((start, Self { cols: count, ..self }))
    }

    /// Where a row is in the slice, if its elements are contiguous.
    pub(super) fn row(&self, row: usize) -> Option<std::ops::Range<usize>> {
        if row >= self.rows || (self.col_step != 1 && self.cols > 1) {
            return None;
        }
        let start = if self.cols == 0 { 0 } else { row * self.row_step };
        Some(start..start + self.cols)
    }
}

/// Elements from the first to the last of `lines` lines of `line` elements, `stride` apart, if they
/// can be addressed.
pub(super) fn span(lines: usize, line: usize, stride: usize) -> Option<usize> {
    let span = match (lines, line) {
        (0, _) | (_, 0) => 0,
        _ => (lines - 1).checked_mul(stride)?.checked_add(line)?,
    };
    // Addresses are counted in bytes, and pointer offsets are signed.
    isize::try_from(span.checked_mul(8)?).is_ok().then_some(span)
}

/// `Ok` when `count` rows or columns from `first` on lie in a matrix that has `all`.
fn check_range(what: &'static str, first: usize, count: usize, all: usize) -> Result<()> {
    match first.checked_add(count) {
        Some(end) if end <= all => Ok(()),
        _ => Err(Error::Range { what, first, count, all }),
    }
}
