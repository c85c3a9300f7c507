//! Which units of a layer are kept for a mini-batch.

use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};

use crate::error::{Error, Result};
use crate::mask::{Dropout, Mask, MaskKey, Scaling};
use crate::philox::philox4x32_10;

/// The units of a layer that are kept for a mini-batch, ascending, and the scale of their outputs.
///
/// ```
/// # use fused_dropout::*;
/// let (half, key) = (Dropout::new(0.5)?, MaskKey::new(42, 1, 0)?);
/// let kept = KeptUnits::exact(10, &half, &key)?;
/// assert_eq!(kept.indices(), [1, 2, 3, 7, 8]);
/// assert_eq!(kept.scale(), 2.0);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug)]
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
    /// When there are more than 2^32 - 1.
    pub fn all(units: usize) -> Result<Self> {
        let mut indices = Vec::new();
        fill(&mut indices, units)?;
        Ok(Self { indices, units, scale: 1.0, unscale: 1.0, keep: 1.0, bits: None })
    }

    /// The units of a list, which must be ascending and below `units`, with scale `scale`.
    ///
    /// # Errors
    ///
    /// When the list is not ascending, or names a unit that is not there; when `scale` is not
    /// positive and finite.
    pub fn from_indices(units: usize, indices: &[u32], scale: f32) -> Result<Self> {
        let mut next = 0;
        for (position, &unit) in indices.iter().enumerate() {
            if u64::from(unit) < next || unit as usize >= units {
                return Err(Error::Unit { position, unit, units });
            }
            next = u64::from(unit) + 1;
        }
        if !(scale.is_finite() && scale > 0.0) {
            let expected = "positive and finite";
            return Err(Error::Parameter { name: "scale", value: scale.into(), expected });
        }
        let scale = f64::from(scale);
        let keep = share(indices.len(), units);
        let indices = indices.to_vec();
        Ok(Self { indices, units, scale, unscale: 1.0 / scale, keep, bits: None })
    }

    /// Each unit with the keep probability of `dropout`, by the unit mask of the contract: unit `u` is
    /// kept if column `col0 + u` of row 0 is, in domain 1. The scale is that of `dropout`, 2^32 / T.
    ///
    /// # Errors
    ///
    /// When the key's origin is not in row 0, or its columns go past what a mask can address, or there
    /// are more than 2^32 - 1 units.
    pub fn bernoulli(units: usize, dropout: &Dropout, key: &MaskKey) -> Result<Self> {
        let mut kept = Self::all(units)?;
        kept.redraw_bernoulli(dropout, key)?;
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
    /// with the key's 64-bit seed, low half first, as the key of Philox, and xoshiro256++ started from
    /// the 32 bytes as its four 64-bit words of state, low byte first. `below` is uniform: of the
    /// 2^64 values of x it refuses the fewest that leave each result equally many (Lemire 2019, "Fast
    /// random integer generation in an interval"). Where all units are kept, or none, nothing is
    /// drawn.
    ///
    /// The scale is `units / count` (0 where `count` is 0, and 1 with classical scaling).
    ///
    /// # Errors
    ///
    /// When the key's origin is not row 0 and column 0, since a number of units is one of a whole
    /// layer, or there are more than 2^32 - 1 units.
    pub fn exact(units: usize, dropout: &Dropout, key: &MaskKey) -> Result<Self> {
        let mut kept = Self::all(units)?;
        kept.redraw_exact(dropout, key)?;
        Ok(kept)
    }

    /// Selects anew, as [`KeptUnits::bernoulli`] does.
    ///
    /// # Errors
    ///
    /// As for [`KeptUnits::bernoulli`]; the selection is as it was then.
    pub fn redraw_bernoulli(&mut self, dropout: &Dropout, key: &MaskKey) -> Result<()> {
        let key = key.units();
        key.check(1, self.units)?;
        let mut bits = match self.bits.take() {
            Some(bits) => bits,
            None => Mask::new(1, self.units)?,
        };
        bits.fill(dropout, &key)?;
        self.indices.clear();
        for (first, word) in (0..).step_by(32).zip(bits.words()) {
            let mut left = *word;
            while left != 0 {
                self.indices.push(first + left.trailing_zeros());
                left &= left - 1;
            }
        }
        self.bits = Some(bits);
        (self.scale, self.unscale) = (dropout.scale_f64(), dropout.unscale());
        self.keep = dropout.keep();
        Ok(())
    }

    /// Selects anew, as [`KeptUnits::exact`] does.
    ///
    /// # Errors
    ///
    /// As for [`KeptUnits::exact`]; the selection is as it was then.
    pub fn redraw_exact(&mut self, dropout: &Dropout, key: &MaskKey) -> Result<()> {
        let units = self.units;
        for (what, first) in [("row", key.row0()), ("column", key.col0())] {
            if first != 0 {
                let (count, limit) = (units as u64, units as u64);
                return Err(Error::Address { what, first, count, limit });
            }
        }
        // At most `units`, since T is at most 2^32.
        let count = (u128::from(dropout.threshold()) * units as u128 + (1 << 31)) >> 32;
        let count = count as usize;
        fill(&mut self.indices, units)?;
        if count < units {
            select(&mut self.indices, count, key);
        }
        let keep = share(count, units);
        (self.scale, self.unscale) = match (dropout.scaling(), count) {
            (Scaling::Classical, _) => (1.0, 1.0),
            (Scaling::Inverted, 0) => (0.0, 0.0),
            (Scaling::Inverted, _) => (units as f64 / count as f64, keep),
        };
        self.keep = keep;
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

/// 0, 1, ... `units` - 1.
fn fill(indices: &mut Vec<u32>, units: usize) -> Result<()> {
    let count = u32::try_from(units).map_err(|_| Error::Address {
        what: "unit",
        first: 0,
        count: units as u64,
        limit: u32::MAX.into(),
    })?;
    indices.clear();
    indices.extend(0..count);
    Ok(())
}

/// The share of the units that are kept; 1 where there are none.
fn share(count: usize, units: usize) -> f64 {
    if units == 0 { 1.0 } else { count as f64 / units as f64 }
}

/// Leaves `count` of the units, chosen at random, ascending.
fn select(units: &mut Vec<u32>, count: usize, key: &MaskKey) {
    let mut random = Xoshiro256PlusPlus::from_seed(seed(key));
    for i in 0..count {
        let other = i + below(&mut random, (units.len() - i) as u64) as usize;
        units.swap(i, other);
    }
    units.truncate(count);
    units.sort_unstable();
}

/// The generator's seed: two Philox blocks of the key's domain for selections.
fn seed(key: &MaskKey) -> [u8; 32] {
    let mut seed = [0; 32];
    for (block, bytes) in (0..).zip(seed.chunks_exact_mut(16)) {
        let (counter, key) = key.selection().counter(0, block, 0);
        for (word, bytes) in philox4x32_10(counter, key).iter().zip(bytes.chunks_exact_mut(4)) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
    }
    seed
}

/// A uniform number below `m`, which is not 0.
fn below(random: &mut Xoshiro256PlusPlus, m: u64) -> u64 {
    let refused = m.wrapping_neg() % m;
    loop {
        let product = u128::from(random.next_u64()) * u128::from(m);
        if product as u64 >= refused {
            return (product >> 64) as u64;
        }
    }
}
