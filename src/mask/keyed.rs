//! A dropout and the mask it has: how much is dropped, and which elements.

use super::dropout::Dropout;
use super::key::MaskKey;
use crate::error::Result;

/// A [`Dropout`] and the [`MaskKey`] of its mask: all that a mask depends on, save its size.
///
/// Element (row, column) of an operation is kept if U < T, with the T of the dropout and the U of
/// the key at (row0 + row, col0 + column): see [`mask`](mod@crate::mask). What is kept is
/// multiplied by the dropout's [`scale`](Dropout::scale).
///
/// Dropout of another kind is keyed in the same way: D may be an
/// [`AlphaDropout`](crate::elementwise::AlphaDropout), a
/// [`GaussianDropout`](crate::elementwise::GaussianDropout), or [`Rates`](crate::mask::Rates) that are borrowed.
/// Each has a method `with_key`.
///
/// ```
/// # use fused_dropout::{Dropout, Error, Mask, MaskKey};
/// let half = Dropout::new(0.5)?.with_key(MaskKey::new(42, 1, 0)?);
/// assert_eq!(half.dropout().scale(), 2.0);
/// let next = half.with_key(half.key().with_step(1));
/// assert_ne!(Mask::generate(1, 100, &half)?, Mask::generate(1, 100, &next)?);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[must_use]
pub struct KeyedDropout<D = Dropout> {
    dropout: D,
    key: MaskKey,
}

impl<D: Copy> KeyedDropout<D> {
    /// This dropout with the mask of this key.
    pub const fn new(dropout: D, key: MaskKey) -> Self {
        Self { dropout, key }
    }

    /// How much to drop, and how to scale what is kept.
    pub const fn dropout(&self) -> &D {
        &self.dropout
    }

    /// Which mask.
    pub const fn key(&self) -> &MaskKey {
        &self.key
    }

    /// The same dropout with the mask of another key: that of the next step, say.
    pub const fn with_key(self, key: MaskKey) -> Self {
        Self { key, ..self }
    }

    /// `Ok` when `rows` x `cols` elements from the key's origin on can be addressed.
    pub(crate) fn check(&self, rows: usize, cols: usize) -> Result<()> {
        self.key.check(rows, cols)
    }
}

impl KeyedDropout {
    /// Nothing is dropped.
    pub const NONE: KeyedDropout = KeyedDropout { dropout: Dropout::NONE, key: MaskKey::FIRST };

    /// Whether an element may be dropped.
    pub(crate) fn drops(&self) -> bool {
        self.dropout.drops()
    }
}

impl Default for KeyedDropout {
    /// [`KeyedDropout::NONE`].
    fn default() -> Self {
        Self::NONE
    }
}

impl Dropout {
    /// This dropout with the mask of a key.
    pub const fn with_key(self, key: MaskKey) -> KeyedDropout {
        KeyedDropout::new(self, key)
    }
}
