//! From an activation to the loop that is compiled for it.

use super::kernel::Pass;
use super::ops::{Always, Backward, Forward, Never};
use crate::Level;
use crate::activation::{Function, Needs, WithFunction};

/// A pass, waiting for the activation function's type.
pub(super) struct Run<'a> {
    pub(super) level: Level,
    pub(super) pass: Pass<'a>,
    pub(super) step: Step,
}

/// Which way a pass goes, and its constants.
pub(super) enum Step {
    Forward { scale: f32 },
    Backward { scale: f32, unscale: f32, from_output: bool },
}

impl WithFunction for Run<'_> {
    type Output = ();

    fn call<F: Function>(self, f: F) {
        let Run { level, pass, step } = self;
        match step {
            Step::Forward { scale } => forward(level, pass, f, scale),
            Step::Backward { scale, unscale, from_output } => {
                backward(level, pass, f, (scale, unscale), from_output);
            }
        }
    }
}

/// Short functions have a loop for each set of tensors, long ones one that branches.
fn forward<F: Function>(level: Level, pass: Pass<'_>, f: F, scale: f32) {
    let (bias, second) = (pass.has_bias(), pass.has_second());
    if F::LONG {
        return pass.run(level, &Forward { f, scale, bias, second });
    }
    match (bias, second) {
        (false, false) => pass.run(level, &Forward { f, scale, bias: Never, second: Never }),
        (true, false) => pass.run(level, &Forward { f, scale, bias: Always, second: Never }),
        (false, true) => pass.run(level, &Forward { f, scale, bias: Never, second: Always }),
        (true, true) => pass.run(level, &Forward { f, scale, bias: Always, second: Always }),
    }
}

/// Of short functions, those are fast that need nothing, or the output and have it.
fn backward<F: Function>(
    level: Level,
    pass: Pass<'_>,
    f: F,
    (scale, unscale): (f32, f32),
    from_output: bool,
) {
    let (bias, sum) = (pass.has_bias() && !from_output, pass.has_sum());
    if F::LONG {
        return pass.run(level, &Backward { f, scale, unscale, bias, sum, from_output });
    }
    if const { matches!(F::NEEDS, Needs::Nothing) } {
        let (pass, bias, from_output) = (pass.without_second(), Never, Never);
        if sum {
            let sum = Always;
            pass.run(level, &Backward { f, scale, unscale, bias, sum, from_output });
        } else {
            let sum = Never;
            pass.run(level, &Backward { f, scale, unscale, bias, sum, from_output });
        }
        return;
    }
    match (from_output, sum) {
        (true, true) => {
            let (bias, sum, from_output) = (Never, Always, Always);
            pass.run(level, &Backward { f, scale, unscale, bias, sum, from_output });
        }
        (true, false) => {
            let (bias, sum, from_output) = (Never, Never, Always);
            pass.run(level, &Backward { f, scale, unscale, bias, sum, from_output });
        }
        (false, _) => {
            let from_output = Never;
            pass.run(level, &Backward { f, scale, unscale, bias, sum, from_output });
        }
    }
}
