//! The blocks of several rows as one list, for walks over thresholds that are the same everywhere.

use super::blocks::{Blocks, PIECE, walk};
use super::threshold::{MAX_BLOCKS, Single, VECTORS};
use super::words::copy_bits;
use crate::isa::Isa;
use crate::philox::LaneBlocks;

/// Numbers of a table: a walk that starts at the last block of a row reads on from there.
const NUMBERS: usize = 2 * MAX_BLOCKS;
/// Words of the blocks of a row that is not complete, and of a walk.
const WORDS: usize = 4 * (PIECE / 128 + 1 + MAX_BLOCKS);

/// Rows of so many columns, the first of which is column `offset` of its block.
#[derive(Clone, Copy)]
pub(super) struct Shape {
    pub(super) rows: usize,
    pub(super) offset: usize,
    pub(super) cols: usize,
}

impl Shape {
    /// Blocks of a row.
    fn across(self) -> usize {
        (self.offset + self.cols).div_ceil(128)
    }

    /// Words of a row of bits.
    fn words(self) -> usize {
        self.cols.div_ceil(32)
    }
}

/// The blocks of a piece of a part of the mask: row after row, of which the first begins at
/// (`row`, `block`).
pub(super) struct List<'a, I: Isa> {
    pub(super) lanes: &'a LaneBlocks<I>,
    pub(super) threshold: Single,
    pub(super) shape: Shape,
    pub(super) row: u64,
    pub(super) block: u64,
}

impl<I: Isa> List<'_, I> {
    /// Blocks of a walk.
    const AT_ONCE: usize = VECTORS * I::WIDE;

    /// Computes the bits of all blocks: of at most `PIECE` columns, save where each walk lies in one
    /// row.
    ///
    /// # Safety
    ///
    /// `out` is valid for writes of the rows, each padded to a word, `stride` words apart.
    #[inline(always)]
    pub(super) unsafe fn walk(&self, isa: I, out: *mut u32, stride: usize) {
        let across = self.shape.across();
        let whole = 128 * across == self.shape.cols;
        // SAFETY: the caller's promise.
        unsafe {
            if whole && across.is_multiple_of(Self::AT_ONCE) {
                self.along_rows(isa, out, stride);
            } else {
                self.over_rows(isa, out, stride);
            }
        }
    }

    /// Walks that each lie in one row, whose blocks are whole.
    ///
    /// # Safety
    ///
    /// As for [`List::walk`].
    #[inline(always)]
    unsafe fn along_rows(&self, isa: I, out: *mut u32, stride: usize) {
        for row in 0..self.shape.rows {
            for block in (0..self.shape.across()).step_by(Self::AT_ONCE) {
                let (logical, first) = (self.row + row as u64, self.block + block as u64);
                let blocks = Blocks::from(isa, logical, first, true);
                // SAFETY: words of the row.
                unsafe {
                    let to = out.add(row * stride + 4 * block);
                    let to = std::slice::from_raw_parts_mut(to, 4 * Self::AT_ONCE);
                    walk(isa, self.lanes, self.threshold, blocks, to);
                }
            }
        }
    }

    /// Walks that go on in the next row.
    ///
    /// # Safety
    ///
    /// As for [`List::walk`].
    #[inline(always)]
    unsafe fn over_rows(&self, isa: I, out: *mut u32, stride: usize) {
        let (shape, across) = (self.shape, self.shape.across());
        let tables = Tables::new(shape, self.block, Self::AT_ONCE);
        let whole = (shape.offset + shape.cols) / 128;
        let (rows_on, blocks_on) = (Self::AT_ONCE / across, Self::AT_ONCE % across);
        // What follows each other in the output goes there at once: blocks of one row, and of
        // several if those are whole.
        let in_row = if shape.offset == 0 { shape.words() / 4 } else { 0 };
        let over_rows = in_row == across && stride == 4 * across;
        let mut rest = Rest { buffer: [0; WORDS + 8], filled: 0, row: 0 };
        let (mut row, mut block, mut left) = (0, 0, shape.rows * across);
        while left > 0 {
            // SAFETY: the walk starts at a block of the row; rows of the output, which the caller
            // promised.
            unsafe {
                let (logical, end) = (self.row + row as u64, block + Self::AT_ONCE);
                let blocks = if end <= whole {
                    Blocks::from(isa, logical, self.block + block as u64, true)
                } else {
                    tables.blocks(isa, logical, block)
                };
                if end <= in_row || over_rows && left >= Self::AT_ONCE {
                    let to = out.add(row * stride + 4 * block);
                    let to = std::slice::from_raw_parts_mut(to, 4 * Self::AT_ONCE);
                    walk(isa, self.lanes, self.threshold, blocks, to);
                } else {
                    let to = rest.room(4 * Self::AT_ONCE);
                    walk(isa, self.lanes, self.threshold, blocks, to);
                    if shape.offset == 0 {
                        rest.take_blocks(shape, (row, block), out, stride);
                    } else {
                        rest.take_rows(shape, out, stride);
                    }
                }
            }
            left -= Self::AT_ONCE.min(left);
            (row, block) = (row + rows_on, block + blocks_on);
            if block >= across {
                (row, block) = (row + 1, block - across);
            }
        }
    }
}

/// What walks load that do not lie among the whole blocks of one row.
///
/// Number `k` of a table is for the block `first + k` of a row, or, where the row ends before, for one
/// of the rows below. So a walk that starts at any of the last blocks of a row finds its lanes side by
/// side.
struct Tables {
    first: usize,
    blocks: [u64; NUMBERS],
    rows: [u64; NUMBERS],
    needed: [[u64; NUMBERS]; 2],
}

impl Tables {
    /// For walks over `at_once` blocks; block 0 of a row is `block` of the mask.
    #[inline(always)]
    fn new(shape: Shape, block: u64, at_once: usize) -> Self {
        let across = shape.across();
        let first = across.saturating_sub(at_once);
        let (mut blocks, mut rows) = ([0; NUMBERS], [0; NUMBERS]);
        if across >= at_once {
            // Without a counter, so that it is done in vectors: a walk ends in the next row.
            for k in 0..NUMBERS {
                let below = u64::from(k >= at_once);
                rows[k] = below;
                blocks[k] = block + (first + k) as u64 - below * across as u64;
            }
        } else {
            let (mut b, mut r) = (0, 0);
            for (blocks, rows) in blocks.iter_mut().zip(&mut rows).take(across + at_once) {
                (*blocks, *rows) = (block + b, r);
                b += 1;
                if b == across as u64 {
                    (b, r) = (0, r + 1);
                }
            }
        }
        let mut needed = [[u64::MAX; NUMBERS]; 2];
        let in_last = shape.offset + shape.cols - 128 * (across - 1);
        if in_last < 128 {
            let last = [ones(in_last.min(64)), ones(in_last.saturating_sub(64))];
            for k in (across - 1 - first..NUMBERS).step_by(across) {
                (needed[0][k], needed[1][k]) = (last[0], last[1]);
            }
        }
        Self { first, blocks, rows, needed }
    }

    /// The blocks of the walk that starts at block `first` of a row, which is one of the tables.
    ///
    /// # Safety
    ///
    /// The block is one of the last `at_once` of a row.
    #[inline(always)]
    unsafe fn blocks<I: Isa>(&self, isa: I, row: u64, first: usize) -> Blocks<I> {
        let at = first - self.first;
        debug_assert!(at + VECTORS * I::WIDE <= NUMBERS, "a walk within the tables");
        // SAFETY: the caller's promise.
        let load = |table: &[u64; NUMBERS], vector: usize| unsafe {
            isa.load_u64(table.as_ptr().add(at + vector * I::WIDE))
        };
        let mut blocks = Blocks::from(isa, row, 0, true);
        for vector in 0..VECTORS {
            blocks.blocks[vector] = load(&self.blocks, vector);
            blocks.rows[vector] = isa.add_u64(blocks.rows[vector], load(&self.rows, vector));
            for half in 0..2 {
                blocks.needed[vector][half] = load(&self.needed[half], vector);
            }
        }
        blocks
    }
}

/// The number whose first `n <= 64` bits are ones.
#[inline(always)]
fn ones(n: usize) -> u64 {
    u64::MAX.checked_shr(64 - n as u32).unwrap_or(0)
}

/// Words of walks that do not go to the output at once.
struct Rest {
    buffer: [u32; WORDS + 8],
    filled: usize,
    /// The row that the buffer starts in.
    row: usize,
}

impl Rest {
    /// Room for `words` more.
    #[inline(always)]
    fn room(&mut self, words: usize) -> &mut [u32] {
        let at = self.filled;
        self.filled += words;
        &mut self.buffer[at..][..words]
    }

    /// Moves all blocks to the output, where they begin with one of a row; each begins at a word.
    ///
    /// # Safety
    ///
    /// As for [`List::walk`].
    #[inline(always)]
    unsafe fn take_blocks(
        &mut self,
        shape: Shape,
        (mut row, mut block): (usize, usize),
        out: *mut u32,
        stride: usize,
    ) {
        let words = shape.words();
        // Where rows follow each other, the end of a block may be written over by the next row.
        let end = if stride == words { shape.rows * words } else { 0 };
        for from in self.buffer[..self.filled].chunks_exact(4) {
            if row == shape.rows {
                break;
            }
            let at = row * stride + 4 * block;
            // SAFETY: words of the row, or of rows of the shape up to `end`.
            unsafe {
                if at + 4 <= end {
                    out.add(at).copy_from_nonoverlapping(from.as_ptr(), 4);
                } else {
                    for (w, word) in from.iter().enumerate().take(words - 4 * block) {
                        *out.add(at + w) = *word;
                    }
                }
            }
            block += 1;
            if 4 * block >= words {
                (row, block) = (row + 1, 0);
            }
        }
        self.filled = 0;
    }

    /// Moves those rows to the output that are complete.
    ///
    /// # Safety
    ///
    /// As for [`List::walk`].
    #[inline(always)]
    unsafe fn take_rows(&mut self, shape: Shape, out: *mut u32, stride: usize) {
        let words = 4 * shape.across();
        let mut taken = 0;
        while self.row < shape.rows && taken + words <= self.filled {
            // SAFETY: the caller's promise.
            unsafe {
                let out = out.add(self.row * stride);
                copy_bits(&self.buffer[taken..], shape.offset, shape.cols, out);
            }
            taken += words;
            self.row += 1;
        }
        self.buffer.copy_within(taken..self.filled, 0);
        self.filled -= taken;
    }
}
