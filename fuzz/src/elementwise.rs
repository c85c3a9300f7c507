//! Element-wise passes against the reference.

use arbitrary::{Result, Unstructured};
use fused_dropout::elementwise::{
    BiasActivationDropout, bias_activation_dropout_backward, bias_activation_dropout_forward,
};
use fused_dropout::{Mask, MaskSource, Saved, reference};

use crate::input::{Layout, Matrix, activation, dropout, key, numbers, size};
use crate::{assert_dropped, assert_same, assert_same_outcome, for_each_level};

/// Runs bias + activation + dropout (+ residual) forward and backward on every level.
pub fn elementwise(data: &[u8]) {
    let _ = run(&mut Unstructured::new(data));
}

fn run(u: &mut Unstructured<'_>) -> Result<()> {
    let (rows, cols) =
        if u.arbitrary()? { (size(u, 40)?, size(u, 150)?) } else { (size(u, 2)?, size(u, 5000)?) };
    // Sometimes one bias too many.
    let bias = if u.arbitrary()? {
        let wrong = usize::from(u.ratio(1, 16)?);
        Some(numbers(u, cols + wrong)?)
    } else {
        None
    };
    let activation = activation(u)?;
    let (dropout, key) = (dropout(u)?, key(u)?);
    let mut args = BiasActivationDropout::new(activation, dropout.with_key(key));
    args.bias = bias.as_deref();
    let layouts = [Layout::new(u)?, Layout::new(u)?, Layout::new(u)?];
    let x = Matrix::random(u, rows, cols, layouts[0])?;
    let dy = Matrix::random(u, rows, cols, layouts[1])?;
    let residual =
        if u.arbitrary()? { Some(Matrix::random(u, rows, cols, layouts[2])?) } else { None };
    let mut with_residual = args;
    with_residual.residual = residual.as_ref().map(Matrix::view);
    let saved_mask: bool = u.arbitrary()?;
    let saved_kind = u.int_in_range(0..=2u8)?;
    let blank = Matrix::new(&vec![9.0; rows * cols], rows, cols, layouts[2]);

    let mut y = blank.clone();
    let forward = reference::bias_activation_dropout_forward(
        &with_residual,
        (x.view(), y.view_mut()),
        MaskSource::Key,
    );
    let y = y.values();
    // What backward reads: never the sum with the residual.
    let mut output = blank.clone();
    let _ = reference::bias_activation_dropout_forward(
        &args,
        (x.view(), output.view_mut()),
        MaskSource::Key,
    );
    let saved = match saved_kind {
        0 => Saved::Nothing,
        1 => Saved::Output(output.view()),
        _ => Saved::PreActivation(x.view()),
    };
    let drawn = Mask::generate(rows, cols, &dropout.with_key(key)).ok();
    let stored = drawn.as_ref().filter(|_| saved_mask);
    let (mut dz, mut db) = (blank.clone(), vec![9.0; cols]);
    let backward = reference::bias_activation_dropout_backward(
        &args,
        &saved,
        (dy.view(), dz.view_mut()),
        Some(&mut db),
        stored,
    );
    let dz = dz.values();

    // An output that has the residual in it is refused, by both.
    let (mut refused, y_saved) = (dy.clone(), Saved::Output(output.view()));
    let with_output = reference::bias_activation_dropout_backward(
        &with_residual,
        &y_saved,
        refused.view_mut(),
        None,
        stored,
    );
    assert!(residual.is_none() || with_output.is_err(), "an output with a residual was accepted");

    for_each_level(|level| {
        let mut fast = blank.clone();
        let mut mask = Mask::new(rows, cols).expect("a small mask");
        let result = bias_activation_dropout_forward(
            &with_residual,
            (x.view(), fast.view_mut()),
            Some(&mut mask),
        );
        assert_same_outcome(level, "forward", &result, &forward);
        let values = fast.values();
        assert_same(level, "y", &values, &y);
        if forward.is_ok() {
            assert_eq!(Some(&mask), drawn.as_ref(), "{level}: the stored mask");
            if residual.is_none() {
                assert_dropped("y", &values, cols, &args.dropout);
            }
        } else {
            assert!(values.iter().all(|v| *v == 9.0) && mask.count() == 0, "{level}: touched");
        }
        let mut fast = x.clone();
        let result =
            bias_activation_dropout_forward(&with_residual, fast.view_mut(), MaskSource::Key);
        assert_same_outcome(level, "forward in place", &result, &forward);
        let expected = if result.is_ok() { y.clone() } else { x.values() };
        assert_same(level, "y in place", &fast.values(), &expected);

        let (mut fast, mut sums) = (blank.clone(), vec![9.0; cols]);
        let result = bias_activation_dropout_backward(
            &args,
            &saved,
            (dy.view(), fast.view_mut()),
            Some(&mut sums),
            stored,
        );
        assert_same_outcome(level, "backward", &result, &backward);
        let values = fast.values();
        assert_same(level, "dz", &values, &dz);
        assert_same(level, "db", &sums, &db);
        if backward.is_ok() {
            assert_dropped("dz", &values, cols, &args.dropout);
        } else {
            assert!(values.iter().chain(&sums).all(|v| *v == 9.0), "{level}: touched");
        }
        let mut fast = dy.clone();
        let result = bias_activation_dropout_backward(
            &with_residual,
            &y_saved,
            fast.view_mut(),
            None,
            stored,
        );
        assert_same_outcome(level, "backward with a residual", &result, &with_output);
        assert_same(level, "dz with a residual", &fast.values(), &refused.values());
        let mut fast = dy.clone();
        let result = bias_activation_dropout_backward(&args, &saved, fast.view_mut(), None, stored);
        assert_same_outcome(level, "backward in place", &result, &backward);
        let expected = if result.is_ok() { dz.clone() } else { dy.values() };
        assert_same(level, "dz in place", &fast.values(), &expected);
    });
    Ok(())
}
