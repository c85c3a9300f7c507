//! What forward keeps for backward.

use crate::activation::{Activation, Needs};
use crate::error::{Error, Result, check_shape};
use crate::mask::{Bits, Dropout, Mask, MaskKey};
use crate::view::MatRef;

/// What forward kept for backward.
///
/// | activation | values needed | mask needed |
/// |---|---|---|
/// | identity | none | yes |
/// | ReLU | the output (or z, with the mask) | no: a positive output was kept and active |
/// | leaky ReLU, sigmoid, tanh, SELU | the output (or z) | yes |
/// | GELU, SiLU | z | yes |
///
/// The mask is the stored one or, without it, made again from the operation's key: the same bits.
/// An element costs the bytes of each value and, with a stored mask, one bit: [`Saved::size_for`].
#[derive(Clone, Copy, Debug)]
pub struct Saved<'a, T = f32> {
    /// The tensor that the derivative is computed from.
    pub values: SavedValues<'a, T>,
    /// The stored mask; without it the mask is made again from the key.
    pub mask: Option<&'a Mask>,
}

/// The tensor that an activation's derivative is computed from.
#[derive(Clone, Copy, Debug)]
pub enum SavedValues<'a, T = f32> {
    /// None: enough for the identity.
    None,
    /// What forward returned, dropped and scaled. Not to be used where a residual was added.
    Output(MatRef<'a, T>),
    /// z, what the activation was applied to.
    PreActivation(MatRef<'a, T>),
}

impl<'a, T> Saved<'a, T> {
    /// The output alone; the mask, where it is needed, is made again from the key.
    pub fn output(y: MatRef<'a, T>) -> Self {
        Self { values: SavedValues::Output(y), mask: None }
    }

    /// The pre-activation alone; the mask is made again from the key.
    pub fn pre_activation(z: MatRef<'a, T>) -> Self {
        Self { values: SavedValues::PreActivation(z), mask: None }
    }

    /// The same values with a stored mask.
    pub fn with_mask(self, mask: &'a Mask) -> Self {
        Self { mask: Some(mask), ..self }
    }

    /// Bytes that the values and the stored mask take.
    pub fn size_in_bytes(&self) -> usize {
        let values = match &self.values {
            SavedValues::None => 0,
            SavedValues::Output(values) | SavedValues::PreActivation(values) => {
                values.rows() * values.cols() * size_of::<T>()
            }
        };
        values + self.mask.map_or(0, Mask::size_in_bytes)
    }

    /// Bytes that have to be saved of a layer's output [batch, units]: nothing for the identity, one
    /// value an element for any other activation, and a bit an element, rows padded to 32, for a
    /// stored mask. The output of a layer is mostly the next layer's input: where its values are
    /// what is saved, they cost nothing more.
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

    /// `Ok` when this is enough for `activation`, and has the shape of the output's gradient.
    pub(crate) fn check(&self, activation: Activation, rows: usize, cols: usize) -> Result<()> {
        let gradient = ("dy", rows, cols);
        if let Some(mask) = self.mask {
            mask.check(gradient)?;
        }
        let missing = |missing| Error::NotSaved { activation: activation.name(), missing };
        match (&self.values, activation.needs()) {
            (SavedValues::None, Needs::Nothing) => Ok(()),
            (SavedValues::None, Needs::Output) => Err(missing("the output or z")),
            (SavedValues::None | SavedValues::Output(_), Needs::PreActivation) => Err(missing("z")),
            (SavedValues::Output(y), _) => check_shape(y.named("the saved output"), gradient),
            (SavedValues::PreActivation(z), _) => check_shape(z.named("the saved z"), gradient),
        }
    }
}

impl<T> Saved<'_, T> {
    /// Where the backward pass of `activation` finds its mask bits.
    pub(crate) fn bits(&self, activation: Activation, dropout: &Dropout, key: &MaskKey) -> Bits {
        // A positive output of ReLU says kept and active at once.
        let known =
            matches!(activation, Activation::Relu) && matches!(self.values, SavedValues::Output(_));
        match self.mask {
            _ if known => Bits::ALL,
            Some(mask) => Bits::stored(mask),
            None => Bits::generate(&dropout.with_key(*key), None),
        }
    }
}
