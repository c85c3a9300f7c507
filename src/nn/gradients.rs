//! The gradients of a network's parameters, where they are wanted in memory.

use super::dense::Numbers;
use crate::error::Result;
use crate::update::norm_of;
use crate::view::{MatMut, MatRef};

/// The gradients of a network's parameters, made by [`Mlp::gradients`](super::Mlp::gradients), or shown
/// to the hook of [`Mlp::train_with_hook`](super::Mlp::train_with_hook).
///
/// ```
/// # use fused_dropout::nn::{Mlp, MlpGradients, MlpSpec, Optimiser};
/// # use fused_dropout::loss::CrossEntropy;
/// # use fused_dropout::{MatRef, update::SgdStep};
/// let mut mlp = Mlp::new(&MlpSpec::new(&[2, 8, 2]).with_hidden_rate(0.5))?;
/// let (x, labels) = ([0.0, 1.0, 1.0, 0.0], [0, 1]);
/// let mut gradients = MlpGradients::default();
/// let objective = CrossEntropy::new(&labels);
/// let loss = mlp.gradients(MatRef::new(&x, 2, 2)?, &objective, &mut gradients)?;
/// assert!(loss > 0.0 && gradients.norm()? > 0.0);
/// assert_eq!(gradients.layers().len(), 2);
/// mlp.apply_gradients(&gradients, &Optimiser::new(SgdStep::new(0.1)))?;
/// assert_eq!(mlp.steps(), 1);
/// # Ok::<(), fused_dropout::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct MlpGradients {
    pub(super) layers: Vec<LayerGradients>,
    /// The step that they are of.
    pub(super) step: Option<u32>,
}

impl MlpGradients {
    /// Those of each layer, the first layer first.
    pub fn layers(&self) -> &[LayerGradients] {
        &self.layers
    }

    /// Those of each layer, to change: to clip them, say, or to add those of other machines.
    pub fn layers_mut(&mut self) -> &mut [LayerGradients] {
        &mut self.layers
    }

    /// The norm of all of them together, by
    /// [`global_norm`](crate::update::global_norm).
    ///
    /// # Errors
    ///
    /// When memory cannot be had.
    pub fn norm(&self) -> Result<f64> {
        norm_of(
            self.layers.iter().flat_map(|layer| [layer.dw(), Ok(MatRef::row_vector(layer.bias()))]),
        )
    }

    /// Makes room for so many layers.
    pub(super) fn grow(&mut self, layers: usize) -> Result<()> {
        let more = layers.saturating_sub(self.layers.len());
        crate::buffers::reserve(&mut self.layers, layers)?;
        self.layers.extend((0..more).map(|_| LayerGradients::default()));
        Ok(())
    }
}

/// The gradients of a layer's weights and biases; of the kept ones where units are dropped.
#[derive(Clone, Debug, Default)]
pub struct LayerGradients {
    inputs: usize,
    units: usize,
    numbers: Numbers,
}

impl LayerGradients {
    /// Rows and columns of the gradient of the weights: inputs and units, or the kept ones.
    #[must_use]
    pub fn shape(&self) -> (usize, usize) {
        (self.inputs, self.units)
    }

    /// The gradient of the weights, row after row of [inputs, units].
    pub fn weights(&self) -> &[f32] {
        &self.numbers.w[..self.inputs * self.units]
    }

    /// The gradient of the weights as a matrix.
    pub(super) fn dw(&self) -> Result<MatRef<'_>> {
        MatRef::new(self.weights(), self.inputs, self.units)
    }

    /// The gradient of the biases.
    pub fn bias(&self) -> &[f32] {
        &self.numbers.b[..self.units]
    }

    /// The gradient of the weights, row after row, to change.
    pub fn weights_mut(&mut self) -> &mut [f32] {
        &mut self.numbers.w[..self.inputs * self.units]
    }

    /// The gradient of the biases, to change.
    pub fn bias_mut(&mut self) -> &mut [f32] {
        &mut self.numbers.b[..self.units]
    }

    /// Room for gradients of these shapes.
    pub(super) fn room(&mut self, inputs: usize, units: usize) -> Result<(MatMut<'_>, &mut [f32])> {
        (self.inputs, self.units) = (inputs, units);
        let Numbers { w, b } = &mut self.numbers;
        Ok((MatMut::new(w.room(inputs, units)?, inputs, units)?, b.room(1, units)?))
    }
}
