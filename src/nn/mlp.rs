//! A multi-layer perceptron with dropout.

use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::SeedableRng;

use super::dense::Dense;
use super::gradients::MlpGradients;
use super::junction::Junction;
use super::mode::Mode;
use super::spec::MlpSpec;
use crate::activation::{Activation, Needs};
use crate::buffers::AlignedBuffer;
use crate::error::{Error, Result, check_equal};
use crate::saved::Saved;

/// Rows that are evaluated together: enough to keep the product busy, few enough for the buffers.
pub(super) const EVALUATION_ROWS: usize = 512;

/// A multi-layer perceptron: dense layers with dropout on the input and on each hidden layer.
///
/// In layer `l` (0 the first) of step `t`, the input's mask has the key (seed, 0, t), and the mask
/// of the layer's output (seed, l + 1, t); units are selected, rates are drawn and Gaussian noise is
/// made with the same keys.
///
/// ```
/// # use fused_dropout::{Error, MatRef, nn::{Mlp, MlpSpec, Optimiser}, update::SgdStep};
/// let mut mlp = Mlp::new(&MlpSpec::new(&[2, 16, 2]).with_hidden_rate(0.5))?;
/// let (x, labels) = ([0.0, 1.0, 1.0, 0.0], [0, 1]);
/// let x = MatRef::new(&x, 2, 2)?;
/// for _ in 0..20 {
///     mlp.train_step(x, &labels, &Optimiser::new(SgdStep::new(0.1)))?;
/// }
/// assert_eq!(mlp.evaluate(x, &labels)?.errors, 0);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Mlp {
    pub(super) spec: MlpSpec,
    pub(super) layers: Vec<Dense>,
    /// The noise before each layer.
    pub(super) junctions: Vec<Junction>,
    /// Steps taken so far.
    pub(super) steps: u32,
    /// Steps that moments were gathered in.
    pub(super) moment_steps: u32,
    pub(super) buffers: Buffers,
}

/// What a step keeps from forward to backward; grows to the largest batch, never shrinks.
#[derive(Clone, Debug, Default)]
pub(super) struct Buffers {
    /// What each layer reads, where that is a noisy copy of what was before it.
    pub(super) copies: Vec<AlignedBuffer>,
    /// Each layer's output.
    pub(super) outputs: Vec<AlignedBuffer>,
    /// Each layer's z, where its derivative needs it.
    pub(super) pre_activations: Vec<AlignedBuffer>,
    /// The gradients of a layer's output, which that of z takes the place of, and of its input.
    pub(super) gradients: [AlignedBuffer; 2],
    /// The gradients of all parameters, where a step has them in memory.
    pub(super) parameters: MlpGradients,
}

impl Mlp {
    /// A network with random weights: normal with standard deviation `sqrt(2 / inputs)` (He et al.
    /// 2015), or `sqrt(1 / inputs)` for identity, sigmoid and tanh (LeCun et al. 1998); half of it in
    /// the last layer, which makes the first predictions cautious. Biases are 0.
    ///
    /// # Errors
    ///
    /// When there are fewer than two sizes, a size is 0, a rate is no probability, a schedule's gamma is
    /// not positive, there are more granularities or kinds of noise than an input and hidden layers,
    /// Gaussian noise has a rate of 1 or covers units, the activation's slope is invalid, or the memory cannot
    /// be had.
    pub fn new(spec: &MlpSpec) -> Result<Self> {
        spec.check()?;
        let sizes = &spec.sizes;
        let mut random = Xoshiro256PlusPlus::seed_from_u64(spec.seed);
        let gain = match spec.activation {
            Activation::Identity | Activation::Sigmoid | Activation::Tanh => 1.0,
            _ => 2.0,
        };
        let last = sizes.len() - 2;
        let layers = sizes.windows(2).enumerate().map(|(l, size)| {
            let deviation = libm::sqrt(gain / size[0] as f64);
            let deviation = if l == last { deviation / 2.0 } else { deviation };
            Dense::normal(size[0], size[1], deviation, &mut random)
        });
        let layers = layers.collect::<Result<_>>()?;
        Self::from_layers(spec, layers)
    }

    /// A network with these layers, whose updates go on from the state that they bring.
    ///
    /// ```
    /// # use fused_dropout::nn::{Dense, Initialiser, Mlp, MlpSpec};
    /// # use fused_dropout::MaskKey;
    /// let spec = MlpSpec::new(&[4, 16, 3]).with_hidden_rate(0.5);
    /// let random = |l: u32, inputs, units| {
    ///     let key = MaskKey::new(7, l, Initialiser::STEP)?;
    ///     Dense::random(inputs, units, &Initialiser::glorot_uniform(), &key)
    /// };
    /// let mlp = Mlp::from_layers(&spec, vec![random(0, 4, 16)?, random(1, 16, 3)?])?;
    /// assert_eq!((mlp.layers().len(), mlp.steps()), (2, 0));
    /// # Ok::<(), fused_dropout::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As for [`Mlp::new`], and when the layers have not the sizes of the spec.
    pub fn from_layers(spec: &MlpSpec, layers: Vec<Dense>) -> Result<Self> {
        spec.check()?;
        let sizes = &spec.sizes;
        check_equal("number of layers", layers.len(), "sizes less 1", sizes.len() - 1)?;
        for (layer, size) in layers.iter().zip(sizes.windows(2)) {
            check_equal("inputs of a layer", layer.inputs(), "their size in the spec", size[0])?;
            check_equal("units of a layer", layer.units(), "their size in the spec", size[1])?;
        }
        let count = layers.len();
        let junctions = (0..count).map(|l| Junction::new(spec, l)).collect::<Result<_>>()?;
        let mut buffers = Buffers::default();
        buffers.copies.resize(count, AlignedBuffer::default());
        buffers.outputs.resize(count, AlignedBuffer::default());
        buffers.pre_activations.resize(count, AlignedBuffer::default());
        let spec = spec.clone();
        Ok(Self { spec, layers, junctions, steps: 0, moment_steps: 0, buffers })
    }

    /// What the network was made of.
    pub fn spec(&self) -> &MlpSpec {
        &self.spec
    }

    /// The layers, the first first.
    pub fn layers(&self) -> &[Dense] {
        &self.layers
    }

    /// Replaces layer `l`, counted from 0, by one of the same sizes.
    ///
    /// # Errors
    ///
    /// When there is no such layer, or sizes differ; the network is unchanged then.
    pub fn replace_layer(&mut self, l: usize, layer: Dense) -> Result<()> {
        let Some(old) = self.layers.get_mut(l) else {
            let expected = "the number of a layer, the first being 0";
            return Err(Error::Parameter { name: "layer", value: l as f64, expected });
        };
        check_equal("inputs of the layer", layer.inputs(), "those of the old one", old.inputs())?;
        check_equal("units of the layer", layer.units(), "those of the old one", old.units())?;
        *old = layer;
        Ok(())
    }

    /// The weights, row after row of [inputs, units], and the biases of each layer, to change.
    pub fn parameters_mut(&mut self) -> impl Iterator<Item = (&mut [f32], &mut [f32])> {
        self.layers.iter_mut().map(Dense::parameters_as_slices)
    }

    /// Steps taken so far.
    pub fn steps(&self) -> u32 {
        self.steps
    }

    /// Steps in which Adam's moments, if there are any, were gathered.
    pub fn moment_steps(&self) -> u32 {
        self.moment_steps
    }

    /// Goes on as after so many steps, in `moment_steps` of which moments were gathered: the masks, the
    /// learning rate and Adam's corrections are those of the step after them.
    pub fn set_steps(&mut self, steps: u32, moment_steps: u32) {
        (self.steps, self.moment_steps) = (steps, moment_steps);
    }

    pub(super) fn inputs(&self) -> usize {
        self.spec.sizes[0]
    }

    pub(super) fn classes(&self) -> usize {
        self.spec.sizes[self.layers.len()]
    }

    /// Units of the widest layer.
    pub(super) fn widest(&self) -> usize {
        self.layers.iter().map(Dense::units).max().unwrap_or(0)
    }

    /// Bytes that a step on `batch` examples takes at most beside the network, its velocities and the
    /// panels that each thread packs (a few MiB, or for weights that many rows share, up to a quarter of
    /// the level-3 cache): the output of every layer, z where [`Saved::size_for`] is for z, the
    /// gradients of two outputs of the widest layer, the input once more where whole inputs are
    /// dropped, and once more whatever has Gaussian noise. Buffers stay for the next step. Steps whose
    /// gradients are in memory, because of a hook or a limit of their norm, take the size of the network
    /// once more.
    ///
    /// # Errors
    ///
    /// When the bytes overflow.
    pub fn step_size_in_bytes(&self, batch: usize) -> Result<usize> {
        let mode = self.mode();
        let of = |units| Saved::<f32>::size_for(Activation::Relu, batch, units, false);
        let gradients = [self.widest(); 2].map(of);
        let outputs = self.layers.iter().map(|layer| of(layer.units()));
        let zs = self.layers.iter().enumerate().filter_map(|(l, layer)| {
            let needs = mode.needs(l) == Needs::PreActivation;
            needs.then(|| of(layer.units()))
        });
        let copies = self.junctions.iter().zip(&self.layers);
        let copies = copies.filter(|(noise, _)| noise.may_copy()).map(|(_, l)| of(l.inputs()));
        gradients.into_iter().chain(copies).chain(outputs).chain(zs).try_fold(
            0,
            |sum: usize, bytes| {
                sum.checked_add(bytes?)
                    .ok_or(Error::Overflow { rows: batch, stride: self.widest() })
            },
        )
    }

    /// How the layers are applied in the coming step.
    pub(super) fn mode(&self) -> Mode<'_> {
        Mode { spec: &self.spec, step: self.steps, first_row: 0 }
    }
}
