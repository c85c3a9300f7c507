//! What a network does without dropout: prediction and evaluation.

use super::dense::Dense;
use super::mlp::{EVALUATION_ROWS, Mlp};
use super::room;
use crate::buffers::{AlignedBuffer, Lease, Slot};
use crate::error::{Result, check_equal, check_shape};
use crate::layer::{DenseArgs, DenseLayer, dense_forward};
use crate::mask::{MaskSource, Scaling};
use crate::softmax::{Loss, check_labels, softmax_cross_entropy};
use crate::view::{MatMut, MatRef};

/// What inference keeps from layer to layer, and from call to call.
#[derive(Default)]
struct Inference {
    /// What a layer reads, and what it writes.
    input: AlignedBuffer,
    output: AlignedBuffer,
    /// Weights times keep, with classical scaling.
    scaled: AlignedBuffer,
}

impl Mlp {
    /// The layers of a network that knows nothing of dropout and predicts what this one does: with
    /// classical scaling
    ///
    /// ```text
    /// W_test = keep · W
    /// ```
    ///
    /// where keep is the share that is kept of what the layer reads (Srivastava et al. 2014, section 1
    /// and figure 2), and with the biases as they are; with inverted scaling the layers themselves.
    /// [`dense_forward`] without dropout, layer after layer, returns the bits of [`Mlp::predict`].
    ///
    /// **The other scaling.** With the same masks, a network with inverted scaling whose weights are
    /// `keep · W` has the outputs z, the logits and the loss of this one: the scale that it adds to
    /// what a layer reads is the factor that its weights lack. The gradient of its weights is then
    /// that of W divided by keep; for a change of `keep · ΔW`, plain gradient descent needs a learning
    /// rate of these weights (not of the biases) that is `keep²` times that of W. So with one learning
    /// rate for all, the two ways to scale are the same function, trained at different speeds.
    ///
    /// Where rates change from step to step, keep is that of [`StepRate`](super::StepRate).
    ///
    /// # Errors
    ///
    /// When the memory cannot be had.
    pub fn export_scaled_weights(&self) -> Result<Vec<Dense>> {
        let keep = |l: usize| match self.spec.scaling {
            Scaling::Inverted => 1.0,
            Scaling::Classical => self.junctions[l].keep(),
        };
        self.layers.iter().enumerate().map(|(l, layer)| layer.scaled(keep(l))).collect()
    }

    /// The logits of each row of `x`, without dropout. Several threads may predict with one network.
    ///
    /// # Errors
    ///
    /// When shapes disagree.
    pub fn predict(&self, x: MatRef<'_>, mut logits: MatMut<'_>) -> Result<()> {
        check_equal("columns of x", x.cols(), "inputs of the network", self.inputs())?;
        check_shape(logits.named("the logits"), ("the output", x.rows(), self.classes()))?;
        self.infer(x, |row, output| {
            for r in 0..output.rows() {
                for c in 0..output.cols() {
                    logits.put(row + r, c, output.at(r, c));
                }
            }
            Ok(())
        })
    }

    /// Loss and errors on labelled examples, without dropout. Several threads may evaluate one network.
    ///
    /// # Errors
    ///
    /// When shapes disagree, or a label names no class.
    pub fn evaluate(&self, x: MatRef<'_>, labels: &[u32]) -> Result<Loss> {
        check_equal("columns of x", x.cols(), "inputs of the network", self.inputs())?;
        check_labels(labels, ("rows of x", x.rows()), self.classes())?;
        let mut total = Loss::default();
        self.infer(x, |row, logits| {
            let loss = softmax_cross_entropy(logits, &labels[row..row + logits.rows()], None)?;
            total.sum += loss.sum;
            total.errors += loss.errors;
            Ok(())
        })?;
        total.examples = x.rows();
        Ok(total)
    }

    /// Forward without dropout, some rows at a time: hands the first row and the logits to `f`.
    fn infer(
        &self,
        x: MatRef<'_>,
        mut f: impl FnMut(usize, MatRef<'_>) -> Result<()>,
    ) -> Result<()> {
        let mut buffers: Lease<Inference> = Slot::Inference.take();
        let mut result = Ok(());
        for row in (0..x.rows()).step_by(EVALUATION_ROWS) {
            let rows = EVALUATION_ROWS.min(x.rows() - row);
            result = self.infer_rows(x.rows_from(row, rows)?, &mut buffers);
            result =
                result.and_then(|()| f(row, MatRef::new(&buffers.input, rows, self.classes())?));
            if result.is_err() {
                break;
            }
        }
        result
    }

    /// Forward without dropout; the logits are left in `buffers.input`.
    fn infer_rows(&self, x: MatRef<'_>, buffers: &mut Inference) -> Result<()> {
        let Inference { input, output, scaled } = buffers;
        for (l, layer) in self.layers.iter().enumerate() {
            let w = match self.spec.scaling {
                Scaling::Inverted => layer.weights(),
                Scaling::Classical => {
                    layer.scale_weights(self.junctions[l].keep(), scaled)?;
                    &*scaled
                }
            };
            let w = MatRef::new(w, layer.inputs(), layer.units())?;
            let does = DenseLayer::new(self.mode().activation_of(l));
            let x = if l == 0 { x } else { MatRef::new(input, x.rows(), layer.inputs())? };
            let mut args = DenseArgs::new(does, x, w).with_bias(layer.bias());
            args.residual = self.spec.is_residual(l).then_some(x);
            dense_forward(&args, room(output, x.rows(), layer.units())?, None, MaskSource::Key)?;
            std::mem::swap(input, output);
        }
        Ok(())
    }
}
