//! The arithmetic of blocking: sizes from the caches, and rows into panels.

use super::GROUP;
use crate::isa::caches;

/// Up to so many rows a product is about reading B.
const SHALLOW_ROWS: usize = 128;

/// KC and MC for tiles of `mr` rows in a product of `rows` rows, if they are known, and depth `k`.
///
/// A product of depth 1024 or less is one block of k: its sums never wait in memory, which saves
/// more than a panel of B in the level-1 cache would. The panel (KC x 16 floats, 64 KiB at most)
/// streams from the level-2 cache, two loads in twelve multiply-adds.
///
/// A deeper product of few rows has KC = 384: its time is that of reading B, and rows of B a power
/// of two apart evict each other less when there are fewer of them.
///
/// A block of A (MC x KC) takes the level-2 cache at most: MC = 128 for 512 KiB and KC = 1024.
/// Panels of it pass once for each panel of B, in order, so the hardware fetches what is not there.
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

/// Rows cut into panels of at most `mr` whose heights differ by one at most, so that no tile is
/// much smaller than the others: (first row, rows) of each.
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
