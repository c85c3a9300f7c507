//! Dropout on a CPU, fused into the layer that needs it: exact, reproducible, and without a pass of
//! its own over memory.
//!
//! # The idea
//!
//! Dropout is usually a pass of its own: draw a random number for each element from a generator with
//! a state, compare, scale, and keep the mask for the backward pass. Two changes make it almost
//! free.
//!
//! **A mask has an address.** The bit of an element is a pure function of (seed, layer, step, row,
//! column, rate), made with a counter-based generator. There is no state to advance, so any part of a mask
//! can be made anywhere, in any order, on any thread, and made again in the backward pass instead of
//! being stored. A [`MaskKey`] is that address. One block of the generator decides 128 elements at
//! once.
//!
//! **The mask is applied where the result already is.** While a tile of `x · W + b` is in registers,
//! activation, mask and scaling cost a few instructions, and no further trip to memory:
//!
//! ```text
//! z = x · W + b
//! y = keep ? act(z) · scale : 0        scale = 1 / keep probability
//! ```
//!
//! The numbers follow one rule: every element of a product is one chain of fused multiply-adds in
//! ascending order, whatever the tile, the thread or the instruction set. So the results are
//! the same bits on every machine with fused multiply-add, and equal to those of the naive functions in
//! [`reference`](mod@reference), which say what each operation means.
//!
//! # An example
//!
//! A layer of 3 units, forward and backward. The mask is made twice, the same both times, and never
//! stored.
//!
//! ```
//! use fused_dropout::prelude::*;
//!
//! let (x, w, bias) = ([1.0, -2.0, 0.5, 3.0], [0.1; 2 * 3], [0.5; 3]);
//! let half = Dropout::new(0.5)?.with_key(MaskKey::new(42, 1, 0)?);
//! let layer = DenseLayer::new(Activation::Silu).with_output(half);
//! let args = DenseArgs::new(layer, MatRef::new(&x, 2, 2)?, MatRef::new(&w, 2, 3)?).with_bias(&bias);
//! let (mut y, mut z) = ([9.0; 2 * 3], [9.0; 2 * 3]);
//! let z_view = MatMut::new(&mut z, 2, 3)?;
//! dense_forward(&args, MatMut::new(&mut y, 2, 3)?, Some(z_view), MaskSource::Key)?;
//!
//! let (mut dw, mut db) = ([0.0; 2 * 3], [0.0; 3]);
//! let gradients = Gradients::default().with_dw(MatMut::new(&mut dw, 2, 3)?).with_db(&mut db);
//! let saved = Saved::PreActivation(MatRef::new(&z, 2, 3)?);
//! let dy = MatRef::new(&[1.0; 2 * 3], 2, 3)?;
//! dense_backward(&args, &saved, dy, gradients, MaskSource::Key)?;
//!
//! let mask = Mask::generate(2, 3, &half)?;
//! for (i, value) in y.iter().enumerate() {
//!     assert_eq!(mask.get(i / 3, i % 3), Some(*value != 0.0));
//! }
//! # Ok::<(), fused_dropout::Error>(())
//! ```
//!
//! # The mask contract
//!
//! With `T = round((1 - rate) · 2^32)`, the element at (row, column) has the bit
//!
//! ```text
//! b    = column / 128,  w = (column % 128) / 32,  i = column % 32
//! R(j) = philox4x32_10(counter = [b, row, step, layer << 7 | domain << 5 | j], key = seed)
//! U    = sum over j = 0..31 of ((R(j)[w] >> i) & 1) << (31 - j)
//! keep <=> U < T,    scale = 2^32 / T
//! ```
//!
//! with the low half of the seed as the key's first word, and domain 0 for masks of elements, 1 for
//! masks of units, 3 for continuous noise. Nothing else enters. It follows that
//!
//! - the keep probability is `T / 2^32`, with no bias between it and the scale;
//! - rate 0 keeps everything and draws nothing, rate 1 drops everything;
//! - for one key, the mask of a lower rate contains the mask of a higher one;
//! - a part of a matrix, given its origin, gets exactly its part of the whole mask.
//!
//! # Where things are
//!
//! | | |
//! |---|---|
//! | [`prelude`] | the everyday names, for `use fused_dropout::prelude::*` |
//! | [`nn`] | a network with dropout, its loss and its training: [`nn::Mlp`] |
//! | [`layer`] | the dense layer, with dropout of elements, of whole units or of weights: [`layer::dense_forward`] and its siblings |
//! | [`elementwise`] | dropout alone (also Gaussian, alpha, and shared along axes), and bias + activation + dropout, for trainers with a matmul of their own |
//! | [`softmax`] | softmax with dropout of attention weights, and with cross-entropy |
//! | [`loss`] | losses with their gradients: cross-entropy with smoothed labels, squared error, Huber; and [`loss::Objective`], what a trainer minimises |
//! | [`update`] | updates: gradient descent, Adam, AdamW, clipping, the max-norm constraint |
//! | [`mask`] | decisions that are shared along axes, a rate for each row or column, rates that change |
//! | [`Dropout`], [`MaskKey`], [`KeyedDropout`] | how much is dropped, which mask, and both |
//! | [`Mask`], [`MaskSource`] | a mask that is stored; whether a pass makes its mask, stores it, or is given one |
//! | [`Saved`] | what forward keeps for backward: an output or a pre-activation |
//! | [`Activation`] | the activation functions, with formulas and error bounds |
//! | [`MatRef`], [`MatMut`], [`InOut`] | matrices as borrowed views; two of them, or one that is overwritten |
//! | [`Level`] | the instruction set, chosen at run time |
//! | [`Executor`], [`ParallelFor`] | on whose threads operations run |
//! | [`philox`] | the random generator |
//! | [`reference`](mod@reference) | every operation once more, naive |
//!
//! # Features
//!
//! | feature | adds |
//! |---|---|
//! | `ndarray` | [`MatRef`] and [`MatMut`] from arrays of the crate `ndarray`, and back, by `TryFrom`, without a copy |
//! | `safetensors` | checkpoints of networks: `nn::Mlp::save`, `nn::Mlp::load`, and the module `nn::checkpoint`, which documents the format; brings `serde` |
//! | `serde` | `Serialize` and `Deserialize` of what networks are made of ([`nn::MlpSpec`]) and how they are trained ([`nn::Optimiser`], [`update::Step`]); numbers are checked where they are used |
//!
//! None is on by default.
//!
//! # Conventions
//!
//! - A rate is the probability to **drop**. The scale is applied in training (inverted dropout), and
//!   inference is the bare layer; [`Scaling::Classical`] is the other way round.
//! - Matrices are row-major: a batch is [batch, features], weights are [inputs, units].
//! - Arguments that disagree are an [`Error`] that names both sides, and outputs stay as they were.
//!   Nothing panics.
//! - A dropped element is +0.0, whatever the value was (with [`elementwise::AlphaDropout`], what that
//!   says).
//! - Operations run on the rayon pool that the caller is in, or, inside of [`Executor::run`], where that
//!   says: on the calling thread alone, or on threads of the program's own. Threads never show in a
//!   result.
//! - Each thread that runs tasks keeps its buffers for the next call; [`release_buffers`] frees them.

mod activation;
mod buffers;
pub mod elementwise;
mod error;
mod gather;
mod gemm;
mod isa;
pub mod layer;
pub mod loss;
pub mod mask;
mod math;
pub mod nn;
pub mod philox;
pub mod prelude;
pub mod reference;
mod saved;
pub mod softmax;
#[doc(hidden)]
pub mod testing;
mod threads;
pub mod update;
mod view;

pub use activation::Activation;
pub use buffers::release_buffers;
pub use error::{Error, Result};
pub use isa::Level;
pub use mask::dropout::{Dropout, Scaling};
pub use mask::key::MaskKey;
pub use mask::keyed::KeyedDropout;
pub use mask::source::MaskSource;
pub use mask::stored::Mask;
pub use saved::Saved;
pub use threads::{Executor, ParallelFor};
pub use view::{InOut, MatMut, MatRef};

/// The examples of the README and of the guide, as tests.
#[cfg(doctest)]
mod documents {
    #[doc = include_str!("../README.md")]
    struct Readme;
    #[doc = include_str!("../docs/guide.md")]
    struct Guide;
}
