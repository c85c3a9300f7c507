//! Tasks: how an operation is split, how much work a task is, and on whose threads tasks run. The one
//! place where rayon is called.
//!
//! Tasks write disjoint parts of the output and share nothing, so how many there are, and on how
//! many threads they run, never shows in the result.
//!
//! | caller | where its tasks run |
//! |---|---|
//! | a worker of a rayon pool | that pool |
//! | any other thread | rayon's global pool |
//! | the child of a `fork`, which has none of the parent's pools | the calling thread, save in a pool of the child's own |

mod fork;
mod grid;
#[cfg(test)]
mod tests;
pub(crate) mod work;

use std::sync::OnceLock;

use rayon::prelude::*;

use crate::error::Result;
use crate::isa::Forced;

pub(crate) use grid::{Grid, Part};

/// How many threads the tasks of this caller run on.
pub(crate) fn count() -> usize {
    fork::watch();
    if fork::pool_is_gone() { 1 } else { rayon::current_num_threads() }
}

/// Calls `f(0)`, `f(1)`, ... `f(tasks - 1)`, on the threads of the current rayon pool. A panic in one
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
    if tasks <= 1 || count() == 1 {
        (0..tasks).for_each(f);
    } else {
        // This thread runs what the pool has while it waits, also jobs that belong to others.
        let _unforced = Forced::set(None);
        (0..tasks).into_par_iter().with_max_len(1).for_each(f);
    }
}

/// Calls `f` on this thread, and on each of those that tasks of this caller run on.
pub(crate) fn on_each_thread(f: impl Fn() + Sync) {
    f();
    fork::watch();
    if !fork::pool_is_gone() {
        let _unforced = Forced::set(None);
        rayon::broadcast(|_| f());
    }
}
