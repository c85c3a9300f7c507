//! The vector verbs in AVX2 and FMA.

use std::arch::x86_64::*;

use super::{F32Lanes, I32Lanes, MaskLanes, U64Lanes};

/// Proof that this CPU has AVX2 and FMA.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Avx2(());

token!(Avx2: "avx2", "fma");
// 12 accumulators, 2 vectors of B and 1 of A: 15 of 16 registers.
tile_size!(Avx2: 6 x 2);

/// For each `n`, `MASKS[8 - n..]` starts with `n` lanes of ones.
static MASKS: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];

#[inline]
#[target_feature(enable = "avx2")]
fn first(n: usize) -> __m256i {
    let n = n.min(8);
    // SAFETY: 8 - n + 8 <= 16.
    unsafe { _mm256_loadu_si256(MASKS.as_ptr().add(8 - n).cast()) }
}

impl MaskLanes for Avx2 {
    const LANES: usize = 8;

    type Mask = __m256;
    type Word = __m256i;

    intrinsics! {
        fn word(bits: u32) -> __m256i { _mm256_set1_epi32(bits.cast_signed()) }
        fn lanes(word: __m256i, at: usize) -> __m256 {
            let bit = _mm256_setr_epi32(
                1 << at, 2 << at, 4 << at, 8 << at, 16 << at, 32 << at, 64 << at, 128 << at,
            );
            _mm256_castsi256_ps(_mm256_cmpeq_epi32(_mm256_and_si256(word, bit), bit))
        }
    }
}

impl F32Lanes for Avx2 {
    type F32 = __m256;

    intrinsics! {
        fn splat(x: f32) -> __m256 { _mm256_set1_ps(x) }
        unsafe fn load(p: *const f32) -> __m256 { _mm256_loadu_ps(p) }
        unsafe fn load_first(p: *const f32, n: usize) -> __m256 { _mm256_maskload_ps(p, first(n)) }
        unsafe fn store(p: *mut f32, v: __m256) { _mm256_storeu_ps(p, v) }
        unsafe fn store_first(p: *mut f32, n: usize, v: __m256) {
            _mm256_maskstore_ps(p, first(n), v)
        }
        unsafe fn stream(p: *mut f32, v: __m256) { _mm256_stream_ps(p, v) }
        fn fence() { _mm_sfence() }
        fn prefetch(p: *const f32) { _mm_prefetch::<_MM_HINT_T0>(p.cast()) }
        fn add(a: __m256, b: __m256) -> __m256 { _mm256_add_ps(a, b) }
        fn sub(a: __m256, b: __m256) -> __m256 { _mm256_sub_ps(a, b) }
        fn mul(a: __m256, b: __m256) -> __m256 { _mm256_mul_ps(a, b) }
        fn div(a: __m256, b: __m256) -> __m256 { _mm256_div_ps(a, b) }
        fn sqrt(a: __m256) -> __m256 { _mm256_sqrt_ps(a) }
        fn mul_add(a: __m256, b: __m256, c: __m256) -> __m256 { _mm256_fmadd_ps(a, b, c) }
        fn neg_mul_add(a: __m256, b: __m256, c: __m256) -> __m256 { _mm256_fnmadd_ps(a, b, c) }
        fn abs(a: __m256) -> __m256 { _mm256_andnot_ps(_mm256_set1_ps(-0.0), a) }
        fn with_sign_of(a: __m256, b: __m256) -> __m256 {
            _mm256_or_ps(a, _mm256_and_ps(_mm256_set1_ps(-0.0), b))
        }
        fn lt(a: __m256, b: __m256) -> __m256 { _mm256_cmp_ps::<_CMP_LT_OQ>(a, b) }
        fn le(a: __m256, b: __m256) -> __m256 { _mm256_cmp_ps::<_CMP_LE_OQ>(a, b) }
        fn select(m: __m256, a: __m256, b: __m256) -> __m256 { _mm256_blendv_ps(b, a, m) }
        fn min(a: __m256, b: __m256) -> __m256 { _mm256_min_ps(a, b) }
        fn max(a: __m256, b: __m256) -> __m256 { _mm256_max_ps(a, b) }
        fn keep(m: __m256, a: __m256) -> __m256 { _mm256_and_ps(m, a) }
        fn zero_where(m: __m256, a: __m256) -> __m256 { _mm256_andnot_ps(m, a) }
    }
}

impl I32Lanes for Avx2 {
    type I32 = __m256i;

    intrinsics! {
        fn as_bits(a: __m256) -> __m256i { _mm256_castps_si256(a) }
        fn as_float(a: __m256i) -> __m256 { _mm256_castsi256_ps(a) }
        fn to_float(a: __m256i) -> __m256 { _mm256_cvtepi32_ps(a) }
        fn permute(a: __m256, index: __m256i) -> __m256 { _mm256_permutevar8x32_ps(a, index) }
        fn negative(a: __m256i) -> __m256 { _mm256_castsi256_ps(_mm256_srai_epi32::<31>(a)) }
        fn splat_i32(x: i32) -> __m256i { _mm256_set1_epi32(x) }
        fn add_i32(a: __m256i, b: __m256i) -> __m256i { _mm256_add_epi32(a, b) }
        fn sub_i32(a: __m256i, b: __m256i) -> __m256i { _mm256_sub_epi32(a, b) }
        fn and_i32(a: __m256i, b: __m256i) -> __m256i { _mm256_and_si256(a, b) }
        fn shl_i32<const N: i32>(a: __m256i) -> __m256i { _mm256_slli_epi32::<N>(a) }
    }
}

impl U64Lanes for Avx2 {
    const WIDE: usize = 4;

    type U64 = __m256i;

    intrinsics! {
        fn splat_u64(x: u64) -> __m256i { _mm256_set1_epi64x(x.cast_signed()) }
        unsafe fn load_u64(p: *const u64) -> __m256i { _mm256_loadu_si256(p.cast()) }
        fn iota_u64(x: u64) -> __m256i {
            _mm256_add_epi64(_mm256_set1_epi64x(x.cast_signed()), _mm256_setr_epi64x(0, 1, 2, 3))
        }
        fn add_u64(a: __m256i, b: __m256i) -> __m256i { _mm256_add_epi64(a, b) }
        fn mul_low(a: __m256i, b: __m256i) -> __m256i { _mm256_mul_epu32(a, b) }
        fn xor_u64(a: __m256i, b: __m256i) -> __m256i { _mm256_xor_si256(a, b) }
        fn and_u64(a: __m256i, b: __m256i) -> __m256i { _mm256_and_si256(a, b) }
        fn or_u64(a: __m256i, b: __m256i) -> __m256i { _mm256_or_si256(a, b) }
        fn and_not_u64(a: __m256i, b: __m256i) -> __m256i { _mm256_andnot_si256(a, b) }
        fn high(a: __m256i) -> __m256i { _mm256_srli_epi64::<32>(a) }
        fn pair(low: __m256i, high: __m256i) -> __m256i {
            _mm256_blend_epi32::<0b1010_1010>(low, _mm256_slli_epi64::<32>(high))
        }
        fn is_zero(a: __m256i) -> bool { _mm256_testz_si256(a, a) == 1 }
        unsafe fn store_zipped(p: *mut u32, a: __m256i, b: __m256i) {
            let even = _mm256_unpacklo_epi64(a, b);
            let odd = _mm256_unpackhi_epi64(a, b);
            _mm256_storeu_si256(p.cast(), _mm256_permute2x128_si256::<0x20>(even, odd));
            _mm256_storeu_si256(p.add(8).cast(), _mm256_permute2x128_si256::<0x31>(even, odd));
        }
    }
}
