//! Products of a few rows, for which B is read where it is.
//!
//! Packing reads and writes every element of B once; with up to [`FEW_ROWS`] rows each element
//! is used no more often than that. Instead a few rows of B at a time are streamed along C, whose
//! sums wait in memory, for the most part in the level-1 cache.
//!
//! Where B itself lies in the level-1 cache ([`SMALL`]), packing does not pay for more rows either, and
//! sums need not wait: a tile goes through all of k.

use super::blocking::panels;
use crate::isa::{Isa, Kernel, load, store};

/// Up to so many rows B is read in place.
pub(super) const FEW_ROWS: usize = 4;
/// Rows of B that are streamed together: the hardware prefetchers follow so many.
const STREAMS: usize = 8;
/// Floats of a B that is small: half of a level-1 cache of 32 KiB.
pub(super) const SMALL: usize = 4096;
/// Up to so many rows a small B is read in place.
pub(super) const SMALL_ROWS: usize = 16;

/// `c = a · b` from where sums start, for few rows; rows of B and C are contiguous.
pub(super) struct FewRows {
    pub(super) a: *const f32,
    pub(super) a_row_step: usize,
    pub(super) a_k_step: usize,
    pub(super) b: *const f32,
    pub(super) b_step: usize,
    /// Where sums start, one value a column; 0 where there is none.
    pub(super) bias: Option<*const f32>,
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
        for (row, rows) in panels(self.rows, FEW_ROWS) {
            // SAFETY: whoever made this kernel promised that the matrices have these shapes.
            unsafe {
                match rows {
                    1 => self.rows::<I, 1, 8>(isa, row),
                    2 => self.rows::<I, 2, 4>(isa, row),
                    3 => self.rows::<I, 3, 3>(isa, row),
                    4 => self.rows::<I, 4, 3>(isa, row),
                    _ => {}
                }
            }
        }
    }
}

impl FewRows {
    /// # Safety
    ///
    /// The matrices have these shapes, with `R` rows from `row` on; C is not accessed by others.
    #[inline(always)]
    unsafe fn rows<I: Isa, const R: usize, const V: usize>(&self, isa: I, row: usize) {
        let width = V * I::LANES;
        let deep = if self.k * self.cols <= SMALL { self.k.max(1) } else { STREAMS };
        for p in (0..self.k.max(1)).step_by(deep) {
            let depth = deep.min(self.k - p);
            let mut col = 0;
            // SAFETY: the caller's promise; `col + n <= cols`.
            unsafe {
                while col + width <= self.cols {
                    self.tile::<I, R, V>(isa, (row, p, depth), col, width);
                    col += width;
                }
                if col < self.cols && width <= self.cols && p == 0 && depth == self.k {
                    // Sums that start and end here may be made twice.
                    self.tile::<I, R, V>(isa, (row, p, depth), self.cols - width, width);
                    continue;
                }
                while col < self.cols {
                    let n = I::LANES.min(self.cols - col);
                    self.tile::<I, R, 1>(isa, (row, p, depth), col, n);
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
        (row, p, depth): (usize, usize, usize),
        col: usize,
        n: usize,
    ) {
        let lanes = n.min(I::LANES);
        let mut acc = [[isa.splat(0.0); V]; R];
        // SAFETY: the caller's promise.
        unsafe {
            let c = self.c.add(row * self.c_step + col);
            for (r, sums) in acc.iter_mut().enumerate() {
                for (v, sum) in sums.iter_mut().enumerate() {
                    match self.bias {
                        _ if p > 0 => {
                            *sum = load(isa, c.add(r * self.c_step + v * I::LANES), lanes)
                        }
                        Some(bias) => *sum = load(isa, bias.add(col + v * I::LANES), lanes),
                        None => {}
                    }
                }
            }
            let mut a = self.a.add(row * self.a_row_step + p * self.a_k_step);
            let mut b = self.b.add(p * self.b_step + col);
            for _ in 0..depth {
                let mut line = [isa.splat(0.0); V];
                for (v, b_v) in line.iter_mut().enumerate() {
                    *b_v = load(isa, b.add(v * I::LANES), lanes);
                }
                for (r, sums) in acc.iter_mut().enumerate() {
                    let x = isa.splat(*a.add(r * self.a_row_step));
                    for (sum, b_v) in sums.iter_mut().zip(line) {
                        *sum = isa.mul_add(x, b_v, *sum);
                    }
                }
                a = a.wrapping_add(self.a_k_step);
                b = b.wrapping_add(self.b_step);
            }
            for (r, sums) in acc.into_iter().enumerate() {
                for (v, sum) in sums.into_iter().enumerate() {
                    store(isa, c.add(r * self.c_step + v * I::LANES), lanes, sum);
                }
            }
        }
    }
}
