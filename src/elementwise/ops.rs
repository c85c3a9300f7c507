//! What the element-wise operations do to one vector.

use crate::activation::{Function, Needs};
use crate::isa::Isa;

/// What is done to one vector.
pub(super) trait Op: Copy + Send + Sync {
    /// Whether it is tens of instructions. Then there is one copy of it in the loop.
    const LONG: bool = false;
    /// Whether two vectors go through it side by side.
    const PAIRS: bool = Self::LONG;
    /// Whether the output may have to be stored past the caches. A loop for long operations in the
    /// caches does without the branch.
    const STREAMS: bool = true;

    /// Whether [`Op::at_row`] is another operation in each row.
    const BY_ROW: bool = false;

    /// The same operation in a loop that branches where this one's knows the answer.
    type General: Op;

    /// This operation for that loop.
    fn general(self) -> Self::General;

    /// Whether there is a second input.
    #[inline(always)]
    fn second(self) -> bool {
        false
    }

    /// Whether each column has a value: a bias, or a scale.
    #[inline(always)]
    fn bias(self) -> bool {
        false
    }

    /// Whether the columns of the output are summed.
    #[inline(always)]
    fn sum(self) -> bool {
        false
    }

    /// The operation as it is in one row.
    #[inline(always)]
    fn at_row(self, _row: usize) -> Self {
        self
    }

    /// The output, of both inputs and the bias (zero where there is none) and the mask.
    fn eval<I: Isa>(
        self,
        isa: I,
        main: I::F32,
        second: I::F32,
        bias: I::F32,
        keep: I::Mask,
    ) -> I::F32;
}

/// A yes or no: `bool`, or a type that the compiler knows the answer of.
pub(super) trait Flag: Copy + Send + Sync {
    /// Whether the compiler knows the answer.
    const KNOWN: bool = true;
    /// Whether the answer is known to be yes.
    const ALWAYS: bool = false;

    fn is_set(self) -> bool;
}

/// Yes, in a loop of its own.
#[derive(Clone, Copy)]
pub(super) struct Always;

/// No, in a loop of its own.
#[derive(Clone, Copy)]
pub(super) struct Never;

impl Flag for bool {
    const KNOWN: bool = false;

    #[inline(always)]
    fn is_set(self) -> bool {
        self
    }
}

impl Flag for Always {
    const ALWAYS: bool = true;

    #[inline(always)]
    fn is_set(self) -> bool {
        true
    }
}

impl Flag for Never {
    #[inline(always)]
    fn is_set(self) -> bool {
        false
    }
}

/// `[second +] (keep ? act(main [+ bias]) · scale : 0)`.
#[derive(Clone, Copy)]
pub(super) struct Forward<F, B, S> {
    pub(super) f: F,
    pub(super) scale: f32,
    pub(super) bias: B,
    pub(super) second: S,
}

impl<F: Function, B: Flag, S: Flag> Op for Forward<F, B, S> {
    const LONG: bool = F::LONG;
    const STREAMS: bool = !(Self::LONG && B::KNOWN && S::KNOWN);

    type General = Forward<F, bool, bool>;

    fn general(self) -> Self::General {
        let Self { f, scale, bias, second } = self;
        Forward { f, scale, bias: bias.is_set(), second: second.is_set() }
    }

    #[inline(always)]
    fn second(self) -> bool {
        self.second.is_set()
    }

    #[inline(always)]
    fn bias(self) -> bool {
        self.bias.is_set()
    }

    #[inline(always)]
    fn eval<I: Isa>(
        self,
        isa: I,
        main: I::F32,
        second: I::F32,
        bias: I::F32,
        keep: I::Mask,
    ) -> I::F32 {
        let z = if self.bias.is_set() { isa.add(main, bias) } else { main };
        let y = isa.keep(keep, isa.mul(self.f.value(isa, z), isa.splat(self.scale)));
        if self.second.is_set() { isa.add(second, y) } else { y }
    }
}

/// `keep ? main · scale · act' : 0`, with the derivative computed from the output, which is
/// `second · unscale` where it was kept, or from `z = second [+ bias]`.
#[derive(Clone, Copy)]
pub(super) struct Backward<F, B, S, O> {
    pub(super) f: F,
    pub(super) scale: f32,
    pub(super) unscale: f32,
    pub(super) bias: B,
    pub(super) sum: S,
    pub(super) from_output: O,
}

impl<F: Function, B: Flag, S: Flag, O: Flag> Op for Backward<F, B, S, O> {
    // The derivative is a few operations where the output is known.
    const LONG: bool = F::LONG && !O::ALWAYS;
    const PAIRS: bool = F::LONG;
    const STREAMS: bool = !(Self::LONG && B::KNOWN && S::KNOWN);

    type General = Backward<F, bool, bool, O>;

    fn general(self) -> Self::General {
        let Self { f, scale, unscale, bias, sum, from_output } = self;
        Backward { f, scale, unscale, bias: bias.is_set(), sum: sum.is_set(), from_output }
    }

    #[inline(always)]
    fn second(self) -> bool {
        !matches!(F::NEEDS, Needs::Nothing)
    }

    #[inline(always)]
    fn bias(self) -> bool {
        self.bias.is_set()
    }

    #[inline(always)]
    fn sum(self) -> bool {
        self.sum.is_set()
    }

    #[inline(always)]
    fn eval<I: Isa>(
        self,
        isa: I,
        main: I::F32,
        second: I::F32,
        bias: I::F32,
        keep: I::Mask,
    ) -> I::F32 {
        let g = isa.mul(main, isa.splat(self.scale));
        let saved = if self.from_output.is_set() {
            isa.mul(second, isa.splat(self.unscale))
        } else {
            let z = if self.bias.is_set() { isa.add(second, bias) } else { second };
            if matches!(F::NEEDS, Needs::Output) { self.f.value(isa, z) } else { z }
        };
        isa.keep(keep, self.f.backward(isa, g, saved))
    }
}
