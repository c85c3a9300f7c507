//! Each activation as a type, for kernels compiled once for each: value and derivative on lanes.

use super::Activation;
use crate::isa::Isa;
use crate::math::{self, selu};

/// What the backward pass of an activation is computed from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Needs {
    /// Nothing but the gradient.
    Nothing,
    /// The activation a; for the ReLU family its sign is enough.
    Output,
    /// The pre-activation z.
    PreActivation,
}

/// An activation as a type, for kernels compiled once for each.
pub(crate) trait Function: Copy + Send + Sync + 'static {
    /// What `saved` is in [`Function::backward`].
    const NEEDS: Needs;

    /// Whether [`Function::value`] is tens of instructions.
    const LONG: bool = true;

    /// a(z).
    fn value<I: Isa>(self, isa: I, z: I::F32) -> I::F32;

    /// `g` · a'(z), from what [`Function::NEEDS`] says.
    fn backward<I: Isa>(self, isa: I, g: I::F32, saved: I::F32) -> I::F32;
}

/// What [`Activation::with`] calls.
pub(crate) trait WithFunction {
    /// What it returns.
    type Output;

    /// The work, for one activation.
    fn call<F: Function>(self, function: F) -> Self::Output;
}

#[derive(Clone, Copy)]
pub(crate) struct Identity;

impl Function for Identity {
    const NEEDS: Needs = Needs::Nothing;
    const LONG: bool = false;

    #[inline(always)]
    fn value<I: Isa>(self, _: I, z: I::F32) -> I::F32 {
        z
    }
    #[inline(always)]
    fn backward<I: Isa>(self, _: I, g: I::F32, _: I::F32) -> I::F32 {
        g
    }
}

#[derive(Clone, Copy)]
pub(super) struct Relu;

impl Function for Relu {
    const NEEDS: Needs = Needs::Output;
    const LONG: bool = false;

    #[inline(always)]
    fn value<I: Isa>(self, isa: I, z: I::F32) -> I::F32 {
        isa.zero_where(isa.le(z, isa.splat(0.0)), z)
    }
    #[inline(always)]
    fn backward<I: Isa>(self, isa: I, g: I::F32, y: I::F32) -> I::F32 {
        isa.zero_where(isa.le(y, isa.splat(0.0)), g)
    }
}

/// The slope is positive: with slope 0 an infinite z would give NaN.
#[derive(Clone, Copy)]
pub(super) struct LeakyRelu {
    pub(super) slope: f32,
}

impl Function for LeakyRelu {
    const NEEDS: Needs = Needs::Output;
    const LONG: bool = false;

    #[inline(always)]
    fn value<I: Isa>(self, isa: I, z: I::F32) -> I::F32 {
        self.backward(isa, z, z)
    }
    #[inline(always)]
    fn backward<I: Isa>(self, isa: I, g: I::F32, y: I::F32) -> I::F32 {
        isa.select(isa.le(y, isa.splat(0.0)), isa.mul(isa.splat(self.slope), g), g)
    }
}

#[derive(Clone, Copy)]
struct Sigmoid;

impl Function for Sigmoid {
    const NEEDS: Needs = Needs::Output;

    #[inline(always)]
    fn value<I: Isa>(self, isa: I, z: I::F32) -> I::F32 {
        math::sigmoid(isa, z)
    }
    #[inline(always)]
    fn backward<I: Isa>(self, isa: I, g: I::F32, a: I::F32) -> I::F32 {
        isa.mul(g, isa.neg_mul_add(a, a, a))
    }
}

#[derive(Clone, Copy)]
struct Tanh;

impl Function for Tanh {
    const NEEDS: Needs = Needs::Output;

    #[inline(always)]
    fn value<I: Isa>(self, isa: I, z: I::F32) -> I::F32 {
        math::tanh(isa, z)
    }
    #[inline(always)]
    fn backward<I: Isa>(self, isa: I, g: I::F32, a: I::F32) -> I::F32 {
        isa.mul(g, isa.neg_mul_add(a, a, isa.splat(1.0)))
    }
}

#[derive(Clone, Copy)]
struct Selu;

impl Function for Selu {
    const NEEDS: Needs = Needs::Output;

    #[inline(always)]
    fn value<I: Isa>(self, isa: I, z: I::F32) -> I::F32 {
        selu::selu(isa, z)
    }
    #[inline(always)]
    fn backward<I: Isa>(self, isa: I, g: I::F32, a: I::F32) -> I::F32 {
        selu::selu_backward(isa, g, a)
    }
}

/// A function whose derivative is computed from z.
macro_rules! from_pre_activation {
    ($name:ident, $value:path, $derivative:path) => {
        #[derive(Clone, Copy)]
        struct $name;

        impl Function for $name {
            const NEEDS: Needs = Needs::PreActivation;

            #[inline(always)]
            fn value<I: Isa>(self, isa: I, z: I::F32) -> I::F32 {
                $value(isa, z)
            }
            #[inline(always)]
            fn backward<I: Isa>(self, isa: I, g: I::F32, z: I::F32) -> I::F32 {
                isa.mul(g, $derivative(isa, z))
            }
        }
    };
}

from_pre_activation!(Gelu, math::gelu, math::gelu_derivative);
from_pre_activation!(GeluTanh, math::gelu_tanh, math::gelu_tanh_derivative);
from_pre_activation!(Silu, math::silu, math::silu_derivative);

impl Activation {
    /// Calls `work` with this activation as a type.
    #[inline(always)]
    pub(crate) fn with<W: WithFunction>(self, work: W) -> W::Output {
        match self {
            Activation::Identity => work.call(Identity),
            Activation::Relu => work.call(Relu),
            Activation::LeakyRelu { slope: 0.0 } => work.call(Relu),
            Activation::LeakyRelu { slope } => work.call(LeakyRelu { slope }),
            Activation::Sigmoid => work.call(Sigmoid),
            Activation::Tanh => work.call(Tanh),
            Activation::Gelu => work.call(Gelu),
            Activation::GeluTanh => work.call(GeluTanh),
            Activation::Silu => work.call(Silu),
            Activation::Selu => work.call(Selu),
        }
    }

    /// What the backward pass is computed from.
    pub(crate) fn needs(self) -> Needs {
        struct Ask;
        impl WithFunction for Ask {
            type Output = Needs;
            fn call<F: Function>(self, _: F) -> Needs {
                F::NEEDS
            }
        }
        self.with(Ask)
    }
}
