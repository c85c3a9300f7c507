//! What forward, backward and update of a dense layer refuse, and calls that have nothing to do. The
//! reference refuses the same with the same error, and what is refused writes nothing.

mod common;

use common::{ACTIVATIONS, matrix, matrix_mut, numbers};
use fused_dropout::layer::{
    DenseArgs, DenseLayer, DenseUpdate, Gradients, KeptUnits, OutputGradient, PackedWeight,
    Parameters, Side, dense_backward, dense_forward, dense_update, gather_units, scatter_units,
};
use fused_dropout::update::SgdStep;
use fused_dropout::{
    Activation, Dropout, Error, KeyedDropout, Mask, MaskKey, MaskSource, Result, Saved, reference,
};

const BATCH: usize = 3;
const INPUTS: usize = 5;
const UNITS: usize = 6;

/// The numbers of a layer.
struct Data {
    x: Vec<f32>,
    w: Vec<f32>,
    y: Vec<f32>,
}

impl Data {
    fn new() -> Self {
        Self {
            x: numbers(BATCH * INPUTS, 1),
            w: numbers(INPUTS * UNITS, 2),
            y: numbers(BATCH * UNITS, 3),
        }
    }

    /// The layer with as much of x as it reads.
    fn args<'a>(&'a self, layer: DenseLayer<'a>) -> DenseArgs<'a> {
        let inputs = width(layer.input, INPUTS);
        let x = matrix(&self.x[..BATCH * inputs], BATCH, inputs);
        DenseArgs::new(layer, x, matrix(&self.w, INPUTS, UNITS))
    }

    /// An output of the layer.
    fn output(&self, layer: &DenseLayer<'_>) -> fused_dropout::MatRef<'_> {
        let units = width(layer.output, UNITS);
        matrix(&self.y[..BATCH * units], BATCH, units)
    }
}

/// Columns of the matrices on a side of a layer.
fn width(side: Side<'_>, units: usize) -> usize {
    match side {
        Side::Units(kept) => kept.len(),
        _ => units,
    }
}

fn dropout(layer: u32) -> KeyedDropout {
    Dropout::new(0.5).unwrap().with_key(MaskKey::new(1, layer, 2).unwrap())
}

/// Which argument a call makes of a mask.
type Masking = for<'m> fn(&'m mut Mask) -> MaskSource<'m>;
const KEY: Masking = |_| MaskSource::Key;
const STORE: Masking = |mask| MaskSource::Store(mask);
const GIVEN: Masking = |mask| MaskSource::Given(mask);

/// The error of one of the three operations, which wrote nothing.
#[derive(Clone, Copy, Debug)]
enum Operation {
    Forward,
    Backward,
    Update,
}
use Operation::{Backward, Forward, Update};

impl Operation {
    /// Calls the fast function, or that of the reference, which must refuse and write nothing.
    fn error(self, fast: bool, args: &DenseArgs<'_>, saved: &Saved<'_>, masking: Masking) -> Error {
        let (m, n) = (args.x.cols(), width(args.layer.output, UNITS));
        let mut stored = Mask::new(BATCH, n).unwrap();
        let mask = masking(&mut stored);
        let result = match self {
            Forward => {
                let [mut y, mut z] = [vec![9.0; BATCH * n], vec![9.0; BATCH * n]];
                let (y_to, z_to) = (matrix_mut(&mut y, BATCH, n), matrix_mut(&mut z, BATCH, n));
                let result = match fast {
                    true => dense_forward(args, y_to, Some(z_to), mask),
                    false => reference::dense_forward(args, y_to, Some(z_to), mask),
                };
                assert_untouched(&[&y, &z], 9.0);
                result
            }
            Backward => {
                let mut dy = vec![9.0; BATCH * n];
                let [mut dx, mut dw, mut db] = [BATCH * m, m * n, n].map(|len| vec![9.0; len]);
                let dy_to = OutputGradient::Overwrite(matrix_mut(&mut dy, BATCH, n));
                let gradients = Gradients::default()
                    .with_dx(matrix_mut(&mut dx, BATCH, m))
                    .with_dw(matrix_mut(&mut dw, m, n))
                    .with_db(&mut db);
                let result = match fast {
                    true => dense_backward(args, saved, dy_to, gradients, mask),
                    false => reference::dense_backward(args, saved, dy_to, gradients, mask),
                };
                assert_untouched(&[&dy, &dx, &dw, &db], 9.0);
                result
            }
            Update => {
                let mut dy = vec![9.0; BATCH * n];
                let [mut dx, mut w, mut bias] =
                    [BATCH * m, INPUTS * UNITS, UNITS].map(|len| vec![9.0; len]);
                let dy_to = OutputGradient::Overwrite(matrix_mut(&mut dy, BATCH, n));
                let mut update = DenseUpdate::new(args.layer, args.x, SgdStep::new(0.1));
                (update.residual, update.packed) = (args.residual, args.packed);
                let w_to = matrix_mut(&mut w, INPUTS, UNITS);
                let parameters = Parameters::new(w_to).with_bias(&mut bias);
                let dx_to = Some(matrix_mut(&mut dx, BATCH, m));
                let result = match fast {
                    true => dense_update(&update, parameters, saved, dy_to, dx_to, mask),
                    false => {
                        reference::dense_update(&update, parameters, saved, dy_to, dx_to, mask)
                    }
                };
                assert_untouched(&[&dy, &dx, &w, &bias], 9.0);
                result
            }
        };
        assert_eq!(stored.count(), 0, "a mask was stored");
        result.unwrap_err()
    }

    /// The error of both functions, which is one.
    fn errors(self, args: &DenseArgs<'_>, saved: &Saved<'_>, masking: Masking) -> Error {
        let [fast, reference] = [true, false].map(|fast| self.error(fast, args, saved, masking));
        assert_eq!(fast, reference, "{self:?}");
        fast
    }
}

#[track_caller]
fn assert_untouched(outputs: &[&[f32]], value: f32) {
    assert!(outputs.concat().iter().all(|x| *x == value), "an output was written");
}

/// After a residual was added, the output no longer tells the activation.
#[test]
fn outputs_with_a_residual_are_refused() {
    let data = Data::new();
    for activation in ACTIVATIONS {
        let layer = DenseLayer::new(activation).with_output(dropout(1));
        let y = data.output(&layer);
        let args = data.args(layer).with_residual(y);
        for operation in [Backward, Update] {
            let error = operation.errors(&args, &Saved::Output(y), KEY);
            assert!(error.to_string().contains("residual"), "{activation}: {error}");
        }
    }
}

/// Kept units are not a mask of elements: there is none to store or to give, also where all are kept.
#[test]
fn masks_of_units_are_refused() {
    let data = Data::new();
    let some = KeptUnits::from_indices(UNITS, &[1, 2, 5], 2.0).unwrap();
    let (none, all) = (KeptUnits::from_indices(UNITS, &[], 1.0), KeptUnits::all(UNITS));
    for kept in [some, none.unwrap(), all.unwrap()] {
        let layer = DenseLayer::new(Activation::Tanh).with_output(&kept);
        let saved = Saved::Output(data.output(&layer));
        for masking in [STORE, GIVEN] {
            for operation in [Forward, Backward, Update] {
                let error = operation.errors(&data.args(layer), &saved, masking);
                assert_eq!(error, Error::MaskOfUnits, "{operation:?}");
            }
        }
    }
}

/// Weights packed for one product are refused by the other.
#[test]
fn weights_packed_for_another_product_are_refused() {
    let data = Data::new();
    let layer = DenseLayer::new(Activation::Relu);
    let (args, saved) = (data.args(layer), Saved::Output(data.output(&layer)));
    let forward = PackedWeight::for_layer(&layer, args.w).unwrap();
    let gradient = PackedWeight::for_input_gradient(&layer, args.w).unwrap();
    for (operation, packed) in [(Forward, &gradient), (Backward, &forward), (Update, &forward)] {
        let error = operation.error(true, &args.with_packed(packed), &saved, KEY);
        assert!(matches!(error, Error::PackedFor { .. }), "{operation:?}: {error}");
    }
}

/// Weights are packed for a shape, a dropout and kept units, and for no others.
#[test]
fn weights_packed_for_another_layer_are_refused() {
    let data = Data::new();
    let whole = DenseLayer::new(Activation::Relu);
    let units = |list| KeptUnits::from_indices(UNITS, list, 2.0).unwrap();
    let inputs = |list| KeptUnits::from_indices(INPUTS, list, 2.0).unwrap();
    let (units, other_units) = (units(&[1, 2, 5]), units(&[1, 2, 4]));
    let (inputs, other_inputs) = (inputs(&[0, 3]), inputs(&[3]));
    let thinned = whole.with_input(&inputs).with_output(&units);
    let dropped = thinned.with_weight_dropout(dropout(3));
    for (layer, packed, expected) in [
        (whole, thinned, "kept inputs"),
        (thinned, whole, "kept inputs"),
        (thinned, thinned.with_input(&other_inputs), "kept inputs"),
        (thinned, thinned.with_output(&other_units), "kept units"),
        (thinned, thinned.with_output(dropout(1)), "kept units"),
        (thinned, dropped, "dropout"),
        (dropped, thinned, "dropout"),
        (dropped, dropped.with_weight_dropout(dropout(4)), "dropout"),
    ] {
        let (args, saved) = (data.args(layer), Saved::Output(data.output(&layer)));
        let forward = PackedWeight::for_layer(&packed, args.w).unwrap();
        let gradient = PackedWeight::for_input_gradient(&packed, args.w).unwrap();
        for (operation, packed) in [(Forward, &forward), (Backward, &gradient), (Update, &gradient)]
        {
            match operation.error(true, &args.with_packed(packed), &saved, KEY) {
                Error::PackedUnits { name } => assert_eq!(name, expected, "{operation:?}"),
                Error::PackedDropout { .. } => assert_eq!("dropout", expected, "{operation:?}"),
                error => panic!("{operation:?}: {error}"),
            }
        }
    }
    let args = data.args(whole);
    let narrow = PackedWeight::new(args.w.cols_from(0, UNITS - 1).unwrap()).unwrap();
    let error = Forward.error(true, &args.with_packed(&narrow), &Saved::Nothing, KEY);
    let Error::Shape { left_cols: 5, right_cols: 6, .. } = error else { panic!("{error}") };
}

/// Rows and columns of dy, what is saved, dx and dW, and the length of db.
type Shapes = [(usize, usize); 5];

/// Backward with arguments of these shapes, by the fast function or by the reference.
fn backward(fast: bool, args: &DenseArgs<'_>, shapes: Shapes) -> Result<()> {
    let [dy, z, dx, dw, db] = shapes;
    let [dy_data, z_data] = [dy, z].map(|(rows, cols)| vec![1.0; rows * cols]);
    let [mut dx_data, mut dw_data, mut db_data] =
        [dx, dw, db].map(|(rows, cols)| vec![9.0; rows * cols]);
    let saved = Saved::PreActivation(matrix(&z_data, z.0, z.1));
    let dy = matrix(&dy_data, dy.0, dy.1);
    let gradients = Gradients::default()
        .with_dx(matrix_mut(&mut dx_data, dx.0, dx.1))
        .with_dw(matrix_mut(&mut dw_data, dw.0, dw.1))
        .with_db(&mut db_data);
    let result = match fast {
        true => dense_backward(args, &saved, dy, gradients, MaskSource::Key),
        false => reference::dense_backward(args, &saved, dy, gradients, MaskSource::Key),
    };
    if result.is_err() {
        assert_untouched(&[&dx_data, &dw_data, &db_data], 9.0);
    }
    result
}

#[test]
fn gradients_of_another_shape_are_refused() {
    let data = Data::new();
    let inputs = KeptUnits::from_indices(INPUTS, &[0, 3], 2.0).unwrap();
    let units = KeptUnits::from_indices(UNITS, &[1, 2, 5], 2.0).unwrap();
    let whole = DenseLayer::new(Activation::Gelu);
    let layers = [
        whole.with_input(dropout(0)).with_output(dropout(1)),
        whole.with_input(&inputs),
        whole.with_output(&units),
        whole.with_input(&inputs).with_output(&units),
    ];
    for layer in layers {
        let args = data.args(layer);
        let (m, n) = (width(layer.input, INPUTS), width(layer.output, UNITS));
        let right: Shapes = [(BATCH, n), (BATCH, n), (BATCH, m), (m, n), (1, n)];
        assert_eq!([true, false].map(|fast| backward(fast, &args, right)), [Ok(()), Ok(())]);
        for argument in 0..right.len() {
            for (rows, cols) in [(1, 0), (0, 1), (INPUTS, UNITS)] {
                let mut wrong = right;
                wrong[argument].0 += rows;
                wrong[argument].1 += cols;
                let results = [true, false].map(|fast| backward(fast, &args, wrong));
                assert!(results[0].is_err(), "{wrong:?}");
                assert_eq!(results[0], results[1], "{wrong:?}");
            }
        }
    }
}

/// dx, the velocities and the bias of an update.
#[test]
fn parameters_of_another_shape_are_refused() {
    let data = Data::new();
    let layer = DenseLayer::new(Activation::Relu);
    let (args, saved) = (data.args(layer), Saved::Output(data.output(&layer)));
    let update = DenseUpdate::new(layer, args.x, SgdStep::new(0.1));
    for wrong in 0..4 {
        let results = [true, false].map(|fast| {
            let more = |argument| usize::from(argument == wrong);
            let (dx_cols, v_cols) = (INPUTS + more(0), UNITS + more(1));
            let mut w = vec![9.0; INPUTS * UNITS];
            let (mut dx, mut v) = (vec![9.0; BATCH * dx_cols], vec![9.0; INPUTS * v_cols]);
            let (mut bias, mut bias_v) = (vec![9.0; UNITS + more(2)], vec![9.0; UNITS + more(3)]);
            let parameters = Parameters::new(matrix_mut(&mut w, INPUTS, UNITS))
                .with_w_state(matrix_mut(&mut v, INPUTS, v_cols))
                .with_bias(&mut bias)
                .with_bias_state(&mut bias_v[..]);
            let (dy, dx_to) = (data.output(&layer), Some(matrix_mut(&mut dx, BATCH, dx_cols)));
            let mask = MaskSource::Key;
            let result = match fast {
                true => dense_update(&update, parameters, &saved, dy, dx_to, mask),
                false => reference::dense_update(&update, parameters, &saved, dy, dx_to, mask),
            };
            assert_untouched(&[&w, &dx, &v, &bias, &bias_v], 9.0);
            result.unwrap_err()
        });
        assert_eq!(results[0], results[1]);
    }
}

/// Forward, backward and update of a layer [inputs, units] without examples, whose matrices have no
/// elements, however wide they are.
fn nothing_to_do(layer: &DenseLayer<'_>, inputs: usize, units: usize) {
    let (m, n) = (width(layer.input, inputs), width(layer.output, units));
    let args = DenseArgs::new(*layer, matrix(&[], 0, m), matrix(&[], inputs, units));
    let (y, z) = (matrix_mut(&mut [], 0, n), Some(matrix_mut(&mut [], 0, n)));
    dense_forward(&args, y, z, MaskSource::Key).unwrap();
    let gradients =
        Gradients::default().with_dx(matrix_mut(&mut [], 0, m)).with_dw(matrix_mut(&mut [], m, n));
    let (saved, dy) = (Saved::Output(matrix(&[], 0, n)), matrix(&[], 0, n));
    dense_backward(&args, &saved, dy, gradients, MaskSource::Key).unwrap();
    let update = DenseUpdate::new(*layer, args.x, SgdStep::new(0.1)).with_max_norm(1.0);
    let parameters = Parameters::new(matrix_mut(&mut [], inputs, units));
    let parameters = parameters.with_w_state(matrix_mut(&mut [], inputs, units));
    let dx = Some(matrix_mut(&mut [], 0, m));
    dense_update(&update, parameters, &saved, dy, dx, MaskSource::Key).unwrap();
}

/// 2^36 columns of nothing take no memory and no time.
#[cfg(target_pointer_width = "64")]
#[test]
fn calls_with_nothing_to_do_return_at_once() {
    const WIDE: usize = 1 << 36;
    // Masks have 2^32 rows, and lists of units 2^32 - 1.
    const MOST_UNITS: usize = u32::MAX as usize;
    let relu = DenseLayer::new(Activation::Relu);
    let dropped = relu.with_input(dropout(0)).with_output(dropout(1));
    let kept = |list| KeptUnits::from_indices(MOST_UNITS, list, 2.0).unwrap();
    let (two, none) = (kept(&[7, 1 << 31]), kept(&[]));
    for layer in [relu, dropped, dropped.with_weight_dropout(dropout(2))] {
        nothing_to_do(&layer, 0, 0);
        nothing_to_do(&layer, 0, WIDE);
        nothing_to_do(&layer, MOST_UNITS, 0);
        for kept in [&two, &none] {
            nothing_to_do(&layer.with_output(kept), 0, MOST_UNITS);
            nothing_to_do(&layer.with_input(kept), MOST_UNITS, 0);
        }
    }
    for w in [matrix(&[], 0, WIDE), matrix(&[], MOST_UNITS, 0), matrix(&[], WIDE, 0).t()] {
        for packed in [PackedWeight::new(w), PackedWeight::for_input_gradient(&relu, w)] {
            let packed = packed.unwrap();
            assert_eq!((packed.inputs(), packed.units()), (w.rows(), w.cols()));
        }
    }
    for kept in [&two, &none] {
        let n = kept.len();
        gather_units(matrix(&[], 0, MOST_UNITS), kept, matrix_mut(&mut [], 0, n)).unwrap();
        scatter_units(matrix(&[], 0, n), kept, matrix_mut(&mut [], 0, MOST_UNITS)).unwrap();
    }
}

/// Without examples the gradients of the parameters are zeros, and an update is the decay alone.
#[test]
fn batches_without_examples() {
    let w = numbers(INPUTS * UNITS, 1);
    let units = KeptUnits::from_indices(UNITS, &[1, 2, 5], 2.0).unwrap();
    for layer in [DenseLayer::new(Activation::Relu), DenseLayer::default().with_output(&units)] {
        let n = width(layer.output, UNITS);
        let args = DenseArgs::new(layer, matrix(&[], 0, INPUTS), matrix(&w, INPUTS, UNITS));
        let (mut dw, mut db) = (vec![9.0; INPUTS * n], vec![9.0; n]);
        let gradients =
            Gradients::default().with_dw(matrix_mut(&mut dw, INPUTS, n)).with_db(&mut db);
        let (saved, dy) = (Saved::Output(matrix(&[], 0, n)), matrix(&[], 0, n));
        dense_backward(&args, &saved, dy, gradients, MaskSource::Key).unwrap();
        assert_untouched(&[&dw, &db], 0.0);

        let mut w_now = w.clone();
        let update = DenseUpdate::new(layer, args.x, common::sgd_step(0.5, 0.0, 0.5, 0.0));
        let parameters = Parameters::new(matrix_mut(&mut w_now, INPUTS, UNITS));
        dense_update(&update, parameters, &saved, dy, None, MaskSource::Key).unwrap();
        for (i, (now, before)) in w_now.iter().zip(&w).enumerate() {
            let kept = n == UNITS || units.indices().contains(&((i % UNITS) as u32));
            assert_eq!(*now, if kept { before - 0.25 * before } else { *before }, "element {i}");
        }
    }
}
