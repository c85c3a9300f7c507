//! Weights packed once, for callers whose weights do not change between products.

use super::super::GROUP;
use super::super::blocking::block_sizes;
use super::{Operand, PackB, padded};
use crate::Level;
use crate::buffers::Floats;
use crate::error::{Error, Result};
use crate::isa::{Isa, Kernel, TileKernel};
use crate::mask::{Dropout, KeyedDropout, MaskKey};
use crate::threads::Part;
use crate::view::MatRef;

/// Weights in the order in which the product reads them, for [`dense_forward_packed`].
///
/// Packing is a pass over the weights that [`dense_forward`] makes on each call. Keep them packed
/// for inference, or for many small batches between two updates.
///
/// [`dense_forward`]: crate::dense_forward
/// [`dense_forward_packed`]: crate::dense_forward_packed
pub struct PackedWeight {
    panels: Floats,
    inputs: usize,
    units: usize,
    level: Level,
    dropout: Option<(Dropout, MaskKey)>,
}

impl PackedWeight {
    /// Packs `w` [inputs, units] for the current level.
    ///
    /// # Errors
    ///
    /// When the size overflows, or the level is not available.
    pub fn new(w: MatRef<'_>) -> Result<Self> {
        Self::with_dropout(w, None)
    }

    /// Packs `keep ? w · scale : 0` for the current level: weights for the forward passes whose
    /// [`weight_dropout`](crate::DenseArgs::weight_dropout) is this one.
    ///
    /// # Errors
    ///
    /// As for [`new`](Self::new), and when the key's origin and the shape go past what a mask can
    /// address.
    pub fn with_dropout(w: MatRef<'_>, dropout: Option<(Dropout, MaskKey)>) -> Result<Self> {
        if let Some((_, key)) = &dropout {
            key.check(w.rows(), w.cols())?;
        }
        let level = Level::current()?;
        let (inputs, units) = (w.rows(), w.cols());
        // 32 columns are whole panels of every level.
        let len = units.checked_next_multiple_of(32).and_then(|n| n.checked_mul(inputs));
        let len = len.filter(|n| *n <= isize::MAX as usize / 8);
        let len = len.ok_or(Error::Overflow { rows: inputs, stride: units })?;
        let mut panels = Floats::zeros(len);
        let out = panels.as_mut_ptr();
        let dropout_of_w = dropout.map_or(KeyedDropout::NONE, |(d, key)| d.with_key(key));
        let b = Operand::masked(w.source(), &dropout_of_w);
        // SAFETY: the matrix has this shape, and `out` whole panels of it.
        level.vectorize(unsafe { PackAll::new(b, inputs, units, out) });
        Ok(Self { panels, inputs, units, level, dropout })
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

    /// The packed weights as a factor.
    pub(crate) fn operand(&self, w: MatRef<'_>) -> Operand {
        Operand::packed(w.source(), self.panels.as_ptr())
    }

    /// `Ok` when the weights were packed with this dropout.
    pub(crate) fn check_dropout(&self, dropout: Option<(Dropout, MaskKey)>) -> Result<()> {
        let drops = |dropout: Option<(Dropout, MaskKey)>| dropout.filter(|(d, _)| d.drops());
        if drops(self.dropout) == drops(dropout) {
            return Ok(());
        }
        let text = |dropout| format!("{:?}", drops(dropout));
        Err(Error::PackedDropout { packed: text(self.dropout), arguments: text(dropout) })
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
    b: Operand,
    inputs: usize,
    units: usize,
    out: *mut f32,
}

impl PackAll {
    /// # Safety
    ///
    /// - B is alive and has `inputs` rows and `units` columns.
    /// - `out` has room for all panels: `inputs` floats for each column, of which there are whole
    ///   panels.
    unsafe fn new(b: Operand, inputs: usize, units: usize, out: *mut f32) -> Self {
        Self { b, inputs, units, out }
    }
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
    fn run<I: Isa, const MR: usize, const LESS: usize, const NV: usize>(self, isa: I) {
        if self.units == 0 {
            return;
        }
        let nr = NV * I::LANES;
        let kc = block_sizes(MR, None, self.inputs).0;
        let (mut bits, mut buffer) = (Vec::new(), Floats::default());
        if self.b.is_computed() {
            bits.resize(kc * GROUP / 32, 0);
        }
        let buffer = buffer.grow(if self.b.is_computed() { kc * GROUP } else { 0 }).as_mut_ptr();
        for row in (0..self.inputs).step_by(kc) {
            let rows = kc.min(self.inputs - row);
            // SAFETY: `PackAll::new`.
            let out = unsafe { self.out.add(row * padded(self.units, nr)) };
            for col in (0..self.units).step_by(GROUP) {
                let part = Part { row, rows, col, cols: GROUP.min(self.units - col) };
                // SAFETY: the part lies in the matrix, and there is room for the bits of so many
                // columns.
                isa.vectorize(unsafe {
                    let operand = self.b.with_bits(isa, part, &mut bits);
                    PackB::new(operand, part, buffer, (out.add(col * rows), nr))
                });
            }
        }
    }
}
