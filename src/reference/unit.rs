//! The reference of unit dropout: the whole layer, masked by multiplication.

use super::{Real, at, dense_backward, dense_forward, for_each, max_norm, sgd_update};
use crate::dense::{DenseArgs, Gradients, Parameters};
use crate::error::{Result, check_equal, check_shape};
use crate::mask::{Dropout, MaskKey, MaskSource};
use crate::saved::Saved;
use crate::sgd::SgdStep;
use crate::unit::{KeptUnits, Side, ThinArgs, ThinUpdate};
use crate::view::{MatMut, MatRef};

/// `y = x[:, I] · scale`.
///
/// # Errors
///
/// As for the fast function.
pub fn gather_units<T: Real>(
    x: MatRef<'_, T>,
    kept: &KeptUnits,
    mut y: MatMut<'_, T>,
) -> Result<()> {
    check_equal("columns of x", x.cols(), "number of units to keep from", kept.units())?;
    check_shape(y.named("y"), ("the kept columns", x.rows(), kept.len()))?;
    for_each(y.rows(), y.cols(), |r, c| {
        y.set(r, c, at(&x, r, kept.indices()[c] as usize) * T::from_f64(kept.scale_f64()));
    });
    Ok(())
}

/// `dx[:, I] = dy · scale`, and 0 in all other columns.
///
/// # Errors
///
/// As for the fast function.
pub fn scatter_units<T: Real>(
    dy: MatRef<'_, T>,
    kept: &KeptUnits,
    mut dx: MatMut<'_, T>,
) -> Result<()> {
    check_equal("columns of dx", dx.cols(), "number of units to keep from", kept.units())?;
    check_shape(dy.named("dy"), ("the kept columns", dx.rows(), kept.len()))?;
    for_each(dx.rows(), dx.cols(), |r, c| dx.set(r, c, T::ZERO));
    for_each(dy.rows(), dy.cols(), |r, c| {
        let value = at(&dy, r, c) * T::from_f64(kept.scale_f64());
        dx.set(r, kept.indices()[c] as usize, value);
    });
    Ok(())
}

/// `y = keep ? act(x · W + b) · scale : 0` of the whole layer, x being 0 where an input is removed; the
/// columns of kept units are returned.
///
/// # Errors
///
/// As for the fast function.
pub fn thin_forward<T: Real>(
    args: &ThinArgs<'_, T>,
    y: MatMut<'_, T>,
    z: Option<MatMut<'_, T>>,
) -> Result<()> {
    let (batch, _, kept) = args.check()?;
    check_shape(y.named("y"), ("the kept units' output", batch, kept))?;
    if let Some(z) = &z {
        check_shape(z.named("z"), ("the kept units' output", batch, kept))?;
    }
    let (inputs, units) = (args.w.rows(), args.w.cols());
    let one = T::from_f64(1.0);
    let x = spread(&args.x, &positions(args.input, inputs), inputs, one);
    let (mut y_whole, mut z_whole) = (vec![T::ZERO; batch * units], vec![T::ZERO; batch * units]);
    let y_view = MatMut::new(&mut y_whole, batch, units)?;
    let z_view = MatMut::new(&mut z_whole, batch, units)?;
    let whole = whole(args, MatRef::new(&x, batch, inputs)?)?;
    dense_forward(&whole, y_view, Some(z_view), MaskSource::Key)?;
    let (unit, (scale, _)) = (positions(args.output, units), scales::<T>(args.output));
    for (values, to, scale) in [(y_whole, Some(y), scale), (z_whole, z, one)] {
        let Some(mut to) = to else { continue };
        for_each(batch, kept, |r, c| to.set(r, c, values[r * units + unit[c]] * scale));
    }
    Ok(())
}

/// dx, dW and db of [`thin_forward`]: those of the whole masked layer, of which the kept rows and
/// columns are returned.
///
/// # Errors
///
/// As for the fast function.
pub fn thin_backward<'m, T: Real>(
    args: &ThinArgs<'_, T>,
    saved: &Saved<'_, T>,
    dy: MatRef<'_, T>,
    gradients: Gradients<'_, T>,
    mask: impl Into<MaskSource<'m>>,
) -> Result<()> {
    let (batch, _, kept) = args.check()?;
    check_shape(dy.named("dy"), ("the kept units' output", batch, kept))?;
    saved.check(args.activation, false, (batch, kept))?;
    let (inputs, units) = (args.w.rows(), args.w.cols());
    let (input, output) = (positions(args.input, inputs), positions(args.output, units));
    // The scale comes first, and is undone where an activation is read back from its output.
    let (scale, unscale) = scales(args.output);
    let x = spread(&args.x, &input, inputs, T::from_f64(1.0));
    let dy = spread(&dy, &output, units, scale);
    let values = match saved {
        Saved::Nothing => Vec::new(),
        Saved::Output(y) => spread(y, &output, units, unscale),
        Saved::PreActivation(z) => spread(z, &output, units, T::from_f64(1.0)),
    };
    let saved = match saved {
        Saved::Nothing => Saved::Nothing,
        Saved::Output(_) => Saved::Output(MatRef::new(&values, batch, units)?),
        Saved::PreActivation(_) => Saved::PreActivation(MatRef::new(&values, batch, units)?),
    };
    let mask = match args.output {
        Side::Elements(..) => mask.into(),
        Side::Units(_) => MaskSource::Key,
    };
    let (mut dx, mut dw) = (vec![T::ZERO; batch * inputs], vec![T::ZERO; inputs * units]);
    let mut db = vec![T::ZERO; units];
    let all = Gradients {
        dx: Some(MatMut::new(&mut dx, batch, inputs)?),
        dw: Some(MatMut::new(&mut dw, inputs, units)?),
        db: Some(&mut db),
    };
    let whole = whole(args, MatRef::new(&x, batch, inputs)?)?;
    dense_backward(&whole, &saved, MatRef::new(&dy, batch, units)?, all, mask)?;
    if let Some(mut to) = gradients.dx {
        for_each(batch, input.len(), |r, i| to.set(r, i, dx[r * inputs + input[i]]));
    }
    if let Some(mut to) = gradients.dw {
        for_each(input.len(), kept, |i, j| to.set(i, j, dw[input[i] * units + output[j]]));
    }
    if let Some(to) = gradients.db {
        to.iter_mut().zip(&output).for_each(|(to, unit)| *to = db[*unit]);
    }
    Ok(())
}

/// The gradients of [`thin_backward`], then [`sgd_update`] and [`max_norm`] of the kept weights, and
/// [`sgd_update`] of the kept biases without penalties; everything else is put back as it was.
///
/// # Errors
///
/// As for the fast function.
pub fn thin_update<'m, T: Real>(
    args: &ThinUpdate<'_, T>,
    mut parameters: Parameters<'_, T>,
    saved: &Saved<'_, T>,
    dy: MatRef<'_, T>,
    dx: Option<MatMut<'_, T>>,
    mask: impl Into<MaskSource<'m>>,
) -> Result<()> {
    let (_, inputs, units) = args.check(&parameters, saved, &dy, dx.as_ref())?;
    let Parameters { w, w_velocity, bias, bias_velocity } = &mut parameters;
    let (mut dw, mut db) = (vec![T::ZERO; inputs * units], vec![T::ZERO; units]);
    let layer = ThinArgs {
        activation: args.activation,
        ..ThinArgs::new(args.x, w.as_ref(), args.input, args.output)
    };
    let dw_view = Some(MatMut::new(&mut dw, inputs, units)?);
    let gradients = Gradients { dx, dw: dw_view, db: Some(&mut db) };
    thin_backward(&layer, saved, dy, gradients, mask)?;
    let (rows, cols) = (positions(args.input, w.rows()), positions(args.output, w.cols()));
    update((w, w_velocity.as_mut()), (&rows, &cols), &dw, &args.step, args.max_norm)?;
    if let Some(bias) = bias {
        let step = args.step.without_penalties();
        let velocity = &mut bias_velocity.as_mut().map(|velocity| MatMut::row_vector(velocity));
        let bias = &mut MatMut::row_vector(bias);
        update((bias, velocity.as_mut()), (&[0], &cols), &db, &step, None)?;
    }
    Ok(())
}

/// Updates the matrix of the kept elements, and puts them back.
fn update<T: Real>(
    (w, velocity): (&mut MatMut<'_, T>, Option<&mut MatMut<'_, T>>),
    (rows, cols): (&[usize], &[usize]),
    dw: &[T],
    step: &SgdStep,
    limit: Option<f32>,
) -> Result<()> {
    let (m, n) = (rows.len(), cols.len());
    let kept = |whole: MatRef<'_, T>| -> Vec<T> {
        (0..m * n).map(|i| at(&whole, rows[i / n], cols[i % n])).collect()
    };
    let mut w_kept = kept(w.as_ref());
    let mut v_kept = velocity.as_ref().map(|velocity| kept(velocity.as_ref()));
    let v_view = v_kept.as_mut().map(|v| MatMut::new(v, m, n)).transpose()?;
    sgd_update(MatMut::new(&mut w_kept, m, n)?, MatRef::new(dw, m, n)?, v_view, step)?;
    if let Some(limit) = limit {
        max_norm(MatMut::new(&mut w_kept, m, n)?, limit)?;
    }
    for_each(m, n, |i, j| w.set(rows[i], cols[j], w_kept[i * n + j]));
    if let (Some(velocity), Some(v_kept)) = (velocity, v_kept) {
        for_each(m, n, |i, j| velocity.set(rows[i], cols[j], v_kept[i * n + j]));
    }
    Ok(())
}

/// The whole layer, of whose units those of a thinned side are masked elsewhere.
fn whole<'a, T: Real>(args: &ThinArgs<'a, T>, x: MatRef<'a, T>) -> Result<DenseArgs<'a, T>> {
    let elements = |side| match side {
        Side::Elements(dropout, key) => Ok((dropout, key)),
        Side::Units(_) => Ok((Dropout::NONE, MaskKey::new(0, 0, 0)?)),
    };
    let (dropout, key) = elements(args.output)?;
    Ok(DenseArgs {
        bias: args.bias,
        activation: args.activation,
        dropout,
        key,
        input_dropout: Some(elements(args.input)?),
        ..DenseArgs::new(x, args.w)
    })
}

/// The unit of each column of a compact matrix.
fn positions(side: Side<'_>, units: usize) -> Vec<usize> {
    match side {
        Side::Elements(..) => (0..units).collect(),
        Side::Units(kept) => kept.indices().iter().map(|unit| *unit as usize).collect(),
    }
}

/// What the outputs of units are multiplied with, and what undoes it.
fn scales<T: Real>(side: Side<'_>) -> (T, T) {
    let (scale, unscale) = match side {
        Side::Elements(..) => (1.0, 1.0),
        Side::Units(kept) => (kept.scale_f64(), kept.unscale()),
    };
    (T::from_f64(scale), T::from_f64(unscale))
}

/// The whole matrix, 0 where a unit is removed, of a compact one times `factor`.
fn spread<T: Real>(matrix: &MatRef<'_, T>, unit: &[usize], units: usize, factor: T) -> Vec<T> {
    let mut whole = vec![T::ZERO; matrix.rows() * units];
    for_each(matrix.rows(), unit.len(), |r, c| {
        whole[r * units + unit[c]] = at(matrix, r, c) * factor;
    });
    whole
}
