//! The network: the same bits on any number of threads and on every level, inference, failed steps,
//! and the effect that dropout is for.

mod common;
#[path = "common/digits.rs"]
mod digits;
#[cfg(target_os = "linux")]
#[path = "network/limits.rs"]
mod limits;
#[path = "network/monte_carlo.rs"]
mod monte_carlo;
#[path = "network/not_finite.rs"]
mod not_finite;
#[path = "network/open.rs"]
mod open;
#[path = "network/options.rs"]
mod options;

use common::{bits, for_each_level, matrix, matrix_mut, numbers, with_threads};
use digits::{CLASSES, Digits, PIXELS, random, shuffled};
use fused_dropout::layer::{DenseArgs, DenseLayer, KeptUnits};
use fused_dropout::nn::{Granularity, LearningRateSchedule, Mlp, MlpSpec, Noise, Optimiser};
use fused_dropout::update::SgdStep;
use fused_dropout::{
    Activation, Dropout, Error, Level, MaskKey, MaskSource, MatRef, Scaling, reference, testing,
};

const SIZES: [usize; 4] = [PIXELS, 256, 192, CLASSES];

fn spec(activation: Activation) -> MlpSpec {
    MlpSpec::new(&SIZES)
        .with_activation(activation)
        .with_input_rate(0.2)
        .with_hidden_rate(0.5)
        .with_seed(17)
}

const STEP: SgdStep = SgdStep::new(0.05).with_momentum(0.9).with_weight_decay(1e-4).with_l1(1e-5);

fn sgd() -> Optimiser {
    with_step(STEP)
}

fn with_step(step: SgdStep) -> Optimiser {
    Optimiser::new(step)
        .with_max_norm(2.0)
        .with_schedule(LearningRateSchedule::Cosine { steps: 60 })
}

/// The same with this granularity for inputs and hidden layers.
fn of_units(spec: MlpSpec, granularity: Granularity) -> MlpSpec {
    spec.with_granularity(granularity).with_input_granularity(granularity)
}

/// The same with a granularity of the inputs, then of each hidden layer.
fn with_granularities(mut spec: MlpSpec, granularity: &[Granularity]) -> MlpSpec {
    spec.granularity = granularity.to_vec();
    spec
}

/// The same with a kind of noise for the inputs, then for each hidden layer.
fn with_noises(mut spec: MlpSpec, noise: &[Noise]) -> MlpSpec {
    spec.noise = noise.to_vec();
    spec
}

/// All parameters, layer after layer.
fn parameters(mlp: &Mlp) -> Vec<f32> {
    mlp.layers().iter().flat_map(|l| [l.weights(), l.bias()].concat()).collect()
}

/// A network after `steps` steps, and its last loss.
fn train(spec: &MlpSpec, steps: usize, digits: &Digits) -> (Mlp, f32) {
    let mut mlp = Mlp::new(spec).unwrap();
    let mut loss = f32::NAN;
    for step in 0..steps {
        // Batches of different sizes, so that buffers grow and are too large.
        let batch = [100, 37, 128][step % 3];
        let rows: Vec<usize> = (0..batch).map(|i| (step * 131 + i * 7) % digits.len()).collect();
        let batch = digits.pick(&rows);
        loss = mlp.train_step(batch.x(), &batch.labels, &sgd()).unwrap();
    }
    (mlp, loss)
}

#[test]
fn training_gives_the_same_bits_on_any_threads_and_every_level() {
    let digits = Digits::all();
    for activation in [Activation::Relu, Activation::Gelu] {
        let mut of_fma: Option<Vec<u32>> = None;
        for level in Level::available() {
            let mut of_level: Option<Vec<u32>> = None;
            for threads in [1, 2, 8] {
                let run =
                    || testing::at_level(level, || train(&spec(activation), 50, &digits)).unwrap();
                let (mlp, loss) = with_threads(threads, run);
                assert_eq!(mlp.steps(), 50);
                assert!(loss < 1.2, "{activation} on {level}: the loss is {loss}");
                let weights = bits(&parameters(&mlp));
                let same = *of_level.get_or_insert_with(|| weights.clone()) == weights;
                assert!(same, "{activation} on {level}, {threads} threads");
                if level.has_fma() {
                    let same = *of_fma.get_or_insert_with(|| weights.clone()) == weights;
                    assert!(same, "{activation} on {level}");
                }
            }
        }
    }
}

/// The layers one after the other in the reference, weights times the keep probability of what they
/// read.
fn logits_of_reference(mlp: &Mlp, x: MatRef<'_>, keep: [f32; 2]) -> Vec<f32> {
    let count = mlp.layers().len();
    let mut input: Vec<f32> =
        (0..x.rows() * x.cols()).map(|i| x.get(i / x.cols(), i % x.cols()).unwrap()).collect();
    for (l, layer) in mlp.layers().iter().enumerate() {
        let keep = keep[usize::from(l > 0)];
        let w: Vec<f32> = layer.weights().iter().map(|w| w * keep).collect();
        let (rows, inputs, units) = (x.rows(), layer.inputs(), layer.units());
        let mut y = vec![9.0; rows * units];
        let hidden = l + 1 < count;
        let activation = if hidden { mlp.spec().activation } else { Activation::Identity };
        let (x, w) = (matrix(&input, rows, inputs), matrix(&w, inputs, units));
        let args = DenseArgs::new(DenseLayer::new(activation), x, w).with_bias(layer.bias());
        let y_view = matrix_mut(&mut y, rows, units);
        reference::dense_forward(&args, y_view, None, MaskSource::Key).unwrap();
        input = y;
    }
    input
}

#[test]
fn inference_is_without_dropout() {
    let digits = Digits::all();
    // More rows than are evaluated at once.
    let some = digits.pick(&(0..600).collect::<Vec<_>>());
    for scaling in [Scaling::Inverted, Scaling::Classical] {
        for activation in [Activation::Relu, Activation::Silu] {
            let (mlp, _) = train(&spec(activation).with_scaling(scaling), 12, &digits);
            let keep = if scaling == Scaling::Classical { [0.8, 0.5] } else { [1.0, 1.0] };
            let expected = logits_of_reference(&mlp, some.x(), keep);
            for_each_level(|level| {
                let mut logits = vec![9.0; 600 * CLASSES];
                mlp.predict(some.x(), matrix_mut(&mut logits, 600, CLASSES)).unwrap();
                // Sums of 256 terms, thrice, where a level rounds twice.
                let what = format!("logits with {scaling:?} scaling");
                common::assert_same(level, &logits, &expected, (256, 0.2), &what);
            });
        }
    }
}

/// Every mixture of granularities trains, on every level and any number of threads with the same bits.
#[test]
fn granularities_by_layer() {
    use Granularity::{Element, Unit, UnitExact};
    const BLOCK: Granularity = Granularity::BLOCK;
    let digits = Digits::all();
    let mixtures = [
        vec![Unit, Unit, Unit],
        vec![UnitExact, UnitExact, UnitExact],
        vec![Element, Unit],
        vec![UnitExact, Element, Unit],
        vec![Unit, UnitExact, Element],
        vec![Element, BLOCK, BLOCK],
        vec![BLOCK, Granularity::Block { rows: 16, units: 24 }, UnitExact],
    ];
    for granularity in mixtures {
        for activation in [Activation::Relu, Activation::Silu] {
            let spec = with_granularities(spec(activation), &granularity);
            let mut of_fma: Option<Vec<u32>> = None;
            for level in Level::available() {
                for threads in [1, 2, 8] {
                    let run = || testing::at_level(level, || train(&spec, 50, &digits)).unwrap();
                    let (mlp, loss) = with_threads(threads, run);
                    let what =
                        format!("{granularity:?}, {activation} on {level}, {threads} threads");
                    assert!(loss < 2.2, "{what}: the loss is {loss}, that of guesses 2.3");
                    let weights = bits(&parameters(&mlp));
                    if level.has_fma() {
                        let same = *of_fma.get_or_insert_with(|| weights.clone()) == weights;
                        assert!(same, "{what}");
                    }
                }
            }
        }
    }
    let ten = Granularity::Block { rows: 10, units: 24 };
    let error = Mlp::new(&with_granularities(spec(Activation::Relu), &[Element, BLOCK, ten]));
    assert_eq!(error.unwrap_err(), Error::BlockRows { input: 16, output: 10 });
    let nothing = Granularity::Block { rows: 0, units: 24 };
    let error = Mlp::new(&with_granularities(spec(Activation::Relu), &[nothing]));
    assert!(matches!(error, Err(Error::Parameter { name: "rows of a block", .. })));
    let too_many = with_granularities(spec(Activation::Relu), &[Unit; 4]);
    assert!(matches!(Mlp::new(&too_many), Err(Error::Parameter { .. })));
}

/// One granularity for all hidden layers leaves inputs as they are: dropped by element, unless something
/// else was said about them.
#[test]
fn a_granularity_is_that_of_hidden_layers() {
    use Granularity::{Element, Unit, UnitExact};
    let spec = || spec(Activation::Relu);
    assert_eq!(spec().with_granularity(Unit).granularity, [Element, Unit, Unit]);
    assert_eq!(spec().with_input_granularity(Unit).granularity, [Unit]);
    for both in [
        spec().with_granularity(UnitExact).with_input_granularity(Unit),
        spec().with_input_granularity(Unit).with_granularity(UnitExact),
    ] {
        assert_eq!(both.granularity, [Unit, UnitExact, UnitExact]);
    }
    let without_hidden = MlpSpec::new(&[PIXELS, CLASSES]).with_granularity(Unit);
    assert_eq!(without_hidden.granularity, [Element]);

    // A step changes weights of every input that some example shows.
    let digits = Digits::all().pick(&(0..100).collect::<Vec<_>>());
    let mut mlp = Mlp::new(&spec().with_granularity(Unit)).unwrap();
    let before = mlp.clone();
    mlp.train_step(digits.x(), &digits.labels, &Optimiser::new(SgdStep::new(0.1))).unwrap();
    let weights = |mlp: &Mlp| mlp.layers()[0].weights().to_vec();
    let (now, before) = (weights(&mlp), weights(&before));
    let rows = now.chunks(SIZES[1]).zip(before.chunks(SIZES[1]));
    for (pixel, (now, before)) in rows.enumerate() {
        let shown = digits.images.iter().skip(pixel).step_by(PIXELS).filter(|x| **x > 0.0).count();
        // At rate 0.2, ten examples in which the pixel is dropped are one case of 10^7.
        assert!(now != before || shown < 10, "the weights of pixel {pixel}");
    }
}

/// What is removed is restored: a step changes the weights between kept units, and no others. At
/// rates of nearly 1 nothing is kept of some layers, and then only the last biases change.
#[test]
fn removed_units_are_restored() {
    let x = numbers(8 * PIXELS, 3);
    let labels = [0, 1, 2, 3, 4, 5, 6, 7];
    for (rate, granularity) in
        [(0.5, Granularity::Unit), (0.5, Granularity::UnitExact), (0.999, Granularity::Unit)]
    {
        let sizes = [PIXELS, 30, 20, CLASSES];
        let spec = MlpSpec::new(&sizes).with_input_rate(rate).with_hidden_rate(rate).with_seed(3);
        let mut mlp = Mlp::new(&of_units(spec, granularity)).unwrap();
        for step in 0..3 {
            let before = mlp.clone();
            let sgd = with_step(STEP.with_weight_decay(0.1).with_l1(0.1)).with_max_norm(0.5);
            mlp.train_step(matrix(&x, 8, PIXELS), &labels, &sgd).unwrap();
            let dropout = Dropout::new(rate).unwrap();
            let kept: Vec<KeptUnits> = (0..4)
                .map(|l| {
                    let dropout = dropout.with_key(MaskKey::new(3, l as u32, step).unwrap());
                    match granularity {
                        _ if l == 3 => KeptUnits::all(sizes[l]),
                        Granularity::Unit => KeptUnits::bernoulli(sizes[l], &dropout),
                        _ => KeptUnits::exact(sizes[l], &dropout),
                    }
                    .unwrap()
                })
                .collect();
            for (l, (now, before)) in mlp.layers().iter().zip(before.layers()).enumerate() {
                let is_kept = |l: usize, unit: usize| kept[l].indices().contains(&(unit as u32));
                for (i, (now, before)) in now.weights().iter().zip(before.weights()).enumerate() {
                    let both = is_kept(l, i / sizes[l + 1]) && is_kept(l + 1, i % sizes[l + 1]);
                    assert_eq!(now != before, both, "weight {i} of layer {l} in step {step}");
                }
                for (j, (now, before)) in now.bias().iter().zip(before.bias()).enumerate() {
                    assert!(now == before || is_kept(l + 1, j), "bias {j} of layer {l}");
                }
            }
        }
    }
}

#[test]
fn evaluation_counts_what_predictions_say() {
    let digits = Digits::all();
    let (mlp, _) = train(&spec(Activation::Tanh), 20, &digits);
    let mut logits = vec![9.0; digits.len() * CLASSES];
    mlp.predict(digits.x(), matrix_mut(&mut logits, digits.len(), CLASSES)).unwrap();
    let (mut errors, mut loss) = (0, 0.0);
    for (row, label) in logits.chunks(CLASSES).zip(&digits.labels) {
        let of_label = row[*label as usize];
        errors += usize::from(row.iter().any(|z| *z > of_label));
        loss += row.iter().map(|z| f64::from(*z - of_label).exp()).sum::<f64>().ln();
    }
    let evaluation = mlp.evaluate(digits.x(), &digits.labels).unwrap();
    assert_eq!((evaluation.errors, evaluation.examples), (errors, 1797));
    assert_eq!(evaluation.error_rate(), errors as f64 / 1797.0);
    assert!(errors > 0 && errors < 900, "{errors} errors of a network that has learnt a little");
    let mean = evaluation.mean();
    assert!((mean - loss / 1797.0).abs() < 1e-5, "{mean} {loss}");
    let nothing = mlp.evaluate(matrix(&[], 0, PIXELS), &[]).unwrap();
    assert_eq!((nothing.mean(), nothing.errors, nothing.examples), (0.0, 0, 0));
    assert_eq!(nothing.error_rate(), 0.0);
    mlp.predict(matrix(&[], 0, PIXELS), matrix_mut(&mut [], 0, CLASSES)).unwrap();
}

#[test]
fn a_failed_step_changes_nothing() {
    let digits = Digits::all();
    let (mut mlp, _) = train(&spec(Activation::Relu), 3, &digits);
    let before = mlp.clone();
    let x = matrix(&digits.images, 2, PIXELS);
    let failed = |mlp: &mut Mlp, x, labels: &[u32], sgd: &Optimiser| {
        let error = mlp.train_step(x, labels, sgd).unwrap_err();
        assert_eq!(bits(&parameters(mlp)), bits(&parameters(&before)), "{error}");
        assert_eq!(mlp.steps(), 3, "{error}");
        error
    };
    let error = failed(&mut mlp, x, &[1, 10], &sgd());
    assert_eq!(error, Error::Label { index: 1, label: 10, classes: 10 });
    failed(&mut mlp, x, &[1], &sgd());
    failed(&mut mlp, matrix(&digits.images, 2, PIXELS - 1), &[1, 2], &sgd());
    for bad in [-1.0, f32::NAN, f32::INFINITY] {
        for (name, step) in [
            ("learning_rate", SgdStep::new(bad)),
            ("momentum", STEP.with_momentum(bad)),
            ("weight_decay", STEP.with_weight_decay(bad)),
            ("l1", STEP.with_l1(bad)),
        ] {
            let error = failed(&mut mlp, x, &[1, 2], &with_step(step));
            assert!(
                matches!(error, Error::Parameter { name: said, .. } if said == name),
                "{error}"
            );
        }
    }
    for bad in [0.0, -1.0, f32::NAN] {
        let error = failed(&mut mlp, x, &[1, 2], &sgd().with_max_norm(bad));
        assert!(matches!(error, Error::Parameter { name: "max_norm", .. }), "{error}");
    }
    // The next step is what it would have been.
    let mut other = before.clone();
    let losses = [&mut mlp, &mut other].map(|mlp| mlp.train_step(x, &[1, 2], &sgd()).unwrap());
    assert_eq!(losses[0].to_bits(), losses[1].to_bits());
    assert_eq!(bits(&parameters(&mlp)), bits(&parameters(&other)));
}

#[test]
fn an_empty_batch_is_no_step() {
    let digits = Digits::all();
    let (mut mlp, _) = train(&spec(Activation::Gelu), 3, &digits);
    let mut other = mlp.clone();
    let loss = mlp.train_step(matrix(&[], 0, PIXELS), &[], &sgd()).unwrap();
    assert_eq!((loss.to_bits(), mlp.steps()), (0, 3));
    assert_eq!(bits(&parameters(&mlp)), bits(&parameters(&other)));
    // The next step is what it would have been, its velocities and masks too.
    let batch = digits.pick(&[1, 2, 3]);
    for mlp in [&mut mlp, &mut other] {
        mlp.train_step(batch.x(), &batch.labels, &sgd()).unwrap();
    }
    assert_eq!(bits(&parameters(&mlp)), bits(&parameters(&other)));
    // What is wrong is wrong for no example too.
    let narrow = matrix(&[], 0, PIXELS - 1);
    assert!(matches!(mlp.train_step(narrow, &[], &sgd()), Err(Error::Mismatch { .. })));
    let x = matrix(&[], 0, PIXELS);
    assert!(matches!(mlp.train_step(x, &[1], &sgd()), Err(Error::Mismatch { .. })));
    let wrong = with_step(STEP.with_momentum(-1.0));
    assert!(matches!(mlp.train_step(x, &[], &wrong), Err(Error::Parameter { .. })));
}

/// Threads share a network that none of them changes, each with a batch of its own size.
#[test]
fn several_threads_predict_with_one_network() {
    let digits = Digits::all();
    for scaling in [Scaling::Inverted, Scaling::Classical] {
        let (mlp, _) = train(&spec(Activation::Relu).with_scaling(scaling), 5, &digits);
        let predict = |mlp: &Mlp, rows: usize| {
            let x = matrix(&digits.images, rows, PIXELS);
            let mut logits = vec![9.0; rows * CLASSES];
            mlp.predict(x, matrix_mut(&mut logits, rows, CLASSES)).unwrap();
            let loss = mlp.evaluate(x, &digits.labels[..rows]).unwrap();
            (bits(&logits), loss.sum.to_bits(), loss.errors)
        };
        let batches = [1, 700, 64, 513];
        let expected = batches.map(|rows| predict(&mlp, rows));
        std::thread::scope(|scope| {
            for (rows, expected) in batches.into_iter().zip(&expected) {
                let (mlp, predict) = (&mlp, &predict);
                scope.spawn(move || {
                    for _ in 0..10 {
                        assert!(predict(mlp, rows) == *expected, "{scaling:?}, {rows} rows");
                    }
                });
            }
        });
    }
}

#[test]
fn seeds_and_steps_change_the_masks() {
    let x = numbers(8 * PIXELS, 3);
    let labels = [0, 1, 2, 3, 4, 5, 6, 7];
    // A learning rate of 0: only the masks differ from step to step.
    let losses = |seed| {
        let mut mlp = Mlp::new(&spec(Activation::Relu).with_seed(seed)).unwrap();
        let x = matrix(&x, 8, PIXELS);
        [(); 4].map(|()| {
            mlp.train_step(x, &labels, &Optimiser::new(SgdStep::new(0.0))).unwrap().to_bits()
        })
    };
    let of_seed = losses(1);
    assert_eq!(of_seed, losses(1));
    let mut all: Vec<u32> = of_seed.into_iter().chain(losses(2)).collect();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), 8, "every step has its own mask");
}

#[test]
fn schedules() {
    use LearningRateSchedule::{Constant, Cosine, Linear};
    let at = |schedule, step| {
        let sgd = Optimiser::new(SgdStep::new(0.5).with_momentum(0.9)).with_schedule(schedule);
        let rate = sgd.learning_rate(step);
        let numbers = SgdStep::new(rate).with_momentum(0.9).into();
        assert_eq!(sgd.step_at(step, 1), Ok(numbers), "only the learning rate changes");
        rate
    };
    assert_eq!([0, 7].map(|t| at(Constant, t)), [0.5, 0.5]);
    let linear = Linear { steps: 4 };
    assert_eq!([0, 1, 2, 3, 4, 9].map(|t| at(linear, t)), [0.5, 0.375, 0.25, 0.125, 0.0, 0.0]);
    let cosine = [0, 2, 4, 5].map(|t| at(Cosine { steps: 4 }, t));
    assert_eq!(cosine, [0.5, 0.25, 0.0, 0.0]);
    assert_eq!(at(Linear { steps: 0 }, 0), 0.5);
}

/// Test errors in percent: 300 training images, 1,497 test images; rates of hidden units and of inputs.
fn error_of(digits: &Digits, seed: u64, rates: (f64, f64), granularity: Granularity) -> f64 {
    const EPOCHS: u32 = 100;
    let mut random = random(seed);
    let order = shuffled(digits.len(), &mut random);
    let (train, test) = (digits.pick(&order[..300]), digits.pick(&order[300..]));
    let spec = MlpSpec::new(&[PIXELS, 256, 256, CLASSES])
        .with_hidden_rate(rates.0)
        .with_input_rate(rates.1)
        .with_granularity(granularity)
        .with_seed(seed);
    let schedule = LearningRateSchedule::Linear { steps: 6 * EPOCHS };
    let sgd = Optimiser::new(SgdStep::new(0.05).with_momentum(0.9)).with_schedule(schedule);
    let mut mlp = Mlp::new(&spec).unwrap();
    for _ in 0..EPOCHS {
        for batch in shuffled(300, &mut random).chunks(50) {
            let batch = train.pick(batch);
            mlp.train_step(batch.x(), &batch.labels, &sgd).unwrap();
        }
    }
    100.0 * mlp.evaluate(test.x(), &test.labels).unwrap().error_rate()
}

#[test]
fn dropout_lowers_the_test_error() {
    let digits = Digits::all();
    let errors = |rates, granularity| {
        let errors = [1, 2, 3, 4, 5].map(|seed| error_of(&digits, seed, rates, granularity));
        println!("rates {rates:?}, {granularity:?}: {errors:.2?}");
        errors
    };
    let mean = |errors: [f64; 5]| errors.iter().sum::<f64>() / 5.0;
    let none = errors((0.0, 0.0), Granularity::Element);
    let elements = errors((0.5, 0.1), Granularity::Element);
    let blocks = errors((0.5, 0.1), Granularity::BLOCK);
    for with in [elements, blocks] {
        assert!(mean(with) <= mean(none) - 0.5, "{none:?} without dropout, {with:?} with it");
    }
    // As accurate: less than 0.15 points apart, or not significantly (2.8 of Student's t with 4
    // degrees of freedom is a chance of 5 %).
    let changes: [f64; 5] = std::array::from_fn(|i| blocks[i] - elements[i]);
    let variance = changes.map(|change| (change - mean(changes)).powi(2)).iter().sum::<f64>() / 4.0;
    let t = mean(changes) / (variance / 5.0).sqrt();
    println!("blocks less elements: {:.2}, t = {t:.1}", mean(changes));
    assert!(mean(changes) < 0.15 || t < 2.8, "{blocks:?} with blocks, {elements:?} with elements");
}
