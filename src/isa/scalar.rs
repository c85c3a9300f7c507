//! One lane: the arithmetic of the reference, in which a kernel's formula can be run for a single
//! element.

use super::{F32Lanes, I32Lanes, MaskLanes, U64Lanes};

/// One float at a time, with `f32::mul_add`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scalar;

always_there!(Scalar);
tile_size!(Scalar: 1 x 1);

impl MaskLanes for Scalar {
    const LANES: usize = 1;

    type Mask = bool;
    type Word = u32;

    verbs! {
        fn word(bits: u32) -> u32 { bits }
        fn lanes(word: u32, at: usize) -> bool { (word >> at) & 1 == 1 }
    }
}

impl F32Lanes for Scalar {
    type F32 = f32;

    verbs! {
        fn splat(x: f32) -> f32 { x }
        unsafe fn load(p: *const f32) -> f32 {
            // SAFETY: the caller's promise for one lane.
            unsafe { *p }
        }
        unsafe fn load_first(_p: *const f32, _n: usize) -> f32 { 0.0 }
        unsafe fn store(p: *mut f32, v: f32) {
            // SAFETY: the caller's promise for one lane.
            unsafe { *p = v }
        }
        unsafe fn store_first(_p: *mut f32, _n: usize, _v: f32) {}
        unsafe fn stream(p: *mut f32, v: f32) {
            // SAFETY: the caller's promise for one lane.
            unsafe { *p = v }
        }
        fn add(a: f32, b: f32) -> f32 { a + b }
        fn sub(a: f32, b: f32) -> f32 { a - b }
        fn mul(a: f32, b: f32) -> f32 { a * b }
        fn div(a: f32, b: f32) -> f32 { a / b }
        fn sqrt(a: f32) -> f32 { a.sqrt() }
        fn mul_add(a: f32, b: f32, c: f32) -> f32 { a.mul_add(b, c) }
        fn neg_mul_add(a: f32, b: f32, c: f32) -> f32 { (-a).mul_add(b, c) }
        fn abs(a: f32) -> f32 { a.abs() }
        fn with_sign_of(a: f32, b: f32) -> f32 { a.copysign(b) }
        fn lt(a: f32, b: f32) -> bool { a < b }
        fn le(a: f32, b: f32) -> bool { a <= b }
        fn select(m: bool, a: f32, b: f32) -> f32 { if m { a } else { b } }
        fn keep(m: bool, a: f32) -> f32 { if m { a } else { 0.0 } }
        fn zero_where(m: bool, a: f32) -> f32 { if m { 0.0 } else { a } }
    }
}

impl I32Lanes for Scalar {
    type I32 = i32;

    verbs! {
        fn as_bits(a: f32) -> i32 { a.to_bits().cast_signed() }
        fn as_float(a: i32) -> f32 { f32::from_bits(a.cast_unsigned()) }
        fn to_float(a: i32) -> f32 { a as f32 }
        fn permute(a: f32, _index: i32) -> f32 { a }
        fn negative(a: i32) -> bool { a < 0 }
        fn splat_i32(x: i32) -> i32 { x }
        fn add_i32(a: i32, b: i32) -> i32 { a.wrapping_add(b) }
        fn sub_i32(a: i32, b: i32) -> i32 { a.wrapping_sub(b) }
        fn and_i32(a: i32, b: i32) -> i32 { a & b }
        fn shl_i32<const N: i32>(a: i32) -> i32 { a << N }
    }
}

impl U64Lanes for Scalar {
    const WIDE: usize = 1;

    type U64 = u64;

    verbs! {
        fn splat_u64(x: u64) -> u64 { x }
        unsafe fn load_u64(p: *const u64) -> u64 {
            // SAFETY: the caller's promise for one lane.
            unsafe { *p }
        }
        fn iota_u64(first: u64) -> u64 { first }
        fn add_u64(a: u64, b: u64) -> u64 { a.wrapping_add(b) }
        fn mul_low(a: u64, b: u64) -> u64 { (a & 0xffff_ffff) * (b & 0xffff_ffff) }
        fn xor_u64(a: u64, b: u64) -> u64 { a ^ b }
        fn and_u64(a: u64, b: u64) -> u64 { a & b }
        fn or_u64(a: u64, b: u64) -> u64 { a | b }
        fn and_not_u64(a: u64, b: u64) -> u64 { !a & b }
        fn high(a: u64) -> u64 { a >> 32 }
        fn pair(low: u64, high: u64) -> u64 { (low & 0xffff_ffff) | (high << 32) }
        fn is_zero(a: u64) -> bool { a == 0 }
        unsafe fn store_zipped(p: *mut u32, a: u64, b: u64) {
            let words = [a, b].map(|x| [x as u32, (x >> 32) as u32]);
            // SAFETY: the caller's promise for two lanes of 64 bits.
            unsafe { p.cast::<[[u32; 2]; 2]>().write_unaligned(words) }
        }
    }
}
