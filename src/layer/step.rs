//! Backward and update of a dense layer in one: gradients of weights that never reach memory.

use super::apply::{Kept, limit_norms, update_bias};
use super::backward::{Accumulation, OutputGradient, output_gradient, weight_gradient};
use super::product::{LayerBuffers, WeightGradient, input_gradient, weights};
use super::rows::RowsMut;
use super::{DenseArgs, DenseLayer, PackedWeight, Parameters, Shape};
use crate::Level;
use crate::buffers::{AlignedBuffer, Slot};
use crate::error::{Result, check_shape};
use crate::gather::GatherIndex;
use crate::gemm::epilogue::{End, GatheredUpdate, MaskedUpdate, Update};
use crate::gemm::{Operand, Start};
use crate::mask::MaskSource;
use crate::saved::Saved;
use crate::update::{State, Step, check_limit};
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
    pub step: Step,
    /// The largest norm of a unit's incoming weights; of the kept ones where units are dropped.
    pub max_norm: Option<f32>,
}

impl<'a, T> DenseUpdate<'a, T> {
    /// An update without a limit of norms.
    pub fn new(layer: DenseLayer<'a>, x: MatRef<'a, T>, step: impl Into<Step>) -> Self {
        Self { layer, x, residual: None, packed: None, step: step.into(), max_norm: None }
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
        parameters.check(&self.step)?;
        check_shape(dy.named("dy"), shape.output())?;
        args.check_saved(saved, &shape)?;
        if let Some(dx) = dx {
            check_shape(dx.named("dx"), self.x.named("x"))?;
        }
        Ok(shape)
    }
}

/// The backward pass and an update: what [`dense_backward`](super::dense_backward), then
/// [`dense_apply`](super::dense_apply) do, bit for bit, without dW or another pass over W.
/// dx is the gradient for the weights before the update.
///
/// Where units are dropped only `W[I, J]` and `b[J]` change; everything else keeps its bits. The norm
/// that is limited is that of a unit's weights in the thinned network, from the kept inputs only; with
/// all its weights, of which these are a share of about `keep`, a unit may be longer by `1 / sqrt(keep)`.
/// A weight that DropConnect drops has no gradient: it decays, and follows its velocity, which decays
/// too.
///
/// To clip or to share gradients before they are applied, take dW from `dense_backward`, and hand it to
/// `dense_apply` later.
///
/// ```
/// # use fused_dropout::layer::{DenseLayer, DenseUpdate, Parameters, dense_update};
/// # use fused_dropout::{Activation, Error, MaskSource, MatMut, MatRef, Saved, update::SgdStep};
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
        let LayerBuffers { index, masked, dz, dw, db, kept } = buffers;
        let mut db = match &parameters.bias {
            Some(_) => Some(&mut db.room(1, shape.units)?[..shape.units]),
            None => None,
        };
        let sum = db.as_deref_mut().map(|db| (db, Accumulation::Whole));
        let dz = output_gradient(layer, saved, &mut dy, shape, sum, mask, dz)?;
        let dz = Operand::new(dz);
        if let Some(dx) = dx.filter(|_| shape.batch > 0 && shape.inputs > 0) {
            let w = match args.packed {
                Some(packed) => packed.operand(parameters.w.as_ref().source().t()).t(),
                None => weights(layer, parameters.w.as_ref(), level, index, masked)?,
            };
            let mut dx = RowsMut::new(Slot::Output, dx)?;
            let target = dx.target()?;
            input_gradient(layer, level, dz, w, shape, target)?;
            dx.finish();
        }
        if shape.inputs > 0 && shape.units > 0 {
            let index = Kept::of(layer).index(level, &mut parameters.w, index);
            self.update_weights(&mut parameters, dz, index, (dw, kept))?;
        }
        if let (Some(b), Some(db)) = (parameters.bias, db) {
            let db = MatRef::row_vector(db);
            update_bias(layer, db.into(), (b, parameters.bias_state), args.step, kept)?;
        }
        Ok(())
    }

    /// The update of the weights, and their norms.
    fn update_weights(
        &self,
        parameters: &mut Parameters<'_>,
        dz: Operand,
        index: GatherIndex,
        (buffer, buffers): (&mut AlignedBuffer, &mut [AlignedBuffer; 3]),
    ) -> Result<()> {
        let Self { args, level, shape } = *self;
        let Parameters { w, w_state, .. } = parameters;
        let x = Operand::masked(args.x.source(), &args.layer.input.elements());
        let transposed = w.target().col_step != 1;
        let same = w_state.targets().iter().all(|state| (state.col_step != 1) == transposed);
        let masked_and_thinned = args.layer.weight_dropout.drops() && args.layer.skips();
        if same && shape.batch <= FUSED_ROWS && !masked_and_thinned {
            self.fused(x, dz, w, w_state, index)?;
        } else {
            // Weights by rows and their state by columns, which a product cannot write both; or a batch
            // so large that one more pass over the weights does not count.
            let Shape { inputs, units, .. } = shape;
            let mut dw = MatMut::new(buffer.room(inputs, units)?, inputs, units)?;
            weight_gradient(&args.layer, level, x, dz, shape, dw.reborrow(), Accumulation::Whole)?;
            let kept = Kept::of(&args.layer);
            kept.apply(w.reborrow(), w_state, dw.as_ref().into(), args.step, buffers)?;
        }
        if let Some(limit) = args.max_norm {
            limit_norms(level, w, index, (shape.inputs, shape.units), limit);
        }
        Ok(())
    }

    /// The update whose gradient `x~ᵀ · dz` never reaches memory.
    fn fused(
        &self,
        x: Operand,
        dz: Operand,
        w: &mut MatMut<'_>,
        state: &mut State<'_>,
        index: GatherIndex,
    ) -> Result<()> {
        let Self { args, level, shape } = *self;
        let (mut w, mut state) = (w.target(), state.targets());
        let transposed = w.col_step != 1;
        if transposed {
            (w, state) = (w.t(), state.t());
        }
        let gradient = WeightGradient::new(&args.layer, x, dz, shape, transposed);
        let update = Update { w, state, step: args.step.ready() };
        let dropout = &args.layer.weight_dropout;
        let end = match (dropout.drops(), index.is_all()) {
            (true, _) => {
                End::MaskedUpdate(MaskedUpdate { update, scale: dropout.dropout().scale() })
            }
            (false, true) => End::Update(update),
            (false, false) => End::GatheredUpdate(GatheredUpdate { update, index }),
        };
        gradient.run(level, end, gradient.bits(dropout), (Start::Zero, w))
    }
}
