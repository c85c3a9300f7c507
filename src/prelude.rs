//! The everyday names: views, masks, the dense layer and element-wise dropout.
//!
//! ```
//! use fused_dropout::prelude::*;
//! ```

pub use crate::elementwise::{
    BiasActivationDropout, bias_activation_dropout_backward, bias_activation_dropout_forward,
    dropout_backward, dropout_forward,
};
pub use crate::layer::{
    DenseArgs, DenseLayer, DenseUpdate, Gradients, Parameters, Side, dense_backward, dense_forward,
    dense_update,
};
pub use crate::update::{AdamStep, SgdStep};
pub use crate::{
    Activation, Dropout, InOut, KeyedDropout, Mask, MaskKey, MaskSource, MatMut, MatRef, Saved,
};
