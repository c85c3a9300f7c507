//! What one decision of a network's dropout covers, layer by layer.

use crate::error::{Error, Result};
use crate::mask::{Dropout, MaskKey};
use crate::unit::{KeptUnits, Side};

/// What one decision of dropout covers.
///
/// Units are dropped for a whole mini-batch, which is then sent through the thinned network: see
/// [`unit`](mod@crate::unit).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Granularity {
    /// An element: one unit for one example.
    #[default]
    Element,
    /// A unit for the whole mini-batch.
    Unit,
    /// As `Unit`, but the number of kept units is the same in each step: `round(keep · units)`.
    UnitExact,
}

/// The dropout between two layers, before the first or after a hidden one.
#[derive(Clone, Debug)]
pub(super) struct Junction {
    dropout: Dropout,
    /// The units that are kept in this step, and how they are selected; nothing where elements are
    /// dropped.
    kept: Option<(KeptUnits, Granularity)>,
}

impl Junction {
    pub(super) fn new(units: usize, dropout: Dropout, granularity: Granularity) -> Result<Self> {
        let mut kept = None;
        if granularity != Granularity::Element {
            let mut all = KeptUnits::all(units)?;
            if granularity == Granularity::UnitExact {
                // The number of kept units, on which inference may depend, is known before a step.
                all.redraw_exact(&dropout, &MaskKey::FIRST)?;
            }
            kept = Some((all, granularity));
        }
        Ok(Self { dropout, kept })
    }

    /// Selects the units of the mini-batch with this key.
    pub(super) fn draw(&mut self, key: &MaskKey) -> Result<()> {
        match &mut self.kept {
            Some((kept, Granularity::UnitExact)) => kept.redraw_exact(&self.dropout, key),
            Some((kept, _)) => kept.redraw_bernoulli(&self.dropout, key),
            None => Ok(()),
        }
    }

    /// The kept units, where units are dropped.
    pub(super) fn kept(&self) -> Option<&KeptUnits> {
        self.kept.as_ref().map(|(kept, _)| kept)
    }

    /// The share that is kept, by which weights are scaled at inference.
    pub(super) fn keep(&self) -> f64 {
        match &self.kept {
            Some((kept, Granularity::UnitExact)) => kept.keep(),
            _ => self.dropout.keep(),
        }
    }

    /// This junction as the side of a layer that applies its dropout.
    pub(super) fn side(&self, key: MaskKey) -> Side<'_> {
        match &self.kept {
            Some((kept, _)) => Side::Units(kept),
            None => Side::Elements(self.dropout, key),
        }
    }

    /// This junction as the side of the layer after it, which finds its dropout applied.
    pub(super) fn side_after(&self) -> Side<'_> {
        match &self.kept {
            Some((kept, _)) => Side::Units(kept),
            None => Side::WHOLE,
        }
    }
}

/// `Ok` when there are no more granularities than junctions.
pub(super) fn check(granularity: &[Granularity], junctions: usize) -> Result<()> {
    if granularity.len() <= junctions {
        return Ok(());
    }
    Err(Error::Parameter {
        name: "number of granularities",
        value: granularity.len() as f64,
        expected: "at most one for the input and one for each hidden layer",
    })
}
