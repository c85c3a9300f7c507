//! C = epilogue(start + A · B): one product, blocked as in BLIS (Van Zee and van de Geijn, "BLIS: a
//! framework for rapidly instantiating BLAS functionality", ACM TOMS 41, 2015), with an epilogue
//! that works on the accumulators.
//!
//! | matrix | shape | read through |
//! |---|---|---|
//! | A | m x k | [`Operand`] |
//! | B | k x n | [`Operand`] |
//! | C, and what the epilogue writes | m x n | [`Target`] with contiguous rows |
//!
//! **One sum, one chain.** Every element is `acc = fma(a_ip, b_pj, acc)` for p ascending, from the
//! bias of its column, from a partial sum or from 0. A block of k that is not the first starts from
//! the stored partial result. So the bits of an element depend on its row of A and its column of B and on nothing
//! else.
//!
//! Threads share nothing: C is cut into a grid of blocks, and each task packs what its block needs.

mod block;
mod blocking;
pub(crate) mod epilogue;
mod in_place;
mod microkernel;
mod nest;
mod pack;
mod scratch;
mod skinny;
mod spans;
mod tile;

pub(crate) use pack::{Operand, PackedPanels};
pub(crate) use spans::{BitMatrix, Pattern};

use crate::Level;
use crate::error::Result;
use crate::mask::Bits;
use crate::threads::{Grid, Part, try_for_each};
use crate::view::Target;
use epilogue::{End, Store};

/// Where sums start.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Start {
    /// From 0.
    Zero,
    /// From one value a column.
    Bias(*const f32),
    /// From the partial sums that are there already.
    Partial,
}

impl Start {
    /// The same from column `col` on.
    fn at(self, col: usize) -> Self {
        match self {
            Start::Bias(bias) => Start::Bias(bias.wrapping_add(col)),
            start => start,
        }
    }
}

/// What a [`Product`] is made of.
#[derive(Clone, Copy)]
pub(crate) struct ProductArgs {
    pub(crate) m: usize,
    pub(crate) n: usize,
    pub(crate) k: usize,
    pub(crate) a: Operand,
    pub(crate) b: Operand,
    pub(crate) start: Start,
    /// Where partial sums wait for the next block of k; the epilogue may write the same elements.
    pub(crate) partial: Target,
    pub(crate) end: End,
    /// The mask of the epilogue.
    pub(crate) bits: Bits,
}

impl ProductArgs {
    /// Whether an epilogue that takes sums from C would leave them as they are: without activation, dropout
    /// and anything else to write.
    fn is_done(&self) -> bool {
        match self.end {
            End::Activate(end) => end.is_identity(self.partial) && self.bits.keep_all(),
            _ => false,
        }
    }
}

/// A product and what becomes of it.
pub(crate) struct Product<'a> {
    args: ProductArgs,
    /// What of it is computed, where that is not all.
    pattern: Option<Pattern<'a>>,
}

// SAFETY: the pointers are borrows that live until `Product::run` returns; tasks write disjoint
// blocks of the outputs.
unsafe impl Send for Product<'_> {}
// SAFETY: as above.
unsafe impl Sync for Product<'_> {}

/// Columns whose mask bits are made together: a block of the mask, 8 panels of AVX2.
const GROUP: usize = 128;

/// Multiply-adds that are worth a task of their own: some 20 microseconds.
const TASK: usize = crate::threads::work::MULTIPLY_ADD;

impl<'a> Product<'a> {
    /// The product of these arguments, or the part of it that a pattern says.
    ///
    /// # Safety
    ///
    /// Until [`Product::run`] returns:
    ///
    /// - A is m x k, B is k x n, a bias has n values, and all may be read. Sums that start from
    ///   partial ones do not end in an update of what holds them.
    /// - `partial` and the matrices of `end` are m x n, rows contiguous (those of the weights
    ///   behind a gather index have its rows and columns), and nobody else accesses what is
    ///   written.
    /// - `bits` is a mask of m x n elements, if `end` has a mask.
    /// - A gather index is ascending, and lies in its matrix.
    /// - The spans of a pattern are ascending and cover m, n or k; its bits are as many as spans.
    pub(crate) unsafe fn new(args: ProductArgs, pattern: Option<Pattern<'a>>) -> Self {
        let partial = match args.end {
            // Sums stay where they end.
            End::Store(Store { c }) => c,
            _ => args.partial,
        };
        Self { args: ProductArgs { partial, ..args }, pattern }
    }

    /// Computes the product.
    ///
    /// # Errors
    ///
    /// When a task finds no memory for its panels: its block of the outputs is then not written.
    pub(crate) fn run(self, level: Level) -> Result<()> {
        if self.args.m == 0 || self.args.n == 0 {
            return Ok(());
        }
        let ProductArgs { m, n, k, .. } = self.args;
        let whole = Part { row: 0, rows: m, col: 0, cols: n };
        if m.saturating_mul(n).saturating_mul(k.max(1)) < 2 * TASK {
            // SAFETY: the only part of C.
            return level.vectorize(unsafe { block::Block::new(&self, whole) });
        }
        let threads = crate::threads::count();
        let grid = match &self.pattern {
            Some(pattern) => self.grid_of(pattern, threads),
            None => self.grid(threads),
        };
        try_for_each(grid.len(), |i| {
            // SAFETY: the parts of the grid lie in C, and do not overlap.
            level.vectorize(unsafe { block::Block::new(&self, grid.part(i)) })
        })
    }

    /// A grid of about one block a thread, of the shape that packs least.
    fn grid(&self, threads: usize) -> Grid {
        let ProductArgs { m, n, k, .. } = self.args;
        let work = m.saturating_mul(n).saturating_mul(k.max(1));
        let tasks = threads.min(work / TASK).max(1);
        // Columns of a block start at a whole word of mask bits.
        let part = |down: usize| {
            let across = tasks.div_ceil(down);
            let rows = m.div_ceil(down);
            let cols = n.div_ceil(across).next_multiple_of(32);
            (rows.max(1), cols.max(1))
        };
        // Packing an element takes about as long as 8 multiply-adds.
        let cost = |(rows, cols): (usize, usize)| {
            let rounds = (m.div_ceil(rows) * n.div_ceil(cols)).div_ceil(threads);
            rounds.saturating_mul(
                rows.saturating_mul(cols.saturating_add(8)).saturating_add(8 * cols),
            )
        };
        let (rows, cols) = (1..=tasks).map(part).min_by_key(|part| cost(*part)).unwrap_or((m, n));
        Grid::with_parts(m, n, rows, cols)
    }

    /// The grid of a product of which a part is computed: columns are cut where that leaves enough of
    /// them, since then no task packs what another does; rows for an update, whose long rows are read.
    fn grid_of(&self, pattern: &Pattern<'_>, threads: usize) -> Grid {
        let ProductArgs { m, n, k, end, .. } = self.args;
        let work = m.saturating_mul(n).saturating_mul(k.max(1));
        let tasks = threads.min(work / TASK).max(1);
        if end.overwrites() && n >= tasks * GROUP {
            return Grid::with_parts(m, n, m, n.div_ceil(tasks).next_multiple_of(32));
        }
        let group = pattern.rows.map_or(1, |starts| starts[1] as usize);
        Grid::with_parts(m, n, m.div_ceil(tasks).next_multiple_of(group), n)
    }
}
