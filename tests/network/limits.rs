//! Sizes that memory cannot hold are an error, and no abort: in a child process that may have little of
//! it, since a system may promise memory that it does not have.

use std::process::Command;

use fused_dropout::Error;
use fused_dropout::nn::{Mlp, MlpSpec, Prediction};

/// Set for the process that `report_of_a_child` runs in.
const CHILD: &str = "FUSED_DROPOUT_TEST_LIMITED";

/// The memory that the child process may have, in KiB: 2 GiB.
const LIMIT: usize = 2 << 20;

/// What must not fit, and its bytes at least.
fn attempts() -> Vec<(&'static str, Result<(), Error>, usize)> {
    let network = |sizes: &[usize]| Mlp::new(&MlpSpec::new(sizes)).map(drop);
    let prediction = |examples, classes| Prediction::new(examples, classes).map(drop);
    vec![
        ("the largest layer", network(&[1 << 24, 1 << 24]), 1 << 50),
        ("a large layer", network(&[1 << 15, 1 << 15]), 1 << 32),
        ("a large layer after a small one", network(&[4, 1 << 15, 1 << 15]), 1 << 32),
        ("a prediction of many classes", prediction(1 << 20, 1 << 24), 1 << 47),
        ("a prediction of many examples", prediction(1 << 28, 4), 1 << 33),
    ]
}

/// Runs in a child process whose memory is limited; does nothing in this one.
#[test]
fn report_of_a_child() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    for (what, result, least) in attempts() {
        let Err(Error::Memory { bytes }) = result else { panic!("{what}: {result:?}") };
        assert!(bytes >= least, "{what}: {bytes} bytes, not {least}");
        println!("refused: {what}");
    }
    // What fits is not refused.
    Mlp::new(&MlpSpec::new(&[100, 1000, 10])).unwrap();
    Prediction::new(1000, 10).unwrap();
}

#[test]
fn what_memory_cannot_hold_is_an_error() {
    let output = Command::new("sh")
        .args(["-c", &format!("ulimit -v {LIMIT} && exec \"$0\" \"$@\"")])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "limits::report_of_a_child", "--nocapture", "--test-threads=1"])
        .env(CHILD, "1")
        // Threads reserve addresses too.
        .env("RAYON_NUM_THREADS", "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(text.matches("refused: ").count(), 5, "{text}");
}
