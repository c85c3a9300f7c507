//! Mask bits with a threshold of its own for each row or for each column.

use super::bits::{MAX_BLOCKS, Stream, VECTORS, Walk, fill_uniform};
use super::planes::{ALWAYS, LINES, OPEN, Planes};
use super::{MaskKey, RateAxis};
use crate::isa::{Isa, Kernel};
use crate::philox::LaneBlocks;
use crate::threads::Part;

/// Everything that the bits depend on, save the position.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RateStream {
    axis: RateAxis,
    key: MaskKey,
    thresholds: *const u64,
    count: usize,
    /// The lines of the columns' thresholds, for the key's origin.
    lines: Lines,
    depth: usize,
}

/// Where the bits of thresholds are: lines of numbers, as [`Planes`] has them.
#[derive(Clone, Copy, Debug)]
struct Lines {
    first: *const u64,
    /// From one line to the next, and from a line's first half to its second.
    line: usize,
    half: usize,
    /// Whether all lanes take the first number.
    splat: bool,
}

// SAFETY: thresholds and lines are read only.
unsafe impl Send for RateStream {}
// SAFETY: as above.
unsafe impl Sync for RateStream {}

impl RateStream {
    /// The bits of `key` with these thresholds, one for each row or column, and their planes, which
    /// outlive the operation.
    pub(super) fn new(thresholds: &[u64], axis: RateAxis, planes: &Planes, key: &MaskKey) -> Self {
        let (first, half) = (planes.numbers().as_ptr(), planes.stride());
        let lines = Lines { first, line: 2 * half, half, splat: false };
        let (count, depth) = (thresholds.len(), planes.depth());
        Self { axis, key: *key, thresholds: thresholds.as_ptr(), count, lines, depth }
    }

    /// Writes the bits of a part.
    ///
    /// # Safety
    ///
    /// What `self` was made of is alive, and there is a threshold for each row or column of the part.
    /// `out` is valid for writes of the part's rows, each padded to a word, `stride` words apart.
    #[inline(always)]
    pub(super) unsafe fn tile<I: Isa>(self, isa: I, part: Part, out: *mut u32, stride: usize) {
        isa.vectorize(RateWalk { stream: self, part, out, stride });
    }
}

/// Computes the bits of a part.
struct RateWalk {
    stream: RateStream,
    part: Part,
    out: *mut u32,
    stride: usize,
}

impl Kernel for RateWalk {
    type Output = ();

    // As with one threshold, lanes are blocks that lie along a row or down the rows, whichever takes
    // fewer walks. Along a row that has one threshold, the walk is that of a single rate.
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Part { rows, col, cols, .. } = self.part;
        let key = &self.stream.key;
        let lanes = VECTORS * I::WIDE;
        let offset = ((key.col0() + col as u64) % 128) as usize;
        let blocks = (offset + cols).div_ceil(128);
        let along = rows * blocks.div_ceil(lanes) <= blocks * rows.div_ceil(lanes);
        if along && self.stream.axis == RateAxis::Row {
            return self.row_by_row(isa);
        }
        for row in 0..rows {
            // SAFETY: row `row` of the part.
            unsafe { self.out.add(row * self.stride).write_bytes(0, cols.div_ceil(32)) };
        }
        let philox = LaneBlocks::new(isa, key.philox_key(), key.step(), key.last_word());
        match self.stream.axis {
            RateAxis::Row => self.rows(isa, &philox, blocks),
            RateAxis::Column => self.columns(isa, &philox, blocks, along),
        }
    }
}

impl RateWalk {
    /// Rows with a threshold each, next to each other in the lanes.
    #[inline(always)]
    fn rows<I: Isa>(&self, isa: I, philox: &LaneBlocks<I>, blocks: usize) {
        let thresholds = self.thresholds();
        let mut numbers = [[0; MAX_BLOCKS]; LINES];
        for row in (0..self.part.rows).step_by(VECTORS * I::WIDE) {
            let mut depth = 0;
            for lane in 0..VECTORS * I::WIDE {
                let threshold = thresholds.get(row + lane).copied().unwrap_or(0);
                let low = threshold as u32;
                depth = depth.max(32 - low.trailing_zeros() as usize);
                let all = |condition: bool| 0u64.wrapping_sub(u64::from(condition));
                for (plane, numbers) in numbers[..32].iter_mut().enumerate() {
                    numbers[lane] = all(low >> (31 - plane) & 1 == 1);
                }
                numbers[ALWAYS][lane] = all(threshold >> 32 != 0);
                numbers[OPEN][lane] = all(low != 0);
            }
            let first = numbers.as_ptr().cast();
            let lines = Lines { first, line: MAX_BLOCKS, half: 0, splat: false };
            for block in 0..blocks {
                self.place(isa, philox, lines, depth, (row, block), false);
            }
        }
    }

    /// Columns with a threshold each.
    #[inline(always)]
    fn columns<I: Isa>(&self, isa: I, philox: &LaneBlocks<I>, blocks: usize, along: bool) {
        let lanes = VECTORS * I::WIDE;
        let (row_step, block_step) = if along { (1, lanes) } else { (lanes, 1) };
        let RateStream { lines, depth, .. } = self.stream;
        let before = ((self.stream.key.col0() % 128) as usize + self.part.col) / 128;
        for block in (0..blocks).step_by(block_step) {
            // SAFETY: the planes have numbers for all blocks of the matrix.
            let first = unsafe { lines.first.add(before + block) };
            let lines = Lines { first, splat: !along, ..lines };
            for row in (0..self.part.rows).step_by(row_step) {
                self.place(isa, philox, lines, depth, (row, block), along);
            }
        }
    }

    /// The thresholds of the part's rows.
    fn thresholds(&self) -> &[u64] {
        let RateStream { thresholds, count, .. } = self.stream;
        // SAFETY: `RateStream::tile` was promised that they are alive.
        let thresholds = unsafe { std::slice::from_raw_parts(thresholds, count) };
        &thresholds[self.part.row..self.part.row + self.part.rows]
    }

    #[inline(always)]
    fn row_by_row<I: Isa>(&self, isa: I) {
        let Part { row, col, cols, .. } = self.part;
        for (r, &threshold) in self.thresholds().iter().enumerate() {
            let part = Part { row: row + r, rows: 1, col, cols };
            // SAFETY: row `r` of the part.
            let out = unsafe { self.out.add(r * self.stride) };
            match u32::try_from(threshold) {
                Ok(threshold) if threshold > 0 => {
                    let stream = Stream::new(threshold, &self.stream.key);
                    isa.vectorize(Walk { stream, part, out, stride: self.stride });
                }
                // SAFETY: row `r` of the part.
                kept => unsafe { fill_uniform(kept.is_err(), 1, cols, out, self.stride) },
            }
        }
    }

    /// Walks the blocks from row `row` and block `block` of the part on, and puts their bits where
    /// they belong.
    #[inline(always)]
    fn place<I: Isa>(
        &self,
        isa: I,
        philox: &LaneBlocks<I>,
        lines: Lines,
        depth: usize,
        (row, block): (usize, usize),
        along: bool,
    ) {
        let key = &self.stream.key;
        let first = key.col0() + self.part.col as u64;
        let logical_block = first / 128 + block as u64;
        let logical_row = key.row0() + (self.part.row + row) as u64;
        let mut bits = [0u32; 4 * MAX_BLOCKS];
        walk(isa, philox, (lines, depth), (logical_row, logical_block), along, &mut bits);
        for (lane, bits) in bits.as_chunks::<4>().0.iter().take(VECTORS * I::WIDE).enumerate() {
            let (row, block) = if along { (row, block + lane) } else { (row + lane, block) };
            if row < self.part.rows {
                // SAFETY: row `row` of the part.
                let out = unsafe {
                    let words = self.part.cols.div_ceil(32);
                    std::slice::from_raw_parts_mut(self.out.add(row * self.stride), words)
                };
                put(bits, 128 * block, (first % 128) as usize, self.part.cols, out);
            }
        }
    }
}

/// Adds the bits of a block to a row that starts at bit `offset` of its first block; `first` is the
/// block's first bit.
#[inline(always)]
fn put(bits: &[u32; 4], first: usize, offset: usize, cols: usize, out: &mut [u32]) {
    for (i, &bits) in bits.iter().enumerate() {
        let at = first + 32 * i;
        // Bits before the first column and after the last are not the part's.
        let (bits, at) = if at >= offset {
            (bits, at - offset)
        } else if at + 32 > offset {
            (bits >> (offset - at), 0)
        } else {
            continue;
        };
        if at >= cols {
            return;
        }
        let left = cols - at;
        let bits = if left < 32 { bits & ((1 << left) - 1) } else { bits };
        let pair = u64::from(bits) << (at % 32);
        out[at / 32] |= pair as u32;
        if let (Some(next), true) = (out.get_mut(at / 32 + 1), pair >> 32 != 0) {
            *next |= (pair >> 32) as u32;
        }
    }
}

/// The bits of `VECTORS * WIDE` blocks, four words each.
///
/// As with one threshold, an element is undecided while its bits so far equal those of its own `T`;
/// then one with a zero where T has a one is kept, and one with a one where T has a zero is dropped.
#[inline(always)]
fn walk<I: Isa>(
    isa: I,
    philox: &LaneBlocks<I>,
    (lines, depth): (Lines, usize),
    (row, block): (u64, u64),
    along: bool,
    out: &mut [u32; 4 * MAX_BLOCKS],
) {
    let zero = isa.splat_u64(0);
    let mut shared = [philox.share(isa, zero, zero); VECTORS];
    let (mut keep, mut undecided) = ([[zero; 2]; VECTORS], [[zero; 2]; VECTORS]);
    for v in 0..VECTORS {
        let next = (v * I::WIDE) as u64;
        let (c0, c1) = if along {
            (isa.iota_u64(block + next), isa.splat_u64(row))
        } else {
            (isa.splat_u64(block), isa.iota_u64(row + next))
        };
        shared[v] = philox.share(isa, c0, c1);
        for h in 0..2 {
            keep[v][h] = lines.lanes(isa, ALWAYS, h, v);
            undecided[v][h] = lines.lanes(isa, OPEN, h, v);
        }
    }
    for plane in 0..depth {
        let bits = philox.plane(isa, &shared, plane as u32);
        let mut left = zero;
        for v in 0..VECTORS {
            for h in 0..2 {
                let (u, b, t) = (undecided[v][h], bits[v][h], lines.lanes(isa, plane, h, v));
                let below = isa.and_not_u64(b, isa.and_u64(u, t));
                keep[v][h] = isa.or_u64(keep[v][h], below);
                undecided[v][h] = isa.and_not_u64(isa.xor_u64(b, t), u);
                left = isa.or_u64(left, undecided[v][h]);
            }
        }
        if isa.is_zero(left) {
            break;
        }
    }
    for (v, [low, high]) in keep.into_iter().enumerate() {
        let at = &mut out[v * 4 * I::WIDE..][..4 * I::WIDE];
        // SAFETY: the slice has 4 * WIDE words.
        unsafe { isa.store_zipped(at.as_mut_ptr(), low, high) };
    }
}

impl Lines {
    /// The lanes of vector `v` in a half of a line.
    #[inline(always)]
    fn lanes<I: Isa>(self, isa: I, line: usize, half: usize, v: usize) -> I::U64 {
        // SAFETY: a line has numbers for as many blocks as a walk has, from any block of the matrix on.
        unsafe {
            let first = self.first.add(line * self.line + half * self.half);
            if self.splat { isa.splat_u64(*first) } else { isa.load_u64(first.add(v * I::WIDE)) }
        }
    }
}
