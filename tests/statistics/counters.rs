//! No block of random words serves twice, and the masks read the blocks they say they read.

use fused_dropout::philox::philox4x32_10;
use fused_dropout::{Dropout, Mask, MaskKey, Result};
use std::collections::HashSet;

/// Values at both ends of a range, and where a word or a shifted field would carry over.
const SEEDS: [u64; 7] = [0, 1, 2, u32::MAX as u64, 1 << 32, (1 << 32) + 1, u64::MAX];
const LAYERS: [u32; 8] = [0, 1, 2, 3, 1 << 5, 1 << 24, (1 << 25) - 2, (1 << 25) - 1];
const STEPS: [u32; 6] = [0, 1, 2, 1 << 31, u32::MAX - 1, u32::MAX];
const ROWS: [u32; 6] = [0, 1, 2, 1 << 31, u32::MAX - 1, u32::MAX];
const BLOCKS: [u32; 5] = [0, 1, 1 << 31, u32::MAX - 1, u32::MAX];

#[test]
fn no_counter_is_used_twice() -> Result<()> {
    let mut used = HashSet::new();
    for seed in SEEDS {
        for layer in LAYERS {
            for step in STEPS {
                let key = MaskKey::new(seed, layer, step)?;
                let rows = ROWS.map(|row| (key, row));
                // A unit mask is the same for all rows: it has row 0 only.
                for (key, row) in rows.into_iter().chain([(key.units(), 0)]) {
                    for block in BLOCKS {
                        for plane in 0..32 {
                            let counter = key.counter(row, block, plane);
                            assert!(used.insert(counter), "{key:?}, {row}, {block}, {plane}");
                        }
                    }
                }
                // The two blocks that seed the selection of an exact number of units.
                let words = [seed as u32, (seed >> 32) as u32];
                for block in 0..2 {
                    let counter = ([block, 0, step, layer << 7 | 2 << 5], words);
                    assert!(used.insert(counter), "{key:?}, selection {block}");
                }
            }
        }
    }
    let keys = SEEDS.len() * LAYERS.len() * STEPS.len();
    assert_eq!(used.len(), keys * ((ROWS.len() + 1) * BLOCKS.len() * 32 + 2));
    Ok(())
}

/// The contract, bit by bit, from the counters above: so what is unique there is what masks use.
#[test]
fn masks_use_these_counters() -> Result<()> {
    let (rows, cols) = (3, 300);
    for rate in super::RATES {
        let dropout = Dropout::new(rate)?;
        let elements = MaskKey::new(0xfeed_0000_beef, (1 << 25) - 1, u32::MAX)?;
        for (key, rows) in [(elements, rows), (elements.units(), 1)] {
            let mask = Mask::generate(rows, cols, &dropout.with_key(key))?;
            for row in 0..rows {
                for col in 0..cols {
                    let mut uniform = 0;
                    for plane in 0..32 {
                        let (counter, words) = key.counter(row as u32, (col / 128) as u32, plane);
                        let word = philox4x32_10(counter, words)[col % 128 / 32];
                        uniform = uniform << 1 | u64::from(word >> (col % 32) & 1);
                    }
                    let kept = Some(uniform < dropout.threshold());
                    assert_eq!(mask.get(row, col), kept, "rate {rate}, row {row}, column {col}");
                }
            }
        }
    }
    Ok(())
}
