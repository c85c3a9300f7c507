//! Options of a network - Gaussian noise, rates that change from step to step, classical scaling -
//! against a network that is put together from the reference, one operation after the other.

use fused_dropout::elementwise::GaussianDropout;
use fused_dropout::layer::{
    DenseArgs, DenseLayer, DenseUpdate, Gradients, KeptUnits, Parameters, dense_forward,
    dense_update,
};
use fused_dropout::mask::RateSchedule;
use fused_dropout::nn::{Granularity, Mlp, MlpSpec, Noise, Optimiser, StepRate};
use fused_dropout::reference::{self, Real};
use fused_dropout::softmax::softmax_cross_entropy;
use fused_dropout::update::SgdStep;
use fused_dropout::{
    Activation, Dropout, Error, KeyedDropout, MaskKey, MaskSource, MatMut, MatRef, Saved, Scaling,
    testing,
};

use super::common::{assert_same, bits, for_each_level, matrix, matrix_mut, numbers, with_threads};
use super::{of_units, with_noises};

const SIZES: [usize; 4] = [12, 20, 15, 5];
const BATCH: usize = 9;

const CURRICULUM: StepRate = StepRate::Scheduled(RateSchedule::Curriculum { gamma: 0.3 });
const LINEAR: StepRate = StepRate::Scheduled(RateSchedule::Linear { from: 0.7, steps: 4 });

fn spec(activation: Activation) -> MlpSpec {
    MlpSpec::new(&SIZES)
        .with_activation(activation)
        .with_input_rate(0.2)
        .with_hidden_rate(0.5)
        .with_seed(23)
}

fn key(layer: usize, step: u32) -> MaskKey {
    MaskKey::new(23, layer as u32, step).unwrap()
}

/// The rate of a junction in a step, by the reference.
fn rate(spec: &MlpSpec, l: usize, step: u32) -> f64 {
    let (rate, schedule) = match l {
        0 => (spec.input_rate, spec.input_schedule),
        _ => (spec.hidden_rate, spec.hidden_schedule),
    };
    match schedule {
        StepRate::Scheduled(schedule) => reference::rate_at(&schedule, rate, step),
        StepRate::Drawn => reference::drawn_rate(rate, &key(l, step), 0),
        other => panic!("{other:?}"),
    }
    .unwrap()
}

/// A network whose noise is a pass of its own, forward and backward.
#[derive(Clone)]
struct Naive<T> {
    spec: MlpSpec,
    /// Weights and biases of each layer.
    w: Vec<Vec<T>>,
    b: Vec<Vec<T>>,
}

impl<T: Real + Into<f64>> Naive<T> {
    fn of(mlp: &Mlp) -> Self {
        let real = |values: &[f32]| values.iter().map(|x| T::from_f64((*x).into())).collect();
        Self {
            spec: mlp.spec().clone(),
            w: mlp.layers().iter().map(|layer| real(layer.weights())).collect(),
            b: mlp.layers().iter().map(|layer| real(layer.bias())).collect(),
        }
    }

    /// Applies the noise of junction `l`, or its derivative, which for both kinds is the same factor.
    fn noise(&self, l: usize, step: u32, x: &[T]) -> Vec<T> {
        let (rate, cols) = (rate(&self.spec, l, step), SIZES[l]);
        let mut y = vec![T::ZERO; x.len()];
        let (from, to) =
            (MatRef::new(x, BATCH, cols).unwrap(), MatMut::new(&mut y, BATCH, cols).unwrap());
        match self.spec.noise.get(l) {
            Some(Noise::Gaussian) => {
                let noise = GaussianDropout::new(rate).unwrap();
                reference::gaussian_dropout_forward((from, to), &noise.with_key(key(l, step)))
                    .unwrap();
            }
            _ => {
                let dropout = Dropout::with_scaling(rate, self.spec.scaling).unwrap();
                let dropout = dropout.with_key(key(l, step));
                reference::dropout_forward((from, to), &dropout, MaskSource::Key).unwrap();
            }
        }
        y
    }

    fn args<'a>(&'a self, l: usize, x: MatRef<'a, T>) -> DenseArgs<'a, T> {
        let hidden = l + 1 < self.w.len();
        let activation = if hidden { self.spec.activation } else { Activation::Identity };
        let w = MatRef::new(&self.w[l], SIZES[l], SIZES[l + 1]).unwrap();
        DenseArgs::new(DenseLayer::new(activation), x, w).with_bias(&self.b[l])
    }

    /// The mean loss of a step, and the gradients of weights and biases.
    fn gradients(&self, step: u32, x: &[f32], labels: &[u32]) -> (f64, Vec<Vec<T>>, Vec<Vec<T>>) {
        let count = self.w.len();
        let mut inputs = vec![x.iter().map(|x| T::from_f64((*x).into())).collect::<Vec<T>>()];
        let mut saved = Vec::new();
        for l in 0..count {
            inputs[l] = self.noise(l, step, &inputs[l]);
            let x = MatRef::new(&inputs[l], BATCH, SIZES[l]).unwrap();
            let len = BATCH * SIZES[l + 1];
            let (mut y, mut z) = (vec![T::ZERO; len], vec![T::ZERO; len]);
            let y_view = MatMut::new(&mut y, BATCH, SIZES[l + 1]).unwrap();
            let z_view = MatMut::new(&mut z, BATCH, SIZES[l + 1]).unwrap();
            let args = self.args(l, x);
            reference::dense_forward(&args, y_view, Some(z_view), MaskSource::Key).unwrap();
            // What the derivative is computed from in a network.
            let from_z = matches!(self.spec.activation, Activation::Silu);
            saved.push(if from_z { z } else { y.clone() });
            inputs.push(y);
        }
        let mut dy = vec![T::ZERO; BATCH * SIZES[count]];
        let logits = MatRef::new(&inputs[count], BATCH, SIZES[count]).unwrap();
        let to = MatMut::new(&mut dy, BATCH, SIZES[count]).unwrap();
        let loss = reference::softmax_cross_entropy(logits, labels, Some(to)).unwrap().mean();
        let (mut dws, mut dbs) = (Vec::new(), Vec::new());
        for l in (0..count).rev() {
            let mut dw = vec![T::ZERO; SIZES[l] * SIZES[l + 1]];
            let (mut db, mut dx) = (vec![T::ZERO; SIZES[l + 1]], vec![T::ZERO; BATCH * SIZES[l]]);
            let values = MatRef::new(&saved[l], BATCH, SIZES[l + 1]).unwrap();
            let saved = match self.spec.activation {
                Activation::Silu => Saved::PreActivation(values),
                _ => Saved::Output(values),
            };
            let to = Gradients::default()
                .with_dx(MatMut::new(&mut dx, BATCH, SIZES[l]).unwrap())
                .with_dw(MatMut::new(&mut dw, SIZES[l], SIZES[l + 1]).unwrap())
                .with_db(&mut db);
            let x = MatRef::new(&inputs[l], BATCH, SIZES[l]).unwrap();
            let dy_view = MatRef::new(&dy, BATCH, SIZES[l + 1]).unwrap();
            let args = self.args(l, x);
            reference::dense_backward(&args, &saved, dy_view, to, MaskSource::Key).unwrap();
            dy = self.noise(l, step, &dx);
            dws.push(dw);
            dbs.push(db);
        }
        dws.reverse();
        dbs.reverse();
        (loss, dws, dbs)
    }

    /// A step of plain gradient descent; the loss before it.
    fn train_step(&mut self, step: u32, x: &[f32], labels: &[u32], sgd: &Optimiser) -> f64 {
        let (loss, dw, db) = self.gradients(step, x, labels);
        let numbers = sgd.step_at(step, step + 1).unwrap();
        let of_biases = SgdStep::new(sgd.learning_rate(step)).into();
        let all = self.w.iter_mut().zip(&dw).map(|pair| (pair, numbers));
        for ((values, gradient), numbers) in
            all.chain(self.b.iter_mut().zip(&db).map(|pair| (pair, of_biases)))
        {
            let (values, gradient) = (MatMut::row_vector(values), MatRef::row_vector(gradient));
            reference::apply(values, gradient, None, numbers).unwrap();
        }
        loss
    }
}

fn batch() -> (Vec<f32>, Vec<u32>) {
    (numbers(BATCH * SIZES[0], 4), (0..BATCH as u32).map(|i| i * 3 % 5).collect())
}

/// Each kind of noise with each kind of rate, in several steps: the bits of the reference.
#[test]
fn steps_equal_those_of_the_reference() {
    use Noise::{Dropout, Gaussian};
    let (x, labels) = batch();
    let constant = StepRate::default();
    for (activation, noise, schedule, scaling) in [
        (Activation::Relu, vec![Gaussian; 3], constant, Scaling::Inverted),
        (Activation::Silu, vec![Gaussian; 3], StepRate::Drawn, Scaling::Inverted),
        (Activation::Tanh, vec![Gaussian; 3], CURRICULUM, Scaling::Classical),
        (Activation::Relu, vec![Dropout, Gaussian], LINEAR, Scaling::Inverted),
        (Activation::Silu, vec![Gaussian, Dropout, Gaussian], CURRICULUM, Scaling::Classical),
        (Activation::Relu, vec![], StepRate::Drawn, Scaling::Inverted),
        (Activation::Silu, vec![], LINEAR, Scaling::Classical),
        (Activation::Relu, vec![], CURRICULUM, Scaling::Inverted),
    ] {
        let what = format!("{activation}, {noise:?}, {schedule:?}, {scaling:?}");
        let spec = with_noises(spec(activation), &noise).with_scaling(scaling);
        let spec = spec.with_schedule(schedule);
        let sgd = Optimiser::new(SgdStep::new(0.1).with_weight_decay(0.01).with_l1(0.001));
        let mlp = Mlp::new(&spec).unwrap();
        let mut naive = Naive::<f32>::of(&mlp);
        let losses: Vec<_> =
            (0..6).map(|step| naive.train_step(step, &x, &labels, &sgd) as f32).collect();
        for_each_level(|level| {
            for threads in [1, 3] {
                let mut mlp = mlp.clone();
                let x = matrix(&x, BATCH, SIZES[0]);
                let step = |mlp: &mut Mlp| mlp.train_step(x, &labels, &sgd).unwrap();
                let run =
                    || testing::at_level(level, || losses.iter().map(|_| step(&mut mlp)).collect());
                let fast: Vec<f32> = with_threads(threads, run).unwrap();
                assert_same(level, &fast, &losses, (20, 1.0), &format!("losses, {what}"));
                for (l, layer) in mlp.layers().iter().enumerate() {
                    let what = format!("layer {l}, {what}, {threads} threads");
                    assert_same(level, layer.weights(), &naive.w[l], (20, 1.0), &what);
                    assert_same(level, layer.bias(), &naive.b[l], (20, 1.0), &what);
                }
            }
        });
    }
}

/// The gradients of the f64 reference are those of finite differences, and a network's are near.
#[test]
fn gradients_through_gaussian_noise() {
    let (x, labels) = batch();
    for activation in [Activation::Tanh, Activation::Silu] {
        let spec = spec(activation).with_noise(Noise::Gaussian);
        let mut mlp = Mlp::new(&spec).unwrap();
        let mut naive = Naive::<f64>::of(&mlp);
        let (_, dw, db) = naive.gradients(0, &x, &labels);
        let h = 1e-6;
        for (l, dw) in dw.iter().enumerate() {
            for (i, gradient) in dw.iter().enumerate().step_by(7) {
                let loss = |naive: &mut Naive<f64>, change: f64| {
                    naive.w[l][i] += change;
                    let loss = naive.gradients(0, &x, &labels).0;
                    naive.w[l][i] -= change;
                    loss
                };
                let difference = (loss(&mut naive, h) - loss(&mut naive, -h)) / (2.0 * h);
                // The loss is near 1.6, of which half an ULP is divided by h.
                let error = (difference - gradient).abs();
                assert!(error < 2e-9, "{activation}: weight {i} of layer {l}: {error:e}");
            }
        }
        let before = mlp.clone();
        mlp.train_step(matrix(&x, BATCH, SIZES[0]), &labels, &Optimiser::new(SgdStep::new(1.0)))
            .unwrap();
        for (l, (now, before)) in mlp.layers().iter().zip(before.layers()).enumerate() {
            let pairs = now.weights().iter().zip(before.weights()).zip(&dw[l]);
            for ((now, before), exact) in
                pairs.chain(now.bias().iter().zip(before.bias()).zip(&db[l]))
            {
                let error = (f64::from(before - now) - exact).abs();
                // Some twenty roundings of terms below 1, and one of the weight itself.
                assert!(error < 3e-6, "{activation}: layer {l}: {error:e} from {exact}");
            }
        }
    }
}

/// The units of a step are those of the step's rate.
#[test]
fn units_follow_the_schedule() {
    let (x, labels) = batch();
    for granularity in [Granularity::Unit, Granularity::UnitExact] {
        for schedule in [LINEAR, CURRICULUM, StepRate::Drawn] {
            let spec = of_units(spec(Activation::Silu), granularity).with_schedule(schedule);
            let mut mlp = Mlp::new(&spec).unwrap();
            for step in 0..6 {
                let before = mlp.clone();
                mlp.train_step(
                    matrix(&x, BATCH, SIZES[0]),
                    &labels,
                    &Optimiser::new(SgdStep::new(0.1)),
                )
                .unwrap();
                let kept = |l: usize| {
                    let dropout = Dropout::new(rate(&spec, l, step)).unwrap();
                    let dropout = dropout.with_key(key(l, step));
                    match granularity {
                        Granularity::Unit => KeptUnits::bernoulli(SIZES[l], &dropout),
                        _ => KeptUnits::exact(SIZES[l], &dropout),
                    }
                    .unwrap()
                };
                let units = SIZES[2];
                let (rows, cols) = (kept(1), kept(2));
                let weights = mlp.layers()[1].weights().iter().zip(before.layers()[1].weights());
                for (i, (now, before)) in weights.enumerate() {
                    let is = |kept: &KeptUnits, unit| kept.indices().contains(&(unit as u32));
                    let both = is(&rows, i / units) && is(&cols, i % units);
                    assert_eq!(now != before, both, "weight {i} in step {step}, {schedule:?}");
                }
            }
        }
    }
}

#[test]
fn rates_of_steps() {
    for step in [0, 1, 5, 700] {
        let key = key(2, step);
        let at = |schedule: StepRate| schedule.rate_at(0.4, &key).unwrap();
        assert_eq!(at(StepRate::default()), 0.4);
        assert!((at(CURRICULUM) - 0.4 * (1.0 - (-0.3 * f64::from(step)).exp())).abs() < 1e-15);
        assert_eq!(at(StepRate::Drawn), reference::drawn_rate(0.4, &key, 0).unwrap());
        for schedule in [RateSchedule::Linear { from: 0.7, steps: 4 }, RateSchedule::Constant] {
            let exact = reference::rate_at(&schedule, 0.4, step).unwrap();
            assert!((at(StepRate::Scheduled(schedule)) - exact).abs() < 1e-15);
        }
    }
}

/// Noise of rate 0 is none, whichever its kind.
#[test]
fn no_noise_is_no_noise() {
    let (x, labels) = batch();
    let weights = |noise| {
        let spec = MlpSpec::new(&SIZES).with_noise(noise).with_seed(2);
        let mut mlp = Mlp::new(&spec).unwrap();
        mlp.train_step(matrix(&x, BATCH, SIZES[0]), &labels, &Optimiser::new(SgdStep::new(0.1)))
            .unwrap();
        super::parameters(&mlp)
    };
    assert_eq!(bits(&weights(Noise::Gaussian)), bits(&weights(Noise::Dropout)));
}

#[test]
fn impossible_noise_is_refused() {
    let refused = |spec: MlpSpec| Mlp::new(&spec).unwrap_err();
    let gaussian = || spec(Activation::Relu).with_noise(Noise::Gaussian);
    let error = refused(of_units(gaussian(), Granularity::Unit));
    assert_eq!(error, Error::NoiseOfUnits { position: 0 });
    let noise = [Noise::Dropout, Noise::Dropout, Noise::Gaussian];
    let mixed = with_noises(spec(Activation::Relu), &noise);
    Mlp::new(&mixed).unwrap();
    let error = refused(of_units(mixed, Granularity::UnitExact));
    assert_eq!(error, Error::NoiseOfUnits { position: 2 });
    let error = refused(with_noises(spec(Activation::Relu), &[Noise::Dropout; 4]));
    assert!(matches!(error, Error::Parameter { name: "number of kinds of noise", .. }), "{error}");
    // An infinite variance, at the end or at the beginning.
    refused(gaussian().with_hidden_rate(1.0));
    let from_1 = StepRate::Scheduled(RateSchedule::Linear { from: 1.0, steps: 9 });
    refused(gaussian().with_schedule(from_1));
    Mlp::new(&spec(Activation::Relu).with_schedule(from_1)).unwrap();
    for bad in [-0.1, 1.1, f64::NAN] {
        for schedule in [StepRate::default(), LINEAR, CURRICULUM, StepRate::Drawn] {
            let spec = spec(Activation::Relu).with_schedule(schedule);
            let error = refused(spec.with_input_rate(bad));
            assert!(matches!(error, Error::Rate { .. }), "{error}");
        }
        let schedule = StepRate::Scheduled(RateSchedule::Linear { from: bad, steps: 3 });
        let error = refused(spec(Activation::Relu).with_hidden_schedule(schedule));
        assert!(matches!(error, Error::Rate { .. }), "{error}");
    }
    let schedule = StepRate::Scheduled(RateSchedule::Curriculum { gamma: 0.0 });
    let error = refused(spec(Activation::Relu).with_input_schedule(schedule));
    assert!(matches!(error, Error::Parameter { name: "gamma", .. }), "{error}");
}

/// Layers that know nothing of dropout predict what the network does.
#[test]
fn exported_weights_predict_the_same() {
    let (x, labels) = batch();
    let classical = spec(Activation::Silu).with_scaling(Scaling::Classical);
    for (spec, keep) in [
        (classical.clone(), [0.8, 0.5, 0.5]),
        (classical.clone().with_schedule(CURRICULUM), [0.8, 0.5, 0.5]),
        (classical.clone().with_schedule(StepRate::Drawn), [0.9, 0.75, 0.75]),
        (of_units(classical.clone(), Granularity::UnitExact), [10.0 / 12.0, 0.5, 8.0 / 15.0]),
        (classical.clone().with_noise(Noise::Gaussian), [1.0; 3]),
        (classical.clone().with_scaling(Scaling::Inverted), [1.0; 3]),
    ] {
        let mut mlp = Mlp::new(&spec).unwrap();
        let x = matrix(&x, BATCH, SIZES[0]);
        for _ in 0..5 {
            mlp.train_step(x, &labels, &Optimiser::new(SgdStep::new(0.1).with_momentum(0.9)))
                .unwrap();
        }
        let exported = mlp.export_scaled_weights().unwrap();
        for (l, (exported, layer)) in exported.iter().zip(mlp.layers()).enumerate() {
            let w: Vec<f32> = layer.weights().iter().map(|w| w * keep[l] as f32).collect();
            // The keep probability is a multiple of 2^-32.
            assert_same_within(exported.weights(), &w, 1e-7);
            assert_eq!(exported.bias(), layer.bias());
            assert_eq!((exported.inputs(), exported.units()), (SIZES[l], SIZES[l + 1]));
        }
        for_each_level(|level| {
            let mut logits = vec![9.0; BATCH * 5];
            mlp.predict(x, matrix_mut(&mut logits, BATCH, 5)).unwrap();
            let mut last: Vec<f32> = Vec::new();
            for (l, layer) in exported.iter().enumerate() {
                let input = if l == 0 { x } else { matrix(&last, BATCH, layer.inputs()) };
                let w = matrix(layer.weights(), layer.inputs(), layer.units());
                let mut y = vec![9.0; BATCH * layer.units()];
                let activation = if l < 2 { Activation::Silu } else { Activation::Identity };
                let does = DenseLayer::new(activation);
                let args = DenseArgs::new(does, input, w).with_bias(layer.bias());
                let to = matrix_mut(&mut y, BATCH, layer.units());
                dense_forward(&args, to, None, MaskSource::Key).unwrap();
                last = y;
            }
            assert_eq!(bits(&logits), bits(&last), "{spec:?} on {level}");
        });
    }
}

fn assert_same_within(a: &[f32], b: &[f32], relative: f32) {
    assert_eq!(a.len(), b.len());
    assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() <= relative * b.abs()), "{a:?} {b:?}");
}

/// Two layers by hand: 12 inputs, 20 units, 5 classes.
struct Pair {
    scaling: Scaling,
    w: [Vec<f32>; 2],
    velocity: [Vec<f32>; 2],
    /// The learning rates of the weights.
    learning_rates: [f32; 2],
}

impl Pair {
    /// What is dropped before layer `l`.
    fn dropout(&self, l: usize) -> KeyedDropout {
        Dropout::with_scaling([0.5, 0.75][l], self.scaling).unwrap().with_key(key(l, 0))
    }

    /// A step with momentum on the weights; the logits before it.
    fn step(&mut self, x: &[f32], labels: &[u32]) -> Vec<f32> {
        let x = matrix(x, BATCH, 12);
        let bias = [numbers(20, 8), numbers(5, 9)];
        let (mut y, mut logits) = (vec![0.0; BATCH * 20], vec![0.0; BATCH * 5]);
        let first = DenseLayer::new(Activation::Relu)
            .with_input(self.dropout(0))
            .with_output(self.dropout(1));
        let last = DenseLayer::new(Activation::Identity);
        let args = DenseArgs::new(first, x, matrix(&self.w[0], 12, 20)).with_bias(&bias[0]);
        dense_forward(&args, matrix_mut(&mut y, BATCH, 20), None, MaskSource::Key).unwrap();
        let y = matrix(&y, BATCH, 20);
        let args = DenseArgs::new(last, y, matrix(&self.w[1], 20, 5)).with_bias(&bias[1]);
        dense_forward(&args, matrix_mut(&mut logits, BATCH, 5), None, MaskSource::Key).unwrap();
        let mut gradient = vec![0.0; BATCH * 5];
        let to = matrix_mut(&mut gradient, BATCH, 5);
        softmax_cross_entropy(matrix(&logits, BATCH, 5), labels, Some(to)).unwrap();
        let mut dy = vec![0.0; BATCH * 20];
        let dx = matrix_mut(&mut dy, BATCH, 20);
        self.update(1, (last, y), Saved::Nothing, matrix(&gradient, BATCH, 5), Some(dx));
        self.update(0, (first, x), Saved::Output(y), matrix(&dy, BATCH, 20), None);
        logits
    }

    /// Updates the weights of layer `l`, which has read `x`.
    fn update(
        &mut self,
        l: usize,
        (layer, x): (DenseLayer<'_>, MatRef<'_>),
        saved: Saved<'_>,
        dy: MatRef<'_>,
        dx: Option<MatMut<'_>>,
    ) {
        let (inputs, units) = ([12, 20][l], [20, 5][l]);
        let step = SgdStep::new(self.learning_rates[l]).with_momentum(0.5);
        let args = DenseUpdate::new(layer, x, step);
        let parameters = Parameters::new(matrix_mut(&mut self.w[l], inputs, units))
            .with_w_state(matrix_mut(&mut self.velocity[l], inputs, units));
        dense_update(&args, parameters, &saved, dy, dx, MaskSource::Key).unwrap();
    }
}

/// A network with inverted scaling and weights of `keep · W` is the one with classical scaling and W, and
/// stays it where its weights learn at `keep²` times the rate. With powers of two for keep, in bits.
#[test]
fn inverted_training_equals_classical_training() {
    let (x, labels) = batch();
    let keep = [0.5f32, 0.25];
    let w = [numbers(12 * 20, 1), numbers(20 * 5, 2)];
    for_each_level(|level| {
        let mut classical = Pair {
            scaling: Scaling::Classical,
            w: w.clone(),
            velocity: w.clone().map(|w| vec![0.0; w.len()]),
            learning_rates: [0.1, 0.1],
        };
        let mut inverted = Pair {
            scaling: Scaling::Inverted,
            w: [0, 1].map(|l| w[l].iter().map(|w| w * keep[l]).collect()),
            velocity: classical.velocity.clone(),
            learning_rates: keep.map(|keep| 0.1 * keep * keep),
        };
        for step in 0..4 {
            let logits = [&mut classical, &mut inverted].map(|pair| pair.step(&x, &labels));
            assert_eq!(bits(&logits[0]), bits(&logits[1]), "logits of step {step} on {level}");
            for l in [0, 1] {
                let scaled: Vec<f32> = classical.w[l].iter().map(|w| w * keep[l]).collect();
                assert_eq!(bits(&scaled), bits(&inverted.w[l]), "weights {l} of step {step}");
            }
        }
    });
}
