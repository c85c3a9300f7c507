//! The reference of the dense layer.

use super::{
    Real, activate, at, bias_activation_dropout_backward, decides, for_each, given_mask, keeps,
    max_norm, sgd_update,
};
use crate::dense::{DenseArgs, DenseUpdate, Gradients, Parameters};
use crate::elementwise::BiasActivationDropout;
use crate::error::{Result, check_shape};
use crate::mask::{Dropout, MaskKey, MaskSource};
use crate::saved::Saved;
use crate::sgd::check_limit;
use crate::view::{MatMut, MatRef};

/// `y = [residual +] (keep ? act(x~ · W~ + b) · scale : 0)`.
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
    let (batch, inputs, units) = args.check()?;
    check_shape(y.named("y"), ("x · W", batch, units))?;
    if let Some(z) = &z {
        check_shape(z.named("z"), ("x · W", batch, units))?;
    }
    let output = ("x · W", batch, units);
    let dropout = args.dropout.with_key(args.key);
    let given = given_mask(mask.into(), output, &dropout)?;
    let x = dropped(&args.x, &args.input_dropout);
    let w = dropped(&args.w, &args.weight_dropout);
    for_each(batch, units, |r, c| {
        let mut sum = args.bias.map_or(T::ZERO, |bias| bias[c]);
        for p in 0..inputs {
            sum = x[r * inputs + p].mul_add(w[p * units + c], sum);
        }
        if let Some(z) = &mut z {
            z.set(r, c, sum);
        }
        let kept = decides(given, &dropout, r, c);
        let value = activate(args.activation, sum, &args.dropout, kept);
        y.set(r, c, args.residual.map_or(value, |residual| at(&residual, r, c) + value));
    });
    Ok(())
}

/// dx, dW and db of [`dense_forward`].
///
/// # Errors
///
/// As for the fast function.
pub fn dense_backward<'m, T: Real>(
    args: &DenseArgs<'_, T>,
    saved: &Saved<'_, T>,
    dy: MatRef<'_, T>,
    gradients: Gradients<'_, T>,
    mask: impl Into<MaskSource<'m>>,
) -> Result<()> {
    let (batch, inputs, units) = args.check()?;
    let mut dz = vec![T::ZERO; batch * units];
    let dropout = args.dropout.with_key(args.key);
    let pass = BiasActivationDropout {
        residual: args.residual,
        ..BiasActivationDropout::new(args.activation, dropout)
    };
    let dz_view = MatMut::new(&mut dz, batch, units)?;
    bias_activation_dropout_backward(&pass, saved, (dy, dz_view), gradients.db, mask)?;
    let x = dropped(&args.x, &args.input_dropout);
    let w = dropped(&args.w, &args.weight_dropout);
    if let Some(mut dw) = gradients.dw {
        for_each(inputs, units, |i, j| {
            let mut sum = T::ZERO;
            for r in 0..batch {
                sum = x[r * inputs + i].mul_add(dz[r * units + j], sum);
            }
            dw.set(i, j, through(&args.weight_dropout, i, j, sum));
        });
    }
    if let Some(mut dx) = gradients.dx {
        for_each(batch, inputs, |r, i| {
            let mut sum = T::ZERO;
            for j in 0..units {
                sum = dz[r * units + j].mul_add(w[i * units + j], sum);
            }
            dx.set(r, i, through(&args.input_dropout, r, i, sum));
        });
    }
    Ok(())
}

/// The gradients of `dense_backward`, then [`sgd_update`] of weights and biases (without penalties),
/// then [`max_norm`] of the weights. dx is for the weights before the update.
///
/// # Errors
///
/// As for the fast function.
pub fn dense_update<'m, T: Real>(
    args: &DenseUpdate<'_, T>,
    parameters: Parameters<'_, T>,
    saved: &Saved<'_, T>,
    dy: MatRef<'_, T>,
    dx: Option<MatMut<'_, T>>,
    mask: impl Into<MaskSource<'m>>,
) -> Result<()> {
    args.step.check()?;
    args.max_norm.map_or(Ok(()), check_limit)?;
    parameters.check(args.x.cols())?;
    let Parameters { mut w, w_velocity, bias, bias_velocity } = parameters;
    let (inputs, units) = (w.rows(), w.cols());
    let (mut dw, mut db) = (vec![T::ZERO; inputs * units], vec![T::ZERO; units]);
    let layer = DenseArgs {
        activation: args.activation,
        dropout: args.dropout,
        key: args.key,
        input_dropout: args.input_dropout,
        weight_dropout: args.weight_dropout,
        ..DenseArgs::new(args.x, w.as_ref())
    };
    let dw_view = Some(MatMut::new(&mut dw, inputs, units)?);
    let gradients = Gradients { dx, dw: dw_view, db: Some(&mut db) };
    dense_backward(&layer, saved, dy, gradients, mask)?;
    sgd_update(w.reborrow(), MatRef::new(&dw, inputs, units)?, w_velocity, &args.step)?;
    if let Some(bias) = bias {
        let step = args.step.without_penalties();
        let velocity = bias_velocity.map(MatMut::row_vector);
        sgd_update(MatMut::row_vector(bias), MatRef::row_vector(&db), velocity, &step)?;
    }
    args.max_norm.map_or(Ok(()), |limit| max_norm(w, limit))
}

/// `keep ? value · scale : 0` for an element of a matrix that may have a dropout.
fn through<T: Real>(dropout: &Option<(Dropout, MaskKey)>, row: usize, col: usize, value: T) -> T {
    match dropout {
        None => value,
        Some((dropout, key)) if keeps(&dropout.with_key(*key), row, col) => {
            value * T::scale(dropout)
        }
        Some(_) => T::ZERO,
    }
}

/// The elements of a matrix that may have a dropout, row after row.
fn dropped<T: Real>(matrix: &MatRef<'_, T>, dropout: &Option<(Dropout, MaskKey)>) -> Vec<T> {
    let mut values = Vec::with_capacity(matrix.rows() * matrix.cols());
    for_each(matrix.rows(), matrix.cols(), |r, c| {
        values.push(through(dropout, r, c, at(matrix, r, c)));
    });
    values
}
