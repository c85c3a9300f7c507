//! What the benches share: the command line, paired measurements, tables, and plain baselines.
//!
//! Every bench binary has two uses:
//!
//! ```text
//! cargo bench -p fused-dropout-benches --bench NAME              criterion, a selection of cases
//! cargo bench -p fused-dropout-benches --bench NAME -- --table   a table of all cases, in pairs
//!     --quick                   fewer cases and rounds
//!     --level avx2 --threads 1  only these (also FUSED_DROPOUT_LEVEL=avx2)
//!     --scaling                 one thread against two instead (dense, train_step)
//!     --json FILE               the table, and what was measured for it as JSON (see [`record`])
//! benches/compare.py OLD NEW    two such files beside each other
//! ```
//!
//! A table compares candidates that take turns: A B C, A B C, ... A machine that slows down slows
//! all of them, and the ratio of two times of one round is hardly touched. So a ratio is the median
//! of the rounds' ratios, while a time is the smallest one seen.

#![allow(dead_code, reason = "each bench uses a part of this module")]

mod aligned;
pub(crate) mod layer;
pub(crate) mod peak;
pub(crate) mod plain;
pub(crate) mod plain_network;
mod record;
pub(crate) mod scaling;

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::Criterion;
use fused_dropout::{Level, MatMut, MatRef, testing};

/// A sample repeats its candidate until it takes about this long, so that neither the clock's
/// resolution nor the call shows.
const SAMPLE: Duration = Duration::from_millis(2);

/// What the command line asks for.
pub(crate) struct Options {
    /// Fewer cases and rounds.
    pub(crate) quick: bool,
    /// The levels to measure, slowest first.
    pub(crate) levels: Vec<Level>,
    /// The sizes of the thread pools.
    pub(crate) threads: Vec<usize>,
}

impl Options {
    /// Reads the command line; the environment variable `FUSED_DROPOUT_LEVEL` is a filter too.
    pub(crate) fn new() -> Self {
        let level = value_of("--level").or_else(|| std::env::var("FUSED_DROPOUT_LEVEL").ok());
        let level: Option<Level> =
            level.map(|name| name.parse().expect("a level: portable, avx2 or avx512"));
        let threads = value_of("--threads").map(|n| n.parse().expect("a number of threads"));
        let levels: Vec<_> =
            Level::available().filter(|l| level.is_none_or(|only| only == *l)).collect();
        assert!(!levels.is_empty(), "this machine does not have the level");
        Self { quick: flag("--quick"), levels, threads: threads.map_or(vec![1, 2], |n| vec![n]) }
    }

    /// The levels that are worth a column where the portable one, which is many times slower, only
    /// costs time: all others, or the one that was asked for.
    pub(crate) fn fast_levels(&self) -> Vec<Level> {
        let fast: Vec<_> = self.levels.iter().copied().filter(|l| *l != Level::Portable).collect();
        if fast.is_empty() { self.levels.clone() } else { fast }
    }

    /// All of `cases`, or the first `quick` of them.
    pub(crate) fn cases<'a, T>(&self, cases: &'a [T], quick: usize) -> &'a [T] {
        if self.quick { &cases[..quick.min(cases.len())] } else { cases }
    }

    /// Measures as long as the options say, and records it under the name of the group.
    pub(crate) fn measure(&self, group: &str, candidates: Vec<Candidate<'_>>) -> Timings {
        let (least, time) = if self.quick { (5, 0.15) } else { (11, 1.0) };
        let labels: Vec<_> = candidates.iter().map(|candidate| candidate.label.clone()).collect();
        let timings = measure(candidates, least, Duration::from_secs_f64(time));
        record::group(group, &labels, &timings);
        timings
    }
}

/// Whether an argument was given.
pub(crate) fn flag(name: &str) -> bool {
    std::env::args().any(|arg| arg == name)
}

/// The argument after `name`.
pub(crate) fn value_of(name: &str) -> Option<String> {
    std::env::args().skip_while(|arg| arg != name).nth(1)
}

/// Whether the command line asks for tables, not for criterion.
pub(crate) fn wants_table() -> bool {
    flag("--table") || flag("--json")
}

/// The main function of a bench: `table` with `--table` or `--json`, else the criterion `groups`; once for each
/// number of threads, inside a pool of that size. All that a case needs is made on a thread of the
/// pool, so that an operation starts where a trainer's would.
pub(crate) fn main(table: fn(&Options, usize), groups: fn(&mut Criterion, &Options, usize)) {
    let options = Options::new();
    for &threads in &options.threads {
        pool(threads).install(|| {
            if wants_table() {
                table(&options, threads);
            } else {
                let mut criterion = Criterion::default()
                    .sample_size(10)
                    .warm_up_time(Duration::from_millis(200))
                    .measurement_time(Duration::from_millis(800))
                    .configure_from_args();
                groups(&mut criterion, &options, threads);
                criterion.final_summary();
            }
        });
    }
}

/// A rayon pool.
pub(crate) fn pool(threads: usize) -> rayon::ThreadPool {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a thread pool")
}

/// What the record of a candidate says of it beside its times.
#[derive(Clone)]
struct Label {
    name: String,
    level: Option<Level>,
    threads: usize,
    /// Whether it is what those after it are compared with.
    baseline: bool,
}

impl Label {
    fn on(threads: usize) -> Self {
        Self { name: String::new(), level: None, threads, baseline: false }
    }
}

/// One of the things that are compared.
pub(crate) struct Candidate<'a> {
    label: Label,
    /// Calls it so many times.
    run: Box<dyn FnMut(u32) + 'a>,
    /// How long its threads keep spinning after a call, in the way of the next candidate.
    settle: Duration,
    /// Calls before each sample that are not counted.
    warm_up: u32,
}

impl<'a> Candidate<'a> {
    pub(crate) fn new(mut run: impl FnMut() + 'a) -> Self {
        let run = move |times| (0..times).for_each(|_| run());
        let label = Label::on(rayon::current_num_threads());
        Self { label, run: Box::new(run), settle: Duration::ZERO, warm_up: 0 }
    }

    /// The same on the threads of a pool.
    pub(crate) fn on(pool: &'a rayon::ThreadPool, run: impl Fn() + Sync + 'a) -> Self {
        let run = move |times| pool.install(|| (0..times).for_each(|_| run()));
        let label = Label::on(pool.current_num_threads());
        Self { label, run: Box::new(run), settle: Duration::ZERO, warm_up: 0 }
    }

    /// The same with a level forced.
    pub(crate) fn at(level: Level, mut run: impl FnMut() + 'a) -> Self {
        Self::new(move || testing::at_level(level, &mut run).expect("an available level")).of(level)
    }

    /// The same, measured at this level, which `run` forces itself.
    pub(crate) fn of(mut self, level: Level) -> Self {
        self.label.level = Some(level);
        self
    }

    /// The same with a name for the record.
    pub(crate) fn named(mut self, name: impl Into<String>) -> Self {
        self.label.name = name.into();
        self
    }

    /// The same as what the candidates after it are compared with in the record, in place of the first.
    pub(crate) fn baseline(mut self) -> Self {
        self.label.baseline = true;
        self
    }

    /// With a call before each sample that is not counted: for what is called again and again, and finds its
    /// data in the caches then, which other candidates' data have taken meanwhile.
    pub(crate) fn warm(self) -> Self {
        Self { warm_up: 1, ..self }
    }

    /// With a pause after each sample.
    pub(crate) fn settle(self, settle: Duration) -> Self {
        Self { settle, ..self }
    }
}

/// Seconds a call: one row a candidate, one column a round.
pub(crate) struct Timings(Vec<Vec<f64>>);

impl Timings {
    /// The smallest time of a candidate, in seconds a call.
    pub(crate) fn min(&self, i: usize) -> f64 {
        self.0[i].iter().copied().fold(f64::INFINITY, f64::min)
    }

    /// The median time of a candidate, in seconds a call.
    pub(crate) fn median(&self, i: usize) -> f64 {
        median(self.0[i].clone())
    }

    /// The median over the rounds of time `i` / time `j`.
    pub(crate) fn ratio(&self, i: usize, j: usize) -> f64 {
        median(self.0[i].iter().zip(&self.0[j]).map(|(a, b)| a / b).collect())
    }

    /// The median over the rounds of the shortest time of `peers` / time `j`.
    pub(crate) fn best_ratio(&self, peers: std::ops::Range<usize>, j: usize) -> f64 {
        let best = |round: usize| {
            self.0[peers.clone()].iter().map(|times| times[round]).fold(f64::INFINITY, f64::min)
        };
        median(self.0[j].iter().enumerate().map(|(round, t)| best(round) / t).collect())
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let n = values.len();
    (values[(n - 1) / 2] + values[n / 2]) / 2.0
}

/// Times the candidates in turn, for at least `least` rounds and at least `time`.
pub(crate) fn measure(mut candidates: Vec<Candidate<'_>>, least: usize, time: Duration) -> Timings {
    let repeats: Vec<u32> = candidates
        .iter_mut()
        .map(|candidate| {
            // The first call pays for page faults and buffers, and is not counted.
            (candidate.run)(1);
            let mut repeat = 1;
            while repeat < 1 << 20 {
                let taken = sample(candidate, repeat) * f64::from(repeat);
                if taken >= SAMPLE.as_secs_f64() / 2.0 {
                    break;
                }
                repeat *= 2;
            }
            repeat
        })
        .collect();
    let mut rounds = vec![Vec::new(); candidates.len()];
    let start = Instant::now();
    while rounds[0].len() < least || start.elapsed() < time {
        for ((candidate, repeat), times) in candidates.iter_mut().zip(&repeats).zip(&mut rounds) {
            times.push(sample(candidate, *repeat));
        }
    }
    Timings(rounds)
}

/// Seconds a call, over `repeat` calls.
fn sample(candidate: &mut Candidate<'_>, repeat: u32) -> f64 {
    (candidate.run)(candidate.warm_up);
    let start = Instant::now();
    (candidate.run)(repeat);
    let taken = start.elapsed().as_secs_f64() / f64::from(repeat);
    std::thread::sleep(candidate.settle);
    taken
}

/// Rows of text, printed with aligned columns: the first to the left, the others to the right.
pub(crate) struct Table(Vec<Vec<String>>);

impl Table {
    pub(crate) fn new<S: Into<String>>(header: impl IntoIterator<Item = S>) -> Self {
        Self(vec![header.into_iter().map(Into::into).collect()])
    }

    pub(crate) fn row(&mut self, cells: Vec<String>) {
        self.0.push(cells);
    }

    pub(crate) fn print(&self, title: &str) {
        let columns = self.0.iter().map(Vec::len).max().unwrap_or(0);
        let width = |c: usize| {
            self.0.iter().filter_map(|row| row.get(c)).map(|s| s.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        println!("\n{title}\n");
        for (r, row) in self.0.iter().enumerate() {
            let mut line = String::new();
            for (c, (cell, width)) in row.iter().zip(&widths).enumerate() {
                line +=
                    &if c == 0 { format!("{cell:width$}") } else { format!("  {cell:>width$}") };
            }
            println!("{}", line.trim_end());
            if r == 0 {
                println!("{}", "-".repeat(widths.iter().sum::<usize>() + 2 * (columns - 1)));
            }
        }
    }
}

/// Uniform numbers in [-1, 1).
pub(crate) fn uniform(len: usize, seed: u64) -> Vec<f32> {
    use rand_xoshiro::rand_core::{Rng, SeedableRng};
    let mut random = rand_xoshiro::Xoshiro256PlusPlus::seed_from_u64(seed);
    (0..len).map(|_| (random.next_u32() >> 8) as f32 / (1 << 23) as f32 - 1.0).collect()
}

/// A slice as a matrix.
pub(crate) fn matrix(data: &[f32], rows: usize, cols: usize) -> MatRef<'_> {
    MatRef::new(data, rows, cols).expect("enough elements")
}

/// A slice as a matrix to write.
pub(crate) fn matrix_mut(data: &mut [f32], rows: usize, cols: usize) -> MatMut<'_> {
    MatMut::new(data, rows, cols).expect("enough elements")
}

/// Panics unless both slices have the same bits, save that NaN is not expected anywhere.
pub(crate) fn assert_same(what: &str, left: &[f32], right: &[f32]) {
    assert_eq!(left.len(), right.len(), "{what}: length");
    let differs = left.iter().zip(right).position(|(a, b)| a.to_bits() != b.to_bits());
    assert_eq!(differs.map(|i| (i, left[i], right[i])), None, "{what}");
}

/// `copy_from_slice`, cut among the threads of the pool.
pub(crate) fn copy(from: &[f32], to: &mut [f32]) {
    use rayon::prelude::*;
    let threads = rayon::current_num_threads();
    if threads == 1 {
        to.copy_from_slice(from);
    } else {
        let part = from.len().div_ceil(threads);
        to.par_chunks_mut(part).zip(from.par_chunks(part)).for_each(|(to, from)| {
            to.copy_from_slice(from);
        });
    }
    black_box(to);
}

/// A copy on one thread that stores past the caches where the CPU has AVX: it does not read what it
/// overwrites.
pub(crate) fn copy_past_caches(from: &[f32], to: &mut [f32]) {
    assert_eq!(from.len(), to.len());
    #[cfg(target_arch = "x86_64")]
    if std::is_x86_feature_detected!("avx") {
        // SAFETY: the CPU has AVX, and the slices are of one length.
        unsafe { stream(from, to) };
        return;
    }
    to.copy_from_slice(from);
}

/// # Safety
///
/// The slices are of one length.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx")]
unsafe fn stream(from: &[f32], to: &mut [f32]) {
    use std::arch::x86_64::{_mm_sfence, _mm256_loadu_ps, _mm256_stream_ps};
    let head = to.as_ptr().align_offset(64).min(to.len());
    let end = head + (to.len() - head) / 16 * 16;
    to[..head].copy_from_slice(&from[..head]);
    for i in (head..end).step_by(8) {
        // SAFETY: elements `i..i + 8` are in both slices, and the output's are aligned.
        unsafe { _mm256_stream_ps(to.as_mut_ptr().add(i), _mm256_loadu_ps(from.as_ptr().add(i))) };
    }
    to[end..].copy_from_slice(&from[end..]);
    _mm_sfence();
}

/// A size with its binary prefix.
pub(crate) fn size_name(n: usize) -> String {
    if n >= 1 << 20 { format!("{} Mi", n >> 20) } else { format!("{} Ki", n >> 10) }
}
