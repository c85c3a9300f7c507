//! The dense layer against the reference.

use arbitrary::{Result, Unstructured};
use fused_dropout::{
    DenseArgs, Gradients, Mask, Saved, SavedValues, dense_backward, dense_forward, reference,
};

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
    let args = DenseArgs {
        bias: bias.as_deref(),
        activation: activation(u)?,
        dropout: dropout(u)?,
        key: key(u)?,
        input_dropout: if u.arbitrary()? { Some((dropout(u)?, key(u)?)) } else { None },
        weight_dropout: if u.ratio(1, 4)? { Some((dropout(u)?, key(u)?)) } else { None },
        ..DenseArgs::new(x.view(), w.view())
    };
    let (saved_mask, saved_kind): (bool, u8) = (u.arbitrary()?, u.int_in_range(0..=2)?);
    let wanted: [bool; 3] = u.arbitrary()?;

    let blank =
        |rows: usize, cols: usize, layout| Matrix::new(&vec![9.0; rows * cols], rows, cols, layout);
    let output = || blank(batch, units, layouts[3]);
    let (mut y, mut z) = (output(), output());
    let forward = reference::dense_forward(&args, y.view_mut(), Some(z.view_mut()), None);
    let drawn = Mask::generate(batch, units, &args.dropout, &args.key).ok();
    let values = match saved_kind {
        0 => SavedValues::None,
        1 => SavedValues::Output(y.view()),
        _ => SavedValues::PreActivation(z.view()),
    };
    let saved = Saved { values, mask: drawn.as_ref().filter(|_| saved_mask) };
    let gradients = || {
        (blank(batch, inputs, layouts[0]), blank(w_inputs, units, layouts[1]), vec![9.0f32; units])
    };
    let (mut dx, mut dw, mut db) = gradients();
    let backward = reference::dense_backward(
        &args,
        &saved,
        dy.view(),
        Gradients {
            dx: wanted[0].then(|| dx.view_mut()),
            dw: wanted[1].then(|| dw.view_mut()),
            db: wanted[2].then_some(&mut db[..]),
        },
    );

    for_each_level(|level| {
        let (mut fast_y, mut fast_z) = (output(), output());
        let mut mask = Mask::new(batch, units).expect("a small mask");
        let result =
            dense_forward(&args, fast_y.view_mut(), Some(fast_z.view_mut()), Some(&mut mask));
        assert_same_outcome(level, "forward", &result, &forward);
        assert_same(level, "y", &fast_y.values(), &y.values());
        assert_same(level, "z", &fast_z.values(), &z.values());
        if forward.is_ok() {
            assert_eq!(Some(&mask), drawn.as_ref(), "{level}: the stored mask");
            assert_dropped("y", &fast_y.values(), units, &args.dropout, &args.key);
        } else {
            let untouched = fast_y.values().iter().chain(&fast_z.values()).all(|v| *v == 9.0);
            assert!(untouched && mask.count() == 0, "{level}: touched");
        }
        let mut alone = output();
        let result = dense_forward(&args, alone.view_mut(), None, None);
        assert_same_outcome(level, "forward, nothing saved", &result, &forward);
        let same = bits(&alone.values()) == bits(&fast_y.values());
        assert!(same, "{level}: y depends on what is saved");

        let (mut fast_dx, mut fast_dw, mut fast_db) = gradients();
        let result = dense_backward(
            &args,
            &saved,
            dy.view(),
            Gradients {
                dx: wanted[0].then(|| fast_dx.view_mut()),
                dw: wanted[1].then(|| fast_dw.view_mut()),
                db: wanted[2].then_some(&mut fast_db[..]),
            },
        );
        assert_same_outcome(level, "backward", &result, &backward);
        assert_same(level, "dx", &fast_dx.values(), &dx.values());
        assert_same(level, "dW", &fast_dw.values(), &dw.values());
        assert_same(level, "db", &fast_db, &db);
        if backward.is_err() {
            let values = [fast_dx.values(), fast_dw.values(), fast_db].concat();
            assert!(values.iter().all(|v| *v == 9.0), "{level}: touched");
        } else if let (true, Some((dropout, key))) = (wanted[0], &args.input_dropout) {
            assert_dropped("dx", &fast_dx.values(), inputs, dropout, key);
        }
        if let (Ok(()), true, Some((dropout, key))) = (&backward, wanted[1], &args.weight_dropout) {
            assert_dropped("dW", &fast_dw.values(), units, dropout, key);
        }
    });
    Ok(())
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|x| crate::bits(*x)).collect()
}
