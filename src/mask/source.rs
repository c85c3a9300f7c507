//! Where the mask of a pass comes from, and where it goes.

use super::bits::Bits;
use super::keyed::KeyedDropout;
use super::stored::Mask;
use crate::error::Result;

/// Where the mask of a pass comes from, forward or backward, and whether it is stored on the way.
///
/// Functions take it as `impl Into<MaskSource>`, so that the argument is written
///
/// | | |
/// |---|---|
/// | `MaskSource::Key` | the mask is made from the key, and forgotten |
/// | `&mut mask`, or an `Option` of it | it is made from the key, and stored |
/// | `&mask`, or an `Option` of it | it is given: the mask decides, and the dropout says only how to scale |
///
/// An `Option` that is `None` is `MaskSource::Key`.
#[derive(Debug, Default)]
#[non_exhaustive]
pub enum MaskSource<'a> {
    /// The mask is made from the key, and forgotten.
    #[default]
    Key,
    /// The mask is made from the key, and stored here.
    Store(&'a mut Mask),
    /// The mask is this one; the key and the threshold of the dropout are not looked at.
    Given(&'a Mask),
}

impl<'a> From<&'a mut Mask> for MaskSource<'a> {
    fn from(mask: &'a mut Mask) -> Self {
        MaskSource::Store(mask)
    }
}

impl<'a> From<&'a Mask> for MaskSource<'a> {
    fn from(mask: &'a Mask) -> Self {
        MaskSource::Given(mask)
    }
}

impl<'a> From<Option<&'a mut Mask>> for MaskSource<'a> {
    fn from(mask: Option<&'a mut Mask>) -> Self {
        mask.map_or(MaskSource::Key, MaskSource::Store)
    }
}

impl<'a> From<Option<&'a Mask>> for MaskSource<'a> {
    fn from(mask: Option<&'a Mask>) -> Self {
        mask.map_or(MaskSource::Key, MaskSource::Given)
    }
}

impl MaskSource<'_> {
    /// `Ok` when a mask that is stored or given has the shape of the matrix, given as name, rows and
    /// columns.
    pub(crate) fn check(&self, matrix: (&'static str, usize, usize)) -> Result<()> {
        match self {
            MaskSource::Key => Ok(()),
            MaskSource::Store(mask) => mask.check(matrix),
            MaskSource::Given(mask) => mask.check(matrix),
        }
    }

    /// The bits of the operation; a mask that is there has its shape.
    pub(crate) fn bits(self, dropout: &KeyedDropout) -> Bits {
        match self {
            MaskSource::Key => Bits::generate(dropout, None),
            MaskSource::Store(mask) => Bits::generate(dropout, Some(mask)),
            MaskSource::Given(mask) => Bits::stored(mask),
        }
    }
}
