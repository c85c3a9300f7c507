//! The backward pass of a dense layer.

use super::product::{LayerBuffers, WeightGradient, input_gradient, weights};
use super::rows::RowsMut;
use super::{DenseArgs, DenseLayer, Shape};
use crate::Level;
use crate::buffers::{AlignedBuffer, Slot};
use crate::elementwise::layer_gradient;
use crate::error::{Result, check_equal, check_shape};
use crate::gemm::{Operand, Start};
use crate::mask::{KeyedDropout, Mask, MaskSource};
use crate::saved::Saved;
use crate::view::{InOut, MatMut, MatRef, Source};

/// What [`dense_backward`] computes; what is left out costs nothing.
///
/// ```
/// # use fused_dropout::layer::Gradients;
/// let mut db = [0.0; 3];
/// let gradients = Gradients::default().with_db(&mut db);
/// # let _: Gradients<'_> = gradients;
/// ```
#[derive(Debug)]
#[non_exhaustive]
#[must_use]
pub struct Gradients<'a, T = f32> {
    /// The gradient of the input, of its shape.
    pub dx: Option<MatMut<'a, T>>,
    /// The gradient of the weights, [inputs, units], or of the kept ones.
    pub dw: Option<MatMut<'a, T>>,
    /// The gradient of the bias, one value a unit, or a kept one.
    pub db: Option<&'a mut [T]>,
    /// Which part of the sums over examples dW and db are.
    pub accumulation: Accumulation,
}

/// Which part of the sums over the examples of a batch a backward pass adds to dW and db.
///
/// A batch may come in parts, micro-batches, in the order of their rows and with masks whose origin is
/// the part's first row ([`MaskKey::with_origin`](crate::MaskKey::with_origin)). Each sum is one chain,
/// which goes on from what dW and db hold, so after the last part they have the bits of the whole batch.
///
/// Without dropout of weights `First` is `Whole`, and `Middle` is `Last`. With it, sums wait as they are,
/// before mask and scale, until the last part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Accumulation {
    /// All of it: what dW and db hold is overwritten.
    #[default]
    Whole,
    /// The first part: overwrites, and is to be continued.
    First,
    /// A part that is neither the first nor the last.
    Middle,
    /// The last part.
    Last,
}

impl Accumulation {
    /// Part `part` of `parts`, counted from 0.
    pub fn of(part: usize, parts: usize) -> Self {
        match (part == 0, part + 1 >= parts) {
            (true, true) => Self::Whole,
            (true, false) => Self::First,
            (false, false) => Self::Middle,
            (false, true) => Self::Last,
        }
    }

    /// Whether sums go on from what is there.
    pub(crate) fn continues(self) -> bool {
        matches!(self, Self::Middle | Self::Last)
    }

    /// Whether sums are complete after it.
    pub(crate) fn completes(self) -> bool {
        matches!(self, Self::Whole | Self::Last)
    }
}

impl<T> Default for Gradients<'_, T> {
    /// None.
    fn default() -> Self {
        Self { dx: None, dw: None, db: None, accumulation: Accumulation::Whole }
    }
}

impl<'a, T> Gradients<'a, T> {
    /// The same with the gradient of the input.
    pub fn with_dx(self, dx: MatMut<'a, T>) -> Self {
        Self { dx: Some(dx), ..self }
    }

    /// The same with the gradient of the weights.
    pub fn with_dw(self, dw: MatMut<'a, T>) -> Self {
        Self { dw: Some(dw), ..self }
    }

    /// The same with the gradient of the bias.
    pub fn with_db(self, db: &'a mut [T]) -> Self {
        Self { db: Some(db), ..self }
    }

    /// The same with dW and db as a part of their sums.
    pub fn with_accumulation(self, accumulation: Accumulation) -> Self {
        Self { accumulation, ..self }
    }

    /// `Ok` when all have the shapes of what they are gradients of.
    pub(crate) fn check(&self, args: &DenseArgs<'_, T>, shape: &Shape) -> Result<()> {
        if let Some(dx) = &self.dx {
            check_shape(dx.named("dx"), args.x.named("x"))?;
        }
        let thinned = (args.w.rows(), args.w.cols()) != (shape.inputs, shape.units);
        let (w, units) = match thinned {
            true => ("the kept weights", "number of kept units"),
            false => ("W", "columns of W"),
        };
        if let Some(dw) = &self.dw {
            check_shape(dw.named("dW"), (w, shape.inputs, shape.units))?;
        }
        match &self.db {
            Some(db) => check_equal("length of db", db.len(), units, shape.units),
            None => Ok(()),
        }
    }
}

/// The gradient dy of a layer's output, [batch, units], or [batch, kept units].
#[derive(Debug)]
#[non_exhaustive]
pub enum OutputGradient<'a, T = f32> {
    /// It stays as it is; dz has a buffer of its own.
    Keep(MatRef<'a, T>),
    /// dz takes its place, which saves a buffer.
    Overwrite(MatMut<'a, T>),
}

impl<'a, T> From<MatRef<'a, T>> for OutputGradient<'a, T> {
    fn from(dy: MatRef<'a, T>) -> Self {
        OutputGradient::Keep(dy)
    }
}

impl<'a, T> From<MatMut<'a, T>> for OutputGradient<'a, T> {
    fn from(dy: MatMut<'a, T>) -> Self {
        OutputGradient::Overwrite(dy)
    }
}

impl<T> OutputGradient<'_, T> {
    /// dy itself.
    pub(crate) fn as_ref(&self) -> MatRef<'_, T> {
        match self {
            OutputGradient::Keep(dy) => *dy,
            OutputGradient::Overwrite(dy) => dy.as_ref(),
        }
    }
}

/// The gradients of [`dense_forward`](super::dense_forward) with respect to input, weights and bias, from
/// the gradient `dy` of its output and what it saved, with the mask that is given or, without one, that
/// of the key. Where units are dropped all of them are compact. The gradient of a residual is dy itself.
///
/// ```
/// # use fused_dropout::layer::{DenseArgs, DenseLayer, Gradients, dense_backward};
/// # use fused_dropout::{Activation, Error, MaskSource, MatMut, MatRef, Saved};
/// let (x, w, y) = ([1.0, 2.0], [1.0, 0.0, 0.5, -1.0], [2.0, 0.0]);
/// let layer = DenseLayer::new(Activation::Relu);
/// let args = DenseArgs::new(layer, MatRef::new(&x, 1, 2)?, MatRef::new(&w, 2, 2)?);
/// let (mut dw, mut db) = ([0.0; 4], [0.0; 2]);
/// let gradients = Gradients::default().with_dw(MatMut::new(&mut dw, 2, 2)?).with_db(&mut db);
/// let (saved, dy) = (Saved::Output(MatRef::new(&y, 1, 2)?), MatRef::new(&[3.0, 5.0], 1, 2)?);
/// dense_backward(&args, &saved, dy, gradients, MaskSource::Key)?;
/// assert_eq!((dw, db), ([3.0, 0.0, 6.0, 0.0], [3.0, 0.0]));
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
///
/// As for [`dense_forward`](super::dense_forward), and when `saved` lacks what the activation needs, or is
/// an output to which a residual was added.
pub fn dense_backward<'d, 'm>(
    args: &DenseArgs<'_>,
    saved: &Saved<'_>,
    dy: impl Into<OutputGradient<'d>>,
    gradients: Gradients<'_>,
    mask: impl Into<MaskSource<'m>>,
) -> Result<()> {
    let (dy, mask) = (dy.into(), mask.into());
    let shape = args.check()?;
    check_shape(dy.as_ref().named("dy"), shape.output())?;
    args.check_saved(saved, &shape)?;
    gradients.check(args, &shape)?;
    args.layer.check_mask(&mask, &shape)?;
    let level = match args.packed {
        Some(packed) => packed.check_input_gradient(&args.layer, &args.w)?,
        None => Level::current()?,
    };
    run(args, level, shape, saved, dy, gradients, mask, &mut LayerBuffers::take())
}

#[allow(clippy::too_many_arguments, reason = "what the public function was given, checked")]
fn run(
    args: &DenseArgs<'_>,
    level: Level,
    shape: Shape,
    saved: &Saved<'_>,
    mut dy: OutputGradient<'_>,
    gradients: Gradients<'_>,
    mask: MaskSource<'_>,
    buffers: &mut LayerBuffers,
) -> Result<()> {
    let Gradients { dx, dw, db, accumulation } = gradients;
    let LayerBuffers { index, masked, dz, .. } = buffers;
    let db = db.map(|db| (db, accumulation));
    let dz = output_gradient(&args.layer, saved, &mut dy, shape, db, mask, dz)?;
    let dz = Operand::new(dz);
    if let Some(dw) = dw.filter(|_| shape.inputs > 0 && shape.units > 0) {
        let x = Operand::masked(args.x.source(), &args.layer.input.elements());
        weight_gradient(&args.layer, level, x, dz, shape, dw, accumulation)?;
    }
    if let Some(dx) = dx.filter(|_| shape.batch > 0 && shape.inputs > 0) {
        let w = match args.packed {
            Some(packed) => packed.operand(args.w.source().t()).t(),
            None => weights(&args.layer, args.w, level, index, masked)?,
        };
        let mut dx = RowsMut::new(Slot::Output, dx)?;
        let target = dx.target()?;
        input_gradient(&args.layer, level, dz, w, shape, target)?;
        dx.finish();
    }
    Ok(())
}

/// dz, in place of dy or in `buffer`, and db, or the given part of its sums.
pub(super) fn output_gradient(
    layer: &DenseLayer<'_>,
    saved: &Saved<'_>,
    dy: &mut OutputGradient<'_>,
    shape: Shape,
    db: Option<(&mut [f32], Accumulation)>,
    mask: MaskSource<'_>,
    buffer: &mut AlignedBuffer,
) -> Result<Source> {
    let (scale, unscale) = layer.output.scales();
    let mask = layer.output_mask(mask);
    let bits = saved.bits(layer.activation, mask, &layer.output.elements());
    let scales = (scale as f32, unscale as f32);
    let in_out = match dy {
        OutputGradient::Keep(dy) => {
            let Shape { batch, units, .. } = shape;
            InOut::Separate(*dy, MatMut::new(buffer.room(batch, units)?, batch, units)?)
        }
        OutputGradient::Overwrite(dy) => InOut::InPlace(dy.reborrow()),
    };
    let mut in_out = in_out;
    let dz = in_out.pointers().1.source();
    let db = db.map(|(db, accumulation)| {
        if !accumulation.continues() {
            db.fill(0.0);
        }
        db
    });
    layer_gradient(layer.activation, scales, bits, saved, in_out, db)?;
    Ok(dz)
}

/// dW, through the weights' dropout.
pub(super) fn weight_gradient(
    layer: &DenseLayer<'_>,
    level: Level,
    x: Operand,
    dz: Operand,
    shape: Shape,
    mut dw: MatMut<'_>,
    accumulation: Accumulation,
) -> Result<()> {
    let c = dw.target();
    let transposed = c.col_step != 1;
    let c = if transposed { c.t() } else { c };
    let start = if accumulation.continues() { Start::Partial } else { Start::Zero };
    let gradient = WeightGradient::new(layer, x, dz, shape, transposed);
    let none = KeyedDropout::NONE;
    let dropout = if accumulation.completes() { &layer.weight_dropout } else { &none };
    if !dropout.drops() || !layer.skips() {
        return gradient.store(level, dropout, (start, c));
    }
    gradient.store(level, &none, (start, c))?;
    mask_kept(layer, &mut dw)
}

/// `keep_w ? dW · scale_w : 0` of kept weights, whose mask is that of the whole matrix.
fn mask_kept(layer: &DenseLayer<'_>, dw: &mut MatMut<'_>) -> Result<()> {
    let last = |list: Option<&[u32]>, n: usize| match list {
        Some(list) => list.last().map_or(0, |unit| *unit as usize + 1),
        None => n,
    };
    let (rows, cols) = (layer.input.list(), layer.output.list());
    let mask = Mask::generate(last(rows, dw.rows()), last(cols, dw.cols()), &layer.weight_dropout)?;
    let scale = layer.weight_dropout.dropout().scale();
    let stored = |list: Option<&[u32]>, i: usize| list.map_or(i, |list| list[i] as usize);
    for i in 0..dw.rows() {
        for j in 0..dw.cols() {
            let kept = mask.get(stored(rows, i), stored(cols, j)) == Some(true);
            let value = if kept { dw.as_ref().at(i, j) * scale } else { 0.0 };
            dw.put(i, j, value);
        }
    }
    Ok(())
}
