//! What a network is made of: its sizes, and the noise of each layer in each step.

use crate::activation::Activation;
use crate::error::{Error, Result, check_equal};
use crate::mask::{MaskKey, RateSchedule, Scaling, drawn_rate};

/// What a network is made of.
///
/// ```
/// # use fused_dropout::{Activation, nn::MlpSpec};
/// let spec = MlpSpec::new(&[784, 1024, 10]).with_input_rate(0.2).with_hidden_rate(0.5).with_seed(7);
/// assert_eq!(spec.activation, Activation::Relu);
/// ```
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
#[non_exhaustive]
#[must_use]
pub struct MlpSpec {
    /// Length of the input, of each hidden layer, and number of classes.
    pub sizes: Vec<usize>,
    /// The activation of the hidden layers; the last layer has none.
    pub activation: Activation,
    /// The probability to drop an input, or the rate of its noise.
    pub input_rate: f64,
    /// The probability to drop a hidden unit's output, or the rate of its noise.
    pub hidden_rate: f64,
    /// What `input_rate` is in each step.
    pub input_schedule: StepRate,
    /// What `hidden_rate` is in each step; each hidden layer draws its own.
    pub hidden_schedule: StepRate,
    /// What one decision covers: of the input's dropout, then of that of each hidden layer. Where
    /// the list ends, elements are dropped.
    pub granularity: Vec<Granularity>,
    /// What is done to the input, then to the output of each hidden layer. Where the list ends, it is
    /// dropout.
    pub noise: Vec<Noise>,
    /// The activation of each hidden layer. Where the list ends, it is `activation`.
    pub activations: Vec<Activation>,
    /// The rate of the input's noise, then of that of each hidden layer. Where the list ends, they are
    /// `input_rate` and `hidden_rate`.
    pub rates: Vec<f64>,
    /// Whether a hidden layer adds its input to its output, `y = x + dropout(act(x · W + b))`: a residual
    /// block without normalisation (He et al. 2016, "Deep residual learning"). Where the list ends, no
    /// layer does. x is what the layer reads, before the dropout of elements of the network's input.
    pub residual: Vec<bool>,
    /// When the scale of dropout is applied.
    pub scaling: Scaling,
    /// Where weights, masks and noise come from.
    pub seed: u64,
}

impl MlpSpec {
    /// ReLU, no dropout (which would be of elements, and of one rate), seed 0.
    pub fn new(sizes: &[usize]) -> Self {
        Self {
            sizes: sizes.to_vec(),
            activation: Activation::Relu,
            input_rate: 0.0,
            hidden_rate: 0.0,
            input_schedule: StepRate::default(),
            hidden_schedule: StepRate::default(),
            granularity: Vec::new(),
            noise: Vec::new(),
            activations: Vec::new(),
            rates: Vec::new(),
            residual: Vec::new(),
            scaling: Scaling::Inverted,
            seed: 0,
        }
    }

    /// The same with this activation of the hidden layers.
    pub fn with_activation(self, activation: Activation) -> Self {
        Self { activation, ..self }
    }

    /// The same with this probability to drop an input.
    pub fn with_input_rate(self, input_rate: f64) -> Self {
        Self { input_rate, ..self }
    }

    /// The same with this probability to drop a hidden unit's output.
    pub fn with_hidden_rate(self, hidden_rate: f64) -> Self {
        Self { hidden_rate, ..self }
    }

    /// The same with this schedule of the input's rate.
    pub fn with_input_schedule(self, input_schedule: StepRate) -> Self {
        Self { input_schedule, ..self }
    }

    /// The same with this schedule of the hidden layers' rate.
    pub fn with_hidden_schedule(self, hidden_schedule: StepRate) -> Self {
        Self { hidden_schedule, ..self }
    }

    /// The same with one granularity for all hidden layers. Inputs stay as they are, by element: to drop
    /// whole inputs for a mini-batch costs accuracy.
    pub fn with_granularity(mut self, granularity: Granularity) -> Self {
        let input = self.granularity.first().copied().unwrap_or_default();
        self.granularity = vec![granularity; self.junctions()];
        self.with_input_granularity(input)
    }

    /// The same with this granularity of the input.
    pub fn with_input_granularity(mut self, granularity: Granularity) -> Self {
        match self.granularity.first_mut() {
            Some(input) => *input = granularity,
            None => self.granularity.push(granularity),
        }
        self
    }

    /// The same with dropout scaled in training, or weights scaled at inference.
    pub fn with_scaling(self, scaling: Scaling) -> Self {
        Self { scaling, ..self }
    }

    /// The same with weights, masks and noise of this seed.
    pub fn with_seed(self, seed: u64) -> Self {
        Self { seed, ..self }
    }

    /// The same with one kind of noise on the input and all hidden layers.
    pub fn with_noise(self, noise: Noise) -> Self {
        Self { noise: vec![noise; self.junctions()], ..self }
    }

    /// The same with an activation for each hidden layer.
    pub fn with_activations(self, activations: &[Activation]) -> Self {
        Self { activations: activations.to_vec(), ..self }
    }

    /// The same with a rate for the input, and one for each hidden layer.
    pub fn with_rates(self, rates: &[f64]) -> Self {
        Self { rates: rates.to_vec(), ..self }
    }

    /// The same with hidden layers that add their inputs to their outputs, or do not.
    pub fn with_residual(self, residual: &[bool]) -> Self {
        Self { residual: residual.to_vec(), ..self }
    }

    /// The activation of layer `l`; the last one has none.
    pub(super) fn activation_of(&self, l: usize) -> Activation {
        match l + 2 == self.sizes.len() {
            true => Activation::Identity,
            false => self.activations.get(l).copied().unwrap_or(self.activation),
        }
    }

    /// The rate of junction `l`: of the input's noise (0) or of that of a hidden layer.
    pub(super) fn rate_of(&self, l: usize) -> f64 {
        let of_all = if l == 0 { self.input_rate } else { self.hidden_rate };
        self.rates.get(l).copied().unwrap_or(of_all)
    }

    /// Whether layer `l` adds its input to its output.
    pub(super) fn is_residual(&self, l: usize) -> bool {
        self.residual.get(l).copied().unwrap_or(false)
    }

    /// The same with one schedule for the rates of the input and of all hidden layers.
    pub fn with_schedule(self, schedule: StepRate) -> Self {
        Self { input_schedule: schedule, hidden_schedule: schedule, ..self }
    }

    /// Where there may be noise: before the first layer, and after each hidden one.
    fn junctions(&self) -> usize {
        self.sizes.len().saturating_sub(1)
    }

    /// `Ok` when there is a network of these sizes, with no more noise than it has places for. Rates
    /// are checked with the noise that they are of.
    pub(super) fn check(&self) -> Result<()> {
        self.activation.check()?;
        self.activations.iter().try_for_each(|activation| activation.check())?;
        let parameter = |name, value: usize, expected| {
            Err(Error::Parameter { name, value: value as f64, expected })
        };
        let sizes = &self.sizes;
        if sizes.len() < 2 {
            return parameter("number of sizes", sizes.len(), "2 or more: inputs and classes");
        }
        if let Some(size) = sizes.iter().find(|size| **size == 0 || **size > 1 << 24) {
            return parameter("size of a layer", *size, "from 1 to 2^24");
        }
        for (name, count) in [
            ("number of granularities", self.granularity.len()),
            ("number of kinds of noise", self.noise.len()),
            ("number of rates", self.rates.len()),
        ] {
            if count > self.junctions() {
                let expected = "at most one for the input and one for each hidden layer";
                return parameter(name, count, expected);
            }
        }
        for (name, count) in [
            ("number of activations", self.activations.len()),
            ("number of layers that may be residual", self.residual.len()),
        ] {
            if count + 1 > self.junctions() {
                return parameter(name, count, "at most one for each hidden layer");
            }
        }
        (0..self.junctions()).try_for_each(|l| {
            self.check_residual(l)?;
            self.check_blocks(l)
        })
    }

    /// `Ok` when the blocks on both sides of layer `l`, if there are any, are of the same examples.
    fn check_blocks(&self, l: usize) -> Result<()> {
        let rows = |junction: usize| match self.granularity.get(junction) {
            Some(Granularity::Block { rows, .. }) => Some(*rows),
            _ => None,
        };
        // After a residual nothing is left out of the input.
        let input = rows(l).filter(|_| l == 0 || !self.is_residual(l - 1));
        match (input, rows(l + 1)) {
            (Some(input), Some(output)) if input != output => {
                Err(Error::BlockRows { input, output })
            }
            _ => Ok(()),
        }
    }

    /// `Ok` when layer `l` can add its input to its output, or need not.
    fn check_residual(&self, l: usize) -> Result<()> {
        if !self.is_residual(l) {
            return Ok(());
        }
        let (inputs, units) = (self.sizes[l], self.sizes[l + 1]);
        check_equal("inputs of a residual layer", inputs, "its units", units)?;
        let of_units = |junction: usize| {
            let granularity = self.granularity.get(junction);
            matches!(granularity, Some(Granularity::Unit | Granularity::UnitExact))
        };
        if of_units(l) || of_units(l + 1) {
            return Err(Error::ResidualOfUnits { layer: l });
        }
        Ok(())
    }
}

/// What one decision of dropout covers.
///
/// | | one decision is for | a step at rate 0.5 |
/// |---|---|---|
/// | `Element` | one unit and one example | as long as without dropout |
/// | `Block` | a few units and a group of examples | two thirds as long |
/// | `Unit`, `UnitExact` | one unit and the whole mini-batch | half as long |
///
/// Units are dropped for a whole mini-batch, which is then sent through the thinned network: see
/// [`Side::Units`](crate::layer::Side::Units). One subset for a whole mini-batch makes gradients noisy: a
/// network can train worse than without dropout, or diverge. With blocks each group of examples has a
/// subset of its own ([`Side::Blocks`](crate::layer::Side::Blocks)), which makes them less so: with four
/// groups or more in a mini-batch networks train as with dropout of elements, at a learning rate that is
/// perhaps half as large.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum Granularity {
    /// An element: one unit for one example.
    #[default]
    Element,
    /// A unit for the whole mini-batch.
    Unit,
    /// As `Unit`, but the number of kept units is the same in each step: `round(keep · units)`.
    UnitExact,
    /// A block of `units` units for a group of `rows` examples: an exact number of blocks for each group,
    /// of units that lie elsewhere in each step. See [`KeptBlocks`](crate::layer::KeptBlocks), and
    /// [`Granularity::BLOCK`] for numbers that mostly do.
    Block {
        /// Examples of a group.
        rows: usize,
        /// Units of a block.
        units: usize,
    },
}

impl Granularity {
    /// Blocks of 32 units for 16 examples: with batches of 64 examples or more the error is that of
    /// dropout of elements, and a step takes less time than without dropout.
    pub const BLOCK: Self = Self::Block { rows: 16, units: 32 };
}

/// What is done in training to the input or to the outputs of a hidden layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum Noise {
    /// They are dropped with the probability `rate`.
    #[default]
    Dropout,
    /// Each element is multiplied by a number from N(1, rate / (1 - rate)), which has the mean and the
    /// variance of dropout (Srivastava et al. 2014, section 10): see [`GaussianDropout`]. The mean is
    /// 1, so inference is the bare layer with either [`Scaling`].
    ///
    /// [`GaussianDropout`]: crate::elementwise::GaussianDropout
    Gaussian,
}

/// The rate of each step.
///
/// The rate is a function of the step's mask key alone, so the backward pass has that of the forward
/// pass. At inference with classical scaling, weights are multiplied by one keep probability: with a
/// schedule that of the final rate, which the training ends with; with drawn rates the mean one,
/// `1 - rate / 2`.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum StepRate {
    /// The schedule's rate of the step, on the way to the given one.
    Scheduled(RateSchedule),
    /// A number from U(0, rate), drawn afresh for each step (Bouthillier et al. 2015, "Dropout as data
    /// augmentation", whose noise has a random level): [`drawn_rate`](crate::mask::drawn_rate) of row 0.
    Drawn,
}

impl Default for StepRate {
    /// The given rate in each step.
    fn default() -> Self {
        StepRate::Scheduled(RateSchedule::Constant)
    }
}

impl StepRate {
    /// The rate of the step and the layer of `key`, where `rate` is the one that was given.
    ///
    /// # Errors
    ///
    /// When a rate is no probability, or gamma is not positive and finite.
    pub fn rate_at(&self, rate: f64, key: &MaskKey) -> Result<f64> {
        match self {
            StepRate::Scheduled(schedule) => schedule.rate_at(rate, key.step()),
            StepRate::Drawn => drawn_rate(rate, key, 0),
        }
    }

    /// What the rate is at most, in any step.
    pub(super) fn most(&self, rate: f64) -> f64 {
        match self {
            StepRate::Scheduled(RateSchedule::Linear { from, .. }) => rate.max(*from),
            StepRate::Scheduled(RateSchedule::Constant | RateSchedule::Curriculum { .. })
            | StepRate::Drawn => rate,
        }
    }

    /// The rate that inference makes up for.
    pub(super) fn at_inference(&self, rate: f64) -> f64 {
        match self {
            StepRate::Scheduled(_) => rate,
            StepRate::Drawn => rate / 2.0,
        }
    }
}
