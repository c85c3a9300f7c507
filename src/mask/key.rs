//! The address of a mask.

use crate::error::{Error, Result};

/// Layers have 25 bits of the last counter word; the domain has two, the plane five.
const LAYERS: u64 = 1 << 25;
const ROWS: u64 = 1 << 32;
const COLS: u64 = 1 << 39;

/// What a random bit is for, so that no counter serves two purposes under one seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Domain {
    /// One decision for each element.
    Elements,
    /// One decision for each column.
    Units,
    /// One decision for a group of rows and a block of columns, addressed by both: units are group 0,
    /// one column a block.
    Blocks,
    /// The seed of a generator that selects an exact number of units or blocks.
    Selection,
    /// A word for each element, of which noise is made.
    Noise,
}

impl Domain {
    /// Its two bits of the last counter word.
    const fn number(self) -> u32 {
        match self {
            Domain::Elements => 0,
            Domain::Units | Domain::Blocks => 1,
            Domain::Selection => 2,
            Domain::Noise => 3,
        }
    }
}

/// The address of one mask: (seed, layer, step), and the origin of a part of it.
///
/// Give each layer of a network its own `layer` and each training step its own `step`; masks with
/// different addresses are independent.
///
/// ```
/// # use fused_dropout::{Error, MaskKey};
/// let first = MaskKey::new(42, 1, 0)?;
/// let second = first.with_step(1);
/// assert_eq!((second.seed(), second.layer(), second.step()), (42, 1, 1));
/// assert_eq!(MaskKey::default(), MaskKey::new(0, 0, 0)?);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[must_use]
pub struct MaskKey {
    seed: u64,
    layer: u32,
    step: u32,
    row0: u64,
    col0: u64,
    domain: Domain,
}

impl MaskKey {
    /// Seed 0, layer 0, step 0.
    pub(crate) const FIRST: MaskKey =
        MaskKey { seed: 0, layer: 0, step: 0, row0: 0, col0: 0, domain: Domain::Elements };

    /// The mask of `layer` in `step`, for elements, with its origin at row 0 and column 0.
    ///
    /// # Errors
    ///
    /// When `layer` is 2^25 or more.
    pub fn new(seed: u64, layer: u32, step: u32) -> Result<Self> {
        Self { seed, step, ..Self::FIRST }.with_layer(layer)
    }

    /// The same mask, from row `row0` and column `col0` on: for a shard of a larger matrix. Rows
    /// end at 2^32 and columns at 2^39, which is checked when the size is known.
    pub const fn with_origin(self, row0: u64, col0: u64) -> Self {
        Self { row0, col0, ..self }
    }

    /// The same mask of another layer.
    ///
    /// # Errors
    ///
    /// When `layer` is 2^25 or more.
    pub fn with_layer(self, layer: u32) -> Result<Self> {
        check_range("layer", layer.into(), 1, LAYERS)?;
        Ok(Self { layer, ..self })
    }

    /// The same mask in another step.
    pub const fn with_step(self, step: u32) -> Self {
        Self { step, ..self }
    }

    /// The mask of units: one decision for each column, independent of the element masks of the
    /// same address. Such a mask is one row, row 0.
    pub const fn units(self) -> Self {
        Self { domain: Domain::Units, ..self }
    }

    /// The seed.
    pub const fn seed(&self) -> u64 {
        self.seed
    }

    /// The layer.
    pub const fn layer(&self) -> u32 {
        self.layer
    }

    /// The step.
    pub const fn step(&self) -> u32 {
        self.step
    }

    /// First logical row.
    pub const fn row0(&self) -> u64 {
        self.row0
    }

    /// First logical column.
    pub const fn col0(&self) -> u64 {
        self.col0
    }

    /// Whether this is the key of a mask of units: see [`units`](Self::units).
    pub const fn is_units(&self) -> bool {
        matches!(self.domain, Domain::Units)
    }

    /// The Philox counter and key that decide plane `plane` (0 the most significant) of the 128
    /// columns from `128 * block` on.
    pub const fn counter(&self, row: u32, block: u32, plane: u32) -> ([u32; 4], [u32; 2]) {
        ([block, row, self.step, self.last_word() | (plane & 31)], self.philox_key())
    }

    /// The mask of blocks: its rows are groups of rows, its columns blocks of columns.
    pub(crate) const fn blocks(self) -> Self {
        Self { domain: Domain::Blocks, ..self }
    }

    /// The counters that continuous noise of this address is made of.
    pub(crate) fn noise(self) -> Self {
        Self { domain: Domain::Noise, ..self }
    }

    /// Where the generators of selections get their seeds from.
    pub(crate) fn selection(self) -> Self {
        Self { domain: Domain::Selection, ..self }
    }

    /// The seed as the two words of a Philox key.
    pub(crate) const fn philox_key(&self) -> [u32; 2] {
        [self.seed as u32, (self.seed >> 32) as u32]
    }

    /// The last counter word for plane 0.
    pub(crate) const fn last_word(&self) -> u32 {
        self.layer << 7 | self.domain.number() << 5
    }

    /// `Ok` when `rows` x `cols` elements from the origin on can be addressed.
    pub(crate) fn check(&self, rows: usize, cols: usize) -> Result<()> {
        if self.is_units() && self.row0.saturating_add(rows as u64) > 1 {
            return Err(Error::UnitMask { row0: self.row0, rows });
        }
        check_range("row", self.row0, rows as u64, ROWS)?;
        check_range("column", self.col0, cols as u64, COLS)
    }
}

impl Default for MaskKey {
    /// Seed 0, layer 0, step 0, for elements, with its origin at row 0 and column 0.
    fn default() -> Self {
        Self::FIRST
    }
}

fn check_range(what: &'static str, first: u64, count: u64, limit: u64) -> Result<()> {
    match first.checked_add(count) {
        Some(end) if end <= limit => Ok(()),
        _ => Err(Error::Address { what, first, count, limit }),
    }
}
