//! Shows on standard error how far the training is: a bar on a terminal, else a line every 10 %.

use std::io::{IsTerminal, stderr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{HumanDuration, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::report::count;

#[cfg(test)]
mod tests;

pub(crate) struct Progress {
    start: Instant,
    total: u64,
    display: Display,
}

enum Display {
    Bar(ProgressBar),
    /// The number of epochs done.
    Lines(Mutex<u64>),
}

impl Progress {
    /// Of so many epochs of all runs, some of which may be done before.
    pub(crate) fn new(total: u64, done: u64) -> Self {
        let display = if stderr().is_terminal() {
            let bar = bar(total, done, ProgressDrawTarget::stderr());
            bar.enable_steady_tick(Duration::from_millis(200));
            Display::Bar(bar)
        } else {
            Display::Lines(Mutex::new(done))
        };
        Self { start: Instant::now(), total, display }
    }

    /// One epoch of one run is done.
    pub(crate) fn step(&self) {
        match &self.display {
            Display::Bar(bar) => bar.inc(1),
            Display::Lines(done) => {
                // Printed under the lock, so that lines of two threads stay in order.
                let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
                let before = *done * 10 / self.total;
                *done += 1;
                let after = *done * 10 / self.total;
                if after > before {
                    eprintln!("{}", progress_line(after, self.start.elapsed()));
                }
            }
        }
    }

    /// Says a line that has to do with a run.
    pub(crate) fn say(&self, line: &str) {
        match &self.display {
            Display::Bar(bar) => bar.suspend(|| eprintln!("{line}")),
            Display::Lines(_) => eprintln!("{line}"),
        }
    }

    /// All is done.
    pub(crate) fn finish(&self, runs: usize, threads: usize) {
        if let Display::Bar(bar) = &self.display {
            bar.finish_and_clear();
        }
        let elapsed = self.start.elapsed();
        let time = if elapsed < Duration::from_secs(120) {
            format!("{:.1} s", elapsed.as_secs_f64())
        } else {
            HumanDuration(elapsed).to_string()
        };
        let (runs, threads) = (count(runs as u32, "network"), count(threads as u32, "thread"));
        eprintln!("trained {runs} in {time} on {threads}");
    }
}

/// A bar of one line. It takes what the rest of the line leaves of the terminal's width.
fn bar(total: u64, done: u64, target: ProgressDrawTarget) -> ProgressBar {
    let style = ProgressStyle::with_template("training [{wide_bar}] {percent:>3} %, {eta:>3} left")
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ");
    let bar = ProgressBar::with_draw_target(Some(total), target).with_style(style);
    if done > 0 {
        bar.set_position(done);
        // What was done before took none of the time.
        bar.tick();
        bar.reset_eta();
    }
    bar
}

/// The line that stands for a bar where there is no terminal.
fn progress_line(tenths: u64, elapsed: Duration) -> String {
    format!("training: {:>3} % after {:.1} s", tenths * 10, elapsed.as_secs_f64())
}
