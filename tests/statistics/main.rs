//! Statistics of the masks: the bits of one mask, and of masks whose keys are neighbours, behave
//! like independent draws of the stated probability.
//!
//! Seeds are fixed, so every run sees the same bits. How strange they may be is not tuned: were
//! they truly random, the probability that anything here complains would be at most `FALSE_ALARM`.
//! Every statistic gives a p-value that is exact or too large (see `tail`), and all of them, over
//! all tests of this file, share that probability equally. How many there are is counted and
//! asserted. What the battery is able to see is tested in `planted`.

mod battery;
mod bits;
mod counters;
mod planted;
mod tail;

use battery::{BATTERY, NEIGHBOURS, Statistic, battery, neighbours};
use bits::Bits;
use fused_dropout::{Dropout, Mask, MaskKey, Result};
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::SeedableRng;

/// Probability that one or more of all statistics reject truly random bits.
const FALSE_ALARM: f64 = 1e-9;
/// A statistic with a p-value below this one rejects.
const ALPHA: f64 = FALSE_ALARM / STATISTICS as f64;
const STATISTICS: usize = (ELEMENTS + STACKS + GENERATOR + SOUND) * BATTERY
    + (NEIGHBOUR_PAIRS + GENERATOR + SOUND) * NEIGHBOURS;

/// One bit plane, two, and many.
const RATES: [f64; 5] = [0.5, 0.25, 0.2, 0.1, 0.37];

/// Rows, columns and origin of element masks, each of at least 2^26 bits: rows of whole blocks; the
/// last rows and columns there are, and a word that is not full; an origin inside a word; rows much
/// longer than any buffer.
const SHAPES: [(usize, usize, u64, u64); 4] = [
    (65_536, 1024, 0, 0),
    (67_109, 1000, (1 << 32) - 67_109, (1 << 39) - 1000),
    (201_530, 333, 1 << 16, 37),
    (64, (1 << 20) + 7, 5, 1 << 32),
];
const ELEMENTS: usize = RATES.len() * SHAPES.len();

/// Matrices whose rows have neighbouring seeds, layers or steps; of elements and of units.
const AXES: [Axis; 3] = [Axis::Seed, Axis::Layer, Axis::Step];
const STACKS: usize = RATES.len() * AXES.len() * 2;

/// Pairs of matrices under keys that are next to each other.
const NEIGHBOUR_KINDS: usize = 8;
const NEIGHBOUR_PAIRS: usize = RATES.len() * NEIGHBOUR_KINDS;

/// Single matrices, and pairs, from a generator known to be good.
const GENERATOR: usize = RATES.len();

/// Single matrices, and pairs, in which defects are planted, before they are.
const SOUND: usize = RATES.len();

#[derive(Clone, Copy, Debug)]
enum Axis {
    Seed,
    Layer,
    Step,
}

/// Statistics taken so far, and those that reject.
struct Tally {
    taken: usize,
    smallest: f64,
    rejections: Vec<String>,
}

impl Tally {
    fn new() -> Tally {
        Tally { taken: 0, smallest: 1.0, rejections: Vec::new() }
    }

    fn add(&mut self, what: &str, found: &[Statistic]) {
        self.taken += found.len();
        for Statistic { name, p } in found {
            assert!((0.0..=1.0).contains(p), "{what}: {name}: p = {p}");
            self.smallest = self.smallest.min(*p);
            if *p < ALPHA {
                self.rejections.push(format!("{what}: {name}: p = {p:.1e}"));
            }
        }
    }

    /// No statistic of the `planned` ones rejected.
    fn accept(self, planned: usize) {
        assert_eq!(self.taken, planned, "the false-alarm rate counts on another number");
        println!("{planned} statistics, smallest p = {:.1e}, alpha = {ALPHA:.1e}", self.smallest);
        assert!(self.rejections.is_empty(), "\n{}", self.rejections.join("\n"));
    }
}

fn keep_of(dropout: &Dropout) -> f64 {
    dropout.threshold() as f64 / f64::from(2_u32).powi(32)
}

fn elements(rows: usize, cols: usize, dropout: &Dropout, key: &MaskKey) -> Result<Bits> {
    Ok(Bits::from_mask(&Mask::generate(rows, cols, &dropout.with_key(*key))?))
}

/// Row 1 of the element masks, or the unit masks, of `rows` keys: from `first` on along one axis.
fn stack(
    (rows, cols): (usize, usize),
    dropout: &Dropout,
    first: (u64, u32, u32),
    axis: Axis,
    units: bool,
) -> Result<Bits> {
    let (seed, layer, step) = first;
    let masks = (0..rows as u32).map(|i| {
        let key = match axis {
            Axis::Seed => MaskKey::new(seed + u64::from(i), layer, step),
            Axis::Layer => MaskKey::new(seed, layer + i, step),
            Axis::Step => MaskKey::new(seed, layer, step + i),
        }?;
        let key = if units { key.units() } else { key.with_origin(1, 0) };
        Mask::generate(1, cols, &dropout.with_key(key))
    });
    Bits::stack(cols, masks)
}

/// The matrices of all rates, a shape each for the two test threads to share.
fn check_elements(shape: usize) -> Result<()> {
    let (rows, cols, row0, col0) = SHAPES[shape];
    assert!(rows * cols >= 1 << 26);
    let seeds = [0, 1, 0x0123_4567_89ab_cdef, u64::MAX];
    let mut tally = Tally::new();
    for (i, rate) in RATES.into_iter().enumerate() {
        let dropout = Dropout::new(rate)?;
        let key = MaskKey::new(seeds[shape], shape as u32, i as u32)?.with_origin(row0, col0);
        let bits = elements(rows, cols, &dropout, &key)?;
        tally.add(&format!("{rows} x {cols}, rate {rate}"), &battery(&bits, keep_of(&dropout)));
    }
    tally.accept(RATES.len() * BATTERY);
    Ok(())
}

#[test]
fn elements_in_whole_blocks() -> Result<()> {
    check_elements(0)
}

#[test]
fn elements_at_the_last_rows_and_columns() -> Result<()> {
    check_elements(1)
}

#[test]
fn elements_from_inside_a_word() -> Result<()> {
    check_elements(2)
}

#[test]
fn elements_in_long_rows() -> Result<()> {
    check_elements(3)
}

/// Rows that follow each other in seed, layer or step instead of in row; each axis passes through
/// the carry into the key's second word, or ends at its last value.
#[test]
fn neighbouring_keys_under_each_other() -> Result<()> {
    let shape = (8192, 517);
    let mut tally = Tally::new();
    for rate in RATES {
        let dropout = Dropout::new(rate)?;
        for axis in AXES {
            let first = match axis {
                Axis::Seed => ((1 << 32) - 4096, 3, 17),
                Axis::Layer => (5, (1 << 25) - 8192, 17),
                Axis::Step => (5, 3, u32::MAX - 8191),
            };
            for units in [false, true] {
                let bits = stack(shape, &dropout, first, axis, units)?;
                let what = format!("{axis:?}, units {units}, rate {rate}");
                tally.add(&what, &battery(&bits, keep_of(&dropout)));
            }
        }
    }
    tally.accept(STACKS * BATTERY);
    Ok(())
}

/// Two matrices whose keys differ in as little as they can, or in a way that a generator which
/// mixes up its words would not see.
#[test]
fn neighbouring_keys_side_by_side() -> Result<()> {
    let (rows, cols) = (4096, 1000);
    let mut tally = Tally::new();
    for rate in RATES {
        let dropout = Dropout::new(rate)?;
        let key = |seed, layer, step| MaskKey::new(seed, layer, step);
        let at = |key: Result<MaskKey>| elements(rows, cols, &dropout, &key?);
        let flat = |key: MaskKey| elements(1, rows * cols, &dropout, &key);
        let seed = 0x89ab_cdef_ffff_ffff;
        let near = at(key(seed, 6, 9))?;
        // Beyond the rows, or there would be one whose number is that of its step.
        let far = rows as u64 + 9;
        let pairs: [(&str, &Bits, Bits); NEIGHBOUR_KINDS] = [
            ("next seed", &near, at(key(seed + 1, 6, 9))?),
            ("other half of the seed", &near, at(key(seed.rotate_left(32), 6, 9))?),
            ("top bit of the seed", &near, at(key(seed ^ 1 << 63, 6, 9))?),
            ("next layer", &near, at(key(seed, 7, 9))?),
            ("next step", &near, at(key(seed, 6, 10))?),
            ("layer and step exchanged", &near, at(key(seed, 9, 6))?),
            ("row and step exchanged", &at(key(seed, 6, far as u32))?, {
                let row = |step| {
                    Mask::generate(
                        1,
                        cols,
                        &dropout.with_key(key(seed, 6, step)?.with_origin(far, 0)),
                    )
                };
                Bits::stack(cols, (0..rows as u32).map(row))?
            }),
            ("units and elements", &flat(key(seed, 6, 9)?.units())?, flat(key(seed, 6, 9)?)?),
        ];
        for (what, a, b) in &pairs {
            tally.add(&format!("{what}, rate {rate}"), &neighbours(a, b, keep_of(&dropout)));
        }
    }
    tally.accept(NEIGHBOUR_PAIRS * NEIGHBOURS);
    Ok(())
}

/// The battery does not reject what is known to be good: its verdicts are about the masks.
#[test]
fn a_good_generator_is_accepted() -> Result<()> {
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(20_140_614);
    let mut tally = Tally::new();
    for rate in RATES {
        let dropout = Dropout::new(rate)?;
        let mut matrix = || Bits::independent(4096, 1000, dropout.threshold(), &mut rng);
        let (a, b) = (matrix(), matrix());
        tally.add(&format!("alone, rate {rate}"), &battery(&a, keep_of(&dropout)));
        tally.add(&format!("a pair, rate {rate}"), &neighbours(&a, &b, keep_of(&dropout)));
    }
    tally.accept(GENERATOR * (BATTERY + NEIGHBOURS));
    Ok(())
}
