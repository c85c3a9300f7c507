//! How sure is a network? The mean and the spread of passes with dropout.
//!
//! ```text
//! cargo run --release --example monte_carlo
//! ```
//!
//! Three classes of points on a line; between them the passes disagree.

use fused_dropout::nn::{Combination, LearningRateSchedule, Mlp, MlpSpec, Optimiser, Prediction};
use fused_dropout::update::SgdStep;
use fused_dropout::{MatRef, Result};

fn main() -> Result<()> {
    let spec = MlpSpec::new(&[1, 64, 64, 3]).with_hidden_rate(0.2).with_seed(1);
    let mut mlp = Mlp::new(&spec)?;
    let x: Vec<f32> = (0..90).map(|i| i as f32 / 45.0 - 1.0).collect();
    let labels: Vec<u32> = (0..90).map(|i| i / 30).collect();
    let x = MatRef::new(&x, 90, 1)?;
    let schedule = LearningRateSchedule::Cosine { steps: 2000 };
    let sgd = Optimiser::new(SgdStep::new(0.05).with_momentum(0.9)).with_schedule(schedule);
    for _ in 0..2000 {
        mlp.train_step(x, &labels, &sgd)?;
    }

    let points = [-0.9, -0.34, 0.0, 0.32, 0.9];
    let mut prediction = Prediction::new(points.len(), 3)?;
    // Steps that training has not used have masks that it has not seen.
    let steps = mlp.steps()..mlp.steps() + 100;
    mlp.predict_monte_carlo(MatRef::new(&points, points.len(), 1)?, steps, &mut prediction)?;
    println!("    x   class   mean probabilities     entropy   disagreement");
    let rows = prediction.mean();
    let uncertainty = prediction.entropy().into_iter().zip(prediction.mutual_information());
    let classes = prediction.labels(Combination::Average);
    for ((x, class), (p, (entropy, mutual))) in
        points.iter().zip(classes).zip(rows.chunks_exact(3).zip(uncertainty))
    {
        let class = class.map_or("-".to_owned(), |class| class.to_string());
        println!("{x:5.2}   {class:>5}   {p:.3?}   {entropy:7.3}   {mutual:12.3}");
    }
    Ok(())
}
