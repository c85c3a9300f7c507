//! Element-wise operations for trainers that keep their own matmul, and for what is no product.
//!
//! ```text
//! dropout_forward                    y  = keep ? x · scale : 0
//! dropout_backward                   dx = keep ? dy · scale : 0
//! bias_activation_dropout_forward    y  = [residual +] (keep ? act(x + b) · scale : 0)
//! bias_activation_dropout_backward   dz = keep ? dy · scale · act'(x + b) : 0,  db = column sums of dz
//! rates_dropout_forward              y  = keep ? x · scale : 0    a rate for each row or column
//! broadcast_dropout_forward          y  = keep ? x · scale : 0    one decision for all that share it
//! gaussian_dropout_forward           y  = x · (1 + σ z)           z standard normal
//! alpha_dropout_forward              y  = a · (keep ? x : α') + b
//! ```
//!
//! All matrices of a call have the same shape [rows, cols]; b and db have `cols` elements. Row `r`,
//! column `c` of a call has the mask bit of logical row `row0 + r` and column `col0 + c` of its
//! key. A dropped element is +0.0 whatever the value was. The gradient with respect to the residual
//! is dy itself.
//!
//! Input and output are one argument, [`InOut`]: `(x, y)`, or `x` alone to overwrite it. Views may
//! have any row stride; transposed views are slower. The mask is made from the key, stored, or given:
//! [`MaskSource`], forward and backward.

mod alpha;
mod broadcast;
mod gaussian;
mod kernel;
mod ops;
mod rates;
mod row_loops;
mod run;

use crate::Level;
use crate::activation::Activation;
use crate::error::{Result, check_equal, check_shape};
use crate::mask::{Bits, KeyedDropout, MaskSource};
use crate::saved::Saved;
use crate::view::{InOut, MatRef};
pub(crate) use alpha::check_alpha;
pub use alpha::{AlphaDropout, alpha_dropout_backward, alpha_dropout_forward};
pub use broadcast::{BroadcastDropout, broadcast_dropout_backward, broadcast_dropout_forward};
pub(crate) use broadcast::{DY_DX, Names, XY};
pub use gaussian::{
    GaussianDropout, gaussian_dropout_backward, gaussian_dropout_forward, standard_normal,
};
use kernel::{Pass, Tensors};
pub(crate) use rates::check_rates;
pub use rates::{rates_dropout_backward, rates_dropout_forward};
use run::{RunBackward, RunForward, scaled};

/// The arguments of bias, activation and dropout in one pass, for forward and backward.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
#[must_use]
pub struct BiasActivationDropout<'a, T = f32> {
    /// Applied to `x + bias`.
    pub activation: Activation,
    /// How much to drop, and which mask.
    pub dropout: KeyedDropout,
    /// One value a column, added first.
    pub bias: Option<&'a [T]>,
    /// Added to the output, after everything else, [rows, cols]; its gradient is dy itself. With a
    /// residual the output no longer tells the activation, so backward refuses [`Saved::Output`].
    pub residual: Option<MatRef<'a, T>>,
}

impl<'a, T> BiasActivationDropout<'a, T> {
    /// Activation and dropout, without bias and residual.
    pub fn new(activation: Activation, dropout: KeyedDropout) -> Self {
        Self { activation, dropout, bias: None, residual: None }
    }

    /// The same with a bias, one value a column.
    pub fn with_bias(self, bias: &'a [T]) -> Self {
        Self { bias: Some(bias), ..self }
    }

    /// The same with a residual, which has the shape of the output.
    pub fn with_residual(self, residual: MatRef<'a, T>) -> Self {
        Self { residual: Some(residual), ..self }
    }

    /// Dropout alone.
    pub(crate) fn only(dropout: &KeyedDropout) -> Self {
        Self::new(Activation::Identity, *dropout)
    }

    /// Rows and columns of the forward pass, if its arguments agree.
    pub(crate) fn check_forward(
        &self,
        xy: &InOut<'_, T>,
        (input, output): (&'static str, &'static str),
        mask: &MaskSource<'_>,
    ) -> Result<(usize, usize)> {
        let (rows, cols) = xy.check(input, output)?;
        self.check((input, rows, cols))?;
        mask.check((input, rows, cols))?;
        Ok((rows, cols))
    }

    /// Rows and columns of the backward pass, if its arguments agree.
    pub(crate) fn check_backward(
        &self,
        saved: &Saved<'_, T>,
        dy_dz: &InOut<'_, T>,
        db: Option<&[T]>,
        mask: &MaskSource<'_>,
    ) -> Result<(usize, usize)> {
        let (rows, cols) = dy_dz.check("dy", "dz")?;
        self.check(("dy", rows, cols))?;
        mask.check(("dy", rows, cols))?;
        saved.check(self.activation, self.residual.is_some(), (rows, cols))?;
        check_db(db, cols)?;
        Ok((rows, cols))
    }

    /// `Ok` when the operation can be applied to a matrix, given as name, rows and columns.
    fn check(&self, matrix: (&'static str, usize, usize)) -> Result<()> {
        let (_, rows, cols) = matrix;
        self.activation.check()?;
        self.dropout.check(rows, cols)?;
        if let Some(bias) = self.bias {
            let columns = if matrix.0 == "x" { "columns of x" } else { "columns of dy" };
            check_equal("length of the bias", bias.len(), columns, cols)?;
        }
        self.residual.as_ref().map_or(Ok(()), |r| check_shape(r.named("the residual"), matrix))
    }
}

/// `Ok` when there is a bias gradient for each column.
fn check_db<T>(db: Option<&[T]>, cols: usize) -> Result<()> {
    db.map_or(Ok(()), |db| check_equal("length of db", db.len(), "columns of dy", cols))
}

/// `y = keep ? x · scale : 0`.
///
/// x and y are [rows, cols], the two of [`InOut`]; the mask is made, stored or given as
/// [`MaskSource`] says.
///
/// Srivastava et al. 2014, "Dropout: a simple way to prevent neural networks from overfitting",
/// section 4, with the scale applied in training.
///
/// ```
/// use fused_dropout::elementwise::{dropout_backward, dropout_forward};
/// use fused_dropout::{Dropout, Mask, MaskKey, MaskSource};
///
/// let dropout = Dropout::new(0.5)?.with_key(MaskKey::new(42, 1, 0)?);
/// let (x, mut y) = ([1.0; 100], [0.0; 100]);
/// let mut mask = Mask::new(1, 100)?;
/// dropout_forward((&x[..], &mut y[..]), &dropout, &mut mask)?;
///
/// // In place, with the mask made again from the key.
/// let mut dy = [3.0; 100];
/// dropout_backward(&mut dy[..], &dropout, MaskSource::Key)?;
/// for i in 0..100 {
///     let keep = mask.get(0, i) == Some(true);
///     assert_eq!((y[i], dy[i]), if keep { (2.0, 6.0) } else { (0.0, 0.0) });
/// }
/// # Ok::<(), fused_dropout::Error>(())
/// ```
///
/// # Errors
///
/// When shapes differ, also that of a mask, or the key's origin and the shape go past what a mask can
/// address.
pub fn dropout_forward<'a, 'm>(
    xy: impl Into<InOut<'a>>,
    dropout: &KeyedDropout,
    mask: impl Into<MaskSource<'m>>,
) -> Result<()> {
    plain(dropout, xy.into(), ("x", "y"), mask.into())
}

/// `dx = keep ? dy · scale : 0`, the gradient of [`dropout_forward`], of the same shapes.
///
/// # Errors
///
/// As for [`dropout_forward`].
pub fn dropout_backward<'a, 'm>(
    dy_dx: impl Into<InOut<'a>>,
    dropout: &KeyedDropout,
    mask: impl Into<MaskSource<'m>>,
) -> Result<()> {
    plain(dropout, dy_dx.into(), ("dy", "dx"), mask.into())
}

/// `y = [residual +] (keep ? act(x + b) · scale : 0)`.
///
/// | | shape |
/// |---|---|
/// | x, y, the residual, the mask | [rows, cols] |
/// | b | \[cols\] |
///
/// Each step is rounded once: the sum with b, the activation as [`Activation`] says, the product with
/// the scale, and the sum with the residual. x must not be the residual of a call in place; the borrow
/// checker sees to that.
///
/// ```
/// use fused_dropout::elementwise::{
///     BiasActivationDropout, bias_activation_dropout_backward, bias_activation_dropout_forward,
/// };
/// use fused_dropout::{Activation, Dropout, MaskKey, MaskSource, MatMut, MatRef, Saved};
///
/// let dropout = Dropout::new(0.5)?.with_key(MaskKey::new(42, 1, 0)?);
/// let bias = [0.5, -0.5, 0.0];
/// let args = BiasActivationDropout::new(Activation::Relu, dropout).with_bias(&bias);
/// let (x, mut y) = ([1.0, 2.0, -3.0, -1.0, 1.0, 2.0], [9.0; 6]);
/// let xy = (MatRef::new(&x, 2, 3)?, MatMut::new(&mut y, 2, 3)?);
/// bias_activation_dropout_forward(&args, xy, MaskSource::Key)?;
///
/// let (mut dz, mut db) = ([1.0; 6], [9.0; 3]);
/// let saved = Saved::Output(MatRef::new(&y, 2, 3)?);
/// let dy_dz = MatMut::new(&mut dz, 2, 3)?;
/// bias_activation_dropout_backward(&args, &saved, dy_dz, Some(&mut db), MaskSource::Key)?;
/// for i in 0..6 {
///     assert_eq!(dz[i], if y[i] > 0.0 { 2.0 } else { 0.0 });
/// }
/// assert_eq!(db[0], dz[0] + dz[3]);
/// # Ok::<(), fused_dropout::Error>(())
/// ```
///
/// # Errors
///
/// When shapes differ, the activation's slope is invalid, or the key's origin and the shape go past
/// what a mask can address.
pub fn bias_activation_dropout_forward<'a, 'm>(
    args: &BiasActivationDropout<'_>,
    xy: impl Into<InOut<'a>>,
    mask: impl Into<MaskSource<'m>>,
) -> Result<()> {
    forward(args, xy.into(), ("x", "y"), mask.into(), |level, pass, scale| {
        args.activation.with(RunForward { level, pass, scale });
    })
}

/// `dz = keep ? dy · scale · act'(z) : 0` with `z = x + b`, and `db`, the column sums of dz: the
/// gradients of [`bias_activation_dropout_forward`].
///
/// `saved` holds what the derivative is computed from, [rows, cols]. Its `PreActivation` is forward's
/// `x`, to which the bias of `args` is added again; its `Output` is forward's `y`. The sum of a column
/// adds its rows in ascending order.
///
/// For ReLU from its output no mask is needed, and one that is given is not looked at.
///
/// # Errors
///
/// As for [`bias_activation_dropout_forward`], and when `saved` lacks what the activation needs, or is
/// an output with a residual in it.
pub fn bias_activation_dropout_backward<'a, 'm>(
    args: &BiasActivationDropout<'_>,
    saved: &Saved<'_>,
    dy_dz: impl Into<InOut<'a>>,
    db: Option<&mut [f32]>,
    mask: impl Into<MaskSource<'m>>,
) -> Result<()> {
    let (dy_dz, mask) = (dy_dz.into(), mask.into());
    args.check_backward(saved, &dy_dz, db.as_deref(), &mask)?;
    let level = Level::current()?;
    let bits = saved.bits(args.activation, mask, &args.dropout);
    let dropout = args.dropout.dropout();
    let scales = (dropout.scale(), dropout.unscale() as f32);
    let mut db = db;
    if let Some(db) = &mut db {
        db.fill(0.0);
    }
    backward(level, (args.activation, args.bias), scales, bits, saved, dy_dz, db);
    Ok(())
}

/// `dz = keep ? dy · scale · act'(z) : 0`, and the column sums of dz added to `db`, for a layer whose
/// product has added the bias: [`bias_activation_dropout_backward`] with a scale, what undoes it, and
/// bits from anywhere. Bits that are stored have the shape of dy.
///
/// # Errors
///
/// When shapes differ, the activation's slope is invalid, or `saved` lacks what it needs.
pub(crate) fn layer_gradient(
    activation: Activation,
    scales: (f32, f32),
    bits: Bits,
    saved: &Saved<'_>,
    dy_dz: InOut<'_>,
    db: Option<&mut [f32]>,
) -> Result<()> {
    let (rows, cols) = dy_dz.check("dy", "dz")?;
    activation.check()?;
    saved.check(activation, false, (rows, cols))?;
    check_db(db.as_deref(), cols)?;
    let level = Level::current()?;
    backward(level, (activation, None), scales, bits, saved, dy_dz, db);
    Ok(())
}

/// Dropout alone, on matrices that have these names in errors. It knows its function, so that a program
/// without [`bias_activation_dropout_forward`] has no loop of another.
fn plain(
    dropout: &KeyedDropout,
    xy: InOut<'_>,
    names: (&'static str, &'static str),
    mask: MaskSource<'_>,
) -> Result<()> {
    forward(&BiasActivationDropout::only(dropout), xy, names, mask, scaled)
}

/// The forward pass on matrices that have these names in errors, which `run` runs with a scale.
fn forward(
    args: &BiasActivationDropout<'_>,
    mut xy: InOut<'_>,
    names: (&'static str, &'static str),
    mask: MaskSource<'_>,
    run: impl FnOnce(Level, Pass<'_>, f32),
) -> Result<()> {
    let (rows, cols) = args.check_forward(&xy, names, &mask)?;
    let level = Level::current()?;
    let (main, out) = xy.pointers();
    let tensors = Tensors {
        rows,
        cols,
        main,
        second: args.residual.map(|r| r.source()),
        bias: args.bias,
        out,
        sum: None,
        bits: mask.bits(&args.dropout),
    };
    // SAFETY: views, which are borrowed for this call, and a mask of the same shape.
    let pass = unsafe { Pass::new(tensors) };
    run(level, pass, args.dropout.dropout().scale());
    Ok(())
}

/// The backward pass, all of whose arguments agree; column sums go on from what `db` holds.
fn backward(
    level: Level,
    (activation, bias): (Activation, Option<&[f32]>),
    (scale, unscale): (f32, f32),
    bits: Bits,
    saved: &Saved<'_>,
    mut dy_dz: InOut<'_>,
    db: Option<&mut [f32]>,
) {
    let (rows, cols) = (dy_dz.rows(), dy_dz.cols());
    let (main, out) = dy_dz.pointers();
    let (second, from_output) = match saved {
        Saved::Nothing => (None, false),
        Saved::Output(y) => (Some(y.source()), true),
        Saved::PreActivation(z) => (Some(z.source()), false),
    };
    let tensors = Tensors { rows, cols, main, second, bias, out, sum: db, bits };
    // SAFETY: views, which are borrowed for this call, and a mask of the same shape.
    let pass = unsafe { Pass::new(tensors) };
    activation.with(RunBackward { level, pass, scale, unscale, from_output });
}
