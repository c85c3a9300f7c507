//! Random choices of an exact number, and random orders: xoshiro256++ started from the contract's
//! blocks for selections. The procedures are at [`KeptUnits::exact`](super::KeptUnits::exact).

use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};

use crate::mask::{Dropout, MaskKey, Scaling};
use crate::philox::philox4x32_10;

/// `floor((T · n + 2^31) / 2^32)`: how many of `n` an exact selection keeps, halves up.
pub(super) fn rounded_share(dropout: &Dropout, n: usize) -> usize {
    // At most `n`, since T is at most 2^32.
    ((u128::from(dropout.threshold()) * n as u128 + (1 << 31)) >> 32) as usize
}

/// The factor of what an exact selection of `n` keeps, what undoes it, and the share that is kept.
pub(super) fn exact_scales(dropout: &Dropout, n: usize) -> (f64, f64, f64) {
    let count = rounded_share(dropout, n);
    let keep = if n == 0 { 1.0 } else { count as f64 / n as f64 };
    match (dropout.scaling(), count) {
        (Scaling::Classical, _) => (1.0, 1.0, keep),
        (Scaling::Inverted, 0) => (0.0, 0.0, keep),
        (Scaling::Inverted, _) => (n as f64 / count as f64, keep, keep),
    }
}

/// The same where each is kept with the same probability.
pub(super) fn bernoulli_scales(dropout: &Dropout) -> (f64, f64, f64) {
    (dropout.scale_f64(), dropout.unscale(), dropout.keep())
}

/// Leaves `count` of the list, chosen at random, ascending: the choice of row `row`.
pub(super) fn select(list: &mut Vec<u32>, count: usize, key: &MaskKey, row: u32) {
    shuffle_first(list, count, &mut generator(key, row, 0));
    list.truncate(count);
    list.sort_unstable();
}

/// Brings `count` of the list, chosen at random, to its front, in random order.
pub(super) fn shuffle_first(list: &mut [u32], count: usize, random: &mut Xoshiro256PlusPlus) {
    for i in 0..count {
        let other = i + below(random, (list.len() - i) as u64) as usize;
        list.swap(i, other);
    }
}

/// The generator seeded by two Philox blocks of the key's domain for selections: those of `row` with
/// numbers `first` and `first + 1`.
pub(super) fn generator(key: &MaskKey, row: u32, first: u32) -> Xoshiro256PlusPlus {
    let mut seed = [0; 32];
    for (block, bytes) in (first..).zip(seed.chunks_exact_mut(16)) {
        let (counter, key) = key.selection().counter(row, block, 0);
        for (word, bytes) in philox4x32_10(counter, key).iter().zip(bytes.chunks_exact_mut(4)) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
    }
    Xoshiro256PlusPlus::from_seed(seed)
}

/// A uniform number below `m`, which is not 0.
pub(super) fn below(random: &mut Xoshiro256PlusPlus, m: u64) -> u64 {
    let refused = m.wrapping_neg() % m;
    loop {
        let product = u128::from(random.next_u64()) * u128::from(m);
        if product as u64 >= refused {
            return (product >> 64) as u64;
        }
    }
}
