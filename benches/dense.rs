//! The fused dense layer as a share of what the machine can multiply, beside other products.
//!
//! ```text
//! cargo bench -p fused-dropout-benches --bench dense
//!     -- --table [--quick] [--level avx2] [--threads 1]
//!     -- --table --scaling     one thread against two
//!     -- --table --weights     with a dropout of the weights (DropConnect)
//!     -- --table --sweep [rows] [--picture FILE.svg]     along rows, units, k, width and batch, or one of them
//!     --features openblas -- --table
//! ```
//!
//! With the feature `openblas` the system's OpenBLAS is linked (Debian: `libopenblas-dev`); it
//! follows `OPENBLAS_CORETYPE` and the like, which should be unset. The peers are bare products:
//! they add no bias, apply no activation and drop nothing. matrixmultiply is measured on one thread.

#[path = "dense/peers.rs"]
mod peers;
mod support;
#[path = "dense/sweep.rs"]
mod sweep;

use std::cell::RefCell;
use std::sync::Mutex;

use criterion::{BenchmarkId, Criterion, Throughput};
use fused_dropout::elementwise::dropout_forward;
use fused_dropout::layer::{DenseArgs, DenseLayer, dense_forward};
use fused_dropout::{
    Activation, Dropout, KeyedDropout, Level, MaskKey, MaskSource, MatRef, reference, testing,
};
use peers::{Peer, peers};
use support::scaling::Scaling;
use support::{Candidate, Options, Table, assert_same, matrix, matrix_mut, peak};

/// (m, k, n): batch, inputs, units.
const SHAPES: [(usize, usize, usize); 11] = [
    (1024, 1024, 1024),
    (128, 784, 1024),
    (1, 1024, 1024),
    (512, 2048, 2048),
    (2048, 768, 3072),
    (256, 1024, 1024),
    (100, 784, 800),
    (64, 1024, 1024),
    (128, 4096, 4096),
    (32, 9216, 4096),
    (7, 33, 65),
];

/// Name, activation and rate; the first is the bare product, without bias.
const LAYERS: [(&str, Activation, f64); 4] = [
    ("bare", Activation::Identity, 0.0),
    ("relu .5", Activation::Relu, 0.5),
    ("relu .1", Activation::Relu, 0.1),
    ("gelu .5", Activation::Gelu, 0.5),
];

fn main() {
    if support::flag("--scaling") {
        scaling(&Options::new());
    } else {
        let table = match ["--sweep", "--weights"].map(support::flag) {
            [true, _] => sweep::table,
            [_, true] => weights,
            _ => table,
        };
        support::main(table, groups);
    }
}

/// A dropout whose mask starts at this row and column.
fn keyed(rate: f64, row: usize, col: usize) -> KeyedDropout {
    let key = MaskKey::new(7, 3, 5).expect("a small layer").with_origin(row as u64, col as u64);
    Dropout::new(rate).expect("a rate").with_key(key)
}

/// What a layer does, from this row and column on.
fn does(layer: usize, row: usize, col: usize) -> DenseLayer<'static> {
    match LAYERS[layer] {
        _ if layer == 0 => DenseLayer::default(),
        (_, activation, rate) => DenseLayer::new(activation).with_output(keyed(rate, row, col)),
    }
}

/// The operands of one shape.
struct Case {
    shape: (usize, usize, usize),
    x: Vec<f32>,
    w: Vec<f32>,
    bias: Vec<f32>,
}

impl Case {
    fn new(shape: (usize, usize, usize)) -> Self {
        let (m, k, n) = shape;
        let [x, mut w, bias] =
            [(m * k, 1), (k * n, 2), (n, 3)].map(|(n, s)| support::uniform(n, s));
        // z of unit size, as in a network: in the far tail of GELU results are subnormal, and slow.
        let size = 3.0 / (k as f32).sqrt();
        w.iter_mut().for_each(|w| *w *= size);
        Self { shape, x, w, bias }
    }

    fn name(&self) -> String {
        let (m, k, n) = self.shape;
        format!("{m}x{k}x{n}")
    }

    /// Floating-point operations of the product.
    fn work(&self) -> f64 {
        let (m, k, n) = self.shape;
        2.0 * m as f64 * k as f64 * n as f64
    }

    fn args(&self, layer: usize) -> DenseArgs<'_> {
        let (m, k, n) = self.shape;
        let (x, w) = (matrix(&self.x, m, k), matrix(&self.w, k, n));
        let args = DenseArgs::new(does(layer, 0, 0), x, w);
        if layer == 0 { args } else { args.with_bias(&self.bias) }
    }

    fn run(&self, layer: usize, y: &mut [f32]) {
        let y = matrix_mut(y, self.shape.0, self.shape.2);
        dense_forward(&self.args(layer), y, None, MaskSource::Key).expect("shapes that agree");
    }

    /// Compares the last two rows and five columns of each layer with the reference, and each peer
    /// with the bare product.
    fn check(&self, levels: &[Level], peers: &[Peer]) {
        let (m, k, n) = self.shape;
        let (rows, cols) = (m.min(2), n.min(5));
        let mut y = vec![0.0; m * n];
        for level in levels {
            for layer in (0..LAYERS.len()).rev() {
                let x = matrix(&self.x[(m - rows) * k..], rows, k);
                let w = MatRef::with_stride(&self.w[n - cols..], k, cols, n);
                let w = w.expect("the last columns");
                let mut corner = DenseArgs::new(does(layer, m - rows, n - cols), x, w);
                corner.bias = self.args(layer).bias.map(|bias| &bias[n - cols..]);
                let mut expected = vec![0.0; rows * cols];
                let to = matrix_mut(&mut expected, rows, cols);
                reference::dense_forward(&corner, to, None, MaskSource::Key)
                    .expect("shapes that agree");
                testing::at_level(*level, || self.run(layer, &mut y)).expect("an available level");
                let tail = y.chunks(n).skip(m - rows).flat_map(|row| &row[n - cols..]);
                let got: Vec<f32> = tail.copied().collect();
                let what = format!("{level}, {}, {}", self.name(), LAYERS[layer].0);
                if level.has_fma() {
                    assert_same(&what, &got, &expected);
                } else {
                    assert!(near(&got, &expected, k), "{what}");
                }
            }
        }
        // The last layer that ran is the bare product.
        let mut other = vec![0.0; m * n];
        for peer in peers {
            other.fill(f32::NAN);
            (peer.run)(self, &mut other);
            assert!(near(&other, &y, k), "{}, {}", peer.name, self.name());
        }
    }
}

/// Whether sums of `k` products of numbers below 1 agree up to their rounding errors.
fn near(left: &[f32], right: &[f32], k: usize) -> bool {
    let bound = 2.0 * (k + 2) as f32 * f32::EPSILON;
    left.iter().zip(right).all(|(a, b)| (a - b).abs() <= bound)
}

/// The peak of a level, and what these layers take there.
fn ours<'a>(
    case: &'a Case,
    y: &'a RefCell<Vec<f32>>,
    level: Level,
    layers: &[(&'static str, Activation, f64)],
) -> Vec<Candidate<'a>> {
    let peak = Candidate::new(move || peak::run(peak::yardstick(level))).named("peak").of(level);
    let layers = layers.iter().enumerate().map(|(layer, (name, ..))| {
        Candidate::at(level, move || case.run(layer, &mut y.borrow_mut())).named(*name)
    });
    [peak.baseline()].into_iter().chain(layers).collect()
}

/// The peak that the peers are compared with, and the peers.
fn theirs<'a>(
    case: &'a Case,
    y: &'a RefCell<Vec<f32>>,
    best: Level,
    peers: &'a [Peer],
) -> Vec<Candidate<'a>> {
    let peak = Candidate::new(move || peak::run(best)).named("peak").of(best);
    let peers = peers.iter().map(|peer| {
        let run = || (peer.run)(case, &mut y.borrow_mut());
        Candidate::new(run).settle(peer.settle).named(peer.name)
    });
    [peak.baseline()].into_iter().chain(peers).collect()
}

fn table(options: &Options, threads: usize) {
    let levels = options.fast_levels();
    let best = peak::yardstick(Level::best());
    let peers = peers(threads);
    let mut header: Vec<String> =
        ["m x k x n", "level", "GFLOP/s", "at best", "bare"].map(Into::into).into();
    for (name, ..) in &LAYERS[1..] {
        header.extend([(*name).to_owned(), "/ bare".to_owned()]);
    }
    header.extend(peers.iter().map(|peer| peer.name.to_owned()));
    header.push("best peer / bare".to_owned());
    let mut table = Table::new(header);
    let mut peaks = vec![f64::INFINITY; levels.len()];
    for &shape in options.cases(&SHAPES, 3) {
        let case = &Case::new(shape);
        case.check(&levels, &peers);
        let y = &RefCell::new(vec![0.0; shape.0 * shape.2]);
        // For each level its peak and its layers; then the peak that the peers are compared with.
        let mut candidates = Vec::new();
        for &level in &levels {
            candidates.extend(ours(case, y, level, &LAYERS));
        }
        let first_peer = candidates.len() + 1;
        candidates.extend(theirs(case, y, best, &peers));
        let times = options.measure(&case.name(), candidates);
        let percent = |share: f64| format!("{:.1}%", 100.0 * share);
        for (l, &level) in levels.iter().enumerate() {
            let peak_of = l * (1 + LAYERS.len());
            let bare = peak_of + 1;
            let yardstick = peak::yardstick(level);
            peaks[l] = peaks[l].min(times.min(peak_of));
            let share = |i| percent(peak::share(yardstick, case.work(), times.ratio(i, peak_of)));
            let speed = format!("{:.1}", case.work() / times.min(bare) / 1e9);
            let best_share =
                peak::share(yardstick, case.work(), times.min(bare) / times.min(peak_of));
            let mut row =
                vec![case.name(), level.to_string(), speed, percent(best_share), share(bare)];
            for i in bare + 1..bare + LAYERS.len() {
                row.extend([share(i), format!("{:.3}", times.ratio(i, bare))]);
            }
            for i in first_peer..first_peer + peers.len() {
                let ratio = times.ratio(i, first_peer - 1);
                row.push(percent(peak::share(best, case.work(), ratio)));
            }
            let ratio = times.best_ratio(first_peer..first_peer + peers.len(), bare);
            row.push(format!("{ratio:.2}"));
            table.row(row);
        }
    }
    table.print(&format!(
        "dense layer, forward, {threads} thread(s): shares of the peak of level and threads, and \
         ratios of times; medians"
    ));
    println!();
    for (level, seconds) in levels.iter().zip(peaks) {
        let speed = peak::per_second(peak::yardstick(*level), seconds) / 1e9;
        println!("{level}: peak {speed:.1} GFLOP/s, from a loop of multiply-adds in registers.");
    }
    println!(
        "GFLOP/s and its share \"at best\" are of the bare product, from the smallest times. A peer chooses its own \
         instructions:\nits share is of the {best} peak in every line, and its line with another \
         level compares unlike things."
    );
}

/// The bare product, and the same with weights that are dropped on the way.
fn weights(options: &Options, threads: usize) {
    const RATES: [f64; 3] = [0.5, 0.25, 0.1];
    let shapes = [(256, 1024, 1024), (1024, 1024, 1024), (64, 1024, 1024), (1, 1024, 1024)];
    let mut header = ["m x k x n", "level", "bare, ms"].map(String::from).to_vec();
    header.extend(RATES.map(|rate| format!("rate {rate}, / bare")));
    let mut table = Table::new(header);
    for shape in shapes {
        let case = &Case::new(shape);
        let (m, k, n) = shape;
        let run = |rate: f64, y: &mut [f32]| {
            let mut args = case.args(0);
            args.layer = args.layer.with_weight_dropout(keyed(rate, 0, 0));
            let y = matrix_mut(y, m, n);
            dense_forward(&args, y, None, MaskSource::Key).expect("shapes that agree");
        };
        let y = &RefCell::new(vec![0.0; m * n]);
        for level in options.fast_levels() {
            // The dropped weights as a matrix give the same bits.
            let mut w = case.w.clone();
            let to = matrix_mut(&mut w, k, n);
            dropout_forward(to, &keyed(0.5, 0, 0), MaskSource::Key).expect("a matrix");
            let mut args = case.args(0);
            args.w = matrix(&w, k, n);
            let (mut expected, mut got) = (vec![0.0; m * n], vec![0.0; m * n]);
            testing::at_level(level, || {
                let to = matrix_mut(&mut expected, m, n);
                dense_forward(&args, to, None, MaskSource::Key).expect("shapes that agree");
                run(0.5, &mut got);
            })
            .expect("an available level");
            assert_same(&case.name(), &got, &expected);

            let bare = Candidate::at(level, move || case.run(0, &mut y.borrow_mut()));
            let mut candidates = vec![bare.named("bare")];
            for rate in RATES {
                let dropped = Candidate::at(level, move || run(rate, &mut y.borrow_mut()));
                candidates.push(dropped.named(format!("rate {rate}")));
            }
            let times = options.measure(&format!("weights/{}", case.name()), candidates);
            let mut row = vec![case.name(), level.to_string()];
            row.push(format!("{:.3}", times.min(0) * 1e3));
            row.extend((1..=RATES.len()).map(|i| format!("{:.3}", times.ratio(i, 0))));
            table.row(row);
        }
    }
    table
        .print(&format!("dropped weights, forward, {threads} thread(s): ratios of times, medians"));
}

/// The bare product and the layer on one thread and on two, for shapes of 64 rows or more.
fn scaling(options: &Options) {
    let mut table = Scaling::new(options);
    for &shape in options.cases(&SHAPES, 2).iter().filter(|(m, ..)| *m >= 64) {
        let case = Case::new(shape);
        case.check(&options.fast_levels(), &[]);
        let y = Mutex::new(vec![0.0; shape.0 * shape.2]);
        for level in options.fast_levels() {
            for (layer, (name, ..)) in LAYERS.iter().enumerate().take(2) {
                table.row(format!("{}, {name}", case.name()), level, case.work(), || {
                    case.run(layer, &mut y.lock().expect("no panic"));
                });
            }
        }
    }
    table.print("dense layer, forward");
}

fn groups(criterion: &mut Criterion, options: &Options, threads: usize) {
    let levels = options.fast_levels();
    let peers = peers(threads);
    for shape in [(256, 1024, 1024), (128, 784, 1024), (1, 1024, 1024)] {
        let case = Case::new(shape);
        case.check(&levels, &peers);
        let mut y = vec![0.0; shape.0 * shape.2];
        let mut group = criterion.benchmark_group(format!("dense/{}/{threads}t", case.name()));
        // Elements a second read as multiply-adds a second, twice.
        group.throughput(Throughput::Elements(case.work() as u64));
        for level in &levels {
            for (layer, (name, ..)) in LAYERS.iter().enumerate() {
                group.bench_function(BenchmarkId::new(level.to_string(), name), |b| {
                    testing::at_level(*level, || b.iter(|| case.run(layer, &mut y)))
                        .expect("an available level");
                });
            }
        }
        for peer in &peers {
            group.bench_function(peer.name, |b| b.iter(|| (peer.run)(&case, &mut y)));
            std::thread::sleep(peer.settle);
        }
        group.finish();
    }
}
