//! Views of arrays of the crate `ndarray`, and arrays of views, without a copy.
//!
//! | array | strides | as a view |
//! |---|---|---|
//! | standard layout | (columns, 1) | stored by rows |
//! | a part of its rows and columns | (more than columns, 1) | stored by rows, with gaps |
//! | transposed, or of Fortran layout | (1, at least rows) | a view's `t()` |
//! | one row or one column | any that is not negative | either |
//! | without elements | any | stored by rows |
//! | all others: reversed, broadcast, each second column | | [`Error::ArrayStrides`] |

use std::marker::PhantomData;

use ndarray::{ArrayBase, ArrayView2, ArrayViewMut2, Data, DataMut, Ix2, ShapeBuilder};

use super::shape::Shape;
use super::{MatMut, MatRef};
use crate::error::{Error, Result};

/// With the feature `ndarray`. No element is copied.
///
/// The array is stored by rows or by columns, with gaps between them or without.
///
/// ```
/// use fused_dropout::MatRef;
/// use ndarray::{array, s};
///
/// let array = array![[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]];
/// let view = MatRef::try_from(array.slice(s![.., 1..]))?;
/// assert_eq!((view.rows(), view.cols(), view.get(1, 0)), (2, 2, Some(5.0)));
/// assert_eq!(MatRef::try_from(array.t())?.get(2, 1), Some(6.0));
/// assert!(MatRef::try_from(array.slice(s![.., ..;2])).is_err(), "each second column");
/// # Ok::<(), fused_dropout::Error>(())
/// ```
///
/// # Errors
///
/// [`Error::ArrayStrides`] when neither stride is 1, or one is negative, or 0 along more than one
/// element.
impl<'a, T> TryFrom<ArrayView2<'a, T>> for MatRef<'a, T> {
    type Error = Error;

    fn try_from(array: ArrayView2<'a, T>) -> Result<Self> {
        let shape = shape(array.dim(), array.strides())?;
        Ok(Self { ptr: array.as_ptr(), shape, elements: PhantomData })
    }
}

/// With the feature `ndarray`: any array that can be read, as its view.
///
/// ```
/// use fused_dropout::MatRef;
///
/// let array = ndarray::array![[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]];
/// assert_eq!(MatRef::try_from(&array)?.row(1), Some(&[4.0, 5.0, 6.0][..]));
/// # Ok::<(), fused_dropout::Error>(())
/// ```
///
/// # Errors
///
/// As for an `ArrayView2`.
impl<'a, T, S: Data<Elem = T>> TryFrom<&'a ArrayBase<S, Ix2>> for MatRef<'a, T> {
    type Error = Error;

    fn try_from(array: &'a ArrayBase<S, Ix2>) -> Result<Self> {
        array.view().try_into()
    }
}

/// With the feature `ndarray`. What is written is written to the array.
///
/// ```
/// use fused_dropout::MatMut;
/// use ndarray::{Array2, s};
///
/// let mut array = Array2::zeros((2, 3));
/// MatMut::try_from(array.slice_mut(s![.., 1..]))?.set(1, 0, 5.0)?;
/// assert_eq!(array, ndarray::array![[0.0, 0.0, 0.0], [0.0, 5.0, 0.0]]);
/// # Ok::<(), fused_dropout::Error>(())
/// ```
///
/// # Errors
///
/// As for a [`MatRef`] of an `ArrayView2`.
impl<'a, T> TryFrom<ArrayViewMut2<'a, T>> for MatMut<'a, T> {
    type Error = Error;

    fn try_from(mut array: ArrayViewMut2<'a, T>) -> Result<Self> {
        let shape = shape(array.dim(), array.strides())?;
        Ok(Self { ptr: array.as_mut_ptr(), shape, elements: PhantomData })
    }
}

/// With the feature `ndarray`: any array that can be written, as its view.
///
/// ```
/// use fused_dropout::MatMut;
///
/// let mut array = ndarray::array![[1.0, 2.0], [3.0, 4.0]];
/// MatMut::try_from(&mut array)?.t().set(0, 1, 5.0)?;
/// assert_eq!(array, ndarray::array![[1.0, 2.0], [5.0, 4.0]]);
/// # Ok::<(), fused_dropout::Error>(())
/// ```
///
/// # Errors
///
/// As for a [`MatRef`] of an `ArrayView2`.
impl<'a, T, S: DataMut<Elem = T>> TryFrom<&'a mut ArrayBase<S, Ix2>> for MatMut<'a, T> {
    type Error = Error;

    fn try_from(array: &'a mut ArrayBase<S, Ix2>) -> Result<Self> {
        array.view_mut().try_into()
    }
}

/// With the feature `ndarray`. No element is copied.
///
/// ```
/// use fused_dropout::MatRef;
/// use ndarray::{ArrayView2, array};
///
/// let view = MatRef::new(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 2, 3)?;
/// assert_eq!(ArrayView2::try_from(view.t())?, array![[1.0, 4.0], [2.0, 5.0], [3.0, 6.0]]);
/// # Ok::<(), fused_dropout::Error>(())
/// ```
///
/// # Errors
///
/// [`Error::Overflow`] when the matrix has no elements, and rows or columns beyond `isize::MAX`.
impl<'a, T> TryFrom<MatRef<'a, T>> for ArrayView2<'a, T> {
    type Error = Error;

    fn try_from(matrix: MatRef<'a, T>) -> Result<Self> {
        let Shape { rows, cols, row_step, col_step } = matrix.shape;
        if rows == 0 || cols == 0 {
            return ArrayView2::from_shape((rows, cols), &[])
                .map_err(|_| Error::Overflow { rows, stride: cols });
        }
        let shape = (rows, cols).strides((row_step, col_step));
        // SAFETY: the elements of the shape lie in memory that is borrowed for as long, and that is
        // addressed by offsets that are not negative and no overflow.
        Ok(unsafe { ArrayView2::from_shape_ptr(shape, matrix.ptr) })
    }
}

/// With the feature `ndarray`. What is written is written to the matrix.
///
/// ```
/// use fused_dropout::MatMut;
/// use ndarray::ArrayViewMut2;
///
/// let mut data = [1.0, 2.0, 3.0, 4.0];
/// ArrayViewMut2::try_from(MatMut::new(&mut data, 2, 2)?)?.row_mut(1).fill(0.0);
/// assert_eq!(data, [1.0, 2.0, 0.0, 0.0]);
/// # Ok::<(), fused_dropout::Error>(())
/// ```
///
/// # Errors
///
/// As for an `ArrayView2` of a [`MatRef`].
impl<'a, T> TryFrom<MatMut<'a, T>> for ArrayViewMut2<'a, T> {
    type Error = Error;

    fn try_from(matrix: MatMut<'a, T>) -> Result<Self> {
        let Shape { rows, cols, row_step, col_step } = matrix.shape;
        if rows == 0 || cols == 0 {
            return ArrayViewMut2::from_shape((rows, cols), &mut [])
                .map_err(|_| Error::Overflow { rows, stride: cols });
        }
        let shape = (rows, cols).strides((row_step, col_step));
        // SAFETY: as for a `MatRef`, and the borrow is exclusive; no two elements share an address.
        Ok(unsafe { ArrayViewMut2::from_shape_ptr(shape, matrix.ptr) })
    }
}

/// The shape of an array that is one matrix.
fn shape((rows, cols): (usize, usize), strides: &[isize]) -> Result<Shape> {
    let (row_stride, col_stride) = match *strides {
        [row, col] => (row, col),
        _ => unreachable!("an array of two axes has two strides"),
    };
    Shape::with_steps((rows, cols), (row_stride, col_stride)).ok_or(Error::ArrayStrides {
        rows,
        cols,
        row_stride,
        col_stride,
    })
}
