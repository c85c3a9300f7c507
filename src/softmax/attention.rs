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

use super::lines::Shape;
use super::sweeps::{Backward, Forward};
use crate::Level;
use crate::error::{Result, check_shape};
use crate::mask::{KeyedDropout, MaskSource};
use crate::view::{InOut, MatMut, MatRef};

/// Softmax and dropout over rows of attention scores.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
#[must_use]
pub struct SoftmaxDropout {
    /// With an offset, row `i` of a call sees the columns `0..=i + offset` only; without, all. The
    /// offset is the number of keys before the first query.
    pub causal: Option<usize>,
    /// How much to drop, and which mask.
    pub dropout: KeyedDropout,
}

impl SoftmaxDropout {
    /// This dropout, without a causal mask.
    pub fn new(dropout: KeyedDropout) -> Self {
        Self { causal: None, dropout }
    }

    /// The same where row `i` sees the columns `0..=i + offset` only.
    pub fn with_causal(self, offset: usize) -> Self {
        Self { causal: Some(offset), ..self }
    }

    /// Rows and columns of the forward pass, if its arguments agree.
    pub(crate) fn check_forward<T>(
        &self,
        xy: &InOut<'_, T>,
        probabilities: Option<&MatMut<'_, T>>,
        mask: &MaskSource<'_>,
    ) -> Result<(usize, usize)> {
        let (rows, cols) = xy.check("x", "y")?;
        self.dropout.check(rows, cols)?;
        if let Some(p) = probabilities {
            check_shape(p.named("the probabilities"), ("x", rows, cols))?;
        }
        mask.check(("x", rows, cols))?;
        Ok((rows, cols))
    }

    /// Rows and columns of the backward pass, if its arguments agree.
    pub(crate) fn check_backward<T>(
        &self,
        probabilities: &MatRef<'_, T>,
        dy_dx: &InOut<'_, T>,
        mask: &MaskSource<'_>,
    ) -> Result<(usize, usize)> {
        let (rows, cols) = dy_dx.check("dy", "dx")?;
        check_shape(probabilities.named("the probabilities"), ("dy", rows, cols))?;
        self.dropout.check(rows, cols)?;
        mask.check(("dy", rows, cols))?;
        Ok((rows, cols))
    }
}

/// `y = keep ? softmax(x) · scale : 0`, storing the probabilities (before dropout) on request.
///
/// x, y, the probabilities and the mask are [rows, cols]; the mask is made, stored or given as
/// [`MaskSource`] says. With e = exp(x - max x) a probability is e · (1 / sum of e). Its relative error
/// is at most (2 d + n/16 + 14) · 2^-24 for a row that sees n finite scores with a distance of d between
/// the largest and the smallest.
///
/// ```
/// use fused_dropout::softmax::{
///     SoftmaxDropout, softmax_dropout_backward, softmax_dropout_forward,
/// };
/// use fused_dropout::{Dropout, MaskKey, MaskSource, MatMut, MatRef};
///
/// // The scores of 2 queries and 3 keys, the first of which comes before the first query.
/// let dropout = Dropout::new(0.1)?.with_key(MaskKey::new(42, 1, 0)?);
/// let args = SoftmaxDropout::new(dropout).with_causal(1);
/// let (x, mut y, mut p) = ([0.5, 0.5, 7.0, 1.0, 1.0, 1.0], [9.0; 6], [9.0; 6]);
/// let xy = (MatRef::new(&x, 2, 3)?, MatMut::new(&mut y, 2, 3)?);
/// softmax_dropout_forward(&args, xy, Some(MatMut::new(&mut p, 2, 3)?), MaskSource::Key)?;
/// assert_eq!(p[..3], [0.5, 0.5, 0.0]);
///
/// // From dy to dx, in place. A constant added to a row's scores changes nothing.
/// let mut dx = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
/// let dy_dx = MatMut::new(&mut dx, 2, 3)?;
/// softmax_dropout_backward(&args, MatRef::new(&p, 2, 3)?, dy_dx, MaskSource::Key)?;
/// assert!(dx[..3].iter().sum::<f32>().abs() < 1e-6);
/// # Ok::<(), fused_dropout::Error>(())
/// ```
///
/// # Errors
///
/// When shapes differ, also that of a mask, or the key's origin and the shape go past what a mask can
/// address.
pub fn softmax_dropout_forward<'a, 'm>(
    args: &SoftmaxDropout,
    xy: impl Into<InOut<'a>>,
    mut probabilities: Option<MatMut<'_>>,
    mask: impl Into<MaskSource<'m>>,
) -> Result<()> {
    let (mut xy, mask) = (xy.into(), mask.into());
    let (rows, cols) = args.check_forward(&xy, probabilities.as_ref(), &mask)?;
    let level = Level::current()?;
    let shape = Shape { rows, cols, causal: args.causal };
    let stores_mask = matches!(mask, MaskSource::Store(_));
    let bits = mask.bits(&args.dropout);
    let (x, y) = xy.pointers();
    let p = probabilities.as_mut().map(MatMut::target);
    let scale = args.dropout.dropout().scale();
    // SAFETY: the matrices are borrowed, and of this shape.
    unsafe { shape.run(level, Forward { shape, x, y, p, bits, stores_mask, scale }) }
}

/// `dx = p · (g - sum of g · p)` with `g = keep ? dy · scale : 0`, from the probabilities p that
/// [`softmax_dropout_forward`] stored. All are [rows, cols].
///
/// # Errors
///
/// As for [`softmax_dropout_forward`].
pub fn softmax_dropout_backward<'a, 'm>(
    args: &SoftmaxDropout,
    probabilities: MatRef<'_>,
    dy_dx: impl Into<InOut<'a>>,
    mask: impl Into<MaskSource<'m>>,
) -> Result<()> {
    let (mut dy_dx, mask) = (dy_dx.into(), mask.into());
    let (rows, cols) = args.check_backward(&probabilities, &dy_dx, &mask)?;
    let level = Level::current()?;
    let shape = Shape { rows, cols, causal: args.causal };
    let stores_mask = matches!(mask, MaskSource::Store(_));
    let bits = mask.bits(&args.dropout);
    let (dy, dx) = dy_dx.pointers();
    let (p, scale) = (probabilities.source(), args.dropout.dropout().scale());
    // SAFETY: the matrices are borrowed, and of this shape.
    unsafe { shape.run(level, Backward { shape, p, dy, dx, bits, stores_mask, scale }) }
}
