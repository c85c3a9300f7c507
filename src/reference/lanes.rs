//! The order of a sum over a row: 16 lanes, then a fixed tree.

use super::Real;

/// What `add` makes of 0 and the columns `0..cols`, column c added to lane c % 16, ascending; then the
/// lanes are added in a fixed tree.
pub(super) fn sum<T: Real>(cols: usize, mut add: impl FnMut(usize, T) -> T) -> T {
    let mut lanes = [T::ZERO; 16];
    for c in 0..cols {
        lanes[c % 16] = add(c, lanes[c % 16]);
    }
    for half in [8, 4, 2, 1] {
        for i in 0..half {
            lanes[i] = lanes[i] + lanes[i + half];
        }
    }
    lanes[0]
}
