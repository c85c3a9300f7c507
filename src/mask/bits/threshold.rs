//! Thresholds as a walk over the bit planes compares with them.

use std::num::NonZeroU32;

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

    /// Makes `rows` that of the `count` rows (as many as a walk has blocks) from row `row` of the
    /// part on.
    fn set_rows(self, rows: &mut Self::Rows, row: usize, count: usize);

    /// For block `block` of those rows.
    fn down(self, rows: &Self::Rows, block: usize) -> Self::Down<'_>;

    /// The threshold of all elements of all parts, if the type says that there is only one.
    #[inline(always)]
    fn single(self) -> Option<Single> {
        None
    }
}

/// Half of a vector of blocks: columns 0 to 63 of each (half 0), or 64 to 127 (half 1).
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) vector: usize,
    pub(super) half: usize,
}

/// The elements of half of a vector, a bit each.
#[derive(Clone, Copy)]
pub(super) struct Elements<I: Isa> {
    pub(super) keep: I::U64,
    pub(super) undecided: I::U64,
}

/// The thresholds of the elements of one walk.
///
/// U and T are compared from the highest bit down. An element is undecided while its bits so far
/// equal those of T. Where T has a one, an undecided element with a zero is below T and kept; where
/// T has a zero, one with a one is above and dropped. After T's last one nothing undecided can be
/// kept.
pub(super) trait Threshold: Copy {
    /// The last plane in which a threshold has a one; 0 where none has.
    fn last(self) -> u32;

    /// Before the first plane: kept is what has a T of 2^32, undecided what has one below that and
    /// above 0.
    fn start<I: Isa>(self, isa: I, place: Place) -> Elements<I>;

    /// After one more plane, in which U has these bits.
    fn compare<I: Isa>(
        self,
        isa: I,
        plane: u32,
        place: Place,
        elements: Elements<I>,
        bits: I::U64,
    ) -> Elements<I>;
}

/// One threshold for all elements, neither 0 nor 2^32.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Single(NonZeroU32);

impl Single {
    /// The threshold, or whether all is kept where U does not matter.
    #[inline(always)]
    pub(super) fn new(threshold: u64) -> Result<Self, bool> {
        match u32::try_from(threshold) {
            Ok(threshold) => NonZeroU32::new(threshold).map(Self).ok_or(false),
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

    #[inline(always)]
    fn single(self) -> Option<Single> {
        Some(self)
    }
}

impl Threshold for Single {
    #[inline(always)]
    fn last(self) -> u32 {
        31 - self.0.trailing_zeros()
    }

    #[inline(always)]
    fn start<I: Isa>(self, isa: I, _: Place) -> Elements<I> {
        Elements { keep: isa.splat_u64(0), undecided: isa.splat_u64(u64::MAX) }
    }

    #[inline(always)]
    fn compare<I: Isa>(
        self,
        isa: I,
        plane: u32,
        _: Place,
        Elements { keep, undecided }: Elements<I>,
        bits: I::U64,
    ) -> Elements<I> {
        let zeros = isa.and_not_u64(bits, undecided);
        if (self.0.get() >> (31 - plane)) & 1 == 1 {
            Elements { keep: isa.or_u64(keep, zeros), undecided: isa.and_u64(bits, undecided) }
        } else {
            Elements { keep, undecided: zeros }
        }
    }
}
