//! A panic in one task reaches the caller; later calls work.

use std::panic::{AssertUnwindSafe, catch_unwind};

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
