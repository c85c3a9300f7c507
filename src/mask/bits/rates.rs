//! Bits with a threshold of its own for each row or for each column.

use super::planes::{Lines, Planes, RowPlanes, WalkedLines};
use super::threshold::{Single, Thresholds};
use super::walk::Walk;
use crate::mask::key::MaskKey;
use crate::threads::Part;

/// The bits of a key with a threshold for each row.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RowStream {
    key: MaskKey,
    thresholds: *const u64,
    count: usize,
}

// SAFETY: the thresholds are read only.
unsafe impl Send for RowStream {}
// SAFETY: as above.
unsafe impl Sync for RowStream {}

impl RowStream {
    /// With these thresholds, which outlive the operation.
    pub(in crate::mask) fn new(key: &MaskKey, thresholds: &[u64]) -> Self {
        Self { key: *key, thresholds: thresholds.as_ptr(), count: thresholds.len() }
    }

    /// The walk over a part.
    ///
    /// # Safety
    ///
    /// The thresholds are alive, and those of a matrix that the part lies in. `out` is valid for
    /// writes of the part's rows, each padded to a word, `stride` words apart.
    #[inline(always)]
    pub(super) unsafe fn walk<'a>(
        self,
        part: Part,
        out: *mut u32,
        stride: usize,
    ) -> Walk<OfRows<'a>> {
        // SAFETY: the caller's promise.
        unsafe {
            let thresholds = std::slice::from_raw_parts(self.thresholds, self.count);
            let thresholds = &thresholds[part.row..part.row + part.rows];
            Walk::new(self.key, OfRows { thresholds }, part, out, stride)
        }
    }
}

/// The bits of a key with a threshold for each column.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ColumnStream {
    key: MaskKey,
    lines: Lines,
}

impl ColumnStream {
    /// With the planes of the thresholds, made for the key's origin, which outlive the operation.
    pub(in crate::mask) fn new(key: &MaskKey, planes: &Planes) -> Self {
        Self { key: *key, lines: planes.lines() }
    }

    /// The walk over a part.
    ///
    /// # Safety
    ///
    /// The planes are alive, and those of a matrix that the part lies in. `out` is valid for writes
    /// of the part's rows, each padded to a word, `stride` words apart.
    #[inline(always)]
    pub(super) unsafe fn walk(self, part: Part, out: *mut u32, stride: usize) -> Walk<OfColumns> {
        let before = ((self.key.col0() % 128) as usize + part.col) / 128;
        let thresholds = OfColumns { lines: self.lines.at_block(before) };
        // SAFETY: the caller's promise.
        unsafe { Walk::new(self.key, thresholds, part, out, stride) }
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
        // SAFETY: what `ColumnStream::walk` was promised.
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
