//! The progress of a long command: a bar on a terminal, otherwise a line from time to time.

use std::io::{IsTerminal, stderr};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::logging;

const LINE_INTERVAL: Duration = Duration::from_secs(2);

/// Shows the progress on stderr.
pub(super) struct Progress {
    what: &'static str,
    bar: Option<ProgressBar>,
    total: Option<u64>,
    done: u64,
    line_at: Instant,
}

impl Progress {
    /// Begins with the number of steps, if it is known.
    pub(super) fn new(what: &'static str, total: Option<u64>) -> Self {
        let bar = (stderr().is_terminal() && !logging::is_json()).then(|| {
            let template = match total {
                Some(_) => "{msg} {wide_bar} {human_pos}/{human_len} {eta}",
                None => "{msg} {human_pos} {elapsed}",
            };
            let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
            total.map_or_else(ProgressBar::no_length, ProgressBar::new).with_style(style).with_message(what)
        });
        Self { what, bar, total, done: 0, line_at: Instant::now() }
    }

    /// Counts a step.
    pub(super) fn step(&mut self) {
        self.done += 1;
        match &self.bar {
            // A step must cost little, and the bar is drawn often enough.
            Some(bar) if self.done.is_multiple_of(1_000) => bar.set_position(self.done),
            None if self.done.is_multiple_of(1_000) && self.line_at.elapsed() >= LINE_INTERVAL => {
                self.line_at = Instant::now();
                let of = self.total.map(|total| format!(" of at most {total}")).unwrap_or_default();
                logging::note(&format!("{}: {}{of}", self.what, self.done));
            }
            _ => {}
        }
    }

    /// Removes the bar.
    pub(super) fn end(self) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
    }
}
