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

use super::kernel::{Pass, Tensors};
use super::ops::Op;
use super::run::scaled;
use crate::Level;
use crate::buffers::{Lease, Slot};
use crate::error::{Error, Result};
use crate::isa::Isa;
use crate::mask::{Bits, Dropout, KeyedDropout, Mask, MaskKey, MaskSource};
use crate::math::selu;
use crate::view::{InOut, Source, Target};

/// How much to drop, and the affine map that makes up for it.
#[derive(Clone, Copy, Debug, PartialEq)]
#[must_use]
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

    /// This dropout with the mask of a key.
    pub const fn with_key(self, key: MaskKey) -> KeyedDropout<Self> {
        KeyedDropout::new(self, key)
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

impl KeyedDropout<AlphaDropout> {
    /// The dropout of the mask.
    pub(crate) fn of_mask(&self) -> KeyedDropout {
        self.dropout().dropout.with_key(*self.key())
    }
}

/// `y = keep ? a x + b : a α' + b`.
///
/// x and y are [rows, cols], and so is the mask, which is made, stored or given as [`MaskSource`] says.
/// With a key of [`MaskKey::units`] it is the feature-wise variant: one decision for a column in all
/// rows, and a mask of [1, cols]. Images are of that kind with one row a pixel and one column a
/// channel, as they are or as transposed views.
///
/// a, b and the value of dropped elements are computed in f64 and rounded once; `a x + b` is one fused
/// multiply-add.
///
/// ```
/// use fused_dropout::elementwise::{
///     AlphaDropout, alpha_dropout_backward, alpha_dropout_forward,
/// };
/// use fused_dropout::{Mask, MaskKey};
///
/// let alpha = AlphaDropout::new(0.1)?;
/// let keyed = alpha.with_key(MaskKey::new(42, 1, 0)?);
/// let (x, mut y) = ([1.0; 100], [0.0; 100]);
/// let mut mask = Mask::new(1, 100)?;
/// alpha_dropout_forward((&x[..], &mut y[..]), &keyed, &mut mask)?;
///
/// let mut dy = [1.0; 100];
/// alpha_dropout_backward(&mut dy[..], &keyed, &mask)?;
/// for i in 0..100 {
///     match mask.get(0, i) {
///         Some(true) => assert_eq!(dy[i], alpha.scale() as f32),
///         _ => assert_eq!((y[i], dy[i]), (alpha.dropped() as f32, 0.0)),
///     }
/// }
/// # Ok::<(), fused_dropout::Error>(())
/// ```
///
/// # Errors
///
/// When shapes differ, also that of a mask, or the key's origin and the shape go past what a mask can
/// address.
pub fn alpha_dropout_forward<'a, 'm>(
    xy: impl Into<InOut<'a>>,
    dropout: &KeyedDropout<AlphaDropout>,
    mask: impl Into<MaskSource<'m>>,
) -> Result<()> {
    let (mut xy, mask) = (xy.into(), mask.into());
    let shape = check_alpha(&xy, ("x", "y"), dropout.key(), &mask)?;
    let level = Level::current()?;
    let AlphaDropout { scale, shift, dropped, .. } = *dropout.dropout();
    let op = Alpha { scale: scale as f32, shift: shift as f32, dropped: dropped as f32 };
    let (x, y) = xy.pointers();
    with_bits(&dropout.of_mask(), shape, mask, |bits| {
        // SAFETY: views of this shape, which are borrowed for this call, and their mask.
        unsafe { pass(x, y, shape, bits) }.run(level, &op);
    })
}

/// `dx = keep ? dy · a : 0`, the gradient of [`alpha_dropout_forward`], of the same shapes.
///
/// # Errors
///
/// As for [`alpha_dropout_forward`].
pub fn alpha_dropout_backward<'a, 'm>(
    dy_dx: impl Into<InOut<'a>>,
    dropout: &KeyedDropout<AlphaDropout>,
    mask: impl Into<MaskSource<'m>>,
) -> Result<()> {
    let (mut dy_dx, mask) = (dy_dx.into(), mask.into());
    let shape = check_alpha(&dy_dx, ("dy", "dx"), dropout.key(), &mask)?;
    let level = Level::current()?;
    let scale = dropout.dropout().scale as f32;
    let (dy, dx) = dy_dx.pointers();
    with_bits(&dropout.of_mask(), shape, mask, |bits| {
        // SAFETY: views of this shape, which are borrowed for this call, and their mask.
        let pass = unsafe { pass(dy, dx, shape, bits) };
        scaled(level, pass, scale);
    })
}

/// Rows and columns, if the arguments agree with each other; input and output have these names.
pub(crate) fn check_alpha<T>(
    xy: &InOut<'_, T>,
    (input, output): (&'static str, &'static str),
    key: &MaskKey,
    mask: &MaskSource<'_>,
) -> Result<(usize, usize)> {
    let (rows, cols) = xy.check(input, output)?;
    if !key.is_units() {
        key.check(rows, cols)?;
        mask.check((input, rows, cols))?;
        return Ok((rows, cols));
    }
    // Such a key is for one row of decisions, whatever number of rows the matrix has.
    if key.row0() != 0 {
        let what = "the origin of a mask of units, which has row 0 only";
        return Err(Error::Address { what, first: key.row0(), count: 1, limit: 1 });
    }
    key.check(1, cols)?;
    mask.check(("one row of decisions, one a column of the input,", 1, cols))?;
    Ok((rows, cols))
}

/// Calls `f` with the bits of an operation: those of elements, or the same row of features for all rows.
/// An empty matrix has no bits.
fn with_bits(
    dropout: &KeyedDropout,
    (rows, cols): (usize, usize),
    mask: MaskSource<'_>,
    f: impl FnOnce(Bits),
) -> Result<()> {
    let empty = rows == 0 || cols == 0;
    match mask {
        mask if !dropout.key().is_units() => f(mask.bits(dropout)),
        MaskSource::Store(mask) => {
            mask.fill(dropout)?;
            f(Bits::same_for_all_rows(mask));
        }
        // No element to write, and no mask to store.
        MaskSource::Key | MaskSource::Given(_) if empty => {}
        MaskSource::Given(mask) => f(Bits::same_for_all_rows(mask)),
        MaskSource::Key => {
            let mut features: Lease<Mask> = Slot::Decisions.take();
            features.reshape(1, cols)?;
            features.fill(dropout)?;
            f(Bits::same_for_all_rows(&features));
        }
    }
    Ok(())
}

/// One input, one output.
///
/// # Safety
///
/// As for [`Pass::new`].
unsafe fn pass<'a>(
    main: Source,
    out: Target,
    (rows, cols): (usize, usize),
    bits: Bits,
) -> Pass<'a> {
    let tensors = Tensors { rows, cols, main, second: None, bias: None, out, sum: None, bits };
    // SAFETY: the caller's promise.
    unsafe { Pass::new(tensors) }
}

/// `keep ? main · scale + shift : dropped`.
#[derive(Clone, Copy)]
struct Alpha {
    scale: f32,
    shift: f32,
    dropped: f32,
}

impl Op for Alpha {
    type General = Self;

    fn general(self) -> Self {
        self
    }

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I, main: I::F32, _: I::F32, _: I::F32, keep: I::Mask) -> I::F32 {
        let kept = isa.mul_add(main, isa.splat(self.scale), isa.splat(self.shift));
        isa.select(keep, kept, isa.splat(self.dropped))
    }
}
