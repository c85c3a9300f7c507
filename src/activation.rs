//! Activation functions: value and derivative of each, for kernels on lanes, for one float, and
//! exactly in `f64`.
//!
//! [`Activation`] is what callers choose. Kernels do not match on it inside their loops:
//! `Activation::with` matches once and hands the kernel a `Function`, so that each activation
//! gets its own compiled loop.

use std::f64::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI};
use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result, as_written};
use crate::isa::Scalar;
use crate::math::selu;

pub(crate) use functions::{Function, Identity, Needs, WithFunction};

mod functions;
#[cfg(test)]
mod tests;

/// The slope of `leaky-relu` when the name gives none.
const DEFAULT_SLOPE: f32 = 0.01;

/// 0.044715, as it stands in the definition of the tanh form of GELU.
const CUBIC: f64 = 0.044715;

/// An activation function, applied to each element.
///
/// Φ is the distribution function of the standard normal distribution, φ its density, and
/// σ(z) = 1 / (1 + e^-z) the logistic function.
///
/// | variant | value a(z) | derivative | source |
/// |---|---|---|---|
/// | `Identity` | z | 1 | |
/// | `Relu` | max(z, 0) | 1 if z > 0, else 0 | Nair and Hinton 2010, section 2 |
/// | `LeakyRelu` | z if z > 0, else slope · z | 1 if z > 0, else slope | Maas, Hannun and Ng 2013, section 2 |
/// | `Sigmoid` | σ(z) | a (1 - a) | |
/// | `Tanh` | tanh z | 1 - a² | |
/// | `Gelu` | z Φ(z) | Φ(z) + z φ(z) | Hendrycks and Gimpel 2016, section 2 |
/// | `GeluTanh` | z (1 + tanh u) / 2 = z σ(2u), u = √(2/π) (z + 0.044715 z³) | σ(2u) (1 + 2 z u' (1 - σ(2u))) | the same, the approximation in section 2 |
/// | `Silu` | z σ(z) | σ(z) (1 + z (1 - σ(z))) | Elfwing, Uchibe and Doya 2017, section 2.1; also called swish |
/// | `Selu` | λ z if z > 0, else λα (e^z - 1) | λ if z > 0, else a + λα | Klambauer, Unterthiner, Mayr and Hochreiter 2017, equation 2, with λ = 1.0507009873554805 and α = 1.6732632423543772 |
///
/// The largest errors over all floats, against the exact functions. A value's error is in units in
/// its last place (ULP). A derivative has zeros, near which that unit means nothing, so its error
/// is in units of 2^-24 · max(|a'|, s) with s the derivative's size: 1/4 for `Sigmoid`, else 1.
/// Where the lower tail of a derivative is small, at z <= -2, its error in ULP is bounded as well.
///
/// | variant | value, ULP | derivative | derivative for z <= -2, ULP |
/// |---|---|---|---|
/// | `Identity`, `Relu` | 0 | 0 | 0 |
/// | `LeakyRelu` | 0.5 | 0 | 0 |
/// | `Sigmoid` | 2.85 | 6 | |
/// | `Tanh` | 2.5 | 5 | |
/// | `Gelu` | 4 | 2.6 | 4.2 |
/// | `GeluTanh` | 3.5 | 3.9 | 5.8 |
/// | `Silu` | 3.1 | 3.7 | 5.6 |
/// | `Selu` | 2 | 3 | |
///
/// The value of NaN is NaN. At z <= 0, -0 included, `Relu` gives +0 and its derivative is 0. The
/// derivatives of `Relu`, `LeakyRelu`, `Sigmoid`, `Tanh` and `Selu` are computed from the value, those
/// of the others from z.
///
/// ```
/// # use fused_dropout::Activation;
/// let leaky: Activation = "leaky-relu:0.25".parse()?;
/// assert_eq!((leaky.value(-2.0), leaky.derivative(-2.0)), (-0.5, 0.25));
/// assert_eq!(leaky.derivative_from_output(-0.5), Some(0.25));
/// assert_eq!(Activation::Gelu.derivative_from_output(-0.1), None);
/// # Ok::<(), fused_dropout::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "kebab-case", deny_unknown_fields))]
#[non_exhaustive]
#[must_use]
pub enum Activation {
    /// z: no activation, as in an output layer.
    #[default]
    Identity,
    /// The rectified linear unit.
    Relu,
    /// The rectified linear unit with a slope for negative z; for slope 0 the same as `Relu`.
    LeakyRelu {
        /// The slope: finite and not negative.
        slope: f32,
    },
    /// The logistic function.
    Sigmoid,
    /// The hyperbolic tangent.
    Tanh,
    /// The Gaussian error linear unit, exact.
    Gelu,
    /// The Gaussian error linear unit in its approximation by tanh.
    GeluTanh,
    /// The sigmoid-weighted linear unit.
    Silu,
    /// The scaled exponential linear unit, which keeps mean 0 and variance 1.
    Selu,
}

impl Activation {
    /// `Ok` when the parameters are in their range.
    pub(crate) fn check(self) -> Result<()> {
        match self {
            Activation::LeakyRelu { slope } if !(slope >= 0.0 && slope.is_finite()) => {
                Err(Error::Parameter {
                    name: "slope",
                    value: as_written(slope),
                    expected: "finite and not negative",
                })
            }
            _ => Ok(()),
        }
    }

    /// The name, without parameters: what [`FromStr`] reads.
    pub fn name(self) -> &'static str {
        match self {
            Activation::Identity => "identity",
            Activation::Relu => "relu",
            Activation::LeakyRelu { .. } => "leaky-relu",
            Activation::Sigmoid => "sigmoid",
            Activation::Tanh => "tanh",
            Activation::Gelu => "gelu",
            Activation::GeluTanh => "gelu-tanh",
            Activation::Silu => "silu",
            Activation::Selu => "selu",
        }
    }

    /// The value at z, with the bits that the kernels compute.
    pub fn value(self, z: f32) -> f32 {
        struct Value(f32);
        impl WithFunction for Value {
            type Output = f32;
            fn call<F: Function>(self, function: F) -> f32 {
                function.value(Scalar, self.0)
            }
        }
        self.with(Value(z))
    }

    /// The derivative at z, with the bits that the kernels compute for the gradient 1.
    pub fn derivative(self, z: f32) -> f32 {
        struct Derivative(f32);
        impl WithFunction for Derivative {
            type Output = f32;
            fn call<F: Function>(self, function: F) -> f32 {
                let saved = match F::NEEDS {
                    Needs::Output => function.value(Scalar, self.0),
                    Needs::Nothing | Needs::PreActivation => self.0,
                };
                function.backward(Scalar, 1.0, saved)
            }
        }
        self.with(Derivative(z))
    }

    /// The derivative where the value is `a`, with the bits that the kernels compute for the gradient 1;
    /// `None` for those that compute it from z.
    pub fn derivative_from_output(self, a: f32) -> Option<f32> {
        struct Derivative(f32);
        impl WithFunction for Derivative {
            type Output = Option<f32>;
            fn call<F: Function>(self, function: F) -> Option<f32> {
                match F::NEEDS {
                    Needs::Nothing | Needs::Output => Some(function.backward(Scalar, 1.0, self.0)),
                    Needs::PreActivation => None,
                }
            }
        }
        self.with(Derivative(a))
    }

    /// The value at z in double precision, by the formula of the definition.
    pub fn value_f64(self, z: f64) -> f64 {
        match self {
            Activation::Identity => z,
            Activation::Relu | Activation::LeakyRelu { slope: 0.0 } if z <= 0.0 => 0.0,
            Activation::LeakyRelu { slope } if z <= 0.0 => f64::from(slope) * z,
            Activation::Relu | Activation::LeakyRelu { .. } => z,
            Activation::Sigmoid => logistic(z),
            Activation::Tanh => z.tanh(),
            Activation::Selu if z > 0.0 => selu::LAMBDA * z,
            Activation::Selu => selu::LAMBDA * selu::ALPHA * z.exp_m1(),
            // The limit, where the product below would be infinity times zero.
            _ if z == f64::NEG_INFINITY => -0.0,
            Activation::Gelu => z * normal_distribution(z),
            Activation::GeluTanh => z * logistic(gelu_tanh_argument(z)),
            Activation::Silu => z * logistic(z),
        }
    }

    /// The derivative at z in double precision, by the formula of the definition.
    pub fn derivative_f64(self, z: f64) -> f64 {
        match self {
            Activation::Identity => 1.0,
            Activation::Relu if z <= 0.0 => 0.0,
            Activation::LeakyRelu { slope } if z <= 0.0 => slope.into(),
            Activation::Relu | Activation::LeakyRelu { .. } => 1.0,
            Activation::Sigmoid => logistic(z) * logistic(-z),
            Activation::Tanh => z.cosh().powi(-2),
            Activation::Selu if z > 0.0 => selu::LAMBDA,
            Activation::Selu => selu::LAMBDA * selu::ALPHA * z.exp(),
            // Nothing but the limits is left there, and the products below may be infinity times zero.
            _ if z.abs() > 1e4 => f64::from(u8::from(z > 0.0)),
            Activation::Gelu => normal_distribution(z) + z * normal_density(z),
            Activation::GeluTanh => {
                let slope = FRAC_2_SQRT_PI * (2.0 * FRAC_1_SQRT_2) * (1.0 + 3.0 * CUBIC * z * z);
                let x = gelu_tanh_argument(z);
                logistic(x) * (1.0 + z * slope * logistic(-x))
            }
            Activation::Silu => logistic(z) * (1.0 + z * logistic(-z)),
        }
    }

    /// The derivative where the value is `a`, in double precision, by the formula of the definition;
    /// `None` for those that compute it from z.
    pub fn derivative_from_output_f64(self, a: f64) -> Option<f64> {
        match self {
            Activation::Sigmoid => Some(a * (1.0 - a)),
            Activation::Tanh => Some(1.0 - a * a),
            Activation::Selu if a <= 0.0 => Some(a + selu::LAMBDA * selu::ALPHA),
            // The sign of the value is the sign of z.
            Activation::Identity
            | Activation::Relu
            | Activation::LeakyRelu { .. }
            | Activation::Selu => Some(self.derivative_f64(a)),
            Activation::Gelu | Activation::GeluTanh | Activation::Silu => None,
        }
    }
}

fn logistic(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// Φ(z); the complementary error function keeps the tail's relative precision.
fn normal_distribution(z: f64) -> f64 {
    0.5 * libm::erfc(-z * FRAC_1_SQRT_2)
}

/// φ(z).
fn normal_density(z: f64) -> f64 {
    0.5 * FRAC_2_SQRT_PI * FRAC_1_SQRT_2 * (-0.5 * z * z).exp()
}

/// 2 √(2/π) (z + 0.044715 z^3).
fn gelu_tanh_argument(z: f64) -> f64 {
    FRAC_2_SQRT_PI * (2.0 * FRAC_1_SQRT_2) * z * (1.0 + CUBIC * z * z)
}

impl fmt::Display for Activation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Activation::LeakyRelu { slope } => f.pad(&format!("leaky-relu:{slope}")),
            _ => f.pad(self.name()),
        }
    }
}

impl FromStr for Activation {
    type Err = Error;

    /// Reads `identity`, `relu`, `leaky-relu` (slope 0.01), `leaky-relu:0.2`, `sigmoid`, `tanh`,
    /// `gelu`, `gelu-tanh`, `silu` or `selu`.
    fn from_str(name: &str) -> Result<Activation> {
        let activation = match name {
            "identity" => Activation::Identity,
            "relu" => Activation::Relu,
            "leaky-relu" => Activation::LeakyRelu { slope: DEFAULT_SLOPE },
            "sigmoid" => Activation::Sigmoid,
            "tanh" => Activation::Tanh,
            "gelu" => Activation::Gelu,
            "gelu-tanh" => Activation::GeluTanh,
            "silu" => Activation::Silu,
            "selu" => Activation::Selu,
            _ => match name.strip_prefix("leaky-relu:").map(str::parse) {
                Some(Ok(slope)) => Activation::LeakyRelu { slope },
                _ => return Err(Error::UnknownActivation { name: name.to_owned() }),
            },
        };
        activation.check()?;
        Ok(activation)
    }
}
