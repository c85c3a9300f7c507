//! Errors over the whole range, the same bits on all levels, the definitions, the names.

use super::functions::{LeakyRelu, Relu};
use super::*;
use crate::isa::Isa;
use crate::math::tests::{Map, check_lanes, stride, ulps, worst};

const ALL: [Activation; 10] = [
    Activation::Identity,
    Activation::Relu,
    Activation::LeakyRelu { slope: 0.01 },
    Activation::LeakyRelu { slope: 0.0 },
    Activation::Sigmoid,
    Activation::Tanh,
    Activation::Gelu,
    Activation::GeluTanh,
    Activation::Silu,
    Activation::Selu,
];

/// The table in the documentation of [`Activation`].
struct Bounds {
    value: f64,
    derivative: f64,
    size: f64,
    tail: f64,
}

fn bounds(activation: Activation) -> Bounds {
    let bounds = |value, derivative, size, tail| Bounds { value, derivative, size, tail };
    let no_tail = f64::INFINITY;
    match activation {
        Activation::Identity | Activation::Relu => bounds(0.0, 0.0, 1.0, 0.0),
        Activation::LeakyRelu { .. } => bounds(0.5, 0.0, 1.0, 0.0),
        Activation::Sigmoid => bounds(2.85, 6.0, 0.25, no_tail),
        Activation::Tanh => bounds(2.5, 5.0, 1.0, no_tail),
        Activation::Gelu => bounds(4.0, 2.6, 1.0, 4.2),
        Activation::GeluTanh => bounds(3.5, 3.9, 1.0, 5.8),
        Activation::Silu => bounds(3.1, 3.7, 1.0, 5.6),
        Activation::Selu => bounds(2.0, 3.0, 1.0, no_tail),
    }
}

/// Where a function changes its formula, saturates, or becomes subnormal or zero.
const POINTS: [f32; 18] = [
    0.35, 1.04, 9.0, 9.011, 10.0, 10.05, 11.0, 13.0, 14.357, 14.542, 14.6, 17.329, 20.0, 60.0,
    88.72, 103.97, 105.0, 110.0,
];

#[test]
fn errors_are_within_the_documented_bounds() {
    let stride = stride(211);
    for activation in ALL {
        let Bounds { value, derivative, size, tail } = bounds(activation);
        let (error, at) =
            worst(stride, &POINTS, |z| ulps(activation.value(z), activation.value_f64(z.into())));
        println!("{activation}: value {error:.3} ULP at {at:e}");
        assert!(error <= value, "{activation}: value {error} ULP at {at:e}");

        let (error, at) = worst(stride, &POINTS, |z| {
            let exact = activation.derivative_f64(z.into());
            (f64::from(activation.derivative(z)) - exact).abs() / exact.abs().max(size)
                * 2f64.powi(24)
        });
        println!("{activation}: derivative {error:.3} at {at:e}");
        assert!(error <= derivative, "{activation}: derivative {error} at {at:e}");

        if tail.is_finite() {
            let (error, at) = worst(stride, &POINTS, |z| {
                if z > -2.0 {
                    return 0.0;
                }
                ulps(activation.derivative(z), activation.derivative_f64(z.into()))
            });
            println!("{activation}: derivative {error:.3} ULP at {at:e}");
            assert!(error <= tail, "{activation}: derivative {error} ULP at {at:e}");
        }
    }
}

#[derive(Clone, Copy)]
struct Value<F>(F);

impl<F: Function> Map for Value<F> {
    #[inline(always)]
    fn map<I: Isa>(self, isa: I, x: I::F32) -> I::F32 {
        self.0.value(isa, x)
    }
}

#[derive(Clone, Copy)]
struct Backward<F>(F);

impl<F: Function> Map for Backward<F> {
    #[inline(always)]
    fn map<I: Isa>(self, isa: I, x: I::F32) -> I::F32 {
        self.0.backward(isa, isa.splat(-0.7), x)
    }
}

#[test]
fn lanes_have_the_bits_of_one() {
    struct Check(Activation);
    impl WithFunction for Check {
        type Output = ();
        fn call<F: Function>(self, function: F) {
            check_lanes(self.0.name(), Value(function));
            check_lanes(self.0.name(), Backward(function));
        }
    }
    for activation in ALL {
        activation.with(Check(activation));
    }
}

#[test]
fn derivatives_are_those_of_the_values() {
    const STEP: f64 = 1e-5;
    for activation in ALL {
        for i in -999..1000 {
            let z = f64::from(i) / 100.0 + 0.003;
            let slope =
                (activation.value_f64(z + STEP) - activation.value_f64(z - STEP)) / (2.0 * STEP);
            let exact = activation.derivative_f64(z);
            // The third derivatives, all below 3, times STEP^2 / 6; and the rounding of the values.
            let bound = 0.5 * STEP * STEP + (z.abs() + 1.0) * f64::EPSILON / STEP;
            assert!((slope - exact).abs() <= bound, "{activation} at {z}: {slope}, {exact}");
        }
    }
}

#[test]
fn derivatives_from_the_output_are_those_from_z() {
    for activation in ALL {
        for i in -999..1000 {
            let z = i as f32 / 100.0;
            let from_output = activation.derivative_from_output(activation.value(z));
            let exact = activation.derivative_from_output_f64(activation.value_f64(z.into()));
            if activation.needs() == Needs::PreActivation {
                assert_eq!((from_output, exact), (None, None), "{activation}");
                continue;
            }
            let (from_output, exact) = (from_output.unwrap(), exact.unwrap());
            assert_eq!(from_output.to_bits(), activation.derivative(z).to_bits(), "{activation}");
            let error = (exact - activation.derivative_f64(z.into())).abs();
            assert!(error <= 1e-15, "{activation} at {z}: {error:e}");
        }
    }
    assert_eq!(Activation::default(), Activation::Identity);
}

#[test]
fn a_slope_is_shown_as_it_was_written() {
    let error = Activation::LeakyRelu { slope: -0.1 }.check().unwrap_err();
    assert_eq!(error.to_string(), "slope is -0.1: it must be finite and not negative");
    let error = Activation::LeakyRelu { slope: f32::NAN }.check().unwrap_err();
    assert_eq!(error.to_string(), "slope is NaN: it must be finite and not negative");
}

#[test]
fn special_values() {
    let infinity = f32::INFINITY;
    for activation in ALL {
        assert!(activation.value(f32::NAN).is_nan(), "{activation}");
        assert!(activation.value_f64(f64::NAN).is_nan(), "{activation}");
        for z in [-infinity, f32::MIN, -0.0, 0.0, f32::MIN_POSITIVE, f32::MAX, infinity] {
            let (value, exact) = (activation.value(z), activation.value_f64(z.into()));
            assert_eq!(value, exact as f32, "{activation} at {z:e}");
            let (slope, exact) = (activation.derivative(z), activation.derivative_f64(z.into()));
            assert_eq!(slope, exact as f32, "derivative of {activation} at {z:e}");
        }
    }
    assert_eq!(Activation::Relu.value(-0.0).to_bits(), 0);
    assert_eq!(Activation::Tanh.value(-0.0).to_bits(), (-0.0f32).to_bits());
}

#[test]
fn slope_zero_is_relu() {
    let leaky = Activation::LeakyRelu { slope: 0.0 };
    for z in [f32::NEG_INFINITY, -3.0, -0.0, 0.0, 2.0, f32::INFINITY] {
        assert_eq!(leaky.value(z).to_bits(), Activation::Relu.value(z).to_bits());
        assert_eq!(leaky.derivative(z).to_bits(), Activation::Relu.derivative(z).to_bits());
    }
}

#[test]
fn a_nan_output_lets_the_gradient_pass() {
    assert_eq!(Relu.backward(Scalar, 2.0, f32::NAN), 2.0);
    assert_eq!(LeakyRelu { slope: 0.1 }.backward(Scalar, 2.0, f32::NAN), 2.0);
}

#[test]
fn names_are_read_back() {
    for activation in ALL {
        assert_eq!(activation.to_string().parse(), Ok(activation));
        assert!(activation.to_string().starts_with(activation.name()));
    }
    assert_eq!("leaky-relu".parse(), Ok(Activation::LeakyRelu { slope: 0.01 }));
    assert_eq!("leaky-relu:0.2".parse(), Ok(Activation::LeakyRelu { slope: 0.2 }));
    for name in ["", "ReLU", "leaky-relu:", "leaky-relu:x", "relu:0.1"] {
        let error = Error::UnknownActivation { name: name.to_owned() };
        assert_eq!(name.parse::<Activation>(), Err(error));
    }
    for slope in ["-0.1", "inf", "NaN"] {
        let error = format!("leaky-relu:{slope}").parse::<Activation>();
        assert!(matches!(error, Err(Error::Parameter { name: "slope", .. })), "{slope}");
    }
}

#[test]
fn needs() {
    assert_eq!(Activation::Identity.needs(), Needs::Nothing);
    assert_eq!(Activation::Relu.needs(), Needs::Output);
    assert_eq!(Activation::Tanh.needs(), Needs::Output);
    assert_eq!(Activation::Gelu.needs(), Needs::PreActivation);
}
