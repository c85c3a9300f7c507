//! Resume is uninterrupted, bit for bit: every optimiser, kind of noise and level.

use fused_dropout::mask::RateSchedule;
use fused_dropout::nn::{
    Dense, DenseState, Granularity, LearningRateSchedule, Mlp, MlpSpec, Noise, Optimiser,
    Prediction, StepRate,
};
use fused_dropout::update::{AdamStep, SgdStep};
use fused_dropout::{Activation, Level, MatMut, Scaling, testing};

use crate::common::{matrix, numbers};
use crate::{with_moments, with_velocity};

const SIZES: [usize; 5] = [20, 33, 33, 33, 7];
const BATCH: usize = 19;

/// Steps before and after the checkpoint.
const HALF: u32 = 3;

fn optimisers() -> [Optimiser; 7] {
    let sgd = SgdStep::new(0.05);
    let adam = AdamStep::new(0.01);
    [
        Optimiser::new(sgd),
        Optimiser::new(sgd.with_momentum(0.9).with_weight_decay(1e-3)).with_max_norm(1.5),
        Optimiser::new(sgd.with_momentum(0.8).with_nesterov().with_l1(1e-4)).with_clip_norm(0.5),
        Optimiser::new(adam).with_warm_up(4),
        Optimiser::new(adam.with_l2(0.05)),
        Optimiser::new(adam.with_weight_decay(0.05))
            .with_schedule(LearningRateSchedule::Cosine { steps: 9 }),
        Optimiser::new(sgd.with_nesterov())
            .with_schedule(LearningRateSchedule::Linear { steps: 8 }),
    ]
}

fn specs() -> Vec<MlpSpec> {
    let spec = MlpSpec::new(&SIZES).with_input_rate(0.2).with_hidden_rate(0.5).with_seed(11);
    let rise = StepRate::Scheduled(RateSchedule::Linear { from: 0.1, steps: 5 });
    let curriculum = StepRate::Scheduled(RateSchedule::Curriculum { gamma: 0.3 });
    vec![
        spec.clone(),
        spec.clone().with_scaling(Scaling::Classical).with_schedule(rise),
        spec.clone().with_activation(Activation::Gelu).with_noise(Noise::Gaussian),
        spec.clone().with_noise(Noise::Gaussian).with_schedule(curriculum),
        spec.clone().with_granularity(Granularity::Unit).with_scaling(Scaling::Classical),
        spec.clone()
            .with_granularity(Granularity::UnitExact)
            .with_input_granularity(Granularity::Unit)
            .with_schedule(StepRate::Drawn),
        spec.clone()
            .with_activations(&[
                Activation::Silu,
                Activation::LeakyRelu { slope: 0.1 },
                Activation::Selu,
            ])
            .with_rates(&[0.1, 0.0, 0.4, 0.6]),
        spec.clone().with_granularity(Granularity::Block { rows: 4, units: 6 }),
        spec.with_activation(Activation::Tanh).with_residual(&[false, true, true]),
    ]
}

fn train(mlp: &mut Mlp, optimiser: &Optimiser, steps: u32) {
    for _ in 0..steps {
        let seed = u64::from(mlp.steps());
        let labels: Vec<u32> = (0..BATCH as u32).map(|i| (i * 5 + seed as u32) % 7).collect();
        let x = numbers(BATCH * SIZES[0], seed);
        mlp.train_step(matrix(&x, BATCH, SIZES[0]), &labels, optimiser).unwrap();
    }
}

fn saved_and_loaded(mlp: &Mlp) -> Mlp {
    Mlp::from_bytes(&mlp.to_bytes().unwrap()).unwrap()
}

/// The same network makes the same bytes, so bytes tell whether two networks are the same.
#[track_caller]
fn assert_same(a: &Mlp, b: &Mlp, what: &str) {
    assert!(a.to_bytes() == b.to_bytes(), "{what}");
}

fn fused_levels() -> Vec<Level> {
    Level::available().filter(|level| level.has_fma()).collect()
}

#[test]
fn a_network_that_was_saved_goes_on_bit_for_bit() {
    for spec in specs() {
        for optimiser in optimisers() {
            let what = format!("{spec:?}, {optimiser:?}");
            let mut whole = Mlp::new(&spec).unwrap();
            let untouched = saved_and_loaded(&whole);
            assert_same(&whole, &untouched, &what);
            train(&mut whole, &optimiser, HALF);
            let mut resumed = saved_and_loaded(&whole);
            assert_eq!(resumed.spec(), &spec);
            assert_eq!(resumed.steps(), HALF);
            assert_eq!(resumed.moment_steps(), whole.moment_steps());
            train(&mut whole, &optimiser, HALF);
            train(&mut resumed, &optimiser, HALF);
            assert_same(&whole, &resumed, &what);
            predicts_the_same(&mut whole, &mut resumed);
        }
    }
}

/// With and without dropout.
fn predicts_the_same(a: &mut Mlp, b: &mut Mlp) {
    let x = numbers(5 * SIZES[0], 77);
    let x = matrix(&x, 5, SIZES[0]);
    let predict = |mlp: &Mlp| {
        let mut y = [0.0; 5 * 7];
        mlp.predict(x, MatMut::new(&mut y, 5, 7).unwrap()).unwrap();
        let mut prediction = Prediction::new(5, 7).unwrap();
        mlp.predict_monte_carlo(x, 50..53, &mut prediction).unwrap();
        (y.map(f32::to_bits), format!("{prediction:?}"))
    };
    assert_eq!(predict(a), predict(b));
}

/// A checkpoint knows nothing of the instruction set that made it.
#[test]
fn a_network_goes_on_at_another_level() {
    for (spec, optimiser) in specs().iter().zip(optimisers().iter().cycle()) {
        let at = |level, mlp: &mut Mlp| {
            testing::at_level(level, || train(mlp, optimiser, HALF)).unwrap();
        };
        let levels = fused_levels();
        for before in &levels {
            let mut whole = Mlp::new(spec).unwrap();
            at(*before, &mut whole);
            let half = whole.to_bytes().unwrap();
            at(*before, &mut whole);
            for after in &levels {
                let mut resumed = Mlp::from_bytes(&half).unwrap();
                at(*after, &mut resumed);
                assert_same(&whole, &resumed, &format!("{before}, then {after}: {spec:?}"));
            }
        }
    }
    // Without fused multiply-add the bits are others, but the same before and after.
    testing::at_level(Level::Portable, || {
        let mut whole = Mlp::new(&specs()[0]).unwrap();
        train(&mut whole, &optimisers()[3], HALF);
        let mut resumed = saved_and_loaded(&whole);
        train(&mut whole, &optimisers()[3], HALF);
        train(&mut resumed, &optimisers()[3], HALF);
        assert_same(&whole, &resumed, "portable");
    })
    .unwrap();
}

/// Moments that plain gradient descent leaves alone, and layers that keep different things.
#[test]
fn mixed_states_are_kept() {
    let [plain, sgd, _, adam, ..] = optimisers();
    let mut mlp = Mlp::new(&specs()[0]).unwrap();
    train(&mut mlp, &adam, HALF);
    train(&mut mlp, &plain, 1);
    let mut resumed = saved_and_loaded(&mlp);
    assert_eq!((resumed.steps(), resumed.moment_steps()), (HALF + 1, HALF));
    train(&mut mlp, &adam, 1);
    train(&mut resumed, &adam, 1);
    assert_same(&mlp, &resumed, "Adam, a step of gradient descent, Adam");

    // A last layer for other classes, say, which has no state yet.
    train(&mut mlp, &sgd, 1);
    let weights = numbers(33 * 7, 4);
    mlp.replace_layer(3, Dense::new(33, 7, &weights, &[0.0; 7]).unwrap()).unwrap();
    let resumed = saved_and_loaded(&mlp);
    assert!(matches!(resumed.layers()[2].state(), DenseState::Velocity(_)));
    assert_eq!(resumed.layers()[3].state(), DenseState::None);
    for optimiser in [sgd, adam, plain] {
        let (mut a, mut b) = (mlp.clone(), resumed.clone());
        train(&mut a, &optimiser, 2);
        train(&mut b, &optimiser, 2);
        assert_same(&a, &b, &format!("{optimiser:?}"));
    }
}

/// Counters to their ends, and numbers of any bits.
#[test]
fn extreme_numbers_are_kept() {
    let mut mlp = with_moments();
    mlp.set_steps(u32::MAX, u32::MAX - 1);
    let special = [f32::NAN, f32::INFINITY, -0.0, 1e-45, f32::from_bits(0x7f80_0001)];
    for (weights, bias) in mlp.parameters_mut() {
        for (w, value) in weights.iter_mut().chain(bias).zip(special.iter().cycle()) {
            *w = *value;
        }
    }
    let loaded = saved_and_loaded(&mlp);
    assert_eq!((loaded.steps(), loaded.moment_steps()), (u32::MAX, u32::MAX - 1));
    let bits = |mlp: &Mlp| -> Vec<u32> {
        mlp.layers().iter().flat_map(|l| l.weights()).map(|w| w.to_bits()).collect()
    };
    assert_eq!(bits(&mlp), bits(&loaded));
    let rates = [1e-300, 0.1 + 0.2];
    let spec = MlpSpec::new(&[2, 2, 2]).with_rates(&rates).with_seed(u64::MAX);
    assert_eq!(saved_and_loaded(&Mlp::new(&spec).unwrap()).spec(), &spec);
}

/// The header to the letter: what other programs read.
#[test]
fn the_header_is_known() {
    let spec = concat!(
        r#"{\"sizes\":[3,4,2],\"activation\":\"relu\",\"input_rate\":0.0,\"hidden_rate\":0.5,"#,
        r#"\"input_schedule\":{\"scheduled\":\"constant\"},"#,
        r#"\"hidden_schedule\":{\"scheduled\":\"constant\"},"#,
        r#"\"granularity\":[],\"noise\":[],\"activations\":[],\"rates\":[],\"residual\":[],"#,
        r#"\"scaling\":\"inverted\",\"seed\":5}"#,
    );
    let metadata = |moment_steps, state| {
        format!(
            r#"{{"__metadata__":{{"format":"fused-dropout","format_version":"1","moment_steps":"{moment_steps}","spec":"{spec}","state":"[\"{state}\",\"{state}\"]","steps":"1"}},"#
        )
    };
    let velocity = concat!(
        r#""layers.0.weight":{"dtype":"F32","shape":[3,4],"data_offsets":[0,48]},"#,
        r#""layers.0.bias":{"dtype":"F32","shape":[4],"data_offsets":[48,64]},"#,
        r#""layers.0.weight.velocity":{"dtype":"F32","shape":[3,4],"data_offsets":[64,112]},"#,
        r#""layers.0.bias.velocity":{"dtype":"F32","shape":[4],"data_offsets":[112,128]},"#,
        r#""layers.1.weight":{"dtype":"F32","shape":[4,2],"data_offsets":[128,160]},"#,
        r#""layers.1.bias":{"dtype":"F32","shape":[2],"data_offsets":[160,168]},"#,
        r#""layers.1.weight.velocity":{"dtype":"F32","shape":[4,2],"data_offsets":[168,200]},"#,
        r#""layers.1.bias.velocity":{"dtype":"F32","shape":[2],"data_offsets":[200,208]}}"#,
    );
    let bytes = with_velocity().to_bytes().unwrap();
    let text = metadata(0, "velocity") + velocity;
    let len = text.len().next_multiple_of(8);
    assert_eq!(bytes[..8], (len as u64).to_le_bytes());
    assert_eq!(str::from_utf8(&bytes[8..8 + len]).unwrap().trim_end(), text);
    assert_eq!(bytes.len(), 8 + len + 208);
    // Weights are little-endian, row after row, where the header says.
    let mlp = with_velocity();
    for (number, expected) in bytes[8 + len..].chunks(4).zip(mlp.layers()[0].weights()) {
        assert_eq!(number, expected.to_le_bytes());
    }

    let bytes = with_moments().to_bytes().unwrap();
    let header = String::from_utf8_lossy(&bytes);
    assert!(header[8..].starts_with(&metadata(1, "moments")));
    for name in ["weight.first_moment", "weight.second_moment"] {
        assert!(header.contains(&format!(r#""layers.1.{name}":{{"dtype":"F32","shape":[4,2],"#)));
    }
    for name in ["bias.first_moment", "bias.second_moment"] {
        assert!(header.contains(&format!(r#""layers.0.{name}":{{"dtype":"F32","shape":[4],"#)));
    }
}
