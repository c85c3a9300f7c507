//! The reference of parameter updates.

use super::{Real, at, for_each};
use crate::error::{Result, check_shape};
use crate::sgd::{SgdStep, check_limit};
use crate::view::{MatMut, MatRef};

/// `g = dw + weight_decay · w + l1 · sign(w),  v = momentum · v + g,  w = w - learning_rate · v`.
///
/// # Errors
///
/// As for the fast function.
pub fn sgd_update<T: Real>(
    mut w: MatMut<'_, T>,
    dw: MatRef<'_, T>,
    mut velocity: Option<MatMut<'_, T>>,
    step: &SgdStep,
) -> Result<()> {
    step.check()?;
    check_shape(w.named("w"), dw.named("dw"))?;
    if let Some(velocity) = &velocity {
        check_shape(w.named("w"), velocity.named("the velocity"))?;
    }
    let number = |x: f32| T::from_f64(x.into());
    for_each(w.rows(), w.cols(), |r, c| {
        let old = at(&w.as_ref(), r, c);
        let mut v = number(step.weight_decay).mul_add(old, at(&dw, r, c));
        if step.l1 != 0.0 {
            let l1 = number(step.l1);
            v = v + match old {
                old if old > T::ZERO => l1,
                old if old < T::ZERO => T::ZERO - l1,
                _ => T::ZERO,
            };
        }
        if let Some(velocity) = &mut velocity {
            v = number(step.momentum).mul_add(at(&velocity.as_ref(), r, c), v);
            velocity.put(r, c, v);
        }
        w.put(r, c, number(-step.learning_rate).mul_add(v, old));
    });
    Ok(())
}

/// Scales each column of `w` back to the norm `limit` where it is longer.
///
/// # Errors
///
/// As for the fast function.
pub fn max_norm<T: Real>(mut w: MatMut<'_, T>, limit: f32) -> Result<()> {
    check_limit(limit)?;
    let limit = T::from_f64(limit.into());
    for c in 0..w.cols() {
        let mut squares = T::ZERO;
        for r in 0..w.rows() {
            let value = at(&w.as_ref(), r, c);
            squares = value.mul_add(value, squares);
        }
        let norm = squares.sqrt();
        let factor = if norm > limit { limit / norm } else { T::from_f64(1.0) };
        for r in 0..w.rows() {
            let value = at(&w.as_ref(), r, c);
            w.put(r, c, value * factor);
        }
    }
    Ok(())
}
