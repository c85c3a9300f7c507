//! The vector verbs on `wide`: SSE2, NEON or wasm simd128, whatever the build enables.
//!
//! `wide` chooses its instructions when it is compiled, so this level does not follow the machine
//! the program runs on; on x86-64 it is the level of CPUs without AVX2.

use wide::{f32x4, i32x4, u64x2};

use super::{Isa, Kernel, TileKernel};

/// 128-bit vectors, always there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Portable;

#[inline(always)]
fn bits_of(a: f32x4) -> i32x4 {
    wide::bytemuck::cast(a)
}

#[inline(always)]
fn floats_of(a: i32x4) -> f32x4 {
    wide::bytemuck::cast(a)
}

impl Isa for Portable {
    const LANES: usize = 4;
    const WIDE: usize = 2;
    // 8 accumulators, 2 vectors of B, 1 of A and 1 for a product: 12 of SSE2's 16 registers.
    const MR: usize = 4;
    const NV: usize = 2;

    type F32 = f32x4;
    type I32 = i32x4;
    type Mask = f32x4;
    type Word = i32x4;
    type U64 = u64x2;

    #[inline]
    fn vectorize<K: Kernel>(self, kernel: K) -> K::Output {
        kernel.run(self)
    }
    #[inline(always)]
    fn tile<K: TileKernel>(self, kernel: K) {
        kernel.run::<Self, { Self::MR }, { Self::MR - 1 }, { Self::NV }>(self);
    }
    #[inline(always)]
    fn splat(self, x: f32) -> f32x4 {
        f32x4::splat(x)
    }
    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> f32x4 {
        // SAFETY: the caller's promise.
        f32x4::from(unsafe { p.cast::<[f32; 4]>().read_unaligned() })
    }
    #[inline(always)]
    unsafe fn load_first(self, p: *const f32, n: usize) -> f32x4 {
        let mut lanes = [0.0; 4];
        // SAFETY: the caller's promise, and `n` is at most 4.
        unsafe { p.copy_to_nonoverlapping(lanes.as_mut_ptr(), n.min(4)) };
        f32x4::from(lanes)
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32, v: f32x4) {
        // SAFETY: the caller's promise.
        unsafe { p.cast::<[f32; 4]>().write_unaligned(v.to_array()) }
    }
    #[inline(always)]
    unsafe fn store_first(self, p: *mut f32, n: usize, v: f32x4) {
        // SAFETY: the caller's promise, and `n` is at most 4.
        unsafe { p.copy_from_nonoverlapping(v.to_array().as_ptr(), n.min(4)) }
    }
    #[inline(always)]
    unsafe fn stream(self, p: *mut f32, v: f32x4) {
        // SAFETY: the caller's promise.
        unsafe { self.store(p, v) }
    }
    #[inline(always)]
    fn fence(self) {}
    #[inline(always)]
    fn prefetch(self, _: *const f32) {}
    #[inline(always)]
    fn add(self, a: f32x4, b: f32x4) -> f32x4 {
        a + b
    }
    #[inline(always)]
    fn sub(self, a: f32x4, b: f32x4) -> f32x4 {
        a - b
    }
    #[inline(always)]
    fn mul(self, a: f32x4, b: f32x4) -> f32x4 {
        a * b
    }
    #[inline(always)]
    fn div(self, a: f32x4, b: f32x4) -> f32x4 {
        a / b
    }
    #[inline(always)]
    fn sqrt(self, a: f32x4) -> f32x4 {
        a.sqrt()
    }
    #[inline(always)]
    fn mul_add(self, a: f32x4, b: f32x4, c: f32x4) -> f32x4 {
        a.mul_add(b, c)
    }
    #[inline(always)]
    fn neg_mul_add(self, a: f32x4, b: f32x4, c: f32x4) -> f32x4 {
        a.mul_neg_add(b, c)
    }
    #[inline(always)]
    fn abs(self, a: f32x4) -> f32x4 {
        a & floats_of(i32x4::splat(i32::MAX))
    }
    #[inline(always)]
    fn with_sign_of(self, a: f32x4, b: f32x4) -> f32x4 {
        a | (b & f32x4::splat(-0.0))
    }
    #[inline(always)]
    fn lt(self, a: f32x4, b: f32x4) -> f32x4 {
        a.simd_lt(b)
    }
    #[inline(always)]
    fn le(self, a: f32x4, b: f32x4) -> f32x4 {
        a.simd_le(b)
    }
    #[inline(always)]
    fn select(self, m: f32x4, a: f32x4, b: f32x4) -> f32x4 {
        m.bitselect(a, b)
    }
    #[inline(always)]
    fn keep(self, m: f32x4, a: f32x4) -> f32x4 {
        m & a
    }
    #[inline(always)]
    fn zero_where(self, m: f32x4, a: f32x4) -> f32x4 {
        (m ^ floats_of(i32x4::splat(-1))) & a
    }
    #[inline(always)]
    fn word(self, bits: u32) -> i32x4 {
        i32x4::splat(bits.cast_signed())
    }
    #[inline(always)]
    fn lanes(self, word: i32x4, at: usize) -> f32x4 {
        let bit = i32x4::from([1 << at, 2 << at, 4 << at, 8 << at]);
        floats_of((word & bit).simd_eq(bit))
    }
    #[inline(always)]
    fn as_bits(self, a: f32x4) -> i32x4 {
        bits_of(a)
    }
    #[inline(always)]
    fn as_float(self, a: i32x4) -> f32x4 {
        floats_of(a)
    }
    #[inline(always)]
    fn permute(self, a: f32x4, index: i32x4) -> f32x4 {
        let (a, index) = (a.to_array(), index.to_array());
        f32x4::from(index.map(|i| a[(i & 3) as usize]))
    }
    #[inline(always)]
    fn negative(self, a: i32x4) -> f32x4 {
        floats_of(a >> 31)
    }
    #[inline(always)]
    fn splat_i32(self, x: i32) -> i32x4 {
        i32x4::splat(x)
    }
    #[inline(always)]
    fn add_i32(self, a: i32x4, b: i32x4) -> i32x4 {
        a + b
    }
    #[inline(always)]
    fn sub_i32(self, a: i32x4, b: i32x4) -> i32x4 {
        a - b
    }
    #[inline(always)]
    fn and_i32(self, a: i32x4, b: i32x4) -> i32x4 {
        a & b
    }
    #[inline(always)]
    fn shl_i32<const N: i32>(self, a: i32x4) -> i32x4 {
        a << N
    }
    #[inline(always)]
    fn to_float(self, a: i32x4) -> f32x4 {
        f32x4::from_i32x4(a)
    }
    #[inline(always)]
    fn splat_u64(self, x: u64) -> u64x2 {
        u64x2::splat(x)
    }
    #[inline(always)]
    unsafe fn load_u64(self, p: *const u64) -> u64x2 {
        // SAFETY: the caller's promise for two lanes.
        u64x2::from(unsafe { p.cast::<[u64; 2]>().read() })
    }
    #[inline(always)]
    fn iota_u64(self, first: u64) -> u64x2 {
        u64x2::from([first, first.wrapping_add(1)])
    }
    #[inline(always)]
    fn mul_low(self, a: u64x2, b: u64x2) -> u64x2 {
        let low = u64x2::splat(0xffff_ffff);
        let (a, b) = ((a & low).to_array(), (b & low).to_array());
        u64x2::from([a[0].wrapping_mul(b[0]), a[1].wrapping_mul(b[1])])
    }
    #[inline(always)]
    fn xor_u64(self, a: u64x2, b: u64x2) -> u64x2 {
        a ^ b
    }
    #[inline(always)]
    fn and_u64(self, a: u64x2, b: u64x2) -> u64x2 {
        a & b
    }
    #[inline(always)]
    fn or_u64(self, a: u64x2, b: u64x2) -> u64x2 {
        a | b
    }
    #[inline(always)]
    fn and_not_u64(self, a: u64x2, b: u64x2) -> u64x2 {
        (a ^ u64x2::splat(u64::MAX)) & b
    }
    #[inline(always)]
    fn high(self, a: u64x2) -> u64x2 {
        a >> 32
    }
    #[inline(always)]
    fn pair(self, low: u64x2, high: u64x2) -> u64x2 {
        (low & u64x2::splat(0xffff_ffff)) | (high << 32)
    }
    #[inline(always)]
    fn is_zero(self, a: u64x2) -> bool {
        let [a0, a1] = a.to_array();
        a0 | a1 == 0
    }
    #[inline(always)]
    unsafe fn store_zipped(self, p: *mut u32, a: u64x2, b: u64x2) {
        let ([a0, a1], [b0, b1]) = (a.to_array(), b.to_array());
        let words = [a0, b0, a1, b1].map(|x| [x as u32, (x >> 32) as u32]);
        // SAFETY: the caller's promise for eight words.
        unsafe { p.cast::<[[u32; 2]; 4]>().write_unaligned(words) }
    }
}
