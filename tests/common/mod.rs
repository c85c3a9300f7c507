//! What several test files share.
#![allow(dead_code, reason = "each test file uses a part of it")]

pub(crate) mod executors;

use executors::Threads;
use fused_dropout::update::SgdStep;
use fused_dropout::{Activation, Level, testing};
use proptest::prelude::Strategy;
use proptest::sample::select;

/// Every activation.
pub(crate) const ACTIVATIONS: [Activation; 9] = [
    Activation::Identity,
    Activation::Relu,
    Activation::LeakyRelu { slope: 0.25 },
    Activation::Sigmoid,
    Activation::Tanh,
    Activation::Gelu,
    Activation::GeluTanh,
    Activation::Silu,
    Activation::Selu,
];

/// Both ends of the rates, what is next to them, and two between.
pub(crate) const RATES: [f64; 6] = [0.0, 1e-9, 0.1, 0.5, 1.0 - 1e-9, 1.0];

/// Any activation.
pub(crate) fn activations() -> impl Strategy<Value = Activation> {
    select(&ACTIVATIONS[..])
}

/// Any of the rates.
pub(crate) fn rates() -> impl Strategy<Value = f64> {
    select(&RATES[..])
}

/// An update with these numbers.
pub(crate) const fn sgd_step(
    learning_rate: f32,
    momentum: f32,
    weight_decay: f32,
    l1: f32,
) -> SgdStep {
    let mut step = SgdStep::new(learning_rate);
    step.momentum = momentum;
    step.weight_decay = weight_decay;
    step.l1 = l1;
    step
}

/// Runs `f` with every level this machine has, or with the one that `FUSED_DROPOUT_LEVEL` forces, and
/// says which ran and which the machine has not. `TEST_EXECUTOR` says on whose threads.
pub(crate) fn for_each_level(f: impl Fn(Level)) {
    let executor = Threads::of_environment().executor(2);
    let forced = std::env::var("FUSED_DROPOUT_LEVEL").ok();
    for level in [Level::Portable, Level::Avx2, Level::Avx512] {
        if forced.as_ref().is_some_and(|forced| *forced != level.to_string()) {
            continue;
        }
        let ran = testing::at_level(level, || {
            assert_eq!(Level::current(), Ok(level), "the forced level must be the one that runs");
            executor.run(|| f(level));
        });
        match ran {
            Ok(()) if level.has_fma() => println!("ran: level {level}, fused multiply-add"),
            Ok(()) => println!("ran: level {level}, no fused multiply-add"),
            Err(error) => println!("skipped: {error}"),
        }
    }
}

/// Runs `f` in a rayon pool of so many threads, or on as many of those that `TEST_EXECUTOR` names.
pub(crate) fn with_threads<R: Send>(threads: usize, f: impl FnOnce() -> R + Send) -> R {
    // Where there are no threads, there is no pool.
    if cfg!(target_family = "wasm") {
        return f();
    }
    match Threads::of_environment() {
        Threads::Rayon => {
            rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(f)
        }
        // On a thread that ends, as those of a pool do.
        other => {
            let run = || other.executor(threads).run(f);
            let result = std::thread::scope(|scope| scope.spawn(run).join());
            result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        }
    }
}

/// Numbers of mixed size and sign, the same for the same seed.
pub(crate) fn numbers(len: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..len).map(|_| next() * 2.0).collect()
}

/// The bits of floats, all NaN being alike: which NaN an operation returns is not specified.
pub(crate) fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|x| if x.is_nan() { 0x7fc0_0000 } else { x.to_bits() }).collect()
}

/// Asserts that two results are the same bits, or, where the level multiplies and adds in two
/// roundings, that they differ by no more than the rounding of sums of `terms` terms of magnitude
/// `size` each.
#[track_caller]
pub(crate) fn assert_same(
    level: Level,
    fast: &[f32],
    reference: &[f32],
    (terms, size): (usize, f32),
    what: &str,
) {
    assert_eq!(fast.len(), reference.len(), "{what}");
    if level.has_fma() {
        if let Some(i) = (0..fast.len()).find(|&i| bits(&fast[i..=i]) != bits(&reference[i..=i])) {
            panic!("{what} on {level}: element {i} is {:?}, not {:?}", fast[i], reference[i]);
        }
        return;
    }
    // Two roundings a term, and some more in an activation and its derivative.
    let bound = (2 * terms + 32) as f32 * (terms + 1) as f32 * size * f32::EPSILON;
    for (i, (a, b)) in fast.iter().zip(reference).enumerate() {
        let same = a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= bound;
        assert!(same, "{what} on {level}: element {i} is {a:?}, not {b:?} within {bound:?}");
    }
}

/// A matrix inside a larger slice: rows `stride` apart, what is between them filled with a value that
/// must never be read or written, and perhaps stored in transposed order.
#[derive(Clone, Debug)]
pub(crate) struct Padded {
    pub(crate) data: Vec<f32>,
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    pub(crate) stride: usize,
    pub(crate) transposed: bool,
}

/// The padding: a signalling pattern that arithmetic does not produce.
const PADDING: u32 = 0x7fa5_5a5a;

impl Padded {
    pub(crate) fn new(
        values: &[f32],
        rows: usize,
        cols: usize,
        extra: usize,
        transposed: bool,
    ) -> Self {
        assert_eq!(values.len(), rows * cols);
        let (lines, line) = if transposed { (cols, rows) } else { (rows, cols) };
        let stride = line + extra;
        let mut data = vec![f32::from_bits(PADDING); lines * stride];
        for r in 0..rows {
            for c in 0..cols {
                let at = if transposed { c * stride + r } else { r * stride + c };
                data[at] = values[r * cols + c];
            }
        }
        Self { data, rows, cols, stride, transposed }
    }

    pub(crate) fn view(&self) -> fused_dropout::MatRef<'_> {
        let (lines, line) =
            if self.transposed { (self.cols, self.rows) } else { (self.rows, self.cols) };
        let view =
            fused_dropout::MatRef::with_stride(&self.data, lines, line, self.stride).unwrap();
        if self.transposed { view.t() } else { view }
    }

    pub(crate) fn view_mut(&mut self) -> fused_dropout::MatMut<'_> {
        let (lines, line) =
            if self.transposed { (self.cols, self.rows) } else { (self.rows, self.cols) };
        let view =
            fused_dropout::MatMut::with_stride(&mut self.data, lines, line, self.stride).unwrap();
        if self.transposed { view.t() } else { view }
    }

    /// The elements, row after row, after a check that the padding is untouched.
    pub(crate) fn values(&self) -> Vec<f32> {
        let (lines, line) =
            if self.transposed { (self.cols, self.rows) } else { (self.rows, self.cols) };
        for l in 0..lines {
            for x in &self.data[l * self.stride + line..(l + 1) * self.stride] {
                assert_eq!(x.to_bits(), PADDING, "padding was written");
            }
        }
        let view = self.view();
        (0..self.rows * self.cols)
            .map(|i| view.get(i / self.cols, i % self.cols).unwrap())
            .collect()
    }
}

/// A slice as a matrix.
#[track_caller]
pub(crate) fn matrix(data: &[f32], rows: usize, cols: usize) -> fused_dropout::MatRef<'_> {
    fused_dropout::MatRef::new(data, rows, cols).unwrap()
}

/// A slice as a matrix to write.
#[track_caller]
pub(crate) fn matrix_mut(data: &mut [f32], rows: usize, cols: usize) -> fused_dropout::MatMut<'_> {
    fused_dropout::MatMut::new(data, rows, cols).unwrap()
}
