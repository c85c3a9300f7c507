//! The parts of a tile of C: where it is and what it reads, where its sums start, and the tile whose
//! sums start and end in memory.

use std::mem::MaybeUninit;

use super::blocking::Depth;
use super::microkernel::{NoHook, Panels, accumulate};
use super::{ProductArgs, Start};
use crate::isa::{Isa, Kernel, TileKernel};
use crate::mask::Tile;
use crate::threads::Part;

/// The sums of a tile of at most 12 x 2 vectors of 16, aligned for them.
#[repr(align(64))]
pub(super) struct Sums(MaybeUninit<[f32; 12 * 2 * 16]>);

impl Sums {
    /// For tiles that are stored before they are loaded.
    pub(super) const UNINIT: Self = Self(MaybeUninit::uninit());
    /// For tiles of which lanes are loaded that were never stored.
    pub(super) const ZERO: Self = Self(MaybeUninit::new([0.0; 12 * 2 * 16]));

    pub(super) fn as_mut_ptr(&mut self) -> *mut f32 {
        self.0.as_mut_ptr().cast()
    }
}

/// A part of C, and its mask bits, from bit `shift` of each row's first word on.
#[derive(Clone, Copy)]
pub(super) struct Area {
    pub(super) part: Part,
    pub(super) bits: Tile,
    pub(super) shift: usize,
}

/// One tile's work: where it is, and what it reads.
#[derive(Clone, Copy)]
pub(super) struct Task {
    pub(super) depth: Depth,
    pub(super) area: Area,
    pub(super) panels: Panels,
}

impl ProductArgs {
    /// Where a tile's sums start, and the floats from row to row: null for zeros.
    ///
    /// # Safety
    ///
    /// The tile lies in C.
    #[inline(always)]
    pub(super) unsafe fn start(&self, task: &Task) -> (*const f32, usize) {
        let Part { row, col, cols, .. } = task.area.part;
        let start = if task.depth.starts { self.start } else { Start::Partial };
        // SAFETY: the caller's promise; the bias has a value for each column.
        unsafe {
            match start {
                Start::Partial => {
                    let c = self.partial.in_row(row, col, cols);
                    (c.cast_const(), self.partial.row_step)
                }
                Start::Bias(bias) => (bias.add(col), 0),
                Start::Zero => (std::ptr::null(), 0),
            }
        }
    }
}

/// Prefetches the rows of a tile of C, which are too far apart for the hardware to guess.
#[inline(always)]
pub(super) fn prefetch_rows<I: Isa>(
    isa: I,
    first: *const f32,
    step: usize,
    rows: usize,
    cols: usize,
) {
    let mut row = first;
    for _ in 0..rows {
        let mut line = 0;
        while line < cols {
            isa.prefetch(row.wrapping_add(line));
            line += 16;
        }
        isa.prefetch(row.wrapping_add(cols - 1));
        row = row.wrapping_add(step);
    }
}

/// The sums of `R` rows of `V` vectors, `step` floats apart; zeros where `from` is null.
///
/// # Safety
///
/// `from` is null, or valid for reads of the rows.
#[inline(always)]
pub(super) unsafe fn load_sums<I: Isa, const R: usize, const V: usize>(
    isa: I,
    from: *const f32,
    step: usize,
) -> [[I::F32; V]; R] {
    let mut acc = [[isa.splat(0.0); V]; R];
    if !from.is_null() {
        for (r, sums) in acc.iter_mut().enumerate() {
            for (v, sum) in sums.iter_mut().enumerate() {
                // SAFETY: the caller's promise.
                *sum = unsafe { isa.load(from.add(r * step + v * I::LANES)) };
            }
        }
    }
    acc
}

/// Stores the sums of `R` rows of `V` vectors, `step` floats apart.
///
/// # Safety
///
/// `to` is valid for writes of the rows.
#[inline(always)]
pub(super) unsafe fn store_sums<I: Isa, const R: usize, const V: usize>(
    isa: I,
    acc: [[I::F32; V]; R],
    to: *mut f32,
    step: usize,
) {
    for (r, sums) in acc.into_iter().enumerate() {
        for (v, sum) in sums.into_iter().enumerate() {
            // SAFETY: the caller's promise.
            unsafe { isa.store(to.add(r * step + v * I::LANES), sum) };
        }
    }
}

/// A tile of any number of rows and vectors whose sums start and end in memory: one set of
/// instances for all epilogues.
pub(super) struct MemoryTile<'a> {
    panels: &'a Panels,
    rows: usize,
    vectors: usize,
    /// Where the sums start, and the floats between rows; zeros where it is null.
    from: *const f32,
    from_step: usize,
    /// Where they end.
    to: *mut f32,
    to_step: usize,
}

impl<'a> MemoryTile<'a> {
    /// # Safety
    ///
    /// - There are 1 to `MR` rows, and 1 or `NV` vectors.
    /// - The panels have this shape, as [`accumulate`] wants them.
    /// - `from` is null or valid for reads, and `to` for writes, of the rows.
    pub(super) unsafe fn new(
        panels: &'a Panels,
        (rows, vectors): (usize, usize),
        (from, from_step): (*const f32, usize),
        (to, to_step): (*mut f32, usize),
    ) -> Self {
        Self { panels, rows, vectors, from, from_step, to, to_step }
    }

    /// Computes the tile.
    pub(super) fn run<I: Isa>(&self, isa: I) {
        isa.tile(self);
    }
}

impl TileKernel for &MemoryTile<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa, const MR: usize, const MR1: usize, const NV: usize>(self, isa: I) {
        // The one list of row counts: up to those of the highest tile.
        macro_rules! rows {
            ($($rows:literal)*) => {
                match (self.rows, self.vectors) {
                    $(($rows, 1) if $rows <= MR && NV > 1 => {
                        isa.vectorize(MemoryRows::<$rows, 1>(self));
                    }
                    ($rows, _) if $rows <= MR => isa.vectorize(MemoryRows::<$rows, NV>(self)),)*
                    (rows, _) => unreachable!("a tile has 1 to {MR} rows, not {rows}"),
                }
            };
        }
        rows!(1 2 3 4 5 6 7 8 9 10 11 12);
    }
}

/// A [`MemoryTile`] of `R` rows and `V` vectors.
struct MemoryRows<'a, const R: usize, const V: usize>(&'a MemoryTile<'a>);

impl<const R: usize, const V: usize> Kernel for MemoryRows<'_, R, V> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let MemoryTile { panels, from, from_step, to, to_step, .. } = *self.0;
        // SAFETY: `MemoryTile::new`.
        unsafe {
            let mut acc = load_sums::<I, R, V>(isa, from, from_step);
            accumulate(isa, panels, I::NV * I::LANES, &mut acc, &mut NoHook);
            store_sums(isa, acc, to, to_step);
        }
    }
}
