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
//!
//! | trait | what an instruction set says there |
//! |---|---|
//! | [`MaskLanes`] | truth values, and mask bits handed out to lanes |
//! | [`F32Lanes`] | floats |
//! | [`I32Lanes`] | 32-bit integers, one for each float |
//! | [`U64Lanes`] | 64-bit integers: Philox |
//! | [`TileSize`] | the GEMM tile that fills its registers |
//! | [`Dispatch`] | how a kernel is compiled for it |
//!
//! [`Isa`] is their sum, and the one bound that kernels write.

#[macro_use]
mod verbs;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod cache;
mod lanes;
mod level;
mod portable;
mod scalar;
mod twice;

#[cfg(target_arch = "x86_64")]
pub(crate) use avx2::Avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) use avx512::Avx512;
pub(crate) use cache::caches;
pub(crate) use lanes::{F32Lanes, I32Lanes, MaskLanes, U64Lanes};
pub(crate) use level::Forced;
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
    /// What it returns.
    type Output;

    /// The work, with tiles of `MR` rows and `NV` vectors; `MR1` is `MR - 1`, the height of the tiles
    /// that rows cut evenly leave. Implementations are `#[inline(always)]`.
    fn run<I: Isa, const MR: usize, const MR1: usize, const NV: usize>(
        self,
        isa: I,
    ) -> Self::Output;
}

/// How a kernel is compiled for an instruction set.
pub(crate) trait Dispatch: Sized {
    /// Runs `kernel` compiled for this instruction set, as a call: for work that is too long to be
    /// inlined at each place that needs it.
    fn vectorize<K: Kernel>(self, kernel: K) -> K::Output;
}

/// Whether this is the instruction set of CPUs that almost no program meets: SSE2. One loop for many
/// cases is enough there, and keeps programs small.
pub(crate) const fn is_fallback<I: Isa>() -> bool {
    cfg!(target_arch = "x86_64") && I::LANES == 4
}

/// The GEMM tile of an instruction set: `MR` rows of `NV` vectors, that is, of `NR = NV * LANES`
/// columns.
pub(crate) trait TileSize: Sized {
    /// Rows of a tile.
    const MR: usize;
    /// Vectors in a row of a tile.
    const NV: usize;

    /// Runs `kernel` with these sizes.
    fn tile<K: TileKernel>(self, kernel: K) -> K::Output;
}

/// An instruction set: lanes of every element type, a tile, and dispatch. Lanes of floats, 32-bit
/// integers and truth values correspond; vectors of 64-bit integers have half as many.
pub(crate) trait Isa: I32Lanes + U64Lanes + TileSize + Dispatch {}

impl<I: I32Lanes + U64Lanes + TileSize + Dispatch> Isa for I {}

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
