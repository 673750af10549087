//! Prints each firing as a line.

use std::io::Write;
use std::thread;

use crossbeam_channel::{Receiver, Sender, bounded};
use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::app::ProgramError;
use crate::core::batch::{Batch, Kind};
use crate::core::io::Millis;
use crate::handle::Observer;

/// Lines that may wait for a slow terminal; further ones are only counted.
const LINES_MAX: usize = 10_000;

/// Characters of a key or a value in a line.
const PRINTABLE_CHARS_MAX: usize = 60;

/// Prints firings, on a thread of its own: a terminal may be slow and the engine's loop must not wait for it.
pub(super) struct Firings {
    lines: Sender<String>,
    zone: TimeZone,
    skipped: u64,
}

impl Firings {
    /// Starts the thread.
    pub(super) fn start() -> Result<Self, ProgramError> {
        let (lines, waiting) = bounded(LINES_MAX);
        thread::Builder::new()
            .name("firings".into())
            .spawn(move || print(&waiting))
            .map_err(|e| ProgramError::System("the printer of firings", e))?;
        Ok(Self { lines, zone: TimeZone::system(), skipped: 0 })
    }

    fn show(&mut self, line: String) {
        if self.skipped > 0 && self.lines.try_send(format!("... {} more", self.skipped)).is_ok() {
            self.skipped = 0;
        }
        if self.lines.try_send(line).is_err() {
            self.skipped += 1;
        }
    }
}

impl Observer for Firings {
    fn fired(&mut self, batch: &Batch, at: Millis) {
        for item in &batch.items {
            let Kind::Fire { target, due, fired, .. } = &item.kind else { continue };
            let parts = batch.parts(item);
            let line = line(&self.zone, parts.key, target, fired.nominal.unwrap_or(*due).at(), parts.value, at);
            self.show(line);
        }
    }
}

fn print(lines: &Receiver<String>) {
    let mut out = std::io::stdout();
    for line in lines {
        // stdout was closed. The engine goes on.
        if writeln!(out, "{line}").is_err() {
            return;
        }
    }
}

fn line(zone: &TimeZone, key: &[u8], target: &str, due: Millis, value: &[u8], at: Millis) -> String {
    let late_ms = at.0.saturating_sub(due.0);
    // Milliseconds only if there are any.
    let due_format = if due.0 % 1_000 == 0 { "%H:%M:%S" } else { "%H:%M:%S%.3f" };
    format!(
        "{}  {} -> {target}  due {}  {late_ms} ms late  \"{}\"",
        time(zone, at.0, "%H:%M:%S%.3f"),
        printable(key),
        time(zone, due.0, due_format),
        printable(value),
    )
}

fn time(zone: &TimeZone, at_ms: i64, format: &str) -> String {
    let Ok(at) = Timestamp::from_millisecond(at_ms) else { return at_ms.to_string() };
    at.to_zoned(zone.clone()).strftime(format).to_string()
}

/// Returns bytes as text without control characters, shortened if it is long.
fn printable(bytes: &[u8]) -> String {
    // A character has at most four bytes, so this is enough for the printed part.
    let start = &bytes[..bytes.len().min(PRINTABLE_CHARS_MAX * 4 + 4)];
    let text = String::from_utf8_lossy(start);
    let mut printed: String = text.chars().take(PRINTABLE_CHARS_MAX).flat_map(char::escape_debug).collect();
    if text.chars().count() > PRINTABLE_CHARS_MAX {
        printed.push('…');
    }
    printed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_firing_in_a_line() {
        let line =
            line(&TimeZone::UTC, b"demo-5s", "mini-demo", Millis(43_205_000), b"every 5 seconds", Millis(43_205_003));
        assert_eq!(line, "12:00:05.003  demo-5s -> mini-demo  due 12:00:05  3 ms late  \"every 5 seconds\"");
    }

    #[test]
    fn text_is_short_and_has_no_control_characters() {
        assert_eq!(printable(b"\x1b[2Ja\nb\"\xff"), "\\u{1b}[2Ja\\nb\\\"\u{fffd}");
        assert_eq!(printable("é".repeat(1_000).as_bytes()), format!("{}…", "é".repeat(60)));
    }
}
