//! The noise between two layers of a network, step by step.

use super::room;
use super::spec::{Granularity, MlpSpec, Noise, StepRate};
use crate::activation::Activation;
use crate::buffers::AlignedBuffer;
use crate::elementwise::{
    GaussianDropout, dropout_forward, gaussian_dropout_backward, gaussian_dropout_forward,
    layer_gradient,
};
use crate::error::{Error, Result};
use crate::layer::{BlockShape, KeptBlocks, KeptUnits, Side, gather_units};
use crate::mask::{Dropout, KeyedDropout, MaskKey, MaskSource, Scaling};
use crate::saved::Saved;
use crate::view::{InOut, MatMut, MatRef};

/// The noise before the first layer (junction 0) or after a hidden one.
#[derive(Clone, Debug)]
pub(super) struct Junction {
    first: bool,
    /// Whether the layer before adds its input to what is dropped.
    adds_residual: bool,
    units: usize,
    /// The rate that schedules lead to.
    rate: f64,
    schedule: StepRate,
    scaling: Scaling,
    /// The noise of the step that was drawn last.
    noise: Drawn,
    /// The share that is kept, for inference.
    keep: f64,
}

#[derive(Clone, Debug)]
enum Drawn {
    Elements(Dropout),
    /// The kept units, and how they are selected.
    Units(KeptUnits, Granularity),
    Blocks(KeptBlocks),
    Gaussian(GaussianDropout),
}

impl Junction {
    /// Junction `l` of a network that has it.
    pub(super) fn new(spec: &MlpSpec, l: usize) -> Result<Self> {
        let schedule = if l == 0 { spec.input_schedule } else { spec.hidden_schedule };
        let rate = spec.rate_of(l);
        let (units, scaling) = (spec.sizes[l], spec.scaling);
        let first_rate = schedule.rate_at(rate, &MaskKey::FIRST)?;
        let dropout = Dropout::with_scaling(schedule.at_inference(rate), scaling)?;
        let granularity = spec.granularity.get(l).copied().unwrap_or_default();
        let mut keep = dropout.keep();
        let noise = match (spec.noise.get(l).copied().unwrap_or_default(), granularity) {
            (Noise::Dropout, Granularity::Element) => Drawn::Elements(dropout),
            (Noise::Dropout, Granularity::Block { rows, units: of_block }) => {
                let shape = BlockShape::new(rows, of_block)?;
                let mut kept = KeptBlocks::empty(units, shape)?;
                // The share of the kept blocks is known before a step.
                kept.redraw(0, &dropout.with_key(MaskKey::FIRST))?;
                keep = kept.keep();
                Drawn::Blocks(kept)
            }
            (Noise::Dropout, _) => {
                let mut kept = KeptUnits::all(units)?;
                if granularity == Granularity::UnitExact {
                    // The share of the kept units is known before a step.
                    kept.redraw_exact(&dropout.with_key(MaskKey::FIRST))?;
                    keep = kept.keep();
                }
                Drawn::Units(kept, granularity)
            }
            (Noise::Gaussian, Granularity::Element) => {
                keep = 1.0;
                // An error now, where the first step would have it.
                GaussianDropout::new(first_rate).map(drop)?;
                Drawn::Gaussian(GaussianDropout::new(rate)?)
            }
            (Noise::Gaussian, _) => return Err(Error::NoiseOfUnits { position: l }),
        };
        let adds_residual = l > 0 && spec.is_residual(l - 1);
        Ok(Self { first: l == 0, adds_residual, units, rate, schedule, scaling, noise, keep })
    }

    /// Sets the rate of the step with this key, and selects its units, or its blocks for `rows` rows of
    /// the mini-batch from row `first_row` on.
    pub(super) fn draw(&mut self, key: &MaskKey, first_row: u64, rows: usize) -> Result<()> {
        let rate = self.schedule.rate_at(self.rate, key)?;
        let dropout = Dropout::with_scaling(rate, self.scaling)?;
        match &mut self.noise {
            Drawn::Elements(drawn) => *drawn = dropout,
            Drawn::Units(kept, Granularity::UnitExact) => {
                kept.redraw_exact(&dropout.with_key(*key))?
            }
            Drawn::Units(kept, _) => kept.redraw_bernoulli(&dropout.with_key(*key))?,
            Drawn::Blocks(kept) => {
                kept.redraw(rows, &dropout.with_key(key.with_origin(first_row, 0)))?;
            }
            Drawn::Gaussian(drawn) => *drawn = GaussianDropout::new(rate)?,
        }
        Ok(())
    }

    /// The share that is kept, by which weights are scaled at inference.
    pub(super) fn keep(&self) -> f64 {
        self.keep
    }

    /// Whether there is noise in any step.
    pub(super) fn may_change(&self) -> bool {
        self.schedule.most(self.rate) > 0.0
    }

    /// Whether the layer before applies the noise, to what it adds to a residual.
    pub(super) fn is_in_layer(&self) -> bool {
        matches!(self.noise, Drawn::Elements(_) | Drawn::Blocks(_))
    }

    /// Whether the next layer is thinned.
    pub(super) fn thins(&self) -> bool {
        matches!(self.noise, Drawn::Units(..))
    }

    /// Whether a step may have the noisy input in a buffer of its own.
    pub(super) fn may_copy(&self) -> bool {
        match &self.noise {
            Drawn::Elements(_) => false,
            Drawn::Units(..) | Drawn::Blocks(_) => self.first,
            Drawn::Gaussian(_) => true,
        }
    }

    /// Columns of the matrix before the noise.
    pub(super) fn width(&self) -> usize {
        match &self.noise {
            Drawn::Units(kept, _) if !self.first => kept.len(),
            _ => self.units,
        }
    }

    /// Makes the copy of `x` that the next layer reads, if it reads one.
    pub(super) fn apply(
        &self,
        x: MatRef<'_>,
        key: &MaskKey,
        copy: &mut AlignedBuffer,
    ) -> Result<()> {
        match &self.noise {
            Drawn::Units(kept, _) if self.first => {
                gather_units(x, kept, room(copy, x.rows(), kept.len())?)
            }
            Drawn::Blocks(kept) if self.first => {
                through_blocks((x, room(copy, x.rows(), x.cols())?), kept)
            }
            Drawn::Gaussian(noise) if noise.sigma() > 0.0 => gaussian_dropout_forward(
                (x, room(copy, x.rows(), x.cols())?),
                &noise.with_key(*key),
            ),
            _ => Ok(()),
        }
    }

    /// What the next layer reads: `x`, or the copy that [`Junction::apply`] made of it.
    pub(super) fn input<'a>(&self, x: MatRef<'a>, copy: &'a [f32]) -> Result<MatRef<'a>> {
        match &self.noise {
            Drawn::Units(kept, _) if self.first => MatRef::new(copy, x.rows(), kept.len()),
            Drawn::Blocks(_) if self.first => MatRef::new(copy, x.rows(), x.cols()),
            Drawn::Gaussian(noise) if noise.sigma() > 0.0 => MatRef::new(copy, x.rows(), x.cols()),
            _ => Ok(x),
        }
    }

    /// All of the noise on a matrix `x` of all units, whoever applies it in a step: y has the units that
    /// are kept.
    pub(super) fn forward(&self, x: MatRef<'_>, y: MatMut<'_>, key: &MaskKey) -> Result<()> {
        match &self.noise {
            Drawn::Elements(dropout) => {
                dropout_forward((x, y), &dropout.with_key(*key), MaskSource::Key)
            }
            Drawn::Units(kept, _) => gather_units(x, kept, y),
            Drawn::Blocks(kept) => through_blocks((x, y), kept),
            Drawn::Gaussian(noise) => gaussian_dropout_forward((x, y), &noise.with_key(*key)),
        }
    }

    /// [`Junction::forward`] with a layer's output `y` overwritten, to which the layer adds a residual;
    /// nothing where units are dropped, since a thinned layer has computed only those that are kept.
    pub(super) fn forward_in_place(
        &self,
        mut y: MatMut<'_>,
        residual: Option<MatRef<'_>>,
        key: &MaskKey,
    ) -> Result<()> {
        match &self.noise {
            // It is a part of the layer, to whose kept elements the residual is added.
            Drawn::Elements(dropout) => {
                dropout_forward(y.reborrow(), &dropout.with_key(*key), MaskSource::Key)?;
                add(&mut y, residual);
                Ok(())
            }
            Drawn::Blocks(kept) => {
                through_blocks(y.reborrow(), kept)?;
                add(&mut y, residual);
                Ok(())
            }
            Drawn::Units(..) => Ok(()),
            Drawn::Gaussian(noise) => {
                add(&mut y, residual);
                gaussian_dropout_forward(y, &noise.with_key(*key))
            }
        }
    }

    /// Turns the gradient of what the next layer reads into that of the output before the noise, where
    /// no layer does.
    pub(super) fn backward(&self, dx: MatMut<'_>, key: &MaskKey) -> Result<()> {
        match &self.noise {
            Drawn::Gaussian(noise) => gaussian_dropout_backward(dx, &noise.with_key(*key)),
            _ => Ok(()),
        }
    }

    /// This junction as the side of a layer that applies its dropout.
    pub(super) fn side(&self, key: MaskKey) -> Side<'_> {
        match &self.noise {
            Drawn::Elements(dropout) => Side::Elements(dropout.with_key(key)),
            Drawn::Units(kept, _) => Side::Units(kept),
            Drawn::Blocks(kept) => Side::Blocks(kept),
            Drawn::Gaussian(_) => Side::Whole,
        }
    }

    /// This junction as the side of the layer after it, which finds its dropout applied. Where the layer
    /// before adds a residual, nothing is 0 that is dropped.
    pub(super) fn side_after(&self) -> Side<'_> {
        match &self.noise {
            Drawn::Units(kept, _) => Side::Units(kept),
            Drawn::Blocks(kept) if !self.adds_residual => Side::Blocks(kept),
            _ => Side::Whole,
        }
    }
    /// The kept units, where matrices have these only.
    pub(super) fn thinned_side(&self) -> Side<'_> {
        match &self.noise {
            Drawn::Units(kept, _) => Side::Units(kept),
            _ => Side::Whole,
        }
    }
}

/// `y = keep ? x · scale : 0`.
fn through_blocks<'a>(xy: impl Into<InOut<'a>>, kept: &KeptBlocks) -> Result<()> {
    let bits = MaskSource::Given(kept.mask()).bits(&KeyedDropout::NONE);
    let scales = (kept.scale(), 1.0);
    layer_gradient(Activation::Identity, scales, bits, &Saved::Nothing, xy.into(), None)
}

/// `y = x + y`, where there is an x.
fn add(y: &mut MatMut<'_>, x: Option<MatRef<'_>>) {
    let Some(x) = x else { return };
    for r in 0..y.rows() {
        for c in 0..y.cols() {
            let value = x.at(r, c) + y.as_ref().at(r, c);
            y.put(r, c, value);
        }
    }
}
