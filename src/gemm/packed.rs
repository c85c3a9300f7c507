//! Weights packed once, for callers whose weights do not change between products.

use super::Operand;
use super::blocking::block_sizes;
use super::pack::{PackB, padded};
use super::scratch::Buffer;
use crate::Level;
use crate::error::{Error, Result};
use crate::isa::{Isa, Kernel, TileKernel};
use crate::threads::Part;
use crate::view::{MatRef, Source};

/// Weights in the order in which the product reads them, for [`dense_forward_packed`].
///
/// Packing is a pass over the weights that [`dense_forward`] makes on each call. Keep them packed
/// for inference, or for many small batches between two updates.
///
/// [`dense_forward`]: crate::dense_forward
/// [`dense_forward_packed`]: crate::dense_forward_packed
pub struct PackedWeight {
    panels: Buffer,
    inputs: usize,
    units: usize,
    level: Level,
}

impl PackedWeight {
    /// Packs `w` [inputs, units] for the current level.
    ///
    /// # Errors
    ///
    /// When the size overflows, or the level is not available.
    pub fn new(w: MatRef<'_>) -> Result<Self> {
        let level = Level::current()?;
        let (inputs, units) = (w.rows(), w.cols());
        // 32 columns are whole panels of every level.
        let len = units.checked_next_multiple_of(32).and_then(|n| n.checked_mul(inputs));
        let len = len.filter(|n| *n <= isize::MAX as usize / 8);
        let len = len.ok_or(Error::Overflow { rows: inputs, stride: units })?;
        let mut panels = Buffer::default();
        let out = panels.room(len);
        level.vectorize(PackAll { source: w.source(), inputs, units, out });
        Ok(Self { panels, inputs, units, level })
    }

    /// Rows of the weights.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Columns of the weights.
    pub fn units(&self) -> usize {
        self.units
    }

    /// The level the weights were packed for.
    pub fn level(&self) -> Level {
        self.level
    }

    pub(crate) fn operand(&self, source: Source) -> Operand {
        Operand::packed(source, self.panels.as_ptr())
    }
}

impl std::fmt::Debug for PackedWeight {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { inputs, units, level, .. } = self;
        write!(f, "PackedWeight {{ inputs: {inputs}, units: {units}, level: {level} }}")
    }
}

/// Packs a whole matrix: for each block of k, all panels.
struct PackAll {
    source: Source,
    inputs: usize,
    units: usize,
    out: *mut f32,
}

impl Kernel for PackAll {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        isa.tile(self);
    }
}

impl TileKernel for PackAll {
    #[inline(always)]
    fn run<I: Isa, const MR: usize, const NV: usize>(self, isa: I) {
        if self.units == 0 {
            return;
        }
        let nr = NV * I::LANES;
        let kc = block_sizes(MR, None, self.inputs).0;
        let b = Operand::new(self.source);
        for row in (0..self.inputs).step_by(kc) {
            let rows = kc.min(self.inputs - row);
            let part = Part { row, rows, col: 0, cols: self.units };
            // SAFETY: the part lies in the matrix; `out` has room for all panels of all rows.
            let out = unsafe { self.out.add(row * padded(self.units, nr)) };
            let buffer = std::ptr::null_mut();
            isa.vectorize(PackB { operand: b, part, buffer, out, nr });
        }
    }
}
