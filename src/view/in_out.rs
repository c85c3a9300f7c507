//! The input and the output of an element-wise pass: two matrices, or one.

use super::{MatMut, MatRef, Source, Target};
use crate::error::{Result, check_shape};

/// The input and the output of an element-wise pass: two matrices, or one that is overwritten.
///
/// Functions take it as `impl Into<InOut>`, so that the argument is written `(x, y)` or `x`, with
/// views or, for one row, with slices:
///
/// ```
/// # use fused_dropout::{InOut, MatMut};
/// let (x, mut y) = ([1.0, 2.0], [0.0; 2]);
/// let separate = InOut::from((&x[..], &mut y[..]));
/// assert_eq!((separate.rows(), separate.cols()), (1, 2));
/// let in_place = InOut::from(MatMut::row_vector(&mut y));
/// assert_eq!((in_place.rows(), in_place.cols()), (1, 2));
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum InOut<'a, T = f32> {
    /// Read from one matrix, written to another.
    Separate(MatRef<'a, T>, MatMut<'a, T>),
    /// Read, and overwritten by the result.
    InPlace(MatMut<'a, T>),
}

impl<'a, T> From<(MatRef<'a, T>, MatMut<'a, T>)> for InOut<'a, T> {
    fn from((input, output): (MatRef<'a, T>, MatMut<'a, T>)) -> Self {
        InOut::Separate(input, output)
    }
}

impl<'a, T> From<MatMut<'a, T>> for InOut<'a, T> {
    fn from(matrix: MatMut<'a, T>) -> Self {
        InOut::InPlace(matrix)
    }
}

impl<'a, T> From<(&'a [T], &'a mut [T])> for InOut<'a, T> {
    fn from((input, output): (&'a [T], &'a mut [T])) -> Self {
        InOut::Separate(MatRef::row_vector(input), MatMut::row_vector(output))
    }
}

impl<'a, T> From<&'a mut [T]> for InOut<'a, T> {
    fn from(row: &'a mut [T]) -> Self {
        InOut::InPlace(MatMut::row_vector(row))
    }
}

impl<T> InOut<'_, T> {
    /// Number of rows of the input.
    pub fn rows(&self) -> usize {
        match self {
            InOut::Separate(input, _) => input.rows(),
            InOut::InPlace(matrix) => matrix.rows(),
        }
    }

    /// Number of columns of the input.
    pub fn cols(&self) -> usize {
        match self {
            InOut::Separate(input, _) => input.cols(),
            InOut::InPlace(matrix) => matrix.cols(),
        }
    }

    /// Rows and columns, if input and output, which are called this, have the same shape.
    pub(crate) fn check(
        &self,
        input: &'static str,
        output: &'static str,
    ) -> Result<(usize, usize)> {
        if let InOut::Separate(from, to) = self {
            check_shape(from.named(input), to.named(output))?;
        }
        Ok((self.rows(), self.cols()))
    }

    /// Where the elements are read and written; the same place for an operation in place.
    pub(crate) fn pointers(&mut self) -> (Source<T>, Target<T>)
    where
        T: Copy,
    {
        match self {
            InOut::Separate(input, output) => (input.source(), output.target()),
            InOut::InPlace(matrix) => {
                let target = matrix.target();
                (target.source(), target)
            }
        }
    }
}
