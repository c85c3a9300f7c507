//! Operations that are large enough for several tasks each, as functions of nothing to bits.

use fused_dropout::elementwise::*;
use fused_dropout::layer::*;
use fused_dropout::mask::{BroadcastShape, Rates};
use fused_dropout::nn::{Mlp, MlpSpec, Optimiser};
use fused_dropout::softmax::*;
use fused_dropout::update::{SgdStep, apply, global_norm, max_norm};
use fused_dropout::{Activation, Dropout, KeyedDropout, Mask, MaskKey, MaskSource, Saved};

use crate::common::{ACTIVATIONS, bits, matrix, matrix_mut, numbers};

/// A name, and what computes the bits.
type Operation = (&'static str, fn() -> Vec<u32>);

pub(crate) const OPERATIONS: [Operation; 14] = [
    ("dense forward", forward),
    ("dense layers", dense_layers),
    ("kept units", kept_units),
    ("kept blocks", kept_blocks),
    ("DropConnect", drop_connect),
    ("packed weights", packed_weights),
    ("element-wise", element_wise),
    ("masks", masks),
    ("noise", noise),
    ("broadcast", broadcast),
    ("rates", rates),
    ("softmax", softmax),
    ("updates", updates),
    ("a network", network),
];

/// A batch of a layer: its product is some ten tasks, and so is its pass over the output.
const BATCH: usize = 700;
const INPUTS: usize = 40;
const UNITS: usize = 500;
const OUTPUT: usize = BATCH * UNITS;

fn key() -> MaskKey {
    MaskKey::new(1, 2, 3).unwrap()
}

fn dropout(rate: f64) -> KeyedDropout {
    Dropout::new(rate).unwrap().with_key(key())
}

/// The bits of all results.
fn all(results: &[&[f32]]) -> Vec<u32> {
    results.iter().flat_map(|result| bits(result)).collect()
}

/// Forward, backward and update of a layer. Of kept units the first columns of x and y are used.
fn layer(layer: DenseLayer<'_>, (inputs, units): (usize, usize)) -> Vec<u32> {
    let (x, w) = (numbers(BATCH * inputs, 1), numbers(INPUTS * UNITS, 2));
    let (bias, dy) = (numbers(UNITS, 3), numbers(BATCH * units, 4));
    let x = matrix(&x, BATCH, inputs);
    let args = DenseArgs::new(layer, x, matrix(&w, INPUTS, UNITS)).with_bias(&bias);
    let (mut y, mut z) = (vec![0.0; BATCH * units], vec![0.0; BATCH * units]);
    let z_to = Some(matrix_mut(&mut z, BATCH, units));
    dense_forward(&args, matrix_mut(&mut y, BATCH, units), z_to, MaskSource::Key).unwrap();

    let saved = Saved::PreActivation(matrix(&z, BATCH, units));
    let dy = matrix(&dy, BATCH, units);
    let (mut dx, mut dw, mut db) =
        (vec![0.0; BATCH * inputs], vec![0.0; inputs * units], vec![0.0; units]);
    let gradients = Gradients::default()
        .with_dx(matrix_mut(&mut dx, BATCH, inputs))
        .with_dw(matrix_mut(&mut dw, inputs, units))
        .with_db(&mut db);
    dense_backward(&args, &saved, dy, gradients, MaskSource::Key).unwrap();

    let (mut w_new, mut bias_new) = (w.clone(), bias.clone());
    let update = DenseUpdate::new(layer, x, SgdStep::new(0.1).with_momentum(0.9));
    let (mut velocity, mut bias_velocity) = (numbers(w.len(), 5), numbers(UNITS, 6));
    let parameters = Parameters::new(matrix_mut(&mut w_new, INPUTS, UNITS))
        .with_bias(&mut bias_new)
        .with_w_state(matrix_mut(&mut velocity, INPUTS, UNITS))
        .with_bias_state(&mut bias_velocity[..]);
    dense_update(&update, parameters, &saved, dy, None, MaskSource::Key).unwrap();
    all(&[&y, &z, &dx, &dw, &db, &w_new, &bias_new, &velocity, &bias_velocity])
}

/// A layer's forward pass alone.
pub(crate) fn forward() -> Vec<u32> {
    let (x, w) = (numbers(BATCH * INPUTS, 1), numbers(INPUTS * UNITS, 2));
    let does = DenseLayer::new(Activation::Relu).with_output(dropout(0.5));
    let args = DenseArgs::new(does, matrix(&x, BATCH, INPUTS), matrix(&w, INPUTS, UNITS));
    let mut y = vec![0.0; OUTPUT];
    dense_forward(&args, matrix_mut(&mut y, BATCH, UNITS), None, MaskSource::Key).unwrap();
    bits(&y)
}

fn dense_layers() -> Vec<u32> {
    let run = |activation| {
        let does = DenseLayer::new(activation).with_output(dropout(0.4)).with_input(dropout(0.2));
        layer(does, (INPUTS, UNITS))
    };
    ACTIVATIONS.into_iter().flat_map(run).collect()
}

fn kept_units() -> Vec<u32> {
    let inputs = KeptUnits::bernoulli(INPUTS, &dropout(0.2)).unwrap();
    let units = KeptUnits::exact(UNITS, &dropout(0.25)).unwrap();
    let does = DenseLayer::new(Activation::Silu).with_input(&inputs).with_output(&units);
    let mut results = layer(does, (inputs.len(), units.len()));
    results.extend(layer(does.with_output(dropout(0.4)), (inputs.len(), UNITS)));
    results
}

fn kept_blocks() -> Vec<u32> {
    let shape = BlockShape::new(16, 24).unwrap();
    let half = dropout(0.5);
    let inputs = KeptBlocks::draw((BATCH, INPUTS), shape, &half).unwrap();
    let units = KeptBlocks::draw((BATCH, UNITS), shape, &half).unwrap();
    let does = DenseLayer::new(Activation::Silu).with_input(&inputs).with_output(&units);
    let mut results = layer(does, (INPUTS, UNITS));
    results.extend(layer(does.with_output(dropout(0.4)), (INPUTS, UNITS)));
    results
}

fn drop_connect() -> Vec<u32> {
    let does = DenseLayer::new(Activation::Tanh).with_weight_dropout(dropout(0.5));
    layer(does, (INPUTS, UNITS))
}

fn packed_weights() -> Vec<u32> {
    let (x, w) = (numbers(BATCH * INPUTS, 1), numbers(INPUTS * UNITS, 2));
    let dy = numbers(OUTPUT, 3);
    let does = DenseLayer::new(Activation::Relu).with_output(dropout(0.5));
    let w = matrix(&w, INPUTS, UNITS);
    let args = DenseArgs::new(does, matrix(&x, BATCH, INPUTS), w);
    let (mut y, mut dx) = (vec![0.0; OUTPUT], vec![0.0; BATCH * INPUTS]);
    let packed = PackedWeight::for_layer(&does, w).unwrap();
    let to = matrix_mut(&mut y, BATCH, UNITS);
    dense_forward(&args.with_packed(&packed), to, None, MaskSource::Key).unwrap();
    let packed = PackedWeight::for_input_gradient(&does, w).unwrap();
    let (args, saved) = (args.with_packed(&packed), Saved::Output(matrix(&y, BATCH, UNITS)));
    let gradients = Gradients::default().with_dx(matrix_mut(&mut dx, BATCH, INPUTS));
    dense_backward(&args, &saved, matrix(&dy, BATCH, UNITS), gradients, MaskSource::Key).unwrap();
    all(&[&y, &dx])
}

fn element_wise() -> Vec<u32> {
    let (x, bias) = (numbers(OUTPUT, 1), numbers(UNITS, 2));
    let x_view = matrix(&x, BATCH, UNITS);
    let mut results = Vec::new();
    for activation in ACTIVATIONS {
        let args = BiasActivationDropout::new(activation, dropout(0.3)).with_bias(&bias);
        let (mut y, mut dz, mut db) = (x.clone(), x.clone(), bias.clone());
        let to = matrix_mut(&mut y, BATCH, UNITS);
        bias_activation_dropout_forward(&args, (x_view, to), MaskSource::Key).unwrap();
        let (saved, to) = (Saved::PreActivation(x_view), matrix_mut(&mut dz, BATCH, UNITS));
        let db_to = Some(&mut db[..]);
        bias_activation_dropout_backward(&args, &saved, (x_view, to), db_to, MaskSource::Key)
            .unwrap();
        results.extend(all(&[&y, &dz, &db]));
    }
    let (mut y, mut dx) = (x.clone(), x.clone());
    let by_columns = matrix_mut(&mut y, UNITS, BATCH).t();
    dropout_forward((x_view, by_columns), &dropout(0.3), MaskSource::Key).unwrap();
    dropout_backward(matrix_mut(&mut dx, BATCH, UNITS), &dropout(0.3), MaskSource::Key).unwrap();
    results.extend(all(&[&y, &dx]));
    results
}

fn mask_bits(mask: &Mask) -> Vec<u32> {
    (0..mask.rows()).flat_map(|r| mask.row(r).unwrap()).copied().collect()
}

fn masks() -> Vec<u32> {
    let (rows, cols) = (1500, 700);
    let rates: Vec<f64> = (0..cols).map(|c| c as f64 / cols as f64).collect();
    let by_column = Rates::per_column(&rates).unwrap();
    [
        Mask::generate(rows, cols, &dropout(0.5)),
        Mask::generate(rows, cols, &dropout(0.1)),
        Mask::generate_with_rates(rows, cols, &by_column.with_key(key())),
    ]
    .iter()
    .flat_map(|mask| mask_bits(mask.as_ref().unwrap()))
    .collect()
}

fn noise() -> Vec<u32> {
    let x = numbers(OUTPUT, 1);
    let view = matrix(&x, BATCH, UNITS);
    let mut results = Vec::new();
    let mut run = |f: &dyn Fn(fused_dropout::MatMut<'_>)| {
        let mut y = x.clone();
        f(matrix_mut(&mut y, BATCH, UNITS));
        results.extend(bits(&y));
    };
    let gaussian = GaussianDropout::new(0.3).unwrap();
    run(&|y| gaussian_dropout_forward((view, y), &gaussian.with_key(key())).unwrap());
    run(&|y| gaussian_dropout_backward(y, &gaussian.with_key(key())).unwrap());
    run(&|y| standard_normal(y, &key()).unwrap());
    let alpha = AlphaDropout::new(0.3).unwrap();
    for key in [key(), key().units()] {
        run(&|y| alpha_dropout_forward((view, y), &alpha.with_key(key), MaskSource::Key).unwrap());
        run(&|y| alpha_dropout_backward(y, &alpha.with_key(key), MaskSource::Key).unwrap());
    }
    results
}

fn broadcast() -> Vec<u32> {
    let dims = [70, 60, 100];
    let x = numbers(dims.iter().product(), 1);
    let mut results = Vec::new();
    for shape in [
        BroadcastShape::channels_first(&dims),
        BroadcastShape::channels_last(&dims),
        BroadcastShape::per_sample(&dims),
        BroadcastShape::elements(&dims),
    ] {
        let args = BroadcastDropout::new(shape.unwrap(), dropout(0.4));
        let (mut y, mut dx) = (x.clone(), x.clone());
        broadcast_dropout_forward(&args, (&x[..], &mut y[..]), MaskSource::Key).unwrap();
        broadcast_dropout_backward(&args, &mut dx[..], MaskSource::Key).unwrap();
        results.extend(all(&[&y, &dx]));
    }
    results
}

fn rates() -> Vec<u32> {
    let x = numbers(OUTPUT, 1);
    let some = |n: usize| (0..n).map(|i| i as f64 / n as f64).collect::<Vec<_>>();
    let mut results = Vec::new();
    for rates in [Rates::per_row(&some(BATCH)), Rates::per_column(&some(UNITS))] {
        let (rates, mut y, mut dx) = (rates.unwrap(), x.clone(), x.clone());
        let to = (matrix(&x, BATCH, UNITS), matrix_mut(&mut y, BATCH, UNITS));
        rates_dropout_forward(to, &rates.with_key(key()), MaskSource::Key).unwrap();
        let to = matrix_mut(&mut dx, BATCH, UNITS);
        rates_dropout_backward(to, &rates.with_key(key()), MaskSource::Key).unwrap();
        results.extend(all(&[&y, &dx]));
    }
    results
}

fn softmax() -> Vec<u32> {
    let x = numbers(OUTPUT, 1);
    let labels: Vec<u32> = (0..BATCH as u32).map(|r| r % UNITS as u32).collect();
    let x_view = matrix(&x, BATCH, UNITS);
    let mut gradient = vec![0.0; OUTPUT];
    let to = Some(matrix_mut(&mut gradient, BATCH, UNITS));
    let loss = softmax_cross_entropy(x_view, &labels, to).unwrap();
    let args = SoftmaxDropout::new(dropout(0.1)).with_causal(3);
    let (mut y, mut p, mut dx) = (x.clone(), x.clone(), x.clone());
    let (to, p_to) = (matrix_mut(&mut y, BATCH, UNITS), matrix_mut(&mut p, BATCH, UNITS));
    softmax_dropout_forward(&args, (x_view, to), Some(p_to), MaskSource::Key).unwrap();
    let (p_view, to) = (matrix(&p, BATCH, UNITS), matrix_mut(&mut dx, BATCH, UNITS));
    softmax_dropout_backward(&args, p_view, to, MaskSource::Key).unwrap();
    let mut results = all(&[&gradient, &y, &p, &dx]);
    let mean = loss.mean().to_bits();
    results.extend([mean as u32, (mean >> 32) as u32]);
    results
}

fn updates() -> Vec<u32> {
    let (mut w, dw, mut velocity) = (numbers(OUTPUT, 1), numbers(OUTPUT, 2), numbers(OUTPUT, 3));
    let step = SgdStep::new(0.1).with_momentum(0.9);
    let to = (matrix_mut(&mut w, BATCH, UNITS), matrix_mut(&mut velocity, BATCH, UNITS));
    apply(to.0, matrix(&dw, BATCH, UNITS), Some(to.1), step).unwrap();
    assert!(global_norm(&[matrix(&dw, BATCH, UNITS)]).unwrap() > 0.0);
    max_norm(matrix_mut(&mut w, BATCH, UNITS), 1.0).unwrap();
    all(&[&w, &velocity])
}

/// Some steps of training, then inference and passes with dropout.
fn network() -> Vec<u32> {
    let spec = MlpSpec::new(&[64, 300, 200, 10])
        .with_activation(Activation::Gelu)
        .with_input_rate(0.2)
        .with_hidden_rate(0.5)
        .with_seed(17);
    let mut mlp = Mlp::new(&spec).unwrap();
    let (x, labels) = (numbers(500 * 64, 1), (0..500).map(|i| i % 10).collect::<Vec<u32>>());
    let sgd = Optimiser::new(SgdStep::new(0.05).with_momentum(0.9)).with_max_norm(2.0);
    for batch in [500, 300, 500] {
        mlp.train_step(matrix(&x[..batch * 64], batch, 64), &labels[..batch], &sgd).unwrap();
    }
    let mut logits = vec![0.0; 500 * 10];
    mlp.predict(matrix(&x, 500, 64), matrix_mut(&mut logits, 500, 10)).unwrap();
    let layers = mlp.layers().iter().flat_map(|layer| [layer.weights(), layer.bias()].concat());
    all(&[&layers.collect::<Vec<_>>(), &logits])
}
