//! Gradients of a batch that comes in parts: the bits of the whole.

use fused_dropout::layer::{
    Accumulation, DenseArgs, DenseLayer, Gradients, KeptUnits, dense_backward,
};
use fused_dropout::{Activation, Dropout, KeyedDropout, MaskKey, MaskSource, MatMut, Saved};
use fused_dropout::{reference, testing};

use crate::common::{assert_same, for_each_level, matrix, numbers, with_threads};

fn keyed(rate: f64, layer: u32, row: usize) -> KeyedDropout {
    let key = MaskKey::new(3, layer, 4).unwrap().with_origin(row as u64, 0);
    Dropout::new(rate).unwrap().with_key(key)
}

/// A layer and its data: whether units are dropped, and weights.
struct Case {
    shape: (usize, usize, usize),
    kept: Option<[KeptUnits; 2]>,
    weights: bool,
    dw_transposed: bool,
}

/// dW and db.
type Pair = (Vec<f32>, Vec<f32>);

impl Case {
    /// The layer, for rows from `row` on.
    fn layer(&self, row: usize) -> DenseLayer<'_> {
        let layer = DenseLayer::new(Activation::Gelu);
        let layer = match &self.kept {
            Some([inputs, units]) => layer.with_input(inputs).with_output(units),
            None => layer.with_input(keyed(0.2, 0, row)).with_output(keyed(0.5, 1, row)),
        };
        // Weights have one mask for the whole batch.
        if self.weights { layer.with_weight_dropout(keyed(0.5, 2, 0)) } else { layer }
    }

    /// The sizes of the matrices of the pass.
    fn compact(&self) -> (usize, usize) {
        let (_, inputs, units) = self.shape;
        let [i, j] = self.kept.as_ref().map_or([inputs, units], |[i, j]| [i.len(), j.len()]);
        (i, j)
    }

    /// Gradients in so many parts; the first has what the division leaves over.
    fn gradients(&self, parts: usize, by_reference: bool) -> Pair {
        let (batch, w_rows, w_cols) = self.shape;
        let (inputs, units) = self.compact();
        let w = numbers(w_rows * w_cols, 1);
        let (x, z, dy) =
            (numbers(batch * inputs, 2), numbers(batch * units, 3), numbers(batch * units, 4));
        let (mut dw, mut db) = (vec![f32::NAN; inputs * units], vec![f32::NAN; units]);
        let mut row = 0;
        for part in 0..parts {
            let rows = batch / parts + if part == 0 { batch % parts } else { 0 };
            let of = |data: &[f32], cols: usize| data[row * cols..(row + rows) * cols].to_vec();
            let (x, z, dy) = (of(&x, inputs), of(&z, units), of(&dy, units));
            let x = matrix(&x, rows, inputs);
            let args = DenseArgs::new(self.layer(row), x, matrix(&w, w_rows, w_cols));
            let to = match self.dw_transposed {
                true => MatMut::new(&mut dw, units, inputs).unwrap().t(),
                false => MatMut::new(&mut dw, inputs, units).unwrap(),
            };
            let gradients = Gradients::default()
                .with_dw(to)
                .with_db(&mut db)
                .with_accumulation(Accumulation::of(part, parts));
            let saved = Saved::PreActivation(matrix(&z, rows, units));
            let (dy, key) = (matrix(&dy, rows, units), MaskSource::Key);
            match by_reference {
                true => reference::dense_backward(&args, &saved, dy, gradients, key).unwrap(),
                false => dense_backward(&args, &saved, dy, gradients, key).unwrap(),
            }
            row += rows;
        }
        (dw, db)
    }
}

fn cases(shapes: &[(usize, usize, usize)]) -> Vec<Case> {
    let mut cases = Vec::new();
    for &shape in shapes {
        for (units, weights, dw_transposed) in [
            (false, false, false),
            (false, false, true),
            (true, false, false),
            (false, true, false),
            (true, true, true),
        ] {
            let list = |n: usize| (0..n as u32).filter(|u| u % 4 != 1).collect::<Vec<_>>();
            let kept = |n: usize| KeptUnits::from_indices(n, &list(n), 1.5).unwrap();
            let kept = units.then(|| [kept(shape.1), kept(shape.2)]);
            cases.push(Case { shape, kept, weights, dw_transposed });
        }
    }
    cases
}

/// Few rows and columns, and tiles with edges.
#[test]
fn parts_in_order_are_the_whole() {
    check(&[(7, 3, 5), (21, 33, 65)]);
}

/// Several tasks, and more than one block of k.
#[test]
fn large_parts_in_order_are_the_whole() {
    check(&[(64, 200, 130), (2100, 4, 40), (150, 500, 300)]);
}

fn check(shapes: &[(usize, usize, usize)]) {
    for case in cases(shapes) {
        let whole = case.gradients(1, true);
        for_each_level(|level| {
            for parts in [1, 2, 3, 7] {
                for threads in [1, 3] {
                    let run = || testing::at_level(level, || case.gradients(parts, false)).unwrap();
                    let (dw, db) = with_threads(threads, run);
                    let Case { shape, weights, .. } = case;
                    let what = format!("{parts} parts of {shape:?}, weights dropped: {weights}");
                    assert_same(level, &dw, &whole.0, (shape.0, 8.0), &what);
                    assert_same(level, &db, &whole.1, (shape.0, 8.0), &what);
                }
            }
        });
        assert_eq!(case.gradients(3, true), whole, "the reference in parts");
    }
}

/// Parts without rows add nothing, and overwrite where they are the first.
#[test]
fn empty_parts() {
    let layer = DenseLayer::new(Activation::Identity);
    let run = |accumulation: Accumulation| {
        let (mut dw, mut db) = ([1.5, -0.0, 3.0, 4.0, 5.0, 6.0], [7.0, 8.0, 9.0]);
        let w = [1.0; 6];
        let args = DenseArgs::new(layer, matrix(&[], 0, 2), matrix(&w, 2, 3));
        let gradients = Gradients::default()
            .with_dw(MatMut::new(&mut dw, 2, 3).unwrap())
            .with_db(&mut db)
            .with_accumulation(accumulation);
        let dy = matrix(&[], 0, 3);
        dense_backward(&args, &Saved::Nothing, dy, gradients, MaskSource::Key).unwrap();
        (dw, db)
    };
    for_each_level(|_| {
        for (accumulation, continues) in [
            (Accumulation::Whole, false),
            (Accumulation::First, false),
            (Accumulation::Middle, true),
            (Accumulation::Last, true),
        ] {
            let (dw, db) = run(accumulation);
            let expected = match continues {
                true => ([1.5, -0.0, 3.0, 4.0, 5.0, 6.0], [7.0, 8.0, 9.0]),
                false => ([0.0; 6], [0.0; 3]),
            };
            assert_eq!((dw, db), expected);
        }
    });
}
