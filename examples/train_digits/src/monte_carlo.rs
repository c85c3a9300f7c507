//! `--mc N`: how the test error of the network with dropout falls with the number of stochastic passes,
//! compared with the single pass that scales weights instead.

use std::error::Error;
use std::fmt::Write;

use fused_dropout::MatRef;
use fused_dropout::nn::{Combination, Mlp, Prediction};
use plotters::element::DashedPathElement;
use plotters::prelude::*;

use crate::data::{CLASSES, Data, Examples};
use crate::plot::{
    COLORS, DASH, GAP, LEGEND_STEP, LEGEND_TOP, LEGEND_WIDTH, Picture, SIZE, label, sample_line,
};
use crate::report::{self, count, mean};
use crate::train::{self, Plan};

/// Test errors in percent of one network.
struct Errors {
    /// For each number of passes: of averaged probabilities, and of a majority vote.
    passes: Vec<[f64; 2]>,
    scaled: f64,
    diverged: bool,
}

/// Trains the setting with dropout with every seed, and predicts the test images in both ways: the
/// table, after the picture is drawn.
pub(crate) fn run(
    mut plan: Plan,
    data: &Data,
    passes: u32,
    picture: &Picture<'_>,
) -> Result<String, String> {
    let counts = counts(passes);
    // The last setting is the one with dropout.
    plan.settings.drain(..plan.settings.len() - 1);
    let errors = train::run(&plan, data, |mlp, split, run| {
        let scaled = 100.0 * run[run.len() - 1].test.error_rate();
        let diverged = report::diverged(&run);
        Ok(Errors { passes: predict(&mlp, &split.test, &counts)?, scaled, diverged })
    })?;
    let errors: Vec<_> = errors.into_iter().flatten().collect();
    let means: Vec<[f64; 2]> = (0..counts.len())
        .map(|i| [0, 1].map(|how| mean_of(&errors, |errors| errors.passes[i][how])))
        .collect();
    let scaled = mean_of(&errors, |errors| errors.scaled);
    let mut svg = String::new();
    let title = format!("Test error, mean over {}", count(plan.seeds, "seed"));
    render(&mut svg, &title, &counts, &means, scaled).map_err(|error| error.to_string())?;
    picture.save(&svg)?;
    let warning = report::warning(errors.iter().map(|errors| errors.diverged));
    Ok(table(&plan, &counts, &means, scaled) + &warning)
}

/// 1, 2, 5, 10, 20, 50, ... up to the number of passes, which is the last.
fn counts(passes: u32) -> Vec<u32> {
    let series = (0..9).flat_map(|power| [1, 2, 5].map(|digit| digit * 10_u32.pow(power)));
    series.take_while(|count| *count < passes).chain([passes]).collect()
}

/// The test errors in percent after so many passes. The first passes of more are those of fewer, so
/// each is made once; their masks are none that training has used.
fn predict(
    mlp: &Mlp,
    test: &Examples,
    counts: &[u32],
) -> Result<Vec<[f64; 2]>, fused_dropout::Error> {
    let images = test.labels.len();
    let x = MatRef::new(&test.images, images, test.pixels)?;
    let mut prediction = Prediction::new(images, CLASSES)?;
    let (mut done, mut errors) = (0, Vec::new());
    for &count in counts {
        let step = |pass: u32| mlp.steps().saturating_add(pass);
        mlp.predict_monte_carlo(x, step(done)..step(count), &mut prediction)?;
        done = count;
        let percent =
            |how| Ok(100.0 * prediction.errors(&test.labels, how)? as f64 / images as f64);
        errors.push([percent(Combination::Average)?, percent(Combination::MajorityVote)?]);
    }
    Ok(errors)
}

fn mean_of(errors: &[Errors], of: impl Fn(&Errors) -> f64) -> f64 {
    mean(&errors.iter().map(of).collect::<Vec<_>>())
}

fn table(plan: &Plan, counts: &[u32], means: &[[f64; 2]], scaled: f64) -> String {
    let mut text = format!(
        "Test errors in percent, mean over {}, of k passes with dropout: their probabilities\n\
         averaged, or a majority vote of their classes; and of one pass with scaled weights.\n\n\
         {:>14}{:>12}{:>16}\n",
        count(plan.seeds, "seed"),
        "k",
        "average",
        "majority vote"
    );
    for (k, [average, vote]) in counts.iter().zip(means) {
        let _ = writeln!(text, "{k:>14}{average:>12.2}{vote:>16.2}");
    }
    let _ = writeln!(text, "{:>14}{scaled:>12.2}", "weight scaling");
    text
}

fn render(
    svg: &mut String,
    title: &str,
    counts: &[u32],
    means: &[[f64; 2]],
    scaled: f64,
) -> Result<(), Box<dyn Error>> {
    let top = means.iter().flatten().fold(scaled.max(1.0), |top: f64, error| top.max(*error));
    // A logarithmic axis needs room, also for a single pass.
    let (first, last) = (0.9, f64::from(counts[counts.len() - 1]) * 1.1);
    let root = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let (left, right) = root.split_horizontally(SIZE.0 - LEGEND_WIDTH);
    let mut chart = ChartBuilder::on(&left)
        .caption(title, ("sans-serif", 22))
        .margin(15)
        .margin_right(25)
        .x_label_area_size(45)
        .y_label_area_size(55)
        .build_cartesian_2d(
            (first..last)
                .log_scale()
                .with_key_points(counts.iter().map(|k| f64::from(*k)).collect()),
            0.0..1.05 * top,
        )?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(BLACK.mix(0.12))
        .x_desc("passes with dropout")
        .y_desc("test error, percent")
        .x_label_formatter(&|k| format!("{}", k.round()))
        .y_label_formatter(&|error| format!("{}", (error * 100.0).round() / 100.0 + 0.0))
        .label_style(("sans-serif", 15))
        .axis_desc_style(("sans-serif", 17))
        .draw()?;

    let mut y = LEGEND_TOP;
    for (how, text) in ["average", "majority vote"].into_iter().enumerate() {
        let color = COLORS[how];
        let curve: Vec<_> =
            counts.iter().zip(means).map(|(k, errors)| (f64::from(*k), errors[how])).collect();
        chart.draw_series(curve.iter().map(|&point| Circle::new(point, 4, color.filled())))?;
        chart.draw_series(LineSeries::new(curve, color.stroke_width(3)))?;
        right.draw(&PathElement::new(sample_line(y), color.stroke_width(3)))?;
        right.draw(&label(text, y))?;
        y += LEGEND_STEP;
    }
    let style = BLACK.stroke_width(2);
    chart.draw_series(DashedLineSeries::new(
        [(first, scaled), (last, scaled)],
        DASH,
        GAP,
        style,
    ))?;
    right.draw(&DashedPathElement::new(sample_line(y), DASH, GAP, style))?;
    right.draw(&label("weight scaling", y))?;
    root.present()?;
    Ok(())
}
