//! Dropout masks: one bit an element, a pure function of where the element is.
//!
//! With `T = round((1 - rate) · 2^32)` and U the 32-bit number that Philox4x32-10 yields for
//! (seed, layer, step, row, column), bit by bit:
//!
//! ```text
//! b = column / 128,  w = (column % 128) / 32,  i = column % 32
//! R(j) = philox4x32_10(counter = [b, row, step, layer << 7 | domain << 5 | j], key = seed)
//! U    = sum over j = 0..31 of ((R(j)[w] >> i) & 1) << (31 - j)
//! keep <=> U < T,    scale = 2^32 / T
//! ```
//!
//! Nothing else enters: not the number of threads, the instruction set, the split of the matrix,
//! or whether a mask was stored or is computed again. It follows that
//!
//! - the keep probability is `T / 2^32`, with no bias between it and the scale;
//! - rate 0 keeps everything and draws nothing, rate 1 drops everything;
//! - for one key, the mask of a lower rate contains the mask of a higher one;
//! - a part of a matrix, given its origin, gets exactly its part of the whole mask.
//!
//! One block R(j) decides bit j for 128 columns at once, and the walk over j ends as soon as no
//! column is undecided: rate 0.5 costs one Philox block for 128 elements, 0.25 two, any rate about
//! ten. A flat slice is one row.
//!
//! T may differ from row to row or from column to column ([`Rates`]), and from step to step
//! ([`RateSchedule`], [`drawn_rate`]), and a decision may be that of many elements
//! ([`BroadcastShape`]): U is the same.
//!
//! The generator is that of Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1,
//! 2, 3" (SC 2011): [`philox`](crate::philox). [`Dropout`] has T and the scale, [`MaskKey`] the
//! rest of what U depends on, [`KeyedDropout`] both, and [`Mask`] the bits, where they are stored.

mod axes;
mod bits;
mod broadcast;
mod convert;
pub(crate) mod dropout;
pub(crate) mod key;
pub(crate) mod keyed;
mod rates;
mod schedule;
pub(crate) mod source;
pub(crate) mod stored;

pub(crate) use axes::Nest;
pub(crate) use bits::{Bits, TILE_COLS, TILE_WORDS, Tile};
pub use broadcast::BroadcastShape;
pub(crate) use dropout::{Dropout, Scaling};
pub(crate) use key::MaskKey;
pub(crate) use keyed::KeyedDropout;
pub use rates::{RateAxis, Rates};
pub use schedule::{RateSchedule, drawn_rate};
pub(crate) use source::MaskSource;
pub(crate) use stored::Mask;
