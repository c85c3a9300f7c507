//! Bits with a threshold of its own for each row or for each column.

use super::planes::{Lines, Planes, RowPlanes, WalkedLines};
use super::threshold::{Single, Thresholds};
use super::walk::Walk;
use crate::Level;
use crate::mask::key::MaskKey;
use crate::threads::Part;

/// The bits of a key with a threshold for each row or for each column.
///
/// Walks with many thresholds are much code. What runs them is a function pointer, so that a program
/// that has no rates as data has none of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RateStream {
    level: Level,
    key: MaskKey,
    source: Source,
    write: unsafe fn(Self, Part, *mut u32, usize),
}

/// What the thresholds of a part are made of.
#[derive(Clone, Copy, Debug)]
enum Source {
    /// Those of all rows.
    Rows(*const u64, usize),
    /// The planes of those of all columns.
    Columns(Lines),
}

// SAFETY: the thresholds are read only.
unsafe impl Send for Source {}
// SAFETY: as above.
unsafe impl Sync for Source {}

impl RateStream {
    /// With these thresholds of rows, which outlive the operation.
    pub(in crate::mask) fn rows(level: Level, key: &MaskKey, thresholds: &[u64]) -> Self {
        let source = Source::Rows(thresholds.as_ptr(), thresholds.len());
        Self { level, key: *key, source, write }
    }

    /// With the planes of the thresholds of columns, made for the key's origin, which outlive the
    /// operation.
    pub(in crate::mask) fn columns(level: Level, key: &MaskKey, planes: &Planes) -> Self {
        Self { level, key: *key, source: Source::Columns(planes.lines()), write }
    }

    /// Writes the bits of a part.
    ///
    /// # Safety
    ///
    /// The thresholds, or their planes, are alive, and those of a matrix that the part lies in. `out`
    /// is valid for writes of the part's rows, each padded to a word, `stride` words apart.
    pub(super) unsafe fn write(self, part: Part, out: *mut u32, stride: usize) {
        // SAFETY: the caller's promise.
        unsafe { (self.write)(self, part, out, stride) }
    }
}

/// # Safety
///
/// As for [`RateStream::write`].
unsafe fn write(stream: RateStream, part: Part, out: *mut u32, stride: usize) {
    let RateStream { level, key, source, .. } = stream;
    // SAFETY: the caller's promise.
    unsafe {
        match source {
            Source::Rows(thresholds, count) => {
                let thresholds = std::slice::from_raw_parts(thresholds, count);
                let thresholds = OfRows { thresholds: &thresholds[part.row..part.row + part.rows] };
                level.vectorize(Walk::new(key, thresholds, part, out, stride));
            }
            Source::Columns(lines) => {
                let before = ((key.col0() % 128) as usize + part.col) / 128;
                let thresholds = OfColumns { lines: lines.at_block(before) };
                level.vectorize(Walk::new(key, thresholds, part, out, stride));
            }
        }
    }
}

/// The thresholds of a part's rows.
#[derive(Clone, Copy)]
pub(in crate::mask) struct OfRows<'t> {
    thresholds: &'t [u64],
}

impl Thresholds for OfRows<'_> {
    type Row = Single;
    type Along = Single;
    type Rows = RowPlanes;
    type Down<'a> = WalkedLines<'a, false>;

    #[inline(always)]
    fn row(self, row: usize) -> Result<Single, bool> {
        Single::new(self.thresholds[row])
    }

    #[inline(always)]
    fn along(row: Single, _: usize) -> Single {
        row
    }

    #[inline(always)]
    fn set_rows(self, rows: &mut RowPlanes, row: usize, count: usize) {
        rows.set(&self.thresholds[row..], count);
    }

    #[inline(always)]
    fn down(self, rows: &RowPlanes, _: usize) -> WalkedLines<'_, false> {
        // SAFETY: the lines have numbers for as many rows as a walk has blocks, and are borrowed.
        unsafe { rows.lines().walked() }
    }
}

/// The thresholds of a part's columns: lines from the first block on, which outlive the walk.
#[derive(Clone, Copy)]
pub(in crate::mask) struct OfColumns {
    lines: Lines,
}

impl Thresholds for OfColumns {
    type Row = Self;
    type Along = WalkedLines<'static, false>;
    type Rows = ();
    type Down<'a> = WalkedLines<'static, true>;

    #[inline(always)]
    fn row(self, _: usize) -> Result<Self, bool> {
        Ok(self)
    }

    #[inline(always)]
    fn along(row: Self, block: usize) -> WalkedLines<'static, false> {
        // SAFETY: what `RateStream::write` was promised.
        unsafe { row.lines.at_block(block).walked() }
    }

    #[inline(always)]
    fn set_rows(self, (): &mut (), _: usize, _: usize) {}

    #[inline(always)]
    fn down(self, (): &(), block: usize) -> WalkedLines<'static, true> {
        // SAFETY: as for `along`.
        unsafe { self.lines.at_block(block).walked() }
    }
}
