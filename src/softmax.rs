//! Rows through softmax: with dropout for attention weights, and with the cross-entropy of a label.

mod attention;
mod cross_entropy;
mod lines;
mod sweeps;
mod waves;

pub use attention::{SoftmaxDropout, softmax_dropout_backward, softmax_dropout_forward};
pub(crate) use cross_entropy::{LOSS_BLOCK, check_labels, smoothed_cross_entropy, targets};
pub use cross_entropy::{Loss, softmax_cross_entropy};
pub(crate) use waves::for_each_in_order;
