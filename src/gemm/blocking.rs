//! The arithmetic of blocking: sizes from the caches, rows into panels, and what to prefetch.

use super::GROUP;
use super::operand::Operand;
use super::tile::Ahead;
use crate::isa::{Caches, caches};

/// Up to so many rows a product is about reading B.
const SHALLOW_ROWS: usize = 64;

/// KC and MC for tiles of `mr` rows in a product of `rows` rows, if they are known.
///
/// 16 columns of a panel of B (KC x 16 floats) take three quarters of the level-1 cache, the rest
/// being for the panel of A that passes by and the tile of C: KC = 384 for 32 KiB, 512 for 48 KiB. A
/// panel of AVX-512 is twice as wide; its other half comes from the level-2 cache, which is fast
/// enough for one load in six multiply-adds. A block of A (MC x KC) takes half of the level-2 cache:
/// MC = 168 for 512 KiB.
///
/// With few rows KC is 384 at most: what is prefetched of B while a group of columns is multiplied
/// then has less than 256 KiB, and rows a power of two apart evict each other less.
pub(super) fn block_sizes(mr: usize, rows: Option<usize>) -> (usize, usize) {
    let Caches { level_1, level_2 } = caches();
    let most = if rows.is_some_and(|rows| rows <= SHALLOW_ROWS) { 384 } else { 512 };
    let kc = (level_1 * 3 / 4 / (4 * 16)).clamp(128, most) / 32 * 32;
    let mc = level_2 / 2 / (4 * kc) / mr * mr;
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

/// The cache lines of a part of B, handed out a column of lines at a time.
pub(super) struct Lines {
    at: *const f32,
    row_step: usize,
    rows: usize,
    row: usize,
    line: usize,
    lines: usize,
}

impl Lines {
    /// The elements of `b` that the group of columns after `col` will pack, to be prefetched by the
    /// tiles of this one: the rows of B are too far apart for the hardware to follow.
    pub(super) fn after(b: &Operand, depth: Depth, col: usize, end: usize) -> Self {
        let source = b.source();
        let next = col + GROUP;
        if !b.is_plain() || source.col_step != 1 || next >= end {
            return Self::none();
        }
        Self {
            at: source.near(depth.first, next),
            row_step: source.row_step,
            rows: depth.count,
            row: 0,
            line: 0,
            lines: GROUP.min(end - next).div_ceil(16),
        }
    }

    /// Nothing.
    pub(super) fn none() -> Self {
        Self { at: std::ptr::null(), row_step: 0, rows: 0, row: 0, line: 0, lines: 0 }
    }

    /// The lines for one tile, which prefetches one on each fourth step of k.
    #[inline(always)]
    pub(super) fn next(&mut self) -> Ahead {
        if self.line == self.lines {
            return Ahead { at: self.at, step: 0 };
        }
        let at = self.at.wrapping_add(self.row * self.row_step + self.line * 16);
        self.row += self.rows / 4;
        if self.row + self.rows / 4 > self.rows {
            (self.row, self.line) = (0, self.line + 1);
        }
        Ahead { at, step: self.row_step }
    }
}
