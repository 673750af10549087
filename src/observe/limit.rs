//! Limits the rate of log lines of one kind.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Lines of one kind within [`WINDOW`], including the one that counts suppressed lines.
pub(super) const LINES_MAX: usize = 100;
/// A little longer than a second: a line's timestamp is taken after it was allowed.
const WINDOW: Duration = Duration::from_millis(1_010);

/// Lines of one kind: when the last ones were written, and how many were suppressed since the last count was logged.
#[derive(Debug, Default)]
pub(super) struct Limit {
    last: VecDeque<Instant>,
    suppressed: u64,
    since: Option<Instant>,
}

impl Limit {
    /// Returns whether one more line may be written.
    pub(super) fn line(&mut self, now: Instant) -> bool {
        let room = self.room(now);
        if !room {
            self.suppressed += 1;
            self.since.get_or_insert(now);
        }
        room
    }

    /// Returns how many lines were suppressed, if that count is due to be logged. The count is a line itself.
    pub(super) fn take_suppressed(&mut self, now: Instant) -> Option<u64> {
        let due = self.since.is_some_and(|since| now.saturating_duration_since(since) >= WINDOW);
        if !due || !self.room(now) {
            return None;
        }
        self.since = None;
        Some(std::mem::take(&mut self.suppressed))
    }

    fn room(&mut self, now: Instant) -> bool {
        while self.last.front().is_some_and(|at| now.saturating_duration_since(*at) >= WINDOW) {
            self.last.pop_front();
        }
        let room = self.last.len() < LINES_MAX;
        if room {
            self.last.push_back(now);
        }
        room
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_most_100_lines_a_second_and_all_others_counted() {
        let start = Instant::now();
        let mut limit = Limit::default();
        let (mut written, mut told) = (Vec::new(), 0);
        // For five seconds two lines a millisecond, then quiet.
        for ms in 0..7_000 {
            let now = start + Duration::from_millis(ms);
            for _ in 0..if ms < 5_000 { 2 } else { 0 } {
                if limit.line(now) {
                    written.push((ms, 1));
                }
            }
            if let Some(suppressed) = limit.take_suppressed(now) {
                told += suppressed;
                written.push((ms, 0));
            }
        }
        for (ms, _) in &written {
            let within = written.iter().filter(|(other, _)| (*ms..*ms + 1_000).contains(other)).count();
            assert!(within <= LINES_MAX, "{within} lines from {ms} ms on");
        }
        let lines: u64 = written.iter().map(|(_, line)| line).sum();
        assert_eq!(lines + told, 10_000, "each is written or counted");
        assert!(lines > 400 && written.len() as u64 - lines <= 6, "{lines} lines of {}", written.len());
    }

    #[test]
    fn suppressed_lines_are_counted_once() {
        let start = Instant::now();
        let mut limit = Limit::default();
        let after = |ms| start + Duration::from_millis(ms);
        assert_eq!((0..1_000).filter(|_| limit.line(start)).count(), LINES_MAX);
        assert_eq!(limit.take_suppressed(after(500)), None);
        assert_eq!(limit.take_suppressed(after(1_010)), Some(900));
        assert_eq!(limit.take_suppressed(after(3_000)), None);
    }
}
