//! Skinny products, of so few rows that B is read where it is.
//!
//! Packing reads and writes every element of B once; with up to [`SKINNY_ROWS`] rows each element
//! is used no more often than that. Instead a few rows of B at a time are streamed along C, whose
//! sums wait in memory, for the most part in the level-1 cache.

use super::blocking::panels;
use super::pack::MaskedOperand;
use super::{ProductArgs, Start};
use crate::isa::{Isa, Kernel, is_fallback, load, store};
use crate::mask::{TILE_COLS, TILE_WORDS, Tile};
use crate::threads::Part;

/// Up to so many rows B is read in place.
pub(super) const SKINNY_ROWS: usize = 4;
/// Rows of B that are streamed together: the hardware prefetchers follow so many.
const STREAMS: usize = 8;

/// `c = a · b` from where sums start, for few rows; rows of B and C are contiguous. B may be
/// masked: its dropout is applied to what is loaded.
pub(super) struct Skinny {
    a: *const f32,
    a_row_step: usize,
    a_k_step: usize,
    b: *const f32,
    b_step: usize,
    masked: Option<MaskedOperand>,
    /// B's first column, a multiple of 32, in the masked matrix.
    col: usize,
    /// Where sums start; a bias has its first value at the first column.
    start: Start,
    c: *mut f32,
    c_step: usize,
    rows: usize,
    cols: usize,
    k: usize,
}

impl Skinny {
    /// The product for a part of C, whose rows of A are at `a`, with the steps to the next row and
    /// step of k.
    ///
    /// # Safety
    ///
    /// - The part lies in C, and no other task accesses it.
    /// - The rows of A are valid for reads; A and B have `product.k` steps of k.
    /// - Rows of B, which is plain or masked by rows, are contiguous.
    pub(super) unsafe fn new(
        product: &ProductArgs,
        part: Part,
        (a, a_row_step, a_k_step): (*const f32, usize, usize),
    ) -> Self {
        let Part { row, rows, col, cols } = part;
        let (b, c) = (product.b.source(), product.partial);
        // SAFETY: the caller's promise.
        let (first_b, first_c, start) = unsafe {
            let start = match product.start {
                Start::Bias(bias) => Start::Bias(bias.add(col)),
                start => start,
            };
            (b.in_row(0, col, cols), c.in_row(row, col, cols), start)
        };
        let (masked, k) = (product.b.masked_rows(), product.k);
        let (b, b_step, c, c_step) = (first_b, b.row_step, first_c, c.row_step);
        Self { a, a_row_step, a_k_step, b, b_step, masked, col, start, c, c_step, rows, cols, k }
    }
}

/// The mask bits of some rows of B, and the scale of what they keep.
#[derive(Clone, Copy)]
struct RowBits {
    words: *const u32,
    stride: usize,
    scale: f32,
}

impl Kernel for Skinny {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        for (row, rows) in panels(self.rows, SKINNY_ROWS) {
            // SAFETY: `Skinny::new`.
            unsafe {
                match (rows, self.masked) {
                    (1, None) => self.rows::<I, 1, 8>(isa, row),
                    (2, None) => self.rows::<I, 2, 4>(isa, row),
                    (3, None) => self.rows::<I, 3, 3>(isa, row),
                    (4, None) => self.rows::<I, 4, 3>(isa, row),
                    (1, Some(b)) => self.masked_rows::<I, 1, 8>(isa, row, b),
                    (2, Some(b)) => self.masked_rows::<I, 2, 4>(isa, row, b),
                    (3, Some(b)) => self.masked_rows::<I, 3, 2>(isa, row, b),
                    (4, Some(b)) => self.masked_rows::<I, 4, 2>(isa, row, b),
                    _ => unreachable!("panels have 1 to {SKINNY_ROWS} rows, not {rows}"),
                }
            }
        }
    }
}

/// Steps of k, `depth` of them from `p` on, for the rows from `row` on.
#[derive(Clone, Copy)]
struct Steps {
    row: usize,
    p: usize,
    depth: usize,
}

impl Skinny {
    /// # Safety
    ///
    /// The matrices have these shapes, with `R` rows from `row` on; C is not accessed by others.
    #[inline(always)]
    unsafe fn rows<I: Isa, const R: usize, const V: usize>(&self, isa: I, row: usize) {
        let none = RowBits { words: std::ptr::null(), stride: 0, scale: 1.0 };
        for p in (0..self.k).step_by(STREAMS) {
            let steps = Steps { row, p, depth: STREAMS.min(self.k - p) };
            // SAFETY: the caller's promise.
            unsafe { self.streams::<I, R, V, false>(isa, steps, (0, self.cols), none) };
        }
    }

    /// # Safety
    ///
    /// As for `rows`; B is a part of the matrix of `masked`.
    #[inline(always)]
    unsafe fn masked_rows<I: Isa, const R: usize, const V: usize>(
        &self,
        isa: I,
        row: usize,
        masked: MaskedOperand,
    ) {
        if const { is_fallback::<I>() } {
            unreachable!("the loop nest packs a masked B here");
        }
        let mut scratch = [0u32; TILE_WORDS];
        // As many columns as have room for the bits of all streams.
        for col in (0..self.cols).step_by(TILE_COLS) {
            let cols = TILE_COLS.min(self.cols - col);
            for p in (0..self.k).step_by(STREAMS) {
                let depth = STREAMS.min(self.k - p);
                let part = Part { row: p, rows: depth, col: self.col + col, cols };
                // SAFETY: the caller's promise.
                unsafe {
                    let bits = masked.bits.tile(isa, part, &mut scratch);
                    let Tile { words, stride } = bits;
                    let bits = RowBits { words, stride, scale: masked.scale };
                    let steps = Steps { row, p, depth };
                    self.streams::<I, R, V, true>(isa, steps, (col, cols), bits);
                }
            }
        }
    }

    /// Some steps for `cols` columns from `first` on.
    ///
    /// # Safety
    ///
    /// As for `rows`; the range lies in the matrices.
    #[inline(always)]
    unsafe fn streams<I: Isa, const R: usize, const V: usize, const MASKED: bool>(
        &self,
        isa: I,
        steps: Steps,
        (first, cols): (usize, usize),
        bits: RowBits,
    ) {
        let width = V * I::LANES;
        let mut at = 0;
        // SAFETY: the caller's promise; `at + n <= cols`.
        unsafe {
            while at + width <= cols {
                self.tile::<I, R, V, MASKED>(isa, steps, (first, at), width, bits);
                at += width;
            }
            while at < cols {
                let n = I::LANES.min(cols - at);
                self.tile::<I, R, 1, MASKED>(isa, steps, (first, at), n, bits);
                at += n;
            }
        }
    }

    /// Some steps for `n` columns from `first + at` on.
    ///
    /// # Safety
    ///
    /// As for `rows`; the range lies in the matrices; `n` is `V * LANES`, or less if `V` is 1. The
    /// bits are those from `first` on.
    #[inline(always)]
    unsafe fn tile<I: Isa, const R: usize, const V: usize, const MASKED: bool>(
        &self,
        isa: I,
        Steps { row, p, depth }: Steps,
        (first, at): (usize, usize),
        n: usize,
        bits: RowBits,
    ) {
        let (lanes, col) = (n.min(I::LANES), first + at);
        let scale = isa.splat(bits.scale);
        let mut acc = [[isa.splat(0.0); V]; R];
        // SAFETY: the caller's promise.
        unsafe {
            let c = self.c.add(row * self.c_step + col);
            for (r, sums) in acc.iter_mut().enumerate() {
                for (v, sum) in sums.iter_mut().enumerate() {
                    let at = v * I::LANES;
                    match self.start {
                        Start::Bias(bias) if p == 0 => *sum = load(isa, bias.add(col + at), lanes),
                        Start::Zero if p == 0 => {}
                        _ => *sum = load(isa, c.add(r * self.c_step + at), lanes),
                    }
                }
            }
            let mut a = self.a.add(row * self.a_row_step + p * self.a_k_step);
            let mut b = self.b.add(p * self.b_step + col);
            let mut words = bits.words;
            for _ in 0..depth {
                let mut line = [isa.splat(0.0); V];
                for (v, b_v) in line.iter_mut().enumerate() {
                    *b_v = load(isa, b.add(v * I::LANES), lanes);
                    if MASKED {
                        let at = at + v * I::LANES;
                        let keep = isa.lanes(isa.word(*words.add(at / 32)), at % 32);
                        *b_v = isa.keep(keep, isa.mul(*b_v, scale));
                    }
                }
                for (r, sums) in acc.iter_mut().enumerate() {
                    let x = isa.splat(*a.add(r * self.a_row_step));
                    for (sum, b_v) in sums.iter_mut().zip(line) {
                        *sum = isa.mul_add(x, b_v, *sum);
                    }
                }
                a = a.wrapping_add(self.a_k_step);
                b = b.wrapping_add(self.b_step);
                words = words.wrapping_add(bits.stride);
            }
            for (r, sums) in acc.into_iter().enumerate() {
                for (v, sum) in sums.into_iter().enumerate() {
                    store(isa, c.add(r * self.c_step + v * I::LANES), lanes, sum);
                }
            }
        }
    }
}
