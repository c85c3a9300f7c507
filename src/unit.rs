//! Unit dropout executed as a thinned network: work in proportion to what is kept.
//!
//! The original procedure (Hinton et al. 2012, "Improving neural networks by preventing co-adaptation
//! of feature detectors"; Srivastava et al. 2014, section 4): for each mini-batch remove a random part
//! of the units, send the mini-batch forward and its loss backward through the thinned network, update
//! the parameters that remain, restore the removed units with the values they had. Here nothing is
//! multiplied by zero: of a layer with the kept inputs I and the kept units J,
//!
//! ```text
//! z  = x · W[I, J] + b[J]
//! y  = act(z) · scale                  scale = 1 / keep probability of the units
//!
//! dz = dy · scale · act'(z)
//! dW[I, J] = xᵀ · dz,   db[J] = column sums of dz,   dx = dz · W[I, J]ᵀ
//! ```
//!
//! is computed, and nothing else is read or written.
//!
//! | | shape |
//! |---|---|
//! | W, b, and their velocities | whole: [inputs, units], \[units\] |
//! | I, J: [`KeptUnits`] | ascending lists of inputs and of units |
//! | x, dx | compact: [batch, kept inputs] |
//! | z, y, dy | compact: [batch, kept units] |
//! | dW, db | compact: [kept inputs, kept units], \[kept units\] |
//!
//! There is no copy of W: its kept elements are gathered while the product packs its panels, and an
//! update is scattered from the registers. A layer between two halves costs a quarter.
//!
//! **The masked network is the meaning.** The results are those of [`dense_forward`] and its siblings
//! on the whole layer, with x = 0 where an input is removed, and with the outputs of removed units set
//! to 0: the same bits, a zero's sign aside, since a removed input would only add `fma(0, w, acc) =
//! acc`. Only a weight that is infinite or NaN makes a difference: here a removed one is not looked at.
//!
//! **What is removed keeps its bits**: each weight of which the input or the unit is removed, the
//! removed units' biases, and the velocities of both. They are not penalised, their velocity is not
//! used up, and they are no part of a norm.
//!
//! **Nothing kept** is fine: the layer's output has no columns, the next layer's sums are its bias.
//!
//! Each side of a layer may instead be whole, with dropout of its elements: see [`Side`].
//!
//! [`dense_forward`]: crate::dense_forward

mod input;
mod kept;
mod update;

use crate::Level;
use crate::activation::Activation;
use crate::buffers::{AlignedBuffer, Lease, Slot, reserve};
use crate::dense::{Forward, Gradients, by_rows, gradient_of_input, weight_gradient};
use crate::elementwise::{
    BiasActivationDropout, activation_backward, bias_activation_dropout_backward,
    bias_activation_dropout_backward_in_place,
};
use crate::error::{Result, check_equal, check_shape};
use crate::gather::Windows;
use crate::gemm::epilogue::Store;
use crate::gemm::{Operand, Product};
use crate::mask::{Bits, Dropout, MaskKey};
use crate::saved::Saved;
use crate::view::{MatMut, MatRef, Source};
pub use input::{gather_units, scatter_units};
pub use kept::KeptUnits;
pub(crate) use update::thin_update_in_place;
pub use update::{ThinUpdate, thin_update};

/// What is dropped on one side of a layer.
#[derive(Clone, Copy, Debug)]
pub enum Side<'a> {
    /// Single elements of a whole matrix, on this layer's way: of an input as it is read, of an output
    /// as it is written.
    Elements(Dropout, MaskKey),
    /// Whole units: the matrix is compact and has the kept ones only. An output is scaled as it is
    /// written; an input has been scaled by what made it, a layer or [`gather_units`].
    Units(&'a KeptUnits),
}

impl<'a> Side<'a> {
    /// Nothing is dropped: all units are there.
    pub const WHOLE: Side<'static> = Side::Elements(Dropout::NONE, MaskKey::FIRST);

    /// The kept units, where they are not simply all.
    fn list(&self) -> Option<&'a [u32]> {
        match self {
            Side::Elements(..) => None,
            Side::Units(kept) => kept.list(),
        }
    }

    /// Dropout of elements.
    fn elements(&self) -> Option<(Dropout, MaskKey)> {
        match self {
            Side::Elements(dropout, key) => Some((*dropout, *key)),
            Side::Units(_) => None,
        }
    }

    /// The columns of this side's matrices, if the layer has `units` units here and the side fits a
    /// batch of `batch` rows.
    pub(crate) fn width(
        &self,
        batch: usize,
        (name, units): (&'static str, usize),
    ) -> Result<usize> {
        match self {
            Side::Elements(_, key) => {
                key.check(batch, units)?;
                Ok(units)
            }
            Side::Units(kept) => {
                check_equal("number of units to keep from", kept.units(), name, units)?;
                Ok(kept.len())
            }
        }
    }
}

/// The arguments of a thinned layer, for forward and backward.
#[derive(Clone, Copy, Debug)]
pub struct ThinArgs<'a, T = f32> {
    /// The layer's input, [batch, kept inputs].
    pub x: MatRef<'a, T>,
    /// All weights, [inputs, units].
    pub w: MatRef<'a, T>,
    /// One value a unit, kept or not, where sums start.
    pub bias: Option<&'a [T]>,
    /// Applied to z.
    pub activation: Activation,
    /// Which inputs are there.
    pub input: Side<'a>,
    /// Which units are computed.
    pub output: Side<'a>,
}

impl<'a, T> ThinArgs<'a, T> {
    /// `x · W[I, J]`, and nothing else: bias and activation are fields to be set.
    pub fn new(x: MatRef<'a, T>, w: MatRef<'a, T>, input: Side<'a>, output: Side<'a>) -> Self {
        Self { x, w, bias: None, activation: Activation::Identity, input, output }
    }

    /// Batch, kept inputs and kept units, if all arguments agree.
    pub(crate) fn check(&self) -> Result<(usize, usize, usize)> {
        self.activation.check()?;
        let batch = self.x.rows();
        let inputs = self.input.width(batch, ("rows of W", self.w.rows()))?;
        let units = self.output.width(batch, ("columns of W", self.w.cols()))?;
        check_equal("columns of x", self.x.cols(), "number of kept inputs", inputs)?;
        if let Some(bias) = self.bias {
            check_equal("length of the bias", bias.len(), "columns of W", self.w.cols())?;
        }
        Ok((batch, inputs, units))
    }
}

/// `y = act(x · W[I, J] + b[J]) · scale`, storing z on request.
///
/// y and z with rows that are not contiguous (transposed views) cost a copy.
///
/// # Errors
///
/// When shapes disagree, the activation's slope is invalid, or a key's origin and the shape go past
/// what a mask can address.
pub fn thin_forward(
    args: &ThinArgs<'_>,
    mut y: MatMut<'_>,
    mut z: Option<MatMut<'_>>,
) -> Result<()> {
    let (batch, inputs, units) = args.check()?;
    let output = ("the kept units' output", batch, units);
    check_shape(y.named("y"), output)?;
    if let Some(z) = &z {
        check_shape(z.named("z"), output)?;
    }
    let level = Level::current()?;
    let mut buffers = Buffers::take();
    let w = weights(&mut buffers.windows, level, args.w.source(), args.input, args.output);
    let bias = match (args.bias, args.output.list()) {
        (Some(bias), Some(list)) => Some(pick(bias, list, &mut buffers.bias)?.as_ptr()),
        (bias, _) => bias.map(<[f32]>::as_ptr),
    };
    let (bits, scale) = match args.output {
        Side::Elements(dropout, key) => (Bits::generate(&dropout, &key, None), dropout.scale()),
        Side::Units(kept) => (Bits::Uniform(true, None), kept.scale()),
    };
    by_rows(Slot::Output, Some(&mut y), |y| {
        by_rows(Slot::PreActivation, z.as_mut(), |z| {
            let Some(y) = y else { return Ok(()) };
            let product = Product {
                m: batch,
                n: units,
                k: inputs,
                a: Operand::dropped(args.x.source(), args.input.elements()),
                b: w,
                bias,
                partial: y,
                epilogue: Store { c: y },
                bits,
            };
            args.activation.with(Forward { level, product, z, residual: None, scale })
        })
    })
}

/// The gradients of [`thin_forward`] with respect to input, kept weights and kept biases, all compact,
/// from the gradient `dy` of its output and what it saved.
///
/// # Errors
///
/// When shapes disagree, or `saved` lacks what the activation needs.
pub fn thin_backward(
    args: &ThinArgs<'_>,
    saved: &Saved<'_>,
    dy: MatRef<'_>,
    gradients: Gradients<'_>,
) -> Result<()> {
    let Gradients { dx, mut dw, db } = gradients;
    let (batch, inputs, units) = args.check()?;
    check_shape(dy.named("dy"), ("the kept units' output", batch, units))?;
    saved.check(args.activation, batch, units)?;
    if let Some(dx) = &dx {
        check_shape(dx.named("dx"), args.x.named("x"))?;
    }
    if let Some(dw) = &dw {
        check_shape(dw.named("dW"), ("the kept weights", inputs, units))?;
    }
    if let Some(db) = &db {
        check_equal("length of db", db.len(), "number of kept units", units)?;
    }
    let level = Level::current()?;
    let mut buffers = Buffers::take();
    let mut dz: Lease<AlignedBuffer> = Slot::OutputGradient.take();
    let mut dz = MatMut::new(dz.room(batch, units)?, batch, units)?;
    output_gradient(args.activation, args.output, saved, Some(dy), dz.reborrow(), db)?;
    let dz = Operand::new(dz.as_ref().source());
    if let Some(dw) = &mut dw {
        let x = Operand::dropped(args.x.source(), args.input.elements());
        weight_gradient(level, x, dz, (inputs, units, batch), None, dw)?;
    }
    if dx.is_some() {
        let w = weights(&mut buffers.windows, level, args.w.source(), args.input, args.output);
        gradient_of_input(level, dz, w, (batch, inputs, units), args.input.elements(), dx)?;
    }
    Ok(())
}

/// What an operation needs for itself, kept from call to call.
struct Buffers {
    windows: Lease<Windows>,
    db: Lease<AlignedBuffer>,
    /// Values of the kept units only: biases and their velocities.
    bias: Lease<Vec<f32>>,
    bias_velocity: Lease<Vec<f32>>,
}

impl Buffers {
    fn take() -> Self {
        Self {
            windows: Slot::Index.take(),
            db: Slot::BiasGradient.take(),
            bias: Slot::Bias.take(),
            bias_velocity: Slot::BiasVelocity.take(),
        }
    }
}

/// The values of the units in the list.
fn pick<'a>(values: &[f32], list: &[u32], out: &'a mut Vec<f32>) -> Result<&'a mut [f32]> {
    out.clear();
    reserve(out, list.len())?;
    out.extend(list.iter().filter_map(|unit| values.get(*unit as usize)));
    Ok(out)
}

/// The kept elements of the weights as a factor of a product.
fn weights(
    windows: &mut Windows,
    level: Level,
    w: Source,
    input: Side<'_>,
    output: Side<'_>,
) -> Operand {
    if w.col_step == 1 {
        Operand::kept(w, windows.keep(level, input.list(), output.list()))
    } else {
        Operand::kept(w.t(), windows.keep(level, output.list(), input.list())).t()
    }
}

/// dz and db of the kept units. Without `dy` it is in dz.
fn output_gradient(
    activation: Activation,
    output: Side<'_>,
    saved: &Saved<'_>,
    dy: Option<MatRef<'_>>,
    dz: MatMut<'_>,
    db: Option<&mut [f32]>,
) -> Result<()> {
    match output {
        Side::Elements(dropout, key) => {
            let end = BiasActivationDropout { bias: None, activation, dropout, key };
            match dy {
                Some(dy) => bias_activation_dropout_backward(&end, saved, dy, dz, db),
                None => bias_activation_dropout_backward_in_place(&end, saved, dz, db),
            }
        }
        Side::Units(kept) => {
            let scales = (kept.scale(), kept.unscale() as f32);
            activation_backward(activation, scales, saved, dy, dz, db)
        }
    }
}
