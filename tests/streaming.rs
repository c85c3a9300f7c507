//! Outputs so large that they are stored past the caches: the same bits as the parts of them that
//! are not.

mod common;

use common::{bits, for_each_level, numbers, with_threads};
use fused_dropout::{
    Activation, BiasActivationDropout, Dropout, MaskKey, MatMut, MatRef, Saved,
    bias_activation_dropout_backward, bias_activation_dropout_forward, testing,
};

const ROWS: usize = 4099;
const COLS: usize = 4101;
/// Elements between rows, so that each row starts at another place of a vector.
const GAP: usize = 2;
const STRIDE: usize = COLS + GAP;
/// Rows of a part. Outputs are streamed where the tensors are larger than the level-3 cache, which is
/// taken to have 4 to 64 MiB.
const PART: usize = 80;
const PADDING: f32 = -77.0;

#[test]
fn streamed_outputs_are_the_others_bit_for_bit() {
    const { assert!(ROWS * COLS * 8 > 64 << 20 && PART * COLS * 12 < 4 << 20) };
    let x = numbers(ROWS * COLS, 1);
    let x = MatRef::new(&x, ROWS, COLS).unwrap();
    let bias = numbers(COLS, 2);
    let args = BiasActivationDropout {
        bias: Some(&bias),
        activation: Activation::Identity,
        dropout: Dropout::new(0.1).unwrap(),
        key: MaskKey::new(3, 1, 4).unwrap(),
    };
    for_each_level(|level| {
        // One element more in front: no vector of the first row is aligned.
        let mut whole = vec![PADDING; 1 + ROWS * STRIDE];
        let mut part = vec![0.0; PART * COLS];
        for (activation, backward) in
            [(Activation::Relu, false), (Activation::Relu, true), (Activation::Silu, true)]
        {
            let args = BiasActivationDropout { activation, ..args };
            let run = |first: usize, rows: usize, y: MatMut<'_>| {
                let x = x.rows_from(first, rows).unwrap();
                let args =
                    BiasActivationDropout { key: args.key.with_origin(first as u64, 0), ..args };
                if backward {
                    let saved = Saved::pre_activation(x);
                    bias_activation_dropout_backward(&args, &saved, x, y, None).unwrap();
                } else {
                    bias_activation_dropout_forward(&args, x, None, y, None).unwrap();
                }
            };
            let y = MatMut::with_stride(&mut whole[1..], ROWS, COLS, STRIDE).unwrap();
            with_threads(2, || testing::at_level(level, || run(0, ROWS, y))).unwrap();
            for first in (0..ROWS).step_by(PART) {
                let rows = PART.min(ROWS - first);
                run(first, rows, MatMut::new(&mut part, rows, COLS).unwrap());
                for r in 0..rows {
                    let row = &whole[1 + (first + r) * STRIDE..][..STRIDE];
                    let expected = &part[r * COLS..(r + 1) * COLS];
                    assert!(bits(&row[..COLS]) == bits(expected), "{level}: row {}", first + r);
                    assert_eq!(row[COLS..], [PADDING; GAP], "{level}: padding was written");
                }
            }
        }
        assert_eq!(whole[0], PADDING);
    });
}
