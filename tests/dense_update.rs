//! The fused update against the gradient, the update and the constraint as separate calls of the
//! reference: the same bits.

mod common;

use common::{Padded, assert_same, for_each_level, numbers, with_threads};
use fused_dropout::{
    Activation, DenseArgs, DenseUpdate, Dropout, Error, Gradients, MaskKey, MatMut, MatRef,
    Parameters, Saved, SavedValues, SgdStep, dense_forward, dense_update, reference, testing,
};
use proptest::prelude::*;

#[derive(Clone, Debug)]
struct Case {
    batch: usize,
    inputs: usize,
    units: usize,
    activation: Activation,
    rate: f64,
    input_rate: Option<f64>,
    weight_rate: Option<f64>,
    momentum: bool,
    /// L2 and L1.
    penalties: (f32, f32),
    limit: Option<f32>,
    extra: usize,
    /// Whether W and its velocity are stored as [units, inputs].
    transposed: (bool, bool),
}

/// All that an update changes, and dx.
struct State {
    w: Padded,
    velocity: Padded,
    bias: Vec<f32>,
    bias_velocity: Vec<f32>,
    dx: Vec<f32>,
}

impl Case {
    fn state(&self) -> State {
        let Case { batch, inputs, units, extra, transposed, .. } = *self;
        let matrix = |seed, t| Padded::new(&numbers(inputs * units, seed), inputs, units, extra, t);
        State {
            w: matrix(1, transposed.0),
            velocity: matrix(2, transposed.1),
            bias: numbers(units, 3),
            bias_velocity: numbers(units, 4),
            dx: vec![0.0; batch * inputs],
        }
    }

    fn step(&self) -> SgdStep {
        let momentum = if self.momentum { 0.9 } else { 0.0 };
        let (weight_decay, l1) = self.penalties;
        SgdStep { learning_rate: 0.05, momentum, weight_decay, l1 }
    }

    fn key(layer: u32) -> MaskKey {
        MaskKey::new(5, layer, 6).unwrap().with_origin(3, 77)
    }

    fn input_dropout(&self) -> Option<(Dropout, MaskKey)> {
        self.input_rate.map(|rate| (Dropout::new(rate).unwrap(), Self::key(1)))
    }

    fn weight_dropout(&self) -> Option<(Dropout, MaskKey)> {
        self.weight_rate.map(|rate| (Dropout::new(rate).unwrap(), Self::key(3)))
    }

    fn check(&self) {
        let Case { batch, inputs, units, activation, .. } = *self;
        let x = numbers(batch * inputs, 7);
        let dy = numbers(batch * units, 8);
        let (x, dy) =
            (MatRef::new(&x, batch, inputs).unwrap(), MatRef::new(&dy, batch, units).unwrap());
        let start = self.state();
        let dropout = Dropout::new(self.rate).unwrap();
        let args = DenseArgs {
            bias: Some(&start.bias),
            activation,
            dropout,
            key: Self::key(2),
            input_dropout: self.input_dropout(),
            weight_dropout: self.weight_dropout(),
            ..DenseArgs::new(x, start.w.view())
        };
        let (mut y, mut z) = (vec![0.0; batch * units], vec![0.0; batch * units]);
        let y_view = MatMut::new(&mut y, batch, units).unwrap();
        let z_view = MatMut::new(&mut z, batch, units).unwrap();
        reference::dense_forward(&args, y_view, Some(z_view), None).unwrap();
        let values = match activation {
            Activation::Gelu | Activation::Silu | Activation::GeluTanh => {
                SavedValues::PreActivation(MatRef::new(&z, batch, units).unwrap())
            }
            _ => SavedValues::Output(MatRef::new(&y, batch, units).unwrap()),
        };
        let saved = Saved { values, mask: None };
        let expected = self.expected(&args, &saved, dy);
        for_each_level(|level| {
            for threads in [1, 2, 3, 8] {
                let mut s = self.state();
                let update = DenseUpdate {
                    x,
                    activation,
                    dropout,
                    key: Self::key(2),
                    input_dropout: self.input_dropout(),
                    weight_dropout: self.weight_dropout(),
                    step: self.step(),
                    max_norm: self.limit,
                };
                let parameters = Parameters {
                    w: s.w.view_mut(),
                    w_velocity: if self.momentum { Some(s.velocity.view_mut()) } else { None },
                    bias: Some(&mut s.bias),
                    bias_velocity: if self.momentum { Some(&mut s.bias_velocity) } else { None },
                };
                let dx = Some(MatMut::new(&mut s.dx, batch, inputs).unwrap());
                with_threads(threads, || {
                    testing::at_level(level, || dense_update(&update, parameters, &saved, dy, dx))
                })
                .unwrap()
                .unwrap();
                let same = |fast: &[f32], expected: &[f32], what: &str| {
                    let terms = batch.max(units);
                    assert_same(
                        level,
                        fast,
                        expected,
                        (terms, 40.0),
                        &format!("{what} of {self:?}"),
                    );
                };
                same(&s.dx, &expected.dx, "dx");
                same(&s.w.values(), &expected.w.values(), "W");
                same(&s.velocity.values(), &expected.velocity.values(), "velocity");
                same(&s.bias, &expected.bias, "bias");
                same(&s.bias_velocity, &expected.bias_velocity, "velocity of the bias");
            }
        });
    }

    fn expected(&self, args: &DenseArgs<'_>, saved: &Saved<'_>, dy: MatRef<'_>) -> State {
        let Case { batch, inputs, units, .. } = *self;
        let mut s = self.state();
        let (mut dw, mut db) = (vec![0.0; inputs * units], vec![0.0; units]);
        let gradients = Gradients {
            dx: Some(MatMut::new(&mut s.dx, batch, inputs).unwrap()),
            dw: Some(MatMut::new(&mut dw, inputs, units).unwrap()),
            db: Some(&mut db),
        };
        reference::dense_backward(args, saved, dy, gradients).unwrap();
        let dw = MatRef::new(&dw, inputs, units).unwrap();
        let velocity = if self.momentum { Some(s.velocity.view_mut()) } else { None };
        reference::sgd_update(s.w.view_mut(), dw, velocity, &self.step()).unwrap();
        let of_bias = SgdStep { weight_decay: 0.0, l1: 0.0, ..self.step() };
        let velocity =
            if self.momentum { Some(MatMut::row_vector(&mut s.bias_velocity[..])) } else { None };
        let db = MatRef::row_vector(&db[..]);
        reference::sgd_update(MatMut::row_vector(&mut s.bias[..]), db, velocity, &of_bias).unwrap();
        if let Some(limit) = self.limit {
            reference::max_norm(s.w.view_mut(), limit).unwrap();
        }
        // The reference's own update is these calls.
        let mut again = self.state();
        let update = DenseUpdate {
            x: args.x,
            activation: args.activation,
            dropout: args.dropout,
            key: args.key,
            input_dropout: args.input_dropout,
            weight_dropout: args.weight_dropout,
            step: self.step(),
            max_norm: self.limit,
        };
        let parameters = Parameters {
            w: again.w.view_mut(),
            w_velocity: if self.momentum { Some(again.velocity.view_mut()) } else { None },
            bias: Some(&mut again.bias),
            bias_velocity: if self.momentum { Some(&mut again.bias_velocity) } else { None },
        };
        reference::dense_update(&update, parameters, saved, dy, None).unwrap();
        assert_eq!(common::bits(&again.w.data), common::bits(&s.w.data));
        assert_eq!(common::bits(&again.bias), common::bits(&s.bias));
        s
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn update_equals_separate_calls(
        batch in 0usize..60, inputs in 0usize..40, units in 0usize..70,
        activation in prop_oneof![
            Just(Activation::Relu), Just(Activation::Tanh), Just(Activation::Gelu),
            Just(Activation::LeakyRelu { slope: 0.5 }),
        ],
        rate in prop_oneof![Just(0.0), Just(0.5), Just(0.1), Just(1.0)],
        input_rate in proptest::option::of(Just(0.2)),
        weight_rate in proptest::option::of(prop_oneof![Just(0.0), Just(0.4), Just(1.0)]),
        momentum: bool,
        penalties in prop_oneof![Just((0.0f32, 0.0f32)), Just((0.01, 0.0)), Just((0.0, 0.02)), Just((0.01, 0.02))],
        limit in proptest::option::of(Just(2.5f32)), extra in 0usize..3, transposed: (bool, bool),
    ) {
        Case { batch, inputs, units, activation, rate, input_rate, weight_rate, momentum, penalties,
               limit, extra, transposed }.check();
    }
}

/// A batch of more rows than any block of k, and a layer of several blocks.
#[test]
fn large_batches_and_layers() {
    let case = Case {
        batch: 700,
        inputs: 150,
        units: 130,
        activation: Activation::Relu,
        rate: 0.5,
        input_rate: Some(0.2),
        weight_rate: None,
        momentum: true,
        penalties: (0.01, 0.02),
        limit: Some(3.0),
        extra: 0,
        transposed: (false, false),
    };
    case.check();
    Case { batch: 30, inputs: 900, units: 260, transposed: (true, true), ..case.clone() }.check();
    let dropped = Case { weight_rate: Some(0.5), ..case.clone() };
    Case { batch: 90, inputs: 300, ..dropped.clone() }.check();
    Case { batch: 30, inputs: 140, units: 260, transposed: (true, true), ..dropped.clone() }
        .check();
    Case { batch: 4100, inputs: 7, units: 9, ..case }.check();
    Case { batch: 4100, inputs: 7, units: 9, ..dropped }.check();
}

#[test]
fn refused_updates_change_nothing() {
    let (batch, inputs, units) = (4, 5, 6);
    let x = numbers(batch * inputs, 1);
    let dy = numbers(batch * units, 2);
    let w_start = numbers(inputs * units, 3);
    let mut y = vec![0.0; batch * units];
    let x = MatRef::new(&x, batch, inputs).unwrap();
    let forward = DenseArgs::new(x, MatRef::new(&w_start, inputs, units).unwrap());
    dense_forward(&forward, MatMut::new(&mut y, batch, units).unwrap(), None, None).unwrap();
    let saved = Saved::output(MatRef::new(&y, batch, units).unwrap());
    let good = DenseUpdate {
        x,
        activation: Activation::Relu,
        dropout: Dropout::NONE,
        key: MaskKey::new(0, 0, 0).unwrap(),
        input_dropout: None,
        weight_dropout: None,
        step: SgdStep::new(0.1),
        max_norm: None,
    };
    let bad_rate = SgdStep { learning_rate: f32::NAN, ..good.step };
    let far = good.key.with_origin(u64::from(u32::MAX), 0);
    let far_weights = Some((Dropout::new(0.5).unwrap(), far));
    let calls: [(DenseUpdate<'_>, usize, usize); 7] = [
        (DenseUpdate { weight_dropout: far_weights, ..good }, units, units),
        (DenseUpdate { step: bad_rate, ..good }, units, units),
        (DenseUpdate { max_norm: Some(0.0), ..good }, units, units),
        (DenseUpdate { key: far, ..good }, units, units),
        (DenseUpdate { activation: Activation::Gelu, ..good }, units, units),
        (good, units + 1, units),
        (good, units, units + 1),
    ];
    for (args, dy_cols, bias_len) in calls {
        let (mut w, mut bias, mut dx) =
            (w_start.clone(), vec![1.0; bias_len], vec![2.0; batch * inputs]);
        let dy = numbers(dy.len() + batch, 2);
        let dy = MatRef::new(&dy, batch, dy_cols).unwrap();
        let parameters = Parameters {
            w: MatMut::new(&mut w, inputs, units).unwrap(),
            w_velocity: None,
            bias: Some(&mut bias),
            bias_velocity: None,
        };
        let dx_view = MatMut::new(&mut dx, batch, inputs).unwrap();
        let error: Error = dense_update(&args, parameters, &saved, dy, Some(dx_view)).unwrap_err();
        assert!(!error.to_string().is_empty());
        assert!(w == w_start && bias.iter().all(|b| *b == 1.0) && dx.iter().all(|x| *x == 2.0));
    }
}
