//! A square of 32 x 32 bits.

/// Exchanges bit `i` of word `k` with bit `k` of word `i`: quarters of the square off the diagonal
/// change places, then quarters of the quarters, down to single bits.
#[inline(always)]
pub(super) fn transpose(square: &mut [u32; 32]) {
    let mut low = 0x0000_ffff;
    for half in [16, 8, 4, 2, 1] {
        for k in (0..32).filter(|k| k & half == 0) {
            let swapped = (square[k] >> half ^ square[k + half]) & low;
            square[k] ^= swapped << half;
            square[k + half] ^= swapped;
        }
        low ^= low << (half / 2);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_change_places() {
        let word = |k: usize| (k as u32 + 1).wrapping_mul(0x9e37_79b9);
        let mut square = std::array::from_fn(word);
        transpose(&mut square);
        for (i, bits) in square.into_iter().enumerate() {
            for k in 0..32 {
                assert_eq!(bits >> k & 1, word(k) >> i & 1, "{i} {k}");
            }
        }
    }
}
