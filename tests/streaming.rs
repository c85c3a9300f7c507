//! Outputs so large that they are stored past the caches: the same bits as the parts of them that
//! are not.

mod common;

use common::{bits, for_each_level, numbers, with_threads};
use fused_dropout::elementwise::{
    BiasActivationDropout, bias_activation_dropout_backward, bias_activation_dropout_forward,
};
use fused_dropout::{Activation, Dropout, MaskKey, MaskSource, MatMut, MatRef, Saved, testing};

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
    let (dropout, key) = (Dropout::new(0.1).unwrap(), MaskKey::new(3, 1, 4).unwrap());
    for_each_level(|level| {
        // One element more in front: no vector of the first row is aligned.
        let mut whole = vec![PADDING; 1 + ROWS * STRIDE];
        let mut part = vec![0.0; PART * COLS];
        for (activation, backward) in
            [(Activation::Relu, false), (Activation::Relu, true), (Activation::Silu, true)]
        {
            let run = |first: usize, rows: usize, y: MatMut<'_>| {
                let x = x.rows_from(first, rows).unwrap();
                let dropout = dropout.with_key(key.with_origin(first as u64, 0));
                let args = BiasActivationDropout::new(activation, dropout).with_bias(&bias);
                if backward {
                    let saved = Saved::PreActivation(x);
                    bias_activation_dropout_backward(&args, &saved, (x, y), None, MaskSource::Key)
                        .unwrap();
                } else {
                    bias_activation_dropout_forward(&args, (x, y), MaskSource::Key).unwrap();
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
