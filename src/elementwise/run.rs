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

/// Evaluates an expression with each flag, a `bool`, turned into the type that says the same.
macro_rules! known {
    (=> $body:expr) => { $body };
    ($flag:ident $($more:ident)* => $body:expr) => {
        if $flag {
            let $flag = Always;
            known!($($more)* => $body)
        } else {
            let $flag = Never;
            known!($($more)* => $body)
        }
    };
}

/// There is a loop for each set of tensors. A long function has one more, which branches, for outputs
/// that are streamed: memory bounds those.
fn forward<F: Function>(level: Level, pass: Pass<'_>, f: F, scale: f32) {
    let (bias, second) = (pass.has_bias(), pass.has_second());
    if !F::LONG {
        return known!(bias second => pass.run(level, &Forward { f, scale, bias, second }));
    }
    if pass.streams() {
        return pass.run(level, &Forward { f, scale, bias, second });
    }
    known!(bias second => pass.run(level, &Forward { f, scale, bias, second }));
}

/// As in [`forward`]: for functions that need nothing, for those that need the output and have it, and
/// for those that have z. Rare sets of a long function's tensors go through the loop that branches, too.
fn backward<F: Function>(
    level: Level,
    pass: Pass<'_>,
    f: F,
    (scale, unscale): (f32, f32),
    from_output: bool,
) {
    let (bias, sum) = (pass.has_bias(), pass.has_sum());
    if const { matches!(F::NEEDS, Needs::Nothing) } {
        let (pass, bias, from_output) = (pass.without_second(), Never, Never);
        return known!(sum => {
            pass.run(level, &Backward { f, scale, unscale, bias, sum, from_output });
        });
    }
    if const { matches!(F::NEEDS, Needs::Output) } && from_output {
        let (bias, from_output) = (Never, Always);
        return known!(sum => {
            pass.run(level, &Backward { f, scale, unscale, bias, sum, from_output });
        });
    }
    let from_output = Never;
    if !F::LONG {
        return known!(bias sum => {
            pass.run(level, &Backward { f, scale, unscale, bias, sum, from_output });
        });
    }
    let rare = matches!(F::NEEDS, Needs::Output) || bias && !sum;
    if rare || pass.streams() {
        return pass.run(level, &Backward { f, scale, unscale, bias, sum, from_output });
    }
    if const { matches!(F::NEEDS, Needs::PreActivation) } {
        if sum {
            let sum = Always;
            known!(bias => {
                pass.run(level, &Backward { f, scale, unscale, bias, sum, from_output });
            });
        } else {
            let (bias, sum) = (Never, Never);
            pass.run(level, &Backward { f, scale, unscale, bias, sum, from_output });
        }
    }
}
