//! Products of a few rows, for which B is read where it is.
//!
//! Packing reads and writes every element of B once; with up to [`FEW_ROWS`] rows each element
//! is used no more often than that. Instead a few rows of B at a time are streamed along C, whose
//! sums wait in memory, for the most part in the level-1 cache.

use crate::isa::{Isa, Kernel, load, store};

/// Up to so many rows B is read in place.
pub(super) const FEW_ROWS: usize = 4;
/// Rows of B that are streamed together: the hardware prefetchers follow so many.
const STREAMS: usize = 8;

/// `c += a · b` for up to [`FEW_ROWS`] rows; rows of B and C are contiguous.
pub(super) struct FewRows {
    pub(super) a: *const f32,
    pub(super) a_row_step: usize,
    pub(super) a_k_step: usize,
    pub(super) b: *const f32,
    pub(super) b_step: usize,
    pub(super) c: *mut f32,
    pub(super) c_step: usize,
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) k: usize,
}

impl Kernel for FewRows {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        // SAFETY: whoever made this kernel promised that the matrices have these shapes.
        unsafe {
            match self.rows {
                1 => self.rows::<I, 1, 8>(isa),
                2 => self.rows::<I, 2, 4>(isa),
                3 => self.rows::<I, 3, 2>(isa),
                4 => self.rows::<I, 4, 2>(isa),
                _ => {}
            }
        }
    }
}

impl FewRows {
    /// # Safety
    ///
    /// The matrices have these shapes, with `R` rows; C is not accessed by others.
    #[inline(always)]
    unsafe fn rows<I: Isa, const R: usize, const V: usize>(&self, isa: I) {
        for p in (0..self.k).step_by(STREAMS) {
            let depth = STREAMS.min(self.k - p);
            let mut col = 0;
            // SAFETY: the caller's promise; `col + n <= cols`.
            unsafe {
                while col + V * I::LANES <= self.cols {
                    self.tile::<I, R, V>(isa, p, depth, col, V * I::LANES);
                    col += V * I::LANES;
                }
                while col < self.cols {
                    let n = I::LANES.min(self.cols - col);
                    self.tile::<I, R, 1>(isa, p, depth, col, n);
                    col += n;
                }
            }
        }
    }

    /// `depth` steps of k from `p` on, for `n` columns.
    ///
    /// # Safety
    ///
    /// As for `rows`; the range lies in the matrices; `n` is `V * LANES`, or less if `V` is 1.
    #[inline(always)]
    unsafe fn tile<I: Isa, const R: usize, const V: usize>(
        &self,
        isa: I,
        p: usize,
        depth: usize,
        col: usize,
        n: usize,
    ) {
        let lanes = n.min(I::LANES);
        let mut acc = [[isa.splat(0.0); V]; R];
        // SAFETY: the caller's promise.
        unsafe {
            for (r, sums) in acc.iter_mut().enumerate() {
                for (v, sum) in sums.iter_mut().enumerate() {
                    let c = self.c.add(r * self.c_step + col + v * I::LANES);
                    *sum = load(isa, c, lanes);
                }
            }
            for p in p..p + depth {
                let b = self.b.add(p * self.b_step + col);
                let mut row = [isa.splat(0.0); V];
                for (v, b_v) in row.iter_mut().enumerate() {
                    *b_v = load(isa, b.add(v * I::LANES), lanes);
                }
                for (r, sums) in acc.iter_mut().enumerate() {
                    let x = isa.splat(*self.a.add(r * self.a_row_step + p * self.a_k_step));
                    for (sum, b_v) in sums.iter_mut().zip(row) {
                        *sum = isa.mul_add(x, b_v, *sum);
                    }
                }
            }
            for (r, sums) in acc.into_iter().enumerate() {
                for (v, sum) in sums.into_iter().enumerate() {
                    let c = self.c.add(r * self.c_step + col + v * I::LANES);
                    store(isa, c, lanes, sum);
                }
            }
        }
    }
}
