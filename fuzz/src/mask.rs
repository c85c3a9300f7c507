//! Masks against the walk over single bits.

use arbitrary::{Result, Unstructured};
use fused_dropout::{Mask, reference};

use crate::for_each_level;
use crate::input::{dropout, key, size};

/// Generates a mask on every level, and its shard from a row and a column on.
pub fn mask(data: &[u8]) {
    let _ = run(&mut Unstructured::new(data));
}

fn run(u: &mut Unstructured<'_>) -> Result<()> {
    let dropout = dropout(u)?;
    let key = key(u)?;
    // One of the two is long.
    let (rows, cols) = match u.int_in_range(0..=2u8)? {
        0 => (size(u, 40)?, size(u, 200)?),
        1 => (size(u, 3)?, size(u, 9000)?),
        _ => (size(u, 600)?, size(u, 20)?),
    };
    let (row, col) = (u.int_in_range(0..=rows)?, u.int_in_range(0..=cols)?);
    let expected = reference::mask(rows, cols, &dropout.with_key(key));
    for_each_level(|level| {
        let mask = Mask::generate(rows, cols, &dropout.with_key(key));
        let (mask, expected) = match (mask, &expected) {
            (Ok(mask), Ok(expected)) => (mask, expected),
            (mask, expected) => {
                assert_eq!(mask.err(), expected.clone().err(), "{level}");
                return;
            }
        };
        for (i, kept) in expected.iter().enumerate() {
            assert_eq!(mask.get(i / cols, i % cols), Some(*kept), "{level}: element {i}");
        }
        let kept = expected.iter().filter(|kept| **kept).count();
        assert_eq!(mask.count(), kept as u64, "{level}: unused bits");
        let origin = key.with_origin(key.row0() + row as u64, key.col0() + col as u64);
        let part = Mask::generate(rows - row, cols - col, &dropout.with_key(origin));
        let part = part.expect("a part of a mask can be addressed");
        for r in row..rows {
            for c in col..cols {
                assert_eq!(part.get(r - row, c - col), mask.get(r, c), "{level}: shard {r} {c}");
            }
        }
    });
    Ok(())
}
