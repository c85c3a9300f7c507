//! One lane: the arithmetic of the reference, in which a kernel's formula can be run for a single
//! element.

use super::{Isa, Kernel, TileKernel};

/// One float at a time, with `f32::mul_add`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scalar;

impl Isa for Scalar {
    const LANES: usize = 1;
    const WIDE: usize = 1;
    const MR: usize = 1;
    const NV: usize = 1;

    type F32 = f32;
    type I32 = i32;
    type Mask = bool;
    type Word = u32;
    type U64 = u64;

    fn vectorize<K: Kernel>(self, kernel: K) -> K::Output {
        kernel.run(self)
    }
    fn tile<K: TileKernel>(self, kernel: K) {
        kernel.run::<Self, 1, 1, 1>(self);
    }
    fn splat(self, x: f32) -> f32 {
        x
    }
    unsafe fn load(self, p: *const f32) -> f32 {
        // SAFETY: the caller's promise for one lane.
        unsafe { *p }
    }
    unsafe fn load_first(self, _: *const f32, _: usize) -> f32 {
        0.0
    }
    unsafe fn store(self, p: *mut f32, v: f32) {
        // SAFETY: the caller's promise for one lane.
        unsafe { *p = v }
    }
    unsafe fn store_first(self, _: *mut f32, _: usize, _: f32) {}
    unsafe fn stream(self, p: *mut f32, v: f32) {
        // SAFETY: the caller's promise for one lane.
        unsafe { *p = v }
    }
    fn fence(self) {}
    fn prefetch(self, _: *const f32) {}
    fn add(self, a: f32, b: f32) -> f32 {
        a + b
    }
    fn sub(self, a: f32, b: f32) -> f32 {
        a - b
    }
    fn mul(self, a: f32, b: f32) -> f32 {
        a * b
    }
    fn div(self, a: f32, b: f32) -> f32 {
        a / b
    }
    fn sqrt(self, a: f32) -> f32 {
        a.sqrt()
    }
    fn mul_add(self, a: f32, b: f32, c: f32) -> f32 {
        a.mul_add(b, c)
    }
    fn neg_mul_add(self, a: f32, b: f32, c: f32) -> f32 {
        (-a).mul_add(b, c)
    }
    fn abs(self, a: f32) -> f32 {
        a.abs()
    }
    fn with_sign_of(self, a: f32, b: f32) -> f32 {
        a.copysign(b)
    }
    fn lt(self, a: f32, b: f32) -> bool {
        a < b
    }
    fn le(self, a: f32, b: f32) -> bool {
        a <= b
    }
    fn select(self, m: bool, a: f32, b: f32) -> f32 {
        if m { a } else { b }
    }
    fn keep(self, m: bool, a: f32) -> f32 {
        if m { a } else { 0.0 }
    }
    fn zero_where(self, m: bool, a: f32) -> f32 {
        if m { 0.0 } else { a }
    }
    fn word(self, bits: u32) -> u32 {
        bits
    }
    fn lanes(self, word: u32, at: usize) -> bool {
        (word >> at) & 1 == 1
    }
    fn as_bits(self, a: f32) -> i32 {
        a.to_bits().cast_signed()
    }
    fn as_float(self, a: i32) -> f32 {
        f32::from_bits(a.cast_unsigned())
    }
    fn permute(self, a: f32, _: i32) -> f32 {
        a
    }
    fn negative(self, a: i32) -> bool {
        a < 0
    }
    fn splat_i32(self, x: i32) -> i32 {
        x
    }
    fn add_i32(self, a: i32, b: i32) -> i32 {
        a.wrapping_add(b)
    }
    fn sub_i32(self, a: i32, b: i32) -> i32 {
        a.wrapping_sub(b)
    }
    fn and_i32(self, a: i32, b: i32) -> i32 {
        a & b
    }
    fn shl_i32<const N: i32>(self, a: i32) -> i32 {
        a << N
    }
    fn to_float(self, a: i32) -> f32 {
        a as f32
    }
    fn splat_u64(self, x: u64) -> u64 {
        x
    }
    unsafe fn load_u64(self, p: *const u64) -> u64 {
        // SAFETY: the caller's promise for one lane.
        unsafe { *p }
    }
    fn iota_u64(self, first: u64) -> u64 {
        first
    }
    fn mul_low(self, a: u64, b: u64) -> u64 {
        (a & 0xffff_ffff) * (b & 0xffff_ffff)
    }
    fn xor_u64(self, a: u64, b: u64) -> u64 {
        a ^ b
    }
    fn and_u64(self, a: u64, b: u64) -> u64 {
        a & b
    }
    fn or_u64(self, a: u64, b: u64) -> u64 {
        a | b
    }
    fn and_not_u64(self, a: u64, b: u64) -> u64 {
        !a & b
    }
    fn high(self, a: u64) -> u64 {
        a >> 32
    }
    fn pair(self, low: u64, high: u64) -> u64 {
        (low & 0xffff_ffff) | (high << 32)
    }
    fn is_zero(self, a: u64) -> bool {
        a == 0
    }
    unsafe fn store_zipped(self, p: *mut u32, a: u64, b: u64) {
        // SAFETY: the caller's promise for two lanes of 64 bits.
        unsafe {
            p.cast::<[[u32; 2]; 2]>().write_unaligned([a, b].map(|x| [x as u32, (x >> 32) as u32]))
        }
    }
}
