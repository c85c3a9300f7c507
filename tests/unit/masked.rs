//! The masked layer is the meaning of the thinned one: the fast functions return for it what they do for
//! the whole layer with x = 0 where an input is removed, and with a mask of whole columns.

use fused_dropout::layer::{
    DenseArgs, DenseLayer, DenseUpdate, Gradients, KeptUnits, Parameters, Side, dense_backward,
    dense_forward, dense_update,
};
use fused_dropout::{Dropout, KeyedDropout, Mask, MaskSource};
use proptest::prelude::*;

use crate::case::{Case, Drop, Masking, State, combinations, drops, elements, key, unsigned};
use crate::common::{Padded, assert_same, for_each_level, numbers};

/// Selections whose scale is also that of a dropout of elements.
fn drops_like_elements() -> impl Strategy<Value = Drop> {
    drops()
        .prop_filter("a scale of its own", |drop| !matches!(drop, Drop::Exact(rate) if *rate < 1.0))
}

/// The dropout of elements whose scale is that of the kept units.
fn dropout(drop: Drop) -> KeyedDropout {
    match drop {
        Drop::Elements(rate) => elements(rate, 2),
        Drop::Bernoulli(rate) | Drop::Exact(rate) | Drop::Blocks(_, rate) => {
            Dropout::new(rate).unwrap().with_key(key(8))
        }
        Drop::List => Dropout::new(1.0 / 3.0).unwrap().with_key(key(8)),
    }
}

/// Where the columns of a compact matrix are in the whole one.
fn columns(kept: &Option<KeptUnits>, units: usize) -> Vec<usize> {
    match kept {
        Some(kept) => kept.indices().iter().map(|unit| *unit as usize).collect(),
        None => (0..units).collect(),
    }
}

/// The elements at these rows and columns.
fn pick(matrix: &Padded, rows: &[usize], cols: &[usize]) -> Vec<f32> {
    let matrix = matrix.view();
    rows.iter().flat_map(|r| cols.iter().map(|c| matrix.get(*r, *c).unwrap())).collect()
}

/// The sizes of a layer, and which of its inputs and units are kept.
struct Places {
    batch: usize,
    inputs: usize,
    units: usize,
    rows: Vec<usize>,
    cols: Vec<usize>,
}

impl Places {
    fn new(case: &Case) -> Self {
        let Case { batch, inputs, units, .. } = *case;
        let (input, output, _) = case.kept();
        let (rows, cols) = (columns(&input, inputs), columns(&output, units));
        Self { batch, inputs, units, rows, cols }
    }

    /// What a layer returns for its kept inputs and units, whose x and y have these columns.
    fn results(&self, s: &State, x: &[usize], y: &[usize]) -> [(&'static str, Vec<f32>); 9] {
        let batch: Vec<usize> = (0..self.batch).collect();
        let Places { rows, cols, .. } = self;
        let units = |values: &[f32], cols: &[usize]| cols.iter().map(|c| values[*c]).collect();
        [
            ("y", pick(&s.y, &batch, y)),
            ("z", pick(&s.z, &batch, y)),
            ("dx", pick(&s.dx, &batch, x)),
            ("dW", pick(&s.dw, x, y)),
            ("db", units(&s.db, y)),
            ("W", pick(&s.w, rows, cols)),
            ("the velocity of W", pick(&s.velocity, rows, cols)),
            ("the bias", units(&s.bias, cols)),
            ("the velocity of the bias", units(&s.bias_velocity, cols)),
        ]
    }

    /// Of the thinned layer, whose matrices are compact.
    fn of_thinned(&self, s: &State) -> [(&'static str, Vec<f32>); 9] {
        let all = |kept: &[usize]| (0..kept.len()).collect::<Vec<_>>();
        self.results(s, &all(&self.rows), &all(&self.cols))
    }

    /// Of the masked layer, whose matrices are whole.
    fn of_masked(&self, s: &State) -> [(&'static str, Vec<f32>); 9] {
        self.results(s, &self.rows, &self.cols)
    }
}

/// A whole matrix, row after row: the columns `places` of it compact, and `rest` elsewhere.
fn spread(compact: &[f32], places: &[usize], all: usize, mut rest: Vec<f32>) -> Vec<f32> {
    for (i, value) in compact.iter().enumerate() {
        rest[i / places.len() * all + places[i % places.len()]] = *value;
    }
    rest
}

/// Forward, backward and update of the whole layer, masked.
fn masked(case: &Case, places: &Places) -> State {
    let Case { batch, inputs, units, extra, transposed, .. } = *case;
    let Places { rows, cols, .. } = places;
    // Other layouts than those of the thinned layer.
    let whole = Case { extra: 2 - extra, transposed: (transposed.1, transposed.0), ..case.clone() };
    let mut s = whole.start(&(None, None, [None, None]));
    let x = spread(&numbers(batch * rows.len(), 7), rows, inputs, vec![0.0; batch * inputs]);
    let x = Padded::new(&x, batch, inputs, 1, transposed.0);
    let any = |seed| {
        let compact = numbers(batch * cols.len(), seed);
        spread(&compact, cols, units, numbers(batch * units, 50 + seed))
    };
    let residual = Padded::new(&any(6), batch, units, extra, false);
    s.dy = Padded::new(&any(8), batch, units, extra, transposed.1);

    let input = match case.input {
        Drop::Elements(rate) => Side::Elements(elements(rate, 1)),
        _ => Side::Whole,
    };
    let layer =
        DenseLayer::new(case.activation).with_input(input).with_output(dropout(case.output));
    let layer = case.with_weight_dropout(layer);
    let keep: Vec<bool> = (0..batch * units).map(|i| cols.contains(&(i % units))).collect();
    let given = Mask::from_bools(batch, units, &keep).unwrap();
    let mask = || match case.output {
        Drop::Elements(_) => MaskSource::Key,
        _ => MaskSource::Given(&given),
    };

    let residual = case.residual.then(|| residual.view());
    let mut args = DenseArgs::new(layer, x.view(), s.w.view()).with_bias(&s.bias);
    args.residual = residual;
    dense_forward(&args, s.y.view_mut(), Some(s.z.view_mut()), mask()).unwrap();
    let saved = case.saved((&s.y, &s.z));
    let gradients =
        Gradients::default().with_dx(s.dx.view_mut()).with_dw(s.dw.view_mut()).with_db(&mut s.db);
    dense_backward(&args, &saved, s.dy.view(), gradients, mask()).unwrap();
    let mut update = DenseUpdate::new(layer, x.view(), case.step());
    update.residual = residual;
    update.max_norm = case.limit;
    let mut parameters = Parameters::new(s.w.view_mut()).with_bias(&mut s.bias);
    if case.momentum {
        parameters = parameters
            .with_w_state(s.velocity.view_mut())
            .with_bias_state(&mut s.bias_velocity[..]);
    }
    dense_update(&update, parameters, &saved, s.dy.view(), None, mask()).unwrap();
    s
}

/// The output and the gradients of what is removed are 0.
fn check_removed(case: &Case, places: &Places, s: &State) {
    let removed = |kept: &[usize], all: usize| -> Vec<usize> {
        (0..all).filter(|i| !kept.contains(i)).collect()
    };
    let Places { batch, inputs, units, ref rows, ref cols } = *places;
    let (rows, cols) = (removed(rows, inputs), removed(cols, units));
    let all = |n: usize| (0..n).collect::<Vec<_>>();
    let y = pick(&s.y, &all(batch), &cols);
    assert!(case.residual || y.iter().all(|y| y.to_bits() == 0), "y of {case:?}");
    let dw = [pick(&s.dw, &rows, &all(units)), pick(&s.dw, &all(inputs), &cols)].concat();
    assert!(dw.iter().all(|dw| *dw == 0.0), "dW of {case:?}");
    assert!(cols.iter().all(|c| s.db[*c] == 0.0), "db of {case:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn thinned_equals_masked(
        case in combinations((30, 60, 80)), input in drops_like_elements(), output in drops_like_elements(),
    ) {
        // A norm is that of the kept weights, which are a unit's weights where all inputs are kept.
        let limit = case.limit.filter(|_| matches!(input, Drop::Elements(_)));
        let case = Case { input, output, limit, masking: Masking::Key, ..case };
        let places = Places::new(&case);
        for_each_level(|level| {
            let whole = masked(&case, &places);
            check_removed(&case, &places, &whole);
            let thinned = places.of_thinned(&case.run(true));
            for ((what, thinned), (_, masked)) in thinned.iter().zip(&places.of_masked(&whole)) {
                let terms = case.batch.max(case.inputs).max(case.units);
                let what = format!("{what} of {case:?}");
                let (thinned, masked) = (unsigned(thinned), unsigned(masked));
                assert_same(level, &thinned, &masked, (terms, 40.0), &what);
            }
        });
    }
}
