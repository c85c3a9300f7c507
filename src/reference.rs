//! Every operation once more, naive: the meaning of the fast one, in so few lines that it can be
//! checked by reading. Same names, same arguments. An operation in place, or with packed weights,
//! means what its sibling does.
//!
//! Everything is generic over [`Real`]:
//!
//! - in f32 it is the exact chain of operations of the numerical contract, with `f32::mul_add`; on
//!   every level with fused multiply-add the fast functions return these bits;
//! - in f64 it is the formula, for error bounds and finite differences.

mod masks;
mod monte_carlo;
mod network;
mod noise;
mod real;
mod unit;

pub use masks::{
    broadcast_dropout_backward, broadcast_dropout_forward, drawn_rate, mask_with_rates, rate_at,
    rates_dropout_backward, rates_dropout_forward,
};
pub use monte_carlo::predict_monte_carlo;
pub use network::{dense_update, max_norm, sgd_update, softmax_cross_entropy};
pub use noise::{
    alpha_dropout_backward, alpha_dropout_forward, gaussian_dropout_backward,
    gaussian_dropout_forward, normal, softmax_dropout_backward, softmax_dropout_forward,
    standard_normal,
};
pub use real::Real;
pub use unit::{gather_units, scatter_units, thin_backward, thin_forward, thin_update};

use crate::dense::{DenseArgs, Gradients};
use crate::elementwise::BiasActivationDropout;
use crate::error::{Result, check_equal, check_shape};
use crate::mask::{Dropout, ForwardMask, Mask, MaskKey};
use crate::philox::philox4x32_10;
use crate::saved::{Saved, SavedValues};
use crate::view::{MatMut, MatRef};

/// Whether row `row`, column `col` of an operation is kept: the mask contract, bit by bit.
pub fn keeps(dropout: &Dropout, key: &MaskKey, row: usize, col: usize) -> bool {
    let (row, col) = (key.row0() + row as u64, key.col0() + col as u64);
    let (b, w, i) = ((col / 128) as u32, (col % 128) as usize / 32, col % 32);
    let u = (0..32).fold(0u64, |u, j| {
        let (counter, key) = key.counter(row as u32, b, j);
        u | u64::from((philox4x32_10(counter, key)[w] >> i) & 1) << (31 - j)
    });
    u < dropout.threshold()
}

/// All bits of a mask, row after row.
pub fn mask(rows: usize, cols: usize, dropout: &Dropout, key: &MaskKey) -> Result<Vec<bool>> {
    key.check(rows, cols)?;
    Ok((0..rows * cols).map(|i| keeps(dropout, key, i / cols, i % cols)).collect())
}

/// `y = keep ? x · scale : 0`.
///
/// # Errors
///
/// As for the fast function.
pub fn dropout_forward<'m, T: Real>(
    x: MatRef<'_, T>,
    mut y: MatMut<'_, T>,
    dropout: &Dropout,
    key: &MaskKey,
    mask: impl Into<ForwardMask<'m>>,
) -> Result<()> {
    check_shape(x.named("x"), y.named("y"))?;
    key.check(x.rows(), x.cols())?;
    let given = given_mask(mask.into(), x.named("x"), dropout, key)?;
    for_each(x.rows(), x.cols(), |r, c| {
        let value = at(&x, r, c) * T::scale(dropout);
        y.set(r, c, if decides(given, dropout, key, r, c) { value } else { T::ZERO });
    });
    Ok(())
}

/// `dx = keep ? dy · scale : 0`.
///
/// # Errors
///
/// As for the fast function.
pub fn dropout_backward<T: Real>(
    dy: MatRef<'_, T>,
    dx: MatMut<'_, T>,
    dropout: &Dropout,
    key: &MaskKey,
    mask: Option<&Mask>,
) -> Result<()> {
    let (activation, bias) = (crate::Activation::Identity, None);
    let args = BiasActivationDropout { bias, activation, dropout: *dropout, key: *key };
    let saved = Saved { values: SavedValues::None, mask };
    bias_activation_dropout_backward(&args, &saved, dy, dx, None)
}

/// `y = [residual +] (keep ? act(x + b) · scale : 0)`.
///
/// # Errors
///
/// As for the fast function.
pub fn bias_activation_dropout_forward<'m, T: Real>(
    args: &BiasActivationDropout<'_, T>,
    x: MatRef<'_, T>,
    residual: Option<MatRef<'_, T>>,
    mut y: MatMut<'_, T>,
    mask: impl Into<ForwardMask<'m>>,
) -> Result<()> {
    check_shape(x.named("x"), y.named("y"))?;
    args.check(x.rows(), x.cols())?;
    if let Some(residual) = &residual {
        check_shape(residual.named("the residual"), x.named("x"))?;
    }
    let given = given_mask(mask.into(), x.named("x"), &args.dropout, &args.key)?;
    for_each(x.rows(), x.cols(), |r, c| {
        let z = add_bias(at(&x, r, c), args.bias, c);
        let kept = decides(given, &args.dropout, &args.key, r, c);
        let value = activate(args.activation, z, &args.dropout, kept);
        y.set(r, c, residual.map_or(value, |residual| at(&residual, r, c) + value));
    });
    Ok(())
}

/// `dz = keep ? dy · scale · act'(z) : 0`, and its column sums.
///
/// # Errors
///
/// As for the fast function.
pub fn bias_activation_dropout_backward<T: Real>(
    args: &BiasActivationDropout<'_, T>,
    saved: &Saved<'_, T>,
    dy: MatRef<'_, T>,
    mut dz: MatMut<'_, T>,
    db: Option<&mut [T]>,
) -> Result<()> {
    check_shape(dy.named("dy"), dz.named("dz"))?;
    args.check(dy.rows(), dy.cols())?;
    saved.check(args.activation, dy.rows(), dy.cols())?;
    if let Some(db) = &db {
        check_equal("length of db", db.len(), "columns of dy", dy.cols())?;
    }
    for_each(dy.rows(), dy.cols(), |r, c| {
        let dropout = &args.dropout;
        let g = at(&dy, r, c) * T::scale(dropout);
        let gradient = match &saved.values {
            SavedValues::None => g,
            SavedValues::Output(y) => {
                T::backward_from_output(args.activation, g, at(y, r, c) * T::unscale(dropout))
            }
            SavedValues::PreActivation(z) => {
                T::backward(args.activation, g, add_bias(at(z, r, c), args.bias, c))
            }
        };
        let kept = decides(saved.mask, dropout, &args.key, r, c);
        dz.set(r, c, if kept { gradient } else { T::ZERO });
    });
    if let Some(db) = db {
        column_sums(dz.as_ref(), db);
    }
    Ok(())
}

/// `y = [residual +] (keep ? act(x~ · W~ + b) · scale : 0)`.
///
/// # Errors
///
/// As for the fast function.
pub fn dense_forward<'m, T: Real>(
    args: &DenseArgs<'_, T>,
    mut y: MatMut<'_, T>,
    mut z: Option<MatMut<'_, T>>,
    mask: impl Into<ForwardMask<'m>>,
) -> Result<()> {
    let (batch, inputs, units) = args.check()?;
    check_shape(y.named("y"), ("x · W", batch, units))?;
    if let Some(z) = &z {
        check_shape(z.named("z"), ("x · W", batch, units))?;
    }
    let output = ("x · W", batch, units);
    let given = given_mask(mask.into(), output, &args.dropout, &args.key)?;
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
        let kept = decides(given, &args.dropout, &args.key, r, c);
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
pub fn dense_backward<T: Real>(
    args: &DenseArgs<'_, T>,
    saved: &Saved<'_, T>,
    dy: MatRef<'_, T>,
    gradients: Gradients<'_, T>,
) -> Result<()> {
    let (batch, inputs, units) = args.check()?;
    let mut dz = vec![T::ZERO; batch * units];
    let pass = BiasActivationDropout {
        bias: None,
        activation: args.activation,
        dropout: args.dropout,
        key: args.key,
    };
    let dz_view = MatMut::new(&mut dz, batch, units)?;
    bias_activation_dropout_backward(&pass, saved, dy, dz_view, gradients.db)?;
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

/// The mask that an operation on a matrix, given as name, rows and columns, is given; or, on request,
/// its mask is stored.
fn given_mask<'m>(
    mask: ForwardMask<'m>,
    matrix: (&'static str, usize, usize),
    dropout: &Dropout,
    key: &MaskKey,
) -> Result<Option<&'m Mask>> {
    mask.check(matrix)?;
    match mask {
        ForwardMask::Forget => Ok(None),
        ForwardMask::Store(mask) => mask.fill(&dropout.with_key(*key)).map(|()| None),
        ForwardMask::Given(mask) => Ok(Some(mask)),
    }
}

/// Whether an element is kept: by the mask that is given, else by the contract.
fn decides(mask: Option<&Mask>, dropout: &Dropout, key: &MaskKey, row: usize, col: usize) -> bool {
    mask.map_or_else(|| keeps(dropout, key, row, col), |mask| mask.get(row, col) == Some(true))
}

/// `keep ? value · scale : 0` for an element of a matrix that may have a dropout.
fn through<T: Real>(dropout: &Option<(Dropout, MaskKey)>, row: usize, col: usize, value: T) -> T {
    match dropout {
        None => value,
        Some((dropout, key)) if keeps(dropout, key, row, col) => value * T::scale(dropout),
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

fn activate<T: Real>(activation: crate::Activation, z: T, dropout: &Dropout, kept: bool) -> T {
    if kept { T::value(activation, z) * T::scale(dropout) } else { T::ZERO }
}

fn add_bias<T: Real>(x: T, bias: Option<&[T]>, col: usize) -> T {
    bias.map_or(x, |bias| x + bias[col])
}

fn column_sums<T: Real>(dz: MatRef<'_, T>, db: &mut [T]) {
    db.fill(T::ZERO);
    for_each(dz.rows(), dz.cols(), |r, c| db[c] = db[c] + at(&dz, r, c));
}

/// An element that is known to lie in the matrix.
fn at<T: Real>(matrix: &MatRef<'_, T>, row: usize, col: usize) -> T {
    matrix.get(row, col).unwrap_or(T::ZERO)
}

fn for_each(rows: usize, cols: usize, mut f: impl FnMut(usize, usize)) {
    for row in 0..rows {
        for col in 0..cols {
            f(row, col);
        }
    }
}
