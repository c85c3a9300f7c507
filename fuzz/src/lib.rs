//! The bodies of the fuzz targets: bytes in, a panic where the crate is wrong.
//!
//! Each body makes one operation of the bytes, wrong arguments included, and compares the fast
//! function with the reference on every level of the machine. Both must refuse the same arguments,
//! and a refused operation must leave its outputs alone. Buffers end exactly where a matrix ends, so
//! that AddressSanitizer, which `cargo fuzz` switches on, sees every access beyond. `checkpoint` has no
//! reference: what is read must be a network, which is written and read again unchanged.

mod blocks;
mod broadcast;
mod checkpoint;
mod dense;
mod elementwise;
mod input;
mod mask;
mod mask_values;
mod noise;
mod rates;
mod softmax;
mod update;

pub use blocks::blocks;
pub use broadcast::broadcast;
pub use checkpoint::checkpoint;
pub use dense::dense;
pub use elementwise::elementwise;
pub use mask::mask;
pub use mask_values::mask_values;
pub use noise::{alpha, gaussian};
pub use rates::rates;
pub use softmax::softmax;
pub use update::update;

use fused_dropout::{KeyedDropout, Level, Result, reference, testing};

/// Calls `f` with every level of this machine forced.
fn for_each_level(f: impl Fn(Level)) {
    for level in Level::available() {
        testing::at_level(level, || f(level)).expect("an available level can be forced");
    }
}

/// Bits, all NaN being alike: which NaN an operation returns is not specified.
fn bits(x: f32) -> u32 {
    if x.is_nan() { 0x7fc0_0000 } else { x.to_bits() }
}

/// Both succeed, or both refuse with the same error. Compared as text: an error may hold a NaN.
#[track_caller]
fn assert_same_outcome(level: Level, what: &str, fast: &Result<()>, reference: &Result<()>) {
    assert_eq!(format!("{fast:?}"), format!("{reference:?}"), "{what} on {level}");
}

/// The same bits on levels that multiply and add in one rounding; on others any value.
#[track_caller]
fn assert_same(level: Level, what: &str, fast: &[f32], reference: &[f32]) {
    assert_eq!(fast.len(), reference.len(), "{what}");
    if !level.has_fma() {
        return;
    }
    for (i, (a, b)) in fast.iter().zip(reference).enumerate() {
        assert_eq!(bits(*a), bits(*b), "{what} on {level}: element {i} is {a:?}, not {b:?}");
    }
}

/// Every element that the mask drops is +0.0, on every level.
#[track_caller]
fn assert_dropped(what: &str, values: &[f32], cols: usize, dropout: &KeyedDropout) {
    for (i, value) in values.iter().enumerate() {
        let kept = reference::keeps(dropout, i / cols, i % cols);
        assert!(kept || value.to_bits() == 0, "{what}: dropped element {i} is {value:?}");
    }
}
