//! Which elements of a tensor share a decision.

use super::axes::{AXES, Nest};
use crate::error::{Error, Result, check_equal};

/// A tensor of one to five axes, stored row-major, and the axes along which its elements share one
/// decision (the `noise_shape` of Keras).
///
/// | constructor | tensor | shared | known as |
/// |---|---|---|---|
/// | [`elements`](Self::elements) | any | nothing | dropout (Srivastava et al. 2014) |
/// | [`channels_first`](Self::channels_first) | [batch, channels, space ...] | space | spatial dropout (Tompson et al. 2015), `Dropout1d`, `2d`, `3d` |
/// | [`channels_last`](Self::channels_last) | [batch, space ..., channels] | space | the same |
/// | [`per_sample`](Self::per_sample) | [batch, ...] | all but the batch | stochastic depth per sample, DropPath (Larsson et al. 2017) |
/// | [`whole`](Self::whole) | any | everything | stochastic depth (Huang et al. 2016) |
/// | [`time_steps`](Self::time_steps) | [batch, time, features ...] | time | variational dropout (Gal and Ghahramani 2016) |
/// | [`new`](Self::new), [`from_noise_shape`](Self::from_noise_shape) | any | any axes | |
///
/// # The mask
///
/// The decisions are those of an element mask of the *reduced* tensor, in which each shared axis
/// has size 1, seen as a matrix: the row is the index along the first axis, the column is the flat
/// index along all others. (A tensor of one axis is one row.) An axis of size 0 stays 0: a tensor
/// without elements has a mask without elements. So the element at indices (i0, i1, ...) has the
/// bit of
///
/// ```text
/// row    = j0
/// column = (j1 · r2 + j2) · r3 + j3 ...      j = 0 and r = 1 where the axis is shared,
///                                            else j = i and r = the axis' size
/// ```
///
/// counted from the key's origin. A shard of the batch passes its first row as `row0`; a shard of
/// the second axis passes `col0 = i1 · r2 · r3 ...`. Where no axis is shared this is the mask of
/// [`dropout_forward`](crate::elementwise::dropout_forward) on the matrix [first axis, all others].
///
/// ```
/// # use fused_dropout::{Error, mask::BroadcastShape};
/// let shape = BroadcastShape::channels_first(&[64, 256, 28, 28])?;
/// assert_eq!(shape, BroadcastShape::from_noise_shape(&[64, 256, 28, 28], &[64, 256, 1, 1])?);
/// assert_eq!(shape.mask_shape(), (64, 256));
/// assert_eq!(shape.mask_index(&[3, 7, 20, 4]), Some((3, 7)));
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[must_use]
pub struct BroadcastShape {
    dims: [usize; AXES],
    shared: [bool; AXES],
    axes: usize,
    len: usize,
    mask_cols: usize,
}

impl BroadcastShape {
    /// A tensor whose elements share a decision along the axes that are marked.
    ///
    /// # Errors
    ///
    /// When there are no axes or more than five, as many marks as axes are not there, or the number
    /// of elements overflows.
    pub fn new(dims: &[usize], shared: &[bool]) -> Result<Self> {
        check_axes(dims, 1, "from 1 to 5")?;
        check_equal("axes that are marked", shared.len(), "axes of the tensor", dims.len())?;
        let mut shape =
            Self { dims: [1; AXES], shared: [true; AXES], axes: dims.len(), len: 0, mask_cols: 1 };
        shape.dims[..dims.len()].copy_from_slice(dims);
        shape.shared[..shared.len()].copy_from_slice(shared);
        shape.len = product(&shape.dims)?;
        let reduced = shape.reduced();
        shape.mask_cols = product(&reduced[if shape.axes == 1 { 0 } else { 1 }..])?;
        Ok(shape)
    }

    /// A tensor whose elements share a decision along the axes where `noise` is 1, as Keras and
    /// TensorFlow say it.
    ///
    /// # Errors
    ///
    /// As for [`new`](Self::new), and when another size in `noise` is not the tensor's.
    pub fn from_noise_shape(dims: &[usize], noise: &[usize]) -> Result<Self> {
        check_axes(dims, 1, "from 1 to 5")?;
        check_equal("axes of the noise shape", noise.len(), "axes of the tensor", dims.len())?;
        let mut shared = [false; AXES];
        for (axis, (&noise, &size)) in noise.iter().zip(dims).enumerate() {
            if noise != size && noise != 1 {
                return Err(Error::NoiseShape { axis, noise, size });
            }
            shared[axis] = noise == 1;
        }
        Self::new(dims, &shared[..dims.len()])
    }

    /// One decision for each element.
    ///
    /// # Errors
    ///
    /// As for [`new`](Self::new).
    pub fn elements(dims: &[usize]) -> Result<Self> {
        Self::sharing(dims, 1, |_| false)
    }

    /// One decision for each channel of each example of [batch, channels, space ...].
    ///
    /// # Errors
    ///
    /// As for [`new`](Self::new), and when there is one axis only.
    pub fn channels_first(dims: &[usize]) -> Result<Self> {
        Self::sharing(dims, 2, |axis| axis > 1)
    }

    /// One decision for each channel of each example of [batch, space ..., channels].
    ///
    /// # Errors
    ///
    /// As for [`new`](Self::new), and when there is one axis only.
    pub fn channels_last(dims: &[usize]) -> Result<Self> {
        Self::sharing(dims, 2, |axis| axis > 0 && axis + 1 < dims.len())
    }

    /// One decision for each sample of [batch, ...].
    ///
    /// ```
    /// # use fused_dropout::{Error, mask::BroadcastShape};
    /// let shape = BroadcastShape::per_sample(&[64, 256, 28, 28])?;
    /// assert_eq!(shape.mask_shape(), (64, 1));
    /// assert_eq!(shape.mask_index(&[3, 7, 20, 4]), Some((3, 0)));
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As for [`new`](Self::new).
    pub fn per_sample(dims: &[usize]) -> Result<Self> {
        Self::sharing(dims, 1, |axis| axis > 0)
    }

    /// One decision for all elements.
    ///
    /// # Errors
    ///
    /// As for [`new`](Self::new).
    pub fn whole(dims: &[usize]) -> Result<Self> {
        Self::sharing(dims, 1, |_| true)
    }

    /// One decision for all time steps of each feature of each example of
    /// [batch, time, features ...].
    ///
    /// # Errors
    ///
    /// As for [`new`](Self::new), and when there is one axis only.
    pub fn time_steps(dims: &[usize]) -> Result<Self> {
        Self::sharing(dims, 2, |axis| axis == 1)
    }

    fn sharing(dims: &[usize], least: usize, shared: impl Fn(usize) -> bool) -> Result<Self> {
        check_axes(dims, least, if least == 1 { "from 1 to 5" } else { "from 2 to 5" })?;
        let mut marks = [false; AXES];
        for (axis, mark) in marks.iter_mut().enumerate() {
            *mark = shared(axis);
        }
        Self::new(dims, &marks[..dims.len()])
    }

    /// The sizes of the axes.
    pub fn dims(&self) -> &[usize] {
        &self.dims[..self.axes]
    }

    /// Whether elements share a decision along each axis.
    pub fn shared(&self) -> &[bool] {
        &self.shared[..self.axes]
    }

    /// Number of elements of the tensor.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the tensor has no elements.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Rows and columns of the mask: the reduced tensor as a matrix.
    pub fn mask_shape(&self) -> (usize, usize) {
        let rows = if self.axes == 1 { 1 } else { self.reduced()[0] };
        (rows, self.mask_cols)
    }

    /// The row and column of the mask that decides about the element at these indices, one for each
    /// axis; `None` where there is no such element.
    pub fn mask_index(&self, indices: &[usize]) -> Option<(usize, usize)> {
        let inside =
            indices.len() == self.axes && indices.iter().zip(self.dims()).all(|(i, n)| i < n);
        if !inside {
            return None;
        }
        let (reduced, mut place) = (self.reduced(), [0; 2]);
        for (axis, &i) in indices.iter().enumerate() {
            let at = &mut place[usize::from(axis > 0 || self.axes == 1)];
            *at = *at * reduced[axis] + if self.shared[axis] { 0 } else { i };
        }
        Some((place[0], place[1]))
    }

    /// The sizes with 1 for each shared axis that has an element.
    fn reduced(&self) -> [usize; AXES] {
        let mut reduced = self.dims;
        for (size, shared) in reduced.iter_mut().zip(self.shared) {
            if shared {
                *size = 1.min(*size);
            }
        }
        reduced
    }

    /// The axes as loops, neighbours of one kind joined.
    pub(crate) fn nest(&self) -> Nest {
        Nest::new(&self.dims, &self.shared)
    }
}

fn check_axes(dims: &[usize], least: usize, expected: &'static str) -> Result<()> {
    if (least..=AXES).contains(&dims.len()) {
        return Ok(());
    }
    Err(Error::Parameter { name: "number of axes", value: dims.len() as f64, expected })
}

/// The number of elements, which must be one that memory can hold, as must that of each part of the
/// axes.
fn product(dims: &[usize]) -> Result<usize> {
    dims.iter().try_fold(1usize, |rows, &stride| {
        rows.checked_mul(stride)
            .filter(|n| *n <= isize::MAX as usize / 8)
            .ok_or(Error::Overflow { rows, stride })
    })
}
