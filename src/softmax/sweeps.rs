//! The sweeps of softmax with dropout.
//!
//! A tile is a few rows. All of them go through the first step, then through the second, with the
//! mask bits of the tile made where they are first needed. A tile's data stays in the level-1 or
//! level-2 cache, so memory is read and written once.

use super::lines::{Line, Lines, ROWS, Shape, Sweep, hide};
use crate::error::Result;
use crate::isa::{Isa, load, store};
use crate::mask::{Bits, TILE_COLS, TILE_WORDS};
use crate::math;
use crate::math::lanes::{LANES, Sixteen, tree, vectors};
use crate::threads::Part;
use crate::view::{Source, Target};

/// The largest of `n` floats, without regard to NaN; -∞ if there is none.
///
/// # Safety
///
/// `x` is valid for reads of `n` floats.
#[inline(always)]
unsafe fn largest<I: Isa>(isa: I, x: *const f32, n: usize) -> f32 {
    let mut most: Sixteen<I> = [isa.splat(f32::NEG_INFINITY); LANES];
    let whole = n / LANES * LANES;
    let mut lanes = [f32::NEG_INFINITY; LANES];
    // SAFETY: all reads are below `n`; `lanes` has 16.
    unsafe {
        for c in (0..whole).step_by(LANES) {
            for (v, most) in most.iter_mut().enumerate().take(vectors::<I>()) {
                *most = isa.max(isa.load(x.add(c + v * I::LANES)), *most);
            }
        }
        lanes.as_mut_ptr().copy_from_nonoverlapping(x.add(whole), n - whole);
        let mut largest = isa.splat(f32::NEG_INFINITY);
        for (v, most) in most.into_iter().enumerate().take(vectors::<I>()) {
            let rest = isa.load(lanes.as_ptr().add(v * I::LANES));
            largest = isa.max(rest, isa.max(most, largest));
        }
        lanes = [f32::NEG_INFINITY; LANES];
        isa.store(lanes.as_mut_ptr(), largest);
    }
    lanes.into_iter().fold(f32::NEG_INFINITY, |most, x| if most < x { x } else { most })
}

/// Stores `exp(x - shift)`, and returns the sum.
///
/// # Safety
///
/// `x` is valid for reads of `n` floats, `e` for writes.
#[inline(always)]
unsafe fn exponentials<I: Isa>(isa: I, x: *const f32, e: *mut f32, n: usize, shift: f32) -> f32 {
    let shift = isa.splat(shift);
    let mut sums: Sixteen<I> = [isa.splat(0.0); LANES];
    let whole = n / LANES * LANES;
    let mut lanes = [0.0; LANES];
    // SAFETY: all accesses are below `n`, or below 16 in `lanes`.
    unsafe {
        for c in (0..whole).step_by(LANES) {
            for (v, sum) in sums.iter_mut().enumerate().take(vectors::<I>()) {
                let at = c + v * I::LANES;
                let value = math::exp(isa, isa.sub(isa.load(x.add(at)), shift));
                isa.store(e.add(at), value);
                *sum = isa.add(*sum, value);
            }
        }
        for (v, sum) in sums.into_iter().enumerate().take(vectors::<I>()) {
            isa.store(lanes.as_mut_ptr().add(v * I::LANES), sum);
        }
        for c in (whole..n).step_by(I::LANES) {
            let count = I::LANES.min(n - c);
            let value = math::exp(isa, isa.sub(load(isa, x.add(c), count), shift));
            store(isa, e.add(c), count, value);
            let lane = lanes.as_mut_ptr().add(c - whole);
            store(isa, lane, count, isa.add(isa.load(lane), value));
        }
    }
    tree(lanes)
}

/// Calls `f` with the position, the number and the keep bits of the vectors of `n` elements whose
/// bits are `words`.
///
/// # Safety
///
/// `words` holds the bits.
#[inline(always)]
unsafe fn for_each_vector<I: Isa>(
    isa: I,
    words: *const u32,
    n: usize,
    mut f: impl FnMut(usize, usize, I::Mask),
) {
    let mut at = 0;
    while at + 32 <= n {
        // SAFETY: the caller's promise.
        let word = isa.word(unsafe { *words.add(at / 32) });
        let mut lane = 0;
        while lane < 32 {
            f(at + lane, I::LANES, isa.lanes(word, lane));
            lane += I::LANES;
        }
        at += 32;
    }
    if at < n {
        // SAFETY: the caller's promise.
        let word = isa.word(unsafe { *words.add(at / 32) });
        let mut lane = 0;
        while at + lane < n {
            f(at + lane, I::LANES.min(n - at - lane), isa.lanes(word, lane));
            lane += I::LANES;
        }
    }
}

/// `y = keep ? softmax(x) · scale : 0`, and the probabilities where they are wanted.
#[derive(Clone, Copy)]
pub(super) struct Forward {
    pub(super) shape: Shape,
    pub(super) x: Source,
    pub(super) y: Target,
    pub(super) p: Option<Target>,
    pub(super) bits: Bits,
    pub(super) stores_mask: bool,
    pub(super) scale: f32,
}

impl Sweep for Forward {
    #[inline(always)]
    unsafe fn rows<I: Isa>(self, isa: I, first: usize, count: usize) -> Result<()> {
        let Shape { cols, .. } = self.shape;
        let mut lines = Lines::new([Some(self.x), None], [Some(self.y), self.p], cols)?;
        let tile_rows = lines.at_once(self.shape.tile_rows());
        let mut scratch = [0u32; TILE_WORDS];
        for top in (first..first + count).step_by(tile_rows) {
            let rows = tile_rows.min(first + count - top);
            let mut reciprocals = [0.0; ROWS];
            let seen_by_last = self.shape.seen(top + rows - 1).next_multiple_of(32).min(cols);
            let width = if self.stores_mask { cols } else { seen_by_last };
            // SAFETY: the caller's promise: the tile lies in the matrices and is this task's alone;
            // its pieces start at multiples of TILE_COLS and have at most TILE_WORDS words.
            unsafe {
                for (i, reciprocal) in reciprocals.iter_mut().enumerate().take(rows) {
                    lines.gather(top + i);
                    let line = lines.line(top + i);
                    *reciprocal = self.exponentials(isa, line, self.shape.seen(top + i));
                }
                for col in (0..width).step_by(TILE_COLS) {
                    let part = Part { row: top, rows, col, cols: TILE_COLS.min(width - col) };
                    let bits = self.bits.tile(isa, part, &mut scratch);
                    for (i, reciprocal) in reciprocals.iter().enumerate().take(rows) {
                        let seen = self.shape.seen(top + i).saturating_sub(col).min(part.cols);
                        let line = lines.line(top + i);
                        let words = bits.words.add(i * bits.stride);
                        self.finish(isa, line, (col, seen), words, *reciprocal);
                    }
                }
                for i in 0..rows {
                    let line = lines.line(top + i);
                    for out in line.outputs {
                        hide(out, self.shape.seen(top + i), cols);
                    }
                    lines.scatter(top + i);
                }
            }
        }
        Ok(())
    }
}

impl Forward {
    /// Stores the exponentials in y, and returns the reciprocal of their sum; 0 where nothing is seen.
    ///
    /// # Safety
    ///
    /// The line's first input and first output have `seen` elements.
    #[inline(always)]
    unsafe fn exponentials<I: Isa>(&self, isa: I, line: Line, seen: usize) -> f32 {
        // SAFETY: the caller's promise.
        unsafe {
            let largest = largest(isa, line.inputs[0], seen);
            let shift = if largest == f32::NEG_INFINITY { 0.0 } else { largest };
            let sum = exponentials(isa, line.inputs[0], line.outputs[0], seen, shift);
            if sum == 0.0 { 0.0 } else { 1.0 / sum }
        }
    }

    /// Makes probabilities and outputs of `n` exponentials from column `col` on.
    ///
    /// # Safety
    ///
    /// The line's outputs have `col + n` elements; `words` holds their bits.
    #[inline(always)]
    unsafe fn finish<I: Isa>(
        &self,
        isa: I,
        line: Line,
        (col, n): (usize, usize),
        words: *const u32,
        reciprocal: f32,
    ) {
        let (reciprocal, scale) = (isa.splat(reciprocal), isa.splat(self.scale));
        let [y, p] = line.outputs;
        // SAFETY: the caller's promise.
        unsafe {
            for_each_vector(isa, words, n, |at, count, keep| {
                let at = col + at;
                let value = isa.mul(load(isa, y.add(at), count), reciprocal);
                if !p.is_null() {
                    store(isa, p.add(at), count, value);
                }
                store(isa, y.add(at), count, isa.keep(keep, isa.mul(value, scale)));
            });
        }
    }
}

/// `dx = p · (g - sum of g · p)`, `g = keep ? dy · scale : 0`.
#[derive(Clone, Copy)]
pub(super) struct Backward {
    pub(super) shape: Shape,
    pub(super) p: Source,
    pub(super) dy: Source,
    pub(super) dx: Target,
    pub(super) bits: Bits,
    pub(super) stores_mask: bool,
    pub(super) scale: f32,
}

impl Sweep for Backward {
    #[inline(always)]
    unsafe fn rows<I: Isa>(self, isa: I, first: usize, count: usize) -> Result<()> {
        let Shape { cols, .. } = self.shape;
        let mut lines = Lines::new([Some(self.p), Some(self.dy)], [Some(self.dx), None], cols)?;
        let tile_rows = lines.at_once(self.shape.tile_rows());
        let mut scratch = [0u32; TILE_WORDS];
        for top in (first..first + count).step_by(tile_rows) {
            let rows = tile_rows.min(first + count - top);
            let mut sums = [[0.0; LANES]; ROWS];
            let seen_by_last = self.shape.seen(top + rows - 1).next_multiple_of(32).min(cols);
            let width = if self.stores_mask { cols } else { seen_by_last };
            // SAFETY: as for the forward sweep.
            unsafe {
                lines.gather(top);
                for col in (0..width).step_by(TILE_COLS) {
                    let part = Part { row: top, rows, col, cols: TILE_COLS.min(width - col) };
                    let bits = self.bits.tile(isa, part, &mut scratch);
                    for (i, sums) in sums.iter_mut().enumerate().take(rows) {
                        let seen = self.shape.seen(top + i).saturating_sub(col).min(part.cols);
                        self.products(
                            isa,
                            lines.line(top + i),
                            (col, seen),
                            bits.words.add(i * bits.stride),
                            sums,
                        );
                    }
                }
                for (i, sums) in sums.iter().enumerate().take(rows) {
                    let (line, seen) = (lines.line(top + i), self.shape.seen(top + i));
                    self.finish(isa, line, seen, tree(*sums));
                    hide(line.outputs[0], seen, cols);
                    lines.scatter(top + i);
                }
            }
        }
        Ok(())
    }
}

impl Backward {
    /// Stores g in dx, and adds g · p to 16 lanes, for `n` elements from column `col` on.
    ///
    /// # Safety
    ///
    /// The line's matrices have `col + n` elements, `col` is a multiple of 16, and `words` holds the
    /// elements' bits.
    #[inline(always)]
    unsafe fn products<I: Isa>(
        &self,
        isa: I,
        line: Line,
        (col, n): (usize, usize),
        words: *const u32,
        lanes: &mut [f32; LANES],
    ) {
        let scale = isa.splat(self.scale);
        let ([p, dy], [dx, _]) = (line.inputs, line.outputs);
        let mut sums: Sixteen<I> = [isa.splat(0.0); LANES];
        // SAFETY: the caller's promise; a vector of 16 lanes starts at a multiple of its length.
        unsafe {
            for (v, sum) in sums.iter_mut().enumerate().take(vectors::<I>()) {
                *sum = isa.load(lanes.as_ptr().add(v * I::LANES));
            }
            let whole = n / 32 * 32;
            for_each_vector(isa, words, whole, |at, count, keep| {
                let g = isa.keep(keep, isa.mul(load(isa, dy.add(col + at), count), scale));
                let p = load(isa, p.add(col + at), count);
                store(isa, dx.add(col + at), count, g);
                let sum = &mut sums[at / I::LANES % vectors::<I>()];
                *sum = isa.mul_add(g, p, *sum);
            });
            for (v, sum) in sums.into_iter().enumerate().take(vectors::<I>()) {
                isa.store(lanes.as_mut_ptr().add(v * I::LANES), sum);
            }
            for_each_vector(isa, words.add(whole / 32), n - whole, |at, count, keep| {
                let lane = lanes.as_mut_ptr().add(at % LANES);
                let at = col + whole + at;
                let g = isa.keep(keep, isa.mul(load(isa, dy.add(at), count), scale));
                let p = load(isa, p.add(at), count);
                store(isa, dx.add(at), count, g);
                store(isa, lane, count, isa.mul_add(g, p, isa.load(lane)));
            });
        }
    }

    /// `dx = p · (dx - sum)`.
    ///
    /// # Safety
    ///
    /// The line's first input and first output have `n` elements.
    #[inline(always)]
    unsafe fn finish<I: Isa>(&self, isa: I, line: Line, n: usize, sum: f32) {
        let (p, dx, sum) = (line.inputs[0], line.outputs[0], isa.splat(sum));
        // SAFETY: the caller's promise.
        unsafe {
            for c in (0..n).step_by(I::LANES) {
                let count = I::LANES.min(n - c);
                let g = isa.sub(load(isa, dx.add(c), count), sum);
                store(isa, dx.add(c), count, isa.mul(load(isa, p.add(c), count), g));
            }
        }
    }
}
