//! Products of which only a part is computed: rows, columns and k are cut into spans, and bits say
//! which spans meet.
//!
//! | | rows | columns | k |
//! |---|---|---|---|
//! | x · W | groups of examples | blocks of units | blocks of inputs |
//! | dz · Wᵀ | groups of examples | blocks of inputs | blocks of units |
//! | xᵀ · dz | blocks of inputs | blocks of units | groups of examples |
//!
//! The chain of an element has the steps of k whose span its row and its column both use. Those left
//! out would add a product with 0.

mod ahead;
mod nest;
mod tile;

use crate::buffers;
use crate::error::Result;
pub(super) use nest::{Lists, SpanNest};

/// A matrix of bits, rows padded to whole words.
#[derive(Clone, Debug, Default)]
pub(crate) struct BitMatrix {
    words: Vec<u64>,
    per_row: usize,
}

impl BitMatrix {
    /// Room for `rows` x `cols` bits, all 0.
    pub(crate) fn clear(&mut self, rows: usize, cols: usize) -> Result<()> {
        self.per_row = cols.div_ceil(64);
        self.words.clear();
        buffers::resize(&mut self.words, rows * self.per_row)
    }

    /// Sets a bit, which the matrix has.
    pub(crate) fn set(&mut self, row: usize, col: usize) {
        self.words[row * self.per_row + col / 64] |= 1 << (col % 64);
    }

    /// A bit that the matrix has.
    pub(crate) fn get(&self, row: usize, col: usize) -> bool {
        self.words[row * self.per_row + col / 64] >> (col % 64) & 1 == 1
    }

    fn row(&self, row: usize) -> &[u64] {
        &self.words[row * self.per_row..(row + 1) * self.per_row]
    }
}

/// What of a product is computed. Spans are given by where they start, and the end of the last; a
/// dimension that is not cut is one span.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pattern<'a> {
    pub(crate) rows: Option<&'a [u32]>,
    pub(crate) cols: Option<&'a [u32]>,
    pub(crate) depth: Option<&'a [u32]>,
    /// Which elements are computed, rows by columns: all where there is none. The others are what the
    /// epilogue makes of a sum of 0 that is dropped.
    pub(crate) computed: Option<&'a BitMatrix>,
    /// Which spans of k the rows use, and which the columns: all where there is none.
    pub(crate) of_rows: Option<&'a BitMatrix>,
    pub(crate) of_cols: Option<&'a BitMatrix>,
}

impl<'a> Pattern<'a> {
    /// The pattern of the transposed product.
    pub(crate) fn t(self) -> Self {
        debug_assert!(self.computed.is_none(), "no product with such a pattern is transposed");
        Self {
            rows: self.cols,
            cols: self.rows,
            of_rows: self.of_cols,
            of_cols: self.of_rows,
            ..self
        }
    }

    /// Whether the elements of two spans are computed.
    fn computes(&self, row: usize, col: usize) -> bool {
        self.computed.is_none_or(|bits| bits.get(row, col))
    }

    /// Adds the runs of k that a span of rows and a span of columns both use, ascending; spans that follow
    /// each other are one run. There is room for as many as there are spans.
    fn add_runs(&self, (row, col): (usize, usize), k: usize, to: &mut Vec<Run>) {
        let Some(starts) = self.depth else {
            to.push(Run { first: 0, len: k });
            return;
        };
        let rows = self.of_rows.map(|bits| bits.row(row));
        let cols = self.of_cols.map(|bits| bits.row(col));
        let before = to.len();
        let spans = starts.len() - 1;
        for word in 0..spans.div_ceil(64) {
            let of = |bits: Option<&[u64]>| bits.map_or(u64::MAX, |bits| bits[word]);
            let there = u64::MAX >> (64 - (spans - 64 * word).min(64));
            let mut left = of(rows) & of(cols) & there;
            while left != 0 {
                let span = 64 * word + left.trailing_zeros() as usize;
                left &= left - 1;
                let (first, end) = (starts[span] as usize, starts[span + 1] as usize);
                match to[before..].last_mut() {
                    Some(run) if run.first + run.len == first => run.len = end - run.first,
                    _ => to.push(Run { first, len: end - first }),
                }
            }
        }
    }
}

/// Consecutive steps of k.
#[derive(Clone, Copy, Debug)]
struct Run {
    first: usize,
    len: usize,
}

/// The runs of several pairs of spans.
#[derive(Debug, Default)]
struct RunTable {
    runs: Vec<Run>,
    /// Where those of each pair end.
    ends: Vec<usize>,
}

impl RunTable {
    /// The runs of these pairs of a span of rows and one of columns, in a product of depth `k`.
    fn fill(
        &mut self,
        pattern: &Pattern<'_>,
        k: usize,
        pairs: impl ExactSizeIterator<Item = (usize, usize)>,
    ) -> Result<()> {
        let most = pattern.depth.map_or(1, |starts| starts.len() - 1);
        self.runs.clear();
        self.ends.clear();
        buffers::reserve(&mut self.runs, most.saturating_mul(pairs.len()))?;
        buffers::reserve(&mut self.ends, pairs.len())?;
        for pair in pairs {
            pattern.add_runs(pair, k, &mut self.runs);
            self.ends.push(self.runs.len());
        }
        Ok(())
    }

    /// The runs of the pair with this number.
    fn of(&self, pair: usize) -> &[Run] {
        let first = if pair == 0 { 0 } else { self.ends[pair - 1] };
        &self.runs[first..self.ends[pair]]
    }
}

/// A piece of a span: where it starts, how long it is, and the span's number.
#[derive(Clone, Copy, Debug)]
struct Piece {
    first: usize,
    len: usize,
    span: usize,
}

/// The spans of `starts` (or one, where there are none) between `from` and `to`.
fn spans(
    starts: Option<&[u32]>,
    (from, to): (usize, usize),
) -> impl Iterator<Item = Piece> + use<'_> {
    let first = starts.map_or(0, |starts| starts.partition_point(|s| *s as usize <= from) - 1);
    let end = move |span: usize| match starts {
        Some(starts) => (starts[span + 1] as usize).min(to),
        None => to,
    };
    let mut at = from;
    (first..).map_while(move |span| {
        (at < to).then(|| {
            let piece = Piece { first: at, len: end(span) - at, span };
            at = end(span);
            piece
        })
    })
}
