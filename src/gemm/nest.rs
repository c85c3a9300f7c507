//! The loop nest around the tile, over one task's block of C.
//!
//! ```text
//! for jc in columns of the block, NC at a time:                      loop 5
//!     for pc in 0..k, KC at a time:                                  loop 4
//!         pack B[pc.., jc..] as panels of NR columns
//!         for ic in rows of the block, MC at a time:                 loop 3
//!             pack A[ic.., pc..] as panels of MR rows
//!             for jr in jc.., NR at a time:                          loop 2
//!                 for ir in ic.., MR at a time:                      loop 1
//!                     sums = bias, or C[ir.., jr..] if pc > 0
//!                     sums += A panel · B panel                      the micro-kernel
//!                     if pc + KC < k: C[ir.., jr..] = sums
//!                     else: the epilogue makes outputs of the sums
//! ```
//!
//! That is BLIS. The real one differs in these ways:
//!
//! 1. A panel of B is packed, or prefetched if it is packed, by the tiles of the panel before it, a
//!    row each few steps of k ([`PackAhead`]). What they did not get to is packed just before its
//!    first tile.
//! 2. Panels of B stay packed only where they are used by enough blocks of A to pay for the
//!    writing. Else there is room for two, which are packed in turn, anew for each block of A.
//! 3. The depth is one block of k up to 1024 (see [`block_sizes`]), and always where the epilogue
//!    cannot leave partial sums in its output because it reads what is there: updates of weights.
//! 4. Mask bits, those of the epilogue and those of a masked B, are made for [`GROUP`] columns at a
//!    time, just before the tiles that use them.
//! 5. An update of weights is software-pipelined: a tile's epilogue is worked off between the steps
//!    of k of the next tile, up to the end of the group of columns. Its panels of B are packed a
//!    group at a time, and loops 2 and 1 are exchanged within the group: rows of the weights and of
//!    their state are read in long pieces, where down the rows each line is in another page and
//!    mostly in the same set of the caches as the one above.
//! 6. Rows or columns too few to pay for packing take another way altogether, [`Skinny`] or
//!    [`in_place`](super::in_place): both factors are read in place, and the epilogue takes sums from C.
//!
//! The nest is compiled once for each instruction set, and needs no vector instructions itself:
//! packing, mask bits, tiles and epilogues are kernels that it calls.

use super::blocking::{Depth, balanced, block_sizes, column_block};
use super::epilogue::{Ends, Pipeline, RowOfTiles};
use super::pack::{PackA, PackAhead, PackB, padded};
use super::scratch::{self, Scratch};
use super::skinny::{SKINNY_ROWS, Skinny};
use super::tile::{Area, Sums};
use super::{GROUP, Operand, ProductArgs};
use crate::buffers::grow;
use crate::error::Result;
use crate::isa::{Isa, caches, is_fallback};
use crate::mask::Tile;
use crate::threads::Part;

/// A block on one instruction set, with the ends of its tiles.
pub(super) struct Nest<'a, I> {
    pub(super) isa: I,
    pub(super) product: &'a ProductArgs,
    /// The part of C that is this task's.
    pub(super) part: Part,
    pub(super) ends: Ends<'a, I>,
}

/// More panels than there are.
const ALL: usize = usize::MAX;

/// The buffers of a block.
#[derive(Clone, Copy)]
struct Buffers {
    a: *mut f32,
    /// A row to copy where there is nothing to pack, and panels.
    b: *mut f32,
    /// Elements of an operand that are computed before they are packed.
    operand: *mut f32,
    /// A tile whose sums do not stay in registers.
    tile: *mut f32,
    /// A tile whose epilogue is software-pipelined.
    waiting: *mut f32,
}

/// Panels of B, one after the other.
#[derive(Clone, Copy)]
struct PanelsOfB {
    first: *mut f32,
    /// Floats of a panel.
    len: usize,
    /// A row to copy where there is nothing to pack.
    idle: *mut f32,
    /// Panels there is room for, which are packed in turn; any number where there is room for all.
    in_turn: usize,
    /// Whether they are packed already.
    packed: bool,
}

impl PanelsOfB {
    /// Where the panel with this number is.
    fn panel(&self, number: usize) -> *mut f32 {
        self.first.wrapping_add(number % self.in_turn * self.len)
    }
}

impl<I: Isa> Nest<'_, I> {
    /// Columns of a panel of B.
    pub(super) const NR: usize = I::NV * I::LANES;

    #[inline(never)]
    pub(super) fn run(&self) -> Result<()> {
        let b = &self.product.b;
        if !is_fallback::<I>() && self.is_in_place() {
            return self.in_place();
        }
        let mut scratch = scratch::take();
        let overwrites = self.product.end.overwrites();
        let skinny = self.part.rows <= SKINNY_ROWS && self.product.k > 0 && overwrites;
        let masked = b.masked_rows().is_some() && !is_fallback::<I>();
        if skinny && (b.is_copied() || masked) {
            self.skinny(&mut scratch)
        } else {
            self.packed(&mut scratch)
        }
    }

    /// Loops 5 to 3. As in BLIS a panel of B is packed once for all blocks of A, if there are enough of
    /// them; else anew for each, just before its only use.
    fn packed(&self, scratch: &mut Scratch) -> Result<()> {
        let Part { row, rows, col, cols } = self.part;
        let product = self.product;
        let (kc, mc) = self.block_sizes();
        let stays = self.b_stays_packed(rows.div_ceil(mc));
        let nc = if stays { column_block(kc).min(padded(cols, Self::NR)) } else { cols };
        let computed = |operand: &Operand, n: usize| if operand.is_computed() { n } else { 0 };
        let operand = computed(&product.a, mc * kc).max(computed(&product.b, Self::NR * kc));
        // Those of the epilogue, and those of two groups of a masked B.
        let bits = mc + computed(&product.b, 2 * kc.next_multiple_of(32));
        grow(&mut scratch.bits, bits * GROUP / 32)?;
        let (mut tile, mut waiting) = (Sums::ZERO, Sums::UNINIT);
        let panels = kc * if stays { nc } else { self.panels_in_turn(kc) * Self::NR };
        let buffers = Buffers {
            a: scratch.a.grow(mc * kc)?.as_mut_ptr(),
            b: scratch.b.grow(Self::NR + panels)?.as_mut_ptr(),
            operand: scratch.operand.grow(operand)?.as_mut_ptr(),
            tile: tile.as_mut_ptr(),
            waiting: waiting.as_mut_ptr(),
        };
        // Loop 5: columns of C.
        for jc in (col..col + cols).step_by(nc) {
            let cols = nc.min(col + cols - jc);
            // Loop 4: k; once where it is 0, since sums start from the bias.
            for pc in (0..product.k.max(1)).step_by(kc) {
                let count = kc.min(product.k - pc);
                let ends = pc + count == product.k;
                let depth = Depth { first: pc, count, starts: pc == 0, ends };
                // Loop 3: rows of C.
                for ic in (row..row + rows).step_by(mc) {
                    let block = Part { row: ic, rows: mc.min(row + rows - ic), col: jc, cols };
                    let b = self.panels_of_b(depth, jc, buffers.b, stays.then_some(ic > row));
                    self.pack_a(depth, ic, block.rows, buffers);
                    self.tiles(depth, block, buffers, b, &mut scratch.bits);
                }
            }
        }
        Ok(())
    }

    /// KC and MC.
    pub(super) fn block_sizes(&self) -> (usize, usize) {
        let (rows, k, mr) = (self.part.rows, self.product.k, I::MR);
        // Panels packed before know nothing of the rows they meet.
        let shallow = self.product.b.panels().is_none().then_some(rows);
        let (mut kc, mut mc) = block_sizes(mr, shallow, k);
        if !self.product.end.overwrites() {
            // Nothing can wait in the output, so there is one block of k.
            mc = (kc * mc / k.max(1) / mr * mr).max(mr);
            kc = k.max(1);
        }
        (kc, balanced(rows, mc, mr))
    }

    /// Whether panels of B stay packed for all `blocks` blocks of A. Writing them costs more than
    /// copying them ahead twice, but less than packing them twice where they cannot just be copied.
    fn b_stays_packed(&self, blocks: usize) -> bool {
        let b = &self.product.b;
        b.panels().is_none() && blocks > if b.is_copied() { 2 } else { 1 }
    }

    /// Panels of B whose tiles take turns down the rows: one, or for an update those of a group of
    /// columns, as far as a quarter of the level-2 cache holds them.
    fn panels_at_once(&self, kc: usize) -> usize {
        if self.product.end.overwrites() || self.ends.registers.is_none() {
            return 1;
        }
        let most = caches().level_2 / 4 / (4 * kc.max(1) * Self::NR);
        1 << most.clamp(1, GROUP / Self::NR).ilog2()
    }

    /// Panels of B there is room for where they do not stay packed: those that are used, and the next
    /// one, if it is packed ahead.
    fn panels_in_turn(&self, kc: usize) -> usize {
        self.panels_at_once(kc).max(2)
    }

    /// The panels of B from column `col` on; `stays` says whether they stay in `buffer`, and if so,
    /// whether they are there already.
    fn panels_of_b(
        &self,
        depth: Depth,
        col: usize,
        buffer: *mut f32,
        stays: Option<bool>,
    ) -> PanelsOfB {
        let product = self.product;
        let (first, in_turn, packed) = match product.b.panels() {
            // Those of the whole matrix, a block of k after the other.
            Some(panels) => {
                let before = depth.first * padded(product.n, Self::NR) + col * depth.count;
                (panels.wrapping_add(before).cast_mut(), ALL, true)
            }
            None => {
                let in_turn = if stays.is_none() { self.panels_in_turn(depth.count) } else { ALL };
                (buffer.wrapping_add(Self::NR), in_turn, stays == Some(true))
            }
        };
        PanelsOfB { first, len: depth.count * Self::NR, idle: buffer, in_turn, packed }
    }

    /// Packs all panels of a block of A.
    fn pack_a(&self, depth: Depth, row: usize, rows: usize, buffers: Buffers) {
        if depth.count == 0 {
            return;
        }
        let part = Part { row, rows, col: depth.first, cols: depth.count };
        let out = (buffers.a, I::MR);
        // SAFETY: the part lies in A, and the buffers have room for a block.
        let pack = unsafe { PackA::new(self.product.a, part, buffers.operand, out) };
        self.isa.vectorize(pack);
    }

    /// B, and if it is masked, the bits of the group of columns from `jg` on, in `bits`.
    #[inline(never)]
    fn masked_group(&self, depth: Depth, (jg, end): (usize, usize), bits: &mut [u32]) -> Operand {
        if jg >= end {
            return self.product.b;
        }
        let cols = GROUP.min(end - jg);
        let part = Part { row: depth.first, rows: depth.count, col: jg, cols };
        // SAFETY: the part lies in B; blocks start at multiples of 32; there is room for a group's
        // bits.
        unsafe { self.product.b.with_bits(self.isa, part, bits) }
    }

    /// The bits of the epilogue's mask for a part of C.
    ///
    /// # Safety
    ///
    /// As for [`Bits::tile`](crate::mask::Bits::tile): the part lies in this task's block, its
    /// columns begin at a multiple of 32 and end at one or with the block, and `scratch` has room
    /// for its bits.
    #[inline(never)]
    pub(super) unsafe fn mask_bits(&self, part: Part, scratch: &mut [u32]) -> Tile {
        // SAFETY: the caller's promise; the mask has the shape of C.
        unsafe { self.product.bits.tile(self.isa, part, scratch) }
    }

    /// What `tiles` tiles do ahead for the panel of B from column `col` on, which is, or will be,
    /// packed at `to`.
    fn pack_ahead(
        operand: Operand,
        depth: Depth,
        (col, end): (usize, usize),
        b: PanelsOfB,
        (tiles, to): (usize, *mut f32),
    ) -> PackAhead {
        let nr = Self::NR;
        if b.packed && col < end {
            return PackAhead::prefetch(tiles, to, (depth.count, nr), b.idle);
        }
        if !b.packed && col + nr <= end {
            let source = operand.source();
            let from = (source.near(depth.first, col), source.row_step);
            let copy = PackAhead::copy(tiles, from, (depth.count, nr), to, b.idle);
            if operand.is_copied() {
                return copy;
            }
            if operand.is_transposed() {
                return PackAhead::columns(from.0, source.col_step, nr, b.idle);
            }
            if let Some(masked) = operand.masked_rows() {
                let masked = masked.pack_ahead(copy, depth.first, col);
                return masked.unwrap_or(PackAhead::nothing(b.idle));
            }
        }
        PackAhead::nothing(b.idle)
    }

    /// Packs the panel of B from column `col` on, from row `packed` on.
    fn pack_b(
        &self,
        operand: Operand,
        depth: Depth,
        (col, cols): (usize, usize),
        packed: usize,
        (to, buffer): (*mut f32, *mut f32),
    ) {
        if packed < depth.count {
            let part = Part { row: depth.first + packed, rows: depth.count - packed, col, cols };
            let out = (to.wrapping_add(packed * Self::NR), Self::NR);
            // SAFETY: the part lies in B, and the buffers have room for a panel.
            self.isa.vectorize(unsafe { PackB::new(operand, part, buffer, out) });
        }
    }

    /// Loops 2 and 1: the tiles of a block of A. A panel of B is fetched by the tiles of the one
    /// before; mask bits are made a group of columns at a time, just before their tiles.
    fn tiles(
        &self,
        depth: Depth,
        block: Part,
        buffers: Buffers,
        b: PanelsOfB,
        scratch: &mut [u32],
    ) {
        let Self { isa, product, .. } = *self;
        let nr = Self::NR;
        let end = block.col + block.cols;
        let mut ahead = PackAhead::nothing(b.idle);
        // SAFETY: the buffer has room for any tile, and is the pipeline's alone.
        let mut pipeline = unsafe { Pipeline::new(buffers.waiting) };
        let tiles = block.rows.div_ceil(I::MR);
        let at_once = self.panels_at_once(depth.count);
        let (scratch, bits_of_b) = scratch.split_at_mut(block.rows * GROUP / 32);
        let (these, others) = bits_of_b.split_at_mut(bits_of_b.len() / 2);
        let mut bits_of_b = [these, others];
        let to_pack = if b.packed { block.col } else { end };
        let mut operand = self.masked_group(depth, (block.col, to_pack), bits_of_b[0]);
        // Groups of columns.
        for jg in (block.col..end).step_by(GROUP) {
            let cols = GROUP.min(end - jg);
            let mut bits = Tile { words: scratch.as_ptr(), stride: 0 };
            if product.end.is_masked() && depth.ends {
                // SAFETY: the mask has the shape of C, and blocks start at whole words.
                bits = unsafe { self.mask_bits(Part { col: jg, cols, ..block }, scratch) };
            }
            // The bits of the next group: its first panel is packed while this one's last is
            // multiplied.
            bits_of_b.reverse();
            let next_group = self.masked_group(depth, (jg + GROUP, to_pack), bits_of_b[0]);
            // Loop 2: panels of B, one or several at once.
            for jr in (0..cols).step_by(nr * at_once) {
                let (col, cols) = (jg + jr, (nr * at_once).min(cols - jr));
                let number = (col - block.col) / nr;
                for at in (0..cols).step_by(nr).take_while(|_| !b.packed) {
                    let part = (col + at, nr.min(cols - at));
                    let packed = if at == 0 { ahead.packed_rows() } else { 0 };
                    let buffers = (b.panel(number + at / nr), buffers.operand);
                    self.pack_b(operand, depth, part, packed, buffers);
                }
                ahead = PackAhead::nothing(b.idle);
                if at_once == 1 {
                    let of_next = if jr + nr < GROUP { operand } else { next_group };
                    let next = (tiles, b.panel(number + 1));
                    ahead = Self::pack_ahead(of_next, depth, (col + nr, end), b, next);
                }
                let bits = Tile { words: bits.words.wrapping_add(jr / 32), ..bits };
                let row = RowOfTiles {
                    product,
                    depth,
                    area: Area { part: Part { col, cols, ..block }, bits, shift: jr % 32 },
                    a: buffers.a,
                    b: b.panel(number),
                    panels: cols / nr,
                    panel_step: b.len,
                    ahead: &mut ahead,
                    buffer: buffers.tile,
                };
                // SAFETY: panels stand one after the other in their buffers; the bits are those of
                // the group; the row lies in the block, which is this task's alone.
                unsafe { self.row_of_tiles(row, &mut pipeline) };
            }
            if let Some(end) = self.ends.registers {
                // SAFETY: the bits are still those of the group.
                unsafe { end.drain(isa, &mut pipeline) };
            }
            operand = next_group;
        }
    }

    /// Loop 1: tiles of whole panels end in registers, where there is such an end; the others in memory.
    ///
    /// # Safety
    ///
    /// As for [`RegisterEnd::tiles`](super::epilogue::RegisterEnd::tiles), but for the columns.
    unsafe fn row_of_tiles(&self, mut row: RowOfTiles<'_>, pipeline: &mut Pipeline) {
        // SAFETY: the caller's promise.
        unsafe {
            let Some(end) = self.ends.registers.filter(|_| row.depth.ends) else {
                row.all_through_memory(self.isa, self.ends.memory);
                return;
            };
            let (panels, left) = (row.area.part.cols / Self::NR, row.area.part.cols % Self::NR);
            row.area.part.cols -= left;
            if panels > 0 {
                end.tiles(self.isa, row.reborrow(), pipeline);
            }
            if left > 0 {
                row.skip(panels, (Self::NR, left));
                row.all_through_memory(self.isa, self.ends.memory);
            }
        }
    }

    /// Rows too few to pay for packing B: sums grow in C, from which the epilogue takes them.
    fn skinny(&self, scratch: &mut Scratch) -> Result<()> {
        let Self { isa, product, part: Part { row, rows, .. }, .. } = *self;
        let a = Part { row, rows, col: 0, cols: product.k };
        let computed = if product.a.is_computed() { rows * product.k } else { 0 };
        let buffer = scratch.operand.grow(computed)?.as_mut_ptr();
        // SAFETY: the part lies in A, B and C, of which C's is this task's alone.
        unsafe {
            let a = product.a.elements(isa, a, buffer);
            isa.vectorize(Skinny::new(product, self.part, a));
        }
        self.finish(self.part)
    }
}
