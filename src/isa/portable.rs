//! The vector verbs on `wide`: SSE2, NEON or wasm simd128, whatever the build enables.
//!
//! `wide` chooses its instructions when it is compiled, so this level does not follow the machine
//! the program runs on; on x86-64 it is the level of CPUs without AVX2.

use wide::bytemuck::cast;
use wide::{f32x4, i32x4, u64x2};

use super::{F32Lanes, I32Lanes, MaskLanes, U64Lanes};

/// 128-bit vectors, always there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Portable;

always_there!(Portable);
// 8 accumulators, 2 vectors of B, 1 of A and 1 for a product: 12 of SSE2's 16 registers.
tile_size!(Portable: 4 x 2);

#[inline(always)]
fn floats_of(a: i32x4) -> f32x4 {
    cast(a)
}

impl MaskLanes for Portable {
    const LANES: usize = 4;

    type Mask = f32x4;
    type Word = i32x4;

    verbs! {
        fn word(bits: u32) -> i32x4 { i32x4::splat(bits.cast_signed()) }
        fn lanes(word: i32x4, at: usize) -> f32x4 {
            let bit = i32x4::from([1 << at, 2 << at, 4 << at, 8 << at]);
            floats_of((word & bit).simd_eq(bit))
        }
    }
}

impl F32Lanes for Portable {
    type F32 = f32x4;

    verbs! {
        fn splat(x: f32) -> f32x4 { f32x4::splat(x) }
        unsafe fn load(p: *const f32) -> f32x4 {
            // SAFETY: the caller's promise.
            f32x4::from(unsafe { p.cast::<[f32; 4]>().read_unaligned() })
        }
        unsafe fn load_first(p: *const f32, n: usize) -> f32x4 {
            let mut lanes = [0.0; 4];
            // SAFETY: the caller's promise, and `n` is at most 4.
            unsafe { p.copy_to_nonoverlapping(lanes.as_mut_ptr(), n.min(4)) };
            f32x4::from(lanes)
        }
        unsafe fn store(p: *mut f32, v: f32x4) {
            // SAFETY: the caller's promise.
            unsafe { p.cast::<[f32; 4]>().write_unaligned(v.to_array()) }
        }
        unsafe fn store_first(p: *mut f32, n: usize, v: f32x4) {
            // SAFETY: the caller's promise, and `n` is at most 4.
            unsafe { p.copy_from_nonoverlapping(v.to_array().as_ptr(), n.min(4)) }
        }
        unsafe fn stream(p: *mut f32, v: f32x4) {
            // SAFETY: the caller's promise.
            unsafe { Portable.store(p, v) }
        }
        fn add(a: f32x4, b: f32x4) -> f32x4 { a + b }
        fn sub(a: f32x4, b: f32x4) -> f32x4 { a - b }
        fn mul(a: f32x4, b: f32x4) -> f32x4 { a * b }
        fn div(a: f32x4, b: f32x4) -> f32x4 { a / b }
        fn sqrt(a: f32x4) -> f32x4 { a.sqrt() }
        fn mul_add(a: f32x4, b: f32x4, c: f32x4) -> f32x4 { a.mul_add(b, c) }
        fn neg_mul_add(a: f32x4, b: f32x4, c: f32x4) -> f32x4 { a.mul_neg_add(b, c) }
        fn abs(a: f32x4) -> f32x4 { a & floats_of(i32x4::splat(i32::MAX)) }
        fn with_sign_of(a: f32x4, b: f32x4) -> f32x4 { a | (b & f32x4::splat(-0.0)) }
        fn lt(a: f32x4, b: f32x4) -> f32x4 { a.simd_lt(b) }
        fn le(a: f32x4, b: f32x4) -> f32x4 { a.simd_le(b) }
        fn select(m: f32x4, a: f32x4, b: f32x4) -> f32x4 { m.bitselect(a, b) }
        fn keep(m: f32x4, a: f32x4) -> f32x4 { m & a }
        fn zero_where(m: f32x4, a: f32x4) -> f32x4 { (m ^ floats_of(i32x4::splat(-1))) & a }
    }
}

impl I32Lanes for Portable {
    type I32 = i32x4;

    verbs! {
        fn as_bits(a: f32x4) -> i32x4 { cast(a) }
        fn as_float(a: i32x4) -> f32x4 { floats_of(a) }
        fn to_float(a: i32x4) -> f32x4 { f32x4::from_i32x4(a) }
        fn permute(a: f32x4, index: i32x4) -> f32x4 {
            let (a, index) = (a.to_array(), index.to_array());
            f32x4::from(index.map(|i| a[(i & 3) as usize]))
        }
        fn negative(a: i32x4) -> f32x4 { floats_of(a >> 31) }
        fn splat_i32(x: i32) -> i32x4 { i32x4::splat(x) }
        fn add_i32(a: i32x4, b: i32x4) -> i32x4 { a + b }
        fn sub_i32(a: i32x4, b: i32x4) -> i32x4 { a - b }
        fn and_i32(a: i32x4, b: i32x4) -> i32x4 { a & b }
        fn shl_i32<const N: i32>(a: i32x4) -> i32x4 { a << N }
    }
}

impl U64Lanes for Portable {
    const WIDE: usize = 2;

    type U64 = u64x2;

    verbs! {
        fn splat_u64(x: u64) -> u64x2 { u64x2::splat(x) }
        unsafe fn load_u64(p: *const u64) -> u64x2 {
            // SAFETY: the caller's promise for two lanes.
            u64x2::from(unsafe { p.cast::<[u64; 2]>().read() })
        }
        fn iota_u64(first: u64) -> u64x2 { u64x2::from([first, first.wrapping_add(1)]) }
        fn add_u64(a: u64x2, b: u64x2) -> u64x2 { a + b }
        fn mul_low(a: u64x2, b: u64x2) -> u64x2 {
            let low = u64x2::splat(0xffff_ffff);
            let (a, b) = ((a & low).to_array(), (b & low).to_array());
            u64x2::from([a[0].wrapping_mul(b[0]), a[1].wrapping_mul(b[1])])
        }
        fn xor_u64(a: u64x2, b: u64x2) -> u64x2 { a ^ b }
        fn and_u64(a: u64x2, b: u64x2) -> u64x2 { a & b }
        fn or_u64(a: u64x2, b: u64x2) -> u64x2 { a | b }
        fn and_not_u64(a: u64x2, b: u64x2) -> u64x2 { (a ^ u64x2::splat(u64::MAX)) & b }
        fn high(a: u64x2) -> u64x2 { a >> 32 }
        fn pair(low: u64x2, high: u64x2) -> u64x2 {
            (low & u64x2::splat(0xffff_ffff)) | (high << 32)
        }
        fn is_zero(a: u64x2) -> bool {
            let [a0, a1] = a.to_array();
            a0 | a1 == 0
        }
        unsafe fn store_zipped(p: *mut u32, a: u64x2, b: u64x2) {
            let ([a0, a1], [b0, b1]) = (a.to_array(), b.to_array());
            let words = [a0, b0, a1, b1].map(|x| [x as u32, (x >> 32) as u32]);
            // SAFETY: the caller's promise for eight words.
            unsafe { p.cast::<[[u32; 2]; 4]>().write_unaligned(words) }
        }
    }
}
