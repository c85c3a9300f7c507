//! Philox4x32-10 (Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3",
//! SC 2011): one block in scalar arithmetic, and one block a lane for the masks.
//!
//! A block is a function of a counter (four words) and a key (two words); nothing is carried from
//! one block to the next, which is what makes masks addressable.

use crate::isa::Isa;

const MUL_0: u32 = 0xd251_1f53;
const MUL_1: u32 = 0xcd9e_8d57;
const WEYL_0: u32 = 0x9e37_79b9;
const WEYL_1: u32 = 0xbb67_ae85;
const ROUNDS: usize = 10;

/// One block of Philox4x32-10.
///
/// ```
/// let zeros = fused_dropout::philox::philox4x32_10([0; 4], [0; 2]);
/// assert_eq!(zeros, [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8]);
/// ```
pub fn philox4x32_10(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    let [mut c0, mut c1, mut c2, mut c3] = counter;
    for [k0, k1] in round_keys(key) {
        let p0 = u64::from(MUL_0) * u64::from(c0);
        let p1 = u64::from(MUL_1) * u64::from(c2);
        (c0, c1, c2, c3) =
            ((p1 >> 32) as u32 ^ c1 ^ k0, p1 as u32, (p0 >> 32) as u32 ^ c3 ^ k1, p0 as u32);
    }
    [c0, c1, c2, c3]
}

/// The keys of the ten rounds.
#[inline(always)]
fn round_keys(key: [u32; 2]) -> [[u32; 2]; ROUNDS] {
    let mut keys = [key; ROUNDS];
    for i in 1..ROUNDS {
        keys[i] = [keys[i - 1][0].wrapping_add(WEYL_0), keys[i - 1][1].wrapping_add(WEYL_1)];
    }
    keys
}

/// Blocks that differ in the first two words of their counters from lane to lane, and in the low
/// bits of the last word from plane to plane.
///
/// A lane has 64 bits: the counter word in the low half, and in the high half whatever the
/// multiplication left there. `mul_low` reads low halves only, so the rest is never cleared.
pub(crate) struct LaneBlocks<I: Isa> {
    keys: [[I::U64; 2]; ROUNDS],
    multipliers: [I::U64; 2],
    /// The last word of the counters, its low bits zero, with the first round's second key.
    last: I::U64,
    /// `MUL_1` times the third word: its low half with the second round's first key, and its high
    /// half with the first round's.
    step_low: I::U64,
    step_high: I::U64,
}

/// What all planes of one vector of blocks have in common after three rounds.
///
/// Only the last counter word changes from plane to plane. The first round does not multiply it,
/// the second multiplies it once, the third passes on one factor that it has not reached: four of
/// the first six multiplications are the same for all planes.
#[derive(Clone, Copy)]
pub(crate) struct SharedRounds<I: Isa> {
    first: I::U64,
    third_0: I::U64,
    third_1: I::U64,
    third_2: I::U64,
}

impl<I: Isa> LaneBlocks<I> {
    /// For counters `[_, _, third, last | plane]`.
    #[inline(always)]
    pub(crate) fn new(isa: I, key: [u32; 2], third: u32, last: u32) -> Self {
        let keys = round_keys(key);
        let mut lanes = [[isa.splat_u64(0); 2]; ROUNDS];
        for (lane, key) in lanes.iter_mut().zip(keys) {
            *lane = [isa.splat_u64(key[0].into()), isa.splat_u64(key[1].into())];
        }
        let step = u64::from(MUL_1) * u64::from(third);
        Self {
            keys: lanes,
            multipliers: [isa.splat_u64(MUL_0.into()), isa.splat_u64(MUL_1.into())],
            last: isa.splat_u64((last ^ keys[0][1]).into()),
            step_low: isa.splat_u64(u64::from(step as u32 ^ keys[1][0])),
            step_high: isa.splat_u64((step >> 32) ^ u64::from(keys[0][0])),
        }
    }

    /// The common part for counters that start with `c0` and `c1`.
    #[inline(always)]
    pub(crate) fn share(&self, isa: I, c0: I::U64, c1: I::U64) -> SharedRounds<I> {
        let [m0, m1] = self.multipliers;
        // Round 1.
        let p0 = isa.mul_low(m0, c0);
        let first = isa.xor_u64(isa.high(p0), self.last);
        let n0 = isa.xor_u64(self.step_high, c1);
        // Round 2, the product of the first word.
        let q0 = isa.mul_low(m0, n0);
        let n2 = isa.xor_u64(isa.xor_u64(isa.high(q0), p0), self.keys[1][1]);
        // Round 3, the product of the third word.
        let r1 = isa.mul_low(m1, n2);
        SharedRounds {
            first,
            third_0: isa.xor_u64(isa.high(r1), self.keys[2][0]),
            third_1: r1,
            third_2: isa.xor_u64(q0, self.keys[2][1]),
        }
    }

    /// The four output words of `N` vectors of blocks for one plane, as words 0 and 1 paired in a
    /// lane, and words 2 and 3. The vectors go through the rounds together, so that one's latency
    /// hides behind the others.
    #[inline(always)]
    pub(crate) fn plane<const N: usize>(
        &self,
        isa: I,
        shared: &[SharedRounds<I>; N],
        plane: u32,
    ) -> [[I::U64; 2]; N] {
        self.planes(isa, shared, &[isa.splat_u64(plane.into()); N])
    }

    /// The same with a plane for each lane of each vector.
    #[inline(always)]
    pub(crate) fn planes<const N: usize>(
        &self,
        isa: I,
        shared: &[SharedRounds<I>; N],
        planes: &[I::U64; N],
    ) -> [[I::U64; 2]; N] {
        let [m0, m1] = self.multipliers;
        let zero = isa.splat_u64(0);
        let mut c = [[zero; 4]; N];
        for ((c, s), &plane) in c.iter_mut().zip(shared).zip(planes) {
            let p1 = isa.mul_low(m1, isa.xor_u64(s.first, plane));
            let p0 = isa.mul_low(m0, isa.xor_u64(isa.high(p1), self.step_low));
            *c = [isa.xor_u64(s.third_0, p1), s.third_1, isa.xor_u64(isa.high(p0), s.third_2), p0];
        }
        // Written out: in a loop, moves between registers cost as much as the rounds.
        self.round(isa, 3, &mut c);
        self.round(isa, 4, &mut c);
        self.round(isa, 5, &mut c);
        self.round(isa, 6, &mut c);
        self.round(isa, 7, &mut c);
        self.round(isa, 8, &mut c);
        self.round(isa, 9, &mut c);
        let mut words = [[zero; 2]; N];
        for (w, c) in words.iter_mut().zip(c) {
            *w = [isa.pair(c[0], c[1]), isa.pair(c[2], c[3])];
        }
        words
    }

    /// Round `i`, counted from 0.
    #[inline(always)]
    fn round<const N: usize>(&self, isa: I, i: usize, c: &mut [[I::U64; 4]; N]) {
        let [m0, m1] = self.multipliers;
        let [k0, k1] = self.keys[i];
        for c in c {
            let p0 = isa.mul_low(m0, c[0]);
            let p1 = isa.mul_low(m1, c[2]);
            *c = [
                isa.xor_u64(isa.xor_u64(c[1], k0), isa.high(p1)),
                p1,
                isa.xor_u64(isa.xor_u64(c[3], k1), isa.high(p0)),
                p0,
            ];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::philox4x32_10;

    /// Known answers of Random123, the authors' own implementation.
    #[test]
    fn known_answers() {
        let cases = [
            ([0; 4], [0; 2], [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8]),
            ([!0; 4], [!0; 2], [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd]),
            (
                [0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344],
                [0xa4093822, 0x299f31d0],
                [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1],
            ),
        ];
        for (counter, key, answer) in cases {
            assert_eq!(philox4x32_10(counter, key), answer);
        }
    }
}
