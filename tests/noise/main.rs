//! Gaussian dropout, alpha dropout, and softmax with dropout: the bits of the reference on every
//! level, the edge cases, and the moments.

mod alpha;
#[path = "../common/mod.rs"]
mod common;
mod gaussian;
mod moments;
mod softmax;

use fused_dropout::MaskKey;
use proptest::prelude::*;

/// Rows and columns around vectors, groups and blocks.
fn shapes() -> impl Strategy<Value = (usize, usize)> {
    prop_oneof![
        (0usize..=4, 0usize..=130),
        (0usize..=40, 0usize..=40),
        (1usize..=3, 240usize..=530),
        (60usize..=140, 1usize..=5),
    ]
}

/// Origins at the start, inside words and blocks, and at the end of what a mask can address.
fn origins() -> impl Strategy<Value = (u64, u64)> {
    prop_oneof![Just((0, 0)), (0u64..1000, 0u64..1000), Just(((1 << 32) - 200, (1 << 39) - 600)),]
}

fn key(seed: u64, origin: (u64, u64)) -> MaskKey {
    MaskKey::new(seed, 5, 9).unwrap().with_origin(origin.0, origin.1)
}
