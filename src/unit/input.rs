//! Removing columns of a matrix, and bringing them back: unit dropout of a network's input.

use super::KeptUnits;
use crate::Level;
use crate::buffers::{Lease, Slot};
use crate::error::{Result, check_equal, check_shape};
use crate::gather::{Windows, gather};
use crate::view::{MatMut, MatRef};

/// `y = x[:, I] · scale`: the kept columns of a matrix [rows, units], scaled. With it whole features of
/// a network's input are dropped for a mini-batch.
///
/// # Errors
///
/// When shapes disagree.
pub fn gather_units(x: MatRef<'_>, kept: &KeptUnits, mut y: MatMut<'_>) -> Result<()> {
    check_equal("columns of x", x.cols(), "number of units to keep from", kept.units())?;
    check_shape(y.named("y"), ("the kept columns", x.rows(), kept.len()))?;
    let level = Level::current()?;
    let (source, out, shape) = (x.source(), y.target(), (y.rows(), y.cols()));
    if source.col_step == 1 && out.col_step == 1 {
        let mut windows: Lease<Windows> = Slot::Index.take();
        let columns = windows.keep(level, None, kept.list());
        gather(level, source, columns, kept.scale(), out, shape);
        return Ok(());
    }
    for r in 0..x.rows() {
        for (c, unit) in kept.indices().iter().enumerate() {
            let value = x.get(r, *unit as usize).unwrap_or_default();
            y.set(r, c, value * kept.scale());
        }
    }
    Ok(())
}

/// `dx[:, I] = dy · scale`, and +0.0 in all other columns: the gradient through [`gather_units`].
///
/// # Errors
///
/// When shapes disagree.
pub fn scatter_units(dy: MatRef<'_>, kept: &KeptUnits, mut dx: MatMut<'_>) -> Result<()> {
    check_equal("columns of dx", dx.cols(), "number of units to keep from", kept.units())?;
    check_shape(dy.named("dy"), ("the kept columns", dx.rows(), kept.len()))?;
    for r in 0..dx.rows() {
        for c in 0..dx.cols() {
            dx.set(r, c, 0.0);
        }
        for (c, unit) in kept.indices().iter().enumerate() {
            let value = dy.get(r, c).unwrap_or_default();
            dx.set(r, *unit as usize, value * kept.scale());
        }
    }
    Ok(())
}
