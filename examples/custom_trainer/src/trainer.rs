//! A trainer of dense layers on ndarray: Huber's loss, Adam, and dropout of the hidden units.

use fused_dropout::loss::{Huber, huber};
use fused_dropout::nn::Initialiser;
use fused_dropout::prelude::*;
use ndarray::{Array2, ArrayView2};

pub(super) type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// A mini-batch: a row for each example.
pub(super) type Rows<'a> = ArrayView2<'a, f32>;

/// Weights and biases, each with the two moments that Adam keeps.
struct Layer {
    w: [Array2<f32>; 3],
    bias: [Vec<f32>; 3],
}

pub(super) struct Trainer(Vec<Layer>);

impl Trainer {
    /// A network of random weights, and biases and moments of 0.
    pub(super) fn new(sizes: &[usize]) -> Result<Self> {
        let layers = sizes.windows(2).zip(0..).map(|(size, l)| {
            let mut w = [(); 3].map(|()| Array2::zeros((size[0], size[1])));
            let key = MaskKey::new(42, l, Initialiser::STEP)?;
            Initialiser::lecun_normal().fill(MatMut::try_from(&mut w[0])?, &key)?;
            Ok(Layer { w, bias: [(); 3].map(|()| vec![0.0; size[1]]) })
        });
        layers.collect::<Result<_>>().map(Self)
    }

    /// What layer `l` does in a step: each layer and step has a mask of its own.
    fn layer(&self, l: usize, dropout: Dropout, step: u32) -> Result<DenseLayer<'static>> {
        let key = MaskKey::new(42, l as u32, step)?;
        let hidden = DenseLayer::new(Activation::Tanh).with_output(dropout.with_key(key));
        Ok(if l + 1 < self.0.len() { hidden } else { DenseLayer::new(Activation::Identity) })
    }

    /// The input, then the output of each layer. A prediction is without dropout: `Dropout::NONE`.
    pub(super) fn forward(&self, x: Rows, dropout: Dropout, step: u32) -> Result<Vec<Array2<f32>>> {
        let mut outputs = vec![x.to_owned()];
        for (l, Layer { w, bias }) in self.0.iter().enumerate() {
            let mut y = Array2::zeros((x.nrows(), bias[0].len()));
            let (x, w) = (MatRef::try_from(&outputs[l])?, MatRef::try_from(&w[0])?);
            let args = DenseArgs::new(self.layer(l, dropout, step)?, x, w).with_bias(&bias[0]);
            dense_forward(&args, MatMut::try_from(&mut y)?, None, MaskSource::Key)?;
            outputs.push(y);
        }
        Ok(outputs)
    }

    /// A step on a mini-batch: forward, loss, and for each layer, the last one first, backward and update in
    /// one. Steps are counted by Adam.
    pub(super) fn fit(&mut self, x: Rows, y: Rows, dropout: Dropout, adam: AdamStep) -> Result<()> {
        let (outputs, last) = (self.forward(x, dropout, adam.step)?, self.0.len());
        let mut dy = Array2::zeros(y.raw_dim());
        let loss = Huber::new(MatRef::try_from(y)?, 0.5)?;
        huber(&loss, MatRef::try_from(&outputs[last])?, Some(MatMut::try_from(&mut dy)?))?;
        for l in (0..last).rev() {
            let does = self.layer(l, dropout, adam.step)?;
            let Layer { w: [w, w1, w2], bias: [bias, bias1, bias2] } = &mut self.0[l];
            let parameters = Parameters::new(MatMut::try_from(w)?)
                .with_w_state((MatMut::try_from(w1)?, MatMut::try_from(w2)?))
                .with_bias(bias)
                .with_bias_state((&mut bias1[..], &mut bias2[..]));
            let update = DenseUpdate::new(does, MatRef::try_from(&outputs[l])?, adam);
            let saved = Saved::Output(MatRef::try_from(&outputs[l + 1])?);
            let mut dx = Array2::zeros(outputs[l].raw_dim());
            let (dz, to) = (MatMut::try_from(&mut dy)?, MatMut::try_from(&mut dx)?);
            dense_update(&update, parameters, &saved, dz, Some(to), MaskSource::Key)?;
            dy = dx;
        }
        Ok(())
    }
}
