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
//! use fused_dropout::*;
//!
//! let (x, w, bias) = ([1.0, -2.0, 0.5, 3.0], [0.1; 2 * 3], [0.5; 3]);
//! let args = DenseArgs {
//!     bias: Some(&bias),
//!     activation: Activation::Silu,
//!     dropout: Dropout::new(0.5)?,
//!     key: MaskKey::new(42, 1, 0)?,
//!     ..DenseArgs::new(MatRef::new(&x, 2, 2)?, MatRef::new(&w, 2, 3)?)
//! };
//! let (mut y, mut z) = ([9.0; 2 * 3], [9.0; 2 * 3]);
//! dense_forward(&args, MatMut::new(&mut y, 2, 3)?, Some(MatMut::new(&mut z, 2, 3)?), None)?;
//!
//! let (mut dw, mut db) = ([0.0; 2 * 3], [0.0; 3]);
//! let gradients = Gradients {
//!     dx: None,
//!     dw: Some(MatMut::new(&mut dw, 2, 3)?),
//!     db: Some(&mut db),
//! };
//! let saved = Saved::pre_activation(MatRef::new(&z, 2, 3)?);
//! dense_backward(&args, &saved, MatRef::new(&[1.0; 2 * 3], 2, 3)?, gradients)?;
//!
//! let mask = Mask::generate(2, 3, &args.dropout.with_key(args.key))?;
//! for (i, value) in y.iter().enumerate() {
//!     assert_eq!(mask.get(i / 3, i % 3), Some(*value != 0.0));
//! }
//! # Ok::<(), Error>(())
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
//! | [`nn`] | a network with dropout, its loss and its training: [`nn::Mlp`] |
//! | [`dense`] | the dense layer: [`dense_forward`], [`dense_backward`], [`dense_update`], [`PackedWeight`] |
//! | [`elementwise`] | dropout alone (also Gaussian, alpha, and of attention weights), bias + activation + dropout, loss, and updates, for trainers with a matmul of their own |
//! | [`unit`](mod@unit) | unit dropout as a thinned layer, which computes only what is kept: [`thin_forward`], [`thin_backward`], [`thin_update`], [`KeptUnits`] |
//! | [`Dropout`], [`MaskKey`], [`Mask`] | how much is dropped, which mask, and a mask that is stored |
//! | [`ForwardMask`] | whether forward makes its mask, stores it, or is given one |
//! | [`mask::BroadcastShape`], [`broadcast_dropout_forward`] | decisions shared along axes of a tensor: channels, rows, time steps |
//! | [`mask::Rates`], [`mask::RateSchedule`], [`mask::drawn_rate`] | a rate for each row or column, schedules, rates drawn for each step |
//! | [`Saved`] | what forward keeps for backward: an output or a pre-activation, and a mask on request |
//! | [`activation`] | the activation functions, with formulas and error bounds |
//! | [`MatRef`], [`MatMut`] | matrices as borrowed views, with a row stride or transposed |
//! | [`Level`] | the instruction set: chosen at run time, or forced |
//! | [`philox`] | the random generator |
//! | [`reference`](mod@reference) | every operation once more, naive |
//!
//! # Conventions
//!
//! - A rate is the probability to **drop**. The scale is applied in training (inverted dropout), and
//!   inference is the bare layer; [`Scaling::Classical`] is the other way round.
//! - Matrices are row-major: a batch is [batch, features], weights are [inputs, units].
//! - Arguments that disagree are an [`Error`] that names both sides, and outputs stay as they were.
//!   Nothing panics.
//! - A dropped element is +0.0, whatever the value was (with [`AlphaDropout`], what that says).
//! - Operations run on the rayon pool that the caller is in. The number of threads never shows in a
//!   result.

pub mod activation;
mod buffers;
pub mod dense;
pub mod elementwise;
mod error;
mod gather;
mod gemm;
mod isa;
pub mod mask;
mod math;
mod memory;
pub mod nn;
pub mod philox;
pub mod reference;
mod saved;
pub mod sgd;
pub mod softmax;
mod threads;
pub mod unit;
mod view;

pub use activation::Activation;
pub use dense::{
    DenseArgs, DenseUpdate, Gradients, Parameters, dense_backward, dense_forward,
    dense_forward_packed, dense_update,
};
pub use elementwise::*;
pub use error::{Error, Result};
pub use gemm::PackedWeight;
pub use isa::Level;
pub use mask::dropout::{Dropout, Scaling};
pub use mask::key::MaskKey;
pub use mask::keyed::KeyedDropout;
pub use mask::source::{ForwardMask, MaskSource};
pub use mask::stored::Mask;
pub use saved::{Saved, SavedValues};
pub use sgd::{SgdStep, max_norm, sgd_update};
pub use softmax::*;
pub use unit::{
    KeptUnits, Side, ThinArgs, ThinUpdate, gather_units, scatter_units, thin_backward,
    thin_forward, thin_update,
};
pub use view::{InOut, MatMut, MatRef};

/// The example of the README, as a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
