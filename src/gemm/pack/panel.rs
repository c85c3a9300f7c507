//! Panels: the elements of A and B in the order in which the tile reads them.
//!
//! A panel has `width` rows of A (or columns of B) by `k`; element (i, p) is at `p * step + i`.

use wide::bytemuck::cast;
use wide::{f32x4, u64x2};

use super::super::GROUP;
use super::super::blocking::panels;
use super::Operand;
use crate::isa::{Isa, Kernel};
use crate::threads::Part;

/// Rows of B that are prefetched before they are copied: 8 lines each, as many as the fill buffers
/// of the first two levels hold.
const ROWS_AHEAD: usize = 8;

/// Steps of k that are transposed for all columns of a panel before the next: 4 KiB of a panel of
/// 16, which stay in the level-1 cache until all of a line is written.
const STRETCH: usize = 64;

/// A panel's elements where they are: (i, p) at `first + i * outer_step + p * k_step`, of which one
/// step is 1.
#[derive(Clone, Copy)]
struct Strip {
    first: *const f32,
    outer_step: usize,
    k_step: usize,
    width: usize,
    k: usize,
}

/// `cols` in whole panels.
pub(in crate::gemm) fn padded(cols: usize, nr: usize) -> usize {
    cols.next_multiple_of(nr)
}

/// Packs a part of A as panels of at most `mr` rows, one after the other.
pub(in crate::gemm) struct PackA {
    operand: Operand,
    part: Part,
    buffer: *mut f32,
    out: *mut f32,
    mr: usize,
}

impl PackA {
    /// # Safety
    ///
    /// - The part lies in A, which is alive.
    /// - `buffer` has room for the part if its elements are computed, and `out` for the panels.
    pub(in crate::gemm) unsafe fn new(
        operand: Operand,
        part: Part,
        buffer: *mut f32,
        (out, mr): (*mut f32, usize),
    ) -> Self {
        Self { operand, part, buffer, out, mr }
    }
}

impl Kernel for PackA {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Self { operand, part, buffer, out, mr } = self;
        // SAFETY: `PackA::new`.
        unsafe {
            let (first, outer_step, k_step) = operand.elements(isa, part, buffer);
            for (start, width) in panels(part.rows, mr) {
                let first = first.add(start * outer_step);
                let strip = Strip { first, outer_step, k_step, width, k: part.cols };
                pack(isa, strip, out.add(start * part.cols), width);
            }
        }
    }
}

/// Packs one panel of A, whose elements have been computed.
pub(in crate::gemm) struct PackPanel {
    strip: Strip,
    out: *mut f32,
}

impl PackPanel {
    /// The panel of `width` rows of A from `first` on, with the steps to the next row and column.
    ///
    /// # Safety
    ///
    /// The elements, `width` x `k`, are valid for reads, and `out` for writes of as many floats.
    pub(in crate::gemm) unsafe fn new(
        (first, outer_step, k_step): (*const f32, usize, usize),
        (width, k): (usize, usize),
        out: *mut f32,
    ) -> Self {
        Self { strip: Strip { first, outer_step, k_step, width, k }, out }
    }
}

impl Kernel for PackPanel {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        // SAFETY: `PackPanel::new`.
        unsafe { pack(isa, self.strip, self.out, self.strip.width) };
    }
}

/// Packs a part of B as panels of `nr` columns, one after the other, the last filled with zeros.
pub(in crate::gemm) struct PackB {
    operand: Operand,
    part: Part,
    buffer: *mut f32,
    out: *mut f32,
    nr: usize,
}

impl PackB {
    /// # Safety
    ///
    /// - The part lies in B, which is alive; if bits of its mask were made in advance, among those.
    /// - `buffer` has room for the part if its elements are computed, and `out` for the panels.
    pub(in crate::gemm) unsafe fn new(
        operand: Operand,
        part: Part,
        buffer: *mut f32,
        (out, nr): (*mut f32, usize),
    ) -> Self {
        Self { operand, part, buffer, out, nr }
    }
}

impl Kernel for PackB {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Self { operand, part, buffer, out, nr } = self;
        // SAFETY: `PackB::new`.
        unsafe {
            if let Some(masked) = operand.masked_rows() {
                for start in (0..part.cols).step_by(nr) {
                    let col = part.col + start;
                    let panel = Part { col, cols: nr.min(part.cols - start), ..part };
                    masked.pack(isa, panel, out.add(start * part.rows), nr);
                }
                return;
            }
            let (first, k_step, outer_step) = operand.elements(isa, part, buffer);
            let mut start = 0;
            if outer_step == 1 {
                // Rows of many panels at a time: whole stretches of a row of B, line after line.
                let whole = part.cols / nr * nr;
                while start < whole {
                    let cols = GROUP.min(whole - start);
                    let out = out.add(start * part.rows);
                    copy_panels(isa, first.add(start), k_step, part.rows, cols, out, nr);
                    start += cols;
                }
            }
            for start in (start..part.cols).step_by(nr) {
                let first = first.add(start * outer_step);
                let width = nr.min(part.cols - start);
                let strip = Strip { first, outer_step, k_step, width, k: part.rows };
                pack(isa, strip, out.add(start * part.rows), nr);
            }
        }
    }
}

/// Packs whole panels of a matrix whose rows are contiguous.
///
/// # Safety
///
/// `cols` is a multiple of `nr`, which is one of `LANES`; the rows are valid for reads, `out` for
/// writes.
#[inline(always)]
unsafe fn copy_panels<I: Isa>(
    isa: I,
    first: *const f32,
    k_step: usize,
    k: usize,
    cols: usize,
    out: *mut f32,
    nr: usize,
) {
    for p in 0..k {
        // SAFETY: the caller's promise.
        unsafe {
            let row = first.add(p * k_step);
            let ahead = row.wrapping_add(ROWS_AHEAD.wrapping_mul(k_step));
            for line in (0..cols).step_by(16) {
                isa.prefetch(ahead.wrapping_add(line));
            }
            for start in (0..cols).step_by(nr) {
                let to = out.add(start * k + p * nr);
                for i in (0..nr).step_by(I::LANES) {
                    isa.store(to.add(i), isa.load(row.add(start + i)));
                }
            }
        }
    }
}

/// Packs a panel of `step` columns; those from `strip.width` on are filled with zeros.
///
/// # Safety
///
/// The strip is valid for reads, `out` for writes of `k * step` floats; `strip.width <= step`.
#[inline(always)]
unsafe fn pack<I: Isa>(isa: I, strip: Strip, out: *mut f32, step: usize) {
    // SAFETY: the caller's promise.
    unsafe {
        if strip.width < step {
            for p in 0..strip.k {
                out.add(p * step + strip.width).write_bytes(0, step - strip.width);
            }
        }
        if strip.outer_step == 1 {
            copy(isa, strip, out, step);
        } else {
            transpose(strip, out, step);
        }
    }
}

/// Rows of the panel stand in memory as they are needed.
///
/// # Safety
///
/// As for `pack`.
#[inline(always)]
unsafe fn copy<I: Isa>(isa: I, strip: Strip, out: *mut f32, step: usize) {
    let Strip { first, k_step, width, k, .. } = strip;
    // SAFETY: the caller's promise.
    unsafe {
        for p in 0..k {
            let (from, to) = (first.add(p * k_step), out.add(p * step));
            let mut i = 0;
            while i + I::LANES <= width {
                isa.store(to.add(i), isa.load(from.add(i)));
                i += I::LANES;
            }
            while i + 4 <= width {
                to.add(i)
                    .cast::<[f32; 4]>()
                    .write_unaligned(from.add(i).cast::<[f32; 4]>().read_unaligned());
                i += 4;
            }
            while i < width {
                *to.add(i) = *from.add(i);
                i += 1;
            }
        }
    }
}

/// Columns of the panel stand in memory one after the other: blocks of 4 x 4 are transposed in
/// registers. 128-bit vectors do as well as wider ones here, since loads and stores bound it.
///
/// # Safety
///
/// As for `pack`.
#[inline(always)]
unsafe fn transpose(strip: Strip, out: *mut f32, step: usize) {
    let Strip { first, outer_step, k_step, width, k } = strip;
    let whole = if k_step == 1 { k / 4 * 4 } else { 0 };
    // SAFETY: the caller's promise.
    unsafe {
        for p in (0..whole).step_by(STRETCH) {
            let (first, k) = (first.add(p), STRETCH.min(whole - p));
            let out = out.add(p * step);
            let mut i = 0;
            while i + 4 <= width {
                let first = first.add(i * outer_step);
                transpose_columns::<4>(first, outer_step, k, out.add(i), step);
                i += 4;
            }
            if i + 2 <= width {
                let first = first.add(i * outer_step);
                transpose_columns::<2>(first, outer_step, k, out.add(i), step);
            }
        }
        for i in 0..width {
            let done = if i < width / 2 * 2 { whole } else { 0 };
            for p in done..k {
                *out.add(p * step + i) = *first.add(i * outer_step + p * k_step);
            }
        }
    }
}

/// `N` (4 or 2) columns of a panel, `k` (a multiple of 4) elements each.
///
/// # Safety
///
/// The columns are valid for reads of `k` floats, `out` for writes of `k` rows of `N` floats.
#[inline(always)]
unsafe fn transpose_columns<const N: usize>(
    first: *const f32,
    outer_step: usize,
    k: usize,
    out: *mut f32,
    step: usize,
) {
    // Where there are two columns, the block's other two are these again, and are not stored.
    let (mut a, mut b) = (first, first.wrapping_add(outer_step));
    let (mut c, mut d) = match N {
        4 => (first.wrapping_add(2 * outer_step), first.wrapping_add(3 * outer_step)),
        _ => (a, b),
    };
    let mut to = out;
    let mut p = 0;
    while p < k {
        // SAFETY: the caller's promise.
        unsafe {
            let rows = transpose_4([a, b, c, d].map(|x| x.cast::<[f32; 4]>().read_unaligned()));
            let mut q = 0;
            while q < 4 {
                let [x, y, _, _] = rows[q];
                match N {
                    4 => to.cast::<[f32; 4]>().write_unaligned(rows[q]),
                    _ => to.cast::<[f32; 2]>().write_unaligned([x, y]),
                }
                to = to.wrapping_add(step);
                q += 1;
            }
        }
        (a, b) = (a.wrapping_add(4), b.wrapping_add(4));
        (c, d) = (c.wrapping_add(4), d.wrapping_add(4));
        p += 4;
    }
}

#[inline(always)]
fn transpose_4(columns: [[f32; 4]; 4]) -> [[f32; 4]; 4] {
    let [a, b, c, d] = columns.map(f32x4::from);
    let pairs = |v: f32x4| -> u64x2 { cast(v) };
    let (ab_low, cd_low) = (pairs(a.unpack_lo(b)), pairs(c.unpack_lo(d)));
    let (ab_high, cd_high) = (pairs(a.unpack_hi(b)), pairs(c.unpack_hi(d)));
    [
        cast(ab_low.unpack_lo(cd_low)),
        cast(ab_low.unpack_hi(cd_low)),
        cast(ab_high.unpack_lo(cd_high)),
        cast(ab_high.unpack_hi(cd_high)),
    ]
}
