//! Runs that are written past the caches.

use super::*;
use crate::mask::BroadcastShape;
use crate::view::{MatMut, MatRef};

/// Written past the caches or not: the same, for outputs and runs that start anywhere in a vector.
#[test]
fn streamed_runs_are_runs() {
    for (runs, run) in [(1, 3), (3, 5), (40, 7), (9, 64), (70, 99), (3, 40_001)] {
        let len = runs * run;
        let x: Vec<f32> = (0..len + 40).map(|i| 1.0 + i as f32).collect();
        let words: Vec<u32> = (1..4u32).map(|i| i.wrapping_mul(0x9e37_79b9)).collect();
        let shape = BroadcastShape::channels_first(&[1, runs, run]).unwrap();
        let (nest, _) = shape.nest().split_inner();
        for level in Level::available() {
            for (from, to) in [(0, 0), (1, 3), (5, 8), (3, 17), (16, 31)] {
                let write = |streams| {
                    let mut y = vec![9.0; len + 40];
                    let (x, out) = (MatRef::row_vector(&x[from..]), &mut y[to..to + len]);
                    let (x, y_to) = (x.source(), MatMut::row_vector(out).target());
                    let words = &words[..];
                    let runs = Runs { x, y: y_to, len, nest, run, words, scale: 2.0, streams };
                    // SAFETY: both vectors have `len` elements, and words one bit a turn.
                    unsafe { runs.run(level) };
                    y
                };
                assert!(write(true) == write(false), "{level}: {runs} x {run}, {from} {to}");
            }
        }
    }
}
