//! Every operation once more, naive: the meaning of the fast one, in so few lines that it can be
//! checked by reading. Same names, same arguments, one operation a file. Where the fast function
//! refuses its arguments, the reference refuses them with the same [`Error`]. It copies what it works on,
//! so that memory that cannot be had ends the program.
//!
//! Everything is generic over [`Real`]:
//!
//! - in f32 it is the exact chain of operations of the numerical contract, with `f32::mul_add`; on
//!   every level with fused multiply-add the fast functions return these bits;
//! - in f64 it is the formula, for error bounds and finite differences.
//!
//! # The mask contract
//!
//! [`keeps`] is the contract itself: whether an element is kept, of (seed, layer, step, row, column,
//! rate) and nothing else, bit by bit.
//!
//! ```
//! use fused_dropout::{Dropout, Mask, MaskKey, reference};
//!
//! let dropout = Dropout::new(0.3)?.with_key(MaskKey::new(42, 1, 0)?.with_origin(5, 7));
//! let mask = reference::mask(2, 40, &dropout)?;
//! for (i, keep) in mask.into_iter().enumerate() {
//!     assert_eq!(keep, reference::keeps(&dropout, i / 40, i % 40));
//! }
//! # Ok::<(), fused_dropout::Error>(())
//! ```

mod alpha;
mod broadcast;
mod elementwise;
mod gaussian;
mod lanes;
mod layer;
mod loss;
mod monte_carlo;
mod rates;
mod real;
mod schedule;
mod softmax;
mod update;

pub use alpha::{alpha_dropout_backward, alpha_dropout_forward};
pub use broadcast::{broadcast_dropout_backward, broadcast_dropout_forward};
pub use elementwise::{
    bias_activation_dropout_backward, bias_activation_dropout_forward, dropout_backward,
    dropout_forward,
};
pub use gaussian::{gaussian_dropout_backward, gaussian_dropout_forward, normal, standard_normal};
pub use layer::{
    dense_apply, dense_backward, dense_forward, dense_update, gather_units, scatter_units,
};
pub use loss::{cross_entropy, huber, mean_squared_error, softmax_cross_entropy};
pub use monte_carlo::predict_monte_carlo;
pub use rates::{mask_with_rates, rates_dropout_backward, rates_dropout_forward};
pub use real::Real;
pub use schedule::{drawn_rate, rate_at};
pub use softmax::{softmax_dropout_backward, softmax_dropout_forward};
pub use update::{apply, global_norm, max_norm};

use crate::buffers;
use crate::error::{Error, Result};
use crate::mask::{KeyedDropout, Mask, MaskSource};
use crate::philox::philox4x32_10;
use crate::view::{InOut, MatMut, MatRef};

/// Whether row `row`, column `col` of an operation is kept: the mask contract, bit by bit.
#[must_use]
pub fn keeps(dropout: &KeyedDropout, row: usize, col: usize) -> bool {
    let (dropout, key) = (dropout.dropout(), dropout.key());
    let (row, col) = (key.row0().wrapping_add(row as u64), key.col0().wrapping_add(col as u64));
    let (b, w, i) = ((col / 128) as u32, (col % 128) as usize / 32, col % 32);
    let u = (0..32).fold(0u64, |u, j| {
        let (counter, key) = key.counter(row as u32, b, j);
        u | u64::from((philox4x32_10(counter, key)[w] >> i) & 1) << (31 - j)
    });
    u < dropout.threshold()
}

/// All bits of a mask, row after row.
///
/// # Errors
///
/// When the key's origin and the shape go past what a mask can address.
pub fn mask(rows: usize, cols: usize, dropout: &KeyedDropout) -> Result<Vec<bool>> {
    dropout.check(rows, cols)?;
    let mut mask = room(rows, cols)?;
    for_each(rows, cols, |r, c| mask.push(keeps(dropout, r, c)));
    Ok(mask)
}

/// Room for the bits of a mask.
fn room(rows: usize, cols: usize) -> Result<Vec<bool>> {
    let len = rows.checked_mul(cols).ok_or(Error::Overflow { rows, stride: cols })?;
    let mut mask = Vec::new();
    buffers::reserve(&mut mask, len)?;
    Ok(mask)
}

/// The mask that an operation is given, which has been checked; or, on request, its mask is stored.
fn given<'m>(mask: MaskSource<'m>, dropout: &KeyedDropout) -> Result<Option<&'m Mask>> {
    match mask {
        MaskSource::Key => Ok(None),
        MaskSource::Store(mask) => mask.fill(dropout).map(|()| None),
        MaskSource::Given(mask) => Ok(Some(mask)),
    }
}

/// The same for an operation on a matrix, given as name, rows and columns, that has yet to check it.
fn given_mask<'m>(
    mask: MaskSource<'m>,
    matrix: (&'static str, usize, usize),
    dropout: &KeyedDropout,
) -> Result<Option<&'m Mask>> {
    mask.check(matrix)?;
    given(mask, dropout)
}

/// Whether an element is kept: by the mask that is given, else by the contract.
fn decides(mask: Option<&Mask>, dropout: &KeyedDropout, row: usize, col: usize) -> bool {
    mask.map_or_else(|| keeps(dropout, row, col), |mask| mask.get(row, col) == Some(true))
}

/// What an operation reads, row after row, and what it writes.
fn parts<'a, T: Real>(xy: InOut<'a, T>) -> (Vec<T>, MatMut<'a, T>) {
    match xy {
        InOut::Separate(x, y) => (elements(&x), y),
        InOut::InPlace(y) => (elements(&y.as_ref()), y),
    }
}

/// All elements of a matrix, row after row.
fn elements<T: Real>(matrix: &MatRef<'_, T>) -> Vec<T> {
    let mut values = Vec::new();
    for_each(matrix.rows(), matrix.cols(), |r, c| values.push(at(matrix, r, c)));
    values
}

/// An element that is known to lie in the matrix.
fn at<T: Real>(matrix: &MatRef<'_, T>, row: usize, col: usize) -> T {
    matrix.at(row, col)
}

fn for_each(rows: usize, cols: usize, mut f: impl FnMut(usize, usize)) {
    if cols == 0 {
        return;
    }
    for row in 0..rows {
        for col in 0..cols {
            f(row, col);
        }
    }
}
