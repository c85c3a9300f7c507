//! Backward and update in one: gradients of weights that never reach memory.

use super::{gradient_of_input, weight_bits, weight_gradient};
use crate::Level;
use crate::activation::Activation;
use crate::buffers::{AlignedBuffer, Lease, Slot};
use crate::elementwise::{BiasActivationDropout, bias_activation_dropout_backward};
use crate::error::{Result, check_equal, check_shape};
use crate::gemm::epilogue::{DropUpdate, Update};
use crate::gemm::{Operand, Product};
use crate::mask::{Bits, Dropout, MaskKey};
use crate::saved::Saved;
use crate::sgd::{SgdStep, check_limit, max_norm, sgd_update};
use crate::view::{MatMut, MatRef};

/// Up to so many rows the update is fused: its sums cannot wait in the weights, so panels have the
/// whole batch, 128 columns of which take 2 MiB then.
pub(crate) const FUSED_ROWS: usize = 4096;

/// A dense layer's arguments for [`dense_update`].
#[derive(Clone, Copy, Debug)]
pub struct DenseUpdate<'a, T = f32> {
    /// The layer's input, [batch, inputs].
    pub x: MatRef<'a, T>,
    /// What was applied to z.
    pub activation: Activation,
    /// How much of the output was dropped.
    pub dropout: Dropout,
    /// Which mask the output had.
    pub key: MaskKey,
    /// Dropout of the input, with its own key.
    pub input_dropout: Option<(Dropout, MaskKey)>,
    /// Dropout of the weights (DropConnect), with its own key. A dropped weight has no gradient: it
    /// decays, and follows its velocity, which decays too.
    pub weight_dropout: Option<(Dropout, MaskKey)>,
    /// The numbers of the update.
    pub step: SgdStep,
    /// The largest norm of a unit's incoming weights.
    pub max_norm: Option<f32>,
}

/// What [`dense_update`] changes.
#[derive(Debug)]
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

impl<T> Parameters<'_, T> {
    /// `Ok` when all shapes agree.
    pub(crate) fn check(&self, inputs: usize) -> Result<()> {
        let units = self.w.cols();
        check_equal("columns of x", inputs, "rows of W", self.w.rows())?;
        if let Some(velocity) = &self.w_velocity {
            check_shape(velocity.named("the velocity of W"), self.w.named("W"))?;
        }
        if let Some(bias) = &self.bias {
            check_equal("length of the bias", bias.len(), "columns of W", units)?;
        }
        if let Some(velocity) = &self.bias_velocity {
            check_equal("length of the bias's velocity", velocity.len(), "columns of W", units)?;
        }
        Ok(())
    }
}

/// The backward pass and a step of stochastic gradient descent: what [`dense_backward`], then
/// [`sgd_update`] on weights and biases and [`max_norm`] on the weights do, bit for bit, without dW
/// or another pass over W. dx is the gradient for the weights before the update.
///
/// To clip or to share gradients before they are applied, take dW from [`dense_backward`] and apply
/// it later.
///
/// # Errors
///
/// When shapes disagree, `saved` lacks what the activation needs, or a number is out of range.
///
/// [`dense_backward`]: crate::dense_backward
pub fn dense_update(
    args: &DenseUpdate<'_>,
    parameters: Parameters<'_>,
    saved: &Saved<'_>,
    dy: MatRef<'_>,
    dx: Option<MatMut<'_>>,
) -> Result<()> {
    let level = Level::current()?;
    check(args, &parameters, saved, &dy, dx.as_ref())?;
    let Parameters { mut w, mut w_velocity, bias, bias_velocity } = parameters;
    let (batch, inputs, units) = (args.x.rows(), w.rows(), w.cols());
    let mut db: Lease<AlignedBuffer> = Slot::BiasGradient.take();
    let db = db.room(1, units)?;
    let mut dz: Lease<AlignedBuffer> = Slot::OutputGradient.take();
    let mut dz = MatMut::new(dz.room(batch, units)?, batch, units)?;
    let end = BiasActivationDropout {
        bias: None,
        activation: args.activation,
        dropout: args.dropout,
        key: args.key,
    };
    bias_activation_dropout_backward(&end, saved, dy, dz.reborrow(), Some(&mut *db))?;
    let dz = Operand::new(dz.as_ref().source());
    let w_now = Operand::dropped(w.as_ref().source(), args.weight_dropout);
    gradient_of_input(level, dz, w_now, (batch, inputs, units), args.input_dropout, dx)?;
    let x = Operand::dropped(args.x.source(), args.input_dropout);
    let (target, velocity) = (w.target(), w_velocity.as_mut().map(MatMut::target));
    let transposed = target.col_step != 1;
    let same = velocity.is_none_or(|v| (v.col_step != 1) == transposed);
    if same && batch <= FUSED_ROWS {
        let step = args.step;
        let (a, b, m, n, epilogue) = if transposed {
            let velocity = velocity.map(|v| v.t());
            (dz.t(), x, units, inputs, Update { w: target.t(), velocity, step })
        } else {
            (x.t(), dz, inputs, units, Update { w: target, velocity, step })
        };
        let bits = Bits::Uniform(true, None);
        let partial = epilogue.w;
        let product = Product { m, n, k: batch, a, b, bias: None, partial, epilogue, bits };
        match &args.weight_dropout {
            None => product.run(level)?,
            Some((dropout, key)) => {
                let (bits, scale) = (weight_bits(dropout, key, transposed), dropout.scale());
                let product = product.with(DropUpdate { update: epilogue, scale });
                Product { bits, ..product }.run(level)?;
            }
        }
    } else {
        // Weights by rows and velocities by columns, which a product cannot write both; or a batch
        // so large that one more pass over the weights does not count.
        let mut dw: Lease<AlignedBuffer> = Slot::WeightGradient.take();
        let mut dw = MatMut::new(dw.room(inputs, units)?, inputs, units)?;
        weight_gradient(level, x, dz, (inputs, units, batch), args.weight_dropout, &mut dw)?;
        sgd_update(w.reborrow(), dw.as_ref(), w_velocity, &args.step)?;
    }
    if let Some(bias) = bias {
        let step = args.step.without_penalties();
        let velocity = bias_velocity.map(MatMut::row_vector);
        sgd_update(MatMut::row_vector(bias), MatRef::row_vector(db), velocity, &step)?;
    }
    args.max_norm.map_or(Ok(()), |limit| max_norm(w, limit))
}

fn check(
    args: &DenseUpdate<'_>,
    parameters: &Parameters<'_>,
    saved: &Saved<'_>,
    dy: &MatRef<'_>,
    dx: Option<&MatMut<'_>>,
) -> Result<()> {
    args.step.check()?;
    args.activation.check()?;
    args.max_norm.map_or(Ok(()), check_limit)?;
    let (batch, inputs, units) = (args.x.rows(), args.x.cols(), parameters.w.cols());
    parameters.check(inputs)?;
    args.key.check(batch, units)?;
    if let Some((_, key)) = &args.input_dropout {
        key.check(batch, inputs)?;
    }
    if let Some((_, key)) = &args.weight_dropout {
        key.check(inputs, units)?;
    }
    check_shape(dy.named("dy"), ("x · W", batch, units))?;
    saved.check(args.activation, batch, units)?;
    match dx {
        Some(dx) => check_shape(dx.named("dx"), args.x.named("x")),
        None => Ok(()),
    }
}
