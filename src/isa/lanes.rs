//! The verbs by element type: truth values, floats, 32-bit integers, 64-bit integers.
//!
//! Every implementation gives the same bits for every verb, save [`F32Lanes::mul_add`] and
//! [`F32Lanes::neg_mul_add`] on a portable build without fused multiply-add.

/// Truth values, and mask bits handed out to lanes.
pub(crate) trait MaskLanes: Copy + Send + Sync + 'static {
    /// Lanes of a vector of floats, 32-bit integers or truth values; divides 32.
    const LANES: usize;

    /// One truth value for each lane.
    type Mask: Copy;
    /// 32 mask bits, ready to be handed out to lanes.
    type Word: Copy;

    /// Prepares 32 mask bits.
    fn word(self, bits: u32) -> Self::Word;
    /// Lane `i` gets bit `at + i` of the word; `at` is a multiple of `LANES` below 32.
    fn lanes(self, word: Self::Word, at: usize) -> Self::Mask;
}

/// Floats: memory, arithmetic, comparison and choice.
pub(crate) trait F32Lanes: MaskLanes {
    /// A vector of `LANES` floats.
    type F32: Copy;

    /// All lanes `x`.
    fn splat(self, x: f32) -> Self::F32;
    /// # Safety
    /// `p` is valid for reads of `LANES` floats.
    unsafe fn load(self, p: *const f32) -> Self::F32;
    /// The first `n < LANES` lanes from memory, the others zero.
    /// # Safety
    /// `p` is valid for reads of `n` floats.
    unsafe fn load_first(self, p: *const f32, n: usize) -> Self::F32;
    /// # Safety
    /// `p` is valid for writes of `LANES` floats.
    unsafe fn store(self, p: *mut f32, v: Self::F32);
    /// Stores the first `n < LANES` lanes.
    /// # Safety
    /// `p` is valid for writes of `n` floats.
    unsafe fn store_first(self, p: *mut f32, n: usize, v: Self::F32);
    /// Stores past the caches, where the instruction set can; [`F32Lanes::fence`] must follow the
    /// last.
    /// # Safety
    /// `p` is valid for writes of `LANES` floats and aligned to a whole vector.
    unsafe fn stream(self, p: *mut f32, v: Self::F32);
    /// Orders streamed stores before what follows.
    #[inline(always)]
    fn fence(self) {}
    /// Prefetches the cache line at `p`, which need not be valid.
    #[inline(always)]
    fn prefetch(self, _p: *const f32) {}

    /// `a + b`.
    fn add(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `a - b`.
    fn sub(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `a * b`.
    fn mul(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `a / b`.
    fn div(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `sqrt(a)`.
    fn sqrt(self, a: Self::F32) -> Self::F32;
    /// `a * b + c`, rounded once (twice on a portable build without FMA).
    fn mul_add(self, a: Self::F32, b: Self::F32, c: Self::F32) -> Self::F32;
    /// `c - a * b`, rounded as [`F32Lanes::mul_add`] is.
    fn neg_mul_add(self, a: Self::F32, b: Self::F32, c: Self::F32) -> Self::F32;
    /// `a` without its sign.
    fn abs(self, a: Self::F32) -> Self::F32;
    /// The magnitude of `a`, which is not negative, with the sign of `b`.
    fn with_sign_of(self, a: Self::F32, b: Self::F32) -> Self::F32;

    /// `a < b`; false where either is NaN.
    fn lt(self, a: Self::F32, b: Self::F32) -> Self::Mask;
    /// `a <= b`; false where either is NaN.
    fn le(self, a: Self::F32, b: Self::F32) -> Self::Mask;
    /// `if m { a } else { b }`.
    fn select(self, m: Self::Mask, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `if a < b { a } else { b }`: a NaN in `b` stays, one in `a` is lost.
    #[inline(always)]
    fn min(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        self.select(self.lt(a, b), a, b)
    }
    /// `if b < a { a } else { b }`: a NaN in `b` stays, one in `a` is lost.
    #[inline(always)]
    fn max(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        self.select(self.lt(b, a), a, b)
    }
    /// `if m { a } else { +0.0 }`.
    fn keep(self, m: Self::Mask, a: Self::F32) -> Self::F32;
    /// `if m { +0.0 } else { a }`.
    fn zero_where(self, m: Self::Mask, a: Self::F32) -> Self::F32;
}

/// 32-bit integers, one for each float: bits of floats, lane indices, wrapping arithmetic.
pub(crate) trait I32Lanes: F32Lanes {
    /// A vector of `LANES` integers.
    type I32: Copy;

    /// The floats' bits.
    fn as_bits(self, a: Self::F32) -> Self::I32;
    /// The floats with these bits.
    fn as_float(self, a: Self::I32) -> Self::F32;
    /// The nearest floats, ties to even.
    fn to_float(self, a: Self::I32) -> Self::F32;
    /// Lane `i` is lane `index[i]` of `a`; any lane where that is negative or not below `LANES`.
    fn permute(self, a: Self::F32, index: Self::I32) -> Self::F32;
    /// `a < 0`.
    fn negative(self, a: Self::I32) -> Self::Mask;
    /// All lanes `x`.
    fn splat_i32(self, x: i32) -> Self::I32;
    /// `a + b`, wrapping.
    fn add_i32(self, a: Self::I32, b: Self::I32) -> Self::I32;
    /// `a - b`, wrapping.
    fn sub_i32(self, a: Self::I32, b: Self::I32) -> Self::I32;
    /// `a & b`.
    fn and_i32(self, a: Self::I32, b: Self::I32) -> Self::I32;
    /// `a << N`.
    fn shl_i32<const N: i32>(self, a: Self::I32) -> Self::I32;
}

/// 64-bit integers for Philox: 32-bit counters with room for their products.
pub(crate) trait U64Lanes: Copy + Send + Sync + 'static {
    /// Lanes of a vector of 64-bit integers.
    const WIDE: usize;

    /// A vector of `WIDE` integers.
    type U64: Copy;

    /// All lanes `x`.
    fn splat_u64(self, x: u64) -> Self::U64;
    /// # Safety
    /// `p` is valid for reads of `WIDE` numbers.
    unsafe fn load_u64(self, p: *const u64) -> Self::U64;
    /// `first, first + 1, ...`
    fn iota_u64(self, first: u64) -> Self::U64;
    /// `a + b`, without a carry out of a lane.
    fn add_u64(self, a: Self::U64, b: Self::U64) -> Self::U64;
    /// The product of the low halves of each lane.
    fn mul_low(self, a: Self::U64, b: Self::U64) -> Self::U64;
    /// `a ^ b`.
    fn xor_u64(self, a: Self::U64, b: Self::U64) -> Self::U64;
    /// `a & b`.
    fn and_u64(self, a: Self::U64, b: Self::U64) -> Self::U64;
    /// `a | b`.
    fn or_u64(self, a: Self::U64, b: Self::U64) -> Self::U64;
    /// `!a & b`.
    fn and_not_u64(self, a: Self::U64, b: Self::U64) -> Self::U64;
    /// Each lane's high half, moved down.
    fn high(self, a: Self::U64) -> Self::U64;
    /// The low half of `low` below the low half of `high`.
    fn pair(self, low: Self::U64, high: Self::U64) -> Self::U64;
    /// Whether every lane is zero.
    fn is_zero(self, a: Self::U64) -> bool;
    /// Stores `a0 b0 a1 b1 ...`, one 64-bit lane after the other.
    /// # Safety
    /// `p` is valid for writes of `4 * WIDE` words of 32 bits.
    unsafe fn store_zipped(self, p: *mut u32, a: Self::U64, b: Self::U64);
}
