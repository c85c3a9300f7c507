//! The most multiply-adds that the machine can do: loops that only use registers.

use std::hint::black_box;

use fused_dropout::Level;

/// Turns of a loop: about a millisecond, so that waking the other threads does not show.
const TURNS: usize = 400_000;

/// The floating-point operations of [`fma_loop`] on one thread.
fn flops(level: Level) -> f64 {
    let (lanes, accumulators) = shape(level);
    (2 * TURNS * lanes * accumulators) as f64
}

/// Lanes of a register, and accumulators in flight: at least latency x units, 4 x 2, and as many
/// as let the loop's own instructions pass unseen.
fn shape(level: Level) -> (usize, usize) {
    match level {
        Level::Avx512 => (16, 24),
        Level::Avx2 => (8, 12),
        Level::Portable if cfg!(target_arch = "x86_64") => shape(Level::Avx2),
        _ => (4, 24),
    }
}

/// The level whose peak a level is compared with. Portable vectors have no fused multiply-add on a
/// stock x86-64 build, and are compared with AVX2, where the machine has it.
pub(crate) fn yardstick(level: Level) -> Level {
    if level == Level::Portable && Level::Avx2.is_available() { Level::Avx2 } else { level }
}

/// One register-only loop on each thread of the pool.
pub(crate) fn run(level: Level) {
    if rayon::current_num_threads() == 1 {
        fma_loop(level);
    } else {
        rayon::broadcast(|_| fma_loop(level));
    }
}

/// Operations a second, from the seconds that one [`run`] took.
pub(crate) fn per_second(level: Level, seconds: f64) -> f64 {
    flops(level) * rayon::current_num_threads() as f64 / seconds
}

/// The share of the peak of something with `work` operations that took `ratio` times as long as
/// one [`run`].
pub(crate) fn share(level: Level, work: f64, ratio: f64) -> f64 {
    work / (flops(level) * rayon::current_num_threads() as f64) / ratio
}

fn fma_loop(level: Level) {
    #[cfg(target_arch = "x86_64")]
    match level {
        Level::Avx512 if level.is_available() => {
            // SAFETY: the machine has AVX-512F.
            return unsafe { x86::avx512(TURNS) };
        }
        Level::Avx2 | Level::Portable if Level::Avx2.is_available() => {
            // SAFETY: the machine has AVX2 and FMA.
            return unsafe { x86::avx2(TURNS) };
        }
        _ => {}
    }
    let (x, y) = black_box((0.999_f32, 0.001_f32));
    let mut sums = [[0.5_f32; 4]; 24];
    for _ in 0..TURNS {
        for sum in sums.iter_mut().flatten() {
            *sum = sum.mul_add(x, y);
        }
    }
    black_box(sums);
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        _mm256_fmadd_ps, _mm256_set1_ps, _mm256_storeu_ps, _mm512_fmadd_ps, _mm512_set1_ps,
        _mm512_storeu_ps,
    };
    use std::hint::black_box;

    /// 12 chains of 256-bit multiply-adds.
    #[target_feature(enable = "avx2,fma")]
    #[inline(never)]
    pub(super) fn avx2(turns: usize) {
        let (x, y) = black_box((0.999, 0.001));
        let (x, y) = (_mm256_set1_ps(x), _mm256_set1_ps(y));
        let mut sums = [_mm256_set1_ps(0.5); 12];
        for _ in 0..turns {
            for sum in &mut sums {
                *sum = _mm256_fmadd_ps(*sum, x, y);
            }
        }
        let mut out = [0.0; 12 * 8];
        for (to, sum) in out.chunks_exact_mut(8).zip(sums) {
            // SAFETY: `to` has 8 elements, and the store asks for no alignment.
            unsafe { _mm256_storeu_ps(to.as_mut_ptr(), sum) };
        }
        black_box(out);
    }

    /// 24 chains of 512-bit multiply-adds.
    #[target_feature(enable = "avx512f")]
    #[inline(never)]
    pub(super) fn avx512(turns: usize) {
        let (x, y) = black_box((0.999, 0.001));
        let (x, y) = (_mm512_set1_ps(x), _mm512_set1_ps(y));
        let mut sums = [_mm512_set1_ps(0.5); 24];
        for _ in 0..turns {
            for sum in &mut sums {
                *sum = _mm512_fmadd_ps(*sum, x, y);
            }
        }
        let mut out = [0.0; 24 * 16];
        for (to, sum) in out.chunks_exact_mut(16).zip(sums) {
            // SAFETY: `to` has 16 elements, and the store asks for no alignment.
            unsafe { _mm512_storeu_ps(to.as_mut_ptr(), sum) };
        }
        black_box(out);
    }
}
