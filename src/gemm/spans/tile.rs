//! A tile whose chains skip steps of k.

use super::super::microkernel::{Panels, accumulate};
use super::super::pack::AheadRows;
use super::Run;
use super::ahead::Ahead;
use crate::isa::{Isa, Kernel, TileKernel, load, store};

/// Rows of the highest tile of one vector: it has about as many chains as a tile of `MR` rows and `NV`
/// vectors has, and a group of 16 examples fits.
pub(super) const fn most_rows(mr: usize, nv: usize) -> usize {
    if mr * nv < 16 { mr * nv } else { 16 }
}

/// Where the sums of a tile start.
#[derive(Clone, Copy)]
pub(super) enum TileStart {
    Zero,
    /// Values of a row, with so many floats from a row to the next: 0 for a bias.
    Values(*const f32, usize),
}

/// A tile of some rows and one or `NV` vectors.
pub(super) struct SpanTile<'a> {
    /// Panels of A and B with all steps of k.
    pub(super) a: *const f32,
    pub(super) b: *const f32,
    /// The steps that are done.
    pub(super) runs: &'a [Run],
    /// What is done between steps, and a copy of nothing.
    pub(super) ahead: &'a mut Ahead,
    pub(super) idle: AheadRows,
    pub(super) rows: usize,
    pub(super) vectors: usize,
    /// Columns that are there; the other lanes of the panel of B are 0.
    pub(super) cols: usize,
    pub(super) start: TileStart,
    /// Where sums end, and the floats from row to row.
    pub(super) to: *mut f32,
    pub(super) to_step: usize,
    /// Whether all lanes may be stored there.
    pub(super) padded: bool,
}

impl SpanTile<'_> {
    /// Computes the tile.
    ///
    /// # Safety
    ///
    /// - There are 1 to [`most_rows`] rows of one vector, or 1 to `MR` of `NV`.
    /// - The panels have this shape and are valid for the runs; `idle` may be copied.
    /// - `start` is valid for reads of the columns, and `to` for writes: of all lanes if it is `padded`.
    pub(super) unsafe fn run<I: Isa>(self, isa: I) {
        isa.tile(self);
    }
}

impl TileKernel for SpanTile<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa, const MR: usize, const MR1: usize, const NV: usize>(self, isa: I) {
        macro_rules! rows {
            ($($rows:literal)* ; $($more:literal)*) => {
                match (self.rows, self.vectors) {
                    $(($rows, 1) if $rows <= most_rows(MR, NV) => {
                        isa.vectorize(SpanRows::<$rows, 1>(self));
                    })*
                    $(($more, 1) if $more <= most_rows(MR, NV) => {
                        isa.vectorize(SpanRows::<$more, 1>(self));
                    })*
                    $(($rows, _) if $rows <= MR => isa.vectorize(SpanRows::<$rows, NV>(self)),)*
                    (rows, vectors) => unreachable!("no tile has {rows} rows of {vectors} vectors"),
                }
            };
        }
        rows!(1 2 3 4 5 6 7 8 9 10 11 12; 13 14 15 16);
    }
}

/// A [`SpanTile`] of `R` rows and `V` vectors.
struct SpanRows<'a, const R: usize, const V: usize>(SpanTile<'a>);

impl<const R: usize, const V: usize> SpanRows<'_, R, V> {
    /// Lanes of vector `v` that are in the matrix.
    #[inline(always)]
    fn lanes<I: Isa>(&self, _: I, v: usize) -> usize {
        self.0.cols.saturating_sub(v * I::LANES).min(I::LANES)
    }
}

impl<const R: usize, const V: usize> Kernel for SpanRows<'_, R, V> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let SpanTile { a, b, runs, idle, start, to, to_step, padded, .. } = self.0;
        // A copy can be in registers.
        let mut ahead = *self.0.ahead;
        let nr = V * I::LANES;
        let mut acc = [[isa.splat(0.0); V]; R];
        // SAFETY: `SpanTile::run`.
        unsafe {
            if let TileStart::Values(from, step) = start {
                for (r, sums) in acc.iter_mut().enumerate() {
                    for (v, sum) in sums.iter_mut().enumerate() {
                        let from = from.wrapping_add(r * step + v * I::LANES);
                        *sum = load(isa, from, self.lanes(isa, v));
                    }
                }
            }
            for run in runs {
                let (a, b) = (a.add(run.first * R), b.add(run.first * nr));
                let panels = Panels { a, b, k: run.len, ahead: idle };
                accumulate(isa, &panels, nr, &mut acc, &mut ahead);
            }
            *self.0.ahead = ahead;
            for (r, sums) in acc.into_iter().enumerate() {
                for (v, sum) in sums.into_iter().enumerate() {
                    let to = to.wrapping_add(r * to_step + v * I::LANES);
                    let n = if padded { I::LANES } else { self.lanes(isa, v) };
                    store(isa, to, n, sum);
                }
            }
        }
    }
}
