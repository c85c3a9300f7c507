//! The bar on a narrow terminal.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use super::*;
use indicatif::TermLike;

const COLUMNS: u16 = 40;

/// A terminal of 40 columns that keeps what is written between two moves of the cursor.
#[derive(Clone, Debug, Default)]
struct Narrow(Arc<Mutex<Vec<String>>>);

impl Narrow {
    fn with_lines<T>(&self, f: impl FnOnce(&mut Vec<String>) -> T) -> T {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn start_line(&self) -> io::Result<()> {
        self.with_lines(|lines| lines.push(String::new()));
        Ok(())
    }
}

impl TermLike for Narrow {
    fn width(&self) -> u16 {
        COLUMNS
    }

    fn move_cursor_up(&self, _: usize) -> io::Result<()> {
        self.start_line()
    }

    fn move_cursor_down(&self, _: usize) -> io::Result<()> {
        self.start_line()
    }

    fn move_cursor_right(&self, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn move_cursor_left(&self, _: usize) -> io::Result<()> {
        self.start_line()
    }

    fn write_line(&self, text: &str) -> io::Result<()> {
        self.write_str(text)?;
        self.start_line()
    }

    fn write_str(&self, text: &str) -> io::Result<()> {
        self.with_lines(|lines| match lines.last_mut() {
            Some(line) => line.push_str(text),
            None => lines.push(text.to_owned()),
        });
        Ok(())
    }

    fn clear_line(&self) -> io::Result<()> {
        self.start_line()
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }
}

/// What a terminal shows of a bar after so many of 200 steps, each of which took so long.
fn drawn(steps: u64, pace: Duration) -> String {
    let terminal = Narrow::default();
    let bar = bar(200, 0, ProgressDrawTarget::term_like(Box::new(terminal.clone())));
    bar.set_elapsed(pace * steps as u32);
    bar.set_position(steps);
    bar.tick();
    let lines = terminal.with_lines(std::mem::take);
    for line in &lines {
        assert!(line.trim_end().chars().count() <= COLUMNS.into(), "{line:?} of {lines:?}");
    }
    lines.into_iter().rfind(|line| !line.trim().is_empty()).unwrap()
}

#[test]
fn a_line_fits_40_columns_and_shows_how_far_the_training_is() {
    for (steps, percent) in [(0, "  0 %"), (1, "  0 %"), (100, " 50 %"), (200, "100 %")] {
        for pace in [1, 1000, 86_400_000].map(Duration::from_millis) {
            let line = drawn(steps, pace);
            let line = line.trim_end();
            assert!(line.starts_with("training ["), "{line}");
            assert!(line.contains(&format!("] {percent}, ")), "{line}");
            assert!(line.ends_with(" left"), "{line}");
        }
    }
    let half = drawn(100, Duration::from_secs(1));
    assert!(half.contains("=>") && half.contains("> "), "a bar that is half full: {half}");
}

/// The epochs before a checkpoint are shown as done, but not as done in no time.
#[test]
fn a_resumed_bar_starts_where_the_run_was_stopped() {
    let terminal = Narrow::default();
    let bar = bar(200, 150, ProgressDrawTarget::term_like(Box::new(terminal.clone())));
    let lines = terminal.with_lines(std::mem::take);
    assert!(lines.iter().any(|line| line.contains("]  75 %, ")), "{lines:?}");
    for _ in 0..3 {
        std::thread::sleep(Duration::from_millis(40));
        bar.inc(1);
        bar.tick();
    }
    // 47 epochs of at least 40 ms.
    assert!(bar.eta() >= Duration::from_millis(1500), "{:?} left", bar.eta());
}

#[test]
fn a_line_without_a_terminal_fits_40_columns_too() {
    let line = progress_line(10, Duration::from_secs(999_999));
    assert_eq!(line, "training: 100 % after 999999.0 s");
    assert!(line.len() <= COLUMNS.into());
}
