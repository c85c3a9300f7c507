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
use super::super::pack::{AheadRows, PackAhead, PackB, PackPanel};
use super::super::scratch::{self, Scratch};
use super::super::tile::{Area, Sums};
use super::super::{GROUP, Operand, ProductArgs, Start};
use super::ahead::Ahead;
use super::tile::{SpanTile, TileStart, most_rows};
use super::{Pattern, Piece, RunTable, spans};
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
    runs: RunTable,
}

/// What the tiles of a block share.
struct Work<'a> {
    runs: &'a mut RunTable,
    bits: &'a mut [u32],
    /// The group of columns that bits were made for, and these.
    made: Option<(usize, Tile)>,
    ahead: &'a mut Ahead,
    idle: AheadRows,
    /// Room for the sums of a tile, and for an update for those of a panel of A and some of B.
    sums: *mut f32,
    strip: *mut f32,
}

/// Rows of the highest tile of any instruction set.
const MOST_ROWS: usize = 16;

/// Words of mask bits of blocks: all kept, or all dropped.
static KEPT: [u32; 2] = [u32::MAX; 2];
static DROPPED: [u32; 2] = [0; 2];

impl<I: Isa> SpanNest<'_, I> {
    /// Columns of the widest panel of B.
    const NR: usize = I::NV * I::LANES;

    #[inline(never)]
    pub(in crate::gemm) fn run(&self) -> Result<()> {
        let mut scratch = scratch::take();
        let Scratch { a, b, operand, strip, bits, lists: Lists { panels, runs } } = &mut *scratch;
        let Part { row, rows, col, cols } = self.part;
        let (k, (mc, nc)) = (self.product.k, self.block_sizes());
        let computed = |of: &Operand, n: usize| if of.is_computed() { n * k } else { 0 };
        let elements = computed(&self.product.a, mc).max(computed(&self.product.b, Self::NR));
        let buffer = operand.grow(elements)?.as_mut_ptr();
        let bits = grow(bits, if self.has_bits() { mc * GROUP / 32 } else { 0 })?;
        let mut sums = Sums::UNINIT;
        // A row that is copied to itself, and panels.
        let (idle, packed_b) = b.grow(Self::NR + nc * k)?.split_at_mut(Self::NR);
        let packed_a = a.grow(mc * k)?.as_mut_ptr();
        let rows_of_strip = if self.product.end.overwrites() { 0 } else { MOST_ROWS };
        let strip = strip.grow(rows_of_strip * cols.min(nc))?.as_mut_ptr();
        let idle = PackAhead::nothing(idle.as_mut_ptr()).next_tile();
        for ic in (row..row + rows).step_by(mc) {
            let block = Part { row: ic, rows: mc.min(row + rows - ic), col, cols };
            self.pack_a(block, (buffer, packed_a));
            let sums = sums.as_mut_ptr();
            let mut ahead = Ahead::NOTHING;
            let mut work = Work { runs, bits, made: None, ahead: &mut ahead, idle, sums, strip };
            if self.product.end.overwrites() {
                self.panel_by_panel(block, (buffer, packed_a, packed_b), &mut work)?;
                continue;
            }
            let mut jc = col;
            while jc < col + cols {
                jc = self.pack_b(jc, (buffer, packed_b.as_mut_ptr(), nc), panels)?;
                self.strips(block, packed_a, panels, &mut work)?;
            }
        }
        Ok(())
    }

    /// All tiles of a block of A, for which there is room for two panels of B.
    fn panel_by_panel(
        &self,
        block: Part,
        (buffer, packed_a, packed_b): (*mut f32, *mut f32, &mut [f32]),
        work: &mut Work<'_>,
    ) -> Result<()> {
        let row_spans = spans(self.pattern.rows, (block.row, block.row + block.rows));
        let (first, count) =
            row_spans.fold((usize::MAX, 0), |(first, n), s| (first.min(s.span), n + 1));
        let mut filled = None;
        let (these, others) = packed_b.split_at_mut(packed_b.len() / 2);
        let (mut to, mut other) = (these.as_mut_ptr(), others.as_mut_ptr());
        let mut next = self.panel_of_b(block.col, to);
        while let Some(b) = next {
            self.pack_panel(&b, work.ahead.rows(), buffer);
            std::mem::swap(&mut to, &mut other);
            next = self.panel_of_b(b.piece.first + b.piece.len, to);
            *work.ahead = next.map_or(Ahead::NOTHING, |next| {
                let part = Part { row: 0, rows: self.product.k, ..part_of(next.piece, next.piece) };
                // SAFETY: the part lies in B, and there is room for two panels.
                unsafe { Ahead::new(self.product.b, part, next.vectors * I::LANES, to) }
            });
            let of_cols = self.pattern.of_cols.map_or(0, |_| b.piece.span);
            if filled != Some(of_cols) {
                let pairs = (first..first + count).map(|span| (span, of_cols));
                work.runs.fill(self.pattern, self.product.k, pairs)?;
                filled = Some(of_cols);
            }
            for a in self.panels_of_a(block, packed_a) {
                self.tile(block, (a, b), a.piece.span - first, work);
            }
        }
        Ok(())
    }

    /// MC, and NC with the lanes that are left over at the ends of spans.
    fn block_sizes(&self) -> (usize, usize) {
        let half = caches().level_2 / 8 / self.product.k.max(1);
        let group = self.pattern.rows.map_or(1, |starts| starts[1] as usize).min(half.max(1));
        let mc = (half / group * group).max(16).min(self.part.rows);
        let nc =
            if self.product.end.overwrites() { 2 * Self::NR } else { (half / 2).max(Self::NR) };
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
        let k = self.product.k;
        let part = Part { row: block.row, rows: block.rows, col: 0, cols: k };
        // SAFETY: the part lies in A, and the buffer has room for it.
        let (first, outer_step, k_step) =
            unsafe { self.product.a.elements(self.isa, part, buffer) };
        for PanelOfA { piece, at } in self.panels_of_a(block, packed) {
            let first = first.wrapping_add((piece.first - block.row) * outer_step);
            // SAFETY: the panel's elements are some of the part's; there is room for all panels.
            let pack = unsafe {
                PackPanel::new((first, outer_step, k_step), (piece.len, k), at.cast_mut())
            };
            self.isa.vectorize(pack);
        }
    }

    /// The panel of B from column `col` on, if there is one, to be packed at `to`.
    fn panel_of_b(&self, col: usize, to: *mut f32) -> Option<PanelOfB> {
        let end = self.part.col + self.part.cols;
        let span = spans(self.pattern.cols, (col, end)).next()?;
        let piece = Piece { len: span.len.min(Self::NR), ..span };
        let vectors = if piece.len <= I::LANES { 1 } else { I::NV };
        Some(PanelOfB { piece, vectors, at: to })
    }

    /// Packs a panel of B from row `packed` on.
    fn pack_panel(&self, panel: &PanelOfB, packed: usize, buffer: *mut f32) {
        let PanelOfB { piece, vectors, at } = *panel;
        let (rows, nr) = (self.product.k - packed, vectors * I::LANES);
        if rows > 0 {
            let part = Part { row: packed, rows, col: piece.first, cols: piece.len };
            let to = at.cast_mut().wrapping_add(packed * nr);
            // SAFETY: the part lies in B; the buffers have room for a panel of `nr` columns.
            self.isa.vectorize(unsafe { PackB::new(self.product.b, part, buffer, (to, nr)) });
        }
    }

    /// Packs panels of B from column `col` on: one at least, and as many as `nc` columns have room for.
    /// Returns the column after them.
    fn pack_b(
        &self,
        mut col: usize,
        (buffer, packed, nc): (*mut f32, *mut f32, usize),
        list: &mut Vec<PanelOfB>,
    ) -> Result<usize> {
        list.clear();
        let mut used = 0;
        while let Some(panel) = self.panel_of_b(col, packed.wrapping_add(used * self.product.k)) {
            let nr = panel.vectors * I::LANES;
            if used + nr > nc {
                break;
            }
            self.pack_panel(&panel, 0, buffer);
            reserve(list, list.len() + 1)?;
            list.push(panel);
            (used, col) = (used + nr, panel.piece.first + panel.piece.len);
        }
        Ok(col)
    }

    /// All tiles of a block of A and some panels of B, for an update: strips of rows, whose sums are
    /// finished together.
    fn strips(
        &self,
        block: Part,
        packed: *mut f32,
        list: &[PanelOfB],
        work: &mut Work<'_>,
    ) -> Result<()> {
        let (Some(first), Some(last), Some(end)) = (list.first(), list.last(), self.ends.memory)
        else {
            unreachable!("an update has panels of B and an end for sums in memory");
        };
        let mut filled = None;
        let col = first.piece.first;
        let cols = last.piece.first + last.piece.len - col;
        for a in self.panels_of_a(block, packed) {
            if filled != Some(a.piece.span) {
                let pairs = list.iter().map(|b| (a.piece.span, b.piece.span));
                work.runs.fill(self.pattern, self.product.k, pairs)?;
                filled = Some(a.piece.span);
            }
            for (pair, b) in list.iter().enumerate() {
                let to = work.strip.wrapping_add(b.piece.first - col);
                // SAFETY: the strip has room for the rows of any panel.
                unsafe { self.sums((a, *b), Some(pair), (to, cols, false), work) };
            }
            let part = Part { row: a.piece.first, rows: a.piece.len, col, cols };
            let bits = Tile { words: KEPT.as_ptr(), stride: 0 };
            // SAFETY: the part lies in this task's block, and the sums are there; no update of a product of
            // which a part is computed has a mask.
            unsafe { end.finish(self.isa, &Area { part, bits, shift: 0 }, work.strip, cols) };
        }
        Ok(())
    }

    /// A tile, whose runs are those of the pair with this number, and what becomes of its sums.
    fn tile(&self, block: Part, panels: (PanelOfA, PanelOfB), pair: usize, work: &mut Work<'_>) {
        let (a, b) = panels;
        let part = part_of(a.piece, b.piece);
        let computed = self.pattern.computes(a.piece.span, b.piece.span);
        let pair = computed.then_some(pair);
        if let End::Store(Store { c }) = self.product.end {
            // SAFETY: the part lies in C, where the sums end.
            unsafe {
                let to = c.in_row(part.row, part.col, part.cols);
                self.sums(panels, pair, (to, c.row_step, false), work);
            }
            return;
        }
        let nr = b.vectors * I::LANES;
        // SAFETY: a buffer has room for any tile.
        unsafe { self.sums(panels, pair, (work.sums, nr, true), work) };
        if let Some(end) = self.ends.memory {
            let (bits, shift) = self.bits(block, part, computed, work);
            // SAFETY: the part lies in this task's block, and the sums are there.
            unsafe { end.finish(self.isa, &Area { part, bits, shift }, work.sums, nr) };
        }
    }

    /// The sums of a tile with the runs of a pair; 0 where there is none.
    ///
    /// # Safety
    ///
    /// `to` is valid for writes of the tile's columns, with so many floats from row to row: of all lanes
    /// if it is padded.
    #[inline(always)]
    unsafe fn sums(
        &self,
        (a, b): (PanelOfA, PanelOfB),
        pair: Option<usize>,
        (to, to_step, padded): (*mut f32, usize, bool),
        work: &mut Work<'_>,
    ) {
        let part = part_of(a.piece, b.piece);
        let tile = SpanTile {
            a: a.at,
            b: b.at,
            runs: pair.map_or(&[], |pair| work.runs.of(pair)),
            ahead: work.ahead,
            idle: work.idle,
            rows: part.rows,
            vectors: b.vectors,
            cols: part.cols,
            start: self.start(part, pair.is_some()),
            to,
            to_step,
            padded,
        };
        // SAFETY: panels have the rows and columns of their pieces and all of k; a bias has a value for
        // each column; and the caller's promise.
        unsafe { tile.run(self.isa) };
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
