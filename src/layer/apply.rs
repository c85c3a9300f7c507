//! The update of a layer with gradients that are in memory.

use super::product::LayerBuffers;
use super::{DenseLayer, Parameters};
use crate::Level;
use crate::buffers::AlignedBuffer;
use crate::error::{Result, check_equal, check_shape};
use crate::gather::{GatherIndex, IndexBuffers};
use crate::update::{Gradient, State, Step, apply, check_limit, gathered_max_norm};
use crate::view::{MatMut, MatRef};

/// A dense layer, its gradients and the numbers of an update, for [`dense_apply`].
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
#[must_use]
pub struct DenseApply<'a, T = f32> {
    /// What the layer does, as in the forward pass: which units are kept.
    pub layer: DenseLayer<'a>,
    /// The gradient of the weights, [inputs, units], or of the kept ones.
    pub dw: MatRef<'a, T>,
    /// The gradient of the biases, one value a unit, or a kept one.
    pub db: Option<&'a [T]>,
    /// What both are multiplied by before they are used; see [`clip_factor`](crate::update::clip_factor).
    pub scale: f32,
    /// The numbers of the update.
    pub step: Step,
    /// The largest norm of a unit's incoming weights; of the kept ones where units are dropped.
    pub max_norm: Option<f32>,
}

impl<'a, T> DenseApply<'a, T> {
    /// An update of weights alone, with a gradient as it is, without a limit of norms.
    pub fn new(layer: DenseLayer<'a>, dw: MatRef<'a, T>, step: impl Into<Step>) -> Self {
        Self { layer, dw, db: None, scale: 1.0, step: step.into(), max_norm: None }
    }

    /// The same with a gradient of the biases.
    pub fn with_db(self, db: &'a [T]) -> Self {
        Self { db: Some(db), ..self }
    }

    /// The same with gradients that are multiplied by this first.
    pub fn with_scale(self, scale: f32) -> Self {
        Self { scale, ..self }
    }

    /// The same with a largest norm of a unit's incoming weights.
    pub fn with_max_norm(self, limit: f32) -> Self {
        Self { max_norm: Some(limit), ..self }
    }

    /// `Ok` when all arguments agree.
    pub(crate) fn check(&self, parameters: &Parameters<'_, T>) -> Result<()> {
        self.step.check()?;
        self.max_norm.map_or(Ok(()), check_limit)?;
        Gradient::scaled(self.dw, self.scale).check()?;
        let (w_rows, w_cols) = (parameters.w.rows(), parameters.w.cols());
        let inputs = self.layer.input.width(0, ("rows of W", w_rows))?;
        let units = self.layer.output.width(0, ("columns of W", w_cols))?;
        let name = if (inputs, units) == (w_rows, w_cols) { "W" } else { "the kept weights" };
        check_shape(self.dw.named("dW"), (name, inputs, units))?;
        parameters.check(&self.step)?;
        match (&parameters.bias, self.db) {
            (Some(bias), db) => {
                check_equal("length of the bias", bias.len(), "columns of W", w_cols)?;
                let db = db.map_or(0, <[T]>::len);
                check_equal("length of db", db, "number of units that have a gradient", units)
            }
            (None, Some(db)) => check_equal("length of db", db.len(), "number of biases", 0),
            (None, None) => Ok(()),
        }
    }
}

/// Updates weights, biases and their states with gradients by [`dense_backward`](super::dense_backward),
/// then limits norms: the second half of [`dense_update`](super::dense_update), bit for bit. Between the
/// two gradients may be accumulated, shared between machines, and clipped.
///
/// ```
/// # use fused_dropout::layer::{DenseApply, DenseLayer, Parameters, dense_apply};
/// # use fused_dropout::{Activation, Error, MatMut, MatRef, update::SgdStep};
/// let (mut w, mut b, dw, db) = ([1.0, 0.5], [0.0], [2.0, 4.0], [2.0]);
/// let layer = DenseLayer::new(Activation::Relu);
/// let apply = DenseApply::new(layer, MatRef::new(&dw, 2, 1)?, SgdStep::new(0.5)).with_db(&db);
/// dense_apply(&apply, Parameters::new(MatMut::new(&mut w, 2, 1)?).with_bias(&mut b))?;
/// assert_eq!((w, b), ([0.0, -1.5], [-1.0]));
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
///
/// When shapes disagree, a number is out of range, there are biases without gradient or a gradient
/// without biases, or a state is not what the step needs.
pub fn dense_apply(args: &DenseApply<'_>, mut parameters: Parameters<'_>) -> Result<()> {
    args.check(&parameters)?;
    let (layer, level) = (&args.layer, Level::current()?);
    let LayerBuffers { index, kept, .. } = &mut *LayerBuffers::take();
    let (inputs, units) = (args.dw.rows(), args.dw.cols());
    if inputs > 0 && units > 0 {
        let Parameters { w, w_state, .. } = &mut parameters;
        let dw = Gradient::scaled(args.dw, args.scale);
        Kept::of(layer).apply(w.reborrow(), w_state, dw, args.step, kept)?;
        if let Some(limit) = args.max_norm {
            let index = Kept::of(layer).index(level, w, index);
            limit_norms(level, w, index, (inputs, units), limit);
        }
    }
    if let (Some(bias), Some(db)) = (parameters.bias, args.db) {
        let db = Gradient::scaled(MatRef::row_vector(db), args.scale);
        update_bias(layer, db, (bias, parameters.bias_state), args.step, kept)?;
    }
    Ok(())
}

/// A step of the biases, without penalties.
pub(super) fn update_bias(
    layer: &DenseLayer<'_>,
    db: Gradient<'_>,
    (bias, mut state): (&mut [f32], State<'_>),
    step: Step,
    buffers: &mut [AlignedBuffer; 3],
) -> Result<()> {
    let kept = Kept { rows: None, cols: layer.output.list() };
    let bias = MatMut::row_vector(bias);
    kept.apply(bias, &mut state, db, step.without_penalties(), buffers)
}

/// Limits the norms of the weights of the index.
pub(super) fn limit_norms(
    level: Level,
    w: &mut MatMut<'_>,
    index: GatherIndex,
    (inputs, units): (usize, usize),
    limit: f32,
) {
    let w = w.target();
    match w.col_step {
        1 => gathered_max_norm(level, w, index, (inputs, units), false, limit),
        _ => gathered_max_norm(level, w.t(), index, (units, inputs), true, limit),
    }
}

/// The rows and columns of a parameter that are kept; all where there is no list.
#[derive(Clone, Copy)]
pub(super) struct Kept<'a> {
    pub(super) rows: Option<&'a [u32]>,
    pub(super) cols: Option<&'a [u32]>,
}

impl<'a> Kept<'a> {
    /// Those of the weights.
    pub(super) fn of(layer: &DenseLayer<'a>) -> Self {
        Self { rows: layer.input.list(), cols: layer.output.list() }
    }

    /// Their gather index, in the order in which the weights are stored.
    pub(super) fn index(
        self,
        level: Level,
        w: &mut MatMut<'_>,
        buffers: &mut IndexBuffers,
    ) -> GatherIndex {
        match w.target().col_step {
            1 => buffers.index(level, self.rows, self.cols),
            _ => buffers.index(level, self.cols, self.rows),
        }
    }

    /// [`apply`] to the elements that are kept: they are copied, updated and put back, the others keep
    /// their bits.
    pub(super) fn apply(
        self,
        mut w: MatMut<'_>,
        state: &mut State<'_>,
        gradient: Gradient<'_>,
        step: Step,
        [kept_w, first, second]: &mut [AlignedBuffer; 3],
    ) -> Result<()> {
        if self.rows.is_none() && self.cols.is_none() {
            return apply(w, gradient, state.reborrow(), step);
        }
        let mut kept_w = self.pick(&w, gradient.dw, kept_w)?;
        let mut kept_state = match &*state {
            State::None => State::None,
            State::Velocity(velocity) => {
                State::Velocity(self.pick(velocity, gradient.dw, first)?)
            }
            State::Moments { first: m, second: v } => State::Moments {
                first: self.pick(m, gradient.dw, first)?,
                second: self.pick(v, gradient.dw, second)?,
            },
        };
        apply(kept_w.reborrow(), gradient, kept_state.reborrow(), step)?;
        for i in 0..gradient.dw.rows() {
            for j in 0..gradient.dw.cols() {
                let (r, c) = self.stored(i, j);
                w.put(r, c, kept_w.as_ref().at(i, j));
                state.put(r, c, kept_state.element(i, j));
            }
        }
        Ok(())
    }

    /// The place in the parameter of element (i, j) of what is kept of it.
    fn stored(self, i: usize, j: usize) -> (usize, usize) {
        let stored = |list: Option<&[u32]>, i: usize| list.map_or(i, |list| list[i] as usize);
        (stored(self.rows, i), stored(self.cols, j))
    }

    /// What is kept of a matrix, of the shape of its gradient.
    fn pick<'b>(
        self,
        matrix: &MatMut<'_>,
        of: MatRef<'_>,
        to: &'b mut AlignedBuffer,
    ) -> Result<MatMut<'b>> {
        let (rows, cols) = (of.rows(), of.cols());
        let mut to = MatMut::new(to.room(rows, cols)?, rows, cols)?;
        for i in 0..rows {
            for j in 0..cols {
                let (r, c) = self.stored(i, j);
                to.put(i, j, matrix.as_ref().at(r, c));
            }
        }
        Ok(to)
    }
}
