//! A dense layer by hand: forward, and backward with the update in one call.
//!
//! ```text
//! cargo run --release --example layer
//! ```
//!
//! Two layers learn whether a point lies inside a circle. Half of the hidden units' outputs are dropped in
//! each step; the mask is made from (seed, layer, step), never stored, and made again in the backward pass.

use fused_dropout::Result;
use fused_dropout::prelude::*;

const POINTS: usize = 256;
const HIDDEN: usize = 64;

fn main() -> Result<()> {
    let (x, targets) = points();
    let x = MatRef::new(&x, POINTS, 2)?;
    let mut w1 = start(2 * HIDDEN, 1.0);
    let mut w2 = start(HIDDEN, 0.2);
    let (mut b1, mut b2) = (vec![0.0; HIDDEN], vec![0.0; 1]);
    let (mut h, mut y) = (vec![0.0; POINTS * HIDDEN], vec![0.0; POINTS]);
    let (mut dh, mut dy) = (h.clone(), y.clone());
    for step in 0..2001 {
        let half = Dropout::new(0.5)?.with_key(MaskKey::new(42, 1, step)?);
        let hidden = DenseLayer::new(Activation::Relu).with_output(half);
        let output = DenseLayer::new(Activation::Sigmoid);

        let args = DenseArgs::new(hidden, x, MatRef::new(&w1, 2, HIDDEN)?).with_bias(&b1);
        dense_forward(&args, MatMut::new(&mut h, POINTS, HIDDEN)?, None, MaskSource::Key)?;
        let h_view = MatRef::new(&h, POINTS, HIDDEN)?;
        let args = DenseArgs::new(output, h_view, MatRef::new(&w2, HIDDEN, 1)?).with_bias(&b2);
        dense_forward(&args, MatMut::new(&mut y, POINTS, 1)?, None, MaskSource::Key)?;

        // The mean of squared differences, and its gradient.
        let mut loss = 0.0;
        for ((dy, y), target) in dy.iter_mut().zip(&y).zip(&targets) {
            loss += (y - target) * (y - target) / POINTS as f32;
            *dy = 2.0 * (y - target) / POINTS as f32;
        }
        if step % 500 == 0 {
            println!("step {step:4}   loss {loss:.4}");
        }

        let numbers = SgdStep::new(2.0);
        let update = DenseUpdate::new(output, h_view, numbers);
        let parameters = Parameters::new(MatMut::new(&mut w2, HIDDEN, 1)?).with_bias(&mut b2);
        let saved = Saved::Output(MatRef::new(&y, POINTS, 1)?);
        let dh_view = Some(MatMut::new(&mut dh, POINTS, HIDDEN)?);
        let dy_view = MatRef::new(&dy, POINTS, 1)?;
        dense_update(&update, parameters, &saved, dy_view, dh_view, MaskSource::Key)?;

        let update = DenseUpdate::new(hidden, x, numbers);
        let parameters = Parameters::new(MatMut::new(&mut w1, 2, HIDDEN)?).with_bias(&mut b1);
        let dh_view = MatRef::new(&dh, POINTS, HIDDEN)?;
        dense_update(&update, parameters, &Saved::Output(h_view), dh_view, None, MaskSource::Key)?;
    }
    Ok(())
}

/// Points of a square, and 1 for those in a circle that takes half of it.
fn points() -> (Vec<f32>, Vec<f32>) {
    let coordinate = |i: usize| (i % 16) as f32 / 7.5 - 1.0;
    let x: Vec<f32> = (0..POINTS).flat_map(|i| [coordinate(i), coordinate(i / 16)]).collect();
    let inside = |point: &[f32]| if point[0].hypot(point[1]) < 0.8 { 1.0 } else { 0.0 };
    let targets = x.chunks_exact(2).map(inside).collect();
    (x, targets)
}

/// Starting weights between -scale and scale.
fn start(len: usize, scale: f32) -> Vec<f32> {
    (1..=len).map(|i| scale * (2.0 * (i as f32 * 0.618_034).fract() - 1.0)).collect()
}
