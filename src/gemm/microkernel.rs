//! The micro-kernel: a tile of C in registers, one multiply-add for each element and k.
//!
//! ```text
//! acc[r][v] = start                            bias, or the partial result of the last block of k
//! for p in 0..k:
//!     b[v]      = B panel, row p               NV loads
//!     acc[r][v] = fma(a[r], b[v], acc[r][v])   MR broadcasts, MR * NV multiply-adds
//! store acc as partial result, or hand it to the epilogue
//! ```
//!
//! The real one is unrolled by four, and does two more things between steps of k, where the load
//! and store units have room: it packs or prefetches rows of the next panel of B ([`AheadRows`]),
//! and it finishes the rows of another tile ([`StepHook`]).

use super::pack::AheadRows;
use crate::isa::Isa;

/// What a tile multiplies: packed panels, how many steps of k they hold, and what it packs ahead.
#[derive(Clone, Copy)]
pub(super) struct Panels {
    pub(super) a: *const f32,
    pub(super) b: *const f32,
    pub(super) k: usize,
    pub(super) ahead: AheadRows,
}

/// Work between the steps of k.
pub(super) trait StepHook {
    /// Called before the four steps of k with this number.
    fn before_steps<I: Isa>(&mut self, isa: I, step: usize);
}

/// No work between the steps.
pub(super) struct NoHook;

impl StepHook for NoHook {
    #[inline(always)]
    fn before_steps<I: Isa>(&mut self, _: I, _: usize) {}
}

/// `acc += A panel · B panel`, for `R` rows and `V` vectors; rows of B have `nr` floats.
///
/// # Safety
///
/// The panels are valid for `k` rows of `R` floats and of `nr`, and so is what is copied, with its
/// bits, for a row each four steps.
#[inline(always)]
pub(super) unsafe fn accumulate<I: Isa, const R: usize, const V: usize>(
    isa: I,
    panels: &Panels,
    nr: usize,
    acc: &mut [[I::F32; V]; R],
    hook: &mut impl StepHook,
) {
    let Panels { mut a, mut b, k, mut ahead } = *panels;
    macro_rules! step {
        () => {
            let mut row = [isa.splat(0.0); V];
            let mut v = 0;
            while v < V {
                row[v] = isa.load(b.add(v * I::LANES));
                v += 1;
            }
            let mut r = 0;
            while r < R {
                let x = isa.splat(*a.add(r));
                let mut v = 0;
                while v < V {
                    acc[r][v] = isa.mul_add(x, row[v], acc[r][v]);
                    v += 1;
                }
                r += 1;
            }
            a = a.add(R);
            b = b.add(nr);
        };
    }
    // SAFETY: the caller's promise.
    unsafe {
        let mut i = 0;
        while i < k / 4 {
            if i & ahead.interval_mask == 0 {
                ahead.copy_row(isa, nr);
            }
            hook.before_steps(isa, i);
            i += 1;
            step!();
            step!();
            step!();
            step!();
        }
        for _ in 0..k % 4 {
            step!();
        }
    }
}
