//! What was measured, as JSON for other programs: with `--json FILE` an array of rows
//!
//! ```text
//! {"bench": "dense", "name": "64x1024x1024/bare", "level": "avx2", "threads": 1, "seconds": 1.2e-3, "ratio": 1.09}
//! ```
//!
//! Seconds are the smallest of a call. The ratio is the median over the rounds of the time to that of the
//! baseline: the last candidate before this one in its group that is marked as such, else the group's first.
//! The level is null where a candidate chooses its instructions itself.

use std::fmt::Write;
use std::sync::Mutex;

use super::{Label, Timings, value_of};

/// The rows so far.
static ROWS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Records a group, and writes all rows there are, so that a run that is cut short leaves what it measured.
pub(super) fn group(group: &str, labels: &[Label], timings: &Timings) {
    let Some(path) = value_of("--json") else { return };
    let mut rows = ROWS.lock().expect("no panic");
    let mut baseline = 0;
    for (i, label) in labels.iter().enumerate() {
        if label.baseline {
            baseline = i;
        }
        let name = match &*label.name {
            "" => group.to_owned(),
            name => format!("{group}/{name}"),
        };
        rows.push(format!(
            "{{\"bench\": {}, \"name\": {}, \"level\": {}, \"threads\": {}, \"seconds\": {:e}, \"ratio\": {:.4}}}",
            quoted(env!("CARGO_CRATE_NAME")),
            quoted(&name),
            label.level.map_or("null".to_owned(), |level| quoted(&level.to_string())),
            label.threads,
            timings.min(i),
            timings.ratio(i, baseline),
        ));
    }
    let text = format!("[\n{}\n]\n", rows.join(",\n"));
    std::fs::write(&path, text).unwrap_or_else(|error| panic!("--json {path}: {error}"));
}

/// A string of JSON.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c < ' ' => write!(out, "\\u{:04x}", c as u32).expect("a string takes it"),
            c => out.push(c),
        }
    }
    out + "\""
}
