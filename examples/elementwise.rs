//! Dropout for a network whose matmul is somebody else's: in place, from one buffer to another, with
//! channels that share a decision, and with noise.
//!
//! ```text
//! cargo run --release --example elementwise
//! ```

use fused_dropout::Result;
use fused_dropout::elementwise::{
    BroadcastDropout, GaussianDropout, broadcast_dropout_forward, gaussian_dropout_forward,
};
use fused_dropout::mask::BroadcastShape;
use fused_dropout::prelude::*;

fn main() -> Result<()> {
    let key = MaskKey::new(42, 0, 0)?;
    let half = Dropout::new(0.5)?.with_key(key);

    let mut x = vec![1.0f32; 12];
    dropout_forward(&mut x[..], &half, MaskSource::Key)?;
    println!("dropout, rate 0.5        {x:?}");

    // Backward multiplies by the same mask, which is made again from the key.
    let mut dx = vec![1.0f32; 12];
    dropout_backward((&[1.0; 12][..], &mut dx[..]), &half, MaskSource::Key)?;
    assert_eq!(x, dx);

    // Bias, activation and dropout in one pass, with the mask stored on the way.
    let (mut y, mut mask) = (vec![0.0f32; 12], Mask::new(3, 4)?);
    let args = BiasActivationDropout::new(Activation::Relu, half).with_bias(&[0.5, -2.0, 0.0, 1.0]);
    let z = [1.0; 12];
    let in_out = (MatRef::new(&z, 3, 4)?, MatMut::new(&mut y, 3, 4)?);
    bias_activation_dropout_forward(&args, in_out, &mut mask)?;
    println!("relu(z + bias), dropped  {y:?}, {} of 12 kept", mask.count());

    // Two images of three channels of 2 x 2 pixels: whole channels are dropped.
    let mut images = vec![1.0f32; 2 * 3 * 4];
    let shape = BroadcastShape::channels_first(&[2, 3, 2, 2])?;
    broadcast_dropout_forward(
        &BroadcastDropout::new(shape, half),
        &mut images[..],
        MaskSource::Key,
    )?;
    println!("channels                 {images:?}");

    // Noise of the variance of dropout with this rate, and no zeros.
    let mut noisy = vec![1.0f32; 6];
    gaussian_dropout_forward(&mut noisy[..], &GaussianDropout::new(0.1)?.with_key(key))?;
    println!("Gaussian, rate 0.1       {noisy:.2?}");
    Ok(())
}
