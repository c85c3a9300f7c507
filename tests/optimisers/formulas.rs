//! One element's update against the papers' formulas, and every level against the reference.

use fused_dropout::update::{AdamStep, SgdStep, State, Step, apply, max_norm};
use fused_dropout::{Error, MatMut, MatRef, reference};

use crate::common::{assert_same, bits, for_each_level, matrix, matrix_mut, numbers, with_threads};
use crate::{Kept, steps};

/// Gradients of a function that changes from step to step, as those of mini-batches do.
fn gradient(w: f64, step: u32) -> f64 {
    3.0 * (w - 0.3) + f64::from(step).sin()
}

/// 100 steps of the reference in f64, w after each.
fn path(step_at: impl Fn(u32) -> Step) -> Vec<f64> {
    let (mut w, mut first, mut second) = ([1.5], [0.0], [0.0]);
    (1..=100)
        .map(|t| {
            let step = step_at(t);
            let dw = [gradient(w[0], t)];
            let first = MatMut::row_vector(&mut first);
            let state = match step {
                Step::Sgd(_) => State::from(first),
                _ => (first, MatMut::row_vector(&mut second)).into(),
            };
            let dw = MatRef::row_vector(&dw);
            reference::apply(MatMut::row_vector(&mut w), dw, state, step).unwrap();
            w[0]
        })
        .collect()
}

#[track_caller]
fn assert_near(ours: &[f64], paper: &[f64]) {
    for (t, (a, b)) in ours.iter().zip(paper).enumerate() {
        assert!((a - b).abs() <= 1e-12 * b.abs().max(1.0), "step {t}: {a}, not {b}");
    }
}

/// Algorithm 1 of Kingma and Ba 2015, and algorithm 2 of Loshchilov and Hutter 2019, as printed there:
/// with the corrected moments, and with the decay beside the step.
#[test]
fn adam_is_the_algorithm_of_the_papers() {
    let (alpha, beta1, beta2, epsilon) = (f64::from(0.05f32), 0.85, 0.97, f64::from(1e-3f32));
    let adam = AdamStep::new(0.05).with_betas(beta1, beta2).with_epsilon(1e-3);
    let decay = f64::from(0.2f32);
    for (step, l2, decoupled) in [
        (adam, 0.0, 0.0),
        (adam.with_l2(0.2), decay, 0.0),
        (adam.with_weight_decay(0.2), 0.0, decay),
    ] {
        let (mut w, mut m, mut v) = (1.5, 0.0, 0.0);
        let paper: Vec<f64> = (1..=100)
            .map(|t| {
                let g = gradient(w, t) + l2 * w;
                m = beta1 * m + (1.0 - beta1) * g;
                v = beta2 * v + (1.0 - beta2) * g * g;
                let m_hat = m / (1.0 - beta1.powi(t as i32));
                let v_hat = v / (1.0 - beta2.powi(t as i32));
                w -= alpha * m_hat / (v_hat.sqrt() + epsilon) + alpha * decoupled * w;
                w
            })
            .collect();
        assert_near(&path(|t| step.at_step(t).into()), &paper);
    }
}

/// Nesterov's momentum as he gave it: the gradient is taken where the velocity leads. In the variable
/// that is kept, `w + momentum · velocity`, it is the formula here (Sutskever et al. 2013).
#[test]
fn nesterov_looks_ahead() {
    let (rate, momentum) = (f64::from(0.03f32), f64::from(0.75f32));
    let (mut w, mut v) = (1.5, 0.0);
    let paper: Vec<f64> = (1..=100)
        .map(|t| {
            v = momentum * v - rate * gradient(w + momentum * v, t);
            w += v;
            w + momentum * v
        })
        .collect();
    let step = SgdStep::new(0.03).with_momentum(0.75).with_nesterov();
    assert_near(&path(|_| step.into()), &paper);
}

/// A slice as [rows, cols], perhaps stored by columns.
fn view(data: &mut [f32], rows: usize, cols: usize, transposed: bool) -> MatMut<'_> {
    match transposed {
        true => matrix_mut(data, cols, rows).t(),
        false => matrix_mut(data, rows, cols),
    }
}

#[test]
fn every_level_has_the_bits_of_the_reference() {
    check(&[(1, 1), (3, 17), (5, 64), (1, 100)]);
}

/// Several tasks.
#[test]
fn large_matrices_have_the_bits_of_the_reference() {
    check(&[(300, 700)]);
}

fn check(shapes: &[(usize, usize)]) {
    for &(rows, cols) in shapes {
        let (w, dw) = (numbers(rows * cols, 1), numbers(rows * cols, 2));
        let kept = Kept::new(rows * cols, 3);
        for step in steps() {
            for (w_t, state_t, scale) in
                [(false, false, 1.0), (true, true, 0.25), (true, false, 1.0)]
            {
                let gradient =
                    || fused_dropout::update::Gradient::scaled(matrix(&dw, rows, cols), scale);
                let (mut expected, mut kept_expected) = (w.clone(), kept.clone());
                let state = kept_expected.state(&step, rows, cols, state_t);
                reference::apply(view(&mut expected, rows, cols, w_t), gradient(), state, step)
                    .unwrap();
                for_each_level(|level| {
                    for threads in [1, 3] {
                        let (mut w, mut kept) = (w.clone(), kept.clone());
                        with_threads(threads, || {
                            fused_dropout::testing::at_level(level, || {
                                let state = kept.state(&step, rows, cols, state_t);
                                apply(view(&mut w, rows, cols, w_t), gradient(), state, step)
                                    .unwrap();
                            })
                            .unwrap();
                        });
                        let what = format!("{step:?}, {rows} x {cols}");
                        assert_same(level, &w, &expected, (4, 4.0), &what);
                        assert_same(level, &kept.all(), &kept_expected.all(), (4, 4.0), &what);
                    }
                });
            }
        }
    }
}

/// Where the gradient is 0 from the first step on, epsilon keeps the step 0.
#[test]
fn no_gradient_is_no_step() {
    for_each_level(|_| {
        let (mut w, mut m, mut v) = ([1.0f32, -2.0, 0.0], [0.0; 3], [0.0; 3]);
        for t in 1..4 {
            let state = (matrix_mut(&mut m, 1, 3), matrix_mut(&mut v, 1, 3));
            let step = AdamStep::new(0.1).at_step(t);
            apply(matrix_mut(&mut w, 1, 3), matrix(&[0.0; 3], 1, 3), state, step).unwrap();
        }
        assert_eq!((w, m, v), ([1.0, -2.0, 0.0], [0.0; 3], [0.0; 3]));
    });
}

/// The last step that there is has factors that are numbers.
#[test]
fn late_steps_are_not_corrected() {
    let (mut w, mut m, mut v) = ([1.0f32], [0.5], [0.25]);
    let state = (matrix_mut(&mut m, 1, 1), matrix_mut(&mut v, 1, 1));
    let step = AdamStep::new(0.5).with_betas(1.0 - 1e-9, 0.0).with_epsilon(0.0).at_step(u32::MAX);
    apply(matrix_mut(&mut w, 1, 1), matrix(&[0.5], 1, 1), state, step).unwrap();
    assert!(w[0].is_finite() && w[0] < 1.0, "{}", w[0]);
}

#[test]
fn numbers_and_states_are_checked() {
    let (data, dw) = (numbers(12, 1), numbers(12, 2));
    let refused = |step: Step, state: usize, shape: (usize, usize)| {
        let (mut w, mut first, mut second) = (data.clone(), data.clone(), data.clone());
        let to = matrix_mut(&mut first, shape.0, shape.1);
        let state: State<'_> = match state {
            0 => State::None,
            1 => to.into(),
            _ => (to, matrix_mut(&mut second, 3, 4)).into(),
        };
        let result = apply(matrix_mut(&mut w, 3, 4), matrix(&dw, 3, 4), state, step);
        assert_eq!((bits(&w), bits(&first), bits(&second)), {
            let same = bits(&data);
            (same.clone(), same.clone(), same)
        });
        result.unwrap_err()
    };
    let adam = AdamStep::new(0.1);
    for bad in [-0.1, f32::NAN, f32::INFINITY] {
        for (name, step) in [
            ("learning_rate", AdamStep::new(bad)),
            ("epsilon", adam.with_epsilon(bad)),
            ("weight_decay", adam.with_weight_decay(bad)),
        ] {
            let error = refused(step.into(), 2, (3, 4));
            assert!(
                matches!(error, Error::Parameter { name: said, .. } if said == name),
                "{error}"
            );
        }
    }
    for bad in [-0.1, 1.0, f64::NAN] {
        for (name, step) in
            [("beta1", adam.with_betas(bad, 0.9)), ("beta2", adam.with_betas(0.9, bad))]
        {
            let error = refused(step.into(), 2, (3, 4));
            assert!(
                matches!(error, Error::Parameter { name: said, .. } if said == name),
                "{error}"
            );
        }
    }
    assert_eq!(
        refused(adam.at_step(0).into(), 2, (3, 4)).to_string(),
        "step is 0: it must be 1 or more: the moments begin at 0"
    );
    let sgd = SgdStep::new(0.1).with_momentum(0.9);
    for (step, state, says) in [
        (Step::from(adam), 0, "the state of w is none, but Adam needs two moments"),
        (adam.into(), 1, "the state of w is a velocity, but Adam needs two moments"),
        (
            sgd.into(),
            2,
            "the state of w is two moments, but gradient descent needs none, or a velocity",
        ),
        (
            sgd.with_nesterov().into(),
            0,
            "the state of w is none, but gradient descent with Nesterov's momentum needs a velocity",
        ),
    ] {
        assert_eq!(refused(step, state, (3, 4)).to_string(), says);
    }
    assert_eq!(
        refused(adam.into(), 2, (4, 3)).to_string(),
        "w is 3 x 4, but the first moment is 4 x 3: they must have the same shape"
    );
    assert!(max_norm(matrix_mut(&mut [1.0], 1, 1), 1.0).is_ok());
}
