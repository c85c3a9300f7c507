//! The fuzz targets' bodies on stable Rust: committed seeds, and inputs of a fixed generator.

use std::fs;
use std::path::Path;

/// Inputs of the generator for each target.
const GENERATED: u64 = 300;

fn run(target: &str, body: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds").join(target);
    let mut files: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty(), "no seeds for {target}");
    for file in &files {
        println!("{target}: {}", file.display());
        body(&fs::read(file).unwrap());
    }
    for i in 0..GENERATED {
        println!("{target}: generated input {i}");
        body(&generated(i));
    }
    println!("{target}: {} seeds and {GENERATED} generated inputs ran", files.len());
}

/// 192 bytes of SplitMix64.
fn generated(i: u64) -> Vec<u8> {
    let mut state = i << 32;
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    };
    (0..24).flat_map(|_| next().to_le_bytes()).collect()
}

#[test]
fn mask() {
    run("mask", fused_dropout_fuzz::mask);
}

#[test]
fn dense() {
    run("dense", fused_dropout_fuzz::dense);
}

#[test]
fn elementwise() {
    run("elementwise", fused_dropout_fuzz::elementwise);
}

#[test]
fn mask_values() {
    run("mask_values", fused_dropout_fuzz::mask_values);
}

#[test]
fn broadcast() {
    run("broadcast", fused_dropout_fuzz::broadcast);
}

#[test]
fn checkpoint() {
    run("checkpoint", fused_dropout_fuzz::checkpoint);
}

#[test]
fn rates() {
    run("rates", fused_dropout_fuzz::rates);
}

#[test]
fn gaussian() {
    run("gaussian", fused_dropout_fuzz::gaussian);
}

#[test]
fn alpha() {
    run("alpha", fused_dropout_fuzz::alpha);
}

#[test]
fn softmax() {
    run("softmax", fused_dropout_fuzz::softmax);
}

#[test]
fn blocks() {
    run("blocks", fused_dropout_fuzz::blocks);
}

#[test]
fn update() {
    run("update", fused_dropout_fuzz::update);
}
