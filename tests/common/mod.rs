//! What several test files share.
#![allow(dead_code, reason = "each test file uses a part of it")]

use fused_dropout::Level;

/// Runs `f` with every level this machine has, and names those it has not.
pub fn for_each_level(f: impl Fn(Level)) {
    for level in [Level::Portable, Level::Avx2, Level::Avx512] {
        let ran = level.install(|| {
            assert_eq!(Level::current(), Ok(level), "the forced level must be the one that runs");
            f(level);
        });
        if let Err(error) = ran {
            println!("skipped: {error}");
        }
    }
}

/// Runs `f` in a rayon pool of so many threads.
pub fn with_threads<R: Send>(threads: usize, f: impl FnOnce() -> R + Send) -> R {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(f)
}
