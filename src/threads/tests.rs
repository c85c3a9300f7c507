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

/// Two tasks meet, so one of them is on the second thread. The caller's ends at once; the other one
/// starts a job on its own thread, which only the caller, that waits, is free to run.
#[test]
fn a_job_that_is_stolen_while_an_operation_waits_does_not_see_the_forced_level() {
    let (program, other) = (Level::current().unwrap(), other_level());
    let (meeting, seen) = (Barrier::new(2), Mutex::new(None));
    let ran = AtomicBool::new(false);
    pool(2).install(|| {
        let caller = rayon::current_thread_index();
        testing::at_level(other, || {
            for_each(2, |_| {
                meeting.wait();
                if rayon::current_thread_index() == caller {
                    return;
                }
                rayon::in_place_scope(|scope| {
                    scope.spawn(|_| {
                        *seen.lock().unwrap() =
                            Some((rayon::current_thread_index(), Level::current()));
                        ran.store(true, Ordering::Release);
                    });
                    while !ran.load(Ordering::Acquire) {
                        std::hint::spin_loop();
                    }
                });
            });
            assert_eq!(Level::current(), Ok(other), "the level is back after the operation");
        })
        .unwrap();
        assert_eq!(*seen.lock().unwrap(), Some((caller, Ok(program))));
    });
    assert_eq!(Level::current(), Ok(program));
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
