//! Two vectors as one of twice the lanes: every verb is done on both.
//!
//! An activation function is one long chain of operations, and the CPU's schedulers are too small to
//! find the next vector's chain behind it. Compiled for `Twice`, two chains run side by side,
//! instruction for instruction.

use super::{Dispatch, F32Lanes, I32Lanes, Isa, Kernel, MaskLanes, TileKernel, TileSize, U64Lanes};

/// An instruction set whose vectors are two of `I`'s.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Twice<I>(pub(crate) I);

/// Verbs on the first and the second of each argument.
macro_rules! both {
    ($(fn $name:ident $(<const $n:ident: i32>)? ($($arg:ident: $ty:ident),*) -> $ret:ident;)*) => {$(
        #[inline(always)]
        fn $name $(<const $n: i32>)? (self, $($arg: Self::$ty),*) -> Self::$ret {
            [self.0.$name $(::<$n>)? ($($arg[0]),*), self.0.$name $(::<$n>)? ($($arg[1]),*)]
        }
    )*};
}

impl<I: Isa> Dispatch for Twice<I> {
    #[inline(always)]
    fn vectorize<K: Kernel>(self, kernel: K) -> K::Output {
        self.0.vectorize(kernel)
    }
}

impl<I: Isa> TileSize for Twice<I> {
    const MR: usize = I::MR;
    const NV: usize = I::NV;

    #[inline(always)]
    fn tile<K: TileKernel>(self, kernel: K) -> K::Output {
        self.0.tile(kernel)
    }
}

impl<I: Isa> MaskLanes for Twice<I> {
    const LANES: usize = 2 * I::LANES;

    type Mask = [I::Mask; 2];
    type Word = I::Word;

    #[inline(always)]
    fn word(self, bits: u32) -> I::Word {
        self.0.word(bits)
    }
    #[inline(always)]
    fn lanes(self, word: I::Word, at: usize) -> Self::Mask {
        [self.0.lanes(word, at), self.0.lanes(word, at + I::LANES)]
    }
}

impl<I: Isa> F32Lanes for Twice<I> {
    type F32 = [I::F32; 2];

    #[inline(always)]
    fn splat(self, x: f32) -> Self::F32 {
        [self.0.splat(x); 2]
    }
    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> Self::F32 {
        // SAFETY: the caller's promise, for each half.
        unsafe { [self.0.load(p), self.0.load(p.add(I::LANES))] }
    }
    #[inline(always)]
    unsafe fn load_first(self, p: *const f32, n: usize) -> Self::F32 {
        let zero = self.0.splat(0.0);
        // SAFETY: the caller's promise; no half accesses a lane from `n` on.
        unsafe {
            match n.checked_sub(I::LANES) {
                None => [self.0.load_first(p, n), zero],
                Some(0) => [self.0.load(p), zero],
                Some(rest) => [self.0.load(p), self.0.load_first(p.add(I::LANES), rest)],
            }
        }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32, v: Self::F32) {
        // SAFETY: the caller's promise, for each half.
        unsafe {
            self.0.store(p, v[0]);
            self.0.store(p.add(I::LANES), v[1]);
        }
    }
    #[inline(always)]
    unsafe fn store_first(self, p: *mut f32, n: usize, v: Self::F32) {
        // SAFETY: the caller's promise; no half accesses a lane from `n` on.
        unsafe {
            match n.checked_sub(I::LANES) {
                None => self.0.store_first(p, n, v[0]),
                Some(rest) => {
                    self.0.store(p, v[0]);
                    self.0.store_first(p.add(I::LANES), rest, v[1]);
                }
            }
        }
    }
    #[inline(always)]
    unsafe fn stream(self, p: *mut f32, v: Self::F32) {
        // SAFETY: the caller's promise; half a vector is aligned to its size where the whole is.
        unsafe {
            self.0.stream(p, v[0]);
            self.0.stream(p.add(I::LANES), v[1]);
        }
    }
    #[inline(always)]
    fn fence(self) {
        self.0.fence();
    }
    #[inline(always)]
    fn prefetch(self, p: *const f32) {
        self.0.prefetch(p);
    }

    both! {
        fn add(a: F32, b: F32) -> F32;
        fn sub(a: F32, b: F32) -> F32;
        fn mul(a: F32, b: F32) -> F32;
        fn div(a: F32, b: F32) -> F32;
        fn sqrt(a: F32) -> F32;
        fn mul_add(a: F32, b: F32, c: F32) -> F32;
        fn neg_mul_add(a: F32, b: F32, c: F32) -> F32;
        fn abs(a: F32) -> F32;
        fn with_sign_of(a: F32, b: F32) -> F32;
        fn lt(a: F32, b: F32) -> Mask;
        fn le(a: F32, b: F32) -> Mask;
        fn select(m: Mask, a: F32, b: F32) -> F32;
        fn min(a: F32, b: F32) -> F32;
        fn max(a: F32, b: F32) -> F32;
        fn keep(m: Mask, a: F32) -> F32;
        fn zero_where(m: Mask, a: F32) -> F32;
    }
}

impl<I: Isa> I32Lanes for Twice<I> {
    type I32 = [I::I32; 2];

    #[inline(always)]
    fn permute(self, a: Self::F32, index: Self::I32) -> Self::F32 {
        let isa = self.0;
        index.map(|index| {
            let above = isa.sub_i32(index, isa.splat_i32(I::LANES as i32));
            let [low, high] = [isa.permute(a[0], index), isa.permute(a[1], above)];
            isa.select(isa.negative(above), low, high)
        })
    }
    #[inline(always)]
    fn splat_i32(self, x: i32) -> Self::I32 {
        [self.0.splat_i32(x); 2]
    }

    both! {
        fn as_bits(a: F32) -> I32;
        fn as_float(a: I32) -> F32;
        fn to_float(a: I32) -> F32;
        fn negative(a: I32) -> Mask;
        fn add_i32(a: I32, b: I32) -> I32;
        fn sub_i32(a: I32, b: I32) -> I32;
        fn and_i32(a: I32, b: I32) -> I32;
        fn shl_i32<const N: i32>(a: I32) -> I32;
    }
}

impl<I: Isa> U64Lanes for Twice<I> {
    const WIDE: usize = 2 * I::WIDE;

    type U64 = [I::U64; 2];

    #[inline(always)]
    fn splat_u64(self, x: u64) -> Self::U64 {
        [self.0.splat_u64(x); 2]
    }
    #[inline(always)]
    unsafe fn load_u64(self, p: *const u64) -> Self::U64 {
        // SAFETY: the caller's promise, for each half.
        unsafe { [self.0.load_u64(p), self.0.load_u64(p.add(I::WIDE))] }
    }
    #[inline(always)]
    fn iota_u64(self, first: u64) -> Self::U64 {
        [self.0.iota_u64(first), self.0.iota_u64(first.wrapping_add(I::WIDE as u64))]
    }
    #[inline(always)]
    fn is_zero(self, a: Self::U64) -> bool {
        self.0.is_zero(self.0.or_u64(a[0], a[1]))
    }
    #[inline(always)]
    unsafe fn store_zipped(self, p: *mut u32, a: Self::U64, b: Self::U64) {
        // SAFETY: the caller's promise, for each half.
        unsafe {
            self.0.store_zipped(p, a[0], b[0]);
            self.0.store_zipped(p.add(4 * I::WIDE), a[1], b[1]);
        }
    }

    both! {
        fn add_u64(a: U64, b: U64) -> U64;
        fn mul_low(a: U64, b: U64) -> U64;
        fn xor_u64(a: U64, b: U64) -> U64;
        fn and_u64(a: U64, b: U64) -> U64;
        fn or_u64(a: U64, b: U64) -> U64;
        fn and_not_u64(a: U64, b: U64) -> U64;
        fn high(a: U64) -> U64;
        fn pair(low: U64, high: U64) -> U64;
    }
}
