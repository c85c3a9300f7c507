//! A batch in shards, as several workers would have it: masks by origin, and the bits of the whole.
//!
//! ```text
//! cargo run --release --example sharding
//! ```

use fused_dropout::Result;
use fused_dropout::prelude::*;

const ROWS: usize = 96;
const INPUTS: usize = 40;
const UNITS: usize = 70;

fn main() -> Result<()> {
    let x: Vec<f32> = (0..ROWS * INPUTS).map(|i| (i % 17) as f32 / 8.0 - 1.0).collect();
    let w: Vec<f32> = (0..INPUTS * UNITS).map(|i| (i % 23) as f32 / 80.0 - 0.14).collect();
    let (x, w) = (MatRef::new(&x, ROWS, INPUTS)?, MatRef::new(&w, INPUTS, UNITS)?);

    let mut whole = vec![0.0; ROWS * UNITS];
    forward(x, w, 0, MatMut::new(&mut whole, ROWS, UNITS)?)?;

    for workers in [2, 3, 5] {
        let mut shards = vec![0.0; ROWS * UNITS];
        for worker in 0..workers {
            let (first, end) = (ROWS * worker / workers, ROWS * (worker + 1) / workers);
            let y = MatMut::new(&mut shards, ROWS, UNITS)?.rows_from(first, end - first)?;
            forward(x.rows_from(first, end - first)?, w, first, y)?;
        }
        let same = whole.iter().zip(&shards).all(|(a, b)| a.to_bits() == b.to_bits());
        println!("{workers} workers: the bits of one: {same}");
        assert!(same);
    }
    Ok(())
}

/// The layer for rows `first..` of the batch.
fn forward(x: MatRef<'_>, w: MatRef<'_>, first: usize, y: MatMut<'_>) -> Result<()> {
    let key = MaskKey::new(42, 1, 0)?.with_origin(first as u64, 0);
    let layer = DenseLayer::new(Activation::Gelu).with_output(Dropout::new(0.3)?.with_key(key));
    dense_forward(&DenseArgs::new(layer, x, w), y, None, MaskSource::Key)
}
