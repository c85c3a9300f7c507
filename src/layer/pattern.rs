//! What of a layer's products is computed, where blocks are dropped on its sides.

use super::{DenseLayer, KeptBlocks};
use crate::gemm::Pattern;

/// `x · W`: the kept blocks of units, from the kept blocks of inputs.
pub(super) fn forward<'a>(layer: &DenseLayer<'a>) -> Option<Pattern<'a>> {
    let (input, output) = (layer.input.blocks(), layer.output.blocks());
    let groups = groups(input, output)?;
    Some(Pattern {
        rows: Some(groups),
        cols: output.map(|kept| kept.span_starts()),
        depth: input.map(|kept| kept.span_starts()),
        computed: output.map(|kept| kept.by_group()),
        of_rows: input.map(|kept| kept.by_group()),
        of_cols: None,
    })
}

/// `dz · Wᵀ`: the kept blocks of inputs, from the kept blocks of units.
pub(super) fn input_gradient<'a>(layer: &DenseLayer<'a>) -> Option<Pattern<'a>> {
    let (input, output) = (layer.output, layer.input);
    forward(&DenseLayer { input, output, ..*layer })
}

/// `xᵀ · dz`: all weights, each from the groups of examples that keep both its input and its unit.
pub(super) fn weight_gradient<'a>(layer: &DenseLayer<'a>) -> Option<Pattern<'a>> {
    let (input, output) = (layer.input.blocks(), layer.output.blocks());
    let groups = groups(input, output)?;
    Some(Pattern {
        rows: input.map(|kept| kept.span_starts()),
        cols: output.map(|kept| kept.span_starts()),
        depth: Some(groups),
        computed: None,
        of_rows: input.map(|kept| kept.by_span()),
        of_cols: output.map(|kept| kept.by_span()),
    })
}

/// Where groups of examples start: on both sides at the same. Blocks of no units or of no rows have none,
/// and leave nothing out.
fn groups<'a>(input: Option<&'a KeptBlocks>, output: Option<&'a KeptBlocks>) -> Option<&'a [u32]> {
    let kept =
        [input, output].into_iter().flatten().find(|kept| kept.units() > 0 && kept.rows() > 0)?;
    Some(kept.group_starts())
}
