//! row0 + rows > 2^32, col0 + cols > 2^39.

use fused_dropout::elementwise::{dropout_backward, dropout_forward};
use fused_dropout::layer::{DenseArgs, DenseLayer, Gradients, dense_backward, dense_forward};
use fused_dropout::{Error, MaskSource, Saved, reference};

use crate::common::{bits, for_each_level, matrix, matrix_mut, numbers};
use crate::{key, rate};

#[test]
fn rows_and_columns_that_no_mask_addresses_are_an_error() {
    let (rows, cols) = (1u64 << 32, 1u64 << 39);
    let x = numbers(12, 1);
    let w = numbers(16, 2);
    for (row0, col0, what) in [
        (rows - 2, 0, "row"),
        (rows, 0, "row"),
        (u64::MAX, 0, "row"),
        (0, cols - 3, "column"),
        (0, cols, "column"),
        (0, u64::MAX, "column"),
    ] {
        let key = key().with_origin(row0, col0);
        let check = |result: fused_dropout::Result<()>, y: &[f32]| {
            let error = result.unwrap_err();
            assert!(matches!(error, Error::Address { what: said, .. } if said == what), "{error}");
            let last = if what == "row" { rows - 1 } else { cols - 1 };
            assert!(error.to_string().ends_with(&format!("s 0 to {last}")), "{error}");
            assert_eq!(y, [9.0; 12], "an output was touched");
        };
        let dropout = rate(0.5).with_key(key);
        let (mut y, view) = ([9.0; 12], matrix(&x, 3, 4));
        let to = matrix_mut(&mut y, 3, 4);
        let result = dropout_forward((view, to), &dropout, MaskSource::Key);
        check(result, &y);
        let to = matrix_mut(&mut y, 3, 4);
        let result = dropout_backward((view, to), &dropout, MaskSource::Key);
        check(result, &y);
        for layer in
            [DenseLayer::default().with_output(dropout), DenseLayer::default().with_input(dropout)]
        {
            let args = DenseArgs::new(layer, view, matrix(&w, 4, 4));
            check(dense_forward(&args, matrix_mut(&mut y, 3, 4), None, MaskSource::Key), &y);
            let gradients = Gradients::default().with_dx(matrix_mut(&mut y, 3, 4));
            let result = dense_backward(&args, &Saved::Nothing, view, gradients, MaskSource::Key);
            check(result, &y);
        }
    }
    // The last that can be addressed have the reference's bits.
    let key = key().with_origin(rows - 3, cols - 4);
    for_each_level(|_| {
        let (mut y, mut expected) = ([9.0; 12], [9.0; 12]);
        let (view, dropout) = (matrix(&x, 3, 4), rate(0.3).with_key(key));
        let to = matrix_mut(&mut y, 3, 4);
        dropout_forward((view, to), &dropout, MaskSource::Key).unwrap();
        let to = matrix_mut(&mut expected, 3, 4);
        reference::dropout_forward((view, to), &dropout, MaskSource::Key).unwrap();
        assert_eq!(bits(&y), bits(&expected));
    });
}
