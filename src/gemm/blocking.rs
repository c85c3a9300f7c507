//! The arithmetic of blocking: sizes from the caches, rows into panels, and what to prefetch.

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

/// A panel of B that the tiles of the one before pack in passing.
pub(super) struct Packing {
    from: *const f32,
    row_step: usize,
    to: *mut f32,
    nr: usize,
    /// Rows to pack, and how many a tile packs.
    rows: usize,
    share: usize,
    /// Rows that are packed.
    pub(super) done: usize,
    /// What becomes of the elements.
    keep: Keep,
    /// What to copy and prefetch where there is nothing to do.
    idle: *mut f32,
}

/// Rows from the one that is packed to the one that is prefetched: enough to hide the latency of
/// memory, and few enough that rows a power of two apart do not evict each other.
const ROWS_AHEAD: usize = 32;

impl Packing {
    /// Nothing; `idle` is valid for writes of a row.
    pub(super) fn nothing(idle: *mut f32) -> Self {
        Self::new((idle, 0), (0, 0), idle, idle)
    }

    /// The `rows` rows of `nr` columns at `from`, which are packed to `to`.
    pub(super) fn new(
        (from, row_step): (*const f32, usize),
        (rows, nr): (usize, usize),
        to: *mut f32,
        idle: *mut f32,
    ) -> Self {
        let keep = Keep::ALL;
        Self { from, row_step, to, nr, rows, share: rows / 4, done: 0, keep, idle }
    }

    /// The same rows with a dropout: `keep` is for the first.
    pub(super) fn dropped(self, keep: Keep) -> Self {
        Self { keep, ..self }
    }

    /// The share of the next tile.
    #[inline(always)]
    pub(super) fn next(&mut self) -> Next {
        let Self { row_step, nr, done, keep, .. } = *self;
        if done + self.share > self.rows || self.share == 0 {
            let row = self.idle;
            return Next {
                from: row,
                from_step: 0,
                to: row,
                to_step: 0,
                ahead: row,
                ahead_step: 0,
                keep: Keep::ALL,
            };
        }
        self.done += self.share;
        let from = self.from.wrapping_add(done * row_step);
        Next {
            from,
            from_step: row_step,
            to: self.to.wrapping_add(done * nr),
            to_step: nr,
            ahead: from.wrapping_add(ROWS_AHEAD.wrapping_mul(row_step) + nr - 1),
            ahead_step: row_step,
            keep: keep.after_rows(done),
        }
    }
}
