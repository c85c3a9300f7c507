//! One training step of a network with dropout: forward, loss, backward, update.
//!
//! ```text
//! cargo bench -p fused-dropout-benches --bench train_step
//!     -- --table [--quick] [--level avx2] [--threads 1]
//!     -- --table --monte-carlo     the third table only
//!     -- --table --scaling     one thread against two
//!     -- --table --optimisers     the steps of several optimisers only
//!     -- --step [--adamw]     one line: ours_1=... units_1=... (seconds a step)
//! ```
//!
//! 784-1024-1024-10, mini-batches of 128, dropout 0.2 on the input and 0.5 on the hidden layers, SGD
//! with momentum 0.9. Compared are the same step with rate 0, ReLU's step, the multiply-add peak (the
//! products' operations: forward, dW, and dx save for the first layer), and a plain step:
//! matrixmultiply and one scalar pass for each thing to do, on one thread. A second table has the
//! gradients of one layer with ReLU and dropout 0.5; a third one 50 passes of Monte Carlo prediction,
//! dropout 0.5 on the hidden layers, against separate forward passes; a fourth one the step with other
//! optimisers, fused, and with gradients in memory. `peers/torch_step.py` compares with PyTorch and JAX.

mod support;

use std::sync::Mutex;

use criterion::{BenchmarkId, Criterion};
use fused_dropout::layer::{DenseArgs, DenseLayer, dense_forward};
use fused_dropout::loss::CrossEntropy;
use fused_dropout::nn::{Granularity, Mlp, MlpSpec, Optimiser, Prediction};
use fused_dropout::update::{AdamStep, SgdStep};
use fused_dropout::{Activation, Dropout, Level, MaskKey, MaskSource, testing};
use support::layer::Layer;
use support::plain_network::PlainNetwork;
use support::scaling::Scaling;
use support::{Candidate, Options, Table, matrix, matrix_mut, peak};

const SIZES: [usize; 4] = [784, 1024, 1024, 10];
const BATCH: usize = 128;
/// Rates of the input and of the hidden layers.
const RATES: (f64, f64) = (0.2, 0.5);
const ACTIVATIONS: [Activation; 2] = [Activation::Relu, Activation::Gelu];
/// Passes of a prediction.
const PASSES: u32 = 50;
/// Rows of a prediction, and rates of the input and of the hidden layers.
const PREDICTIONS: [(usize, (f64, f64)); 3] =
    [(BATCH, (0.0, 0.5)), (1, (0.0, 0.5)), (BATCH, RATES)];
/// (m, k, n) of the layers whose gradients are measured: batch, inputs, units.
const LAYERS: [(usize, usize, usize); 2] = [(256, 1024, 1024), (512, 2048, 2048)];

fn main() {
    if support::flag("--step") {
        step_line();
    } else if support::flag("--scaling") {
        scaling(&Options::new());
    } else {
        support::main(tables, groups);
    }
}

fn tables(options: &Options, threads: usize) {
    let only = ["--monte-carlo", "--optimisers"].map(support::flag);
    if only == [false; 2] {
        table(options, threads);
        gradients_table(options, threads);
    }
    if !only[1] {
        monte_carlo_table(options, threads);
    }
    if !only[0] {
        optimisers_table(options, threads);
    }
}

/// Floating-point operations of a step's products.
fn work() -> f64 {
    let product = |l: usize| 2.0 * (BATCH * SIZES[l] * SIZES[l + 1]) as f64;
    // Forward and dW in each layer, dx in all but the first.
    (0..3).map(|l| product(l) * if l == 0 { 2.0 } else { 3.0 }).sum()
}

fn sgd() -> SgdStep {
    SgdStep::new(0.05).with_momentum(0.9)
}

fn adamw_step() -> AdamStep {
    AdamStep::new(1e-3).with_weight_decay(0.01)
}

fn spec(activation: Activation, (input_rate, hidden_rate): (f64, f64)) -> MlpSpec {
    MlpSpec::new(&SIZES)
        .with_activation(activation)
        .with_input_rate(input_rate)
        .with_hidden_rate(hidden_rate)
        .with_seed(7)
}

/// A network and a mini-batch.
struct Ours {
    mlp: Mlp,
    x: Vec<f32>,
    labels: Vec<u32>,
}

impl Ours {
    fn new(activation: Activation, rates: (f64, f64)) -> Self {
        Self::of(&spec(activation, rates))
    }

    fn of(spec: &MlpSpec) -> Self {
        let mlp = Mlp::new(spec).expect("a valid network");
        let (x, labels) = batch();
        Self { mlp, x, labels }
    }

    fn step(&mut self) -> f32 {
        self.step_by(&sgd().into())
    }

    fn step_by(&mut self, optimiser: &Optimiser) -> f32 {
        let x = matrix(&self.x, BATCH, SIZES[0]);
        self.mlp.train_step(x, &self.labels, optimiser).expect("shapes that agree")
    }

    /// The same step with gradients in memory.
    fn open_step_by(&mut self, optimiser: &Optimiser) -> f32 {
        let x = matrix(&self.x, BATCH, SIZES[0]);
        let objective = CrossEntropy::new(&self.labels);
        let loss = self.mlp.train_with_hook(x, &objective, optimiser, |_| Ok(()));
        loss.expect("shapes that agree") as f32
    }
}

fn batch() -> (Vec<f32>, Vec<u32>) {
    (support::uniform(BATCH * SIZES[0], 1), (0..BATCH as u32).map(|i| i * 7 % 10).collect())
}

/// Without dropout, the plain step's losses are ours; with it, all levels with fused multiply-add
/// have the same losses, bit for bit.
fn check(levels: &[Level], activation: Activation) {
    const STEPS: usize = 3;
    if activation == Activation::Relu {
        let mut ours = Ours::new(activation, (0.0, 0.0));
        let mut plain = PlainNetwork::new(&ours.mlp, sgd(), batch());
        for _ in 0..STEPS {
            let (a, b) = (ours.step(), plain.step());
            assert!((a - b).abs() <= 1e-4 * a.abs(), "losses {a} and {b}");
        }
    }
    let losses = |level: &Level| {
        let mut ours = Ours::new(activation, RATES);
        let losses = testing::at_level(*level, || [(); STEPS].map(|()| ours.step()));
        losses.expect("an available level").map(f32::to_bits)
    };
    let all: Vec<_> = levels.iter().filter(|level| level.has_fma()).map(losses).collect();
    assert!(all.windows(2).all(|pair| pair[0] == pair[1]), "levels disagree");
}

fn table(options: &Options, threads: usize) {
    let levels = options.fast_levels();
    let header = [
        "activation",
        "level",
        "us a step",
        "of peak",
        "rate 0, us",
        "of peak",
        "/ rate 0",
        "/ ReLU",
        "plain, us",
        "plain / ours",
    ];
    let mut table = Table::new(header);
    // Each level: peak, and for each activation ours with and without dropout. Last the plain step.
    let mut candidates = Vec::new();
    for activation in ACTIVATIONS {
        check(&options.levels, activation);
    }
    for &level in &levels {
        let peak = Candidate::new(move || peak::run(peak::yardstick(level)));
        candidates.push(peak.named("peak").of(level).baseline());
        for activation in ACTIVATIONS {
            for rates in [RATES, (0.0, 0.0)] {
                let mut ours = Ours::new(activation, rates);
                let step = move || {
                    ours.step();
                };
                let name = format!("{activation}, rates {} and {}", rates.0, rates.1);
                candidates.push(Candidate::at(level, step).warm().named(name));
            }
        }
    }
    let plain = candidates.len();
    let mut step = PlainNetwork::new(&Ours::new(Activation::Relu, RATES).mlp, sgd(), batch());
    let step = move || {
        step.step();
    };
    candidates.push(Candidate::new(step).warm().named("plain"));
    let times = options.measure("step", candidates);
    let us = |i| format!("{:.0}", times.min(i) * 1e6);
    for (a, activation) in ACTIVATIONS.iter().enumerate() {
        for (l, &level) in levels.iter().enumerate() {
            let peak_of = l * (1 + 2 * ACTIVATIONS.len());
            let (relu, ours, bare) = (peak_of + 1, peak_of + 1 + 2 * a, peak_of + 2 + 2 * a);
            let share = |i| share(level, work(), times.ratio(i, peak_of));
            let mut row = vec![activation.to_string(), level.to_string(), us(ours), share(ours)];
            row.extend([us(bare), share(bare)]);
            row.extend([bare, relu].map(|i| format!("{:.3}", times.ratio(ours, i))));
            if ours == relu {
                row.extend([us(plain), format!("{:.2}", times.ratio(plain, ours))]);
            }
            table.row(row);
        }
    }
    table.print(&format!(
        "training step, 784-1024-1024-10, batch {BATCH}, dropout {} and {}, {threads} thread(s): \
         smallest times, median shares and ratios",
        RATES.0, RATES.1
    ));
}

/// In percent of the level's peak: what takes `ratio` times as long as the peak's loop.
fn share(level: Level, work: f64, ratio: f64) -> String {
    format!("{:.1}%", 100.0 * peak::share(peak::yardstick(level), work, ratio))
}

fn gradients_table(options: &Options, threads: usize) {
    let header =
        ["m x k x n", "level", "dX + dW + db, us", "of peak", "forward too, us", "of peak"];
    let mut table = Table::new(header);
    for &shape in options.cases(&LAYERS, 1) {
        let (m, k, n) = shape;
        let layer = Mutex::new(Layer::new(shape));
        let lock = || layer.lock().expect("no panic");
        for level in options.fast_levels() {
            lock().check(level);
            let both = || {
                lock().forward();
                lock().backward();
            };
            let candidates = vec![
                Candidate::new(|| peak::run(peak::yardstick(level))).named("peak").of(level),
                Candidate::at(level, || lock().backward()).warm().named("backward"),
                Candidate::at(level, both).warm().named("forward and backward"),
            ];
            let times = options.measure(&format!("gradients/{m}x{k}x{n}"), candidates);
            let mut row = vec![format!("{m}x{k}x{n}"), level.to_string()];
            for (i, products) in [(1, 2.0), (2, 3.0)] {
                let work = products * 2.0 * (m * k * n) as f64;
                row.push(format!("{:.0}", times.min(i) * 1e6));
                row.push(share(level, work, times.ratio(i, 0)));
            }
            table.row(row);
        }
    }
    table.print(&format!(
        "gradients of a layer, ReLU, dropout 0.5, {threads} thread(s): smallest times, median shares"
    ));
}

/// Monte Carlo prediction of `x`, [rows, 784], with shared work, and as separate forward passes.
struct MonteCarlo {
    mlp: Mlp,
    x: Vec<f32>,
    rows: usize,
    /// Each layer's output.
    outputs: Vec<Vec<f32>>,
}

impl MonteCarlo {
    fn new(rows: usize, rates: (f64, f64)) -> Self {
        let mlp = Mlp::new(&spec(Activation::Relu, rates)).expect("a valid network");
        let outputs = SIZES[1..].iter().map(|units| vec![0.0; rows * units]).collect();
        Self { mlp, x: support::uniform(rows * SIZES[0], 1), rows, outputs }
    }

    fn prediction(&self) -> Prediction {
        Prediction::new(self.rows, SIZES[3]).expect("a few classes")
    }

    fn shared(&self) -> Prediction {
        let mut prediction = self.prediction();
        let x = matrix(&self.x, self.rows, SIZES[0]);
        self.mlp.predict_monte_carlo(x, 0..PASSES, &mut prediction).expect("shapes that agree");
        prediction
    }

    fn separate(&mut self) -> Prediction {
        let mut prediction = self.prediction();
        let spec = self.mlp.spec();
        for step in 0..PASSES {
            let dropout = |rate, l: usize| {
                let key = MaskKey::new(spec.seed, l as u32, step).expect("a small layer");
                Dropout::new(rate).expect("a rate").with_key(key)
            };
            for (l, layer) in self.mlp.layers().iter().enumerate() {
                let (before, after) = self.outputs.split_at_mut(l);
                let x = before.last().unwrap_or(&self.x);
                let x = matrix(x, self.rows, layer.inputs());
                let mut does = DenseLayer::new(Activation::Identity);
                if l + 1 < SIZES.len() - 1 {
                    let hidden = dropout(spec.hidden_rate, l + 1);
                    does = DenseLayer::new(spec.activation).with_output(hidden);
                }
                if l == 0 {
                    does = does.with_input(dropout(spec.input_rate, 0));
                }
                let w = matrix(layer.weights(), layer.inputs(), layer.units());
                let args = DenseArgs::new(does, x, w).with_bias(layer.bias());
                let y = matrix_mut(&mut after[0], self.rows, layer.units());
                dense_forward(&args, y, None, MaskSource::Key).expect("shapes that agree");
            }
            let logits = matrix(&self.outputs[2], self.rows, SIZES[3]);
            prediction.add(logits).expect("shapes that agree");
        }
        prediction
    }
}

fn monte_carlo_table(options: &Options, threads: usize) {
    let header = ["rows", "input rate", "level", "separate, ms", "shared, ms", "shared / separate"];
    let mut table = Table::new(header);
    for &(rows, rates) in options.cases(&PREDICTIONS, 2) {
        let network = Mutex::new(MonteCarlo::new(rows, rates));
        let lock = || network.lock().expect("no panic");
        for level in options.fast_levels() {
            let both = testing::at_level(level, || {
                let shared = lock().shared();
                [shared, lock().separate()]
            });
            let [shared, separate] = both.expect("an available level");
            assert!(shared == separate || !level.has_fma(), "passes differ");
            let candidates = vec![
                Candidate::at(level, || drop(lock().separate())).named("separate"),
                Candidate::at(level, || drop(lock().shared())).named("shared"),
            ];
            let group = format!("monte carlo/{rows}, input rate {}", rates.0);
            let times = options.measure(&group, candidates);
            let ms = |i| format!("{:.2}", times.min(i) * 1e3);
            let row = [rows.to_string(), rates.0.to_string(), level.to_string(), ms(0), ms(1)];
            table.row(row.into_iter().chain([format!("{:.3}", times.ratio(1, 0))]).collect());
        }
    }
    table.print(&format!(
        "{PASSES} Monte Carlo passes, 784-1024-1024-10, dropout {} on hidden layers, {threads} \
         thread(s): smallest times, median ratios",
        RATES.1
    ));
}

/// The optimisers, by name.
fn optimisers() -> [(&'static str, Optimiser); 5] {
    [
        ("SGD, momentum", sgd().into()),
        ("SGD, Nesterov's momentum", sgd().with_nesterov().into()),
        ("Adam", Optimiser::new(AdamStep::new(1e-3))),
        ("AdamW", Optimiser::new(adamw_step())),
        ("AdamW, norm clipped", Optimiser::new(adamw_step()).with_clip_norm(1.0)),
    ]
}

/// A step with each optimiser, fused and with gradients in memory.
fn optimisers_table(options: &Options, threads: usize) {
    let header = ["optimiser", "level", "fused, us", "/ SGD, momentum", "in memory, us", "/ fused"];
    let mut table = Table::new(header);
    for level in options.fast_levels() {
        let mut candidates = Vec::new();
        for (name, optimiser) in optimisers() {
            let [mut fused, mut open] = [(); 2].map(|()| Ours::new(Activation::Relu, RATES));
            let losses = testing::at_level(level, || {
                [(); 3].map(|()| (fused.step_by(&optimiser), open.open_step_by(&optimiser)))
            });
            let losses = losses.expect("an available level");
            assert!(losses.iter().all(|(a, b)| a.to_bits() == b.to_bits()), "{name}: {losses:?}");
            let fused = Candidate::at(level, move || _ = fused.step_by(&optimiser));
            let open = Candidate::at(level, move || _ = open.open_step_by(&optimiser));
            candidates.push(fused.warm().named(format!("{name}, fused")));
            candidates.push(open.warm().named(format!("{name}, in memory")));
        }
        let times = options.measure("optimisers", candidates);
        for (i, (name, _)) in optimisers().iter().enumerate() {
            let (fused, open) = (2 * i, 2 * i + 1);
            let us = |i| format!("{:.0}", times.min(i) * 1e6);
            let ratio = |a, b| format!("{:.3}", times.ratio(a, b));
            let row = [us(fused), ratio(fused, 0), us(open), ratio(open, fused)];
            table.row([name.to_string(), level.to_string()].into_iter().chain(row).collect());
        }
    }
    table.print(&format!(
        "training step by optimiser, 784-1024-1024-10, ReLU, batch {BATCH}, dropout {} and {}, \
         {threads} thread(s): smallest times, median ratios",
        RATES.0, RATES.1
    ));
}

/// The step and the gradients on one thread and on two.
fn scaling(options: &Options) {
    let mut table = Scaling::new(options);
    for level in options.fast_levels() {
        for activation in ACTIVATIONS {
            check(&[level], activation);
            let ours = Mutex::new(Ours::new(activation, RATES));
            table.row(format!("step, {activation}"), level, work(), || {
                ours.lock().expect("no panic").step();
            });
        }
        for &(m, k, n) in options.cases(&LAYERS, 1) {
            let layer = Mutex::new(Layer::new((m, k, n)));
            layer.lock().expect("no panic").check(level);
            let name = format!("gradients, {m}x{k}x{n}");
            table.row(name, level, 4.0 * (m * k * n) as f64, || {
                layer.lock().expect("no panic").backward();
            });
        }
    }
    table.print("training step and gradients of a layer");
}

/// For scripts: the median seconds of a step, on one thread and on two.
fn step_line() {
    let level = Level::current().expect("an available level");
    let mut line = format!("level={level}");
    let adamw = support::flag("--adamw");
    let optimiser = if adamw { Optimiser::new(adamw_step()) } else { sgd().into() };
    let elements = spec(Activation::Relu, RATES);
    let units = elements
        .clone()
        .with_granularity(Granularity::Unit)
        .with_input_granularity(Granularity::Unit);
    for threads in [1, 2] {
        support::pool(threads).install(|| {
            let candidates = [&elements, &units].map(|spec| {
                let mut ours = Ours::of(spec);
                Candidate::at(level, move || _ = ours.step_by(&optimiser))
            });
            let time = std::time::Duration::from_millis(500);
            let times = support::measure(candidates.into(), 20, time);
            let (ours, units) = (times.median(0), times.median(1));
            line += &format!(" ours_{threads}={ours:.9} units_{threads}={units:.9}");
        });
    }
    println!("{line}");
}

fn groups(criterion: &mut Criterion, options: &Options, threads: usize) {
    let levels = options.fast_levels();
    let mut group = criterion.benchmark_group(format!("train_step/{threads}t"));
    for activation in ACTIVATIONS {
        check(&levels, activation);
        for (name, rates) in [("dropout", RATES), ("rate 0", (0.0, 0.0))] {
            for level in &levels {
                let mut ours = Ours::new(activation, rates);
                let id = BenchmarkId::new(format!("{activation}, {name}"), level);
                group.bench_function(id, |b| {
                    testing::at_level(*level, || b.iter(|| ours.step()))
                        .expect("an available level");
                });
            }
        }
    }
    if threads == 1 {
        let ours = Ours::new(Activation::Relu, RATES);
        let mut plain = PlainNetwork::new(&ours.mlp, sgd(), batch());
        group.bench_function("plain", |b| b.iter(|| plain.step()));
    }
    group.finish();
}
