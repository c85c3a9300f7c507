//! A layer whose gradients are measured.

use fused_dropout::layer::{DenseArgs, DenseLayer, Gradients, dense_backward, dense_forward};
use fused_dropout::{
    Activation, Dropout, Level, MaskKey, MaskSource, MatRef, Saved, reference, testing,
};

use super::{assert_same, matrix, matrix_mut, uniform};

/// What the layer does, from this row and column on.
fn does(row: usize, col: usize) -> DenseLayer<'static> {
    let key = MaskKey::new(7, 3, 5).expect("a small layer").with_origin(row as u64, col as u64);
    let dropout = Dropout::new(0.5).expect("a rate").with_key(key);
    DenseLayer::new(Activation::Relu).with_output(dropout)
}

/// A layer with ReLU and dropout 0.5, and its gradients.
pub(crate) struct Layer {
    shape: (usize, usize, usize),
    x: Vec<f32>,
    w: Vec<f32>,
    bias: Vec<f32>,
    dy: Vec<f32>,
    y: Vec<f32>,
    dx: Vec<f32>,
    dw: Vec<f32>,
    db: Vec<f32>,
}

impl Layer {
    pub(crate) fn new(shape: (usize, usize, usize)) -> Self {
        let (m, k, n) = shape;
        let [x, w, bias, dy] =
            [(m * k, 1), (k * n, 2), (n, 3), (m * n, 4)].map(|(n, s)| uniform(n, s));
        let [y, dx, dw, db] = [m * n, m * k, k * n, n].map(|n| vec![0.0; n]);
        Self { shape, x, w, bias, dy, y, dx, dw, db }
    }

    fn args(&self) -> DenseArgs<'_> {
        let (m, k, n) = self.shape;
        let (x, w) = (matrix(&self.x, m, k), matrix(&self.w, k, n));
        DenseArgs::new(does(0, 0), x, w).with_bias(&self.bias)
    }

    pub(crate) fn forward(&mut self) {
        let (m, _, n) = self.shape;
        let mut y = std::mem::take(&mut self.y);
        let to = matrix_mut(&mut y, m, n);
        dense_forward(&self.args(), to, None, MaskSource::Key).expect("shapes that agree");
        self.y = y;
    }

    pub(crate) fn backward(&mut self) {
        let (m, k, n) = self.shape;
        let [mut dx, mut dw, mut db] =
            [&mut self.dx, &mut self.dw, &mut self.db].map(std::mem::take);
        let gradients = Gradients::default()
            .with_dx(matrix_mut(&mut dx, m, k))
            .with_dw(matrix_mut(&mut dw, k, n))
            .with_db(&mut db);
        let (saved, dy) = (Saved::Output(matrix(&self.y, m, n)), matrix(&self.dy, m, n));
        dense_backward(&self.args(), &saved, dy, gradients, MaskSource::Key)
            .expect("shapes that agree");
        (self.dx, self.dw, self.db) = (dx, dw, db);
    }

    /// Compares the gradients of the last three units, and of the last two rows, with the reference.
    pub(crate) fn check(&mut self, level: Level) {
        let both = || {
            self.forward();
            self.backward();
        };
        testing::at_level(level, both).expect("an available level");
        if !level.has_fma() {
            return;
        }
        let (m, k, n) = self.shape;
        let (rows, cols) = (2, 3);
        let last = |data| MatRef::with_stride(data, m, cols, n).expect("the last columns");
        let w = MatRef::with_stride(&self.w[n - cols..], k, cols, n).expect("the last columns");
        let units = DenseArgs::new(does(0, n - cols), matrix(&self.x, m, k), w)
            .with_bias(&self.bias[n - cols..]);
        let (mut dw, mut db, mut dx) = (vec![0.0; k * cols], vec![0.0; cols], vec![0.0; rows * k]);
        let (saved, dy) = (Saved::Output(last(&self.y[n - cols..])), last(&self.dy[n - cols..]));
        let gradients = Gradients::default().with_dw(matrix_mut(&mut dw, k, cols)).with_db(&mut db);
        reference::dense_backward(&units, &saved, dy, gradients, MaskSource::Key)
            .expect("shapes that agree");
        let got = self.dw.chunks(n).flat_map(|row| &row[n - cols..]);
        assert_same("dW", &got.copied().collect::<Vec<_>>(), &dw);
        assert_same("db", &self.db[n - cols..], &db);

        let of = |data, n| MatRef::new(data, rows, n).expect("the last rows");
        let (x, w) = (of(&self.x[(m - rows) * k..], k), matrix(&self.w, k, n));
        let batch = DenseArgs::new(does(m - rows, 0), x, w).with_bias(&self.bias);
        let (saved, dy) =
            (Saved::Output(of(&self.y[(m - rows) * n..], n)), of(&self.dy[(m - rows) * n..], n));
        let gradients = Gradients::default().with_dx(matrix_mut(&mut dx, rows, k));
        reference::dense_backward(&batch, &saved, dy, gradients, MaskSource::Key)
            .expect("shapes that agree");
        assert_same("dx", &self.dx[(m - rows) * k..], &dx);
    }
}
