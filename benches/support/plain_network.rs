//! A training step as a careful programmer writes it without this crate: matrixmultiply, and one scalar
//! pass for each thing to do.

use fused_dropout::Dropout;
use fused_dropout::nn::Mlp;
use fused_dropout::update::SgdStep;
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::SeedableRng;

use super::plain::{factors, product};

/// A network with ReLU, its mini-batch, and the numbers of SGD.
pub(crate) struct PlainNetwork {
    random: Xoshiro256PlusPlus,
    rates: [Dropout; 2],
    sgd: SgdStep,
    x: Vec<f32>,
    labels: Vec<u32>,
    layers: Vec<PlainLayer>,
}

/// A layer, and what a step keeps of it.
struct PlainLayer {
    inputs: usize,
    units: usize,
    w: Vec<f32>,
    b: Vec<f32>,
    /// Gradients and velocities of w and b.
    dw: [Vec<f32>; 2],
    db: [Vec<f32>; 2],
    /// The input after dropout, the factors that made it, and its gradient.
    x: Vec<f32>,
    mask: Vec<f32>,
    dx: Vec<f32>,
    z: Vec<f32>,
}

impl PlainNetwork {
    /// With the sizes, rates and weights of `mlp`.
    pub(crate) fn new(mlp: &Mlp, sgd: SgdStep, (x, labels): (Vec<f32>, Vec<u32>)) -> Self {
        let batch = labels.len();
        let layers = mlp.layers().iter().map(|layer| {
            let (inputs, units) = (layer.inputs(), layer.units());
            let zeros = |n: usize| vec![0.0; n];
            PlainLayer {
                inputs,
                units,
                w: layer.weights().to_vec(),
                b: layer.bias().to_vec(),
                dw: [(); 2].map(|()| zeros(inputs * units)),
                db: [(); 2].map(|()| zeros(units)),
                x: zeros(batch * inputs),
                mask: zeros(batch * inputs),
                dx: zeros(batch * inputs),
                z: zeros(batch * units),
            }
        });
        let rate = |rate| Dropout::new(rate).expect("a rate");
        let rates = [rate(mlp.spec().input_rate), rate(mlp.spec().hidden_rate)];
        let random = Xoshiro256PlusPlus::seed_from_u64(1);
        Self { random, rates, sgd, x, labels, layers: layers.collect() }
    }

    /// A training step; returns the loss.
    pub(crate) fn step(&mut self) -> f32 {
        self.forward();
        let last = self.layers.len() - 1;
        let loss = softmax_cross_entropy(&mut self.layers[last].z, &self.labels);
        self.backward();
        for layer in &mut self.layers {
            update(&mut layer.w, &mut layer.dw, &self.sgd);
            update(&mut layer.b, &mut layer.db, &self.sgd);
        }
        loss
    }

    fn forward(&mut self) {
        let (batch, last) = (self.labels.len(), self.layers.len() - 1);
        for l in 0..self.layers.len() {
            let (before, after) = self.layers.split_at_mut(l);
            let layer = &mut after[0];
            let input = before.last().map_or(&self.x, |layer| &layer.z);
            factors(&mut self.random, &self.rates[l.min(1)], &mut layer.mask);
            for ((x, input), mask) in layer.x.iter_mut().zip(input).zip(&layer.mask) {
                *x = input * mask;
            }
            let (inputs, units) = (layer.inputs, layer.units);
            let (x, w) = ((&*layer.x, inputs, 1), (&*layer.w, units, 1));
            product((batch, inputs, units), x, w, &mut layer.z);
            for row in layer.z.chunks_mut(units) {
                row.iter_mut().zip(&layer.b).for_each(|(z, b)| *z += b);
            }
            if l < last {
                layer.z.iter_mut().for_each(|z| *z = z.max(0.0));
            }
        }
    }

    /// From the gradient of the logits, which stands in the last layer's `z`.
    fn backward(&mut self) {
        let batch = self.labels.len();
        for l in (0..self.layers.len()).rev() {
            let (before, after) = self.layers.split_at_mut(l);
            let PlainLayer { inputs, units, w, dw, db, x, mask, dx, z: dz, .. } = &mut after[0];
            let (inputs, units) = (*inputs, *units);
            product((inputs, batch, units), (x, 1, inputs), (dz, units, 1), &mut dw[0]);
            db[0].fill(0.0);
            for row in dz.chunks(units) {
                db[0].iter_mut().zip(row).for_each(|(db, dz)| *db += dz);
            }
            if let Some(before) = before.last_mut() {
                product((batch, units, inputs), (dz, units, 1), (w, 1, units), dx);
                dx.iter_mut().zip(mask).for_each(|(dx, mask)| *dx *= *mask);
                for (z, dx) in before.z.iter_mut().zip(dx) {
                    *z = if *z > 0.0 { *dx } else { 0.0 };
                }
            }
        }
    }
}

/// The mean cross-entropy of the logits, which are overwritten by their gradient.
fn softmax_cross_entropy(logits: &mut [f32], labels: &[u32]) -> f32 {
    let classes = logits.len() / labels.len();
    let mut loss = 0.0;
    for (row, &label) in logits.chunks_mut(classes).zip(labels) {
        let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        loss -= row[label as usize] - largest;
        row.iter_mut().for_each(|z| *z = (*z - largest).exp());
        let sum: f32 = row.iter().sum();
        loss += sum.ln();
        row.iter_mut().for_each(|z| *z /= sum * labels.len() as f32);
        row[label as usize] -= 1.0 / labels.len() as f32;
    }
    loss / labels.len() as f32
}

/// SGD with momentum: velocity, then weight.
fn update(w: &mut [f32], [gradient, velocity]: &mut [Vec<f32>; 2], sgd: &SgdStep) {
    let SgdStep { learning_rate, momentum, .. } = *sgd;
    for ((w, g), v) in w.iter_mut().zip(gradient).zip(velocity) {
        *v = momentum * *v + *g;
        *w -= learning_rate * *v;
    }
}
