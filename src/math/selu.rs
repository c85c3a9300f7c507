//! The scaled exponential linear unit on lanes.

use std::f32::consts::{LN_2, LOG2_E};

use super::{ROUND, at_least, polynomial, power_of_two};
use crate::isa::Isa;

/// λ and α of Klambauer et al. 2017: the fixed point of mean 0 and variance 1.
pub(crate) const LAMBDA: f64 = 1.050_700_987_355_480_5;
/// See [`LAMBDA`].
pub(crate) const ALPHA: f64 = 1.673_263_242_354_377_2;
/// λα, what the function falls to, without its sign.
const LIMIT: f32 = (LAMBDA * ALPHA) as f32;

/// λ z for positive z, else λα (e^z - 1), within 2 ULP.
///
/// With e^z = s (1 + h) the second is λα s h + (λα s - λα). Near 0, where s = 1, the difference is
/// zero and h is the polynomial itself, so nothing cancels.
#[inline(always)]
pub(crate) fn selu<I: Isa>(isa: I, z: I::F32) -> I::F32 {
    let limit = isa.splat(LIMIT);
    // From -17.4 down the result is -λα; what is made of a positive z here is not used.
    let x = isa.min(isa.splat(0.0), at_least(isa, z, -20.0));
    let sum = isa.mul_add(x, isa.splat(LOG2_E), isa.splat(ROUND));
    let m = isa.sub(sum, isa.splat(ROUND));
    // One part of ln 2 is enough: the error grows with |m|, but 2^m shrinks faster.
    let r = isa.neg_mul_add(m, isa.splat(LN_2), x);
    let q = polynomial(isa, r, [0.5, 0.16666573, 0.041667946, 0.008363889, 0.0013801708]);
    let h = isa.mul_add(isa.mul(r, r), q, r);
    let s = isa.mul(power_of_two(isa, sum), limit);
    let negative = isa.mul_add(s, h, isa.sub(s, limit));
    isa.select(isa.lt(isa.splat(0.0), z), isa.mul(z, isa.splat(LAMBDA as f32)), negative)
}

/// `g` times the derivative, λ or λα e^z, from the value `a`: the second is a + λα.
#[inline(always)]
pub(crate) fn selu_backward<I: Isa>(isa: I, g: I::F32, a: I::F32) -> I::F32 {
    let slope = isa.add(a, isa.splat(LIMIT));
    let slope = isa.select(isa.lt(isa.splat(0.0), a), isa.splat(LAMBDA as f32), slope);
    isa.mul(g, slope)
}
