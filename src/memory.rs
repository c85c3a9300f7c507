//! Memory whose size the caller chooses: where it cannot be had, an error.

use crate::error::{Error, Result};

/// Room for `len` elements in all, of which `vec` may have some.
pub(crate) fn reserve<T>(vec: &mut Vec<T>, len: usize) -> Result<()> {
    let more = len.saturating_sub(vec.len());
    vec.try_reserve_exact(more)
        .map_err(|_| Error::Memory { bytes: len.saturating_mul(size_of::<T>()) })
}

/// `len` times the default.
pub(crate) fn zeros<T: Clone + Default>(len: usize) -> Result<Vec<T>> {
    let mut vec = Vec::new();
    resize(&mut vec, len)?;
    Ok(vec)
}

/// The same elements, as far as there are `len`, then the default; unchanged where memory is short.
pub(crate) fn resize<T: Clone + Default>(vec: &mut Vec<T>, len: usize) -> Result<()> {
    reserve(vec, len)?;
    vec.resize(len, T::default());
    Ok(())
}

/// The items, of which there are `len`.
pub(crate) fn collect<T>(len: usize, items: impl IntoIterator<Item = T>) -> Result<Vec<T>> {
    let mut vec = Vec::new();
    reserve(&mut vec, len)?;
    vec.extend(items);
    Ok(vec)
}
