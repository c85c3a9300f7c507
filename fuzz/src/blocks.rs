//! Layers of which blocks are dropped, against the reference.

use arbitrary::{Result, Unstructured};
use fused_dropout::layer::{
    BlockDeal, BlockSelection, BlockShape, DenseArgs, DenseLayer, DenseUpdate, Gradients,
    KeptBlocks, Parameters, dense_backward, dense_forward, dense_update,
};
use fused_dropout::update::SgdStep;
use fused_dropout::{MaskSource, Saved, reference};

use crate::input::{Layout, Matrix, activation, dropout, key, size};
use crate::{assert_same, assert_same_outcome, for_each_level};

/// Runs a layer with blocks dropped on one side or both, on every level.
pub fn blocks(data: &[u8]) {
    let _ = run(&mut Unstructured::new(data));
}

/// Blocks of `units` units for `rows` rows, or a few more than there are; nothing where they are refused.
fn kept(
    u: &mut Unstructured<'_>,
    g: usize,
    rows: usize,
    units: usize,
) -> Result<Option<KeptBlocks>> {
    let c = size(u, 70)?;
    let Ok(shape) = BlockShape::new(g, c) else {
        assert!(g == 0 || c == 0, "blocks of {g} x {c} were refused");
        return Ok(None);
    };
    let shape = shape
        .with_deal(*u.choose(&[BlockDeal::Fixed, BlockDeal::Shifted, BlockDeal::Permuted])?)
        .with_selection(*u.choose(&[BlockSelection::Exact, BlockSelection::Bernoulli])?);
    let wrong = usize::from(u.ratio(1, 32)?);
    let mut key = key(u)?;
    if u.ratio(7, 8)? {
        key = key.with_origin(key.row0(), 0);
    }
    let dropout = dropout(u)?.with_key(key);
    Ok(KeptBlocks::draw((rows + wrong, units), shape, &dropout).ok())
}

/// A matrix of finite numbers: a product with 0 that is left out would be NaN where the other factor is
/// infinite or NaN.
fn finite(u: &mut Unstructured<'_>, rows: usize, cols: usize, layout: Layout) -> Result<Matrix> {
    let values = Matrix::random(u, rows, cols, layout)?.values();
    let small = |x: f32| if x.abs() < 1e6 { x } else { 1.0 };
    let values: Vec<f32> = values.into_iter().map(small).collect();
    Ok(Matrix::new(&values, rows, cols, layout))
}

fn run(u: &mut Unstructured<'_>) -> Result<()> {
    let (batch, inputs, units) = (size(u, 70)?, size(u, 90)?, size(u, 90)?);
    let layouts = [Layout::new(u)?, Layout::new(u)?, Layout::new(u)?];
    let x = finite(u, batch, inputs, layouts[0])?;
    let w = finite(u, inputs, units, layouts[1])?;
    let dy = finite(u, batch, units, layouts[2])?;
    let g = size(u, 40)?;
    let of_output = if u.ratio(1, 16)? { g + 1 } else { g };
    let (input, output) = (kept(u, g, batch, inputs)?, kept(u, of_output, batch, units)?);
    let mut layer = DenseLayer::new(activation(u)?);
    if let Some(input) = input.as_ref().filter(|_| u.ratio(3, 4).unwrap_or(true)) {
        layer = layer.with_input(input);
    }
    if let Some(output) = output.as_ref().filter(|_| u.ratio(3, 4).unwrap_or(true)) {
        layer = layer.with_output(output);
    }
    let args = DenseArgs::new(layer, x.view(), w.view());
    let blank =
        |rows: usize, cols: usize, layout| Matrix::new(&vec![9.0; rows * cols], rows, cols, layout);
    let outputs = || {
        let y = || blank(batch, units, layouts[2]);
        (y(), y(), blank(batch, inputs, layouts[0]), blank(inputs, units, layouts[1]))
    };
    let (mut y, mut z, mut dx, mut dw) = outputs();
    let forward =
        reference::dense_forward(&args, y.view_mut(), Some(z.view_mut()), MaskSource::Key);
    let saved = Saved::PreActivation(z.view());
    let to = Gradients::default().with_dx(dx.view_mut()).with_dw(dw.view_mut());
    let backward = reference::dense_backward(&args, &saved, dy.view(), to, MaskSource::Key);
    let step = SgdStep::new(0.5);
    let update = DenseUpdate::new(layer, x.view(), step);
    let mut w_new = w.clone();
    let parameters = Parameters::new(w_new.view_mut());
    let updated =
        reference::dense_update(&update, parameters, &saved, dy.view(), None, MaskSource::Key);

    for_each_level(|level| {
        let (mut fast_y, mut fast_z, mut fast_dx, mut fast_dw) = outputs();
        let z_view = Some(fast_z.view_mut());
        let result = dense_forward(&args, fast_y.view_mut(), z_view, MaskSource::Key);
        assert_same_outcome(level, "forward", &result, &forward);
        assert_same(level, "y", &plus_0(fast_y.values()), &plus_0(y.values()));
        assert_same(level, "z", &plus_0(fast_z.values()), &plus_0(z.values()));
        let to = Gradients::default().with_dx(fast_dx.view_mut()).with_dw(fast_dw.view_mut());
        let result = dense_backward(&args, &saved, dy.view(), to, MaskSource::Key);
        assert_same_outcome(level, "backward", &result, &backward);
        assert_same(level, "dx", &plus_0(fast_dx.values()), &plus_0(dx.values()));
        assert_same(level, "dW", &plus_0(fast_dw.values()), &plus_0(dw.values()));
        let mut fast_w = w.clone();
        let parameters = Parameters::new(fast_w.view_mut());
        let result = dense_update(&update, parameters, &saved, dy.view(), None, MaskSource::Key);
        assert_same_outcome(level, "update", &result, &updated);
        assert_same(level, "W", &plus_0(fast_w.values()), &plus_0(w_new.values()));
        if let (Some(output), true) = (layer_blocks(&output, &layer), forward.is_ok()) {
            for (i, y) in fast_y.values().iter().enumerate() {
                let kept = output.mask().get(i / units, i % units) == Some(true);
                assert!(kept || y.to_bits() == 0, "{level}: dropped element {i} is {y:?}");
            }
        }
    });
    Ok(())
}

/// The blocks of the output, if the layer drops them.
fn layer_blocks<'a>(
    kept: &'a Option<KeptBlocks>,
    layer: &DenseLayer<'_>,
) -> Option<&'a KeptBlocks> {
    kept.as_ref().filter(|_| matches!(layer.output, fused_dropout::layer::Side::Blocks(_)))
}

/// The numbers without the sign of a zero, which a skipped step of a chain can change.
fn plus_0(values: Vec<f32>) -> Vec<f32> {
    values.into_iter().map(|x| x + 0.0).collect()
}
