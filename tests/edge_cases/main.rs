//! The edge cases that the crate promises an answer for, one test each.

mod address;
#[path = "../common/mod.rs"]
mod common;
mod level;
mod panic;
mod shapes;

use common::{ACTIVATIONS, bits, for_each_level, matrix, matrix_mut, numbers};
use fused_dropout::elementwise::{
    BiasActivationDropout, bias_activation_dropout_backward, bias_activation_dropout_forward,
    dropout_backward, dropout_forward,
};
use fused_dropout::layer::{
    DenseArgs, DenseLayer, Gradients, PackedWeight, dense_backward, dense_forward,
};
use fused_dropout::nn::{Mlp, MlpSpec};
use fused_dropout::softmax::softmax_cross_entropy;
use fused_dropout::update::{SgdStep, apply, max_norm};
use fused_dropout::{
    Activation, Dropout, Error, KeyedDropout, Mask, MaskKey, MaskSource, MatMut, MatRef, Saved,
    Scaling, reference,
};

const BATCH: usize = 7;
const INPUTS: usize = 13;
const UNITS: usize = 37;

fn key() -> MaskKey {
    MaskKey::new(8, 2, 5).unwrap()
}

fn rate(rate: f64) -> Dropout {
    Dropout::new(rate).unwrap()
}

/// Dropout of this rate with the mask of [`key`].
fn keyed(p: f64) -> KeyedDropout {
    rate(p).with_key(key())
}

/// Nothing but the product.
fn bare<'a>(x: MatRef<'a>, w: MatRef<'a>) -> DenseArgs<'a> {
    DenseArgs::new(DenseLayer::default(), x, w)
}

/// A layer whose inputs and outputs all have dropout.
struct Layer {
    x: Vec<f32>,
    w: Vec<f32>,
    b: Vec<f32>,
    dy: Vec<f32>,
    activation: Activation,
    rate: f64,
    input_rate: Option<f64>,
}

/// y, z, dx, dW and db of a layer.
type Results = [Vec<f32>; 5];

impl Layer {
    fn new(activation: Activation, rate: f64, input_rate: Option<f64>) -> Self {
        Self {
            x: numbers(BATCH * INPUTS, 1),
            w: numbers(INPUTS * UNITS, 2),
            b: numbers(UNITS, 3),
            dy: numbers(BATCH * UNITS, 4),
            activation,
            rate,
            input_rate,
        }
    }

    /// What is dropped of the input.
    fn input_dropout(&self) -> Option<KeyedDropout> {
        self.input_rate.map(|p| rate(p).with_key(MaskKey::new(8, 1, 5).unwrap()))
    }

    fn args(&self) -> DenseArgs<'_> {
        let mut layer = DenseLayer::new(self.activation).with_output(keyed(self.rate));
        if let Some(dropout) = self.input_dropout() {
            layer = layer.with_input(dropout);
        }
        let (x, w) = (matrix(&self.x, BATCH, INPUTS), matrix(&self.w, INPUTS, UNITS));
        DenseArgs::new(layer, x, w).with_bias(&self.b)
    }

    fn run(&self) -> Results {
        let args = self.args();
        let (mut y, mut z) = (vec![9.0; BATCH * UNITS], vec![9.0; BATCH * UNITS]);
        let (mut dx, mut dw) = (vec![9.0; BATCH * INPUTS], vec![9.0; INPUTS * UNITS]);
        let mut db = vec![9.0; UNITS];
        let to = matrix_mut(&mut y, BATCH, UNITS);
        let z_view = matrix_mut(&mut z, BATCH, UNITS);
        dense_forward(&args, to, Some(z_view), MaskSource::Key).unwrap();
        let gradients = Gradients::default()
            .with_dx(matrix_mut(&mut dx, BATCH, INPUTS))
            .with_dw(matrix_mut(&mut dw, INPUTS, UNITS))
            .with_db(&mut db);
        let saved = Saved::PreActivation(matrix(&z, BATCH, UNITS));
        let dy = matrix(&self.dy, BATCH, UNITS);
        dense_backward(&args, &saved, dy, gradients, MaskSource::Key).unwrap();
        [y, z, dx, dw, db]
    }

    /// The element-wise operation of the layer without its bias, on a matrix of the size of its output.
    fn pass(&self) -> BiasActivationDropout<'_> {
        BiasActivationDropout::new(self.activation, keyed(self.rate))
    }
}

fn product(a: MatRef<'_>, b: MatRef<'_>) -> Vec<f32> {
    let mut c = vec![9.0; a.rows() * b.cols()];
    let to = matrix_mut(&mut c, a.rows(), b.cols());
    dense_forward(&bare(a, b), to, None, MaskSource::Key).unwrap();
    c
}

#[test]
fn rate_nan_below_0_or_above_1_is_an_error() {
    let bad = [f64::NAN, -1e-300, -1.0, 1.0 + f64::EPSILON, f64::INFINITY, f64::NEG_INFINITY];
    for p in bad {
        for scaling in [Scaling::Inverted, Scaling::Classical] {
            let Err(Error::Rate { rate }) = Dropout::with_scaling(p, scaling) else {
                panic!("{p}")
            };
            assert_eq!(rate.to_bits(), p.to_bits());
        }
        let spec = MlpSpec::new(&[2, 3, 2]);
        for spec in [spec.clone().with_input_rate(p), spec.with_hidden_rate(p)] {
            assert!(matches!(Mlp::new(&spec), Err(Error::Rate { .. })));
        }
    }
    for p in [-0.0, 0.0, f64::MIN_POSITIVE, 1.0] {
        assert!(Dropout::new(p).is_ok(), "{p}");
    }
}

#[test]
fn rate_0_is_the_bare_operation() {
    for_each_level(|level| {
        for activation in ACTIVATIONS {
            let layer = Layer::new(activation, 0.0, Some(0.0));
            let [y, z, dx, dw, db] = layer.run();
            let bare = Layer::new(activation, 0.0, None).run();
            assert_eq!([&y, &z, &dx, &dw, &db].map(|v| bits(v)), bare.each_ref().map(|v| bits(v)));
            if level.has_fma() {
                let values: Vec<f32> = z.iter().map(|z| activation.value(*z)).collect();
                assert_eq!(bits(&y), bits(&values), "{activation} on {level}");
            }
        }
        let x = [1.5, -0.0, f32::INFINITY, f32::NAN, 1e-45, f32::MAX, -3.0];
        let mut y = [9.0; 7];
        dropout_forward((&x[..], &mut y[..]), &keyed(0.0), MaskSource::Key).unwrap();
        assert_eq!(bits(&y), bits(&x), "{level}");
        // A rate so small that the threshold is 2^32.
        dropout_backward((&x[..], &mut y[..]), &keyed(1e-11), MaskSource::Key).unwrap();
        assert_eq!(bits(&y), bits(&x), "{level}");
        assert_eq!(Mask::generate(5, 77, &keyed(0.0)).unwrap().count(), 5 * 77);
    });
}

#[test]
fn fused_and_separate_calls_give_the_same_bits() {
    for_each_level(|level| {
        for activation in ACTIVATIONS {
            let layer = Layer::new(activation, 0.4, Some(0.3));
            let fused = layer.run();
            let args = layer.args();
            // Input dropout, product with bias, activation with dropout.
            let input_dropout = layer.input_dropout().unwrap();
            let mut x = vec![9.0; BATCH * INPUTS];
            let to = matrix_mut(&mut x, BATCH, INPUTS);
            dropout_forward((args.x, to), &input_dropout, MaskSource::Key).unwrap();
            let x = matrix(&x, BATCH, INPUTS);
            let (mut z, mut y) = (vec![9.0; BATCH * UNITS], vec![9.0; BATCH * UNITS]);
            let (affine, to) = (bare(x, args.w), matrix_mut(&mut z, BATCH, UNITS));
            dense_forward(&affine.with_bias(&layer.b), to, None, MaskSource::Key).unwrap();
            let pass = layer.pass();
            let (z, to) = (matrix(&z, BATCH, UNITS), matrix_mut(&mut y, BATCH, UNITS));
            bias_activation_dropout_forward(&pass, (z, to), MaskSource::Key).unwrap();
            assert_eq!(bits(&fused[0]), bits(&y), "y, {activation} on {level}");
            // dz and db, then the products, then the dropout of dx.
            let (mut dz, mut db) = (vec![9.0; BATCH * UNITS], vec![9.0; UNITS]);
            let (dy, to) = (matrix(&layer.dy, BATCH, UNITS), matrix_mut(&mut dz, BATCH, UNITS));
            let (saved, mask) = (Saved::PreActivation(z), MaskSource::Key);
            bias_activation_dropout_backward(&pass, &saved, (dy, to), Some(&mut db), mask).unwrap();
            let dz = matrix(&dz, BATCH, UNITS);
            let dw = product(x.t(), dz);
            let (whole, mut dx) = (product(dz, args.w.t()), vec![9.0; BATCH * INPUTS]);
            let (whole, to) = (matrix(&whole, BATCH, INPUTS), matrix_mut(&mut dx, BATCH, INPUTS));
            dropout_backward((whole, to), &input_dropout, MaskSource::Key).unwrap();
            assert_eq!(bits(&fused[2]), bits(&dx), "dx, {activation} on {level}");
            assert_eq!(bits(&fused[3]), bits(&dw), "dW, {activation} on {level}");
            assert_eq!(bits(&fused[4]), bits(&db), "db, {activation} on {level}");
        }
    });
}

#[test]
fn rate_1_gives_zeros_and_no_nan() {
    let zero = |values: &[f32]| values.iter().all(|x| x.to_bits() == 0);
    for_each_level(|level| {
        for activation in ACTIVATIONS {
            let mut layer = Layer::new(activation, 1.0, None);
            layer.x[5] = f32::NAN;
            layer.w[7] = f32::INFINITY;
            layer.b[1] = f32::NEG_INFINITY;
            layer.dy[3] = f32::NAN;
            let [y, _, dx, _, db] = layer.run();
            assert!(zero(&y) && zero(&db), "{activation} on {level}");
            // 0 · inf in the product with W is NaN, as it must be; without it, zeros.
            assert!(
                dx.iter().enumerate().all(|(i, x)| *x == 0.0 || i % INPUTS == 0),
                "{activation}"
            );
            layer.w[7] = 1.0;
            layer.x[5] = 1.0;
            let [_, _, dx, dw, _] = layer.run();
            assert!(zero(&dx) || dx.iter().all(|x| *x == 0.0), "{activation} on {level}");
            assert!(dw.iter().all(|x| *x == 0.0), "{activation} on {level}");

            // All inputs dropped: whatever they are, z is the bias.
            let mut layer = Layer::new(activation, 0.5, Some(1.0));
            layer.x = vec![f32::NAN; BATCH * INPUTS];
            let [y, z, dx, dw, _] = layer.run();
            assert!(z.chunks(UNITS).all(|row| row == layer.b), "{activation} on {level}");
            assert!(y.iter().all(|y| y.is_finite()) && zero(&dx), "{activation} on {level}");
            assert!(dw.iter().all(|x| *x == 0.0), "{activation} on {level}");
        }
        for x in [f32::NAN, f32::INFINITY, -1.0, -0.0] {
            let (x, mut y) = ([x; 45], [9.0; 45]);
            dropout_forward((&x[..], &mut y[..]), &keyed(1.0), MaskSource::Key).unwrap();
            assert!(zero(&y), "{level}");
            y.fill(9.0);
            dropout_backward((&x[..], &mut y[..]), &keyed(1.0), MaskSource::Key).unwrap();
            assert!(zero(&y), "{level}");
        }
        assert_eq!(rate(1.0).scale(), 0.0);
    });
}

/// An empty matrix may have any stride, and so may the only row of one: nothing may multiply it.
#[test]
fn strides_that_lead_nowhere_are_fine() {
    let far = usize::MAX;
    let empty = |rows| MatRef::with_stride(&[], rows, 0, far).unwrap();
    for_each_level(|_| {
        let mut y = [9.0; 13 * 3];
        let args = bare(empty(13), matrix(&[], 0, 3));
        dense_forward(&args, matrix_mut(&mut y, 13, 3), None, MaskSource::Key).unwrap();
        assert_eq!(y, [0.0; 13 * 3]);
        for rows in [1000, usize::MAX / 32] {
            assert_eq!(PackedWeight::new(empty(rows)).unwrap().inputs(), rows);
        }
        let mut dx = vec![9.0; 2 * 300];
        let args = bare(matrix(&[1.0; 600], 2, 300), empty(300));
        let (saved, mask) = (Saved::Nothing, MaskSource::Key);
        let gradients = Gradients::default().with_dx(matrix_mut(&mut dx, 2, 300));
        dense_backward(&args, &saved, matrix(&[], 2, 0), gradients, mask).unwrap();
        assert_eq!(dx, vec![0.0; 600]);
        let mut dw = vec![9.0; 40 * 3];
        let w = [1.0; 120];
        let args = bare(empty(40).t(), matrix(&w, 40, 3));
        let gradients = Gradients::default().with_dw(matrix_mut(&mut dw, 40, 3));
        dense_backward(&args, &saved, matrix(&[], 0, 3), gradients, MaskSource::Key).unwrap();
        assert_eq!(dw, vec![0.0; 120]);
        // One row, as many times as there are columns.
        let row = [1.0; 64];
        let w = MatRef::with_stride(&row, 1, 64, far).unwrap();
        let mut y = vec![0.0; 7 * 64];
        let (args, to) = (bare(matrix(&[2.0; 7], 7, 1), w), matrix_mut(&mut y, 7, 64));
        dense_forward(&args, to, None, MaskSource::Key).unwrap();
        assert_eq!(y, vec![2.0; 7 * 64]);
    });
}

#[test]
fn sizes_of_zero_are_fine() {
    let big = usize::MAX;
    for_each_level(|_| {
        // k = 0: bias and activation alone, zeros for gradients that are empty sums.
        let b = [1.0, -2.0, 3.0];
        let relu = DenseLayer::new(Activation::Relu);
        let args = DenseArgs::new(relu, matrix(&[], 2, 0), matrix(&[], 0, 3));
        let mut y = [9.0; 6];
        let to = matrix_mut(&mut y, 2, 3);
        dense_forward(&args.with_bias(&b), to, None, MaskSource::Key).unwrap();
        assert_eq!(y, [1.0, 0.0, 3.0, 1.0, 0.0, 3.0]);
        dense_forward(&args, matrix_mut(&mut y, 2, 3), None, MaskSource::Key).unwrap();
        assert_eq!(y, [0.0; 6]);
        // batch = 0: the gradients of the parameters are zeros; units = 0: that of the input.
        let (w, mut dw, mut db) = ([1.0; 6], [9.0; 6], [9.0; 3]);
        let (args, saved) = (bare(matrix(&[], 0, 2), matrix(&w, 2, 3)), Saved::Nothing);
        let gradients = Gradients::default().with_dw(matrix_mut(&mut dw, 2, 3)).with_db(&mut db);
        dense_backward(&args, &saved, matrix(&[], 0, 3), gradients, MaskSource::Key).unwrap();
        assert_eq!((dw, db), ([0.0; 6], [0.0; 3]));
        let mut dx = [9.0; 6];
        let args = bare(matrix(&w, 3, 2), matrix(&[], 2, 0));
        let gradients = Gradients::default().with_dx(matrix_mut(&mut dx, 3, 2));
        dense_backward(&args, &saved, matrix(&[], 3, 0), gradients, MaskSource::Key).unwrap();
        assert_eq!(dx, [0.0; 6]);
        // Element-wise, with nothing to do and a sum to clear.
        let pass = BiasActivationDropout::new(Activation::Relu, keyed(0.5)).with_bias(&[0.0; 3]);
        let (saved, mask) = (Saved::Output(matrix(&[], 0, 3)), MaskSource::Key);
        let dy_dz = (matrix(&[], 0, 3), matrix_mut(&mut [], 0, 3));
        db.fill(9.0);
        bias_activation_dropout_backward(&pass, &saved, dy_dz, Some(&mut db), mask).unwrap();
        assert_eq!(db, [0.0; 3]);
        assert_eq!(Mask::generate(0, 9, &keyed(0.5)).unwrap().count(), 0);
        assert_eq!(Mask::generate(9, 0, &keyed(0.5)).unwrap().count(), 0);
        // No elements, but a number of rows or columns next to the largest.
        let (args, saved) = (bare(matrix(&[], 0, big), matrix(&[], big, 0)), Saved::Nothing);
        dense_forward(&args, matrix_mut(&mut [], 0, 0), None, MaskSource::Key).unwrap();
        let gradients = Gradients::default()
            .with_dx(matrix_mut(&mut [], 0, big))
            .with_dw(matrix_mut(&mut [], big, 0));
        dense_backward(&args, &saved, matrix(&[], 0, 0), gradients, MaskSource::Key).unwrap();
        let step = SgdStep::new(0.1);
        for (rows, cols) in [(0, big), (big, 0)] {
            let w = matrix_mut(&mut [], rows, cols);
            apply(w, matrix(&[], rows, cols), None, step).unwrap();
            max_norm(matrix_mut(&mut [], rows, cols), 1.0).unwrap();
        }
        assert_eq!(softmax_cross_entropy(matrix(&[], 0, big), &[], None).unwrap().mean(), 0.0);
        assert!(Mask::new(0, big).unwrap().row(big).is_none());
    });
}

/// Elements row after row, and nothing of what lies between them; no rows where there are none.
#[test]
fn views_are_shown_without_gaps() {
    let mut data = [1.0, 2.0, 9.0, 3.0, 4.0];
    let view = MatRef::with_stride(&data, 2, 2, 3).unwrap();
    let shown = format!("{view:?} {:?}", view.t());
    assert_eq!(
        shown,
        "Matrix { rows: 2, cols: 2, elements: [[1.0, 2.0], [3.0, 4.0]] } \
         Matrix { rows: 2, cols: 2, elements: [[1.0, 3.0], [2.0, 4.0]] }"
    );
    let shown = format!("{:?}", MatMut::new(&mut data, 1, 2).unwrap());
    assert_eq!(shown, "Matrix { rows: 1, cols: 2, elements: [[1.0, 2.0]] }");
    let none = MatRef::<f32>::new(&[], usize::MAX, 0).unwrap();
    assert!(format!("{none:?}").ends_with("cols: 0, elements: [] }"));
}

#[test]
fn sizes_whose_product_overflows_are_an_error() {
    let big = usize::MAX;
    let data = [0.0f32; 4];
    for (rows, stride) in [(big, 2), (2, big), (1 << 62, 4), (1 << 31, 1 << 31), (2, 1 << 61)] {
        let error = Err(Error::Overflow { rows, stride });
        assert_eq!(MatRef::with_stride(&data, rows, 1, stride).map(|m| m.rows()), error);
        assert_eq!(
            MatMut::with_stride(&mut data.clone(), rows, 1, stride).map(|m| m.rows()),
            error
        );
    }
    assert!(matches!(MatRef::new(&data, 3, big), Err(Error::Overflow { .. })));
    assert!(matches!(Mask::new(big, big), Err(Error::Overflow { .. })));
    assert!(matches!(Mask::new(1 << 60, 1 << 10), Err(Error::Overflow { .. })));
    assert!(Mask::generate(big, big, &keyed(0.5)).is_err());
    let error = matrix(&data, 2, 2).rows_from(big, big).map(|m| m.rows());
    let expected = Error::Range { what: "row", first: big, count: big, all: 2 };
    assert_eq!(error, Err(expected));
}

/// A NaN or infinity shows in the elements that depend on it and are kept, and in no others.
#[test]
fn nan_and_infinity_propagate_where_kept() {
    for_each_level(|level| {
        for special in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for activation in [Activation::Identity, Activation::LeakyRelu { slope: 0.5 }] {
                let shown = |y: f32| y.is_nan() || y.is_infinite();
                let keeps = |r, c| reference::keeps(&keyed(0.4), r, c);
                let clean = Layer::new(activation, 0.4, None).run();
                let mut layer = Layer::new(activation, 0.4, None);
                layer.x[3 * INPUTS + 4] = special;
                let y = &layer.run()[0];
                for (i, (y, clean)) in y.iter().zip(&clean[0]).enumerate() {
                    let (r, c) = (i / UNITS, i % UNITS);
                    match (keeps(r, c), r == 3) {
                        (false, _) => assert_eq!(y.to_bits(), 0, "{level}: ({r}, {c})"),
                        (true, true) => assert!(shown(*y), "{level}: ({r}, {c})"),
                        (true, false) => assert_eq!(y, clean, "{level}: ({r}, {c})"),
                    }
                }
                let mut layer = Layer::new(activation, 0.4, None);
                layer.dy[2 * UNITS + 9] = special;
                let [_, _, dx, dw, db] = layer.run();
                let kept = keeps(2, 9);
                assert_eq!(shown(db[9]), kept, "{level}");
                assert!((0..INPUTS).all(|i| shown(dw[i * UNITS + 9]) == kept), "{level}");
                assert!(dx.iter().enumerate().all(|(i, x)| shown(*x) == (kept && i / INPUTS == 2)));
                let others = dw.iter().enumerate().filter(|(i, _)| i % UNITS != 9);
                assert!(others.clone().all(|(i, x)| *x == clean[3][i]), "{level}");
            }
        }
    });
}
