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
    Elements = 0,
    /// One decision for each column.
    Units = 1,
    /// The seed of a generator that selects an exact number of units.
    Selection = 2,
    /// A word for each element, of which noise is made.
    Noise = 3,
}

/// The address of one mask: (seed, layer, step), and the origin of a part of it.
///
/// Give each layer of a network its own `layer` and each training step its own `step`; masks with
/// different addresses are independent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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
        if u64::from(layer) >= LAYERS {
            return Err(Error::Address {
                what: "layer",
                first: layer.into(),
                count: 1,
                limit: LAYERS,
            });
        }
        Ok(Self { seed, layer, step, row0: 0, col0: 0, domain: Domain::Elements })
    }

    /// The same mask, from row `row0` and column `col0` on: for a shard of a larger matrix. Rows
    /// end at 2^32 and columns at 2^39, which is checked when the size is known.
    pub fn with_origin(self, row0: u64, col0: u64) -> Self {
        Self { row0, col0, ..self }
    }

    /// The mask of units: one decision for each column, independent of the element masks of the
    /// same address. Such a mask is one row.
    pub fn units(self) -> Self {
        Self { domain: Domain::Units, ..self }
    }

    /// Whether this is the key of a unit mask.
    pub(crate) fn is_units(&self) -> bool {
        self.domain == Domain::Units
    }

    /// The counters that continuous noise of this address is made of.
    pub(crate) fn noise(self) -> Self {
        Self { domain: Domain::Noise, ..self }
    }

    /// Where the generator that selects an exact number of units gets its seed from.
    pub(crate) fn selection(self) -> Self {
        Self { domain: Domain::Selection, ..self }
    }

    /// The Philox counter and key that decide plane `plane` (0 the most significant) of the 128
    /// columns from `128 * block` on.
    pub fn counter(&self, row: u32, block: u32, plane: u32) -> ([u32; 4], [u32; 2]) {
        ([block, row, self.step, self.last_word() | (plane & 31)], self.philox_key())
    }

    /// First logical row.
    pub fn row0(&self) -> u64 {
        self.row0
    }

    /// First logical column.
    pub fn col0(&self) -> u64 {
        self.col0
    }

    pub(crate) fn philox_key(&self) -> [u32; 2] {
        [self.seed as u32, (self.seed >> 32) as u32]
    }

    pub(crate) fn step(&self) -> u32 {
        self.step
    }

    /// The last counter word for plane 0.
    pub(crate) fn last_word(&self) -> u32 {
        self.layer << 7 | (self.domain as u32) << 5
    }

    /// `Ok` when `rows` x `cols` elements from the origin on can be addressed.
    pub(crate) fn check(&self, rows: usize, cols: usize) -> Result<()> {
        let rows_end = if self.domain == Domain::Units { 1 } else { ROWS };
        check_range("row", self.row0, rows, rows_end)?;
        check_range("column", self.col0, cols, COLS)
    }
}

fn check_range(what: &'static str, first: u64, count: usize, limit: u64) -> Result<()> {
    let count = count as u64;
    match first.checked_add(count) {
        Some(end) if end <= limit => Ok(()),
        _ => Err(Error::Address { what, first, count, limit }),
    }
}
