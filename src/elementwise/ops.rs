//! What the element-wise operations do to one vector.

use super::kernel::Pass;
use crate::Level;
use crate::activation::{Function, Needs};
use crate::isa::Isa;

/// What is done to one vector.
pub(super) trait Op: Copy + Send + Sync {
    /// Whether there is a second input.
    const SECOND: bool;
    /// Whether a bias is added.
    const BIAS: bool;
    /// Whether the columns of the output may have to be summed.
    const SUMS: bool;
    /// Whether it is so long that two vectors should go through it side by side.
    const LONG: bool;

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

/// `[second +] (keep ? act(main [+ bias]) · scale : 0)`.
#[derive(Clone, Copy)]
pub(super) struct Forward<F, const BIAS: bool, const SECOND: bool> {
    pub(super) f: F,
    pub(super) scale: f32,
}

impl<F: Function, const BIAS: bool, const SECOND: bool> Op for Forward<F, BIAS, SECOND> {
    const SECOND: bool = SECOND;
    const BIAS: bool = BIAS;
    const SUMS: bool = false;
    const LONG: bool = F::LONG;

    #[inline(always)]
    fn eval<I: Isa>(
        self,
        isa: I,
        main: I::F32,
        second: I::F32,
        bias: I::F32,
        keep: I::Mask,
    ) -> I::F32 {
        let z = if BIAS { isa.add(main, bias) } else { main };
        let y = isa.keep(keep, isa.mul(self.f.value(isa, z), isa.splat(self.scale)));
        if SECOND { isa.add(second, y) } else { y }
    }
}

/// `keep ? main · scale · act' : 0`, with the derivative computed from the output or from
/// `z = second [+ bias]`.
#[derive(Clone, Copy)]
pub(super) struct Backward<F, const FROM_OUTPUT: bool, const BIAS: bool> {
    f: F,
    scale: f32,
    unscale: f32,
}

impl<F: Function, const FROM_OUTPUT: bool, const BIAS: bool> Op for Backward<F, FROM_OUTPUT, BIAS> {
    const SECOND: bool = !matches!(F::NEEDS, Needs::Nothing);
    const BIAS: bool = BIAS;
    const SUMS: bool = true;
    const LONG: bool = F::LONG;

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
        let saved = if FROM_OUTPUT {
            isa.mul(second, isa.splat(self.unscale))
        } else {
            let z = if BIAS { isa.add(second, bias) } else { second };
            if matches!(F::NEEDS, Needs::Output) { self.f.value(isa, z) } else { z }
        };
        isa.keep(keep, self.f.backward(isa, g, saved))
    }
}

impl<F: Function> Backward<F, false, false> {
    /// Runs the backward pass that fits what was saved.
    pub(super) fn choose(
        f: F,
        scale: f32,
        unscale: f32,
        from_output: bool,
        level: Level,
        pass: Pass,
    ) {
        let bias = pass.bias.is_some();
        match (F::NEEDS, from_output, bias) {
            (Needs::Output, true, _) => {
                pass.run(level, Backward::<F, true, false> { f, scale, unscale });
            }
            (Needs::Output | Needs::PreActivation, _, true) => {
                pass.run(level, Backward::<F, false, true> { f, scale, unscale });
            }
            _ => pass.run(level, Backward::<F, false, false> { f, scale, unscale }),
        }
    }
}
