//! Alpha dropout for networks of SELU units: what is dropped falls to the value that SELU saturates
//! at, and an affine map restores mean 0 and variance 1.
//!
//! ```text
//! y  = a · (keep ? x : α') + b           α' = -λα, the limit of SELU for z -> -∞
//! dx = keep ? dy · a : 0
//! a  = 1 / √(q + α'² q (1 - q)),    b = -a (1 - q) α'
//! ```
//!
//! q is the realised keep probability T / 2^32. For x of mean 0 and variance 1 y has the same
//! (Klambauer, Unterthiner, Mayr and Hochreiter 2017, section "New dropout technique").

use super::kernel::Pass;
use super::ops::Op;
use super::{Run, Step};
use crate::Level;
use crate::activation::Activation;
use crate::buffers::{Lease, Slot};
use crate::error::{Result, check_shape};
use crate::isa::Isa;
use crate::mask::{Bits, Dropout, ForwardMask, Mask, MaskKey};
use crate::math::selu;
use crate::view::{MatMut, MatRef, Source, Target};

/// How much to drop, and the affine map that makes up for it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AlphaDropout {
    dropout: Dropout,
    scale: f64,
    shift: f64,
    dropped: f64,
}

impl AlphaDropout {
    /// Drops with probability `rate`.
    ///
    /// At rate 0 it is the identity. At rate 1, where nothing is left that could have a variance,
    /// a, b and the value of a dropped element are 0: the last is the limit, which falls like √q.
    ///
    /// # Errors
    ///
    /// When `rate` is NaN, below 0 or above 1.
    pub fn new(rate: f64) -> Result<Self> {
        let dropout = Dropout::new(rate)?;
        let (q, limit) = (dropout.keep(), -selu::LAMBDA * selu::ALPHA);
        let (scale, shift, dropped) = match dropout.threshold() {
            0 => (0.0, 0.0, 0.0),
            // Adding -0 changes nothing, not even a zero's sign.
            0x1_0000_0000 => (1.0, -0.0, limit),
            _ => {
                let scale = 1.0 / (q + limit * limit * q * (1.0 - q)).sqrt();
                // The last is a α' + b, without the difference.
                (scale, -scale * (1.0 - q) * limit, scale * limit * q)
            }
        };
        Ok(Self { dropout, scale, shift, dropped })
    }

    /// The probability to drop, as it was given.
    pub fn rate(&self) -> f64 {
        self.dropout.rate()
    }

    /// The mask's rate and threshold. Its own scale is not used.
    pub fn dropout(&self) -> &Dropout {
        &self.dropout
    }

    /// a, the factor of kept elements and of their gradients.
    pub fn scale(&self) -> f64 {
        self.scale
    }

    /// b, which is added to kept elements.
    pub fn shift(&self) -> f64 {
        self.shift
    }

    /// a α' + b, the value of dropped elements.
    pub fn dropped(&self) -> f64 {
        self.dropped
    }
}

/// `y = keep ? a x + b : a α' + b`; the mask is made, stored or given as [`ForwardMask`] says.
///
/// x and y are [rows, cols]. With a key of [`MaskKey::units`] it is the feature-wise variant: one
/// decision for a column in all rows, and a mask of one row. Images are of that kind with one row a
/// pixel and one column a channel, as they are or as transposed views.
///
/// a, b and the value of dropped elements are computed in f64 and rounded once; `a x + b` is one fused
/// multiply-add.
///
/// # Errors
///
/// When shapes differ, also that of a mask, or the key's origin and the shape go past what a mask can
/// address.
pub fn alpha_dropout_forward<'m>(
    x: MatRef<'_>,
    mut y: MatMut<'_>,
    dropout: &AlphaDropout,
    key: &MaskKey,
    mask: impl Into<ForwardMask<'m>>,
) -> Result<()> {
    check_shape(x.named("x"), y.named("y"))?;
    forward(x.source(), y.target(), (y.rows(), y.cols()), dropout, key, mask.into())
}

/// [`alpha_dropout_forward`] with `x` overwritten by `y`.
///
/// # Errors
///
/// As for [`alpha_dropout_forward`].
pub fn alpha_dropout_forward_in_place<'m>(
    mut x: MatMut<'_>,
    dropout: &AlphaDropout,
    key: &MaskKey,
    mask: impl Into<ForwardMask<'m>>,
) -> Result<()> {
    let y = x.target();
    forward(y.source(), y, (x.rows(), x.cols()), dropout, key, mask.into())
}

/// `dx = keep ? dy · a : 0`, with the stored mask or, without one, the mask of the key.
///
/// # Errors
///
/// As for [`alpha_dropout_forward`].
pub fn alpha_dropout_backward(
    dy: MatRef<'_>,
    mut dx: MatMut<'_>,
    dropout: &AlphaDropout,
    key: &MaskKey,
    mask: Option<&Mask>,
) -> Result<()> {
    check_shape(dy.named("dy"), dx.named("dx"))?;
    backward(dy.source(), dx.target(), (dx.rows(), dx.cols()), dropout, key, mask)
}

/// [`alpha_dropout_backward`] with `dy` overwritten by `dx`.
///
/// # Errors
///
/// As for [`alpha_dropout_forward`].
pub fn alpha_dropout_backward_in_place(
    mut dy: MatMut<'_>,
    dropout: &AlphaDropout,
    key: &MaskKey,
    mask: Option<&Mask>,
) -> Result<()> {
    let dx = dy.target();
    backward(dx.source(), dx, (dy.rows(), dy.cols()), dropout, key, mask)
}

/// Name, rows and columns of the mask that belongs to a matrix; `Ok` when the key can address it.
pub(crate) fn mask_of(
    name: &'static str,
    (rows, cols): (usize, usize),
    key: &MaskKey,
) -> Result<(&'static str, usize, usize)> {
    let rows = if key.is_units() { 1 } else { rows };
    key.check(rows, cols)?;
    Ok((if key.is_units() { "one row of features" } else { name }, rows, cols))
}

fn forward(
    x: Source,
    y: Target,
    shape: (usize, usize),
    dropout: &AlphaDropout,
    key: &MaskKey,
    mask: ForwardMask<'_>,
) -> Result<()> {
    mask.check(mask_of("x", shape, key)?)?;
    let level = Level::current()?;
    let op = Alpha {
        scale: dropout.scale as f32,
        shift: dropout.shift as f32,
        dropped: dropout.dropped as f32,
    };
    with_bits(&dropout.dropout, key, shape.1, mask, |bits| pass(x, y, shape, bits).run(level, op))
}

fn backward(
    dy: Source,
    dx: Target,
    shape: (usize, usize),
    dropout: &AlphaDropout,
    key: &MaskKey,
    mask: Option<&Mask>,
) -> Result<()> {
    let mask = mask.map_or(ForwardMask::Forget, ForwardMask::Given);
    mask.check(mask_of("dy", shape, key)?)?;
    let level = Level::current()?;
    let step = Step::Backward { scale: dropout.scale as f32, unscale: 1.0, from_output: false };
    with_bits(&dropout.dropout, key, shape.1, mask, |bits| {
        let pass = pass(dy, dx, shape, bits);
        Activation::Identity.with(Run { level, pass, step });
    })
}

/// Calls `f` with the bits of an operation: those of elements, or the same row of features for all
/// rows.
fn with_bits(
    dropout: &Dropout,
    key: &MaskKey,
    cols: usize,
    mask: ForwardMask<'_>,
    f: impl FnOnce(Bits),
) -> Result<()> {
    match mask {
        mask if !key.is_units() => f(mask.bits(dropout, key)),
        ForwardMask::Given(mask) => f(Bits::same_for_all_rows(mask)),
        ForwardMask::Store(mask) => {
            mask.fill(dropout, key)?;
            f(Bits::same_for_all_rows(mask));
        }
        ForwardMask::Forget => {
            let mut features: Lease<Mask> = Slot::Decisions.take();
            features.reshape(1, cols)?;
            features.fill(dropout, key)?;
            f(Bits::same_for_all_rows(&features));
        }
    }
    Ok(())
}

/// One input, one output.
fn pass(main: Source, out: Target, (rows, cols): (usize, usize), bits: Bits) -> Pass {
    Pass { rows, cols, main, second: None, bias: None, out, sum: None, bits }
}

/// `keep ? main · scale + shift : dropped`.
#[derive(Clone, Copy)]
struct Alpha {
    scale: f32,
    shift: f32,
    dropped: f32,
}

impl Op for Alpha {
    const SECOND: bool = false;
    const BIAS: bool = false;
    const SUMS: bool = false;
    const LONG: bool = false;

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I, main: I::F32, _: I::F32, _: I::F32, keep: I::Mask) -> I::F32 {
        let kept = isa.mul_add(main, isa.splat(self.scale), isa.splat(self.shift));
        isa.select(keep, kept, isa.splat(self.dropped))
    }
}
