//! Errors of the exponential function, and what tests of lanes and errors share.

use std::num::NonZero;

use super::*;
use crate::Level;
use crate::isa::{Kernel, Scalar};

/// The difference of `y` and the exact value, in units of the last place of the latter as a float.
pub(crate) fn ulps(y: f32, exact: f64) -> f64 {
    if f64::from(y) == exact || y == exact as f32 && y.is_infinite() || y.is_nan() && exact.is_nan()
    {
        return 0.0;
    }
    let exponent = (exact.abs().to_bits() >> 52) as i32 - 1023;
    (f64::from(y) - exact).abs() / 2f64.powi(exponent.clamp(-126, 127) - 23)
}

/// The stride that error bounds are tested with: `usual`, or `FUSED_DROPOUT_TEST_STRIDE` where that is
/// set. 1 takes minutes and looks at every float from 2^-16 to 128 in magnitude.
pub(crate) fn stride(usual: u32) -> u32 {
    match std::env::var("FUSED_DROPOUT_TEST_STRIDE") {
        Ok(stride) => stride.parse::<NonZero<u32>>().expect("a stride of 1 or more").get(),
        Err(_) => usual,
    }
}

/// The largest `error(z)` over floats of both signs, and where: each `stride`-th of those from 2^-16
/// to 128 in magnitude, 64 times fewer of the others (where all functions are linear or constant),
/// and everything near `points`.
pub(crate) fn worst(stride: u32, points: &[f32], error: impl Fn(f32) -> f64 + Sync) -> (f64, f32) {
    const INFINITY: u32 = f32::INFINITY.to_bits();
    let half = |sign: u32| {
        let mut worst = (0.0, 0.0);
        let mut look = |bits: u32| {
            let z = f32::from_bits(bits.min(INFINITY) | sign);
            let e = error(z);
            if e.is_nan() || e > worst.0 {
                worst = (if e.is_nan() { f64::INFINITY } else { e }, z);
            }
        };
        let (low, high) = ((1.0 / 65536.0f32).to_bits(), 128f32.to_bits());
        (0..low).step_by(stride as usize * 64).for_each(&mut look);
        (low..high).step_by(stride as usize).for_each(&mut look);
        (high..INFINITY).step_by(stride as usize * 64).for_each(&mut look);
        for point in points.iter().map(|p| p.to_bits()).chain([0, low, high, INFINITY]) {
            (point.saturating_sub(500)..=point + 500).for_each(&mut look);
        }
        worst
    };
    let (plus, minus) = std::thread::scope(|scope| {
        let minus = scope.spawn(|| half(1 << 31));
        (half(0), minus.join().unwrap())
    });
    if minus.0 > plus.0 { minus } else { plus }
}

/// A function on lanes.
pub(crate) trait Map: Copy {
    fn map<I: Isa>(self, isa: I, x: I::F32) -> I::F32;
}

/// Applies a function to all elements; their number is a multiple of 32.
pub(crate) struct MapAll<'a, M> {
    pub(crate) map: M,
    pub(crate) x: &'a [f32],
}

impl<M: Map> Kernel for MapAll<'_, M> {
    type Output = Vec<f32>;

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> Vec<f32> {
        let mut y = vec![0.0; self.x.len()];
        for (x, y) in self.x.chunks_exact(I::LANES).zip(y.chunks_exact_mut(I::LANES)) {
            // SAFETY: both chunks have LANES elements.
            unsafe { isa.store(y.as_mut_ptr(), self.map.map(isa, isa.load(x.as_ptr()))) };
        }
        y
    }
}

/// The levels with FMA give the bits of one lane.
pub(crate) fn check_lanes(name: &str, map: impl Map) {
    let mut x: Vec<f32> = (0..=u32::MAX).step_by(1 << 14).map(f32::from_bits).collect();
    x.extend((0..1 << 16).map(|i| (i as f32 - 32768.0) / 512.0));
    assert_eq!(x.len() % 32, 0);
    for level in Level::available() {
        if !level.has_fma() {
            println!("{name}: skipped at level {level}, which has no FMA");
            continue;
        }
        for (&x, y) in x.iter().zip(level.vectorize(MapAll { map, x: &x })) {
            let one = map.map(Scalar, x);
            assert!(
                y.to_bits() == one.to_bits() || y.is_nan() && one.is_nan(),
                "{name}({x:e}) is {y:e} at level {level}, but {one:e} in one lane"
            );
        }
    }
}

const EXP_ULPS: f64 = 1.6;

/// Where the exponential function becomes 0, subnormal and infinite.
const EXP_POINTS: [f32; 6] = [87.33654, 103.27893, 103.97208, 105.0, 88.72284, 89.0];

#[test]
fn exp_is_accurate() {
    let (error, at) = worst(stride(101), &EXP_POINTS, |x| ulps(exp(Scalar, x), f64::from(x).exp()));
    assert!(error <= EXP_ULPS, "{error} ULP at {at:e}");
}

#[test]
fn exp_has_the_same_bits_on_all_levels() {
    #[derive(Clone, Copy)]
    struct Exp;
    impl Map for Exp {
        #[inline(always)]
        fn map<I: Isa>(self, isa: I, x: I::F32) -> I::F32 {
            exp(isa, x)
        }
    }
    check_lanes("exp", Exp);
}

#[test]
fn exp_at_the_ends() {
    assert_eq!(exp(Scalar, f32::INFINITY), f32::INFINITY);
    assert_eq!(exp(Scalar, f32::NEG_INFINITY).to_bits(), 0);
    assert_eq!(exp(Scalar, 0.0), 1.0);
    assert_eq!(exp(Scalar, -103.0), f64::exp(-103.0) as f32);
    assert!(exp(Scalar, f32::NAN).is_nan());
}
