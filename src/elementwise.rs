//! Element-wise kernels for trainers that keep their own matmul, and for what is no product: dropout,
//! bias + activation + dropout, the same with a residual, and their backward passes.
//!
//! ```text
//! dropout_forward                    y  = keep ? x · scale : 0
//! dropout_backward                   dx = keep ? dy · scale : 0
//! bias_activation_dropout_forward    y  = [residual +] (keep ? act(x + b) · scale : 0)
//! bias_activation_dropout_backward   dz = keep ? dy · scale · act'(x + b) : 0,  db = column sums of dz
//! broadcast_dropout_forward          y  = keep ? x · scale : 0    one decision for all that share it
//! rates_dropout_forward              y  = keep ? x · scale : 0    a rate for each row or column
//! ```
//!
//! A forward pass makes its mask, stores it, or is given one: [`ForwardMask`].
//!
//! All matrices of a call have the same shape [rows, cols]; b and db have `cols` elements. Row `r`,
//! column `c` of a call has the mask bit of logical row `row0 + r` and column `col0 + c` of its
//! key. A dropped element is +0.0 whatever the value was. The gradient with respect to the residual
//! is dy itself.
//!
//! Other noise has its own functions: [`gaussian_dropout_forward`] multiplies by normal numbers,
//! [`alpha_dropout_forward`] keeps mean and variance in networks of SELU units, and
//! [`softmax_dropout_forward`] drops attention weights.
//!
//! Every function works in place too, over any row stride, and over transposed views (slower).

mod alpha;
mod broadcast;
mod gaussian;
mod kernel;
mod ops;
mod rates;
mod rows;
mod run;

use crate::Level;
use crate::activation::Activation;
use crate::error::{Result, check_equal, check_shape};
use crate::mask::{Dropout, ForwardMask, Mask, MaskKey};
use crate::saved::{Saved, SavedValues};
use crate::view::{MatMut, MatRef, Source, Target};
pub(crate) use alpha::mask_of;
pub use alpha::{
    AlphaDropout, alpha_dropout_backward, alpha_dropout_backward_in_place, alpha_dropout_forward,
    alpha_dropout_forward_in_place,
};
pub use broadcast::{
    BroadcastDropout, broadcast_dropout_backward, broadcast_dropout_backward_in_place,
    broadcast_dropout_forward, broadcast_dropout_forward_in_place,
};
pub use gaussian::{
    GaussianDropout, gaussian_dropout_backward, gaussian_dropout_backward_in_place,
    gaussian_dropout_forward, gaussian_dropout_forward_in_place, standard_normal,
};
use kernel::{Pass, Tensors};
pub use rates::{
    rates_dropout_backward, rates_dropout_backward_in_place, rates_dropout_forward,
    rates_dropout_forward_in_place,
};
use run::{Run, Step};

/// Bias, activation and dropout of one layer in one step.
#[derive(Clone, Copy, Debug)]
pub struct BiasActivationDropout<'a, T = f32> {
    /// One value a column, added first.
    pub bias: Option<&'a [T]>,
    /// Applied to `x + bias`.
    pub activation: Activation,
    /// How much to drop.
    pub dropout: Dropout,
    /// Which mask.
    pub key: MaskKey,
}

impl<T> BiasActivationDropout<'_, T> {
    /// `Ok` when the operation can be applied to `rows` x `cols` elements.
    pub(crate) fn check(&self, rows: usize, cols: usize) -> Result<()> {
        self.activation.check()?;
        self.key.check(rows, cols)?;
        match self.bias {
            Some(bias) => check_equal("length of the bias", bias.len(), "columns of x", cols),
            None => Ok(()),
        }
    }
}

/// Dropout alone, without bias and activation.
fn only_dropout(dropout: &Dropout, key: &MaskKey) -> BiasActivationDropout<'static> {
    BiasActivationDropout {
        bias: None,
        activation: Activation::Identity,
        dropout: *dropout,
        key: *key,
    }
}

/// `y = keep ? x · scale : 0`, the mask made, stored or given as [`ForwardMask`] says.
///
/// # Errors
///
/// When shapes differ, or the key's origin and the shape go past what a mask can address.
pub fn dropout_forward<'m>(
    x: MatRef<'_>,
    y: MatMut<'_>,
    dropout: &Dropout,
    key: &MaskKey,
    mask: impl Into<ForwardMask<'m>>,
) -> Result<()> {
    bias_activation_dropout_forward(&only_dropout(dropout, key), x, None, y, mask)
}

/// [`dropout_forward`] with `x` overwritten by `y`.
///
/// # Errors
///
/// As for [`dropout_forward`].
pub fn dropout_forward_in_place<'m>(
    x: MatMut<'_>,
    dropout: &Dropout,
    key: &MaskKey,
    mask: impl Into<ForwardMask<'m>>,
) -> Result<()> {
    bias_activation_dropout_forward_in_place(&only_dropout(dropout, key), x, None, mask)
}

/// `dx = keep ? dy · scale : 0`, with the stored mask or, without one, the mask of the key.
///
/// # Errors
///
/// As for [`dropout_forward`].
pub fn dropout_backward(
    dy: MatRef<'_>,
    dx: MatMut<'_>,
    dropout: &Dropout,
    key: &MaskKey,
    mask: Option<&Mask>,
) -> Result<()> {
    let saved = Saved { values: SavedValues::None, mask };
    bias_activation_dropout_backward(&only_dropout(dropout, key), &saved, dy, dx, None)
}

/// [`dropout_backward`] with `dy` overwritten by `dx`.
///
/// # Errors
///
/// As for [`dropout_forward`].
pub fn dropout_backward_in_place(
    dy: MatMut<'_>,
    dropout: &Dropout,
    key: &MaskKey,
    mask: Option<&Mask>,
) -> Result<()> {
    let saved = Saved { values: SavedValues::None, mask };
    bias_activation_dropout_backward_in_place(&only_dropout(dropout, key), &saved, dy, None)
}

/// `y = [residual +] (keep ? act(x + b) · scale : 0)`, the mask made, stored or given as
/// [`ForwardMask`] says.
///
/// # Errors
///
/// When shapes differ, the activation's slope is invalid, or the key's origin and the shape go past
/// what a mask can address.
pub fn bias_activation_dropout_forward<'m>(
    args: &BiasActivationDropout<'_>,
    x: MatRef<'_>,
    residual: Option<MatRef<'_>>,
    mut y: MatMut<'_>,
    mask: impl Into<ForwardMask<'m>>,
) -> Result<()> {
    check_shape(x.named("x"), y.named("y"))?;
    forward(args, x.source(), residual, y.target(), (y.rows(), y.cols()), mask.into())
}

/// [`bias_activation_dropout_forward`] with `x` overwritten by `y`.
///
/// # Errors
///
/// As for [`bias_activation_dropout_forward`].
pub fn bias_activation_dropout_forward_in_place<'m>(
    args: &BiasActivationDropout<'_>,
    mut x: MatMut<'_>,
    residual: Option<MatRef<'_>>,
    mask: impl Into<ForwardMask<'m>>,
) -> Result<()> {
    let y = x.target();
    forward(args, y.source(), residual, y, (x.rows(), x.cols()), mask.into())
}

/// `dz = keep ? dy · scale · act'(z) : 0` with `z = x + b`, and `db`, the column sums of dz.
///
/// `saved` holds what the derivative is computed from. Its `PreActivation` is forward's `x`, to
/// which the bias of `args` is added again; its `Output` is forward's `y`, if no residual was added.
/// The sum of a column adds its rows in ascending order.
///
/// # Errors
///
/// As for [`bias_activation_dropout_forward`], and when `saved` lacks what the activation needs.
pub fn bias_activation_dropout_backward(
    args: &BiasActivationDropout<'_>,
    saved: &Saved<'_>,
    dy: MatRef<'_>,
    mut dz: MatMut<'_>,
    db: Option<&mut [f32]>,
) -> Result<()> {
    check_shape(dy.named("dy"), dz.named("dz"))?;
    let scales = scales(&args.dropout);
    backward(args, scales, saved, dy.source(), dz.target(), (dz.rows(), dz.cols()), db)
}

/// [`bias_activation_dropout_backward`] with `dy` overwritten by `dz`.
///
/// # Errors
///
/// As for [`bias_activation_dropout_backward`].
pub fn bias_activation_dropout_backward_in_place(
    args: &BiasActivationDropout<'_>,
    saved: &Saved<'_>,
    mut dy: MatMut<'_>,
    db: Option<&mut [f32]>,
) -> Result<()> {
    let dz = dy.target();
    let shape = (dy.rows(), dy.cols());
    backward(args, scales(&args.dropout), saved, dz.source(), dz, shape, db)
}

/// `dz = dy · scale · act'(z)`, and `db`: [`bias_activation_dropout_backward`] of units that are all
/// kept, with a scale and what undoes it. Without `dy` it is in dz.
pub(crate) fn activation_backward(
    activation: Activation,
    scales: (f32, f32),
    saved: &Saved<'_>,
    dy: Option<MatRef<'_>>,
    mut dz: MatMut<'_>,
    db: Option<&mut [f32]>,
) -> Result<()> {
    if let Some(dy) = &dy {
        check_shape(dy.named("dy"), dz.named("dz"))?;
    }
    let args =
        BiasActivationDropout { activation, ..only_dropout(&Dropout::NONE, &MaskKey::FIRST) };
    let saved = Saved { mask: None, ..*saved };
    let shape = (dz.rows(), dz.cols());
    let dz = dz.target();
    let dy = dy.map_or(dz.source(), |dy| dy.source());
    backward(&args, scales, &saved, dy, dz, shape, db)
}

/// The scale of a dropout, and what undoes it.
fn scales(dropout: &Dropout) -> (f32, f32) {
    (dropout.scale(), dropout.unscale() as f32)
}

fn forward(
    args: &BiasActivationDropout<'_>,
    x: Source,
    residual: Option<MatRef<'_>>,
    y: Target,
    (rows, cols): (usize, usize),
    mask: ForwardMask<'_>,
) -> Result<()> {
    args.check(rows, cols)?;
    let level = Level::current()?;
    if let Some(residual) = &residual {
        check_shape(residual.named("the residual"), ("x", rows, cols))?;
    }
    mask.check(("x", rows, cols))?;
    let tensors = Tensors {
        rows,
        cols,
        main: x,
        second: residual.map(|r| r.source()),
        bias: args.bias,
        out: y,
        sum: None,
        bits: mask.bits(&args.dropout, &args.key),
    };
    // SAFETY: views, which are borrowed for this call, and a mask of the same shape.
    let pass = unsafe { Pass::new(tensors) };
    args.activation.with(Run { level, pass, step: Step::Forward { scale: args.dropout.scale() } });
    Ok(())
}

fn backward(
    args: &BiasActivationDropout<'_>,
    (scale, unscale): (f32, f32),
    saved: &Saved<'_>,
    dy: Source,
    dz: Target,
    (rows, cols): (usize, usize),
    db: Option<&mut [f32]>,
) -> Result<()> {
    args.check(rows, cols)?;
    saved.check(args.activation, rows, cols)?;
    let level = Level::current()?;
    if let Some(db) = &db {
        check_equal("length of db", db.len(), "columns of dy", cols)?;
    }
    let (second, from_output) = match saved.values {
        SavedValues::None => (None, false),
        SavedValues::Output(y) => (Some(y.source()), true),
        SavedValues::PreActivation(z) => (Some(z.source()), false),
    };
    let tensors = Tensors {
        rows,
        cols,
        main: dy,
        second,
        bias: args.bias,
        out: dz,
        sum: db,
        bits: saved.bits(args.activation, &args.dropout, &args.key),
    };
    // SAFETY: views, which are borrowed for this call, and a mask of the same shape.
    let pass = unsafe { Pass::new(tensors) };
    args.activation.with(Run { level, pass, step: Step::Backward { scale, unscale, from_output } });
    Ok(())
}
