//! The order of a sum over a row: 16 virtual lanes, column c in lane c % 16, then a fixed tree. It
//! depends on nothing but the number of columns, so every level has the same bits.

use std::ops::AddAssign;

use crate::isa::Isa;

/// Virtual lanes of a sum over a row.
pub(crate) const LANES: usize = 16;

/// The virtual lanes in vectors, of which the first [`vectors`] are used.
pub(crate) type Sixteen<I> = [<I as crate::isa::F32Lanes>::F32; LANES];

/// Vectors that hold the virtual lanes.
#[inline(always)]
pub(crate) fn vectors<I: Isa>() -> usize {
    LANES / I::LANES
}

/// The sum of the lanes, in the tree.
#[inline(always)]
pub(crate) fn tree<T: Copy + AddAssign>(mut lanes: [T; LANES]) -> T {
    for half in [8, 4, 2, 1] {
        for i in 0..half {
            lanes[i] += lanes[i + half];
        }
    }
    lanes[0]
}
