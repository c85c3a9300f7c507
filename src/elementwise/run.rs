//! From an activation to the loop that is compiled for it.

use super::kernel::Pass;
use super::ops::{Always, Backward, Forward, Never};
use crate::Level;
use crate::activation::{Function, Identity, Needs, WithFunction};

/// A forward pass, waiting for the activation function's type.
///
/// Backward is a type of its own, so that a program that has dense layers only, which do not go
/// forward here, has no loop of this.
pub(super) struct RunForward<'a> {
    pub(super) level: Level,
    pub(super) pass: Pass<'a>,
    pub(super) scale: f32,
}

impl WithFunction for RunForward<'_> {
    type Output = ();

    fn call<F: Function>(self, f: F) {
        forward(self.level, self.pass, f, self.scale);
    }
}

/// A backward pass, waiting for the activation function's type.
pub(super) struct RunBackward<'a> {
    pub(super) level: Level,
    pub(super) pass: Pass<'a>,
    pub(super) scale: f32,
    pub(super) unscale: f32,
    pub(super) from_output: bool,
}

impl WithFunction for RunBackward<'_> {
    type Output = ();

    fn call<F: Function>(self, f: F) {
        backward(self.level, self.pass, f, (self.scale, self.unscale), self.from_output);
    }
}

/// `keep ? main · scale : 0`.
pub(super) fn scaled(level: Level, pass: Pass<'_>, scale: f32) {
    forward(level, pass, Identity, scale);
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

/// There is a loop for each set of tensors. A long function has one for the common sets, and one that
/// branches for the others and for outputs that are streamed, which memory bounds.
fn forward<F: Function>(level: Level, pass: Pass<'_>, f: F, scale: f32) {
    let (bias, second) = (pass.has_bias(), pass.has_second());
    if !F::LONG {
        return known!(bias second => pass.run(level, &Forward { f, scale, bias, second }));
    }
    if pass.streams() || second && !bias {
        return pass.run(level, &Forward { f, scale, bias, second });
    }
    if second {
        let (bias, second) = (Always, Always);
        return pass.run(level, &Forward { f, scale, bias, second });
    }
    let second = Never;
    known!(bias => pass.run(level, &Forward { f, scale, bias, second }));
}

/// As in [`forward`]: for functions that need nothing, for those that need the output and have it, and
/// for those that have z.
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
