//! Mask bits for kernels: made where they are needed, or read from a stored mask.

use super::rate_walk::RateStream;
use super::repeat::Repeat;
use super::transposed::TransposedWalk;
use super::{Dropout, Mask, MaskKey};
use crate::isa::{Isa, Kernel};
use crate::philox::LaneBlocks;
use crate::threads::Part;

/// Vectors of Philox blocks in flight: two hide most of the multiplier's latency, a third would
/// spill AVX2's 16 registers.
pub(super) const VECTORS: usize = 2;
/// Most blocks of one walk, for buffers: those of AVX-512.
pub(super) const MAX_BLOCKS: usize = 8 * VECTORS;

/// Columns of the widest tile of bits.
pub(crate) const TILE_COLS: usize = 4096;
/// Words of the largest tile of bits: a page, which stays in the level-1 cache beside the data.
pub(crate) const TILE_WORDS: usize = 1024;

/// Where the bits of an operation come from, and whether they are stored on the way.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Bits {
    /// Everything is kept, or nothing is.
    Uniform(bool, Option<Words>),
    /// Computed from a key.
    Key(Stream, Option<Words>),
    /// Computed from a key, for the transposed matrix.
    Transposed(Stream),
    /// Read from a stored mask.
    Stored(Words),
    /// Computed from a key, with a rate for each row or column.
    Rates(RateStream, Option<Words>),
    /// Read from a reduced mask, for a matrix of one row.
    Repeated(Repeat),
}

/// The words of a [`Mask`] that outlives the operation, written in disjoint parts by its tasks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Words {
    ptr: *mut u32,
    stride: usize,
}

// SAFETY: tasks read a stored mask, or write disjoint parts of one that is borrowed exclusively.
unsafe impl Send for Words {}
// SAFETY: as above.
unsafe impl Sync for Words {}

/// Everything that the bits of one mask depend on, save the position.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stream {
    key: [u32; 2],
    step: u32,
    last: u32,
    /// `T`, neither 0 nor 2^32.
    threshold: u32,
    row0: u64,
    col0: u64,
}

/// The bits of a tile: those of row `r` start at `words[r * stride]`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tile {
    pub(crate) words: *const u32,
    pub(crate) stride: usize,
}

impl Stream {
    /// The bits of `key` at a threshold that is neither 0 nor 2^32.
    pub(super) fn new(threshold: u32, key: &MaskKey) -> Self {
        Self {
            key: key.philox_key(),
            step: key.step(),
            last: key.last_word(),
            threshold,
            row0: key.row0(),
            col0: key.col0(),
        }
    }

    /// Columns from `col` on, one at least, that are in the same block of the mask.
    pub(super) fn columns_to_block_end(&self, col: usize) -> usize {
        128 - ((self.col0 + col as u64) % 128) as usize
    }
}

impl Mask {
    /// Where an operation stores its bits.
    pub(super) fn words_mut(&mut self) -> Words {
        Words { stride: self.words_per_row(), ptr: self.words.as_mut_ptr() }
    }
}

impl Bits {
    /// The bits of `key`, stored in `save` (which has the shape of the operation) if it is there.
    pub(crate) fn generate(dropout: &Dropout, key: &MaskKey, save: Option<&mut Mask>) -> Self {
        let save = save.map(Mask::words_mut);
        match u32::try_from(dropout.threshold()) {
            Err(_) => Bits::Uniform(true, save),
            Ok(0) => Bits::Uniform(false, save),
            Ok(threshold) => Bits::Key(Stream::new(threshold, key), save),
        }
    }

    /// The bits of `key` for the transposed matrix: bit (r, c) is that of row c, column r of the mask.
    pub(crate) fn generate_transposed(dropout: &Dropout, key: &MaskKey) -> Self {
        match Self::generate(dropout, key, None) {
            Bits::Key(stream, _) => Bits::Transposed(stream),
            uniform => uniform,
        }
    }

    /// The bits of `part` alone, which are in `tile`; its first column is a multiple of 32.
    pub(crate) fn made(tile: Tile, part: Part) -> Self {
        let before = part.row.wrapping_mul(tile.stride).wrapping_add(part.col / 32);
        let ptr = tile.words.wrapping_sub(before).cast_mut();
        Bits::Stored(Words { ptr, stride: tile.stride })
    }

    /// Where the word with the bit of (row, col) is, if the bits are in memory and only read.
    pub(crate) fn in_memory(self, row: usize, col: usize) -> Option<Tile> {
        match self {
            Bits::Stored(Words { ptr, stride }) => {
                let words = ptr.cast_const().wrapping_add(row * stride + col / 32);
                Some(Tile { words, stride })
            }
            _ => None,
        }
    }

    /// The bits of a stored mask.
    pub(crate) fn stored(mask: &Mask) -> Self {
        let words = Words { ptr: mask.words.as_ptr().cast_mut(), stride: mask.words_per_row() };
        Bits::Stored(words)
    }

    /// The bits of a stored mask of one row, the same for every row of the operation.
    pub(crate) fn same_for_all_rows(mask: &Mask) -> Self {
        Bits::Stored(Words { ptr: mask.words.as_ptr().cast_mut(), stride: 0 })
    }

    /// The bits of `part`, in `scratch` where they are not stored.
    ///
    /// # Safety
    ///
    /// The mask that `self` was made of is alive and covers the part, whose first column is a
    /// multiple of 32; its other columns end there or at a multiple of 32. If the bits are stored,
    /// no other task accesses the part. If they are not, `scratch` has room for them, each row padded to
    /// a word.
    #[inline(always)]
    pub(crate) unsafe fn tile<I: Isa>(self, isa: I, part: Part, scratch: &mut [u32]) -> Tile {
        let words = part.cols.div_ceil(32);
        let place = |save: Option<Words>, scratch: &mut [u32]| match save {
            Some(w) => (w.ptr.wrapping_add(part.row * w.stride + part.col / 32), w.stride),
            None => (scratch[..part.rows * words].as_mut_ptr(), words),
        };
        match self {
            Bits::Stored(stored) => {
                let (words, stride) = place(Some(stored), scratch);
                Tile { words, stride }
            }
            Bits::Uniform(keep, save) => {
                let (out, stride) = place(save, scratch);
                // SAFETY: the caller's promise about the part.
                unsafe { fill_uniform(keep, part.rows, part.cols, out, stride) };
                Tile { words: out, stride }
            }
            Bits::Key(stream, save) => {
                let (out, stride) = place(save, scratch);
                isa.vectorize(Walk { stream, part, out, stride });
                Tile { words: out, stride }
            }
            Bits::Transposed(stream) => {
                let (out, stride) = place(None, scratch);
                isa.vectorize(TransposedWalk { stream, part, out, stride });
                Tile { words: out, stride }
            }
            Bits::Rates(stream, save) => {
                let (out, stride) = place(save, scratch);
                // SAFETY: the caller's promise about the part.
                unsafe { stream.tile(isa, part, out, stride) };
                Tile { words: out, stride }
            }
            Bits::Repeated(repeat) => {
                // SAFETY: the caller's promise that the mask is alive.
                unsafe { repeat.spread(part.col, part.cols, scratch) };
                Tile { words: scratch.as_ptr(), stride: words }
            }
        }
    }
}

/// Fills a part of the mask that `bits` stores into.
#[derive(Clone, Copy)]
pub(crate) struct Fill {
    pub(crate) bits: Bits,
    pub(crate) part: Part,
}

impl Kernel for Fill {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        // SAFETY: `Mask::fill` borrows the mask until all its tasks, whose parts are disjoint and
        // start at multiples of 32 columns, are done; nothing needs scratch space.
        unsafe { self.bits.tile(isa, self.part, &mut []) };
    }
}

/// The word whose first `n` bits (all for 32 or more) are ones.
#[inline(always)]
pub(super) fn first_bits(n: usize) -> u32 {
    if n >= 32 { !0 } else { (1 << n) - 1 }
}

/// # Safety
///
/// `out` is valid for writes of `rows` rows of `cols.div_ceil(32)` words, `stride` apart.
pub(super) unsafe fn fill_uniform(
    keep: bool,
    rows: usize,
    cols: usize,
    out: *mut u32,
    stride: usize,
) {
    for row in 0..rows {
        for word in 0..cols.div_ceil(32) {
            let value = if keep { first_bits(cols - 32 * word) } else { 0 };
            // SAFETY: the caller's promise.
            unsafe { *out.add(row * stride + word) = value };
        }
    }
}

/// Computes the bits of a part.
pub(super) struct Walk {
    pub(super) stream: Stream,
    pub(super) part: Part,
    pub(super) out: *mut u32,
    pub(super) stride: usize,
}

impl Kernel for Walk {
    type Output = ();

    // Lanes are blocks. They lie along a row, or down the rows of one block of columns, whichever
    // takes fewer walks; a walk always does `blocks` blocks.
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Part { rows, col, cols, .. } = self.part;
        let blocks = VECTORS * I::WIDE;
        let offset = ((self.stream.col0 + col as u64) % 128) as usize;
        let across = (offset + cols).div_ceil(128);
        let down = across * rows.div_ceil(blocks) < rows * across.div_ceil(blocks);
        let lanes = LaneBlocks::new(isa, self.stream.key, self.stream.step, self.stream.last);
        if down && across <= MAX_BLOCKS {
            self.down_rows(isa, &lanes, offset, across);
        } else {
            self.along_rows(isa, &lanes, offset);
        }
    }
}

impl Walk {
    #[inline(always)]
    fn along_rows<I: Isa>(&self, isa: I, lanes: &LaneBlocks<I>, offset: usize) {
        let Part { row, rows, col, cols } = self.part;
        let step = 4 * VECTORS * I::WIDE;
        let first = (self.stream.col0 + col as u64) / 128;
        for r in 0..rows {
            let logical_row = self.stream.row0 + (row + r) as u64;
            // Whole walks that start at a whole block go where they belong at once.
            let direct = if offset == 0 { cols / 32 / step * step } else { 0 };
            for word in (0..direct).step_by(step) {
                // SAFETY: `word + step` words lie in row `r`, which `Bits::tile` was promised.
                let at = unsafe {
                    std::slice::from_raw_parts_mut(self.out.add(r * self.stride + word), step)
                };
                self.walk(isa, lanes, first + word as u64 / 4, logical_row, true, at);
            }
            if 32 * direct == cols {
                continue;
            }
            let mut buffer = [0u32; TILE_COLS / 32 + 8 * MAX_BLOCKS];
            for piece in (32 * direct..cols).step_by(TILE_COLS) {
                let piece_cols = (cols - piece).min(TILE_COLS);
                for word in (0..(offset + piece_cols).div_ceil(32)).step_by(step) {
                    let block = first + (piece / 128 + word / 4) as u64;
                    self.walk(isa, lanes, block, logical_row, true, &mut buffer[word..][..step]);
                }
                // SAFETY: the rest of row `r`, from a multiple of 32 columns on.
                unsafe {
                    let out = self.out.add(r * self.stride + piece / 32);
                    copy_bits(&buffer, offset, piece_cols, out);
                }
            }
        }
    }

    #[inline(always)]
    fn down_rows<I: Isa>(&self, isa: I, lanes: &LaneBlocks<I>, offset: usize, across: usize) {
        let Part { row, rows, col, cols } = self.part;
        let blocks = VECTORS * I::WIDE;
        let first = (self.stream.col0 + col as u64) / 128;
        let mut columns = [[0u32; 4 * MAX_BLOCKS]; MAX_BLOCKS];
        let mut buffer = [0u32; 4 * MAX_BLOCKS + 8];
        for top in (0..rows).step_by(blocks) {
            let logical_row = self.stream.row0 + (row + top) as u64;
            for (b, column) in columns[..across].iter_mut().enumerate() {
                let at = &mut column[..4 * blocks];
                self.walk(isa, lanes, first + b as u64, logical_row, false, at);
            }
            for r in top..rows.min(top + blocks) {
                for (b, column) in columns[..across].iter().enumerate() {
                    buffer[4 * b..4 * b + 4].copy_from_slice(&column[4 * (r - top)..][..4]);
                }
                // SAFETY: row `r` of the part, which `Bits::tile` was promised.
                unsafe { copy_bits(&buffer, offset, cols, self.out.add(r * self.stride)) };
            }
        }
    }

    /// The bits of `VECTORS * WIDE` blocks, four words each, from (`block`, `row`) on, along the
    /// row or down the rows.
    ///
    /// An element is undecided while its bits so far equal those of `T`. Where T has a one, an
    /// undecided element with a zero is below T and kept; where T has a zero, one with a one is
    /// above and dropped. After T's last one nothing undecided can be kept.
    #[inline(always)]
    fn walk<I: Isa>(
        &self,
        isa: I,
        lanes: &LaneBlocks<I>,
        block: u64,
        row: u64,
        along_row: bool,
        out: &mut [u32],
    ) {
        let zero = isa.splat_u64(0);
        let ones = isa.splat_u64(u64::MAX);
        let mut shared = [lanes.share(isa, zero, zero); VECTORS];
        for (v, shared) in shared.iter_mut().enumerate() {
            let next = (v * I::WIDE) as u64;
            let (c0, c1) = if along_row {
                (isa.iota_u64(block + next), isa.splat_u64(row))
            } else {
                (isa.splat_u64(block), isa.iota_u64(row + next))
            };
            *shared = lanes.share(isa, c0, c1);
        }
        let threshold = self.stream.threshold;
        let last = 31 - threshold.trailing_zeros();
        let mut keep = [[zero; 2]; VECTORS];
        let mut undecided = [[ones; 2]; VECTORS];
        for plane in 0..=last {
            let bits = lanes.plane(isa, &shared, plane);
            let one = (threshold >> (31 - plane)) & 1 == 1;
            let mut left = zero;
            for v in 0..VECTORS {
                for h in 0..2 {
                    let (u, b) = (undecided[v][h], bits[v][h]);
                    let (with_one, with_zero) = (isa.and_u64(u, b), isa.and_not_u64(b, u));
                    if one {
                        keep[v][h] = isa.or_u64(keep[v][h], with_zero);
                        undecided[v][h] = with_one;
                    } else {
                        undecided[v][h] = with_zero;
                    }
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
}

/// Copies `cols` bits from bit `offset < 128` on; the unused bits of the last word become zero.
///
/// # Safety
///
/// `out` is valid for writes of `cols.div_ceil(32)` words.
#[inline(always)]
unsafe fn copy_bits(bits: &[u32], offset: usize, cols: usize, out: *mut u32) {
    let (skip, shift) = (offset / 32, offset % 32);
    let words = cols.div_ceil(32);
    let bits = &bits[skip..][..words + 1];
    for w in 0..words {
        let pair = u64::from(bits[w]) | u64::from(bits[w + 1]) << 32;
        let word = (pair >> shift) as u32 & first_bits(cols - 32 * w);
        // SAFETY: the caller's promise.
        unsafe { *out.add(w) = word };
    }
}
