//! Monte Carlo prediction: several passes with dropout, of which everything before the first noise is
//! computed once.
//!
//! ```text
//! a        what the first layer after noise reads: x, or act(...) of the layers before
//! pass t   keep(t) ? a · scale : 0   through the layers after it, with the masks of step t
//!          a · (1 + σ z(t))          where the noise is Gaussian
//! ```
//!
//! Passes over few rows are stacked and go through a layer as one product, with weights that are packed
//! once for all passes.

use std::ops::Range;

use super::dense::Dense;
use super::junction::Junction;
use super::mlp::{EVALUATION_ROWS, Mlp};
use super::mode::Mode;
use super::prediction::Prediction;
use super::room;
use crate::buffers::AlignedBuffer;
use crate::error::{Result, check_equal};
use crate::layer::{DenseArgs, DenseLayer, PackedWeight, Side, dense_forward};
use crate::mask::{MaskKey, MaskSource};
use crate::view::MatRef;

/// Rows of a stack: passes over fewer rows are put together, for a product that all threads share.
const STACK_ROWS: usize = 512;

impl Mlp {
    /// Adds the class probabilities of a pass with dropout for each of `steps` to `prediction` (Gal and
    /// Ghahramani 2016, "Dropout as a Bayesian approximation").
    ///
    /// Pass t is the forward pass that training makes in step t: it has the rates of step t, and the
    /// masks or the noise of the keys (seed, layer, t), of which row r is that of row r of `x`; units
    /// that are dropped are so for all rows. Hence a pass does not depend on how many there are: steps
    /// `0..50` at once are the same bits as `0..20` and then `20..50`, and the first ones of more passes
    /// are those of fewer. Steps from [`Mlp::steps`] on are the ones that training has not used.
    ///
    /// What is before the first noise whose rate is above 0 in any step is computed once. Beside the
    /// prediction, it takes the size of the weights after that once more, the matrix before it, and two
    /// others, all for at most 512 rows of the widest layer; nothing grows with the number of passes.
    ///
    /// # Errors
    ///
    /// When `x` has not the network's inputs, or more rows than a mask, or when `prediction` is for
    /// another number of examples or classes; it is unchanged then.
    pub fn predict_monte_carlo(
        &self,
        x: MatRef<'_>,
        steps: Range<u32>,
        prediction: &mut Prediction,
    ) -> Result<()> {
        check_equal("columns of x", x.cols(), "inputs of the network", self.inputs())?;
        prediction.check((x.rows(), self.classes()))?;
        MaskKey::FIRST.check(x.rows(), self.widest())?;
        let mut passes = Passes::new(self);
        let packed = passes.pack()?;
        for row in (0..x.rows()).step_by(EVALUATION_ROWS) {
            let x = x.rows_from(row, EVALUATION_ROWS.min(x.rows() - row))?;
            passes.run(x, row, steps.clone(), packed.as_deref(), prediction)?;
        }
        prediction.add_members(steps.len());
        Ok(())
    }
}

/// What passes share.
struct Passes<'a> {
    mlp: &'a Mlp,
    /// The first junction with noise in any step, or the last one.
    first: usize,
    junctions: Vec<Junction>,
    /// What comes before the first noise, if that is not the input.
    shared: AlignedBuffer,
    buffers: Buffers,
}

/// Of a stack of passes: what a layer reads, and what it writes; and the probabilities of one pass.
#[derive(Default)]
struct Buffers {
    input: AlignedBuffer,
    output: AlignedBuffer,
    probabilities: AlignedBuffer,
}

impl<'a> Passes<'a> {
    fn new(mlp: &'a Mlp) -> Self {
        // Of all steps: passes may have other rates than the step that was drawn last.
        let first = mlp.junctions.iter().position(Junction::may_change);
        let mut first = first.unwrap_or(mlp.layers().len() - 1);
        // Dropout inside a residual leaves nothing to share of its layer but the input.
        while first > 0 && mlp.spec().is_residual(first - 1) && mlp.junctions[first].is_in_layer() {
            first -= 1;
        }
        let junctions = mlp.junctions.clone();
        Self {
            mlp,
            first,
            junctions,
            shared: AlignedBuffer::default(),
            buffers: Buffers::default(),
        }
    }

    /// The weights of the layers after the first noise, for stacked passes; nothing where units are
    /// dropped, since each pass has other weights then.
    fn pack(&self) -> Result<Option<Vec<PackedWeight>>> {
        if self.junctions[self.first..].iter().any(Junction::thins) {
            return Ok(None);
        }
        let pack = |layer: &Dense| PackedWeight::new(layer.w()?);
        self.mlp.layers()[self.first..].iter().map(pack).collect::<Result<_>>().map(Some)
    }

    /// All passes over `x`, which are the rows from `row` on.
    fn run(
        &mut self,
        x: MatRef<'_>,
        row: usize,
        steps: Range<u32>,
        packed: Option<&[PackedWeight]>,
        prediction: &mut Prediction,
    ) -> Result<()> {
        let (rows, classes) = (x.rows(), self.mlp.classes());
        self.share(x)?;
        let most = if packed.is_some() { (STACK_ROWS / rows.max(1)).max(1) } else { 1 };
        let mut left = steps;
        while !left.is_empty() {
            let passes = most.min(left.len());
            let (start, end) = (left.start, left.start + passes as u32);
            match packed {
                Some(packed) => self.stacked(x, row, start..end, packed)?,
                None => self.thinned(x, row, start)?,
            }
            let Buffers { input: logits, probabilities, .. } = &mut self.buffers;
            let logits = MatRef::new(logits, passes * rows, classes)?;
            for pass in 0..passes {
                prediction.add_rows(row, logits.rows_from(pass * rows, rows)?, probabilities)?;
            }
            left.start = end;
        }
        Ok(())
    }

    /// Computes what is before the first noise.
    fn share(&mut self, x: MatRef<'_>) -> Result<()> {
        for l in 0..self.first {
            let y = room(&mut self.buffers.output, x.rows(), self.mlp.layers()[l].units())?;
            let x = before(self.mlp, l, x, &self.shared)?;
            let mut args = args(self.mlp, l, x)?;
            args.residual = residual(self.mlp, l, x);
            dense_forward(&args, y, None, MaskSource::Key)?;
            std::mem::swap(&mut self.shared, &mut self.buffers.output);
        }
        Ok(())
    }

    /// A pass for each of `steps`, stacked. The logits are left in `buffers.input`, one pass after the
    /// other.
    fn stacked(
        &mut self,
        x: MatRef<'_>,
        row: usize,
        steps: Range<u32>,
        packed: &[PackedWeight],
    ) -> Result<()> {
        let Self { mlp, first, junctions, shared, buffers } = self;
        let Buffers { input, output, .. } = buffers;
        let (rows, all_rows) = (x.rows(), steps.len() * x.rows());
        let x = before(mlp, *first, x, shared)?;
        let mut stack = room(input, all_rows, x.cols())?;
        for (pass, step) in steps.clone().enumerate() {
            let key = draw(mlp, junctions, *first, step, (row, rows))?;
            junctions[*first].forward(x, stack.reborrow().rows_from(pass * rows, rows)?, &key)?;
        }
        for (l, w) in (*first..).zip(packed) {
            let x = MatRef::new(input, all_rows, w.inputs())?;
            let mut y = room(output, all_rows, w.units())?;
            let args = args(mlp, l, x)?.with_packed(w);
            dense_forward(&args, y.reborrow(), None, MaskSource::Key)?;
            if l + 1 < junctions.len() {
                for (pass, step) in steps.clone().enumerate() {
                    let key = draw(mlp, junctions, l + 1, step, (row, rows))?;
                    let y = y.reborrow().rows_from(pass * rows, rows)?;
                    let x = residual(mlp, l, x.rows_from(pass * rows, rows)?);
                    junctions[l + 1].forward_in_place(y, x, &key)?;
                }
            }
            std::mem::swap(input, output);
        }
        Ok(())
    }

    /// The pass of a step, through thinned layers. The logits are left in `buffers.input`.
    fn thinned(&mut self, x: MatRef<'_>, row: usize, step: u32) -> Result<()> {
        let Self { mlp, first, junctions, shared, buffers } = self;
        let Buffers { input, output, .. } = buffers;
        let rows = x.rows();
        let x = before(mlp, *first, x, shared)?;
        let key = draw(mlp, junctions, *first, step, (row, rows))?;
        let noise = &junctions[*first];
        let width = noise.thinned_side().width(rows, ("inputs", x.cols()))?;
        noise.forward(x, room(input, rows, width)?, &key)?;
        for (l, layer) in mlp.layers().iter().enumerate().skip(*first) {
            let key = match junctions.len() {
                count if l + 1 < count => Some(draw(mlp, junctions, l + 1, step, (row, rows))?),
                _ => None,
            };
            let from = junctions[l].thinned_side();
            let to = junctions.get(l + 1).map_or(Side::Whole, Junction::thinned_side);
            let inputs = from.width(rows, ("inputs", layer.inputs()))?;
            let units = to.width(rows, ("units", layer.units()))?;
            let x = MatRef::new(input, rows, inputs)?;
            let mut args = args(mlp, l, x)?;
            args.layer = args.layer.with_input(from).with_output(to);
            let mut y = room(output, rows, units)?;
            dense_forward(&args, y.reborrow(), None, MaskSource::Key)?;
            if let Some(key) = key {
                junctions[l + 1].forward_in_place(y, residual(mlp, l, x), &key)?;
            }
            std::mem::swap(input, output);
        }
        Ok(())
    }
}

/// What layer `l` reads, without dropout: the input, or what was computed of it.
fn before<'a>(mlp: &Mlp, l: usize, x: MatRef<'a>, shared: &'a [f32]) -> Result<MatRef<'a>> {
    if l == 0 { Ok(x) } else { MatRef::new(shared, x.rows(), mlp.layers()[l].inputs()) }
}

/// What layer `l` adds to its output, if it adds its input.
fn residual<'a>(mlp: &Mlp, l: usize, x: MatRef<'a>) -> Option<MatRef<'a>> {
    mlp.spec().is_residual(l).then_some(x)
}

/// Layer `l` without dropout and residual.
fn args<'a>(mlp: &'a Mlp, l: usize, x: MatRef<'a>) -> Result<DenseArgs<'a>> {
    let layer = &mlp.layers()[l];
    let w = layer.w()?;
    let does = DenseLayer::new(mlp.mode().activation_of(l));
    Ok(DenseArgs::new(does, x, w).with_bias(layer.bias()))
}

/// Draws the noise of junction `l` in a step, for so many rows from a first one on. Returns its key.
fn draw(
    mlp: &Mlp,
    junctions: &mut [Junction],
    l: usize,
    step: u32,
    (row, rows): (usize, usize),
) -> Result<MaskKey> {
    let mode = Mode { step, first_row: row as u64, ..mlp.mode() };
    junctions[l].draw(&mode.step_key(l)?, row as u64, rows)?;
    mode.key(l)
}
