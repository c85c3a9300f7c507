//! row0 + rows > 2^32, col0 + cols > 2^39.

use fused_dropout::{
    DenseArgs, Error, Gradients, Saved, SavedValues, dense_backward, dense_forward,
    dropout_backward, dropout_forward, reference,
};

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
        let mut y = [9.0; 12];
        let result =
            dropout_forward(matrix(&x, 3, 4), matrix_mut(&mut y, 3, 4), &rate(0.5), &key, None);
        check(result, &y);
        let result =
            dropout_backward(matrix(&x, 3, 4), matrix_mut(&mut y, 3, 4), &rate(0.5), &key, None);
        check(result, &y);
        let plain = DenseArgs::new(matrix(&x, 3, 4), matrix(&w, 4, 4));
        for args in [
            DenseArgs { key, dropout: rate(0.5), ..plain },
            DenseArgs { input_dropout: Some((rate(0.5), key)), ..plain },
        ] {
            check(dense_forward(&args, matrix_mut(&mut y, 3, 4), None, None), &y);
            let saved = Saved { values: SavedValues::None, mask: None };
            let gradients = Gradients { dx: Some(matrix_mut(&mut y, 3, 4)), dw: None, db: None };
            check(dense_backward(&args, &saved, matrix(&x, 3, 4), gradients), &y);
        }
    }
    // The last that can be addressed have the reference's bits.
    let key = key().with_origin(rows - 3, cols - 4);
    for_each_level(|_| {
        let (mut y, mut expected) = ([9.0; 12], [9.0; 12]);
        dropout_forward(matrix(&x, 3, 4), matrix_mut(&mut y, 3, 4), &rate(0.3), &key, None)
            .unwrap();
        let to = matrix_mut(&mut expected, 3, 4);
        reference::dropout_forward(matrix(&x, 3, 4), to, &rate(0.3), &key, None).unwrap();
        assert_eq!(bits(&y), bits(&expected));
    });
}
