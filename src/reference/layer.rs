//! The reference of the dense layer: the whole layer, masked by multiplication, of which the kept rows
//! and columns are returned.

use super::update::element;
use super::{Real, at, decides, for_each, given_mask, keeps, max_norm};
use crate::error::{Result, check_equal, check_shape};
use crate::layer::{
    DenseApply, DenseArgs, DenseLayer, DenseUpdate, Gradients, KeptUnits, OutputGradient,
    Parameters, Side,
};
use crate::mask::{KeyedDropout, MaskSource};
use crate::saved::Saved;
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
        y.put(r, c, at(&x, r, kept.indices()[c] as usize) * T::from_f64(kept.scale_f64()));
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
    for_each(dx.rows(), dx.cols(), |r, c| dx.put(r, c, T::ZERO));
    for_each(dy.rows(), dy.cols(), |r, c| {
        let value = at(&dy, r, c) * T::from_f64(kept.scale_f64());
        dx.put(r, kept.indices()[c] as usize, value);
    });
    Ok(())
}

/// `y = [residual +] (keep ? act(x~ · W~ + b) · scale : 0)`, x~ being 0 where an input is removed.
///
/// # Errors
///
/// As for the fast function.
pub fn dense_forward<'m, T: Real>(
    args: &DenseArgs<'_, T>,
    mut y: MatMut<'_, T>,
    mut z: Option<MatMut<'_, T>>,
    mask: impl Into<MaskSource<'m>>,
) -> Result<()> {
    let mask = mask.into();
    let shape = args.check_forward(&y, z.as_ref(), &mask)?;
    let whole = Whole::new(args);
    let dropout = args.layer.output.elements();
    let given = given_mask(args.layer.output_mask(mask), shape.output(), &dropout)?;
    let scale = T::from_f64(args.layer.output.scales().0);
    for_each(shape.batch, shape.units, |r, c| {
        let unit = whole.output[c];
        let mut sum = args.bias.map_or(T::ZERO, |bias| bias[unit]);
        for p in 0..whole.inputs {
            sum = whole.x[r * whole.inputs + p].mul_add(whole.w[p * whole.units + unit], sum);
        }
        let kept = decides(given, &dropout, r, c);
        if let Some(z) = &mut z {
            let computed = kept || args.layer.output.blocks().is_none();
            z.put(r, c, if computed { sum } else { T::ZERO });
        }
        let value = if kept { T::value(args.layer.activation, sum) * scale } else { T::ZERO };
        y.put(r, c, args.residual.map_or(value, |residual| at(&residual, r, c) + value));
    });
    Ok(())
}

/// dx, dW and db of [`dense_forward`].
///
/// # Errors
///
/// As for the fast function.
pub fn dense_backward<'d, 'm, T: Real>(
    args: &DenseArgs<'_, T>,
    saved: &Saved<'_, T>,
    dy: impl Into<OutputGradient<'d, T>>,
    gradients: Gradients<'_, T>,
    mask: impl Into<MaskSource<'m>>,
) -> Result<()> {
    let (mut dy, mask) = (dy.into(), mask.into());
    let shape = args.check()?;
    check_shape(dy.as_ref().named("dy"), shape.output())?;
    args.check_saved(saved, &shape)?;
    gradients.check(args, &shape)?;
    args.layer.check_mask(&mask, &shape)?;
    let (batch, kept_units) = (shape.batch, shape.units);
    let whole = Whole::new(args);
    let dz = output_gradient(args, saved, &dy.as_ref(), (batch, kept_units), mask)?;
    if let OutputGradient::Overwrite(dy) = &mut dy {
        for_each(batch, kept_units, |r, c| dy.put(r, c, dz[r * kept_units + c]));
    }
    let accumulation = gradients.accumulation;
    if let Some(db) = gradients.db {
        if !accumulation.continues() {
            db.fill(T::ZERO);
        }
        for_each(batch, kept_units, |r, c| db[c] = db[c] + dz[r * kept_units + c]);
    }
    if let Some(mut dw) = gradients.dw {
        for_each(dw.rows(), dw.cols(), |i, j| {
            let (input, unit) = (whole.input[i], whole.output[j]);
            let mut sum = if accumulation.continues() { at(&dw.as_ref(), i, j) } else { T::ZERO };
            for r in 0..batch {
                sum = whole.x[r * whole.inputs + input].mul_add(dz[r * kept_units + j], sum);
            }
            if accumulation.completes() {
                sum = masked(&args.layer.weight_dropout, input, unit, sum);
            }
            dw.put(i, j, sum);
        });
    }
    if let Some(mut dx) = gradients.dx {
        let mut dz_whole = vec![T::ZERO; batch * whole.units];
        for_each(batch, kept_units, |r, c| {
            dz_whole[r * whole.units + whole.output[c]] = dz[r * kept_units + c];
        });
        for_each(batch, dx.cols(), |r, i| {
            let mut sum = T::ZERO;
            for j in 0..whole.units {
                let w = whole.w[whole.input[i] * whole.units + j];
                sum = dz_whole[r * whole.units + j].mul_add(w, sum);
            }
            dx.put(r, i, through(&args.layer.input, r, i, sum));
        });
    }
    Ok(())
}

/// The gradients of [`dense_backward`], then [`dense_apply`]. dx is for the weights before the update.
///
/// # Errors
///
/// As for the fast function.
pub fn dense_update<'d, 'm, T: Real>(
    args: &DenseUpdate<'_, T>,
    parameters: Parameters<'_, T>,
    saved: &Saved<'_, T>,
    dy: impl Into<OutputGradient<'d, T>>,
    dx: Option<MatMut<'_, T>>,
    mask: impl Into<MaskSource<'m>>,
) -> Result<()> {
    let dy = dy.into();
    let shape = args.check(&parameters, saved, &dy.as_ref(), dx.as_ref())?;
    let (mut dw, mut db) = (vec![T::ZERO; shape.inputs * shape.units], vec![T::ZERO; shape.units]);
    let dw_view = MatMut::new(&mut dw, shape.inputs, shape.units)?;
    let gradients = Gradients { dx, ..Gradients::default() }.with_dw(dw_view).with_db(&mut db);
    dense_backward(&args.args(&parameters), saved, dy, gradients, mask)?;
    let apply =
        DenseApply::new(args.layer, MatRef::new(&dw, shape.inputs, shape.units)?, args.step);
    let db = parameters.bias.is_some().then_some(&db[..]);
    dense_apply(&DenseApply { db, max_norm: args.max_norm, ..apply }, parameters)
}

/// An update and [`max_norm`] of the (kept) weights, and an update of the (kept) biases without
/// penalties.
///
/// # Errors
///
/// As for the fast function.
pub fn dense_apply<T: Real>(
    args: &DenseApply<'_, T>,
    mut parameters: Parameters<'_, T>,
) -> Result<()> {
    args.check(&parameters)?;
    let Parameters { w, w_state, bias, bias_state } = &mut parameters;
    let rows = positions(args.layer.input, w.rows());
    let cols = positions(args.layer.output, w.cols());
    let scale = T::from_f64(args.scale.into());
    for_each(rows.len(), cols.len(), |i, j| {
        element(&args.step, (w, w_state), (rows[i], cols[j]), at(&args.dw, i, j) * scale);
    });
    if let Some(limit) = args.max_norm {
        let n = cols.len();
        let mut kept = Vec::new();
        for_each(rows.len(), n, |i, j| kept.push(at(&w.as_ref(), rows[i], cols[j])));
        max_norm(MatMut::new(&mut kept, rows.len(), n)?, limit)?;
        for_each(rows.len(), n, |i, j| w.put(rows[i], cols[j], kept[i * n + j]));
    }
    if let (Some(bias), Some(db)) = (bias, args.db) {
        let (step, mut bias) = (args.step.without_penalties(), MatMut::row_vector(bias));
        for_each(1, cols.len(), |_, j| {
            element(&step, (&mut bias, bias_state), (0, cols[j]), db[j] * scale);
        });
    }
    Ok(())
}

/// The matrices of the whole layer, of which units and inputs that are removed are 0.
struct Whole<T> {
    x: Vec<T>,
    w: Vec<T>,
    inputs: usize,
    units: usize,
    /// The input and the unit of each column of a compact matrix.
    input: Vec<usize>,
    output: Vec<usize>,
}

impl<T: Real> Whole<T> {
    fn new(args: &DenseArgs<'_, T>) -> Self {
        let DenseLayer { input: side, output, weight_dropout, .. } = &args.layer;
        let (inputs, units) = (args.w.rows(), args.w.cols());
        let input = positions(*side, inputs);
        let mut x = vec![T::ZERO; args.x.rows() * inputs];
        for_each(args.x.rows(), args.x.cols(), |r, c| {
            x[r * inputs + input[c]] = through(side, r, c, at(&args.x, r, c));
        });
        let mut w = Vec::new();
        for_each(inputs, units, |r, c| w.push(masked(weight_dropout, r, c, at(&args.w, r, c))));
        Self { x, w, inputs, units, input, output: positions(*output, units) }
    }
}

/// dz, compact.
fn output_gradient<T: Real>(
    args: &DenseArgs<'_, T>,
    saved: &Saved<'_, T>,
    dy: &MatRef<'_, T>,
    (rows, cols): (usize, usize),
    mask: MaskSource<'_>,
) -> Result<Vec<T>> {
    let activation = args.layer.activation;
    let (scale, unscale) = args.layer.output.scales();
    let (scale, unscale) = (T::from_f64(scale), T::from_f64(unscale));
    let dropout = args.layer.output.elements();
    let given = given_mask(args.layer.output_mask(mask), ("dy", rows, cols), &dropout)?;
    let mut dz = Vec::new();
    for_each(rows, cols, |r, c| {
        let g = at(dy, r, c) * scale;
        let gradient = match saved {
            Saved::Nothing => g,
            Saved::Output(y) => T::backward_from_output(activation, g, at(y, r, c) * unscale),
            Saved::PreActivation(z) => T::backward(activation, g, at(z, r, c)),
        };
        dz.push(if decides(given, &dropout, r, c) { gradient } else { T::ZERO });
    });
    Ok(dz)
}

/// The unit of each column of a compact matrix.
fn positions(side: Side<'_>, units: usize) -> Vec<usize> {
    match side {
        Side::Whole | Side::Elements(_) | Side::Blocks(_) => (0..units).collect(),
        Side::Units(kept) => kept.indices().iter().map(|unit| *unit as usize).collect(),
    }
}

/// `keep ? value · scale : 0` for an element of a matrix that may have a dropout.
fn masked<T: Real>(dropout: &KeyedDropout, row: usize, col: usize, value: T) -> T {
    match dropout.drops() {
        false => value,
        true if keeps(dropout, row, col) => value * T::scale(dropout.dropout()),
        true => T::ZERO,
    }
}

/// An element of an input, or of its gradient, as the layer's input side lets it through.
fn through<T: Real>(side: &Side<'_>, row: usize, col: usize, value: T) -> T {
    match side {
        Side::Blocks(kept) if kept.mask().get(row, col) != Some(true) => T::ZERO,
        side => masked(&side.elements(), row, col, value),
    }
}
