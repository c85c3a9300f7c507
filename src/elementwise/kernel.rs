//! The loop behind every element-wise operation.

use std::ops::Range;

use super::ops::Op;
use crate::Level;
use crate::isa::{Isa, Kernel, Twice, caches};
use crate::mask::{Bits, TILE_COLS, TILE_WORDS};
use crate::threads::{Grid, Part, for_each};
use crate::view::{Source, Target};

/// Elements of a tile: bits for so many are made, then used. 32 KiB of floats a stream keep the
/// hardware prefetchers going while the next bits are made.
const TILE: usize = 8192;
/// Tiles of many short rows have a multiple of so many: a walk down the rows with the widest vectors.
const ROWS: usize = 16;
/// Elements worth a task: some 10 microseconds, ten times what it costs to hand one over.
pub(super) const TASK: usize = crate::threads::work::COPY;
/// Bytes of a cache line.
const LINE: usize = 64;
/// Columns of a piece that is gathered because a view is not stored by rows.
const GATHER: usize = 256;

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
                // Long pieces of rows keep the prefetchers going, so there is one strip a thread.
                let threads = crate::threads::count().min(self.rows * self.cols / TASK);
                let strip = self.cols.div_ceil(threads.max(1)).next_multiple_of(128);
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

    /// Whether the tensors together are larger than the level-3 cache. The start of the output would
    /// then be gone from it before the end is written, and whoever reads it next would not find it:
    /// it is better stored past the caches, which saves reading each line before it is written.
    fn overflows_caches<O: Op>(&self) -> bool {
        let bytes_an_element = 4 * (2 + usize::from(O::SECOND));
        self.rows * self.cols > caches().level_3 / bytes_an_element
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
        let tile_rows = if tile_rows < ROWS { tile_rows } else { tile_rows / ROWS * ROWS };
        let by_rows = pass.main.col_step == 1
            && pass.out.col_step == 1
            && pass.second.is_none_or(|s| s.col_step == 1);
        let in_place = pass.out.source().same_as(pass.main);
        let streams = by_rows && !in_place && pass.overflows_caches::<O>();
        let mut buffers = Buffers::None;
        if !by_rows {
            buffers = Buffers::Gather(Default::default());
        } else if streams {
            buffers = Buffers::Stream;
        }
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
                        if O::LONG {
                            self.row(Twice(isa), r + i, c, tile.cols, words, &mut buffers);
                        } else {
                            self.row(isa, r + i, c, tile.cols, words, &mut buffers);
                        }
                    }
                }
            }
        }
        isa.fence();
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

/// What a piece goes through on its way.
#[allow(clippy::large_enum_variant, reason = "there is one a task, on its stack")]
enum Buffers {
    /// Nothing: it is read and written where it is.
    None,
    /// Nothing, and the output is stored past the caches.
    Stream,
    /// A view is not stored by rows.
    Gather(Gather),
}

struct Gather {
    main: [f32; GATHER],
    second: [f32; GATHER],
    out: [f32; GATHER],
}

impl Default for Gather {
    fn default() -> Self {
        Self { main: [0.0; GATHER], second: [0.0; GATHER], out: [0.0; GATHER] }
    }
}

/// The bits of `n <= 32` elements from `col` on.
///
/// # Safety
///
/// `words` is valid for reads of the bits of `col + n` elements.
#[inline(always)]
unsafe fn bits_from(words: *const u32, col: usize, n: usize) -> u32 {
    let shift = col % 32;
    // SAFETY: the second word is read only if elements have bits there.
    unsafe {
        let words = words.add(col / 32);
        if shift + n > 32 {
            *words >> shift | *words.add(1) << (32 - shift)
        } else {
            *words >> shift
        }
    }
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
        buffers: &mut Buffers,
    ) {
        let pass = self.pass;
        let here = Task { pass, part: self.part, op: self.op.at_row(row) };
        let most = if let Buffers::Gather(_) = buffers { GATHER } else { cols };
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
                match buffers {
                    Buffers::None | Buffers::Stream => {}
                    Buffers::Gather(Gather { main, second, out }) => {
                        for i in 0..n {
                            main[i] = *pass.main.at(row, first + i);
                            second[i] = pass.second.map_or(0.0, |s| *s.at(row, first + i));
                        }
                        piece.main = main.as_ptr();
                        piece.second = second.as_ptr();
                        piece.out = out.as_mut_ptr();
                    }
                }
                let words = words.add(start / 32);
                let streams = matches!(buffers, Buffers::Stream);
                match pass.sum {
                    Some(_) if O::SUMS => here.piece::<I, true>(isa, piece, n, words, streams),
                    _ => here.piece::<I, false>(isa, piece, n, words, streams),
                }
                match buffers {
                    Buffers::None | Buffers::Stream => {}
                    Buffers::Gather(Gather { out, .. }) => {
                        for (i, value) in out.iter().enumerate().take(n) {
                            *pass.out.at(row, first + i) = *value;
                        }
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
        streams: bool,
    ) {
        // What is streamed is whole cache lines: a line that is also written through the caches would
        // go to memory twice. Hence the bits of 32 elements may lie in two words.
        let head =
            if streams { piece.out.align_offset(LINE.max(4 * I::LANES)).min(cols) } else { 0 };
        let tail = cols - (cols - head) % 32;
        // SAFETY: all accesses are below `cols`; from `head` to `tail`, vectors are aligned if they
        // are streamed.
        unsafe {
            if streams {
                self.body::<I, SUM, true>(isa, piece, head..tail, words);
            } else {
                self.body::<I, SUM, false>(isa, piece, head..tail, words);
            }
            let mut col = if head > 0 { 0 } else { tail };
            while col < cols {
                let end = if col < head { head } else { cols };
                let n = I::LANES.min(end - col);
                let keep = isa.lanes(isa.word(bits_from(words, col, n)), 0);
                self.vector::<I, SUM, false>(isa, piece, col, n, keep);
                col = if col + n == head { tail } else { col + n };
            }
        }
    }

    /// The elements of `cols`, a multiple of 32.
    ///
    /// # Safety
    ///
    /// As for [`Task::piece`], up to the end of `cols`; what is streamed is aligned.
    #[inline(always)]
    unsafe fn body<I: Isa, const SUM: bool, const STREAM: bool>(
        &self,
        isa: I,
        piece: Piece,
        cols: Range<usize>,
        words: *const u32,
    ) {
        for col in cols.step_by(32) {
            // SAFETY: the caller's promise.
            unsafe {
                let word = isa.word(bits_from(words, col, 32));
                let mut at = 0;
                while at < 32 {
                    let keep = isa.lanes(word, at);
                    self.vector::<I, SUM, STREAM>(isa, piece, col + at, I::LANES, keep);
                    at += I::LANES;
                }
            }
        }
    }

    /// `n` elements from `at` on; `STREAM` if they are a whole vector to be stored past the caches.
    ///
    /// # Safety
    ///
    /// Every pointer that the operation uses is valid for `at + n` elements; what is streamed is
    /// aligned.
    #[inline(always)]
    unsafe fn vector<I: Isa, const SUM: bool, const STREAM: bool>(
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
                if n == I::LANES {
                    isa.store(p.add(at), v)
                } else {
                    isa.store_first(p.add(at), n, v)
                }
            };
            let main = load(piece.main);
            let second = if O::SECOND { load(piece.second) } else { zero };
            let bias = if O::BIAS { load(piece.bias) } else { zero };
            let out = self.op.eval(isa, main, second, bias, keep);
            if STREAM {
                isa.stream(piece.out.add(at), out);
            } else {
                store(piece.out, out);
            }
            if SUM {
                store(piece.sum, isa.add(load(piece.sum), out));
            }
        }
    }
}
