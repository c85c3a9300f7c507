//! The two number types of the reference.

use std::fmt::Debug;
use std::ops::{Add, Div, Mul, Sub};

use crate::activation::{Activation, Function, WithFunction};
use crate::isa::Scalar;
use crate::mask::Dropout;
use crate::math::normal;

/// f32, in which the reference is the exact chain of the kernels, or f64, in which it is the formula;
/// no other type.
pub trait Real:
    sealed::Sealed
    + Copy
    + Debug
    + PartialOrd
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Into<f64>
    + Send
    + Sync
    + 'static
{
    /// 0.
    const ZERO: Self;

    /// The nearest number of this type.
    fn from_f64(x: f64) -> Self;
    /// `self * a + b`, rounded once.
    fn mul_add(self, a: Self, b: Self) -> Self;
    /// The square root.
    fn sqrt(self) -> Self;
    /// `e^self`.
    fn exp(self) -> Self;
    /// The natural logarithm.
    fn ln(self) -> Self;
    /// The two standard normal numbers that are made of two random words.
    fn normals(a: u32, b: u32) -> (Self, Self);
    /// The activation function.
    fn value(activation: Activation, z: Self) -> Self;
    /// `g · act'(z)`.
    fn backward(activation: Activation, g: Self, z: Self) -> Self;
    /// `g · act'(z)`, from `a = act(z)`.
    fn backward_from_output(activation: Activation, g: Self, a: Self) -> Self;

    /// The scale of kept elements.
    fn scale(dropout: &Dropout) -> Self {
        Self::from_f64(dropout.scale_f64())
    }
    /// What undoes the scale.
    fn unscale(dropout: &Dropout) -> Self {
        Self::from_f64(dropout.unscale())
    }
}

impl Real for f32 {
    const ZERO: f32 = 0.0;

    fn from_f64(x: f64) -> f32 {
        x as f32
    }
    fn mul_add(self, a: f32, b: f32) -> f32 {
        self.mul_add(a, b)
    }
    fn sqrt(self) -> f32 {
        self.sqrt()
    }
    fn exp(self) -> f32 {
        crate::math::exp(Scalar, self)
    }
    fn ln(self) -> f32 {
        self.ln()
    }
    fn normals(a: u32, b: u32) -> (f32, f32) {
        normal::pair(Scalar, a.cast_signed(), b.cast_signed())
    }
    fn value(activation: Activation, z: f32) -> f32 {
        activation.value(z)
    }
    fn backward(activation: Activation, g: f32, z: f32) -> f32 {
        activation.with(Backward { g, saved: z, from_output: false })
    }
    fn backward_from_output(activation: Activation, g: f32, a: f32) -> f32 {
        activation.with(Backward { g, saved: a, from_output: true })
    }
}

/// One element of a backward pass, waiting for the activation function's type.
struct Backward {
    g: f32,
    saved: f32,
    from_output: bool,
}

impl WithFunction for Backward {
    type Output = f32;

    fn call<F: Function>(self, f: F) -> f32 {
        let value_is_saved = matches!(F::NEEDS, crate::activation::Needs::Output);
        let saved = if value_is_saved && !self.from_output {
            f.value(Scalar, self.saved)
        } else {
            self.saved
        };
        f.backward(Scalar, self.g, saved)
    }
}

impl Real for f64 {
    const ZERO: f64 = 0.0;

    fn from_f64(x: f64) -> f64 {
        x
    }
    fn mul_add(self, a: f64, b: f64) -> f64 {
        self.mul_add(a, b)
    }
    fn sqrt(self) -> f64 {
        self.sqrt()
    }
    fn exp(self) -> f64 {
        self.exp()
    }
    fn ln(self) -> f64 {
        self.ln()
    }
    fn normals(a: u32, b: u32) -> (f64, f64) {
        normal::pair_f64(a, b)
    }
    fn value(activation: Activation, z: f64) -> f64 {
        activation.value_f64(z)
    }
    fn backward(activation: Activation, g: f64, z: f64) -> f64 {
        g * activation.derivative_f64(z)
    }
    fn backward_from_output(activation: Activation, g: f64, a: f64) -> f64 {
        // Those whose derivative needs z are refused before.
        g * activation.derivative_from_output_f64(a).unwrap_or(f64::NAN)
    }
}

mod sealed {
    /// What only this crate can name.
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for f64 {}
}
