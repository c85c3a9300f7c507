//! Networks that are opened: layers of the caller's, any loss, gradients in memory, parts of a batch,
//! hooks, residual layers, and the state that a trainer stores.

use fused_dropout::layer::Accumulation;
use fused_dropout::loss::{CrossEntropy, Huber, MeanSquaredError, Objective};
use fused_dropout::nn::{
    BatchPart, Dense, DenseState, Granularity, Initialiser, LearningRateSchedule, Mlp,
    MlpGradients, MlpSpec, Noise, Optimiser, StepRate, Values,
};
use fused_dropout::update::{AdamStep, SgdStep};
use fused_dropout::{
    Activation, Dropout, Error, MaskKey, MaskSource, MatMut, MatRef, Result, reference,
};

use crate::common::{bits, for_each_level, matrix, numbers};

const SIZES: [usize; 5] = [20, 48, 48, 48, 7];
const BATCH: usize = 21;

fn optimisers() -> [Optimiser; 4] {
    let sgd = SgdStep::new(0.05).with_momentum(0.9).with_weight_decay(1e-3);
    let adam = AdamStep::new(0.01);
    [
        Optimiser::new(sgd).with_max_norm(1.5),
        Optimiser::new(sgd.with_nesterov()),
        Optimiser::new(adam).with_warm_up(3),
        Optimiser::new(adam.with_weight_decay(0.05))
            .with_schedule(LearningRateSchedule::Cosine { steps: 9 }),
    ]
}

fn spec() -> MlpSpec {
    MlpSpec::new(&SIZES).with_input_rate(0.2).with_hidden_rate(0.5).with_seed(11)
}

/// Networks of every kind of noise and granularity.
fn specs() -> [MlpSpec; 8] {
    [
        spec(),
        spec().with_activation(Activation::Gelu).with_noise(Noise::Gaussian),
        spec().with_granularity(Granularity::Unit),
        spec()
            .with_granularity(Granularity::UnitExact)
            .with_input_granularity(Granularity::Unit)
            .with_schedule(StepRate::Drawn),
        spec()
            .with_activations(&[Activation::Silu, Activation::Relu, Activation::Tanh])
            .with_rates(&[0.1, 0.0, 0.4, 0.6]),
        spec().with_activation(Activation::Tanh).with_residual(&[false, true, true]),
        spec().with_granularity(Granularity::Block { rows: 5, units: 8 }),
        spec()
            .with_residual(&[false, true, true])
            .with_granularity(Granularity::Block { rows: 4, units: 3 }),
    ]
}

fn batch() -> (Vec<f32>, Vec<u32>) {
    (numbers(BATCH * SIZES[0], 5), (0..BATCH as u32).map(|i| i * 5 % 7).collect())
}

/// All parameters, and what updates have kept.
fn everything(mlp: &Mlp) -> Vec<u32> {
    let mut all = vec![mlp.steps(), mlp.moment_steps()];
    let mut push = |values: Values<'_>| {
        all.extend(bits(values.weights));
        all.extend(bits(values.bias));
    };
    for layer in mlp.layers() {
        push(Values { weights: layer.weights(), bias: layer.bias() });
        match layer.state() {
            DenseState::Velocity(velocity) => push(velocity),
            DenseState::Moments { first, second } => {
                push(first);
                push(second);
            }
            _ => {}
        }
    }
    all
}

/// Gradients that reach memory, then an update, are the fused step; so is a batch in parts.
#[test]
fn gradients_in_memory_and_in_parts_are_the_fused_step() {
    let (x, labels) = batch();
    for (spec, optimiser) in specs().into_iter().zip(optimisers().into_iter().cycle()) {
        for_each_level(|_| {
            for parts in [1, 2, 3, 7] {
                let mut fused = Mlp::new(&spec).unwrap();
                let mut open = fused.clone();
                let mut gradients = MlpGradients::default();
                for _ in 0..3 {
                    let x = matrix(&x, BATCH, SIZES[0]);
                    let loss = fused.train_step(x, &labels, &optimiser).unwrap();
                    let mut sum = 0.0;
                    let rows = BATCH / parts;
                    for part in 0..parts {
                        let row = part * rows;
                        let rows = if part + 1 == parts { BATCH - row } else { rows };
                        let x = x.rows_from(row, rows).unwrap();
                        let objective =
                            CrossEntropy::new(&labels[row..row + rows]).with_batch(BATCH).unwrap();
                        let part = BatchPart::new(part, parts, row as u64);
                        sum += open.gradients_of_part(x, &objective, part, &mut gradients).unwrap();
                    }
                    assert!((sum - f64::from(loss)).abs() < 1e-6 * sum.abs());
                    open.apply_gradients(&gradients, &optimiser).unwrap();
                }
                let same = everything(&fused) == everything(&open);
                assert!(same, "{spec:?}, {optimiser:?}, {parts} parts");
            }
        });
    }
}

/// A hook that changes nothing leaves the fused step's bits; one that fails, an unchanged network.
#[test]
fn hooks_see_and_change_gradients() {
    let (x, labels) = batch();
    let x = matrix(&x, BATCH, SIZES[0]);
    let objective = CrossEntropy::new(&labels);
    let optimiser = optimisers()[2];
    let mut fused = Mlp::new(&spec()).unwrap();
    let (mut hooked, mut scaled) = (fused.clone(), fused.clone());
    fused.train_objective(x, &objective, &optimiser).unwrap();
    hooked.train_with_hook(x, &objective, &optimiser, |_| Ok(())).unwrap();
    assert_eq!(everything(&fused), everything(&hooked));
    scaled
        .train_with_hook(x, &objective, &optimiser, |gradients| {
            assert!(gradients.norm()? > 0.0);
            for layer in gradients.layers_mut() {
                assert_eq!(layer.weights().len(), layer.shape().0 * layer.shape().1);
                layer.weights_mut().fill(0.0);
                layer.bias_mut().fill(0.0);
            }
            Ok(())
        })
        .unwrap();
    assert_eq!(scaled.layers()[0].weights(), Mlp::new(&spec()).unwrap().layers()[0].weights());

    let before = everything(&hooked);
    let failed = hooked.train_with_hook(x, &objective, &optimiser, |_| Err(Error::Steps));
    assert_eq!(failed, Err(Error::Steps));
    assert_eq!(everything(&hooked), before);
}

/// With a limit of the norm the update is that of gradients scaled by hand.
#[test]
fn clipped_steps() {
    let (x, labels) = batch();
    let x = matrix(&x, BATCH, SIZES[0]);
    let objective = CrossEntropy::new(&labels);
    let sgd = Optimiser::new(SgdStep::new(0.5));
    for limit in [1e-3, 1e9] {
        let mut clipped = Mlp::new(&spec()).unwrap();
        let mut by_hand = clipped.clone();
        clipped.train_objective(x, &objective, &sgd.with_clip_norm(limit)).unwrap();
        by_hand
            .train_with_hook(x, &objective, &sgd, |gradients| {
                let norm = gradients.norm()?;
                let factor = if norm > limit { (limit / norm) as f32 } else { 1.0 };
                for layer in gradients.layers_mut() {
                    layer.weights_mut().iter_mut().for_each(|g| *g *= factor);
                    layer.bias_mut().iter_mut().for_each(|g| *g *= factor);
                }
                Ok(())
            })
            .unwrap();
        assert_eq!(everything(&clipped), everything(&by_hand));
    }
    let mut mlp = Mlp::new(&spec()).unwrap();
    let refused = mlp.train_objective(x, &objective, &sgd.with_clip_norm(0.0));
    assert!(matches!(refused, Err(Error::Parameter { name: "limit of the norm", .. })));
    assert_eq!(mlp.steps(), 0);
}

/// Gradients are of one step of one network.
#[test]
fn gradients_of_another_step_are_refused() {
    let (x, labels) = batch();
    let x = matrix(&x, BATCH, SIZES[0]);
    let objective = CrossEntropy::new(&labels);
    let optimiser = optimisers()[0];
    let mut mlp = Mlp::new(&spec()).unwrap();
    let mut gradients = MlpGradients::default();
    let refused = mlp.apply_gradients(&gradients, &optimiser).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "the gradients are of no step yet, but the coming step is step 0"
    );
    let last = BatchPart::new(1, 2, 3);
    assert_eq!(last.accumulation, Accumulation::Last);
    assert!(mlp.gradients_of_part(x, &objective, last, &mut gradients).is_err());
    mlp.gradients(x, &objective, &mut gradients).unwrap();
    mlp.apply_gradients(&gradients, &optimiser).unwrap();
    let before = everything(&mlp);
    let refused = mlp.apply_gradients(&gradients, &optimiser).unwrap_err();
    assert_eq!(refused.to_string(), "the gradients are of step 0, but the coming step is step 1");
    let mut other = Mlp::new(&MlpSpec::new(&[20, 9, 7])).unwrap();
    other.set_steps(0, 0);
    assert!(matches!(other.apply_gradients(&gradients, &optimiser), Err(Error::Mismatch { .. })));
    assert_eq!(everything(&mlp), before);
}

/// A residual layer, step by step with the reference: outputs, and the gradients of all parameters.
#[test]
fn residual_layers_are_those_of_the_reference() {
    use fused_dropout::Saved;
    use fused_dropout::layer::{DenseArgs, DenseLayer, Gradients};
    let sizes = [6, 9, 9, 4];
    let spec = MlpSpec::new(&sizes)
        .with_activations(&[Activation::Tanh, Activation::Relu])
        .with_rates(&[0.0, 0.3, 0.5])
        .with_residual(&[false, true])
        .with_seed(3);
    let (x, t) = (numbers(5 * 6, 1), numbers(5 * 4, 2));
    let dropout =
        |l: u32, rate| Dropout::new(rate).unwrap().with_key(MaskKey::new(3, l, 0).unwrap());
    for_each_level(|level| {
        let mut mlp = Mlp::new(&spec).unwrap();
        let layers = [
            DenseLayer::new(Activation::Tanh).with_output(dropout(1, 0.3)),
            DenseLayer::new(Activation::Relu).with_output(dropout(2, 0.5)),
            DenseLayer::new(Activation::Identity),
        ];
        let mut ys = vec![x.clone()];
        let mut zs = Vec::new();
        for (l, layer) in layers.iter().enumerate() {
            let (inputs, units) = (sizes[l], sizes[l + 1]);
            let (mut y, mut z) = (vec![0.0; 5 * units], vec![0.0; 5 * units]);
            let w = matrix(mlp.layers()[l].weights(), inputs, units);
            let mut args = DenseArgs::new(*layer, matrix(&ys[l], 5, inputs), w);
            args.residual = (l == 1).then(|| matrix(&ys[l], 5, inputs));
            let (y_view, z_view) =
                (MatMut::new(&mut y, 5, units).unwrap(), MatMut::new(&mut z, 5, units).unwrap());
            reference::dense_forward(&args, y_view, Some(z_view), MaskSource::Key).unwrap();
            ys.push(y);
            zs.push(z);
        }
        let mut dy = vec![0.0; 5 * 4];
        let squared = MeanSquaredError::new(matrix(&t, 5, 4));
        let view = MatMut::new(&mut dy, 5, 4).unwrap();
        squared.evaluate(matrix(&ys[3], 5, 4), view).unwrap();
        let mut expected = Vec::new();
        for l in (0..3).rev() {
            let (inputs, units) = (sizes[l], sizes[l + 1]);
            let (mut dw, mut db, mut dx) =
                (vec![0.0; inputs * units], vec![0.0; units], vec![0.0; 5 * inputs]);
            let w = matrix(mlp.layers()[l].weights(), inputs, units);
            let mut args = DenseArgs::new(layers[l], matrix(&ys[l], 5, inputs), w);
            args.residual = (l == 1).then(|| matrix(&ys[l], 5, inputs));
            let saved = Saved::PreActivation(matrix(&zs[l], 5, units));
            let gradients = Gradients::default()
                .with_dw(MatMut::new(&mut dw, inputs, units).unwrap())
                .with_db(&mut db)
                .with_dx(MatMut::new(&mut dx, 5, inputs).unwrap());
            let key = MaskSource::Key;
            reference::dense_backward(&args, &saved, matrix(&dy, 5, units), gradients, key)
                .unwrap();
            if l == 1 {
                dx.iter_mut().zip(&dy).for_each(|(dx, dy)| *dx += dy);
            }
            dy = dx;
            expected.push((dw, db));
        }
        let mut gradients = MlpGradients::default();
        mlp.gradients(matrix(&x, 5, 6), &squared, &mut gradients).unwrap();
        for (layer, (dw, db)) in gradients.layers().iter().zip(expected.iter().rev()) {
            for (ours, expected) in [(layer.weights(), dw), (layer.bias(), db)] {
                // tanh's derivative from z and from the output differ by roundings.
                for (a, b) in ours.iter().zip(expected) {
                    assert!((a - b).abs() <= 1e-5 * b.abs().max(0.1), "{level}: {a}, not {b}");
                }
            }
        }
    });
    let refused = |spec: MlpSpec| Mlp::new(&spec).unwrap_err().to_string();
    assert_eq!(
        refused(MlpSpec::new(&[6, 9, 4]).with_residual(&[true])),
        "inputs of a residual layer is 6, but its units is 9: they must be equal"
    );
    let units = MlpSpec::new(&[9, 9, 4]).with_granularity(Granularity::Unit);
    assert_eq!(
        refused(units.with_residual(&[true])),
        "layer 0 adds its input to its output, but units of one of them are dropped: elements must be"
    );
}

/// Prediction has the residual too.
#[test]
fn a_residual_network_predicts_what_it_was_trained_for() {
    let spec = MlpSpec::new(&[2, 16, 16, 1])
        .with_activation(Activation::Tanh)
        .with_residual(&[false, true])
        .with_seed(1);
    let mut mlp = Mlp::new(&spec).unwrap();
    let x = numbers(64 * 2, 3);
    let t: Vec<f32> = x.chunks(2).map(|x| x[0] * x[1]).collect();
    let (x, targets) = (matrix(&x, 64, 2), matrix(&t, 64, 1));
    let adam = Optimiser::new(AdamStep::new(0.02));
    let mut loss = 0.0;
    for _ in 0..300 {
        loss = mlp.train_objective(x, &Huber::new(targets, 1.0).unwrap(), &adam).unwrap();
    }
    assert!(loss < 0.02, "{loss}");
    let mut y = [0.0; 64];
    mlp.predict(x, MatMut::new(&mut y, 64, 1).unwrap()).unwrap();
    let error: f32 = y.iter().zip(&t).map(|(y, t)| (y - t).powi(2)).sum::<f32>() / 128.0;
    assert!((f64::from(error) - loss).abs() < 0.01, "{error}, {loss}");
}

/// A network that is taken apart and put together goes on as if nothing had been.
#[test]
fn state_that_is_read_and_set_goes_on_bit_for_bit() {
    let (x, labels) = batch();
    let x = matrix(&x, BATCH, SIZES[0]);
    for optimiser in optimisers() {
        let mut whole = Mlp::new(&spec()).unwrap();
        for _ in 0..3 {
            whole.train_step(x, &labels, &optimiser).unwrap();
        }
        let layers = whole.layers().iter().map(|old| {
            let mut new = Dense::new(old.inputs(), old.units(), old.weights(), old.bias())?;
            new.set_state(old.state())?;
            Ok(new)
        });
        let layers = layers.collect::<Result<_>>().unwrap();
        let mut copy = Mlp::from_layers(&spec(), layers).unwrap();
        copy.set_steps(whole.steps(), whole.moment_steps());
        for _ in 0..3 {
            whole.train_step(x, &labels, &optimiser).unwrap();
            copy.train_step(x, &labels, &optimiser).unwrap();
        }
        assert_eq!(everything(&whole), everything(&copy));
    }
}

/// Adam's moments begin when Adam does, whatever came before.
#[test]
fn a_change_of_the_optimiser_begins_new_moments() {
    let (x, labels) = batch();
    let x = matrix(&x, BATCH, SIZES[0]);
    let [sgd, _, adam, _] = optimisers();
    let mut mlp = Mlp::new(&spec()).unwrap();
    mlp.train_step(x, &labels, &sgd).unwrap();
    assert!(matches!(mlp.layers()[0].state(), DenseState::Velocity(_)));
    assert_eq!(mlp.moment_steps(), 0);
    for n in 1..3 {
        mlp.train_step(x, &labels, &adam).unwrap();
        assert_eq!((mlp.steps(), mlp.moment_steps()), (1 + n, n));
    }
    assert!(matches!(mlp.layers()[0].state(), DenseState::Moments { .. }));
    mlp.train_step(x, &labels, &sgd).unwrap();
    assert!(matches!(mlp.layers()[0].state(), DenseState::Velocity(_)));
    mlp.train_step(x, &labels, &adam).unwrap();
    assert_eq!(mlp.moment_steps(), 1);
}

#[test]
fn layers_are_checked() {
    let says = |error: Result<Dense>| error.unwrap_err().to_string();
    assert_eq!(
        says(Dense::new(2, 3, &[0.0; 7], &[0.0; 3])),
        "number of weights is 7, but inputs times units is 6: they must be equal"
    );
    assert!(matches!(Dense::new(2, 3, &[0.0; 5], &[0.0; 3]), Err(Error::TooShort { .. })));
    assert!(matches!(Dense::new(usize::MAX, 2, &[], &[]), Err(Error::Overflow { .. })));
    assert_eq!(
        says(Dense::new(2, 3, &[0.0; 6], &[0.0; 2])),
        "number of biases is 2, but number of units is 3: they must be equal"
    );
    let layer =
        |inputs, units| Dense::new(inputs, units, &vec![0.5; inputs * units], &vec![0.0; units]);
    let spec = MlpSpec::new(&[2, 3, 4]);
    for layers in [vec![(2, 3)], vec![(2, 3), (3, 5)], vec![(2, 4), (4, 4)]] {
        let layers = layers.into_iter().map(|(i, u)| layer(i, u).unwrap()).collect();
        assert!(matches!(Mlp::from_layers(&spec, layers), Err(Error::Mismatch { .. })));
    }
    let mut mlp = Mlp::new(&spec).unwrap();
    assert!(mlp.replace_layer(2, layer(2, 3).unwrap()).is_err());
    assert!(mlp.replace_layer(1, layer(2, 3).unwrap()).is_err());
    mlp.replace_layer(0, layer(2, 3).unwrap()).unwrap();
    assert_eq!(mlp.layers()[0].weights(), [0.5; 6]);
    for (weights, bias) in mlp.parameters_mut() {
        weights.fill(0.25);
        bias.fill(1.0);
    }
    assert_eq!(mlp.layers()[1].bias(), [1.0; 4]);
    let mut dense = layer(2, 3).unwrap();
    let short = Values { weights: &[0.0; 6], bias: &[0.0; 2] };
    assert!(dense.set_state(DenseState::Velocity(short)).is_err());
    assert_eq!(dense.state(), DenseState::None);
}

/// Mean and variance of initial weights, and that a weight depends on its place alone.
#[test]
fn initial_weights() {
    const N: usize = 400;
    for (initialiser, variance) in [
        (Initialiser::he_normal(), 2.0 / N as f64),
        (Initialiser::he_uniform(), 2.0 / N as f64),
        (Initialiser::glorot_normal(), 2.0 / (N + 100) as f64),
        (Initialiser::glorot_uniform(), 2.0 / (N + 100) as f64),
        (Initialiser::lecun_normal(), 1.0 / N as f64),
        (Initialiser::lecun_uniform().with_gain(3.0), 3.0 / N as f64),
    ] {
        assert!((initialiser.deviation(N, 100).powi(2) / variance - 1.0).abs() < 1e-12);
        let key = MaskKey::new(9, 2, Initialiser::STEP).unwrap();
        let draw = |rows: usize, key: &MaskKey| {
            let mut w = vec![9.0; rows * 100];
            initialiser.fill(MatMut::new(&mut w, rows, 100).unwrap(), key).unwrap();
            w
        };
        let w = draw(N, &key);
        let count = w.len() as f64;
        let mean = w.iter().map(|w| f64::from(*w)).sum::<f64>() / count;
        let square = w.iter().map(|w| f64::from(*w).powi(2)).sum::<f64>() / count;
        // 5 standard deviations of either; the fourth moment of a normal number is 3.
        assert!(mean.abs() < 5.0 * (variance / count).sqrt(), "{initialiser:?}: mean {mean}");
        let bound = 5.0 * (2.0 / count).sqrt();
        assert!((square / variance - 1.0).abs() < bound, "{initialiser:?}: variance {square}");
        assert_eq!(w, draw(N, &key));
        assert_ne!(w, draw(N, &MaskKey::new(9, 3, Initialiser::STEP).unwrap()));
    }
    let bad = Initialiser::he_normal().with_gain(f64::NAN);
    let mut w = [9.0];
    assert!(bad.fill(MatMut::row_vector(&mut w), &MaskKey::default()).is_err());
    assert_eq!(w, [9.0]);
}

/// A closure is a loss.
#[test]
fn losses_by_closure() {
    let mut mlp = Mlp::new(&MlpSpec::new(&[2, 8, 1])).unwrap();
    let x = [0.5, -0.5, 1.0, 1.0];
    // Pulls the outputs to 3.
    let objective = |outputs: MatRef<'_>, mut dy: MatMut<'_>| -> Result<f64> {
        let mut loss = 0.0;
        for r in 0..2 {
            let e = outputs.get(r, 0).unwrap() - 3.0;
            loss += f64::from(e * e) / 2.0;
            dy.set(r, 0, e)?;
        }
        Ok(loss)
    };
    let sgd = Optimiser::new(SgdStep::new(0.1));
    for _ in 0..100 {
        mlp.train_objective(matrix(&x, 2, 2), &objective, &sgd).unwrap();
    }
    let mut y = [0.0; 2];
    mlp.predict(matrix(&x, 2, 2), MatMut::new(&mut y, 2, 1).unwrap()).unwrap();
    assert!(y.iter().all(|y| (y - 3.0).abs() < 0.1), "{y:?}");
    let fails = |_: MatRef<'_>, _: MatMut<'_>| -> Result<f64> { Err(Error::Steps) };
    assert_eq!(mlp.train_objective(matrix(&x, 2, 2), &fails, &sgd), Err(Error::Steps));
    assert_eq!(mlp.steps(), 100);
}
