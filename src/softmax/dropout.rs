//! Softmax and dropout over rows of attention scores, in one sweep forward and one backward, for
//! trainers that have the products around them.
//!
//! ```text
//! p  = softmax(x)                         of the columns that the row sees
//! y  = keep ? p · scale : 0
//! dx = p · (g - sum of g · p),            g = keep ? dy · scale : 0
//! ```
//!
//! All matrices of a call are [queries, keys], and their rows are independent of each other: the
//! scores of several heads or examples are either one matrix with all their rows, or several calls,
//! each with the first of its rows as its key's origin. Without a causal mask both are the same.
//!
//! The largest score of a row is subtracted first, so nothing overflows. Sums over a row have 16
//! virtual lanes, column c in lane c % 16, and a fixed tree, so their order depends on nothing but the
//! shape.
//!
//! | row | p |
//! |---|---|
//! | all scores -∞ | 0: such a row attends to nothing |
//! | some scores -∞ | 0 there, as usual |
//! | a score is NaN or +∞ | NaN in all columns that the row sees |
//! | a column that the row does not see | +0, whatever the score is; y and dx too |
//!
//! Vaswani et al. 2017, "Attention is all you need", section 3.2, with the dropout of the attention
//! weights that its implementations have.

use super::rows::Shape;
use super::sweeps::{Backward, Forward};
use crate::Level;
use crate::error::{Result, check_shape};
use crate::mask::{Dropout, ForwardMask, Mask, MaskKey};
use crate::view::{MatMut, MatRef, Source, Target};

/// Softmax and dropout over rows of attention scores.
#[derive(Clone, Copy, Debug)]
pub struct SoftmaxDropout {
    /// With an offset, row `i` of a call sees the columns `0..=i + offset` only; without, all. The
    /// offset is the number of keys before the first query.
    pub causal: Option<usize>,
    /// How much to drop.
    pub dropout: Dropout,
    /// Which mask.
    pub key: MaskKey,
}

/// `y = keep ? softmax(x) · scale : 0`, storing the probabilities (before dropout) on request; the mask
/// is made, stored or given as [`ForwardMask`] says.
///
/// x, y and the probabilities are [rows, cols]. With e = exp(x - max x) a probability is
/// e · (1 / sum of e). Its relative error is at most (2 d + n/16 + 14) · 2^-24 for a row that sees n
/// finite scores with a distance of d between the largest and the smallest.
///
/// # Errors
///
/// When shapes differ, also that of a mask, or the key's origin and the shape go past what a mask can
/// address.
pub fn softmax_dropout_forward<'m>(
    args: &SoftmaxDropout,
    x: MatRef<'_>,
    mut y: MatMut<'_>,
    probabilities: Option<MatMut<'_>>,
    mask: impl Into<ForwardMask<'m>>,
) -> Result<()> {
    check_shape(x.named("x"), y.named("y"))?;
    forward(args, x.source(), y.target(), (y.rows(), y.cols()), probabilities, mask.into())
}

/// [`softmax_dropout_forward`] with `x` overwritten by `y`.
///
/// # Errors
///
/// As for [`softmax_dropout_forward`].
pub fn softmax_dropout_forward_in_place<'m>(
    args: &SoftmaxDropout,
    mut x: MatMut<'_>,
    probabilities: Option<MatMut<'_>>,
    mask: impl Into<ForwardMask<'m>>,
) -> Result<()> {
    let y = x.target();
    forward(args, y.source(), y, (x.rows(), x.cols()), probabilities, mask.into())
}

/// `dx = p · (g - sum of g · p)` with `g = keep ? dy · scale : 0`, from the probabilities of forward
/// and the stored mask or, without one, the mask of the key.
///
/// # Errors
///
/// As for [`softmax_dropout_forward`].
pub fn softmax_dropout_backward(
    args: &SoftmaxDropout,
    probabilities: MatRef<'_>,
    dy: MatRef<'_>,
    mut dx: MatMut<'_>,
    mask: Option<&Mask>,
) -> Result<()> {
    check_shape(dy.named("dy"), dx.named("dx"))?;
    backward(args, probabilities, dy.source(), dx.target(), (dx.rows(), dx.cols()), mask)
}

/// [`softmax_dropout_backward`] with `dy` overwritten by `dx`.
///
/// # Errors
///
/// As for [`softmax_dropout_forward`].
pub fn softmax_dropout_backward_in_place(
    args: &SoftmaxDropout,
    probabilities: MatRef<'_>,
    mut dy: MatMut<'_>,
    mask: Option<&Mask>,
) -> Result<()> {
    let dx = dy.target();
    backward(args, probabilities, dx.source(), dx, (dy.rows(), dy.cols()), mask)
}

fn forward(
    args: &SoftmaxDropout,
    x: Source,
    y: Target,
    (rows, cols): (usize, usize),
    mut probabilities: Option<MatMut<'_>>,
    mask: ForwardMask<'_>,
) -> Result<()> {
    args.key.check(rows, cols)?;
    let level = Level::current()?;
    if let Some(p) = &probabilities {
        check_shape(p.named("the probabilities"), ("x", rows, cols))?;
    }
    mask.check(("x", rows, cols))?;
    let shape = Shape { rows, cols, causal: args.causal };
    let stores_mask = matches!(mask, ForwardMask::Store(_));
    let bits = mask.bits(&args.dropout, &args.key);
    let p = probabilities.as_mut().map(MatMut::target);
    let scale = args.dropout.scale();
    shape.run(level, Forward { shape, x, y, p, bits, stores_mask, scale })
}

fn backward(
    args: &SoftmaxDropout,
    probabilities: MatRef<'_>,
    dy: Source,
    dx: Target,
    (rows, cols): (usize, usize),
    mask: Option<&Mask>,
) -> Result<()> {
    args.key.check(rows, cols)?;
    let level = Level::current()?;
    check_shape(probabilities.named("the probabilities"), ("dy", rows, cols))?;
    let mask = mask.map_or(ForwardMask::Forget, ForwardMask::Given);
    mask.check(("dy", rows, cols))?;
    let shape = Shape { rows, cols, causal: args.causal };
    let bits = mask.bits(&args.dropout, &args.key);
    let (p, scale) = (probabilities.source(), args.dropout.scale());
    shape.run(level, Backward { shape, p, dy, dx, bits, scale })
}
