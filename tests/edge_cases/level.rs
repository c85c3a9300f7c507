//! The level of a program and the level that a test forces: one that does not exist, or not here, is a
//! clear error from every operation.

use std::process::Command;

use fused_dropout::elementwise::{
    BiasActivationDropout, bias_activation_dropout_backward, bias_activation_dropout_forward,
    dropout_backward, dropout_forward,
};
use fused_dropout::layer::{DenseArgs, DenseLayer, Gradients, dense_backward, dense_forward};
use fused_dropout::loss::{
    CrossEntropy, Huber, MeanSquaredError, cross_entropy, huber, mean_squared_error,
};
use fused_dropout::nn::{Mlp, MlpSpec, Optimiser};
use fused_dropout::softmax::softmax_cross_entropy;
use fused_dropout::update::{SgdStep, apply, max_norm};
use fused_dropout::{
    Activation, Error, Level, Mask, MaskSource, MatMut, MatRef, Result, Saved, testing,
};

use crate::common::{matrix, matrix_mut};
use crate::keyed;

const VARIABLE: &str = "FUSED_DROPOUT_LEVEL";

/// Set for the process that `report_of_a_child` runs in.
const CHILD: &str = "FUSED_DROPOUT_TEST_CHILD";

/// Every operation once, on numbers of which each is 2; all outputs after it.
fn every_operation() -> Vec<(&'static str, Result<()>, Vec<f32>)> {
    let (x, labels, half) = ([2.0; 4], [0, 1], keyed(0.5));
    let view = matrix(&x, 2, 2);
    let pass = BiasActivationDropout::new(Activation::Silu, half);
    let saved = Saved::PreActivation(view);
    let args = DenseArgs::new(DenseLayer::new(Activation::Silu), view, view);
    let step = SgdStep::new(0.1);
    let mut all = Vec::new();
    let mut run = |name, call: &dyn Fn(MatMut<'_>) -> Result<()>| {
        let mut out = [2.0; 4];
        let result = call(matrix_mut(&mut out, 2, 2));
        all.push((name, result, out.to_vec()));
    };
    const KEY: MaskSource<'_> = MaskSource::Key;
    run("dropout_forward", &|y| dropout_forward((view, y), &half, KEY));
    run("dropout_forward in place", &|x| dropout_forward(x, &half, KEY));
    run("dropout_backward", &|dx| dropout_backward((view, dx), &half, KEY));
    run("dropout_backward in place", &|dx| dropout_backward(dx, &half, KEY));
    run("forward", &|y| bias_activation_dropout_forward(&pass, (view, y), KEY));
    run("forward in place", &|x| bias_activation_dropout_forward(&pass, x, KEY));
    run("backward", &|dz| bias_activation_dropout_backward(&pass, &saved, (view, dz), None, KEY));
    run("backward in place", &|dy| bias_activation_dropout_backward(&pass, &saved, dy, None, KEY));
    run("dense_forward", &|y| dense_forward(&args, y, None, KEY));
    run("dense_backward", &|dx| {
        dense_backward(&args, &saved, view, Gradients::default().with_dx(dx), KEY)
    });
    run("apply", &|w| apply(w, view, None, step));
    run("max_norm", &|w| max_norm(w, 0.5));
    run("softmax_cross_entropy", &|g| softmax_cross_entropy(view, &labels, Some(g)).map(drop));
    run("cross_entropy", &|g| cross_entropy(&CrossEntropy::new(&labels), view, Some(g)).map(drop));
    run("mean_squared_error", &|g| {
        mean_squared_error(&MeanSquaredError::new(matrix(&[1.0; 4], 2, 2)), view, Some(g)).map(drop)
    });
    run("huber", &|g| huber(&Huber::new(matrix(&[1.0; 4], 2, 2), 0.5)?, view, Some(g)).map(drop));
    run("Mask::generate", &|mut y| {
        Mask::generate(2, 2, &half).and_then(|mask| y.set(0, 0, mask.count() as f32 + 3.0))
    });
    let mut mlp = Mlp::new(&MlpSpec::new(&[2, 3, 2])).unwrap();
    let weights = |mlp: &Mlp| mlp.layers().iter().flat_map(|l| l.weights().to_vec()).collect();
    let mut before: Vec<f32> = weights(&mlp);
    let step = mlp.train_step(view, &labels, &Optimiser::new(SgdStep::new(0.1))).map(drop);
    // Weights that did not change are told as an output that did not.
    before.iter_mut().zip(weights(&mlp)).for_each(|(old, new): (&mut f32, f32)| *old += 2.0 - new);
    all.push(("Mlp::train_step", step, before));
    let evaluation = mlp.evaluate(view, &labels).map(drop);
    all.push(("Mlp::evaluate", evaluation, vec![2.0]));
    all
}

/// Runs in a child process with [`VARIABLE`] set; does nothing in this one.
#[test]
fn report_of_a_child() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    println!("current: {:?}", Level::current());
    for (name, result, out) in every_operation() {
        let touched = out.iter().any(|x| *x != 2.0);
        println!(
            "operation {name}: {}; touched: {touched}",
            result.map_or_else(|e| e.to_string(), |()| "ok".into())
        );
    }
    let forced =
        testing::at_level(Level::Portable, || every_operation().iter().all(|(_, r, _)| r.is_ok()));
    println!("forced: {forced:?}");
}

/// The lines a child prints whose [`VARIABLE`] is `level`.
fn child(level: &str) -> Vec<String> {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "level::report_of_a_child", "--nocapture", "--test-threads=1"])
        .env(VARIABLE, level)
        .env(CHILD, "1")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

fn operations(lines: &[String]) -> Vec<&str> {
    let operations: Vec<_> = lines.iter().filter_map(|l| l.strip_prefix("operation ")).collect();
    assert_eq!(operations.len(), 19, "{lines:?}");
    operations
}

#[test]
fn an_unknown_name_is_an_error_from_every_operation() {
    for name in ["avx3", "AVX2", "avx2 ", " "] {
        let lines = child(name);
        let error = Error::UnknownLevel { name: name.to_owned() };
        assert!(error.to_string().contains("the levels are portable, avx2 and avx512"));
        assert!(lines.iter().any(|l| l.contains("current: Err(UnknownLevel")), "{lines:?}");
        for line in operations(&lines) {
            assert!(line.ends_with(&format!(": {error}; touched: false")), "{line}");
        }
        // A forced level does not look at the variable.
        assert!(lines.iter().any(|l| l.contains("forced: Ok(true)")), "{lines:?}");
    }
}

#[test]
fn an_empty_variable_counts_as_unset() {
    let lines = child("");
    let best = format!("current: Ok({:?})", Level::best());
    assert!(lines.iter().any(|l| l.contains(&best)), "{lines:?}");
    assert!(operations(&lines).iter().all(|line| line.contains(": ok; touched: ")), "{lines:?}");
}

#[test]
fn every_level_of_the_variable_runs_or_is_an_error() {
    for level in [Level::Portable, Level::Avx2, Level::Avx512] {
        let lines = child(&level.to_string());
        let error = Error::LevelUnavailable { level, best: Level::best() };
        let (current, end) = if level.is_available() {
            (format!("current: Ok({level:?})"), ": ok; touched: ".to_owned())
        } else {
            println!("this machine has no {level}");
            ("current: Err(LevelUnavailable".to_owned(), format!(": {error}; touched: false"))
        };
        assert!(lines.iter().any(|l| l.contains(&current)), "{lines:?}");
        for line in operations(&lines) {
            assert!(line.contains(&end), "{line}");
        }
    }
}

#[test]
fn a_level_that_this_machine_has_not_is_refused() {
    for level in [Level::Portable, Level::Avx2, Level::Avx512] {
        let mut called = false;
        let result = testing::at_level(level, || called = true);
        assert_eq!(called, level.is_available());
        if !level.is_available() {
            let error = Error::LevelUnavailable { level, best: Level::best() };
            let text = error.to_string();
            assert!(text.contains(&level.to_string()) && text.contains(&Level::best().to_string()));
            assert_eq!(result, Err(error));
        }
    }
}

#[test]
fn the_innermost_level_counts_and_the_outer_one_comes_back() {
    let outer = Level::current().unwrap();
    let inner = testing::at_level(Level::Portable, || {
        let best = testing::at_level(Level::best(), || Level::current().unwrap()).unwrap();
        (best, Level::current().unwrap())
    });
    assert_eq!(inner, Ok((Level::best(), Level::Portable)));
    assert_eq!(Level::current(), Ok(outer));
    for level in Level::available() {
        assert_eq!(level.to_string().parse(), Ok(level));
        let x = MatRef::row_vector(&[1.0]);
        assert_eq!(
            testing::at_level(level, || softmax_cross_entropy(x, &[0], None).map(|l| l.sum)),
            Ok(Ok(0.0))
        );
    }
}
