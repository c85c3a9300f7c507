//! The loop nest of a product of which a part is computed.
//!
//! ```text
//! for ic in rows, MC at a time:
//!     pack A[ic.., ..] as panels of a tile's rows, which end with each span
//!     for jc in columns, NC at a time:
//!         pack B[.., jc..] as panels of a tile's columns, which end with each span
//!         for each panel of B, and for each of A:              for an update: of A, and of B
//!             if their spans meet:
//!                 sums = bias, 0, or the partial sums of C
//!                 for runs of k that both use: sums += A panel · B panel
//!                 the epilogue makes outputs of the sums
//!             else: the epilogue drops sums of 0
//! ```
//!
//! NC is one panel, whose part of A is near; for an update it is what a quarter of the level-2 cache
//! holds, so that rows of the weights and of their state are read in long pieces.

use super::super::blocking::panels;
use super::super::epilogue::{End, Ends, Store};
use super::super::pack::{AheadRows, PackA, PackAhead, PackB};
use super::super::scratch::{self, Scratch};
use super::super::tile::{Area, Sums};
use super::super::{GROUP, Operand, ProductArgs, Start};
use super::tile::{SpanTile, TileStart, most_rows};
use super::{Pattern, Piece, Run, spans};
use crate::buffers::{grow, reserve};
use crate::error::Result;
use crate::isa::{Isa, caches};
use crate::mask::Tile;
use crate::threads::Part;

/// One task's block of C on one instruction set.
pub(in crate::gemm) struct SpanNest<'a, I> {
    pub(in crate::gemm) isa: I,
    pub(in crate::gemm) product: &'a ProductArgs,
    pub(in crate::gemm) pattern: &'a Pattern<'a>,
    pub(in crate::gemm) part: Part,
    pub(in crate::gemm) ends: Ends<'a, I>,
}

/// A panel of B: its columns, its width in vectors, and where it is.
#[derive(Clone, Copy, Debug)]
struct PanelOfB {
    piece: Piece,
    vectors: usize,
    at: *const f32,
}

/// A panel of A: its rows, and where it is.
#[derive(Clone, Copy)]
struct PanelOfA {
    piece: Piece,
    at: *const f32,
}

/// Lists that a block needs, kept from call to call.
#[derive(Debug, Default)]
pub(in crate::gemm) struct Lists {
    panels: Vec<PanelOfB>,
    runs: Vec<Run>,
}

/// What the tiles of a block share.
struct Work<'a> {
    runs: &'a mut Vec<Run>,
    bits: &'a mut [u32],
    /// The group of columns that bits were made for, and these.
    made: Option<(usize, Tile)>,
    idle: AheadRows,
    sums: *mut f32,
}

/// Words of mask bits of blocks: all kept, or all dropped.
static KEPT: [u32; 2] = [u32::MAX; 2];
static DROPPED: [u32; 2] = [0; 2];

impl<I: Isa> SpanNest<'_, I> {
    /// Columns of the widest panel of B.
    const NR: usize = I::NV * I::LANES;

    #[inline(never)]
    pub(in crate::gemm) fn run(&self) -> Result<()> {
        let mut scratch = scratch::take();
        let Scratch { a, b, operand, bits, lists: Lists { panels, runs } } = &mut *scratch;
        let Part { row, rows, col, cols } = self.part;
        let (k, (mc, nc)) = (self.product.k, self.block_sizes());
        let computed = |of: &Operand, n: usize| if of.is_computed() { n * k } else { 0 };
        let elements = computed(&self.product.a, mc).max(computed(&self.product.b, Self::NR));
        let buffer = operand.grow(elements)?.as_mut_ptr();
        let bits = grow(bits, if self.has_bits() { mc * GROUP / 32 } else { 0 })?;
        let mut sums = Sums::UNINIT;
        reserve(runs, self.pattern.depth.map_or(1, <[u32]>::len))?;
        // A row that is copied to itself, and panels.
        let (idle, packed_b) = b.grow(Self::NR + nc * k)?.split_at_mut(Self::NR);
        let packed_a = a.grow(mc * k)?.as_mut_ptr();
        let idle = PackAhead::nothing(idle.as_mut_ptr()).next_tile();
        for ic in (row..row + rows).step_by(mc) {
            let block = Part { row: ic, rows: mc.min(row + rows - ic), col, cols };
            self.pack_a(block, (buffer, packed_a));
            let sums = sums.as_mut_ptr();
            let mut work = Work { runs, bits, made: None, idle, sums };
            let mut jc = col;
            while jc < col + cols {
                jc = self.pack_b(jc, (buffer, packed_b.as_mut_ptr(), nc), panels)?;
                self.tiles(block, packed_a, panels, &mut work);
            }
        }
        Ok(())
    }

    /// MC, and NC with the lanes that are left over at the ends of spans.
    fn block_sizes(&self) -> (usize, usize) {
        let half = caches().level_2 / 8 / self.product.k.max(1);
        let group = self.pattern.rows.map_or(1, |starts| starts[1] as usize).min(half.max(1));
        let mc = (half / group * group).max(16).min(self.part.rows);
        let nc = if self.product.end.overwrites() { Self::NR } else { (half / 2).max(Self::NR) };
        (mc, nc)
    }

    /// Whether mask bits decide; where blocks do, they are known.
    fn has_bits(&self) -> bool {
        self.product.end.is_masked() && self.pattern.computed.is_none()
    }

    /// Whether no span has more columns than a vector: tiles are higher then.
    fn is_narrow(&self) -> bool {
        let narrow = |starts: &[u32]| {
            starts.array_windows().all(|[first, end]| (end - first) as usize <= I::LANES)
        };
        self.part.cols <= I::LANES || self.pattern.cols.is_some_and(narrow)
    }

    /// The panels of A of a block, which are at `packed`.
    fn panels_of_a(&self, block: Part, packed: *mut f32) -> impl Iterator<Item = PanelOfA> {
        let most = if self.is_narrow() { most_rows(I::MR, I::NV) } else { I::MR };
        let k = self.product.k;
        spans(self.pattern.rows, (block.row, block.row + block.rows)).flat_map(move |span| {
            panels(span.len, most).map(move |(first, len)| {
                let piece = Piece { first: span.first + first, len, ..span };
                PanelOfA { piece, at: packed.wrapping_add((piece.first - block.row) * k) }
            })
        })
    }

    /// Packs a block of A.
    fn pack_a(&self, block: Part, (buffer, packed): (*mut f32, *mut f32)) {
        if self.product.k == 0 {
            return;
        }
        for PanelOfA { piece, at } in self.panels_of_a(block, packed) {
            let part = Part { row: piece.first, rows: piece.len, col: 0, cols: self.product.k };
            // SAFETY: the part lies in A; the buffer has room for it, and the panels for theirs.
            let pack = unsafe {
                PackA::new(self.product.a, part, buffer, (at.cast_mut(), piece.len))
            };
            self.isa.vectorize(pack);
        }
    }

    /// Packs panels of B from column `col` on: one at least, and as many as `nc` columns have room for.
    /// Returns the column after them.
    fn pack_b(
        &self,
        col: usize,
        (buffer, packed, nc): (*mut f32, *mut f32, usize),
        list: &mut Vec<PanelOfB>,
    ) -> Result<usize> {
        let (k, end) = (self.product.k, self.part.col + self.part.cols);
        list.clear();
        let (mut used, mut next) = (0, col);
        for span in spans(self.pattern.cols, (col, end)) {
            for at in (0..span.len).step_by(Self::NR) {
                let piece = Piece { first: span.first + at, len: Self::NR.min(span.len - at), ..span };
                let vectors = if piece.len <= I::LANES { 1 } else { I::NV };
                let nr = vectors * I::LANES;
                if used + nr > nc {
                    return Ok(next);
                }
                let at = packed.wrapping_add(used * k);
                if k > 0 {
                    let part = Part { row: 0, rows: k, col: piece.first, cols: piece.len };
                    // SAFETY: the part lies in B; the buffers have room for a panel of `nr` columns.
                    let pack = unsafe { PackB::new(self.product.b, part, buffer, (at, nr)) };
                    self.isa.vectorize(pack);
                }
                reserve(list, list.len() + 1)?;
                list.push(PanelOfB { piece, vectors, at });
                (used, next) = (used + nr, piece.first + piece.len);
            }
        }
        Ok(next)
    }

    /// All tiles of a block of A and some panels of B.
    fn tiles(&self, block: Part, packed: *mut f32, list: &[PanelOfB], work: &mut Work<'_>) {
        if self.product.end.overwrites() {
            for b in list {
                for a in self.panels_of_a(block, packed) {
                    self.tile(block, a, *b, work);
                }
            }
            return;
        }
        for a in self.panels_of_a(block, packed) {
            for (i, b) in list.iter().enumerate() {
                if let (Some(next), Some(end)) = (list.get(i + 1), self.ends.memory) {
                    // SAFETY: the part lies in C.
                    unsafe { end.prefetch(self.isa, part_of(a.piece, next.piece)) };
                }
                self.tile(block, a, *b, work);
            }
        }
    }

    /// A tile, and what becomes of its sums.
    fn tile(&self, block: Part, a: PanelOfA, b: PanelOfB, work: &mut Work<'_>) {
        let part = part_of(a.piece, b.piece);
        let nr = b.vectors * I::LANES;
        let computed = self.pattern.computes(a.piece.span, b.piece.span);
        work.runs.clear();
        if computed {
            let spans = (a.piece.span, b.piece.span);
            self.pattern.runs(spans, self.product.k, |run| work.runs.push(run));
        }
        let (start, ended) = (self.start(part, computed), self.ends.memory);
        let (to, to_step) = match (self.product.end, ended) {
            // SAFETY: the part lies in C.
            (End::Store(Store { c }), _) => {
                (unsafe { c.in_row(part.row, part.col, part.cols) }, c.row_step)
            }
            _ => (work.sums, nr),
        };
        let tile = SpanTile {
            a: a.at,
            b: b.at,
            runs: work.runs,
            idle: work.idle,
            rows: part.rows,
            vectors: b.vectors,
            cols: part.cols,
            start,
            to,
            to_step,
            padded: ended.is_some(),
        };
        // SAFETY: panels have the rows and columns of their pieces and all of k; sums end in C, or in a
        // buffer that any tile fits; a bias has a value for each column.
        unsafe { tile.run(self.isa) };
        if let Some(end) = ended {
            let (bits, shift) = self.bits(block, part, computed, work);
            // SAFETY: the part lies in this task's block, and the sums are there.
            unsafe { end.finish(self.isa, &Area { part, bits, shift }, work.sums, nr) };
        }
    }

    /// Where the sums of a part of C start.
    fn start(&self, part: Part, computed: bool) -> TileStart {
        match self.product.start {
            _ if !computed => TileStart::Zero,
            Start::Zero => TileStart::Zero,
            Start::Bias(bias) => TileStart::Values(bias.wrapping_add(part.col), 0),
            Start::Partial => {
                let c = self.product.partial;
                // SAFETY: the part lies in C.
                let from = unsafe { c.in_row(part.row, part.col, part.cols) };
                TileStart::Values(from, c.row_step)
            }
        }
    }

    /// The mask bits of a part of C, and the first one's place in its word.
    fn bits(&self, block: Part, part: Part, kept: bool, work: &mut Work<'_>) -> (Tile, usize) {
        if !self.has_bits() {
            let words = if kept { KEPT.as_ptr() } else { DROPPED.as_ptr() };
            return (Tile { words, stride: 0 }, 0);
        }
        let in_group = (part.col - block.col) % GROUP;
        let col = part.col - in_group;
        let tile = match work.made {
            Some((made, tile)) if made == col => tile,
            _ => {
                let cols = GROUP.min(block.col + block.cols - col);
                // SAFETY: the mask has the shape of C, tasks start at whole words, and there is room
                // for a group's bits.
                let tile = unsafe {
                    self.product.bits.tile(self.isa, Part { col, cols, ..block }, work.bits)
                };
                work.made = Some((col, tile));
                tile
            }
        };
        let before = (part.row - block.row) * tile.stride + in_group / 32;
        (Tile { words: tile.words.wrapping_add(before), ..tile }, in_group % 32)
    }
}

/// Where two spans' pieces meet.
fn part_of(rows: Piece, cols: Piece) -> Part {
    Part { row: rows.first, rows: rows.len, col: cols.first, cols: cols.len }
}
