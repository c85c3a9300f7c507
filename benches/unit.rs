//! Dropout of whole units, of inputs too: the time of a training step against the share that is kept.
//!
//! ```text
//! cargo bench -p fused-dropout-benches --bench unit
//!     -- --table [--quick] [--level avx2] [--threads 1] [--picture FILE]
//! ```
//!
//! Mini-batches of 128, SGD with momentum 0.9. Every time is compared with that of the same network's
//! step with dropout of elements, in the same round. The ideal is the kept share of the products'
//! operations: forward, dW, and dx save for the first layer. The picture shows both, for the best
//! level that is measured.

mod support;

use criterion::{BenchmarkId, Criterion};
use fused_dropout::nn::{Granularity, Mlp, MlpSpec, Optimiser};
use fused_dropout::update::SgdStep;
use fused_dropout::{Level, testing};
use plotters::prelude::*;
use support::{Candidate, Options, Table, matrix};

const BATCH: usize = 128;
/// The rates of the hidden layers.
const RATES: [f64; 5] = [0.0, 0.25, 0.5, 0.75, 0.9];

/// A network, and the rate of its input.
#[derive(Clone, Copy)]
struct Network {
    sizes: [usize; 4],
    input_rate: f64,
}

const NETWORKS: [Network; 2] = [
    Network { sizes: [784, 2048, 2048, 10], input_rate: 0.0 },
    Network { sizes: [784, 1024, 1024, 10], input_rate: 0.2 },
];

fn main() {
    support::main(table, groups);
}

impl Network {
    fn name(&self) -> String {
        self.sizes.map(|n| n.to_string()).join("-")
    }

    /// The share of the operations that is left in the thinned network, on average.
    fn ideal(&self, hidden_rate: f64) -> f64 {
        let work = |input_rate: f64, hidden_rate: f64| -> f64 {
            let keep = [1.0 - input_rate, 1.0 - hidden_rate, 1.0 - hidden_rate, 1.0];
            let kept: Vec<f64> =
                self.sizes.iter().zip(keep).map(|(n, keep)| *n as f64 * keep).collect();
            let products = |l: usize| if l == 0 { 2.0 } else { 3.0 };
            kept.windows(2).enumerate().map(|(l, n)| products(l) * n[0] * n[1]).sum()
        };
        work(self.input_rate, hidden_rate) / work(0.0, 0.0)
    }

    fn step(&self, hidden_rate: f64, granularity: Granularity) -> Step {
        let Network { sizes, input_rate } = *self;
        let spec = MlpSpec::new(&sizes)
            .with_input_rate(input_rate)
            .with_hidden_rate(hidden_rate)
            .with_granularity(granularity)
            .with_input_granularity(granularity)
            .with_seed(7);
        let mlp = Mlp::new(&spec).expect("a valid network");
        let x = support::uniform(BATCH * sizes[0], 1);
        Step { mlp, x, labels: (0..BATCH as u32).map(|i| i * 7 % 10).collect() }
    }

    /// All levels with fused multiply-add have the same losses, bit for bit.
    fn check(&self, levels: &[Level]) {
        let losses = |level: &Level| {
            let mut step = self.step(0.5, Granularity::Unit);
            let losses = testing::at_level(*level, || [(); 3].map(|()| step.run()));
            losses.expect("an available level").map(f32::to_bits)
        };
        let all: Vec<_> = levels.iter().filter(|level| level.has_fma()).map(losses).collect();
        assert!(all.windows(2).all(|pair| pair[0] == pair[1]), "levels disagree");
    }
}

/// A network and a mini-batch.
struct Step {
    mlp: Mlp,
    x: Vec<f32>,
    labels: Vec<u32>,
}

impl Step {
    fn run(&mut self) -> f32 {
        let sgd = Optimiser::new(SgdStep::new(0.05).with_momentum(0.9));
        let x = matrix(&self.x, BATCH, self.x.len() / BATCH);
        self.mlp.train_step(x, &self.labels, &sgd).expect("shapes that agree")
    }

    fn candidate(mut self, level: Level) -> Candidate<'static> {
        Candidate::at(level, move || {
            self.run();
        })
    }
}

/// A line of the picture: kept share and time, relative to the step with dropout of elements.
type Line = Vec<(f64, f64)>;

fn table(options: &Options, threads: usize) {
    let header =
        ["network", "level", "input rate", "hidden rate", "us a step", "/ element", "ideal"];
    let header = header.into_iter().chain(["exact, us", "/ element"]);
    let mut table = Table::new(header);
    let mut lines = Vec::new();
    for network in NETWORKS {
        network.check(&options.levels);
        for level in options.fast_levels() {
            // Dropout of elements, then units, then an exact number of units, at each rate.
            let elements = network.step(0.5, Granularity::Element).candidate(level);
            let mut candidates = vec![elements.named("elements, 0.5")];
            for granularity in [Granularity::Unit, Granularity::UnitExact] {
                for rate in RATES {
                    let step = network.step(rate, granularity).candidate(level);
                    candidates.push(step.named(format!("{granularity:?}, {rate}")));
                }
            }
            let times = options.measure(&network.name(), candidates);
            let us = |i| format!("{:.0}", times.min(i) * 1e6);
            let ratio = |i| times.ratio(i, 0);
            let (name, input) = (network.name(), network.input_rate.to_string());
            let mut row = vec![name, level.to_string(), input, "elements, 0.5".into(), us(0)];
            row.push("1".into());
            table.row(row);
            let (mut measured, mut ideal) = (Line::new(), Line::new());
            for (i, rate) in RATES.into_iter().enumerate() {
                let (unit, exact) = (1 + i, 1 + RATES.len() + i);
                measured.push((1.0 - rate, ratio(unit)));
                ideal.push((1.0 - rate, network.ideal(rate)));
                table.row(vec![
                    String::new(),
                    level.to_string(),
                    network.input_rate.to_string(),
                    rate.to_string(),
                    us(unit),
                    format!("{:.3}", ratio(unit)),
                    format!("{:.3}", network.ideal(rate)),
                    us(exact),
                    format!("{:.3}", ratio(exact)),
                ]);
            }
            lines.retain(|(other, ..): &(Network, Line, Line)| other.sizes != network.sizes);
            lines.push((network, measured, ideal));
        }
    }
    table.print(&format!(
        "training step with unit dropout, batch {BATCH}, {threads} thread(s): smallest times, \
         median ratios to the step with dropout of elements"
    ));
    if let Some(path) = support::value_of("--picture") {
        draw(&path, &lines).expect("the picture can be written");
    }
}

/// Draws the times against the kept share.
fn draw(path: &str, lines: &[(Network, Line, Line)]) -> Result<(), Box<dyn std::error::Error>> {
    let root = SVGBackend::new(path, (860, 520)).into_drawing_area();
    root.fill(&WHITE)?;
    let (left, right) = root.split_horizontally(600);
    let mut chart = ChartBuilder::on(&left)
        .caption("A training step with unit dropout", ("sans-serif", 22))
        .margin(15)
        .x_label_area_size(45)
        .y_label_area_size(55)
        .build_cartesian_2d(0.0..1.0, 0.0..1.2)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(BLACK.mix(0.12))
        .x_desc("kept share of the hidden units")
        .y_desc("time / time of the step with dropout of elements")
        .label_style(("sans-serif", 15))
        .axis_desc_style(("sans-serif", 17))
        .draw()?;
    // Told apart also by readers who see few colours (Okabe and Ito).
    let colors = [RGBColor(0, 114, 178), RGBColor(213, 94, 0)];
    let mut y = 60;
    for ((network, measured, ideal), color) in lines.iter().zip(colors.iter().cycle()) {
        let (thick, thin) = (color.stroke_width(3), color.stroke_width(2));
        chart.draw_series(measured.iter().map(|at| Circle::new(*at, 5, color.filled())))?;
        chart.draw_series(LineSeries::new(measured.iter().copied(), thick))?;
        chart.draw_series(DashedLineSeries::new(ideal.iter().copied(), 7, 4, thin))?;
        let sample = |y| [(0, y + 7), (30, y + 7)];
        right.draw(&PathElement::new(sample(y), thick))?;
        right.draw(&Text::new(network.name(), (38, y), ("sans-serif", 16)))?;
        let kept = format!("kept work (input rate {})", network.input_rate);
        right.draw(&plotters::element::DashedPathElement::new(sample(y + 26), 7, 4, thin))?;
        right.draw(&Text::new(kept, (38, y + 26), ("sans-serif", 16)))?;
        y += 60;
    }
    root.present()?;
    Ok(())
}

fn groups(criterion: &mut Criterion, options: &Options, threads: usize) {
    let mut group = criterion.benchmark_group(format!("unit/{threads}t"));
    for network in NETWORKS {
        network.check(&options.levels);
        for level in options.fast_levels() {
            let cases = [
                ("elements", Granularity::Element, 0.5),
                ("units", Granularity::Unit, 0.5),
                ("units", Granularity::Unit, 0.9),
            ];
            for (name, granularity, rate) in cases {
                let mut step = network.step(rate, granularity);
                let id = BenchmarkId::new(format!("{}, {name}, {rate}", network.name()), level);
                group.bench_function(id, |b| {
                    testing::at_level(level, || b.iter(|| step.run())).expect("an available level");
                });
            }
        }
    }
    group.finish();
}
