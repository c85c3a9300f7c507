//! The fused update against the gradient, the update and the constraint as separate calls of the
//! reference: the same bits.

mod common;

use common::{Padded, assert_same, bits, for_each_level, numbers, sgd_step, with_threads};
use fused_dropout::layer::{
    DenseArgs, DenseLayer, DenseUpdate, Gradients, OutputGradient, PackedWeight, Parameters,
    dense_forward, dense_update,
};
use fused_dropout::update::SgdStep;
use fused_dropout::{
    Activation, Dropout, Error, KeyedDropout, Mask, MaskKey, MaskSource, MatMut, MatRef, Saved,
    reference, testing,
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

impl State {
    fn parameters(&mut self, momentum: bool) -> Parameters<'_> {
        let parameters = Parameters::new(self.w.view_mut()).with_bias(&mut self.bias);
        if !momentum {
            return parameters;
        }
        let parameters = parameters.with_w_state(self.velocity.view_mut());
        parameters.with_bias_state(&mut self.bias_velocity[..])
    }
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
        let (weight_decay, l1) = self.penalties;
        sgd_step(0.05, if self.momentum { 0.9 } else { 0.0 }, weight_decay, l1)
    }

    fn dropout(rate: f64, layer: u32) -> KeyedDropout {
        let key = MaskKey::new(5, layer, 6).unwrap().with_origin(3, 77);
        Dropout::new(rate).unwrap().with_key(key)
    }

    fn layer(&self) -> DenseLayer<'static> {
        let mut layer = DenseLayer::new(self.activation).with_output(Self::dropout(self.rate, 2));
        if let Some(rate) = self.input_rate {
            layer = layer.with_input(Self::dropout(rate, 1));
        }
        if let Some(rate) = self.weight_rate {
            layer = layer.with_weight_dropout(Self::dropout(rate, 3));
        }
        layer
    }

    fn update<'a>(&self, x: MatRef<'a>) -> DenseUpdate<'a> {
        let mut update = DenseUpdate::new(self.layer(), x, self.step());
        update.max_norm = self.limit;
        update
    }

    fn check(&self) {
        let Case { batch, inputs, units, activation, .. } = *self;
        let x = numbers(batch * inputs, 7);
        let dy = numbers(batch * units, 8);
        let (x, dy) =
            (MatRef::new(&x, batch, inputs).unwrap(), MatRef::new(&dy, batch, units).unwrap());
        let start = self.state();
        let args = DenseArgs::new(self.layer(), x, start.w.view()).with_bias(&start.bias);
        let (mut y, mut z) = (vec![0.0; batch * units], vec![0.0; batch * units]);
        let y_view = MatMut::new(&mut y, batch, units).unwrap();
        let z_view = MatMut::new(&mut z, batch, units).unwrap();
        reference::dense_forward(&args, y_view, Some(z_view), MaskSource::Key).unwrap();
        let saved = match activation {
            Activation::Gelu | Activation::Silu | Activation::GeluTanh => {
                Saved::PreActivation(MatRef::new(&z, batch, units).unwrap())
            }
            _ => Saved::Output(MatRef::new(&y, batch, units).unwrap()),
        };
        let expected = self.expected(&args, &saved, dy);
        let mut dz_expected = numbers(batch * units, 8);
        let dz_view = MatMut::new(&mut dz_expected, batch, units).unwrap();
        let nothing = Gradients::default();
        reference::dense_backward(&args, &saved, dz_view, nothing, MaskSource::Key).unwrap();
        let update = self.update(x);
        let run = |update: &DenseUpdate<'_>, dy: OutputGradient<'_>, mask: MaskSource<'_>| {
            let mut s = self.state();
            let mut dx = std::mem::take(&mut s.dx);
            let dx_view = Some(MatMut::new(&mut dx, batch, inputs).unwrap());
            let parameters = s.parameters(self.momentum);
            dense_update(update, parameters, &saved, dy, dx_view, mask).unwrap();
            State { dx, ..s }
        };
        for_each_level(|level| {
            let same = |s: &State, what: &str| {
                let same = |fast: &[f32], expected: &[f32], of: &str| {
                    let terms = (batch.max(units), 40.0);
                    assert_same(level, fast, expected, terms, &format!("{of}, {what}: {self:?}"));
                };
                same(&s.dx, &expected.dx, "dx");
                same(&s.w.values(), &expected.w.values(), "W");
                same(&s.velocity.values(), &expected.velocity.values(), "velocity");
                same(&s.bias, &expected.bias, "bias");
                same(&s.bias_velocity, &expected.bias_velocity, "velocity of the bias");
            };
            for threads in [1, 2, 3, 8] {
                let run = || run(&update, OutputGradient::Keep(dy), MaskSource::Key);
                let s = with_threads(threads, || testing::at_level(level, run)).unwrap();
                same(&s, &format!("{threads} threads"));
            }
            let mut mask = Mask::new(batch, units).unwrap();
            let keep = || OutputGradient::Keep(dy);
            same(&run(&update, keep(), MaskSource::Store(&mut mask)), "mask stored");
            let drawn = Mask::generate(batch, units, &Self::dropout(self.rate, 2)).unwrap();
            assert_eq!(mask, drawn, "{self:?}");
            same(&run(&update, keep(), MaskSource::Given(&mask)), "mask given");
            let packed = PackedWeight::for_input_gradient(&update.layer, start.w.view()).unwrap();
            same(&run(&update.with_packed(&packed), keep(), MaskSource::Key), "packed");
            let mut dz = Padded::new(&numbers(batch * units, 8), batch, units, self.extra, false);
            let overwrite = OutputGradient::Overwrite(dz.view_mut());
            same(&run(&update, overwrite, MaskSource::Key), "dy overwritten");
            let what = format!("dz of {self:?}");
            assert_same(level, &dz.values(), &dz_expected, (batch.max(units), 40.0), &what);
        });
    }

    fn expected(&self, args: &DenseArgs<'_>, saved: &Saved<'_>, dy: MatRef<'_>) -> State {
        let Case { batch, inputs, units, .. } = *self;
        let mut s = self.state();
        let (mut dw, mut db) = (vec![0.0; inputs * units], vec![0.0; units]);
        let gradients = Gradients::default()
            .with_dx(MatMut::new(&mut s.dx, batch, inputs).unwrap())
            .with_dw(MatMut::new(&mut dw, inputs, units).unwrap())
            .with_db(&mut db);
        reference::dense_backward(args, saved, dy, gradients, MaskSource::Key).unwrap();
        let dw = MatRef::new(&dw, inputs, units).unwrap();
        let velocity = if self.momentum { Some(s.velocity.view_mut()) } else { None };
        reference::apply(s.w.view_mut(), dw, velocity, self.step()).unwrap();
        let mut of_bias = self.step();
        (of_bias.weight_decay, of_bias.l1) = (0.0, 0.0);
        let velocity =
            if self.momentum { Some(MatMut::row_vector(&mut s.bias_velocity[..])) } else { None };
        let db = MatRef::row_vector(&db[..]);
        reference::apply(MatMut::row_vector(&mut s.bias[..]), db, velocity, of_bias).unwrap();
        if let Some(limit) = self.limit {
            reference::max_norm(s.w.view_mut(), limit).unwrap();
        }
        // The reference's own update is these calls.
        let mut again = self.state();
        let parameters = again.parameters(self.momentum);
        let update = self.update(args.x);
        reference::dense_update(&update, parameters, saved, dy, None, MaskSource::Key).unwrap();
        assert_eq!(bits(&again.w.data), bits(&s.w.data));
        assert_eq!(bits(&again.bias), bits(&s.bias));
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
    let layer = DenseLayer::new(Activation::Identity);
    let forward = DenseArgs::new(layer, x, MatRef::new(&w_start, inputs, units).unwrap());
    let y_view = MatMut::new(&mut y, batch, units).unwrap();
    dense_forward(&forward, y_view, None, MaskSource::Key).unwrap();
    let saved = Saved::Output(MatRef::new(&y, batch, units).unwrap());

    let relu = DenseLayer::new(Activation::Relu);
    let far = MaskKey::new(0, 0, 0).unwrap().with_origin(u64::from(u32::MAX), 0);
    let far_weights = relu.with_weight_dropout(Dropout::new(0.5).unwrap().with_key(far));
    let far_output = relu.with_output(Dropout::NONE.with_key(far));
    let update = |layer| DenseUpdate::new(layer, x, SgdStep::new(0.1));
    let good = update(relu);
    let calls: [(DenseUpdate<'_>, usize, usize); 7] = [
        (update(far_weights), units, units),
        (DenseUpdate::new(relu, x, SgdStep::new(f32::NAN)), units, units),
        (good.with_max_norm(0.0), units, units),
        (update(far_output), units, units),
        (update(DenseLayer::new(Activation::Gelu)), units, units),
        (good, units + 1, units),
        (good, units, units + 1),
    ];
    for (args, dy_cols, bias_len) in calls {
        let (mut w, mut bias, mut dx) =
            (w_start.clone(), vec![1.0; bias_len], vec![2.0; batch * inputs]);
        let dy = numbers(dy.len() + batch, 2);
        let dy = MatRef::new(&dy, batch, dy_cols).unwrap();
        let w_view = MatMut::new(&mut w, inputs, units).unwrap();
        let parameters = Parameters::new(w_view).with_bias(&mut bias);
        let dx_view = Some(MatMut::new(&mut dx, batch, inputs).unwrap());
        let error: Error =
            dense_update(&args, parameters, &saved, dy, dx_view, MaskSource::Key).unwrap_err();
        assert!(!error.to_string().is_empty());
        assert!(w == w_start && bias.iter().all(|b| *b == 1.0) && dx.iter().all(|x| *x == 2.0));
    }
}
