//! The reference of dropout, and of bias, activation and dropout in one.

use super::{Real, at, decides, for_each, given, parts};
use crate::activation::Activation;
use crate::elementwise::BiasActivationDropout;
use crate::error::Result;
use crate::mask::{Dropout, KeyedDropout, MaskSource};
use crate::saved::Saved;
use crate::view::{InOut, MatRef};

/// `y = keep ? x · scale : 0`.
///
/// # Errors
///
/// As for the fast function.
pub fn dropout_forward<'a, 'm, T: Real>(
    xy: impl Into<InOut<'a, T>>,
    dropout: &KeyedDropout,
    mask: impl Into<MaskSource<'m>>,
) -> Result<()> {
    forward(&BiasActivationDropout::only(dropout), xy.into(), ("x", "y"), mask.into())
}

/// `dx = keep ? dy · scale : 0`.
///
/// # Errors
///
/// As for the fast function.
pub fn dropout_backward<'a, 'm, T: Real>(
    dy_dx: impl Into<InOut<'a, T>>,
    dropout: &KeyedDropout,
    mask: impl Into<MaskSource<'m>>,
) -> Result<()> {
    forward(&BiasActivationDropout::only(dropout), dy_dx.into(), ("dy", "dx"), mask.into())
}

/// `y = [residual +] (keep ? act(x + b) · scale : 0)`.
///
/// # Errors
///
/// As for the fast function.
pub fn bias_activation_dropout_forward<'a, 'm, T: Real>(
    args: &BiasActivationDropout<'_, T>,
    xy: impl Into<InOut<'a, T>>,
    mask: impl Into<MaskSource<'m>>,
) -> Result<()> {
    forward(args, xy.into(), ("x", "y"), mask.into())
}

fn forward<T: Real>(
    args: &BiasActivationDropout<'_, T>,
    xy: InOut<'_, T>,
    names: (&'static str, &'static str),
    mask: MaskSource<'_>,
) -> Result<()> {
    let (rows, cols) = args.check_forward(&xy, names, &mask)?;
    let given = given(mask, &args.dropout)?;
    let (x, mut y) = parts(xy);
    for_each(rows, cols, |r, c| {
        let z = add_bias(x[r * cols + c], args.bias, c);
        let kept = decides(given, &args.dropout, r, c);
        let value = activate(args.activation, z, args.dropout.dropout(), kept);
        y.put(r, c, args.residual.map_or(value, |residual| at(&residual, r, c) + value));
    });
    Ok(())
}

/// `dz = keep ? dy · scale · act'(z) : 0`, and its column sums.
///
/// # Errors
///
/// As for the fast function.
pub fn bias_activation_dropout_backward<'a, 'm, T: Real>(
    args: &BiasActivationDropout<'_, T>,
    saved: &Saved<'_, T>,
    dy_dz: impl Into<InOut<'a, T>>,
    db: Option<&mut [T]>,
    mask: impl Into<MaskSource<'m>>,
) -> Result<()> {
    let (dy_dz, mask) = (dy_dz.into(), mask.into());
    let (rows, cols) = args.check_backward(saved, &dy_dz, db.as_deref(), &mask)?;
    let given = given(mask, &args.dropout)?;
    let (dy, mut dz) = parts(dy_dz);
    let (activation, dropout) = (args.activation, args.dropout.dropout());
    for_each(rows, cols, |r, c| {
        let g = dy[r * cols + c] * T::scale(dropout);
        let gradient = match saved {
            Saved::Nothing => g,
            Saved::Output(y) => {
                T::backward_from_output(activation, g, at(y, r, c) * T::unscale(dropout))
            }
            Saved::PreActivation(z) => {
                T::backward(activation, g, add_bias(at(z, r, c), args.bias, c))
            }
        };
        let kept = decides(given, &args.dropout, r, c);
        dz.put(r, c, if kept { gradient } else { T::ZERO });
    });
    if let Some(db) = db {
        column_sums(dz.as_ref(), db);
    }
    Ok(())
}

/// `keep ? act(z) · scale : 0`.
pub(super) fn activate<T: Real>(activation: Activation, z: T, dropout: &Dropout, kept: bool) -> T {
    if kept { T::value(activation, z) * T::scale(dropout) } else { T::ZERO }
}

fn add_bias<T: Real>(x: T, bias: Option<&[T]>, col: usize) -> T {
    bias.map_or(x, |bias| x + bias[col])
}

fn column_sums<T: Real>(dz: MatRef<'_, T>, db: &mut [T]) {
    db.fill(T::ZERO);
    for_each(dz.rows(), dz.cols(), |r, c| db[c] = db[c] + at(&dz, r, c));
}
