//! The reference of loss and update.

use super::{Real, at, dense_backward, for_each};
use crate::dense::{DenseArgs, DenseUpdate, Gradients, Parameters};
use crate::error::{Result, check_shape};
use crate::saved::Saved;
use crate::sgd::{SgdStep, check_limit};
use crate::softmax::{LOSS_BLOCK, Loss, check_labels};
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
            velocity.set(r, c, v);
        }
        w.set(r, c, number(-step.learning_rate).mul_add(v, old));
    });
    Ok(())
}

/// The gradients of `dense_backward`, then [`sgd_update`] of weights and biases (without penalties),
/// then [`max_norm`] of the weights. dx is for the weights before the update.
///
/// # Errors
///
/// As for the fast function.
pub fn dense_update<T: Real>(
    args: &DenseUpdate<'_, T>,
    parameters: Parameters<'_, T>,
    saved: &Saved<'_, T>,
    dy: MatRef<'_, T>,
    dx: Option<MatMut<'_, T>>,
) -> Result<()> {
    args.step.check()?;
    args.max_norm.map_or(Ok(()), check_limit)?;
    parameters.check(args.x.cols())?;
    let Parameters { mut w, w_velocity, bias, bias_velocity } = parameters;
    let (inputs, units) = (w.rows(), w.cols());
    let (mut dw, mut db) = (vec![T::ZERO; inputs * units], vec![T::ZERO; units]);
    let layer = DenseArgs {
        activation: args.activation,
        dropout: args.dropout,
        key: args.key,
        input_dropout: args.input_dropout,
        weight_dropout: args.weight_dropout,
        ..DenseArgs::new(args.x, w.as_ref())
    };
    let dw_view = Some(MatMut::new(&mut dw, inputs, units)?);
    dense_backward(&layer, saved, dy, Gradients { dx, dw: dw_view, db: Some(&mut db) })?;
    sgd_update(w.reborrow(), MatRef::new(&dw, inputs, units)?, w_velocity, &args.step)?;
    if let Some(bias) = bias {
        let step = args.step.without_penalties();
        let velocity = bias_velocity.map(MatMut::row_vector);
        sgd_update(MatMut::row_vector(bias), MatRef::row_vector(&db), velocity, &step)?;
    }
    args.max_norm.map_or(Ok(()), |limit| max_norm(w, limit))
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
            w.set(r, c, value * factor);
        }
    }
    Ok(())
}

/// Mean cross-entropy of the softmax of each row, and its gradient.
///
/// # Errors
///
/// As for the fast function.
pub fn softmax_cross_entropy<T: Real + Into<f64>>(
    logits: MatRef<'_, T>,
    labels: &[u32],
    mut gradient: Option<MatMut<'_, T>>,
) -> Result<Loss> {
    let (rows, cols) = (logits.rows(), logits.cols());
    check_labels(labels, rows, cols)?;
    if let Some(gradient) = &gradient {
        check_shape(gradient.named("the gradient"), logits.named("the logits"))?;
    }
    let mut loss = Loss { sum: 0.0, errors: 0, examples: rows };
    let mut block_sum = 0.0;
    for (r, &label) in labels.iter().enumerate() {
        let z = |c| at(&logits, r, c);
        let largest = (1..cols).fold(0, |best, c| if z(best) < z(c) { c } else { best });
        let mut lanes = [T::ZERO; 16];
        for c in 0..cols {
            lanes[c % 16] = lanes[c % 16] + (z(c) - z(largest)).exp();
        }
        for half in [8, 4, 2, 1] {
            for i in 0..half {
                lanes[i] = lanes[i] + lanes[i + half];
            }
        }
        let total = lanes[0];
        let batch = T::from_f64(1.0) / T::from_f64(rows as f64);
        for c in 0..cols {
            let target = T::from_f64(if c == label as usize { 1.0 } else { 0.0 });
            if let Some(gradient) = &mut gradient {
                gradient.set(r, c, ((z(c) - z(largest)).exp() / total - target) * batch);
            }
        }
        let of_label: f64 = z(label as usize).into() - z(largest).into();
        block_sum += libm::log(total.into()) - of_label;
        loss.errors += usize::from(largest != label as usize);
        // Sums of blocks of rows, in order.
        if (r + 1) % LOSS_BLOCK == 0 || r + 1 == rows {
            loss.sum += block_sum;
            block_sum = 0.0;
        }
    }
    Ok(loss)
}
