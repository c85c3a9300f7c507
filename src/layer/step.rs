//! Backward and update of a dense layer in one: gradients of weights that never reach memory.

use super::backward::{OutputGradient, output_gradient, weight_gradient};
use super::product::{LayerBuffers, WeightGradient, input_gradient, pick, weights};
use super::rows::RowsMut;
use super::{DenseArgs, DenseLayer, PackedWeight, Shape};
use crate::Level;
use crate::buffers::{AlignedBuffer, Slot};
use crate::error::{Result, check_equal, check_shape};
use crate::gather::GatherIndex;
use crate::gemm::Operand;
use crate::gemm::epilogue::{End, GatheredUpdate, MaskedUpdate, Update};
use crate::isa::Scalar;
use crate::mask::MaskSource;
use crate::saved::Saved;
use crate::sgd::{SgdStep, check_limit, gathered_max_norm, max_norm, sgd_update};
use crate::view::{MatMut, MatRef};

/// Up to so many rows the update is fused: its sums cannot wait in the weights, so panels have the
/// whole batch, 128 columns of which take 2 MiB then.
const FUSED_ROWS: usize = 4096;

/// A dense layer, its input and the numbers of an update, for [`dense_update`].
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
#[must_use]
pub struct DenseUpdate<'a, T = f32> {
    /// What the layer does, as in the forward pass.
    pub layer: DenseLayer<'a>,
    /// The layer's input, [batch, inputs], or [batch, kept inputs].
    pub x: MatRef<'a, T>,
    /// What forward added to the output. Only its shape is looked at: with a residual, z has to be saved.
    pub residual: Option<MatRef<'a, T>>,
    /// The weights, packed for the gradient of the input before they change.
    pub packed: Option<&'a PackedWeight>,
    /// The numbers of the update.
    pub step: SgdStep,
    /// The largest norm of a unit's incoming weights; of the kept ones where units are dropped.
    pub max_norm: Option<f32>,
}

impl<'a, T> DenseUpdate<'a, T> {
    /// An update without a limit of norms.
    pub fn new(layer: DenseLayer<'a>, x: MatRef<'a, T>, step: SgdStep) -> Self {
        Self { layer, x, residual: None, packed: None, step, max_norm: None }
    }

    /// The same with the residual of the forward pass.
    pub fn with_residual(self, residual: MatRef<'a, T>) -> Self {
        Self { residual: Some(residual), ..self }
    }

    /// The same with weights that were packed by [`PackedWeight::for_input_gradient`].
    pub fn with_packed(self, packed: &'a PackedWeight) -> Self {
        Self { packed: Some(packed), ..self }
    }

    /// The same with a largest norm of a unit's incoming weights.
    pub fn with_max_norm(self, limit: f32) -> Self {
        Self { max_norm: Some(limit), ..self }
    }

    /// The layer with its parameters, as a backward pass sees it.
    pub(crate) fn args<'b>(&'b self, parameters: &'b Parameters<'_, T>) -> DenseArgs<'b, T>
    where
        T: Copy,
    {
        DenseArgs {
            layer: self.layer,
            x: self.x,
            w: parameters.w.as_ref(),
            bias: parameters.bias.as_deref(),
            residual: self.residual,
            packed: self.packed,
        }
    }

    /// The sizes of the pass, if all arguments agree.
    pub(crate) fn check(
        &self,
        parameters: &Parameters<'_, T>,
        saved: &Saved<'_, T>,
        dy: &MatRef<'_, T>,
        dx: Option<&MatMut<'_, T>>,
    ) -> Result<Shape>
    where
        T: Copy,
    {
        self.step.check()?;
        self.max_norm.map_or(Ok(()), check_limit)?;
        let args = self.args(parameters);
        let shape = args.check()?;
        parameters.check()?;
        check_shape(dy.named("dy"), shape.output())?;
        args.check_saved(saved, &shape)?;
        if let Some(dx) = dx {
            check_shape(dx.named("dx"), self.x.named("x"))?;
        }
        Ok(shape)
    }
}

/// What [`dense_update`] changes.
#[derive(Debug)]
#[non_exhaustive]
#[must_use]
pub struct Parameters<'a, T = f32> {
    /// The weights, [inputs, units].
    pub w: MatMut<'a, T>,
    /// Their velocity, of the same shape; without it there is no momentum.
    pub w_velocity: Option<MatMut<'a, T>>,
    /// The biases; they are not penalised.
    pub bias: Option<&'a mut [T]>,
    /// Their velocity.
    pub bias_velocity: Option<&'a mut [T]>,
}

impl<'a, T> Parameters<'a, T> {
    /// Weights without velocity, and no bias.
    pub fn new(w: MatMut<'a, T>) -> Self {
        Self { w, w_velocity: None, bias: None, bias_velocity: None }
    }

    /// The same with a velocity of the weights.
    pub fn with_w_velocity(self, velocity: MatMut<'a, T>) -> Self {
        Self { w_velocity: Some(velocity), ..self }
    }

    /// The same with biases.
    pub fn with_bias(self, bias: &'a mut [T]) -> Self {
        Self { bias: Some(bias), ..self }
    }

    /// The same with a velocity of the biases.
    pub fn with_bias_velocity(self, velocity: &'a mut [T]) -> Self {
        Self { bias_velocity: Some(velocity), ..self }
    }

    /// `Ok` when the velocities have the shapes of what they belong to.
    fn check(&self) -> Result<()> {
        if let Some(velocity) = &self.w_velocity {
            check_shape(velocity.named("the velocity of W"), self.w.named("W"))?;
        }
        match &self.bias_velocity {
            Some(velocity) => {
                let units = self.w.cols();
                check_equal("length of the bias's velocity", velocity.len(), "columns of W", units)
            }
            None => Ok(()),
        }
    }
}

/// The backward pass and a step of stochastic gradient descent: what
/// [`dense_backward`](super::dense_backward), then [`sgd_update`] on weights and biases and
/// [`max_norm`](crate::sgd::max_norm) on the weights do, bit for bit, without dW or another pass over W.
/// dx is the gradient for the weights before the update.
///
/// Where units are dropped only `W[I, J]` and `b[J]` change; everything else keeps its bits. The norm
/// that is limited is that of a unit's weights in the thinned network, from the kept inputs only; with
/// all its weights, of which these are a share of about `keep`, a unit may be longer by `1 / sqrt(keep)`.
/// A weight that DropConnect drops has no gradient: it decays, and follows its velocity, which decays
/// too.
///
/// To clip or to share gradients before they are applied, take dW from `dense_backward` and apply it
/// later.
///
/// ```
/// # use fused_dropout::layer::{DenseLayer, DenseUpdate, Parameters, dense_update};
/// # use fused_dropout::{Activation, Error, MaskSource, MatMut, MatRef, Saved, sgd::SgdStep};
/// let (x, mut w) = ([1.0, 2.0], [1.0, 0.5]);
/// let layer = DenseLayer::new(Activation::Identity);
/// let update = DenseUpdate::new(layer, MatRef::new(&x, 1, 2)?, SgdStep::new(0.5));
/// let parameters = Parameters::new(MatMut::new(&mut w, 2, 1)?);
/// let dy = MatRef::new(&[2.0], 1, 1)?;
/// dense_update(&update, parameters, &Saved::Nothing, dy, None, MaskSource::Key)?;
/// assert_eq!(w, [0.0, -1.5]);
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
///
/// As for [`dense_backward`](super::dense_backward), and when a number is out of range.
pub fn dense_update<'d, 'm>(
    args: &DenseUpdate<'_>,
    parameters: Parameters<'_>,
    saved: &Saved<'_>,
    dy: impl Into<OutputGradient<'d>>,
    dx: Option<MatMut<'_>>,
    mask: impl Into<MaskSource<'m>>,
) -> Result<()> {
    let (dy, mask) = (dy.into(), mask.into());
    let shape = args.check(&parameters, saved, &dy.as_ref(), dx.as_ref())?;
    args.layer.check_mask(&mask, &shape)?;
    let level = match args.packed {
        Some(packed) => packed.check_input_gradient(&args.layer, &parameters.w.as_ref())?,
        None => Level::current()?,
    };
    let pass = Pass { args, level, shape };
    pass.run(parameters, saved, dy, dx, mask, &mut LayerBuffers::take())
}

/// An update whose arguments were checked.
struct Pass<'a> {
    args: &'a DenseUpdate<'a>,
    level: Level,
    shape: Shape,
}

impl Pass<'_> {
    fn run(
        &self,
        mut parameters: Parameters<'_>,
        saved: &Saved<'_>,
        mut dy: OutputGradient<'_>,
        dx: Option<MatMut<'_>>,
        mask: MaskSource<'_>,
        buffers: &mut LayerBuffers,
    ) -> Result<()> {
        let Self { args, level, shape } = *self;
        let layer = &args.layer;
        let LayerBuffers { index, masked, dz, dw, db, bias, bias_velocity } = buffers;
        let mut db = match &parameters.bias {
            Some(_) => Some(&mut db.room(1, shape.units)?[..shape.units]),
            None => None,
        };
        let dz = output_gradient(layer, saved, &mut dy, shape, db.as_deref_mut(), mask, dz)?;
        let dz = Operand::new(dz);
        if let Some(dx) = dx.filter(|_| shape.batch > 0 && shape.inputs > 0) {
            let w = match args.packed {
                Some(packed) => packed.operand(parameters.w.as_ref().source().t()).t(),
                None => weights(layer, parameters.w.as_ref(), level, index, masked)?,
            };
            let mut dx = RowsMut::new(Slot::Output, dx)?;
            let target = dx.target()?;
            input_gradient(level, dz, w, shape, &layer.input.elements(), target)?;
            dx.finish();
        }
        if shape.inputs > 0 && shape.units > 0 {
            let (rows, cols) = (layer.input.list(), layer.output.list());
            let index = match parameters.w.target().col_step {
                1 => index.index(level, rows, cols),
                _ => index.index(level, cols, rows),
            };
            self.update_weights(&mut parameters, dz, index, dw)?;
        }
        if let (Some(b), Some(db)) = (parameters.bias, db) {
            self.update_bias(db, b, parameters.bias_velocity, bias, bias_velocity)?;
        }
        Ok(())
    }

    /// The update of the weights, and their norms.
    fn update_weights(
        &self,
        parameters: &mut Parameters<'_>,
        dz: Operand,
        index: GatherIndex,
        buffer: &mut AlignedBuffer,
    ) -> Result<()> {
        let Self { args, level, shape } = *self;
        let Parameters { w, w_velocity, .. } = parameters;
        let x = Operand::masked(args.x.source(), &args.layer.input.elements());
        let transposed = w.target().col_step != 1;
        let same = w_velocity.as_mut().is_none_or(|v| (v.target().col_step != 1) == transposed);
        let masked_and_thinned = args.layer.weight_dropout.drops() && !index.is_all();
        if same && shape.batch <= FUSED_ROWS && !masked_and_thinned {
            self.fused(x, dz, w, w_velocity.as_mut(), index)?;
        } else {
            // Weights by rows and velocities by columns, which a product cannot write both; or a batch
            // so large that one more pass over the weights does not count.
            let Shape { inputs, units, .. } = shape;
            let mut dw = MatMut::new(buffer.room(inputs, units)?, inputs, units)?;
            weight_gradient(&args.layer, level, x, dz, shape, dw.reborrow())?;
            if index.is_all() {
                let velocity = w_velocity.as_mut().map(MatMut::reborrow);
                sgd_update(w.reborrow(), dw.as_ref(), velocity, &args.step)?;
            } else {
                self.scatter(dw.as_ref(), w, w_velocity.as_mut());
            }
        }
        let Some(limit) = args.max_norm else { return Ok(()) };
        let target = w.target();
        match transposed {
            _ if index.is_all() => return max_norm(w.reborrow(), limit),
            true => {
                let (rows, cols) = (shape.units, shape.inputs);
                gathered_max_norm(level, target.t(), index, (rows, cols), true, limit);
            }
            false => {
                let (rows, cols) = (shape.inputs, shape.units);
                gathered_max_norm(level, target, index, (rows, cols), false, limit);
            }
        }
        Ok(())
    }

    /// The update whose gradient `x~ᵀ · dz` never reaches memory.
    fn fused(
        &self,
        x: Operand,
        dz: Operand,
        w: &mut MatMut<'_>,
        velocity: Option<&mut MatMut<'_>>,
        index: GatherIndex,
    ) -> Result<()> {
        let Self { args, level, shape } = *self;
        let (mut w, mut velocity) = (w.target(), velocity.map(MatMut::target));
        let transposed = w.col_step != 1;
        if transposed {
            (w, velocity) = (w.t(), velocity.map(|v| v.t()));
        }
        let gradient = WeightGradient::new(x, dz, shape, transposed);
        let update = Update { w, velocity, step: args.step };
        let dropout = &args.layer.weight_dropout;
        let end = match (dropout.drops(), index.is_all()) {
            (true, _) => {
                End::MaskedUpdate(MaskedUpdate { update, scale: dropout.dropout().scale() })
            }
            (false, true) => End::Update(update),
            (false, false) => End::GatheredUpdate(GatheredUpdate { update, index }),
        };
        gradient.run(level, end, gradient.bits(dropout), w)
    }

    /// The update of kept weights with a gradient in memory, element by element.
    fn scatter(&self, dw: MatRef<'_>, w: &mut MatMut<'_>, mut velocity: Option<&mut MatMut<'_>>) {
        let layer = &self.args.layer;
        let stored = |list: Option<&[u32]>, i: usize| list.map_or(i, |list| list[i] as usize);
        for i in 0..dw.rows() {
            for j in 0..dw.cols() {
                let (r, c) = (stored(layer.input.list(), i), stored(layer.output.list(), j));
                let old = velocity.as_ref().map(|velocity| velocity.as_ref().at(r, c));
                let (w_new, v_new) =
                    self.args.step.apply(Scalar, w.as_ref().at(r, c), dw.at(i, j), old);
                w.put(r, c, w_new);
                if let Some(velocity) = &mut velocity {
                    velocity.put(r, c, v_new);
                }
            }
        }
    }

    /// A step of the biases, without penalties.
    fn update_bias(
        &self,
        db: &[f32],
        bias: &mut [f32],
        mut velocity: Option<&mut [f32]>,
        kept: &mut AlignedBuffer,
        kept_velocity: &mut AlignedBuffer,
    ) -> Result<()> {
        let step = self.args.step.without_penalties();
        let db = MatRef::row_vector(db);
        let Some(list) = self.args.layer.output.list() else {
            let velocity = velocity.map(MatMut::row_vector);
            return sgd_update(MatMut::row_vector(bias), db, velocity, &step);
        };
        let kept = &mut pick(bias, list, kept)?[..list.len()];
        let mut kept_velocity = match &velocity {
            Some(velocity) => Some(&mut pick(velocity, list, kept_velocity)?[..list.len()]),
            None => None,
        };
        let view = kept_velocity.as_mut().map(|velocity| MatMut::row_vector(velocity));
        sgd_update(MatMut::row_vector(&mut *kept), db, view, &step)?;
        for (i, unit) in list.iter().enumerate() {
            bias[*unit as usize] = kept[i];
            if let (Some(velocity), Some(kept)) = (&mut velocity, &kept_velocity) {
                velocity[*unit as usize] = kept[i];
            }
        }
        Ok(())
    }
}
