//! Tiles whose factors are read in place: one kernel for each number of rows and vectors.

use crate::isa::{Isa, Kernel, load, store};

/// Rows of the highest tile: as many as the level-1 cache has ways, for rows of A whose steps are powers of two.
const HIGHEST: usize = 8;

/// Where sums start that start from 0: as many as the widest tile has columns.
pub(super) static ZEROS: [f32; 128] = [0.0; 128];

/// Whether the last vector of any tile may be one that is not whole: masks have registers of their own. Else only
/// that of a tile of one vector may, and that of a wider tile begins early enough to be whole: its first lanes are
/// those of the vector before, which come to the same sums.
pub(super) const fn has_masks<I: Isa>() -> bool {
    I::LANES == 16
}

/// Whether there is a tile of so many rows and vectors: sums, a row of B and an element of A fit in 32 or 16
/// registers. One row has eight vectors, for as many chains as the latency of a multiply-add wants.
const fn exists<I: Isa>(rows: usize, vectors: usize) -> bool {
    // The compiler wants two registers for elements of A.
    let fits = (rows + 1) * vectors < if has_masks::<I>() { 31 } else { 15 };
    match vectors {
        1 | 2 | 4 => fits,
        3 => fits && rows > 1 && rows <= 6,
        8 => rows == 1,
        _ => false,
    }
}

/// Vectors of the widest tile of so many rows.
pub(super) const fn widest<I: Isa>(rows: usize) -> usize {
    let mut vectors = 8;
    while vectors > 1 && !exists::<I>(rows, vectors) {
        vectors -= 1;
    }
    vectors
}

/// Rows of the highest tile of so many vectors.
pub(super) const fn highest<I: Isa>(vectors: usize) -> usize {
    let mut rows = HIGHEST;
    while rows > 1 && !exists::<I>(rows, vectors) {
        rows -= 1;
    }
    rows
}

/// Elements of A: those of a row are `k_step` apart.
#[derive(Clone, Copy)]
pub(super) struct Factor {
    pub(super) first: *const f32,
    pub(super) row_step: usize,
    pub(super) k_step: usize,
}

/// Some columns of B: vector `v` of row `p` is at
/// `first + p * row_step + v / NV * panel_step + v % NV * LANES`.
#[derive(Clone, Copy)]
pub(super) struct Columns {
    pub(super) first: *const f32,
    pub(super) row_step: usize,
    pub(super) panel_step: usize,
}

/// Tiles one below the other, of the same rows of B.
#[derive(Clone, Copy)]
pub(super) struct Tiles {
    pub(super) count: usize,
    pub(super) depth: usize,
    /// Columns of the last vector.
    pub(super) lanes: usize,
    pub(super) a: Factor,
    pub(super) b: Columns,
    /// Where sums start, and the floats to the next row.
    pub(super) from: *const f32,
    pub(super) from_step: usize,
    pub(super) c: *mut f32,
    pub(super) c_step: usize,
}

impl Tiles {
    /// The same after so many rows.
    #[inline(always)]
    pub(super) fn below(self, rows: usize) -> Self {
        let first = self.a.first.wrapping_add(rows * self.a.row_step);
        let from = self.from.wrapping_add(rows * self.from_step);
        let c = self.c.wrapping_add(rows * self.c_step);
        Self { a: Factor { first, ..self.a }, from, c, ..self }
    }
}

/// Computes tiles of so many rows and vectors.
///
/// # Safety
///
/// - There are tiles of this size.
/// - `a`, `b` and `from` are valid for reads of the elements of all of them, and `c` for
///   writes.
#[inline(always)]
pub(super) unsafe fn run<I: Isa>(isa: I, tiles: &Tiles, rows: usize, vectors: usize) {
    macro_rules! sizes {
        ($($r:literal: $($v:literal)*;)*) => {
            match (rows, vectors) {
                $($(($r, $v) if const { exists::<I>($r, $v) } => {
                    // SAFETY: the caller's promise.
                    isa.vectorize(unsafe { OfSize::<$r, $v>::new(tiles) });
                })*)*
                _ => unreachable!("there is no tile of {rows} x {vectors}"),
            }
        };
    }
    sizes! {
        1: 1 2 4 8;
        2: 1 2 3 4;
        3: 1 2 3 4;
        4: 1 2 3 4;
        5: 1 2 3 4;
        6: 1 2 3 4;
        7: 1 2;
        8: 1 2;
    }
}

/// [`Tiles`] of `R` rows and `V` vectors.
struct OfSize<'a, const R: usize, const V: usize>(&'a Tiles);

impl<'a, const R: usize, const V: usize> OfSize<'a, R, V> {
    /// # Safety
    ///
    /// As for [`run`].
    unsafe fn new(tiles: &'a Tiles) -> Self {
        Self(tiles)
    }
}

impl<const R: usize, const V: usize> Kernel for OfSize<'_, R, V> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let mut tiles = *self.0;
        for _ in 0..tiles.count {
            // SAFETY: `OfSize::new`.
            unsafe { tile::<I, R, V>(isa, &tiles) };
            tiles = tiles.below(R);
        }
    }
}

/// Whether vector `v` of `V` may be one that is not whole.
const fn is_partial<I: Isa, const V: usize>(v: usize) -> bool {
    v + 1 == V && (V == 1 || has_masks::<I>())
}

/// The columns of vector `v` of `V` that are those of the vector before too, in a tile whose last vector has `last`
/// lanes of its own.
#[inline(always)]
fn shared<I: Isa, const V: usize>(v: usize, last: usize) -> usize {
    if v + 1 == V && V > 1 && !has_masks::<I>() { I::LANES - last } else { 0 }
}

/// Loads a vector of a tile whose last one has `last` lanes: always by a mask, where there are instructions for
/// that, since it costs less than another copy of the code.
///
/// # Safety
///
/// The lanes of vector `v` are valid for reads.
#[inline(always)]
unsafe fn load_lanes<I: Isa, const V: usize>(
    isa: I,
    p: *const f32,
    v: usize,
    last: usize,
) -> I::F32 {
    // SAFETY: the caller's promise.
    unsafe {
        match is_partial::<I, V>(v) {
            true if I::LANES > 4 => isa.load_first(p, last),
            true => load(isa, p, last),
            false => isa.load(p),
        }
    }
}

/// Stores a vector as [`load_lanes`] loads it.
///
/// # Safety
///
/// The lanes of vector `v` are valid for writes.
#[inline(always)]
unsafe fn store_lanes<I: Isa, const V: usize>(
    isa: I,
    p: *mut f32,
    v: usize,
    last: usize,
    x: I::F32,
) {
    // SAFETY: the caller's promise.
    unsafe {
        match is_partial::<I, V>(v) {
            true if I::LANES > 4 => isa.store_first(p, last, x),
            true => store(isa, p, last, x),
            false => isa.store(p, x),
        }
    }
}

/// One tile.
///
/// # Safety
///
/// As for [`run`], for a tile of `R` rows and `V` vectors.
#[inline(always)]
unsafe fn tile<I: Isa, const R: usize, const V: usize>(isa: I, tiles: &Tiles) {
    let Tiles { depth, lanes, a, b, from, from_step, c, c_step, .. } = *tiles;
    let mut acc = [[isa.splat(0.0); V]; R];
    // SAFETY: the caller's promise.
    unsafe {
        for (r, sums) in acc.iter_mut().enumerate() {
            for (v, sum) in sums.iter_mut().enumerate() {
                let at = r * from_step + v * I::LANES - shared::<I, V>(v, lanes);
                *sum = load_lanes::<I, V>(isa, from.add(at), v, lanes);
            }
        }
        // Three rows of A a pointer, so that all addresses are of one instruction.
        let mut x =
            [a.first, a.first.wrapping_add(3 * a.row_step), a.first.wrapping_add(6 * a.row_step)];
        let mut row = b.first;
        macro_rules! step {
            () => {
                let mut line = [isa.splat(0.0); V];
                let mut v = 0;
                while v < V {
                    let at = v / I::NV * b.panel_step + v % I::NV * I::LANES;
                    let at = row.wrapping_add(at).wrapping_sub(shared::<I, V>(v, lanes));
                    line[v] = load_lanes::<I, V>(isa, at, v, lanes);
                    v += 1;
                }
                let mut r = 0;
                while r < R {
                    let factor = isa.splat(*x[r / 3].add(r % 3 * a.row_step));
                    let mut v = 0;
                    while v < V {
                        acc[r][v] = isa.mul_add(factor, line[v], acc[r][v]);
                        v += 1;
                    }
                    r += 1;
                }
                x = [
                    x[0].wrapping_add(a.k_step),
                    x[1].wrapping_add(a.k_step),
                    x[2].wrapping_add(a.k_step),
                ];
                row = row.wrapping_add(b.row_step);
            };
        }
        for _ in 0..depth {
            step!();
        }
        for (r, sums) in acc.into_iter().enumerate() {
            for (v, sum) in sums.into_iter().enumerate() {
                let at = r * c_step + v * I::LANES - shared::<I, V>(v, lanes);
                store_lanes::<I, V>(isa, c.add(at), v, lanes, sum);
            }
        }
    }
}
