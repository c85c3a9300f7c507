//! Backward and update of a thinned layer.

use super::{Buffers, Side, output_gradient, pick, weights};
use crate::Level;
use crate::activation::Activation;
use crate::buffers::{AlignedBuffer, Lease, Slot};
use crate::dense::{FUSED_ROWS, Parameters, gradient_of_input, weight_gradient};
use crate::error::{Result, check_equal, check_shape};
use crate::gather::Kept;
use crate::gemm::epilogue::{KeptUpdate, Update};
use crate::gemm::{Operand, Product};
use crate::isa::Scalar;
use crate::mask::Bits;
use crate::saved::Saved;
use crate::sgd::{SgdStep, check_limit, kept_max_norm, max_norm, sgd_update};
use crate::view::{MatMut, MatRef};

/// The arguments of [`thin_update`].
#[derive(Clone, Copy, Debug)]
pub struct ThinUpdate<'a, T = f32> {
    /// The layer's input, [batch, kept inputs].
    pub x: MatRef<'a, T>,
    /// What was applied to z.
    pub activation: Activation,
    /// Which inputs were there.
    pub input: Side<'a>,
    /// Which units were computed.
    pub output: Side<'a>,
    /// The numbers of the update.
    pub step: SgdStep,
    /// The largest norm of the kept weights of a kept unit.
    pub max_norm: Option<f32>,
}

impl<T> ThinUpdate<'_, T> {
    /// Batch, kept inputs and kept units, if the arguments agree with those of the parameters.
    pub(crate) fn check(
        &self,
        parameters: &Parameters<'_, T>,
        saved: &Saved<'_, T>,
        dy: &MatRef<'_, T>,
        dx: Option<&MatMut<'_, T>>,
    ) -> Result<(usize, usize, usize)> {
        self.step.check()?;
        self.activation.check()?;
        self.max_norm.map_or(Ok(()), check_limit)?;
        parameters.check(parameters.w.rows())?;
        let batch = self.x.rows();
        let inputs = self.input.width(batch, ("rows of W", parameters.w.rows()))?;
        let units = self.output.width(batch, ("columns of W", parameters.w.cols()))?;
        check_equal("columns of x", self.x.cols(), "number of kept inputs", inputs)?;
        check_shape(dy.named("dy"), ("the kept units' output", batch, units))?;
        saved.check(self.activation, batch, units)?;
        if let Some(dx) = dx {
            check_shape(dx.named("dx"), self.x.named("x"))?;
        }
        Ok((batch, inputs, units))
    }
}

/// The backward pass and a step of stochastic gradient descent on the parameters that remain: what
/// [`thin_backward`], then [`sgd_update`] and [`max_norm`] of `W[I, J]` do, and [`sgd_update`] without
/// penalties of `b[J]`, bit for bit, without dW. dx is the gradient for the weights before the update.
///
/// Parameters and velocities of what is removed keep their bits. The norm that is limited is that of
/// a unit's weights in the thinned network, from the kept inputs only; with all its weights, of which
/// these are a share of about `keep`, a unit may be longer by `1 / sqrt(keep)`.
///
/// # Errors
///
/// When shapes disagree, `saved` lacks what the activation needs, or a number is out of range.
///
/// [`thin_backward`]: crate::thin_backward
/// [`max_norm`]: crate::max_norm
pub fn thin_update(
    args: &ThinUpdate<'_>,
    parameters: Parameters<'_>,
    saved: &Saved<'_>,
    dy: MatRef<'_>,
    dx: Option<MatMut<'_>>,
) -> Result<()> {
    let shape = args.check(&parameters, saved, &dy, dx.as_ref())?;
    let (batch, _, units) = shape;
    let mut buffers = Buffers::take();
    let mut dz: Lease<AlignedBuffer> = Slot::OutputGradient.take();
    let mut dz = MatMut::new(dz.room(batch, units)?, batch, units)?;
    let db = buffers.db.room(1, units)?;
    output_gradient(args.activation, args.output, saved, Some(dy), dz.reborrow(), Some(db))?;
    apply(args, parameters, shape, dz.as_ref(), dx, &mut buffers)
}

/// [`thin_update`] with `dy` overwritten by dz. A buffer for dz would lie in the caches of all cores that
/// read the last one, from which each line has to be taken before it can be written.
pub(crate) fn thin_update_in_place(
    args: &ThinUpdate<'_>,
    parameters: Parameters<'_>,
    saved: &Saved<'_>,
    mut dy: MatMut<'_>,
    dx: Option<MatMut<'_>>,
) -> Result<()> {
    let shape = args.check(&parameters, saved, &dy.as_ref(), dx.as_ref())?;
    let mut buffers = Buffers::take();
    let db = buffers.db.room(1, shape.2)?;
    output_gradient(args.activation, args.output, saved, None, dy.reborrow(), Some(db))?;
    apply(args, parameters, shape, dy.as_ref(), dx, &mut buffers)
}

/// Computes dx, then updates the parameters; db is in the buffers.
fn apply(
    args: &ThinUpdate<'_>,
    parameters: Parameters<'_>,
    shape: (usize, usize, usize),
    dz: MatRef<'_>,
    dx: Option<MatMut<'_>>,
    buffers: &mut Buffers,
) -> Result<()> {
    let level = Level::current()?;
    let Parameters { mut w, mut w_velocity, bias, bias_velocity } = parameters;
    let (batch, inputs, units) = shape;
    let dz = Operand::new(dz.source());
    let windows = &mut buffers.windows;
    let source = w.as_ref().source();
    let transposed = source.col_step != 1;
    if dx.is_some() {
        let w = weights(windows, level, source, args.input, args.output);
        gradient_of_input(level, dz, w, shape, args.input.elements(), dx)?;
    }
    let (rows, cols) = (args.input.list(), args.output.list());
    let kept = match transposed {
        true => windows.keep(level, cols, rows),
        false => windows.keep(level, rows, cols),
    };
    let x = Operand::dropped(args.x.source(), args.input.elements());
    let same = w_velocity.as_mut().is_none_or(|v| (v.target().col_step != 1) == transposed);
    if same && batch <= FUSED_ROWS {
        fused(level, args.step, (x, dz, shape), (&mut w, w_velocity.as_mut()), kept)?;
    } else {
        // As for a dense layer: weights by rows and velocities by columns, or a very large batch.
        let mut dw: Lease<AlignedBuffer> = Slot::WeightGradient.take();
        let mut dw = MatMut::new(dw.room(inputs, units)?, inputs, units)?;
        weight_gradient(level, x, dz, (inputs, units, batch), None, &mut dw)?;
        if kept.is_all() {
            sgd_update(w.reborrow(), dw.as_ref(), w_velocity, &args.step)?;
        } else {
            scatter(args, dw.as_ref(), w.reborrow(), w_velocity);
        }
    }
    if let Some(limit) = args.max_norm {
        let target = w.target();
        match transposed {
            _ if kept.is_all() => max_norm(w, limit)?,
            true => kept_max_norm(level, target.t(), kept, (units, inputs), true, limit),
            false => kept_max_norm(level, target, kept, (inputs, units), false, limit),
        }
    }
    if let Some(bias) = bias {
        update_bias(args, buffers, units, bias, bias_velocity)?;
    }
    Ok(())
}

/// The update whose gradient `xᵀ · dz` never reaches memory.
fn fused(
    level: Level,
    step: SgdStep,
    (x, dz, (batch, inputs, units)): (Operand, Operand, (usize, usize, usize)),
    (w, velocity): (&mut MatMut<'_>, Option<&mut MatMut<'_>>),
    kept: Kept,
) -> Result<()> {
    let (mut w, mut velocity) = (w.target(), velocity.map(MatMut::target));
    let (mut a, mut b, mut m, mut n) = (x.t(), dz, inputs, units);
    if w.col_step != 1 {
        (w, velocity) = (w.t(), velocity.map(|v| v.t()));
        (a, b, m, n) = (dz.t(), x, units, inputs);
    }
    let epilogue = KeptUpdate { w, velocity, step, kept };
    let bits = Bits::Uniform(true, None);
    let product = Product { m, n, k: batch, a, b, bias: None, partial: w, epilogue, bits };
    if kept.is_all() {
        product.with(Update { w, velocity, step }).run(level)
    } else {
        product.run(level)
    }
}

/// The update with a gradient in memory, element by element.
fn scatter(
    args: &ThinUpdate<'_>,
    dw: MatRef<'_>,
    mut w: MatMut<'_>,
    mut velocity: Option<MatMut<'_>>,
) {
    let unit = |list: Option<&[u32]>, i: usize| list.map_or(i, |list| list[i] as usize);
    for i in 0..dw.rows() {
        for j in 0..dw.cols() {
            let (r, c) = (unit(args.input.list(), i), unit(args.output.list(), j));
            let at = |matrix: MatRef<'_>, r, c| matrix.get(r, c).unwrap_or_default();
            let old = velocity.as_ref().map(|velocity| at(velocity.as_ref(), r, c));
            let (w_new, v_new) = args.step.apply(Scalar, at(w.as_ref(), r, c), at(dw, i, j), old);
            w.set(r, c, w_new);
            if let Some(velocity) = &mut velocity {
                velocity.set(r, c, v_new);
            }
        }
    }
}

/// A step of the kept biases, without penalties, with the gradient in the buffers.
fn update_bias(
    args: &ThinUpdate<'_>,
    buffers: &mut Buffers,
    units: usize,
    bias: &mut [f32],
    mut velocity: Option<&mut [f32]>,
) -> Result<()> {
    let step = args.step.without_penalties();
    let db = MatRef::row_vector(&buffers.db[..units]);
    let Some(list) = args.output.list() else {
        let velocity = velocity.map(MatMut::row_vector);
        return sgd_update(MatMut::row_vector(bias), db, velocity, &step);
    };
    let kept = pick(bias, list, &mut buffers.bias)?;
    let mut kept_velocity = match &velocity {
        Some(velocity) => Some(pick(velocity, list, &mut buffers.bias_velocity)?),
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
