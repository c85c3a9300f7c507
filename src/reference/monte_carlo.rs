//! The reference of Monte Carlo prediction: whole passes, one after the other.

use std::ops::Range;

use super::{
    Real, at, dense_forward, drawn_rate, for_each, keeps, normal, rate_at, softmax_dropout_forward,
};
use crate::activation::Activation;
use crate::elementwise::GaussianDropout;
use crate::error::{Result, check_equal};
use crate::layer::{BlockShape, DenseArgs, DenseLayer, KeptBlocks, KeptUnits};
use crate::mask::{Dropout, KeyedDropout, MaskKey, MaskSource};
use crate::nn::{Granularity, Mlp, Noise, StepRate};
use crate::softmax::SoftmaxDropout;
use crate::view::{MatMut, MatRef};

/// The class probabilities of a pass for each of `steps`, row after row, which
/// [`Mlp::predict_monte_carlo`] adds to a prediction: the network with masks and noise by multiplication, and
/// the softmax of its logits.
///
/// # Errors
///
/// As for the fast function.
pub fn predict_monte_carlo<T: Real>(
    mlp: &Mlp,
    x: MatRef<'_>,
    steps: Range<u32>,
) -> Result<Vec<Vec<T>>> {
    let layers = mlp.layers();
    check_equal("columns of x", x.cols(), "inputs of the network", layers[0].inputs())?;
    let rows = x.rows();
    let number = |x: &f32| T::from_f64(f64::from(*x));
    let mut passes = Vec::new();
    for step in steps {
        let mut values = Vec::new();
        for_each(rows, x.cols(), |r, c| values.push(T::from_f64(at(&x, r, c).into())));
        for (l, layer) in layers.iter().enumerate() {
            let (inputs, units) = (layer.inputs(), layer.units());
            if l == 0 {
                add_noise(mlp, l, step, &mut values)?;
            }
            let w: Vec<T> = layer.weights().iter().map(number).collect();
            let bias: Vec<T> = layer.bias().iter().map(number).collect();
            let (spec, last) = (mlp.spec(), l + 1 == layers.len());
            let of_hidden = spec.activations.get(l).copied().unwrap_or(spec.activation);
            let activation = if last { Activation::Identity } else { of_hidden };
            let x = MatRef::new(&values, rows, inputs)?;
            let args =
                DenseArgs::new(DenseLayer::new(activation), x, MatRef::new(&w, inputs, units)?)
                    .with_bias(&bias);
            let mut y = vec![T::ZERO; rows * units];
            dense_forward(&args, MatMut::new(&mut y, rows, units)?, None, MaskSource::Key)?;
            // Dropout is a part of the layer, to whose output the residual is added; Gaussian noise is
            // that of the sum.
            let residual = spec.residual.get(l) == Some(&true);
            let gaussian = spec.noise.get(l + 1) == Some(&Noise::Gaussian);
            let add = |y: &mut [T]| {
                y.iter_mut().zip(&values).filter(|_| residual).for_each(|(y, x)| *y = *x + *y);
            };
            if gaussian {
                add(&mut y);
            }
            if !last {
                add_noise(mlp, l + 1, step, &mut y)?;
            }
            if !gaussian {
                add(&mut y);
            }
            values = y;
        }
        let classes = mlp.spec().sizes[layers.len()];
        let mut p = vec![T::ZERO; rows * classes];
        let softmax = SoftmaxDropout::new(KeyedDropout::NONE);
        let logits = MatRef::new(&values, rows, classes)?;
        let p_view = MatMut::new(&mut p, rows, classes)?;
        softmax_dropout_forward(&softmax, (logits, p_view), None, MaskSource::Key)?;
        passes.push(p);
    }
    Ok(passes)
}

/// Dropout or noise of what layer `l` reads in a step.
fn add_noise<T: Real>(mlp: &Mlp, l: usize, step: u32, values: &mut [T]) -> Result<()> {
    let spec = mlp.spec();
    let units = spec.sizes[l];
    let key = MaskKey::new(spec.seed, l as u32, step)?;
    key.check(values.len() / units, units)?;
    let (rate, schedule) = match l {
        0 => (spec.input_rate, spec.input_schedule),
        _ => (spec.hidden_rate, spec.hidden_schedule),
    };
    let rate = spec.rates.get(l).copied().unwrap_or(rate);
    let rate = match schedule {
        StepRate::Scheduled(schedule) => rate_at(&schedule, rate, step)?,
        StepRate::Drawn => drawn_rate(rate, &key, 0)?,
    };
    if spec.noise.get(l) == Some(&Noise::Gaussian) {
        let sigma = T::from_f64(GaussianDropout::new(rate)?.sigma_f64());
        for (i, value) in values.iter_mut().enumerate() {
            let z = normal(&key, i / units, i % units);
            *value = *value * sigma.mul_add(z, T::from_f64(1.0));
        }
        return Ok(());
    }
    let dropout = Dropout::with_scaling(rate, spec.scaling)?.with_key(key);
    let (mut kept, mut blocks) = (None, None);
    match spec.granularity.get(l).copied().unwrap_or_default() {
        Granularity::Element => {}
        Granularity::Unit => kept = Some(KeptUnits::bernoulli(units, &dropout)?),
        Granularity::UnitExact => kept = Some(KeptUnits::exact(units, &dropout)?),
        Granularity::Block { rows, units: of_block } => {
            let (rows, shape) = (values.len() / units, BlockShape::new(rows, of_block)?);
            blocks = Some(KeptBlocks::draw((rows, units), shape, &dropout)?);
        }
    }
    let scale = match (&kept, &blocks) {
        (Some(kept), _) => kept.scale_f64(),
        (_, Some(blocks)) => blocks.scale_f64(),
        (None, None) => dropout.dropout().scale_f64(),
    };
    for (i, value) in values.iter_mut().enumerate() {
        let (r, c) = (i / units, i % units);
        let stays = match (&kept, &blocks) {
            (Some(kept), _) => kept.indices().contains(&(c as u32)),
            (_, Some(blocks)) => matches!(blocks.mask().get(r, c), Some(true)),
            (None, None) => keeps(&dropout, r, c),
        };
        *value = if stays { *value * T::from_f64(scale) } else { T::ZERO };
    }
    Ok(())
}
