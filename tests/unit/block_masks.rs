//! Which blocks are kept: known answers, counts, and what is independent of what.

use fused_dropout::layer::{
    BlockDeal, BlockSelection, BlockShape, DenseArgs, DenseLayer, KeptBlocks, KeptUnits,
    PackedWeight, dense_forward,
};
use fused_dropout::{
    Activation, Dropout, Error, KeyedDropout, Mask, MaskKey, MaskSource, MatMut, MatRef, Scaling,
};
use serde_json::Value;

use crate::common::{RATES, for_each_level};

fn shape(rows: usize, units: usize) -> BlockShape {
    BlockShape::new(rows, units).unwrap()
}

fn half(layer: u32, step: u32) -> KeyedDropout {
    Dropout::new(0.5).unwrap().with_key(MaskKey::new(42, layer, step).unwrap())
}

#[test]
fn known_answers() {
    let cases: Vec<Value> = serde_json::from_str(include_str!("../data/kept_blocks.json")).unwrap();
    assert_eq!(cases.len(), 12);
    for_each_level(|level| {
        for case in &cases {
            let number = |name: &str| case[name].as_u64().unwrap();
            let seed = case["seed"].as_str().unwrap().parse().unwrap();
            let key = MaskKey::new(seed, number("layer") as u32, number("step") as u32).unwrap();
            let key = key.with_origin(number("row0"), 0);
            let dropout = Dropout::new(case["rate"].as_f64().unwrap()).unwrap().with_key(key);
            let shape = shape(number("group") as usize, number("block") as usize)
                .with_selection(match case["selection"].as_str().unwrap() {
                    "exact" => BlockSelection::Exact,
                    _ => BlockSelection::Bernoulli,
                })
                .with_deal(match case["deal"].as_str().unwrap() {
                    "fixed" => BlockDeal::Fixed,
                    "shifted" => BlockDeal::Shifted,
                    _ => BlockDeal::Permuted,
                });
            let (rows, units) = (number("rows") as usize, number("units") as usize);
            let kept = KeptBlocks::draw((rows, units), shape, &dropout).unwrap();
            for (row, answer) in case["kept"].as_array().unwrap().iter().enumerate() {
                let bit = |unit| if kept.mask().get(row, unit) == Some(true) { '1' } else { '0' };
                let bits: String = (0..units).map(bit).collect();
                assert_eq!(bits, answer.as_str().unwrap(), "{level}: row {row} of {case}");
            }
        }
    });
}

/// One group and one unit a block is unit dropout of the whole mini-batch.
#[test]
fn units_are_blocks_of_one_unit_for_all_rows() {
    for units in [1, 2, 33, 200] {
        let shape = shape(usize::MAX, 1).with_deal(BlockDeal::Fixed);
        for (selection, kept) in [
            (BlockSelection::Exact, KeptUnits::exact(units, &half(1, 2)).unwrap()),
            (BlockSelection::Bernoulli, KeptUnits::bernoulli(units, &half(1, 2)).unwrap()),
        ] {
            let blocks =
                KeptBlocks::draw((5, units), shape.with_selection(selection), &half(1, 2)).unwrap();
            let rows: [Vec<u32>; 2] = [0, 4].map(|row| {
                (0..units as u32).filter(|unit| blocks_keep(&blocks, row, *unit)).collect()
            });
            assert_eq!(rows, [kept.indices().to_vec(), kept.indices().to_vec()]);
            assert_eq!((blocks.scale(), blocks.keep()), (kept.scale(), kept.keep()));
        }
    }
}

fn blocks_keep(kept: &KeptBlocks, row: usize, unit: u32) -> bool {
    kept.mask().get(row, unit as usize) == Some(true)
}

/// A part of the rows, given its origin, has its part of the blocks; drawing anew leaves no trace.
#[test]
fn parts_of_the_rows_are_parts_of_the_whole() {
    for deal in [BlockDeal::Fixed, BlockDeal::Shifted, BlockDeal::Permuted] {
        for selection in [BlockSelection::Exact, BlockSelection::Bernoulli] {
            let shape = shape(7, 5).with_deal(deal).with_selection(selection);
            let whole = KeptBlocks::draw((50, 41), shape, &half(3, 4)).unwrap();
            let mut part = KeptBlocks::draw((1, 41), shape, &half(9, 9)).unwrap();
            for (row0, rows) in [(0, 50), (14, 20), (3, 9), (48, 2), (20, 0), (6, 1)] {
                let key = half(3, 4).key().with_origin(row0 as u64, 0);
                part.redraw(rows, &half(3, 4).with_key(key)).unwrap();
                assert_eq!((part.rows(), part.mask().cols()), (rows, 41));
                for row in 0..rows {
                    assert_eq!(part.mask().row(row), whole.mask().row(row0 + row), "{deal:?}");
                }
            }
        }
    }
}

#[test]
fn counts_and_scales() {
    for rate in RATES {
        for scaling in [Scaling::Inverted, Scaling::Classical] {
            let dropout = Dropout::with_scaling(rate, scaling).unwrap().with_key(*half(1, 1).key());
            for units in [0, 1, 16, 40, 1000] {
                let kept = KeptBlocks::draw((40, units), shape(16, 16), &dropout).unwrap();
                let blocks = units.div_ceil(16);
                let groups = if units == 0 { 0 } else { 3 };
                assert_eq!((kept.groups(), kept.blocks(), kept.units()), (groups, blocks, units));
                let count = (dropout.dropout().keep() * blocks as f64).round() as u64;
                assert_eq!(kept.decisions().count(), groups as u64 * count);
                let scale = match (scaling, count) {
                    (Scaling::Classical, _) => 1.0,
                    (_, 0) => 0.0,
                    _ => (blocks as f64 / count as f64) as f32,
                };
                assert_eq!(kept.scale(), scale, "{rate} of {units}");
            }
        }
    }
}

/// Each unit is kept as often as another, however far from the ends; decisions of different groups,
/// steps and layers are independent: counts of 4000 draws stay within five standard deviations.
#[test]
fn marginal_rates_and_independence() {
    let (units, steps) = (22, 4000);
    for deal in [BlockDeal::Fixed, BlockDeal::Shifted, BlockDeal::Permuted] {
        for selection in [BlockSelection::Exact, BlockSelection::Bernoulli] {
            // Six blocks, the last of two units; half of them are kept.
            let shape = shape(3, 4).with_deal(deal).with_selection(selection);
            let mut kept = KeptBlocks::draw((6, units), shape, &half(1, 0)).unwrap();
            let mut other = kept.clone();
            let (mut single, mut groups, mut next, mut layers) = ([0; 22], 0, 0, 0);
            let mut before = false;
            for step in 0..steps {
                kept.redraw(6, &half(1, step)).unwrap();
                other.redraw(6, &half(2, step)).unwrap();
                for (unit, count) in single.iter_mut().enumerate() {
                    *count += i32::from(blocks_keep(&kept, 0, unit as u32));
                }
                let (this, that) = (blocks_keep(&kept, 0, 7), blocks_keep(&kept, 3, 7));
                groups += i32::from(this && that);
                next += i32::from(this && before);
                layers += i32::from(this && blocks_keep(&other, 0, 7));
                before = this;
            }
            let within = |count: i32, p: f64| {
                let n = f64::from(steps);
                (f64::from(count) - n * p).abs() < 5.0 * (n * p * (1.0 - p)).sqrt()
            };
            assert!(single.iter().all(|count| within(*count, 0.5)), "{deal:?}: {single:?}");
            for count in [groups, next, layers] {
                assert!(within(count, 0.25), "{deal:?} {selection:?}: {groups} {next} {layers}");
            }
        }
    }
}

/// Exactly so many blocks are kept of each group, and which ones is uniform in pairs.
#[test]
fn exact_blocks_are_uniform() {
    let steps = 4000;
    let mut pairs = [[0f64; 8]; 8];
    let mut kept = KeptBlocks::draw((2, 8), shape(1, 1), &half(1, 0)).unwrap();
    for step in 0..steps {
        kept.redraw(2, &half(1, step)).unwrap();
        let is_kept = |block| kept.decisions().get(1, block) == Some(true);
        for (a, counts) in pairs.iter_mut().enumerate() {
            for (b, count) in counts.iter_mut().enumerate() {
                *count += f64::from(u8::from(is_kept(a) && is_kept(b)));
            }
        }
    }
    let n = f64::from(steps);
    for (a, counts) in pairs.iter().enumerate() {
        for (b, count) in counts.iter().enumerate() {
            let p = if a == b { 0.5 } else { 4.0 * 3.0 / (8.0 * 7.0) };
            assert!((count - n * p).abs() < 5.0 * (n * p * (1.0 - p)).sqrt(), "{pairs:?}");
        }
    }
}

#[test]
fn bad_arguments_are_refused() {
    for (rows, units, name) in [(0, 4, "rows of a block"), (4, 0, "units of a block")] {
        let error = BlockShape::new(rows, units).unwrap_err();
        assert!(matches!(error, Error::Parameter { name: n, .. } if n == name), "{error}");
    }
    let at = |row, col| half(1, 1).with_key(half(1, 1).key().with_origin(row, col));
    let error = KeptBlocks::draw((4, 4), shape(2, 2), &at(0, 2)).unwrap_err();
    assert_eq!(error, Error::BlockOrigin { col0: 2 });
    let error = KeptBlocks::draw((4, 4), shape(2, 2), &at((1 << 32) - 3, 0)).unwrap_err();
    assert!(matches!(error, Error::Address { what: "row", .. }), "{error}");
    if usize::BITS > 32 {
        let error = KeptBlocks::draw((1, 1 << 32), shape(2, 2), &half(1, 1)).unwrap_err();
        assert!(matches!(error, Error::Parameter { name: "number of units", .. }), "{error}");
        // More rows than a list counts, of no units.
        assert!(KeptBlocks::draw((1 << 32, 0), shape(1, 1), &half(1, 1)).is_ok());
    }
}

#[test]
fn layers_refuse_blocks_that_do_not_fit() {
    let kept = |rows, units, g| KeptBlocks::draw((rows, units), shape(g, 2), &half(1, 1)).unwrap();
    let (x, w) = (vec![1.0; 6 * 8], vec![1.0; 8 * 10]);
    let run = |layer: DenseLayer<'_>, packed: Option<&PackedWeight>, mask: MaskSource<'_>| {
        let (x, w) = (MatRef::new(&x, 6, 8).unwrap(), MatRef::new(&w, 8, 10).unwrap());
        let mut args = DenseArgs::new(layer, x, w);
        args.packed = packed;
        let mut y = vec![9.0; 6 * 10];
        let result = dense_forward(&args, MatMut::new(&mut y, 6, 10).unwrap(), None, mask);
        assert!(result.is_ok() || y.iter().all(|y| *y == 9.0), "an output was written");
        result
    };
    let layer = DenseLayer::new(Activation::Relu);
    let (fits, rows, units, groups) =
        (kept(6, 10, 3), kept(5, 10, 3), kept(6, 9, 3), kept(6, 8, 2));
    run(layer.with_output(&fits), None, MaskSource::Key).unwrap();
    for (layer, expected) in [
        (layer.with_output(&rows), "rows in groups of blocks"),
        (layer.with_output(&units), "units in blocks"),
        (layer.with_input(&groups).with_output(&fits), "covers 2 examples and one of its output 3"),
    ] {
        let error = run(layer, None, MaskSource::Key).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    let mut mask = Mask::new(6, 10).unwrap();
    let error = run(layer.with_output(&fits), None, MaskSource::Store(&mut mask)).unwrap_err();
    assert_eq!(error, Error::MaskOfUnits);
    let packed = PackedWeight::new(MatRef::new(&w, 8, 10).unwrap()).unwrap();
    let error = run(layer.with_output(&fits), Some(&packed), MaskSource::Key).unwrap_err();
    assert_eq!(error, Error::PackedBlocks);
    let error = PackedWeight::for_layer(&layer.with_output(&fits), MatRef::new(&w, 8, 10).unwrap());
    assert_eq!(error.unwrap_err(), Error::PackedBlocks);
}
