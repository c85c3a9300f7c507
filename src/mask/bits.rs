//! Mask bits for kernels: made where they are needed, or read from a stored mask.

mod blocks;
mod list;
mod planes;
mod rates;
mod spread;
mod square;
mod threshold;
mod transposed;
mod walk;
mod words;

pub(super) use planes::Planes;
pub(super) use rates::RateStream;
pub(super) use words::{WordsMut, compact, first_bits};

use super::axes::Nest;
use super::key::MaskKey;
use super::keyed::KeyedDropout;
use crate::isa::{Isa, Kernel};
use crate::threads::Part;
use spread::Spread;
use threshold::Single;
use transposed::TransposedWalk;
use walk::Walk;
use words::fill_uniform;

/// Columns of the widest tile of bits.
pub(crate) const TILE_COLS: usize = 4096;
/// Words of the largest tile of bits: a page, which stays in the level-1 cache beside the data.
pub(crate) const TILE_WORDS: usize = 1024;

/// Where the bits of an operation come from, and whether they are stored on the way.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Bits {
    /// Made, and stored where there is a place for them.
    Made(Generator, Option<WordsMut>),
    /// Read from a stored mask.
    Stored(Tile),
}

/// What bits are made from.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Generator {
    /// Nothing: everything is kept, or nothing is.
    Uniform(bool),
    /// A key and a threshold.
    Key(MaskKey, Single),
    /// The same, for the transposed matrix.
    Transposed(MaskKey, Single),
    /// A key, with a threshold for each row or for each column.
    Rates(RateStream),
    /// A reduced mask, for a matrix of one row.
    Spread(Spread),
}

/// Bits to read: those of row `r` start at `words[r * stride]`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tile {
    pub(crate) words: *const u32,
    pub(crate) stride: usize,
}

// SAFETY: whoever makes bits from a mask, or a tile of them, leaves the words alone while tasks
// read them.
unsafe impl Send for Tile {}
// SAFETY: as above.
unsafe impl Sync for Tile {}

impl Bits {
    /// The bits of a dropout, stored in `save` if it is there.
    pub(super) fn keyed(dropout: &KeyedDropout, save: Option<WordsMut>) -> Self {
        let generator = match Single::new(dropout.dropout().threshold()) {
            Ok(threshold) => Generator::Key(*dropout.key(), threshold),
            Err(keep) => Generator::Uniform(keep),
        };
        Bits::Made(generator, save)
    }

    /// The bits of a dropout for the transposed matrix: bit (r, c) is that of row c, column r of
    /// the mask.
    pub(crate) fn generate_transposed(dropout: &KeyedDropout) -> Self {
        match Self::keyed(dropout, None) {
            Bits::Made(Generator::Key(key, threshold), save) => {
                Bits::Made(Generator::Transposed(key, threshold), save)
            }
            uniform => uniform,
        }
    }

    /// The bits of a flat tensor whose elements share the bits of `words`, which outlive the
    /// operation, as the loops of `nest` say.
    pub(crate) fn spread(words: &[u32], nest: Nest) -> Self {
        Bits::Made(Generator::Spread(Spread::new(words, nest)), None)
    }

    /// The bits of `part` alone, which are in `tile`; its first column is a multiple of 32.
    pub(crate) fn made(tile: Tile, part: Part) -> Self {
        let before = part.row.wrapping_mul(tile.stride).wrapping_add(part.col / 32);
        Bits::Stored(Tile { words: tile.words.wrapping_sub(before), ..tile })
    }

    /// Whether everything is kept, and nothing is to be stored.
    pub(crate) fn keep_all(&self) -> bool {
        matches!(self, Bits::Made(Generator::Uniform(true), None))
    }

    /// Where the word with the bit of (row, col) is, if the bits are in memory and only read.
    #[inline(always)]
    pub(crate) fn in_memory(self, row: usize, col: usize) -> Option<Tile> {
        match self {
            Bits::Stored(Tile { words, stride }) => {
                Some(Tile { words: words.wrapping_add(row * stride + col / 32), stride })
            }
            Bits::Made(..) => None,
        }
    }

    /// The bits of `part`, in `scratch` where they are not stored.
    ///
    /// # Safety
    ///
    /// - What `self` was made of (a mask, thresholds) is alive and covers the part.
    /// - The part's first column is a multiple of 32; its other columns end there or at a multiple of 32.
    ///   If the bits are made from a key and not stored, it may be any column.
    /// - If the bits are stored, no other task accesses the part.
    /// - If they are made and not stored, `scratch` has room for them, each row padded to a word.
    #[inline(always)]
    pub(crate) unsafe fn tile<I: Isa>(self, isa: I, part: Part, scratch: &mut [u32]) -> Tile {
        let (generator, save) = match self {
            Bits::Stored(Tile { words, stride }) => {
                let words = words.wrapping_add(part.row * stride + part.col / 32);
                return Tile { words, stride };
            }
            Bits::Made(generator, save) => (generator, save),
        };
        let (out, stride) = match save {
            Some(words) => words.at(part),
            None => {
                // Rows of whole blocks, where there is room, are what walks write at once.
                let (words, whole) = (part.cols.div_ceil(32), 4 * part.cols.div_ceil(128));
                let words = if part.rows * whole <= scratch.len() { whole } else { words };
                (scratch[..part.rows * words].as_mut_ptr(), words)
            }
        };
        // SAFETY: `out` is valid for writes of the part, which the caller promised room for, each
        // row padded to a word; and the caller's promise about what `self` was made of.
        unsafe {
            match generator {
                Generator::Uniform(keep) => fill_uniform(keep, part.rows, part.cols, out, stride),
                Generator::Key(key, one) => isa.vectorize(Walk::new(key, one, part, out, stride)),
                Generator::Transposed(key, one) => {
                    isa.vectorize(TransposedWalk::new(key, one, part, out, stride));
                }
                Generator::Rates(stream) => stream.write(part, out, stride),
                Generator::Spread(spread) => spread.write(part.col, part.cols, out),
            }
        }
        Tile { words: out, stride }
    }
}

/// Stores a part of the bits of an operation.
pub(super) struct Fill {
    bits: Bits,
    part: Part,
}

impl Fill {
    /// # Safety
    ///
    /// The bits are stored in a mask that is alive and covers the part, which no other task
    /// accesses; its first column is a multiple of 32.
    pub(super) unsafe fn new(bits: Bits, part: Part) -> Self {
        Self { bits, part }
    }
}

impl Kernel for Fill {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        // SAFETY: the promise of `new`; what is stored needs no scratch space.
        unsafe { self.bits.tile(isa, self.part, &mut []) };
    }
}
