//! What a `fork` leaves of a rayon pool: nothing. The child has one thread, the one that called
//! `fork`; whoever hands a task to the parent's pool there waits for ever.
//!
//! The child's own pools are sound, and are told apart by their workers: a worker that did not call
//! `fork` began after it, and so did its pool.
//!
//! A handler tells the child. It is registered when tasks are first spread, so a `fork` before that is
//! not seen; nor is one that runs no handlers (`vfork`, a bare `clone`), after which a program may not
//! do more than to call `exec`.

#[cfg(unix)]
mod handler {
    use std::cell::Cell;
    use std::sync::atomic::{AtomicBool, Ordering};

    /// Whether the handler is registered. Not a lock: one that a `fork` catches would stay locked.
    static WATCHED: AtomicBool = AtomicBool::new(false);
    /// Whether this process is such a child.
    static IS_CHILD: AtomicBool = AtomicBool::new(false);

    thread_local! {
        /// Whether this thread called `fork`, and came out of it in the child.
        static FORKED: Cell<bool> = const { Cell::new(false) };
    }

    /// Runs in the child, on the thread that called `fork`.
    unsafe extern "C" fn child() {
        IS_CHILD.store(true, Ordering::Relaxed);
        // A cell without a destructor is there for as long as the thread is.
        FORKED.with(|forked| forked.set(true));
    }

    /// Registers the handler, once.
    #[inline]
    pub(in super::super) fn watch() {
        if WATCHED.load(Ordering::Relaxed) || WATCHED.swap(true, Ordering::Relaxed) {
            return;
        }
        // SAFETY: `child` stores to a static and to the thread's own memory, which a handler may do.
        let error = unsafe { libc::pthread_atfork(None, None, Some(child)) };
        // There was no memory for it: the next call tries again.
        WATCHED.store(error == 0, Ordering::Relaxed);
    }

    /// Whether the pool that tasks of this caller would go to has no threads any more.
    #[inline]
    pub(in super::super) fn pool_is_gone() -> bool {
        IS_CHILD.load(Ordering::Relaxed)
            && (FORKED.with(Cell::get) || rayon::current_thread_index().is_none())
    }
}

#[cfg(not(unix))]
mod handler {
    /// Where there is no `fork` there is nothing to watch.
    pub(in super::super) fn watch() {}

    /// Pools stay.
    pub(in super::super) fn pool_is_gone() -> bool {
        false
    }
}

pub(super) use handler::{pool_is_gone, watch};
