//! Every operation on every executor, with the same bits; and what executors promise.

mod common;
#[path = "executors/operations.rs"]
mod operations;

use std::cell::OnceCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use common::executors::{Counting, Counts, Hostile, Pool};
use common::{for_each_level, with_threads};
use fused_dropout::{Executor, ParallelFor, release_buffers, testing};
use operations::{OPERATIONS, forward};

/// Says how many threads there are, whatever is true.
struct Says<T>(usize, T);

impl<T: ParallelFor> ParallelFor for Says<T> {
    fn threads(&self) -> usize {
        self.0
    }

    fn parallel_for(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        self.1.parallel_for(tasks, task);
    }
}

fn custom_executors() -> Vec<(&'static str, Executor, Arc<Counts>)> {
    let row = |name, (executor, counts)| (name, executor, counts);
    vec![
        row("pool of 3", Counting::executor(Pool::new(3))),
        row("hostile, 5", Counting::executor(Hostile::new(5))),
        row("pool of 2 that says 1000", Counting::executor(Says(1000, Pool::new(2)))),
    ]
}

#[test]
#[cfg_attr(target_family = "wasm", ignore = "there are no threads")]
fn every_operation_has_the_same_bits_on_every_executor() {
    for_each_level(|level| {
        for (name, operation) in OPERATIONS {
            let expected = Executor::calling_thread().run(operation);
            assert!(!expected.is_empty());
            let on_rayon = || testing::at_level(level, operation).unwrap();
            let got = with_threads(3, || Executor::rayon().run(on_rayon));
            assert!(got == expected, "{name} on {level}, rayon");
            for (executor_name, executor, counts) in custom_executors() {
                // A hostile one does something else each time.
                for _ in 0..if executor_name.contains("hostile") { Hostile::MOODS } else { 1 } {
                    let got = executor.run(operation);
                    assert!(got == expected, "{name} on {level}, {executor_name}");
                }
                let operations = counts.operations.load(Ordering::Relaxed);
                let tasks = counts.tasks.load(Ordering::Relaxed);
                let what = format!("{name} on {level}, {executor_name}: {tasks} tasks");
                assert!(operations > 0 && tasks >= 2 * operations, "{what}: too few");
                assert!(tasks <= 200 * operations, "{what}, {operations} operations: too many");
            }
        }
    });
}

/// The calling thread alone: where there are no other threads too.
#[test]
fn no_threads_are_needed() {
    for_each_level(|level| {
        let (name, operation) = OPERATIONS[0];
        let expected = operation();
        assert!(Executor::calling_thread().run(operation) == expected, "{name} on {level}");
        let none = Executor::custom(Says(0, Hostile::new(0)));
        assert_eq!(none.threads(), 1);
        assert!(none.run(operation) == expected, "{name} on {level}");
    });
}

#[test]
#[cfg_attr(target_family = "wasm", ignore = "there are no threads")]
fn the_innermost_executor_holds() {
    let (outer, outer_counts) = Counting::executor(Pool::new(2));
    let (inner, inner_counts) = Counting::executor(Pool::new(2));
    let counts =
        || [&outer_counts, &inner_counts].map(|counts| counts.operations.load(Ordering::Relaxed));
    let expected = forward();
    assert_eq!(counts(), [0, 0], "without `run` they are not used");
    outer.run(|| {
        assert!(forward() == expected);
        let before = counts();
        assert!(before[0] > 0 && before[1] == 0);
        inner.run(|| assert!(forward() == expected));
        let after = counts();
        assert!(after[0] == before[0] && after[1] > 0, "the inner one alone");
        Executor::rayon().run(forward);
        Executor::calling_thread().run(forward);
        assert_eq!(counts(), after);
        let caught = catch_unwind(AssertUnwindSafe(|| inner.run(|| panic!("planned"))));
        assert!(caught.is_err());
        forward();
        assert!(counts()[0] > after[0] && counts()[1] == after[1], "the outer one after a panic");
        // Other threads have the default.
        let after = counts();
        std::thread::scope(|scope| {
            scope.spawn(|| assert!(forward() == expected));
        });
        assert_eq!(counts(), after);
    });
    let after = counts();
    forward();
    assert_eq!(counts(), after, "the default is back");
}

/// Panics in the middle of its work.
struct Panics;

impl ParallelFor for Panics {
    fn threads(&self) -> usize {
        2
    }

    fn parallel_for(&self, _: usize, task: &(dyn Fn(usize) + Sync)) {
        task(0);
        panic!("planned");
    }
}

#[test]
#[cfg_attr(target_family = "wasm", ignore = "a panic ends the program")]
fn a_panic_of_the_executor_reaches_the_caller() {
    let (expected, panics) = (forward(), Executor::custom(Panics));
    for _ in 0..2 {
        let caught = catch_unwind(AssertUnwindSafe(|| panics.run(forward)));
        assert_eq!(caught.unwrap_err().downcast_ref(), Some(&"planned"));
        assert!(forward() == expected);
    }
}

/// Calls an operation for each of its own.
struct Busy;

impl ParallelFor for Busy {
    fn threads(&self) -> usize {
        forward();
        2
    }

    fn parallel_for(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        forward();
        (0..tasks).for_each(task);
    }
}

#[test]
fn an_executor_may_call_operations_itself() {
    assert!(Executor::custom(Busy).run(forward) == forward());
}

thread_local! {
    /// Runs a layer on an executor when the thread ends.
    static AT_THE_END: OnceCell<AtTheEnd> = const { OnceCell::new() };
}

struct AtTheEnd(Executor, Sender<Vec<u32>>);

impl Drop for AtTheEnd {
    fn drop(&mut self) {
        self.1.send(self.0.run(forward)).unwrap();
    }
}

#[test]
#[cfg_attr(target_family = "wasm", ignore = "there are no threads")]
fn executors_work_in_a_destructor_at_the_end_of_a_thread() {
    let expected = forward();
    for before in [true, false] {
        let (pool, counts) = Counting::executor(Pool::new(2));
        for executor in [pool.clone(), Executor::calling_thread(), Executor::rayon()] {
            let (send, receive) = channel();
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    if before {
                        pool.run(forward);
                    }
                    AT_THE_END.with(|cell| cell.set(AtTheEnd(executor, send)).is_ok());
                    if !before {
                        pool.run(forward);
                    }
                });
            });
            assert!(receive.recv().unwrap() == expected);
        }
        // Once in each thread, and once at the end of the first.
        assert_eq!(counts.operations.load(Ordering::Relaxed), 4);
    }
}

#[test]
fn executors_say_what_they_are() {
    let text = |executor: Executor| format!("{executor:?}");
    assert_eq!(text(Executor::default()), "Executor::rayon");
    assert_eq!(text(Executor::rayon()), "Executor::rayon");
    assert_eq!(text(Executor::calling_thread()), "Executor::calling_thread");
    assert_eq!(text(Executor::custom(Says(4, Hostile::new(1)))), "Executor::custom of 4 threads");
    assert_eq!(Executor::calling_thread().threads(), 1);
    with_threads(3, || {
        let here = if cfg!(target_family = "wasm") { 1 } else { rayon::current_num_threads() };
        assert_eq!(Executor::rayon().threads(), here);
    });
}

/// The executor goes when the last copy does, not when threads that used it end.
#[test]
#[cfg_attr(target_family = "wasm", ignore = "a panic ends the program")]
fn nothing_is_kept_of_an_executor() {
    struct Says(Sender<()>);
    impl Drop for Says {
        fn drop(&mut self) {
            self.0.send(()).unwrap();
        }
    }
    impl ParallelFor for Says {
        fn threads(&self) -> usize {
            2
        }
        fn parallel_for(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
            (0..tasks).for_each(task);
        }
    }
    let (send, gone) = channel();
    let executor = Executor::custom(Says(send));
    executor.run(|| {
        forward();
        release_buffers();
        let _ = catch_unwind(AssertUnwindSafe(|| executor.run(|| panic!("planned"))));
    });
    assert!(gone.try_recv().is_err());
    drop(executor);
    gone.recv_timeout(Duration::from_secs(1)).unwrap();
}
