//! The dense layer against the reference.

use arbitrary::{Result, Unstructured};
use fused_dropout::layer::{DenseArgs, DenseLayer, Gradients, dense_backward, dense_forward};
use fused_dropout::{KeyedDropout, Mask, MaskSource, Saved, reference};

use crate::input::{Layout, Matrix, activation, dropout, key, numbers, size};
use crate::{assert_dropped, assert_same, assert_same_outcome, for_each_level};

/// Runs a dense layer forward and backward on every level.
pub fn dense(data: &[u8]) {
    let _ = run(&mut Unstructured::new(data));
}

fn run(u: &mut Unstructured<'_>) -> Result<()> {
    // All three of moderate size, or one of them long enough for several blocks.
    let most = match u.int_in_range(0..=3u8)? {
        0 => [600, 12, 12],
        1 => [5, 1500, 9],
        2 => [9, 5, 1500],
        _ => [40, 50, 70],
    };
    let (batch, inputs, units) = (size(u, most[0])?, size(u, most[1])?, size(u, most[2])?);
    let layouts = [Layout::new(u)?, Layout::new(u)?, Layout::new(u)?, Layout::new(u)?];
    // Sometimes shapes that do not fit.
    let w_inputs = inputs + usize::from(u.ratio(1, 32)?);
    let bias = if u.arbitrary()? {
        let wrong = usize::from(u.ratio(1, 32)?);
        Some(numbers(u, units + wrong)?)
    } else {
        None
    };
    let x = Matrix::random(u, batch, inputs, layouts[0])?;
    let w = Matrix::random(u, w_inputs, units, layouts[1])?;
    let dy = Matrix::random(u, batch, units, layouts[2])?;
    let mut layer = DenseLayer::new(activation(u)?);
    let output = keyed(u)?;
    layer = layer.with_output(output);
    let input = if u.arbitrary()? { Some(keyed(u)?) } else { None };
    if let Some(dropout) = input {
        layer = layer.with_input(dropout);
    }
    if u.ratio(1, 4)? {
        layer = layer.with_weight_dropout(keyed(u)?);
    }
    let mut args = DenseArgs::new(layer, x.view(), w.view());
    args.bias = bias.as_deref();
    let (saved_mask, saved_kind): (bool, u8) = (u.arbitrary()?, u.int_in_range(0..=2)?);
    let wanted: [bool; 3] = u.arbitrary()?;

    let blank =
        |rows: usize, cols: usize, layout| Matrix::new(&vec![9.0; rows * cols], rows, cols, layout);
    let blank_y = || blank(batch, units, layouts[3]);
    let (mut y, mut z) = (blank_y(), blank_y());
    let z_view = Some(z.view_mut());
    let forward = reference::dense_forward(&args, y.view_mut(), z_view, MaskSource::Key);
    let drawn = Mask::generate(batch, units, &output).ok();
    let saved = match saved_kind {
        0 => Saved::Nothing,
        1 => Saved::Output(y.view()),
        _ => Saved::PreActivation(z.view()),
    };
    let given = drawn.as_ref().filter(|_| saved_mask);
    let gradients = || {
        (blank(batch, inputs, layouts[0]), blank(w_inputs, units, layouts[1]), vec![9.0f32; units])
    };
    let (mut dx, mut dw, mut db) = gradients();
    let to = asked_for(wanted, &mut dx, &mut dw, &mut db);
    let backward = reference::dense_backward(&args, &saved, dy.view(), to, given);

    for_each_level(|level| {
        let (mut fast_y, mut fast_z) = (blank_y(), blank_y());
        let mut mask = Mask::new(batch, units).expect("a small mask");
        let z_view = Some(fast_z.view_mut());
        let result = dense_forward(&args, fast_y.view_mut(), z_view, &mut mask);
        assert_same_outcome(level, "forward", &result, &forward);
        assert_same(level, "y", &fast_y.values(), &y.values());
        assert_same(level, "z", &fast_z.values(), &z.values());
        if forward.is_ok() {
            assert_eq!(Some(&mask), drawn.as_ref(), "{level}: the stored mask");
            assert_dropped("y", &fast_y.values(), units, &output);
        } else {
            let untouched = fast_y.values().iter().chain(&fast_z.values()).all(|v| *v == 9.0);
            assert!(untouched && mask.count() == 0, "{level}: touched");
        }
        let mut alone = blank_y();
        let result = dense_forward(&args, alone.view_mut(), None, MaskSource::Key);
        assert_same_outcome(level, "forward, nothing saved", &result, &forward);
        let same = bits(&alone.values()) == bits(&fast_y.values());
        assert!(same, "{level}: y depends on what is saved");

        let (mut fast_dx, mut fast_dw, mut fast_db) = gradients();
        let to = asked_for(wanted, &mut fast_dx, &mut fast_dw, &mut fast_db);
        let result = dense_backward(&args, &saved, dy.view(), to, given);
        assert_same_outcome(level, "backward", &result, &backward);
        assert_same(level, "dx", &fast_dx.values(), &dx.values());
        assert_same(level, "dW", &fast_dw.values(), &dw.values());
        assert_same(level, "db", &fast_db, &db);
        let outputs = [fast_dx.values(), fast_dw.values(), fast_db];
        if backward.is_err() {
            assert!(outputs.concat().iter().all(|v| *v == 9.0), "{level}: touched");
            return;
        }
        if let (true, Some(dropout)) = (wanted[0], &input) {
            assert_dropped("dx", &outputs[0], inputs, dropout);
        }
        if wanted[1] && layer.weight_dropout != KeyedDropout::NONE {
            assert_dropped("dW", &outputs[1], units, &layer.weight_dropout);
        }
        // dz in place of dy.
        let (mut dx, mut dw, mut db) = gradients();
        let to = asked_for(wanted, &mut dx, &mut dw, &mut db);
        let mut dz = dy.clone();
        dense_backward(&args, &saved, dz.view_mut(), to, given).expect("as with dy kept");
        for (overwritten, kept) in [dx.values(), dw.values(), db].iter().zip(&outputs) {
            assert!(bits(overwritten) == bits(kept), "{level}: dy overwritten");
        }
    });
    Ok(())
}

/// A dropout and its key.
fn keyed(u: &mut Unstructured<'_>) -> Result<KeyedDropout> {
    Ok(dropout(u)?.with_key(key(u)?))
}

/// Room for the gradients that are wanted.
fn asked_for<'a>(
    wanted: [bool; 3],
    dx: &'a mut Matrix,
    dw: &'a mut Matrix,
    db: &'a mut [f32],
) -> Gradients<'a> {
    let mut gradients = Gradients::default();
    gradients.dx = wanted[0].then(|| dx.view_mut());
    gradients.dw = wanted[1].then(|| dw.view_mut());
    gradients.db = wanted[2].then_some(db);
    gradients
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|x| crate::bits(*x)).collect()
}
