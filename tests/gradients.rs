//! Gradients: central differences of the reference's forward passes in f64 against its backward
//! passes in f64, and those in f32 against those in f64. The fast functions equal the reference in
//! f32 bit for bit, which other tests show.

mod common;

use common::{ACTIVATIONS, numbers};
use fused_dropout::elementwise::{AlphaDropout, BiasActivationDropout, GaussianDropout};
use fused_dropout::layer::{DenseArgs, DenseLayer, Gradients};
use fused_dropout::loss::{CrossEntropy, Huber, MeanSquaredError};
use fused_dropout::reference::{self, Real};
use fused_dropout::softmax::SoftmaxDropout;
use fused_dropout::{
    Activation, Dropout, KeyedDropout, MaskKey, MaskSource, MatMut, MatRef, Saved,
};

/// Half the distance of two points of a difference.
const STEP: f64 = 1e-5;

/// The error of a difference is the third derivative times STEP^2 / 6, and the rounding of a loss of
/// some hundred over STEP. Along one coordinate at most 6 terms change; an activation's third
/// derivative is below 3, z changes by less than 2 · 1.43 for each 1, scale and dy are below 1.67 and
/// 2: below 6 · 3 · 2.86^3 · 3.34 = 1407.
const BOUND: f64 = 1407.0 / 6.0 * STEP * STEP + 200.0 * f64::EPSILON / STEP;

const BATCH: usize = 4;
const INPUTS: usize = 5;
const UNITS: usize = 6;

/// The derivative of `f` with respect to each element of `at`.
fn differences(at: &[f64], mut f: impl FnMut(&[f64]) -> f64) -> Vec<f64> {
    let mut point = at.to_vec();
    let mut value = |i: usize, x: f64| {
        let old = std::mem::replace(&mut point[i], x);
        let value = f(&point);
        point[i] = old;
        value
    };
    at.iter()
        .enumerate()
        .map(|(i, x)| (value(i, x + STEP) - value(i, x - STEP)) / (2.0 * STEP))
        .collect()
}

#[track_caller]
fn assert_close(gradient: &[f64], differences: &[f64], what: &str) {
    assert_eq!(gradient.len(), differences.len());
    assert!(gradient.iter().any(|g| g.abs() > 0.01), "{what} is all but zero, which tests nothing");
    for (i, (g, d)) in gradient.iter().zip(differences).enumerate() {
        assert!((g - d).abs() <= BOUND, "{what}: element {i} is {g}, the difference {d}");
    }
}

fn doubles(len: usize, seed: u64) -> Vec<f64> {
    numbers(len, seed).into_iter().map(f64::from).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn matrix<T>(data: &[T], rows: usize, cols: usize) -> MatRef<'_, T> {
    MatRef::new(data, rows, cols).unwrap()
}

fn matrix_mut<T>(data: &mut [T], rows: usize, cols: usize) -> MatMut<'_, T> {
    MatMut::new(data, rows, cols).unwrap()
}

/// The dropout of the operations that are not layers.
fn dropout(rate: f64) -> KeyedDropout {
    Dropout::new(rate).unwrap().with_key(key())
}

fn key() -> MaskKey {
    MaskKey::new(3, 2, 1).unwrap().with_origin(5, 200)
}

/// A dense layer over either number type.
struct Layer<T> {
    x: Vec<T>,
    w: Vec<T>,
    b: Vec<T>,
    activation: Activation,
    rate: f64,
    input_rate: Option<f64>,
    weight_rate: Option<f64>,
}

impl<T: Real> Layer<T> {
    fn args(&self) -> DenseArgs<'_, T> {
        let dropout =
            |rate, layer| Dropout::new(rate).unwrap().with_key(MaskKey::new(3, layer, 4).unwrap());
        let mut layer = DenseLayer::new(self.activation).with_output(dropout(self.rate, 1));
        if let Some(rate) = self.input_rate {
            layer = layer.with_input(dropout(rate, 0));
        }
        if let Some(rate) = self.weight_rate {
            layer = layer.with_weight_dropout(dropout(rate, 2));
        }
        let (x, w) = (matrix(&self.x, BATCH, INPUTS), matrix(&self.w, INPUTS, UNITS));
        DenseArgs::new(layer, x, w).with_bias(&self.b)
    }

    /// y and z.
    fn forward(&self) -> (Vec<T>, Vec<T>) {
        let (mut y, mut z) = (vec![T::ZERO; BATCH * UNITS], vec![T::ZERO; BATCH * UNITS]);
        let y_view = matrix_mut(&mut y, BATCH, UNITS);
        let z_view = Some(matrix_mut(&mut z, BATCH, UNITS));
        reference::dense_forward(&self.args(), y_view, z_view, MaskSource::Key).unwrap();
        (y, z)
    }

    /// dx, dW and db of `dot(y, dy)`.
    fn backward(&self, saved: Saved<'_, T>, dy: &[T]) -> [Vec<T>; 3] {
        let zeros = |len| vec![T::ZERO; len];
        let (mut dx, mut dw) = (zeros(BATCH * INPUTS), zeros(INPUTS * UNITS));
        let mut db = zeros(UNITS);
        let gradients = Gradients::default()
            .with_dx(matrix_mut(&mut dx, BATCH, INPUTS))
            .with_dw(matrix_mut(&mut dw, INPUTS, UNITS))
            .with_db(&mut db);
        let dy = matrix(dy, BATCH, UNITS);
        reference::dense_backward(&self.args(), &saved, dy, gradients, MaskSource::Key).unwrap();
        [dx, dw, db]
    }

    /// The gradients from everything that is enough for the activation.
    fn gradients(&self, dy: &[T]) -> Vec<[Vec<T>; 3]> {
        let (y, z) = self.forward();
        let mut all = vec![self.backward(Saved::PreActivation(matrix(&z, BATCH, UNITS)), dy)];
        if !matches!(self.activation, Activation::Gelu | Activation::GeluTanh | Activation::Silu) {
            all.push(self.backward(Saved::Output(matrix(&y, BATCH, UNITS)), dy));
        }
        if self.activation == Activation::Identity {
            all.push(self.backward(Saved::Nothing, dy));
        }
        all
    }
}

/// Every activation with and without dropout of outputs, inputs and weights, at numbers where no z is
/// near the kink at 0.
fn layers() -> impl Iterator<Item = Layer<f64>> {
    ACTIVATIONS.into_iter().flat_map(|activation| {
        [(0.0, None, None), (0.4, None, None), (0.4, Some(0.3), None), (0.4, None, Some(0.3))].map(
            |(rate, input_rate, weight_rate)| {
                let layer = |seed| Layer {
                    x: doubles(BATCH * INPUTS, seed),
                    w: doubles(INPUTS * UNITS, seed + 1),
                    b: doubles(UNITS, seed + 2),
                    activation,
                    rate,
                    input_rate,
                    weight_rate,
                };
                let smooth = |layer: &Layer<f64>| layer.forward().1.iter().all(|z| z.abs() > 0.01);
                (1..).step_by(3).map(layer).find(smooth).unwrap()
            },
        )
    })
}

#[test]
fn dense_backward_is_the_derivative_of_dense_forward() {
    for layer in layers() {
        let Layer { activation, rate, input_rate, weight_rate, .. } = layer;
        let dy = doubles(BATCH * UNITS, 99);
        let loss = |layer: Layer<f64>| dot(&layer.forward().0, &dy);
        let copy = || Layer { x: layer.x.clone(), w: layer.w.clone(), b: layer.b.clone(), ..layer };
        let dx = differences(&layer.x, |x| loss(Layer { x: x.to_vec(), ..copy() }));
        let dw = differences(&layer.w, |w| loss(Layer { w: w.to_vec(), ..copy() }));
        let db = differences(&layer.b, |b| loss(Layer { b: b.to_vec(), ..copy() }));
        for gradients in layer.gradients(&dy) {
            for (gradient, (differences, name)) in
                gradients.iter().zip([(&dx, "dx"), (&dw, "dW"), (&db, "db")])
            {
                let rates = format!("{rate}, {input_rate:?} and {weight_rate:?}");
                let what = format!("{name} of {activation}, rates {rates}");
                assert_close(gradient, differences, &what);
            }
        }
    }
}

/// The chains of f32 against the formula in f64: each product of a gradient has a relative error of a
/// few roundings (z, the derivative, two scales), and each sum one more for every term.
#[test]
fn gradients_in_f32_are_close_to_those_in_f64() {
    let narrow = |x: &[f64]| x.iter().map(|x| *x as f32).collect::<Vec<f32>>();
    for layer in layers() {
        let dy = doubles(BATCH * UNITS, 99);
        let single = Layer {
            x: narrow(&layer.x),
            w: narrow(&layer.w),
            b: narrow(&layer.b),
            activation: layer.activation,
            rate: layer.rate,
            input_rate: layer.input_rate,
            weight_rate: layer.weight_rate,
        };
        // z is at most 5 · 2 · 2 · 1.43 + 2 < 32 and has 6 + 2 roundings; the derivatives of all
        // activations change by at most 1.76 for each 1 of z, and are at most 1.76 with an error of
        // 6 roundings; dy and a weight are below 2, scales below 1.67 and 1.43, sums have 6 terms.
        let derivative = 1.76 * 8.0 * 32.0 + 6.0 + 8.0;
        let bound = 6.0 * (2.0 * 2.0 * 1.67 * 1.43) * (derivative + 6.0 * 1.76) * 2f64.powi(-24);
        for (exact, gradients) in layer.gradients(&dy).iter().zip(single.gradients(&narrow(&dy))) {
            for (exact, gradient) in exact.iter().zip(gradients) {
                for (e, g) in exact.iter().zip(gradient) {
                    let error = (e - f64::from(g)).abs();
                    assert!(
                        error <= bound,
                        "{}: {g} is not {e} within {bound:e}",
                        layer.activation
                    );
                }
            }
        }
    }
}

#[test]
fn elementwise_backward_is_the_derivative_of_forward() {
    let (rows, cols) = (BATCH, UNITS);
    for (activation, bias, rate) in ACTIVATIONS.into_iter().flat_map(|activation| {
        [(activation, true, 0.4), (activation, false, 0.4), (activation, true, 0.0)]
    }) {
        let kink = |x: &Vec<f64>, b: &[f64]| {
            x.iter()
                .enumerate()
                .any(|(i, x)| (x + if bias { b[i % cols] } else { 0.0 }).abs() < 0.01)
        };
        let b = doubles(cols, 7);
        let x = (8..).map(|seed| doubles(rows * cols, seed)).find(|x| !kink(x, &b)).unwrap();
        let dy = doubles(rows * cols, 99);
        fn pass<'a>(
            activation: Activation,
            rate: f64,
            b: Option<&'a [f64]>,
        ) -> BiasActivationDropout<'a, f64> {
            let mut pass = BiasActivationDropout::new(activation, dropout(rate));
            pass.bias = b;
            pass
        }
        let residual = doubles(rows * cols, 98);
        let loss = |x: &[f64], b: &[f64]| {
            let mut y = vec![0.0; rows * cols];
            let args = pass(activation, rate, bias.then_some(b));
            let args = args.with_residual(matrix(&residual, rows, cols));
            let xy = (matrix(x, rows, cols), matrix_mut(&mut y, rows, cols));
            reference::bias_activation_dropout_forward(&args, xy, MaskSource::Key).unwrap();
            dot(&y, &dy)
        };
        let (mut dz, mut db) = (vec![0.0; rows * cols], vec![0.0; cols]);
        let args = pass(activation, rate, bias.then_some(&b));
        let saved = Saved::PreActivation(matrix(&x, rows, cols));
        let dy_dz = (matrix(&dy, rows, cols), matrix_mut(&mut dz, rows, cols));
        let (db_to, mask) = (Some(&mut db[..]), MaskSource::Key);
        reference::bias_activation_dropout_backward(&args, &saved, dy_dz, db_to, mask).unwrap();
        let what = format!("{activation}, rate {rate}, bias {bias}");
        assert_close(&dz, &differences(&x, |x| loss(x, &b)), &format!("dz of {what}"));
        if bias {
            assert_close(&db, &differences(&b, |b| loss(&x, b)), &format!("db of {what}"));
        }
    }
}

#[test]
fn softmax_gradient_is_the_derivative_of_the_mean_loss() {
    let (rows, cols, labels) = (5, 21, [0, 20, 7, 7, 3]);
    let logits = doubles(rows * cols, 4);
    let mut gradient = vec![0.0; rows * cols];
    let to = matrix_mut(&mut gradient, rows, cols);
    let view = matrix(&logits, rows, cols);
    let _ = reference::softmax_cross_entropy(view, &labels, Some(to)).unwrap();
    let loss = |logits: &[f64]| {
        reference::softmax_cross_entropy(matrix(logits, rows, cols), &labels, None).unwrap().mean()
    };
    assert_close(&gradient, &differences(&logits, loss), "gradient of the logits");
}

#[test]
fn gradients_of_losses_are_the_derivatives_of_their_values() {
    let (rows, cols, labels) = (3, 7, [0, 6, 3]);
    let (outputs, targets) = (doubles(rows * cols, 4), doubles(rows * cols, 5));
    let target_view = matrix(&targets, rows, cols);
    let delta = 0.75;
    let kink = |(y, t): (&f64, &f64)| ((y - t).abs() - f64::from(delta)).abs() < 0.001;
    assert!(!outputs.iter().zip(&targets).any(kink), "a difference across a kink is no derivative");

    type Loss<'a> = dyn Fn(MatRef<'_, f64>, Option<MatMut<'_, f64>>) -> f64 + 'a;
    let squared = MeanSquaredError::new(target_view);
    let huber = Huber::new(target_view, delta).unwrap();
    let smoothed = [0.1, 0.9].map(|s| CrossEntropy::new(&labels).with_label_smoothing(s).unwrap());
    let losses: [(&str, &Loss<'_>); 4] = [
        ("mean squared error", &|y, g| reference::mean_squared_error(&squared, y, g).unwrap()),
        ("Huber's loss", &|y, g| reference::huber(&huber, y, g).unwrap()),
        ("smoothing 0.1", &|y, g| reference::cross_entropy(&smoothed[0], y, g).unwrap().mean()),
        ("smoothing 0.9", &|y, g| reference::cross_entropy(&smoothed[1], y, g).unwrap().mean()),
    ];
    for (name, loss) in losses {
        let mut gradient = vec![0.0; rows * cols];
        let to = matrix_mut(&mut gradient, rows, cols);
        let value = loss(matrix(&outputs, rows, cols), Some(to));
        assert_eq!(value, loss(matrix(&outputs, rows, cols), None), "{name}");
        let slopes = differences(&outputs, |y| loss(matrix(y, rows, cols), None));
        assert_close(&gradient, &slopes, name);
    }
}

#[test]
fn noise_backward_is_the_derivative_of_forward() {
    let (rows, cols) = (BATCH, 37);
    let (x, dy) = (doubles(rows * cols, 5), doubles(rows * cols, 99));
    let mut dx = vec![0.0; rows * cols];
    let dy_view = matrix(&dy, rows, cols);

    let gaussian = GaussianDropout::new(0.4).unwrap();
    let loss = |x: &[f64]| {
        let mut y = vec![0.0; rows * cols];
        let xy = (matrix(x, rows, cols), matrix_mut(&mut y, rows, cols));
        reference::gaussian_dropout_forward(xy, &gaussian.with_key(key())).unwrap();
        dot(&y, &dy)
    };
    let to = matrix_mut(&mut dx, rows, cols);
    reference::gaussian_dropout_backward((dy_view, to), &gaussian.with_key(key())).unwrap();
    assert_close(&dx, &differences(&x, loss), "Gaussian dropout");

    let alpha = AlphaDropout::new(0.4).unwrap();
    for key in [key(), key().with_origin(0, 200).units()] {
        let loss = |x: &[f64]| {
            let mut y = vec![0.0; rows * cols];
            let xy = (matrix(x, rows, cols), matrix_mut(&mut y, rows, cols));
            reference::alpha_dropout_forward(xy, &alpha.with_key(key), MaskSource::Key).unwrap();
            dot(&y, &dy)
        };
        let to = matrix_mut(&mut dx, rows, cols);
        let mask = MaskSource::Key;
        reference::alpha_dropout_backward((dy_view, to), &alpha.with_key(key), mask).unwrap();
        assert_close(&dx, &differences(&x, loss), "alpha dropout");
    }
}

#[test]
fn softmax_dropout_backward_is_the_derivative_of_forward() {
    let (rows, cols) = (BATCH, 37);
    let (x, dy) = (doubles(rows * cols, 5), doubles(rows * cols, 99));
    for (causal, rate) in [(None, 0.4), (Some(3), 0.4), (None, 0.0)] {
        let mut args = SoftmaxDropout::new(dropout(rate));
        args.causal = causal;
        let forward = |x: &[f64]| {
            let (mut y, mut p) = (vec![0.0; rows * cols], vec![0.0; rows * cols]);
            let xy = (matrix(x, rows, cols), matrix_mut(&mut y, rows, cols));
            let p_to = Some(matrix_mut(&mut p, rows, cols));
            reference::softmax_dropout_forward(&args, xy, p_to, MaskSource::Key).unwrap();
            (y, p)
        };
        let (_, p) = forward(&x);
        let mut dx = vec![0.0; rows * cols];
        let p = matrix(&p, rows, cols);
        let dy_dx = (matrix(&dy, rows, cols), matrix_mut(&mut dx, rows, cols));
        reference::softmax_dropout_backward(&args, p, dy_dx, MaskSource::Key).unwrap();
        let slopes = differences(&x, |x| dot(&forward(x).0, &dy));
        assert_close(&dx, &slopes, &format!("softmax with dropout {rate}, causal {causal:?}"));
    }
}
