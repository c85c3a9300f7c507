//! The instruction set as a value: found once, forced by tests, handed to every task.

use std::cell::Cell;
use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;

#[cfg(target_arch = "x86_64")]
use super::{Avx2, Avx512};
use super::{Dispatch, Kernel, Portable};
use crate::error::{Error, Result};

/// The environment variable that forces a level for a whole program.
const VARIABLE: &str = "FUSED_DROPOUT_LEVEL";

/// An instruction set that the kernels are compiled for.
///
/// Operations use the best level of the machine, found once. To force another for a whole program, set
/// the environment variable `FUSED_DROPOUT_LEVEL` to `portable`, `avx2` or `avx512`; an empty one
/// counts as unset.
///
/// ```
/// # use fused_dropout::Level;
/// assert!(Level::Portable.is_available() && Level::best().is_available());
/// assert_eq!(Level::available().last(), Some(Level::best()));
/// assert_eq!("avx2".parse(), Ok(Level::Avx2));
/// assert_eq!(Level::Avx2.to_string(), "avx2");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
#[must_use]
pub enum Level {
    /// 128-bit vectors of the crate `wide`: SSE2, NEON or wasm simd128, whatever the build enables.
    Portable,
    /// AVX2 and FMA.
    Avx2,
    /// AVX-512F.
    Avx512,
}

thread_local! {
    /// What [`at_level`](crate::testing::at_level) forces on this thread.
    static FORCED: Cell<Option<Level>> = const { Cell::new(None) };
}

/// The level forced on this thread, or none, for as long as this lives; then what it was before, also
/// after a panic.
pub(crate) struct Forced(Option<Level>);

impl Forced {
    /// Forces a level, or, with `None`, takes off the one that is forced.
    pub(crate) fn set(level: Option<Level>) -> Self {
        Self(FORCED.try_with(|forced| forced.replace(level)).unwrap_or(None))
    }
}

impl Drop for Forced {
    fn drop(&mut self) {
        // Where the thread ends and has no such setting any more, none was set.
        FORCED.try_with(|forced| forced.set(self.0)).unwrap_or(());
    }
}

impl Level {
    const ALL: [Level; 3] = [Level::Portable, Level::Avx2, Level::Avx512];

    /// The levels this machine has, the slowest first.
    pub fn available() -> impl Iterator<Item = Level> {
        Self::ALL.into_iter().filter(|level| level.is_available())
    }

    /// Whether this machine has the level.
    pub fn is_available(self) -> bool {
        match self {
            Level::Portable => true,
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => Avx2::detect().is_some(),
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => Avx512::detect().is_some(),
            #[cfg(not(target_arch = "x86_64"))]
            _ => false,
        }
    }

    /// The best level of this machine.
    pub fn best() -> Level {
        Self::available().last().unwrap_or(Level::Portable)
    }

    /// The level that operations use: `FUSED_DROPOUT_LEVEL`, or [`Level::best`]. The variable is read
    /// once.
    ///
    /// # Errors
    ///
    /// When the variable names no level, or one that this machine does not have.
    pub fn current() -> Result<Level> {
        static PROGRAM: OnceLock<Result<Level>> = OnceLock::new();
        match FORCED.try_with(Cell::get) {
            Ok(Some(level)) => Ok(level),
            Ok(None) | Err(_) => PROGRAM.get_or_init(Self::from_environment).clone(),
        }
    }

    fn from_environment() -> Result<Level> {
        match std::env::var_os(VARIABLE) {
            Some(name) if !name.is_empty() => name.to_string_lossy().parse::<Level>()?.checked(),
            Some(_) | None => Ok(Self::best()),
        }
    }

    /// `Ok` when this machine has the level.
    pub(crate) fn checked(self) -> Result<Level> {
        if self.is_available() {
            return Ok(self);
        }
        Err(Error::LevelUnavailable { level: self, best: Self::best() })
    }

    /// Whether the level's multiply-add rounds once. Such levels agree with each other and with
    /// [`reference`](crate::reference) bit for bit; a portable build without it agrees in the masks
    /// and within a tolerance in the values.
    pub fn has_fma(self) -> bool {
        self != Level::Portable
            || cfg!(any(
                target_feature = "fma",
                all(target_arch = "aarch64", target_feature = "neon")
            ))
    }

    /// Runs a kernel compiled for this level. Not inlined, so that there is one copy of the portable
    /// kernel, not one for each way that leads here.
    #[inline(never)]
    pub(crate) fn vectorize<K: Kernel>(self, kernel: K) -> K::Output {
        #[cfg(target_arch = "x86_64")]
        if self != Level::Portable {
            return match (self, Avx2::detect(), Avx512::detect()) {
                (Level::Avx512, _, Some(isa)) => isa.vectorize(kernel),
                (Level::Avx2, Some(isa), _) => isa.vectorize(kernel),
                _ => unreachable!("{self} was found to be there when it was chosen"),
            };
        }
        Portable.vectorize(kernel)
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Level::Portable => "portable",
            Level::Avx2 => "avx2",
            Level::Avx512 => "avx512",
        })
    }
}

impl FromStr for Level {
    type Err = Error;

    fn from_str(name: &str) -> Result<Level> {
        Self::ALL
            .into_iter()
            .find(|level| level.to_string() == name)
            .ok_or_else(|| Error::UnknownLevel { name: name.to_owned() })
    }
}
