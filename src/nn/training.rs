//! Steps of training: forward with dropout, a loss, backward, and an update, fused with backward or not.

use super::dense::Dense;
use super::gradients::{LayerGradients, MlpGradients};
use super::mlp::{Buffers, Mlp};
use super::mode::Mode;
use super::optimiser::Optimiser;
use super::room;
use crate::activation::Needs;
use crate::buffers::AlignedBuffer;
use crate::error::{Error, Result, check_equal};
use crate::layer::{
    Accumulation, DenseApply, DenseArgs, DenseLayer, DenseUpdate, Gradients, OutputGradient,
    dense_apply, dense_backward, dense_forward, dense_update,
};
use crate::loss::{CrossEntropy, Objective};
use crate::mask::MaskSource;
use crate::saved::Saved;
use crate::softmax::check_labels;
use crate::update::{Step, clip_factor};
use crate::view::{MatMut, MatRef};

/// A part of a mini-batch that comes in several, for [`Mlp::gradients_of_part`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
#[must_use]
pub struct BatchPart {
    /// The row of the mini-batch that is the part's first: rows have the masks of their place in it.
    pub first_row: u64,
    /// Which part of the gradients' sums it adds.
    pub accumulation: Accumulation,
}

impl BatchPart {
    /// Part `part` of `parts`, counted from 0, whose first row is row `first_row` of the mini-batch.
    pub fn new(part: usize, parts: usize, first_row: u64) -> Self {
        Self { first_row, accumulation: Accumulation::of(part, parts) }
    }
}

/// Where backward brings gradients.
enum Sink<'a> {
    /// Into the parameters, with an update whose gradients never reach memory.
    Update { step: &'a Step, max_norm: Option<f32> },
    /// Into memory.
    Gradients { to: &'a mut [LayerGradients], accumulation: Accumulation },
}

impl Mlp {
    /// One step of training as a classifier on a mini-batch: forward, loss, backward, update. Returns the
    /// mean cross-entropy before the update. An empty mini-batch is no step, and its loss is 0.
    ///
    /// # Errors
    ///
    /// When shapes disagree, a label names no class, or an option of `optimiser` is out of range; and
    /// when the loss is NaN or infinite, as after a learning rate that is too large. The network is
    /// unchanged then, and the step is not counted.
    pub fn train_step(
        &mut self,
        x: MatRef<'_>,
        labels: &[u32],
        optimiser: &Optimiser,
    ) -> Result<f32> {
        self.check_step(&x, optimiser)?;
        check_labels(labels, ("rows of x", x.rows()), self.classes())?;
        Ok(self.train_objective(x, &CrossEntropy::new(labels), optimiser)? as f32)
    }

    /// [`Mlp::train_step`] with any loss of the network's outputs: one of [`loss`](crate::loss), or a
    /// closure from the outputs to the loss and their gradient. Returns the loss.
    ///
    /// ```
    /// # use fused_dropout::nn::{Mlp, MlpSpec, Optimiser};
    /// # use fused_dropout::loss::Huber;
    /// # use fused_dropout::update::AdamStep;
    /// # use fused_dropout::MatRef;
    /// // A line, with an outlier.
    /// let mut mlp = Mlp::new(&MlpSpec::new(&[1, 32, 1]))?;
    /// let (x, y) = ([-1.0, -0.5, 0.0, 0.5, 1.0], [-2.0, -1.0, 50.0, 1.0, 2.0]);
    /// let (x, y) = (MatRef::new(&x, 5, 1)?, MatRef::new(&y, 5, 1)?);
    /// let adam = Optimiser::new(AdamStep::new(0.01));
    /// let first = mlp.train_objective(x, &Huber::new(y, 1.0)?, &adam)?;
    /// for _ in 0..50 {
    ///     mlp.train_objective(x, &Huber::new(y, 1.0)?, &adam)?;
    /// }
    /// assert!(mlp.train_objective(x, &Huber::new(y, 1.0)?, &adam)? < first);
    /// # Ok::<(), fused_dropout::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As for [`Mlp::train_step`], and those of the loss.
    pub fn train_objective(
        &mut self,
        x: MatRef<'_>,
        objective: &dyn Objective,
        optimiser: &Optimiser,
    ) -> Result<f64> {
        if optimiser.clip_norm.is_some() {
            return self.train_with_hook(x, objective, optimiser, |_| Ok(()));
        }
        self.check_step(&x, optimiser)?;
        if x.rows() == 0 {
            return Ok(0.0);
        }
        let loss = self.forward_and_loss(x, objective, 0)?;
        let step = self.step_numbers(optimiser)?;
        let max_norm = optimiser.max_norm;
        self.backward(x, 0, &mut Sink::Update { step: &step, max_norm })?;
        self.count_step(&step);
        Ok(loss)
    }

    /// [`Mlp::train_objective`] with the gradients in memory, where `hook` may look at them and change
    /// them before they are clipped and applied: to add those of other machines, say. Where it changes
    /// nothing the bits are those of the fused step.
    ///
    /// # Errors
    ///
    /// As for [`Mlp::train_objective`], and those of the hook, after which the network is unchanged.
    pub fn train_with_hook(
        &mut self,
        x: MatRef<'_>,
        objective: &dyn Objective,
        optimiser: &Optimiser,
        hook: impl FnOnce(&mut MlpGradients) -> Result<()>,
    ) -> Result<f64> {
        self.check_step(&x, optimiser)?;
        if x.rows() == 0 {
            return Ok(0.0);
        }
        let mut gradients = std::mem::take(&mut self.buffers.parameters);
        let result = self.gradients(x, objective, &mut gradients).and_then(|loss| {
            hook(&mut gradients)?;
            self.apply_gradients(&gradients, optimiser)?;
            Ok(loss)
        });
        self.buffers.parameters = gradients;
        result
    }

    /// The loss of a mini-batch and the gradients of all parameters, for
    /// [`Mlp::apply_gradients`]. The network is unchanged.
    ///
    /// # Errors
    ///
    /// When shapes disagree, the loss refuses the outputs, or is NaN or infinite.
    pub fn gradients(
        &mut self,
        x: MatRef<'_>,
        objective: &dyn Objective,
        gradients: &mut MlpGradients,
    ) -> Result<f64> {
        self.gradients_of_part(x, objective, BatchPart::default(), gradients)
    }

    /// [`Mlp::gradients`] of a mini-batch that comes in parts, in the order of their rows: after the last
    /// one, the gradients have the bits of the whole. Returns the loss of the part, whose gradient must be
    /// that of its share of the mini-batch's loss: a mean is over the rows of all parts
    /// ([`CrossEntropy::with_batch`] and its siblings).
    ///
    /// # Errors
    ///
    /// As for [`Mlp::gradients`], and when the parts before were of another step.
    pub fn gradients_of_part(
        &mut self,
        x: MatRef<'_>,
        objective: &dyn Objective,
        part: BatchPart,
        gradients: &mut MlpGradients,
    ) -> Result<f64> {
        let BatchPart { first_row, accumulation } = part;
        self.check_input(&x)?;
        if accumulation.continues() {
            self.check_gradients(gradients)?;
        }
        let loss = self.forward_and_loss(x, objective, first_row)?;
        gradients.grow(self.layers.len())?;
        gradients.step = Some(self.steps);
        let to = &mut gradients.layers[..];
        self.backward(x, first_row, &mut Sink::Gradients { to, accumulation })?;
        Ok(loss)
    }

    /// The update of a step with gradients by [`Mlp::gradients`]: the bits of a fused step, if nobody has
    /// changed them and there is no norm to clip.
    ///
    /// # Errors
    ///
    /// When the gradients are of another step or another network, an option of `optimiser` is out of
    /// range, or a norm that is to be clipped is not finite.
    pub fn apply_gradients(
        &mut self,
        gradients: &MlpGradients,
        optimiser: &Optimiser,
    ) -> Result<()> {
        self.check_gradients(gradients)?;
        let step = self.step_numbers(optimiser)?;
        let scale = match optimiser.clip_norm {
            Some(limit) => clip_factor(gradients.norm()?, limit)?,
            None => 1.0,
        };
        let mode = Mode { spec: &self.spec, step: self.steps, first_row: 0 };
        for (l, (layer, gradients)) in self.layers.iter_mut().zip(&gradients.layers).enumerate() {
            let does = mode.layer(l, &self.junctions)?;
            let mut apply = DenseApply::new(does, gradients.dw()?, step);
            apply.max_norm = optimiser.max_norm;
            let apply = apply.with_db(gradients.bias()).with_scale(scale);
            dense_apply(&apply, layer.parameters_mut(&step)?)?;
        }
        self.count_step(&step);
        Ok(())
    }

    /// `Ok` when there is a step to take, with numbers in their ranges.
    fn check_step(&self, x: &MatRef<'_>, optimiser: &Optimiser) -> Result<()> {
        // Steps are part of the masks' addresses: none is used twice.
        self.steps.checked_add(1).ok_or(Error::Steps)?;
        self.step_numbers(optimiser).map(drop)?;
        self.check_input(x)
    }

    fn check_input(&self, x: &MatRef<'_>) -> Result<()> {
        check_equal("columns of x", x.cols(), "inputs of the network", self.inputs())
    }

    /// `Ok` when they are gradients of this network's coming step.
    fn check_gradients(&self, gradients: &MlpGradients) -> Result<()> {
        self.steps.checked_add(1).ok_or(Error::Steps)?;
        if gradients.step != Some(self.steps) {
            return Err(Error::GradientsOfStep { of: gradients.step, step: self.steps });
        }
        let layers = gradients.layers.len();
        check_equal("layers of the gradients", layers, "layers of the network", self.layers.len())?;
        let mode = Mode { spec: &self.spec, step: self.steps, first_row: 0 };
        for (l, (layer, gradients)) in self.layers.iter().zip(&gradients.layers).enumerate() {
            let does = mode.layer(l, &self.junctions)?;
            let (inputs, units) = gradients.shape();
            let expected = does.input.width(0, ("inputs", layer.inputs()))?;
            check_equal("rows of a gradient", inputs, "kept inputs of its layer", expected)?;
            let expected = does.output.width(0, ("units", layer.units()))?;
            check_equal("columns of a gradient", units, "kept units of its layer", expected)?;
        }
        Ok(())
    }

    /// The numbers of the coming step.
    fn step_numbers(&self, optimiser: &Optimiser) -> Result<Step> {
        let goes_on = self.layers.iter().all(|layer| layer.has_state_for(&optimiser.step));
        let before = if goes_on { self.moment_steps } else { 0 };
        optimiser.step_at(self.steps, before.saturating_add(1))
    }

    /// Counts a step that was taken.
    fn count_step(&mut self, step: &Step) {
        self.steps += 1;
        if let Step::Adam(adam) = step {
            self.moment_steps = adam.step;
        }
    }

    /// Draws the noise of the coming step, sends rows forward, and leaves the gradient of the outputs in
    /// the first gradient buffer. Returns the loss, which is finite.
    fn forward_and_loss(
        &mut self,
        x: MatRef<'_>,
        objective: &dyn Objective,
        first_row: u64,
    ) -> Result<f64> {
        let mode = Mode { spec: &self.spec, step: self.steps, first_row };
        for (l, junction) in self.junctions.iter_mut().enumerate() {
            junction.draw(&mode.step_key(l)?, first_row, x.rows())?;
        }
        self.forward(x, first_row)?;
        let (rows, classes, widest) = (x.rows(), self.classes(), self.widest());
        let Buffers { outputs, gradients, .. } = &mut self.buffers;
        for gradient in &mut *gradients {
            gradient.room(rows, widest)?;
        }
        let [gradient, _] = gradients;
        let outputs = MatRef::new(&outputs[self.layers.len() - 1], rows, classes)?;
        let loss = objective.evaluate(outputs, room(gradient, rows, classes)?)?;
        // What f32 does not hold is no loss to train on.
        if !(loss as f32).is_finite() {
            return Err(Error::Loss { step: self.steps, loss: f64::from(loss as f32) });
        }
        Ok(loss)
    }

    /// Forward with dropout; each layer's output stays in its buffer.
    fn forward(&mut self, x: MatRef<'_>, first_row: u64) -> Result<()> {
        let mode = Mode { spec: &self.spec, step: self.steps, first_row };
        let rows = x.rows();
        let Buffers { copies, outputs, pre_activations, .. } = &mut self.buffers;
        for (l, layer) in self.layers.iter().enumerate() {
            let (before, after) = outputs.split_at_mut(l);
            let does = mode.layer(l, &self.junctions)?;
            let units = does.output.width(rows, ("units", layer.units()))?;
            let junction = &self.junctions[l];
            let x = last_or(x, before, junction.width())?;
            junction.apply(x, &mode.key(l)?, &mut copies[l])?;
            let x = junction.input(x, &copies[l])?;
            let y = room(&mut after[0], rows, units)?;
            let z = match mode.needs(l) {
                Needs::PreActivation => Some(room(&mut pre_activations[l], rows, units)?),
                Needs::Nothing | Needs::Output => None,
            };
            let mut args = DenseArgs::new(does, x, layer.w()?).with_bias(layer.bias());
            args.residual = self.spec.is_residual(l).then_some(x);
            dense_forward(&args, y, z, MaskSource::Key)?;
        }
        Ok(())
    }

    /// Backward through each layer, the last layer first.
    fn backward(&mut self, x: MatRef<'_>, first_row: u64, sink: &mut Sink<'_>) -> Result<()> {
        let mode = Mode { spec: &self.spec, step: self.steps, first_row };
        let rows = x.rows();
        let Buffers { copies, outputs, pre_activations, gradients: [dy, dx], .. } =
            &mut self.buffers;
        for (l, layer) in self.layers.iter_mut().enumerate().rev() {
            let (before, after) = outputs.split_at(l);
            let does = mode.layer(l, &self.junctions)?;
            let units = does.output.width(rows, ("units", layer.units()))?;
            let saved = match mode.needs(l) {
                Needs::Nothing => Saved::Nothing,
                Needs::Output => Saved::Output(MatRef::new(&after[0], rows, units)?),
                Needs::PreActivation => {
                    Saved::PreActivation(MatRef::new(&pre_activations[l], rows, units)?)
                }
            };
            let junction = &self.junctions[l];
            let x = junction.input(last_or(x, before, junction.width())?, &copies[l])?;
            let residual = self.spec.is_residual(l).then_some(x);
            let dx_view = if l == 0 { None } else { Some(room(dx, rows, x.cols())?) };
            let dy_view = match residual {
                // It is a part of dx.
                Some(_) => OutputGradient::Keep(MatRef::new(dy, rows, units)?),
                None => OutputGradient::Overwrite(room(dy, rows, units)?),
            };
            sink.layer(l, layer, (does, x, residual), &saved, dy_view, dx_view)?;
            if l > 0 {
                if residual.is_some() {
                    add(&mut dx[..rows * units], dy);
                }
                junction.backward(room(dx, rows, x.cols())?, &mode.key(l)?)?;
            }
            std::mem::swap(dy, dx);
        }
        Ok(())
    }
}

impl Sink<'_> {
    /// The gradients of layer `l`, whose input is `x`.
    fn layer(
        &mut self,
        l: usize,
        layer: &mut Dense,
        (does, x, residual): (DenseLayer<'_>, MatRef<'_>, Option<MatRef<'_>>),
        saved: &Saved<'_>,
        dy: OutputGradient<'_>,
        dx: Option<MatMut<'_>>,
    ) -> Result<()> {
        match self {
            Sink::Update { step, max_norm } => {
                let mut update = DenseUpdate::new(does, x, **step);
                (update.residual, update.max_norm) = (residual, *max_norm);
                let parameters = layer.parameters_mut(step)?;
                dense_update(&update, parameters, saved, dy, dx, MaskSource::Key)
            }
            Sink::Gradients { to, accumulation } => {
                let inputs = x.cols();
                let units = dy.as_ref().cols();
                let mut args = DenseArgs::new(does, x, layer.w()?).with_bias(layer.bias());
                args.residual = residual;
                let (dw, db) = to[l].room(inputs, units)?;
                let mut gradients = Gradients::default().with_dw(dw).with_db(db);
                (gradients.dx, gradients.accumulation) = (dx, *accumulation);
                dense_backward(&args, saved, dy, gradients, MaskSource::Key)
            }
        }
    }
}

/// `to += more`.
fn add(to: &mut [f32], more: &[f32]) {
    for (to, more) in to.iter_mut().zip(more) {
        *to += more;
    }
}

/// The last output, of `cols` columns, or `x` where there is none.
fn last_or<'a>(x: MatRef<'a>, outputs: &'a [AlignedBuffer], cols: usize) -> Result<MatRef<'a>> {
    outputs.last().map_or(Ok(x), |output| MatRef::new(output, x.rows(), cols))
}
