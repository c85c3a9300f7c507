//! What happens to the accumulators of a product, before they are ever stored.

mod update;

use crate::activation::Function;
use crate::isa::{Isa, load, store};
use crate::threads::Part;
use crate::view::{Source, Target};
pub(crate) use update::{DropUpdate, KeptUpdate, Update};

/// The last step of a product, on one vector of accumulators.
pub(crate) trait Epilogue: Copy + Send + Sync {
    /// Whether the mask bits matter.
    const MASKED: bool;
    /// Whether the work on a vector is so long that a loop over a tile in memory beats code for
    /// each accumulator register.
    const LONG: bool;
    /// Whether the elements that the epilogue writes may hold partial sums before.
    const OVERWRITES: bool = true;
    /// Whether whole tiles are finished a row at a time while the next one's sums are made. Only for
    /// products of one block of k, that is, where nothing is overwritten.
    const DEFERRED: bool = false;

    /// Asks for what the epilogue will read of a part of C, whose sums are about to be made.
    ///
    /// # Safety
    ///
    /// As for `finish`; the part is not empty.
    #[inline(always)]
    unsafe fn prefetch<I: Isa>(self, _: I, _: Part) {}

    /// Finishes a part whose sums are in memory, rows `step` apart, in an order of its own; whether it
    /// did.
    ///
    /// # Safety
    ///
    /// As for `finish`; `sums` is valid for reads of the part, in whole vectors.
    #[inline(always)]
    unsafe fn finish_part<I: Isa>(self, _: I, _: Part, _: *const f32, _step: usize) -> bool {
        false
    }

    /// Turns the sums of `NV` whole vectors of a row, from column `col` on, into outputs.
    ///
    /// # Safety
    ///
    /// As for `finish`; `sums` is valid for reads of the vectors.
    #[inline(always)]
    unsafe fn finish_row<I: Isa, const NV: usize>(
        self,
        isa: I,
        row: usize,
        col: usize,
        sums: *const f32,
        keep: I::Word,
    ) {
        // SAFETY: the caller's promise.
        unsafe { finish_vectors::<I, Self, NV>(self, isa, row, col, sums, keep) }
    }

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

/// The vectors of a row, one after the other.
///
/// # Safety
///
/// As for `Epilogue::finish_row`.
#[inline(always)]
unsafe fn finish_vectors<I: Isa, E: Epilogue, const NV: usize>(
    epilogue: E,
    isa: I,
    row: usize,
    col: usize,
    sums: *const f32,
    keep: I::Word,
) {
    let mut at = 0;
    while at < NV * I::LANES {
        // SAFETY: the caller's promise.
        unsafe {
            let sum = isa.load(sums.add(at));
            epilogue.finish(isa, row, col + at, I::LANES, sum, isa.lanes(keep, at));
        }
        at += I::LANES;
    }
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
