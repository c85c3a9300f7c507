//! Removing columns of a matrix, and bringing them back: unit dropout of a network's input.

use super::KeptUnits;
use super::product::LayerBuffers;
use crate::Level;
use crate::error::{Result, check_equal, check_shape};
use crate::gather::gather;
use crate::view::{MatMut, MatRef};

/// `y = x[:, I] · scale`: the kept columns of a matrix [rows, units], scaled. With it whole features of
/// a network's input are dropped for a mini-batch.
///
/// ```
/// # use fused_dropout::layer::{KeptUnits, gather_units, scatter_units};
/// # use fused_dropout::{Error, MatMut, MatRef};
/// let kept = KeptUnits::from_indices(3, &[0, 2], 1.5)?;
/// let (mut y, mut dx) = ([0.0; 2], [9.0; 3]);
/// gather_units(MatRef::new(&[1.0, 2.0, 4.0], 1, 3)?, &kept, MatMut::new(&mut y, 1, 2)?)?;
/// assert_eq!(y, [1.5, 6.0]);
/// scatter_units(MatRef::new(&y, 1, 2)?, &kept, MatMut::new(&mut dx, 1, 3)?)?;
/// assert_eq!(dx, [2.25, 0.0, 9.0]);
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
///
/// When shapes disagree.
pub fn gather_units(x: MatRef<'_>, kept: &KeptUnits, mut y: MatMut<'_>) -> Result<()> {
    check_equal("columns of x", x.cols(), "number of units to keep from", kept.units())?;
    check_shape(y.named("y"), ("the kept columns", x.rows(), kept.len()))?;
    let level = Level::current()?;
    if x.rows() == 0 || kept.is_empty() {
        return Ok(());
    }
    let (source, out, shape) = (x.source(), y.target(), (y.rows(), y.cols()));
    if source.col_step == 1 && out.col_step == 1 {
        let mut buffers = LayerBuffers::take();
        let columns = buffers.index.index(level, None, kept.list());
        gather(level, source, columns, kept.scale(), out, shape);
        return Ok(());
    }
    for r in 0..x.rows() {
        for (c, unit) in kept.indices().iter().enumerate() {
            y.put(r, c, x.at(r, *unit as usize) * kept.scale());
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
    if dx.cols() == 0 {
        return Ok(());
    }
    for r in 0..dx.rows() {
        for c in 0..dx.cols() {
            dx.put(r, c, 0.0);
        }
        for (c, unit) in kept.indices().iter().enumerate() {
            dx.put(r, *unit as usize, dy.at(r, c) * kept.scale());
        }
    }
    Ok(())
}
