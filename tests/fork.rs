//! Operations in the child of a `fork`, in which the threads of the parent's pools are gone. A binary of
//! its own, since few things are allowed in the child of a program with threads.
#![cfg(unix)]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use fused_dropout::prelude::*;
use fused_dropout::release_buffers;

/// Rows and columns of matrices that make several tasks.
const N: usize = 600;

/// What an operation of several tasks and a product compute.
fn work() -> Vec<u32> {
    let x: Vec<f32> = (0..N * N).map(|i| (i % 101) as f32 / 50.0 - 1.0).collect();
    let (mut y, mut z) = (vec![0.0; N * N], vec![0.0; N * N]);
    let view = MatRef::new(&x, N, N).unwrap();
    let dropout = Dropout::new(0.5).unwrap().with_key(MaskKey::new(1, 2, 3).unwrap());
    let y_view = MatMut::new(&mut y, N, N).unwrap();
    dropout_forward((view, y_view), &dropout, MaskSource::Key).unwrap();
    let args = DenseArgs::new(DenseLayer::default(), view, MatRef::new(&y, N, N).unwrap());
    dense_forward(&args, MatMut::new(&mut z, N, N).unwrap(), None, MaskSource::Key).unwrap();
    y.iter().chain(&z).map(|x| x.to_bits()).collect()
}

fn pool(threads: usize) -> rayon::ThreadPool {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap()
}

/// Forks; asserts that `f` returns true in the child, and within a minute.
#[track_caller]
fn in_a_child(f: impl FnOnce() -> bool) {
    // SAFETY: the child allocates and makes threads, which the C library allows it, and ends by
    // `_exit`, so that it never returns into the parent's code.
    let child = unsafe { libc::fork() };
    assert!(child >= 0, "fork: {}", std::io::Error::last_os_error());
    if child == 0 {
        let right = catch_unwind(AssertUnwindSafe(f)).unwrap_or(false);
        // SAFETY: ends the process.
        unsafe { libc::_exit(i32::from(!right)) };
    }
    let end = Instant::now() + Duration::from_secs(60);
    let mut status = 0;
    // SAFETY: `child` is a child of this process that was not waited for; `status` is a place for its
    // status.
    while unsafe { libc::waitpid(child, &mut status, libc::WNOHANG) } == 0 {
        if Instant::now() > end {
            // SAFETY: as above.
            unsafe { libc::kill(child, libc::SIGKILL) };
            // SAFETY: as above.
            unsafe { libc::waitpid(child, &mut status, 0) };
            panic!("the child hangs");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(status, 0, "the child's status");
}

/// One test: a `fork` beside other tests' threads would copy what they are in the middle of.
#[test]
fn operations_run_in_a_child() {
    rayon::ThreadPoolBuilder::new().num_threads(2).build_global().unwrap();
    let expected = work();

    // A thread outside of all pools: the global pool is gone.
    in_a_child(|| {
        let same = work() == expected && work() == expected;
        release_buffers();
        same
    });
    // A worker of a pool whose other worker is gone.
    pool(2).install(|| {
        assert!(work() == expected);
        in_a_child(|| work() == expected);
        assert!(work() == expected);
    });
    // A pool that the child makes: its two threads do the work. And a child of the child's.
    in_a_child(|| {
        let pool = pool(2);
        let same = pool.install(|| {
            release_buffers();
            let threads = rayon::current_num_threads();
            in_a_child(|| work() == expected);
            threads == 2 && work() == expected
        });
        in_a_child(|| work() == expected);
        same && work() == expected && pool.install(work) == expected
    });
    // The parent's pool still works.
    assert!(work() == expected);
    release_buffers();
    assert!(work() == expected);
}
