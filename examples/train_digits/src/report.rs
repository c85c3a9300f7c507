//! What is printed: what is trained, the table of errors, and what it means.

use std::path::Path;

use fused_dropout::Scaling;
use fused_dropout::nn::Granularity;

use crate::data::Data;
use crate::train::{Plan, Results, Run, Setting, join};

/// In percent: below this, a difference is a rounding error. One example of a million is 1e-4.
const ROUNDING: f64 = 1e-9;

/// What is about to be trained, on what.
pub(crate) fn heading(plan: &Plan, data: &Data) -> String {
    let Setting { spec, step, .. } = &plan.settings[plan.settings.len() - 1];
    let scaling = if spec.scaling == Scaling::Classical { "classical" } else { "inverted" };
    // That of the last hidden layer is that of all; inputs are dropped by element.
    let granularity = match spec.granularity.last() {
        Some(Granularity::Unit) => ", whole hidden units for a mini-batch",
        Some(Granularity::UnitExact) => ", a fixed number of hidden units for a mini-batch",
        Some(Granularity::Block { .. }) => ", blocks of hidden units for groups of examples",
        _ => "",
    };
    let [height, width] = data.shape;
    format!(
        "data      {}: {} training and {} test images of {height} x {width} pixels\n\
         network   {}, {}\n\
         training  {}, {} in batches of {}, learning rate {} falling to 0, momentum {}\n\
         dropout   rate {} on inputs and {} on hidden units, {scaling} scaling{granularity}\n\n",
        data.name,
        data.train,
        data.test,
        join(&spec.sizes),
        plan.activation,
        count(plan.seeds, "seed"),
        count(plan.epochs, "epoch"),
        plan.batch,
        step.learning_rate,
        step.momentum,
        spec.input_rate,
        spec.hidden_rate,
    )
}

/// The table of errors, and what its differences say.
pub(crate) fn table(plan: &Plan, results: &Results) -> String {
    let baseline = Errors::new(&results[0]);
    let mut rows = row(&plan.settings[0].name, &baseline, false);
    let mut findings = warning(results.iter().flatten().map(diverged));
    for (setting, runs) in plan.settings.iter().zip(results).skip(1) {
        let errors = Errors::new(runs);
        rows += &row(&setting.name, &errors, false);
        if baseline.diverged + errors.diverged == 0 {
            rows += &row("  paired difference", &errors.minus(&baseline), true);
            findings += &finding(&plan.settings[0].name, &baseline, &setting.name, &errors);
        }
    }
    if !findings.is_empty() {
        findings.insert(0, '\n');
    }
    format!(
        "Errors in percent, mean over {}; sd: standard deviation of the test error over\n\
         the seeds; gap: test error - train error.\n\n\
         {:<21}{:>12}{:>8}{:>13}{:>8}\n{rows}{findings}",
        count(plan.seeds, "seed"),
        "",
        "test error",
        "sd",
        "train error",
        "gap",
    )
}

/// Whether training has met a loss that is infinite or not a number, or its last step has led to one.
/// The errors mean nothing then.
pub(crate) fn diverged(run: &Run) -> bool {
    run[run.len() - 1].ended || !last(run).0.is_finite()
}

/// What to say of networks, for each of which it is told whether it diverged; nothing if none did.
pub(crate) fn warning(diverged: impl Iterator<Item = bool> + Clone) -> String {
    let networks = diverged.clone().count();
    match diverged.filter(|&diverged| diverged).count() {
        0 => String::new(),
        count => format!(
            "Training diverged: {count} of {networks} networks ended with a loss that is infinite or\n\
             not a number, so their errors mean nothing. Try a smaller --learning-rate.\n"
        ),
    }
}

/// What to know about the figures, and where the picture is.
pub(crate) fn closing(data: &Data, shows: &str, picture: &Path) -> String {
    format!("{}\n{shows}: {}\n", note(data), picture.display())
}

/// What to know about the figures.
pub(crate) fn note(data: &Data) -> &'static str {
    if data.shares_writers() {
        "\nThe images come from the same 13 writers, so a random split shares writers between\n\
         train and test: expect higher errors on digits of new writers.\n"
    } else {
        ""
    }
}

/// Errors in percent after the last epoch, one number a seed.
pub(crate) struct Errors {
    pub(crate) test: Vec<f64>,
    pub(crate) train: Vec<f64>,
    gap: Vec<f64>,
    /// Number of the runs that diverged.
    pub(crate) diverged: usize,
}

impl Errors {
    pub(crate) fn new(runs: &[Run]) -> Self {
        let test: Vec<f64> = runs.iter().map(|run| 100.0 * last(run).2).collect();
        let train: Vec<f64> = runs.iter().map(|run| 100.0 * last(run).1).collect();
        let gap = minus(&test, &train);
        let diverged = runs.iter().filter(|run| diverged(run)).count();
        Self { test, train, gap, diverged }
    }

    fn minus(&self, other: &Self) -> Self {
        Self {
            test: minus(&self.test, &other.test),
            train: minus(&self.train, &other.train),
            gap: minus(&self.gap, &other.gap),
            diverged: self.diverged + other.diverged,
        }
    }

    /// What stands in a table in the place of errors that mean nothing.
    pub(crate) fn excuse(&self) -> Option<String> {
        (self.diverged > 0).then(|| {
            format!("{} of {} diverged", self.diverged, count(self.test.len() as u32, "run"))
        })
    }
}

/// Training loss, train error and test error at the end of a run, errors from 0 to 1.
fn last(run: &Run) -> (f64, f64, f64) {
    let point = run[run.len() - 1];
    (point.train.mean(), point.train.error_rate(), point.test.error_rate())
}

fn row(name: &str, errors: &Errors, signed: bool) -> String {
    if let Some(excuse) = errors.excuse() {
        return format!("{name:<21}{excuse:>20}\n");
    }
    let number = |value: f64| {
        // + 0.0 turns -0 into 0.
        let value = (value * 100.0).round() / 100.0 + 0.0;
        if signed { format!("{value:+.2}") } else { format!("{value:.2}") }
    };
    format!(
        "{name:<21}{:>12}{:>8}{:>13}{:>8}\n",
        number(mean(&errors.test)),
        deviation(&errors.test).map_or("-".into(), |sd| format!("{sd:.2}")),
        number(mean(&errors.train)),
        number(mean(&errors.gap)),
    )
}

/// One sentence on the test error and one on the gap.
fn finding(base_name: &str, base: &Errors, name: &str, errors: &Errors) -> String {
    let gains = minus(&base.test, &errors.test);
    let gain = mean(&gains);
    let better = gains.iter().filter(|&&gain| gain > 0.0).count();
    let points = gain.abs();
    let change = match gain {
        _ if points < ROUNDING => format!("is the same as {base_name}"),
        g if g > 0.0 => format!("is {points:.2} points lower than {base_name}"),
        _ => format!("is {points:.2} points higher than {base_name}"),
    };
    let t = match paired_t(&gains) {
        Some(t) => {
            let freedom = count(gains.len() as u32 - 1, "degree");
            format!("paired t = {t:.1} with {freedom} of freedom")
        }
        None => "no paired t".into(),
    };
    format!(
        "Test error {name} {change}:\n\
         better in {better} of {}, {t}.\n\
         Between train and test error there are {:.2} points {base_name}, {:.2} {name}.\n",
        count(gains.len() as u32, "seed"),
        mean(&base.gap),
        mean(&errors.gap),
    )
}

/// t = mean / (sd / sqrt(n)) of differences; undefined for one seed, or when all seeds gain the same.
pub(crate) fn paired_t(gains: &[f64]) -> Option<f64> {
    let sd = deviation(gains).filter(|sd| *sd > ROUNDING)?;
    Some(mean(gains) / (sd / (gains.len() as f64).sqrt()))
}

pub(crate) fn minus(a: &[f64], b: &[f64]) -> Vec<f64> {
    a.iter().zip(b).map(|(a, b)| a - b).collect()
}

pub(crate) fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// The sample standard deviation, of two values or more.
pub(crate) fn deviation(values: &[f64]) -> Option<f64> {
    let mean = mean(values);
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (values.len() > 1).then(|| (squares / (values.len() - 1) as f64).sqrt())
}

/// A number and its noun: `1 seed`, `10 seeds`.
pub(crate) fn count(number: u32, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}
