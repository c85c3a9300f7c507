//! The walk over the bit planes of a part of a mask.

use super::blocks::{Blocks, PIECE, walk};
use super::list::{List, Shape};
use super::threshold::{MAX_BLOCKS, Single, Threshold, Thresholds, VECTORS};
use super::words::{copy_bits, fill_uniform};
use crate::isa::{Isa, Kernel};
use crate::mask::key::MaskKey;
use crate::philox::LaneBlocks;
use crate::threads::Part;

/// Computes the bits of a part.
pub(in crate::mask) struct Walk<T> {
    key: MaskKey,
    thresholds: T,
    part: Part,
    out: *mut u32,
    stride: usize,
}

impl<T: Thresholds> Walk<T> {
    /// The bits of `key` at the thresholds of `part`.
    ///
    /// # Safety
    ///
    /// `out` is valid for writes of the part's rows, each padded to a word, `stride` words apart. What the
    /// thresholds were made of is alive, and covers the part.
    #[inline(always)]
    pub(super) unsafe fn new(
        key: MaskKey,
        thresholds: T,
        part: Part,
        out: *mut u32,
        stride: usize,
    ) -> Self {
        Self { key, thresholds, part, out, stride }
    }
}

impl<T: Thresholds> Kernel for Walk<T> {
    type Output = ();

    // Lanes are blocks; a walk always does `blocks` blocks. With one threshold they are any blocks of
    // the part, one after the other. With many, whose lines lie along a row or down rows, so do they,
    // whichever takes fewer walks.
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Part { rows, col, cols, .. } = self.part;
        let blocks = VECTORS * I::WIDE;
        let offset = ((self.key.col0() + col as u64) % 128) as usize;
        let across = (offset + cols).div_ceil(128);
        let lanes =
            LaneBlocks::new(isa, self.key.philox_key(), self.key.step(), self.key.last_word());
        if let Some(threshold) = self.thresholds.single() {
            self.all_blocks(isa, &lanes, threshold, offset);
        } else if across * rows.div_ceil(blocks) < rows * across.div_ceil(blocks) {
            self.down_rows(isa, &lanes, offset);
        } else {
            self.along_rows(isa, &lanes, offset);
        }
    }
}

impl<T: Thresholds> Walk<T> {
    /// All blocks in one list, in pieces of so many columns as the list has room for.
    #[inline(always)]
    fn all_blocks<I: Isa>(&self, isa: I, lanes: &LaneBlocks<I>, threshold: Single, offset: usize) {
        let Part { row, rows, col, cols } = self.part;
        let first = (self.key.col0() + col as u64) / 128;
        let walked = 128 * VECTORS * I::WIDE;
        // Blocks of which a word is needed or less take half the planes of whole ones, if walks do
        // not mix them: with thresholds of several planes, and where that is a part of the whole.
        let last = cols % 128;
        let apart = (1..=32).contains(&last) && offset == 0 && threshold.last() > 3;
        let apart = apart && rows >= VECTORS * I::WIDE && cols < walked;
        let mut piece = 0;
        while piece < cols {
            let left = cols - piece;
            let whole = if offset == 0 { left / walked * walked } else { 0 };
            let most = if apart && left > last { left - last } else { left };
            let shape = Shape { rows, offset, cols: most.min(PIECE.max(whole)) };
            let (row, block) = (self.key.row0() + row as u64, first + (piece / 128) as u64);
            let list = List { lanes, threshold, shape, row, block };
            // SAFETY: columns of the part, from a multiple of 32 on, which `new` was promised.
            unsafe { list.walk(isa, self.out.add(piece / 32), self.stride) };
            piece += shape.cols;
        }
    }

    #[inline(always)]
    fn along_rows<I: Isa>(&self, isa: I, lanes: &LaneBlocks<I>, offset: usize) {
        let Part { row, rows, col, cols } = self.part;
        let step = 4 * VECTORS * I::WIDE;
        let first = (self.key.col0() + col as u64) / 128;
        // Whole walks that start at a whole block go where they belong at once.
        let direct = if offset == 0 { cols / 32 / step * step } else { 0 };
        for r in 0..rows {
            let thresholds = match self.thresholds.row(r) {
                Ok(thresholds) => thresholds,
                Err(keep) => {
                    // SAFETY: row `r`, which `new` was promised.
                    unsafe { fill_uniform(keep, 1, cols, self.out.add(r * self.stride), 0) };
                    continue;
                }
            };
            let row = self.key.row0() + (row + r) as u64;
            let blocks = |block: usize| {
                let place = Blocks::from(isa, row, first + block as u64, true);
                (T::along(thresholds, block), place)
            };
            for word in (0..direct).step_by(step) {
                let (thresholds, blocks) = blocks(word / 4);
                // SAFETY: `word + step` words lie in row `r`, which `new` was promised.
                let at = unsafe {
                    std::slice::from_raw_parts_mut(self.out.add(r * self.stride + word), step)
                };
                walk(isa, lanes, thresholds, blocks, at);
            }
            if 32 * direct == cols {
                continue;
            }
            let mut buffer = [0u32; PIECE / 32 + 8 * MAX_BLOCKS];
            for piece in (32 * direct..cols).step_by(PIECE) {
                let piece_cols = (cols - piece).min(PIECE);
                for word in (0..(offset + piece_cols).div_ceil(32)).step_by(step) {
                    let (thresholds, blocks) = blocks(piece / 128 + word / 4);
                    walk(isa, lanes, thresholds, blocks, &mut buffer[word..][..step]);
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
    fn down_rows<I: Isa>(&self, isa: I, lanes: &LaneBlocks<I>, offset: usize) {
        let Part { row, rows, col, cols } = self.part;
        let blocks = VECTORS * I::WIDE;
        let first = (self.key.col0() + col as u64) / 128;
        // Columns whose blocks fit in the buffers: one more where the first block is not whole.
        let piece_cols = 128 * (MAX_BLOCKS - usize::from(offset > 0));
        let mut thresholds = T::Rows::default();
        let mut columns = [[0u32; 4 * MAX_BLOCKS]; MAX_BLOCKS];
        let mut buffer = [0u32; 4 * MAX_BLOCKS + 8];
        for top in (0..rows).step_by(blocks) {
            let logical_row = self.key.row0() + (row + top) as u64;
            self.thresholds.set_rows(&mut thresholds, top, blocks);
            let mut piece = 0;
            while piece < cols {
                let cols = (cols - piece).min(piece_cols);
                let across = (offset + cols).div_ceil(128);
                for (b, column) in columns[..across].iter_mut().enumerate() {
                    let b = piece / 128 + b;
                    let thresholds = self.thresholds.down(&thresholds, b);
                    let place = Blocks::from(isa, logical_row, first + b as u64, false);
                    walk(isa, lanes, thresholds, place, &mut column[..4 * blocks]);
                }
                for r in top..rows.min(top + blocks) {
                    for (b, column) in columns[..across].iter().enumerate() {
                        buffer[4 * b..4 * b + 4].copy_from_slice(&column[4 * (r - top)..][..4]);
                    }
                    // SAFETY: columns of row `r` of the part, which `new` was promised, from a
                    // multiple of 32 on.
                    unsafe {
                        let out = self.out.add(r * self.stride + piece / 32);
                        copy_bits(&buffer, offset, cols, out);
                    }
                }
                piece += piece_cols;
            }
        }
    }
}
