//! Gaussian dropout and its numbers.

use super::common::{
    Padded, assert_same, bits, for_each_level, matrix, matrix_mut, numbers, with_threads,
};
use super::{key, origins, shapes};
use fused_dropout::elementwise::{
    GaussianDropout, gaussian_dropout_backward, gaussian_dropout_forward, standard_normal,
};
use fused_dropout::philox::philox4x32_10;
use fused_dropout::{Error, MaskKey, MatMut, MatRef, reference, testing};
use proptest::prelude::*;

const RATES: [f64; 5] = [0.0, 1e-9, 0.1, 0.5, 1.0 - 1e-9];

/// The numbers of `cols` columns of one row.
fn normals(key: &MaskKey, cols: usize) -> Vec<f32> {
    let mut z = vec![9.0; cols];
    standard_normal(MatMut::row_vector(&mut z), key).unwrap();
    z
}

/// Runs every function on every level.
fn check(x: &Padded, to_transposed: bool, extra: usize, dropout: &GaussianDropout, key: &MaskKey) {
    let (rows, cols) = (x.rows, x.cols);
    let fresh = Padded::new(&vec![77.0; rows * cols], rows, cols, extra, to_transposed);
    let (mut y, mut z) = (vec![0.0; rows * cols], vec![0.0; rows * cols]);
    reference::gaussian_dropout_forward(
        (x.view(), matrix_mut(&mut y, rows, cols)),
        &dropout.with_key(*key),
    )
    .unwrap();
    reference::standard_normal(matrix_mut(&mut z, rows, cols), key).unwrap();
    for_each_level(|level| {
        let size = (1, 2.0 * (1.0 + 7.0 * dropout.sigma()));
        let same = |got: &Padded, what: &str| {
            assert_same(level, &got.values(), &y, size, what);
        };
        let mut out = fresh.clone();
        gaussian_dropout_forward((x.view(), out.view_mut()), &dropout.with_key(*key)).unwrap();
        same(&out, "forward");
        let mut out = fresh.clone();
        gaussian_dropout_backward((x.view(), out.view_mut()), &dropout.with_key(*key)).unwrap();
        same(&out, "backward");
        let mut out = x.clone();
        gaussian_dropout_forward(out.view_mut(), &dropout.with_key(*key)).unwrap();
        same(&out, "forward in place");
        let mut out = x.clone();
        gaussian_dropout_backward(out.view_mut(), &dropout.with_key(*key)).unwrap();
        same(&out, "backward in place");
        let mut out = fresh.clone();
        standard_normal(out.view_mut(), key).unwrap();
        assert_same(level, &out.values(), &z, (1, 7.0), "the numbers");
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn gaussian_dropout_equals_the_reference(
        (rows, cols) in shapes(), rate in proptest::sample::select(&RATES[..]),
        transposed: [bool; 2], extra in 0usize..4, seed in 0u64..1000, origin in origins(),
    ) {
        let values = numbers(rows * cols, seed);
        let x = Padded::new(&values, rows, cols, extra, transposed[0]);
        let dropout = GaussianDropout::new(rate).unwrap();
        check(&x, transposed[1], extra, &dropout, &key(seed, origin));
        let fresh = Padded::new(&values, rows, cols, extra, transposed[0]);
        prop_assert_eq!(bits(&x.data), bits(&fresh.data), "x was modified");
    }
}

#[test]
fn several_tasks_on_any_number_of_threads() {
    let dropout = GaussianDropout::new(0.3).unwrap();
    for (rows, cols) in [(1, 70_001), (300, 260), (3, 33_000)] {
        let x = numbers(rows * cols, 1);
        let mut expected = vec![0.0; rows * cols];
        let to = matrix_mut(&mut expected, rows, cols);
        let key = key(1, (3, 77));
        reference::gaussian_dropout_forward((matrix(&x, rows, cols), to), &dropout.with_key(key))
            .unwrap();
        for_each_level(|level| {
            for threads in [1, 2, 3, 8] {
                let mut y = vec![9.0; rows * cols];
                with_threads(threads, || {
                    testing::at_level(level, || {
                        let (x, y) = (matrix(&x, rows, cols), matrix_mut(&mut y, rows, cols));
                        gaussian_dropout_forward((x, y), &dropout.with_key(key)).unwrap();
                    })
                })
                .unwrap();
                assert_same(level, &y, &expected, (1, 12.0), "on several threads");
            }
        });
    }
}

/// A part with its origin has its part of the numbers, on every level the same bits.
#[test]
fn shards_are_parts_of_the_whole() {
    for_each_level(|level| {
        let whole = normals(&key(7, (2, 0)), 700);
        for (from, cols) in [(0, 1), (1, 699), (15, 18), (31, 1), (33, 200), (127, 130), (255, 2)] {
            let part = normals(&key(7, (2, from as u64)), cols);
            assert_eq!(bits(&part), bits(&whole[from..from + cols]), "{level}: {from}, {cols}");
        }
    });
}

/// The documented formula, once more and from the definition of Box and Muller.
#[test]
fn the_numbers_are_those_of_the_formula() {
    use std::f64::consts::PI;
    let (seed, layer, step, row) = (0x0123_4567_89ab_cdef, 77, 5, 3);
    let key = MaskKey::new(seed, layer, step).unwrap().with_origin(row, 256);
    let z = normals(&key, 128);
    let word = |i: u32| {
        let counter = [2, row as u32, step, layer << 7 | 3 << 5 | (i / 4)];
        philox4x32_10(counter, [seed as u32, (seed >> 32) as u32])[i as usize % 4]
    };
    for i in (0..128).filter(|i| i % 32 < 16) {
        let (a, b) = (word(i), word(i + 16));
        let v = (f64::from(a as i32) + 0.5) / 2f64.powi(32);
        let u = if v < 0.0 { -v } else { 1.0 - v };
        let radius = (-2.0 * u.ln()).sqrt();
        let eighth = f64::from((b << 2) as i32) / 2f64.powi(31) * PI / 4.0;
        // The angle on the whole circle: an exchange mirrors it at the diagonal, a sign turns it.
        let angle = if b >> 30 & 1 == 1 { PI / 2.0 - eighth } else { eighth };
        let angle = if b >> 31 == 1 { angle + PI } else { angle };
        for (got, exact) in [(i, radius * angle.cos()), (i + 16, radius * angle.sin())] {
            let got = f64::from(z[got as usize]);
            assert!((got - exact).abs() <= 1e-6 * exact.abs() + 1e-9, "{i}: {got}, not {exact}");
        }
    }
}

#[test]
fn known_answers() {
    let answers: [(MaskKey, [u32; 4]); 3] = [
        (MaskKey::new(0, 0, 0).unwrap(), [0xbf84_bf67, 0x3f89_0270, 0xbf12_7197, 0xbf9c_439d]),
        (
            MaskKey::new(42, 1, 0).unwrap().with_origin(7, 30),
            [0x3eda_21f1, 0x3de4_1cc0, 0xbf41_6138, 0xbf89_efec],
        ),
        (
            MaskKey::new(u64::MAX, (1 << 25) - 1, u32::MAX)
                .unwrap()
                .with_origin((1 << 32) - 1, (1 << 39) - 4),
            [0x3f17_efe6, 0x3f31_bb7c, 0x3f08_9152, 0x3fc2_a8af],
        ),
    ];
    for (key, answer) in answers {
        for_each_level(|level| {
            if level.has_fma() {
                assert_eq!(bits(&normals(&key, 4)), answer, "{level}: {key:?}");
            }
        });
        let mut exact = [0.0; 4];
        reference::standard_normal(MatMut::row_vector(&mut exact), &key).unwrap();
        for (bits, exact) in answer.into_iter().zip(exact) {
            let z: f64 = f32::from_bits(bits).into();
            assert!((z - exact).abs() <= 5.0 * 2f64.powi(-23) * exact.abs(), "{z}, not {exact}");
        }
    }
}

#[test]
fn rate_zero_is_the_identity() {
    let x = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0, -0.0, 1e-41, 3.5];
    let dropout = GaussianDropout::new(0.0).unwrap();
    for_each_level(|level| {
        let mut y = [9.0; 7];
        let (from, to) = (MatRef::row_vector(&x), MatMut::row_vector(&mut y));
        gaussian_dropout_forward((from, to), &dropout.with_key(key(1, (0, 0)))).unwrap();
        assert_eq!(bits(&y), bits(&x), "{level}");
        gaussian_dropout_backward(MatMut::row_vector(&mut y), &dropout.with_key(key(1, (0, 0))))
            .unwrap();
        assert_eq!(bits(&y), bits(&x), "{level}");
    });
}

#[test]
fn special_values_propagate() {
    let dropout = GaussianDropout::new(0.2).unwrap();
    for_each_level(|level| {
        let mut y = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0];
        gaussian_dropout_forward(MatMut::row_vector(&mut y), &dropout.with_key(key(1, (0, 0))))
            .unwrap();
        assert!(y[0].is_nan() && y[1].is_infinite() && y[2].is_infinite(), "{level}: {y:?}");
        assert_eq!(y[3], 0.0, "{level}");
    });
}

#[test]
fn the_domain_is_its_own() {
    // A key of unit masks has the same numbers, in as many rows as are wanted.
    let (mut z, mut of_units) = ([0.0; 64], [0.0; 64]);
    standard_normal(matrix_mut(&mut z, 2, 32), &key(3, (5, 6))).unwrap();
    standard_normal(matrix_mut(&mut of_units, 2, 32), &key(3, (5, 6)).units()).unwrap();
    assert_eq!(z, of_units);
}

#[test]
fn what_is_refused() {
    for rate in [f64::NAN, -0.1, 1.1, f64::INFINITY] {
        assert!(matches!(GaussianDropout::new(rate), Err(Error::Rate { .. })), "{rate}");
    }
    let error = GaussianDropout::new(1.0).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the rate of Gaussian dropout is 1: it must be below 1, where the variance is finite"
    );
    for rate in [0.0, 0.5] {
        let dropout = GaussianDropout::new(rate).unwrap();
        let (x, mut y) = ([1.0; 6], [9.0; 6]);
        let error = gaussian_dropout_forward(
            (matrix(&x, 2, 3), matrix_mut(&mut y, 3, 2)),
            &dropout.with_key(key(1, (0, 0))),
        );
        assert!(matches!(error, Err(Error::Shape { left: "x", right: "y", .. })), "{error:?}");
        let error = gaussian_dropout_backward(
            (matrix(&x, 2, 3), matrix_mut(&mut y, 3, 2)),
            &dropout.with_key(key(1, (0, 0))),
        );
        assert!(matches!(error, Err(Error::Shape { left: "dy", right: "dx", .. })), "{error:?}");
        for origin in [((1 << 32) - 1, 0), (0, (1 << 39) - 2), (u64::MAX, 0)] {
            let to = matrix_mut(&mut y, 2, 3);
            let error = gaussian_dropout_forward(to, &dropout.with_key(key(1, origin)));
            assert!(matches!(error, Err(Error::Address { .. })), "{error:?}");
        }
        assert_eq!(y, [9.0; 6], "an output was touched");
    }
}
