//! Shapes, strides and lengths that disagree: an error that names both sides and their values, and
//! outputs that are untouched.

use fused_dropout::elementwise::{
    BiasActivationDropout, bias_activation_dropout_backward, bias_activation_dropout_forward,
    dropout_backward, dropout_forward,
};
use fused_dropout::layer::{DenseArgs, DenseLayer, Gradients, dense_backward, dense_forward};
use fused_dropout::nn::{Mlp, MlpSpec, Optimiser};
use fused_dropout::update::SgdStep;
use fused_dropout::{
    Activation, Error, KeyedDropout, Mask, MaskSource, MatMut, MatRef, Result, Saved, reference,
};

use crate::common::{matrix, matrix_mut, numbers};
use crate::keyed;

/// Outputs large enough for any shape of this test, with contents that no operation makes.
struct Outputs {
    a: [f32; 64],
    b: [f32; 64],
    mask: Mask,
}

/// Calls an operation that must refuse, and returns what it says: the pairs of sides and values.
#[track_caller]
fn refused(call: impl FnOnce(&mut Outputs) -> Result<()>) -> String {
    let full = || Mask::generate(3, 4, &KeyedDropout::NONE).unwrap();
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
    let error = view.rows_from(2, 2).map(|m| m.rows());
    assert_eq!(error, Err(Error::Range { what: "row", first: 2, count: 2, all: 3 }));
}

#[test]
fn an_element_outside_is_not_written() {
    let mut data = [77.0; 6];
    let mut m = matrix_mut(&mut data, 2, 3);
    for (row, col) in [(2, 0), (0, 3), (1, 3), (usize::MAX, usize::MAX)] {
        assert_eq!(m.set(row, col, 1.0), Err(Error::Index { row, col, rows: 2, cols: 3 }));
    }
    assert_eq!(m.set(1, 2, 1.0), Ok(()));
    assert_eq!(data, [77.0, 77.0, 77.0, 77.0, 77.0, 1.0]);
}

#[test]
fn dropout() {
    let x = numbers(64, 1);
    let half = keyed(0.5);
    let x = matrix(&x, 3, 4);
    for (rows, cols) in WRONG {
        let shape = format!("{rows} x {cols}");
        let text = refused(|o| {
            dropout_forward((x, matrix_mut(&mut o.a, rows, cols)), &half, MaskSource::Key)
        });
        assert_eq!(text, format!("x 3 x 4, y {shape}"));
        let text = refused(|o| {
            dropout_backward((x, matrix_mut(&mut o.a, rows, cols)), &half, MaskSource::Key)
        });
        assert_eq!(text, format!("dy 3 x 4, dx {shape}"));
        let expected = format!("the mask 3 x 4, x {shape}");
        let from = matrix(&[1.0; 16], rows, cols);
        let call = |o: &mut Outputs| {
            let to = matrix_mut(&mut o.a, rows, cols);
            dropout_forward((from, to), &half, &mut o.mask)
        };
        assert_eq!(refused(call), expected);
        let call =
            |o: &mut Outputs| dropout_forward(matrix_mut(&mut o.a, rows, cols), &half, &mut o.mask);
        assert_eq!(refused(call), expected);
        let expected = format!("the mask 3 x 4, dy {shape}");
        let call = |o: &mut Outputs| {
            let to = matrix_mut(&mut o.a, rows, cols);
            dropout_backward((from, to), &half, &o.mask)
        };
        assert_eq!(refused(call), expected);
        let call =
            |o: &mut Outputs| dropout_backward(matrix_mut(&mut o.a, rows, cols), &half, &o.mask);
        assert_eq!(refused(call), expected);
    }
}

#[test]
fn bias_activation_dropout() {
    let data = numbers(64, 1);
    let x = matrix(&data, 3, 4);
    let bare = BiasActivationDropout::new(Activation::Relu, keyed(0.5));
    let args = bare.with_bias(&data[..4]);
    let saved = Saved::Output(x);
    for (rows, cols) in WRONG {
        let shape = format!("{rows} x {cols}");
        let wrong = matrix(&data, rows, cols);
        let call = |o: &mut Outputs| {
            let to = matrix_mut(&mut o.a, 3, 4);
            bias_activation_dropout_forward(&args.with_residual(wrong), (x, to), &mut o.mask)
        };
        assert_eq!(refused(call), format!("the residual {shape}, x 3 x 4"));
        let call = |o: &mut Outputs| {
            let to = matrix_mut(&mut o.a, 3, 4);
            bias_activation_dropout_forward(&args.with_residual(wrong), to, &mut o.mask)
        };
        assert_eq!(refused(call), format!("the residual {shape}, x 3 x 4"));
        // What was saved must have the gradient's shape, also where the activation does not need it.
        for (activation, saved, name) in [
            (Activation::Relu, Saved::Output(wrong), "output"),
            (Activation::Relu, Saved::PreActivation(wrong), "z"),
            (Activation::Identity, Saved::Output(wrong), "output"),
            (Activation::Identity, Saved::PreActivation(wrong), "z"),
            (Activation::Identity, Saved::Output(wrong.t()), "output"),
            (Activation::Gelu, Saved::PreActivation(wrong), "z"),
        ] {
            let mut args = args;
            args.activation = activation;
            let shape = match saved {
                Saved::Output(y) => format!("{} x {}", y.rows(), y.cols()),
                _ => shape.clone(),
            };
            if shape == "3 x 4" {
                continue;
            }
            let call = |o: &mut Outputs| {
                let (dy_dz, db) = ((x, matrix_mut(&mut o.a, 3, 4)), Some(&mut o.b[..4]));
                bias_activation_dropout_backward(&args, &saved, dy_dz, db, MaskSource::Key)
            };
            assert_eq!(refused(call), format!("the saved {name} {shape}, dy 3 x 4"));
        }
        let call = |o: &mut Outputs| {
            let (dy, db) = (matrix_mut(&mut o.a, rows, cols), Some(&mut o.b[..cols]));
            let args = bare.with_bias(&data[..cols]);
            bias_activation_dropout_backward(&args, &saved, dy, db, MaskSource::Key)
        };
        assert_eq!(refused(call), format!("the saved output 3 x 4, dy {shape}"));
    }
    for len in [0, 3, 5] {
        let args = bare.with_bias(&data[..len]);
        let call = |o: &mut Outputs| {
            let to = matrix_mut(&mut o.a, 3, 4);
            bias_activation_dropout_forward(&args, (x, to), MaskSource::Key)
        };
        assert_eq!(refused(call), format!("length of the bias {len}, columns of x 4"));
        let call = |o: &mut Outputs| {
            let dy_dz = (x, matrix_mut(&mut o.a, 3, 4));
            bias_activation_dropout_backward(&args, &saved, dy_dz, None, MaskSource::Key)
        };
        assert_eq!(refused(call), format!("length of the bias {len}, columns of dy 4"));
        let call = |o: &mut Outputs| {
            let (dy_dz, db) = ((x, matrix_mut(&mut o.a, 3, 4)), Some(&mut o.b[..len]));
            bias_activation_dropout_backward(&bare, &saved, dy_dz, db, MaskSource::Key)
        };
        assert_eq!(refused(call), format!("length of db {len}, columns of dy 4"));
    }
}

/// x 3 x 2, W 2 x 4; the fast function and the reference say the same.
#[test]
fn dense() {
    let data = numbers(64, 1);
    let gelu = DenseLayer::new(Activation::Gelu);
    let bare = DenseArgs::new(gelu, matrix(&data, 3, 2), matrix(&data, 2, 4));
    let args = bare.with_bias(&data[..4]);
    let (z, dy) = (matrix(&data, 3, 4), matrix(&data, 3, 4));
    #[track_caller]
    fn forward(args: &DenseArgs<'_>, y: (usize, usize), z: (usize, usize)) -> String {
        let fast = refused(|o| {
            let z = matrix_mut(&mut o.b, z.0, z.1);
            dense_forward(args, matrix_mut(&mut o.a, y.0, y.1), Some(z), &mut o.mask)
        });
        let naive = refused(|o| {
            let z = matrix_mut(&mut o.b, z.0, z.1);
            let y = matrix_mut(&mut o.a, y.0, y.1);
            reference::dense_forward(args, y, Some(z), MaskSource::Key)
        });
        assert_eq!(fast, naive);
        fast
    }
    let masked_backward = |args: &DenseArgs<'_>,
                           saved: Saved<'_>,
                           dy: MatRef<'_>,
                           dx: (usize, usize),
                           dw: (usize, usize),
                           db,
                           mask: Option<&Mask>| {
        let call = |o: &mut Outputs, naive| {
            let (first, rest) = o.b.split_at_mut(8);
            let gradients = Gradients::default()
                .with_dx(matrix_mut(&mut o.a, dx.0, dx.1))
                .with_dw(matrix_mut(rest, dw.0, dw.1))
                .with_db(&mut first[..db]);
            if naive {
                reference::dense_backward(args, &saved, dy, gradients, mask)
            } else {
                dense_backward(args, &saved, dy, gradients, mask)
            }
        };
        let fast = refused(|o| call(o, false));
        assert_eq!(fast, refused(|o| call(o, true)));
        fast
    };
    let backward = |args: &DenseArgs<'_>, saved: Saved<'_>, dy: MatRef<'_>, dx, dw, db| {
        masked_backward(args, saved, dy, dx, dw, db, None)
    };
    let saved = Saved::PreActivation(z);
    for (rows, cols) in [(4, 2), (1, 4), (3, 4), (0, 4)] {
        let mut wrong = args;
        wrong.w = matrix(&data, rows, cols);
        if rows != 2 {
            let expected = format!("columns of x 2, rows of W {rows}");
            assert_eq!(forward(&wrong, (3, 4), (3, 4)), expected);
            assert_eq!(backward(&wrong, saved, dy, (3, 2), (2, 4), 4), expected);
        }
    }
    for len in [0, 3, 5] {
        let wrong = args.with_bias(&data[..len]);
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
        let text = backward(&args, Saved::PreActivation(wrong), dy, (3, 2), (2, 4), 4);
        assert_eq!(text, format!("the saved z {shape}, dy 3 x 4"));
        let text = backward(&args, saved, dy, (rows, cols), (2, 4), 4);
        assert_eq!(text, format!("dx {shape}, x 3 x 2"));
        let (dw, text) =
            if (rows, cols) == (2, 4) { ((4, 2), "4 x 2") } else { ((rows, cols), &*shape) };
        let text = format!("dW {text}, W 2 x 4");
        assert_eq!(backward(&args, saved, dy, (3, 2), dw, 4), text);
        let mask = Mask::new(rows, cols).unwrap();
        let text = masked_backward(&args, saved, dy, (3, 2), (2, 4), 4, Some(&mask));
        assert_eq!(text, format!("the mask {shape}, x · W 3 x 4"));
        // The mask to store.
        let args = DenseArgs::new(gelu, matrix(&data, rows, 2), matrix(&data, 2, cols));
        let text =
            refused(|o| dense_forward(&args, matrix_mut(&mut o.a, rows, cols), None, &mut o.mask));
        assert_eq!(text, format!("the mask 3 x 4, x · W {shape}"));
    }
}

#[test]
fn what_backward_needs_must_be_saved() {
    let data = numbers(64, 1);
    let y = matrix(&data, 3, 4);
    for (activation, saved, missing) in [
        (Activation::Relu, Saved::Nothing, "the output or z"),
        (Activation::Tanh, Saved::Nothing, "the output or z"),
        (Activation::Gelu, Saved::Nothing, "z"),
        (Activation::Silu, Saved::Output(y), "z"),
    ] {
        let (mut dx, mut a) = ([77.0; 6], [77.0; 12]);
        let expected = Err(Error::NotSaved { activation: activation.name(), missing });
        let layer = DenseLayer::new(activation);
        let args = DenseArgs::new(layer, matrix(&data, 3, 2), matrix(&data, 2, 4));
        let gradients = Gradients::default().with_dx(matrix_mut(&mut dx, 3, 2));
        assert_eq!(dense_backward(&args, &saved, y, gradients, MaskSource::Key), expected);
        let pass = BiasActivationDropout::new(activation, KeyedDropout::NONE);
        let (dy_dz, mask) = ((y, matrix_mut(&mut a, 3, 4)), MaskSource::Key);
        assert_eq!(bias_activation_dropout_backward(&pass, &saved, dy_dz, None, mask), expected);
        assert_eq!((dx, a), ([77.0; 6], [77.0; 12]), "an output was touched");
    }
}

#[test]
fn slopes_that_are_negative_or_not_finite() {
    let data = numbers(12, 1);
    for slope in [-0.1, f32::NAN, f32::INFINITY] {
        let activation = Activation::LeakyRelu { slope };
        let layer = DenseLayer::new(activation);
        let args = DenseArgs::new(layer, matrix(&data, 3, 2), matrix(&data, 2, 4));
        let mut y = [77.0; 12];
        let result = dense_forward(&args, matrix_mut(&mut y, 3, 4), None, MaskSource::Key);
        assert!(matches!(result, Err(Error::Parameter { name: "slope", .. })), "{result:?}");
        assert_eq!(y, [77.0; 12], "an output was touched");
        assert!(Mlp::new(&MlpSpec::new(&[2, 2]).with_activation(activation)).is_err());
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
    let text = refused(|_| {
        mlp.train_step(matrix(&data, 2, 5), &[0, 1], &Optimiser::new(SgdStep::new(0.1))).map(drop)
    });
    assert_eq!(text, wrong_x);
    let text = refused(|_| mlp.evaluate(matrix(&data, 2, 5), &[0, 1]).map(drop));
    assert_eq!(text, wrong_x);
    let text = refused(|o| mlp.predict(matrix(&data, 2, 5), matrix_mut(&mut o.a, 2, 3)));
    assert_eq!(text, wrong_x);
    let text = refused(|o| mlp.predict(matrix(&data, 2, 4), matrix_mut(&mut o.a, 3, 2)));
    assert_eq!(text, "the logits 3 x 2, the output 2 x 3");
    let labels = "number of labels 1, rows of x 2";
    let text = refused(|_| {
        mlp.train_step(matrix(&data, 2, 4), &[0], &Optimiser::new(SgdStep::new(0.1))).map(drop)
    });
    assert_eq!(text, labels);
    assert_eq!(refused(|_| mlp.evaluate(matrix(&data, 2, 4), &[0]).map(drop)), labels);
}
