//! Rows through softmax: with dropout for attention weights, and with the cross-entropy of a label.

mod cross_entropy;
mod dropout;
mod rows;
mod sweeps;
mod waves;

pub(crate) use cross_entropy::{LOSS_BLOCK, check_labels, smoothed_cross_entropy, targets};
pub use cross_entropy::{Loss, softmax_cross_entropy};
pub use dropout::{SoftmaxDropout, softmax_dropout_backward, softmax_dropout_forward};
pub(crate) use waves::for_each_in_order;
