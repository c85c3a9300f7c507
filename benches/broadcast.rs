//! Decisions shared along axes of a tensor, and rates for rows and columns, beside a copy of the same
//! size and plain dropout.
//!
//! ```text
//! cargo bench -p fused-dropout-benches --bench broadcast
//!     -- --table [--quick] [--level avx2] [--threads 1]
//! ```
//!
//! The tensors have the 12.8 million elements of 64 x 256 x 28 x 28. The copy is `copy_from_slice`,
//! cut among the same threads. Backward is the same pass as forward.

mod support;

use std::cell::RefCell;

use criterion::{BenchmarkId, Criterion, Throughput};
use fused_dropout::elementwise::{
    BroadcastDropout, broadcast_dropout_forward, dropout_forward, rates_dropout_forward,
};
use fused_dropout::mask::{BroadcastShape, RateAxis, Rates};
use fused_dropout::{
    Dropout, KeyedDropout, Mask, MaskKey, MaskSource, Scaling, reference, testing,
};
use support::{Candidate, Options, Table, assert_same, matrix, matrix_mut};

const RATES: [f64; 2] = [0.5, 0.1];
/// A mini-batch of 2048 in a layer of 3072 units.
const ROWS: usize = 2048;
const COLS: usize = 3072;

fn main() {
    support::main(table, groups);
}

fn key() -> MaskKey {
    MaskKey::new(7, 3, 5).expect("a small layer")
}

fn table(options: &Options, threads: usize) {
    broadcast_table(options, threads);
    rates_table(options, threads);
}

/// Name and shape of each case; the first two are measured with `--quick`.
fn shapes() -> Vec<(&'static str, BroadcastShape)> {
    let first = [64, 256, 28, 28];
    let (last, small) = ([64, 28, 28, 256], [4096, 64, 7, 7]);
    let cases = [
        ("channels first", BroadcastShape::channels_first(&first)),
        ("rows", BroadcastShape::per_sample(&first)),
        ("whole", BroadcastShape::whole(&first)),
        ("channels last", BroadcastShape::channels_last(&last)),
        ("time steps, 784 of 256", BroadcastShape::time_steps(&[64, 784, 256])),
        ("channels first, 7 x 7", BroadcastShape::channels_first(&small)),
        ("channels last, 3", BroadcastShape::channels_last(&[64, 256, 261, 3])),
        ("elements", BroadcastShape::elements(&first)),
    ];
    cases.into_iter().map(|(name, shape)| (name, shape.expect("a small shape"))).collect()
}

/// A tensor and its image, the first examples checked against the reference at every level.
struct Tensor {
    args: BroadcastDropout,
    x: Vec<f32>,
    y: Vec<f32>,
}

impl Tensor {
    fn new(options: &Options, shape: BroadcastShape, rate: f64) -> Self {
        let dropout = Dropout::new(rate).expect("a rate").with_key(key());
        let args = BroadcastDropout::new(shape, dropout);
        let mut tensor =
            Self { args, x: support::uniform(shape.len(), 1), y: vec![0.0; shape.len()] };
        let mut dims = shape.dims().to_vec();
        dims[0] = 1;
        let head = BroadcastShape::new(&dims, shape.shared()).expect("a smaller shape");
        let head = BroadcastDropout::new(head, dropout);
        let mut expected = vec![0.0; head.shape.len()];
        let xy = (&tensor.x[..expected.len()], &mut expected[..]);
        reference::broadcast_dropout_forward(&head, xy, MaskSource::Key).expect("equal lengths");
        for level in &options.levels {
            tensor.y.fill(f32::NAN);
            testing::at_level(*level, || tensor.forward()).expect("an available level");
            assert_same(&format!("{level}"), &tensor.y[..expected.len()], &expected);
        }
        tensor
    }

    fn forward(&mut self) {
        let xy = (&self.x[..], &mut self.y[..]);
        broadcast_dropout_forward(&self.args, xy, MaskSource::Key).expect("equal lengths");
    }

    fn in_place(&mut self) {
        let y = &mut self.y[..];
        broadcast_dropout_forward(&self.args, y, MaskSource::Key).expect("equal lengths");
    }

    fn copy(&mut self) {
        support::copy(&self.x, &mut self.y);
    }
}

fn broadcast_table(options: &Options, threads: usize) {
    let header = ["shared", "rate", "level", "copy", "forward", "/ copy", "in place", "/ copy"];
    let mut table = Table::new(header);
    let shapes = shapes();
    for (name, shape) in options.cases(&shapes, 4) {
        for rate in RATES {
            let tensor = RefCell::new(Tensor::new(options, *shape, rate));
            let mut candidates = vec![Candidate::new(|| tensor.borrow_mut().copy()).named("copy")];
            for level in &options.levels {
                let forward = Candidate::at(*level, || tensor.borrow_mut().forward());
                let in_place = Candidate::at(*level, || tensor.borrow_mut().in_place());
                candidates.extend([forward.named("forward"), in_place.named("in place")]);
            }
            let times = options.measure(&format!("{name}/{rate}"), candidates);
            for (l, level) in options.levels.iter().enumerate() {
                let ns = |i| format!("{:.4}", times.min(i) * 1e9 / shape.len() as f64);
                let mut row = vec![(*name).to_owned(), rate.to_string(), level.to_string(), ns(0)];
                for i in [1 + 2 * l, 2 + 2 * l] {
                    row.extend([ns(i), format!("{:.2}", times.ratio(i, 0))]);
                }
                table.row(row);
            }
        }
    }
    table.print(&format!(
        "shared decisions, {threads} thread(s): smallest time in ns an element, median ratio to the copy"
    ));
}

/// A matrix whose rows or columns have rates around one that all may have.
struct Layer {
    rates: [Rates; 2],
    dropout: KeyedDropout,
    x: Vec<f32>,
    y: Vec<f32>,
}

const AXES: [RateAxis; 2] = [RateAxis::Row, RateAxis::Column];

impl Layer {
    fn new(options: &Options, rate: f64) -> Self {
        let rates = AXES.map(|axis| {
            let n = if axis == RateAxis::Row { ROWS } else { COLS };
            let rates: Vec<_> = (0..n).map(|i| 2.0 * rate * i as f64 / n as f64).collect();
            Rates::new(axis, &rates, Scaling::Inverted).expect("rates")
        });
        let (x, y) = (support::uniform(ROWS * COLS, 1), vec![0.0; ROWS * COLS]);
        let dropout = Dropout::new(rate).expect("a rate").with_key(key());
        let mut layer = Self { rates, dropout, x, y };
        for level in &options.levels {
            for (i, axis) in AXES.into_iter().enumerate() {
                testing::at_level(*level, || layer.forward(i)).expect("an available level");
                let mask = Mask::generate_with_rates(ROWS, COLS, &layer.rates[i].with_key(key()));
                let mask = mask.expect("a mask that fits");
                for (at, y) in layer.y.iter().enumerate().step_by(97) {
                    let (r, c) = (at / COLS, at % COLS);
                    let own = layer.rates[i].get([r, c][i]).expect("a rate");
                    let kept = reference::keeps(&own.with_key(key()), r, c);
                    assert_eq!(mask.get(r, c), Some(kept));
                    let expected = if kept { layer.x[at] * own.scale() } else { 0.0 };
                    assert!(*y == expected, "{level}: {axis:?}, element {at}");
                }
            }
        }
        layer
    }

    fn forward(&mut self, axis: usize) {
        let (x, y) = (matrix(&self.x, ROWS, COLS), matrix_mut(&mut self.y, ROWS, COLS));
        let rates = self.rates[axis].with_key(key());
        rates_dropout_forward((x, y), &rates, MaskSource::Key).expect("equal shapes");
    }

    fn plain(&mut self) {
        let (x, y) = (matrix(&self.x, ROWS, COLS), matrix_mut(&mut self.y, ROWS, COLS));
        dropout_forward((x, y), &self.dropout, MaskSource::Key).expect("equal shapes");
    }

    fn copy(&mut self) {
        support::copy(&self.x, &mut self.y);
    }
}

fn rates_table(options: &Options, threads: usize) {
    let header =
        ["mean rate", "level", "copy", "one rate", "/ copy", "a row", "/ one", "a column", "/ one"];
    let mut table = Table::new(header);
    for rate in RATES {
        let layer = RefCell::new(Layer::new(options, rate));
        let mut candidates = vec![Candidate::new(|| layer.borrow_mut().copy()).named("copy")];
        for level in &options.levels {
            candidates.extend([
                Candidate::at(*level, || layer.borrow_mut().plain()).named("one rate"),
                Candidate::at(*level, || layer.borrow_mut().forward(0)).named("a row"),
                Candidate::at(*level, || layer.borrow_mut().forward(1)).named("a column"),
            ]);
        }
        let times = options.measure(&format!("rates/{rate}"), candidates);
        for (l, level) in options.levels.iter().enumerate() {
            let ns = |i| format!("{:.4}", times.min(i) * 1e9 / (ROWS * COLS) as f64);
            let one = 1 + 3 * l;
            let mut row = vec![rate.to_string(), level.to_string(), ns(0)];
            row.extend([ns(one), format!("{:.2}", times.ratio(one, 0))]);
            for i in [one + 1, one + 2] {
                row.extend([ns(i), format!("{:.2}", times.ratio(i, one))]);
            }
            table.row(row);
        }
    }
    table.print(&format!(
        "a rate for each row or column, {ROWS} x {COLS}, {threads} thread(s): smallest time in ns an \
         element, median ratios"
    ));
}

fn groups(criterion: &mut Criterion, options: &Options, threads: usize) {
    let best = *options.levels.last().expect("a level");
    for (name, shape) in shapes() {
        let mut group = criterion.benchmark_group(format!("broadcast/{name}/{threads}t"));
        group.throughput(Throughput::Elements(shape.len() as u64));
        let mut tensor = Tensor::new(options, shape, 0.5);
        group.bench_function("copy", |b| b.iter(|| tensor.copy()));
        group.bench_function("forward", |b| {
            testing::at_level(best, || b.iter(|| tensor.forward())).expect("an available level");
        });
        group.finish();
    }
    let mut group = criterion.benchmark_group(format!("rates/2048x3072/{threads}t"));
    group.throughput(Throughput::Elements((ROWS * COLS) as u64));
    let mut layer = Layer::new(options, 0.1);
    for (i, name) in ["row", "column"].into_iter().enumerate() {
        group.bench_function(BenchmarkId::new("a rate for each", name), |b| {
            testing::at_level(best, || b.iter(|| layer.forward(i))).expect("an available level");
        });
    }
    group.finish();
}
