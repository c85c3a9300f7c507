//! The dense layer: matmul, bias, activation and dropout in one pass, its gradients, and its update.
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
//! | z, y, dy, residual | [batch, units] |
//!
//! A [`DenseLayer`] says what the layer does: its activation, what is dropped on its input and on its
//! output side, and whether weights are dropped. [`dense_forward`], [`dense_backward`] and
//! [`dense_update`] take the same one. [`DenseArgs`] adds the data.
//!
//! Every element of a product is one chain of fused multiply-adds, p ascending, from the bias or 0:
//! its bits do not depend on the level, the threads, the blocking or the other rows of the batch.
//!
//! # Unit dropout
//!
//! The original procedure (Hinton et al. 2012, "Improving neural networks by preventing co-adaptation
//! of feature detectors"; Srivastava et al. 2014, section 4): for each mini-batch remove a random part
//! of the units, send the mini-batch forward and its loss backward through the thinned network, update
//! the parameters that remain, restore the removed units with the values they had. With
//! [`Side::Units`] the layer is computed that way: nothing is multiplied by zero. With the kept inputs
//! I and the kept units J,
//!
//! ```text
//! z  = x · W[I, J] + b[J],   y = [residual +] act(z) · scale       scale = 1 / keep probability
//! dz = dy · scale · act'(z)
//! dW[I, J] = xᵀ · dz,        db[J] = column sums of dz,            dx = dz · W[I, J]ᵀ
//! ```
//!
//! W, b and their velocities are whole; x, dx, z, y, dy, dW and db are compact: [batch, kept inputs],
//! [batch, kept units], [kept inputs, kept units]. There is no copy of W: its kept elements are
//! gathered while the product packs its panels, and an update is scattered from the registers. A layer
//! between two halves costs a quarter.
//!
//! **The masked layer is the meaning.** The results are those of the whole layer with x = 0 where an
//! input is removed, and with the outputs of removed units set to 0: the same bits, a zero's sign aside,
//! since a removed input would only add `fma(0, w, acc) = acc`. Only a weight that is infinite or NaN
//! makes a difference: here a removed one is not read.
//!
//! **What is removed keeps its bits**: each weight of which the input or the unit is removed, the
//! removed units' biases, and the velocities of both. They are not penalised, their velocity is not
//! used up, and they are no part of a norm.
//!
//! **Nothing kept** is fine: the layer's output has no columns, the next layer's sums are its bias.
//!
//! One subset for a whole mini-batch makes gradients noisy: a network can train worse than without
//! dropout, or diverge.
//!
//! # Block dropout
//!
//! Between dropout of elements, which saves no work, and unit dropout, whose one subset for a mini-batch
//! makes gradients noisy: one decision for a block of units and a group of examples
//! ([`KeptBlocks`]). With [`Side::Blocks`] on either side, the products compute what is kept:
//!
//! | | computes | from |
//! |---|---|---|
//! | x · W | for each group of examples its kept blocks of units | its kept blocks of inputs |
//! | dz · Wᵀ | for each group its kept blocks of inputs | its kept blocks of units |
//! | xᵀ · dz | all weights | for each block of them the groups that keep both its inputs and its units |
//!
//! At rate 0.5 on both sides that is a quarter of the work, on one side a half. All matrices are whole,
//! with +0.0 where an element is dropped, also in z and dx; what is dropped of x is not read. All weights
//! are updated: with momentum those without a gradient move on.
//!
//! **The masked layer is the meaning.** The results are those of the layer with the mask
//! [`KeptBlocks::mask`] on its elements, bit for bit, a zero's sign aside. Only a factor that is infinite
//! or NaN makes a difference, where the other one is dropped: their product is not computed.
//!
//! Relatives on GPUs are "Approximate random dropout" (arXiv 1805.08939, 2018), with regular patterns of
//! units, and SparseDrop (arXiv 2411.01238, 2024), with blocks of a product's operand.
//!
//! # DropConnect
//!
//! Weight dropout (Wan, Zeiler, Zhang, LeCun and Fergus 2013, "Regularization of neural networks using
//! DropConnect") removes connections instead of units: one decision for each weight, the same for the
//! whole batch. A weight is dropped and scaled while it is packed, so W~ is never in memory, and a
//! product with it is the plain product with the matrix `keep_w ? W · scale_w : 0`, bit for bit: a dropped
//! weight is a factor of +0.0, which an infinite input turns into NaN. Together with kept units W~ is
//! made in a buffer first.

mod apply;
mod args;
mod backward;
mod blocks;
mod forward;
mod kept;
mod packed;
mod parameters;
mod pattern;
mod product;
mod rows;
mod selection;
mod step;
mod units;

use crate::activation::Activation;
use crate::error::{Error, Result, check_equal};
use crate::mask::{KeyedDropout, MaskSource};
use crate::view::MatRef;
pub use apply::{DenseApply, dense_apply};
pub use args::DenseArgs;
pub use backward::{Accumulation, Gradients, OutputGradient, dense_backward};
pub use blocks::{BlockDeal, BlockSelection, BlockShape, KeptBlocks};
pub use forward::dense_forward;
pub use kept::KeptUnits;
pub use packed::PackedWeight;
pub use parameters::Parameters;
pub use step::{DenseUpdate, dense_update};
pub use units::{gather_units, scatter_units};

/// What is dropped on one side of a layer.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub enum Side<'a> {
    /// Nothing.
    #[default]
    Whole,
    /// Single elements, by this layer: of an input as it is read, of an output as it is written.
    Elements(KeyedDropout),
    /// Whole units: the matrix is compact and has the kept ones only. An output is scaled as it is
    /// written; an input has been scaled by what made it, a layer or [`gather_units`].
    Units(&'a KeptUnits),
    /// Blocks of units for groups of examples: the matrix has all units, and +0.0 where they are dropped,
    /// which is never read. An output is scaled as it is written; an input has been scaled by what made
    /// it.
    Blocks(&'a KeptBlocks),
}

impl From<KeyedDropout> for Side<'_> {
    fn from(dropout: KeyedDropout) -> Self {
        Side::Elements(dropout)
    }
}

impl<'a> From<&'a KeptUnits> for Side<'a> {
    fn from(kept: &'a KeptUnits) -> Self {
        Side::Units(kept)
    }
}

impl<'a> From<&'a KeptBlocks> for Side<'a> {
    fn from(kept: &'a KeptBlocks) -> Self {
        Side::Blocks(kept)
    }
}

impl<'a> Side<'a> {
    /// The kept units, where they are not simply all.
    pub(crate) fn list(&self) -> Option<&'a [u32]> {
        match self {
            Side::Whole | Side::Elements(_) | Side::Blocks(_) => None,
            Side::Units(kept) => kept.list(),
        }
    }

    /// Dropout of elements.
    pub(crate) fn elements(&self) -> KeyedDropout {
        match self {
            Side::Elements(dropout) => *dropout,
            Side::Whole | Side::Units(_) | Side::Blocks(_) => KeyedDropout::NONE,
        }
    }

    /// The factor of what is kept of an output, and what undoes it.
    pub(crate) fn scales(&self) -> (f64, f64) {
        match self {
            Side::Whole => (1.0, 1.0),
            Side::Elements(dropout) => (dropout.dropout().scale_f64(), dropout.dropout().unscale()),
            Side::Units(kept) => (kept.scale_f64(), kept.unscale()),
            Side::Blocks(kept) => (kept.scale_f64(), kept.unscale()),
        }
    }

    /// The kept blocks, where there are such.
    pub(crate) fn blocks(&self) -> Option<&'a KeptBlocks> {
        match self {
            Side::Blocks(kept) => Some(kept),
            Side::Whole | Side::Elements(_) | Side::Units(_) => None,
        }
    }

    /// The columns of this side's matrices, if the layer has `units` units here, which are the weights'
    /// `name`, and the side fits a batch of `batch` rows.
    pub(crate) fn width(
        &self,
        batch: usize,
        (name, units): (&'static str, usize),
    ) -> Result<usize> {
        match self {
            Side::Whole => Ok(units),
            Side::Elements(dropout) => dropout.check(batch, units).map(|()| units),
            Side::Units(kept) => {
                check_equal("number of units to keep from", kept.units(), name, units)?;
                Ok(kept.len())
            }
            Side::Blocks(kept) => {
                check_equal("number of units in blocks", kept.units(), name, units)?;
                Ok(units)
            }
        }
    }
}

/// What a dense layer does in one step: the same value for forward, backward and update.
///
/// ```
/// # use fused_dropout::{Activation, Dropout, Error, MaskKey};
/// # use fused_dropout::layer::DenseLayer;
/// let layer = DenseLayer::new(Activation::Relu)
///     .with_input(Dropout::new(0.2)?.with_key(MaskKey::new(42, 0, 7)?))
///     .with_output(Dropout::new(0.5)?.with_key(MaskKey::new(42, 1, 7)?));
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
#[must_use]
pub struct DenseLayer<'a> {
    /// Applied to z.
    pub activation: Activation,
    /// What is dropped of the input.
    pub input: Side<'a>,
    /// What is dropped of the output.
    pub output: Side<'a>,
    /// Dropout of the weights (DropConnect): its rows are inputs and its columns are units, also where
    /// W is a transposed view.
    pub weight_dropout: KeyedDropout,
}

impl<'a> DenseLayer<'a> {
    /// This activation, and nothing dropped.
    pub fn new(activation: Activation) -> Self {
        Self { activation, ..Self::default() }
    }

    /// The same layer with something dropped of its input.
    pub fn with_input(self, input: impl Into<Side<'a>>) -> Self {
        Self { input: input.into(), ..self }
    }

    /// The same layer with something dropped of its output.
    pub fn with_output(self, output: impl Into<Side<'a>>) -> Self {
        Self { output: output.into(), ..self }
    }

    /// The same layer with dropout of its weights.
    pub fn with_weight_dropout(self, weight_dropout: KeyedDropout) -> Self {
        Self { weight_dropout, ..self }
    }

    /// `Ok` when the mask of the weights' dropout, if there is one, has their rows and columns.
    pub(crate) fn check_weight_dropout<T>(&self, w: &MatRef<'_, T>) -> Result<()> {
        if self.weight_dropout == KeyedDropout::NONE {
            return Ok(());
        }
        self.weight_dropout.check(w.rows(), w.cols())
    }

    /// `Ok` when the mask of a pass, if it is stored or given, is that of the output.
    pub(crate) fn check_mask(&self, mask: &MaskSource<'_>, shape: &Shape) -> Result<()> {
        match (self.output, mask) {
            (Side::Units(_) | Side::Blocks(_), MaskSource::Store(_) | MaskSource::Given(_)) => {
                Err(Error::MaskOfUnits)
            }
            _ => mask.check(shape.output()),
        }
    }

    /// Where the elements that are kept of the output come from: the mask of a pass, or blocks.
    pub(crate) fn output_mask<'m>(&'m self, mask: MaskSource<'m>) -> MaskSource<'m> {
        match self.output {
            Side::Blocks(kept) => MaskSource::Given(kept.mask()),
            _ => mask,
        }
    }

    /// Whether some of the weights are left out: kept units on a side, or kept blocks.
    pub(crate) fn skips(&self) -> bool {
        let skips = |side: Side<'_>| side.list().is_some() || side.blocks().is_some();
        skips(self.input) || skips(self.output)
    }

    /// `Ok` when blocks, if there are any, are those of a batch of `batch` rows.
    pub(crate) fn check_blocks(&self, batch: usize) -> Result<()> {
        let (input, output) = (self.input.blocks(), self.output.blocks());
        for kept in [input, output].into_iter().flatten() {
            check_equal("rows in groups of blocks", kept.rows(), "rows of x", batch)?;
        }
        if let (Some(input), Some(output)) = (input, output)
            && input.units() > 0
            && output.units() > 0
            && input.group_starts() != output.group_starts()
        {
            let (input, output) = (input.shape().rows(), output.shape().rows());
            return Err(Error::BlockRows { input, output });
        }
        Ok(())
    }
}

/// The sizes of the matrices of a pass; those that are compact where units are dropped.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) batch: usize,
    pub(crate) inputs: usize,
    pub(crate) units: usize,
    /// Whether some of the units are not computed.
    thinned: bool,
}

impl Shape {
    /// Name, rows and columns of the output, for the checks.
    pub(crate) fn output(&self) -> (&'static str, usize, usize) {
        (if self.thinned { "the kept units' output" } else { "x · W" }, self.batch, self.units)
    }
}
