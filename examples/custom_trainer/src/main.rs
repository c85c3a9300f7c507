//! Dropout in a trainer of one's own: ndarray multiplies; this crate adds bias, activation and dropout
//! to a product in one pass, and takes them apart again in the backward pass.
//!
//! ```text
//! cargo run --release -p custom-trainer
//! ```

use fused_dropout::{
    Activation, BiasActivationDropout, Dropout, MaskKey, MatMut, MatRef, Result, Saved,
    bias_activation_dropout_backward_in_place, bias_activation_dropout_forward_in_place,
};
use ndarray::{Array1, Array2};

const EXAMPLES: usize = 256;
const INPUTS: usize = 8;
const HIDDEN: usize = 64;
const STEPS: u32 = 2000;
const LEARNING_RATE: f32 = 0.02;

/// A row-major array as this crate's matrices.
fn view(array: &Array2<f32>) -> Result<MatRef<'_>> {
    MatRef::new(array.as_slice().unwrap_or_default(), array.nrows(), array.ncols())
}

fn view_mut(array: &mut Array2<f32>) -> Result<MatMut<'_>> {
    let (rows, cols) = array.dim();
    MatMut::new(array.as_slice_mut().unwrap_or_default(), rows, cols)
}

fn main() -> Result<()> {
    // y = |x0| + x1 x2, to be learned by relu(x · W + b) · v.
    let x = Array2::from_shape_fn((EXAMPLES, INPUTS), |(i, j)| ((i * 37 + j * 101) as f32).sin());
    let y = Array1::from_shape_fn(EXAMPLES, |i| x[[i, 0]].abs() + x[[i, 1]] * x[[i, 2]]);
    let mut w =
        Array2::from_shape_fn((INPUTS, HIDDEN), |(i, j)| ((i * 57 + j * 29) as f32).cos() * 0.5);
    let mut bias = vec![0.0; HIDDEN];
    let mut v = Array1::from_shape_fn(HIDDEN, |j| (j as f32).sin() * 0.1);

    for step in 0..STEPS {
        let mut db = vec![0.0; HIDDEN];
        let args = BiasActivationDropout {
            bias: Some(&bias),
            activation: Activation::Relu,
            dropout: Dropout::new(0.2)?,
            // The mask is a function of seed, layer and step: nothing has to be stored for backward.
            key: MaskKey::new(42, 0, step)?,
        };
        let mut h = x.dot(&w);
        bias_activation_dropout_forward_in_place(&args, view_mut(&mut h)?, None, None)?;

        let error = h.dot(&v) - &y;
        let gradient = &error * (2.0 / EXAMPLES as f32);
        let dv = h.t().dot(&gradient);
        let mut dh = Array2::from_shape_fn((EXAMPLES, HIDDEN), |(i, j)| gradient[i] * v[j]);
        let saved = Saved::output(view(&h)?);
        bias_activation_dropout_backward_in_place(
            &args,
            &saved,
            view_mut(&mut dh)?,
            Some(&mut db),
        )?;

        w.scaled_add(-LEARNING_RATE, &x.t().dot(&dh));
        v.scaled_add(-LEARNING_RATE, &dv);
        bias.iter_mut().zip(&db).for_each(|(b, db)| *b -= LEARNING_RATE * db);
        if step == 0 || (step + 1) % 500 == 0 {
            let loss = error.dot(&error) / EXAMPLES as f32;
            println!("step {:4}: mean squared error with dropout {loss:.4}", step + 1);
        }
    }
    Ok(())
}
