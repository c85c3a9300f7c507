//! Buffers that are kept from call to call.

use crate::error::{Error, Result};

/// Room for a matrix in a buffer, which grows to just that size if it is too small; what it held is lost then.
pub(crate) fn room(buffer: &mut Vec<f32>, rows: usize, cols: usize) -> Result<&mut [f32]> {
    let len = rows.checked_mul(cols).filter(|n| *n <= isize::MAX as usize / 4);
    let len = len.ok_or(Error::Overflow { rows, stride: cols })?;
    if buffer.len() < len {
        // Not by `resize` alone: old and new one would exist together, and the new one might be larger.
        *buffer = Vec::new();
        buffer.reserve_exact(len);
        buffer.resize(len, 0.0);
    }
    Ok(&mut buffer[..len])
}
