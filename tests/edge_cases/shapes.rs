//! Shapes, strides and lengths that disagree: an error that names both sides and their values, and
//! outputs that are untouched.

use fused_dropout::nn::{Mlp, MlpSpec, Sgd};
use fused_dropout::{
    Activation, BiasActivationDropout, DenseArgs, Dropout, Error, Gradients, Mask, MatMut, MatRef,
    Result, Saved, SavedValues, bias_activation_dropout_backward,
    bias_activation_dropout_backward_in_place, bias_activation_dropout_forward,
    bias_activation_dropout_forward_in_place, dense_backward, dense_forward, dropout_backward,
    dropout_backward_in_place, dropout_forward, dropout_forward_in_place, reference,
};

use crate::common::{matrix, matrix_mut, numbers};
use crate::key;

/// Outputs large enough for any shape of this test, with contents that no operation makes.
struct Outputs {
    a: [f32; 64],
    b: [f32; 64],
    mask: Mask,
}

/// Calls an operation that must refuse, and returns what it says: the pairs of sides and values.
#[track_caller]
fn refused(call: impl FnOnce(&mut Outputs) -> Result<()>) -> String {
    let full = || Mask::generate(3, 4, &Dropout::NONE, &key()).unwrap();
    let mut outputs = Outputs { a: [77.0; 64], b: [77.0; 64], mask: full() };
    let error = call(&mut outputs).expect_err("sizes that disagree are refused");
    assert_eq!(outputs.a, [77.0; 64], "an output was touched");
    assert_eq!(outputs.b, [77.0; 64], "an output was touched");
    assert_eq!(outputs.mask, full(), "the mask was touched");
    match error {
        Error::Mismatch { left, left_value, right, right_value } => {
            let text = error.to_string();
            for part in [left, right, &left_value.to_string(), &right_value.to_string()] {
                assert!(text.contains(part), "{text:?} does not name {part}");
            }
            format!("{left} {left_value}, {right} {right_value}")
        }
        Error::Shape { left, left_rows, left_cols, right, right_rows, right_cols } => {
            let text = error.to_string();
            let shapes =
                [format!("{left_rows} x {left_cols}"), format!("{right_rows} x {right_cols}")];
            for part in [left, right, &shapes[0], &shapes[1]] {
                assert!(text.contains(part), "{text:?} does not name {part}");
            }
            format!("{left} {}, {right} {}", shapes[0], shapes[1])
        }
        error => panic!("{error:?}"),
    }
}

/// Shapes that are not 3 x 4 although some have as many elements.
const WRONG: [(usize, usize); 5] = [(4, 3), (3, 5), (2, 4), (1, 12), (0, 4)];

#[test]
fn strides_and_lengths_of_views() {
    let data = [0.0; 11];
    let error = |rows, cols, stride| MatRef::with_stride(&data, rows, cols, stride).unwrap_err();
    let too_short =
        |rows, cols, stride, needed| Error::TooShort { rows, cols, stride, needed, len: 11 };
    assert_eq!(error(3, 4, 4), too_short(3, 4, 4, 12));
    assert_eq!(error(3, 2, 5), too_short(3, 2, 5, 12));
    assert_eq!(error(2, 5, 4), Error::Stride { stride: 4, cols: 5 });
    assert_eq!(error(0, 1, 0), Error::Stride { stride: 0, cols: 1 });
    let text = error(3, 2, 5).to_string();
    assert!(["3", "2", "5", "12", "11"].iter().all(|n| text.contains(n)), "{text}");
    let mut copy = data;
    let error = MatMut::with_stride(&mut copy, 3, 4, 4).unwrap_err();
    assert_eq!(error, too_short(3, 4, 4, 12));
    // The last row needs no padding.
    assert!(MatRef::with_stride(&data, 3, 1, 5).is_ok());
    assert!(MatRef::with_stride(&data, 0, 5, 9).is_ok());
    let view = MatRef::with_stride(&data, 3, 1, 5).unwrap();
    assert!(view.rows_from(3, 0).is_ok() && view.rows_from(2, 1).is_ok());
    assert!(matches!(
        view.rows_from(2, 2),
        Err(Error::Mismatch { left_value: 4, right_value: 3, .. })
    ));
}

#[test]
fn dropout() {
    let x = numbers(64, 1);
    let (p, key) = (Dropout::new(0.5).unwrap(), key());
    let x = matrix(&x, 3, 4);
    for (rows, cols) in WRONG {
        let shape = format!("{rows} x {cols}");
        let text =
            refused(|o| dropout_forward(x, matrix_mut(&mut o.a, rows, cols), &p, &key, None));
        assert_eq!(text, format!("x 3 x 4, y {shape}"));
        let text =
            refused(|o| dropout_backward(x, matrix_mut(&mut o.a, rows, cols), &p, &key, None));
        assert_eq!(text, format!("dy 3 x 4, dz {shape}"));
        let expected = format!("the mask 3 x 4, x {shape}");
        let from = matrix(&[1.0; 16], rows, cols);
        let call = |o: &mut Outputs| {
            let to = matrix_mut(&mut o.a, rows, cols);
            dropout_forward(from, to, &p, &key, Some(&mut o.mask))
        };
        assert_eq!(refused(call), expected);
        let call = |o: &mut Outputs| {
            let to = matrix_mut(&mut o.a, rows, cols);
            dropout_forward_in_place(to, &p, &key, Some(&mut o.mask))
        };
        assert_eq!(refused(call), expected);
        let expected = format!("the mask 3 x 4, dy {shape}");
        let call = |o: &mut Outputs| {
            let to = matrix_mut(&mut o.a, rows, cols);
            dropout_backward(from, to, &p, &key, Some(&o.mask))
        };
        assert_eq!(refused(call), expected);
        let call = |o: &mut Outputs| {
            let to = matrix_mut(&mut o.a, rows, cols);
            dropout_backward_in_place(to, &p, &key, Some(&o.mask))
        };
        assert_eq!(refused(call), expected);
    }
}

#[test]
fn bias_activation_dropout() {
    let data = numbers(64, 1);
    let x = matrix(&data, 3, 4);
    let args = BiasActivationDropout {
        bias: Some(&data[..4]),
        activation: Activation::Relu,
        dropout: Dropout::new(0.5).unwrap(),
        key: key(),
    };
    let saved = Saved::output(x);
    for (rows, cols) in WRONG {
        let shape = format!("{rows} x {cols}");
        let wrong = matrix(&data, rows, cols);
        let call = |o: &mut Outputs| {
            let to = matrix_mut(&mut o.a, 3, 4);
            bias_activation_dropout_forward(&args, x, Some(wrong), to, Some(&mut o.mask))
        };
        assert_eq!(refused(call), format!("the residual {shape}, x 3 x 4"));
        let call = |o: &mut Outputs| {
            let to = matrix_mut(&mut o.a, 3, 4);
            bias_activation_dropout_forward_in_place(&args, to, Some(wrong), Some(&mut o.mask))
        };
        assert_eq!(refused(call), format!("the residual {shape}, x 3 x 4"));
        // What was saved must have the gradient's shape, also where the activation does not need it.
        for (activation, values, name) in [
            (Activation::Relu, SavedValues::Output(wrong), "output"),
            (Activation::Relu, SavedValues::PreActivation(wrong), "z"),
            (Activation::Identity, SavedValues::Output(wrong), "output"),
            (Activation::Identity, SavedValues::PreActivation(wrong), "z"),
            (Activation::Identity, SavedValues::Output(wrong.t()), "output"),
            (Activation::Gelu, SavedValues::PreActivation(wrong), "z"),
        ] {
            let args = BiasActivationDropout { activation, ..args };
            let saved = Saved { values, mask: None };
            let shape = match values {
                SavedValues::Output(y) => format!("{} x {}", y.rows(), y.cols()),
                _ => shape.clone(),
            };
            if shape == "3 x 4" {
                continue;
            }
            let call = |o: &mut Outputs| {
                let (dz, db) = (matrix_mut(&mut o.a, 3, 4), Some(&mut o.b[..4]));
                bias_activation_dropout_backward(&args, &saved, x, dz, db)
            };
            assert_eq!(refused(call), format!("the saved {name} {shape}, dy 3 x 4"));
        }
        let call = |o: &mut Outputs| {
            let (dy, db) = (matrix_mut(&mut o.a, rows, cols), Some(&mut o.b[..cols]));
            let bias = &data[..cols];
            let args = BiasActivationDropout { bias: Some(bias), ..args };
            bias_activation_dropout_backward_in_place(&args, &saved, dy, db)
        };
        assert_eq!(refused(call), format!("the saved output 3 x 4, dy {shape}"));
    }
    for len in [0, 3, 5] {
        let args = BiasActivationDropout { bias: Some(&data[..len]), ..args };
        let expected = format!("length of the bias {len}, columns of x 4");
        let call = |o: &mut Outputs| {
            bias_activation_dropout_forward(&args, x, None, matrix_mut(&mut o.a, 3, 4), None)
        };
        assert_eq!(refused(call), expected);
        let call = |o: &mut Outputs| {
            bias_activation_dropout_backward(&args, &saved, x, matrix_mut(&mut o.a, 3, 4), None)
        };
        assert_eq!(refused(call), expected);
        let args = BiasActivationDropout { bias: None, ..args };
        let call = |o: &mut Outputs| {
            let (dz, db) = (matrix_mut(&mut o.a, 3, 4), Some(&mut o.b[..len]));
            bias_activation_dropout_backward(&args, &saved, x, dz, db)
        };
        assert_eq!(refused(call), format!("length of db {len}, columns of dy 4"));
    }
}

/// x 3 x 2, W 2 x 4; the fast function and the reference say the same.
#[test]
fn dense() {
    let data = numbers(64, 1);
    let args = DenseArgs {
        bias: Some(&data[..4]),
        activation: Activation::Gelu,
        ..DenseArgs::new(matrix(&data, 3, 2), matrix(&data, 2, 4))
    };
    let (z, dy) = (matrix(&data, 3, 4), matrix(&data, 3, 4));
    #[track_caller]
    fn forward(args: &DenseArgs<'_>, y: (usize, usize), z: (usize, usize)) -> String {
        let fast = refused(|o| {
            let z = matrix_mut(&mut o.b, z.0, z.1);
            dense_forward(args, matrix_mut(&mut o.a, y.0, y.1), Some(z), Some(&mut o.mask))
        });
        let naive = refused(|o| {
            let z = matrix_mut(&mut o.b, z.0, z.1);
            reference::dense_forward(args, matrix_mut(&mut o.a, y.0, y.1), Some(z), None)
        });
        assert_eq!(fast, naive);
        fast
    }
    let backward = |args: &DenseArgs<'_>,
                    saved: Saved<'_>,
                    dy: MatRef<'_>,
                    dx: (usize, usize),
                    dw: (usize, usize),
                    db| {
        refused(|o| {
            let (first, rest) = o.b.split_at_mut(8);
            let gradients = Gradients {
                dx: Some(matrix_mut(&mut o.a, dx.0, dx.1)),
                dw: Some(matrix_mut(rest, dw.0, dw.1)),
                db: Some(&mut first[..db]),
            };
            dense_backward(args, &saved, dy, gradients)
        })
    };
    let saved = Saved::pre_activation(z);
    for (rows, cols) in [(4, 2), (1, 4), (3, 4), (0, 4)] {
        let wrong = DenseArgs { w: matrix(&data, rows, cols), ..args };
        if rows != 2 {
            let expected = format!("columns of x 2, rows of W {rows}");
            assert_eq!(forward(&wrong, (3, 4), (3, 4)), expected);
            assert_eq!(backward(&wrong, saved, dy, (3, 2), (2, 4), 4), expected);
        }
    }
    for len in [0, 3, 5] {
        let wrong = DenseArgs { bias: Some(&data[..len]), ..args };
        let expected = format!("length of the bias {len}, columns of W 4");
        assert_eq!(forward(&wrong, (3, 4), (3, 4)), expected);
        assert_eq!(backward(&wrong, saved, dy, (3, 2), (2, 4), 4), expected);
        let expected = format!("length of db {len}, columns of W 4");
        assert_eq!(backward(&args, saved, dy, (3, 2), (2, 4), len), expected);
    }
    for (rows, cols) in WRONG {
        let shape = format!("{rows} x {cols}");
        let wrong = matrix(&data, rows, cols);
        assert_eq!(forward(&args, (rows, cols), (3, 4)), format!("y {shape}, x · W 3 x 4"));
        assert_eq!(forward(&args, (3, 4), (rows, cols)), format!("z {shape}, x · W 3 x 4"));
        let text = backward(&args, saved, wrong, (3, 2), (2, 4), 4);
        assert_eq!(text, format!("dy {shape}, x · W 3 x 4"));
        let text = backward(&args, Saved::pre_activation(wrong), dy, (3, 2), (2, 4), 4);
        assert_eq!(text, format!("the saved z {shape}, dy 3 x 4"));
        let text = backward(&args, saved, dy, (rows, cols), (2, 4), 4);
        assert_eq!(text, format!("dx {shape}, x 3 x 2"));
        let (dw, text) =
            if (rows, cols) == (2, 4) { ((4, 2), "4 x 2") } else { ((rows, cols), &*shape) };
        let text = format!("dW {text}, W 2 x 4");
        assert_eq!(backward(&args, saved, dy, (3, 2), dw, 4), text);
        let mask = Mask::new(rows, cols).unwrap();
        let text = backward(&args, saved.with_mask(&mask), dy, (3, 2), (2, 4), 4);
        assert_eq!(text, format!("the mask {shape}, dy 3 x 4"));
        // The mask to store.
        let args =
            DenseArgs { x: matrix(&data, rows, 2), w: matrix(&data, 2, cols), bias: None, ..args };
        let text = refused(|o| {
            dense_forward(&args, matrix_mut(&mut o.a, rows, cols), None, Some(&mut o.mask))
        });
        assert_eq!(text, format!("the mask 3 x 4, x · W {shape}"));
    }
}

#[test]
fn what_backward_needs_must_be_saved() {
    let data = numbers(64, 1);
    let y = matrix(&data, 3, 4);
    for (activation, saved, missing) in [
        (Activation::Relu, SavedValues::None, "the output or z"),
        (Activation::Tanh, SavedValues::None, "the output or z"),
        (Activation::Gelu, SavedValues::None, "z"),
        (Activation::Silu, SavedValues::Output(y), "z"),
    ] {
        let saved = Saved { values: saved, mask: None };
        let (mut dx, mut a) = ([77.0; 6], [77.0; 12]);
        let expected = Err(Error::NotSaved { activation: activation.name(), missing });
        let args =
            DenseArgs { activation, ..DenseArgs::new(matrix(&data, 3, 2), matrix(&data, 2, 4)) };
        let gradients = Gradients { dx: Some(matrix_mut(&mut dx, 3, 2)), dw: None, db: None };
        assert_eq!(dense_backward(&args, &saved, y, gradients), expected);
        let DenseArgs { bias, dropout, key, .. } = args;
        let pass = BiasActivationDropout { bias, activation, dropout, key };
        let to = matrix_mut(&mut a, 3, 4);
        assert_eq!(bias_activation_dropout_backward(&pass, &saved, y, to, None), expected);
        assert_eq!((dx, a), ([77.0; 6], [77.0; 12]), "an output was touched");
    }
}

#[test]
fn slopes_that_are_negative_or_not_finite() {
    let data = numbers(12, 1);
    for slope in [-0.1, f32::NAN, f32::INFINITY] {
        let activation = Activation::LeakyRelu { slope };
        let args =
            DenseArgs { activation, ..DenseArgs::new(matrix(&data, 3, 2), matrix(&data, 2, 4)) };
        let mut y = [77.0; 12];
        let result = dense_forward(&args, matrix_mut(&mut y, 3, 4), None, None);
        assert!(matches!(result, Err(Error::Parameter { name: "slope", .. })), "{result:?}");
        assert_eq!(y, [77.0; 12], "an output was touched");
        assert!(Mlp::new(&MlpSpec { activation, ..MlpSpec::new(&[2, 2]) }).is_err());
    }
}

#[test]
fn networks() {
    for sizes in [&[][..], &[3], &[3, 0], &[0, 3], &[3, (1 << 24) + 1]] {
        assert!(
            matches!(Mlp::new(&MlpSpec::new(sizes)), Err(Error::Parameter { .. })),
            "{sizes:?}"
        );
    }
    let data = numbers(64, 1);
    let mut mlp = Mlp::new(&MlpSpec::new(&[4, 5, 3])).unwrap();
    let wrong_x = "columns of x 5, inputs of the network 4";
    let text = refused(|_| mlp.train_step(matrix(&data, 2, 5), &[0, 1], &Sgd::new(0.1)).map(drop));
    assert_eq!(text, wrong_x);
    let text = refused(|_| mlp.evaluate(matrix(&data, 2, 5), &[0, 1]).map(drop));
    assert_eq!(text, wrong_x);
    let text = refused(|o| mlp.predict(matrix(&data, 2, 5), matrix_mut(&mut o.a, 2, 3)));
    assert_eq!(text, wrong_x);
    let text = refused(|o| mlp.predict(matrix(&data, 2, 4), matrix_mut(&mut o.a, 3, 2)));
    assert_eq!(text, "the logits 3 x 2, the output 2 x 3");
    let labels = "number of labels 1, rows of the logits 2";
    let text = refused(|_| mlp.train_step(matrix(&data, 2, 4), &[0], &Sgd::new(0.1)).map(drop));
    assert_eq!(text, labels);
    assert_eq!(refused(|_| mlp.evaluate(matrix(&data, 2, 4), &[0]).map(drop)), labels);
}
