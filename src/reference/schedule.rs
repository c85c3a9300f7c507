//! The reference of rates for steps: schedules, and rates that are drawn.

use crate::error::Result;
use crate::mask::{MaskKey, RateSchedule};
use crate::philox::philox4x32_10;

/// [`RateSchedule::rate_at`]: 1 minus the keep probability of the step.
///
/// # Errors
///
/// As for the fast function.
pub fn rate_at(schedule: &RateSchedule, rate: f64, step: u32) -> Result<f64> {
    // Refuses what the fast function does.
    schedule.rate_at(rate, step)?;
    let (keep, t) = (1.0 - rate, f64::from(step));
    Ok(match *schedule {
        RateSchedule::Linear { from, steps } if step < steps => {
            let share = t / f64::from(steps);
            from * (1.0 - share) + rate * share
        }
        RateSchedule::Constant | RateSchedule::Linear { .. } => rate,
        RateSchedule::Curriculum { gamma } => 1.0 - ((1.0 - keep) * (-gamma * t).exp() + keep),
    })
}

/// `most · u`, where the bits of u after the binary point are the 32 of word 1 and the upper 21 of word
/// 0 of the block with the counter `[2, row, step, layer << 7 | 2 << 5]`.
///
/// # Errors
///
/// As for the fast function.
pub fn drawn_rate(most: f64, key: &MaskKey, row: u32) -> Result<f64> {
    crate::mask::drawn_rate(most, key, row)?;
    let (counter, seed) = key.selection().counter(row, 2, 0);
    let words = philox4x32_10(counter, seed);
    let bit = |word: usize, i: u32| f64::from(words[word] >> i & 1);
    let high: f64 = (0..32).map(|i| bit(1, i) * 2f64.powi(i as i32 - 32)).sum();
    let low: f64 = (11..32).map(|i| bit(0, i) * 2f64.powi(i as i32 - 64)).sum();
    Ok(most * (high + low))
}
