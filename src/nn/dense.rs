//! A dense layer's parameters.

use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::Rng;

use crate::buffers::AlignedBuffer;
use crate::dense::Parameters;
use crate::error::Result;
use crate::view::MatMut;

/// Weights [inputs, units], one bias a unit, and the velocity of both.
#[derive(Clone, Debug)]
pub struct Dense {
    inputs: usize,
    units: usize,
    parameters: Numbers,
    velocity: Option<Numbers>,
}

/// A number for each weight and each bias.
#[derive(Clone, Debug)]
struct Numbers {
    w: AlignedBuffer,
    b: AlignedBuffer,
}

impl Numbers {
    fn zeros(inputs: usize, units: usize) -> Result<Self> {
        let mut w = AlignedBuffer::default();
        w.room(inputs, units)?;
        Ok(Self { w, b: AlignedBuffer::zeros(units)? })
    }
}

impl Dense {
    /// Normal weights with the given standard deviation, and biases of 0.
    pub(super) fn new(
        inputs: usize,
        units: usize,
        deviation: f64,
        random: &mut Xoshiro256PlusPlus,
    ) -> Result<Self> {
        let mut parameters = Numbers::zeros(inputs, units)?;
        for pair in parameters.w.chunks_mut(2) {
            for (w, normal) in pair.iter_mut().zip(normal_pair(random)) {
                *w = (deviation * normal) as f32;
            }
        }
        Ok(Self { inputs, units, parameters, velocity: None })
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

    /// The same layer with its weights, but not its biases, multiplied by `keep`; without velocities.
    pub(super) fn scaled(&self, keep: f64) -> Result<Self> {
        let mut w = AlignedBuffer::default();
        self.scale_weights(keep, &mut w)?;
        let parameters = Numbers { w, b: self.parameters.b.clone() };
        Ok(Self { parameters, velocity: None, ..*self })
    }

    /// The weights times `keep`, in place of what `scaled` held.
    pub(super) fn scale_weights(&self, keep: f64, scaled: &mut AlignedBuffer) -> Result<()> {
        let keep = keep as f32;
        let weights = self.parameters.w.iter();
        for (scaled, w) in scaled.grow(weights.len())?.iter_mut().zip(weights) {
            *scaled = w * keep;
        }
        Ok(())
    }

    /// What an update with or without momentum changes.
    pub(super) fn parameters_mut(&mut self, momentum: bool) -> Result<Parameters<'_>> {
        let (inputs, units) = (self.inputs, self.units);
        if momentum && self.velocity.is_none() {
            self.velocity = Some(Numbers::zeros(inputs, units)?);
        }
        let (mut w_velocity, mut bias_velocity) = (None, None);
        if let Some(Numbers { w, b }) = &mut self.velocity {
            w_velocity = Some(MatMut::new(w, inputs, units)?);
            bias_velocity = Some(&mut b[..]);
        }
        let Numbers { w, b } = &mut self.parameters;
        let w = MatMut::new(w, inputs, units)?;
        Ok(Parameters { w, w_velocity, bias: Some(b), bias_velocity })
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
