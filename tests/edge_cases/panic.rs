//! A panic in one task reaches the caller, and later calls work; a thread that is about to end can call
//! operations without a panic.

use std::cell::OnceCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Sender, channel};

use fused_dropout::{Activation, Level, testing};

use crate::Layer;
use crate::common::{bits, with_threads};

/// A panic of the caller's own task beside an operation reaches the caller, and neither the forced
/// level nor any buffer suffers.
#[test]
fn after_a_panic_later_calls_work() {
    let layer = Layer::new(Activation::Gelu, 0.4, Some(0.3));
    let expected = layer.run();
    with_threads(2, || {
        for _ in 0..20 {
            let beside = || rayon::join(|| layer.run(), || panic!("planned"));
            let caught = catch_unwind(AssertUnwindSafe(beside));
            assert_eq!(caught.unwrap_err().downcast_ref(), Some(&"planned"));
            assert_eq!(
                layer.run().each_ref().map(|v| bits(v)),
                expected.each_ref().map(|v| bits(v))
            );
        }
    });
    let before = Level::current().unwrap();
    let caught = catch_unwind(|| testing::at_level(Level::Portable, || panic!("planned")));
    assert!(caught.is_err());
    assert_eq!(Level::current(), Ok(before), "the level of the outer code is back");
}

thread_local! {
    /// Runs a layer when the thread ends.
    static AT_THE_END: OnceCell<AtTheEnd> = const { OnceCell::new() };
}

struct AtTheEnd(Sender<Vec<Vec<u32>>>);

impl Drop for AtTheEnd {
    fn drop(&mut self) {
        self.0.send(results()).unwrap();
    }
}

fn results() -> Vec<Vec<u32>> {
    Layer::new(Activation::Gelu, 0.4, Some(0.3)).run().iter().map(|v| bits(v)).collect()
}

/// Destructors of thread-locals call operations when the memory that the thread keeps for them, whose
/// destructor is one of these, may be gone already, or may not.
#[test]
fn operations_work_in_a_destructor_at_the_end_of_a_thread() {
    let expected = results();
    for (before, in_a_pool) in [(true, false), (false, false), (true, true), (false, true)] {
        let (send, receive) = channel();
        let run = || {
            if before {
                results();
            }
            AT_THE_END.with(|cell| cell.set(AtTheEnd(send)).is_ok());
            results()
        };
        let got = match in_a_pool {
            true => with_threads(1, run),
            false => std::thread::scope(|scope| scope.spawn(run).join().unwrap()),
        };
        assert!(got == expected && receive.recv().unwrap() == expected);
    }
}
