//! Panels: the elements of A and B in the order in which the tile reads them.
//!
//! A panel has `width` rows of A (or columns of B) by `k`; element (i, p) is at `p * step + i`.

use wide::f32x4;

use crate::isa::Isa;

/// A panel's elements where they are: (i, p) at `first + i * outer_step + p * k_step`, of which one
/// step is 1.
#[derive(Clone, Copy)]
pub(super) struct Strip {
    pub(super) first: *const f32,
    pub(super) outer_step: usize,
    pub(super) k_step: usize,
    pub(super) width: usize,
    pub(super) k: usize,
}

/// Packs a panel of `step` columns; those from `strip.width` on are filled with zeros.
///
/// # Safety
///
/// The strip is valid for reads, `out` for writes of `k * step` floats; `strip.width <= step`.
#[inline(always)]
pub(super) unsafe fn pack<I: Isa>(isa: I, strip: Strip, out: *mut f32, step: usize) {
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
                to.add(i).cast::<[f32; 4]>().write_unaligned(
                    from.add(i).cast::<[f32; 4]>().read_unaligned(),
                );
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
/// registers. 128-bit vectors do as well as wider ones here, since the loads and stores bound it.
///
/// # Safety
///
/// As for `pack`.
#[inline(always)]
unsafe fn transpose(strip: Strip, out: *mut f32, step: usize) {
    let Strip { first, outer_step, k_step, width, k } = strip;
    let whole = if k_step == 1 { k / 4 * 4 } else { 0 };
    let mut i = 0;
    // SAFETY: the caller's promise.
    unsafe {
        while i + 2 <= width {
            // Two columns are left: the block's other two are read twice and not stored.
            let four = i + 4 <= width;
            let column = |c: usize| first.add((i + if four { c } else { c % 2 }) * outer_step);
            let columns = [column(0), column(1), column(2), column(3)];
            for p in (0..whole).step_by(4) {
                let block = columns.map(|c| f32x4::from(c.add(p).cast::<[f32; 4]>().read_unaligned()));
                for (q, row) in f32x4::transpose(block).into_iter().enumerate() {
                    let row = row.to_array();
                    let to = out.add((p + q) * step + i);
                    if four {
                        to.cast::<[f32; 4]>().write_unaligned(row);
                    } else {
                        to.cast::<[f32; 2]>().write_unaligned([row[0], row[1]]);
                    }
                }
            }
            i += if four { 4 } else { 2 };
        }
        for p in 0..k {
            let from = if p < whole { i } else { 0 };
            for i in from..width {
                *out.add(p * step + i) = *first.add(i * outer_step + p * k_step);
            }
        }
    }
}
