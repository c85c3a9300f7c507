//! Panels of B packed once, for matrices that do not change between products.

use super::super::GROUP;
use super::super::blocking::block_sizes;
use super::{Operand, PackB, padded};
use crate::Level;
use crate::buffers::{AlignedBuffer, grow};
use crate::error::{Error, Result};
use crate::isa::{Isa, Kernel, TileKernel};
use crate::threads::Part;
use crate::view::Source;

/// The panels of a matrix B, all of them.
pub(crate) struct PackedPanels {
    panels: AlignedBuffer,
    level: Level,
}

impl PackedPanels {
    /// Packs `b`, which has `k` rows and `n` columns, for products on `level`.
    ///
    /// # Safety
    ///
    /// `b` is alive and has this shape.
    pub(crate) unsafe fn new(level: Level, b: Operand, k: usize, n: usize) -> Result<Self> {
        // 32 columns are whole panels of every level.
        let padded =
            n.checked_next_multiple_of(32).ok_or(Error::Overflow { rows: k, stride: n })?;
        let mut panels = AlignedBuffer::default();
        let out = panels.room(k, padded)?.as_mut_ptr();
        // SAFETY: the caller's promise, and `out` has room for whole panels of it.
        level.vectorize(unsafe { PackAll::new(b, k, n, out) })?;
        Ok(Self { panels, level })
    }

    /// The level that the panels are for.
    pub(crate) fn level(&self) -> Level {
        self.level
    }

    /// The panels as a factor; `source` is of the matrix that was packed, and is not read.
    pub(crate) fn operand(&self, source: Source) -> Operand {
        Operand::packed(source, self.panels.as_ptr())
    }
}

/// Packs a whole matrix: for each block of k, all panels.
struct PackAll {
    b: Operand,
    inputs: usize,
    units: usize,
    out: *mut f32,
}

impl PackAll {
    /// # Safety
    ///
    /// - B is alive and has `inputs` rows and `units` columns.
    /// - `out` has room for all panels: `inputs` floats for each column, of which there are whole panels.
    unsafe fn new(b: Operand, inputs: usize, units: usize, out: *mut f32) -> Self {
        Self { b, inputs, units, out }
    }
}

impl Kernel for PackAll {
    type Output = Result<()>;

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> Result<()> {
        isa.tile(self)
    }
}

impl TileKernel for PackAll {
    type Output = Result<()>;

    #[inline(always)]
    fn run<I: Isa, const MR: usize, const MR1: usize, const NV: usize>(self, isa: I) -> Result<()> {
        if self.units == 0 {
            return Ok(());
        }
        let nr = NV * I::LANES;
        let kc = block_sizes(MR, None, self.inputs).0;
        let (mut bits, mut buffer) = (Vec::new(), AlignedBuffer::default());
        if self.b.is_computed() {
            grow(&mut bits, kc * GROUP / 32)?;
        }
        let buffer = buffer.grow(if self.b.is_computed() { kc * GROUP } else { 0 })?.as_mut_ptr();
        for row in (0..self.inputs).step_by(kc) {
            let rows = kc.min(self.inputs - row);
            // SAFETY: `PackAll::new`.
            let out = unsafe { self.out.add(row * padded(self.units, nr)) };
            for col in (0..self.units).step_by(GROUP) {
                let part = Part { row, rows, col, cols: GROUP.min(self.units - col) };
                // SAFETY: the part lies in the matrix, and there is room for the bits of so many columns.
                isa.vectorize(unsafe {
                    let operand = self.b.with_bits(isa, part, &mut bits);
                    PackB::new(operand, part, buffer, (out.add(col * rows), nr))
                });
            }
        }
        Ok(())
    }
}
