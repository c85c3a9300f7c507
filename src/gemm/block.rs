//! One task's block of C: the five loops around the tile.

use super::blocking::{Depth, Packing, balanced, block_sizes, panels};
use super::epilogue::Epilogue;
use super::few_rows::{FEW_ROWS, FewRows};
use super::pack::{PackA, PackB, padded};
use super::scratch::{self, Scratch};
use super::task::Task;
use super::tile::{Panels, TILE};
use super::{GROUP, Operand, Product};
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
    /// The panel of B that is multiplied, and the next one.
    b: [*mut f32; 2],
    /// A row that is copied where there is nothing to pack.
    idle: *mut f32,
    /// Elements of an operand that are computed before they are packed.
    operand: *mut f32,
    /// A tile whose sums do not stay in registers.
    tile: *mut f32,
}

impl<E: Epilogue> Kernel for Block<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        isa.tile(self);
    }
}

impl<E: Epilogue> TileKernel for Block<'_, E> {
    #[inline(always)]
    fn run<I: Isa, const MR: usize, const NV: usize>(self, isa: I) {
        let b = &self.product.b;
        let mut scratch = scratch::take();
        let few = self.part.rows <= FEW_ROWS && self.product.k > 0 && E::OVERWRITES;
        let by_rows = b.dropped_rows().is_some() || b.is_plain() && b.source().col_step == 1;
        if few && by_rows {
            self.few_rows(isa, &mut scratch);
        } else {
            self.packed::<I, MR, NV>(isa, &mut scratch);
        }
        scratch::put_back(scratch);
    }
}

impl<E: Epilogue> Block<'_, E> {
    /// The five loops, each around the next. Unlike in BLIS rows are outermost, and panels of B are
    /// packed anew for each block of A, just before their only use: in passing, that costs nothing.
    #[inline(always)]
    fn packed<I: Isa, const MR: usize, const NV: usize>(&self, isa: I, scratch: &mut Scratch) {
        let Part { row, rows, col, cols } = self.part;
        let product = self.product;
        // Panels packed before know nothing of the rows they meet.
        let shallow = product.b.panels().is_none().then_some(rows);
        let (mut kc, mut mc_most) = block_sizes(MR, shallow, product.k);
        if !E::OVERWRITES {
            // Nothing can wait in the output, so there is one block of k.
            let deeper = product.k.max(1);
            mc_most = (kc * mc_most / deeper / MR * MR).max(MR);
            kc = deeper;
        }
        let mc = balanced(rows, mc_most, MR);
        let nr = NV * I::LANES;
        let computed = |operand: &Operand, n: usize| if operand.is_computed() { n } else { 0 };
        let operand = computed(&product.a, mc * kc).max(computed(&product.b, nr * kc));
        // Those of the epilogue, and those of two groups of a dropped B.
        let bits = (mc + 2 * kc.next_multiple_of(32)) * GROUP / 32;
        scratch.bits.resize(scratch.bits.len().max(bits), 0);
        let mut tile = [0.0; TILE];
        let b = scratch.b.room((2 * kc + 1) * nr);
        let buffers = Buffers {
            a: scratch.a.room(mc * kc),
            b: [b, b.wrapping_add(kc * nr)],
            idle: b.wrapping_add(2 * kc * nr),
            operand: scratch.operand.room(operand),
            tile: tile.as_mut_ptr(),
        };
        // Loop 5: rows of C.
        for ic in (row..row + rows).step_by(mc) {
            let rows = mc.min(row + rows - ic);
            let block = Part { row: ic, rows, col, cols };
            // Loop 4: k; once where it is 0, since sums start from the bias.
            for pc in (0..product.k.max(1)).step_by(kc) {
                let count = kc.min(product.k - pc);
                let ends = pc + count == product.k;
                let depth = Depth { first: pc, count, starts: pc == 0, ends };
                self.pack_a::<I, MR>(isa, depth, ic, rows, buffers);
                self.tiles::<I, MR, NV>(isa, depth, block, buffers, &mut scratch.bits);
            }
        }
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

    /// A panel of B to be packed in passing to `to`, if its rows are those of a matrix in memory.
    #[inline(always)]
    fn packing(
        operand: Operand,
        depth: Depth,
        (col, end): (usize, usize),
        nr: usize,
        to: *mut f32,
        idle: *mut f32,
    ) -> Packing {
        let source = operand.source();
        if col + nr <= end {
            let from = (source.near(depth.first, col), source.row_step);
            let packing = Packing::new(from, (depth.count, nr), to, idle);
            if operand.is_plain() && source.col_step == 1 {
                return packing;
            }
            if let Some(keep) = operand.dropped_rows().and_then(|b| b.keep(depth.first, col)) {
                return packing.dropped(keep);
            }
        }
        Packing::nothing(idle)
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

    /// The tiles of a block of A. A panel of B is packed by the tiles of the one before; mask bits are made a
    /// group of columns at a time, just before their tiles.
    #[inline(always)]
    fn tiles<I: Isa, const MR: usize, const NV: usize>(
        &self,
        isa: I,
        depth: Depth,
        block: Part,
        buffers: Buffers,
        scratch: &mut [u32],
    ) {
        let nr = NV * I::LANES;
        let product = *self.product;
        let end = block.col + block.cols;
        let Buffers { a, b: [mut this, mut other], idle, operand, tile } = buffers;
        let mut next = Packing::nothing(idle);
        let (scratch, bits_of_b) = scratch.split_at_mut(block.rows * GROUP / 32);
        let (these, others) = bits_of_b.split_at_mut(bits_of_b.len() / 2);
        let mut bits_of_b = [these, others];
        let mut factor = self.factor(isa, depth, (block.col, end), bits_of_b[0]);
        // Loop 3: groups of columns.
        for jg in (block.col..end).step_by(GROUP) {
            let cols = GROUP.min(end - jg);
            let mut bits = Tile { words: scratch.as_ptr(), stride: 0 };
            if E::MASKED && depth.ends {
                // SAFETY: the mask has the shape of C, and blocks start at whole words.
                bits = unsafe { product.bits.tile(isa, Part { col: jg, cols, ..block }, scratch) };
            }
            // The bits of the next group: its first panel is packed while this one's last is multiplied.
            bits_of_b.reverse();
            let next_factor = self.factor(isa, depth, (jg + GROUP, end), bits_of_b[0]);
            // Loop 2: panels of B.
            for jr in (0..cols).step_by(nr) {
                let (col, cols) = (jg + jr, nr.min(cols - jr));
                let b = match product.b.panels() {
                    // Those of the whole matrix, a block of k after the other.
                    Some(panels) => {
                        let before = depth.first * padded(product.n, nr) + col * depth.count;
                        panels.wrapping_add(before)
                    }
                    None => {
                        let panel = (col, cols);
                        Self::pack_b::<I, NV>(
                            factor,
                            isa,
                            depth,
                            panel,
                            next.done,
                            (this, operand),
                        );
                        let of_next = if jr + nr < GROUP { factor } else { next_factor };
                        next = Self::packing(of_next, depth, (col + nr, end), nr, other, idle);
                        this.cast_const()
                    }
                };
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
                                b,
                                k: depth.count,
                                next: next.next(),
                            },
                            bits: Tile {
                                words: bits.words.add(start * bits.stride + jr / 32),
                                ..bits
                            },
                            shift: jr % 32,
                        };
                        product.tile::<I, MR, NV>(isa, task, tile);
                    }
                }
                std::mem::swap(&mut this, &mut other);
            }
            factor = next_factor;
        }
    }

    /// Rows too few to pay for packing B: sums grow in C, from which the epilogue takes them.
    #[inline(always)]
    fn few_rows<I: Isa>(&self, isa: I, scratch: &mut Scratch) {
        let Part { row, rows, col, cols } = self.part;
        let product = self.product;
        let a = Part { row, rows, col: 0, cols: product.k };
        let computed = if product.a.is_computed() { rows * product.k } else { 0 };
        let buffer = scratch.operand.room(computed);
        // SAFETY: the part lies in A, B and C, of which C's is this task's alone.
        unsafe {
            let (a, a_row_step, a_k_step) = product.a.elements(isa, a, buffer);
            let b = product.b.source();
            let partial = product.partial;
            for r in 0..rows {
                let to = partial.at(row + r, col);
                match product.bias {
                    Some(bias) => bias.add(col).copy_to_nonoverlapping(to, cols),
                    None => to.write_bytes(0, cols),
                }
            }
            isa.vectorize(FewRows {
                a,
                a_row_step,
                a_k_step,
                b: b.at(0, col),
                b_step: b.row_step,
                dropped: product.b.dropped_rows(),
                col,
                c: partial.at(row, col),
                c_step: partial.row_step,
                rows,
                cols,
                k: product.k,
            });
            let mut scratch = [0; TILE_WORDS];
            for c in (0..cols).step_by(32 * TILE_WORDS / FEW_ROWS) {
                let cols = (cols - c).min(32 * TILE_WORDS / FEW_ROWS);
                let part = Part { row, rows, col: col + c, cols };
                let bits = product.bits.tile(isa, part, &mut scratch);
                let depth = Depth { first: 0, count: 0, starts: true, ends: true };
                let next = Packing::nothing(partial.at(row, col + c)).next();
                let panels = Panels { a, b: a, k: 0, next };
                let task = Task { depth, part, panels, bits, shift: 0 };
                product.finish(isa, task, partial.at(row, col + c), partial.row_step);
            }
        }
    }
}
