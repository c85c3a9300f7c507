//! A rate for each row or for each column.

use super::bits::{Bits, Generator, Planes, RateStream, TILE_COLS};
use super::dropout::{Dropout, Scaling};
use super::key::MaskKey;
use super::keyed::KeyedDropout;
use super::stored::{Mask, fill_parts};
use crate::Level;
use crate::buffers::{self, Lease, Slot};
use crate::error::{Result, check_equal};
use crate::threads;

/// Rates as data: one for each row of a matrix, or one for each column (unit), with the thresholds
/// and scales that follow from them.
///
/// The mask contract holds with the threshold of the element's row or column: keep <=> U < T, with
/// the U that the element has at any rate. So where two sets of rates agree the masks agree, and an
/// element that a rate keeps is kept by every lower one.
///
/// ```
/// # use fused_dropout::{Dropout, Error, Mask, MaskKey, mask::Rates};
/// let (rates, key) = (Rates::per_column(&[0.0, 0.5, 1.0])?, MaskKey::new(1, 2, 3)?);
/// let mask = Mask::generate_with_rates(4, 3, &rates.with_key(key))?;
/// let half = Mask::generate(4, 3, &Dropout::new(0.5)?.with_key(key))?;
/// for row in 0..4 {
///     assert_eq!(mask.get(row, 0), Some(true));
///     assert_eq!(mask.get(row, 1), half.get(row, 1));
///     assert_eq!(mask.get(row, 2), Some(false));
/// }
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub struct Rates {
    axis: RateAxis,
    scaling: Scaling,
    rates: Vec<f64>,
    thresholds: Vec<u64>,
    scales: Vec<f32>,
    /// Those of the columns, for an origin at the start of a block.
    planes: Planes,
}

/// What has a rate of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RateAxis {
    /// Each row.
    Row,
    /// Each column.
    Column,
}

impl Rates {
    /// A rate for each row, with inverted scaling.
    ///
    /// # Errors
    ///
    /// When a rate is NaN, below 0 or above 1, or there is no memory for the thresholds.
    pub fn per_row(rates: &[f64]) -> Result<Self> {
        Self::new(RateAxis::Row, rates, Scaling::Inverted)
    }

    /// A rate for each column, with inverted scaling.
    ///
    /// # Errors
    ///
    /// When a rate is NaN, below 0 or above 1, or there is no memory for the thresholds.
    pub fn per_column(rates: &[f64]) -> Result<Self> {
        Self::new(RateAxis::Column, rates, Scaling::Inverted)
    }

    /// A rate for each row or column, scaled as `scaling` says.
    ///
    /// # Errors
    ///
    /// When a rate is NaN, below 0 or above 1, or there is no memory for the thresholds.
    pub fn new(axis: RateAxis, rates: &[f64], scaling: Scaling) -> Result<Self> {
        let mut thresholds = buffers::collect(rates.len(), [])?;
        let mut scales = buffers::collect(rates.len(), [])?;
        for rate in rates {
            let dropout = Dropout::with_scaling(*rate, scaling)?;
            thresholds.push(dropout.threshold());
            scales.push(dropout.scale());
        }
        let mut planes = Planes::EMPTY;
        if axis == RateAxis::Column {
            planes.set(&thresholds, 0)?;
        }
        let rates = buffers::collect(rates.len(), rates.iter().copied())?;
        Ok(Self { axis, scaling, rates, thresholds, scales, planes })
    }

    /// These rates with the mask of a key.
    pub const fn with_key(&self, key: MaskKey) -> KeyedDropout<&Self> {
        KeyedDropout::new(self, key)
    }

    /// What has a rate of its own.
    pub fn axis(&self) -> RateAxis {
        self.axis
    }

    /// Number of rates.
    pub fn len(&self) -> usize {
        self.rates.len()
    }

    /// Whether there are no rates.
    pub fn is_empty(&self) -> bool {
        self.rates.is_empty()
    }

    /// When the scales are applied.
    pub fn scaling(&self) -> Scaling {
        self.scaling
    }

    /// The probabilities to drop.
    pub fn rates(&self) -> &[f64] {
        &self.rates
    }

    /// `T = round((1 - rate) · 2^32)` of each.
    pub fn thresholds(&self) -> &[u64] {
        &self.thresholds
    }

    /// The factor of kept elements of each: see [`Dropout::scale`].
    pub fn scales(&self) -> &[f32] {
        &self.scales
    }

    /// The dropout with the `i`-th rate.
    pub fn get(&self, i: usize) -> Option<Dropout> {
        // The rate was checked, so this is never an error.
        self.rates.get(i).and_then(|rate| Dropout::with_scaling(*rate, self.scaling).ok())
    }

    /// `Ok` when there is a rate for each row or column of the matrix.
    fn check(&self, rows: usize, cols: usize) -> Result<()> {
        match self.axis {
            RateAxis::Row => check_equal("number of rates", self.len(), "number of rows", rows),
            RateAxis::Column => {
                check_equal("number of rates", self.len(), "number of columns", cols)
            }
        }
    }
}

impl KeyedDropout<&Rates> {
    /// The dropout of element (row, col).
    pub(crate) fn of(&self, row: usize, col: usize) -> KeyedDropout {
        let rates = self.dropout();
        let i = if rates.axis == RateAxis::Row { row } else { col };
        rates.get(i).unwrap_or(Dropout::NONE).with_key(*self.key())
    }

    /// `Ok` when there is a rate for each row or column of the matrix, and the key addresses it.
    pub(crate) fn check_matrix(&self, rows: usize, cols: usize) -> Result<()> {
        self.dropout().check(rows, cols)?;
        self.check(rows, cols)
    }

    /// Calls `f` with the bits, stored in `save` if it is there; not when there is no memory for
    /// what they are made from.
    pub(crate) fn with_bits(
        &self,
        level: Level,
        save: Option<&mut Mask>,
        f: impl FnOnce(Bits),
    ) -> Result<()> {
        let (rates, key) = (self.dropout(), self.key());
        let save = save.map(Mask::words_mut);
        let bits = |stream| Bits::Made(Generator::Rates(stream), save);
        let columns = |planes| bits(RateStream::columns(level, key, planes));
        let offset = (key.col0() % 128) as usize;
        match rates.axis {
            RateAxis::Row => {
                f(bits(RateStream::rows(level, key, &rates.thresholds)));
            }
            RateAxis::Column if offset == 0 => f(columns(&rates.planes)),
            RateAxis::Column => {
                let mut planes: Lease<Planes> = Slot::Planes.take();
                planes.set(&rates.thresholds, offset)?;
                f(columns(&planes));
            }
        }
        Ok(())
    }
}

impl Mask {
    /// The mask of `rows` x `cols` elements with a rate for each row or column, starting at the
    /// key's origin.
    ///
    /// # Errors
    ///
    /// When there is not one rate for each row or column, or as for [`Mask::generate`].
    pub fn generate_with_rates(
        rows: usize,
        cols: usize,
        rates: &KeyedDropout<&Rates>,
    ) -> Result<Self> {
        rates.check_matrix(rows, cols)?;
        let mut mask = Self::new(rows, cols)?;
        mask.fill_with_rates(rates)?;
        Ok(mask)
    }

    /// Generates this mask anew, in place, with a rate for each row or column.
    ///
    /// ```
    /// # use fused_dropout::{Error, Mask, MaskKey, mask::Rates};
    /// let mut mask = Mask::new(2, 3)?;
    /// let rates = Rates::per_row(&[0.0, 1.0])?;
    /// mask.fill_with_rates(&rates.with_key(MaskKey::new(42, 1, 0)?))?;
    /// assert_eq!(mask.to_bools()?, [true, true, true, false, false, false]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// When there is not one rate for each row or column, or as for [`Mask::fill`].
    pub fn fill_with_rates(&mut self, rates: &KeyedDropout<&Rates>) -> Result<()> {
        let (rows, cols) = (self.rows, self.cols);
        rates.check_matrix(rows, cols)?;
        let level = Level::current()?;
        // Ten planes or more: a quarter of what is a task elsewhere.
        let tasks = threads::Grid::new(rows, cols, threads::work::BIT_OF_RATES, 16, TILE_COLS);
        rates.with_bits(level, Some(self), |bits| {
            // SAFETY: the bits are stored in this mask, which is borrowed until all tasks are done;
            // these are disjoint parts of it, and start at multiples of 32 columns.
            unsafe { fill_parts(level, bits, &tasks) };
        })
    }
}
