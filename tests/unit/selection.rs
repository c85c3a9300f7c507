//! Which units are kept, and columns that are gathered and scattered.

use fused_dropout::layer::{KeptUnits, gather_units, scatter_units};
use fused_dropout::{Dropout, Error, Mask, MaskKey, Scaling, reference, testing};
use serde_json::Value;

use crate::case::{Drop, key};
use crate::common::{Padded, RATES, bits, for_each_level, numbers, with_threads};

#[test]
fn columns_are_gathered_and_scattered() {
    for units in [0, 1, 5, 16, 33, 130, 300] {
        for drop in [Drop::List, Drop::Exact(0.5), Drop::Bernoulli(0.2), Drop::Exact(0.0)] {
            let kept = drop.kept(units, 1).unwrap();
            for transposed in [false, true] {
                let (rows, n) = (7, kept.len());
                let x = Padded::new(&numbers(rows * units, 1), rows, units, 2, transposed);
                let y = Padded::new(&vec![9.0; rows * n], rows, n, 1, false);
                let mut expected = (y.clone(), x.clone());
                reference::gather_units(x.view(), &kept, expected.0.view_mut()).unwrap();
                let dy = expected.0.clone();
                reference::scatter_units(dy.view(), &kept, expected.1.view_mut()).unwrap();
                for_each_level(|level| {
                    for threads in [1, 3] {
                        let (mut y, mut dx) = (y.clone(), x.clone());
                        with_threads(threads, || {
                            testing::at_level(level, || {
                                gather_units(x.view(), &kept, y.view_mut()).unwrap();
                                scatter_units(dy.view(), &kept, dx.view_mut()).unwrap();
                            })
                        })
                        .unwrap();
                        assert_eq!(bits(&y.values()), bits(&expected.0.values()), "{level}");
                        assert_eq!(bits(&dx.values()), bits(&expected.1.values()), "{level}");
                    }
                });
            }
        }
    }
}

#[test]
fn known_answers() {
    let cases: Vec<Value> = serde_json::from_str(include_str!("../data/kept_units.json")).unwrap();
    assert_eq!(cases.len(), 15);
    for_each_level(|level| {
        for case in &cases {
            let number = |name: &str| case[name].as_u64().unwrap();
            let dropout = Dropout::new(case["rate"].as_f64().unwrap()).unwrap();
            let seed = case["seed"].as_str().unwrap().parse().unwrap();
            let key = MaskKey::new(seed, number("layer") as u32, number("step") as u32).unwrap();
            let key = key.with_origin(0, number("col0"));
            let units = number("units") as usize;
            let kept = match case["kind"].as_str().unwrap() {
                "exact" => KeptUnits::exact(units, &dropout.with_key(key)),
                _ => KeptUnits::bernoulli(units, &dropout.with_key(key)),
            };
            let answer: Vec<u32> = case["kept"]
                .as_array()
                .unwrap()
                .iter()
                .map(|unit| unit.as_u64().unwrap() as u32)
                .collect();
            assert_eq!(kept.unwrap().indices(), answer, "{level}: {case}");
        }
    });
}

#[test]
fn selections_and_scales() {
    for rate in RATES {
        for scaling in [Scaling::Inverted, Scaling::Classical] {
            let dropout = Dropout::with_scaling(rate, scaling).unwrap();
            let keyed = |layer| dropout.with_key(key(layer));
            for units in [0, 1, 2, 10, 127, 128, 129, 1000] {
                let kept = KeptUnits::bernoulli(units, &keyed(3)).unwrap();
                let mask = Mask::generate(1, units, &dropout.with_key(key(3).units())).unwrap();
                let expected: Vec<u32> =
                    (0..units as u32).filter(|u| mask.get(0, *u as usize) == Some(true)).collect();
                assert_eq!(kept.indices(), expected);
                assert_eq!(kept.scale(), dropout.scale());
                assert_eq!((kept.units(), kept.keep()), (units, dropout.keep()));

                let mut kept = KeptUnits::exact(units, &keyed(3)).unwrap();
                let count = (dropout.keep() * units as f64).round() as usize;
                assert_eq!(kept.len(), count);
                assert!(kept.indices().windows(2).all(|pair| pair[0] < pair[1]));
                assert!(kept.indices().iter().all(|unit| (*unit as usize) < units));
                let scale = match (scaling, count) {
                    (Scaling::Classical, _) => 1.0,
                    (_, 0) => 0.0,
                    _ => (units as f64 / count as f64) as f32,
                };
                assert_eq!(kept.scale(), scale);
                // Selecting anew leaves no trace of what was selected before.
                let once = kept.clone();
                kept.redraw_bernoulli(&keyed(4)).unwrap();
                assert_eq!(kept, KeptUnits::bernoulli(units, &keyed(4)).unwrap());
                kept.redraw_exact(&keyed(3)).unwrap();
                assert_eq!(kept, once);
            }
        }
    }
}

/// Each unit is kept equally often, whichever others are: the counts of 4000 selections of 5 of 12
/// stay within five standard deviations, singly and in pairs.
#[test]
fn exact_selections_are_uniform() {
    let (units, steps) = (12, 4000);
    let dropout = Dropout::new(7.0 / 12.0).unwrap();
    let (mut single, mut pairs) = ([0f64; 12], [[0f64; 12]; 12]);
    for step in 0..steps {
        let key = MaskKey::new(1, 2, step).unwrap();
        let kept = KeptUnits::exact(units, &dropout.with_key(key)).unwrap();
        assert_eq!(kept.len(), 5);
        for &a in kept.indices() {
            single[a as usize] += 1.0;
            kept.indices().iter().for_each(|b| pairs[a as usize][*b as usize] += 1.0);
        }
    }
    let within = |count: f64, p: f64| {
        let n = f64::from(steps);
        (count - n * p).abs() < 5.0 * (n * p * (1.0 - p)).sqrt()
    };
    for a in 0..units {
        assert!(within(single[a], 5.0 / 12.0), "{single:?}");
        for b in 0..a {
            assert!(within(pairs[a][b], 5.0 * 4.0 / (12.0 * 11.0)), "{pairs:?}");
        }
    }
}

#[test]
fn bad_arguments_are_refused() {
    let half = |row, col| Dropout::new(0.5).unwrap().with_key(key(1).with_origin(row, col));
    let error = KeptUnits::bernoulli(10, &half(1, 0)).unwrap_err();
    assert_eq!(error, Error::UnitMask { row0: 1, rows: 1 });
    for col in [1 << 39, (1 << 39) - 9] {
        let error = KeptUnits::bernoulli(10, &half(0, col)).unwrap_err();
        assert!(matches!(error, Error::Address { what: "column", .. }), "{error}");
    }
    for (row0, col0) in [(1, 0), (0, 1)] {
        let error = KeptUnits::exact(10, &half(row0, col0)).unwrap_err();
        assert_eq!(error, Error::ExactOrigin { row0, col0 });
    }
    for (list, position) in [(&[0, 1, 4][..], 2), (&[1, 1], 1), (&[2, 1], 1), (&[u32::MAX], 0)] {
        let error = KeptUnits::from_indices(4, list, 1.0).unwrap_err();
        let unit = list[position];
        assert_eq!(error, Error::Unit { position, unit, units: 4 });
        assert!(error.to_string().contains(&unit.to_string()), "{error}");
    }
    for scale in [0.0, -1.0, f32::NAN, f32::INFINITY] {
        let error = KeptUnits::from_indices(4, &[1], scale).unwrap_err();
        assert!(matches!(error, Error::Parameter { name: "scale", .. }), "{error}");
    }
    if usize::BITS > 32 {
        let error = KeptUnits::all(1 << 32).unwrap_err();
        assert!(matches!(error, Error::Parameter { name: "number of units", .. }), "{error}");
    }
}
