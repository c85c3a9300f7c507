//! Tasks: how an operation is split, how much work a task is, and on whose threads tasks run. The one
//! place where rayon is called.
//!
//! Tasks write disjoint parts of the output and share nothing, so how many there are, and on how
//! many threads they run, never shows in the result.
//!
//! | executor | caller | where its tasks run |
//! |---|---|---|
//! | rayon, the default | a worker of a rayon pool | that pool |
//! | | any other thread | rayon's global pool |
//! | | the child of a `fork`, which has none of the parent's pools | the calling thread, save in a pool of the child's own |
//! | the calling thread | any | the calling thread |
//! | a custom one | any | where it runs them |
//!
//! Tasks never call operations, so none waits for tasks of its own.
//!
//! The executor is a setting of the thread, like the level that a test forces, and a thread that waits
//! for a pool may run any job that the pool has. So both settings are taken off while tasks spread.

mod executor;
mod fork;
mod grid;
#[cfg(test)]
mod tests;
pub(crate) mod work;

use std::sync::OnceLock;

use rayon::prelude::*;

use crate::error::Result;
use crate::isa::Forced;
use executor::{Kind, Scope};

pub use executor::{Executor, ParallelFor};
pub(crate) use grid::{Grid, Part};

/// How many threads the tasks of this caller run on.
pub(crate) fn count() -> usize {
    if executor::is_default() { rayon_threads() } else { Scope::take_off().outer().threads() }
}

/// How many threads they run on where rayon runs them.
fn rayon_threads() -> usize {
    fork::watch();
    if fork::pool_is_gone() { 1 } else { rayon::current_num_threads() }
}

/// Calls `f(0)`, `f(1)`, ... `f(tasks - 1)`, on the threads of the caller's executor. A panic in one
/// of them reaches the caller when all are done.
pub(crate) fn for_each(tasks: usize, f: impl Fn(usize) + Send + Sync) {
    spread(tasks, &f);
}

/// [`for_each`] with tasks that can fail: all of them run, and an error of one of them, if there is
/// any, is returned.
pub(crate) fn try_for_each(
    tasks: usize,
    f: impl Fn(usize) -> Result<()> + Send + Sync,
) -> Result<()> {
    let failure = OnceLock::new();
    spread(tasks, &|i| {
        if let Err(error) = f(i) {
            failure.get_or_init(|| error);
        }
    });
    failure.into_inner().map_or(Ok(()), Err)
}

/// [`for_each`], once for all tasks: rayon's machinery is much code.
fn spread(tasks: usize, f: &(dyn Fn(usize) + Send + Sync)) {
    if tasks <= 1 {
        return (0..tasks).for_each(f);
    }
    let executor = Scope::take_off();
    if executor.outer().threads() == 1 {
        return (0..tasks).for_each(f);
    }
    let _unforced = Forced::set(None);
    match executor.outer().kind() {
        Kind::CallingThread => (0..tasks).for_each(f),
        Kind::Rayon => (0..tasks).into_par_iter().with_max_len(1).for_each(f),
        Kind::Custom(threads) => executor::spread(&**threads, tasks, f),
    }
}

/// Calls `f` on this thread, and on each of those that tasks of this caller run on: on each thread of a
/// rayon pool, and on those that a custom executor gives as many tasks as it has threads.
pub(crate) fn on_each_thread(f: impl Fn() + Send + Sync) {
    f();
    let executor = Scope::take_off();
    let _unforced = Forced::set(None);
    match executor.outer().kind() {
        Kind::CallingThread => {}
        Kind::Rayon => {
            fork::watch();
            if !fork::pool_is_gone() {
                rayon::broadcast(|_| f());
            }
        }
        Kind::Custom(threads) => {
            let tasks = executor.outer().threads();
            if tasks > 1 {
                executor::spread(&**threads, tasks, &|_| f());
            }
        }
    }
}
