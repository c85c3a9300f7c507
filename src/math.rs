//! The exponential function, and what the activations make of it, on lanes.
//!
//! Everything here is a fixed sequence of verbs, so its bits do not depend on the instruction set.
//! NaN gives NaN; infinities, overflow and subnormal results are right.
//!
//! The common scheme is e^x = 2^m p(r) with r = x - m ln 2. Adding [`ROUND`] to x / ln 2 rounds it to
//! m and leaves m, biased as a float's exponent is, in the low bits of the sum: one shift makes 2^m.
//! Where m may leave the range of normal numbers it is kept even, m = 2j, and 2^j is multiplied in
//! twice, once before and once after all other factors, so that a subnormal result is rounded once.
//! The price is a range of r twice as wide, hence one more term in the polynomial.
//!
//! ln 2 is subtracted in two parts. The first has so few bits that its product with m is exact; the
//! second corrects for the rest.
//!
//! The polynomials minimise the largest error relative to the result (or in units of its last place),
//! with coefficients rounded to floats one at a time and the remaining ones fitted again. What is
//! left of that error is below 0.8 · 2^-24; the rest of the bound stated for each function is
//! rounding, measured by comparison with `f64` over the floats.

use crate::isa::Isa;

pub(crate) mod lanes;
pub(crate) mod normal;
pub(crate) mod selu;
#[cfg(test)]
pub(crate) mod tests;

/// 1.5 · 2^23 + 127: adding it rounds to an integer, whose exponent bias is then in place.
const ROUND: f32 = 12_583_039.0;

/// The Gaussian tail is scaled up by 2^64 until its last operation, lest it becomes subnormal before.
const DOWN_64: f32 = 1.0 / (1u128 << 64) as f32;

/// The smaller of `x`, which may be NaN and then stays so, and `limit`.
#[inline(always)]
fn at_most<I: Isa>(isa: I, x: I::F32, limit: f32) -> I::F32 {
    isa.min(isa.splat(limit), x)
}

/// The larger of `x`, which may be NaN and then stays so, and `limit`.
#[inline(always)]
fn at_least<I: Isa>(isa: I, x: I::F32, limit: f32) -> I::F32 {
    isa.max(isa.splat(limit), x)
}

/// `c[0] + c[1] x + c[2] x^2 + ...` by Horner's rule.
#[inline(always)]
fn polynomial<I: Isa, const N: usize>(isa: I, x: I::F32, c: [f32; N]) -> I::F32 {
    let mut sum = isa.splat(c[N - 1]);
    for i in (0..N - 1).rev() {
        sum = isa.mul_add(sum, x, isa.splat(c[i]));
    }
    sum
}

/// 2^m from the sum of m and [`ROUND`].
#[inline(always)]
fn power_of_two<I: Isa>(isa: I, sum: I::F32) -> I::F32 {
    isa.as_float(isa.shl_i32::<23>(isa.as_bits(sum)))
}

/// `2^j` and `r`, where `x = 2 j ln 2 + r`; needs |x| < 170.
#[inline(always)]
fn reduce<I: Isa>(isa: I, x: I::F32) -> (I::F32, I::F32) {
    const HALF_LOG2_E: f32 = 0.7213475;
    const TWICE_LN2: f32 = 1.3862915;
    const TWICE_LN2_REST: f32 = 2.8572135e-6;
    let sum = isa.mul_add(x, isa.splat(HALF_LOG2_E), isa.splat(ROUND));
    let j = isa.sub(sum, isa.splat(ROUND));
    let r = isa.neg_mul_add(j, isa.splat(TWICE_LN2), x);
    let r = isa.neg_mul_add(j, isa.splat(TWICE_LN2_REST), r);
    (power_of_two(isa, sum), r)
}

/// e^x, within 1.6 ULP.
#[inline(always)]
pub(crate) fn exp<I: Isa>(isa: I, x: I::F32) -> I::F32 {
    // Beyond these the result is 0 or infinite, rounded so by the last product.
    let x = at_most(isa, at_least(isa, x, -105.0), 89.0);
    let (root, r) = reduce(isa, x);
    let p = polynomial(
        isa,
        r,
        [1.0, 1.0, 0.5000004, 0.16666648, 0.041660823, 0.008334129, 0.0014111036, 0.00019884402],
    );
    isa.mul(isa.mul(p, root), root)
}

/// tanh(x), within 2.5 ULP, odd to the bit.
///
/// With v = (1 - e^(-2|x|)) / 2 it is v / (1 - v). For small |x|, where m = 0, v is the polynomial
/// itself, so nothing cancels.
#[inline(always)]
pub(crate) fn tanh<I: Isa>(isa: I, x: I::F32) -> I::F32 {
    const TWICE_LOG2_E: f32 = 2.88539;
    const HALF_LN2: f32 = 0.3465736;
    // From 9.02 on the result is 1.
    let a = at_most(isa, isa.abs(x), 10.0);
    let sum = isa.neg_mul_add(a, isa.splat(TWICE_LOG2_E), isa.splat(ROUND));
    let m = isa.sub(sum, isa.splat(ROUND));
    // One part of ln 2 is enough: the error grows with |m|, but 2^m shrinks faster.
    let r = isa.mul_add(m, isa.splat(HALF_LN2), a);
    let q = polynomial(isa, r, [-0.9999997, 0.6666607, -0.33336088, 0.13390577, -0.043938734]);
    let h = isa.mul_add(isa.mul(r, r), q, r);
    let s = power_of_two(isa, sum);
    let half = isa.splat(0.5);
    let v = isa.mul_add(s, h, isa.neg_mul_add(half, s, half));
    isa.with_sign_of(isa.div(v, isa.sub(isa.splat(1.0), v)), x)
}

/// The logistic function σ(x) = 1 / (1 + e^-x) in factors: with e^-x = p / s^2 it is s (s / (s^2 + p)),
/// where neither s nor the quotient leaves the range of normal numbers.
#[derive(Clone, Copy)]
pub(crate) struct Logistic<I: Isa> {
    isa: I,
    s: I::F32,
    p: I::F32,
}

impl<I: Isa> Logistic<I> {
    /// The factors of σ(x); from 60 on, s^2 + p might overflow.
    #[inline(always)]
    pub(crate) fn new(isa: I, x: I::F32) -> Self {
        let (s, r) = reduce(isa, x);
        let p = polynomial(
            isa,
            r,
            [
                1.0,
                -1.0,
                0.5000003,
                -0.16666591,
                0.041661672,
                -0.00833765,
                0.0014097891,
                -0.00019381575,
            ],
        );
        Self { isa, s, p }
    }

    /// y σ(x).
    #[inline(always)]
    pub(crate) fn times(self, y: I::F32) -> I::F32 {
        let isa = self.isa;
        let quotient = isa.div(self.s, isa.mul_add(self.s, self.s, self.p));
        isa.mul(isa.mul(y, quotient), self.s)
    }

    /// σ(x).
    #[inline(always)]
    pub(crate) fn value(self) -> I::F32 {
        let isa = self.isa;
        isa.mul(isa.div(self.s, isa.mul_add(self.s, self.s, self.p)), self.s)
    }

    /// σ(x) (1 + y (1 - σ(x))), the derivative of z σ(x(z)) when y = z dx/dz.
    #[inline(always)]
    pub(crate) fn derivative(self, y: I::F32) -> I::F32 {
        let isa = self.isa;
        let one = isa.splat(1.0);
        let reciprocal = isa.div(one, isa.mul_add(self.s, self.s, self.p));
        let bracket = isa.mul_add(y, isa.mul(self.p, reciprocal), one);
        isa.mul(isa.mul(isa.mul(self.s, reciprocal), bracket), self.s)
    }
}

/// σ(z), within 2.85 ULP.
#[inline(always)]
pub(crate) fn sigmoid<I: Isa>(isa: I, z: I::F32) -> I::F32 {
    Logistic::new(isa, at_most(isa, at_least(isa, z, -105.0), 60.0)).value()
}

/// z σ(z), within 3.1 ULP.
#[inline(always)]
pub(crate) fn silu<I: Isa>(isa: I, z: I::F32) -> I::F32 {
    // Below -110 the product is less than half the smallest subnormal.
    let z = at_least(isa, z, -110.0);
    Logistic::new(isa, at_most(isa, z, 60.0)).times(z)
}

/// The derivative of [`silu`], within 3.7 · 2^-24 · max(|a'|, 1).
#[inline(always)]
pub(crate) fn silu_derivative<I: Isa>(isa: I, z: I::F32) -> I::F32 {
    let z = at_most(isa, at_least(isa, z, -110.0), 60.0);
    Logistic::new(isa, z).derivative(z)
}

/// The factors of σ(c w) for the tanh form of GELU: c = 2 √(2/π), w = z + 0.044715 z^3; -11 <= z <= 9.
///
/// An error of w becomes a relative error of the result, so w is carried as a sum: z (v + rest),
/// where `rest` collects what rounding took from v = 1 + 0.044715 z^2.
#[inline(always)]
fn gelu_tanh_factors<I: Isa>(isa: I, z: I::F32) -> Logistic<I> {
    const CUBIC: f32 = 0.044715;
    const CUBIC_REST: f32 = 1.5461444e-9;
    const HALF_C_LOG2_E: f32 = 1.1511041;
    // 2 ln 2 / c is UNIT (1 + UNIT_REST).
    const UNIT: f32 = 0.8671875;
    const UNIT_REST: f32 = 0.0017800771;
    let one = isa.splat(1.0);
    let minus_g = isa.mul(z, isa.splat(-CUBIC));
    let g_rest = isa.mul_add(z, isa.splat(CUBIC), minus_g);
    let g_rest = isa.mul_add(z, isa.splat(CUBIC_REST), g_rest);
    let v = isa.neg_mul_add(z, minus_g, one);
    let rest = isa.neg_mul_add(z, minus_g, isa.sub(one, v));
    let rest = isa.mul_add(z, g_rest, rest);

    let sum = isa.mul_add(isa.mul(z, v), isa.splat(HALF_C_LOG2_E), isa.splat(ROUND));
    let j = isa.sub(sum, isa.splat(ROUND));
    // r = w - 2 j ln 2 / c. The product is exact, so z v enters without having been rounded.
    let product = isa.mul(j, isa.splat(-UNIT));
    let r = isa.mul_add(z, v, product);
    let r = isa.mul_add(z, rest, r);
    let r = isa.mul_add(product, isa.splat(UNIT_REST), r);
    let p = polynomial(
        isa,
        r,
        [1.0, -1.5957692, 1.2732404, -0.6772614, 0.270155, -0.086282164, 0.023288691, -0.005099763],
    );
    Logistic { isa, s: power_of_two(isa, sum), p }
}

/// z (1 + tanh u) / 2 = z σ(2u), u = √(2/π) (z + 0.044715 z^3), within 3.5 ULP.
#[inline(always)]
pub(crate) fn gelu_tanh<I: Isa>(isa: I, z: I::F32) -> I::F32 {
    // Below -11 the product is less than half the smallest subnormal; from 9 on σ is 1.
    let z = at_least(isa, z, -11.0);
    gelu_tanh_factors(isa, at_most(isa, z, 9.0)).times(z)
}

/// The derivative of [`gelu_tanh`], within 3.9 · 2^-24 · max(|a'|, 1).
#[inline(always)]
pub(crate) fn gelu_tanh_derivative<I: Isa>(isa: I, z: I::F32) -> I::F32 {
    // c and 3 · 0.044715 c, the coefficients of d(2u)/dz.
    const C: f32 = 1.5957692;
    const C_CUBIC: f32 = 0.21406445;
    let z = at_most(isa, at_least(isa, z, -11.0), 9.0);
    let slope = isa.mul_add(isa.mul(z, z), isa.splat(C_CUBIC), isa.splat(C));
    gelu_tanh_factors(isa, z).derivative(isa.mul(z, slope))
}

/// The lower tail of the normal distribution in factors: with a = |z|,
/// e^(-a^2/2) = 2^m (1 + r q) and a Φ(-a) = e^(-a^2/2) an / d.
struct NormalTail<I: Isa> {
    a: I::F32,
    /// m + 64 in the place of a float's exponent.
    exponent: I::I32,
    r: I::F32,
    q: I::F32,
    n: I::F32,
    an: I::F32,
    d: I::F32,
}

/// Φ(-a) e^(a^2/2) falls from 1/2 like 1 / (√(2π) a). It is written as n / (√(2π) a n + rest) with
/// polynomials whose coefficients are all positive: no sum cancels, but where `rest` is small the
/// rounding errors of a n, which stand above and below the line, do. The common factor of n and
/// `rest` puts the values near a = 0 just below a power of two, where rounding is finest.
#[inline(always)]
fn normal_tail<I: Isa>(isa: I, z: I::F32) -> NormalTail<I> {
    const ROOT_OF_TWO_PI: f32 = 2.5066283;
    const MINUS_HALF_LOG2_E: f32 = -0.7213475;
    // 2 ln 2 is UNIT (1 + UNIT_REST).
    const UNIT: f32 = 1.3862915;
    const UNIT_REST: f32 = 2.0610482e-6;
    // ROUND without the exponent's bias.
    const SHIFT: f32 = ROUND - 127.0;
    // From here on a Φ(-a) and a φ(a) are less than half the smallest subnormal.
    let a = at_most(isa, isa.abs(z), 14.6);
    let sum = isa.mul_add(isa.mul(a, a), isa.splat(MINUS_HALF_LOG2_E), isa.splat(SHIFT));
    let m = isa.sub(sum, isa.splat(SHIFT));
    // r = a^2 + 2 m ln 2. The product is exact, so a^2 enters without having been rounded.
    let product = isa.mul(m, isa.splat(UNIT));
    let r = isa.mul_add(a, a, product);
    let r = isa.mul_add(product, isa.splat(UNIT_REST), r);
    let q = polynomial(
        isa,
        r,
        [-0.5, 0.124999985, -0.020833146, 0.0026042676, -0.000261539, 2.1594915e-5],
    );
    let n = polynomial(isa, a, [0.85, 0.8097962, 0.36146507, 0.086475916, 0.009721848]);
    let an = isa.mul(a, n);
    let rest = polynomial(isa, a, [1.7, 0.8453653, 0.21753813, 0.024348138]);
    let d = isa.mul_add(an, isa.splat(ROOT_OF_TWO_PI), rest);
    let exponent = isa.add_i32(isa.shl_i32::<23>(isa.as_bits(sum)), isa.splat_i32(64 << 23));
    NormalTail { a, exponent, r, q, n, an, d }
}

/// `x` times two to the power that `exponent` holds; `x` and the result are normal.
#[inline(always)]
fn scale<I: Isa>(isa: I, x: I::F32, exponent: I::I32) -> I::F32 {
    isa.as_float(isa.add_i32(isa.as_bits(x), exponent))
}

/// z Φ(z), Φ the distribution function of the standard normal distribution, within 4 ULP.
///
/// It is -|z| Φ(-|z|), plus z where z is positive.
#[inline(always)]
pub(crate) fn gelu<I: Isa>(isa: I, z: I::F32) -> I::F32 {
    let tail = normal_tail(isa, z);
    let product = isa.mul_add(isa.mul(tail.an, tail.r), tail.q, tail.an);
    let d = isa.as_float(isa.sub_i32(isa.as_bits(tail.d), tail.exponent));
    let product = isa.div(product, d);
    let positive = at_least(isa, z, 0.0);
    isa.neg_mul_add(product, isa.splat(DOWN_64), positive)
}

/// The derivative of [`gelu`], Φ(z) + z φ(z) with φ the density, within 2.6 · 2^-24 · max(|a'|, 1).
///
/// For negative z it is e^(-a^2/2) (n/d - a / √(2π)), and one minus that for positive z.
#[inline(always)]
pub(crate) fn gelu_derivative<I: Isa>(isa: I, z: I::F32) -> I::F32 {
    const DENSITY_AT_0: f32 = 0.3989423;
    let tail = normal_tail(isa, z);
    let n = isa.neg_mul_add(isa.mul(tail.a, isa.splat(DENSITY_AT_0)), tail.d, tail.n);
    let gauss = scale(isa, isa.mul_add(tail.r, tail.q, isa.splat(1.0)), tail.exponent);
    let scaled = isa.div(isa.mul(n, gauss), tail.d);
    let lower = isa.mul(scaled, isa.splat(DOWN_64));
    let upper = isa.neg_mul_add(scaled, isa.splat(DOWN_64), isa.splat(1.0));
    isa.select(isa.lt(z, isa.splat(0.0)), lower, upper)
}
