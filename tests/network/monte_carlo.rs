//! Monte Carlo prediction: each pass is a forward pass of training, whatever is shared; and what several
//! members say together.

use Granularity::{Element, Unit, UnitExact};
use fused_dropout::elementwise::{GaussianDropout, gaussian_dropout_forward};
use fused_dropout::layer::{
    BlockShape, DenseArgs, DenseLayer, KeptBlocks, KeptUnits, Side, dense_forward, gather_units,
};
use fused_dropout::mask::RateSchedule;
use fused_dropout::nn::{
    Combination, Granularity, Mlp, MlpSpec, Noise, Optimiser, Prediction, StepRate,
};
use fused_dropout::softmax::{SoftmaxDropout, softmax_cross_entropy, softmax_dropout_forward};
use fused_dropout::update::SgdStep;
use fused_dropout::{
    Activation, Dropout, Error, KeyedDropout, MaskKey, MaskSource, MatRef, Scaling, reference,
    testing,
};

use crate::common::{self, bits, for_each_level, matrix, matrix_mut, numbers, with_threads};
use crate::{of_units, with_granularities, with_noises};

const SIZES: [usize; 4] = [20, 37, 18, 5];
const CLASSES: usize = SIZES[3];

fn spec() -> MlpSpec {
    MlpSpec::new(&SIZES).with_input_rate(0.2).with_hidden_rate(0.5).with_seed(11)
}

/// Hidden layers that add their inputs to their outputs.
fn residual() -> MlpSpec {
    let mut spec = spec();
    spec.sizes = vec![20, 24, 24, 24, 5];
    spec.with_residual(&[false, true, true])
}

/// Blocks that fill neither groups nor layers.
const BLOCK: Granularity = Granularity::Block { rows: 7, units: 5 };

/// The rate of step 0 is 0.
const CURRICULUM: StepRate = StepRate::Scheduled(RateSchedule::Curriculum { gamma: 0.3 });
/// The rate of step 6 and of later ones is the given one.
const LINEAR: StepRate = StepRate::Scheduled(RateSchedule::Linear { from: 0.6, steps: 6 });

/// Networks for every way to share and to select, with each kind of noise and of rates.
fn specs() -> Vec<MlpSpec> {
    use Noise::{Dropout, Gaussian};
    let mixed = |noise: [Noise; 3]| with_noises(spec(), &noise);
    let classical = || spec().with_scaling(Scaling::Classical);
    let bare_input = || spec().with_input_rate(0.0);
    let mut two_sizes = spec();
    two_sizes.sizes = vec![20, 5];
    vec![
        spec(),
        bare_input().with_activation(Activation::Gelu),
        classical().with_activation(Activation::Tanh),
        spec().with_hidden_rate(0.0),
        bare_input().with_hidden_rate(0.0),
        two_sizes,
        of_units(spec(), Unit),
        with_granularities(spec(), &[Element, UnitExact, Element]),
        with_granularities(classical(), &[Element, Element, Unit])
            .with_input_rate(0.0)
            .with_activation(Activation::Silu),
        with_granularities(spec(), &[UnitExact, Element, Unit]).with_hidden_rate(0.9),
        of_units(bare_input(), Unit),
        spec().with_noise(Gaussian),
        mixed([Gaussian, Dropout, Gaussian]).with_scaling(Scaling::Classical),
        mixed([Dropout, Gaussian, Dropout]).with_input_rate(0.0).with_activation(Activation::Silu),
        with_granularities(mixed([Gaussian, Gaussian, Dropout]), &[Element, Element, Unit]),
        with_granularities(mixed([Dropout, Gaussian, Dropout]), &[Unit]),
        spec().with_schedule(CURRICULUM),
        bare_input().with_noise(Gaussian).with_schedule(CURRICULUM),
        // Rates that end at 0, and then begin there: the first layer is shared by some steps only.
        classical().with_input_rate(0.0).with_schedule(LINEAR),
        bare_input().with_noise(Gaussian).with_hidden_schedule(LINEAR),
        mixed([Gaussian, Dropout, Gaussian]).with_input_rate(0.0).with_input_schedule(LINEAR),
        spec().with_schedule(StepRate::Drawn),
        spec().with_noise(Gaussian).with_schedule(StepRate::Drawn),
        of_units(spec(), UnitExact).with_schedule(StepRate::Drawn),
        of_units(spec(), Unit).with_schedule(LINEAR),
        residual(),
        residual().with_rates(&[0.0, 0.0, 0.3]).with_activations(&[Activation::Gelu]),
        residual().with_noise(Gaussian).with_activation(Activation::Silu),
        with_noises(residual(), &[Gaussian, Dropout, Gaussian]).with_input_rate(0.0),
        with_granularities(residual(), &[Element, Element, Element, Unit])
            .with_residual(&[false, true]),
        // Groups that do not end where rows are cut.
        of_units(spec(), BLOCK),
        with_granularities(spec(), &[Element, BLOCK, Unit]).with_activation(Activation::Gelu),
        with_granularities(classical(), &[BLOCK, UnitExact, BLOCK]).with_schedule(StepRate::Drawn),
        with_granularities(mixed([Gaussian, Dropout, Gaussian]), &[Element, BLOCK]),
        of_units(residual(), BLOCK),
    ]
}

/// The predictions of `steps`.
fn predict(mlp: &Mlp, x: MatRef<'_>, steps: std::ops::Range<u32>) -> Prediction {
    let mut prediction = Prediction::new(x.rows(), mlp.layers()[mlp.layers().len() - 1].units());
    let prediction = prediction.as_mut().unwrap();
    mlp.predict_monte_carlo(x, steps, prediction).unwrap();
    prediction.clone()
}

/// What is done to one side of a layer in a step.
enum Drawn {
    Elements(KeyedDropout),
    Units(KeptUnits),
    Blocks(KeptBlocks),
    Gaussian(GaussianDropout, MaskKey),
}

impl Drawn {
    fn new(spec: &MlpSpec, l: usize, step: u32, rows: usize) -> Self {
        let key = MaskKey::new(spec.seed, l as u32, step).unwrap();
        let (rate, schedule) = match l {
            0 => (spec.input_rate, spec.input_schedule),
            _ => (spec.hidden_rate, spec.hidden_schedule),
        };
        let rate = spec.rates.get(l).copied().unwrap_or(rate);
        let rate = schedule.rate_at(rate, &key).unwrap();
        if spec.noise.get(l) == Some(&Noise::Gaussian) {
            return Drawn::Gaussian(GaussianDropout::new(rate).unwrap(), key);
        }
        let dropout = Dropout::with_scaling(rate, spec.scaling).unwrap().with_key(key);
        match spec.granularity.get(l).unwrap_or(&Element) {
            Element => Drawn::Elements(dropout),
            Unit => Drawn::Units(KeptUnits::bernoulli(spec.sizes[l], &dropout).unwrap()),
            UnitExact => Drawn::Units(KeptUnits::exact(spec.sizes[l], &dropout).unwrap()),
            Granularity::Block { rows: g, units } => {
                let shape = BlockShape::new(*g, *units).unwrap();
                Drawn::Blocks(KeptBlocks::draw((rows, spec.sizes[l]), shape, &dropout).unwrap())
            }
            other => panic!("{other:?}"),
        }
    }

    fn side(&self) -> Side<'_> {
        match self {
            Drawn::Elements(dropout) => Side::Elements(*dropout),
            Drawn::Units(kept) => Side::Units(kept),
            Drawn::Blocks(kept) => Side::Blocks(kept),
            Drawn::Gaussian(..) => Side::Whole,
        }
    }

    /// What a layer reads of `x`, which is whole, or thinned where the layer before has done that.
    fn noisy(&self, x: MatRef<'_>) -> Vec<f32> {
        let (rows, cols) = (x.rows(), x.cols());
        let mut y: Vec<f32> =
            (0..rows * cols).map(|i| x.get(i / cols, i % cols).unwrap()).collect();
        if let Drawn::Gaussian(noise, key) = self {
            gaussian_dropout_forward((x, matrix_mut(&mut y, rows, cols)), &noise.with_key(*key))
                .unwrap();
        }
        y
    }
}

/// The logits of one pass: nothing is shared, and masks are made where outputs are.
fn separate_pass(mlp: &Mlp, x: MatRef<'_>, step: u32) -> Vec<f32> {
    let (spec, rows, count) = (mlp.spec(), x.rows(), mlp.layers().len());
    let drawn: Vec<_> = (0..count).map(|l| Drawn::new(spec, l, step, rows)).collect();
    let mut values = match &drawn[0] {
        Drawn::Units(kept) => {
            let mut gathered = vec![9.0; rows * kept.len()];
            gather_units(x, kept, matrix_mut(&mut gathered, rows, kept.len())).unwrap();
            gathered
        }
        Drawn::Blocks(kept) => (0..rows * x.cols())
            .map(|i| match kept.mask().get(i / x.cols(), i % x.cols()) {
                Some(true) => x.get(i / x.cols(), i % x.cols()).unwrap() * kept.scale(),
                _ => 0.0,
            })
            .collect(),
        other => other.noisy(x),
    };
    for (l, layer) in mlp.layers().iter().enumerate() {
        let input = match drawn[l].side() {
            Side::Elements(_) if l > 0 => Side::Whole,
            Side::Blocks(_) if l > 0 && spec.residual.get(l - 1) == Some(&true) => Side::Whole,
            side => side,
        };
        let output = drawn.get(l + 1).map_or(Side::Whole, Drawn::side);
        let width = |side, all| if let Side::Units(kept) = side { kept.len() } else { all };
        let (inputs, units) = (width(input, layer.inputs()), width(output, layer.units()));
        let w = matrix(layer.weights(), layer.inputs(), layer.units());
        let of_hidden = spec.activations.get(l).copied().unwrap_or(spec.activation);
        let activation = if l + 1 < count { of_hidden } else { Activation::Identity };
        let does = DenseLayer::new(activation).with_input(input).with_output(output);
        let x = matrix(&values, rows, inputs);
        let mut args = DenseArgs::new(does, x, w).with_bias(layer.bias());
        args.residual = (spec.residual.get(l) == Some(&true)).then_some(x);
        let mut y = vec![9.0; rows * units];
        dense_forward(&args, matrix_mut(&mut y, rows, units), None, MaskSource::Key).unwrap();
        values = match drawn.get(l + 1) {
            Some(noise) => noise.noisy(matrix(&y, rows, units)),
            None => y,
        };
    }
    values
}

fn softmax(logits: &[f32], classes: usize) -> Vec<f32> {
    let rows = logits.len() / classes;
    let mut p = vec![9.0; logits.len()];
    let args = SoftmaxDropout::new(KeyedDropout::NONE);
    let xy = (matrix(logits, rows, classes), matrix_mut(&mut p, rows, classes));
    softmax_dropout_forward(&args, xy, None, MaskSource::Key).unwrap();
    p
}

fn f64_bits(values: &[f64]) -> Vec<u64> {
    values.iter().map(|x| x.to_bits()).collect()
}

fn entropy(p: impl Iterator<Item = f64>) -> f64 {
    p.filter(|p| *p > 0.0).map(|p| -p * p.ln()).sum()
}

/// The formulas, from the probabilities of all members.
fn assert_summary(prediction: &Prediction, members: &[Vec<f32>], what: &str) {
    let (classes, n) = (prediction.classes(), members.len() as f64);
    assert_eq!(prediction.members(), members.len(), "{what}");
    let sum_of = |f: &dyn Fn(f64) -> f64| -> Vec<f64> {
        let of = |i: usize| members.iter().fold(0.0, |sum, p| sum + f(f64::from(p[i])));
        (0..members[0].len()).map(of).collect()
    };
    let mean: Vec<f64> = sum_of(&|p| p).iter().map(|sum| sum / n).collect();
    assert_eq!(f64_bits(&prediction.mean()), f64_bits(&mean), "mean, {what}");
    for (i, variance) in prediction.variance().into_iter().enumerate() {
        let distances = members.iter().map(|p| (f64::from(p[i]) - mean[i]).powi(2));
        let expected = distances.sum::<f64>() / n;
        assert!((variance - expected).abs() <= 1e-14, "{what}: {variance} is not {expected}");
    }
    let information = prediction.mutual_information();
    for (r, h) in prediction.entropy().into_iter().enumerate() {
        let row = r * classes..(r + 1) * classes;
        let expected = entropy(mean[row.clone()].iter().copied());
        assert!((h - expected).abs() <= 1e-14, "{what}: entropy {h}, not {expected}");
        let of_member = |p: &Vec<f32>| entropy(p[row.clone()].iter().map(|p| f64::from(*p)));
        let expected = expected - members.iter().map(of_member).sum::<f64>() / n;
        // Probabilities and logits are floats.
        let right = (information[r] - expected).abs() <= 2e-6 && information[r] >= 0.0;
        assert!(right, "{what}: mutual information {}, not {expected}", information[r]);
    }
}

#[test]
fn passes_are_separate_passes() {
    for (i, spec) in specs().into_iter().enumerate() {
        let mlp = Mlp::new(&spec).unwrap();
        let classes = spec.sizes[spec.sizes.len() - 1];
        // One row; several passes in a stack, and the last stack smaller; rows in several parts.
        for (rows, steps) in [(1, 3..7), (150, 0..5), (600, u32::MAX - 2..u32::MAX)] {
            let x = numbers(rows * SIZES[0], 5);
            let x = matrix(&x, rows, SIZES[0]);
            for_each_level(|level| {
                let what = format!("network {i}, {rows} rows on {level}");
                let logits: Vec<_> =
                    steps.clone().map(|step| separate_pass(&mlp, x, step)).collect();
                let members: Vec<_> = logits.iter().map(|z| softmax(z, classes)).collect();
                let prediction = predict(&mlp, x, steps.clone());
                assert_summary(&prediction, &members, &what);
                // The same as if the logits of the passes were added one by one.
                let mut added = Prediction::new(rows, classes).unwrap();
                for logits in &logits {
                    added.add(matrix(logits, rows, classes)).unwrap();
                }
                assert_eq!(prediction, added, "{what}");
                for threads in [2, 5] {
                    let run =
                        || testing::at_level(level, || predict(&mlp, x, steps.clone())).unwrap();
                    assert_eq!(with_threads(threads, run), prediction, "{what}, {threads} threads");
                }
            });
        }
    }
}

/// In each step, before its update: the loss that training has seen is that of the pass. What the network
/// has drawn for its last step does not matter.
#[test]
fn passes_are_those_of_training() {
    let (rows, labels) = (4, [0, 1, 2, 3]);
    let x = numbers(rows * SIZES[0], 4);
    let x = matrix(&x, rows, SIZES[0]);
    for (i, spec) in specs().into_iter().enumerate() {
        let mlp = Mlp::new(&spec).unwrap();
        for_each_level(|level| {
            let mut mlp = mlp.clone();
            for step in 0..5 {
                let what = format!("step {step} of network {i} on {level}");
                let logits = separate_pass(&mlp, x, step);
                let logits = matrix(&logits, rows, CLASSES);
                let mut added = Prediction::new(rows, CLASSES).unwrap();
                added.add(logits).unwrap();
                assert_eq!(predict(&mlp, x, step..step + 1), added, "{what}");
                let loss = softmax_cross_entropy(logits, &labels, None).unwrap().mean() as f32;
                let trained =
                    mlp.train_step(x, &labels, &Optimiser::new(SgdStep::new(0.05))).unwrap();
                assert_eq!(trained.to_bits(), loss.to_bits(), "{what}: {trained} is not {loss}");
            }
        });
    }
}

#[test]
fn passes_are_those_of_the_reference() {
    let (rows, steps) = (3, 2..6);
    let x = numbers(rows * SIZES[0], 6);
    let x = matrix(&x, rows, SIZES[0]);
    for (i, spec) in specs().into_iter().enumerate() {
        let mlp = Mlp::new(&spec).unwrap();
        let exact = reference::predict_monte_carlo::<f32>(&mlp, x, steps.clone()).unwrap();
        let wide = reference::predict_monte_carlo::<f64>(&mlp, x, steps.clone()).unwrap();
        for_each_level(|level| {
            let what = format!("network {i}");
            for (step, (exact, wide)) in steps.clone().zip(exact.iter().zip(&wide)) {
                let mean = predict(&mlp, x, step..step + 1).mean();
                let p: Vec<f32> = mean.iter().map(|p| *p as f32).collect();
                common::assert_same(level, &p, exact, (40, 0.1), &what);
                for (p, wide) in p.iter().zip(wide) {
                    let error = (f64::from(*p) - wide).abs();
                    assert!(error <= 2e-5, "{what} on {level}: {p} is not {wide}");
                }
            }
        });
    }
    let narrow = matrix(&[], 0, SIZES[0] - 1);
    let refused = reference::predict_monte_carlo::<f32>(&Mlp::new(&spec()).unwrap(), narrow, 0..1);
    assert!(matches!(refused, Err(Error::Mismatch { .. })));
}

#[test]
fn the_first_of_more_passes_are_those_of_fewer() {
    let x = numbers(9 * SIZES[0], 7);
    let x = matrix(&x, 9, SIZES[0]);
    for spec in specs() {
        let mlp = Mlp::new(&spec).unwrap();
        for_each_level(|_| {
            let all = predict(&mlp, x, 0..120);
            let mut parts = Prediction::new(9, all.classes()).unwrap();
            for (steps, members) in [(0..1, 1), (1..57, 57), (57..57, 57), (57..120, 120)] {
                mlp.predict_monte_carlo(x, steps, &mut parts).unwrap();
                assert_eq!(parts.members(), members);
                assert_eq!(parts, predict(&mlp, x, 0..members as u32));
            }
            assert_eq!(parts, all);
        });
    }
}

/// With logits near 0, softmax is linear: p(c) = 1/C + (z(c) - mean z) / C. Hence the mean over many
/// passes of a linear network is the prediction with scaled weights; and of one layer, whose input has
/// dropout or its Gaussian noise, the variance is
/// sum over i of x(i)² (w(i, c) - mean w(i))² · rate / (1 - rate) / C².
#[test]
fn moments_of_a_linear_network() {
    const PASSES: u32 = 4000;
    let x: Vec<f32> = numbers(6 * 20, 8).iter().map(|x| x * 2e-3).collect();
    let linear = spec().with_activation(Activation::Identity);
    let gaussian = |spec: MlpSpec| spec.with_noise(Noise::Gaussian);
    for scaling in [Scaling::Inverted, Scaling::Classical] {
        let spec = linear.clone().with_scaling(scaling);
        for spec in [spec.clone(), of_units(spec.clone(), Unit), gaussian(spec)] {
            let mlp = Mlp::new(&spec).unwrap();
            let prediction = predict(&mlp, matrix(&x, 6, 20), 0..PASSES);
            let mut logits = vec![9.0; 6 * CLASSES];
            mlp.predict(matrix(&x, 6, 20), matrix_mut(&mut logits, 6, CLASSES)).unwrap();
            let scaled = softmax(&logits, CLASSES);
            let moments = prediction.mean().into_iter().zip(prediction.variance());
            for (i, ((mean, variance), scaled)) in moments.zip(scaled).enumerate() {
                let distance = (mean - f64::from(scaled)).abs();
                // The second term of softmax is of the order of the first one's square; and rounding.
                let bound = 6.5 * (variance / f64::from(PASSES)).sqrt() + 10.0 * variance + 1e-7;
                assert!(distance <= bound, "element {i}: {mean} and {scaled}, {distance} {bound}");
                assert!(variance > 1e-9, "element {i}: {variance}");
            }
        }
    }
    let mut layer = linear;
    layer.sizes = vec![20, CLASSES];
    for spec in [layer.clone(), gaussian(layer)] {
        let mlp = Mlp::new(&spec).unwrap();
        let prediction = predict(&mlp, matrix(&x, 6, 20), 0..PASSES);
        let weights = mlp.layers()[0].weights();
        for (i, variance) in prediction.variance().into_iter().enumerate() {
            let (x, c) = (&x[i / CLASSES * 20..][..20], i % CLASSES);
            let term = |(x, w): (&f32, &[f32])| {
                let distance = w[c] - w.iter().sum::<f32>() / CLASSES as f32;
                f64::from(x * distance).powi(2)
            };
            let sum: f64 = x.iter().zip(weights.chunks(CLASSES)).map(term).sum();
            let expected = sum * 0.25 / (CLASSES * CLASSES) as f64;
            // The variance of so many passes has a relative deviation of about sqrt(2 / 4000) = 2.2 %.
            assert!((variance / expected - 1.0).abs() < 0.15, "element {i}: {variance} {expected}");
        }
    }
}

#[test]
fn without_dropout_all_passes_are_the_prediction() {
    let x = numbers(7 * SIZES[0], 9);
    let x = matrix(&x, 7, SIZES[0]);
    let mlp = Mlp::new(&spec().with_input_rate(0.0).with_hidden_rate(0.0)).unwrap();
    let mut logits = vec![9.0; 7 * CLASSES];
    mlp.predict(x, matrix_mut(&mut logits, 7, CLASSES)).unwrap();
    let prediction = predict(&mlp, x, 0..8);
    let mean: Vec<f32> = prediction.mean().iter().map(|p| *p as f32).collect();
    assert_eq!(bits(&mean), bits(&softmax(&logits, CLASSES)));
    assert!(prediction.variance().iter().all(|variance| *variance <= 1e-15));
    assert!(prediction.mutual_information().iter().all(|information| *information <= 1e-6));
    // At rate 1 nothing is left: all logits are the last biases, which are 0.
    let mlp = Mlp::new(&spec().with_hidden_rate(1.0)).unwrap();
    let prediction = predict(&mlp, x, 0..8);
    assert!(prediction.mean().iter().all(|p| (p - 0.2).abs() < 1e-7));
}

#[test]
fn wrong_input_is_an_error_and_changes_nothing() {
    let mlp = Mlp::new(&spec()).unwrap();
    let x = numbers(4 * SIZES[0], 1);
    let mut prediction = predict(&mlp, matrix(&x, 4, SIZES[0]), 0..3);
    let before = prediction.clone();
    let mut refuse = |x: MatRef<'_>, logits: MatRef<'_>| {
        let errors = [
            mlp.predict_monte_carlo(x, 0..5, &mut prediction).unwrap_err(),
            prediction.add(logits).unwrap_err(),
        ];
        assert_eq!(prediction, before, "{errors:?}");
        errors.map(|error| error.to_string())
    };
    let logits = |rows, classes| matrix(&x, rows, classes);
    let [error, _] = refuse(matrix(&x, 4, SIZES[0] - 1), logits(3, CLASSES));
    assert!(error.contains("19") && error.contains("20"), "{error}");
    let [error, other] = refuse(matrix(&x, 3, SIZES[0]), logits(4, CLASSES - 1));
    for (error, shape) in [(error, "3 x 5"), (other, "4 x 4")] {
        assert!(error.contains(shape) && error.contains("the prediction is 4 x 5"), "{error}");
    }
    let none = Prediction::new(4, 0);
    assert!(matches!(none, Err(Error::Parameter { name: "number of classes", .. })));
    assert!(matches!(Prediction::new(usize::MAX / 2, 9), Err(Error::Overflow { .. })));
    let labels = |labels: &[u32]| before.errors(labels, Combination::Average);
    assert!(matches!(labels(&[1, 2, 3]), Err(Error::Mismatch { .. })));
    assert!(matches!(labels(&[1, 2, 3, 5]), Err(Error::Label { index: 3, .. })));
}

#[test]
fn votes_and_their_ties() {
    use Combination::{Average, MajorityVote};
    let of = |members: &[[f32; 3]]| {
        let mut prediction = Prediction::new(1, 3).unwrap();
        for logits in members {
            prediction.add(matrix(logits, 1, 3)).unwrap();
        }
        let labels = [Average, MajorityVote].map(|how| prediction.labels(how)[0].unwrap());
        let errors = [Average, MajorityVote].map(|how| prediction.errors(&[1], how).unwrap());
        assert_eq!(errors, labels.map(|label| usize::from(label != 1)));
        (labels, prediction.votes().to_vec())
    };
    // Two weak votes against a strong one: the average and the majority disagree.
    let strong = [0.0, 9.0, 0.0];
    assert_eq!(of(&[[0.1, 0.0, 0.0], [0.1, 0.0, 0.0], strong]), ([1, 0], vec![2, 1, 0]));
    // As many votes: the larger mean, wherever it is.
    assert_eq!(of(&[[0.1, 0.0, 0.0], strong]), ([1, 1], vec![1, 1, 0]));
    assert_eq!(of(&[[9.0, 0.0, 0.0], [0.0, 0.1, 0.0]]), ([0, 0], vec![1, 1, 0]));
    // A class without votes does not win with the largest mean.
    let pair = [[5.0, 4.9, -9.0], [-9.0, 4.9, 5.0]];
    assert_eq!(of(&pair), ([1, 0], vec![1, 0, 1]));
    // As many votes and the same mean: the first. A member's equals: the first too.
    assert_eq!(of(&[[0.0, 0.0, 3.0], [0.0, 3.0, 0.0]]), ([1, 1], vec![0, 1, 1]));
    assert_eq!(of(&[[2.0, 2.0, 2.0]]), ([0, 0], vec![1, 0, 0]));
    assert_eq!(of(&[]), ([0, 0], vec![0, 0, 0]));
}

#[test]
fn uncertainty_and_its_parts() {
    let of = |members: &[[f32; 2]]| {
        let mut prediction = Prediction::new(1, 2).unwrap();
        for logits in members {
            prediction.add(matrix(logits, 1, 2)).unwrap();
        }
        let mean = prediction.mean()[0];
        (
            mean,
            prediction.variance()[0],
            prediction.entropy()[0],
            prediction.mutual_information()[0],
        )
    };
    let (never, ln2) = (f32::NEG_INFINITY, std::f64::consts::LN_2);
    // Members that know nothing; members that are sure and agree; members that are sure and do not.
    assert_eq!(of(&[[1.0, 1.0], [3.0, 3.0]]), (0.5, 0.0, ln2, 0.0));
    assert_eq!(of(&[[0.0, never], [7.0, never]]), (1.0, 0.0, 0.0, 0.0));
    assert_eq!(of(&[[0.0, never], [never, 7.0]]), (0.5, 0.25, ln2, ln2));
    // Nobody; all logits -infinity, which are probabilities of 0; NaN.
    assert_eq!(of(&[]), (0.0, 0.0, 0.0, 0.0));
    assert_eq!(of(&[[never, never]]), (0.0, 0.0, 0.0, 0.0));
    let (mean, variance, entropy, information) = of(&[[0.0, 1.0], [f32::NAN, 1.0]]);
    assert!([mean, variance, entropy, information].iter().all(|x| x.is_nan()));
}
