//! A multi-layer perceptron with dropout.

use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::SeedableRng;

use super::dense::Dense;
use super::junction::Junction;
use super::mode::Mode;
use super::optimiser::Sgd;
use super::room;
use super::spec::MlpSpec;
use crate::activation::{Activation, Needs};
use crate::buffers::{AlignedBuffer, Lease, Slot};
use crate::error::{Error, Result, check_equal, check_shape};
use crate::layer::{DenseArgs, DenseLayer, DenseUpdate, dense_forward, dense_update};
use crate::mask::{MaskSource, Scaling};
use crate::saved::Saved;
use crate::sgd::SgdStep;
use crate::softmax::{Loss, check_labels, softmax_cross_entropy};
use crate::view::{MatMut, MatRef};

/// Rows that are evaluated together: enough to keep the product busy, few enough for the buffers.
pub(super) const EVALUATION_ROWS: usize = 512;

/// A multi-layer perceptron: dense layers with dropout on the input and on each hidden layer.
///
/// In layer `l` (0 the first) of step `t`, the input's mask has the key (seed, 0, t), and the mask
/// of the layer's output (seed, l + 1, t); units are selected, rates are drawn and Gaussian noise is
/// made with the same keys.
///
/// ```
/// # use fused_dropout::{Error, MatMut, MatRef, nn::{Mlp, MlpSpec, Sgd}};
/// let mut mlp = Mlp::new(&MlpSpec::new(&[2, 16, 2]).with_hidden_rate(0.5))?;
/// let (x, labels) = ([0.0, 1.0, 1.0, 0.0], [0, 1]);
/// let x = MatRef::new(&x, 2, 2)?;
/// for _ in 0..20 {
///     mlp.train_step(x, &labels, &Sgd::new(0.1))?;
/// }
/// assert_eq!(mlp.evaluate(x, &labels)?.errors, 0);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Mlp {
    spec: MlpSpec,
    layers: Vec<Dense>,
    /// The noise before each layer.
    pub(super) junctions: Vec<Junction>,
    steps: u32,
    buffers: Buffers,
}

/// What a step keeps from forward to backward; grows to the largest batch, never shrinks.
#[derive(Clone, Debug, Default)]
struct Buffers {
    /// What each layer reads, where that is a noisy copy of what was before it.
    copies: Vec<AlignedBuffer>,
    /// Each layer's output.
    outputs: Vec<AlignedBuffer>,
    /// Each layer's z, where its derivative needs it.
    pre_activations: Vec<AlignedBuffer>,
    /// The gradients of a layer's output, which that of z takes the place of, and of its input.
    gradients: [AlignedBuffer; 2],
}

/// What inference keeps from layer to layer, and from call to call.
#[derive(Default)]
struct Inference {
    /// What a layer reads, and what it writes.
    input: AlignedBuffer,
    output: AlignedBuffer,
    /// Weights times keep, with classical scaling.
    scaled: AlignedBuffer,
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
        let junctions =
            (0..sizes.len() - 1).map(|l| Junction::new(spec, l)).collect::<Result<_>>()?;
        let mut random = Xoshiro256PlusPlus::seed_from_u64(spec.seed);
        let gain = match spec.activation {
            Activation::Identity | Activation::Sigmoid | Activation::Tanh => 1.0,
            _ => 2.0,
        };
        let last = sizes.len() - 2;
        let layers: Vec<Dense> = sizes
            .windows(2)
            .enumerate()
            .map(|(l, size)| {
                let deviation = libm::sqrt(gain / size[0] as f64);
                let deviation = if l == last { deviation / 2.0 } else { deviation };
                Dense::new(size[0], size[1], deviation, &mut random)
            })
            .collect::<Result<_>>()?;
        let count = layers.len();
        let mut buffers = Buffers::default();
        buffers.copies.resize(count, AlignedBuffer::default());
        buffers.outputs.resize(count, AlignedBuffer::default());
        buffers.pre_activations.resize(count, AlignedBuffer::default());
        Ok(Self { spec: spec.clone(), layers, junctions, steps: 0, buffers })
    }

    /// What the network was made of.
    pub fn spec(&self) -> &MlpSpec {
        &self.spec
    }

    /// The layers, the first first.
    pub fn layers(&self) -> &[Dense] {
        &self.layers
    }

    /// Steps taken so far.
    pub fn steps(&self) -> u32 {
        self.steps
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
    /// dropped, and once more whatever has Gaussian noise. Buffers stay for the next step.
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
            let needs = mode.activation_of(l).needs() == Needs::PreActivation;
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

    /// One step of stochastic gradient descent on a mini-batch: forward, loss, backward, update.
    /// Returns the mean cross-entropy before the update. An empty mini-batch is no step, and its loss is 0.
    ///
    /// # Errors
    ///
    /// When shapes disagree, a label names no class, or an option of `sgd` is out of range; and when the
    /// loss is NaN or infinite, as after a learning rate that is too large. The network is unchanged then,
    /// and the step is not counted.
    pub fn train_step(&mut self, x: MatRef<'_>, labels: &[u32], sgd: &Sgd) -> Result<f32> {
        // Steps are part of the masks' addresses: none is used twice.
        let next = self.steps.checked_add(1).ok_or(Error::Steps)?;
        let numbers = sgd.step_at(self.steps)?;
        check_equal("columns of x", x.cols(), "inputs of the network", self.inputs())?;
        check_labels(labels, ("rows of x", x.rows()), self.classes())?;
        if x.rows() == 0 {
            return Ok(0.0);
        }
        let mode = self.mode();
        for (l, junction) in self.junctions.iter_mut().enumerate() {
            junction.draw(&mode.key(l)?)?;
        }
        self.forward(x)?;
        let loss = self.loss(labels)?.mean() as f32;
        if !loss.is_finite() {
            return Err(Error::Loss { step: self.steps, loss: loss.into() });
        }
        self.backward(x, &numbers, sgd.max_norm)?;
        self.steps = next;
        Ok(loss)
    }

    /// The layers of a network that knows nothing of dropout and predicts what this one does: with
    /// classical scaling
    ///
    /// ```text
    /// W_test = keep · W
    /// ```
    ///
    /// where keep is the share that is kept of what the layer reads (Srivastava et al. 2014, section 1
    /// and figure 2), and with the biases as they are; with inverted scaling the layers themselves.
    /// [`dense_forward`] without dropout, layer after layer, returns the bits of [`Mlp::predict`].
    ///
    /// **The other scaling.** With the same masks, a network with inverted scaling whose weights are
    /// `keep · W` has the outputs z, the logits and the loss of this one: the scale that it adds to
    /// what a layer reads is the factor that its weights lack. The gradient of its weights is then
    /// that of W divided by keep; for a change of `keep · ΔW`, plain gradient descent needs a learning
    /// rate of these weights (not of the biases) that is `keep²` times that of W. So with one learning
    /// rate for all, the two ways to scale are the same function, trained at different speeds.
    ///
    /// Where rates change from step to step, keep is that of [`StepRate`](super::StepRate).
    ///
    /// # Errors
    ///
    /// When the memory cannot be had.
    pub fn export_scaled_weights(&self) -> Result<Vec<Dense>> {
        let keep = |l: usize| match self.spec.scaling {
            Scaling::Inverted => 1.0,
            Scaling::Classical => self.junctions[l].keep(),
        };
        self.layers.iter().enumerate().map(|(l, layer)| layer.scaled(keep(l))).collect()
    }

    /// The logits of each row of `x`, without dropout. Several threads may predict with one network.
    ///
    /// # Errors
    ///
    /// When shapes disagree.
    pub fn predict(&self, x: MatRef<'_>, mut logits: MatMut<'_>) -> Result<()> {
        check_equal("columns of x", x.cols(), "inputs of the network", self.inputs())?;
        check_shape(logits.named("the logits"), ("the output", x.rows(), self.classes()))?;
        self.infer(x, |row, output| {
            for r in 0..output.rows() {
                for c in 0..output.cols() {
                    logits.put(row + r, c, output.at(r, c));
                }
            }
            Ok(())
        })
    }

    /// Loss and errors on labelled examples, without dropout. Several threads may evaluate one network.
    ///
    /// # Errors
    ///
    /// When shapes disagree, or a label names no class.
    pub fn evaluate(&self, x: MatRef<'_>, labels: &[u32]) -> Result<Loss> {
        check_equal("columns of x", x.cols(), "inputs of the network", self.inputs())?;
        check_labels(labels, ("rows of x", x.rows()), self.classes())?;
        let mut total = Loss::default();
        self.infer(x, |row, logits| {
            let loss = softmax_cross_entropy(logits, &labels[row..row + logits.rows()], None)?;
            total.sum += loss.sum;
            total.errors += loss.errors;
            Ok(())
        })?;
        total.examples = x.rows();
        Ok(total)
    }

    /// How the layers are applied in the coming step.
    pub(super) fn mode(&self) -> Mode {
        Mode {
            activation: self.spec.activation,
            seed: self.spec.seed,
            step: self.steps,
            layers: self.layers.len(),
        }
    }

    /// Forward with dropout; each layer's output stays in its buffer.
    fn forward(&mut self, x: MatRef<'_>) -> Result<()> {
        let mode = self.mode();
        let rows = x.rows();
        let Buffers { copies, outputs, pre_activations, .. } = &mut self.buffers;
        for (l, layer) in self.layers.iter().enumerate() {
            let (before, after) = outputs.split_at_mut(l);
            let does = mode.layer(l, &self.junctions)?;
            let w = MatRef::new(layer.weights(), layer.inputs(), layer.units())?;
            let units = does.output.width(rows, ("units", layer.units()))?;
            let junction = &self.junctions[l];
            let x = last_or(x, before, junction.width())?;
            junction.apply(x, &mode.key(l)?, &mut copies[l])?;
            let x = junction.input(x, &copies[l])?;
            let y = room(&mut after[0], rows, units)?;
            let z = match does.activation.needs() {
                Needs::PreActivation => Some(room(&mut pre_activations[l], rows, units)?),
                Needs::Nothing | Needs::Output => None,
            };
            let args = DenseArgs::new(does, x, w).with_bias(layer.bias());
            dense_forward(&args, y, z, MaskSource::Key)?;
        }
        Ok(())
    }

    /// The loss of the last forward pass, and the gradient of the logits.
    fn loss(&mut self, labels: &[u32]) -> Result<Loss> {
        let (rows, classes, widest) = (labels.len(), self.classes(), self.widest());
        let Buffers { outputs, gradients, .. } = &mut self.buffers;
        for gradient in &mut *gradients {
            gradient.room(rows, widest)?;
        }
        let [gradient, _] = gradients;
        let logits = MatRef::new(&outputs[self.layers.len() - 1], rows, classes)?;
        softmax_cross_entropy(logits, labels, Some(room(gradient, rows, classes)?))
    }

    /// Backward and update of each layer, the last layer first.
    fn backward(&mut self, x: MatRef<'_>, step: &SgdStep, max_norm: Option<f32>) -> Result<()> {
        let mode = self.mode();
        let rows = x.rows();
        let Buffers { copies, outputs, pre_activations, gradients: [dy, dx], .. } =
            &mut self.buffers;
        for (l, layer) in self.layers.iter_mut().enumerate().rev() {
            let (before, after) = outputs.split_at(l);
            let does = mode.layer(l, &self.junctions)?;
            let units = does.output.width(rows, ("units", layer.units()))?;
            let saved = match does.activation.needs() {
                Needs::Nothing => Saved::Nothing,
                Needs::Output => Saved::Output(MatRef::new(&after[0], rows, units)?),
                Needs::PreActivation => {
                    Saved::PreActivation(MatRef::new(&pre_activations[l], rows, units)?)
                }
            };
            let junction = &self.junctions[l];
            let x = junction.input(last_or(x, before, junction.width())?, &copies[l])?;
            let update = DenseUpdate { max_norm, ..DenseUpdate::new(does, x, *step) };
            let parameters = layer.parameters_mut(step.momentum > 0.0)?;
            let dx_view = if l == 0 { None } else { Some(room(dx, rows, x.cols())?) };
            let dy_view = room(dy, rows, units)?;
            dense_update(&update, parameters, &saved, dy_view, dx_view, MaskSource::Key)?;
            if l > 0 {
                junction.backward(room(dx, rows, x.cols())?, &mode.key(l)?)?;
            }
            std::mem::swap(dy, dx);
        }
        Ok(())
    }

    /// Forward without dropout, some rows at a time: hands the first row and the logits to `f`.
    fn infer(
        &self,
        x: MatRef<'_>,
        mut f: impl FnMut(usize, MatRef<'_>) -> Result<()>,
    ) -> Result<()> {
        let mut buffers: Lease<Inference> = Slot::Inference.take();
        let mut result = Ok(());
        for row in (0..x.rows()).step_by(EVALUATION_ROWS) {
            let rows = EVALUATION_ROWS.min(x.rows() - row);
            result = self.infer_rows(x.rows_from(row, rows)?, &mut buffers);
            result =
                result.and_then(|()| f(row, MatRef::new(&buffers.input, rows, self.classes())?));
            if result.is_err() {
                break;
            }
        }
        result
    }

    /// Forward without dropout; the logits are left in `buffers.input`.
    fn infer_rows(&self, x: MatRef<'_>, buffers: &mut Inference) -> Result<()> {
        let Inference { input, output, scaled } = buffers;
        for (l, layer) in self.layers.iter().enumerate() {
            let w = match self.spec.scaling {
                Scaling::Inverted => layer.weights(),
                Scaling::Classical => {
                    layer.scale_weights(self.junctions[l].keep(), scaled)?;
                    &*scaled
                }
            };
            let w = MatRef::new(w, layer.inputs(), layer.units())?;
            let does = DenseLayer::new(self.mode().activation_of(l));
            let x = if l == 0 { x } else { MatRef::new(input, x.rows(), layer.inputs())? };
            let args = DenseArgs::new(does, x, w).with_bias(layer.bias());
            dense_forward(&args, room(output, x.rows(), layer.units())?, None, MaskSource::Key)?;
            std::mem::swap(input, output);
        }
        Ok(())
    }
}

/// The last output, of `cols` columns, or `x` where there is none.
fn last_or<'a>(x: MatRef<'a>, outputs: &'a [AlignedBuffer], cols: usize) -> Result<MatRef<'a>> {
    outputs.last().map_or(Ok(x), |output| MatRef::new(output, x.rows(), cols))
}
