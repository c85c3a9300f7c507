//! A dense layer's parameters.

use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::Rng;

use crate::elementwise::{SgdStep, max_norm, sgd_update};
use crate::error::Result;
use crate::view::{MatMut, MatRef};

/// Weights [inputs, units], one bias a unit, and the velocity of both.
#[derive(Clone, Debug)]
pub struct Dense {
    inputs: usize,
    units: usize,
    pub(super) parameters: Parameters,
    pub(super) gradient: Parameters,
    velocity: Option<Parameters>,
}

/// A number for each weight and each bias.
#[derive(Clone, Debug)]
pub(super) struct Parameters {
    pub(super) w: Vec<f32>,
    pub(super) b: Vec<f32>,
}

impl Parameters {
    fn zeros(inputs: usize, units: usize) -> Self {
        Self { w: vec![0.0; inputs * units], b: vec![0.0; units] }
    }
}

impl Dense {
    /// Normal weights with the given standard deviation, and biases of 0.
    pub(super) fn new(
        inputs: usize,
        units: usize,
        deviation: f64,
        random: &mut Xoshiro256PlusPlus,
    ) -> Self {
        let mut parameters = Parameters::zeros(inputs, units);
        for pair in parameters.w.chunks_mut(2) {
            for (w, normal) in pair.iter_mut().zip(normal_pair(random)) {
                *w = (deviation * normal) as f32;
            }
        }
        let gradient = Parameters::zeros(inputs, units);
        Self { inputs, units, parameters, gradient, velocity: None }
    }

    /// Length of an input row.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Length of an output row.
    pub fn units(&self) -> usize {
        self.units
    }

    /// The weights, row after row of [inputs, units].
    pub fn weights(&self) -> &[f32] {
        &self.parameters.w
    }

    /// The biases.
    pub fn bias(&self) -> &[f32] {
        &self.parameters.b
    }

    /// Updates the parameters with the gradient.
    pub(super) fn update(&mut self, step: &SgdStep, limit: Option<f32>) -> Result<()> {
        let (inputs, units) = (self.inputs, self.units);
        if step.momentum > 0.0 && self.velocity.is_none() {
            self.velocity = Some(Parameters::zeros(inputs, units));
        }
        let Parameters { w, b } = &mut self.parameters;
        let (mut velocity_w, mut velocity_b) = (None, None);
        if let Some(velocity) = &mut self.velocity {
            velocity_w = Some(MatMut::new(&mut velocity.w, inputs, units)?);
            velocity_b = Some(MatMut::row_vector(&mut velocity.b));
        }
        let dw = MatRef::new(&self.gradient.w, inputs, units)?;
        sgd_update(MatMut::new(w, inputs, units)?, dw, velocity_w, step)?;
        let no_decay = SgdStep { weight_decay: 0.0, ..*step };
        let db = MatRef::row_vector(&self.gradient.b);
        sgd_update(MatMut::row_vector(b), db, velocity_b, &no_decay)?;
        match limit {
            Some(limit) => max_norm(MatMut::new(w, inputs, units)?, limit),
            None => Ok(()),
        }
    }
}

/// Two independent standard normal numbers (Box and Muller 1958).
fn normal_pair(random: &mut Xoshiro256PlusPlus) -> [f64; 2] {
    // 53 bits: in (0, 1] for the logarithm, in [0, 1) for the angle.
    let mut uniform = || (random.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
    let radius = libm::sqrt(-2.0 * libm::log(1.0 - uniform()));
    let angle = 2.0 * std::f64::consts::PI * uniform();
    [radius * libm::cos(angle), radius * libm::sin(angle)]
}
