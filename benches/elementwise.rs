//! The element-wise passes, beside a copy of the same size and plain scalar loops.
//!
//! ```text
//! cargo bench -p fused-dropout-benches --bench elementwise
//!     -- --table [--quick] [--level avx2] [--threads 1]
//! ```
//!
//! Four tables. The first: dropout alone, forward (out of place or in place, the mask forgotten or
//! stored) and backward (the mask stored or made again), for sizes from the L1 cache to main memory.
//! The second: dropout forward on matrices of any width, beside 4096 columns, and on large ones beside the
//! best copy there is, which stores past the caches. The others: a layer's bias, activation and dropout on 2048 x 3072 elements. The copy is `copy_from_slice`, cut among
//! the same threads; the scalar loops use Xoshiro256++ and have one thread.

mod support;

use std::cell::RefCell;

use criterion::{BenchmarkId, Criterion, Throughput};
use fused_dropout::elementwise::{
    BiasActivationDropout, bias_activation_dropout_backward, bias_activation_dropout_forward,
    dropout_backward, dropout_forward,
};
use fused_dropout::{
    Activation, Dropout, KeyedDropout, Level, Mask, MaskKey, MaskSource, Saved, reference, testing,
};
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::SeedableRng;
use support::{Candidate, Options, Table, assert_same, matrix, matrix_mut, plain, size_name};

const RATES: [f64; 5] = [0.5, 0.1, 0.25, 0.2, 0.37];
const SIZES: [usize; 5] = [1 << 20, 1 << 12, 1 << 16, 1 << 24, 1 << 26];
/// A mini-batch of 2048 in a layer of 3072 units.
const ROWS: usize = 2048;
const COLS: usize = 3072;

/// A pass over the data of a `T`, and its name.
type Pass<T> = (&'static str, fn(&mut T));

fn main() {
    support::main(table, groups);
}

fn keyed(rate: f64) -> KeyedDropout {
    let key = MaskKey::new(7, 3, 5).expect("a small layer");
    Dropout::new(rate).expect("a rate").with_key(key)
}

fn table(options: &Options, threads: usize) {
    dropout_table(options, threads);
    width_table(options, threads);
    layer_table(options, threads, Activation::Gelu);
    layer_table(options, threads, Activation::Relu);
}

/// A slice, its image under dropout, and the mask, as the four passes use them.
struct Flat {
    dropout: KeyedDropout,
    x: Vec<f32>,
    y: Vec<f32>,
    mask: Mask,
}

impl Flat {
    /// With every pass checked against the reference, at every level that is measured.
    fn new(options: &Options, rate: f64, len: usize) -> Self {
        let dropout = keyed(rate);
        let mask = Mask::new(1, len).expect("a mask that fits");
        let mut flat = Self { dropout, x: support::uniform(len, 1), y: vec![0.0; len], mask };
        let head = len.min(4096);
        let mut expected = vec![0.0; head];
        let xy = (&flat.x[..head], &mut expected[..]);
        reference::dropout_forward(xy, &dropout, MaskSource::Key).expect("equal shapes");
        for level in &options.levels {
            let check = |flat: &mut Self, what: &str, pass: fn(&mut Self)| {
                flat.y.copy_from_slice(&flat.x);
                testing::at_level(*level, || pass(flat)).expect("an available level");
                assert_same(&format!("{level}: {what}"), &flat.y[..head], &expected);
            };
            check(&mut flat, "forward", Self::forward);
            check(&mut flat, "forward, in place", Self::forward_in_place);
            check(&mut flat, "forward, storing", Self::forward_storing);
            check(&mut flat, "backward, mask stored", Self::backward_stored);
            check(&mut flat, "backward, mask made again", Self::backward);
        }
        flat
    }

    fn forward(&mut self) {
        let xy = (&self.x[..], &mut self.y[..]);
        dropout_forward(xy, &self.dropout, MaskSource::Key).expect("equal shapes");
    }

    /// Where the values are those of the last pass: after a few, zeros and infinities.
    fn forward_in_place(&mut self) {
        dropout_forward(&mut self.y[..], &self.dropout, MaskSource::Key).expect("a valid key");
    }

    fn forward_storing(&mut self) {
        let xy = (&self.x[..], &mut self.y[..]);
        dropout_forward(xy, &self.dropout, &mut self.mask).expect("equal shapes");
    }

    fn backward(&mut self) {
        let dy_dx = (&self.x[..], &mut self.y[..]);
        dropout_backward(dy_dx, &self.dropout, MaskSource::Key).expect("equal shapes");
    }

    fn backward_stored(&mut self) {
        let dy_dx = (&self.x[..], &mut self.y[..]);
        dropout_backward(dy_dx, &self.dropout, &self.mask).expect("equal shapes");
    }

    fn copy(&mut self) {
        support::copy(&self.x, &mut self.y);
    }

    fn plain(&mut self, random: &mut Xoshiro256PlusPlus) {
        plain::dropout(random, self.dropout.dropout(), &self.x, &mut self.y);
    }
}

const PASSES: [Pass<Flat>; 5] = [
    ("forward", Flat::forward),
    ("in place", Flat::forward_in_place),
    ("forward, storing", Flat::forward_storing),
    ("backward, stored", Flat::backward_stored),
    ("backward, again", Flat::backward),
];

fn dropout_table(options: &Options, threads: usize) {
    let mut header = vec!["elements", "rate", "level", "copy"];
    for (name, _) in PASSES {
        header.extend([name, "/ copy"]);
    }
    header.extend(["scalar", "/ copy"]);
    let mut table = Table::new(header);
    for &len in options.cases(&SIZES, 2) {
        for &rate in options.cases(&RATES, 2) {
            let flat = RefCell::new(Flat::new(options, rate, len));
            let flat = &flat;
            let mut random = Xoshiro256PlusPlus::seed_from_u64(1);
            let mut candidates = vec![Candidate::new(|| flat.borrow_mut().copy()).named("copy")];
            for level in &options.levels {
                for (name, pass) in PASSES {
                    let run = move || pass(&mut flat.borrow_mut());
                    candidates.push(Candidate::at(*level, run).named(name));
                }
            }
            let scalar = Candidate::new(|| flat.borrow_mut().plain(&mut random));
            candidates.push(scalar.named("scalar"));
            let last = candidates.len() - 1;
            let times = options.measure(&format!("dropout/{}/{rate}", size_name(len)), candidates);
            for (l, level) in options.levels.iter().enumerate() {
                let ns = |i| format!("{:.4}", times.min(i) * 1e9 / len as f64);
                let mut row = vec![size_name(len), rate.to_string(), level.to_string(), ns(0)];
                for i in (0..PASSES.len()).map(|pass| 1 + l * PASSES.len() + pass).chain([last]) {
                    row.extend([ns(i), format!("{:.2}", times.ratio(i, 0))]);
                }
                table.row(row);
            }
        }
    }
    table.print(&format!(
        "dropout, {threads} thread(s): smallest time in ns an element, median ratio to the copy"
    ));
}

const WIDTHS: [usize; 15] =
    [768, 1024, 1, 10, 64, 100, 128, 129, 256, 384, 1000, 2048, 4096, 5000, 8192];

/// Dropout forward on about so many elements of each width, in the level-2 cache or in memory.
fn width_table(options: &Options, threads: usize) {
    let header = ["columns", "elements", "rate", "level", "ns", "/ 4096 columns", "/ best copy"];
    let mut table = Table::new(header);
    for (len, widths) in [(1 << 16, &WIDTHS[..]), (1 << 26, &[8192, 5000])] {
        for &cols in options.cases(widths, 2) {
            for &rate in options.cases(&[0.1, 0.5], 2) {
                let dropout = keyed(rate);
                let x = support::uniform(len, 1);
                let y = RefCell::new(vec![0.0; len]);
                let (x, y) = (&x[..], &y);
                let forward = |cols: usize| {
                    let rows = len / cols;
                    move || {
                        let y = &mut y.borrow_mut()[..];
                        let xy = (matrix(x, rows, cols), matrix_mut(y, rows, cols));
                        dropout_forward(xy, &dropout, MaskSource::Key).expect("equal shapes");
                    }
                };
                for level in &options.levels {
                    let copy = || support::copy_past_caches(x, &mut y.borrow_mut());
                    let candidates = vec![
                        Candidate::at(*level, forward(cols)).named("forward"),
                        Candidate::at(*level, forward(4096)).named("4096 columns"),
                        Candidate::new(copy).named("copy past the caches"),
                    ];
                    let group = format!("width/{}/{cols}/{rate}", size_name(len));
                    let times = options.measure(&group, candidates);
                    // The last row of a width that does not divide the length is left out.
                    let done = (len / cols * cols) as f64;
                    table.row(vec![
                        cols.to_string(),
                        size_name(len),
                        rate.to_string(),
                        level.to_string(),
                        format!("{:.4}", times.min(0) * 1e9 / done),
                        format!("{:.2}", times.ratio(0, 1) * len as f64 / done),
                        format!("{:.2}", times.ratio(0, 2) * len as f64 / done),
                    ]);
                }
            }
        }
    }
    table.print(&format!(
        "dropout forward by width, {threads} thread(s): smallest time in ns an element, median ratios \
         to the same elements as rows of 4096 and to a copy past the caches (on one thread)"
    ));
}

/// A layer's element-wise tail on 2048 x 3072: forward, and backward from what forward saved. ReLU
/// comes with a residual and goes back from its output, GELU goes back from z.
struct Layer {
    args: BiasActivationDropout<'static>,
    x: Vec<f32>,
    residual: Vec<f32>,
    mask: Mask,
    y: Vec<f32>,
    db: Vec<f32>,
}

impl Layer {
    /// With forward and backward checked against the reference, at every level that is measured.
    fn new(options: &Options, activation: Activation, rate: f64) -> Self {
        let dropout = keyed(rate);
        // The benches run a few layers and end: a leak keeps the arguments free of lifetimes.
        let bias: &'static [f32] = support::uniform(COLS, 3).leak();
        let args = BiasActivationDropout::new(activation, dropout).with_bias(bias);
        let mask = Mask::generate(ROWS, COLS, &dropout).expect("a mask that fits");
        let [x, residual] = [1, 2].map(|seed| support::uniform(ROWS * COLS, seed));
        let (y, db) = (vec![0.0; ROWS * COLS], vec![0.0; COLS]);
        let mut layer = Self { args, x, residual, mask, y, db };
        const HEAD: usize = 8;
        let mut expected = [0; 2].map(|_| vec![0.0; HEAD * COLS]);
        let [x, residual] = [&layer.x, &layer.residual].map(|data| matrix(data, HEAD, COLS));
        let [y, dz] = expected.each_mut().map(|data| matrix_mut(data, HEAD, COLS));
        let forward = match activation {
            Activation::Relu => args.with_residual(residual),
            _ => args,
        };
        reference::bias_activation_dropout_forward(&forward, (x, y), MaskSource::Key)
            .expect("equal shapes");
        let (saved, dy_dz, mask) = (Saved::PreActivation(x), (residual, dz), MaskSource::Key);
        reference::bias_activation_dropout_backward(&args, &saved, dy_dz, None, mask)
            .expect("equal shapes");
        for level in &options.levels {
            let check = |layer: &mut Self, what: &str, pass: fn(&mut Self), expected: &[f32]| {
                testing::at_level(*level, || pass(layer)).expect("an available level");
                let (what, got) = (format!("{level}: {what}"), &layer.y[..expected.len()]);
                if level.has_fma() {
                    assert_same(&what, got, expected);
                } else {
                    let near = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-5 * (1.0 + b.abs());
                    assert!(got.iter().zip(expected).all(near), "{what}");
                }
            };
            check(&mut layer, "forward", Self::forward, &expected[0]);
            check(&mut layer, "backward, mask stored", Self::backward_stored, &expected[1]);
            check(&mut layer, "backward, mask made again", Self::backward, &expected[1]);
        }
        layer
    }

    fn forward(&mut self) {
        let args = match self.args.activation {
            Activation::Relu => self.args.with_residual(matrix(&self.residual, ROWS, COLS)),
            _ => self.args,
        };
        let xy = (matrix(&self.x, ROWS, COLS), matrix_mut(&mut self.y, ROWS, COLS));
        bias_activation_dropout_forward(&args, xy, MaskSource::Key).expect("equal shapes");
    }

    /// The same in two passes: dropout after the rest. (With a residual it is not quite the same.)
    fn forward_in_two(&mut self) {
        let dropout = std::mem::take(&mut self.args.dropout);
        self.forward();
        self.args.dropout = dropout;
        let y = matrix_mut(&mut self.y, ROWS, COLS);
        dropout_forward(y, &dropout, MaskSource::Key).expect("a valid key");
    }

    fn backward_from(&mut self, stored: bool) {
        let saved = Saved::PreActivation(matrix(&self.x, ROWS, COLS));
        let mask = stored.then_some(&self.mask);
        let dy_dz = (matrix(&self.residual, ROWS, COLS), matrix_mut(&mut self.y, ROWS, COLS));
        bias_activation_dropout_backward(&self.args, &saved, dy_dz, Some(&mut self.db), mask)
            .expect("equal shapes");
    }

    fn backward(&mut self) {
        self.backward_from(false);
    }

    fn backward_stored(&mut self) {
        self.backward_from(true);
    }

    fn copy(&mut self) {
        support::copy(&self.x, &mut self.y);
    }

    fn plain(&mut self, random: &mut Xoshiro256PlusPlus) {
        let inputs = (&*self.x, self.args.bias.unwrap_or_default(), &*self.residual);
        let dropout = self.args.dropout.dropout();
        plain::bias_relu_dropout_residual(random, dropout, inputs, &mut self.y);
    }
}

const LAYER_PASSES: [Pass<Layer>; 4] = [
    ("forward", Layer::forward),
    ("in two passes", Layer::forward_in_two),
    ("backward, stored", Layer::backward_stored),
    ("backward, again", Layer::backward),
];

fn layer_table(options: &Options, threads: usize, activation: Activation) {
    let relu = activation == Activation::Relu;
    let mut header = vec!["rate", "level", "copy"];
    for (name, _) in LAYER_PASSES {
        header.extend([name, "/ copy"]);
    }
    if relu {
        header.extend(["scalar forward", "/ copy"]);
    }
    let mut table = Table::new(header);
    for &rate in &[0.0, 0.5, 0.1][..if options.quick { 2 } else { 3 }] {
        let layer = RefCell::new(Layer::new(options, activation, rate));
        let layer = &layer;
        let mut random = Xoshiro256PlusPlus::seed_from_u64(1);
        let mut candidates = vec![Candidate::new(|| layer.borrow_mut().copy()).named("copy")];
        for level in &options.levels {
            for (name, pass) in LAYER_PASSES {
                let run = move || pass(&mut layer.borrow_mut());
                candidates.push(Candidate::at(*level, run).named(name));
            }
        }
        let last = candidates.len();
        if relu {
            let scalar = Candidate::new(|| layer.borrow_mut().plain(&mut random));
            candidates.push(scalar.named("scalar"));
        }
        let times = options.measure(&format!("layer/{activation}/{rate}"), candidates);
        for (l, level) in options.levels.iter().enumerate() {
            let ns = |i| format!("{:.4}", times.min(i) * 1e9 / (ROWS * COLS) as f64);
            let mut row = vec![rate.to_string(), level.to_string(), ns(0)];
            let passes = (0..LAYER_PASSES.len()).map(|pass| 1 + l * LAYER_PASSES.len() + pass);
            for i in passes.chain(relu.then_some(last)) {
                row.extend([ns(i), format!("{:.2}", times.ratio(i, 0))]);
            }
            table.row(row);
        }
    }
    let what = if relu { "bias + ReLU + dropout + residual" } else { "bias + GELU + dropout" };
    table.print(&format!(
        "{what}, {ROWS} x {COLS}, {threads} thread(s): smallest time in ns an element, median ratio \
         to the copy; backward is without residual, and sums db"
    ));
}

fn groups(criterion: &mut Criterion, options: &Options, threads: usize) {
    let best = *options.levels.last().expect("a level");
    let at = |level: Level, run: &mut dyn FnMut()| {
        testing::at_level(level, run).expect("an available level")
    };
    for len in [1 << 12, 1 << 20] {
        let name = format!("dropout/{}/{threads}t", size_name(len));
        let mut group = criterion.benchmark_group(name);
        group.throughput(Throughput::Elements(len as u64));
        for rate in [0.5, 0.1] {
            let mut flat = Flat::new(options, rate, len);
            for (name, pass) in PASSES {
                group.bench_function(BenchmarkId::new(name, rate), |b| {
                    at(best, &mut || b.iter(|| pass(&mut flat)));
                });
            }
            if rate == 0.5 {
                group.bench_function("copy", |b| b.iter(|| flat.copy()));
                let mut random = Xoshiro256PlusPlus::seed_from_u64(1);
                group.bench_function("scalar", |b| b.iter(|| flat.plain(&mut random)));
            }
        }
        group.finish();
    }
    for activation in [Activation::Gelu, Activation::Relu] {
        let mut group = criterion.benchmark_group(format!("{activation}/2048x3072/{threads}t"));
        group.throughput(Throughput::Elements((ROWS * COLS) as u64));
        let mut layer = Layer::new(options, activation, 0.5);
        for (name, pass) in LAYER_PASSES {
            group.bench_function(name, |b| at(best, &mut || b.iter(|| pass(&mut layer))));
        }
        group.bench_function("copy", |b| b.iter(|| layer.copy()));
        group.finish();
    }
}
