//! Which units of a layer are kept for a mini-batch.

use super::selection::{bernoulli_scales, exact_scales, rounded_share, select};
use crate::buffers;
use crate::error::{Error, Result, as_written};
use crate::mask::{KeyedDropout, Mask, MaskKey};

/// The units of a layer that are kept for a mini-batch, ascending, and the scale of their outputs.
///
/// | constructor | kept | scale |
/// |---|---|---|
/// | [`all`](Self::all) | all units | 1 |
/// | [`from_indices`](Self::from_indices) | those of a list | as given |
/// | [`bernoulli`](Self::bernoulli) | each unit with the same probability, independently | 2^32 / T |
/// | [`exact`](Self::exact) | round(keep · units) of them, each set with the same probability | units / kept units |
///
/// A layer has 2^32 - 1 units at most.
///
/// ```
/// # use fused_dropout::{Dropout, Error, MaskKey, layer::KeptUnits};
/// let half = Dropout::new(0.5)?.with_key(MaskKey::new(42, 1, 0)?);
/// let mut kept = KeptUnits::exact(10, &half)?;
/// assert_eq!(kept.indices(), [1, 2, 3, 7, 8]);
/// assert_eq!(kept.scale(), 2.0);
/// // The next step's.
/// kept.redraw_exact(&half.with_key(half.key().with_step(1)))?;
/// assert_eq!(kept.len(), 5);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct KeptUnits {
    indices: Vec<u32>,
    units: usize,
    /// What outputs are multiplied with, and what undoes it.
    scale: f64,
    unscale: f64,
    /// The share of the units that is kept.
    keep: f64,
    /// Room for the bits of a Bernoulli selection.
    bits: Option<Mask>,
}

impl PartialEq for KeptUnits {
    fn eq(&self, other: &Self) -> bool {
        let key = |kept: &Self| (kept.units, kept.scale, kept.unscale, kept.keep);
        self.indices == other.indices && key(self) == key(other)
    }
}

impl KeptUnits {
    /// All `units` units, with scale 1.
    ///
    /// # Errors
    ///
    /// When there are more than 2^32 - 1, or no memory for their list.
    pub fn all(units: usize) -> Result<Self> {
        let mut indices = Vec::new();
        number(&mut indices, units)?;
        Ok(Self { indices, units, scale: 1.0, unscale: 1.0, keep: 1.0, bits: None })
    }

    /// The units of a list, which must be ascending and below `units`, with scale `scale`.
    ///
    /// # Errors
    ///
    /// When the list is not ascending, or names a unit that is not there; when `scale` is not from
    /// 2^-126 to 2^126, where it and its reciprocal are normal numbers; when there are more than
    /// 2^32 - 1 units, or no memory for the list.
    pub fn from_indices(units: usize, indices: &[u32], scale: f32) -> Result<Self> {
        check_units(units)?;
        let mut next = 0;
        for (position, &unit) in indices.iter().enumerate() {
            if u64::from(unit) < next || unit as usize >= units {
                return Err(Error::Unit { position, unit, units });
            }
            next = u64::from(unit) + 1;
        }
        if !(f32::MIN_POSITIVE..=1.0 / f32::MIN_POSITIVE).contains(&scale) {
            let (value, expected) = (as_written(scale), "from 2^-126 to 2^126");
            return Err(Error::Parameter { name: "scale", value, expected });
        }
        let scale = f64::from(scale);
        let keep = share(indices.len(), units);
        let indices = buffers::collect(indices.len(), indices.iter().copied())?;
        Ok(Self { indices, units, scale, unscale: 1.0 / scale, keep, bits: None })
    }

    /// Each unit with the keep probability of `dropout`, by the unit mask of the contract: unit `u`
    /// is kept if column `col0 + u` of row 0 is, in domain 1. The scale is that of `dropout`, 2^32
    /// / T.
    ///
    /// ```
    /// # use fused_dropout::{Dropout, Error, Mask, MaskKey, layer::KeptUnits};
    /// let half = Dropout::new(0.5)?.with_key(MaskKey::new(42, 1, 0)?);
    /// let kept = KeptUnits::bernoulli(100, &half)?;
    /// let mask = Mask::generate(1, 100, &half.with_key(half.key().units()))?;
    /// assert_eq!((kept.len() as u64, kept.scale()), (mask.count(), 2.0));
    /// assert!(kept.indices().iter().all(|unit| mask.get(0, *unit as usize) == Some(true)));
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// When the key's origin is not in row 0, or its columns go past what a mask can address, or
    /// there are more than 2^32 - 1 units, or no memory for them.
    pub fn bernoulli(units: usize, dropout: &KeyedDropout) -> Result<Self> {
        dropout.key().units().check(1, units)?;
        let mut kept = Self::all(units)?;
        kept.redraw_bernoulli(dropout)?;
        Ok(kept)
    }

    /// Exactly `count` of the `units` units, every such set with the same probability:
    ///
    /// ```text
    /// count = floor((T · units + 2^31) / 2^32)          round(keep · units), halves up
    /// seed  = the 8 words of philox4x32_10(counter = [0, 0, step, layer << 7 | 2 << 5], key = seed)
    ///         and philox4x32_10(counter = [1, 0, step, layer << 7 | 2 << 5], key = seed), in this
    ///         order, as 32 bytes, each word with its low byte first
    /// unit[0..units] = 0, 1, ... units - 1              a partial Fisher-Yates shuffle
    /// for i in 0..count:
    ///     swap unit[i] with unit[i + below(units - i)]
    /// kept  = unit[0..count], sorted
    ///
    /// below(m): x = the next output of xoshiro256++
    ///           until x · m mod 2^64 >= 2^64 mod m: x = the next output
    ///           return floor(x · m / 2^64)
    /// ```
    ///
    /// with the key's 64-bit seed, low half first, as the key of Philox, and xoshiro256++ started
    /// from the 32 bytes as its four 64-bit words of state, low byte first. `below` is uniform: of
    /// the 2^64 values of x it refuses the fewest that leave each result equally many (Lemire 2019,
    /// "Fast random integer generation in an interval"). Where all units are kept, or none, nothing
    /// is drawn.
    ///
    /// The scale is `units / count` (0 where `count` is 0, and 1 with classical scaling).
    ///
    /// # Errors
    ///
    /// When the key's origin is not row 0 and column 0, since a number of units is one of a whole
    /// layer, or there are more than 2^32 - 1 units, or no memory for them.
    pub fn exact(units: usize, dropout: &KeyedDropout) -> Result<Self> {
        check_origin(dropout.key())?;
        let mut kept = Self::all(units)?;
        kept.redraw_exact(dropout)?;
        Ok(kept)
    }

    /// Selects anew, as [`KeptUnits::bernoulli`] does.
    ///
    /// # Errors
    ///
    /// As for [`KeptUnits::bernoulli`]; the selection is as it was then.
    pub fn redraw_bernoulli(&mut self, dropout: &KeyedDropout) -> Result<()> {
        let dropout = dropout.with_key(dropout.key().units());
        dropout.check(1, self.units)?;
        let bits = match &mut self.bits {
            Some(bits) => bits,
            none => none.insert(Mask::new(1, self.units)?),
        };
        bits.fill(&dropout)?;
        // As many as there are bits, which are no more than units.
        buffers::reserve(&mut self.indices, bits.count() as usize)?;
        self.indices.clear();
        for (first, word) in (0..).step_by(32).zip(bits.words()) {
            let mut left = *word;
            while left != 0 {
                self.indices.push(first + left.trailing_zeros());
                left &= left - 1;
            }
        }
        let dropout = dropout.dropout();
        (self.scale, self.unscale, self.keep) = bernoulli_scales(dropout);
        Ok(())
    }

    /// Selects anew, as [`KeptUnits::exact`] does.
    ///
    /// # Errors
    ///
    /// As for [`KeptUnits::exact`]; the selection is as it was then.
    pub fn redraw_exact(&mut self, dropout: &KeyedDropout) -> Result<()> {
        let (units, key, dropout) = (self.units, dropout.key(), dropout.dropout());
        check_origin(key)?;
        let count = rounded_share(dropout, units);
        number(&mut self.indices, units)?;
        if count < units {
            select(&mut self.indices, count, key, 0);
        }
        (self.scale, self.unscale, self.keep) = exact_scales(dropout, units);
        Ok(())
    }

    /// The kept units, ascending.
    pub fn indices(&self) -> &[u32] {
        &self.indices
    }

    /// How many units are kept.
    pub fn len(&self) -> usize {
        self.indices.len()
    }

    /// Whether no unit is kept.
    pub fn is_empty(&self) -> bool {
        self.indices.is_empty()
    }

    /// How many units the layer has.
    pub fn units(&self) -> usize {
        self.units
    }

    /// The factor of the kept units' outputs in training.
    pub fn scale(&self) -> f32 {
        self.scale as f32
    }

    /// The same factor in f64.
    pub fn scale_f64(&self) -> f64 {
        self.scale
    }

    /// The share of the units that is kept: on average of a Bernoulli selection, else in fact. With
    /// classical scaling it is the factor of weights at inference.
    pub fn keep(&self) -> f64 {
        self.keep
    }

    /// What undoes the scale, so that an activation can be read back from its output.
    pub(crate) fn unscale(&self) -> f64 {
        self.unscale
    }

    /// The list, where it is not simply all units.
    pub(crate) fn list(&self) -> Option<&[u32]> {
        (self.len() < self.units).then_some(&self.indices)
    }
}

/// Numbers of units are 32-bit words, and so are the ends of ranges of them.
fn check_units(units: usize) -> Result<u32> {
    let expected = "at most 2^32 - 1";
    let value = units as f64;
    u32::try_from(units).map_err(|_| Error::Parameter { name: "number of units", value, expected })
}

/// `Ok` when the key's origin is that of a whole layer.
fn check_origin(key: &MaskKey) -> Result<()> {
    match (key.row0(), key.col0()) {
        (0, 0) => Ok(()),
        (row0, col0) => Err(Error::ExactOrigin { row0, col0 }),
    }
}

/// 0, 1, ... `units` - 1; on an error the list stays as it was.
fn number(indices: &mut Vec<u32>, units: usize) -> Result<()> {
    let count = check_units(units)?;
    buffers::reserve(indices, units)?;
    indices.clear();
    indices.extend(0..count);
    Ok(())
}

/// The share of the units that are kept; 1 where there are none.
fn share(count: usize, units: usize) -> f64 {
    if units == 0 { 1.0 } else { count as f64 / units as f64 }
}
