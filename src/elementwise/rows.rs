//! The loops over the rows of a tile, compiled for each operation and instruction set.

use std::ops::Range;

use super::ops::Op;
use crate::isa::{Isa, Kernel, Twice, load, store};

/// Bytes of a cache line.
const LINE: usize = 64;

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

/// An operation compiled for `I`: what the one loop over tiles calls.
pub(super) trait RowsOp<I>: Sync {
    /// The output of `rows`, and its sums.
    ///
    /// # Safety
    ///
    /// The tensors that the operation uses have `rows` and nobody else accesses those of `out` and
    /// `sum`; `words` has their bits.
    unsafe fn apply(&self, isa: I, rows: &Rows);
}

impl<I: Isa, O: Op> RowsOp<I> for O {
    unsafe fn apply(&self, isa: I, rows: &Rows) {
        // SAFETY: the caller's promise.
        isa.vectorize(unsafe { OnRows::new(*self, rows) });
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
                let row = Row::new(self.op.at_row(self.rows.row + i), self.rows, i);
                if O::LONG { row.long(Twice(isa), &mut buffers) } else { row.short(isa) }
            }
        }
    }
}

/// The most lanes of a vector: two of AVX-512 side by side.
const WIDEST: usize = 32;

/// What a part of a row that does not fill a vector goes through, for each tensor.
#[derive(Default)]
struct Buffers {
    main: [f32; WIDEST],
    second: [f32; WIDEST],
    bias: [f32; WIDEST],
    out: [f32; WIDEST],
    sum: [f32; WIDEST],
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
    unsafe fn new(op: O, rows: &Rows, i: usize) -> Self {
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
            streams: rows.streams,
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

    /// A long operation: one loop for whole vectors. What does not fill a vector goes through buffers
    /// and the same loop, so that there is one copy of the operation.
    ///
    /// # Safety
    ///
    /// As for [`Row::new`].
    #[inline(always)]
    unsafe fn long<I: Isa>(&self, isa: I, buffers: &mut Buffers) {
        let (cols, head) = (self.cols, self.head::<I>());
        let tail = cols - (cols - head) % I::LANES;
        let mut col = 0;
        while col < cols {
            let whole = head <= col && col < tail;
            // SAFETY: `col..end` are columns; buffers have room for a vector.
            unsafe {
                let (row, end, n) = if whole {
                    (*self, tail, I::LANES)
                } else {
                    let n = I::LANES.min(if col < head { head } else { cols } - col);
                    (self.through(isa, buffers, col, n), col + n, n)
                };
                let streams = self.streams && whole;
                while col < end {
                    let keep = isa.lanes(isa.word(self.bits(col, n)), 0);
                    let out = row.eval(isa, col, I::LANES, keep);
                    if streams {
                        isa.stream(row.out.wrapping_add(col), out);
                    } else {
                        isa.store(row.out.wrapping_add(col), out);
                    }
                    col += I::LANES;
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
    /// As for [`Row::new`]; `col + n` is at most the number of columns, `n` at most a vector.
    #[inline(always)]
    unsafe fn through<I: Isa>(&self, isa: I, buffers: &mut Buffers, col: usize, n: usize) -> Self {
        const { assert!(I::LANES <= WIDEST) };
        let Buffers { main, second, bias, out, sum } = buffers;
        let copy = |from: *const f32, to: &mut [f32; WIDEST]| {
            // SAFETY: the caller's promise; a buffer has room for the widest vector.
            unsafe { isa.store(to.as_mut_ptr(), load(isa, from.add(col), n)) };
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
        // SAFETY: the caller's promise; a buffer has room for the widest vector.
        unsafe {
            store(isa, self.out.add(col), n, isa.load(buffers.out.as_ptr()));
            if self.op.sum() {
                store(isa, self.sum.add(col), n, isa.load(buffers.sum.as_ptr()));
            }
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
        for col in cols.step_by(32) {
            // SAFETY: the caller's promise.
            unsafe {
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
