//! The regularisers of Srivastava et al. 2014, table 9, side by side, and some more.
//!
//! Dropout has the rates of the options. Each penalty, and each limit of a norm, has the value that
//! does best, of a few, on examples that it is not tested on: a third of the training examples of
//! other seeds, for networks trained on the other two thirds.

use std::fmt::Write;

use fused_dropout::nn::{Granularity, MlpSpec, Noise};

use crate::checkpoint::Checkpoints;
use crate::data::Data;
use crate::report::{self, Errors, count, deviation, mean, minus, paired_t};
use crate::train::{self, Plan, Results, Setting};

/// Seeds that values are chosen with.
const SEARCH_SEEDS: u32 = 10;

/// Examples that a training set must have, so that a third is one.
const LEAST_EXAMPLES: usize = 3;

/// What is chosen: on top of which of the plan's settings, how it is applied, and its values, the
/// weakest first, so that it wins a draw.
struct Search {
    name: &'static str,
    base: usize,
    apply: fn(&mut Setting, f32),
    values: [f32; 4],
}

const PLAIN: usize = 0;
const DROPOUT: usize = 1;

const L2: Search = Search {
    name: "L2",
    base: PLAIN,
    apply: |setting, value| setting.step.weight_decay = value,
    values: [1e-4, 1e-3, 3e-3, 5e-3],
};

const L1: Search = Search {
    name: "L1",
    base: PLAIN,
    apply: |setting, value| setting.step.l1 = value,
    values: [1e-5, 1e-4, 3e-4, 1e-3],
};

const MAX_NORM: Search = Search {
    name: "max-norm",
    base: PLAIN,
    apply: |setting, value| setting.max_norm = Some(value),
    values: [2.0, 1.5, 1.0, 0.75],
};

const DROPOUT_MAX_NORM: Search = Search { name: "dropout + max-norm", base: DROPOUT, ..MAX_NORM };

const SEARCHES: [Search; 4] = [L2, L1, MAX_NORM, DROPOUT_MAX_NORM];

/// Chooses, trains and prints. `plan` is that of a run without and with dropout.
pub(crate) fn run(plan: &Plan, data: &Data) -> Result<(), String> {
    if data.train < LEAST_EXAMPLES {
        return Err(format!(
            "--compare holds out a third of the training examples, but there are {}, expected at \
             least {LEAST_EXAMPLES}",
            data.train
        ));
    }
    crate::print(&report::heading(plan, data))?;
    let settings = candidates(plan);
    let search = Plan {
        settings,
        first_seed: u64::from(plan.seeds),
        seeds: SEARCH_SEEDS,
        held_out: true,
        ..last_point(plan)
    };
    let results = train::run(&search, data, |_, _, run| Ok(run))?;
    let (text, chosen) = choose(&search, &results);
    crate::print(&text)?;

    let compared = Plan { settings: compared(plan, chosen), ..last_point(plan) };
    let results = train::run(&compared, data, |_, _, run| Ok(run))?;
    crate::print(&table(&compared, &results))?;
    crate::print(report::note(data))
}

/// The plan without settings, and with networks that are only looked at when they are trained.
fn last_point(plan: &Plan) -> Plan {
    let activation = plan.activation.clone();
    let checkpoints = Checkpoints::default();
    Plan { settings: Vec::new(), activation, checkpoints, points: 1, ..*plan }
}

/// Every value of every search.
fn candidates(plan: &Plan) -> Vec<Setting> {
    let with = |search: &Search, value: f32| {
        let mut setting = plan.settings[search.base].clone();
        setting.name = format!("{} {value}", search.name);
        (search.apply)(&mut setting, value);
        setting
    };
    SEARCHES.iter().flat_map(|search| search.values.map(|value| with(search, value))).collect()
}

/// What is printed of the searches, and the best setting of each.
fn choose(search: &Plan, results: &Results) -> (String, Vec<Setting>) {
    let mut text = format!(
        "Values chosen by the mean error in percent of {}, others than those below, on a third\n\
         of the training examples, by networks trained on the rest:\n\n",
        count(search.seeds, "seed")
    );
    let mut chosen = Vec::new();
    let mut tried = search.settings.iter().zip(results);
    for Search { name, values, .. } in &SEARCHES {
        let _ = write!(text, "{name:<21}");
        let mut best: Option<((usize, f64), &Setting)> = None;
        for (value, (setting, runs)) in values.iter().zip(&mut tried) {
            let errors = Errors::new(runs);
            let error = mean(&errors.test);
            let _ = write!(text, "{:>16}", format!("{value}: {error:.2}"));
            // Errors of runs that diverged mean nothing.
            let rank = (errors.diverged, error);
            if best.is_none_or(|(least, _)| rank < least) {
                best = Some((rank, setting));
            }
        }
        text.push('\n');
        chosen.extend(best.map(|(_, setting)| setting.clone()));
    }
    text.push('\n');
    (text, chosen)
}

/// The settings of the table, in its order.
fn compared(plan: &Plan, chosen: Vec<Setting>) -> Vec<Setting> {
    let [plain, dropout] = [PLAIN, DROPOUT].map(|base| plan.settings[base].clone());
    let like_dropout = |name: &str, spec: fn(MlpSpec) -> MlpSpec| Setting {
        name: name.into(),
        spec: spec(dropout.spec.clone()),
        ..dropout.clone()
    };
    let mut settings = vec![Setting { name: "none".into(), ..plain }];
    settings.extend(chosen);
    settings.insert(SEARCHES.len(), like_dropout("dropout", |spec| spec));
    settings.push(like_dropout("Gaussian dropout", |spec| spec.with_noise(Noise::Gaussian)));
    settings.push(like_dropout("unit dropout", |spec| spec.with_granularity(Granularity::Unit)));
    settings.push(like_dropout("block dropout", |spec| spec.with_granularity(Granularity::BLOCK)));
    settings
}

/// The table, and which error is the lowest.
fn table(plan: &Plan, results: &Results) -> String {
    let all: Vec<Errors> = results.iter().map(|runs| Errors::new(runs)).collect();
    let mut text = format!(
        "Errors in percent, mean over {}; sd: standard deviation of the test error over the\n\
         seeds; change: mean difference to none, with its paired t.\n\n\
         {:<26}{:>11}{:>7}{:>13}{:>9}{:>7}{:>12}\n",
        count(plan.seeds, "seed"),
        "",
        "test error",
        "sd",
        "train error",
        "change",
        "t",
        "better in",
    );
    for (i, (setting, errors)) in plan.settings.iter().zip(&all).enumerate() {
        if let Some(excuse) = errors.excuse() {
            let _ = writeln!(text, "{:<26}{excuse:>18}", setting.name);
            continue;
        }
        let sd = deviation(&errors.test).map_or("-".into(), |sd| format!("{sd:.2}"));
        let (error, train) = (mean(&errors.test), mean(&errors.train));
        let _ = write!(text, "{:<26}{error:>11.2}{sd:>7}{train:>13.2}", setting.name);
        if i > 0 && all[0].diverged == 0 {
            let changes = minus(&errors.test, &all[0].test);
            let t = paired_t(&changes).map_or("-".into(), |t| format!("{t:.1}"));
            let better = changes.iter().filter(|change| **change < 0.0).count();
            let better = format!("{better} of {}", changes.len());
            // + 0.0 turns -0 into 0.
            let change = (mean(&changes) * 100.0).round() / 100.0 + 0.0;
            let _ = write!(text, "{change:>+9.2}{t:>7}{better:>12}");
        }
        text.push('\n');
    }
    let sound = plan.settings.iter().zip(&all).filter(|(_, errors)| errors.diverged == 0);
    let errors = sound.map(|(setting, errors)| (mean(&errors.test), &setting.name));
    text.push('\n');
    if let Some((least, best)) = errors.min_by(|a, b| a.0.total_cmp(&b.0)) {
        let _ = writeln!(text, "The lowest test error is {least:.2}: {best}.");
    }
    text + &report::warning(results.iter().flatten().map(report::diverged))
}
