//! The fused update of a layer: the bits of gradients in memory that are applied, and of the reference,
//! for every kind of step.

use fused_dropout::layer::{
    DenseApply, DenseArgs, DenseLayer, DenseUpdate, Gradients, KeptUnits, Parameters, dense_apply,
    dense_backward, dense_update,
};
use fused_dropout::update::Step;
use fused_dropout::{
    Activation, Dropout, KeyedDropout, MaskKey, MaskSource, MatMut, Saved, reference, testing,
};

use crate::common::{assert_same, for_each_level, matrix, numbers, with_threads};
use crate::{Kept, steps};

/// What is dropped, besides elements of the output.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Drops {
    Nothing,
    Inputs,
    Units,
    Weights,
    UnitsAndWeights,
}

const ALL: [Drops; 5] =
    [Drops::Nothing, Drops::Inputs, Drops::Units, Drops::Weights, Drops::UnitsAndWeights];

/// A layer, its data, and the parameters before the update.
#[derive(Clone)]
struct Case {
    batch: usize,
    inputs: usize,
    units: usize,
    drops: Drops,
    step: Step,
    /// Whether W, and whether its state, is stored by columns.
    transposed: (bool, bool),
    max_norm: Option<f32>,
    w: Vec<f32>,
    state: Kept,
    bias: Vec<f32>,
    bias_state: Kept,
}

fn keyed(rate: f64, layer: u32) -> KeyedDropout {
    Dropout::new(rate).unwrap().with_key(MaskKey::new(7, layer, 2).unwrap())
}

impl Case {
    fn new(shape: (usize, usize, usize), drops: Drops, step: Step) -> Self {
        let (batch, inputs, units) = shape;
        Self {
            batch,
            inputs,
            units,
            drops,
            step,
            transposed: (false, false),
            max_norm: None,
            w: numbers(inputs * units, 1),
            state: Kept::new(inputs * units, 2),
            bias: numbers(units, 4),
            bias_state: Kept::new(units, 5),
        }
    }

    /// The kept inputs and units.
    fn kept(&self) -> [KeptUnits; 2] {
        let list = |n: usize, of: u32| (0..n as u32).filter(|u| u % 5 != of).collect::<Vec<_>>();
        [(self.inputs, 1), (self.units, 3)]
            .map(|(n, of)| KeptUnits::from_indices(n, &list(n, of), 1.25).unwrap())
    }

    /// Runs `f` on the layer, x, dy, z and the parameters.
    fn run(&mut self, f: impl FnOnce(&Pass<'_>, Parameters<'_>)) {
        let kept = self.kept();
        let mut layer = DenseLayer::new(Activation::Silu);
        let thinned = matches!(self.drops, Drops::Units | Drops::UnitsAndWeights);
        let (mut inputs, mut units) = (self.inputs, self.units);
        if thinned {
            layer = layer.with_input(&kept[0]).with_output(&kept[1]);
            (inputs, units) = (kept[0].len(), kept[1].len());
        } else {
            layer = layer.with_output(keyed(0.5, 1));
        }
        if self.drops == Drops::Inputs {
            layer = layer.with_input(keyed(0.2, 0));
        }
        if matches!(self.drops, Drops::Weights | Drops::UnitsAndWeights) {
            layer = layer.with_weight_dropout(keyed(0.5, 3));
        }
        let (x, z, dy) = (
            numbers(self.batch * inputs, 6),
            numbers(self.batch * units, 7),
            numbers(self.batch * units, 8),
        );
        let pass = Pass { case: self.clone(), layer, x, z, dy, shape: (self.batch, inputs, units) };
        let (rows, cols) = (self.inputs, self.units);
        let (w_t, state_t) = self.transposed;
        let w = match w_t {
            true => MatMut::new(&mut self.w, cols, rows).unwrap().t(),
            false => MatMut::new(&mut self.w, rows, cols).unwrap(),
        };
        let parameters = Parameters::new(w)
            .with_w_state(self.state.state(&self.step, rows, cols, state_t))
            .with_bias(&mut self.bias)
            .with_bias_state(self.bias_state.state(&self.step, 1, cols, false));
        f(&pass, parameters);
    }

    fn results(&self) -> [Vec<f32>; 4] {
        [self.w.clone(), self.state.all(), self.bias.clone(), self.bias_state.all()]
    }
}

struct Pass<'a> {
    case: Case,
    layer: DenseLayer<'a>,
    x: Vec<f32>,
    z: Vec<f32>,
    dy: Vec<f32>,
    shape: (usize, usize, usize),
}

impl Pass<'_> {
    fn update(&self) -> DenseUpdate<'_> {
        let x = matrix(&self.x, self.shape.0, self.shape.1);
        let update = DenseUpdate::new(self.layer, x, self.case.step);
        match self.case.max_norm {
            Some(limit) => update.with_max_norm(limit),
            None => update,
        }
    }

    fn saved(&self) -> Saved<'_> {
        Saved::PreActivation(matrix(&self.z, self.shape.0, self.shape.2))
    }

    /// Gradients in memory, then the update.
    fn in_two_halves(&self, parameters: Parameters<'_>) {
        let (batch, inputs, units) = self.shape;
        let (mut dw, mut db) = (vec![9.0; inputs * units], vec![9.0; units]);
        let args =
            DenseArgs::new(self.layer, matrix(&self.x, batch, inputs), parameters.w.as_ref());
        let gradients = Gradients::default()
            .with_dw(MatMut::new(&mut dw, inputs, units).unwrap())
            .with_db(&mut db);
        let dy = matrix(&self.dy, batch, units);
        dense_backward(&args, &self.saved(), dy, gradients, MaskSource::Key).unwrap();
        let mut apply = DenseApply::new(self.layer, matrix(&dw, inputs, units), self.case.step);
        apply.max_norm = self.case.max_norm;
        dense_apply(&apply.with_db(&db), parameters).unwrap();
    }
}

/// Compares the reference, the fused update and the two halves on all levels.
fn check(case: &Case) {
    let mut expected = case.clone();
    expected.run(|pass, parameters| {
        let dy = matrix(&pass.dy, pass.shape.0, pass.shape.2);
        let key = MaskSource::Key;
        reference::dense_update(&pass.update(), parameters, &pass.saved(), dy, None, key).unwrap();
    });
    let expected = expected.results();
    let what = format!("{:?}, {:?}, {:?}", case.drops, case.step, case.transposed);
    for_each_level(|level| {
        for (threads, halves) in [(1, false), (3, false), (2, true)] {
            let mut fast = case.clone();
            with_threads(threads, || {
                let run = || {
                    fast.run(|pass, parameters| {
                        let dy = matrix(&pass.dy, pass.shape.0, pass.shape.2);
                        if halves {
                            return pass.in_two_halves(parameters);
                        }
                        let (update, saved) = (pass.update(), pass.saved());
                        let key = MaskSource::Key;
                        dense_update(&update, parameters, &saved, dy, None, key).unwrap();
                    });
                };
                testing::at_level(level, run).unwrap();
            });
            for (fast, expected) in fast.results().iter().zip(&expected) {
                assert_same(level, fast, expected, (case.batch, 8.0), &what);
            }
        }
    });
}

#[test]
fn the_fused_update_is_the_reference() {
    for shape in [(1, 1, 1), (7, 33, 65)] {
        for drops in ALL {
            for step in steps() {
                check(&Case::new(shape, drops, step));
            }
        }
    }
}

/// Several rows of tiles, and groups of columns of which the last is no whole one.
#[test]
fn large_fused_updates_are_the_reference() {
    for shape in [(50, 70, 96), (128, 50, 300), (200, 30, 140)] {
        for drops in ALL {
            for step in [steps()[0], steps()[4]] {
                check(&Case::new(shape, drops, step));
            }
        }
    }
}

#[test]
fn weights_and_states_may_be_stored_by_columns() {
    for drops in ALL {
        for transposed in [(true, true), (true, false), (false, true)] {
            for step in [steps()[1], steps()[4]] {
                check(&Case { transposed, ..Case::new((9, 40, 50), drops, step) });
            }
        }
    }
}

#[test]
fn norms_are_limited_after_the_update() {
    for drops in ALL {
        let max_norm = Some(0.75);
        check(&Case { max_norm, ..Case::new((6, 20, 35), drops, steps()[4]) });
    }
}

/// A batch whose update is not fused.
#[test]
fn a_large_batch() {
    for drops in [Drops::Nothing, Drops::Units, Drops::Weights] {
        check(&Case::new((4100, 5, 20), drops, steps()[4]));
    }
}

/// What is removed keeps its bits, and so do its moments.
#[test]
fn what_is_removed_is_untouched() {
    for_each_level(|_| {
        let before = Case::new((8, 30, 40), Drops::Units, steps()[4]);
        let [kept_inputs, kept_units] = before.kept();
        let mut after = before.clone();
        after.run(|pass, parameters| {
            let dy = matrix(&pass.dy, pass.shape.0, pass.shape.2);
            let key = MaskSource::Key;
            dense_update(&pass.update(), parameters, &pass.saved(), dy, None, key).unwrap();
        });
        let kept = |i: usize| {
            kept_inputs.indices().contains(&(i as u32 / 40))
                && kept_units.indices().contains(&(i as u32 % 40))
        };
        for i in 0..30 * 40 {
            let changed = |a: &[f32], b: &[f32]| a[i].to_bits() != b[i].to_bits();
            assert_eq!(changed(&before.w, &after.w), kept(i), "weight {i}");
            for m in 0..2 {
                assert_eq!(changed(&before.state.0[m], &after.state.0[m]), kept(i), "moment {i}");
            }
        }
    });
}
