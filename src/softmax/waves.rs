//! Results of tasks, put together in the order of the tasks.

use crate::threads::for_each;
use crate::view::MatMut;

/// Tasks that run side by side.
const WAVE: usize = 64;

/// Hands `f(0)`, `f(1)`, ... `f(tasks - 1)`, computed on the threads of the current rayon pool, to `add`
/// in this order. So a sum has the same bits on any number of threads.
pub(crate) fn for_each_in_order<R: Copy + Default + Send>(
    tasks: usize,
    f: impl Fn(usize) -> R + Send + Sync,
    mut add: impl FnMut(R),
) {
    // A wave of tasks runs before any result is used, so that there is room for all of them.
    for first in (0..tasks).step_by(WAVE) {
        let mut results = [R::default(); WAVE];
        let count = WAVE.min(tasks - first);
        let slots = MatMut::row_vector(&mut results).target();
        for_each(count, |i| {
            let result = f(first + i);
            // SAFETY: there are WAVE slots, they live until all tasks are done, and slot `i` is this
            // task's alone.
            unsafe { *slots.at(0, i) = result };
        });
        results[..count].iter().for_each(|result| add(*result));
    }
}
