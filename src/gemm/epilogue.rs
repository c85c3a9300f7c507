//! What happens to the accumulators of a product, before they are ever stored.

use crate::activation::Function;
use crate::elementwise::SgdStep;
use crate::isa::{Isa, load, store};
use crate::view::{Source, Target};

/// The last step of a product, on one vector of accumulators.
pub(crate) trait Epilogue: Copy + Send + Sync {
    /// Whether the mask bits matter.
    const MASKED: bool;
    /// Whether the work on a vector is so long that a loop over a tile in memory beats code for
    /// each accumulator register.
    const LONG: bool;
    /// Whether the elements that the epilogue writes may hold partial sums before.
    const OVERWRITES: bool = true;

    /// Turns the sums of row `row`, columns `col..col + n`, into outputs; `n` is `LANES`, or less at
    /// the right edge.
    ///
    /// # Safety
    ///
    /// The elements lie in every matrix of the epilogue, whose rows are contiguous, and no other
    /// task accesses them.
    unsafe fn finish<I: Isa>(
        self,
        isa: I,
        row: usize,
        col: usize,
        n: usize,
        sum: I::F32,
        keep: I::Mask,
    );
}

/// `c = sum`.
#[derive(Clone, Copy)]
pub(crate) struct Store {
    pub(crate) c: Target,
}

impl Epilogue for Store {
    const MASKED: bool = false;
    const LONG: bool = false;

    #[inline(always)]
    unsafe fn finish<I: Isa>(
        self,
        isa: I,
        row: usize,
        col: usize,
        n: usize,
        sum: I::F32,
        _: I::Mask,
    ) {
        // SAFETY: the caller's promise.
        unsafe { store(isa, self.c.in_row(row, col), n, sum) }
    }
}

/// `c = keep ? sum · scale : 0`: the gradient through an input dropout.
#[derive(Clone, Copy)]
pub(crate) struct Drop {
    pub(crate) c: Target,
    pub(crate) scale: f32,
}

impl Epilogue for Drop {
    const MASKED: bool = true;
    const LONG: bool = false;

    #[inline(always)]
    unsafe fn finish<I: Isa>(
        self,
        isa: I,
        row: usize,
        col: usize,
        n: usize,
        sum: I::F32,
        keep: I::Mask,
    ) {
        let c = isa.keep(keep, isa.mul(sum, isa.splat(self.scale)));
        // SAFETY: the caller's promise.
        unsafe { store(isa, self.c.in_row(row, col), n, c) }
    }
}

/// `z = sum, y = [residual +] (keep ? act(z) · scale : 0)`, storing z on request.
#[derive(Clone, Copy)]
pub(crate) struct Activate<F> {
    pub(crate) f: F,
    pub(crate) scale: f32,
    pub(crate) y: Target,
    /// Where z goes, if it is saved.
    pub(crate) z: Option<Target>,
    /// What is added to y.
    pub(crate) residual: Option<Source>,
}

impl<F: Function> Epilogue for Activate<F> {
    const MASKED: bool = true;
    const LONG: bool = F::LONG;

    #[inline(always)]
    unsafe fn finish<I: Isa>(
        self,
        isa: I,
        row: usize,
        col: usize,
        n: usize,
        sum: I::F32,
        keep: I::Mask,
    ) {
        let y = isa.keep(keep, isa.mul(self.f.value(isa, sum), isa.splat(self.scale)));
        // SAFETY: the caller's promise.
        unsafe {
            if let Some(z) = self.z {
                store(isa, z.in_row(row, col), n, sum);
            }
            let y = match self.residual {
                Some(residual) => isa.add(load(isa, residual.at(row, col), n), y),
                None => y,
            };
            store(isa, self.y.in_row(row, col), n, y);
        }
    }
}

/// A step of stochastic gradient descent whose gradient is the sum.
#[derive(Clone, Copy)]
pub(crate) struct Update {
    pub(crate) w: Target,
    pub(crate) velocity: Option<Target>,
    pub(crate) step: SgdStep,
}

impl Epilogue for Update {
    const MASKED: bool = false;
    const LONG: bool = false;
    const OVERWRITES: bool = false;

    #[inline(always)]
    unsafe fn finish<I: Isa>(
        self,
        isa: I,
        row: usize,
        col: usize,
        n: usize,
        sum: I::F32,
        _: I::Mask,
    ) {
        // SAFETY: the caller's promise.
        unsafe {
            let w = self.w.in_row(row, col);
            let velocity = self.velocity.map(|velocity| velocity.in_row(row, col));
            let old = velocity.map(|velocity| load(isa, velocity.cast_const(), n));
            let (w_new, v_new) = self.step.apply(isa, load(isa, w.cast_const(), n), sum, old);
            if let Some(velocity) = velocity {
                store(isa, velocity, n, v_new);
            }
            store(isa, w, n, w_new);
        }
    }
}
