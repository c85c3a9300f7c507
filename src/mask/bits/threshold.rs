//! Thresholds as a walk over the bit planes compares with them.

use crate::isa::Isa;

/// Vectors of Philox blocks in flight: two hide most of the multiplier's latency, a third would
/// spill AVX2's 16 registers.
pub(super) const VECTORS: usize = 2;
/// Most blocks of one walk, for buffers: those of AVX-512.
pub(super) const MAX_BLOCKS: usize = 8 * VECTORS;

/// The thresholds of a part of a matrix.
pub(super) trait Thresholds: Copy {
    /// Those of a row.
    type Row: Copy;
    /// Those of blocks that follow each other in a row.
    type Along: Threshold;
    /// What walks down the same rows have in common.
    type Rows: Default;
    /// Those of blocks below each other.
    type Down<'a>: Threshold;

    /// Those of row `row` of the part, or whether all of it is kept where U does not matter.
    fn row(self, row: usize) -> Result<Self::Row, bool>;

    /// For the blocks of a row from `block` on.
    fn along(row: Self::Row, block: usize) -> Self::Along;

    /// Makes `rows` that of the `count` rows (as many as a walk has blocks) from row `row` of the part on.
    fn set_rows(self, rows: &mut Self::Rows, row: usize, count: usize);

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

/// One threshold for all elements, neither 0 nor 2^32.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Single(u32);

impl Single {
    /// The threshold, or whether all is kept where U does not matter.
    #[inline(always)]
    pub(super) fn new(threshold: u64) -> Result<Self, bool> {
        match u32::try_from(threshold) {
            Ok(0) => Err(false),
            Ok(threshold) => Ok(Self(threshold)),
            Err(_) => Err(true),
        }
    }
}

impl Thresholds for Single {
    type Row = Self;
    type Along = Self;
    type Rows = ();
    type Down<'a> = Self;

    #[inline(always)]
    fn row(self, _: usize) -> Result<Self, bool> {
        Ok(self)
    }

    #[inline(always)]
    fn along(row: Self, _: usize) -> Self {
        row
    }

    #[inline(always)]
    fn set_rows(self, (): &mut (), _: usize, _: usize) {}

    #[inline(always)]
    fn down(self, (): &(), _: usize) -> Self {
        self
    }
}

impl Threshold for Single {
    #[inline(always)]
    fn depth(self) -> u32 {
        32 - self.0.trailing_zeros()
    }

    #[inline(always)]
    fn start<I: Isa>(self, isa: I, _: Place) -> (I::U64, I::U64) {
        (isa.splat_u64(0), isa.splat_u64(u64::MAX))
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
