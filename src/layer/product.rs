//! The products of a layer: its weights as a factor, the gradient of its input, and that of its weights.

use super::{DenseLayer, Shape, pattern};
use crate::Level;
use crate::buffers::{AlignedBuffer, Lease, Slot};
use crate::elementwise::dropout_forward;
use crate::error::Result;
use crate::gather::IndexBuffers;
use crate::gemm::epilogue::{End, MaskEnd, Store};
use crate::gemm::{Operand, PackedPanels, Pattern, Product, ProductArgs, Start};
use crate::mask::{Bits, KeyedDropout, MaskSource};
use crate::view::{MatMut, MatRef, Target};

/// What a pass needs for itself, kept from call to call.
#[derive(Debug, Default)]
pub(super) struct LayerBuffers {
    pub(super) index: IndexBuffers,
    /// Gradients, where the caller wants them not.
    pub(super) dz: AlignedBuffer,
    pub(super) dw: AlignedBuffer,
    pub(super) db: AlignedBuffer,
    /// Parameters of the kept units only, and their state.
    pub(super) kept: [AlignedBuffer; 3],
    /// W~, where its dropout and kept units come together.
    pub(super) masked: AlignedBuffer,
}

impl LayerBuffers {
    /// This thread's.
    pub(super) fn take() -> Lease<Self> {
        Slot::Layer.take()
    }
}

/// Computes a product of this layer, or what of it a pattern says.
pub(super) fn run(level: Level, product: ProductArgs, pattern: Option<Pattern<'_>>) -> Result<()> {
    // SAFETY: only the passes of a layer come here, with operands and outputs whose shapes they have
    // checked, by rows, from views that are borrowed until they return. Lists of kept units are ascending and
    // below the number of units, which `KeptUnits` sees to. Patterns are those of blocks of the same sizes.
    unsafe { Product::new(product, pattern) }.run(level)
}

/// Packs a factor of this layer, which has `k` rows and `n` columns.
pub(super) fn prepack(level: Level, b: Operand, k: usize, n: usize) -> Result<PackedPanels> {
    // SAFETY: as for `run`.
    unsafe { PackedPanels::new(level, b, k, n) }
}

/// The values of the units in the list, which are below the number of values.
pub(super) fn pick<'a>(
    values: &[f32],
    list: &[u32],
    out: &'a mut AlignedBuffer,
) -> Result<&'a mut [f32]> {
    let out = out.room(1, list.len())?;
    for (out, unit) in out.iter_mut().zip(list) {
        *out = values[*unit as usize];
    }
    Ok(out)
}

/// The weights as the layer uses them: W~, or the rows and columns of it that are kept.
pub(super) fn weights(
    layer: &DenseLayer<'_>,
    w: MatRef<'_>,
    level: Level,
    index: &mut IndexBuffers,
    masked: &mut AlignedBuffer,
) -> Result<Operand> {
    let (rows, cols) = (layer.input.list(), layer.output.list());
    if !layer.skips() {
        return Ok(Operand::masked(w.source(), &layer.weight_dropout));
    }
    let mut w = w;
    if layer.weight_dropout.drops() {
        let mut copy = MatMut::new(masked.room(w.rows(), w.cols())?, w.rows(), w.cols())?;
        dropout_forward((w, copy.reborrow()), &layer.weight_dropout, MaskSource::Key)?;
        w = MatRef::new(masked, w.rows(), w.cols())?;
    }
    let source = w.source();
    Ok(if source.col_step == 1 {
        Operand::gathered(source, index.index(level, rows, cols))
    } else {
        Operand::gathered(source.t(), index.index(level, cols, rows)).t()
    })
}

/// `dx = dz · W~ᵀ`, through the input's dropout.
pub(super) fn input_gradient(
    layer: &DenseLayer<'_>,
    level: Level,
    dz: Operand,
    w: Operand,
    shape: Shape,
    dx: Target,
) -> Result<()> {
    let dropout = &layer.input.elements();
    let end = match dropout.drops() {
        true => End::Mask(MaskEnd { c: dx, scale: dropout.dropout().scale() }),
        false => End::Store(Store { c: dx }),
    };
    let product = ProductArgs {
        m: shape.batch,
        n: shape.inputs,
        k: shape.units,
        a: dz,
        b: w.t(),
        start: Start::Zero,
        partial: dx,
        end,
        bits: Bits::generate(dropout, None),
    };
    run(level, product, pattern::input_gradient(layer))
}

/// `x~ᵀ · dz` as a product whose output has contiguous rows: dW, or where the columns of dW are
/// contiguous `dWᵀ = dzᵀ · x~`. Both are the same chains, since a product does not depend on the order of
/// its factors.
#[derive(Clone, Copy)]
pub(super) struct WeightGradient<'a> {
    a: Operand,
    b: Operand,
    m: usize,
    n: usize,
    k: usize,
    transposed: bool,
    pattern: Option<Pattern<'a>>,
}

impl<'a> WeightGradient<'a> {
    pub(super) fn new(
        layer: &DenseLayer<'a>,
        x: Operand,
        dz: Operand,
        shape: Shape,
        transposed: bool,
    ) -> Self {
        let pattern = pattern::weight_gradient(layer);
        let pattern = if transposed { pattern.map(Pattern::t) } else { pattern };
        let Shape { batch: k, inputs, units, .. } = shape;
        let (a, b, m, n) = match transposed {
            true => (dz.t(), x, units, inputs),
            false => (x.t(), dz, inputs, units),
        };
        Self { a, b, m, n, k, transposed, pattern }
    }

    /// Stores the gradient, whose sums start from `start`, in `c`, masked and scaled as the weights
    /// were.
    pub(super) fn store(
        &self,
        level: Level,
        dropout: &KeyedDropout,
        (start, c): (Start, Target),
    ) -> Result<()> {
        let end = match dropout.drops() {
            true => End::Mask(MaskEnd { c, scale: dropout.dropout().scale() }),
            false => End::Store(Store { c }),
        };
        self.run(level, end, self.bits(dropout), (start, c))
    }

    /// The mask of the weights' dropout, in the order of the product's output.
    pub(super) fn bits(&self, dropout: &KeyedDropout) -> Bits {
        match self.transposed {
            true => Bits::generate_transposed(dropout),
            false => Bits::generate(dropout, None),
        }
    }

    /// Hands the gradient, whose sums start from `start`, to `end`, which writes to `partial`.
    pub(super) fn run(
        &self,
        level: Level,
        end: End,
        bits: Bits,
        (start, partial): (Start, Target),
    ) -> Result<()> {
        let Self { a, b, m, n, k, pattern, .. } = *self;
        let product = ProductArgs { m, n, k, a, b, start, partial, end, bits };
        run(level, product, pattern)
    }
}
