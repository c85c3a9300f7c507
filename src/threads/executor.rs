//! On whose threads tasks run: rayon's, the caller's alone, or those of a runtime that the program has
//! already.

use std::any::Any;
use std::cell::RefCell;
use std::fmt;
use std::mem::{self, ManuallyDrop};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::rayon_threads;

/// Threads of the program's own that can run tasks: OpenMP, PyTorch's `parallel_for`, a game's job
/// system. [`Executor::custom`] hands them to the operations.
///
/// Nothing depends on what an implementation does, save the time that an operation takes. Each call of
/// `task` claims the next task that nobody has, whatever index it is given, and does nothing when
/// none is left; tasks that are left when [`ParallelFor::parallel_for`] returns run on the calling
/// thread. So a call too many or too few does no harm.
///
/// ```
/// use fused_dropout::{Executor, ParallelFor};
///
/// /// Threads that are made for each operation, and end with it.
/// struct NewThreads(usize);
///
/// impl ParallelFor for NewThreads {
///     fn threads(&self) -> usize {
///         self.0
///     }
///
///     fn parallel_for(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
///         std::thread::scope(|scope| {
///             for thread in 1..self.0.min(tasks) {
///                 scope.spawn(move || (thread..tasks).step_by(self.0).for_each(task));
///             }
///             (0..tasks).step_by(self.0).for_each(task);
///         });
///     }
/// }
///
/// assert_eq!(Executor::custom(NewThreads(2)).threads(), 2);
/// ```
///
/// # Unsafe implementations
///
/// Safe code cannot keep `task` beyond the call, nor leave a thread at work on it: whatever runs it on
/// another thread, such as [`std::thread::scope`], waits for that thread. Code that lends `task` to
/// threads by a pointer has to do the same: `parallel_for` must neither return nor unwind before every
/// call of `task` that was begun has returned, and none may begin later.
pub trait ParallelFor: Send + Sync {
    /// How many threads run tasks, the calling one included where it helps. Operations whose tasks
    /// grow with it, such as products, make about one for each thread. 0 counts as 1.
    fn threads(&self) -> usize;

    /// Calls `task(0)`, `task(1)`, ... `task(tasks - 1)`, in any order and on any threads, and returns
    /// when these calls have returned. `task` does not panic.
    ///
    /// There are at least two tasks, each of which takes some ten microseconds or more. They call
    /// nothing that spreads tasks itself.
    fn parallel_for(&self, tasks: usize, task: &(dyn Fn(usize) + Sync));
}

/// On whose threads the tasks of operations run.
///
/// | | threads |
/// |---|---|
/// | [`Executor::rayon`], the default | those of the rayon pool that the caller is in, or of the global one |
/// | [`Executor::calling_thread`] | the calling one alone |
/// | [`Executor::custom`] | those of a [`ParallelFor`] |
///
/// Results never depend on it. It applies to what a closure does, on this thread, and to nothing
/// else:
///
/// ```
/// use fused_dropout::{Dropout, Executor, Mask, MaskKey};
///
/// let half = Dropout::new(0.5)?.with_key(MaskKey::new(42, 1, 0)?);
/// let mask = Executor::calling_thread().run(|| Mask::generate(2000, 2000, &half))?;
/// assert!(mask == Mask::generate(2000, 2000, &half)?);
/// # Ok::<(), fused_dropout::Error>(())
/// ```
///
/// Each thread that runs tasks keeps its buffers for the next ones, whoever it belongs to;
/// [`release_buffers`](crate::release_buffers), called inside of [`Executor::run`], frees those of the
/// executor's threads.
///
/// After a `fork`, tasks that would go to a rayon pool of the parent's run on the calling thread. A
/// custom executor has to know by itself that its threads are gone.
#[derive(Clone, Default)]
#[must_use]
pub struct Executor(Kind);

/// What an [`Executor`] is.
#[derive(Clone, Default)]
pub(super) enum Kind {
    #[default]
    Rayon,
    CallingThread,
    Custom(Arc<dyn ParallelFor>),
}

impl Executor {
    /// The threads of the rayon pool that the caller is a worker of, or of the global pool.
    pub fn rayon() -> Self {
        Self(Kind::Rayon)
    }

    /// The calling thread alone.
    pub fn calling_thread() -> Self {
        Self(Kind::CallingThread)
    }

    /// The program's own threads.
    pub fn custom(threads: impl ParallelFor + 'static) -> Self {
        Self(Kind::Custom(Arc::new(threads)))
    }

    /// How many threads tasks run on when this thread calls an operation.
    #[must_use]
    pub fn threads(&self) -> usize {
        match &self.0 {
            Kind::Rayon => rayon_threads(),
            Kind::CallingThread => 1,
            Kind::Custom(threads) => threads.threads().max(1),
        }
    }

    /// Calls `f`. The operations that it calls on this thread spread their tasks with this executor.
    ///
    /// Inside of another `run` the inner one holds, and then the outer one again, also after a panic.
    /// Other threads, those of the executor included, are not affected, and neither is a job of
    /// somebody else's that this thread runs while an operation waits for its tasks. A job that it runs
    /// because `f` itself waits for a pool, in `rayon::join` say, is inside of this `run`: its
    /// operations use this executor, to the same bits.
    pub fn run<R>(&self, f: impl FnOnce() -> R) -> R {
        let _scope = Scope::enter(self.clone());
        f()
    }

    /// What it is.
    pub(super) fn kind(&self) -> &Kind {
        &self.0
    }
}

impl fmt::Debug for Executor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Rayon => f.write_str("Executor::rayon"),
            Kind::CallingThread => f.write_str("Executor::calling_thread"),
            Kind::Custom(_) => write!(f, "Executor::custom of {} threads", self.threads()),
        }
    }
}

thread_local! {
    /// The executor of the innermost [`Executor::run`] of this thread. Without a destructor, so that
    /// those of other thread-locals still find it; a scope that ends leaves nothing to destroy.
    static CURRENT: RefCell<ManuallyDrop<Executor>> =
        const { RefCell::new(ManuallyDrop::new(Executor(Kind::Rayon))) };
}

/// Whether this thread has the default executor: a look at it, which costs less than to take it off.
#[inline]
pub(super) fn is_default() -> bool {
    CURRENT.try_with(|current| matches!(current.borrow().0, Kind::Rayon)).unwrap_or(true)
}

/// Makes this the executor of this thread, and returns what was.
#[inline]
fn replace(executor: Executor) -> Executor {
    let executor = ManuallyDrop::new(executor);
    // Where a thread that ends has no such setting any more, it has the default.
    CURRENT
        .try_with(|current| current.replace(executor))
        .map_or_else(|_| Executor::rayon(), ManuallyDrop::into_inner)
}

/// An executor that is this thread's for as long as this lives; then what it was before, also after a
/// panic.
pub(super) struct Scope {
    outer: Executor,
}

impl Scope {
    /// Sets the executor.
    #[inline]
    fn enter(inner: Executor) -> Self {
        Self { outer: replace(inner) }
    }

    /// Takes off the one that is set: this thread has the default, whatever code of others it runs
    /// meanwhile.
    #[inline]
    pub(super) fn take_off() -> Self {
        Self::enter(Executor::rayon())
    }

    /// What was set.
    #[inline]
    pub(super) fn outer(&self) -> &Executor {
        &self.outer
    }
}

impl Drop for Scope {
    #[inline]
    fn drop(&mut self) {
        drop(replace(mem::take(&mut self.outer)));
    }
}

/// Calls `f(0)`, ... `f(tasks - 1)` on these threads. A panic in one of them reaches the caller when all
/// are done.
///
/// `parallel_for` borrows `tasks` from this frame. Whatever it does, no task is at work when it has
/// returned or panicked: its signature holds for any lifetime of the borrow, so that neither it nor a
/// thread of its can go on with it (see [`ParallelFor`] for implementations that are not safe code).
pub(super) fn spread(threads: &dyn ParallelFor, tasks: usize, f: &(dyn Fn(usize) + Send + Sync)) {
    let tasks = Tasks { count: tasks, next: AtomicUsize::new(0), f, panic: Mutex::new(None) };
    threads.parallel_for(tasks.count, &|_| _ = tasks.run_next());
    // Those that were skipped.
    while tasks.run_next() {}
    if let Some(panic) = tasks.panic.into_inner().unwrap_or_else(PoisonError::into_inner) {
        resume_unwind(panic);
    }
}

/// Tasks for whoever comes.
struct Tasks<'a> {
    count: usize,
    /// The first that nobody has claimed.
    next: AtomicUsize,
    f: &'a (dyn Fn(usize) + Send + Sync),
    /// That of the first task that panicked.
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

impl Tasks<'_> {
    /// Claims a task and runs it; false if there is none left. Tasks write what is theirs alone, so
    /// none may run twice: the counter stops at the end, lest it overflow. A panic waits here, for it
    /// must not unwind into a runtime of another language, nor end a thread of a pool.
    fn run_next(&self) -> bool {
        let claim = |next| (next < self.count).then_some(next + 1);
        // Whoever started the threads has let them see what tasks read.
        let Ok(task) = self.next.fetch_update(Ordering::Relaxed, Ordering::Relaxed, claim) else {
            return false;
        };
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| (self.f)(task))) {
            self.panic.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(panic);
        }
        true
    }
}
