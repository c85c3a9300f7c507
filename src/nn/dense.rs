//! A dense layer's parameters, and what updates keep of them.

use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::Rng;

use super::initialiser::Initialiser;
use crate::buffers::AlignedBuffer;
use crate::error::{Result, check_equal};
use crate::layer::Parameters;
use crate::mask::MaskKey;
use crate::math::normal::pair_from_uniform;
use crate::update::{State, Step};
use crate::view::{MatMut, MatRef};

/// Weights [inputs, units], one bias a unit, and what the updates so far keep of both.
#[derive(Clone, Debug)]
pub struct Dense {
    inputs: usize,
    units: usize,
    parameters: Numbers,
    kept: Kept,
}

/// A number for each weight and each bias.
#[derive(Clone, Debug, Default)]
pub(super) struct Numbers {
    pub(super) w: AlignedBuffer,
    pub(super) b: AlignedBuffer,
}

/// What updates keep: nothing, velocities, or two moments.
#[derive(Clone, Debug, Default)]
pub(super) enum Kept {
    #[default]
    Nothing,
    Velocity(Numbers),
    Moments(Numbers, Numbers),
}

impl Numbers {
    pub(super) fn zeros(inputs: usize, units: usize) -> Result<Self> {
        let (mut w, mut b) = (AlignedBuffer::default(), AlignedBuffer::default());
        w.room(inputs, units)?.fill(0.0);
        b.room(1, units)?.fill(0.0);
        Ok(Self { w, b })
    }

    /// A copy of these weights and biases.
    fn of(Values { weights, bias }: Values<'_>) -> Result<Self> {
        let mut copy = Self::default();
        copy.w.room(1, weights.len())?.copy_from_slice(weights);
        copy.b.room(1, bias.len())?.copy_from_slice(bias);
        Ok(copy)
    }

    fn values(&self) -> Values<'_> {
        Values { weights: &self.w, bias: &self.b }
    }
}

/// A number for each weight of a layer, row after row of [inputs, units], and for each bias.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Values<'a> {
    /// Those of the weights.
    pub weights: &'a [f32],
    /// Those of the biases.
    pub bias: &'a [f32],
}

/// What updates keep of a layer's parameters, as [`State`](crate::update::State) does of a matrix.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub enum DenseState<'a> {
    /// Nothing.
    #[default]
    None,
    /// The velocities of gradient descent with momentum.
    Velocity(Values<'a>),
    /// The moments of Adam.
    Moments {
        /// The means of gradients.
        first: Values<'a>,
        /// The means of squared gradients.
        second: Values<'a>,
    },
}

impl Dense {
    /// A layer with these weights, row after row of [inputs, units], and biases.
    ///
    /// ```
    /// # use fused_dropout::nn::Dense;
    /// let layer = Dense::new(2, 3, &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], &[0.0; 3])?;
    /// assert_eq!((layer.inputs(), layer.units(), layer.weights()[4]), (2, 3, 5.0));
    /// # Ok::<(), fused_dropout::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// When there are not so many weights and biases, or the memory cannot be had.
    pub fn new(inputs: usize, units: usize, weights: &[f32], bias: &[f32]) -> Result<Self> {
        let values = Values { weights, bias };
        check(inputs, units, values)?;
        Ok(Self { inputs, units, parameters: Numbers::of(values)?, kept: Kept::Nothing })
    }

    /// A layer with random weights, by [`Initialiser::fill`], and biases of 0.
    ///
    /// # Errors
    ///
    /// As for [`Initialiser::fill`], and when the memory cannot be had.
    pub fn random(
        inputs: usize,
        units: usize,
        initialiser: &Initialiser,
        key: &MaskKey,
    ) -> Result<Self> {
        let mut parameters = Numbers::zeros(inputs, units)?;
        initialiser.fill(MatMut::new(&mut parameters.w, inputs, units)?, key)?;
        Ok(Self { inputs, units, parameters, kept: Kept::Nothing })
    }

    /// A layer of numbers that have its sizes.
    #[cfg(feature = "safetensors")]
    pub(super) fn from_parts(
        (inputs, units): (usize, usize),
        parameters: Numbers,
        kept: Kept,
    ) -> Self {
        Self { inputs, units, parameters, kept }
    }

    /// Normal weights with the given standard deviation, and biases of 0.
    pub(super) fn normal(
        inputs: usize,
        units: usize,
        deviation: f64,
        random: &mut Xoshiro256PlusPlus,
    ) -> Result<Self> {
        let mut parameters = Numbers::zeros(inputs, units)?;
        for pair in parameters.w.chunks_mut(2) {
            for (w, normal) in pair.iter_mut().zip(pair_from_uniform(|| uniform(random))) {
                *w = (deviation * normal) as f32;
            }
        }
        Ok(Self { inputs, units, parameters, kept: Kept::Nothing })
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

    /// The weights, to change.
    pub fn weights_mut(&mut self) -> &mut [f32] {
        &mut self.parameters.w
    }

    /// The biases, to change.
    pub fn bias_mut(&mut self) -> &mut [f32] {
        &mut self.parameters.b
    }

    /// Weights and biases, to change.
    pub(super) fn parameters_as_slices(&mut self) -> (&mut [f32], &mut [f32]) {
        (&mut self.parameters.w, &mut self.parameters.b)
    }

    /// What updates have kept so far.
    pub fn state(&self) -> DenseState<'_> {
        match &self.kept {
            Kept::Nothing => DenseState::None,
            Kept::Velocity(velocity) => DenseState::Velocity(velocity.values()),
            Kept::Moments(first, second) => {
                DenseState::Moments { first: first.values(), second: second.values() }
            }
        }
    }

    /// Replaces what updates have kept.
    ///
    /// # Errors
    ///
    /// When there is not a number for each weight and each bias, or the memory cannot be had.
    pub fn set_state(&mut self, state: DenseState<'_>) -> Result<()> {
        let copy = |values| {
            check(self.inputs, self.units, values)?;
            Numbers::of(values)
        };
        self.kept = match state {
            DenseState::None => Kept::Nothing,
            DenseState::Velocity(velocity) => Kept::Velocity(copy(velocity)?),
            DenseState::Moments { first, second } => Kept::Moments(copy(first)?, copy(second)?),
        };
        Ok(())
    }

    /// The weights as a matrix.
    pub(super) fn w(&self) -> Result<MatRef<'_>> {
        MatRef::new(self.weights(), self.inputs, self.units)
    }

    /// The same layer with its weights, but not its biases, multiplied by `keep`; without state.
    pub(super) fn scaled(&self, keep: f64) -> Result<Self> {
        let mut parameters = Numbers::of(self.parameters.values())?;
        self.scale_weights(keep, &mut parameters.w)?;
        Ok(Self { parameters, kept: Kept::Nothing, ..*self })
    }

    /// The weights times `keep`, in place of what `scaled` held.
    pub(super) fn scale_weights(&self, keep: f64, scaled: &mut AlignedBuffer) -> Result<()> {
        let keep = keep as f32;
        let weights = self.parameters.w.iter();
        for (scaled, w) in scaled.room(self.inputs, self.units)?.iter_mut().zip(weights) {
            *scaled = w * keep;
        }
        Ok(())
    }

    /// Whether the kept state is of the kind that a step needs; with none, it begins with the step.
    pub(super) fn has_state_for(&self, step: &Step) -> bool {
        match (step, &self.kept) {
            (Step::Sgd(step), kept) => {
                step.momentum == 0.0 && !step.nesterov || matches!(kept, Kept::Velocity(_))
            }
            (Step::Adam(_), kept) => matches!(kept, Kept::Moments(..)),
        }
    }

    /// What a step changes. State that is missing, or of another kind, is 0.
    pub(super) fn parameters_mut(&mut self, step: &Step) -> Result<Parameters<'_>> {
        let (inputs, units) = (self.inputs, self.units);
        if !self.has_state_for(step) {
            let zeros = || Numbers::zeros(inputs, units);
            self.kept = match step {
                Step::Sgd(_) => Kept::Velocity(zeros()?),
                Step::Adam(_) => Kept::Moments(zeros()?, zeros()?),
            };
        }
        let matrix = |data| MatMut::new(data, inputs, units);
        let (w_state, bias_state) = match (step, &mut self.kept) {
            (_, Kept::Velocity(Numbers { w, b })) => (matrix(w)?.into(), (&mut b[..]).into()),
            (Step::Adam(_), Kept::Moments(first, second)) => (
                (matrix(&mut first.w)?, matrix(&mut second.w)?).into(),
                (&mut first.b[..], &mut second.b[..]).into(),
            ),
            // Plain gradient descent leaves the moments of steps before it alone.
            (_, Kept::Nothing | Kept::Moments(..)) => (State::None, State::None),
        };
        let Numbers { w, b } = &mut self.parameters;
        let parameters = Parameters::new(matrix(w)?).with_bias(b);
        Ok(parameters.with_w_state(w_state).with_bias_state(bias_state))
    }
}

/// `Ok` when there is a value for each weight and each bias.
fn check(inputs: usize, units: usize, values: Values<'_>) -> Result<()> {
    MatRef::new(values.weights, inputs, units).map(drop)?;
    check_equal("number of weights", values.weights.len(), "inputs times units", inputs * units)?;
    check_equal("number of biases", values.bias.len(), "number of units", units)
}

/// 53 random bits as a number in [0, 1).
fn uniform(random: &mut Xoshiro256PlusPlus) -> f64 {
    (random.next_u64() >> 11) as f64 / (1u64 << 53) as f64
}
