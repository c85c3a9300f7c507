//! The micro-kernel: a tile of C in registers, one multiply-add for each element and k.
//!
//! ```text
//! acc[r][v] = start                            bias, or the partial result of the last block of k
//! for p in 0..k:
//!     b[v]      = B panel, row p               NV loads
//!     acc[r][v] = fma(a[r], b[v], acc[r][v])   MR broadcasts, MR * NV multiply-adds
//! store acc as partial result, or hand it to the epilogue
//! ```

use crate::isa::{Isa, Kernel, TileKernel};

/// Floats of the largest tile: 12 x 2 vectors of 16.
pub(super) const TILE: usize = 12 * 2 * 16;

/// Packed panels, and how many steps of k they hold.
#[derive(Clone, Copy)]
pub(super) struct Panels {
    pub(super) a: *const f32,
    pub(super) b: *const f32,
    /// Floats from one row of B to the next.
    pub(super) b_step: usize,
    pub(super) k: usize,
    pub(super) ahead: Ahead,
}

/// What will be packed next: an address to prefetch on each fourth step of k, and the distance to
/// the one after it. A distance of 0 repeats an address, which costs nothing.
#[derive(Clone, Copy)]
pub(super) struct Ahead {
    pub(super) at: *const f32,
    pub(super) step: usize,
}

/// `acc += A panel · B panel`, for `R` rows and `V` vectors.
///
/// # Safety
///
/// The panels are valid for `k` rows of `R` floats and of `V` vectors.
#[inline(always)]
pub(super) unsafe fn accumulate<I: Isa, const R: usize, const V: usize>(
    isa: I,
    panels: Panels,
    acc: &mut [[I::F32; V]; R],
) {
    let Panels { mut a, mut b, b_step, k, mut ahead } = panels;
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
            b = b.add(b_step);
        };
    }
    // SAFETY: the caller's promise.
    unsafe {
        for _ in 0..k / 4 {
            isa.prefetch(ahead.at);
            ahead.at = ahead.at.wrapping_add(ahead.step);
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

/// A tile of any number of rows and vectors, by way of memory: the one place for what does not fill
/// a tile. `tile` holds the sums, row after row, `step` floats apart, before and after.
#[derive(Clone, Copy)]
pub(super) struct EdgeTile {
    pub(super) panels: Panels,
    pub(super) rows: usize,
    pub(super) vectors: usize,
    pub(super) tile: *mut f32,
    pub(super) step: usize,
}

impl Kernel for EdgeTile {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        isa.tile(self);
    }
}

impl TileKernel for EdgeTile {
    #[inline(always)]
    fn run<I: Isa, const MR: usize, const NV: usize>(self, isa: I) {
        macro_rules! rows {
            ($($rows:literal)*) => {
                // SAFETY: the caller of this kernel prepared panels and tile for this shape.
                unsafe {
                    match (self.rows, self.vectors) {
                        $(($rows, 1) if $rows <= MR => self.through_memory::<I, $rows, 1>(isa),
                        ($rows, 2) if $rows <= MR && NV >= 2 => self.through_memory::<I, $rows, 2>(isa),)*
                        _ => {}
                    }
                }
            };
        }
        rows!(1 2 3 4 5 6 7 8 9 10 11 12);
    }
}

impl EdgeTile {
    /// # Safety
    ///
    /// The panels and the tile have `R` rows of `V` vectors.
    #[inline(always)]
    unsafe fn through_memory<I: Isa, const R: usize, const V: usize>(self, isa: I) {
        let mut acc = [[isa.splat(0.0); V]; R];
        // SAFETY: the caller's promise.
        unsafe {
            for (r, row) in acc.iter_mut().enumerate() {
                for (v, sum) in row.iter_mut().enumerate() {
                    *sum = isa.load(self.tile.add(r * self.step + v * I::LANES));
                }
            }
            accumulate(isa, self.panels, &mut acc);
            for (r, row) in acc.into_iter().enumerate() {
                for (v, sum) in row.into_iter().enumerate() {
                    isa.store(self.tile.add(r * self.step + v * I::LANES), sum);
                }
            }
        }
    }
}
