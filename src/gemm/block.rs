//! One task's block of C: the five loops around the tile.

use super::blocking::{Depth, Lines, balanced, block_sizes, panels};
use super::epilogue::Epilogue;
use super::few_rows::{FEW_ROWS, FewRows};
use super::pack::{PackA, PackB, padded};
use super::scratch::{self, Scratch};
use super::tile::{Ahead, EdgeTile, Panels, TILE, accumulate};
use super::{GROUP, Operand, Product};
use crate::isa::{Isa, Kernel, TileKernel, load};
use crate::mask::{TILE_WORDS, Tile};
use crate::threads::Part;

/// A block of the output.
pub(super) struct Block<'a, E> {
    pub(super) product: &'a Product<E>,
    pub(super) part: Part,
}

/// One tile's work: where it is, what it reads, and its mask bits, from bit `shift` of each row on.
#[derive(Clone, Copy)]
struct Task {
    depth: Depth,
    part: Part,
    panels: Panels,
    bits: Tile,
    shift: usize,
}

/// The buffers of a block.
#[derive(Clone, Copy)]
struct Buffers {
    a: *mut f32,
    b: *mut f32,
    /// Elements of an operand that are computed before they are packed.
    operand: *mut f32,
    /// An edge tile.
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
        if few && b.is_plain() && b.source().col_step == 1 {
            self.few_rows(isa, &mut scratch);
        } else {
            self.packed::<I, MR, NV>(isa, &mut scratch);
        }
        scratch::put_back(scratch);
    }
}

impl<E: Epilogue> Block<'_, E> {
    /// The five loops, each around the next. Unlike in BLIS rows are outermost, and a group of columns
    /// of B is packed for each block of A just before its only use.
    #[inline(always)]
    fn packed<I: Isa, const MR: usize, const NV: usize>(&self, isa: I, scratch: &mut Scratch) {
        let Part { row, rows, col, cols } = self.part;
        let product = self.product;
        // Panels packed before know nothing of the rows they meet.
        let shallow = product.b.panels().is_none().then_some(rows);
        let (kc_most, mc_most) = block_sizes(MR, shallow);
        let (kc, mc_most) = if E::OVERWRITES {
            (balanced(product.k, kc_most, 32), mc_most)
        } else {
            // Nothing can wait in the output, so there is one block of k.
            let kc = product.k.max(1);
            (kc, (kc_most * mc_most / kc / MR * MR).max(MR))
        };
        let mc = balanced(rows, mc_most, MR);
        let b_cols = GROUP.min(cols);
        let computed = |operand: &Operand, n: usize| if operand.is_computed() { n } else { 0 };
        let operand = computed(&product.a, mc * kc).max(computed(&product.b, b_cols * kc));
        let bits = mc * GROUP / 32;
        scratch.bits.resize(scratch.bits.len().max(bits), 0);
        let mut tile = [0.0; TILE];
        let buffers = Buffers {
            a: scratch.a.room(mc * kc),
            b: scratch.b.room(b_cols.next_multiple_of(NV * I::LANES) * kc),
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

    /// Packs panels of B.
    #[inline(always)]
    fn pack_b<I: Isa, const NV: usize>(
        &self,
        isa: I,
        depth: Depth,
        col: usize,
        cols: usize,
        buffers: Buffers,
    ) {
        if depth.count == 0 {
            return;
        }
        let part = Part { row: depth.first, rows: depth.count, col, cols };
        let (operand, buffer, out) = (self.product.b, buffers.operand, buffers.b);
        isa.vectorize(PackB { operand, part, buffer, out, nr: NV * I::LANES });
    }

    /// The tiles of a block of A. Panels of B and mask bits are made a group of columns at a time, just
    /// before their tiles.
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
        // Loop 3: groups of columns.
        for jg in (block.col..block.col + block.cols).step_by(GROUP) {
            let cols = GROUP.min(block.col + block.cols - jg);
            // The panels of the group, `depth.count` floats a column: in the buffer, or among those
            // of the whole matrix, which has a block of k after the other.
            let b_panels = match self.product.b.panels() {
                Some(panels) => {
                    panels.wrapping_add(depth.first * padded(self.product.n, nr) + jg * depth.count)
                }
                None => {
                    self.pack_b::<I, NV>(isa, depth, jg, cols, buffers);
                    buffers.b.cast_const()
                }
            };
            let mut bits = Tile { words: scratch.as_ptr(), stride: 0 };
            if E::MASKED && depth.ends {
                // SAFETY: the mask has the shape of C, and blocks start at whole words.
                bits = unsafe {
                    self.product.bits.tile(isa, Part { col: jg, cols, ..block }, scratch)
                };
            }
            let mut ahead = Lines::after(&self.product.b, depth, jg, block.col + block.cols);
            // Loop 2: panels of B.
            for jr in (0..cols).step_by(nr) {
                // Loop 1: panels of A.
                for (start, rows) in panels(block.rows, MR) {
                    let part = Part {
                        row: block.row + start,
                        rows,
                        col: jg + jr,
                        cols: nr.min(cols - jr),
                    };
                    // SAFETY: panels stand one after the other in their buffers, `depth.count` floats
                    // a row or column; the bits are those of the group. The tile lies in the block,
                    // which is this task's alone.
                    unsafe {
                        let a = buffers.a.add(start * depth.count);
                        let b = b_panels.add(jr * depth.count);
                        let words = bits.words.add(start * bits.stride + jr / 32);
                        let task = Task {
                            depth,
                            part,
                            panels: Panels {
                                a,
                                b,
                                b_step: nr,
                                k: depth.count,
                                ahead: ahead.next(),
                            },
                            bits: Tile { words, ..bits },
                            shift: jr % 32,
                        };
                        if rows == MR && part.cols == nr {
                            self.full_tile::<I, MR, NV>(isa, task);
                        } else {
                            self.edge_tile::<I, NV>(isa, task, buffers.tile);
                        }
                    }
                }
            }
        }
    }

    /// A whole tile: sums start, grow and end in registers.
    ///
    /// # Safety
    ///
    /// The tile lies in C, and no other task accesses it; panels and bits are its own.
    #[inline(always)]
    unsafe fn full_tile<I: Isa, const MR: usize, const NV: usize>(&self, isa: I, task: Task) {
        let Task { depth, part: Part { row, col, .. }, bits, shift, .. } = task;
        let product = self.product;
        let mut acc = [[isa.splat(0.0); NV]; MR];
        // The next tile is below; the rows of C are too far apart for the hardware to guess that.
        for r in 0..MR {
            for v in 0..NV {
                isa.prefetch(product.partial.near(row + MR + r, col + v * I::LANES));
            }
            isa.prefetch(product.partial.near(row + MR + r, col + NV * I::LANES - 1));
        }
        // SAFETY: the caller's promise.
        unsafe {
            if !depth.starts {
                for (r, sums) in acc.iter_mut().enumerate() {
                    for (v, sum) in sums.iter_mut().enumerate() {
                        *sum = isa.load(product.partial.at(row + r, col + v * I::LANES));
                    }
                }
            } else if let Some(bias) = product.bias {
                for sums in &mut acc {
                    for (v, sum) in sums.iter_mut().enumerate() {
                        *sum = isa.load(bias.add(col + v * I::LANES));
                    }
                }
            }
            accumulate(isa, Panels { b_step: NV * I::LANES, ..task.panels }, &mut acc);
            if depth.ends && !E::LONG {
                for (r, sums) in acc.into_iter().enumerate() {
                    let word =
                        if E::MASKED { *bits.words.add(r * bits.stride) >> shift } else { 0 };
                    let word = isa.word(word);
                    for (v, sum) in sums.into_iter().enumerate() {
                        let (at, keep) = (col + v * I::LANES, isa.lanes(word, v * I::LANES));
                        product.epilogue.finish(isa, row + r, at, I::LANES, sum, keep);
                    }
                }
                return;
            }
            for (r, sums) in acc.into_iter().enumerate() {
                for (v, sum) in sums.into_iter().enumerate() {
                    isa.store(product.partial.at(row + r, col + v * I::LANES), sum);
                }
            }
            if depth.ends {
                self.finish(isa, task, product.partial.at(row, col), product.partial.row_step);
            }
        }
    }

    /// What does not fill a tile, by way of `tile`.
    ///
    /// # Safety
    ///
    /// As for `full_tile`; `tile` has room for any tile.
    #[inline(always)]
    unsafe fn edge_tile<I: Isa, const NV: usize>(&self, isa: I, task: Task, tile: *mut f32) {
        let Task { depth, part, panels, .. } = task;
        let partial = self.product.partial;
        let step = NV * I::LANES;
        // SAFETY: the caller's promise; lanes beyond the tile's columns stay in `tile`.
        unsafe {
            for r in 0..part.rows {
                let to = tile.add(r * step);
                match self.product.bias {
                    _ if !depth.starts => {
                        partial.at(part.row + r, part.col).copy_to_nonoverlapping(to, part.cols)
                    }
                    Some(bias) => bias.add(part.col).copy_to_nonoverlapping(to, part.cols),
                    None => to.write_bytes(0, part.cols),
                }
            }
            let vectors = part.cols.div_ceil(I::LANES);
            isa.vectorize(EdgeTile { panels, rows: part.rows, vectors, tile, step });
            if depth.ends {
                self.finish(isa, task, tile, step);
            } else {
                for r in 0..part.rows {
                    let to = partial.at(part.row + r, part.col);
                    to.copy_from_nonoverlapping(tile.add(r * step), part.cols);
                }
            }
        }
    }

    /// Hands sums in memory, rows `step` apart, to the epilogue.
    ///
    /// # Safety
    ///
    /// As for `full_tile`; `sums` holds the tile.
    #[inline(always)]
    unsafe fn finish<I: Isa>(&self, isa: I, task: Task, sums: *const f32, step: usize) {
        let epilogue = self.product.epilogue;
        isa.vectorize(Finish { epilogue, task, sums, step });
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
                let ahead = Ahead { at: a, step: 0 };
                let panels = Panels { a, b: a, b_step: 0, k: 0, ahead };
                let task = Task { depth, part, panels, bits, shift: 0 };
                self.finish(isa, task, partial.at(row, col + c), partial.row_step);
            }
        }
    }
}

/// The epilogue for sums in memory.
struct Finish<E> {
    epilogue: E,
    task: Task,
    sums: *const f32,
    step: usize,
}

impl<E: Epilogue> Kernel for Finish<E> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Task { part, bits, .. } = self.task;
        for r in 0..part.rows {
            // SAFETY: whoever made this kernel promised that the tile lies in the matrices, that its
            // bits follow each other from `shift` on, and that `sums` holds its rows.
            unsafe {
                let mut words = bits.words.wrapping_add(r * bits.stride);
                let mut shift = self.task.shift;
                let mut col = 0;
                while col < part.cols {
                    let bits = if E::MASKED { *words >> shift } else { 0 };
                    let keep = isa.lanes(isa.word(bits), 0);
                    let n = I::LANES.min(part.cols - col);
                    let sum = load(isa, self.sums.add(r * self.step + col), n);
                    self.epilogue.finish(isa, part.row + r, part.col + col, n, sum, keep);
                    col += I::LANES;
                    shift += I::LANES;
                    if shift == 32 {
                        (words, shift) = (words.wrapping_add(1), 0);
                    }
                }
            }
        }
    }
}
