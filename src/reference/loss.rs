//! The reference of the losses.

use super::{Real, at, lanes};
use crate::error::{Result, check_shape};
use crate::loss::{CrossEntropy, Huber, MeanSquaredError, check_targets, parts};
use crate::softmax::{LOSS_BLOCK, Loss, check_labels, targets};
use crate::view::{MatMut, MatRef};

/// Cross-entropy of the softmax of each row, and the gradient of its mean.
///
/// # Errors
///
/// As for the fast function.
pub fn softmax_cross_entropy<T: Real>(
    logits: MatRef<'_, T>,
    labels: &[u32],
    gradient: Option<MatMut<'_, T>>,
) -> Result<Loss> {
    cross_entropy(&CrossEntropy::new(labels), logits, gradient)
}

/// Cross-entropy of the softmax of each row with smoothed labels, and the gradient of its mean.
///
/// # Errors
///
/// As for the fast function.
pub fn cross_entropy<T: Real>(
    args: &CrossEntropy<'_>,
    logits: MatRef<'_, T>,
    mut gradient: Option<MatMut<'_, T>>,
) -> Result<Loss> {
    let cols = logits.cols();
    let (labels, smoothing) = (args.labels(), args.label_smoothing());
    check_labels(labels, ("rows of the logits", logits.rows()), cols)?;
    if let Some(gradient) = &gradient {
        check_shape(gradient.named("the gradient"), logits.named("the logits"))?;
    }
    let (of_label, of_others) = targets(smoothing, cols);
    let batch = T::from_f64(1.0) / T::from_f64(args.batch() as f64);
    let mut loss = Loss::default();
    // Sums of blocks of rows, in order.
    for (block, labels) in labels.chunks(LOSS_BLOCK).enumerate() {
        let mut sum_of_block = 0.0;
        for (r, &label) in (block * LOSS_BLOCK..).zip(labels) {
            let (z, label) = (|c| at(&logits, r, c), label as usize);
            let largest = (1..cols).fold(0, |best, c| if z(best) < z(c) { c } else { best });
            let e = |c| (z(c) - z(largest)).exp();
            let sum = lanes::sum(cols, |c, lane| lane + e(c));
            if let Some(gradient) = &mut gradient {
                for c in 0..cols {
                    let target = T::from_f64(if c == label { of_label } else { of_others });
                    gradient.put(r, c, (e(c) / sum - target) * batch);
                }
            }
            let shifted = |c| z(c).into() - z(largest).into();
            let expected = if smoothing == 0.0 {
                shifted(label)
            } else {
                let mean = lanes::sum(cols, |c, lane: f64| lane + shifted(c)) / cols as f64;
                (1.0 - smoothing) * shifted(label) + smoothing * mean
            };
            sum_of_block += libm::log(sum.into()) - expected;
            let has_nan = (0..cols).any(|c| z(c).into().is_nan());
            loss.errors += usize::from(has_nan || largest != label);
        }
        loss.sum += sum_of_block;
        loss.examples += labels.len();
    }
    Ok(loss)
}

/// The mean of (y - t)² over all elements, and its gradient.
///
/// # Errors
///
/// As for the fast function.
pub fn mean_squared_error<T: Real>(
    args: &MeanSquaredError<'_, T>,
    outputs: MatRef<'_, T>,
    gradient: Option<MatMut<'_, T>>,
) -> Result<f64> {
    let of_element = |difference: f64| difference * difference;
    let batch = (args.targets(), args.batch());
    mean(outputs, batch, gradient, of_element, |e, n| e * T::from_f64(2.0 / n))
}

/// The mean of Huber's loss over all elements, and its gradient.
///
/// # Errors
///
/// As for the fast function.
pub fn huber<T: Real>(
    args: &Huber<'_, T>,
    outputs: MatRef<'_, T>,
    gradient: Option<MatMut<'_, T>>,
) -> Result<f64> {
    let delta = f64::from(args.delta());
    let of_element = |difference: f64| match difference.abs() {
        large if large > delta => delta * (large - 0.5 * delta),
        _ => 0.5 * difference * difference,
    };
    let (low, high) = (T::from_f64(-delta), T::from_f64(delta));
    mean(outputs, (args.targets(), args.batch()), gradient, of_element, |e, n| {
        let clamped = match e {
            e if e > high => high,
            e if e < low => low,
            e => e,
        };
        clamped * T::from_f64(1.0 / n)
    })
}

/// The mean of a function of the difference of output and target, and the gradient: another function of
/// the difference and the number of elements.
fn mean<T: Real>(
    outputs: MatRef<'_, T>,
    (targets, batch): (MatRef<'_, T>, usize),
    mut gradient: Option<MatMut<'_, T>>,
    of_element: impl Fn(f64) -> f64,
    slope: impl Fn(T, f64) -> T,
) -> Result<f64> {
    check_targets(&outputs, &targets, gradient.as_ref())?;
    let (rows, cols) = (outputs.rows(), outputs.cols());
    let n = batch as f64 * cols as f64;
    let mut sum = 0.0;
    // Sums of parts, in order; sums of their rows, in order.
    let parts = parts(rows, cols);
    for part in (0..parts.len()).map(|i| parts.part(i)) {
        let mut sum_of_part = 0.0;
        for r in part.row..part.row + part.rows {
            sum_of_part += lanes::sum(part.cols, |c, lane: f64| {
                let (y, t) = (at(&outputs, r, part.col + c), at(&targets, r, part.col + c));
                if let Some(gradient) = &mut gradient {
                    gradient.put(r, part.col + c, slope(y - t, n));
                }
                lane + of_element(y.into() - t.into())
            });
        }
        sum += sum_of_part;
    }
    Ok(if n == 0.0 { 0.0 } else { sum / n })
}
