//! Thresholds as a walk over the bit planes compares with them.

use crate::isa::Isa;

/// Vectors of Philox blocks in flight: two hide most of the multiplier's latency, a third would
/// spill AVX2's 16 registers.
pub(super) const VECTORS: usize = 2;
/// Most blocks of one walk, for buffers: those of AVX-512.
pub(super) const MAX_BLOCKS: usize = 8 * VECTORS;

/// The thresholds of a part of a matrix.
pub(super) trait Thresholds: Copy {
    /// Those of blocks that follow each other in a row.
    type Along: Threshold;
    /// Those of blocks below each other.
    type Down<'a>: Threshold;
    /// What walks down the same rows have in common.
    type Rows;

    /// For the blocks from `block` of row `row` of the part on.
    fn along(self, row: usize, block: usize) -> Self::Along;

    /// For the `count` rows (as many as a walk has blocks) from row `row` of the part on.
    fn rows(self, row: usize, count: usize) -> Self::Rows;

    /// For block `block` of those rows.
    fn down(self, rows: &Self::Rows, block: usize) -> Self::Down<'_>;
}

/// Half of a vector of blocks: columns 0 to 63 of each (half 0), or 64 to 127 (half 1).
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) vector: usize,
    pub(super) half: usize,
}

/// The thresholds of the elements of one walk.
///
/// U and T are compared from the highest bit down. An element is undecided while its bits so far equal those
/// of T. Where T has a one, an undecided element with a zero is below T and kept; where T has a zero,
/// one with a one is above and dropped. After T's last one nothing undecided can be kept.
pub(super) trait Threshold: Copy {
    /// Planes after which no threshold has a one.
    fn depth(self) -> u32;

    /// The elements that are kept without a look at U, since T is 2^32, and those that are undecided.
    fn start<I: Isa>(self, isa: I, place: Place) -> (I::U64, I::U64);

    /// What a plane says about undecided elements with these bits: those that it keeps, and those that
    /// stay undecided.
    fn compare<I: Isa>(
        self,
        isa: I,
        plane: u32,
        place: Place,
        undecided: I::U64,
        bits: I::U64,
    ) -> (I::U64, I::U64);
}

/// One threshold for all elements.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Single(u64);

impl Single {
    /// From 0 to 2^32.
    pub(super) fn new(threshold: u64) -> Self {
        Self(threshold)
    }
}

impl Thresholds for Single {
    type Along = Self;
    type Down<'a> = Self;
    type Rows = ();

    #[inline(always)]
    fn along(self, _: usize, _: usize) -> Self {
        self
    }

    #[inline(always)]
    fn rows(self, _: usize, _: usize) {}

    #[inline(always)]
    fn down(self, (): &(), _: usize) -> Self {
        self
    }
}

impl Threshold for Single {
    #[inline(always)]
    fn depth(self) -> u32 {
        32 - (self.0 as u32).trailing_zeros()
    }

    #[inline(always)]
    fn start<I: Isa>(self, isa: I, _: Place) -> (I::U64, I::U64) {
        let all = |condition: bool| isa.splat_u64(0u64.wrapping_sub(condition.into()));
        (all(self.0 >> 32 != 0), all(self.0 as u32 != 0))
    }

    #[inline(always)]
    fn compare<I: Isa>(
        self,
        isa: I,
        plane: u32,
        _: Place,
        undecided: I::U64,
        bits: I::U64,
    ) -> (I::U64, I::U64) {
        let zeros = isa.and_not_u64(bits, undecided);
        if (self.0 >> (31 - plane)) & 1 == 1 {
            (zeros, isa.and_u64(bits, undecided))
        } else {
            (isa.splat_u64(0), zeros)
        }
    }
}
