//! Masks as values: to and from bytes and truth values, inverted, and given to operations.

mod common;

use common::{ACTIVATIONS, Padded, assert_same, bits, for_each_level, matrix, matrix_mut, numbers};
use fused_dropout::elementwise::{
    BiasActivationDropout, bias_activation_dropout_forward, dropout_backward, dropout_forward,
};
use fused_dropout::layer::{
    DenseArgs, DenseLayer, Gradients, PackedWeight, dense_backward, dense_forward,
};
use fused_dropout::{Activation, Dropout, Error, Level, Mask, MaskKey, Saved, reference};
use proptest::prelude::*;

fn key() -> MaskKey {
    MaskKey::new(8, 2, 5).unwrap()
}

fn half() -> Dropout {
    Dropout::new(0.5).unwrap()
}

proptest! {
    #[test]
    fn values_come_back(rows in 0usize..9, cols in 0usize..200, rate in 0.0..=1.0f64, seed: u64) {
        let key = MaskKey::new(seed, 0, 0).unwrap();
        let mask = Mask::generate(rows, cols, &Dropout::new(rate).unwrap().with_key(key)).unwrap();
        let bytes = mask.to_bytes().unwrap();
        prop_assert_eq!(bytes.len(), rows * cols.div_ceil(32) * 4);
        prop_assert_eq!(&Mask::from_bytes(rows, cols, &bytes).unwrap(), &mask);
        let bools = mask.to_bools().unwrap();
        for (i, kept) in bools.iter().enumerate() {
            prop_assert_eq!(mask.get(i / cols, i % cols), Some(*kept));
            let byte = bytes[i / cols * cols.div_ceil(32) * 4 + i % cols / 8];
            prop_assert_eq!(byte >> (i % cols % 8) & 1 == 1, *kept);
        }
        prop_assert_eq!(bools.len(), rows * cols);
        prop_assert_eq!(&Mask::from_bools(rows, cols, &bools).unwrap(), &mask);
        let mut opposite = mask.clone();
        opposite.invert();
        let inverted: Vec<bool> = bools.iter().map(|kept| !kept).collect();
        prop_assert_eq!(&opposite, &Mask::from_bools(rows, cols, &inverted).unwrap());
        prop_assert_eq!(opposite.count() + mask.count(), (rows * cols) as u64);
        opposite.invert();
        prop_assert_eq!(opposite, mask);
    }
}

#[test]
fn bytes_are_little_end_first() {
    let keep: Vec<bool> = (0..40).map(|i| [0, 9, 31, 32, 39].contains(&i)).collect();
    let mask = Mask::from_bools(1, 40, &keep).unwrap();
    assert_eq!(mask.to_bytes().unwrap(), [0x01, 0x02, 0x00, 0x80, 0x81, 0, 0, 0]);
    assert_eq!(mask.words(), [0x8000_0201, 0x81]);
}

#[test]
fn wrong_lengths_and_unused_bits_are_errors() {
    for len in [0, 7, 9, 16] {
        let error = Mask::from_bytes(2, 5, &vec![0; len]).unwrap_err();
        let values = matches!(error, Error::Mismatch { left_value, right_value: 8, .. } if left_value == len);
        assert!(values, "{error}");
        let error = Mask::from_bools(2, 5, &vec![true; len]).unwrap_err();
        let values = matches!(error, Error::Mismatch { left_value, right_value: 10, .. } if left_value == len);
        assert!(values, "{error}");
    }
    let error = Mask::from_bytes(2, 5, &[31, 0, 0, 0, 32, 0, 0, 0]).unwrap_err();
    assert_eq!(error, Error::UnusedBits { row: 1, word: 32, cols: 5 });
    assert!(error.to_string().contains("0x00000020"), "{error}");
    assert!(Mask::from_bytes(2, 5, &[31, 0, 0, 0, 31, 0, 0, 0]).is_ok());
    assert!(Mask::from_bytes(1, 32, &[255; 4]).is_ok());
    let big = usize::MAX;
    assert!(matches!(Mask::from_bytes(big, big, &[]), Err(Error::Overflow { .. })));
    assert!(matches!(Mask::from_bools(big, 2, &[]), Err(Error::Overflow { .. })));
    // More than any memory holds, of which nothing is asked for.
    assert!(matches!(Mask::from_bytes(big >> 12, 32, &[]), Err(Error::Mismatch { .. })));
    assert!(matches!(Mask::from_bools(big >> 12, 32, &[]), Err(Error::Mismatch { .. })));
    assert_eq!(Mask::from_bools(0, big, &[]).unwrap().count(), 0);
    assert!(Mask::from_bytes(big, 0, &[]).unwrap().to_bools().unwrap().is_empty());
}

/// A mask that is given decides, whatever the key and the rate; the same in each operation.
#[test]
fn given_masks_decide() {
    let (rows, cols) = (13, 77);
    let (x, residual) = (numbers(rows * cols, 1), numbers(rows * cols, 2));
    let bias = numbers(cols, 3);
    let mut mask = Mask::generate(rows, cols, &Dropout::new(0.3).unwrap().with_key(key())).unwrap();
    mask.invert();
    let other = half().with_key(MaskKey::new(99, 1, 1).unwrap());
    for_each_level(|level| {
        let view = matrix(&x, rows, cols);
        let mut y = vec![9.0; x.len()];
        dropout_forward((view, matrix_mut(&mut y, rows, cols)), &other, &mask).unwrap();
        for (i, (y, x)) in y.iter().zip(&x).enumerate() {
            let kept = mask.get(i / cols, i % cols) == Some(true);
            assert_eq!(y.to_bits(), if kept { (2.0 * x).to_bits() } else { 0 }, "{level}");
        }
        let forward = y.clone();
        y.copy_from_slice(&x);
        dropout_forward(matrix_mut(&mut y, rows, cols), &other, &mask).unwrap();
        assert_eq!(y, forward, "{level}");
        let to = matrix_mut(&mut y, rows, cols);
        dropout_backward((view, to), &other, &mask).unwrap();
        assert_eq!(y, forward, "{level}");
        for activation in ACTIVATIONS {
            let args = BiasActivationDropout::new(activation, other)
                .with_bias(&bias)
                .with_residual(matrix(&residual, rows, cols));
            let mut expected = vec![9.0; x.len()];
            let to = matrix_mut(&mut expected, rows, cols);
            reference::bias_activation_dropout_forward(&args, (view, to), &mask).unwrap();
            let mut y = Padded::new(&x, rows, cols, 5, false);
            let to = matrix_mut(&mut y.data[..0], 0, 0);
            assert!(bias_activation_dropout_forward(&args, (view, to), &mask).is_err());
            bias_activation_dropout_forward(&args, (view, y.view_mut()), &mask).unwrap();
            assert_same(level, &y.values(), &expected, (1, 8.0), "bias, activation, dropout");
            let mut y = Padded::new(&x, rows, cols, 5, true);
            bias_activation_dropout_forward(&args, y.view_mut(), &mask).unwrap();
            assert_same(level, &y.values(), &expected, (1, 8.0), "in place");
        }
    });
}

/// Dense layers of few rows, of one block, and of several tasks.
#[test]
fn dense_layers_take_masks() {
    for (batch, inputs, units) in [(2, 9, 70), (20, 30, 40), (130, 40, 333)] {
        let (x, w) = (numbers(batch * inputs, 1), numbers(inputs * units, 2));
        let mut mask =
            Mask::generate(batch, units, &Dropout::new(0.3).unwrap().with_key(key())).unwrap();
        mask.invert();
        let other = half().with_key(MaskKey::new(99, 1, 1).unwrap());
        let layer = DenseLayer::new(Activation::Relu).with_output(other);
        let args = DenseArgs::new(layer, matrix(&x, batch, inputs), matrix(&w, inputs, units));
        let mut expected = vec![9.0; batch * units];
        let to = matrix_mut(&mut expected, batch, units);
        reference::dense_forward(&args, to, None, &mask).unwrap();
        let kept = (0..batch * units).filter(|i| mask.get(i / units, i % units) == Some(true));
        assert!(kept.clone().count() > 0);
        for_each_level(|level: Level| {
            let mut y = vec![9.0; batch * units];
            dense_forward(&args, matrix_mut(&mut y, batch, units), None, &mask).unwrap();
            assert_same(level, &y, &expected, (inputs, 8.0), "dense");
            let packed = PackedWeight::new(args.w).unwrap();
            y.fill(9.0);
            let to = matrix_mut(&mut y, batch, units);
            dense_forward(&args.with_packed(&packed), to, None, &mask).unwrap();
            assert_same(level, &y, &expected, (inputs, 8.0), "dense, packed");
            // The same mask goes back.
            let mut dw = vec![9.0; inputs * units];
            let saved = Saved::Output(matrix(&y, batch, units));
            let gradients = Gradients::default().with_dw(matrix_mut(&mut dw, inputs, units));
            let dy = matrix(&y, batch, units);
            dense_backward(&args, &saved, dy, gradients, &mask).unwrap();
            assert!(dw.iter().all(|x| x.is_finite()));
        });
        let wrong = Mask::new(batch, units + 1).unwrap();
        let mut y = vec![9.0; batch * units];
        let error = dense_forward(&args, matrix_mut(&mut y, batch, units), None, &wrong);
        assert!(matches!(error, Err(Error::Shape { .. })), "{error:?}");
        assert_eq!(bits(&y), bits(&vec![9.0; batch * units]));
    }
}
