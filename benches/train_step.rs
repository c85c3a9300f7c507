//! One training step of a network with dropout: forward, loss, backward, update.
//!
//! ```text
//! cargo bench --bench train_step
//! cargo bench --bench train_step -- --table [--quick] [--level avx2] [--threads 1]
//! cargo bench --bench train_step -- --step     one line: ours_1=... ours_2=... (seconds a step)
//! ```
//!
//! 784-1024-1024-10, mini-batches of 128, dropout 0.2 on the input and 0.5 on the hidden layers, SGD
//! with momentum 0.9. Compared are the same step with rate 0, the multiply-add peak (the products'
//! operations: forward, dW, and dx save for the first layer), and a plain step: matrixmultiply and
//! one scalar pass for each thing to do, on one thread. `peers/torch_step.py` compares with PyTorch
//! and JAX.

mod support;

use std::cell::RefCell;

use criterion::{BenchmarkId, Criterion};
use fused_dropout::nn::{Mlp, MlpSpec, Sgd};
use fused_dropout::{Activation, Dropout, Level};
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::SeedableRng;
use support::plain::{self, product};
use support::{Candidate, Options, Table, matrix, peak};

const SIZES: [usize; 4] = [784, 1024, 1024, 10];
const BATCH: usize = 128;
/// Rates of the input and of the hidden layers.
const RATES: (f64, f64) = (0.2, 0.5);
const LEARNING_RATE: f32 = 0.05;
const MOMENTUM: f32 = 0.9;

fn main() {
    if support::flag("--step") {
        step_line();
    } else {
        support::main(table, groups);
    }
}

/// Floating-point operations of a step's products.
fn work() -> f64 {
    let product = |l: usize| 2.0 * (BATCH * SIZES[l] * SIZES[l + 1]) as f64;
    // Forward and dW in each layer, dx in all but the first.
    (0..3).map(|l| product(l) * if l == 0 { 2.0 } else { 3.0 }).sum()
}

fn spec(activation: Activation, (input_rate, hidden_rate): (f64, f64)) -> MlpSpec {
    MlpSpec { activation, input_rate, hidden_rate, seed: 7, ..MlpSpec::new(&SIZES) }
}

/// A network and a mini-batch.
struct Ours {
    mlp: Mlp,
    x: Vec<f32>,
    labels: Vec<u32>,
}

impl Ours {
    fn new(activation: Activation, rates: (f64, f64)) -> Self {
        let mlp = Mlp::new(&spec(activation, rates)).expect("a valid network");
        let (x, labels) = batch();
        Self { mlp, x, labels }
    }

    fn step(&mut self) -> f32 {
        let sgd = Sgd { momentum: MOMENTUM, ..Sgd::new(LEARNING_RATE) };
        let x = matrix(&self.x, BATCH, SIZES[0]);
        self.mlp.train_step(x, &self.labels, &sgd).expect("shapes that agree")
    }
}

fn batch() -> (Vec<f32>, Vec<u32>) {
    (support::uniform(BATCH * SIZES[0], 1), (0..BATCH as u32).map(|i| i * 7 % 10).collect())
}

/// The same network in plain code: ReLU, one pass for each thing to do.
struct Plain {
    random: Xoshiro256PlusPlus,
    rates: [Dropout; 2],
    x: Vec<f32>,
    labels: Vec<u32>,
    layers: Vec<PlainLayer>,
}

/// A layer, and what a step keeps of it.
struct PlainLayer {
    inputs: usize,
    units: usize,
    w: Vec<f32>,
    b: Vec<f32>,
    /// Gradients and velocities of w and b.
    dw: [Vec<f32>; 2],
    db: [Vec<f32>; 2],
    /// The input after dropout, the factors that made it, and its gradient.
    x: Vec<f32>,
    mask: Vec<f32>,
    dx: Vec<f32>,
    z: Vec<f32>,
}

impl Plain {
    /// With the first weights of `mlp`.
    fn new(mlp: &Mlp) -> Self {
        let layers = mlp.layers().iter().map(|layer| {
            let (inputs, units) = (layer.inputs(), layer.units());
            let zeros = |n: usize| vec![0.0; n];
            PlainLayer {
                inputs,
                units,
                w: layer.weights().to_vec(),
                b: layer.bias().to_vec(),
                dw: [(); 2].map(|()| zeros(inputs * units)),
                db: [(); 2].map(|()| zeros(units)),
                x: zeros(BATCH * inputs),
                mask: zeros(BATCH * inputs),
                dx: zeros(BATCH * inputs),
                z: zeros(BATCH * units),
            }
        });
        let rate = |rate| Dropout::new(rate).expect("a rate");
        let rates = [rate(mlp.spec().input_rate), rate(mlp.spec().hidden_rate)];
        let (x, labels) = batch();
        let random = Xoshiro256PlusPlus::seed_from_u64(1);
        Self { random, rates, x, labels, layers: layers.collect() }
    }

    fn step(&mut self) -> f32 {
        self.forward();
        let last = self.layers.len() - 1;
        let loss = softmax_cross_entropy(&mut self.layers[last].z, &self.labels);
        self.backward();
        for layer in &mut self.layers {
            update(&mut layer.w, &mut layer.dw);
            update(&mut layer.b, &mut layer.db);
        }
        loss
    }

    fn forward(&mut self) {
        for l in 0..self.layers.len() {
            let (before, after) = self.layers.split_at_mut(l);
            let layer = &mut after[0];
            let input = before.last().map_or(&self.x, |layer| &layer.z);
            plain::factors(&mut self.random, &self.rates[l.min(1)], &mut layer.mask);
            for ((x, input), mask) in layer.x.iter_mut().zip(input).zip(&layer.mask) {
                *x = input * mask;
            }
            let (inputs, units) = (layer.inputs, layer.units);
            let (x, w) = ((&*layer.x, inputs, 1), (&*layer.w, units, 1));
            product((BATCH, inputs, units), x, w, &mut layer.z);
            for row in layer.z.chunks_mut(units) {
                row.iter_mut().zip(&layer.b).for_each(|(z, b)| *z += b);
            }
            if l + 1 < SIZES.len() - 1 {
                layer.z.iter_mut().for_each(|z| *z = z.max(0.0));
            }
        }
    }

    /// From the gradient of the logits, which stands in the last layer's `z`.
    fn backward(&mut self) {
        for l in (0..self.layers.len()).rev() {
            let (before, after) = self.layers.split_at_mut(l);
            let PlainLayer { inputs, units, w, dw, db, x, mask, dx, z: dz, .. } = &mut after[0];
            let (inputs, units) = (*inputs, *units);
            product((inputs, BATCH, units), (x, 1, inputs), (dz, units, 1), &mut dw[0]);
            db[0].fill(0.0);
            for row in dz.chunks(units) {
                db[0].iter_mut().zip(row).for_each(|(db, dz)| *db += dz);
            }
            if let Some(before) = before.last_mut() {
                product((BATCH, units, inputs), (dz, units, 1), (w, 1, units), dx);
                dx.iter_mut().zip(mask).for_each(|(dx, mask)| *dx *= *mask);
                for (z, dx) in before.z.iter_mut().zip(dx) {
                    *z = if *z > 0.0 { *dx } else { 0.0 };
                }
            }
        }
    }
}

/// The mean cross-entropy of the logits, which are overwritten by their gradient.
fn softmax_cross_entropy(logits: &mut [f32], labels: &[u32]) -> f32 {
    let classes = logits.len() / labels.len();
    let mut loss = 0.0;
    for (row, &label) in logits.chunks_mut(classes).zip(labels) {
        let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        loss -= row[label as usize] - largest;
        row.iter_mut().for_each(|z| *z = (*z - largest).exp());
        let sum: f32 = row.iter().sum();
        loss += sum.ln();
        row.iter_mut().for_each(|z| *z /= sum * labels.len() as f32);
        row[label as usize] -= 1.0 / labels.len() as f32;
    }
    loss / labels.len() as f32
}

/// SGD with momentum: velocity, then weight.
fn update(w: &mut [f32], [gradient, velocity]: &mut [Vec<f32>; 2]) {
    for ((w, g), v) in w.iter_mut().zip(gradient).zip(velocity) {
        *v = MOMENTUM * *v + *g;
        *w -= LEARNING_RATE * *v;
    }
}

/// Without dropout, the plain step's losses are ours; with it, all levels with fused multiply-add
/// have the same losses, bit for bit.
fn check(levels: &[Level], activation: Activation) {
    const STEPS: usize = 3;
    if activation == Activation::Relu {
        let mut ours = Ours::new(activation, (0.0, 0.0));
        let mut plain = Plain::new(&ours.mlp);
        for _ in 0..STEPS {
            let (a, b) = (ours.step(), plain.step());
            assert!((a - b).abs() <= 1e-4 * a.abs(), "losses {a} and {b}");
        }
    }
    let losses = |level: &Level| {
        let mut ours = Ours::new(activation, RATES);
        let losses = level.install(|| [(); STEPS].map(|()| ours.step()));
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
        "plain, us",
        "plain / ours",
    ];
    let mut table = Table::new(header);
    for activation in [Activation::Relu, Activation::Gelu] {
        check(&options.levels, activation);
        // Each level: peak, ours, ours without dropout. Last the plain step.
        let mut candidates = Vec::new();
        for &level in &levels {
            candidates.push(Candidate::new(move || peak::run(peak::yardstick(level))));
            for rates in [RATES, (0.0, 0.0)] {
                let mut ours = Ours::new(activation, rates);
                candidates.push(Candidate::at(level, move || {
                    ours.step();
                }));
            }
        }
        let plain = candidates.len();
        if activation == Activation::Relu {
            let step = RefCell::new(Plain::new(&Ours::new(activation, RATES).mlp));
            candidates.push(Candidate::new(move || {
                step.borrow_mut().step();
            }));
        }
        let has_plain = candidates.len() > plain;
        let times = options.measure(candidates);
        for (l, &level) in levels.iter().enumerate() {
            let (peak_of, ours, bare) = (3 * l, 3 * l + 1, 3 * l + 2);
            let us = |i| format!("{:.0}", times.min(i) * 1e6);
            let share = |i| {
                let ratio = times.ratio(i, peak_of);
                format!("{:.1}%", 100.0 * peak::share(peak::yardstick(level), work(), ratio))
            };
            let mut row = vec![activation.to_string(), level.to_string(), us(ours), share(ours)];
            row.extend([us(bare), share(bare), format!("{:.3}", times.ratio(ours, bare))]);
            if has_plain {
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

/// For scripts: the median seconds of a step, on one thread and on two.
fn step_line() {
    let level = Level::current().expect("an available level");
    let mut line = format!("level={level}");
    for threads in [1, 2] {
        let seconds = support::pool(threads).install(|| {
            let mut ours = Ours::new(Activation::Relu, RATES);
            let candidate = Candidate::at(level, move || {
                ours.step();
            });
            let time = std::time::Duration::from_millis(500);
            support::measure(vec![candidate], 20, time).median(0)
        });
        line += &format!(" ours_{threads}={seconds:.9}");
    }
    println!("{line}");
}

fn groups(criterion: &mut Criterion, options: &Options, threads: usize) {
    let levels = options.fast_levels();
    let mut group = criterion.benchmark_group(format!("train_step/{threads}t"));
    for activation in [Activation::Relu, Activation::Gelu] {
        check(&levels, activation);
        for (name, rates) in [("dropout", RATES), ("rate 0", (0.0, 0.0))] {
            for level in &levels {
                let mut ours = Ours::new(activation, rates);
                let id = BenchmarkId::new(format!("{activation}, {name}"), level);
                group.bench_function(id, |b| {
                    level.install(|| b.iter(|| ours.step())).expect("an available level");
                });
            }
        }
    }
    if threads == 1 {
        let mut plain = Plain::new(&Ours::new(Activation::Relu, RATES).mlp);
        group.bench_function("plain", |b| b.iter(|| plain.step()));
    }
    group.finish();
}
