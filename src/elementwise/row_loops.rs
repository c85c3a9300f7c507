//! The loops over the rows of a tile, compiled for each operation and instruction set.

use std::ops::Range;

use super::ops::Op;
use crate::isa::{Isa, Kernel, Twice, is_fallback, load, store};

/// Bytes of a cache line.
const LINE: usize = 64;
/// Elements that a pass in place prefetches ahead: half a page. It is bound by loads from beyond the
/// level-2 cache, and hardware prefetchers stop at the end of a page.
const AHEAD: usize = 512;

/// Rows of each tensor and of the mask; those of a tensor have unit stride.
///
/// Row `r` of a tensor starts `r` steps from its pointer. A pointer that the operation does not use
/// may be dangling.
#[derive(Clone, Copy)]
pub(super) struct Rows {
    /// The first row's number in the pass.
    pub(super) row: usize,
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) main: Strided<*const f32>,
    pub(super) second: Strided<*const f32>,
    pub(super) out: Strided<*mut f32>,
    /// One row for all.
    pub(super) bias: *const f32,
    pub(super) sum: *mut f32,
    pub(super) words: Strided<*const u32>,
    /// Whether the output is stored past the caches.
    pub(super) streams: bool,
}

/// The start of the first row, and the elements from row to row.
#[derive(Clone, Copy)]
pub(super) struct Strided<P> {
    pub(super) start: P,
    pub(super) step: usize,
}

impl Rows {
    /// The same as one long row, if rows follow each other in each tensor and in the mask, unless
    /// something differs by row or column.
    pub(super) fn merged(self, differs_by_row: bool) -> Self {
        let Self { rows, cols, main, second, out, words, .. } = self;
        let by_column = !self.bias.is_null() || !self.sum.is_null();
        let apart = main.step != cols
            || out.step != cols
            || !second.start.is_null() && second.step != cols
            || 32 * words.step != cols;
        if differs_by_row || by_column || apart {
            return self;
        }
        Self { rows: 1, cols: rows * cols, ..self }
    }
}

/// An operation compiled for `I`: what the one loop over tiles calls.
pub(super) trait RowsOp<I>: Sync {
    /// The output of `rows`, and its sums.
    ///
    /// # Safety
    ///
    /// The tensors that the operation uses have `rows` and nobody else accesses those of `out` and
    /// `sum`; `words` has their bits.
    unsafe fn apply(&self, isa: I, rows: &Rows);

    /// Whether it is not the same in all rows.
    fn differs_by_row(&self) -> bool;
}

impl<I: Isa, O: Op> RowsOp<I> for O {
    unsafe fn apply(&self, isa: I, rows: &Rows) {
        // SAFETY: the caller's promise.
        isa.vectorize(unsafe { OnRows::new(*self, rows) });
    }

    fn differs_by_row(&self) -> bool {
        O::BY_ROW
    }
}

/// An operation on rows.
struct OnRows<'a, O> {
    op: O,
    rows: &'a Rows,
}

impl<'a, O: Op> OnRows<'a, O> {
    /// # Safety
    ///
    /// As for [`RowsOp::apply`], until the kernel has run.
    unsafe fn new(op: O, rows: &'a Rows) -> Self {
        Self { op, rows }
    }
}

impl<O: Op> Kernel for OnRows<'_, O> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let mut buffers = Buffers::default();
        for i in 0..self.rows.rows {
            // SAFETY: the promise of `new`; row `i` is one of the rows.
            unsafe {
                let row = Row::new::<I>(self.op.at_row(self.rows.row + i), self.rows, i);
                if const { is_fallback::<I>() } {
                    row.long(isa, &mut buffers);
                    continue;
                }
                match (O::LONG, O::PAIRS) {
                    (true, _) => row.long(Twice(isa), &mut buffers),
                    (false, true) => row.short(Twice(isa)),
                    (false, false) => row.short(isa),
                }
            }
        }
    }
}

/// Elements of a word of bits, a multiple of the lanes of any vector.
const WORD: usize = 32;

/// What a part of a row that does not fill a word goes through, for each tensor.
///
/// Aligned, so that no vector lies in two cache lines: it is loaded right after it is stored.
#[derive(Default)]
#[repr(align(64))]
struct Buffers {
    main: [f32; WORD],
    second: [f32; WORD],
    bias: [f32; WORD],
    out: [f32; WORD],
    sum: [f32; WORD],
}

/// An operation on one row.
#[derive(Clone, Copy)]
struct Row<O> {
    op: O,
    main: *const f32,
    second: *const f32,
    bias: *const f32,
    out: *mut f32,
    sum: *mut f32,
    words: *const u32,
    cols: usize,
    streams: bool,
}

impl<O: Op> Row<O> {
    /// # Safety
    ///
    /// As for [`RowsOp::apply`], until the row is done; `i` is below the number of rows.
    #[inline(always)]
    unsafe fn new<I: Isa>(op: O, rows: &Rows, i: usize) -> Self {
        debug_assert!(i < rows.rows, "a row of the tile");
        Self {
            op,
            main: rows.main.start.wrapping_add(i * rows.main.step),
            second: rows.second.start.wrapping_add(i * rows.second.step),
            bias: rows.bias,
            out: rows.out.start.wrapping_add(i * rows.out.step),
            sum: rows.sum,
            words: rows.words.start.wrapping_add(i * rows.words.step),
            cols: rows.cols,
            // Vectors of less than half a line, the portable ones, have no such stores.
            streams: O::STREAMS && 8 * I::LANES >= LINE && rows.streams,
        }
    }

    /// Elements before the first that is streamed. What is streamed is whole cache lines: a line that
    /// is also written through the caches would go to memory twice.
    #[inline(always)]
    fn head<I: Isa>(&self) -> usize {
        if self.streams { self.out.align_offset(LINE.max(4 * I::LANES)).min(self.cols) } else { 0 }
    }

    /// The bits of `n <= 32` elements from `col` on.
    ///
    /// # Safety
    ///
    /// `col + n` is at most the number of columns.
    #[inline(always)]
    unsafe fn bits(&self, col: usize, n: usize) -> u32 {
        let shift = col % 32;
        // SAFETY: the second word is read only if elements have bits there.
        unsafe {
            let words = self.words.add(col / 32);
            if shift + n > 32 {
                *words >> shift | *words.add(1) << (32 - shift)
            } else {
                *words >> shift
            }
        }
    }

    /// A long operation: one loop over words of bits. What does not fill a word goes through buffers
    /// and the same loop, so that there is one copy of the operation.
    ///
    /// # Safety
    ///
    /// As for [`Row::new`].
    #[inline(always)]
    unsafe fn long<I: Isa>(&self, isa: I, buffers: &mut Buffers) {
        let (cols, head) = (self.cols, self.head::<I>());
        let tail = cols - (cols - head) % 32;
        let mut col = 0;
        while col < cols {
            let whole = head <= col && col < tail;
            // SAFETY: `col..end` are columns; buffers have room for a word.
            unsafe {
                let (row, end, n) = if whole {
                    (*self, tail, 32)
                } else {
                    let n = if col < head { head } else { cols } - col;
                    (self.through(isa, buffers, col, n), col + n, n)
                };
                let streams = self.streams && whole;
                while col < end {
                    let word = isa.word(self.bits(col, n));
                    let mut at = 0;
                    while at < 32 {
                        let keep = isa.lanes(word, at);
                        let out = row.eval(isa, col + at, I::LANES, keep);
                        let to = row.out.wrapping_add(col + at);
                        if streams {
                            isa.stream(to, out)
                        } else {
                            isa.store(to, out)
                        }
                        at += I::LANES;
                        if at >= n {
                            break;
                        }
                    }
                    col += 32;
                }
                if !whole {
                    self.take(isa, buffers, end - n, n);
                }
                col = end;
            }
        }
    }

    /// The row with columns `col..col + n` in buffers, and any values after them.
    ///
    /// # Safety
    ///
    /// As for [`Row::new`]; `col + n` is at most the number of columns, `n` at most 32.
    #[inline(always)]
    unsafe fn through<I: Isa>(&self, isa: I, buffers: &mut Buffers, col: usize, n: usize) -> Self {
        const { assert!(WORD.is_multiple_of(I::LANES)) };
        let Buffers { main, second, bias, out, sum } = buffers;
        let copy = |from: *const f32, to: &mut [f32; WORD]| {
            // SAFETY: the caller's promise; `n` is at most 32, a multiple of LANES.
            unsafe {
                let mut at = 0;
                while at < n {
                    let v = load(isa, from.add(col + at), I::LANES.min(n - at));
                    isa.store(to.as_mut_ptr().add(at), v);
                    at += I::LANES;
                }
            }
        };
        copy(self.main, main);
        if self.op.second() {
            copy(self.second, second);
        }
        if self.op.bias() {
            copy(self.bias, bias);
        }
        if self.op.sum() {
            copy(self.sum, sum);
        }
        Self {
            main: main.as_ptr().wrapping_sub(col),
            second: second.as_ptr().wrapping_sub(col),
            bias: bias.as_ptr().wrapping_sub(col),
            out: out.as_mut_ptr().wrapping_sub(col),
            sum: sum.as_mut_ptr().wrapping_sub(col),
            ..*self
        }
    }

    /// Takes columns `col..col + n` from the buffers that they went through.
    ///
    /// # Safety
    ///
    /// As for [`Row::through`].
    #[inline(always)]
    unsafe fn take<I: Isa>(&self, isa: I, buffers: &Buffers, col: usize, n: usize) {
        let copy = |from: &[f32; WORD], to: *mut f32| {
            // SAFETY: the caller's promise; `n` is at most 32, a multiple of LANES.
            unsafe {
                let mut at = 0;
                while at < n {
                    let v = isa.load(from.as_ptr().add(at));
                    store(isa, to.add(col + at), I::LANES.min(n - at), v);
                    at += I::LANES;
                }
            }
        };
        copy(&buffers.out, self.out);
        if self.op.sum() {
            copy(&buffers.sum, self.sum);
        }
    }

    /// A short operation: a loop over whole words of bits, and one over the rest.
    ///
    /// # Safety
    ///
    /// As for [`Row::new`].
    #[inline(always)]
    unsafe fn short<I: Isa>(&self, isa: I) {
        let (cols, head) = (self.cols, self.head::<I>());
        // The bits of 32 elements from `head` on may lie in two words.
        let tail = cols - (cols - head) % 32;
        // SAFETY: all columns are below `cols`; from `head` to `tail` vectors are aligned if they are
        // streamed.
        unsafe {
            if self.streams {
                self.words::<I, true>(isa, head..tail);
            } else {
                self.words::<I, false>(isa, head..tail);
            }
            let mut col = if head > 0 { 0 } else { tail };
            while col < cols {
                let end = if col < head { head } else { cols };
                let n = I::LANES.min(end - col);
                let keep = isa.lanes(isa.word(self.bits(col, n)), 0);
                let out = self.eval(isa, col, n, keep);
                store(isa, self.out.add(col), n, out);
                col = if col + n == head { tail } else { col + n };
            }
        }
    }

    /// The elements of `cols`, a multiple of 32.
    ///
    /// # Safety
    ///
    /// As for [`Row::new`], up to the end of `cols`; what is streamed is aligned.
    #[inline(always)]
    unsafe fn words<I: Isa, const STREAM: bool>(&self, isa: I, cols: Range<usize>) {
        let in_place = self.main == self.out.cast_const();
        for col in cols.step_by(32) {
            // SAFETY: the caller's promise.
            unsafe {
                if !STREAM && in_place {
                    isa.prefetch(self.main.wrapping_add(col + AHEAD));
                    isa.prefetch(self.main.wrapping_add(col + AHEAD + LINE / 4));
                }
                let word = isa.word(self.bits(col, 32));
                let mut at = 0;
                while at < 32 {
                    let out = self.eval(isa, col + at, I::LANES, isa.lanes(word, at));
                    if STREAM {
                        isa.stream(self.out.add(col + at), out);
                    } else {
                        isa.store(self.out.add(col + at), out);
                    }
                    at += I::LANES;
                }
            }
        }
    }

    /// The output of `n` elements from `at` on, which is added to the sums.
    ///
    /// # Safety
    ///
    /// The pointers that the operation uses are valid for elements `at..at + n`; they may point so far
    /// before a buffer.
    #[inline(always)]
    unsafe fn eval<I: Isa>(&self, isa: I, at: usize, n: usize, keep: I::Mask) -> I::F32 {
        let zero = isa.splat(0.0);
        // SAFETY: the caller's promise.
        unsafe {
            let main = load(isa, self.main.wrapping_add(at), n);
            let second =
                if self.op.second() { load(isa, self.second.wrapping_add(at), n) } else { zero };
            let bias = if self.op.bias() { load(isa, self.bias.wrapping_add(at), n) } else { zero };
            let out = self.op.eval(isa, main, second, bias, keep);
            if self.op.sum() {
                let sum = self.sum.wrapping_add(at);
                store(isa, sum, n, isa.add(load(isa, sum, n), out));
            }
            out
        }
    }
}
