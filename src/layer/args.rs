//! What a pass over a layer reads.

use super::{DenseLayer, PackedWeight, Shape, Side};
use crate::error::{Result, check_equal, check_shape};
use crate::mask::MaskSource;
use crate::saved::Saved;
use crate::view::{MatMut, MatRef};

/// A dense layer and its data, for forward and backward.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
#[must_use]
pub struct DenseArgs<'a, T = f32> {
    /// What the layer does.
    pub layer: DenseLayer<'a>,
    /// The layer's input, [batch, inputs], or [batch, kept inputs].
    pub x: MatRef<'a, T>,
    /// All weights, [inputs, units].
    pub w: MatRef<'a, T>,
    /// One value a unit, kept or not, where sums start.
    pub bias: Option<&'a [T]>,
    /// Added to the output, after everything else; its gradient is dy itself. With a residual the
    /// output no longer tells the activation: save z.
    pub residual: Option<MatRef<'a, T>>,
    /// The weights, packed before; then only the shape of `w` is looked at.
    pub packed: Option<&'a PackedWeight>,
}

impl<'a, T> DenseArgs<'a, T> {
    /// A layer without bias and residual.
    pub fn new(layer: DenseLayer<'a>, x: MatRef<'a, T>, w: MatRef<'a, T>) -> Self {
        Self { layer, x, w, bias: None, residual: None, packed: None }
    }

    /// The same with a bias, one value a unit.
    pub fn with_bias(self, bias: &'a [T]) -> Self {
        Self { bias: Some(bias), ..self }
    }

    /// The same with a residual, which is added to the output.
    pub fn with_residual(self, residual: MatRef<'a, T>) -> Self {
        Self { residual: Some(residual), ..self }
    }

    /// The same with weights that were packed before: [`PackedWeight::for_layer`] for forward,
    /// [`PackedWeight::for_input_gradient`] for the gradient of the input.
    pub fn with_packed(self, packed: &'a PackedWeight) -> Self {
        Self { packed: Some(packed), ..self }
    }

    /// The sizes of the pass, if all arguments agree.
    pub(crate) fn check(&self) -> Result<Shape> {
        let layer = &self.layer;
        layer.activation.check()?;
        let (batch, w_rows, w_cols) = (self.x.rows(), self.w.rows(), self.w.cols());
        let inputs = layer.input.width(batch, ("rows of W", w_rows))?;
        let units = layer.output.width(batch, ("columns of W", w_cols))?;
        let name = match layer.input {
            Side::Units(_) => "number of kept inputs",
            Side::Whole | Side::Elements(_) | Side::Blocks(_) => "rows of W",
        };
        check_equal("columns of x", self.x.cols(), name, inputs)?;
        if let Some(bias) = self.bias {
            check_equal("length of the bias", bias.len(), "columns of W", w_cols)?;
        }
        layer.check_weight_dropout(&self.w)?;
        layer.check_blocks(batch)?;
        let thinned = matches!(layer.output, Side::Units(_));
        let shape = Shape { batch, inputs, units, thinned };
        if let Some(residual) = &self.residual {
            check_shape(residual.named("the residual"), shape.output())?;
        }
        Ok(shape)
    }

    /// The sizes of the forward pass, if all arguments agree.
    pub(crate) fn check_forward(
        &self,
        y: &MatMut<'_, T>,
        z: Option<&MatMut<'_, T>>,
        mask: &MaskSource<'_>,
    ) -> Result<Shape> {
        let shape = self.check()?;
        check_shape(y.named("y"), shape.output())?;
        if let Some(z) = z {
            check_shape(z.named("z"), shape.output())?;
        }
        self.layer.check_mask(mask, &shape)?;
        Ok(shape)
    }

    /// `Ok` when `saved` is enough for the backward pass, and has the shape of the output.
    pub(crate) fn check_saved(&self, saved: &Saved<'_, T>, shape: &Shape) -> Result<()> {
        let shape = (shape.batch, shape.units);
        saved.check(self.layer.activation, self.residual.is_some(), shape)
    }
}
