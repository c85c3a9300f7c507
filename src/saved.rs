//! What forward keeps for backward.

use crate::activation::{Activation, Needs};
use crate::error::{Error, Result, check_shape};
use crate::mask::{Bits, KeyedDropout, MaskSource};
use crate::view::MatRef;

/// The tensor that forward kept for backward: what the derivative of the activation is computed from.
///
/// | activation | tensor needed | mask needed |
/// |---|---|---|
/// | identity | [`Nothing`](Self::Nothing) | yes |
/// | ReLU | the output, or z | with z only: a positive output was kept and active |
/// | leaky ReLU, sigmoid, tanh, SELU | the output, or z | yes |
/// | GELU, SiLU | z | yes |
///
/// The mask is an argument of its own, a [`MaskSource`]: the stored one, or made again from the key of
/// the operation, with the same bits. What has to be kept for a layer is [`Saved::size_for`].
///
/// Where a residual was added to the output, the output no longer tells the activation: keep z.
///
/// ```
/// # use fused_dropout::{Activation, MatRef, Saved};
/// let y = [0.0f32; 6];
/// let saved = Saved::Output(MatRef::new(&y, 2, 3)?);
/// assert_eq!(saved.size_in_bytes(), 24);
/// assert_eq!(Saved::<f32>::size_for(Activation::Relu, 2, 3, false)?, 24);
/// assert_eq!(Saved::<f32>::size_for(Activation::Relu, 2, 3, true)?, 24 + 8);
/// # Ok::<(), fused_dropout::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
#[must_use]
pub enum Saved<'a, T = f32> {
    /// No tensor: enough for the identity.
    Nothing,
    /// The output of forward, dropped and scaled, [batch, units]; refused where a residual was added.
    Output(MatRef<'a, T>),
    /// z, what the activation was applied to, [batch, units].
    PreActivation(MatRef<'a, T>),
}

impl<T> Default for Saved<'_, T> {
    /// [`Saved::Nothing`].
    fn default() -> Self {
        Saved::Nothing
    }
}

impl<T> Saved<'_, T> {
    /// Bytes of the tensor's elements.
    pub fn size_in_bytes(&self) -> usize {
        match self {
            Saved::Nothing => 0,
            Saved::Output(values) | Saved::PreActivation(values) => {
                values.rows() * values.cols() * size_of::<T>()
            }
        }
    }

    /// Bytes that have to be kept of a layer's output [batch, units]: nothing for the identity, one
    /// value an element for any other activation; and for a stored mask a bit an element, rows padded to
    /// 32. The output of a layer is mostly the next layer's input: where that is the tensor needed, it
    /// costs nothing more.
    ///
    /// # Errors
    ///
    /// When the bytes overflow.
    pub fn size_for(
        activation: Activation,
        batch: usize,
        units: usize,
        stored_mask: bool,
    ) -> Result<usize> {
        let value = if activation.needs() == Needs::Nothing { 0 } else { size_of::<T>() };
        let words = if stored_mask { units.div_ceil(32) } else { 0 };
        let row = units.checked_mul(value).and_then(|values| values.checked_add(words * 4));
        let bytes = row.and_then(|row| row.checked_mul(batch));
        bytes.ok_or(Error::Overflow { rows: batch, stride: units })
    }

    /// `Ok` when this is enough for `activation`, has the shape of the output's gradient, and is no
    /// output to which a residual was added.
    pub(crate) fn check(
        &self,
        activation: Activation,
        residual: bool,
        (rows, cols): (usize, usize),
    ) -> Result<()> {
        let gradient = ("dy", rows, cols);
        let missing = |missing| Err(Error::NotSaved { activation: activation.name(), missing });
        match (self, activation.needs()) {
            (Saved::Output(_), _) if residual => {
                missing("z (the output has the residual added to it)")
            }
            (Saved::Nothing, Needs::Nothing) => Ok(()),
            (Saved::Nothing, Needs::Output) => missing("the output or z"),
            (Saved::Nothing | Saved::Output(_), Needs::PreActivation) => missing("z"),
            (Saved::Output(y), _) => check_shape(y.named("the saved output"), gradient),
            (Saved::PreActivation(z), _) => check_shape(z.named("the saved z"), gradient),
        }
    }

    /// Where the backward pass of `activation` finds its mask bits.
    pub(crate) fn bits(
        &self,
        activation: Activation,
        mask: MaskSource<'_>,
        dropout: &KeyedDropout,
    ) -> Bits {
        match (self, activation, mask) {
            // A positive output of ReLU was kept and active, so no bits are needed.
            (Saved::Output(_), Activation::Relu, MaskSource::Key | MaskSource::Given(_)) => {
                MaskSource::Key.bits(&KeyedDropout::NONE)
            }
            (_, _, mask) => mask.bits(dropout),
        }
    }
}
