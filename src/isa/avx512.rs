//! The vector verbs in AVX-512F; mask bits are k-masks.

use std::arch::x86_64::*;

use super::{F32Lanes, I32Lanes, MaskLanes, U64Lanes};

/// Proof that this CPU has AVX-512F (and FMA, which every such CPU has).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Avx512(());

token!(Avx512: "avx512f", "avx2", "fma");
// 24 accumulators and 2 vectors of B; A is broadcast from memory by the multiply-add: 26 of 32.
tile_size!(Avx512: 12 x 2);

/// The k-mask of the first `n` lanes.
#[inline(always)]
fn first(n: usize) -> __mmask16 {
    ((1u32 << n.min(16)) - 1) as u16
}

impl MaskLanes for Avx512 {
    const LANES: usize = 16;

    type Mask = __mmask16;
    type Word = u32;

    verbs! {
        fn word(bits: u32) -> u32 { bits }
        fn lanes(word: u32, at: usize) -> __mmask16 { (word >> at) as u16 }
    }
}

impl F32Lanes for Avx512 {
    type F32 = __m512;

    intrinsics! {
        fn splat(x: f32) -> __m512 { _mm512_set1_ps(x) }
        unsafe fn load(p: *const f32) -> __m512 { _mm512_loadu_ps(p) }
        unsafe fn load_first(p: *const f32, n: usize) -> __m512 {
            _mm512_maskz_loadu_ps(first(n), p)
        }
        unsafe fn store(p: *mut f32, v: __m512) { _mm512_storeu_ps(p, v) }
        unsafe fn store_first(p: *mut f32, n: usize, v: __m512) {
            _mm512_mask_storeu_ps(p, first(n), v)
        }
        unsafe fn stream(p: *mut f32, v: __m512) { _mm512_stream_ps(p, v) }
        fn fence() { _mm_sfence() }
        fn prefetch(p: *const f32) { _mm_prefetch::<_MM_HINT_T0>(p.cast()) }
        fn add(a: __m512, b: __m512) -> __m512 { _mm512_add_ps(a, b) }
        fn sub(a: __m512, b: __m512) -> __m512 { _mm512_sub_ps(a, b) }
        fn mul(a: __m512, b: __m512) -> __m512 { _mm512_mul_ps(a, b) }
        fn div(a: __m512, b: __m512) -> __m512 { _mm512_div_ps(a, b) }
        fn sqrt(a: __m512) -> __m512 { _mm512_sqrt_ps(a) }
        fn mul_add(a: __m512, b: __m512, c: __m512) -> __m512 { _mm512_fmadd_ps(a, b, c) }
        fn neg_mul_add(a: __m512, b: __m512, c: __m512) -> __m512 { _mm512_fnmadd_ps(a, b, c) }
        fn abs(a: __m512) -> __m512 { _mm512_abs_ps(a) }
        fn with_sign_of(a: __m512, b: __m512) -> __m512 {
            _mm512_castsi512_ps(_mm512_or_si512(
                _mm512_castps_si512(a),
                _mm512_and_si512(_mm512_castps_si512(b), _mm512_set1_epi32(i32::MIN)),
            ))
        }
        fn lt(a: __m512, b: __m512) -> __mmask16 { _mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b) }
        fn le(a: __m512, b: __m512) -> __mmask16 { _mm512_cmp_ps_mask::<_CMP_LE_OQ>(a, b) }
        fn select(m: __mmask16, a: __m512, b: __m512) -> __m512 { _mm512_mask_mov_ps(b, m, a) }
        fn min(a: __m512, b: __m512) -> __m512 { _mm512_min_ps(a, b) }
        fn max(a: __m512, b: __m512) -> __m512 { _mm512_max_ps(a, b) }
        fn keep(m: __mmask16, a: __m512) -> __m512 { _mm512_maskz_mov_ps(m, a) }
        fn zero_where(m: __mmask16, a: __m512) -> __m512 { _mm512_maskz_mov_ps(!m, a) }
    }
}

impl I32Lanes for Avx512 {
    type I32 = __m512i;

    intrinsics! {
        fn as_bits(a: __m512) -> __m512i { _mm512_castps_si512(a) }
        fn as_float(a: __m512i) -> __m512 { _mm512_castsi512_ps(a) }
        fn to_float(a: __m512i) -> __m512 { _mm512_cvtepi32_ps(a) }
        fn permute(a: __m512, index: __m512i) -> __m512 { _mm512_permutexvar_ps(index, a) }
        fn negative(a: __m512i) -> __mmask16 { _mm512_cmplt_epi32_mask(a, _mm512_setzero_si512()) }
        fn splat_i32(x: i32) -> __m512i { _mm512_set1_epi32(x) }
        fn add_i32(a: __m512i, b: __m512i) -> __m512i { _mm512_add_epi32(a, b) }
        fn sub_i32(a: __m512i, b: __m512i) -> __m512i { _mm512_sub_epi32(a, b) }
        fn and_i32(a: __m512i, b: __m512i) -> __m512i { _mm512_and_si512(a, b) }
        fn shl_i32<const N: i32>(a: __m512i) -> __m512i {
            _mm512_sllv_epi32(a, _mm512_set1_epi32(N))
        }
    }
}

impl U64Lanes for Avx512 {
    const WIDE: usize = 8;

    type U64 = __m512i;

    intrinsics! {
        fn splat_u64(x: u64) -> __m512i { _mm512_set1_epi64(x.cast_signed()) }
        unsafe fn load_u64(p: *const u64) -> __m512i { _mm512_loadu_si512(p.cast()) }
        fn iota_u64(x: u64) -> __m512i {
            _mm512_add_epi64(
                _mm512_set1_epi64(x.cast_signed()),
                _mm512_setr_epi64(0, 1, 2, 3, 4, 5, 6, 7),
            )
        }
        fn add_u64(a: __m512i, b: __m512i) -> __m512i { _mm512_add_epi64(a, b) }
        fn mul_low(a: __m512i, b: __m512i) -> __m512i { _mm512_mul_epu32(a, b) }
        fn xor_u64(a: __m512i, b: __m512i) -> __m512i { _mm512_xor_si512(a, b) }
        fn and_u64(a: __m512i, b: __m512i) -> __m512i { _mm512_and_si512(a, b) }
        fn or_u64(a: __m512i, b: __m512i) -> __m512i { _mm512_or_si512(a, b) }
        fn and_not_u64(a: __m512i, b: __m512i) -> __m512i { _mm512_andnot_si512(a, b) }
        fn high(a: __m512i) -> __m512i { _mm512_srli_epi64::<32>(a) }
        fn pair(low: __m512i, high: __m512i) -> __m512i {
            _mm512_mask_mov_epi32(low, 0b1010_1010_1010_1010, _mm512_slli_epi64::<32>(high))
        }
        fn is_zero(a: __m512i) -> bool { _mm512_test_epi32_mask(a, a) == 0 }
        unsafe fn store_zipped(p: *mut u32, a: __m512i, b: __m512i) {
            let low = _mm512_setr_epi64(0, 8, 1, 9, 2, 10, 3, 11);
            let high = _mm512_setr_epi64(4, 12, 5, 13, 6, 14, 7, 15);
            _mm512_storeu_si512(p.cast(), _mm512_permutex2var_epi64(a, low, b));
            _mm512_storeu_si512(p.add(16).cast(), _mm512_permutex2var_epi64(a, high, b));
        }
    }
}
