//! Products that read both factors where they are: few rows, few columns, or little of everything. So few rows
//! that the time is that of reading B from far away have a walk of their own, [`Skinny`](super::skinny::Skinny).
//!
//! Packing reads and writes every element of a factor once. That does not pay where each is used only a few
//! times, so here a tile reads rows of B, or of its packed panels, and broadcasts elements of A, at the
//! steps of the matrices. Sums start and end in C, from which the epilogue takes them:
//!
//! ```text
//! for pc in 0..k, so much that a tile's rows of B stay in the level-1 cache:
//!     for jr in columns, some vectors at a time:
//!         for ir in rows, a few at a time:
//!             sums = bias, or C[ir.., jr..] if pc > 0
//!             sums += A[ir.., pc..] · B[pc.., jr..]
//!             C[ir.., jr..] = sums
//! the epilogue makes outputs of C
//! ```

mod tiles;

use super::Start;
use super::blocking::balanced;
use super::nest::Nest;
use super::pack::padded;
use super::scratch;
use super::skinny::SKINNY_ROWS;
use super::tile::Area;
use crate::buffers::{Slot, grow};
use crate::error::Result;
use crate::isa::{Isa, Kernel, caches};
use crate::mask::TILE_WORDS;
use crate::threads::Part;
use tiles::{Columns, Factor, Tiles, ZEROS, has_masks, highest, run, widest};

/// Rows whose sums, where columns are few, stay in the caches until the epilogue takes them.
const ROWS: usize = 128;
/// Bytes of B that a column of tiles reads again and again: half of a level-1 cache of 32 KiB.
const NEAR: usize = 16 << 10;
/// Bytes of a B that lies in any level-2 cache, and mostly in the level-1 cache.
const SMALL: usize = 64 << 10;
/// Up to so many rows B is read in place: each element of it is loaded six times then, once for each panel of
/// rows, which is what packing it costs.
const ROWS_IN_PLACE: usize = 32;
/// Up to so many columns A is read in place: each element of it is loaded four times at most.
const COLS_IN_PLACE: usize = 64;
/// Up to so many rows packed panels are read without packing A: a tile of two vectors would have too few chains
/// of sums for the latency of a multiply-add.
const PACKED_ROWS: usize = 2;
/// Words of mask bits that are made on the stack.
const FEW_WORDS: usize = 64;

/// `c = a · b` from where sums start.
struct InPlace {
    a: Factor,
    b: Columns,
    /// Where sums start; a bias has its first value at the first column.
    start: Start,
    c: *mut f32,
    c_step: usize,
    rows: usize,
    cols: usize,
    k: usize,
    /// Whether B lies in packed panels.
    panels: bool,
}

/// How a product is cut: vectors of a tile, and steps of k at a time.
struct Cut {
    vectors: usize,
    depth: usize,
}

impl Kernel for InPlace {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let cut = self.cut::<I>();
        let mut p = 0;
        while p < self.k {
            let depth = cut.depth.min(self.k - p);
            let mut col = 0;
            while col < self.cols {
                let cols = self.cols_of_tile::<I>(self.cols - col, cut.vectors);
                // SAFETY: the steps and the columns are those of the product.
                unsafe { self.column_of_tiles(isa, (p, depth), (col, cols)) };
                col += cols;
            }
            p += depth;
        }
    }
}

impl InPlace {
    /// # Safety
    ///
    /// - A has `rows` rows and B `cols` columns, both `k` steps of k, and all may be read, as may a bias.
    /// - `c` is valid for reads and writes of `rows` rows of `cols` floats, which nobody else accesses.
    unsafe fn new(
        (a, b): (Factor, Columns),
        (start, c, c_step): (Start, *mut f32, usize),
        (rows, cols, k): (usize, usize, usize),
        panels: bool,
    ) -> Self {
        Self { a, b, start, c, c_step, rows, cols, k, panels }
    }

    /// How the product is cut.
    #[inline(always)]
    fn cut<I: Isa>(&self) -> Cut {
        // High tiles read less of B, which is why they are not wider.
        let widest = match self.rows {
            1 => const { widest::<I>(1) },
            2 => const { widest::<I>(2) },
            3 => const { widest::<I>(3) },
            4 => const { widest::<I>(4) },
            5 => const { widest::<I>(5) },
            _ => const { widest::<I>(6) },
        };
        let widest = if self.panels { widest / I::NV * I::NV } else { widest };
        let vectors = match self.cols.div_ceil(I::LANES).min(widest) {
            few if self.rows <= 2 => 1 << few.ilog2(),
            vectors => vectors,
        };
        let bytes = 4 * self.k * self.cols;
        let most = if bytes <= SMALL || bytes <= caches().level_2 / 2 {
            NEAR / (4 * I::LANES * vectors.next_power_of_two())
        } else if self.panels {
            // Memory is read in order, panel after panel.
            self.k
        } else {
            // Sums are loaded and stored once in so many steps, which take less time with wider vectors.
            4 * I::LANES
        };
        let depth = if self.k <= most { self.k } else { balanced(self.k, most, 8) };
        Cut { vectors, depth }
    }

    /// Columns of the next tile of `left` ones.
    #[inline(always)]
    fn cols_of_tile<I: Isa>(&self, left: usize, most: usize) -> usize {
        let vectors = left.div_ceil(I::LANES);
        // In packed panels, which a tile begins at the first column of, a whole vector must lie in one.
        let even = self.panels && vectors % I::NV != 0 && left < vectors * I::LANES;
        let vectors = match vectors {
            _ if vectors > most + 1 => most,
            // What is left after two is not a single vector, whose tile would have few chains of sums.
            _ if vectors > most && self.rows > 4 => {
                if most == 2 {
                    3
                } else {
                    2
                }
            }
            _ => vectors.min(most),
        };
        let vectors = if self.rows <= 2 { 1 << vectors.ilog2() } else { vectors };
        let vectors =
            if even && !has_masks::<I>() { (vectors - vectors % I::NV).max(1) } else { vectors };
        left.min(vectors * I::LANES)
    }

    /// All rows of some columns that are as wide as a tile.
    ///
    /// # Safety
    ///
    /// The columns and the steps of k lie in the product.
    #[inline(always)]
    unsafe fn column_of_tiles<I: Isa>(
        &self,
        isa: I,
        (p, depth): (usize, usize),
        (col, cols): (usize, usize),
    ) {
        let Factor { first: a, row_step, k_step } = self.a;
        let vectors = cols.div_ceil(I::LANES);
        let panel = I::NV * I::LANES;
        let b = self.b.first.wrapping_add(p * self.b.row_step);
        let b = b.wrapping_add(col / panel * self.b.panel_step + col % panel);
        let c = self.c.wrapping_add(col);
        let (from, from_step) = match self.start {
            Start::Zero if p == 0 => (ZEROS.as_ptr(), 0),
            Start::Bias(bias) if p == 0 => (bias.wrapping_add(col), 0),
            _ => (c.cast_const(), self.c_step),
        };
        let mut tiles = Tiles {
            count: 1,
            depth,
            lanes: cols - (vectors - 1) * I::LANES,
            a: Factor { first: a.wrapping_add(p * k_step), row_step, k_step },
            b: Columns { first: b, ..self.b },
            from,
            from_step,
            c,
            c_step: self.c_step,
        };
        let highest = match vectors {
            1 => const { highest::<I>(1) },
            2 => const { highest::<I>(2) },
            3 => const { highest::<I>(3) },
            4 => const { highest::<I>(4) },
            _ => 1,
        };
        // Tiles whose heights differ by one at most.
        let count = if self.rows <= highest { 1 } else { self.rows.div_ceil(highest) };
        let (height, higher) =
            if count == 1 { (self.rows, 0) } else { (self.rows / count, self.rows % count) };
        for (rows, count) in [(height + 1, higher), (height, count - higher)] {
            tiles.count = count;
            if count > 0 {
                // SAFETY: as above; so many tiles have all rows together.
                unsafe { run(isa, &tiles, rows, vectors) };
            }
            tiles = tiles.below(rows * count);
        }
    }
}

impl<I: Isa> Nest<'_, I> {
    /// Whether both factors are read in place.
    pub(super) fn is_in_place(&self) -> bool {
        let Part { rows, cols, .. } = self.part;
        let product = self.product;
        let (b, k) = (&product.b, product.k);
        if k == 0 || !product.end.overwrites() {
            return false;
        }
        let bytes = k.saturating_mul(4 * cols);
        let small = bytes <= SMALL || cols <= COLS_IN_PLACE;
        if b.panels().is_some() {
            return small || rows <= PACKED_ROWS;
        }
        // Fewer rows stream B along C: `Skinny`.
        let streamed = rows <= SKINNY_ROWS && bytes > SMALL && bytes > caches().level_2 / 2;
        b.is_copied() && !streamed && (small || rows <= ROWS_IN_PLACE)
    }

    /// The product without packing.
    pub(super) fn in_place(&self) -> Result<()> {
        let Self { isa, product, part, .. } = *self;
        let mut scratch = product.a.is_computed().then(scratch::take);
        // Elements of A that are computed.
        let buffer = match &mut scratch {
            Some(scratch) => scratch.operand.grow(ROWS.min(part.rows) * product.k)?.as_mut_ptr(),
            None => std::ptr::null_mut(),
        };
        for row in (0..part.rows).step_by(ROWS) {
            let part = Part { row: part.row + row, rows: ROWS.min(part.rows - row), ..part };
            let all = Part { col: 0, cols: product.k, ..part };
            // SAFETY: the part lies in A, B and C, of which C's is this task's alone.
            unsafe {
                let (a, row_step, k_step) = product.a.elements(isa, all, buffer);
                let c = product.partial.in_row(part.row, part.col, part.cols);
                for (p, k) in self.blocks_of_k() {
                    let start = if p == 0 { product.start.at(part.col) } else { Start::Partial };
                    let a = Factor { first: a.wrapping_add(p * k_step), row_step, k_step };
                    isa.vectorize(InPlace::new(
                        (a, self.columns((p, k))),
                        (start, c, product.partial.row_step),
                        (part.rows, part.cols, k),
                        product.b.panels().is_some(),
                    ));
                }
            }
            self.finish(part)?;
        }
        Ok(())
    }

    /// Blocks of k: one, save in packed panels.
    fn blocks_of_k(&self) -> impl Iterator<Item = (usize, usize)> {
        let k = self.product.k;
        let kc = if self.product.b.panels().is_some() { self.block_sizes().0 } else { k };
        (0..k).step_by(kc).map(move |p| (p, kc.min(k - p)))
    }

    /// `k` steps of k, from `p` on, of this task's columns of B.
    ///
    /// # Safety
    ///
    /// They lie in B.
    unsafe fn columns(&self, (p, k): (usize, usize)) -> Columns {
        let Part { col, cols, .. } = self.part;
        let (b, nr) = (&self.product.b, Self::NR);
        match b.panels() {
            Some(panels) => Columns {
                first: panels.wrapping_add(p * padded(self.product.n, nr) + col * k),
                row_step: nr,
                panel_step: k * nr,
            },
            None => {
                let source = b.source();
                // SAFETY: the caller's promise.
                let (first, _last) =
                    unsafe { (source.in_row(p, col, cols), source.in_row(p + k - 1, col, cols)) };
                Columns { first, row_step: source.row_step, panel_step: nr }
            }
        }
    }

    /// Hands sums in C to the epilogue.
    pub(super) fn finish(&self, part: Part) -> Result<()> {
        let Some(end) = self.ends.memory.filter(|_| !self.product.is_done()) else { return Ok(()) };
        let Part { row, rows, col, cols } = part;
        let most = 32 * (TILE_WORDS / rows);
        let words = rows * most.min(cols).div_ceil(32);
        let (mut few, mut scratch) = ([0u32; FEW_WORDS], None);
        let words = match words <= FEW_WORDS {
            true => &mut few[..],
            false => grow(&mut **scratch.insert(Slot::Bits.take::<Vec<u32>>()), words)?,
        };
        for c in (0..cols).step_by(most) {
            let part = Part { row, rows, col: col + c, cols: most.min(cols - c) };
            // SAFETY: the part lies in C, and is this task's alone; blocks start at whole words.
            unsafe {
                let bits = self.mask_bits(part, words);
                let sums = self.product.partial.in_row(row, part.col, part.cols).cast_const();
                let area = Area { part, bits, shift: 0 };
                end.finish(self.isa, &area, sums, self.product.partial.row_step);
            }
        }
        Ok(())
    }
}
