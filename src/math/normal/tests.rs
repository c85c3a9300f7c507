//! Errors over words of every size, the same bits on all levels, and what the formula promises.

use super::*;
use crate::isa::Scalar;
use crate::math::tests::{Map, check_lanes, stride, ulps};

fn scalar(a: u32, b: u32) -> [f32; 2] {
    pair(Scalar, a.cast_signed(), b.cast_signed()).into()
}

fn error(a: u32, b: u32) -> f64 {
    let (exact, got) = (<[f64; 2]>::from(pair_f64(a, b)), scalar(a, b));
    got.into_iter().zip(exact).map(|(z, exact)| ulps(z, exact)).fold(0.0, f64::max)
}

/// Words at both ends, in the middle, around powers of two, and where u passes a root of 1/2.
fn special() -> impl Iterator<Item = u32> + Clone {
    let roots = (0..33).map(|k| (2f64.powf(-0.5 - f64::from(k)) * 4_294_967_296.0) as u32);
    let mirrored = roots.clone().map(|word| !word);
    let powers = (0..32).flat_map(|k| [1 << k, !(1 << k)]);
    roots
        .chain(mirrored)
        .chain(powers)
        .chain([0, !0])
        .flat_map(|word: u32| (0..17).map(move |offset| word.wrapping_add(offset).wrapping_sub(8)))
}

#[test]
fn errors_are_within_the_documented_bound() {
    let step = stride(1009);
    let mut worst = (0.0, 0, 0);
    let mut look = |a: u32, b: u32| {
        let error = error(a, b);
        if error > worst.0 {
            worst = (error, a, b);
        }
    };
    for word in (0..=u32::MAX).step_by(step as usize) {
        let other = word.wrapping_mul(0x9e37_79b9);
        look(word, other);
        look(other, word);
    }
    for a in special() {
        for b in special() {
            look(a, b);
        }
    }
    println!("{:.3} ULP at {:08x} {:08x}", worst.0, worst.1, worst.2);
    assert!(worst.0 <= ULPS, "{} ULP at {:08x} {:08x}", worst.0, worst.1, worst.2);
}

#[test]
fn lanes_have_the_bits_of_one() {
    #[derive(Clone, Copy)]
    struct Number<const SECOND: bool>;
    impl<const SECOND: bool> Map for Number<SECOND> {
        #[inline(always)]
        fn map<I: Isa>(self, isa: I, x: I::F32) -> I::F32 {
            let a = isa.as_bits(x);
            let b = isa.add_i32(isa.shl_i32::<11>(a), isa.splat_i32(0x1e37_79b9));
            let (z0, z1) = pair(isa, a, b);
            if SECOND { z1 } else { z0 }
        }
    }
    check_lanes("the first number", Number::<false>);
    check_lanes("the second number", Number::<true>);
}

/// Opposite words give opposite numbers, and exchanged ones the other number.
#[test]
fn symmetries() {
    for (a, b) in special().zip(special().skip(100)) {
        let [z0, z1] = scalar(a, b);
        assert_eq!(scalar(a, b ^ 1 << 31), [-z0, -z1]);
        assert_eq!(scalar(a, b ^ 1 << 30), [z1, z0]);
    }
}

#[test]
fn the_ends_of_the_range() {
    // u = 2^-33, the smallest, and 1 - 2^-33, the largest.
    let largest = (66.0 * std::f64::consts::LN_2).sqrt();
    assert_eq!(scalar(!0, 0), [largest as f32, 0.0]);
    assert_eq!(scalar(0, 1 << 30), [0.0, (2.0f64.powi(-32)).sqrt() as f32]);
}
