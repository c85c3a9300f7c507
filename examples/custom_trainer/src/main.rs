//! A trainer of one's own on ndarray: arrays, mini-batches and loop are the trainer's, the layers, the loss and
//! the update are fused-dropout's.
//!
//! ```text
//! cargo run --release -p custom-trainer
//! ```
//!
//! A network of two hidden layers fits a sine of few points, noisy and with outliers, without and with dropout,
//! and is tested on the clean sine. `trainer.rs` is the trainer.

mod trainer;

use fused_dropout::prelude::*;
use ndarray::{Array2, s};

use trainer::{Result, Trainer};

/// Passes over the points.
const EPOCHS: u32 = 2000;

/// Mini-batches of an epoch.
const BATCHES: usize = 4;

fn main() -> Result<()> {
    println!("rate   error on noisy points   error on the clean curve");
    for rate in [0.0, 0.1, 0.2, 0.3] {
        let [noisy, clean] = errors(Dropout::new(rate)?)?;
        println!("{rate:4.1}   {noisy:21.3}   {clean:24.3}");
    }
    Ok(())
}

/// Trains a network with this dropout. Returns the root of its mean squared error on the points that it was
/// trained on, and on the clean curve.
fn errors(dropout: Dropout) -> Result<[f32; 2]> {
    // Every eighth point is an outlier.
    let noise = |i: usize| match i % 8 {
        3 => 1.5,
        _ => 0.4 * (((i * 7919) % 101) as f32 / 50.0 - 1.0),
    };
    let x = Array2::from_shape_fn((40, 1), |(i, _)| i as f32 / 20.0 - 1.0);
    let targets = Array2::from_shape_fn((40, 1), |(i, _)| (3.0 * x[[i, 0]]).sin() + noise(i));
    let test = Array2::from_shape_fn((200, 1), |(i, _)| i as f32 / 100.0 - 1.0);
    let clean = test.mapv(|x| (3.0 * x).sin());

    let mut trainer = Trainer::new(&[1, 128, 128, 1])?;
    let steps = EPOCHS * BATCHES as u32;
    for step in 0..steps {
        // Each fourth row, from the first on, then from the second on, and so on: views, not copies.
        let rows = s![step as usize % BATCHES..; BATCHES, ..];
        let rate = 0.01 * (1.0 - step as f32 / steps as f32);
        let adam = AdamStep::new(rate).at_step(step + 1);
        trainer.fit(x.slice(rows), targets.slice(rows), dropout, adam)?;
    }
    let error = |x: &Array2<f32>, y: &Array2<f32>| -> Result<f32> {
        let outputs = trainer.forward(x.view(), Dropout::NONE, 0)?;
        Ok((&outputs[3] - y).mapv(|d| d * d).mean().unwrap_or(f32::NAN).sqrt())
    };
    Ok([error(&x, &targets)?, error(&test, &clean)?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_trainer_is_short() {
        let code = include_str!("trainer.rs").lines().map(str::trim);
        let lines = code.filter(|line| !line.is_empty() && !line.starts_with("//")).count();
        assert!(lines <= 60, "{lines} lines");
    }

    /// What the guide shows is in the file, line by line, in its order.
    #[test]
    fn the_guide_shows_the_trainer() {
        let guide = include_str!("../../../docs/guide.md");
        let shown = guide.split("```rust,ignore\n").nth(1).unwrap().split("```").next().unwrap();
        let mut code = include_str!("trainer.rs").lines();
        for line in shown.lines().filter(|line| !line.is_empty()) {
            let line = line.trim();
            assert!(
                code.any(|code| code.trim() == line),
                "trainer.rs has not, or not here: {line}"
            );
        }
    }

    #[test]
    fn dropout_lowers_the_error_on_the_clean_curve() {
        let [plain, fifth] = [0.0, 0.2].map(|rate| errors(Dropout::new(rate).unwrap()).unwrap());
        let both = format!("{plain:?}, {fifth:?}");
        assert!(plain[0] < 0.5 * fifth[0], "without dropout it learns the noise: {both}");
        assert!(fifth[1] < 0.5 * plain[1], "with dropout it learns the curve: {both}");
    }
}
