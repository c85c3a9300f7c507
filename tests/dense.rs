//! The dense layer against the reference: the same bits for every shape, layout, level and thread
//! count.

mod common;

use common::{Padded, assert_same, for_each_level, numbers, with_threads};
use fused_dropout::{
    Activation, DenseArgs, Dropout, Error, Gradients, Mask, MaskKey, MatMut, MatRef, PackedWeight,
    Saved, SavedValues, dense_backward, dense_forward, dense_forward_packed, dropout_forward,
    reference,
};
use proptest::prelude::*;

/// A dense layer with everything on it.
#[derive(Clone, Debug)]
struct Case {
    batch: usize,
    inputs: usize,
    units: usize,
    activation: Activation,
    rate: f64,
    input_rate: Option<f64>,
    weight_rate: Option<f64>,
    bias: bool,
    extra: usize,
    /// Which of x, W, y are stored in transposed order.
    transposed: [bool; 3],
    stored_mask: bool,
    seed: u64,
    origin: (u64, u64),
}

impl Case {
    fn plain(batch: usize, inputs: usize, units: usize) -> Self {
        Self {
            batch,
            inputs,
            units,
            activation: Activation::Relu,
            rate: 0.5,
            input_rate: None,
            weight_rate: None,
            bias: true,
            extra: 0,
            transposed: [false; 3],
            stored_mask: false,
            seed: 1,
            origin: (0, 0),
        }
    }

    fn layer(&self) -> Layer {
        let Case { batch, inputs, units, extra, transposed: [x_t, w_t, _], seed, .. } = *self;
        Layer {
            x: Padded::new(&numbers(batch * inputs, seed), batch, inputs, extra, x_t),
            w: Padded::new(&numbers(inputs * units, seed + 1), inputs, units, extra, w_t),
            bias: numbers(units, seed + 2),
            dy: Padded::new(&numbers(batch * units, seed + 3), batch, units, extra, false),
        }
    }

    fn args<'a>(&self, layer: &'a Layer) -> DenseArgs<'a> {
        let key = |layer| {
            MaskKey::new(self.seed, layer, 3).unwrap().with_origin(self.origin.0, self.origin.1)
        };
        DenseArgs {
            bias: self.bias.then_some(&layer.bias[..]),
            activation: self.activation,
            dropout: Dropout::new(self.rate).unwrap(),
            key: key(7),
            input_dropout: self.input_rate.map(|rate| (Dropout::new(rate).unwrap(), key(8))),
            weight_dropout: self.weight_rate.map(|rate| (Dropout::new(rate).unwrap(), key(9))),
            ..DenseArgs::new(layer.x.view(), layer.w.view())
        }
    }

    /// Terms of a sum of sums (a gradient adds up what depends on z), and the size of one: factors
    /// below 2, scales, a derivative's slope.
    fn size(&self) -> (usize, f32) {
        let scale = |rate: f64| Dropout::new(rate).unwrap().scale().max(1.0);
        let scales = scale(self.input_rate.unwrap_or(0.0)) * scale(self.weight_rate.unwrap_or(0.0));
        let size = 8.0 * scale(self.rate) * scales;
        (self.batch.max(self.inputs).max(self.units), 8.0 * size)
    }

    fn output(&self) -> Padded {
        let values = vec![0.0; self.batch * self.units];
        Padded::new(&values, self.batch, self.units, self.extra, self.transposed[2])
    }
}

struct Layer {
    x: Padded,
    w: Padded,
    bias: Vec<f32>,
    dy: Padded,
}

/// Forward and backward by the reference.
struct Expected {
    y: Vec<f32>,
    z: Vec<f32>,
    dx: Vec<f32>,
    dw: Vec<f32>,
    db: Vec<f32>,
}

fn saved<'a>(case: &Case, y: MatRef<'a>, z: MatRef<'a>, mask: &'a Mask) -> Saved<'a> {
    let values = match case.activation {
        Activation::Identity => SavedValues::None,
        Activation::Gelu | Activation::GeluTanh | Activation::Silu => SavedValues::PreActivation(z),
        _ => SavedValues::Output(y),
    };
    Saved { values, mask: case.stored_mask.then_some(mask) }
}

fn expected(case: &Case, layer: &Layer) -> Expected {
    let Case { batch, inputs, units, .. } = *case;
    let args = case.args(layer);
    let mut e = Expected {
        y: vec![0.0; batch * units],
        z: vec![0.0; batch * units],
        dx: vec![0.0; batch * inputs],
        dw: vec![0.0; inputs * units],
        db: vec![0.0; units],
    };
    let mut mask = Mask::new(batch, units).unwrap();
    let y = MatMut::new(&mut e.y, batch, units).unwrap();
    let z = MatMut::new(&mut e.z, batch, units).unwrap();
    reference::dense_forward(&args, y, Some(z), Some(&mut mask)).unwrap();
    let y = MatRef::new(&e.y, batch, units).unwrap();
    let z = MatRef::new(&e.z, batch, units).unwrap();
    let gradients = Gradients {
        dx: Some(MatMut::new(&mut e.dx, batch, inputs).unwrap()),
        dw: Some(MatMut::new(&mut e.dw, inputs, units).unwrap()),
        db: Some(&mut e.db),
    };
    reference::dense_backward(&args, &saved(case, y, z, &mask), layer.dy.view(), gradients)
        .unwrap();
    e
}

/// Runs the fast functions on every level and compares.
fn check(case: &Case) {
    let Case { batch, inputs, units, extra, transposed: [x_t, w_t, y_t], .. } = *case;
    let layer = case.layer();
    let args = case.args(&layer);
    let e = expected(case, &layer);
    for_each_level(|level| {
        let (mut y, mut z) = (case.output(), case.output());
        let mut mask = Mask::new(batch, units).unwrap();
        dense_forward(&args, y.view_mut(), None, None).unwrap();
        assert_same(level, &y.values(), &e.y, case.size(), &format!("y of {case:?}"));
        let mut y = case.output();
        // With a residual, which may be stored in either order, the reference adds it last.
        let residual = Padded::new(&numbers(batch * units, 99), batch, units, extra, x_t);
        let with_residual = DenseArgs { residual: Some(residual.view()), ..args };
        let mut sum = vec![0.0; batch * units];
        dense_forward(&with_residual, MatMut::new(&mut sum, batch, units).unwrap(), None, None)
            .unwrap();
        let expected_sum: Vec<f32> =
            residual.values().iter().zip(&e.y).map(|(r, y)| r + y).collect();
        assert_same(level, &sum, &expected_sum, case.size(), &format!("residual + y of {case:?}"));
        let packed = PackedWeight::with_dropout(args.w, args.weight_dropout).unwrap();
        dense_forward_packed(&args, &packed, y.view_mut(), None, None).unwrap();
        assert_same(level, &y.values(), &e.y, case.size(), &format!("y (packed) of {case:?}"));
        let mut y = case.output();
        dense_forward(&args, y.view_mut(), Some(z.view_mut()), Some(&mut mask)).unwrap();
        assert_same(
            level,
            &y.values(),
            &e.y,
            case.size(),
            &format!("y (z and mask saved) of {case:?}"),
        );
        assert_same(level, &z.values(), &e.z, case.size(), &format!("z of {case:?}"));
        let drawn = Mask::generate(batch, units, &args.dropout.with_key(args.key)).unwrap();
        assert_eq!(mask, drawn, "mask of {case:?}");

        let saved = saved(case, y.view(), z.view(), &mask);
        let mut dx = Padded::new(&vec![9.0; batch * inputs], batch, inputs, extra, x_t);
        let mut dw = Padded::new(&vec![9.0; inputs * units], inputs, units, extra, w_t != y_t);
        let mut db = vec![9.0; units];
        let gradients =
            Gradients { dx: Some(dx.view_mut()), dw: Some(dw.view_mut()), db: Some(&mut db) };
        dense_backward(&args, &saved, layer.dy.view(), gradients).unwrap();
        assert_same(level, &db, &e.db, case.size(), &format!("db of {case:?}"));
        assert_same(level, &dw.values(), &e.dw, case.size(), &format!("dW of {case:?}"));
        assert_same(level, &dx.values(), &e.dx, case.size(), &format!("dx of {case:?}"));
        for part in 0..3 {
            let mut again = (dx.clone(), dw.clone(), db.clone());
            let gradients = Gradients {
                dx: (part == 0).then(|| again.0.view_mut()),
                dw: (part == 1).then(|| again.1.view_mut()),
                db: (part == 2).then_some(&mut again.2[..]),
            };
            dense_backward(&args, &saved, layer.dy.view(), gradients).unwrap();
            assert_eq!(common::bits(&again.0.values()), common::bits(&dx.values()));
            assert_eq!(common::bits(&again.1.values()), common::bits(&dw.values()));
            assert_eq!(common::bits(&again.2), common::bits(&db));
        }
    });
    let fresh = case.layer();
    assert_eq!(common::bits(&layer.x.data), common::bits(&fresh.x.data), "x was modified");
    assert_eq!(common::bits(&layer.w.data), common::bits(&fresh.w.data), "W was modified");
    assert_eq!(common::bits(&layer.dy.data), common::bits(&fresh.dy.data), "dy was modified");
}

fn activations() -> impl Strategy<Value = Activation> {
    prop_oneof![
        Just(Activation::Identity),
        Just(Activation::Relu),
        Just(Activation::LeakyRelu { slope: 0.25 }),
        Just(Activation::Sigmoid),
        Just(Activation::Tanh),
        Just(Activation::Gelu),
        Just(Activation::GeluTanh),
        Just(Activation::Silu),
        Just(Activation::Selu),
    ]
}

fn rates() -> impl Strategy<Value = f64> {
    prop_oneof![Just(0.0), Just(1e-9), Just(0.1), Just(0.5), Just(1.0 - 1e-9), Just(1.0)]
}

prop_compose! {
    fn cases()(
        batch in prop_oneof![0usize..=7, 0usize..=40],
        inputs in prop_oneof![0usize..=9, 0usize..=100],
        units in prop_oneof![0usize..=9, 0usize..=100],
        activation in activations(),
        rate in rates(),
        input_rate in proptest::option::of(rates()),
        weight_rate in proptest::option::of(rates()),
        bias: bool, extra in 0usize..4, transposed: [bool; 3], stored_mask: bool, seed in 0u64..1000,
        origin in (0u64..1000, 0u64..1000),
    ) -> Case {
        Case { batch, inputs, units, activation, rate, input_rate, weight_rate, bias, extra,
               transposed, stored_mask, seed, origin }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn dense_equals_the_reference(case in cases()) {
        check(&case);
    }
}

/// netlib's sizes, and sizes around the tiles of every level.
#[test]
fn every_small_shape() {
    let sizes = [0, 1, 2, 3, 7, 31];
    for m in sizes {
        for n in sizes {
            for k in sizes {
                check(&Case::plain(m, k, n));
            }
        }
    }
    for m in [4, 5, 6, 11, 12, 13, 23, 25] {
        for n in [8, 15, 16, 17, 32, 33, 63, 65, 97] {
            check(&Case::plain(m, 5, n));
        }
    }
}

/// k across several blocks, rows across several blocks, columns across several groups.
#[test]
fn every_loop_turns_more_than_once() {
    check(&Case { input_rate: Some(0.2), ..Case::plain(13, 1200, 70) });
    check(&Case {
        input_rate: Some(0.2),
        activation: Activation::Gelu,
        ..Case::plain(300, 900, 35)
    });
    check(&Case { transposed: [true, true, false], ..Case::plain(500, 450, 301) });
    let dropped = Case { weight_rate: Some(0.3), origin: (5, 71), ..Case::plain(0, 0, 0) };
    check(&Case { batch: 13, inputs: 1200, units: 170, ..dropped.clone() });
    check(&Case { batch: 300, inputs: 340, units: 301, transposed: [true; 3], ..dropped });
    check(&Case { activation: Activation::Silu, ..Case::plain(260, 20, 2100) });
    check(&Case { activation: Activation::Tanh, ..Case::plain(3, 50, 3000) });
}

#[test]
fn threads_do_not_show() {
    let case =
        Case { input_rate: Some(0.2), activation: Activation::Gelu, ..Case::plain(129, 260, 333) };
    same_on_any_number_of_threads(&case);
    same_on_any_number_of_threads(&Case { weight_rate: Some(0.5), ..case });
}

fn same_on_any_number_of_threads(case: &Case) {
    let layer = case.layer();
    let args = case.args(&layer);
    let e = expected(case, &layer);
    for_each_level(|level| {
        for threads in [1, 2, 3, 8] {
            let mut y = case.output();
            let mut z = case.output();
            let mask =
                Mask::generate(case.batch, case.units, &args.dropout.with_key(args.key)).unwrap();
            let (mut dx, mut dw) = (layer.x.clone(), layer.w.clone());
            with_threads(threads, || {
                level.install(|| {
                    dense_forward(&args, y.view_mut(), Some(z.view_mut()), None).unwrap();
                    let saved = saved(case, y.view(), z.view(), &mask);
                    let gradients =
                        Gradients { dx: Some(dx.view_mut()), dw: Some(dw.view_mut()), db: None };
                    dense_backward(&args, &saved, layer.dy.view(), gradients).unwrap();
                })
            })
            .unwrap();
            assert_same(level, &y.values(), &e.y, case.size(), &format!("y on {threads} threads"));
            assert_same(
                level,
                &dx.values(),
                &e.dx,
                case.size(),
                &format!("dx on {threads} threads"),
            );
            assert_same(
                level,
                &dw.values(),
                &e.dw,
                case.size(),
                &format!("dW on {threads} threads"),
            );
        }
    });
}

/// Row i of a batch is what it would be alone; so is a shard with its origin.
#[test]
fn the_batch_does_not_show() {
    let case = Case { activation: Activation::Gelu, ..Case::plain(37, 410, 99) };
    let layer = case.layer();
    let args = case.args(&layer);
    for_each_level(|level| {
        let mut whole = vec![0.0; 37 * 99];
        dense_forward(&args, MatMut::new(&mut whole, 37, 99).unwrap(), None, None).unwrap();
        for (first, rows) in [(0, 1), (5, 1), (36, 1), (3, 4), (1, 20), (30, 7)] {
            let part = DenseArgs {
                x: args.x.rows_from(first, rows).unwrap(),
                key: args.key.with_origin(first as u64, 0),
                ..args
            };
            let mut y = vec![0.0; rows * 99];
            dense_forward(&part, MatMut::new(&mut y, rows, 99).unwrap(), None, None).unwrap();
            assert_same(
                level,
                &y,
                &whole[first * 99..(first + rows) * 99],
                case.size(),
                "rows of a batch",
            );
        }
    });
}

/// A product with dropped weights is the plain product with the matrix that dropout makes of them.
#[test]
fn dropped_weights_are_a_matrix() {
    for transposed in [false, true] {
        let case = Case {
            weight_rate: Some(0.4),
            origin: (3, 90),
            transposed: [false, transposed, false],
            ..Case::plain(20, 70, 150)
        };
        let layer = case.layer();
        let args = case.args(&layer);
        let (dropout, key) = args.weight_dropout.unwrap();
        for_each_level(|level| {
            let mut w = vec![0.0; 70 * 150];
            let dropped = common::matrix_mut(&mut w, 70, 150);
            dropout_forward(args.w, dropped, &dropout, &key, None).unwrap();
            let w = common::matrix(&w, 70, 150);
            let plain = DenseArgs { w, weight_dropout: None, ..args };
            let (mut y, mut expected) = (vec![9.0; 20 * 150], vec![8.0; 20 * 150]);
            dense_forward(&args, common::matrix_mut(&mut y, 20, 150), None, None).unwrap();
            dense_forward(&plain, common::matrix_mut(&mut expected, 20, 150), None, None).unwrap();
            assert_eq!(common::bits(&y), common::bits(&expected), "{level}");
        });
    }
}

/// Packed weights know their dropout.
#[test]
fn weights_packed_with_another_dropout_are_refused() {
    let case = Case { weight_rate: Some(0.4), ..Case::plain(3, 20, 30) };
    let layer = case.layer();
    let args = case.args(&layer);
    let (dropout, key) = args.weight_dropout.unwrap();
    let none = Some((Dropout::NONE, key));
    for (packed, wanted) in [
        (None, Some((dropout, key))),
        (Some((dropout, key)), None),
        (Some((dropout, key)), none),
        (Some((dropout, key)), Some((dropout, key.with_origin(0, 1)))),
    ] {
        let packed = PackedWeight::with_dropout(args.w, packed).unwrap();
        let args = DenseArgs { weight_dropout: wanted, ..args };
        let mut y = vec![9.0; 3 * 30];
        let to = common::matrix_mut(&mut y, 3, 30);
        let error = dense_forward_packed(&args, &packed, to, None, None).unwrap_err();
        assert!(matches!(error, Error::PackedDropout { .. }), "{error}");
        assert!(y.iter().all(|y| *y == 9.0));
    }
    let packed = PackedWeight::with_dropout(args.w, none).unwrap();
    let args = DenseArgs { weight_dropout: None, ..args };
    let mut y = vec![9.0; 3 * 30];
    dense_forward_packed(&args, &packed, common::matrix_mut(&mut y, 3, 30), None, None).unwrap();
    let far = key.with_origin(0, (1 << 39) - 29);
    let error = PackedWeight::with_dropout(args.w, Some((dropout, far))).unwrap_err();
    assert!(matches!(error, Error::Address { .. }), "{error}");
}
