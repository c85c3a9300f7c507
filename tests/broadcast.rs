//! Decisions shared along axes of a tensor, against the reference: the same bits for every shape, level
//! and thread count.

mod common;

use common::{RATES, bits, for_each_level, matrix, matrix_mut, numbers, with_threads};
use fused_dropout::elementwise::{
    BroadcastDropout, broadcast_dropout_backward, broadcast_dropout_forward, dropout_forward,
};
use fused_dropout::mask::BroadcastShape;
use fused_dropout::{Dropout, Error, Mask, MaskKey, MaskSource, Scaling, reference};
use proptest::prelude::*;

const SPECIAL: [f32; 5] = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -0.0, 1e-41];

fn key() -> MaskKey {
    MaskKey::new(8, 2, 5).unwrap()
}

fn args(shape: BroadcastShape, rate: f64) -> BroadcastDropout {
    BroadcastDropout::new(shape, Dropout::new(rate).unwrap().with_key(key()))
}

/// Numbers with special ones among them.
fn tensor(len: usize, seed: u64) -> Vec<f32> {
    let mut values = numbers(len, seed);
    for (i, value) in values.iter_mut().skip(seed as usize % 7).step_by(7).enumerate() {
        *value = SPECIAL[i % SPECIAL.len()];
    }
    values
}

/// Every function on every level, against the reference.
fn check(args: &BroadcastDropout, x: &[f32]) {
    let (rows, cols) = args.shape.mask_shape();
    let (mut y, mut stored) = (vec![9.0; x.len()], Mask::new(rows, cols).unwrap());
    reference::broadcast_dropout_forward(args, (x, &mut y[..]), &mut stored).unwrap();
    let expected = bits(&y);
    let mut opposite = stored.clone();
    opposite.invert();
    reference::broadcast_dropout_backward(args, (x, &mut y[..]), Some(&opposite)).unwrap();
    let expected_opposite = bits(&y);
    for_each_level(|level| {
        let same = |what: &str, y: &[f32], expected: &[u32]| {
            assert!(bits(y) == expected, "{what} on {level}: {args:?}");
        };
        let mut y = vec![9.0; x.len()];
        broadcast_dropout_forward(args, (x, &mut y[..]), MaskSource::Key).unwrap();
        same("forward", &y, &expected);
        let mut mask = opposite.clone();
        y.fill(9.0);
        broadcast_dropout_forward(args, (x, &mut y[..]), Some(&mut mask)).unwrap();
        same("forward, storing", &y, &expected);
        assert_eq!(mask, stored, "{level}: {args:?}");
        y.fill(9.0);
        broadcast_dropout_forward(args, (x, &mut y[..]), &opposite).unwrap();
        same("forward, given", &y, &expected_opposite);
        y.copy_from_slice(x);
        broadcast_dropout_forward(args, &mut y[..], MaskSource::Key).unwrap();
        same("forward in place", &y, &expected);
        y.fill(9.0);
        broadcast_dropout_backward(args, (x, &mut y[..]), MaskSource::Key).unwrap();
        same("backward", &y, &expected);
        y.copy_from_slice(x);
        broadcast_dropout_backward(args, &mut y[..], Some(&stored)).unwrap();
        same("backward in place", &y, &expected);
    });
}

/// One to five axes of a few thousand elements at most, one of which may be long.
fn shapes() -> impl Strategy<Value = BroadcastShape> {
    (proptest::collection::vec((0usize..=6, any::<bool>()), 1..=5), any::<usize>(), 0usize..300)
        .prop_map(|(axes, place, long)| {
            let (mut dims, shared): (Vec<_>, Vec<_>) = axes.into_iter().unzip();
            let len: usize = dims.iter().product();
            if len < 300 && !dims.contains(&0) {
                let place = place % dims.len();
                dims[place] = long;
            }
            BroadcastShape::new(&dims, &shared).unwrap()
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn follows_the_reference(
        shape in shapes(),
        rate in proptest::sample::select(&RATES[..]),
        classical: bool,
        seed in 0u64..1000,
        origin in prop_oneof![Just((0, 0)), (0u64..(1 << 32) - 300, 0u64..500)],
    ) {
        let scaling = if classical { Scaling::Classical } else { Scaling::Inverted };
        let dropout = Dropout::with_scaling(rate, scaling).unwrap();
        let key = MaskKey::new(seed, 3, 4).unwrap().with_origin(origin.0, origin.1);
        check(&BroadcastDropout::new(shape, dropout.with_key(key)), &tensor(shape.len(), seed));
    }
}

/// Runs and repeats whose lengths lie around words, vectors and the choice between the kernels.
#[test]
fn lengths_around_words_and_vectors() {
    for n in [1, 2, 3, 4, 7, 8, 15, 16, 17, 31, 32, 33, 63, 64, 65, 100, 127, 128, 129, 1000] {
        for dims in [[3, 5, n], [n, 2, 70], [2, n, 3]] {
            for flags in 0..8 {
                let shared = [flags & 1 == 1, flags & 2 == 2, flags & 4 == 4];
                let shape = BroadcastShape::new(&dims, &shared).unwrap();
                if shape.len() < 2000 {
                    check(&args(shape, 0.4), &tensor(shape.len(), n as u64));
                }
            }
        }
    }
}

#[test]
fn named_shapes() {
    let dims = [4, 6, 3, 2, 5];
    let noise = |noise: [usize; 5]| BroadcastShape::from_noise_shape(&dims, &noise).unwrap();
    let cases = [
        (BroadcastShape::elements(&dims), [4, 6, 3, 2, 5], (4, 180)),
        (BroadcastShape::channels_first(&dims), [4, 6, 1, 1, 1], (4, 6)),
        (BroadcastShape::channels_last(&dims), [4, 1, 1, 1, 5], (4, 5)),
        (BroadcastShape::per_sample(&dims), [4, 1, 1, 1, 1], (4, 1)),
        (BroadcastShape::whole(&dims), [1; 5], (1, 1)),
        (BroadcastShape::time_steps(&dims), [4, 1, 3, 2, 5], (4, 30)),
        (BroadcastShape::new(&dims, &[true, false, true, false, true]), [1, 6, 1, 2, 1], (1, 12)),
    ];
    for (shape, reduced, mask_shape) in cases {
        let shape = shape.unwrap();
        assert_eq!(shape, noise(reduced));
        assert_eq!((shape.mask_shape(), shape.dims(), shape.len()), (mask_shape, &dims[..], 720));
        assert!(!shape.is_empty());
        for i in 0..720 {
            let at = [i / 180, i / 30 % 6, i / 10 % 3, i / 5 % 2, i % 5];
            let reduced_at = |axis: usize| if reduced[axis] == 1 { 0 } else { at[axis] };
            let column = (1..5).fold(0, |column, axis| column * reduced[axis] + reduced_at(axis));
            assert_eq!(shape.mask_index(&at), Some((reduced_at(0), column)));
        }
        assert_eq!(shape.mask_index(&[0, 0, 3, 0, 0]), None);
        assert_eq!(shape.mask_index(&[0; 4]), None);
    }
    let row = BroadcastShape::elements(&[7]).unwrap();
    assert_eq!((row.mask_shape(), row.mask_index(&[3])), ((1, 7), Some((0, 3))));
    assert_eq!(BroadcastShape::channels_first(&[2, 3]), BroadcastShape::elements(&[2, 3]));
}

/// Where nothing is shared the result is that of plain dropout.
#[test]
fn elements_are_plain_dropout() {
    for_each_level(|level| {
        for (dims, rows, cols) in
            [(&[37, 11, 13][..], 37, 143), (&[400], 1, 400), (&[5, 1, 300], 5, 300)]
        {
            let x = numbers(rows * cols, 1);
            let args = args(BroadcastShape::elements(dims).unwrap(), 0.3);
            let (mut y, mut plain) = (vec![9.0; x.len()], vec![9.0; x.len()]);
            let (mut mask, mut plain_mask) =
                (Mask::new(rows, cols).unwrap(), Mask::new(rows, cols).unwrap());
            broadcast_dropout_forward(&args, (&x[..], &mut y[..]), &mut mask).unwrap();
            let to = matrix_mut(&mut plain, rows, cols);
            dropout_forward((matrix(&x, rows, cols), to), &args.dropout, &mut plain_mask).unwrap();
            assert!(y == plain && mask == plain_mask, "{level}: {dims:?}");
        }
    });
}

/// What is expected of a large tensor, by the definition of the mask's shape.
fn expected(args: &BroadcastDropout, x: &[f32]) -> Vec<u32> {
    let (rows, cols) = args.shape.mask_shape();
    let mask = Mask::generate(rows, cols, &args.dropout).unwrap();
    let mut indices = vec![0; args.shape.dims().len()];
    let mut y = Vec::with_capacity(x.len());
    for x in x {
        let (row, col) = args.shape.mask_index(&indices).unwrap();
        let kept = mask.get(row, col) == Some(true);
        y.push(if kept { (x * args.dropout.dropout().scale()).to_bits() } else { 0 });
        for (index, size) in indices.iter_mut().zip(args.shape.dims()).rev() {
            *index += 1;
            if *index < *size {
                break;
            }
            *index = 0;
        }
    }
    y
}

#[test]
fn threads_do_not_show() {
    let dims = [9, 33, 41, 37];
    let x = numbers(dims.iter().product(), 3);
    for shape in [
        BroadcastShape::channels_first(&dims),
        BroadcastShape::channels_last(&dims),
        BroadcastShape::per_sample(&dims),
        BroadcastShape::whole(&dims),
        BroadcastShape::time_steps(&dims),
        BroadcastShape::new(&dims, &[true, false, false, true]),
    ] {
        let args = args(shape.unwrap(), 0.3);
        let expected = expected(&args, &x);
        for threads in [1, 2, 8] {
            let mut y = vec![9.0; x.len()];
            with_threads(threads, || {
                broadcast_dropout_forward(&args, (&x[..], &mut y[..]), MaskSource::Key).unwrap()
            });
            assert!(bits(&y) == expected, "{threads} threads: {args:?}");
        }
    }
}

/// Outputs so large that they are stored past the caches.
#[test]
fn streamed_outputs() {
    let dims = [67, 256, 1000];
    let x = numbers(dims.iter().product(), 3);
    for shape in [BroadcastShape::channels_first(&dims), BroadcastShape::channels_last(&dims)] {
        let args = args(shape.unwrap(), 0.3);
        let expected = expected(&args, &x);
        for_each_level(|level| {
            // From an address that no vector is aligned to.
            let mut y = vec![9.0; x.len() + 1];
            broadcast_dropout_forward(&args, (&x[..], &mut y[1..]), MaskSource::Key).unwrap();
            let same = y[1..].iter().zip(&expected).all(|(y, expected)| y.to_bits() == *expected);
            assert!(same && y[0] == 9.0, "{level}: {args:?}");
        });
    }
}

#[test]
fn shards_are_parts_of_the_whole() {
    let dims = [6, 10, 3, 70];
    let x = numbers(dims.iter().product(), 1);
    for_each_level(|level| {
        for shared in [[false, false, true, true], [false, true, false, false], [false; 4]] {
            let whole = args(BroadcastShape::new(&dims, &shared).unwrap(), 0.5);
            let mut y = vec![9.0; x.len()];
            broadcast_dropout_forward(&whole, (&x[..], &mut y[..]), MaskSource::Key).unwrap();
            // Examples 2 to 4.
            let shape = BroadcastShape::new(&[3, 10, 3, 70], &shared).unwrap();
            let part =
                BroadcastDropout::new(shape, whole.dropout.with_key(key().with_origin(2, 0)));
            let mut got = vec![9.0; shape.len()];
            broadcast_dropout_forward(
                &part,
                (&x[2 * 2100..][..shape.len()], &mut got[..]),
                MaskSource::Key,
            )
            .unwrap();
            assert!(got == y[2 * 2100..][..shape.len()], "{level}: {shared:?}");
            if shared[1] {
                continue;
            }
            // Channels 4 to 8 of one example.
            let inner: usize = if shared[2] { 1 } else { 210 };
            let shape = BroadcastShape::new(&[1, 5, 3, 70], &shared).unwrap();
            let key = key().with_origin(3, (4 * inner) as u64);
            let part = BroadcastDropout::new(shape, whole.dropout.with_key(key));
            let at = 3 * 2100 + 4 * 210;
            let mut got = vec![9.0; shape.len()];
            broadcast_dropout_forward(
                &part,
                (&x[at..][..shape.len()], &mut got[..]),
                MaskSource::Key,
            )
            .unwrap();
            assert!(got == y[at..][..shape.len()], "{level}: {shared:?}");
        }
    });
}

#[test]
fn bad_arguments_are_errors() {
    let parameter = |shape: Result<BroadcastShape, Error>, n: f64| {
        let error = shape.unwrap_err();
        assert!(matches!(error, Error::Parameter { value, .. } if value == n), "{error}");
    };
    parameter(BroadcastShape::new(&[], &[]), 0.0);
    parameter(BroadcastShape::per_sample(&[1; 6]), 6.0);
    parameter(BroadcastShape::channels_first(&[4]), 1.0);
    parameter(BroadcastShape::channels_last(&[4]), 1.0);
    parameter(BroadcastShape::time_steps(&[4]), 1.0);
    let error = BroadcastShape::new(&[2, 3], &[true]).unwrap_err();
    assert!(matches!(error, Error::Mismatch { left_value: 1, right_value: 2, .. }), "{error}");
    let error = BroadcastShape::from_noise_shape(&[2, 3, 4], &[2, 2, 1]).unwrap_err();
    assert_eq!(error, Error::NoiseShape { axis: 1, noise: 2, size: 3 });
    assert!(error.to_string().contains("is 2") && error.to_string().contains("is 3"), "{error}");
    let big = usize::MAX;
    for dims in [&[big, 2][..], &[2, big], &[0, big, big], &[1 << 31, 1 << 31, 1 << 31]] {
        let error = BroadcastShape::elements(dims).unwrap_err();
        assert!(matches!(error, Error::Overflow { .. }), "{error}");
    }
    assert_eq!(BroadcastShape::elements(&[0, 1 << 30]).unwrap().len(), 0);

    let args = args(BroadcastShape::per_sample(&[3, 4]).unwrap(), 0.5);
    let x = [1.0; 12];
    let mut y = [9.0; 12];
    let far = BroadcastDropout::new(
        args.shape,
        args.dropout.with_key(key().with_origin((1 << 32) - 2, 0)),
    );
    let wrong = Mask::new(3, 4).unwrap();
    for error in [
        broadcast_dropout_forward(&args, (&x[..11], &mut y[..]), MaskSource::Key).unwrap_err(),
        broadcast_dropout_forward(&args, (&x[..11], &mut y[..11]), MaskSource::Key).unwrap_err(),
        broadcast_dropout_forward(&args, &mut y[..11], MaskSource::Key).unwrap_err(),
        broadcast_dropout_backward(&args, (&x[..11], &mut y[..]), MaskSource::Key).unwrap_err(),
        broadcast_dropout_backward(&args, &mut y[..11], MaskSource::Key).unwrap_err(),
    ] {
        assert!(
            matches!(error, Error::Mismatch { left_value: 11, right_value: 12, .. }),
            "{error}"
        );
    }
    for result in [
        broadcast_dropout_forward(&args, (&x[..], &mut y[..]), &wrong),
        broadcast_dropout_forward(&args, (&x[..], &mut y[..]), &mut wrong.clone()),
        broadcast_dropout_backward(&args, (&x[..], &mut y[..]), Some(&wrong)),
    ] {
        let error = result.unwrap_err();
        let shapes =
            matches!(error, Error::Shape { left_cols: 4, right_rows: 3, right_cols: 1, .. });
        assert!(shapes, "{error}");
    }
    let error = broadcast_dropout_forward(&far, (&x[..], &mut y[..]), MaskSource::Key).unwrap_err();
    assert!(matches!(error, Error::Address { what: "row", .. }), "{error}");
    assert_eq!(y, [9.0; 12], "an output was touched");
}

/// The share of kept channels, and the mean and variance of the noise they are multiplied by, over
/// 2^24 decisions.
#[test]
fn moments() {
    const STEPS: u32 = 1024;
    let shape = BroadcastShape::channels_first(&[64, 256, 2, 1]).unwrap();
    for rate in [0.5, 0.1] {
        let dropout = Dropout::new(rate).unwrap();
        let (x, mut y) = (vec![1.0; shape.len()], vec![9.0; shape.len()]);
        let (mut sum, mut squares) = (0.0, 0.0);
        for step in 0..STEPS {
            let key = MaskKey::new(31, 4, step).unwrap();
            let args = BroadcastDropout::new(shape, dropout.with_key(key));
            broadcast_dropout_forward(&args, (&x[..], &mut y[..]), MaskSource::Key).unwrap();
            for channel in y.as_chunks::<2>().0 {
                assert_eq!(channel[0], channel[1]);
                sum += f64::from(channel[0]);
                squares += f64::from(channel[0]) * f64::from(channel[0]);
            }
        }
        let n = f64::from(STEPS * 64 * 256);
        let (keep, scale) = (dropout.keep(), f64::from(dropout.scale()));
        // One decision has mean `scale · keep` = 1 and variance `scale² · keep · (1 - keep)`.
        let deviation = scale * (keep * (1.0 - keep) / n).sqrt();
        let mean = sum / n;
        assert!((mean - 1.0).abs() < 6.5 * deviation, "rate {rate}: mean {mean}");
        // The square is `scale²` with probability keep, so its mean varies `scale` times as much.
        let second = squares / n;
        assert!(
            (second - scale * scale * keep).abs() < 6.5 * scale * deviation,
            "{rate}: {second}"
        );
    }
}
