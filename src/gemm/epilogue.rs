//! What happens to the accumulators of a product, before they are ever stored.
//!
//! [`End`] is what callers choose. A kernel does not match on it: for each epilogue there is a type
//! with the trait [`Epilogue`], and the loop nest gets two trait objects of it, [`MemoryEnd`] for
//! sums in memory and, where it pays, [`RegisterEnd`] for whole tiles, whose sums are in registers.

mod activate;
mod ends;
mod pipeline;
mod registers;
mod store;
mod weight_update;

use super::tile::Area;
use crate::isa::{Isa, Kernel, Twice, is_fallback, load};
use crate::threads::Part;
pub(crate) use activate::Activate;
pub(super) use activate::with_activation;
pub(super) use ends::{Ends, RowOfTiles};
pub(super) use pipeline::{Pipeline, Pipelined};
pub(super) use registers::InRegisters;
pub(crate) use store::{MaskEnd, Store};
pub(crate) use weight_update::{GatheredUpdate, MaskedUpdate, Update};

/// The last step of a product.
#[derive(Clone, Copy, Debug)]
pub(crate) enum End {
    /// `c = sum`.
    Store(Store),
    /// `c = keep ? sum · scale : 0`.
    Mask(MaskEnd),
    /// `y = [residual +] (keep ? act(sum) · scale : 0)`.
    Activate(Activate),
    /// A step of gradient descent whose gradient is the sum.
    Update(Update),
    /// The same, with the gradient `keep ? sum · scale : 0`.
    MaskedUpdate(MaskedUpdate),
    /// The same as `Update`, for some rows and columns of the weights.
    GatheredUpdate(GatheredUpdate),
}

impl End {
    /// Whether the mask bits matter.
    pub(super) fn is_masked(&self) -> bool {
        matches!(self, End::Mask(_) | End::Activate(_) | End::MaskedUpdate(_))
    }

    /// Whether the elements that the epilogue writes may hold partial sums before.
    pub(super) fn overwrites(&self) -> bool {
        matches!(self, End::Store(_) | End::Mask(_) | End::Activate(_))
    }
}

/// Where some vectors side by side are in C. They are whole, or there is one with the columns that
/// are left at the right edge.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) row: usize,
    pub(super) col: usize,
    pub(super) cols: usize,
}

impl Place {
    /// The columns of vector `v` of `V`: all lanes, or what is left.
    #[inline(always)]
    fn vector<I: Isa, const V: usize>(self, _: I, v: usize) -> (usize, usize) {
        let n = if V == 1 { self.cols } else { I::LANES };
        (self.col + v * I::LANES, n)
    }
}

/// An epilogue as a type, for kernels compiled once for each.
pub(super) trait Epilogue: Copy + Send + Sync {
    /// Whether the mask bits matter.
    const MASKED: bool;
    /// Whether the work on a vector is one long chain of operations: two vectors are worked on side
    /// by side then, with sums from memory, and no copy of it stands in a register tile.
    const LONG: bool = false;
    /// Whether the work on a vector is so short that sums from memory are worked on a word of mask bits at a time.
    const SHORT: bool = false;

    /// Prefetches what [`Epilogue::finish`] will read and is far from what it reads before. Outputs
    /// that are only written need nothing.
    ///
    /// # Safety
    ///
    /// The part, which is not empty, lies in every matrix of the epilogue.
    #[inline(always)]
    unsafe fn prefetch<I: Isa>(self, _: I, _: Part) {}

    /// Turns the sums of `V` vectors of a row into outputs. The mask bits of `keep` are those from
    /// the place's first column on.
    ///
    /// # Safety
    ///
    /// The elements lie in every matrix of the epilogue, whose rows are contiguous, and no other
    /// task accesses them.
    unsafe fn finish<I: Isa, const V: usize>(
        self,
        isa: I,
        place: Place,
        sums: [I::F32; V],
        keep: I::Word,
    );
}

/// The end of tiles whose sums are in memory.
pub(super) trait MemoryEnd<I: Isa> {
    /// Prefetches what [`MemoryEnd::finish`] will read of a part whose sums are about to be made.
    ///
    /// # Safety
    ///
    /// As for `finish`; the part is not empty.
    unsafe fn prefetch(&self, isa: I, part: Part);

    /// Turns sums into outputs.
    ///
    /// # Safety
    ///
    /// The area lies in every matrix of the epilogue, no other task accesses it, and its bits are
    /// its own. `sums` is valid for reads of its rows, `step` floats apart.
    unsafe fn finish(&self, isa: I, area: &Area, sums: *const f32, step: usize);
}

/// Whole tiles of `MR` or `MR - 1` rows in the last block of k, whose sums go to the epilogue from
/// registers.
pub(super) trait RegisterEnd<I: Isa> {
    /// Computes a row of tiles. The last one's epilogue may be left for later in the pipeline.
    ///
    /// # Safety
    ///
    /// - Each of its panels of B has the columns of a whole tile, and all sums end in it. There is
    ///   one, save where the epilogue is software-pipelined.
    /// - It lies in C and in every matrix of the epilogue, and no other task accesses it.
    /// - Its panels are valid, and so are its bits until all tiles are finished.
    unsafe fn tiles(&self, isa: I, row: RowOfTiles<'_>, pipeline: &mut Pipeline);

    /// Finishes what is left in the pipeline: nothing, unless the epilogue is software-pipelined.
    ///
    /// # Safety
    ///
    /// What [`RegisterEnd::tiles`] was promised still holds.
    unsafe fn drain(&self, _: I, _: &mut Pipeline) {}
}

/// [`MemoryEnd`] of an epilogue.
pub(super) struct InMemory<E>(pub(super) E);

impl<I: Isa, E: Epilogue> MemoryEnd<I> for InMemory<E> {
    unsafe fn prefetch(&self, isa: I, part: Part) {
        // SAFETY: the caller's promise.
        unsafe { self.0.prefetch(isa, part) }
    }

    unsafe fn finish(&self, isa: I, area: &Area, sums: *const f32, step: usize) {
        // SAFETY: the caller's promise.
        isa.vectorize(unsafe { FinishArea::new(&self.0, area, sums, step) });
    }
}

/// The epilogue for sums in memory: the one place for what does not fill a vector.
struct FinishArea<'a, E> {
    epilogue: &'a E,
    area: &'a Area,
    sums: *const f32,
    step: usize,
}

impl<'a, E: Epilogue> FinishArea<'a, E> {
    /// # Safety
    ///
    /// - The area lies in every matrix of the epilogue, whose rows are contiguous, and no other
    ///   task accesses it.
    /// - If the epilogue is masked, the area's bits are valid for reads.
    /// - `sums` is valid for reads of the area's rows, `step` floats apart.
    unsafe fn new(epilogue: &'a E, area: &'a Area, sums: *const f32, step: usize) -> Self {
        Self { epilogue, area, sums, step }
    }

    /// The rows, a vector of `isa` at a time, or where that is worth it a word of mask bits.
    #[inline(always)]
    fn rows<I: Isa>(&self, isa: I) {
        let Part { rows, cols, .. } = self.area.part;
        let whole = if E::SHORT && self.area.shift == 0 { cols / 32 * 32 } else { 0 };
        for r in 0..rows {
            let mut col = 0;
            while col < whole {
                match I::LANES {
                    16 => self.vectors::<I, 2>(isa, (r, col), 32),
                    8 => self.vectors::<I, 4>(isa, (r, col), 32),
                    _ => self.vectors::<I, 8>(isa, (r, col), 32),
                }
                col += 32;
            }
            while col < cols {
                self.vectors::<I, 1>(isa, (r, col), I::LANES.min(cols - col));
                col += I::LANES;
            }
        }
    }

    /// `V` vectors, of whose columns `cols` are in the area, from a place in it on.
    #[inline(always)]
    fn vectors<I: Isa, const V: usize>(&self, isa: I, (r, col): (usize, usize), cols: usize) {
        let Self { epilogue, sums, step, .. } = *self;
        let Area { part, bits, shift } = *self.area;
        let (place, bit) = (Place { row: part.row + r, col: part.col + col, cols }, shift + col);
        let mut of_place = [isa.splat(0.0); V];
        // SAFETY: `FinishArea::new`; bits follow each other from `shift` on.
        unsafe {
            let word = if E::MASKED { *bits.words.add(r * bits.stride + bit / 32) } else { 0 };
            for (v, sum) in of_place.iter_mut().enumerate() {
                let (at, n) = (r * step + col + v * I::LANES, place.vector::<I, V>(isa, v).1);
                *sum = load(isa, sums.add(at), n);
            }
            epilogue.finish::<I, V>(isa, place, of_place, isa.word(word >> (bit % 32)));
        }
    }
}

impl<E: Epilogue> Kernel for FinishArea<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        if const { E::LONG && !is_fallback::<I>() } {
            self.rows(Twice(isa));
        } else {
            self.rows(isa);
        }
    }
}
