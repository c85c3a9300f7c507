use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Barrier, Mutex};

use super::*;
use crate::error::Error;
use crate::{Level, testing};

fn pool(threads: usize) -> rayon::ThreadPool {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap()
}

/// A level that this machine has and a program does not use by itself, where there are several.
fn other_level() -> Level {
    let program = Level::current().unwrap();
    Level::available().find(|level| *level != program).unwrap_or(program)
}

/// What `job` finds while an operation on this thread, a worker of a pool of two, waits for its tasks. Two
/// tasks meet, so one of them is on the second thread. The caller's ends at once; the other one starts
/// the job on its own thread, which only the caller, that waits, is free to run.
fn stolen_while_an_operation_waits<T: Send>(job: impl Fn() -> T + Send + Sync) -> T {
    let caller = rayon::current_thread_index();
    let (meeting, found) = (Barrier::new(2), Mutex::new(None));
    let ran = AtomicBool::new(false);
    for_each(2, |_| {
        meeting.wait();
        if rayon::current_thread_index() == caller {
            return;
        }
        rayon::in_place_scope(|scope| {
            scope.spawn(|_| {
                *found.lock().unwrap() = Some((rayon::current_thread_index(), job()));
                ran.store(true, Ordering::Release);
            });
            while !ran.load(Ordering::Acquire) {
                std::hint::spin_loop();
            }
        });
    });
    let (thread, found) = found.into_inner().unwrap().unwrap();
    assert_eq!(thread, caller);
    found
}

#[test]
fn a_job_that_is_stolen_while_an_operation_waits_does_not_see_the_forced_level() {
    let (program, other) = (Level::current().unwrap(), other_level());
    pool(2).install(|| {
        testing::at_level(other, || {
            assert_eq!(stolen_while_an_operation_waits(Level::current), Ok(program));
            assert_eq!(Level::current(), Ok(other), "the level is back after the operation");
        })
        .unwrap();
    });
    assert_eq!(Level::current(), Ok(program));
}

/// Runs tasks on the rayon pool that the caller is in, and says that there are seven threads.
struct OnRayon;

impl ParallelFor for OnRayon {
    fn threads(&self) -> usize {
        7
    }

    fn parallel_for(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        (0..tasks).into_par_iter().with_max_len(1).for_each(task);
    }
}

#[test]
fn a_job_that_is_stolen_while_an_operation_waits_does_not_see_the_executor() {
    let (program, other) = (Level::current().unwrap(), other_level());
    pool(2).install(|| {
        let run = || {
            assert_eq!(count(), 7);
            let found = stolen_while_an_operation_waits(|| (count(), Level::current()));
            assert_eq!(found, (2, Ok(program)));
            assert_eq!(count(), 7, "the executor is back after the operation");
        };
        Executor::custom(OnRayon).run(|| testing::at_level(other, run)).unwrap();
        assert_eq!(count(), 2);
    });
}

/// Threads that do nothing at all with tasks, or as this function does.
struct Custom<F>(usize, F);

impl<F: Fn(usize, &(dyn Fn(usize) + Sync)) + Send + Sync> ParallelFor for Custom<F> {
    fn threads(&self) -> usize {
        self.0
    }

    fn parallel_for(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        (self.1)(tasks, task);
    }
}

fn custom<F>(threads: usize, f: F) -> Executor
where
    F: Fn(usize, &(dyn Fn(usize) + Sync)) + Send + Sync + 'static,
{
    Executor::custom(Custom(threads, f))
}

/// Executors that call tasks too often, too rarely, with numbers that there are not, or all at once.
fn custom_executors() -> Vec<Executor> {
    vec![
        custom(2, |_, _| {}),
        custom(1000, |tasks, task| (0..tasks).rev().for_each(task)),
        custom(2, |tasks, task| (0..3 * tasks).for_each(|i| task(usize::MAX - i))),
        custom(3, |tasks, task| (0..tasks / 2).for_each(task)),
        custom(2, |tasks, task| {
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| (0..tasks).for_each(task));
                }
            });
        }),
    ]
}

#[test]
fn each_task_runs_once_whatever_the_executor_does() {
    for executor in custom_executors().into_iter().chain([
        Executor::calling_thread(),
        Executor::rayon(),
        custom(0, |_, _| unreachable!("no threads")),
        custom(1, |_, _| unreachable!("one thread, which is here")),
    ]) {
        for tasks in [0, 1, 2, 3, 50] {
            let runs: Vec<_> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
            executor.run(|| for_each(tasks, |i| _ = runs[i].fetch_add(1, Ordering::Relaxed)));
            assert!(runs.iter().all(|runs| runs.load(Ordering::Relaxed) == 1), "{executor:?}");
        }
    }
}

/// The panic reaches the caller, not the executor, whose other calls go on.
#[test]
fn a_panic_in_a_task_passes_a_custom_executor_by() {
    for executor in custom_executors() {
        executor.run(|| {
            let threads = count();
            let runs = AtomicUsize::new(0);
            let caught = catch_unwind(AssertUnwindSafe(|| {
                for_each(8, |i| {
                    runs.fetch_add(1, Ordering::Relaxed);
                    assert!(i != 3 && i != 5, "planned");
                });
            }));
            assert_eq!(caught.unwrap_err().downcast_ref(), Some(&"planned"));
            assert_eq!(runs.into_inner(), 8, "the others run all the same");
            assert_eq!(count(), threads, "the executor is back");
        });
    }
    assert_eq!(count(), rayon::current_num_threads());
}

#[test]
fn errors_of_tasks_come_through_custom_executors() {
    for executor in custom_executors() {
        let failing = |i| if i == 5 { Err(Error::Memory { bytes: i }) } else { Ok(()) };
        assert_eq!(executor.run(|| try_for_each(8, failing)), Err(Error::Memory { bytes: 5 }));
        assert_eq!(executor.run(|| try_for_each(5, failing)), Ok(()));
    }
}

/// The calling thread at least; the others as far as the executor goes.
#[test]
fn threads_of_a_custom_executor_are_reached() {
    let here = std::thread::current().id();
    let reached = |executor: &Executor| {
        let reached = Mutex::new(std::collections::HashSet::new());
        let reach = || _ = reached.lock().unwrap().insert(std::thread::current().id());
        executor.run(|| on_each_thread(reach));
        reached.into_inner().unwrap()
    };
    assert!(custom_executors().iter().all(|executor| reached(executor).contains(&here)));
    assert_eq!(reached(&Executor::calling_thread()).len(), 1);
    let one_a_thread = custom(3, |tasks, task| {
        let all_begin = Barrier::new(tasks);
        std::thread::scope(|scope| {
            for i in 0..tasks {
                let all_begin = &all_begin;
                scope.spawn(move || (task(i), all_begin.wait()));
            }
        });
    });
    assert_eq!(reached(&one_a_thread).len(), 4);
}

#[test]
fn a_panic_in_a_task_reaches_the_caller_and_the_forced_level_is_back() {
    let other = other_level();
    pool(2).install(|| {
        testing::at_level(other, || {
            let caught = catch_unwind(AssertUnwindSafe(|| {
                for_each(8, |i| assert!(i != 3, "planned"));
            }));
            assert!(caught.is_err());
            assert_eq!(Level::current(), Ok(other));
            let calls = AtomicUsize::new(0);
            for_each(8, |_| _ = calls.fetch_add(1, Ordering::Relaxed));
            assert_eq!(calls.into_inner(), 8);
        })
        .unwrap();
    });
}

#[test]
fn an_error_of_a_task_is_returned_after_all_tasks() {
    for threads in [1, 2] {
        pool(threads).install(|| {
            let calls = AtomicUsize::new(0);
            let run = |bad: usize| {
                try_for_each(8, |i| {
                    calls.fetch_add(1, Ordering::Relaxed);
                    if i == bad { Err(Error::Memory { bytes: i }) } else { Ok(()) }
                })
            };
            assert_eq!(run(5), Err(Error::Memory { bytes: 5 }));
            assert_eq!(run(9), Ok(()));
            assert_eq!(try_for_each(0, |_| Err(Error::Memory { bytes: 0 })), Ok(()));
            assert_eq!(calls.into_inner(), 16);
        });
    }
}

#[test]
fn every_thread_is_reached() {
    for threads in [1, 3] {
        let reached = Mutex::new(std::collections::HashSet::new());
        let reach = || _ = reached.lock().unwrap().insert(std::thread::current().id());
        pool(threads).install(|| on_each_thread(reach));
        assert_eq!(reached.into_inner().unwrap().len(), threads);
    }
}
