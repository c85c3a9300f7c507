//! The reference of parameter updates.

use super::lanes;
use super::{Real, at, for_each};
use crate::error::Result;
use crate::update::{CHUNK, Gradient, SMALL_SUM, SgdStep, State, Step, check_apply, check_limit};
use crate::view::{MatMut, MatRef};

/// Updates `w` and its state with a gradient, by the formula of the step.
///
/// # Errors
///
/// As for the fast function.
pub fn apply<'g, 's, T: Real>(
    mut w: MatMut<'_, T>,
    gradient: impl Into<Gradient<'g, T>>,
    state: impl Into<State<'s, T>>,
    step: impl Into<Step>,
) -> Result<()> {
    let (gradient, mut state, step) = (gradient.into(), state.into(), step.into());
    check_apply(&w, &gradient, &state, &step)?;
    let scale = T::from_f64(gradient.scale.into());
    for_each(w.rows(), w.cols(), |r, c| {
        let dw = at(&gradient.dw, r, c) * scale;
        element(&step, (&mut w, &mut state), (r, c), dw);
    });
    Ok(())
}

/// Updates element (r, c) of `w` and its state.
pub(super) fn element<T: Real>(
    step: &Step,
    (w, state): (&mut MatMut<'_, T>, &mut State<'_, T>),
    (r, c): (usize, usize),
    dw: T,
) {
    let w_old = at(&w.as_ref(), r, c);
    let (w_new, new) = match (step, state.element(r, c)) {
        (Step::Sgd(step), [velocity, _]) => sgd(step, w_old, dw, velocity),
        (Step::Adam(step), [m, v]) => {
            let numbers = step.numbers();
            let minus_rate = T::from_f64(-numbers.rate);
            let numbers = numbers.map(T::from_f64);
            let g = numbers.l2.mul_add(w_old, dw);
            let (m, v) = (m.unwrap_or(T::ZERO), v.unwrap_or(T::ZERO));
            let m = numbers.beta1.mul_add(m, numbers.new1 * g);
            let v = numbers.beta2.mul_add(v, numbers.new2 * g * g);
            let d = v.sqrt().mul_add(numbers.root, numbers.epsilon);
            (minus_rate.mul_add(m / d, numbers.decay * w_old), [Some(m), Some(v)])
        }
    };
    w.put(r, c, w_new);
    state.put(r, c, new);
}

/// `g = dw + weight_decay · w + l1 · sign(w),  v = momentum · v + g,  w = w - learning_rate · v`, or
/// with Nesterov's momentum `w - learning_rate · (momentum · v + g)`.
fn sgd<T: Real>(step: &SgdStep, w: T, dw: T, velocity: Option<T>) -> (T, [Option<T>; 2]) {
    let number = |x: f32| T::from_f64(x.into());
    let mut g = number(step.weight_decay).mul_add(w, dw);
    if step.l1 != 0.0 {
        let l1 = number(step.l1);
        g = g + match w {
            w if w > T::ZERO => l1,
            w if w < T::ZERO => T::ZERO - l1,
            _ => T::ZERO,
        };
    }
    let momentum = number(step.momentum);
    let v = velocity.map(|velocity| momentum.mul_add(velocity, g));
    let along = match v {
        Some(v) if step.nesterov => momentum.mul_add(v, g),
        Some(v) => v,
        None => g,
    };
    (number(-step.learning_rate).mul_add(along, w), [v, None])
}

/// `sqrt(sum of g²)` of all elements of all gradients.
///
/// # Errors
///
/// None: it has the result of the fast function.
pub fn global_norm<T: Real>(gradients: &[MatRef<'_, T>]) -> Result<f64> {
    let mut total = 0.0;
    for gradient in gradients {
        for r in 0..gradient.rows() {
            let mut sum_of_row = 0.0;
            for first in (0..gradient.cols()).step_by(CHUNK) {
                let n = CHUNK.min(gradient.cols() - first);
                let g = |c| at(gradient, r, first + c);
                let sum: f64 = lanes::sum(n, |c, lane| g(c).mul_add(g(c), lane)).into();
                let exact = sum == 0.0 || (sum.is_finite() && sum >= SMALL_SUM.into());
                let square = |c: usize| g(c).into() * g(c).into();
                sum_of_row += if exact { sum } else { (0..n).map(square).sum() };
            }
            total += sum_of_row;
        }
    }
    Ok(libm::sqrt(total))
}

/// Scales each column of `w` back to the norm `limit` where it is longer.
///
/// # Errors
///
/// As for the fast function.
pub fn max_norm<T: Real>(mut w: MatMut<'_, T>, limit: f32) -> Result<()> {
    check_limit(limit)?;
    let limit = T::from_f64(limit.into());
    for c in 0..w.cols() {
        let mut squares = T::ZERO;
        for r in 0..w.rows() {
            let value = at(&w.as_ref(), r, c);
            squares = value.mul_add(value, squares);
        }
        let norm = squares.sqrt();
        let factor = if norm > limit { limit / norm } else { T::from_f64(1.0) };
        for r in 0..w.rows() {
            let value = at(&w.as_ref(), r, c);
            w.put(r, c, value * factor);
        }
    }
    Ok(())
}
