//! The forward pass of a dense layer.

use super::product::{self, LayerBuffers, weights};
use super::rows::{Rows, RowsMut};
use super::{DenseArgs, Shape, pattern};
use crate::Level;
use crate::buffers::Slot;
use crate::error::Result;
use crate::gemm::epilogue::{Activate, End};
use crate::gemm::{Operand, ProductArgs, Start};
use crate::mask::MaskSource;
use crate::view::MatMut;

/// `y = [residual +] (keep ? act(x~ · W~ + b) · scale : 0)`, storing z on request; the mask is made,
/// stored or given as [`MaskSource`] says. Where units are dropped, `y = [residual +] act(x · W[I, J] +
/// b[J]) · scale`, and there is no mask to store or to give; nor is there where blocks are dropped, of
/// which z is +0.0.
///
/// y, z and a residual with rows that are not contiguous (transposed views) cost a copy.
///
/// ```
/// # use fused_dropout::layer::{DenseArgs, DenseLayer, dense_forward};
/// # use fused_dropout::{Activation, Error, MaskSource, MatMut, MatRef};
/// let (x, w, mut y) = ([1.0, 2.0], [1.0, 0.0, 0.5, -1.0], [0.0; 2]);
/// let layer = DenseLayer::new(Activation::Relu);
/// let args = DenseArgs::new(layer, MatRef::new(&x, 1, 2)?, MatRef::new(&w, 2, 2)?);
/// let args = args.with_bias(&[0.25, 0.5]);
/// dense_forward(&args, MatMut::new(&mut y, 1, 2)?, None, MaskSource::Key)?;
/// assert_eq!(y, [2.25, 0.0]);
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
///
/// When shapes disagree, the activation's slope is invalid, a key's origin and the shape go past what a
/// mask can address, a mask is stored or given where units are dropped, or the weights were packed for
/// something else.
pub fn dense_forward<'m>(
    args: &DenseArgs<'_>,
    y: MatMut<'_>,
    z: Option<MatMut<'_>>,
    mask: impl Into<MaskSource<'m>>,
) -> Result<()> {
    let mask = mask.into();
    let shape = args.check_forward(&y, z.as_ref(), &mask)?;
    let level = match args.packed {
        Some(packed) => packed.check(&args.layer, &args.w)?,
        None => Level::current()?,
    };
    if shape.batch == 0 || shape.units == 0 {
        return Ok(());
    }
    run(args, level, shape, y, z, mask)
}

fn run(
    args: &DenseArgs<'_>,
    level: Level,
    shape: Shape,
    y: MatMut<'_>,
    z: Option<MatMut<'_>>,
    mask: MaskSource<'_>,
) -> Result<()> {
    // Buffers are for kept units and blocks alone.
    let layer = &args.layer;
    let mut buffers = layer.skips().then(LayerBuffers::take);
    let residual = args.residual.map(|r| Rows::new(Slot::Residual, r)).transpose()?;
    let (mut y, mut z) = {
        let z = z.map(|z| RowsMut::new(Slot::PreActivation, z)).transpose()?;
        (RowsMut::new(Slot::Output, y)?, z)
    };
    let b = match (args.packed, buffers.as_deref_mut()) {
        (Some(packed), _) => packed.operand(args.w.source()),
        (None, None) => Operand::masked(args.w.source(), &layer.weight_dropout),
        (None, Some(LayerBuffers { index, masked, .. })) => {
            weights(layer, args.w, level, index, masked)?
        }
    };
    let start = match (args.bias, layer.output.list(), buffers.as_deref_mut()) {
        (Some(bias), Some(list), Some(LayerBuffers { kept: [kept_bias, ..], .. })) => {
            Start::Bias(product::pick(bias, list, kept_bias)?.as_ptr())
        }
        (Some(bias), ..) => Start::Bias(bias.as_ptr()),
        (None, ..) => Start::Zero,
    };
    let target = y.target()?;
    let of_output = ProductArgs {
        m: shape.batch,
        n: shape.units,
        k: shape.inputs,
        a: Operand::masked(args.x.source(), &args.layer.input.elements()),
        b,
        start,
        partial: target,
        end: End::Activate(Activate {
            activation: args.layer.activation,
            scale: args.layer.output.scales().0 as f32,
            y: target,
            z: z.as_mut().map(RowsMut::target).transpose()?,
            residual: residual.as_ref().map(Rows::source).transpose()?,
        }),
        bits: mask.bits(&args.layer.output.elements()),
    };
    product::run(level, of_output, pattern::forward(&args.layer))?;
    y.finish();
    if let Some(z) = z {
        z.finish();
    }
    Ok(())
}
