//! Softmax with dropout.

use super::common::{
    Padded, RATES, assert_same, bits, for_each_level, matrix, matrix_mut, numbers, with_threads,
};
use super::{key, origins, shapes};
use fused_dropout::softmax::{SoftmaxDropout, softmax_dropout_backward, softmax_dropout_forward};
use fused_dropout::{Dropout, Error, Mask, MaskKey, MaskSource, reference, testing};
use proptest::prelude::*;

#[derive(Clone, Debug)]
struct Case {
    rows: usize,
    cols: usize,
    rate: f64,
    causal: Option<usize>,
    /// The size of the scores.
    size: f32,
    /// How many scores are special: none, or every so many.
    special: Option<usize>,
    extra: usize,
    /// Which of x, y, dy and the probabilities are stored in transposed order.
    transposed: [bool; 4],
    seed: u64,
    origin: (u64, u64),
}

const SPECIAL: [f32; 8] =
    [f32::NEG_INFINITY, 0.0, -0.0, f32::NEG_INFINITY, f32::NAN, 1e-41, f32::INFINITY, -3e38];

impl Case {
    fn plain(rows: usize, cols: usize) -> Self {
        Self {
            rows,
            cols,
            rate: 0.3,
            causal: None,
            size: 3.0,
            special: None,
            extra: 0,
            transposed: [false; 4],
            seed: 1,
            origin: (0, 0),
        }
    }

    fn args(&self) -> SoftmaxDropout {
        let dropout = Dropout::new(self.rate).unwrap();
        with_causal(dropout, self.causal, key(self.seed, self.origin))
    }

    fn padded(&self, which: usize, values: &[f32]) -> Padded {
        Padded::new(values, self.rows, self.cols, self.extra, self.transposed[which])
    }

    fn scores(&self) -> Vec<f32> {
        let scores = numbers(self.rows * self.cols, self.seed);
        let mut scores: Vec<_> = scores.into_iter().map(|x| x * self.size).collect();
        if let Some(every) = self.special {
            for (i, x) in scores.iter_mut().step_by(every).enumerate() {
                *x = SPECIAL[i % SPECIAL.len()];
            }
        }
        scores
    }
}

fn with_causal(dropout: Dropout, causal: Option<usize>, key: MaskKey) -> SoftmaxDropout {
    let args = SoftmaxDropout::new(dropout.with_key(key));
    causal.map_or(args, |offset| args.with_causal(offset))
}

/// The same with another key.
fn with_key(args: &SoftmaxDropout, key: MaskKey) -> SoftmaxDropout {
    let mut args = *args;
    args.dropout = args.dropout.with_key(key);
    args
}

struct Expected {
    y: Vec<f32>,
    p: Vec<f32>,
    dx: Vec<f32>,
    mask: Mask,
}

fn expected(case: &Case, x: &[f32], dy: &[f32]) -> Expected {
    let Case { rows, cols, .. } = *case;
    let zeros = || vec![0.0; rows * cols];
    let mut e =
        Expected { y: zeros(), p: zeros(), dx: zeros(), mask: Mask::new(rows, cols).unwrap() };
    let args = case.args();
    let (y, p) = (matrix_mut(&mut e.y, rows, cols), matrix_mut(&mut e.p, rows, cols));
    let x = matrix(x, rows, cols);
    reference::softmax_dropout_forward(&args, (x, y), Some(p), Some(&mut e.mask)).unwrap();
    let (p, dx) = (matrix(&e.p, rows, cols), matrix_mut(&mut e.dx, rows, cols));
    reference::softmax_dropout_backward(&args, p, (matrix(dy, rows, cols), dx), MaskSource::Key)
        .unwrap();
    let mut again = zeros();
    let (to, other) = (matrix_mut(&mut again, rows, cols), key(77, (0, 0)));
    let other = with_key(&args, other);
    reference::softmax_dropout_forward(&other, (x, to), None, &e.mask).unwrap();
    assert_eq!(bits(&again), bits(&e.y), "the reference with a given mask");
    e
}

/// Runs every function on every level.
fn check(case: &Case) {
    let Case { rows, cols, .. } = *case;
    let (scores, gradient) = (case.scores(), numbers(rows * cols, case.seed + 1));
    let e = expected(case, &scores, &gradient);
    let (x, dy) = (case.padded(0, &scores), case.padded(2, &gradient));
    let p_in = case.padded(3, &e.p);
    let new = |which| case.padded(which, &vec![77.0; rows * cols]);
    let args = case.args();
    for_each_level(|level| {
        let same = |got: &Padded, expected: &[f32], what: &str| {
            // Without FMA an exponential has errors in proportion to its argument.
            let size = 2.0 * args.dropout.dropout().scale().max(1.0) * (1.0 + case.size);
            let what = format!("{what} of {case:?}");
            assert_same(level, &got.values(), expected, (cols.min(100), size), &what);
        };
        for store in [false, true] {
            let (mut y, mut p, mut mask) = (new(1), new(3), Mask::new(rows, cols).unwrap());
            let (to, p_to) = (y.view_mut(), store.then(|| p.view_mut()));
            softmax_dropout_forward(&args, (x.view(), to), p_to, store.then_some(&mut mask))
                .unwrap();
            same(&y, &e.y, "y");
            if store {
                same(&p, &e.p, "probabilities");
                assert_eq!(mask, e.mask, "mask of {case:?} on {level}");
            }
        }
        // The mask decides, not the key.
        let other = with_key(&args, key(77, (0, 0)));
        let (mut y, p_to) = (new(1), None);
        softmax_dropout_forward(&other, (x.view(), y.view_mut()), p_to, &e.mask).unwrap();
        same(&y, &e.y, "y with a given mask");
        let mut y = x.clone();
        softmax_dropout_forward(&other, y.view_mut(), None, &e.mask).unwrap();
        same(&y, &e.y, "y in place with a given mask");
        let (mut y, mut p) = (x.clone(), new(3));
        softmax_dropout_forward(&args, y.view_mut(), Some(p.view_mut()), MaskSource::Key).unwrap();
        same(&y, &e.y, "y in place");
        same(&p, &e.p, "probabilities of y in place");
        for mask in [None, Some(&e.mask)] {
            let mut dx = new(1);
            softmax_dropout_backward(&args, p_in.view(), (dy.view(), dx.view_mut()), mask).unwrap();
            same(&dx, &e.dx, "dx");
            let mut dx = dy.clone();
            softmax_dropout_backward(&args, p_in.view(), dx.view_mut(), mask).unwrap();
            same(&dx, &e.dx, "dx in place");
        }
    });
    assert_eq!(bits(&x.data), bits(&case.padded(0, &scores).data), "x was modified");
    assert_eq!(bits(&dy.data), bits(&case.padded(2, &gradient).data), "dy was modified");
}

prop_compose! {
    fn cases()(
        (rows, cols) in shapes(),
        rate in proptest::sample::select(&RATES[..]),
        causal in proptest::option::of(prop_oneof![0usize..5, 0usize..200, Just(usize::MAX)]),
        size in prop_oneof![Just(1.0f32), Just(40.0), Just(1e30)],
        special in proptest::option::of(1usize..50),
        extra in 0usize..4, transposed in prop_oneof![Just([false; 4]), any::<[bool; 4]>()],
        seed in 0u64..1000, origin in origins(),
    ) -> Case {
        // Without FMA the error of 1e30 is that of its exponential: all or nothing.
        Case { rows, cols, rate, causal, size, special, extra, transposed, seed, origin }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn softmax_dropout_equals_the_reference(case in cases()) {
        check(&case);
    }
}

/// Rows around 16 lanes, a word of bits and a tile of bits, and more than one tile of rows.
#[test]
fn every_loop_turns_more_than_once() {
    for cols in [1, 7, 8, 15, 16, 17, 31, 32, 33, 47, 48, 64, 127, 129] {
        check(&Case { origin: (3, 5), causal: Some(2), ..Case::plain(70, cols) });
    }
    for cols in [4095, 4096, 4097, 8200, 9001] {
        check(&Case { origin: (7, 33), ..Case::plain(3, cols) });
        check(&Case { causal: Some(cols - 2), ..Case::plain(3, cols) });
        check(&Case { transposed: [true; 4], ..Case::plain(2, cols) });
    }
    check(&Case { causal: Some(0), ..Case::plain(600, 300) });
}

#[test]
fn threads_do_not_show() {
    for case in [Case { causal: Some(0), ..Case::plain(500, 260) }, Case::plain(40, 3000)] {
        let Case { rows, cols, .. } = case;
        let (x, dy) = (case.scores(), numbers(rows * cols, 2));
        let (e, args) = (expected(&case, &x, &dy), case.args());
        for_each_level(|level| {
            for threads in [1, 2, 3, 8] {
                let (mut y, mut p) = (vec![9.0; rows * cols], vec![9.0; rows * cols]);
                let mut dx = vec![9.0; rows * cols];
                let mut mask = Mask::new(rows, cols).unwrap();
                with_threads(threads, || {
                    testing::at_level(level, || {
                        let to = matrix_mut(&mut y, rows, cols);
                        let p_to = Some(matrix_mut(&mut p, rows, cols));
                        let x = matrix(&x, rows, cols);
                        softmax_dropout_forward(&args, (x, to), p_to, Some(&mut mask)).unwrap();
                        let p = matrix(&e.p, rows, cols);
                        let (dy, to) = (matrix(&dy, rows, cols), matrix_mut(&mut dx, rows, cols));
                        softmax_dropout_backward(&args, p, (dy, to), MaskSource::Key).unwrap();
                    })
                })
                .unwrap();
                for (got, expected) in [(&y, &e.y), (&p, &e.p), (&dx, &e.dx)] {
                    assert_same(level, got, expected, (100, 6.0), "on several threads");
                }
                assert!(mask == e.mask);
            }
        });
    }
}

/// The documented bound on the relative error of a probability.
#[test]
fn probabilities_are_accurate() {
    for (cols, size) in [(1, 1.0), (17, 0.1), (100, 10.0), (512, 4.0), (3000, 40.0)] {
        let case = Case { size, rate: 0.0, ..Case::plain(20, cols) };
        let (x, rows) = (case.scores(), case.rows);
        let wide: Vec<f64> = x.iter().map(|x| f64::from(*x)).collect();
        let (mut exact, mut rest) = (vec![0.0; x.len()], vec![0.0; x.len()]);
        reference::softmax_dropout_forward(
            &case.args(),
            (
                fused_dropout::MatRef::new(&wide, rows, cols).unwrap(),
                fused_dropout::MatMut::new(&mut exact, rows, cols).unwrap(),
            ),
            Some(fused_dropout::MatMut::new(&mut rest, rows, cols).unwrap()),
            MaskSource::Key,
        )
        .unwrap();
        for_each_level(|level| {
            let mut p = x.clone();
            let to = matrix_mut(&mut p, rows, cols);
            softmax_dropout_forward(&case.args(), to, None, MaskSource::Key).unwrap();
            for (p, exact) in p.iter().zip(&exact) {
                // All scores lie within 4 times their size of each other.
                let spread = f64::from(4.0 * size);
                let fma = if level.has_fma() { 1.0 } else { 4.0 };
                let bound = (2.0 * spread + cols as f64 / 16.0 + 14.0) * 2f64.powi(-24) * fma;
                let error = (f64::from(*p) - exact).abs();
                assert!(error <= bound * exact + 1e-44, "{level}: {p:e}, not {exact:e}");
            }
        });
    }
}

/// A row that attends to nothing, rows with a masked part, NaN, +∞, and what is not seen.
#[test]
fn special_rows() {
    const NOTHING: f32 = f32::NEG_INFINITY;
    let (rows, cols) = (5, 20);
    let args = with_causal(Dropout::new(0.5).unwrap(), Some(10), key(1, (0, 0)));
    let mut x = vec![1.0; rows * cols];
    x[..cols].fill(NOTHING);
    x[cols] = NOTHING;
    x[2 * cols + 3] = f32::NAN;
    x[3 * cols + 3] = f32::INFINITY;
    // Row i sees 0..=i + 10.
    x[4 * cols + 15] = f32::NAN;
    x[4 * cols + 16] = f32::INFINITY;
    let mask = Mask::generate(rows, cols, &args.dropout).unwrap();
    for_each_level(|level| {
        let (mut y, mut p) = (vec![9.0; rows * cols], vec![9.0; rows * cols]);
        let (to, p_to) = (matrix_mut(&mut y, rows, cols), matrix_mut(&mut p, rows, cols));
        softmax_dropout_forward(&args, (matrix(&x, rows, cols), to), Some(p_to), MaskSource::Key)
            .unwrap();
        assert_eq!(bits(&p[..cols]), [0; 20], "{level}");
        assert_eq!(p[cols], 0.0, "{level}");
        assert!((p[cols + 1] - 1.0 / 11.0).abs() < 1e-6, "{level}");
        assert!(p[2 * cols..][..13].iter().all(|p| p.is_nan()), "{level}");
        assert!(p[3 * cols..][..14].iter().all(|p| p.is_nan()), "{level}");
        assert!((p[4 * cols] - 1.0 / 15.0).abs() < 1e-6, "{level}");
        for r in 0..rows {
            assert_eq!(bits(&p[r * cols + r + 11..(r + 1) * cols]), vec![0; cols - r - 11]);
            for c in 0..cols {
                let y = y[r * cols + c];
                if c > r + 10 || mask.get(r, c) == Some(false) {
                    assert_eq!(y.to_bits(), 0, "{level}: row {r}, column {c}");
                } else {
                    let p = p[r * cols + c];
                    assert_eq!(bits(&[y]), bits(&[p * 2.0]), "{level}: row {r}, column {c}");
                }
            }
        }
        // Whatever arrives at a row that attends to nothing, nothing goes back.
        let dy = numbers(rows * cols, 3);
        let mut dx = vec![9.0; rows * cols];
        let (dy, to) = (matrix(&dy, rows, cols), matrix_mut(&mut dx, rows, cols));
        softmax_dropout_backward(&args, matrix(&p, rows, cols), (dy, to), MaskSource::Key).unwrap();
        assert!(dx[..cols].iter().all(|dx| *dx == 0.0), "{level}");
        assert_eq!(bits(&dx[4 * cols + 15..]), [0; 5], "{level}");
    });
}

#[test]
fn both_ends_of_the_rate() {
    let (rows, cols) = (3, 37);
    let x = numbers(rows * cols, 1);
    for_each_level(|level| {
        for (rate, causal) in [(0.0, None), (0.0, Some(3)), (1.0, None)] {
            let dropout = Dropout::new(rate).unwrap();
            let args = with_causal(dropout, causal, key(1, (0, 0)));
            let (mut y, mut p) = (vec![9.0; rows * cols], vec![9.0; rows * cols]);
            let (to, p_to) = (matrix_mut(&mut y, rows, cols), matrix_mut(&mut p, rows, cols));
            softmax_dropout_forward(
                &args,
                (matrix(&x, rows, cols), to),
                Some(p_to),
                MaskSource::Key,
            )
            .unwrap();
            let zeros = vec![0.0; rows * cols];
            assert_eq!(bits(&y), bits(if rate == 0.0 { &p } else { &zeros }), "{level}");
            if rate == 1.0 {
                let mut dx = vec![f32::NAN; rows * cols];
                let to = matrix_mut(&mut dx, rows, cols);
                softmax_dropout_backward(&args, matrix(&p, rows, cols), to, MaskSource::Key)
                    .unwrap();
                assert!(dx.iter().all(|dx| *dx == 0.0), "{level}");
            }
        }
    });
}

#[test]
fn what_is_refused() {
    let args = with_causal(Dropout::new(0.5).unwrap(), None, key(1, (0, 0)));
    let far = with_key(&args, key(1, ((1 << 32) - 1, 0)));
    let (x, mut y, mut p) = ([1.0; 6], [9.0; 6], [9.0; 6]);
    let mut mask = Mask::new(3, 2).unwrap();
    let x = matrix(&x, 2, 3);
    let error =
        softmax_dropout_forward(&args, (x, matrix_mut(&mut y, 3, 2)), None, MaskSource::Key);
    assert!(matches!(error, Err(Error::Shape { left: "x", right: "y", .. })), "{error:?}");
    let error = softmax_dropout_forward(&far, (x, matrix_mut(&mut y, 2, 3)), None, MaskSource::Key);
    assert!(matches!(error, Err(Error::Address { .. })), "{error:?}");
    let (to, p_to) = (matrix_mut(&mut y, 2, 3), matrix_mut(&mut p, 3, 2));
    let error = softmax_dropout_forward(&args, (x, to), Some(p_to), MaskSource::Key);
    assert!(matches!(error, Err(Error::Shape { left: "the probabilities", .. })), "{error:?}");
    let to = matrix_mut(&mut y, 2, 3);
    let error = softmax_dropout_forward(&args, to, None, Some(&mut mask));
    assert!(matches!(error, Err(Error::Shape { left: "the mask", .. })), "{error:?}");
    let error = softmax_dropout_forward(&args, (x, matrix_mut(&mut y, 2, 3)), None, &mask);
    assert!(matches!(error, Err(Error::Shape { left: "the mask", .. })), "{error:?}");
    let error = softmax_dropout_backward(&args, x, (x, matrix_mut(&mut y, 3, 2)), MaskSource::Key);
    assert!(matches!(error, Err(Error::Shape { left: "dy", right: "dx", .. })), "{error:?}");
    let error =
        softmax_dropout_backward(&args, x.t(), (x, matrix_mut(&mut y, 2, 3)), MaskSource::Key);
    assert!(matches!(error, Err(Error::Shape { left: "the probabilities", .. })), "{error:?}");
    let error = softmax_dropout_backward(&args, x, (x, matrix_mut(&mut y, 2, 3)), Some(&mask));
    assert!(matches!(error, Err(Error::Shape { left: "the mask", .. })), "{error:?}");
    assert_eq!((y, p), ([9.0; 6], [9.0; 6]), "an output was touched");
}
