//! Threads of a program's own, well behaved and not.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Sender};
use std::thread::{self, JoinHandle};

use fused_dropout::{Executor, ParallelFor};

/// What operations run on as well as on rayon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Threads {
    Rayon,
    CallingThread,
    Pool,
    Hostile,
}

impl Threads {
    /// What the environment variable `TEST_EXECUTOR` says that all tests run on: `calling-thread`,
    /// `pool` or `hostile`; without it, rayon.
    pub(crate) fn of_environment() -> Self {
        match std::env::var("TEST_EXECUTOR").as_deref() {
            Err(_) | Ok("" | "rayon") => Threads::Rayon,
            Ok("calling-thread") => Threads::CallingThread,
            Ok("pool") => Threads::Pool,
            Ok("hostile") => Threads::Hostile,
            Ok(other) => panic!("TEST_EXECUTOR={other}: calling-thread, pool or hostile"),
        }
    }

    /// So many of them. Where there are no threads, there is the calling one.
    pub(crate) fn executor(self, threads: usize) -> Executor {
        match self {
            Threads::Rayon => Executor::rayon(),
            _ if cfg!(target_family = "wasm") => Executor::calling_thread(),
            Threads::CallingThread => Executor::calling_thread(),
            Threads::Pool => Executor::custom(Pool::new(threads)),
            Threads::Hostile => Executor::custom(Hostile::new(threads)),
        }
    }
}

/// Threads that live as long as the pool, and wait for jobs. The calling thread helps.
pub(crate) struct Pool {
    workers: Vec<(Sender<Job>, JoinHandle<()>)>,
}

/// Every `step`-th task from `first` on.
struct Job {
    task: &'static (dyn Fn(usize) + Sync),
    first: usize,
    tasks: usize,
    step: usize,
    /// Goes when the job is done.
    _done: Sender<()>,
}

impl Job {
    fn run(&self) {
        (self.first..self.tasks).step_by(self.step).for_each(self.task);
    }
}

impl Pool {
    /// The calling thread and `threads - 1` others.
    pub(crate) fn new(threads: usize) -> Self {
        let worker = |_| {
            let (send, jobs) = mpsc::channel::<Job>();
            (send, thread::spawn(move || jobs.into_iter().for_each(|job| job.run())))
        };
        Self { workers: (1..threads).map(worker).collect() }
    }
}

impl ParallelFor for Pool {
    fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    fn parallel_for(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        // SAFETY: the reference is in jobs alone, and this function ends after the last of them is
        // gone: it does not unwind before, since `task` does not panic.
        let task = unsafe {
            std::mem::transmute::<&(dyn Fn(usize) + Sync), &'static (dyn Fn(usize) + Sync)>(task)
        };
        let (done, all_done) = mpsc::channel();
        let step = self.threads();
        let job = |first| Job { task, first, tasks, step, _done: done.clone() };
        for (i, (worker, _)) in self.workers.iter().enumerate() {
            worker.send(job(i + 1)).unwrap_or_default();
        }
        job(0).run();
        drop(done);
        // The error says that there is no sender any more.
        all_done.recv().unwrap_or_default();
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        for (jobs, worker) in self.workers.drain(..) {
            drop(jobs);
            worker.join().unwrap();
        }
    }
}

/// Does as it likes with the tasks, in safe code, and each time otherwise.
pub(crate) struct Hostile {
    threads: usize,
    times: AtomicUsize,
}

impl Hostile {
    pub(crate) const MOODS: usize = 5;

    pub(crate) fn new(threads: usize) -> Self {
        Self { threads, times: AtomicUsize::new(0) }
    }
}

impl ParallelFor for Hostile {
    fn threads(&self) -> usize {
        self.threads
    }

    fn parallel_for(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        match self.times.fetch_add(1, Ordering::Relaxed) % Self::MOODS {
            // Backwards on the calling thread, every third left out.
            0 => (0..tasks).rev().filter(|i| i % 3 != 1).for_each(task),
            // On threads that end, all tasks on each of them.
            1 => thread::scope(|scope| {
                for _ in 0..self.threads {
                    scope.spawn(|| (0..tasks).rev().for_each(task));
                }
            }),
            // Not at all.
            2 => {}
            // Numbers that do not exist, each twice, on threads and here.
            3 => thread::scope(|scope| {
                for _ in 0..2 {
                    scope.spawn(|| (0..tasks / 4).for_each(|i| task(usize::MAX - i)));
                }
                (0..tasks / 4).for_each(task);
            }),
            // One thread alone, and that is not the calling one.
            _ => thread::scope(|scope| {
                scope.spawn(|| (0..tasks).for_each(task));
            }),
        }
    }
}

/// Counts the operations that hand tasks over, and the tasks.
pub(crate) struct Counting<T> {
    threads: T,
    counts: Arc<Counts>,
}

#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) operations: AtomicUsize,
    pub(crate) tasks: AtomicUsize,
}

impl<T: ParallelFor + 'static> Counting<T> {
    pub(crate) fn executor(threads: T) -> (Executor, Arc<Counts>) {
        let counts = Arc::new(Counts::default());
        (Executor::custom(Self { threads, counts: counts.clone() }), counts)
    }
}

impl<T: ParallelFor> ParallelFor for Counting<T> {
    fn threads(&self) -> usize {
        self.threads.threads()
    }

    fn parallel_for(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        self.counts.operations.fetch_add(1, Ordering::Relaxed);
        self.counts.tasks.fetch_add(tasks, Ordering::Relaxed);
        self.threads.parallel_for(tasks, task);
    }
}
