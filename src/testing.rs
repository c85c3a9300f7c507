//! For the tests and benches of this project, and for nobody else.

use crate::Level;
use crate::error::Result;
use crate::isa::Forced;

/// Runs `f` with this level forced for the operations that it calls from this thread; their tasks, on
/// whatever threads, follow it. What `f` hands to other threads itself does not.
///
/// While an operation waits for the threads of a pool, the setting is taken off: a job that this
/// thread runs meanwhile, because the pool has it, does not see the setting.
///
/// # Errors
///
/// When this machine does not have the level; `f` is not called then.
pub fn at_level<R>(level: Level, f: impl FnOnce() -> R) -> Result<R> {
    let _forced = Forced::set(Some(level.checked()?));
    Ok(f())
}
