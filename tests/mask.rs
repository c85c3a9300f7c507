//! Masks: the known answers, the contract rewritten bit by bit, shards, threads, edges.

mod common;

use common::{for_each_level, with_threads};
use fused_dropout::philox::philox4x32_10;
use fused_dropout::{Dropout, Error, Mask, MaskKey};
use proptest::prelude::*;
use serde_json::Value;

/// The contract, word for word, for one element.
fn keeps(dropout: &Dropout, key: &MaskKey, row: u64, column: u64) -> bool {
    let (b, w, i) = ((column / 128) as u32, (column % 128) as usize / 32, column % 32);
    let u = (0..32).fold(0u64, |u, j| {
        let (counter, key) = key.counter(row as u32, b, j);
        u | u64::from((philox4x32_10(counter, key)[w] >> i) & 1) << (31 - j)
    });
    u < dropout.threshold()
}

fn naive(rows: usize, cols: usize, dropout: &Dropout, key: &MaskKey) -> Vec<bool> {
    (0..rows * cols)
        .map(|i| {
            keeps(dropout, key, key.row0() + (i / cols) as u64, key.col0() + (i % cols) as u64)
        })
        .collect()
}

fn unpacked(mask: &Mask) -> Vec<bool> {
    let (rows, cols) = (mask.rows(), mask.cols());
    (0..rows * cols).map(|i| mask.get(i / cols, i % cols).unwrap()).collect()
}

#[test]
fn known_answers() {
    let file = include_str!("data/mask_vectors.json");
    let cases: Vec<Value> = serde_json::from_str(file).unwrap();
    assert_eq!(cases.len(), 11);
    for_each_level(|level| {
        for case in &cases {
            let number = |name: &str| case[name].as_u64().unwrap();
            let dropout = Dropout::new(case["rate"].as_f64().unwrap()).unwrap();
            assert_eq!(dropout.threshold(), number("threshold"));
            let seed = case["seed"].as_str().unwrap().parse().unwrap();
            let key = MaskKey::new(seed, number("layer") as u32, number("step") as u32)
                .unwrap()
                .with_origin(number("row0"), number("col0"));
            let key = if case["unit"].as_bool() == Some(true) { key.units() } else { key };
            let (rows, cols) = (number("rows") as usize, number("cols") as usize);
            let mask = Mask::generate(rows, cols, &dropout.with_key(key)).unwrap();
            for (row, words) in case["rows_hex"].as_array().unwrap().iter().enumerate() {
                let answer: Vec<u32> = words
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|word| u32::from_str_radix(word.as_str().unwrap(), 16).unwrap())
                    .collect();
                assert_eq!(mask.row(row), Some(&answer[..]), "{level}: row {row} of {case}");
            }
        }
    });
}

fn rates() -> impl Strategy<Value = f64> {
    prop_oneof![
        Just(0.0),
        Just(2f64.powi(-32)),
        Just(0.1),
        Just(0.25),
        Just(0.5),
        Just(0.37),
        Just(1.0 - 2f64.powi(-32)),
        Just(1.0),
        0.0..=1.0f64,
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn masks_follow_the_contract(
        rows in 0usize..40, cols in 0usize..700, rate in rates(),
        seed: u64, layer in 0u32..1 << 25, step: u32,
        row0 in 0u64..(1 << 32) - 40, col0 in prop_oneof![0u64..300, 0u64..(1 << 39) - 700],
    ) {
        let dropout = Dropout::new(rate).unwrap();
        let key = MaskKey::new(seed, layer, step).unwrap().with_origin(row0, col0);
        let expected = naive(rows, cols, &dropout, &key);
        for_each_level(|level| {
            let mask = Mask::generate(rows, cols, &dropout.with_key(key)).unwrap();
            assert!(unpacked(&mask) == expected, "{level}");
            let kept = expected.iter().filter(|kept| **kept).count();
            assert_eq!(mask.count(), kept as u64, "{level}: unused bits must be zero");
        });
    }

    #[test]
    fn lower_rates_contain_higher_ones(a in 0.0..=1.0f64, b in 0.0..=1.0f64, seed: u64) {
        let key = MaskKey::new(seed, 3, 4).unwrap();
        let mask = |rate| Mask::generate(7, 300, &Dropout::new(rate).unwrap().with_key(key)).unwrap();
        let (more, fewer) = (mask(a.min(b)), mask(a.max(b)));
        for (more, fewer) in more.words().iter().zip(fewer.words()) {
            prop_assert_eq!(more & fewer, *fewer);
        }
    }
}

#[test]
fn shards_are_parts_of_the_whole() {
    let dropout = Dropout::new(0.3).unwrap();
    let key = MaskKey::new(11, 2, 9).unwrap();
    for_each_level(|level| {
        let whole = Mask::generate(70, 5000, &dropout.with_key(key)).unwrap();
        for (row0, rows, col0, cols) in [
            (0, 70, 1, 4999),
            (3, 20, 33, 129),
            (69, 1, 127, 4200),
            (5, 40, 4095, 2),
            (1, 64, 31, 900),
        ] {
            let key = key.with_origin(row0 as u64, col0 as u64);
            let part = Mask::generate(rows, cols, &dropout.with_key(key)).unwrap();
            for r in 0..rows {
                for c in 0..cols {
                    assert_eq!(part.get(r, c), whole.get(row0 + r, col0 + c), "{level} {r} {c}");
                }
            }
        }
    });
}

#[test]
fn threads_do_not_show() {
    let dropout = Dropout::new(0.1).unwrap();
    let key = MaskKey::new(5, 0, 0).unwrap();
    for (rows, cols) in [(1, 3_000_001), (900, 1000), (4000, 300)] {
        let expected =
            with_threads(1, || Mask::generate(rows, cols, &dropout.with_key(key)).unwrap());
        for threads in [2, 3, 8] {
            let mask = with_threads(threads, || {
                Mask::generate(rows, cols, &dropout.with_key(key)).unwrap()
            });
            assert!(mask == expected, "{rows} x {cols} on {threads} threads");
        }
    }
}

#[test]
fn rates_and_addresses_are_checked() {
    for rate in [f64::NAN, -0.1, 1.0 + 1e-9, f64::INFINITY, f64::NEG_INFINITY] {
        assert!(matches!(Dropout::new(rate), Err(Error::Rate { .. })), "{rate}");
    }
    let layers = 1 << 25;
    assert!(MaskKey::new(0, layers - 1, 0).is_ok());
    assert!(matches!(MaskKey::new(0, layers, 0), Err(Error::Address { what: "layer", .. })));

    let dropout = Dropout::new(0.5).unwrap();
    let mask = |rows, cols, row0, col0| {
        let key = MaskKey::new(0, 0, 0).unwrap().with_origin(row0, col0);
        Mask::generate(rows, cols, &dropout.with_key(key)).map(|mask| mask.count())
    };
    let (rows, cols) = (1u64 << 32, 1u64 << 39);
    assert!(mask(2, 3, rows - 2, cols - 3).is_ok());
    assert!(matches!(mask(3, 3, rows - 2, 0), Err(Error::Address { what: "row", .. })));
    assert!(matches!(mask(2, 4, 0, cols - 3), Err(Error::Address { what: "column", .. })));
    assert!(matches!(mask(2, 4, u64::MAX, 0), Err(Error::Address { what: "row", .. })));
    assert!(matches!(mask(2, 4, 0, u64::MAX), Err(Error::Address { what: "column", .. })));
    assert_eq!(mask(0, 0, rows, cols), Ok(0));
    assert!(Mask::new(usize::MAX, usize::MAX).is_err());
    let units = MaskKey::new(0, 0, 0).unwrap().units();
    assert!(Mask::generate(1, 9, &dropout.with_key(units)).is_ok());
    assert!(Mask::generate(2, 9, &dropout.with_key(units)).is_err());
}

#[test]
fn positions_outside_a_mask() {
    let mask = Mask::new(2, 33).unwrap();
    assert_eq!((mask.get(2, 0), mask.get(0, 33)), (None, None));
    assert!(mask.row(2).is_none() && mask.row(usize::MAX / 64).is_none());
    assert_eq!(mask.iter_rows().len(), 2);
    assert_eq!(mask.size_in_bytes(), 16);
}

#[test]
fn scale_is_the_inverse_of_the_realised_keep_probability() {
    for (rate, scale) in [(0.0, 1.0), (0.5, 2.0), (0.75, 4.0), (1.0, 0.0)] {
        assert_eq!(Dropout::new(rate).unwrap().scale(), scale);
    }
    let dropout = Dropout::new(0.1).unwrap();
    assert_eq!(dropout.scale(), (4294967296.0 / 3865470566.0f64) as f32);
}
