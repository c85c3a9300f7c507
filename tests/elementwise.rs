//! The element-wise operations against the reference: the same bits for every shape, layout, level
//! and thread count.

mod common;

use common::{
    ACTIVATIONS, Padded, RATES, assert_same, bits, for_each_level, matrix, matrix_mut, numbers,
    with_threads,
};
use fused_dropout::elementwise::{
    BiasActivationDropout, bias_activation_dropout_backward, bias_activation_dropout_forward,
    dropout_backward, dropout_forward,
};
use fused_dropout::{
    Activation, Dropout, Error, KeyedDropout, Mask, MaskKey, MaskSource, MatRef, Saved, Scaling,
    reference, testing,
};
use proptest::prelude::*;

/// One operation with everything on it.
#[derive(Clone, Debug)]
struct Case {
    rows: usize,
    cols: usize,
    activation: Activation,
    rate: f64,
    scaling: Scaling,
    bias: bool,
    residual: bool,
    db: bool,
    stored_mask: bool,
    /// Backward from the output where the activation allows it, else from the pre-activation.
    from_output: bool,
    /// Whether NaN, infinities, zeros of both signs and subnormals are among the numbers.
    special: bool,
    extra: usize,
    /// Which of the input, the second input and the output are stored in transposed order.
    transposed: [bool; 3],
    seed: u64,
    origin: (u64, u64),
}

const SPECIAL: [f32; 7] =
    [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0, -0.0, 1e-41, -f32::MIN_POSITIVE];

struct Tensors {
    x: Padded,
    residual: Padded,
    dy: Padded,
    bias: Vec<f32>,
}

/// What the reference makes of them. `a` is y without the residual.
struct Expected {
    dropped: Vec<f32>,
    a: Vec<f32>,
    y: Vec<f32>,
    dz: Vec<f32>,
    db: Vec<f32>,
    mask: Mask,
}

impl Case {
    fn plain(rows: usize, cols: usize) -> Self {
        Self {
            rows,
            cols,
            activation: Activation::Gelu,
            rate: 0.3,
            scaling: Scaling::Inverted,
            bias: true,
            residual: false,
            db: true,
            stored_mask: false,
            from_output: false,
            special: false,
            extra: 0,
            transposed: [false; 3],
            seed: 1,
            origin: (0, 0),
        }
    }

    fn numbers(&self, seed: u64) -> Vec<f32> {
        let mut values = numbers(self.rows * self.cols, self.seed + seed);
        if self.special {
            let from = (self.seed + seed) as usize % 11;
            for (i, value) in values.iter_mut().skip(from).step_by(11).enumerate() {
                *value = SPECIAL[i % SPECIAL.len()];
            }
        }
        values
    }

    fn tensors(&self) -> Tensors {
        let padded = |seed, transposed| {
            Padded::new(&self.numbers(seed), self.rows, self.cols, self.extra, transposed)
        };
        Tensors {
            x: padded(0, self.transposed[0]),
            residual: padded(1, self.transposed[1]),
            dy: padded(2, self.transposed[0]),
            bias: numbers(self.cols, self.seed + 3),
        }
    }

    /// An output, with contents that no operation leaves there.
    fn output(&self) -> Padded {
        let values = vec![77.0; self.rows * self.cols];
        Padded::new(&values, self.rows, self.cols, self.extra, self.transposed[2])
    }

    fn args<'a>(&self, tensors: &'a Tensors) -> BiasActivationDropout<'a> {
        let dropout = Dropout::with_scaling(self.rate, self.scaling).unwrap();
        let key = MaskKey::new(self.seed, 5, 9).unwrap().with_origin(self.origin.0, self.origin.1);
        let args = BiasActivationDropout::new(self.activation, dropout.with_key(key));
        if self.bias { args.with_bias(&tensors.bias) } else { args }
    }

    /// The same with the residual, if there is one.
    fn with_residual<'a>(&self, tensors: &'a Tensors) -> BiasActivationDropout<'a> {
        let args = self.args(tensors);
        if self.residual { args.with_residual(tensors.residual.view()) } else { args }
    }

    fn saved<'a>(&self, x: MatRef<'a>, a: MatRef<'a>) -> Saved<'a> {
        let needs_z =
            matches!(self.activation, Activation::Gelu | Activation::GeluTanh | Activation::Silu);
        match self.activation {
            Activation::Identity if !self.from_output => Saved::Nothing,
            _ if self.from_output && !needs_z => Saved::Output(a),
            _ => Saved::PreActivation(x),
        }
    }

    /// The stored mask, or that of the key.
    fn mask<'a>(&self, mask: &'a Mask) -> MaskSource<'a> {
        self.stored_mask.then_some(mask).into()
    }

    /// Terms of a sum and the size of one.
    fn size(&self) -> (usize, f32) {
        (self.rows, 8.0 * self.args(&self.tensors()).dropout.dropout().scale().max(1.0))
    }

    fn expected(&self, tensors: &Tensors) -> Expected {
        let Case { rows, cols, .. } = *self;
        let args = self.args(tensors);
        let zeros = || vec![0.0; rows * cols];
        let (mut dropped, mut a, mut y, mut dz) = (zeros(), zeros(), zeros(), zeros());
        let mut db = vec![0.0; cols];
        let x = tensors.x.view();
        let to = matrix_mut(&mut dropped, rows, cols);
        reference::dropout_forward((x, to), &args.dropout, MaskSource::Key).unwrap();
        let to = matrix_mut(&mut a, rows, cols);
        reference::bias_activation_dropout_forward(&args, (x, to), MaskSource::Key).unwrap();
        let to = matrix_mut(&mut y, rows, cols);
        let with_residual = self.with_residual(tensors);
        reference::bias_activation_dropout_forward(&with_residual, (x, to), MaskSource::Key)
            .unwrap();
        let mask = Mask::generate(rows, cols, &args.dropout).unwrap();
        let saved = self.saved(x, matrix(&a, rows, cols));
        let (dy, to) = (tensors.dy.view(), matrix_mut(&mut dz, rows, cols));
        reference::bias_activation_dropout_backward(
            &args,
            &saved,
            (dy, to),
            Some(&mut db),
            self.mask(&mask),
        )
        .unwrap();
        Expected { dropped, a, y, dz, db, mask }
    }
}

/// Runs every function on every level and compares.
fn check(case: &Case) {
    let tensors = case.tensors();
    let e = case.expected(&tensors);
    for_each_level(|level| {
        let same = |fast: &[f32], expected: &[f32], what: &str| {
            assert_same(level, fast, expected, case.size(), &format!("{what} of {case:?}"));
        };
        check_dropout(case, &tensors, &e, same);
        check_forward(case, &tensors, &e, same);
        check_backward(case, &tensors, &e, same);
    });
    let fresh = case.tensors();
    assert_eq!(bits(&tensors.x.data), bits(&fresh.x.data), "x was modified");
    assert_eq!(bits(&tensors.residual.data), bits(&fresh.residual.data), "residual was modified");
    assert_eq!(bits(&tensors.dy.data), bits(&fresh.dy.data), "dy was modified");
}

fn check_dropout(
    case: &Case,
    tensors: &Tensors,
    e: &Expected,
    same: impl Fn(&[f32], &[f32], &str),
) {
    let dropout = case.args(tensors).dropout;
    let mut mask = Mask::new(case.rows, case.cols).unwrap();
    for store in [false, true] {
        let mut y = case.output();
        dropout_forward((tensors.x.view(), y.view_mut()), &dropout, store.then_some(&mut mask))
            .unwrap();
        same(&y.values(), &e.dropped, "dropout forward");
    }
    assert_eq!(mask, e.mask, "mask of {case:?}");
    for stored in [None, Some(&mask)] {
        let mut dx = case.output();
        dropout_backward((tensors.x.view(), dx.view_mut()), &dropout, stored).unwrap();
        same(&dx.values(), &e.dropped, "dropout backward");
        let mut dx = tensors.x.clone();
        dropout_backward(dx.view_mut(), &dropout, stored).unwrap();
        same(&dx.values(), &e.dropped, "dropout backward in place");
    }
    mask = Mask::new(case.rows, case.cols).unwrap();
    let mut y = tensors.x.clone();
    dropout_forward(y.view_mut(), &dropout, Some(&mut mask)).unwrap();
    same(&y.values(), &e.dropped, "dropout forward in place");
    assert_eq!(mask, e.mask, "mask stored in place of {case:?}");
}

fn check_forward(
    case: &Case,
    tensors: &Tensors,
    e: &Expected,
    same: impl Fn(&[f32], &[f32], &str),
) {
    let (args, with_residual) = (case.args(tensors), case.with_residual(tensors));
    let mut mask = Mask::new(case.rows, case.cols).unwrap();
    for store in [false, true] {
        let (mut y, mask) = (case.output(), store.then_some(&mut mask));
        bias_activation_dropout_forward(&with_residual, (tensors.x.view(), y.view_mut()), mask)
            .unwrap();
        same(&y.values(), &e.y, "forward");
    }
    assert_eq!(mask, e.mask, "mask of {case:?}");
    let mut y = tensors.x.clone();
    bias_activation_dropout_forward(&with_residual, y.view_mut(), MaskSource::Key).unwrap();
    same(&y.values(), &e.y, "forward in place");

    // Bias and activation, then dropout: on every level the bits of the fused call.
    let mut separate = case.output();
    let mut bare = args;
    bare.dropout = KeyedDropout::NONE;
    bias_activation_dropout_forward(
        &bare,
        (tensors.x.view(), separate.view_mut()),
        MaskSource::Key,
    )
    .unwrap();
    dropout_forward(separate.view_mut(), &args.dropout, MaskSource::Key).unwrap();
    let mut fused = case.output();
    bias_activation_dropout_forward(&args, (tensors.x.view(), fused.view_mut()), MaskSource::Key)
        .unwrap();
    assert_eq!(bits(&fused.values()), bits(&separate.values()), "fused, separate of {case:?}");
}

fn check_backward(
    case: &Case,
    tensors: &Tensors,
    e: &Expected,
    same: impl Fn(&[f32], &[f32], &str),
) {
    let args = case.args(tensors);
    let a = Padded::new(&e.a, case.rows, case.cols, case.extra, case.transposed[1]);
    let saved = case.saved(tensors.x.view(), a.view());
    let (mut dz, mut db) = (case.output(), vec![9.0; case.cols]);
    let sums = case.db.then_some(&mut db[..]);
    bias_activation_dropout_backward(
        &args,
        &saved,
        (tensors.dy.view(), dz.view_mut()),
        sums,
        case.mask(&e.mask),
    )
    .unwrap();
    same(&dz.values(), &e.dz, "backward");
    same(&db, if case.db { &e.db } else { &[9.0; 6000][..case.cols] }, "db");
    let (mut dz, mut db) = (tensors.dy.clone(), vec![9.0; case.cols]);
    let sums = case.db.then_some(&mut db[..]);
    bias_activation_dropout_backward(&args, &saved, dz.view_mut(), sums, case.mask(&e.mask))
        .unwrap();
    same(&dz.values(), &e.dz, "backward in place");
    same(&db, if case.db { &e.db } else { &[9.0; 6000][..case.cols] }, "db in place");
}

prop_compose! {
    fn cases()(
        (rows, cols) in prop_oneof![
            (0usize..=4, 0usize..=130), (0usize..=40, 0usize..=40), (1usize..=3, 240usize..=530),
        ],
        activation in proptest::sample::select(&ACTIVATIONS[..]),
        rate in proptest::sample::select(&RATES[..]),
        classical in proptest::bool::weighted(0.2),
        flags: [bool; 6], extra in 0usize..4, transposed: [bool; 3], seed in 0u64..1000,
        origin in prop_oneof![Just((0, 0)), (0u64..1000, 0u64..1000)],
    ) -> Case {
        let [bias, residual, db, stored_mask, from_output, special] = flags;
        let scaling = if classical { Scaling::Classical } else { Scaling::Inverted };
        Case { rows, cols, activation, rate, scaling, bias, residual, db, stored_mask, from_output,
               special, extra, transposed, seed, origin }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn elementwise_equals_the_reference(case in cases()) {
        check(&case);
    }
}

/// Widths around a vector, a word and a block of the mask, a gathered piece and a tile; heights of
/// more than one tile.
#[test]
fn every_loop_turns_more_than_once() {
    for cols in [7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 65, 127, 128, 129] {
        check(&Case { origin: (3, 5), ..Case::plain(2, cols) });
        check(&Case { transposed: [true; 3], origin: (3, 5), ..Case::plain(2, cols) });
    }
    for cols in [255, 256, 257, 4095, 4096, 4097] {
        let case = Case { activation: Activation::Relu, origin: (7, 33), ..Case::plain(3, cols) };
        check(&case);
        check(&Case { from_output: true, transposed: [false, true, false], ..case.clone() });
        check(&Case { residual: true, extra: 3, transposed: [false, false, true], ..case });
    }
    check(&Case::plain(1000, 9));
    check(&Case { stored_mask: true, extra: 1, ..Case::plain(300, 33) });
    check(&Case { activation: Activation::Silu, transposed: [true; 3], ..Case::plain(520, 20) });
}

/// More than one task: the bits of the reference on any number of threads.
#[test]
fn threads_do_not_show() {
    let flat = Case { activation: Activation::Tanh, db: false, ..Case::plain(1, 270_001) };
    let wide = Case { activation: Activation::LeakyRelu { slope: 0.1 }, ..Case::plain(30, 9000) };
    let tall = Case { extra: 1, origin: (1, 1), ..Case::plain(1100, 260) };
    for case in [flat, wide, Case { stored_mask: true, ..tall.clone() }, tall] {
        let tensors = case.tensors();
        let (args, e) = (case.args(&tensors), case.expected(&tensors));
        let saved = case.saved(tensors.x.view(), tensors.x.view());
        for_each_level(|level| {
            for threads in [1, 2, 3, 8] {
                let (mut y, mut dz, mut db) = (case.output(), case.output(), vec![9.0; case.cols]);
                let mut mask = Mask::new(case.rows, case.cols).unwrap();
                let sums = case.db.then_some(&mut db[..]);
                with_threads(threads, || {
                    testing::at_level(level, || {
                        let (x, y) = (tensors.x.view(), y.view_mut());
                        bias_activation_dropout_forward(&args, (x, y), Some(&mut mask)).unwrap();
                        let (dy, dz) = (tensors.dy.view(), dz.view_mut());
                        bias_activation_dropout_backward(
                            &args,
                            &saved,
                            (dy, dz),
                            sums,
                            case.mask(&e.mask),
                        )
                        .unwrap();
                    })
                })
                .unwrap();
                let what = |name| format!("{name} of {case:?} on {threads} threads");
                assert_same(level, &y.values(), &e.y, case.size(), &what("y"));
                assert_same(level, &dz.values(), &e.dz, case.size(), &what("dz"));
                assert!(mask == e.mask, "{}", what("mask"));
                if case.db {
                    assert_same(level, &db, &e.db, case.size(), &what("db"));
                }
            }
        });
    }
}

/// A shard with its origin is its part of the whole, bit for bit on every level.
#[test]
fn shards_are_parts_of_the_whole() {
    let case = Case { residual: true, origin: (11, 77), ..Case::plain(9, 4300) };
    let tensors = case.tensors();
    let args = case.args(&tensors);
    for_each_level(|level| {
        let (mut y, mut dz) = (case.output(), case.output());
        let with_residual = case.with_residual(&tensors);
        let (x, dy) = (tensors.x.view(), tensors.dy.view());
        bias_activation_dropout_forward(&with_residual, (x, y.view_mut()), MaskSource::Key)
            .unwrap();
        let saved = Saved::PreActivation(x);
        bias_activation_dropout_backward(&args, &saved, (dy, dz.view_mut()), None, MaskSource::Key)
            .unwrap();
        let (y, dz) = (y.values(), dz.values());

        for (row0, rows, col0, cols) in
            [(0, 9, 1, 4299), (3, 5, 33, 129), (8, 1, 127, 4100), (1, 7, 4095, 2), (5, 1, 0, 31)]
        {
            let part = |whole: &[f32]| -> Vec<f32> {
                let rows = whole.chunks(case.cols).skip(row0).take(rows);
                rows.flat_map(|row| row[col0..col0 + cols].to_vec()).collect()
            };
            let (x, dy) = (part(&tensors.x.data), part(&tensors.dy.data));
            let residual = part(&tensors.residual.data);
            let view = |data| matrix(data, rows, cols);
            let key = args.dropout.key().with_origin(11 + row0 as u64, 77 + col0 as u64);
            let args = BiasActivationDropout::new(case.activation, args.dropout.with_key(key))
                .with_bias(&tensors.bias[col0..col0 + cols]);
            let (mut y_part, mut dz_part) = (vec![9.0; rows * cols], vec![9.0; rows * cols]);
            let to = matrix_mut(&mut y_part, rows, cols);
            bias_activation_dropout_forward(
                &args.with_residual(view(&residual)),
                (view(&x), to),
                MaskSource::Key,
            )
            .unwrap();
            let to = matrix_mut(&mut dz_part, rows, cols);
            let saved = Saved::PreActivation(view(&x));
            bias_activation_dropout_backward(&args, &saved, (view(&dy), to), None, MaskSource::Key)
                .unwrap();
            assert_eq!(bits(&y_part), bits(&part(&y)), "{level}: y from {row0}, {col0} on");
            assert_eq!(bits(&dz_part), bits(&part(&dz)), "{level}: dz from {row0}, {col0} on");
        }
    });
}

/// An output with a residual in it does not tell the activation: whatever that is, it is refused, by
/// the reference too. z is enough.
#[test]
fn an_output_with_a_residual_is_refused() {
    let (values, mut dz, mut db) = ([1.0; 6], [9.0; 6], [9.0; 3]);
    let x = matrix(&values, 2, 3);
    for activation in ACTIVATIONS {
        let args = BiasActivationDropout::new(activation, KeyedDropout::NONE).with_residual(x);
        let (output, z) = (Saved::Output(x), Saved::PreActivation(x));
        let dy_dz = (x, matrix_mut(&mut dz, 2, 3));
        let error =
            bias_activation_dropout_backward(&args, &output, dy_dz, Some(&mut db), MaskSource::Key)
                .unwrap_err();
        assert!(matches!(error, Error::NotSaved { .. }), "{error}");
        assert!(error.to_string().contains("residual"), "{error}");
        let dy_dz = (x, matrix_mut(&mut dz, 2, 3));
        let same = reference::bias_activation_dropout_backward(
            &args,
            &output,
            dy_dz,
            Some(&mut db),
            MaskSource::Key,
        );
        assert_eq!(same, Err(error));
        assert_eq!((dz, db), ([9.0; 6], [9.0; 3]), "an output was touched");
        let (mut dz, mut plain) = ([9.0; 6], [9.0; 6]);
        let dy_dz = (x, matrix_mut(&mut dz, 2, 3));
        bias_activation_dropout_backward(&args, &z, dy_dz, None, MaskSource::Key).unwrap();
        let args = BiasActivationDropout::new(activation, KeyedDropout::NONE);
        let dy_dz = (x, matrix_mut(&mut plain, 2, 3));
        bias_activation_dropout_backward(&args, &z, dy_dz, None, MaskSource::Key).unwrap();
        assert_eq!(bits(&dz), bits(&plain));
    }
}

/// A backward pass that is asked to store its mask does so, also where it needs no mask.
#[test]
fn backward_stores_its_mask() {
    let (rows, cols) = (3, 70);
    let dropout =
        Dropout::new(0.4).unwrap().with_key(MaskKey::new(1, 2, 3).unwrap().with_origin(4, 5));
    let expected = Mask::generate(rows, cols, &dropout).unwrap();
    let x = numbers(rows * cols, 1);
    for_each_level(|level| {
        for activation in ACTIVATIONS {
            let args = BiasActivationDropout::new(activation, dropout);
            let x = matrix(&x, rows, cols);
            for saved in [Saved::Nothing, Saved::Output(x), Saved::PreActivation(x)] {
                let (mut dz, mut mask) = (vec![9.0; rows * cols], Mask::new(rows, cols).unwrap());
                let dy_dz = (x, matrix_mut(&mut dz, rows, cols));
                match bias_activation_dropout_backward(&args, &saved, dy_dz, None, &mut mask) {
                    Ok(()) => assert_eq!(mask, expected, "{activation} on {level}"),
                    Err(error) => assert!(matches!(error, Error::NotSaved { .. }), "{error}"),
                }
            }
        }
        let (mut dx, mut mask) = (x.clone(), Mask::new(rows, cols).unwrap());
        dropout_backward(matrix_mut(&mut dx, rows, cols), &dropout, &mut mask).unwrap();
        assert_eq!(mask, expected, "{level}");
    });
}

#[test]
fn what_disagrees_is_named() {
    let (x, mut y) = ([1.0; 6], [9.0; 6]);
    let x = matrix(&x, 2, 3);
    let args = BiasActivationDropout::new(Activation::Tanh, KeyedDropout::NONE);
    let (long, mut db, mask) = ([0.0; 4], [0.0; 2], Mask::new(3, 3).unwrap());
    let forward = |args: &BiasActivationDropout<'_>, to: fused_dropout::MatMut<'_>, mask| {
        let error = bias_activation_dropout_forward(args, (x, to), mask).unwrap_err();
        error.to_string()
    };
    let to = matrix_mut(&mut y, 3, 2);
    let error = forward(&args, to, MaskSource::Key);
    assert_eq!(error, "x is 2 x 3, but y is 3 x 2: they must have the same shape");
    let error = forward(&args.with_bias(&long), matrix_mut(&mut y, 2, 3), MaskSource::Key);
    assert_eq!(error, "length of the bias is 4, but columns of x is 3: they must be equal");
    let error = forward(&args.with_residual(x.t()), matrix_mut(&mut y, 2, 3), MaskSource::Key);
    assert_eq!(error, "the residual is 3 x 2, but x is 2 x 3: they must have the same shape");
    let error = forward(&args, matrix_mut(&mut y, 2, 3), MaskSource::Given(&mask));
    assert_eq!(error, "the mask is 3 x 3, but x is 2 x 3: they must have the same shape");
    let slope = BiasActivationDropout::new(Activation::LeakyRelu { slope: -0.1 }, args.dropout);
    let error = forward(&slope, matrix_mut(&mut y, 2, 3), MaskSource::Key);
    assert_eq!(error, "slope is -0.1: it must be finite and not negative");
    let backward = |saved, to: fused_dropout::MatMut<'_>, db| {
        bias_activation_dropout_backward(&args, &saved, (x, to), db, MaskSource::Key).unwrap_err()
    };
    let to = matrix_mut(&mut y, 2, 3);
    let error = backward(Saved::Output(x), to, Some(&mut db[..])).to_string();
    assert_eq!(error, "length of db is 2, but columns of dy is 3: they must be equal");
    let error = backward(Saved::Output(x.t()), matrix_mut(&mut y, 2, 3), None).to_string();
    assert_eq!(error, "the saved output is 3 x 2, but dy is 2 x 3: they must have the same shape");
    let error = backward(Saved::Nothing, matrix_mut(&mut y, 2, 3), None).to_string();
    assert!(error.contains("tanh") && error.contains("the output or z"), "{error}");
    assert_eq!(y, [9.0; 6], "an output was touched");
}
