//! The dense layer against the reference: the same bits for every shape, layout, level and thread
//! count.

mod common;

use common::{
    Padded, activations, assert_same, bits, for_each_level, numbers, rates, with_threads,
};
use fused_dropout::elementwise::dropout_forward;
use fused_dropout::layer::{
    DenseArgs, DenseLayer, Gradients, OutputGradient, PackedWeight, dense_backward, dense_forward,
};
use fused_dropout::{
    Activation, Dropout, Error, KeyedDropout, Mask, MaskKey, MaskSource, MatMut, MatRef, Saved,
    reference, testing,
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

    fn dropout(&self, rate: f64, layer: u32) -> KeyedDropout {
        let (row0, col0) = self.origin;
        let key = MaskKey::new(self.seed, layer, 3).unwrap().with_origin(row0, col0);
        Dropout::new(rate).unwrap().with_key(key)
    }

    /// The dropout of the output.
    fn output_dropout(&self) -> KeyedDropout {
        self.dropout(self.rate, 7)
    }

    fn args<'a>(&self, layer: &'a Layer) -> DenseArgs<'a> {
        let mut does = DenseLayer::new(self.activation).with_output(self.output_dropout());
        if let Some(rate) = self.input_rate {
            does = does.with_input(self.dropout(rate, 8));
        }
        if let Some(rate) = self.weight_rate {
            does = does.with_weight_dropout(self.dropout(rate, 9));
        }
        let args = DenseArgs::new(does, layer.x.view(), layer.w.view());
        if self.bias { args.with_bias(&layer.bias) } else { args }
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

    /// What forward keeps for backward.
    fn saved<'a>(&self, y: MatRef<'a>, z: MatRef<'a>) -> Saved<'a> {
        match self.activation {
            Activation::Identity => Saved::Nothing,
            Activation::Gelu | Activation::GeluTanh | Activation::Silu => Saved::PreActivation(z),
            _ => Saved::Output(y),
        }
    }

    /// Room for the gradients, filled with something else.
    fn results(&self) -> Results {
        let Case { batch, inputs, units, extra, transposed: [x_t, w_t, y_t], .. } = *self;
        let blank = |rows, cols, t| Padded::new(&vec![9.0; rows * cols], rows, cols, extra, t);
        Results {
            dx: blank(batch, inputs, x_t),
            dw: blank(inputs, units, w_t != y_t),
            db: vec![9.0; units],
        }
    }
}

struct Layer {
    x: Padded,
    w: Padded,
    bias: Vec<f32>,
    dy: Padded,
}

/// What a backward pass computes.
#[derive(Clone)]
struct Results {
    dx: Padded,
    dw: Padded,
    db: Vec<f32>,
}

impl Results {
    fn gradients(&mut self) -> Gradients<'_> {
        let gradients = Gradients::default().with_dx(self.dx.view_mut());
        gradients.with_dw(self.dw.view_mut()).with_db(&mut self.db)
    }

    fn bits(&self) -> [Vec<u32>; 3] {
        [bits(&self.dx.values()), bits(&self.dw.values()), bits(&self.db)]
    }
}

/// Forward and backward by the reference.
struct Expected {
    y: Vec<f32>,
    z: Vec<f32>,
    dz: Vec<f32>,
    dx: Vec<f32>,
    dw: Vec<f32>,
    db: Vec<f32>,
}

fn expected(case: &Case, layer: &Layer) -> Expected {
    let Case { batch, inputs, units, .. } = *case;
    let args = case.args(layer);
    let mut e = Expected {
        y: vec![0.0; batch * units],
        z: vec![0.0; batch * units],
        dz: layer.dy.values(),
        dx: vec![0.0; batch * inputs],
        dw: vec![0.0; inputs * units],
        db: vec![0.0; units],
    };
    let mut mask = Mask::new(batch, units).unwrap();
    let y = MatMut::new(&mut e.y, batch, units).unwrap();
    let z = MatMut::new(&mut e.z, batch, units).unwrap();
    reference::dense_forward(&args, y, Some(z), &mut mask).unwrap();
    let y = MatRef::new(&e.y, batch, units).unwrap();
    let z = MatRef::new(&e.z, batch, units).unwrap();
    let gradients = Gradients::default()
        .with_dx(MatMut::new(&mut e.dx, batch, inputs).unwrap())
        .with_dw(MatMut::new(&mut e.dw, inputs, units).unwrap())
        .with_db(&mut e.db);
    let mask = case.stored_mask.then_some(&mask);
    let dy = MatMut::new(&mut e.dz, batch, units).unwrap();
    reference::dense_backward(&args, &case.saved(y, z), dy, gradients, mask).unwrap();
    e
}

/// Asserts that a result of a fast function is the expected one, of which it says what it is.
type Same<'a> = &'a dyn Fn(&[f32], &[f32], &str);

/// Runs the fast functions on every level and compares.
fn check(case: &Case) {
    let layer = case.layer();
    let args = case.args(&layer);
    let e = expected(case, &layer);
    for_each_level(|level| {
        let same = |fast: &[f32], expected: &[f32], what: &str| {
            assert_same(level, fast, expected, case.size(), &format!("{what} of {case:?}"));
        };
        let (y, z, mask) = check_forward(case, &args, &e, &same);
        let saved = case.saved(y.view(), z.view());
        check_backward(case, &args, &saved, (&layer.dy, &mask), &e, &same);
    });
    let fresh = case.layer();
    assert_eq!(bits(&layer.x.data), bits(&fresh.x.data), "x was modified");
    assert_eq!(bits(&layer.w.data), bits(&fresh.w.data), "W was modified");
    assert_eq!(bits(&layer.dy.data), bits(&fresh.dy.data), "dy was modified");
}

/// y, z and the mask, after a check that y is the same whatever is saved, given or packed.
fn check_forward(
    case: &Case,
    args: &DenseArgs<'_>,
    e: &Expected,
    same: Same<'_>,
) -> (Padded, Padded, Mask) {
    let Case { batch, units, extra, transposed: [x_t, ..], .. } = *case;
    let forward = |args: &DenseArgs<'_>, mask: MaskSource<'_>| {
        let mut y = case.output();
        dense_forward(args, y.view_mut(), None, mask).unwrap();
        y.values()
    };
    same(&forward(args, MaskSource::Key), &e.y, "y");
    // The residual may be stored in either order; it is added last.
    let residual = Padded::new(&numbers(batch * units, 99), batch, units, extra, x_t);
    let sum: Vec<f32> = residual.values().iter().zip(&e.y).map(|(r, y)| r + y).collect();
    let with_residual = args.with_residual(residual.view());
    same(&forward(&with_residual, MaskSource::Key), &sum, "residual + y");
    let packed = PackedWeight::for_layer(&args.layer, args.w).unwrap();
    same(&forward(&args.with_packed(&packed), MaskSource::Key), &e.y, "y (packed)");

    let (mut y, mut z) = (case.output(), case.output());
    let mut mask = Mask::new(batch, units).unwrap();
    dense_forward(args, y.view_mut(), Some(z.view_mut()), &mut mask).unwrap();
    same(&y.values(), &e.y, "y (z and mask saved)");
    same(&z.values(), &e.z, "z");
    let drawn = Mask::generate(batch, units, &case.output_dropout()).unwrap();
    assert_eq!(mask, drawn, "mask of {case:?}");
    same(&forward(args, MaskSource::Given(&mask)), &e.y, "y (mask given)");
    (y, z, mask)
}

/// The gradients, which are the same alone or together, with the mask from wherever, with packed
/// weights, and with dz in place of dy.
fn check_backward(
    case: &Case,
    args: &DenseArgs<'_>,
    saved: &Saved<'_>,
    (dy, mask): (&Padded, &Mask),
    e: &Expected,
    same: Same<'_>,
) {
    let backward = |args: &DenseArgs<'_>, dy: OutputGradient<'_>, mask: MaskSource<'_>| {
        let mut results = case.results();
        dense_backward(args, saved, dy, results.gradients(), mask).unwrap();
        results
    };
    let source = || MaskSource::from(case.stored_mask.then_some(mask));
    let keep = || OutputGradient::Keep(dy.view());
    let results = backward(args, keep(), source());
    same(&results.db, &e.db, "db");
    same(&results.dw.values(), &e.dw, "dW");
    same(&results.dx.values(), &e.dx, "dx");
    for part in 0..3 {
        let mut again = results.clone();
        let gradients = match part {
            0 => Gradients::default().with_dx(again.dx.view_mut()),
            1 => Gradients::default().with_dw(again.dw.view_mut()),
            _ => Gradients::default().with_db(&mut again.db),
        };
        dense_backward(args, saved, dy.view(), gradients, source()).unwrap();
        assert_eq!(again.bits(), results.bits(), "part {part} of {case:?}");
    }

    let given = backward(args, keep(), MaskSource::Given(mask));
    assert_eq!(given.bits(), results.bits(), "mask given: {case:?}");
    let mut again = Mask::new(case.batch, case.units).unwrap();
    let stored = backward(args, keep(), MaskSource::Store(&mut again));
    assert_eq!(stored.bits(), results.bits(), "mask stored: {case:?}");
    assert_eq!(again, *mask, "mask of {case:?}");

    let packed = PackedWeight::for_input_gradient(&args.layer, args.w).unwrap();
    let with_packed = backward(&args.with_packed(&packed), keep(), source());
    assert_eq!(with_packed.bits(), results.bits(), "packed: {case:?}");

    let mut dz = dy.clone();
    let overwritten = backward(args, OutputGradient::Overwrite(dz.view_mut()), source());
    assert_eq!(overwritten.bits(), results.bits(), "dy overwritten: {case:?}");
    same(&dz.values(), &e.dz, "dz");
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
            let (mut y, mut z) = (case.output(), case.output());
            let (mut dx, mut dw) = (layer.x.clone(), layer.w.clone());
            with_threads(threads, || {
                testing::at_level(level, || {
                    let z_view = Some(z.view_mut());
                    dense_forward(&args, y.view_mut(), z_view, MaskSource::Key).unwrap();
                    let saved = case.saved(y.view(), z.view());
                    let gradients =
                        Gradients::default().with_dx(dx.view_mut()).with_dw(dw.view_mut());
                    let (dy, mask) = (layer.dy.view(), MaskSource::Key);
                    dense_backward(&args, &saved, dy, gradients, mask).unwrap();
                })
            })
            .unwrap();
            let same = |fast: &Padded, expected: &[f32], what: &str| {
                let what = format!("{what} on {threads} threads");
                assert_same(level, &fast.values(), expected, case.size(), &what);
            };
            same(&y, &e.y, "y");
            same(&dx, &e.dx, "dx");
            same(&dw, &e.dw, "dW");
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
        let to = common::matrix_mut(&mut whole, 37, 99);
        dense_forward(&args, to, None, MaskSource::Key).unwrap();
        for (first, rows) in [(0, 1), (5, 1), (36, 1), (3, 4), (1, 20), (30, 7)] {
            let mut part = args;
            part.x = args.x.rows_from(first, rows).unwrap();
            let dropout = case.output_dropout();
            let key = dropout.key().with_origin(first as u64, 0);
            part.layer = args.layer.with_output(dropout.with_key(key));
            let mut y = vec![0.0; rows * 99];
            let to = common::matrix_mut(&mut y, rows, 99);
            dense_forward(&part, to, None, MaskSource::Key).unwrap();
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
        let dropout = args.layer.weight_dropout;
        for_each_level(|level| {
            let mut w = vec![0.0; 70 * 150];
            let dropped = common::matrix_mut(&mut w, 70, 150);
            dropout_forward((args.w, dropped), &dropout, MaskSource::Key).unwrap();
            let mut plain = args;
            plain.w = common::matrix(&w, 70, 150);
            plain.layer.weight_dropout = KeyedDropout::NONE;
            let [y, expected] = [args, plain].map(|args| {
                let mut y = vec![9.0; 20 * 150];
                let to = common::matrix_mut(&mut y, 20, 150);
                dense_forward(&args, to, None, MaskSource::Key).unwrap();
                y
            });
            assert_eq!(bits(&y), bits(&expected), "{level}");
        });
    }
}

/// Packed weights know their dropout.
#[test]
fn weights_packed_with_another_dropout_are_refused() {
    let case = Case { weight_rate: Some(0.4), ..Case::plain(3, 20, 30) };
    let layer = case.layer();
    let args = case.args(&layer);
    let dropout = args.layer.weight_dropout;
    let key = *dropout.key();
    let none = Dropout::NONE.with_key(key);
    let layer_with = |dropout| args.layer.with_weight_dropout(dropout);
    for (packed, wanted) in [
        (KeyedDropout::NONE, dropout),
        (dropout, KeyedDropout::NONE),
        (dropout, none),
        (dropout, dropout.with_key(key.with_origin(0, 1))),
    ] {
        let packed = PackedWeight::for_layer(&layer_with(packed), args.w).unwrap();
        let mut args = args.with_packed(&packed);
        args.layer = layer_with(wanted);
        let mut y = vec![9.0; 3 * 30];
        let to = common::matrix_mut(&mut y, 3, 30);
        let error = dense_forward(&args, to, None, MaskSource::Key).unwrap_err();
        assert!(matches!(error, Error::PackedDropout { .. }), "{error}");
        assert!(y.iter().all(|y| *y == 9.0));
    }
    let packed = PackedWeight::for_layer(&layer_with(none), args.w).unwrap();
    let mut plain = args.with_packed(&packed);
    plain.layer = layer_with(KeyedDropout::NONE);
    let mut y = vec![9.0; 3 * 30];
    let to = common::matrix_mut(&mut y, 3, 30);
    dense_forward(&plain, to, None, MaskSource::Key).unwrap();
    let far = dropout.with_key(key.with_origin(0, (1 << 39) - 29));
    let error = PackedWeight::for_layer(&layer_with(far), args.w).unwrap_err();
    assert!(matches!(error, Error::Address { .. }), "{error}");
}
