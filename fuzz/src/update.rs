//! Updates with gradients in memory, and gradients that come in parts, against the reference.

use arbitrary::{Result, Unstructured};
use fused_dropout::layer::{
    Accumulation, DenseArgs, DenseLayer, DenseUpdate, Gradients, Parameters, dense_backward,
    dense_update,
};
use fused_dropout::update::{AdamStep, Gradient, SgdStep, State, Step, apply};
use fused_dropout::{MaskSource, Saved, reference};

use crate::input::{Layout, Matrix, activation, dropout, key, size};
use crate::{assert_same, assert_same_outcome, for_each_level};

/// Runs an update, and a layer's fused update with the same step, on every level.
pub fn update(data: &[u8]) {
    let mut u = Unstructured::new(data);
    let _ = in_memory(&mut u);
    let _ = fused(&mut u);
}

/// A number of a step: usual, 0, or any bits at all.
fn number(u: &mut Unstructured<'_>, usual: f32) -> Result<f32> {
    Ok(match u.int_in_range(0..=15u8)? {
        0 => 0.0,
        1 => f32::from_bits(u.arbitrary()?),
        _ => usual,
    })
}

fn step(u: &mut Unstructured<'_>) -> Result<Step> {
    let (rate, decay) = (number(u, 0.05)?, number(u, 0.01)?);
    if u.arbitrary()? {
        let sgd = SgdStep::new(rate).with_momentum(number(u, 0.9)?).with_weight_decay(decay);
        let sgd = if u.arbitrary()? { sgd.with_l1(number(u, 0.02)?) } else { sgd };
        return Ok(if u.arbitrary()? { sgd.with_nesterov().into() } else { sgd.into() });
    }
    let betas = [0.9, 0.999].map(f64::from);
    let beta2 = if u.ratio(1, 8)? { f64::from_bits(u.arbitrary()?) } else { betas[1] };
    let adam = AdamStep::new(rate).with_betas(betas[0], beta2).with_epsilon(number(u, 1e-8)?);
    let adam = adam.at_step(u.arbitrary::<u32>()? >> u.int_in_range(0..=31u8)?);
    Ok(if u.arbitrary()? { adam.with_weight_decay(decay) } else { adam.with_l2(decay) }.into())
}

/// A state of so many matrices.
fn state<'a>(kind: u8, first: &'a mut Matrix, second: &'a mut Matrix) -> State<'a> {
    match kind {
        0 => State::None,
        1 => first.view_mut().into(),
        _ => (first.view_mut(), second.view_mut()).into(),
    }
}

/// The kind of state that a step needs; sometimes another.
fn kind(u: &mut Unstructured<'_>, step: &Step) -> Result<u8> {
    Ok(match step {
        _ if u.ratio(1, 16)? => u.int_in_range(0..=2)?,
        Step::Sgd(_) => 1,
        _ => 2,
    })
}

fn in_memory(u: &mut Unstructured<'_>) -> Result<()> {
    let (rows, cols) = (size(u, 40)?, size(u, 90)?);
    let step = step(u)?;
    let kind = kind(u, &step)?;
    let mut matrix = |rows: usize| {
        let layout = Layout::new(u)?;
        Matrix::random(u, rows, cols, layout)
    };
    let [w, dw, first, second] = [matrix(rows)?, matrix(rows)?, matrix(rows)?, matrix(rows)?];
    let scale = number(u, 1.0)?;
    let before = [&w, &first, &second].map(Matrix::values);

    let mut expected = [w.clone(), first.clone(), second.clone()];
    let [to, m, v] = &mut expected;
    let gradient = Gradient::scaled(dw.view(), scale);
    let outcome = reference::apply(to.view_mut(), gradient, state(kind, m, v), step);
    for_each_level(|level| {
        let mut fast = [w.clone(), first.clone(), second.clone()];
        let [to, m, v] = &mut fast;
        let result = apply(to.view_mut(), gradient, state(kind, m, v), step);
        assert_same_outcome(level, "apply", &result, &outcome);
        for (i, name) in ["w", "the first moment", "the second moment"].into_iter().enumerate() {
            assert_same(level, name, &fast[i].values(), &expected[i].values());
            if outcome.is_err() {
                assert_same(level, "an untouched output", &fast[i].values(), &before[i]);
            }
        }
    });
    Ok(())
}

fn fused(u: &mut Unstructured<'_>) -> Result<()> {
    let (batch, inputs, units) = (size(u, 40)?, size(u, 50)?, size(u, 70)?);
    let step = step(u)?;
    let kind = kind(u, &step)?;
    let mut matrix = |rows: usize, cols: usize| {
        let layout = Layout::new(u)?;
        Matrix::random(u, rows, cols, layout)
    };
    let [x, z, dy] = [matrix(batch, inputs)?, matrix(batch, units)?, matrix(batch, units)?];
    let [w, first, second] =
        [matrix(inputs, units)?, matrix(inputs, units)?, matrix(inputs, units)?];
    let layer = DenseLayer::new(activation(u)?).with_output(dropout(u)?.with_key(key(u)?));
    let layer = match u.ratio(1, 4)? {
        true => layer.with_weight_dropout(dropout(u)?.with_key(key(u)?)),
        false => layer,
    };
    let saved = Saved::PreActivation(z.view());
    let update = DenseUpdate::new(layer, x.view(), step);
    let mut expected = [w.clone(), first.clone(), second.clone()];
    let [to, m, v] = &mut expected;
    let parameters = Parameters::new(to.view_mut()).with_w_state(state(kind, m, v));
    let outcome =
        reference::dense_update(&update, parameters, &saved, dy.view(), None, MaskSource::Key);

    // The sums go on from what is there.
    let args = DenseArgs::new(layer, x.view(), w.view());
    let mut sums = first.clone();
    let onto = |dw: &mut Matrix| {
        let gradients = Gradients::default().with_accumulation(Accumulation::Last);
        dense_backward(&args, &saved, dy.view(), gradients.with_dw(dw.view_mut()), MaskSource::Key)
    };
    let gradients = Gradients::default().with_accumulation(Accumulation::Last);
    let to = gradients.with_dw(sums.view_mut());
    let summed = reference::dense_backward(&args, &saved, dy.view(), to, MaskSource::Key);
    for_each_level(|level| {
        let mut fast = [w.clone(), first.clone(), second.clone()];
        let [to, m, v] = &mut fast;
        let parameters = Parameters::new(to.view_mut()).with_w_state(state(kind, m, v));
        let result = dense_update(&update, parameters, &saved, dy.view(), None, MaskSource::Key);
        assert_same_outcome(level, "dense_update", &result, &outcome);
        for (i, name) in ["W", "the first moment", "the second moment"].into_iter().enumerate() {
            assert_same(level, name, &fast[i].values(), &expected[i].values());
        }
        let mut dw = first.clone();
        assert_same_outcome(level, "accumulated gradients", &onto(&mut dw), &summed);
        assert_same(level, "dW", &dw.values(), &sums.values());
    });
    Ok(())
}
