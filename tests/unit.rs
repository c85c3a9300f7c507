//! Unit dropout: which units are kept, and the thinned layer against the masked one of the reference:
//! the same bits, a zero's sign aside.

mod common;

use common::{
    ACTIVATIONS, Padded, RATES, assert_same, bits, for_each_level, matrix, matrix_mut, numbers,
    with_threads,
};
use fused_dropout::{
    Activation, Dropout, Error, Gradients, KeptUnits, Mask, MaskKey, MatRef, Parameters, Saved,
    SavedValues, Scaling, SgdStep, Side, ThinArgs, ThinUpdate, gather_units, reference,
    scatter_units, thin_backward, thin_forward, thin_update,
};
use proptest::prelude::*;
use serde_json::Value;

fn key(layer: u32) -> MaskKey {
    MaskKey::new(5, layer, 6).unwrap()
}

/// One side of a layer of a test.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Drop {
    Elements(f64),
    Bernoulli(f64),
    Exact(f64),
    /// Every third unit, and those of a stretch.
    List,
}

impl Drop {
    fn kept(self, units: usize, layer: u32) -> Option<KeptUnits> {
        let dropout = |rate| Dropout::new(rate).unwrap();
        Some(match self {
            Drop::Elements(_) => return None,
            Drop::Bernoulli(rate) => {
                KeptUnits::bernoulli(units, &dropout(rate).with_key(key(layer).with_origin(0, 77)))
                    .unwrap()
            }
            Drop::Exact(rate) => {
                KeptUnits::exact(units, &dropout(rate).with_key(key(layer))).unwrap()
            }
            Drop::List => {
                let list: Vec<u32> =
                    (0..units as u32).filter(|u| u % 3 == 1 || (u + 2 * layer) % 50 > 25).collect();
                KeptUnits::from_indices(units, &list, 1.5).unwrap()
            }
        })
    }

    fn side(self, kept: &Option<KeptUnits>, layer: u32) -> Side<'_> {
        match (self, kept) {
            (Drop::Elements(rate), _) => {
                Side::Elements(Dropout::new(rate).unwrap(), key(layer).with_origin(3, 77))
            }
            (_, Some(kept)) => Side::Units(kept),
            (_, None) => Side::WHOLE,
        }
    }
}

#[derive(Clone, Debug)]
struct Case {
    batch: usize,
    inputs: usize,
    units: usize,
    activation: Activation,
    input: Drop,
    output: Drop,
    momentum: bool,
    /// L2 and L1.
    penalties: (f32, f32),
    limit: Option<f32>,
    extra: usize,
    /// Whether W and its velocity are stored as [units, inputs].
    transposed: (bool, bool),
}

/// Everything that the three operations write.
struct State {
    y: Padded,
    z: Padded,
    dx: Padded,
    dw: Padded,
    db: Vec<f32>,
    w: Padded,
    velocity: Padded,
    bias: Vec<f32>,
    bias_velocity: Vec<f32>,
}

impl State {
    fn all(&self) -> [(&'static str, Vec<f32>); 9] {
        [
            ("y", self.y.values()),
            ("z", self.z.values()),
            ("dx", self.dx.values()),
            ("dW", self.dw.values()),
            ("db", self.db.clone()),
            ("W", self.w.values()),
            ("the velocity of W", self.velocity.values()),
            ("the bias", self.bias.clone()),
            ("the velocity of the bias", self.bias_velocity.clone()),
        ]
    }
}

impl Case {
    fn new(batch: usize, inputs: usize, units: usize, input: Drop, output: Drop) -> Self {
        Self {
            batch,
            inputs,
            units,
            activation: Activation::Relu,
            input,
            output,
            momentum: true,
            penalties: (0.01, 0.02),
            limit: None,
            extra: 0,
            transposed: (false, false),
        }
    }

    /// Forward, backward and update, of the reference or of the fast functions.
    fn run(&self, fast: bool) -> State {
        let Case { batch, inputs, units, activation, extra, transposed, .. } = *self;
        let kept = (self.input.kept(inputs, 1), self.output.kept(units, 2));
        let (input, output) = (self.input.side(&kept.0, 1), self.output.side(&kept.1, 2));
        let width = |kept: &Option<KeptUnits>, n| kept.as_ref().map_or(n, KeptUnits::len);
        let (m, n) = (width(&kept.0, inputs), width(&kept.1, units));
        let zeros = |rows, cols, t| Padded::new(&vec![9.0; rows * cols], rows, cols, extra, t);
        let whole = |seed, t| Padded::new(&numbers(inputs * units, seed), inputs, units, extra, t);
        let mut s = State {
            y: zeros(batch, n, transposed.1),
            z: zeros(batch, n, false),
            dx: zeros(batch, m, transposed.0),
            dw: zeros(m, n, transposed.1),
            db: vec![9.0; n],
            w: whole(1, transposed.0),
            velocity: whole(2, transposed.1),
            bias: numbers(units, 3),
            bias_velocity: numbers(units, 4),
        };
        let x = Padded::new(&numbers(batch * m, 7), batch, m, extra, transposed.1);
        let dy = Padded::new(&numbers(batch * n, 8), batch, n, extra, transposed.0);
        let args = ThinArgs {
            bias: Some(&s.bias),
            activation,
            ..ThinArgs::new(x.view(), s.w.view(), input, output)
        };
        let (y, z) = (s.y.view_mut(), Some(s.z.view_mut()));
        if fast { thin_forward(&args, y, z) } else { reference::thin_forward(&args, y, z) }
            .unwrap();
        let values = match activation {
            Activation::Gelu | Activation::Silu | Activation::GeluTanh => {
                SavedValues::PreActivation(s.z.view())
            }
            Activation::Identity => SavedValues::None,
            _ => SavedValues::Output(s.y.view()),
        };
        let saved = Saved { values, mask: None };
        let gradients =
            Gradients { dx: Some(s.dx.view_mut()), dw: Some(s.dw.view_mut()), db: Some(&mut s.db) };
        let dy = dy.view();
        match fast {
            true => thin_backward(&args, &saved, dy, gradients),
            false => reference::thin_backward(&args, &saved, dy, gradients),
        }
        .unwrap();
        let update = ThinUpdate {
            x: x.view(),
            activation,
            input,
            output,
            step: self.step(),
            max_norm: self.limit,
        };
        let parameters = Parameters {
            w: s.w.view_mut(),
            w_velocity: if self.momentum { Some(s.velocity.view_mut()) } else { None },
            bias: Some(&mut s.bias),
            bias_velocity: if self.momentum { Some(&mut s.bias_velocity) } else { None },
        };
        let (before, dx) = (s.dx.values(), Some(s.dx.view_mut()));
        match fast {
            true => thin_update(&update, parameters, &saved, dy, dx),
            false => reference::thin_update(&update, parameters, &saved, dy, dx),
        }
        .unwrap();
        assert_eq!(bits(&s.dx.values()), bits(&before), "dx is for the weights before the update");
        self.check_removed(&s, &kept);
        s
    }

    fn step(&self) -> SgdStep {
        let momentum = if self.momentum { 0.9 } else { 0.0 };
        let (weight_decay, l1) = self.penalties;
        SgdStep { learning_rate: 0.05, momentum, weight_decay, l1 }
    }

    /// What is removed keeps its bits.
    fn check_removed(&self, s: &State, kept: &(Option<KeptUnits>, Option<KeptUnits>)) {
        let Case { inputs, units, .. } = *self;
        let is_kept = |kept: &Option<KeptUnits>, unit: usize| {
            kept.as_ref().is_none_or(|kept| kept.indices().contains(&(unit as u32)))
        };
        let rows: Vec<bool> = (0..inputs).map(|i| is_kept(&kept.0, i)).collect();
        let cols: Vec<bool> = (0..units).map(|j| is_kept(&kept.1, j)).collect();
        for (now, seed) in [(s.w.values(), 1), (s.velocity.values(), 2)] {
            for (i, (now, before)) in now.iter().zip(numbers(inputs * units, seed)).enumerate() {
                let removed = !(rows[i / units] && cols[i % units]);
                assert!(!removed || now.to_bits() == before.to_bits(), "element {i} of {self:?}");
            }
        }
        for (now, seed) in [(&s.bias, 3), (&s.bias_velocity, 4)] {
            for (j, (now, before)) in now.iter().zip(numbers(units, seed)).enumerate() {
                assert!(cols[j] || now.to_bits() == before.to_bits(), "unit {j} of {self:?}");
            }
        }
    }

    fn check(&self, threads: &[usize]) {
        // x + 0 is x, save that -0 becomes +0.
        let unsigned = |values: Vec<f32>| values.into_iter().map(|x| x + 0.0).collect::<Vec<_>>();
        let expected = self.run(false).all();
        for_each_level(|level| {
            for &threads in threads {
                let run = || level.install(|| self.run(true)).unwrap();
                let all = with_threads(threads, run).all();
                for ((what, fast), (_, expected)) in all.into_iter().zip(&expected) {
                    let terms = self.batch.max(self.units).max(self.inputs);
                    let what = format!("{what} on {threads} threads of {self:?}");
                    let expected = unsigned(expected.clone());
                    assert_same(level, &unsigned(fast), &expected, (terms, 40.0), &what);
                }
            }
        });
    }
}

fn drops() -> impl Strategy<Value = Drop> {
    prop_oneof![
        Just(Drop::Elements(0.0)),
        Just(Drop::Elements(0.3)),
        Just(Drop::Bernoulli(0.5)),
        Just(Drop::Bernoulli(0.9)),
        Just(Drop::Exact(0.2)),
        Just(Drop::Exact(0.5)),
        Just(Drop::Exact(1.0)),
        Just(Drop::List),
    ]
}

fn cases(sizes: (usize, usize, usize)) -> impl Strategy<Value = Case> {
    let (batch, inputs, units) = sizes;
    let limit = proptest::option::of(Just(2.5f32));
    let penalties = prop_oneof![Just((0.0f32, 0.0f32)), Just((0.01, 0.0)), Just((0.01, 0.02))];
    let rest =
        (drops(), drops(), any::<bool>(), penalties, limit, 0usize..3, any::<(bool, bool)>());
    let activation = proptest::sample::select(&ACTIVATIONS[..]);
    (0..batch, 0..inputs, 0..units, activation, rest).prop_map(
        |(batch, inputs, units, activation, rest)| {
            let (input, output, momentum, penalties, limit, extra, transposed) = rest;
            Case {
                activation,
                momentum,
                penalties,
                limit,
                extra,
                transposed,
                ..Case::new(batch, inputs, units, input, output)
            }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(250))]

    #[test]
    fn thin_is_masked(case in cases((40, 100, 150))) {
        case.check(&[1, 2, 3, 8]);
    }
}

/// netlib's sizes in all combinations, then sizes around tiles and panels.
#[test]
fn small_sizes() {
    let sizes = [0, 1, 2, 3, 7, 31];
    let drops = [Drop::Exact(0.5), Drop::List, Drop::Elements(0.3), Drop::Bernoulli(0.5)];
    for (i, m) in sizes.into_iter().enumerate() {
        for (j, k) in sizes.into_iter().enumerate() {
            for (l, n) in sizes.into_iter().enumerate() {
                let turn = i + 2 * j + 3 * l;
                Case::new(m, k, n, drops[turn % 4], drops[(turn / 4 + i) % 4]).check(&[1]);
            }
        }
    }
    for n in [8, 15, 16, 17, 24, 32, 33, 47, 48, 64, 65, 97, 130] {
        let case = Case { limit: Some(1.5), ..Case::new(13, n, 2 * n, Drop::List, Drop::List) };
        case.check(&[1]);
        Case { transposed: (true, true), ..case }.check(&[1]);
    }
}

/// Several blocks of k, of rows and of columns; several tasks; a batch too large for a fused update.
#[test]
fn large_layers() {
    let (list, half) = (Drop::List, Drop::Exact(0.5));
    Case::new(30, 1300, 700, half, half).check(&[1, 2, 3, 8]);
    Case { transposed: (true, true), limit: Some(2.0), ..Case::new(150, 500, 900, list, half) }
        .check(&[1, 2, 3, 8]);
    Case::new(700, 300, 260, Drop::Elements(0.2), list).check(&[1, 3]);
    Case { limit: Some(2.0), ..Case::new(128, 800, 300, half, Drop::Elements(0.5)) }.check(&[1, 3]);
    Case::new(4100, 20, 30, half, list).check(&[1, 2]);
    Case { transposed: (true, false), ..Case::new(20, 300, 300, half, list) }.check(&[1, 2]);
}

/// What is dense is computed as the dense layer is; lists of all units make no difference.
#[test]
fn whole_sides_are_the_dense_layer() {
    let (batch, inputs, units) = (20, 50, 70);
    let (x, w) = (numbers(batch * inputs, 1), numbers(inputs * units, 2));
    let (x, w) = (matrix(&x, batch, inputs), matrix(&w, inputs, units));
    let bias = numbers(units, 3);
    let all = (KeptUnits::all(inputs).unwrap(), KeptUnits::all(units).unwrap());
    let dense =
        fused_dropout::DenseArgs { bias: Some(&bias), ..fused_dropout::DenseArgs::new(x, w) };
    for_each_level(|level| {
        let mut expected = vec![9.0; batch * units];
        let to = matrix_mut(&mut expected, batch, units);
        fused_dropout::dense_forward(&dense, to, None, None).unwrap();
        for (input, output) in
            [(Side::WHOLE, Side::WHOLE), (Side::Units(&all.0), Side::Units(&all.1))]
        {
            let mut y = vec![9.0; batch * units];
            let args = ThinArgs { bias: Some(&bias), ..ThinArgs::new(x, w, input, output) };
            thin_forward(&args, matrix_mut(&mut y, batch, units), None).unwrap();
            assert_eq!(bits(&y), bits(&expected), "{level}");
        }
    });
}

/// Removed weights are not looked at, whatever they are.
#[test]
fn removed_weights_do_not_matter() {
    let (batch, inputs, units) = (5, 40, 60);
    let kept = (Drop::List.kept(inputs, 1).unwrap(), Drop::List.kept(units, 2).unwrap());
    let (m, n) = (kept.0.len(), kept.1.len());
    let x = numbers(batch * m, 1);
    let clean = numbers(inputs * units, 2);
    let mut dirty = clean.clone();
    for (i, w) in dirty.iter_mut().enumerate() {
        let (r, c) = ((i / units) as u32, (i % units) as u32);
        if !(kept.0.indices().contains(&r) && kept.1.indices().contains(&c)) {
            *w = if i % 2 == 0 { f32::NAN } else { f32::INFINITY };
        }
    }
    for_each_level(|level| {
        let [y, other] = [&clean, &dirty].map(|w| {
            let mut y = vec![9.0; batch * n];
            let sides = (Side::Units(&kept.0), Side::Units(&kept.1));
            let (x, w) = (matrix(&x, batch, m), matrix(w, inputs, units));
            let args = ThinArgs::new(x, w, sides.0, sides.1);
            thin_forward(&args, matrix_mut(&mut y, batch, n), None).unwrap();
            y
        });
        assert_eq!(bits(&y), bits(&other), "{level}");
    });
}

/// A layer of which nothing is kept has no output; the next one sees only its bias.
#[test]
fn nothing_kept() {
    let none = KeptUnits::exact(4, &Dropout::new(1.0).unwrap().with_key(key(0))).unwrap();
    assert!(none.is_empty() && none.scale() == 0.0);
    let (x, w, bias) = (numbers(6, 1), numbers(12, 2), numbers(3, 3));
    for_each_level(|level| {
        let input =
            ThinArgs::new(matrix(&x, 2, 3), matrix(&w, 3, 4), Side::WHOLE, Side::Units(&none));
        thin_forward(&input, matrix_mut(&mut [], 2, 0), None).unwrap();
        let args =
            ThinArgs::new(matrix(&[], 2, 0), matrix(&w, 4, 3), Side::Units(&none), Side::WHOLE);
        let args = ThinArgs { bias: Some(&bias), ..args };
        let mut y = [9.0; 6];
        thin_forward(&args, matrix_mut(&mut y, 2, 3), None).unwrap();
        assert_eq!(y.to_vec(), [&bias[..], &bias].concat(), "{level}");
        let (mut w_now, mut bias_now) = (w.clone(), bias.clone());
        let update = ThinUpdate {
            x: args.x,
            activation: Activation::Identity,
            input: args.input,
            output: args.output,
            step: SgdStep { weight_decay: 0.5, l1: 0.5, ..SgdStep::new(1.0) },
            max_norm: Some(0.1),
        };
        let parameters = Parameters {
            w: matrix_mut(&mut w_now, 4, 3),
            w_velocity: None,
            bias: Some(&mut bias_now),
            bias_velocity: None,
        };
        let saved = Saved { values: SavedValues::None, mask: None };
        let dx = Some(matrix_mut(&mut [], 2, 0));
        thin_update(&update, parameters, &saved, matrix(&[1.0; 6], 2, 3), dx).unwrap();
        assert_eq!(w_now, w, "{level}");
        assert_eq!(bias_now, bias.iter().map(|b| b - 2.0).collect::<Vec<_>>(), "{level}");
    });
}

#[test]
fn columns_are_gathered_and_scattered() {
    for units in [0, 1, 5, 16, 33, 130, 300] {
        for drop in [Drop::List, Drop::Exact(0.5), Drop::Bernoulli(0.2), Drop::Exact(0.0)] {
            let kept = drop.kept(units, 1).unwrap();
            for transposed in [false, true] {
                let (rows, n) = (7, kept.len());
                let x = Padded::new(&numbers(rows * units, 1), rows, units, 2, transposed);
                let y = Padded::new(&vec![9.0; rows * n], rows, n, 1, false);
                let mut expected = (y.clone(), x.clone());
                reference::gather_units(x.view(), &kept, expected.0.view_mut()).unwrap();
                let dy = expected.0.clone();
                reference::scatter_units(dy.view(), &kept, expected.1.view_mut()).unwrap();
                for_each_level(|level| {
                    for threads in [1, 3] {
                        let (mut y, mut dx) = (y.clone(), x.clone());
                        with_threads(threads, || {
                            level.install(|| {
                                gather_units(x.view(), &kept, y.view_mut()).unwrap();
                                scatter_units(dy.view(), &kept, dx.view_mut()).unwrap();
                            })
                        })
                        .unwrap();
                        assert_eq!(bits(&y.values()), bits(&expected.0.values()), "{level}");
                        assert_eq!(bits(&dx.values()), bits(&expected.1.values()), "{level}");
                    }
                });
            }
        }
    }
}

#[test]
fn known_answers() {
    let cases: Vec<Value> = serde_json::from_str(include_str!("data/kept_units.json")).unwrap();
    assert_eq!(cases.len(), 15);
    for_each_level(|level| {
        for case in &cases {
            let number = |name: &str| case[name].as_u64().unwrap();
            let dropout = Dropout::new(case["rate"].as_f64().unwrap()).unwrap();
            let seed = case["seed"].as_str().unwrap().parse().unwrap();
            let key = MaskKey::new(seed, number("layer") as u32, number("step") as u32).unwrap();
            let key = key.with_origin(0, number("col0"));
            let units = number("units") as usize;
            let kept = match case["kind"].as_str().unwrap() {
                "exact" => KeptUnits::exact(units, &dropout.with_key(key)),
                _ => KeptUnits::bernoulli(units, &dropout.with_key(key)),
            };
            let answer: Vec<u32> = case["kept"]
                .as_array()
                .unwrap()
                .iter()
                .map(|unit| unit.as_u64().unwrap() as u32)
                .collect();
            assert_eq!(kept.unwrap().indices(), answer, "{level}: {case}");
        }
    });
}

#[test]
fn selections_and_scales() {
    for rate in RATES {
        for scaling in [Scaling::Inverted, Scaling::Classical] {
            let dropout = Dropout::with_scaling(rate, scaling).unwrap();
            for units in [0, 1, 2, 10, 127, 128, 129, 1000] {
                let kept = KeptUnits::bernoulli(units, &dropout.with_key(key(3))).unwrap();
                let mask = Mask::generate(1, units, &dropout.with_key(key(3).units())).unwrap();
                let expected: Vec<u32> =
                    (0..units as u32).filter(|u| mask.get(0, *u as usize) == Some(true)).collect();
                assert_eq!(kept.indices(), expected);
                assert_eq!(kept.scale(), dropout.scale());
                assert_eq!((kept.units(), kept.keep()), (units, dropout.keep()));

                let mut kept = KeptUnits::exact(units, &dropout.with_key(key(3))).unwrap();
                let count = (dropout.keep() * units as f64).round() as usize;
                assert_eq!(kept.len(), count);
                assert!(kept.indices().windows(2).all(|pair| pair[0] < pair[1]));
                assert!(kept.indices().iter().all(|unit| (*unit as usize) < units));
                let scale = match (scaling, count) {
                    (Scaling::Classical, _) => 1.0,
                    (_, 0) => 0.0,
                    _ => (units as f64 / count as f64) as f32,
                };
                assert_eq!(kept.scale(), scale);
                // Selecting anew leaves no trace of what was selected before.
                let once = kept.clone();
                kept.redraw_bernoulli(&dropout.with_key(key(4))).unwrap();
                assert_eq!(kept, KeptUnits::bernoulli(units, &dropout.with_key(key(4))).unwrap());
                kept.redraw_exact(&dropout.with_key(key(3))).unwrap();
                assert_eq!(kept, once);
            }
        }
    }
}

/// Each unit is kept equally often, whichever others are: the counts of 4000 selections of 5 of 12
/// stay within five standard deviations, singly and in pairs.
#[test]
fn exact_selections_are_uniform() {
    let (units, steps) = (12, 4000);
    let dropout = Dropout::new(7.0 / 12.0).unwrap();
    let (mut single, mut pairs) = ([0f64; 12], [[0f64; 12]; 12]);
    for step in 0..steps {
        let kept =
            KeptUnits::exact(units, &dropout.with_key(MaskKey::new(1, 2, step).unwrap())).unwrap();
        assert_eq!(kept.len(), 5);
        for &a in kept.indices() {
            single[a as usize] += 1.0;
            kept.indices().iter().for_each(|b| pairs[a as usize][*b as usize] += 1.0);
        }
    }
    let within = |count: f64, p: f64| {
        let n = f64::from(steps);
        (count - n * p).abs() < 5.0 * (n * p * (1.0 - p)).sqrt()
    };
    for a in 0..units {
        assert!(within(single[a], 5.0 / 12.0), "{single:?}");
        for b in 0..a {
            assert!(within(pairs[a][b], 5.0 * 4.0 / (12.0 * 11.0)), "{pairs:?}");
        }
    }
}

#[test]
fn bad_arguments_are_refused() {
    let half = Dropout::new(0.5).unwrap();
    let origin = |row, col| key(1).with_origin(row, col);
    for (row, col) in [(1, 0), (0, 1 << 39), (0, (1 << 39) - 9)] {
        let error = KeptUnits::bernoulli(10, &half.with_key(origin(row, col))).unwrap_err();
        let refused = matches!(error, Error::Address { .. } | Error::UnitMask { row0: 1, rows: 1 });
        assert!(refused, "{error}");
    }
    for (row0, col0) in [(1, 0), (0, 1)] {
        let error = KeptUnits::exact(10, &half.with_key(origin(row0, col0))).unwrap_err();
        assert_eq!(error, Error::ExactOrigin { row0, col0 });
    }
    for (list, position) in [(&[0, 1, 4][..], 2), (&[1, 1], 1), (&[2, 1], 1), (&[u32::MAX], 0)] {
        let error = KeptUnits::from_indices(4, list, 1.0).unwrap_err();
        let unit = list[position];
        assert_eq!(error, Error::Unit { position, unit, units: 4 });
        assert!(error.to_string().contains(&unit.to_string()), "{error}");
    }
    for scale in [0.0, -1.0, f32::NAN, f32::INFINITY] {
        let error = KeptUnits::from_indices(4, &[1], scale).unwrap_err();
        assert!(matches!(error, Error::Parameter { name: "scale", .. }), "{error}");
    }
    if usize::BITS > 32 {
        assert!(matches!(KeptUnits::all(1 << 32), Err(Error::Parameter { .. })));
    }
}

/// Outputs stay as they are when shapes disagree.
#[test]
fn refused_operations_write_nothing() {
    let kept = KeptUnits::from_indices(6, &[0, 2, 5], 2.0).unwrap();
    let other = KeptUnits::all(5).unwrap();
    let (w, x) = (numbers(24, 1), numbers(8, 2));
    let (w, x) = (matrix(&w, 4, 6), matrix(&x, 2, 4));
    let good = ThinArgs::new(x, w, Side::WHOLE, Side::Units(&kept));
    let far = Side::Elements(Dropout::NONE, key(1).with_origin(u64::from(u32::MAX), 0));
    let calls: [(ThinArgs<'_>, usize); 6] = [
        (good, 6),
        (ThinArgs { output: Side::Units(&other), ..good }, 5),
        (ThinArgs { input: Side::Units(&kept), ..good }, 3),
        (ThinArgs { input: far, ..good }, 3),
        (ThinArgs { bias: Some(&[1.0; 3]), ..good }, 3),
        (ThinArgs { activation: Activation::LeakyRelu { slope: f32::NAN }, ..good }, 3),
    ];
    for (args, cols) in calls {
        let mut y = vec![9.0; 2 * cols];
        let saved = Saved { values: SavedValues::None, mask: None };
        let error = thin_forward(&args, matrix_mut(&mut y, 2, cols), None).unwrap_err();
        assert!(!error.to_string().is_empty());
        let dy = vec![1.0; 2 * cols];
        let (mut dx, mut dw) = ([9.0; 8], [9.0; 12]);
        let gradients = || Gradients { dx: None, dw: None, db: None };
        let all = Gradients {
            dx: Some(matrix_mut(&mut dx, 2, 4)),
            dw: Some(matrix_mut(&mut dw, 4, 3)),
            ..gradients()
        };
        thin_backward(&args, &saved, MatRef::new(&dy, 2, cols).unwrap(), all).unwrap_err();
        assert!(y.iter().chain(&dx).chain(&dw).all(|v| *v == 9.0));
    }
    let mut y = [9.0; 8];
    gather_units(x, &kept, matrix_mut(&mut y, 2, 3)).unwrap_err();
    scatter_units(x, &kept, matrix_mut(&mut y, 2, 4)).unwrap_err();
    assert_eq!(y, [9.0; 8]);
    let step = SgdStep::new(f32::NAN);
    let mut w_now = numbers(24, 1);
    let update = ThinUpdate {
        x,
        activation: Activation::Identity,
        input: good.input,
        output: good.output,
        step,
        max_norm: None,
    };
    let one = SgdStep { learning_rate: 1.0, ..step };
    for (update, cols) in [
        (update, 3),
        (ThinUpdate { step: one, ..update }, 6),
        (ThinUpdate { step: one, max_norm: Some(0.0), ..update }, 3),
        (ThinUpdate { step: one, activation: Activation::Gelu, ..update }, 3),
    ] {
        let parameters = Parameters {
            w: matrix_mut(&mut w_now, 4, 6),
            w_velocity: None,
            bias: None,
            bias_velocity: None,
        };
        let saved = Saved { values: SavedValues::None, mask: None };
        let dy = vec![1.0; 2 * cols];
        let dy = matrix(&dy, 2, cols);
        thin_update(&update, parameters, &saved, dy, None).unwrap_err();
        assert_eq!(w_now, numbers(24, 1));
    }
}
