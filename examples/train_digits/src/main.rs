//! Trains a small network on handwritten digits without and with dropout, over several seeds, and
//! shows what dropout changes: a table of errors, and learning curves as an SVG picture.
//!
//! ```text
//! cargo run --release -p train-digits
//! cargo run --release -p train-digits -- --help
//! ```
//!
//! It needs no network and no arguments: 1,797 small digits are embedded. `--data FOLDER` trains on
//! MNIST, Fashion-MNIST or anything else in their format. `--compare` sets dropout beside other
//! regularisers, `--mc N` predicts with N stochastic passes. A long training is saved after each epoch by
//! `--seeds 1 --save FILE`, and goes on, once it was stopped, with `--seeds 1 --save FILE --resume FILE`.
//!
//! The calls to the library are in `train.rs`, `compare.rs`, `monte_carlo.rs` and `checkpoint.rs`; the rest
//! reads data and options and shows results.

mod checkpoint;
mod compare;
mod data;
mod idx;
mod monte_carlo;
mod options;
mod plot;
mod progress;
mod report;
mod train;

use std::io::{ErrorKind, Write};
use std::process::ExitCode;

use data::Data;
use options::Options;
use plot::Picture;
use train::Plan;

/// Exit code for anything that is wrong with the options, the data or the output file.
const FAILURE: u8 = 2;

fn main() -> ExitCode {
    let options = match options::parse() {
        Ok(options) => options,
        Err(Some(message)) => return fail(&message),
        Err(None) => return ExitCode::SUCCESS,
    };
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => fail(&message),
    }
}

fn run(options: &Options) -> Result<(), String> {
    let data = Data::load(options.data.as_deref(), options.train)?;
    let plan = Plan::new(options, &data)?;
    if options.compare {
        return compare::run(&plan, &data);
    }
    // Opened before the training, which may take long, so that a bad path is known at once.
    let picture = match &options.output {
        Some(path) => Picture::create(path)?,
        None => Picture::create_default()?,
    };

    plan.checkpoints.save_first(&plan)?;
    print(&report::heading(&plan, &data))?;
    if let Some(line) = plan.checkpoints.heading(&plan) {
        eprintln!("{line}");
    }
    if let Some(passes) = options.mc {
        print(&monte_carlo::run(plan, &data, passes, &picture)?)?;
        return print(&report::closing(&data, "Test errors", picture.path()));
    }
    let results = train::run(&plan, &data, |_, _, run| Ok(run))?;
    print(&report::table(&plan, &results))?;
    picture.draw(&plan, &results)?;
    print(&report::closing(&data, "Learning curves", picture.path()))?;
    print(&plan.checkpoints.closing())
}

/// Writes to standard output. A reader that went away, as in `train-digits | head`, is no error.
fn print(text: &str) -> Result<(), String> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(format!("cannot write to standard output: {error}"))
        }
        _ => Ok(()),
    }
}

/// Says what is wrong in one line, whatever characters a path or an argument has in it.
fn fail(message: &str) -> ExitCode {
    let mut line = String::from("error: ");
    for c in message.chars() {
        if c.is_control() { line.extend(c.escape_default()) } else { line.push(c) }
    }
    eprintln!("{line}");
    ExitCode::from(FAILURE)
}
