//! Fused dropout.
mod error;
mod isa;
mod mask;
pub mod philox;
mod threads;
mod view;
pub use error::{Error, Result};
pub use isa::Level;
pub use mask::{Dropout, Mask, MaskKey, Scaling};
pub use view::{MatMut, MatRef};
