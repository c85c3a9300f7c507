//! The loop behind every element-wise operation.

use crate::Level;
use crate::activation::{Function, Needs};
use crate::isa::{Isa, Kernel};
use crate::mask::{Bits, TILE_COLS, TILE_WORDS};
use crate::threads::{Grid, Part, for_each};
use crate::view::{Source, Target};

/// Elements of a tile: bits for so many are made, then used. 32 KiB of floats a stream keep the
/// hardware prefetchers going while the next bits are made.
const TILE: usize = 8192;
/// Elements worth a task: some 10 microseconds, ten times what it costs to hand one over.
const TASK: usize = 1 << 17;
/// Columns of a piece that is gathered because a view is not stored by rows.
const GATHER: usize = 256;

/// What is done to one vector.
pub(super) trait Op: Copy + Send + Sync {
    /// Whether there is a second input.
    const SECOND: bool;
    /// Whether a bias is added.
    const BIAS: bool;
    /// Whether the columns of the output may have to be summed.
    const SUMS: bool;

    /// The output, of both inputs and the bias (zero where there is none) and the mask.
    fn eval<I: Isa>(
        self,
        isa: I,
        main: I::F32,
        second: I::F32,
        bias: I::F32,
        keep: I::Mask,
    ) -> I::F32;
}

/// `[second +] (keep ? act(main [+ bias]) · scale : 0)`.
#[derive(Clone, Copy)]
pub(super) struct Forward<F, const BIAS: bool, const SECOND: bool> {
    pub(super) f: F,
    pub(super) scale: f32,
}

impl<F: Function, const BIAS: bool, const SECOND: bool> Op for Forward<F, BIAS, SECOND> {
    const SECOND: bool = SECOND;
    const BIAS: bool = BIAS;
    const SUMS: bool = false;

    #[inline(always)]
    fn eval<I: Isa>(
        self,
        isa: I,
        main: I::F32,
        second: I::F32,
        bias: I::F32,
        keep: I::Mask,
    ) -> I::F32 {
        let z = if BIAS { isa.add(main, bias) } else { main };
        let y = isa.keep(keep, isa.mul(self.f.value(isa, z), isa.splat(self.scale)));
        if SECOND { isa.add(second, y) } else { y }
    }
}

/// `keep ? main · scale · act' : 0`, with the derivative computed from the output or from
/// `z = second [+ bias]`.
#[derive(Clone, Copy)]
pub(super) struct Backward<F, const FROM_OUTPUT: bool, const BIAS: bool> {
    f: F,
    scale: f32,
    unscale: f32,
}

impl<F: Function, const FROM_OUTPUT: bool, const BIAS: bool> Op
    for Backward<F, FROM_OUTPUT, BIAS>
{
    const SECOND: bool = !matches!(F::NEEDS, Needs::Nothing);
    const BIAS: bool = BIAS;
    const SUMS: bool = true;

    #[inline(always)]
    fn eval<I: Isa>(
        self,
        isa: I,
        main: I::F32,
        second: I::F32,
        bias: I::F32,
        keep: I::Mask,
    ) -> I::F32 {
        let g = isa.mul(main, isa.splat(self.scale));
        let saved = if FROM_OUTPUT {
            isa.mul(second, isa.splat(self.unscale))
        } else {
            let z = if BIAS { isa.add(second, bias) } else { second };
            if matches!(F::NEEDS, Needs::Output) { self.f.value(isa, z) } else { z }
        };
        isa.keep(keep, self.f.backward(isa, g, saved))
    }
}

impl<F: Function> Backward<F, false, false> {
    /// Runs the backward pass that fits what was saved.
    pub(super) fn choose(
        f: F,
        scale: f32,
        unscale: f32,
        from_output: bool,
        level: Level,
        pass: Pass,
    ) {
        let bias = pass.bias.is_some();
        match (F::NEEDS, from_output, bias) {
            (Needs::Output, true, _) => {
                pass.run(level, Backward::<F, true, false> { f, scale, unscale });
            }
            (Needs::Output | Needs::PreActivation, _, true) => {
                pass.run(level, Backward::<F, false, true> { f, scale, unscale });
            }
            _ => pass.run(level, Backward::<F, false, false> { f, scale, unscale }),
        }
    }
}

/// The tensors of a pass; all have `rows` x `cols` elements, bias and sum `cols`.
#[derive(Clone, Copy)]
pub(super) struct Pass {
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) main: Source,
    pub(super) second: Option<Source>,
    pub(super) bias: Option<*const f32>,
    pub(super) out: Target,
    pub(super) sum: Option<*mut f32>,
    pub(super) bits: Bits,
}

// SAFETY: the pointers are borrows that live until `Pass::run` returns; tasks write disjoint parts
// of `out`, of `sum` and of a mask that is stored.
unsafe impl Send for Pass {}
// SAFETY: as above.
unsafe impl Sync for Pass {}

impl Pass {
    pub(super) fn run<O: Op>(self, level: Level, op: O) {
        // A column's sum is one chain over all rows, so no task may have less than a column.
        let grid = match self.sum {
            Some(_) => {
                let strip = (TASK / self.rows.max(1)).max(1).next_multiple_of(128);
                Grid::with_parts(self.rows, self.cols, self.rows, strip)
            }
            None => Grid::new(self.rows, self.cols, TASK, 16, TILE_COLS),
        };
        if let (Some(sum), true) = (self.sum, grid.len() == 0) {
            // SAFETY: `sum` has `cols` elements.
            unsafe { std::slice::from_raw_parts_mut(sum, self.cols) }.fill(0.0);
        }
        for_each(grid.len(), |i| level.vectorize(Task { pass: &self, part: grid.part(i), op }));
    }
}

/// One task's share of a pass.
struct Task<'a, O> {
    pass: &'a Pass,
    part: Part,
    op: O,
}

impl<O: Op> Kernel for Task<'_, O> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Part { row, rows, col, cols } = self.part;
        let pass = self.pass;
        if let Some(sum) = pass.sum {
            // SAFETY: the part's columns of `sum` are this task's.
            unsafe { std::slice::from_raw_parts_mut(sum.add(col), cols) }.fill(0.0);
        }
        let tile_cols = cols.min(TILE_COLS);
        let words = tile_cols.div_ceil(32);
        let tile_rows = (TILE / tile_cols).clamp(1, TILE_WORDS / words);
        let by_rows = pass.main.col_step == 1
            && pass.out.col_step == 1
            && pass.second.is_none_or(|s| s.col_step == 1);
        let mut buffers = if by_rows { None } else { Some([[0.0; GATHER]; 3]) };
        let mut scratch = [0u32; TILE_WORDS];
        for c in (col..col + cols).step_by(tile_cols) {
            for r in (row..row + rows).step_by(tile_rows) {
                let tile = Part {
                    row: r,
                    rows: tile_rows.min(row + rows - r),
                    col: c,
                    cols: tile_cols.min(col + cols - c),
                };
                // SAFETY: the tile lies in the pass's matrices and is this task's alone; its first
                // column is a multiple of 128 (as parts and full tiles are), and it has at most
                // TILE_WORDS words.
                unsafe {
                    let bits = pass.bits.tile(isa, tile, &mut scratch);
                    for i in 0..tile.rows {
                        let words = bits.words.add(i * bits.stride);
                        self.row(isa, r + i, c, tile.cols, words, &mut buffers);
                    }
                }
            }
        }
    }
}

/// Where a piece of one row is, in each tensor. Those that an operation has not got are null.
#[derive(Clone, Copy)]
struct Piece {
    main: *const f32,
    second: *const f32,
    bias: *const f32,
    out: *mut f32,
    sum: *mut f32,
}

impl<O: Op> Task<'_, O> {
    /// A piece of a row; through buffers where a view is not stored by rows.
    ///
    /// # Safety
    ///
    /// The piece lies in the pass's matrices and is this task's alone; `words` holds its bits.
    #[inline(always)]
    unsafe fn row<I: Isa>(
        &self,
        isa: I,
        row: usize,
        col: usize,
        cols: usize,
        words: *const u32,
        buffers: &mut Option<[[f32; GATHER]; 3]>,
    ) {
        let pass = self.pass;
        let most = if buffers.is_some() { GATHER } else { cols };
        for start in (0..cols).step_by(most) {
            let (first, n) = (col + start, most.min(cols - start));
            // SAFETY: the caller's promise; GATHER is a multiple of 32.
            unsafe {
                let mut piece = Piece {
                    main: pass.main.at(row, first),
                    second: pass.second.map_or(std::ptr::null(), |s| s.at(row, first)),
                    bias: pass.bias.map_or(std::ptr::null(), |b| b.add(first)),
                    out: pass.out.at(row, first),
                    sum: pass.sum.map_or(std::ptr::null_mut(), |s| s.add(first)),
                };
                if let Some([main, second, out]) = buffers {
                    for i in 0..n {
                        main[i] = *pass.main.at(row, first + i);
                        second[i] = pass.second.map_or(0.0, |s| *s.at(row, first + i));
                    }
                    piece.main = main.as_ptr();
                    piece.second = second.as_ptr();
                    piece.out = out.as_mut_ptr();
                }
                match pass.sum {
                    Some(_) if O::SUMS => {
                        self.piece::<I, true>(isa, piece, n, words.add(start / 32));
                    }
                    _ => self.piece::<I, false>(isa, piece, n, words.add(start / 32)),
                }
                if let Some([_, _, out]) = buffers {
                    for (i, value) in out.iter().enumerate().take(n) {
                        *pass.out.at(row, first + i) = *value;
                    }
                }
            }
        }
    }

    /// `cols` elements that follow each other.
    ///
    /// # Safety
    ///
    /// Every pointer that the operation uses is valid for `cols` elements, `words` for their bits.
    #[inline(always)]
    unsafe fn piece<I: Isa, const SUM: bool>(
        &self,
        isa: I,
        piece: Piece,
        cols: usize,
        words: *const u32,
    ) {
        let mut col = 0;
        // SAFETY: all accesses are below `cols`.
        unsafe {
            while col + 32 <= cols {
                let word = isa.word(*words.add(col / 32));
                let mut at = 0;
                while at < 32 {
                    self.vector::<I, SUM>(isa, piece, col + at, I::LANES, isa.lanes(word, at));
                    at += I::LANES;
                }
                col += 32;
            }
            if col == cols {
                return;
            }
            let word = isa.word(*words.add(col / 32));
            let mut at = 0;
            while col + at < cols {
                let n = I::LANES.min(cols - col - at);
                self.vector::<I, SUM>(isa, piece, col + at, n, isa.lanes(word, at));
                at += I::LANES;
            }
        }
    }

    /// `n` elements from `at` on.
    ///
    /// # Safety
    ///
    /// Every pointer that the operation uses is valid for `at + n` elements.
    #[inline(always)]
    unsafe fn vector<I: Isa, const SUM: bool>(
        &self,
        isa: I,
        piece: Piece,
        at: usize,
        n: usize,
        keep: I::Mask,
    ) {
        let zero = isa.splat(0.0);
        // SAFETY: the caller's promise.
        unsafe {
            let load = |p: *const f32| {
                if n == I::LANES { isa.load(p.add(at)) } else { isa.load_first(p.add(at), n) }
            };
            let store = |p: *mut f32, v| {
                if n == I::LANES { isa.store(p.add(at), v) } else { isa.store_first(p.add(at), n, v) }
            };
            let main = load(piece.main);
            let second = if O::SECOND { load(piece.second) } else { zero };
            let bias = if O::BIAS { load(piece.bias) } else { zero };
            let out = self.op.eval(isa, main, second, bias, keep);
            store(piece.out, out);
            if SUM {
                store(piece.sum, isa.add(load(piece.sum), out));
            }
        }
    }
}
