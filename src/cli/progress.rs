//! How far a long command has come: a bar on a terminal, else a line now and then.

use std::io::{IsTerminal, stderr};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::logging;

/// Between two lines.
const EVERY: Duration = Duration::from_secs(2);

/// Shows on stderr how far a command has come.
pub struct Progress {
    what: &'static str,
    bar: Option<ProgressBar>,
    total: Option<u64>,
    done: u64,
    said: Instant,
}

impl Progress {
    /// Of so many steps, if that is known.
    pub fn new(what: &'static str, total: Option<u64>) -> Self {
        let bar = (stderr().is_terminal() && !logging::is_json()).then(|| {
            let template = match total {
                Some(_) => "{msg} {wide_bar} {human_pos}/{human_len} {eta}",
                None => "{msg} {human_pos} {elapsed}",
            };
            let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
            total.map_or_else(ProgressBar::no_length, ProgressBar::new).with_style(style).with_message(what)
        });
        Self { what, bar, total, done: 0, said: Instant::now() }
    }

    /// One step more.
    pub fn step(&mut self) {
        self.done += 1;
        match &self.bar {
            // The bar draws itself often enough, and a step must cost little.
            Some(bar) if self.done.is_multiple_of(1_000) => bar.set_position(self.done),
            None if self.done.is_multiple_of(1_000) && self.said.elapsed() >= EVERY => {
                self.said = Instant::now();
                let of = self.total.map(|total| format!(" of at most {total}")).unwrap_or_default();
                logging::note(&format!("{}: {}{of}", self.what, self.done));
            }
            _ => {}
        }
    }

    /// Takes the bar away.
    pub fn end(self) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
    }
}
