//! Two independent standard normal numbers: from two random words, on lanes, for noise; and from two
//! uniform numbers, one pair at a time, for the initial weights of a network.
//!
//! The former is the transform of Box and Muller (1958) in a form whose every step is either exact or has a
//! small relative error. The first word A makes the radius, the second B the angle, both read as
//! signed integers:
//!
//! ```text
//! v  = (A + 1/2) / 2^32                            in (-1/2, 1/2)
//! u  = v < 0 ? -v : 1 - v                          uniform in (0, 1)
//! r  = ± √(-2 ln u)                                with the sign of B
//! φ  = π/4 · (4 B mod 2^32) / 2^31                 in [-π/4, π/4), from the low 30 bits of B, signed
//! z0, z1 = r · (cos φ, sin φ)                      exchanged where bit 30 of B is set
//! ```
//!
//! Sign and exchange turn the quarter of the circle that φ runs through to all four. Near u = 1 the
//! logarithm is taken of 1 - v with v known to full relative precision, so small radii are as fine
//! as large ones. The largest magnitude is √(2 · 33 ln 2) = 6.77.
//!
//! Against the formula in exact arithmetic both numbers are within [`ULPS`] units in the last place.

use std::f32::consts::{FRAC_PI_4, LN_2};

use super::polynomial;
use crate::isa::Isa;

/// Bound on the error of either number, in ULP.
#[cfg(test)]
const ULPS: f64 = 5.0;

/// z0 and z1 of words A and B.
#[inline(always)]
pub(crate) fn pair<I: Isa>(isa: I, a: I::I32, b: I::I32) -> (I::F32, I::F32) {
    let r = isa.with_sign_of(isa.sqrt(minus_twice_log(isa, a)), isa.as_float(b));
    let (cos, sin) = eighths(isa, isa.shl_i32::<2>(b));
    let exchange = isa.lt(isa.to_float(isa.shl_i32::<1>(b)), isa.splat(0.0));
    (isa.mul(r, isa.select(exchange, sin, cos)), isa.mul(r, isa.select(exchange, cos, sin)))
}

/// -2 ln u, positive.
///
/// With u = 2^k (1 + x) it is -2 ln(1 + x) - 2 k ln 2, where x = u 2^-k - 1 is computed from v, of
/// which u may have lost the low bits.
#[inline(always)]
fn minus_twice_log<I: Isa>(isa: I, a: I::I32) -> I::F32 {
    const UNIT: f32 = 1.0 / (1u64 << 32) as f32;
    // -2 ln 2 for each 2^23, by which an exponent is stored.
    const MINUS_TWICE_LN2: f32 = -2.0 * LN_2 / (1 << 23) as f32;
    const ROOT_HALF: i32 = 0x3f35_04f3;
    let one = isa.splat(1.0);
    let v = isa.mul_add(isa.to_float(a), isa.splat(UNIT), isa.splat(0.5 * UNIT));
    // u is `whole - v`.
    let whole = isa.zero_where(isa.lt(v, isa.splat(0.0)), one);
    let u = isa.sub(whole, v);
    // k in the place of an exponent, so that 1 + x lies between the roots of 1/2 and 2.
    let k = isa.sub_i32(isa.as_bits(u), isa.splat_i32(ROOT_HALF));
    let k = isa.and_i32(k, isa.splat_i32(!0 << 23));
    let down = isa.as_float(isa.sub_i32(isa.as_bits(one), k));
    let x = isa.neg_mul_add(v, down, isa.mul_add(whole, down, isa.splat(-1.0)));
    let p = polynomial(
        isa,
        x,
        [
            -2.0,
            1.0,
            -0.66667944,
            0.5000194,
            -0.3992122,
            0.33175957,
            -0.2990177,
            0.2839445,
            -0.17013751,
        ],
    );
    isa.mul_add(x, p, isa.mul(isa.to_float(k), isa.splat(MINUS_TWICE_LN2)))
}

/// cos φ and sin φ for φ = π/4 · `angle` / 2^31.
#[inline(always)]
fn eighths<I: Isa>(isa: I, angle: I::I32) -> (I::F32, I::F32) {
    const UNIT: f32 = 1.0 / (1u32 << 31) as f32;
    let t = isa.mul(isa.to_float(angle), isa.splat(UNIT));
    let square = isa.mul(t, t);
    let sin = polynomial(isa, square, [FRAC_PI_4, -0.080745816, 0.002490961, -3.656665e-5]);
    let cos = polynomial(isa, square, [1.0, -0.30842513, 0.015854284, -0.00032586828, 3.493511e-6]);
    (cos, isa.mul(t, sin))
}

/// z0 and z1 of words A and B, by the formula.
pub(crate) fn pair_f64(a: u32, b: u32) -> (f64, f64) {
    let v = (f64::from(a.cast_signed()) + 0.5) / 4_294_967_296.0;
    let log = if v < 0.0 { libm::log(-v) } else { libm::log1p(-v) };
    let r = (-2.0 * log).sqrt().copysign(f64::from(b.cast_signed()));
    let angle = f64::from((b << 2).cast_signed()) / 2_147_483_648.0;
    let (sin, cos) = libm::sincos(angle * std::f64::consts::FRAC_PI_4);
    if b >> 30 & 1 == 1 { (r * sin, r * cos) } else { (r * cos, r * sin) }
}

/// Two independent standard normal numbers of two calls of `uniform`, which returns numbers of [0, 1):
/// the transform of Box and Muller as it stands in their paper, in double precision, for the initial
/// weights of a network. These bits are a contract of their own: trained weights follow from them.
pub(crate) fn pair_from_uniform(mut uniform: impl FnMut() -> f64) -> [f64; 2] {
    // The logarithm is taken of a number in (0, 1].
    let radius = libm::sqrt(-2.0 * libm::log(1.0 - uniform()));
    let angle = 2.0 * std::f64::consts::PI * uniform();
    [radius * libm::cos(angle), radius * libm::sin(angle)]
}

#[cfg(test)]
mod tests;
