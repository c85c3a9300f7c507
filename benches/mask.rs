//! How fast masks are made: [`Mask::fill`] beside a loop over a sequential generator.
//!
//! ```text
//! cargo bench -p fused-dropout-benches --bench mask
//!     -- --table [--quick] [--level avx2] [--threads 1]
//! ```
//!
//! Beside it a copy of as many floats as the mask has bits. The baseline draws 32 bits of
//! Xoshiro256++ for each element, compares them with the threshold without a branch, and packs the
//! results; both have one thread. Times are nanoseconds an element.

mod support;

use std::cell::RefCell;
use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput};
use fused_dropout::{Dropout, KeyedDropout, Mask, MaskKey, reference, testing};
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::SeedableRng;
use support::{Candidate, Options, Table, plain, size_name};

const RATES: [f64; 5] = [0.5, 0.1, 0.25, 0.2, 0.37];
const SIZES: [usize; 4] = [1 << 20, 1 << 16, 1 << 12, 1 << 26];

fn main() {
    support::main(table, groups);
}

fn keyed(rate: f64) -> KeyedDropout {
    let key = MaskKey::new(7, 3, 5).expect("a small layer");
    Dropout::new(rate).expect("a rate").with_key(key)
}

/// A mask whose start is checked against the reference, at every level that is measured.
fn checked(options: &Options, dropout: &KeyedDropout, len: usize) -> Mask {
    let mut mask = Mask::new(1, len).expect("a small mask");
    let expected = reference::mask(1, len.min(4096), dropout).expect("a small mask");
    for level in &options.levels {
        let filled = testing::at_level(*level, || mask.fill(dropout));
        filled.expect("an available level").expect("a valid key");
        let same = (0..expected.len()).all(|c| mask.get(0, c) == Some(expected[c]));
        assert!(same, "{level}: the mask differs from the reference");
    }
    mask
}

/// The baseline's words, whose share of ones is checked.
fn plain_words(random: &mut Xoshiro256PlusPlus, dropout: &Dropout, len: usize) -> Vec<u32> {
    let mut words = vec![0; len / 32];
    plain::mask(random, dropout, &mut words);
    let kept: u32 = words.iter().map(|word| word.count_ones()).sum();
    // Six standard deviations of a share are less than this.
    let tolerance = 3.0 / (len as f64).sqrt();
    assert!((f64::from(kept) / len as f64 - dropout.keep()).abs() < tolerance);
    words
}

fn table(options: &Options, threads: usize) {
    let mut header = vec!["elements".to_owned(), "rate".to_owned()];
    header.extend(options.levels.iter().map(ToString::to_string));
    header.extend(["copy".to_owned(), "xoshiro".to_owned()]);
    header.extend(options.levels.iter().map(|level| format!("{level} / copy")));
    header.extend(options.levels.iter().map(|level| format!("xoshiro / {level}")));
    let mut table = Table::new(header);
    for &len in options.cases(&SIZES, 2) {
        for &rate in options.cases(&RATES, 2) {
            let dropout = keyed(rate);
            let mask = RefCell::new(checked(options, &dropout, len));
            let mut random = Xoshiro256PlusPlus::seed_from_u64(1);
            let mut words = plain_words(&mut random, dropout.dropout(), len);
            let (from, mut to) = (vec![1.0f32; len], vec![0.0f32; len]);
            let mut candidates: Vec<_> = options
                .levels
                .iter()
                .map(|level| {
                    Candidate::at(*level, || {
                        mask.borrow_mut().fill(&dropout).expect("a valid key");
                    })
                    .named("fill")
                })
                .collect();
            let copy = Candidate::new(|| black_box(&mut to).copy_from_slice(&from));
            let plain = Candidate::new(|| plain::mask(&mut random, dropout.dropout(), &mut words));
            candidates.extend([copy.named("copy"), plain.named("xoshiro")]);
            let count = candidates.len();
            let times = options.measure(&format!("{}/{rate}", size_name(len)), candidates);
            let mut row = vec![size_name(len), rate.to_string()];
            row.extend((0..count).map(|i| format!("{:.4}", times.min(i) * 1e9 / len as f64)));
            row.extend((0..count - 2).map(|i| format!("{:.2}", times.ratio(i, count - 2))));
            row.extend((0..count - 2).map(|i| format!("{:.1}", times.ratio(count - 1, i))));
            table.row(row);
        }
    }
    table.print(&format!(
        "Mask::fill, {threads} thread(s): smallest time in ns an element; last columns: median ratios"
    ));
}

fn groups(criterion: &mut Criterion, options: &Options, threads: usize) {
    for len in [1 << 20, 1 << 16] {
        let mut group = criterion.benchmark_group(format!("mask/{}/{threads}t", size_name(len)));
        group.throughput(Throughput::Elements(len as u64));
        for rate in [0.5, 0.25, 0.1] {
            let dropout = keyed(rate);
            let mut mask = checked(options, &dropout, len);
            for level in &options.levels {
                group.bench_function(BenchmarkId::new(level.to_string(), rate), |b| {
                    testing::at_level(*level, || {
                        b.iter(|| mask.fill(&dropout).expect("a valid key"))
                    })
                    .expect("an available level");
                });
            }
            if threads == 1 && rate == 0.5 {
                let mut random = Xoshiro256PlusPlus::seed_from_u64(1);
                let mut words = plain_words(&mut random, dropout.dropout(), len);
                group.bench_function(BenchmarkId::new("xoshiro", rate), |b| {
                    b.iter(|| plain::mask(&mut random, dropout.dropout(), &mut words));
                });
            }
        }
        group.finish();
    }
}
