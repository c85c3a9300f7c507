//! Rates as data: one for each row or column, against the reference; schedules; drawn rates.

mod common;

use common::{Padded, bits, for_each_level, matrix, matrix_mut, numbers, with_threads};
use fused_dropout::elementwise::{dropout_forward, rates_dropout_backward, rates_dropout_forward};
use fused_dropout::mask::{RateAxis, RateSchedule, Rates, drawn_rate};
use fused_dropout::philox::philox4x32_10;
use fused_dropout::{Dropout, Error, Mask, MaskKey, MaskSource, Scaling, reference};
use proptest::prelude::*;

const AXES: [RateAxis; 2] = [RateAxis::Row, RateAxis::Column];

fn key() -> MaskKey {
    MaskKey::new(8, 2, 5).unwrap()
}

/// Rates of which some are 0, some 1, and some next to them.
fn mixed(n: usize, seed: u64) -> Vec<f64> {
    let tiny = 2f64.powi(-32);
    let special = [0.0, 1.0, tiny, 1.0 - tiny, 0.5, 0.25, 0.1];
    let numbers = numbers(n, seed);
    let rate = |(i, x): (usize, &f32)| {
        if i % 3 == seed as usize % 3 { special[i / 3 % 7] } else { f64::from(x.abs()) / 2.0 }
    };
    numbers.iter().enumerate().map(rate).collect()
}

fn count(axis: RateAxis, rows: usize, cols: usize) -> usize {
    if axis == RateAxis::Row { rows } else { cols }
}

fn unpacked(mask: &Mask) -> Vec<bool> {
    mask.to_bools().unwrap()
}

/// Every function on every level, against the reference, over padded and transposed views.
fn check(x: &Padded, rates: &Rates, key: &MaskKey, transposed: bool) {
    let (rows, cols, keyed) = (x.rows, x.cols, rates.with_key(*key));
    let expected_mask = reference::mask_with_rates(rows, cols, &keyed).unwrap();
    let output = Padded::new(&vec![9.0; rows * cols], rows, cols, 3, transposed);
    let mut expected = output.clone();
    let mut stored = Mask::new(rows, cols).unwrap();
    reference::rates_dropout_forward((x.view(), expected.view_mut()), &keyed, &mut stored).unwrap();
    let expected = bits(&expected.values());
    for_each_level(|level| {
        let what = format!("{rows} x {cols} on {level}, {:?}, {rates:?}", rates.axis());
        let mask = Mask::generate_with_rates(rows, cols, &keyed).unwrap();
        assert!(unpacked(&mask) == expected_mask, "mask: {what}");
        assert_eq!(mask, stored, "stored by the reference: {what}");
        let same = |name: &str, y: &Padded| {
            assert!(bits(&y.values()) == expected, "{name}: {what}");
        };
        let mut y = output.clone();
        rates_dropout_forward((x.view(), y.view_mut()), &keyed, MaskSource::Key).unwrap();
        same("forward", &y);
        let (mut y, mut mask) = (output.clone(), Mask::new(rows, cols).unwrap());
        rates_dropout_forward((x.view(), y.view_mut()), &keyed, &mut mask).unwrap();
        same("forward, storing", &y);
        assert_eq!(mask, stored, "{what}");
        let mut y = output.clone();
        rates_dropout_forward(
            (x.view(), y.view_mut()),
            &rates.with_key(key.with_origin(0, 1)),
            &mask,
        )
        .unwrap();
        same("forward, given", &y);
        let mut y = x.clone();
        rates_dropout_forward(y.view_mut(), &keyed, MaskSource::Key).unwrap();
        same("forward in place", &y);
        let mut y = output.clone();
        rates_dropout_backward((x.view(), y.view_mut()), &keyed, MaskSource::Key).unwrap();
        same("backward", &y);
        let mut y = x.clone();
        rates_dropout_backward(y.view_mut(), &keyed, Some(&mask)).unwrap();
        same("backward in place, mask stored", &y);
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn follows_the_reference(
        rows in 0usize..40, cols in prop_oneof![0usize..10, 0usize..300], axis in 0usize..2,
        classical: bool, seed in 0u64..1000, transposed: [bool; 2],
        row0 in 0u64..(1 << 32) - 40, col0 in prop_oneof![Just(0), 0u64..300, 0u64..(1 << 39) - 300],
    ) {
        let scaling = if classical { Scaling::Classical } else { Scaling::Inverted };
        let rates = mixed(count(AXES[axis], rows, cols), seed);
        let rates = Rates::new(AXES[axis], &rates, scaling).unwrap();
        let key = MaskKey::new(seed, 3, 4).unwrap().with_origin(row0, col0);
        let mut x = numbers(rows * cols, seed);
        x.iter_mut().step_by(5).for_each(|x| *x = f32::NAN);
        let x = Padded::new(&x, rows, cols, 2, transposed[0]);
        check(&x, &rates, &key, transposed[1]);
    }
}

/// Both orders of the lanes, one tile and several, and blocks that begin inside a word.
#[test]
fn shapes_around_blocks_and_tiles() {
    for (rows, cols) in [(1, 5000), (2, 1025), (7, 129), (8, 128), (33, 127), (600, 3), (17, 4200)]
    {
        for axis in AXES {
            for col0 in [0, 5, 100] {
                let rates = mixed(count(axis, rows, cols), 2);
                let rates = Rates::new(axis, &rates, Scaling::Inverted).unwrap();
                let x = Padded::new(&numbers(rows * cols, 1), rows, cols, 0, false);
                check(&x, &rates, &key().with_origin(3, col0), false);
            }
        }
    }
}

/// With one rate for all, the masks and values are those of that rate.
#[test]
fn equal_rates_are_one_rate() {
    let (rows, cols) = (50, 700);
    let x = numbers(rows * cols, 1);
    for rate in [0.0, 0.1, 0.5, 1.0] {
        let dropout = Dropout::new(rate).unwrap().with_key(key());
        let mask = Mask::generate(rows, cols, &dropout).unwrap();
        let (mut expected, mut y) = (vec![9.0; x.len()], vec![9.0; x.len()]);
        let to = matrix_mut(&mut expected, rows, cols);
        dropout_forward((matrix(&x, rows, cols), to), &dropout, MaskSource::Key).unwrap();
        for axis in AXES {
            let rates = vec![rate; count(axis, rows, cols)];
            let rates = Rates::new(axis, &rates, Scaling::Inverted).unwrap();
            assert_eq!(
                Mask::generate_with_rates(rows, cols, &rates.with_key(key())),
                Ok(mask.clone())
            );
            let to = matrix_mut(&mut y, rows, cols);
            rates_dropout_forward(
                (matrix(&x, rows, cols), to),
                &rates.with_key(key()),
                MaskSource::Key,
            )
            .unwrap();
            assert_eq!(y, expected);
        }
    }
}

#[test]
fn threads_and_shards_do_not_show() {
    let (rows, cols) = (700, 900);
    for axis in AXES {
        let all = mixed(count(axis, rows, cols), 1);
        let rates = Rates::new(axis, &all, Scaling::Inverted).unwrap();
        let generate = |threads| {
            with_threads(threads, || {
                Mask::generate_with_rates(rows, cols, &rates.with_key(key())).unwrap()
            })
        };
        let whole = generate(1);
        assert!(generate(2) == whole && generate(8) == whole, "{axis:?}");
        let (row0, col0, part_rows, part_cols) = (33, 77, 100, 300);
        let part = if axis == RateAxis::Row {
            &all[row0..row0 + part_rows]
        } else {
            &all[col0..col0 + part_cols]
        };
        let rates = Rates::new(axis, part, Scaling::Inverted).unwrap();
        let key = key().with_origin(row0 as u64, col0 as u64);
        let part = Mask::generate_with_rates(part_rows, part_cols, &rates.with_key(key)).unwrap();
        for r in 0..part_rows {
            for c in 0..part_cols {
                assert_eq!(part.get(r, c), whole.get(row0 + r, col0 + c), "{axis:?} {r} {c}");
            }
        }
    }
}

#[test]
fn what_rates_hold() {
    let rates = Rates::per_column(&[0.0, 0.2, 1.0]).unwrap();
    assert_eq!((rates.axis(), rates.len(), rates.is_empty()), (RateAxis::Column, 3, false));
    assert_eq!(rates.rates(), [0.0, 0.2, 1.0]);
    assert_eq!(rates.thresholds(), [1 << 32, 3435973837, 0]);
    assert_eq!(rates.scales(), [1.0, 1.25, 0.0]);
    assert_eq!(rates.scaling(), Scaling::Inverted);
    assert_eq!((rates.get(1), rates.get(3)), (Some(Dropout::new(0.2).unwrap()), None));
    let classical = Rates::new(RateAxis::Row, &[0.2], Scaling::Classical).unwrap();
    assert_eq!(classical.scales(), [1.0]);
}

#[test]
fn bad_arguments_are_errors() {
    for bad in [f64::NAN, -0.1, 1.1] {
        assert!(matches!(Rates::per_row(&[0.5, bad]), Err(Error::Rate { .. })));
        assert!(matches!(drawn_rate(bad, &key(), 0), Err(Error::Rate { .. })));
        assert!(matches!(Dropout::drawn(bad, &key()), Err(Error::Rate { .. })));
        assert!(matches!(RateSchedule::Constant.rate_at(bad, 0), Err(Error::Rate { .. })));
        let linear = RateSchedule::Linear { from: bad, steps: 5 };
        assert!(matches!(linear.rate_at(0.5, 0), Err(Error::Rate { .. })));
        assert!(matches!(reference::rate_at(&linear, 0.5, 0), Err(Error::Rate { .. })));
        assert!(matches!(reference::drawn_rate(bad, &key(), 0), Err(Error::Rate { .. })));
    }
    for gamma in [f64::NAN, 0.0, -1.0, f64::INFINITY] {
        let error = RateSchedule::Curriculum { gamma }.rate_at(0.5, 3).unwrap_err();
        assert!(matches!(error, Error::Parameter { name: "gamma", .. }), "{error}");
    }
    let (x, mut y) = ([1.0; 6], [9.0; 6]);
    let rates = Rates::per_row(&[0.5; 3]).unwrap();
    let run = |y: &mut [f32; 6], rates: &Rates, key: &MaskKey| {
        rates_dropout_forward(
            (matrix(&x, 2, 3), matrix_mut(y, 2, 3)),
            &rates.with_key(*key),
            MaskSource::Key,
        )
    };
    let error = run(&mut y, &rates, &key()).unwrap_err();
    assert!(matches!(error, Error::Mismatch { left_value: 3, right_value: 2, .. }), "{error}");
    let rates = Rates::per_column(&[0.5; 3]).unwrap();
    let error = run(&mut y, &rates, &key().with_origin(0, (1 << 39) - 2)).unwrap_err();
    assert!(matches!(error, Error::Address { what: "column", .. }), "{error}");
    let (from, to) = (matrix(&x, 2, 3), matrix_mut(&mut y, 3, 2));
    let error =
        rates_dropout_backward((from, to), &rates.with_key(key()), MaskSource::Key).unwrap_err();
    assert!(matches!(error, Error::Shape { .. }), "{error}");
    let mask = Mask::new(3, 3).unwrap();
    let (from, to) = (matrix(&x, 2, 3), matrix_mut(&mut y, 2, 3));
    let error = rates_dropout_forward((from, to), &rates.with_key(key()), &mask).unwrap_err();
    assert!(matches!(error, Error::Shape { left_rows: 3, right_rows: 2, .. }), "{error}");
    assert!(Mask::generate_with_rates(2, 4, &rates.with_key(key())).is_err());
    assert!(Mask::new(2, 4).unwrap().fill_with_rates(&rates.with_key(key())).is_err());
    assert_eq!(y, [9.0; 6], "an output was touched");
}

/// The share of each column and each row that is kept, over 2^24 decisions.
#[test]
fn shares_of_kept_elements() {
    let (rows, cols) = (1 << 16, 1 << 8);
    let rates: Vec<f64> = (0..cols).map(|c| c as f64 / (cols - 1) as f64).collect();
    let rates = Rates::per_column(&rates).unwrap();
    let mask = Mask::generate_with_rates(rows, cols, &rates.with_key(key())).unwrap();
    let mut kept = vec![0u32; cols];
    for row in mask.iter_rows() {
        for (c, kept) in kept.iter_mut().enumerate() {
            *kept += row[c / 32] >> (c % 32) & 1;
        }
    }
    let near = |kept: f64, n: usize, dropout: Dropout| {
        let (n, keep) = (n as f64, dropout.keep());
        let deviation = (n * keep * (1.0 - keep)).sqrt();
        assert!((kept - n * keep).abs() <= 6.5 * deviation, "{kept} of {n} at {}", dropout.rate());
    };
    for (c, kept) in kept.into_iter().enumerate() {
        near(kept.into(), rows, rates.get(c).unwrap());
    }
    let rates = Rates::per_row(rates.rates()).unwrap();
    let mask = Mask::generate_with_rates(cols, rows, &rates.with_key(key())).unwrap();
    for (r, row) in mask.iter_rows().enumerate() {
        let kept: u32 = row.iter().map(|word| word.count_ones()).sum();
        near(kept.into(), rows, rates.get(r).unwrap());
    }
}

#[test]
fn schedules() {
    let at = |schedule: RateSchedule, step| schedule.rate_at(0.4, step).unwrap();
    assert_eq!(RateSchedule::default(), RateSchedule::Constant);
    assert_eq!(at(RateSchedule::Constant, 7), 0.4);
    let linear = RateSchedule::Linear { from: 0.1, steps: 10 };
    assert_eq!([at(linear, 0), at(linear, 10), at(linear, u32::MAX)], [0.1, 0.4, 0.4]);
    assert!((at(linear, 5) - 0.25).abs() < 1e-15);
    let down = RateSchedule::Linear { from: 1.0, steps: 4 };
    assert!((at(down, 3) - 0.55).abs() < 1e-15);
    assert_eq!(at(RateSchedule::Linear { from: 0.1, steps: 0 }, 0), 0.4);
    // The keep probability of the paper: (1 - θ) · exp(-γ t) + θ, from 1 to θ.
    let gamma = 10.0 / 1000.0;
    let curriculum = RateSchedule::Curriculum { gamma };
    assert_eq!(at(curriculum, 0), 0.0);
    for step in [1, 10, 100, 1000, u32::MAX] {
        let keep = 0.4 * (-gamma * f64::from(step)).exp() + 0.6;
        assert!((1.0 - at(curriculum, step) - keep).abs() < 1e-15, "{step}");
    }
    assert!(0.4 - at(curriculum, 1000) < 1e-4);
    for schedule in [RateSchedule::Constant, linear, down, curriculum] {
        for step in [0, 1, 3, 4, 9, 500, u32::MAX] {
            let exact = reference::rate_at(&schedule, 0.4, step).unwrap();
            assert!((at(schedule, step) - exact).abs() < 1e-15, "{schedule:?} at {step}");
        }
    }
    // Always a rate, and never falling.
    for rate in [0.0, 1e-300, 0.5, 1.0] {
        let all: Vec<_> = (0..2000).map(|s| curriculum.rate_at(rate, s).unwrap()).collect();
        assert!(all.windows(2).all(|pair| pair[0] <= pair[1]) && all[1999] <= rate);
    }
}

#[test]
fn drawn_rates_have_known_answers() {
    for (seed, layer, step, row, high, low) in KNOWN {
        let key = MaskKey::new(seed, layer, step).unwrap();
        let counter = [2, row, step, layer << 7 | 2 << 5];
        let block = philox4x32_10(counter, [seed as u32, (seed >> 32) as u32]);
        assert_eq!((block[1], block[0]), (high, low));
        let u = (f64::from(high) * 2097152.0 + f64::from(low >> 11)) / 9007199254740992.0;
        assert_eq!(drawn_rate(1.0, &key, row), Ok(u));
        assert_eq!(drawn_rate(0.3, &key, row), Ok(0.3 * u));
        assert_eq!(reference::drawn_rate(0.3, &key, row), Ok(0.3 * u));
        // Neither the origin nor the domain enters.
        assert_eq!(drawn_rate(1.0, &key.with_origin(5, 6).units(), row), Ok(u));
        if row == 0 {
            assert_eq!(Dropout::drawn(0.3, &key), Dropout::new(0.3 * u));
        }
    }
    assert_eq!(drawn_rate(0.0, &key(), 0), Ok(0.0));
}

/// Mean and variance of 2^24 drawn rates: those of U(0, p).
#[test]
fn moments_of_drawn_rates() {
    let (most, n) = (0.8, 1u32 << 24);
    let (mut sum, mut squares) = (0.0, 0.0);
    for i in 0..n {
        let key = MaskKey::new(3, 1, i >> 4).unwrap();
        let rate = drawn_rate(most, &key, i & 15).unwrap();
        assert!((0.0..most).contains(&rate));
        let distance = rate - most / 2.0;
        sum += distance;
        squares += distance * distance;
    }
    let n = f64::from(n);
    // Of U(0, p): variance p²/12, fourth central moment p⁴/80.
    let variance = most * most / 12.0;
    let mean = sum / n;
    assert!(mean.abs() < 6.5 * (variance / n).sqrt(), "{mean}");
    let deviation = (most.powi(4) / 80.0 - variance * variance).sqrt() / n.sqrt();
    assert!((squares / n - variance).abs() < 6.5 * deviation, "{}", squares / n);
}

/// Seed, layer, step, row, and the words 1 and 0 of the block.
const KNOWN: [(u64, u32, u32, u32, u32, u32); 3] = [
    (0, 0, 0, 0, 0xecf7_befd, 0x88cc_7849),
    (0x0123_4567_89ab_cdef, 7, 42, 0, 0xe0e7_e39c, 0x5c1b_1ad5),
    (u64::MAX, (1 << 25) - 1, u32::MAX, 9, 0x78f4_676c, 0x81e9_b6c6),
];
