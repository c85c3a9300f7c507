//! A trainer of one's own on ndarray: arrays, loss and loop are the trainer's, the layers are
//! fused-dropout's.
//!
//! ```text
//! cargo run --release -p custom-trainer
//! ```
//!
//! A network of two hidden layers fits a noisy sine of few points, without and with dropout, and is tested
//! on the clean sine.

use fused_dropout::prelude::*;
use ndarray::Array2;

type Error = Box<dyn std::error::Error>;

const WIDTH: usize = 128;
const STEPS: u32 = 3000;

fn main() -> Result<(), Error> {
    let train = Array2::from_shape_fn((40, 1), |(i, _)| i as f32 / 20.0 - 1.0);
    let noise = |i: usize| 0.4 * (((i * 7919) % 101) as f32 / 50.0 - 1.0);
    let targets = Array2::from_shape_fn((40, 1), |(i, _)| (3.0 * train[[i, 0]]).sin() + noise(i));
    let test = Array2::from_shape_fn((200, 1), |(i, _)| i as f32 / 100.0 - 1.0);
    let clean = test.mapv(|x| (3.0 * x).sin());
    println!("rate   error on noisy points   error on the clean curve");
    for rate in [0.0, 0.1, 0.2] {
        let mut network = Network::new(rate)?;
        for step in 0..STEPS {
            network.train(&train, &targets, step)?;
        }
        let of = |x: &Array2<f32>, y: &Array2<f32>| -> Result<f32, Error> {
            Ok((network.predict(x)? - y).mapv(|d| d * d).mean().unwrap_or(f32::NAN).sqrt())
        };
        println!("{rate:4.1}   {:21.3}   {:24.3}", of(&train, &targets)?, of(&test, &clean)?);
    }
    Ok(())
}

/// A layer's parameters and the velocities of both.
struct Layer {
    w: Array2<f32>,
    w_velocity: Array2<f32>,
    bias: Vec<f32>,
    bias_velocity: Vec<f32>,
}

struct Network {
    layers: Vec<Layer>,
    dropout: Dropout,
}

impl Network {
    fn new(rate: f64) -> Result<Self, Error> {
        let sizes = [1, WIDTH, WIDTH, 1];
        let layers = sizes.windows(2).enumerate().map(|(l, size)| {
            let scale = (3.0 / size[0] as f32).sqrt();
            let w = Array2::from_shape_fn((size[0], size[1]), |(i, j)| {
                let golden = (i * size[1] + j + 100 * l + 1) as f32 * 0.618_034;
                scale * (2.0 * golden.fract() - 1.0)
            });
            let (w_velocity, bias) = (Array2::zeros(w.raw_dim()), vec![0.0; size[1]]);
            Layer { w, w_velocity, bias_velocity: bias.clone(), bias }
        });
        Ok(Self { layers: layers.collect(), dropout: Dropout::new(rate)? })
    }

    /// Layer `l` in a step of training; without a step, in prediction.
    fn layer(&self, l: usize, step: Option<u32>) -> Result<DenseLayer<'static>, Error> {
        if l + 1 == self.layers.len() {
            return Ok(DenseLayer::new(Activation::Identity));
        }
        let layer = DenseLayer::new(Activation::Tanh);
        Ok(match step {
            None => layer,
            Some(step) => {
                layer.with_output(self.dropout.with_key(MaskKey::new(42, l as u32, step)?))
            }
        })
    }

    /// The outputs of all layers.
    fn forward(&self, x: &Array2<f32>, step: Option<u32>) -> Result<Vec<Array2<f32>>, Error> {
        let mut outputs: Vec<Array2<f32>> = Vec::new();
        for (l, layer) in self.layers.iter().enumerate() {
            let mut y = Array2::zeros((x.nrows(), layer.w.ncols()));
            let x = MatRef::try_from(outputs.last().unwrap_or(x))?;
            let args = DenseArgs::new(self.layer(l, step)?, x, MatRef::try_from(&layer.w)?)
                .with_bias(&layer.bias);
            dense_forward(&args, MatMut::try_from(&mut y)?, None, MaskSource::Key)?;
            outputs.push(y);
        }
        Ok(outputs)
    }

    fn predict(&self, x: &Array2<f32>) -> Result<Array2<f32>, Error> {
        Ok(self.forward(x, None)?.pop().ok_or("a network without layers")?)
    }

    /// A step on half the mean squared error.
    fn train(&mut self, x: &Array2<f32>, targets: &Array2<f32>, step: u32) -> Result<(), Error> {
        let outputs = self.forward(x, Some(step))?;
        let mut dy = (&outputs[self.layers.len() - 1] - targets) / x.nrows() as f32;
        let numbers = SgdStep::new(0.05 * (1.0 - step as f32 / STEPS as f32)).with_momentum(0.9);
        for l in (0..self.layers.len()).rev() {
            let does = self.layer(l, Some(step))?;
            let input = if l == 0 { x } else { &outputs[l - 1] };
            let layer = &mut self.layers[l];
            let parameters = Parameters::new(MatMut::try_from(&mut layer.w)?)
                .with_w_state(MatMut::try_from(&mut layer.w_velocity)?)
                .with_bias(&mut layer.bias)
                .with_bias_state(&mut layer.bias_velocity[..]);
            let update = DenseUpdate::new(does, MatRef::try_from(input)?, numbers);
            let saved = Saved::Output(MatRef::try_from(&outputs[l])?);
            let mut dx = Array2::zeros(input.raw_dim());
            let dx_view = MatMut::try_from(&mut dx)?;
            dense_update(
                &update,
                parameters,
                &saved,
                MatRef::try_from(&dy)?,
                Some(dx_view),
                MaskSource::Key,
            )?;
            dy = dx;
        }
        Ok(())
    }
}
