//! Instruction sets: the vector verbs of the kernels, and the choice among their implementations at
//! run time.
//!
//! A kernel is a struct of its arguments with one generic function, [`Kernel::run`]. Calling it
//! through [`Level::vectorize`] compiles that function once for each instruction set:
//!
//! - `Level` is the value that crosses threads; it is looked up once for each public operation.
//! - Inside `vectorize` everything is `#[inline(always)]` down to the intrinsics. A function that
//!   is not inlined is compiled for the baseline and turns each vector operation into a call;
//!   closures handed to other crates (rayon above all) have the same effect. Hence the rule:
//!   threads above, dispatch below.
//! - A token ([`Avx2`], [`Avx512`]) can only be made by a check of the CPU, so holding one proves
//!   that its instructions exist. That is the one sentence behind each `unsafe` of the ISA files.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod cache;
mod level;
mod portable;
mod scalar;
mod twice;

#[cfg(target_arch = "x86_64")]
pub(crate) use avx2::Avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) use avx512::Avx512;
pub(crate) use cache::caches;
pub use level::Level;
pub(crate) use portable::Portable;
pub(crate) use scalar::Scalar;
pub(crate) use twice::Twice;

/// A function compiled once for each instruction set.
pub(crate) trait Kernel {
    /// What it returns.
    type Output;

    /// The work. Implementations are `#[inline(always)]`.
    fn run<I: Isa>(self, isa: I) -> Self::Output;
}

/// A kernel that also wants the instruction set's tile as constants.
pub(crate) trait TileKernel {
    /// The work, with tiles of `MR` or `LESS = MR - 1` rows and `NV` vectors. Implementations are `#[inline(always)]`.
    fn run<I: Isa, const MR: usize, const LESS: usize, const NV: usize>(self, isa: I);
}

/// The vector verbs. Lanes of `F32` and `I32` correspond; `U64` has half as many.
///
/// Every implementation gives the same bits for every verb, save [`Isa::mul_add`] on a portable
/// build without fused multiply-add.
pub(crate) trait Isa: Copy + Send + Sync + 'static {
    /// Lanes of a float vector; divides 32.
    const LANES: usize;
    /// Lanes of a `U64` vector.
    const WIDE: usize;
    /// Rows of a GEMM tile.
    const MR: usize;
    /// Vectors in a row of a GEMM tile: `NR = NV * LANES` columns.
    const NV: usize;

    /// A vector of floats.
    type F32: Copy;
    /// A vector of integers, one for each lane of `F32`.
    type I32: Copy;
    /// One truth value for each lane of `F32`.
    type Mask: Copy;
    /// 32 mask bits, ready to be handed out to lanes.
    type Word: Copy;
    /// A vector of 64-bit integers: 32-bit counters with room for their products.
    type U64: Copy;

    /// Runs `kernel` compiled for this instruction set, as a call: for work that is too long to be
    /// inlined at each place that needs it.
    fn vectorize<K: Kernel>(self, kernel: K) -> K::Output;

    /// Runs `kernel` with this instruction set's tile sizes.
    fn tile<K: TileKernel>(self, kernel: K);

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
    /// Stores past the caches, where the instruction set can; [`Isa::fence`] must follow the last.
    /// # Safety
    /// `p` is valid for writes of `LANES` floats and aligned to a whole vector.
    unsafe fn stream(self, p: *mut f32, v: Self::F32);
    /// Orders streamed stores before what follows.
    fn fence(self);
    /// Asks for the cache line at `p`, which need not be valid.
    fn prefetch(self, p: *const f32);

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
    /// `c - a * b`, rounded as [`Isa::mul_add`] is.
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

    /// Prepares 32 mask bits.
    fn word(self, bits: u32) -> Self::Word;
    /// Lane `i` gets bit `at + i` of the word; `at` is a multiple of `LANES` below 32.
    fn lanes(self, word: Self::Word, at: usize) -> Self::Mask;

    /// The floats' bits.
    fn as_bits(self, a: Self::F32) -> Self::I32;
    /// The floats with these bits.
    fn as_float(self, a: Self::I32) -> Self::F32;
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
    /// The nearest floats, ties to even.
    fn to_float(self, a: Self::I32) -> Self::F32;

    /// All lanes `x`.
    fn splat_u64(self, x: u64) -> Self::U64;
    /// # Safety
    /// `p` is valid for reads of `WIDE` numbers.
    unsafe fn load_u64(self, p: *const u64) -> Self::U64;
    /// `first, first + 1, ...`
    fn iota_u64(self, first: u64) -> Self::U64;
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

/// Loads `n` lanes, all of them where `n` is known to be `LANES`.
///
/// # Safety
///
/// `p` is valid for reads of `n` floats.
#[inline(always)]
pub(crate) unsafe fn load<I: Isa>(isa: I, p: *const f32, n: usize) -> I::F32 {
    // SAFETY: the caller's promise.
    unsafe { if n == I::LANES { isa.load(p) } else { isa.load_first(p, n) } }
}

/// Stores `n` lanes.
///
/// # Safety
///
/// `p` is valid for writes of `n` floats.
#[inline(always)]
pub(crate) unsafe fn store<I: Isa>(isa: I, p: *mut f32, n: usize, v: I::F32) {
    // SAFETY: the caller's promise.
    unsafe { if n == I::LANES { isa.store(p, v) } else { isa.store_first(p, n, v) } }
}
