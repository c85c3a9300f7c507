//! Numbers that are not finite: a step that meets one changes nothing, and a prediction that is one is
//! an error and no class.

use fused_dropout::nn::{Combination, Mlp, MlpSpec, Optimiser, Prediction};
use fused_dropout::update::SgdStep;
use fused_dropout::{Activation, Error};

use super::common::{bits, for_each_level, matrix, matrix_mut, numbers};
use super::{parameters, sgd};

const SIZES: [usize; 4] = [12, 20, 15, 5];
const BATCH: usize = 9;

fn spec() -> MlpSpec {
    MlpSpec::new(&SIZES).with_input_rate(0.2).with_hidden_rate(0.5).with_seed(5)
}

fn labels() -> Vec<u32> {
    (0..BATCH as u32).map(|i| i % 5).collect()
}

/// Refuses the step `x` and `labels` as one without a finite loss; then takes a step, and asserts that
/// both networks, one of which has never seen the refused one, go on alike. Momentum puts the velocities
/// into the weights.
fn assert_refused(mlp: &mut Mlp, x: &[f32], labels: &[u32], sgd: &Optimiser) -> f64 {
    let mut other = mlp.clone();
    let (rows, inputs) = (labels.len(), mlp.spec().sizes[0]);
    let before = bits(&parameters(mlp));
    let error = mlp.train_step(matrix(x, rows, inputs), labels, sgd).unwrap_err();
    assert_eq!(bits(&parameters(mlp)), before, "{error}");
    assert_eq!(mlp.steps(), other.steps(), "{error}");
    let Error::Loss { step, loss } = error else { panic!("{error}") };
    assert_eq!(step, other.steps());
    assert!(!loss.is_finite(), "{loss}");
    let text = error.to_string();
    assert!(text.contains(&format!("step {step}")) && text.contains(&loss.to_string()), "{text}");

    let x = numbers(2 * inputs, 7);
    for _ in 0..2 {
        let steps = [&mut *mlp, &mut other]
            .map(|mlp| mlp.train_step(matrix(&x, 2, inputs), &labels[..2], sgd).unwrap().to_bits());
        assert_eq!(steps[0], steps[1], "losses after {text}");
        assert_eq!(bits(&parameters(mlp)), bits(&parameters(&other)), "weights after {text}");
    }
    loss
}

#[test]
fn a_step_whose_loss_is_nan_changes_nothing() {
    let x = numbers(BATCH * SIZES[0], 3);
    for activation in [Activation::Relu, Activation::Silu] {
        for_each_level(|_| {
            let mut mlp = Mlp::new(&spec().with_activation(activation)).unwrap();
            for steps in 0..3 {
                let mut bad = x.clone();
                // All of an example, so that some of it is kept.
                bad[4 * SIZES[0]..5 * SIZES[0]].fill(f32::NAN);
                let loss = assert_refused(&mut mlp, &bad, &labels(), &sgd());
                assert!(loss.is_nan(), "{activation}");
                assert_eq!(mlp.steps(), 2 * steps + 2);
            }
        });
    }
}

/// A label's logit that overflows to -infinity beside others that are finite has an infinite loss.
#[test]
fn a_step_whose_loss_is_infinite_changes_nothing() {
    let spec = |seed| MlpSpec::new(&[1, 10]).with_seed(seed);
    // Weights of which one is below -1 and none is above 1: f32::MAX times them.
    let (mut mlp, label) = (0..)
        .find_map(|seed| {
            let mlp = Mlp::new(&spec(seed)).unwrap();
            let weights = mlp.layers()[0].weights();
            let label = weights.iter().position(|w| *w < -1.0)?;
            weights.iter().all(|w| *w < 1.0).then(|| (mlp.clone(), label as u32))
        })
        .unwrap();
    for_each_level(|_| {
        let mut mlp = mlp.clone();
        let loss = assert_refused(&mut mlp, &[0.5, f32::MAX], &[0, label], &sgd());
        assert_eq!(loss, f64::INFINITY);
    });
    // The loss of another label is finite, and so is that of another example.
    let other = mlp.layers()[0].weights().iter().position(|w| *w > 0.0).unwrap() as u32;
    let loss = mlp.evaluate(matrix(&[f32::MAX], 1, 1), &[other]).unwrap();
    assert!(loss.mean().is_finite());
    mlp.train_step(matrix(&[1.0], 1, 1), &[label], &sgd()).unwrap();
}

/// A loss that is finite in f64 and no finite f32 is one too: logits of f32::MAX times weights near -1
/// and 1.
#[test]
fn a_step_whose_loss_exceeds_f32_changes_nothing() {
    let (mut mlp, low) = (0..)
        .find_map(|seed| {
            let mlp = Mlp::new(&MlpSpec::new(&[1, 10]).with_seed(seed)).unwrap();
            let weights = mlp.layers()[0].weights();
            let within = weights.iter().all(|w| w.abs() < 1.0);
            let low = weights.iter().position(|w| *w < -0.6)?;
            (within && weights.iter().any(|w| *w > 0.6)).then(|| (mlp.clone(), low as u32))
        })
        .unwrap();
    let loss = mlp.evaluate(matrix(&[f32::MAX], 1, 1), &[low]).unwrap();
    assert!(loss.mean().is_finite() && loss.mean() > f64::from(f32::MAX));
    assert_refused(&mut mlp, &[f32::MAX; 2], &[low; 2], &sgd());
}

/// Training with a learning rate that is far too large ends with an error, not with weights that are NaN.
#[test]
fn training_that_diverges_ends_with_an_error() {
    let x = numbers(BATCH * SIZES[0], 3);
    let x = matrix(&x, BATCH, SIZES[0]);
    // An activation under which no unit dies, and all grow.
    let mut mlp = Mlp::new(&spec().with_activation(Activation::Identity)).unwrap();
    let error = (0..100).find_map(|_| {
        let before = mlp.clone();
        let error = mlp.train_step(x, &labels(), &Optimiser::new(SgdStep::new(1e20))).err()?;
        assert_eq!(bits(&parameters(&mlp)), bits(&parameters(&before)));
        Some((error, before.steps()))
    });
    let Some((Error::Loss { step, loss }, steps)) = error else { panic!("{error:?}") };
    assert_eq!((step, steps), (mlp.steps(), mlp.steps()));
    assert!(!loss.is_finite(), "{loss}");
}

#[test]
fn logits_that_are_nan_are_errors_and_no_class() {
    let (x, labels) = (vec![f32::NAN; BATCH * SIZES[0]], labels());
    let x = matrix(&x, BATCH, SIZES[0]);
    for_each_level(|level| {
        let mlp = Mlp::new(&spec()).unwrap();
        let mut logits = vec![9.0; BATCH * SIZES[3]];
        mlp.predict(x, matrix_mut(&mut logits, BATCH, SIZES[3])).unwrap();
        assert!(logits.iter().all(|z| z.is_nan()), "{level}");
        // Whatever the label is: 0 is the first of equals among others.
        for labels in [&labels, &vec![0; BATCH], &vec![4; BATCH]] {
            let loss = mlp.evaluate(x, labels).unwrap();
            assert_eq!((loss.errors, loss.examples), (BATCH, BATCH), "{level}");
            assert_eq!(loss.error_rate(), 1.0, "{level}");
            assert!(loss.mean().is_nan(), "{level}");
        }

        // The first and the last example are finite, the others are not.
        let (first, last) = (0, BATCH - 1);
        for row in [first, last] {
            logits[row * SIZES[3]..(row + 1) * SIZES[3]]
                .copy_from_slice(&[0.0, 1.0, 5.0, 2.0, 3.0]);
        }
        let mut prediction = Prediction::new(BATCH, SIZES[3]).unwrap();
        for _ in 0..2 {
            prediction.add(matrix(&logits, BATCH, SIZES[3])).unwrap();
        }
        for how in [Combination::Average, Combination::MajorityVote] {
            let classes = prediction.labels(how);
            for (row, class) in classes.iter().enumerate() {
                let expected = (row == first || row == last).then_some(2);
                assert_eq!(*class, expected, "{how:?} of example {row} on {level}");
            }
            // The label of the first example is 0, that of the last one 3: all are errors.
            assert_eq!(prediction.errors(&labels, how), Ok(BATCH), "{how:?} on {level}");
            assert_eq!(prediction.errors(&[2; BATCH], how), Ok(BATCH - 2), "{how:?}");
        }
        let mean = prediction.mean();
        assert!(mean[..SIZES[3]].iter().all(|p| p.is_finite()), "{level}");
        assert!(mean[SIZES[3]..2 * SIZES[3]].iter().all(|p| p.is_nan()), "{level}");
    });
}
