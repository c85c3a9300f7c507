//! The dense layer: matmul, bias, activation and dropout in one pass, and its gradients.
//!
//! ```text
//! x~ = x, or keep_in ? x · scale_in : 0     input dropout, on request
//! W~ = W, or keep_w ? W · scale_w : 0       weight dropout (DropConnect), on request
//! z  = x~ · W~ + b
//! y  = [residual +] (keep ? act(z) · scale : 0)
//!
//! dz = keep ? dy · scale · act'(z) : 0
//! dW = x~ᵀ · dz, or keep_w ? (x~ᵀ · dz) · scale_w : 0
//! db = column sums of dz
//! dx = dz · W~ᵀ, or keep_in ? (dz · W~ᵀ) · scale_in : 0
//! ```
//!
//! | | shape |
//! |---|---|
//! | x, dx | [batch, inputs] |
//! | W, dW | [inputs, units], or [units, inputs] as `w.t()` |
//! | b, db | \[units\] |
//! | z, y, dy | [batch, units] |
//!
//! Every element of a product is one chain of fused multiply-adds, p ascending, from the bias or 0:
//! its bits do not depend on the level, the threads, the blocking or the other rows of the batch.
//!
//! # DropConnect
//!
//! Weight dropout (Wan, Zeiler, Zhang, LeCun and Fergus 2013, "Regularization of neural networks using
//! DropConnect") removes connections instead of units: one decision for each weight, the same for the
//! whole batch. A weight is dropped and scaled while it is packed, so W~ is never in memory, and a
//! product with it is the plain product with the matrix `keep_w ? W · scale_w : 0`, bit for bit: a dropped
//! weight is a factor of +0.0, which an infinite input turns into NaN.

mod update;

use crate::Level;
use crate::activation::{Activation, Function, WithFunction};
use crate::buffers::{AlignedBuffer, Lease, Slot};
use crate::elementwise::{BiasActivationDropout, bias_activation_dropout_backward};
use crate::error::{Result, check_equal, check_shape};
use crate::gemm::epilogue::{Activate, Drop, Store};
use crate::gemm::{Operand, PackedWeight, Product};
use crate::mask::{Bits, Dropout, ForwardMask, MaskKey};
use crate::saved::Saved;
use crate::view::{MatMut, MatRef, Source, Target};
pub(crate) use update::FUSED_ROWS;
pub use update::{DenseUpdate, Parameters, dense_update};

/// A dense layer's arguments, for forward and backward.
#[derive(Clone, Copy, Debug)]
pub struct DenseArgs<'a, T = f32> {
    /// The layer's input, [batch, inputs].
    pub x: MatRef<'a, T>,
    /// The weights, [inputs, units].
    pub w: MatRef<'a, T>,
    /// One value a unit, where sums start.
    pub bias: Option<&'a [T]>,
    /// Applied to z.
    pub activation: Activation,
    /// How much of the output to drop.
    pub dropout: Dropout,
    /// Which mask the output has.
    pub key: MaskKey,
    /// Dropout of the input, with its own key.
    pub input_dropout: Option<(Dropout, MaskKey)>,
    /// Dropout of the weights (DropConnect), with its own key: its rows are inputs and its columns are
    /// units, also where W is a transposed view.
    pub weight_dropout: Option<(Dropout, MaskKey)>,
    /// Added to the output, after everything else; its gradient is dy itself. With a residual the
    /// output no longer tells the activation: save z.
    pub residual: Option<MatRef<'a, T>>,
}

impl<'a, T> DenseArgs<'a, T> {
    /// `x · W`, and nothing else: bias, activation and dropout are fields to be set.
    pub fn new(x: MatRef<'a, T>, w: MatRef<'a, T>) -> Self {
        Self {
            x,
            w,
            bias: None,
            activation: Activation::Identity,
            dropout: Dropout::NONE,
            key: MaskKey::FIRST,
            input_dropout: None,
            weight_dropout: None,
            residual: None,
        }
    }

    /// What follows the product and its bias.
    fn end(&self) -> BiasActivationDropout<'static, T> {
        BiasActivationDropout {
            bias: None,
            activation: self.activation,
            dropout: self.dropout,
            key: self.key,
        }
    }

    /// Batch, inputs and units, if all arguments agree.
    pub(crate) fn check(&self) -> Result<(usize, usize, usize)> {
        let (batch, inputs, units) = (self.x.rows(), self.x.cols(), self.w.cols());
        self.activation.check()?;
        check_equal("columns of x", inputs, "rows of W", self.w.rows())?;
        if let Some(bias) = self.bias {
            check_equal("length of the bias", bias.len(), "columns of W", units)?;
        }
        self.key.check(batch, units)?;
        if let Some(residual) = &self.residual {
            check_shape(residual.named("the residual"), ("x · W", batch, units))?;
        }
        if let Some((_, key)) = &self.input_dropout {
            key.check(batch, inputs)?;
        }
        if let Some((_, key)) = &self.weight_dropout {
            key.check(inputs, units)?;
        }
        Ok((batch, inputs, units))
    }
}

/// What [`dense_backward`] computes; what is left out costs nothing.
#[derive(Debug)]
pub struct Gradients<'a, T = f32> {
    /// The gradient of the input, [batch, inputs].
    pub dx: Option<MatMut<'a, T>>,
    /// The gradient of the weights, [inputs, units].
    pub dw: Option<MatMut<'a, T>>,
    /// The gradient of the bias, one value a unit.
    pub db: Option<&'a mut [T]>,
}

/// `y = [residual +] (keep ? act(x~ · W~ + b) · scale : 0)`, storing z on request; the mask is made,
/// stored or given as [`ForwardMask`] says.
///
/// y, z and a residual with rows that are not contiguous (transposed views) cost a copy.
///
/// # Errors
///
/// When shapes disagree, the activation's slope is invalid, or a key's origin and the shape go past
/// what a mask can address.
pub fn dense_forward<'m>(
    args: &DenseArgs<'_>,
    y: MatMut<'_>,
    z: Option<MatMut<'_>>,
    mask: impl Into<ForwardMask<'m>>,
) -> Result<()> {
    let w = Operand::dropped(args.w.source(), args.weight_dropout);
    forward(args, w, Level::current()?, y, z, mask.into())
}

/// [`dense_forward`] with the weights packed before: `packed` takes the place of `args.w`, of which
/// only the shape is looked at. It runs on the level that `packed` was made for.
///
/// # Errors
///
/// As for [`dense_forward`], and when `packed` has not the shape of `args.w`, or was packed with another
/// dropout than `args.weight_dropout`.
pub fn dense_forward_packed<'m>(
    args: &DenseArgs<'_>,
    packed: &PackedWeight,
    y: MatMut<'_>,
    z: Option<MatMut<'_>>,
    mask: impl Into<ForwardMask<'m>>,
) -> Result<()> {
    check_shape(("the packed weights", packed.inputs(), packed.units()), args.w.named("W"))?;
    packed.check_dropout(args.weight_dropout)?;
    forward(args, packed.operand(args.w), packed.level(), y, z, mask.into())
}

fn forward(
    args: &DenseArgs<'_>,
    w: Operand,
    level: Level,
    mut y: MatMut<'_>,
    mut z: Option<MatMut<'_>>,
    mask: ForwardMask<'_>,
) -> Result<()> {
    let (batch, inputs, units) = args.check()?;
    let output = ("x · W", batch, units);
    check_shape(y.named("y"), output)?;
    if let Some(z) = &z {
        check_shape(z.named("z"), output)?;
    }
    mask.check(output)?;
    let bits = mask.bits(&args.dropout, &args.key);
    let mut copy = None;
    let residual = args.residual.map(|residual| gathered(residual, &mut copy)).transpose()?;
    by_rows(Slot::Output, Some(&mut y), |y| {
        by_rows(Slot::PreActivation, z.as_mut(), |z| {
            let Some(y) = y else { return Ok(()) };
            let product = Product {
                m: batch,
                n: units,
                k: inputs,
                a: Operand::dropped(args.x.source(), args.input_dropout),
                b: w,
                bias: args.bias.map(<[f32]>::as_ptr),
                partial: y,
                epilogue: Store { c: y },
                bits,
            };
            let scale = args.dropout.scale();
            args.activation.with(Forward { level, product, z, residual, scale })
        })
    })
}

/// A forward product, waiting for the activation function's type.
pub(crate) struct Forward {
    pub(crate) level: Level,
    pub(crate) product: Product<Store>,
    pub(crate) z: Option<Target>,
    pub(crate) residual: Option<Source>,
    pub(crate) scale: f32,
}

impl WithFunction for Forward {
    type Output = Result<()>;

    fn call<F: Function>(self, f: F) -> Result<()> {
        let Forward { level, product, z, residual, scale } = self;
        let y = product.partial;
        product.with(Activate { f, scale, y, z, residual }).run(level)
    }
}

/// The gradients of [`dense_forward`] with respect to input, weights and bias, from the gradient
/// `dy` of its output and what it saved.
///
/// # Errors
///
/// When shapes disagree, or `saved` lacks what the activation needs.
pub fn dense_backward(
    args: &DenseArgs<'_>,
    saved: &Saved<'_>,
    dy: MatRef<'_>,
    gradients: Gradients<'_>,
) -> Result<()> {
    let Gradients { dx, mut dw, db } = gradients;
    let (batch, inputs, units) = args.check()?;
    check_shape(dy.named("dy"), ("x · W", batch, units))?;
    saved.check(args.activation, batch, units)?;
    if let Some(dx) = &dx {
        check_shape(dx.named("dx"), args.x.named("x"))?;
    }
    if let Some(dw) = &dw {
        check_shape(dw.named("dW"), args.w.named("W"))?;
    }
    if let Some(db) = &db {
        check_equal("length of db", db.len(), "columns of W", units)?;
    }
    let level = Level::current()?;
    let mut dz: Lease<AlignedBuffer> = Slot::OutputGradient.take();
    let mut dz = MatMut::new(dz.room(batch, units)?, batch, units)?;
    bias_activation_dropout_backward(&args.end(), saved, dy, dz.reborrow(), db)?;
    let dz = Operand::new(dz.as_ref().source());
    if let Some(dw) = &mut dw {
        let x = Operand::dropped(args.x.source(), args.input_dropout);
        weight_gradient(level, x, dz, (inputs, units, batch), args.weight_dropout, dw)?;
    }
    gradient_of_input(
        level,
        dz,
        Operand::dropped(args.w.source(), args.weight_dropout),
        (batch, inputs, units),
        args.input_dropout,
        dx,
    )
}

/// `dx = dz · W~ᵀ`, through the input's dropout.
pub(crate) fn gradient_of_input(
    level: Level,
    dz: Operand,
    w: Operand,
    (batch, inputs, units): (usize, usize, usize),
    dropout: Option<(Dropout, MaskKey)>,
    mut dx: Option<MatMut<'_>>,
) -> Result<()> {
    by_rows(Slot::Output, dx.as_mut(), |dx| {
        let Some(dx) = dx else { return Ok(()) };
        let product = Product {
            m: batch,
            n: inputs,
            k: units,
            a: dz,
            b: w.t(),
            bias: None,
            partial: dx,
            epilogue: Store { c: dx },
            bits: Bits::Uniform(true, None),
        };
        match dropout {
            None => product.run(level),
            Some((dropout, key)) => {
                let bits = Bits::generate(&dropout, &key, None);
                let scale = dropout.scale();
                Product { bits, ..product.with(Drop { c: dx, scale }) }.run(level)
            }
        }
    })
}

/// `dw = x~ᵀ · dz`, through the weights' dropout. Where the columns of dw are contiguous,
/// `dwᵀ = dzᵀ · x~` is computed: the same chains, since a product does not depend on the order of its
/// factors.
pub(crate) fn weight_gradient(
    level: Level,
    x: Operand,
    dz: Operand,
    (inputs, units, batch): (usize, usize, usize),
    dropout: Option<(Dropout, MaskKey)>,
    dw: &mut MatMut<'_>,
) -> Result<()> {
    let c = dw.target();
    let transposed = c.col_step != 1;
    let (a, b, m, n, c) =
        if transposed { (dz.t(), x, units, inputs, c.t()) } else { (x.t(), dz, inputs, units, c) };
    let product = Product {
        m,
        n,
        k: batch,
        a,
        b,
        bias: None,
        partial: c,
        epilogue: Store { c },
        bits: Bits::Uniform(true, None),
    };
    match dropout {
        None => product.run(level),
        Some((dropout, key)) => {
            let (bits, scale) = (weight_bits(&dropout, &key, transposed), dropout.scale());
            Product { bits, ..product.with(Drop { c, scale }) }.run(level)
        }
    }
}

/// The bits of the weights' dropout for a product that computes dW, or its transposed.
fn weight_bits(dropout: &Dropout, key: &MaskKey, transposed: bool) -> Bits {
    if transposed {
        Bits::generate_transposed(dropout, key)
    } else {
        Bits::generate(dropout, key, None)
    }
}

/// A matrix by rows: itself, or a copy that is valid as long as the lease.
fn gathered(matrix: MatRef<'_>, copy: &mut Option<Lease<AlignedBuffer>>) -> Result<Source> {
    let (source, rows, cols) = (matrix.source(), matrix.rows(), matrix.cols());
    if source.col_step == 1 {
        return Ok(source);
    }
    let copy = copy.insert(Slot::Residual.take()).room(rows, cols)?;
    for (i, to) in copy.iter_mut().enumerate() {
        *to = matrix.get(i / cols, i % cols).unwrap_or_default();
    }
    Ok(MatRef::new(copy, rows, cols)?.source())
}

/// Calls `f` with an output whose rows are contiguous: the matrix itself, or a buffer that is copied
/// to it afterwards.
pub(crate) fn by_rows(
    slot: Slot,
    matrix: Option<&mut MatMut<'_>>,
    f: impl FnOnce(Option<Target>) -> Result<()>,
) -> Result<()> {
    let Some(matrix) = matrix else { return f(None) };
    let target = matrix.target();
    if target.col_step == 1 {
        return f(Some(target));
    }
    let (rows, cols) = (matrix.rows(), matrix.cols());
    let mut buffer: Lease<AlignedBuffer> = slot.take();
    let buffer = buffer.room(rows, cols)?;
    f(Some(MatMut::new(buffer, rows, cols)?.target()))?;
    for (i, value) in buffer.iter().enumerate() {
        matrix.set(i / cols, i % cols, *value);
    }
    Ok(())
}
