//! Gaussian dropout, alpha dropout, and softmax with dropout, beside plain dropout and a copy.
//!
//! ```text
//! cargo bench -p fused-dropout-benches --bench noise
//!     -- --table [--quick] [--level avx2] [--threads 1]
//! ```
//!
//! Two tables: the passes over one row of 1 Mi elements, and those over attention scores of 4096 rows
//! of 512. All of a table take turns, plain dropout and the copy among them.

mod support;

use std::cell::RefCell;

use criterion::{BenchmarkId, Criterion, Throughput};
use fused_dropout::elementwise::{
    AlphaDropout, GaussianDropout, alpha_dropout_backward, alpha_dropout_forward, dropout_forward,
    gaussian_dropout_backward, gaussian_dropout_forward, standard_normal,
};
use fused_dropout::softmax::{SoftmaxDropout, softmax_dropout_backward, softmax_dropout_forward};
use fused_dropout::{
    Dropout, KeyedDropout, MaskKey, MaskSource, MatMut, MatRef, reference, testing,
};
use support::{Candidate, Options, Table, assert_same, matrix, matrix_mut, size_name};

const RATE: f64 = 0.1;

fn main() {
    support::main(table, groups);
}

fn key() -> MaskKey {
    MaskKey::new(7, 3, 5).expect("a small layer")
}

/// Matrices of one shape that all passes share.
struct Data {
    rows: usize,
    cols: usize,
    x: Vec<f32>,
    p: Vec<f32>,
    y: Vec<f32>,
}

/// A pass over the data, and its name.
type Pass = (&'static str, fn(&mut Data));

impl Data {
    fn new(rows: usize, cols: usize) -> Self {
        let x = support::uniform(rows * cols, 1);
        let zeros = || vec![0.0; rows * cols];
        let mut data = Self { rows, cols, x, p: zeros(), y: zeros() };
        data.softmax_storing();
        data
    }

    fn views(&mut self) -> (MatRef<'_>, MatMut<'_>) {
        (matrix(&self.x, self.rows, self.cols), matrix_mut(&mut self.y, self.rows, self.cols))
    }

    fn copy(&mut self) {
        support::copy(&self.x, &mut self.y);
    }

    fn dropout(&mut self) {
        dropout_forward(self.views(), &plain(), MaskSource::Key).expect("equal shapes");
    }

    fn gaussian(&mut self) {
        gaussian_dropout_forward(self.views(), &gaussian().with_key(key())).expect("equal shapes");
    }

    fn gaussian_backward(&mut self) {
        gaussian_dropout_backward(self.views(), &gaussian().with_key(key())).expect("equal shapes");
    }

    fn normal(&mut self) {
        standard_normal(self.views().1, &key()).expect("a valid key");
    }

    fn alpha(&mut self) {
        let xy = self.views();
        alpha_dropout_forward(xy, &alpha(), MaskSource::Key).expect("equal shapes");
    }

    fn alpha_backward(&mut self) {
        let dy_dx = self.views();
        alpha_dropout_backward(dy_dx, &alpha(), MaskSource::Key).expect("equal shapes");
    }

    fn softmax(&mut self) {
        let xy = self.views();
        softmax_dropout_forward(&attention(), xy, None, MaskSource::Key).expect("equal shapes");
    }

    fn softmax_storing(&mut self) {
        let (x, y) = (matrix(&self.x, self.rows, self.cols), &mut self.y);
        let [y, p] = [y, &mut self.p].map(|data| matrix_mut(data, self.rows, self.cols));
        softmax_dropout_forward(&attention(), (x, y), Some(p), MaskSource::Key)
            .expect("equal shapes");
    }

    fn softmax_backward(&mut self) {
        let p = matrix(&self.p, self.rows, self.cols);
        let dy = matrix(&self.x, self.rows, self.cols);
        let dx = matrix_mut(&mut self.y, self.rows, self.cols);
        softmax_dropout_backward(&attention(), p, (dy, dx), MaskSource::Key).expect("equal shapes");
    }
}

fn plain() -> KeyedDropout {
    Dropout::new(RATE).expect("a rate").with_key(key())
}

fn gaussian() -> GaussianDropout {
    GaussianDropout::new(RATE).expect("a rate")
}

fn alpha() -> KeyedDropout<AlphaDropout> {
    AlphaDropout::new(RATE).expect("a rate").with_key(key())
}

fn attention() -> SoftmaxDropout {
    SoftmaxDropout::new(plain())
}

const FLAT: [Pass; 6] = [
    ("dropout", Data::dropout),
    ("Gaussian", Data::gaussian),
    ("backward", Data::gaussian_backward),
    ("normal", Data::normal),
    ("alpha", Data::alpha),
    ("backward", Data::alpha_backward),
];

const ROWS: [Pass; 4] = [
    ("dropout", Data::dropout),
    ("softmax", Data::softmax),
    ("storing p", Data::softmax_storing),
    ("backward", Data::softmax_backward),
];

/// Compares with the reference what a few rows or columns show, at every level with FMA.
fn assert_right(options: &Options) {
    let mut data = Data::new(8, 512);
    let mut expected = [0; 4].map(|_| vec![0.0; 8 * 512]);
    let [g, a, s, b] = expected.each_mut().map(|data| matrix_mut(data, 8, 512));
    let (x, p) = (matrix(&data.x, 8, 512), matrix(&data.p, 8, 512));
    let (args, mask) = (attention(), || MaskSource::Key);
    reference::gaussian_dropout_forward((x, g), &gaussian().with_key(key())).expect("equal shapes");
    reference::alpha_dropout_forward((x, a), &alpha(), mask()).expect("equal shapes");
    reference::softmax_dropout_forward(&args, (x, s), None, mask()).expect("equal shapes");
    reference::softmax_dropout_backward(&args, p, (x, b), mask()).expect("equal shapes");
    let passes = [Data::gaussian, Data::alpha, Data::softmax, Data::softmax_backward];
    for level in options.levels.iter().filter(|level| level.has_fma()) {
        for (pass, expected) in passes.into_iter().zip(&expected) {
            testing::at_level(*level, || pass(&mut data)).expect("an available level");
            assert_same(&level.to_string(), &data.y, expected);
        }
    }
}

fn table(options: &Options, threads: usize) {
    assert_right(options);
    passes_table(options, threads, (1, 1 << 20), &FLAT);
    passes_table(options, threads, (4096, 512), &ROWS);
}

fn passes_table(options: &Options, threads: usize, (rows, cols): (usize, usize), passes: &[Pass]) {
    let mut header = vec!["level", "copy"];
    for (name, _) in passes {
        header.extend([*name, "/ dropout"]);
    }
    let mut table = Table::new(header);
    for level in &options.levels {
        let data = RefCell::new(Data::new(rows, cols));
        let data = &data;
        let mut candidates = vec![Candidate::new(|| data.borrow_mut().copy()).named("copy")];
        for (name, pass) in passes {
            let run = move || pass(&mut data.borrow_mut());
            candidates.push(Candidate::at(*level, run).named(*name));
        }
        let times = options.measure(&format!("{rows}x{cols}"), candidates);
        let ns = |i| format!("{:.3}", times.min(i) * 1e9 / (rows * cols) as f64);
        let mut row = vec![level.to_string(), ns(0)];
        for i in 1..=passes.len() {
            row.extend([ns(i), format!("{:.2}", times.ratio(i, 1))]);
        }
        table.row(row);
    }
    table.print(&format!(
        "{rows} x {cols}, rate {RATE}, {threads} thread(s): smallest time in ns an element, median \
         ratio to plain dropout"
    ));
}

fn groups(criterion: &mut Criterion, options: &Options, threads: usize) {
    assert_right(options);
    let best = *options.levels.last().expect("a level");
    for (rows, cols, passes) in [(1, 1 << 20, &FLAT[..]), (4096, 512, &ROWS[..])] {
        let name = format!("noise/{}/{threads}t", size_name(rows * cols));
        let mut group = criterion.benchmark_group(name);
        group.throughput(Throughput::Elements((rows * cols) as u64));
        let mut data = Data::new(rows, cols);
        for (i, (name, pass)) in passes.iter().enumerate() {
            group.bench_function(BenchmarkId::new(*name, i), |b| {
                testing::at_level(best, || b.iter(|| pass(&mut data))).expect("an available level");
            });
        }
        group.finish();
    }
}
