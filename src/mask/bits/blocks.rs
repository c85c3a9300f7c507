//! One walk over the bit planes: some blocks, a lane each.

use super::threshold::{Elements, Place, Threshold, VECTORS};
use crate::isa::Isa;
use crate::philox::LaneBlocks;

/// Columns of the piece of a row whose blocks are walked over together: a multiple of those of any
/// walk.
pub(super) const PIECE: usize = 8192;

/// The blocks of one walk, a lane each.
#[derive(Clone, Copy)]
pub(super) struct Blocks<I: Isa> {
    /// The first two words of their counters: blocks of columns, and rows.
    pub(super) blocks: [I::U64; VECTORS],
    pub(super) rows: [I::U64; VECTORS],
    /// The elements whose bits matter, columns 0 to 63 and 64 to 127; those of others are 0. The
    /// fewer they are, the sooner none is undecided.
    pub(super) needed: [[I::U64; 2]; VECTORS],
}

impl<I: Isa> Blocks<I> {
    /// Blocks from (`row`, `block`) of the mask on, along the row or down the rows.
    #[inline(always)]
    pub(super) fn from(isa: I, row: u64, block: u64, along: bool) -> Self {
        let (mut blocks, mut rows) =
            ([isa.splat_u64(block); VECTORS], [isa.splat_u64(row); VECTORS]);
        for vector in 0..VECTORS {
            let next = (vector * I::WIDE) as u64;
            if along {
                blocks[vector] = isa.iota_u64(block + next);
            } else {
                rows[vector] = isa.iota_u64(row + next);
            }
        }
        Self { blocks, rows, needed: [[isa.splat_u64(u64::MAX); 2]; VECTORS] }
    }
}

/// The bits of `VECTORS * WIDE` blocks, four words each.
#[inline(always)]
pub(super) fn walk<I: Isa, T: Threshold>(
    isa: I,
    lanes: &LaneBlocks<I>,
    threshold: T,
    Blocks { blocks, rows, needed }: Blocks<I>,
    out: &mut [u32],
) {
    let zero = isa.splat_u64(0);
    let mut shared = [lanes.share(isa, zero, zero); VECTORS];
    let mut elements = [[Elements { keep: zero, undecided: zero }; 2]; VECTORS];
    for vector in 0..VECTORS {
        shared[vector] = lanes.share(isa, blocks[vector], rows[vector]);
        for (half, elements) in elements[vector].iter_mut().enumerate() {
            let start = threshold.start(isa, Place { vector, half });
            let undecided = isa.and_u64(start.undecided, needed[vector][half]);
            *elements = Elements { undecided, ..start };
        }
    }
    // An inclusive range: its counter stays a 32-bit number, and so does what is multiplied with
    // it.
    for plane in 0..=threshold.last() {
        let bits = lanes.plane(isa, &shared, plane);
        let mut left = zero;
        for vector in 0..VECTORS {
            for half in 0..2 {
                let (place, bits) = (Place { vector, half }, bits[vector][half]);
                let after = threshold.compare(isa, plane, place, elements[vector][half], bits);
                elements[vector][half] = after;
                left = isa.or_u64(left, after.undecided);
            }
        }
        if isa.is_zero(left) {
            break;
        }
    }
    for (vector, [low, high]) in elements.into_iter().enumerate() {
        let at = &mut out[vector * 4 * I::WIDE..][..4 * I::WIDE];
        // SAFETY: the slice has 4 * WIDE words.
        unsafe { isa.store_zipped(at.as_mut_ptr(), low.keep, high.keep) };
    }
}
