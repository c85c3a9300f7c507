//! One task's block of C: the five loops around the tile.

use super::blocking::{Depth, Packing, balanced, block_sizes, column_block, panels};
use super::deferred::Deferred;
use super::epilogue::Epilogue;
use super::few_rows::{FEW_ROWS, FewRows, SMALL, SMALL_ROWS};
use super::pack::{PackA, PackB, padded};
use super::scratch::{self, Scratch};
use super::task::Task;
use super::tile::{Panels, Sums};
use super::{GROUP, Operand, Product};
use crate::buffers::grow;
use crate::error::Result;
use crate::isa::{Isa, Kernel, TileKernel};
use crate::mask::{TILE_WORDS, Tile};
use crate::threads::Part;

/// A block of the output.
pub(super) struct Block<'a, E> {
    pub(super) product: &'a Product<E>,
    pub(super) part: Part,
}

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
    /// A tile whose epilogue is deferred.
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
    /// Whether there is room for two, which are packed in turn.
    in_turn: bool,
    /// Whether they are packed already.
    packed: bool,
}

impl PanelsOfB {
    /// Where the panel with this number is.
    fn panel(&self, number: usize) -> *mut f32 {
        self.first.wrapping_add(if self.in_turn { number % 2 } else { number } * self.len)
    }
}

impl<E: Epilogue> Kernel for Block<'_, E> {
    type Output = Result<()>;

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> Result<()> {
        isa.tile(self)
    }
}

impl<E: Epilogue> TileKernel for Block<'_, E> {
    type Output = Result<()>;

    #[inline(always)]
    fn run<I: Isa, const MR: usize, const MR1: usize, const NV: usize>(self, isa: I) -> Result<()> {
        let b = &self.product.b;
        let mut scratch = scratch::take();
        let small = self.product.k.saturating_mul(self.part.cols) <= SMALL;
        let most = if small && b.is_copied() { SMALL_ROWS } else { FEW_ROWS };
        let few = self.part.rows <= most && self.product.k > 0 && E::OVERWRITES;
        if few && (b.is_copied() || b.dropped_rows().is_some()) {
            self.few_rows(isa, &mut scratch)
        } else {
            self.packed::<I, MR, NV>(isa, &mut scratch)
        }
    }
}

impl<E: Epilogue> Block<'_, E> {
    /// The five loops, each around the next. As in BLIS a panel of B is packed once for all blocks of A, if
    /// there are enough of them; else anew for each, just before its only use.
    #[inline(always)]
    fn packed<I: Isa, const MR: usize, const NV: usize>(
        &self,
        isa: I,
        scratch: &mut Scratch,
    ) -> Result<()> {
        let Part { row, rows, col, cols } = self.part;
        let product = self.product;
        let nr = NV * I::LANES;
        let (kc, mc) = self.block_sizes(MR);
        let keeps = self.keeps_b(rows.div_ceil(mc));
        let nc = if keeps { column_block(kc).min(padded(cols, nr)) } else { cols };
        let computed = |operand: &Operand, n: usize| if operand.is_computed() { n } else { 0 };
        let operand = computed(&product.a, mc * kc).max(computed(&product.b, nr * kc));
        // Those of the epilogue, and those of two groups of a dropped B.
        let bits = mc + computed(&product.b, 2 * kc.next_multiple_of(32));
        grow(&mut scratch.bits, bits * GROUP / 32)?;
        let (mut tile, mut waiting) = (Sums::ZERO, Sums::ZERO);
        let buffers = Buffers {
            a: scratch.a.grow(mc * kc)?.as_mut_ptr(),
            b: scratch.b.grow(nr + kc * if keeps { nc } else { 2 * nr })?.as_mut_ptr(),
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
                    let b = self.panels_of_b(depth, jc, nr, buffers.b, keeps.then_some(ic > row));
                    self.pack_a::<I, MR>(isa, depth, ic, block.rows, buffers);
                    self.tiles::<I, MR, NV>(isa, depth, block, buffers, b, &mut scratch.bits);
                }
            }
        }
        Ok(())
    }

    /// KC and MC.
    fn block_sizes(&self, mr: usize) -> (usize, usize) {
        let (rows, k) = (self.part.rows, self.product.k);
        // Panels packed before know nothing of the rows they meet.
        let shallow = self.product.b.panels().is_none().then_some(rows);
        let (mut kc, mut mc) = block_sizes(mr, shallow, k);
        if !E::OVERWRITES {
            // Nothing can wait in the output, so there is one block of k.
            mc = (kc * mc / k.max(1) / mr * mr).max(mr);
            kc = k.max(1);
        }
        (kc, balanced(rows, mc, mr))
    }

    /// Whether panels of B stay packed for all `blocks` blocks of A. Writing them costs more than copying
    /// them in passing twice, but less than packing them twice where they cannot just be copied.
    fn keeps_b(&self, blocks: usize) -> bool {
        let b = &self.product.b;
        b.panels().is_none() && blocks > if b.is_copied() { 2 } else { 1 }
    }

    /// The panels of B from column `col` on; `kept` says whether they stay in `buffer`, and if so, whether
    /// they are there already.
    fn panels_of_b(
        &self,
        depth: Depth,
        col: usize,
        nr: usize,
        buffer: *mut f32,
        kept: Option<bool>,
    ) -> PanelsOfB {
        let product = self.product;
        let (first, in_turn, packed) = match product.b.panels() {
            // Those of the whole matrix, a block of k after the other.
            Some(panels) => {
                let before = depth.first * padded(product.n, nr) + col * depth.count;
                (panels.wrapping_add(before).cast_mut(), false, true)
            }
            None => (buffer.wrapping_add(nr), kept.is_none(), kept == Some(true)),
        };
        PanelsOfB { first, len: depth.count * nr, idle: buffer, in_turn, packed }
    }

    /// Packs all panels of a block of A.
    #[inline(always)]
    fn pack_a<I: Isa, const MR: usize>(
        &self,
        isa: I,
        depth: Depth,
        row: usize,
        rows: usize,
        buffers: Buffers,
    ) {
        if depth.count == 0 {
            return;
        }
        let part = Part { row, rows, col: depth.first, cols: depth.count };
        let (operand, buffer, out) = (self.product.a, buffers.operand, buffers.a);
        isa.vectorize(PackA { operand, part, buffer, out, mr: MR });
    }

    /// B, and if it has a dropout, the bits of the group of columns from `jg` on, in `bits`.
    #[inline(always)]
    fn factor<I: Isa>(
        &self,
        isa: I,
        depth: Depth,
        (jg, end): (usize, usize),
        bits: &mut [u32],
    ) -> Operand {
        if jg >= end {
            return self.product.b;
        }
        let cols = GROUP.min(end - jg);
        let part = Part { row: depth.first, rows: depth.count, col: jg, cols };
        // SAFETY: the part lies in B; blocks start at multiples of 32; there is room for a group's bits.
        unsafe { self.product.b.with_bits(isa, part, bits) }
    }

    /// What `tiles` tiles do in passing for the panel of B from column `col` on, which is, or will be,
    /// packed at `to`.
    #[inline(always)]
    fn packing(
        operand: Operand,
        (depth, nr): (Depth, usize),
        (col, end): (usize, usize),
        b: PanelsOfB,
        (tiles, to): (usize, *mut f32),
    ) -> Packing {
        if b.packed && col < end {
            return Packing::prefetch(tiles, to, (depth.count, nr), b.idle);
        }
        if !b.packed && col + nr <= end {
            let source = operand.source();
            let from = (source.near(depth.first, col), source.row_step);
            let copy = Packing::copy(tiles, from, (depth.count, nr), to, b.idle);
            if operand.is_copied() {
                return copy;
            }
            if operand.is_transposed() {
                return Packing::columns(from.0, source.col_step, nr, b.idle);
            }
            if let Some(keep) = operand.dropped_rows().and_then(|b| b.keep(depth.first, col)) {
                return copy.dropped(keep);
            }
        }
        Packing::nothing(b.idle)
    }

    /// Packs the panel of B from column `col` on, from row `done` on.
    #[inline(always)]
    fn pack_b<I: Isa, const NV: usize>(
        operand: Operand,
        isa: I,
        depth: Depth,
        (col, cols): (usize, usize),
        done: usize,
        (to, buffer): (*mut f32, *mut f32),
    ) {
        if done < depth.count {
            let nr = NV * I::LANES;
            let part = Part { row: depth.first + done, rows: depth.count - done, col, cols };
            let out = to.wrapping_add(done * nr);
            isa.vectorize(PackB { operand, part, buffer, out, nr });
        }
    }

    /// The tiles of a block of A. A panel of B is fetched by the tiles of the one before; mask bits are made a
    /// group of columns at a time, just before their tiles.
    #[inline(always)]
    fn tiles<I: Isa, const MR: usize, const NV: usize>(
        &self,
        isa: I,
        depth: Depth,
        block: Part,
        buffers: Buffers,
        b: PanelsOfB,
        scratch: &mut [u32],
    ) {
        let nr = NV * I::LANES;
        let product = *self.product;
        let end = block.col + block.cols;
        let Buffers { a, operand, tile, waiting, .. } = buffers;
        let mut next = Packing::nothing(b.idle);
        let mut deferred = Deferred::none(product.epilogue, waiting);
        let tiles = block.rows.div_ceil(MR);
        let (scratch, bits_of_b) = scratch.split_at_mut(block.rows * GROUP / 32);
        let (these, others) = bits_of_b.split_at_mut(bits_of_b.len() / 2);
        let mut bits_of_b = [these, others];
        let to_pack = if b.packed { block.col } else { end };
        let mut factor = self.factor(isa, depth, (block.col, to_pack), bits_of_b[0]);
        // Groups of columns.
        for jg in (block.col..end).step_by(GROUP) {
            let cols = GROUP.min(end - jg);
            let mut bits = Tile { words: scratch.as_ptr(), stride: 0 };
            if E::MASKED && depth.ends {
                // SAFETY: the mask has the shape of C, and blocks start at whole words.
                bits = unsafe { product.bits.tile(isa, Part { col: jg, cols, ..block }, scratch) };
            }
            // The bits of the next group: its first panel is packed while this one's last is multiplied.
            bits_of_b.reverse();
            let next_factor = self.factor(isa, depth, (jg + GROUP, to_pack), bits_of_b[0]);
            // Loop 2: panels of B.
            for jr in (0..cols).step_by(nr) {
                let (col, cols) = (jg + jr, nr.min(cols - jr));
                let number = (col - block.col) / nr;
                let (this, other) = (b.panel(number), b.panel(number + 1));
                if !b.packed {
                    let (panel, done) = ((col, cols), next.done());
                    Self::pack_b::<I, NV>(factor, isa, depth, panel, done, (this, operand));
                }
                let of_next = if jr + nr < GROUP { factor } else { next_factor };
                next = Self::packing(of_next, (depth, nr), (col + nr, end), b, (tiles, other));
                // Loop 1: panels of A.
                for (start, rows) in panels(block.rows, MR) {
                    // SAFETY: panels stand one after the other in their buffers, `depth.count` floats
                    // a row or column; the bits are those of the group. The tile lies in the block,
                    // which is this task's alone.
                    unsafe {
                        let task = Task {
                            depth,
                            part: Part { row: block.row + start, rows, col, cols },
                            panels: Panels {
                                a: a.add(start * depth.count),
                                b: this,
                                k: depth.count,
                                next: next.next(),
                            },
                            bits: Tile {
                                words: bits.words.add(start * bits.stride + jr / 32),
                                ..bits
                            },
                            shift: jr % 32,
                        };
                        product.tile::<I, MR, NV>(isa, task, &mut deferred, tile);
                    }
                }
            }
            deferred.finish::<I, NV>(isa);
            factor = next_factor;
        }
    }

    /// Rows too few to pay for packing B: sums grow in C, from which the epilogue takes them.
    #[inline(always)]
    fn few_rows<I: Isa>(&self, isa: I, scratch: &mut Scratch) -> Result<()> {
        let Part { row, rows, col, cols } = self.part;
        let product = self.product;
        let a = Part { row, rows, col: 0, cols: product.k };
        let computed = if product.a.is_computed() { rows * product.k } else { 0 };
        let buffer = scratch.operand.grow(computed)?.as_mut_ptr();
        // SAFETY: the part lies in A, B and C, of which C's is this task's alone.
        unsafe {
            let (a, a_row_step, a_k_step) = product.a.elements(isa, a, buffer);
            let b = product.b.source();
            let partial = product.partial;
            isa.vectorize(FewRows {
                a,
                a_row_step,
                a_k_step,
                b: b.at(0, col),
                b_step: b.row_step,
                bias: product.bias.map(|bias| bias.add(col)),
                dropped: product.b.dropped_rows(),
                col,
                c: partial.at(row, col),
                c_step: partial.row_step,
                rows,
                cols,
                k: product.k,
            });
            let most = 32 * (TILE_WORDS / rows);
            grow(&mut scratch.bits, rows * most.min(cols).div_ceil(32))?;
            for c in (0..cols).step_by(most) {
                let cols = most.min(cols - c);
                let part = Part { row, rows, col: col + c, cols };
                let bits = product.bits.tile(isa, part, &mut scratch.bits);
                let depth = Depth { first: 0, count: 0, starts: true, ends: true };
                let next = Packing::nothing(partial.at(row, col + c)).next();
                let panels = Panels { a, b: a, k: 0, next };
                let task = Task { depth, part, panels, bits, shift: 0 };
                product.finish(isa, task, partial.at(row, col + c), partial.row_step);
            }
        }
        Ok(())
    }
}
