//! Packing ahead: the tiles of one panel of B pack or prefetch the next one, a row each few steps
//! of k. The load and store units have room for that, so packing takes no time of its own.

use crate::isa::Isa;

/// What one tile packs or prefetches: a row at a time, and a line of one further on.
#[derive(Clone, Copy)]
pub(in crate::gemm) struct AheadRows {
    /// One less than the number, a power of two, of times four steps of k from a row to the next;
    /// more than there are where only the first is copied.
    pub(in crate::gemm) interval_mask: usize,
    from: *const f32,
    from_step: usize,
    to: *mut f32,
    to_step: usize,
    /// The last element of the row to prefetch: where rows do not start at a line, the first line
    /// came with the panel before.
    prefetch: *const f32,
    prefetch_step: usize,
    /// Floats from a prefetched line to the next, for wider panels.
    line_step: isize,
    mask: RowMask,
}

/// The dropout of copied rows: the bits of the next, from bit `shift` on, and the scale of what
/// they keep. Where there are no bits rows stay as they are.
#[derive(Clone, Copy)]
pub(super) struct RowMask {
    pub(super) words: *const u32,
    pub(super) step: usize,
    pub(super) shift: usize,
    pub(super) scale: f32,
}

impl RowMask {
    const NONE: Self = Self { words: std::ptr::null(), step: 0, shift: 0, scale: 1.0 };

    /// The same after so many rows.
    fn after_rows(self, rows: usize) -> Self {
        Self { words: self.words.wrapping_add(rows * self.step), ..self }
    }
}

impl AheadRows {
    /// Copies a row of `nr` floats, and goes on to the next.
    ///
    /// # Safety
    ///
    /// There is another row: its source is valid for reads, its place in the panel for writes, and
    /// the bits of its mask, if there is one, for reads.
    #[inline(always)]
    pub(in crate::gemm) unsafe fn copy_row<I: Isa>(&mut self, isa: I, nr: usize) {
        let mut line = 0;
        while line < nr.div_ceil(16) {
            isa.prefetch(self.prefetch.wrapping_offset(line as isize * self.line_step));
            line += 1;
        }
        let mut c = 0;
        // SAFETY: the caller's promise.
        unsafe {
            if !self.mask.words.is_null() {
                let word = isa.word(*self.mask.words >> self.mask.shift);
                while c < nr {
                    let x = isa.mul(isa.load(self.from.add(c)), isa.splat(self.mask.scale));
                    isa.store(self.to.add(c), isa.keep(isa.lanes(word, c), x));
                    c += I::LANES;
                }
                self.mask.words = self.mask.words.wrapping_add(self.mask.step);
            }
            while c < nr {
                isa.store(self.to.add(c), isa.load(self.from.add(c)));
                c += I::LANES;
            }
        }
        self.from = self.from.wrapping_add(self.from_step);
        self.to = self.to.wrapping_add(self.to_step);
        self.prefetch = self.prefetch.wrapping_add(self.prefetch_step);
    }
}

/// A panel of B that the tiles of the one before pack, or prefetch where it is packed: a cursor
/// that hands each tile its share. As many tiles as possible take part, so that memory has time.
pub(in crate::gemm) struct PackAhead {
    /// What the next tile does, but for what the tiles before it have done.
    rows: AheadRows,
    /// What a tile does that has nothing to do.
    idle: AheadRows,
    /// Rows to fetch, or columns where it is these that are contiguous; how many a tile fetches;
    /// and how many the tiles so far have fetched.
    count: usize,
    share: usize,
    fetched: usize,
    /// Floats from column to column, or 0 where rows are fetched.
    column_step: usize,
}

/// Four steps of k from a row's prefetch to its copy: enough to hide the latency of memory. The
/// rows between are few, since those a power of two apart evict each other.
const PREFETCH_DISTANCE: usize = 32;

impl PackAhead {
    /// Nothing; `idle` is a row that is copied to itself.
    pub(in crate::gemm) fn nothing(idle: *mut f32) -> Self {
        let idle = AheadRows {
            interval_mask: usize::MAX,
            from: idle,
            from_step: 0,
            to: idle,
            to_step: 0,
            prefetch: idle,
            prefetch_step: 0,
            line_step: 0,
            mask: RowMask::NONE,
        };
        Self { rows: idle, idle, count: 0, share: 0, fetched: 0, column_step: 0 }
    }

    /// For `tiles` tiles, the panel of `rows` rows of `nr` columns at `from`, which is packed to
    /// `to`.
    pub(in crate::gemm) fn copy(
        tiles: usize,
        (from, row_step): (*const f32, usize),
        (rows, nr): (usize, usize),
        to: *mut f32,
        idle: *mut f32,
    ) -> Self {
        let every = 1 << (tiles / 4).max(1).ilog2();
        let distance = (PREFETCH_DISTANCE / every).max(4);
        let copied = AheadRows {
            interval_mask: every - 1,
            from,
            from_step: row_step,
            to,
            to_step: nr,
            prefetch: from.wrapping_add(distance.wrapping_mul(row_step) + nr - 1),
            prefetch_step: row_step,
            line_step: -16,
            mask: RowMask::NONE,
        };
        let share = (rows / 4).div_ceil(every);
        Self { rows: copied, count: rows, share, ..Self::nothing(idle) }
    }

    /// The same panel with a dropout, whose bits are given for its first row.
    pub(super) fn masked(self, mask: RowMask) -> Self {
        Self { rows: AheadRows { mask, ..self.rows }, ..self }
    }

    /// For `tiles` tiles, a packed panel that is prefetched.
    pub(in crate::gemm) fn prefetch(
        tiles: usize,
        panel: *const f32,
        (rows, nr): (usize, usize),
        idle: *mut f32,
    ) -> Self {
        let copy = Self::copy(tiles, (panel, nr), (rows, nr), idle, idle);
        let prefetch = panel.wrapping_add(nr - 1);
        let rows = AheadRows { from: idle, from_step: 0, to_step: 0, prefetch, ..copy.rows };
        Self { rows, ..copy }
    }

    /// The panel of `nr` columns at `from`, each contiguous and `step` floats from the one before,
    /// is prefetched for the transposition that packs it: a column, a line in 16 steps of k, by
    /// each tile.
    pub(in crate::gemm) fn columns(
        from: *const f32,
        step: usize,
        nr: usize,
        idle: *mut f32,
    ) -> Self {
        let nothing = Self::nothing(idle);
        let rows = AheadRows {
            interval_mask: 3,
            prefetch: from,
            prefetch_step: 16,
            line_step: step as isize,
            ..nothing.idle
        };
        Self { rows, count: nr, share: nr.div_ceil(16), column_step: step, ..nothing }
    }

    /// Rows that are packed.
    pub(in crate::gemm) fn packed_rows(&self) -> usize {
        if self.rows.to_step == 0 { 0 } else { self.fetched }
    }

    /// What the next tile does.
    #[inline(always)]
    pub(in crate::gemm) fn next_tile(&mut self) -> AheadRows {
        let Self { rows, idle, count, share, fetched, column_step } = *self;
        if fetched >= count || share > count {
            return idle;
        }
        if column_step > 0 {
            self.fetched += share;
            let prefetch = rows.prefetch.wrapping_add(fetched * column_step);
            return AheadRows { prefetch, ..rows };
        }
        // The last share is whole too: its first rows come once more.
        let first = fetched.min(count - share);
        self.fetched = first + share;
        AheadRows {
            from: rows.from.wrapping_add(first * rows.from_step),
            to: rows.to.wrapping_add(first * rows.to_step),
            prefetch: rows.prefetch.wrapping_add(first * rows.prefetch_step),
            mask: rows.mask.after_rows(first),
            ..rows
        }
    }
}
