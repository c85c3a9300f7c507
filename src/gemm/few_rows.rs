//! Products of a few rows, for which B is read where it is.
//!
//! Packing reads and writes every element of B once; with up to [`FEW_ROWS`] rows each element
//! is used no more often than that. Instead a few rows of B at a time are streamed along C, whose
//! sums wait in memory, for the most part in the level-1 cache.
//!
//! Where B itself lies in the level-1 cache ([`SMALL`]), packing does not pay for more rows either, and
//! sums need not wait: a tile goes through all of k.

use super::blocking::panels;
use super::dropped::Dropped;
use crate::isa::{Isa, Kernel, load, store};
use crate::mask::{TILE_COLS, TILE_WORDS};
use crate::threads::Part;

/// Up to so many rows B is read in place.
pub(super) const FEW_ROWS: usize = 4;
/// Rows of B that are streamed together: the hardware prefetchers follow so many.
const STREAMS: usize = 8;
/// Floats of a B that is small: half of a level-1 cache of 32 KiB.
pub(super) const SMALL: usize = 4096;
/// Up to so many rows a small B is read in place.
pub(super) const SMALL_ROWS: usize = 16;

/// `c = a · b` from where sums start, for few rows; rows of B and C are contiguous. B may
/// have a dropout, which is applied to what is loaded.
pub(super) struct FewRows {
    pub(super) a: *const f32,
    pub(super) a_row_step: usize,
    pub(super) a_k_step: usize,
    pub(super) b: *const f32,
    pub(super) b_step: usize,
    pub(super) dropped: Option<Dropped>,
    /// B's first column, a multiple of 32, in the matrix that is dropped.
    pub(super) col: usize,
    /// Where sums start, one value a column; 0 where there is none.
    pub(super) bias: Option<*const f32>,
    pub(super) c: *mut f32,
    pub(super) c_step: usize,
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) k: usize,
}

/// The bits of some rows of B from a column on, and the scale of what is kept.
#[derive(Clone, Copy)]
struct Factor {
    words: *const u32,
    stride: usize,
    first: usize,
    scale: f32,
}

impl Kernel for FewRows {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        for (row, rows) in panels(self.rows, FEW_ROWS) {
            // SAFETY: whoever made this kernel promised that the matrices have these shapes.
            unsafe {
                match (rows, self.dropped) {
                    (1, None) => self.rows::<I, 1, 8>(isa, row),
                    (2, None) => self.rows::<I, 2, 4>(isa, row),
                    (3, None) => self.rows::<I, 3, 3>(isa, row),
                    (4, None) => self.rows::<I, 4, 3>(isa, row),
                    (1, Some(b)) => self.dropped_rows::<I, 1, 8>(isa, row, b),
                    (2, Some(b)) => self.dropped_rows::<I, 2, 4>(isa, row, b),
                    (3, Some(b)) => self.dropped_rows::<I, 3, 2>(isa, row, b),
                    (4, Some(b)) => self.dropped_rows::<I, 4, 2>(isa, row, b),
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
        let none = Factor { words: std::ptr::null(), stride: 0, first: 0, scale: 1.0 };
        let deep = if self.k * self.cols <= SMALL { self.k.max(1) } else { STREAMS };
        for p in (0..self.k.max(1)).step_by(deep) {
            let depth = deep.min(self.k - p);
            let mut col = 0;
            // SAFETY: the caller's promise; `col + n <= cols`.
            unsafe {
                while col + width <= self.cols {
                    self.tile::<I, R, V, false>(isa, (row, p, depth), col, width, none);
                    col += width;
                }
                if col < self.cols && width <= self.cols && p == 0 && depth == self.k {
                    // Sums that start and end here may be made twice.
                    let last = self.cols - width;
                    self.tile::<I, R, V, false>(isa, (row, p, depth), last, width, none);
                    continue;
                }
                while col < self.cols {
                    let n = I::LANES.min(self.cols - col);
                    self.tile::<I, R, 1, false>(isa, (row, p, depth), col, n, none);
                    col += n;
                }
            }
        }
    }

    /// # Safety
    ///
    /// As for `rows`; B is a part of the matrix of `dropped`.
    #[inline(always)]
    unsafe fn dropped_rows<I: Isa, const R: usize, const V: usize>(
        &self,
        isa: I,
        row: usize,
        dropped: Dropped,
    ) {
        let (width, scale) = (V * I::LANES, dropped.scale);
        let mut scratch = [0u32; TILE_WORDS];
        // As many columns as have room for the bits of all streams.
        for first in (0..self.cols).step_by(TILE_COLS) {
            let end = self.cols.min(first + TILE_COLS);
            for p in (0..self.k).step_by(STREAMS) {
                let depth = STREAMS.min(self.k - p);
                let part = Part { row: p, rows: depth, col: self.col + first, cols: end - first };
                let mut col = first;
                // SAFETY: the caller's promise; `col + n <= end`.
                unsafe {
                    let bits = dropped.bits.tile(isa, part, &mut scratch);
                    let factor = Factor { words: bits.words, stride: bits.stride, first, scale };
                    while col + width <= end {
                        self.tile::<I, R, V, true>(isa, (row, p, depth), col, width, factor);
                        col += width;
                    }
                    while col < end {
                        let n = I::LANES.min(end - col);
                        self.tile::<I, R, 1, true>(isa, (row, p, depth), col, n, factor);
                        col += n;
                    }
                }
            }
        }
    }

    /// `depth` steps of k from `p` on, for `n` columns.
    ///
    /// # Safety
    ///
    /// As for `rows`; the range lies in the matrices; `n` is `V * LANES`, or less if `V` is 1. The factor has
    /// the bits of these rows and columns if B is dropped.
    #[inline(always)]
    unsafe fn tile<I: Isa, const R: usize, const V: usize, const DROPPED: bool>(
        &self,
        isa: I,
        (row, p, depth): (usize, usize, usize),
        col: usize,
        n: usize,
        factor: Factor,
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
            let mut words = factor.words;
            for _ in 0..depth {
                let mut line = [isa.splat(0.0); V];
                for (v, b_v) in line.iter_mut().enumerate() {
                    *b_v = load(isa, b.add(v * I::LANES), lanes);
                    if DROPPED {
                        let at = col - factor.first + v * I::LANES;
                        let keep = isa.lanes(isa.word(*words.add(at / 32)), at % 32);
                        *b_v = isa.keep(keep, isa.mul(*b_v, isa.splat(factor.scale)));
                    }
                }
                words = words.wrapping_add(factor.stride);
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
