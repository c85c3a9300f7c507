//! The network: the same bits on any number of threads and on every level, inference, failed steps,
//! and the effect that dropout is for.

mod common;
#[path = "common/digits.rs"]
mod digits;
#[path = "network/monte_carlo.rs"]
mod monte_carlo;
#[path = "network/options.rs"]
mod options;

use common::{bits, for_each_level, matrix, matrix_mut, numbers, with_threads};
use digits::{CLASSES, Digits, PIXELS, random, shuffled};
use fused_dropout::nn::{Granularity, Mlp, MlpSpec, Schedule, Sgd};
use fused_dropout::{
    Activation, DenseArgs, Dropout, Error, KeptUnits, Level, MaskKey, MatRef, Scaling, reference,
    testing,
};

const SIZES: [usize; 4] = [PIXELS, 256, 192, CLASSES];

fn spec(activation: Activation) -> MlpSpec {
    MlpSpec { activation, input_rate: 0.2, hidden_rate: 0.5, seed: 17, ..MlpSpec::new(&SIZES) }
}

fn sgd() -> Sgd {
    Sgd {
        momentum: 0.9,
        weight_decay: 1e-4,
        l1: 1e-5,
        max_norm: Some(2.0),
        schedule: Schedule::Cosine { steps: 60 },
        ..Sgd::new(0.05)
    }
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
        let args = DenseArgs {
            bias: Some(layer.bias()),
            activation: if l + 1 < count { mlp.spec().activation } else { Activation::Identity },
            ..DenseArgs::new(matrix(&input, rows, inputs), matrix(&w, inputs, units))
        };
        reference::dense_forward(&args, matrix_mut(&mut y, rows, units), None, None).unwrap();
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
            let (mlp, _) = train(&MlpSpec { scaling, ..spec(activation) }, 12, &digits);
            let keep = match scaling {
                Scaling::Inverted => [1.0, 1.0],
                Scaling::Classical => [0.8, 0.5],
            };
            let expected = logits_of_reference(&mlp, some.x(), keep);
            for_each_level(|level| {
                let (mut mlp, mut logits) = (mlp.clone(), vec![9.0; 600 * CLASSES]);
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
    let digits = Digits::all();
    let mixtures = [
        vec![Unit, Unit, Unit],
        vec![UnitExact, UnitExact, UnitExact],
        vec![Element, Unit],
        vec![UnitExact, Element, Unit],
        vec![Unit, UnitExact, Element],
    ];
    for granularity in mixtures {
        for activation in [Activation::Relu, Activation::Silu] {
            let spec = MlpSpec { granularity: granularity.clone(), ..spec(activation) };
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
    let too_many = MlpSpec { granularity: vec![Unit; 4], ..spec(Activation::Relu) };
    assert!(matches!(Mlp::new(&too_many), Err(Error::Parameter { .. })));
    assert_eq!(spec(Activation::Relu).with_granularity(Unit).granularity, [Unit; 3]);
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
        let spec = MlpSpec { input_rate: rate, hidden_rate: rate, seed: 3, ..MlpSpec::new(&sizes) };
        let mut mlp = Mlp::new(&spec.with_granularity(granularity)).unwrap();
        for step in 0..3 {
            let before = mlp.clone();
            let sgd = Sgd { max_norm: Some(0.5), weight_decay: 0.1, l1: 0.1, ..sgd() };
            mlp.train_step(matrix(&x, 8, PIXELS), &labels, &sgd).unwrap();
            let dropout = Dropout::new(rate).unwrap();
            let kept: Vec<KeptUnits> = (0..4)
                .map(|l| {
                    let key = MaskKey::new(3, l as u32, step).unwrap();
                    match granularity {
                        _ if l == 3 => KeptUnits::all(sizes[l]),
                        Granularity::Unit => KeptUnits::bernoulli(sizes[l], &dropout, &key),
                        _ => KeptUnits::exact(sizes[l], &dropout, &key),
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
    let (mut mlp, _) = train(&spec(Activation::Tanh), 20, &digits);
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
    assert!((evaluation.loss - loss / 1797.0).abs() < 1e-5, "{} {loss}", evaluation.loss);
    let nothing = mlp.evaluate(matrix(&[], 0, PIXELS), &[]).unwrap();
    assert_eq!((nothing.loss, nothing.errors, nothing.examples), (0.0, 0, 0));
    assert_eq!(nothing.error_rate(), 0.0);
    mlp.predict(matrix(&[], 0, PIXELS), matrix_mut(&mut [], 0, CLASSES)).unwrap();
}

#[test]
fn a_failed_step_changes_nothing() {
    let digits = Digits::all();
    let (mut mlp, _) = train(&spec(Activation::Relu), 3, &digits);
    let before = mlp.clone();
    let x = matrix(&digits.images, 2, PIXELS);
    let failed = |mlp: &mut Mlp, x, labels: &[u32], sgd: &Sgd| {
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
        for (name, options) in [
            ("learning_rate", Sgd { learning_rate: bad, ..sgd() }),
            ("momentum", Sgd { momentum: bad, ..sgd() }),
            ("weight_decay", Sgd { weight_decay: bad, ..sgd() }),
            ("l1", Sgd { l1: bad, ..sgd() }),
        ] {
            let error = failed(&mut mlp, x, &[1, 2], &options);
            assert!(
                matches!(error, Error::Parameter { name: said, .. } if said == name),
                "{error}"
            );
        }
    }
    for bad in [0.0, -1.0, f32::NAN] {
        let error = failed(&mut mlp, x, &[1, 2], &Sgd { max_norm: Some(bad), ..sgd() });
        assert!(matches!(error, Error::Parameter { name: "max_norm", .. }), "{error}");
    }
    // The next step is what it would have been.
    let mut other = before.clone();
    let losses = [&mut mlp, &mut other].map(|mlp| mlp.train_step(x, &[1, 2], &sgd()).unwrap());
    assert_eq!(losses[0].to_bits(), losses[1].to_bits());
    assert_eq!(bits(&parameters(&mlp)), bits(&parameters(&other)));
}

#[test]
fn seeds_and_steps_change_the_masks() {
    let x = numbers(8 * PIXELS, 3);
    let labels = [0, 1, 2, 3, 4, 5, 6, 7];
    // A learning rate of 0: only the masks differ from step to step.
    let losses = |seed| {
        let mut mlp = Mlp::new(&MlpSpec { seed, ..spec(Activation::Relu) }).unwrap();
        let x = matrix(&x, 8, PIXELS);
        [(); 4].map(|()| mlp.train_step(x, &labels, &Sgd::new(0.0)).unwrap().to_bits())
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
    let at = |schedule, step| Sgd { schedule, ..Sgd::new(0.5) }.learning_rate_at(step);
    assert_eq!([0, 7].map(|t| at(Schedule::Constant, t)), [0.5, 0.5]);
    let linear = Schedule::Linear { steps: 4 };
    assert_eq!([0, 1, 2, 3, 4, 9].map(|t| at(linear, t)), [0.5, 0.375, 0.25, 0.125, 0.0, 0.0]);
    let cosine = [0, 2, 4, 5].map(|t| at(Schedule::Cosine { steps: 4 }, t));
    assert_eq!(cosine, [0.5, 0.25, 0.0, 0.0]);
    assert_eq!(at(Schedule::Linear { steps: 0 }, 0), 0.5);
}

/// Test errors in percent: 300 training images, 1,497 test images.
fn error_of(digits: &Digits, seed: u64, hidden_rate: f64, input_rate: f64) -> f64 {
    const EPOCHS: u32 = 100;
    let mut random = random(seed);
    let order = shuffled(digits.len(), &mut random);
    let (train, test) = (digits.pick(&order[..300]), digits.pick(&order[300..]));
    let spec =
        MlpSpec { hidden_rate, input_rate, seed, ..MlpSpec::new(&[PIXELS, 256, 256, CLASSES]) };
    let sgd =
        Sgd { momentum: 0.9, schedule: Schedule::Linear { steps: 6 * EPOCHS }, ..Sgd::new(0.05) };
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
    let means = [(0.0, 0.0), (0.5, 0.1)].map(|(hidden, input)| {
        let errors = [1, 2, 3].map(|seed| error_of(&digits, seed, hidden, input));
        println!("rates {input} and {hidden}: {errors:.2?}");
        errors.iter().sum::<f64>() / 3.0
    });
    assert!(means[1] <= means[0] - 0.5, "without and with dropout: {means:?} percent of errors");
}
