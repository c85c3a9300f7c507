//! Specs and options in the formats of serde: all variants there and back, the names that files have, and
//! what is refused.

#![cfg(feature = "serde")]

use std::fmt::Debug;

use fused_dropout::mask::RateSchedule;
use fused_dropout::nn::{
    Granularity, LearningRateSchedule, Mlp, MlpSpec, Noise, Optimiser, StepRate,
};
use fused_dropout::update::{AdamStep, SgdStep, Step};
use fused_dropout::{Activation, Error, Scaling};
use proptest::prelude::*;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{from_str, to_string};

#[track_caller]
fn there_and_back<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: T) {
    let json = to_string(&value).unwrap();
    let back: T = from_str(&json).unwrap_or_else(|error| panic!("{json}: {error}"));
    assert_eq!(value, back, "{json}");
    assert_eq!(to_string(&back).unwrap(), json);
}

#[track_caller]
fn is_called<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: T, json: &str) {
    assert_eq!(to_string(&value).unwrap(), json);
    there_and_back(value);
}

#[test]
fn every_variant_has_a_name() {
    for (value, json) in [
        (Activation::Identity, r#""identity""#),
        (Activation::Relu, r#""relu""#),
        (Activation::LeakyRelu { slope: 0.1 }, r#"{"leaky-relu":{"slope":0.1}}"#),
        (Activation::Sigmoid, r#""sigmoid""#),
        (Activation::Tanh, r#""tanh""#),
        (Activation::Gelu, r#""gelu""#),
        (Activation::GeluTanh, r#""gelu-tanh""#),
        (Activation::Silu, r#""silu""#),
        (Activation::Selu, r#""selu""#),
    ] {
        is_called(value, json);
        assert!(json.contains(value.name()), "{json}: the name on a command line is another");
    }
    is_called(Scaling::Inverted, r#""inverted""#);
    is_called(Scaling::Classical, r#""classical""#);
    is_called(Granularity::Element, r#""element""#);
    is_called(Granularity::Unit, r#""unit""#);
    is_called(Granularity::UnitExact, r#""unit-exact""#);
    is_called(Granularity::Block { rows: 16, units: 8 }, r#"{"block":{"rows":16,"units":8}}"#);
    is_called(Noise::Dropout, r#""dropout""#);
    is_called(Noise::Gaussian, r#""gaussian""#);
    is_called(StepRate::Drawn, r#""drawn""#);
    is_called(StepRate::Scheduled(RateSchedule::Constant), r#"{"scheduled":"constant"}"#);
    is_called(
        RateSchedule::Linear { from: 0.25, steps: 9 },
        r#"{"linear":{"from":0.25,"steps":9}}"#,
    );
    is_called(RateSchedule::Curriculum { gamma: 1e-3 }, r#"{"curriculum":{"gamma":0.001}}"#);
    is_called(LearningRateSchedule::Constant, r#""constant""#);
    is_called(LearningRateSchedule::Linear { steps: 7 }, r#"{"linear":{"steps":7}}"#);
    is_called(
        LearningRateSchedule::Cosine { steps: u32::MAX },
        r#"{"cosine":{"steps":4294967295}}"#,
    );
}

#[test]
fn updates_and_optimisers() {
    let sgd = SgdStep::new(0.05).with_momentum(0.9).with_weight_decay(1e-4).with_l1(1e-5);
    let adam = AdamStep::new(1e-3).with_betas(0.9, 0.98).with_epsilon(1e-7).at_step(5);
    is_called(
        Step::Sgd(sgd.with_nesterov()),
        r#"{"sgd":{"learning_rate":0.05,"momentum":0.9,"weight_decay":0.0001,"l1":0.00001,"nesterov":true}}"#,
    );
    is_called(
        Step::Adam(adam.with_weight_decay(0.01)),
        r#"{"adam":{"learning_rate":0.001,"beta1":0.9,"beta2":0.98,"epsilon":1e-7,"weight_decay":0.01,"decoupled":true,"step":5}}"#,
    );
    there_and_back(sgd);
    there_and_back(adam.with_l2(0.1));
    there_and_back(Optimiser::new(sgd));
    there_and_back(
        Optimiser::new(adam)
            .with_max_norm(1.5)
            .with_clip_norm(0.1)
            .with_schedule(LearningRateSchedule::Cosine { steps: 100 })
            .with_warm_up(10),
    );
}

#[test]
fn specs() {
    is_called(
        MlpSpec::new(&[4, 3, 2]).with_seed(u64::MAX),
        r#"{"sizes":[4,3,2],"activation":"relu","input_rate":0.0,"hidden_rate":0.0,"input_schedule":{"scheduled":"constant"},"hidden_schedule":{"scheduled":"constant"},"granularity":[],"noise":[],"activations":[],"rates":[],"residual":[],"scaling":"inverted","seed":18446744073709551615}"#,
    );
    let spec = MlpSpec::new(&[4, 3, 3, 2]);
    there_and_back(
        spec.clone()
            .with_granularity(Granularity::UnitExact)
            .with_input_granularity(Granularity::Unit)
            .with_input_schedule(StepRate::Drawn)
            .with_hidden_schedule(StepRate::Scheduled(RateSchedule::Linear { from: 0.1, steps: 3 }))
            .with_scaling(Scaling::Classical),
    );
    there_and_back(
        spec.with_noise(Noise::Gaussian)
            .with_activations(&[Activation::Gelu, Activation::LeakyRelu { slope: 0.3 }])
            .with_rates(&[0.1, 0.2, 0.3])
            .with_residual(&[false, true])
            .with_schedule(StepRate::Scheduled(RateSchedule::Curriculum { gamma: 0.7 })),
    );
}

/// What is misspelt, or of a newer version, is not passed over.
#[test]
fn unknown_names_are_refused() {
    let refused = |text: &str, word: &str| {
        let error = from_str::<MlpSpec>(text).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    };
    let spec = to_string(&MlpSpec::new(&[4, 2])).unwrap();
    refused(&spec.replace("input_rate", "input_rates"), "input_rates");
    refused(&spec.replace("\"seed\":0", "\"seed\":0,\"seed\":0"), "duplicate");
    refused(&spec.replace("\"relu\"", "\"softplus\""), "softplus");
    refused(&spec.replace("\"relu\"", "{\"leaky-relu\":{\"slope\":0.1,\"end\":1}}"), "end");
    refused(&spec.replace("\"seed\":0", "\"seed\":-1"), "-1");
    refused(&spec.replace("\"input_rate\":0.0,", ""), "input_rate");
    assert!(from_str::<Optimiser>("{}").is_err());
    assert!(from_str::<LearningRateSchedule>(r#"{"linear":{"steps":7,"to":0}}"#).is_err());
}

/// What no network can be is refused when the network is made.
#[test]
fn numbers_are_checked_where_they_are_used() {
    let spec = to_string(&MlpSpec::new(&[4, 3, 2])).unwrap();
    let says = |from: &str, to: &str| {
        assert!(spec.contains(from), "{from}");
        Mlp::new(&from_str(&spec.replace(from, to)).unwrap()).unwrap_err()
    };
    assert_eq!(says("\"input_rate\":0.0", "\"input_rate\":1.5"), Error::Rate { rate: 1.5 });
    assert!(matches!(says("[4,3,2]", "[4,0,2]"), Error::Parameter { name: "size of a layer", .. }));
    assert!(matches!(says("[4,3,2]", "[]"), Error::Parameter { name: "number of sizes", .. }));
    let slope = "\"activation\":{\"leaky-relu\":{\"slope\":-1}}";
    let slope = says("\"activation\":\"relu\"", slope);
    assert!(matches!(slope, Error::Parameter { name: "slope", .. }));
    let gamma = "{\"scheduled\":{\"curriculum\":{\"gamma\":-1}}}";
    assert!(matches!(says("{\"scheduled\":\"constant\"}", gamma), Error::Parameter { .. }));
}

proptest! {
    /// Every finite number comes back with its bits.
    #[test]
    fn numbers_are_exact(a: u64, b: u64, c: u32, seed: u64) {
        let (a, b, c) = (f64::from_bits(a), f64::from_bits(b), f32::from_bits(c));
        prop_assume!(a.is_finite() && b.is_finite() && c.is_finite());
        let spec = MlpSpec::new(&[2, 2])
            .with_rates(&[a, b])
            .with_activation(Activation::LeakyRelu { slope: c })
            .with_seed(seed);
        let back: MlpSpec = from_str(&to_string(&spec).unwrap()).unwrap();
        prop_assert_eq!(back.rates.iter().map(|r| r.to_bits()).collect::<Vec<_>>(), [a.to_bits(), b.to_bits()]);
        let Activation::LeakyRelu { slope } = back.activation else { panic!("{:?}", back) };
        prop_assert_eq!(slope.to_bits(), c.to_bits());
        prop_assert_eq!(back.seed, seed);
        let sgd = SgdStep::new(c);
        let back: SgdStep = from_str(&to_string(&sgd).unwrap()).unwrap();
        prop_assert_eq!(back.learning_rate.to_bits(), c.to_bits());
    }
}
