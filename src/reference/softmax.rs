//! The reference of softmax with dropout.

use super::{Real, at, decides, given, lanes, parts};
use crate::error::Result;
use crate::mask::MaskSource;
use crate::softmax::SoftmaxDropout;
use crate::view::{InOut, MatMut, MatRef};

/// Columns that a row sees.
fn seen(args: &SoftmaxDropout, row: usize, cols: usize) -> usize {
    (0..cols).filter(|&c| args.causal.is_none_or(|offset| c <= row.saturating_add(offset))).count()
}

/// `y = keep ? softmax(x) · scale : 0`.
///
/// # Errors
///
/// As for the fast function.
pub fn softmax_dropout_forward<'a, 'm, T: Real>(
    args: &SoftmaxDropout,
    xy: impl Into<InOut<'a, T>>,
    mut probabilities: Option<MatMut<'_, T>>,
    mask: impl Into<MaskSource<'m>>,
) -> Result<()> {
    let (xy, mask) = (xy.into(), mask.into());
    let (rows, cols) = args.check_forward(&xy, probabilities.as_ref(), &mask)?;
    let given = given(mask, &args.dropout)?;
    let (x, mut y) = parts(xy);
    let nothing = T::from_f64(f64::NEG_INFINITY);
    for r in (0..rows).filter(|_| cols > 0) {
        let (x, seen) = (&x[r * cols..][..cols], seen(args, r, cols));
        let largest = x[..seen].iter().fold(nothing, |most, x| if most < *x { *x } else { most });
        let shift = if largest == nothing { T::ZERO } else { largest };
        let sum = lanes::sum(seen, |c, lane| lane + (x[c] - shift).exp());
        let reciprocal = if sum == T::ZERO { T::ZERO } else { T::from_f64(1.0) / sum };
        for (c, x) in x.iter().enumerate() {
            let p = if c < seen { (*x - shift).exp() * reciprocal } else { T::ZERO };
            if let Some(probabilities) = &mut probabilities {
                probabilities.put(r, c, p);
            }
            let kept = c < seen && decides(given, &args.dropout, r, c);
            y.put(r, c, if kept { p * T::scale(args.dropout.dropout()) } else { T::ZERO });
        }
    }
    Ok(())
}

/// `dx = p · (g - sum of g · p)`, `g = keep ? dy · scale : 0`.
///
/// # Errors
///
/// As for the fast function.
pub fn softmax_dropout_backward<'a, 'm, T: Real>(
    args: &SoftmaxDropout,
    probabilities: MatRef<'_, T>,
    dy_dx: impl Into<InOut<'a, T>>,
    mask: impl Into<MaskSource<'m>>,
) -> Result<()> {
    let (dy_dx, mask) = (dy_dx.into(), mask.into());
    let (rows, cols) = args.check_backward(&probabilities, &dy_dx, &mask)?;
    let given = given(mask, &args.dropout)?;
    let (dy, mut dx) = parts(dy_dx);
    for r in (0..rows).filter(|_| cols > 0) {
        let (dy, seen) = (&dy[r * cols..][..cols], seen(args, r, cols));
        let p = |c| at(&probabilities, r, c);
        let g = |c| {
            let kept = decides(given, &args.dropout, r, c);
            if kept { dy[c] * T::scale(args.dropout.dropout()) } else { T::ZERO }
        };
        let sum = lanes::sum(seen, |c, lane| g(c).mul_add(p(c), lane));
        for c in 0..cols {
            dx.put(r, c, if c < seen { p(c) * (g(c) - sum) } else { T::ZERO });
        }
    }
    Ok(())
}
