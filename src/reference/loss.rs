//! The reference of softmax and cross-entropy.

use super::{Real, at, lanes};
use crate::error::{Result, check_shape};
use crate::softmax::{LOSS_BLOCK, Loss, check_labels};
use crate::view::{MatMut, MatRef};

/// Cross-entropy of the softmax of each row, and the gradient of its mean.
///
/// # Errors
///
/// As for the fast function.
pub fn softmax_cross_entropy<T: Real>(
    logits: MatRef<'_, T>,
    labels: &[u32],
    mut gradient: Option<MatMut<'_, T>>,
) -> Result<Loss> {
    let (rows, cols) = (logits.rows(), logits.cols());
    check_labels(labels, ("rows of the logits", rows), cols)?;
    if let Some(gradient) = &gradient {
        check_shape(gradient.named("the gradient"), logits.named("the logits"))?;
    }
    let mut loss = Loss::default();
    // Sums of blocks of rows, in order.
    for (block, labels) in labels.chunks(LOSS_BLOCK).enumerate() {
        let mut sum_of_block = 0.0;
        for (r, &label) in (block * LOSS_BLOCK..).zip(labels) {
            let (z, label) = (|c| at(&logits, r, c), label as usize);
            let largest = (1..cols).fold(0, |best, c| if z(best) < z(c) { c } else { best });
            let e = |c| (z(c) - z(largest)).exp();
            let sum = lanes::sum(cols, |c, lane| lane + e(c));
            let batch = T::from_f64(1.0) / T::from_f64(rows as f64);
            for c in 0..cols {
                let target = T::from_f64(if c == label { 1.0 } else { 0.0 });
                if let Some(gradient) = &mut gradient {
                    gradient.put(r, c, (e(c) / sum - target) * batch);
                }
            }
            let of_label = z(label).into() - z(largest).into();
            sum_of_block += libm::log(sum.into()) - of_label;
            let has_nan = (0..cols).any(|c| z(c).into().is_nan());
            loss.errors += usize::from(has_nan || largest != label);
        }
        loss.sum += sum_of_block;
        loss.examples += labels.len();
    }
    Ok(loss)
}
