//! Plain baselines: what a careful programmer writes without this crate. Random bits come from a
//! sequential generator, 32 for each element, and are compared with a threshold without a branch.

use fused_dropout::Dropout;
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::Rng;

/// The generator's next bits as two 32-bit numbers.
fn pair(random: &mut Xoshiro256PlusPlus) -> [u64; 2] {
    let bits = random.next_u64();
    [bits & 0xffff_ffff, bits >> 32]
}

/// A packed mask: bit `i` of word `w` for element `32 w + i`.
pub(crate) fn mask(random: &mut Xoshiro256PlusPlus, dropout: &Dropout, words: &mut [u32]) {
    let threshold = dropout.threshold();
    for word in words {
        *word = 0;
        for i in (0..32).step_by(2) {
            let [a, b] = pair(random);
            *word |= u32::from(a < threshold) << i | u32::from(b < threshold) << (i + 1);
        }
    }
}

/// `scale` if `u < threshold`, else 0. The sign of the difference is the mask: of a comparison the
/// compiler makes a branch, which is mispredicted half of the time at rate 0.5.
fn factor(u: u64, threshold: u64, scale: f32) -> f32 {
    let mask = (u.wrapping_sub(threshold) as i64 >> 63) as u32;
    f32::from_bits(scale.to_bits() & mask)
}

/// `scale` where an element is kept, else 0: the mask as factors.
pub(crate) fn factors(random: &mut Xoshiro256PlusPlus, dropout: &Dropout, out: &mut [f32]) {
    let (threshold, scale) = (dropout.threshold(), dropout.scale());
    for out in out.chunks_mut(2) {
        for (out, u) in out.iter_mut().zip(pair(random)) {
            *out = factor(u, threshold, scale);
        }
    }
}

/// `y = keep ? x · scale : 0` (for finite x).
pub(crate) fn dropout(
    random: &mut Xoshiro256PlusPlus,
    dropout: &Dropout,
    x: &[f32],
    y: &mut [f32],
) {
    let (threshold, scale) = (dropout.threshold(), dropout.scale());
    for (x, y) in x.chunks(2).zip(y.chunks_mut(2)) {
        for ((x, y), u) in x.iter().zip(y).zip(pair(random)) {
            *y = x * factor(u, threshold, scale);
        }
    }
}

/// `y = residual + (keep ? relu(x + bias) · scale : 0)`, with rows as long as the bias.
pub(crate) fn bias_relu_dropout_residual(
    random: &mut Xoshiro256PlusPlus,
    dropout: &Dropout,
    (x, bias, residual): (&[f32], &[f32], &[f32]),
    y: &mut [f32],
) {
    let (threshold, scale) = (dropout.threshold(), dropout.scale());
    let cols = bias.len();
    let rows = x.chunks(cols).zip(residual.chunks(cols)).zip(y.chunks_mut(cols));
    for ((x, residual), y) in rows {
        let row = x.chunks(2).zip(residual.chunks(2)).zip(y.chunks_mut(2)).zip(bias.chunks(2));
        for (((x, residual), y), bias) in row {
            let row = x.iter().zip(residual).zip(y).zip(bias);
            for ((((x, residual), y), bias), u) in row.zip(pair(random)) {
                *y = residual + (x + bias).max(0.0) * factor(u, threshold, scale);
            }
        }
    }
}

/// A factor of a product: elements, and the distance from a row and from a column to the next.
pub(crate) type Factor<'a> = (&'a [f32], usize, usize);

/// `c = a · b` with a [m, k], b [k, n] and c [m, n], row after row, by the crate matrixmultiply.
pub(crate) fn product(
    (m, k, n): (usize, usize, usize),
    (a, a_row, a_col): Factor<'_>,
    (b, b_row, b_col): Factor<'_>,
    c: &mut [f32],
) {
    assert!(m > 0 && k > 0 && n > 0 && c.len() >= m * n);
    assert!(a.len() > (m - 1) * a_row + (k - 1) * a_col);
    assert!(b.len() > (k - 1) * b_row + (n - 1) * b_col);
    let [a_row, a_col, b_row, b_col] = [a_row, a_col, b_row, b_col].map(|step| step as isize);
    let (a, b, c) = (a.as_ptr(), b.as_ptr(), c.as_mut_ptr());
    // SAFETY: the assertions say that the first and last element of each matrix, and so all, are
    // inside its slice; `c` is borrowed mutably, so it does not overlap the others.
    unsafe {
        matrixmultiply::sgemm(
            m, k, n, 1.0, a, a_row, a_col, b, b_row, b_col, 0.0, c, n as isize, 1,
        );
    }
}
