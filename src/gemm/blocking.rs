//! The arithmetic of blocking: sizes from the caches, rows into panels, and what to prefetch.

use super::GROUP;
use super::tile::{Keep, Next};
use crate::isa::caches;

/// Up to so many rows a product is about reading B.
const SHALLOW_ROWS: usize = 128;

/// KC and MC for tiles of `mr` rows in a product of `rows` rows, if they are known, and depth `k`.
///
/// A product of depth 1024 or less is one block of k: its sums never wait in memory, which saves
/// more than a panel of B in the level-1 cache would. The panel (KC x 16 floats, 64 KiB at most)
/// streams from the level-2 cache, two loads in twelve multiply-adds.
///
/// A deeper product of few rows has KC = 384: its time is that of reading B, and rows of B a power of
/// two apart evict each other less when there are fewer of them.
///
/// A block of A (MC x KC) takes the level-2 cache at most: MC = 128 for 512 KiB and KC = 1024. Panels
/// of it pass once for each panel of B, in order, so the hardware fetches what is not there.
pub(super) fn block_sizes(mr: usize, rows: Option<usize>, k: usize) -> (usize, usize) {
    let shallow = rows.is_some_and(|rows| rows <= SHALLOW_ROWS) && k > 1024;
    let kc = balanced(k, if shallow { 384 } else { 1024 }, 32);
    let mc = caches().level_2 / (4 * kc) / mr * mr;
    (kc, mc.max(mr))
}

/// NC: columns of B that stay packed, for more blocks of A: a quarter of the level-3 cache.
pub(super) fn column_block(kc: usize) -> usize {
    (caches().level_3 / (16 * kc) / GROUP * GROUP).max(GROUP)
}

/// `n` cut into the fewest parts of at most `most`: the size of a part, a multiple of `multiple`.
pub(super) fn balanced(n: usize, most: usize, multiple: usize) -> usize {
    let parts = n.div_ceil(most).max(1);
    n.div_ceil(parts).next_multiple_of(multiple).max(multiple)
}

/// Rows cut into panels of at most `mr` whose heights differ by one at most, so that no tile is much
/// smaller than the others: (first row, rows) of each.
pub(super) fn panels(rows: usize, mr: usize) -> impl Iterator<Item = (usize, usize)> {
    let count = rows.div_ceil(mr).max(1);
    let (height, higher) = (rows / count, rows % count);
    (0..count).map(move |i| (i * height + i.min(higher), height + usize::from(i < higher)))
}

/// A block of k: its range, and whether sums start or end in it.
#[derive(Clone, Copy)]
pub(super) struct Depth {
    pub(super) first: usize,
    pub(super) count: usize,
    pub(super) starts: bool,
    pub(super) ends: bool,
}

/// A panel of B that the tiles of the one before fetch in passing: they pack it, or prefetch it where it
/// is packed. As many tiles as possible take part, so that memory has time.
pub(super) struct Packing {
    /// What the next tile does.
    next: Next,
    /// What a tile does that has nothing to do.
    idle: Next,
    /// Rows to fetch, or columns where it is these that are contiguous; how many a tile fetches; and how
    /// many the tiles so far have fetched.
    count: usize,
    share: usize,
    fetched: usize,
    /// AlignedBuffer from column to column, or 0 where rows are fetched.
    column_step: usize,
}

/// Four steps of k from a row's prefetch to its copy: enough to hide the latency of memory. The rows
/// between are few, since those a power of two apart evict each other.
const AHEAD: usize = 32;

impl Packing {
    /// Nothing; `idle` is a row that is copied to itself.
    pub(super) fn nothing(idle: *mut f32) -> Self {
        let idle = Next {
            mask: usize::MAX,
            from: idle,
            from_step: 0,
            to: idle,
            to_step: 0,
            ahead: idle,
            ahead_step: 0,
            line_step: 0,
            keep: Keep::ALL,
        };
        Self { next: idle, idle, count: 0, share: 0, fetched: 0, column_step: 0 }
    }

    /// For `tiles` tiles, the panel of `rows` rows of `nr` columns at `from`, which is packed to `to`.
    pub(super) fn copy(
        tiles: usize,
        (from, row_step): (*const f32, usize),
        (rows, nr): (usize, usize),
        to: *mut f32,
        idle: *mut f32,
    ) -> Self {
        let every = 1 << (tiles / 4).max(1).ilog2();
        let ahead = from.wrapping_add((AHEAD / every).max(4).wrapping_mul(row_step) + nr - 1);
        let next = Next {
            mask: every - 1,
            from,
            from_step: row_step,
            to,
            to_step: nr,
            ahead,
            ahead_step: row_step,
            line_step: -16,
            keep: Keep::ALL,
        };
        let share = (rows / 4).div_ceil(every);
        Self { next, count: rows, share, ..Self::nothing(idle) }
    }

    /// The same panel with a dropout: `keep` is for its first row.
    pub(super) fn dropped(self, keep: Keep) -> Self {
        Self { next: Next { keep, ..self.next }, ..self }
    }

    /// For `tiles` tiles, a packed panel that is prefetched.
    pub(super) fn prefetch(
        tiles: usize,
        panel: *const f32,
        (rows, nr): (usize, usize),
        idle: *mut f32,
    ) -> Self {
        let copy = Self::copy(tiles, (panel, nr), (rows, nr), idle, idle);
        let ahead = panel.wrapping_add(nr - 1);
        Self { next: Next { from: idle, from_step: 0, to_step: 0, ahead, ..copy.next }, ..copy }
    }

    /// The panel of `nr` columns at `from`, each contiguous and `step` floats from the one before, is
    /// prefetched for the transposition that packs it: a column, a line in 16 steps of k, by each tile.
    pub(super) fn columns(from: *const f32, step: usize, nr: usize, idle: *mut f32) -> Self {
        let nothing = Self::nothing(idle);
        let line_step = step as isize;
        let next = Next { mask: 3, ahead: from, ahead_step: 16, line_step, ..nothing.idle };
        Self { next, count: nr, share: nr.div_ceil(16), column_step: step, ..nothing }
    }

    /// Rows that are packed.
    pub(super) fn done(&self) -> usize {
        if self.next.to_step == 0 { 0 } else { self.fetched }
    }

    /// What the next tile does.
    #[inline(always)]
    pub(super) fn next(&mut self) -> Next {
        let Self { next, idle, count, share, fetched, column_step } = *self;
        if fetched >= count || share > count {
            return idle;
        }
        if column_step > 0 {
            self.fetched += share;
            return Next { ahead: next.ahead.wrapping_add(fetched * column_step), ..next };
        }
        // The last share is whole too: its first rows come once more.
        let first = fetched.min(count - share);
        self.fetched = first + share;
        Next {
            from: next.from.wrapping_add(first * next.from_step),
            to: next.to.wrapping_add(first * next.to_step),
            ahead: next.ahead.wrapping_add(first * next.ahead_step),
            keep: next.keep.after_rows(first),
            ..next
        }
    }
}
