//! Cron expressions in a zone. All moments are whole seconds since 1970, and ranges include both ends.

use super::dates::contains;
use super::pattern::Pattern;
use super::zone::{OFFSET_S_MAX, Piece, Zone};
use crate::core::calendar::Day;

/// An expression in a zone, without the dates of `except`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cron<'a> {
    pub(super) pattern: &'a Pattern,
    pub(super) zone: &'a Zone,
    pub(super) except: &'a [Day],
}

impl Cron<'_> {
    /// Returns the first occurrence in a range.
    pub(super) fn first(self, from: i64, to: i64) -> Option<i64> {
        let mut at = from;
        while at <= to {
            // No zone is further from UTC: nothing occurs while the civil time of every zone is before this match.
            let near = self.pattern.first(at - OFFSET_S_MAX, to + OFFSET_S_MAX, self.except)?;
            at = at.max(near - OFFSET_S_MAX);
            let piece = self.zone.bounded_page(at);
            if at == piece.start && self.fires_after_gap(&piece) {
                return (at <= to).then_some(at);
            }
            let end = piece.end.min(to + 1);
            let civil = (self.civil_start(&piece, at), end + piece.offset);
            if let Some(found) = self.pattern.first(civil.0, civil.1, self.except) {
                return Some(found - piece.offset);
            }
            at = piece.end;
        }
        None
    }

    /// Returns the last occurrence in a range.
    pub(super) fn last(self, from: i64, to: i64) -> Option<i64> {
        let mut at = to;
        while at >= from {
            let near = self.pattern.last(from - OFFSET_S_MAX, at + OFFSET_S_MAX, self.except)?;
            at = at.min(near + OFFSET_S_MAX);
            let piece = self.zone.bounded_page(at);
            let start = piece.start.max(from);
            let civil = (self.civil_start(&piece, start), at + piece.offset + 1);
            if let Some(found) = self.pattern.last(civil.0, civil.1, self.except) {
                return Some(found - piece.offset);
            }
            if start == piece.start && start <= at && self.fires_after_gap(&piece) {
                return Some(start);
            }
            at = piece.start - 1;
        }
        None
    }

    /// Returns the number of occurrences in a range.
    pub(super) fn count(self, from: i64, to: i64) -> u64 {
        let (mut at, mut count) = (from, 0);
        while at <= to {
            let piece = self.zone.bounded_page(at);
            let civil = (self.civil_start(&piece, at), piece.end.min(to + 1) + piece.offset);
            count += self.pattern.count(civil.0, civil.1, self.except);
            // What a gap leaves out fires together with what occurs at its end, if anything does.
            let at_end = |start| self.pattern.count(start, start + 1, self.except) > 0;
            count += u64::from(at == piece.start && self.fires_after_gap(&piece) && !at_end(at + piece.offset));
            at = piece.end;
        }
        count
    }

    /// Returns the first civil second that counts from a moment of a piece on. In a repeated hour, an expression that
    /// names hours has fired already.
    fn civil_start(self, piece: &Piece, at: i64) -> i64 {
        let civil = at + piece.offset;
        if self.pattern.is_hourly() { civil } else { civil.max(piece.first_new()) }
    }

    /// Returns whether the gap at the start of a piece leaves out a time of an expression that names hours.
    fn fires_after_gap(self, piece: &Piece) -> bool {
        let Some((from, to)) = piece.gap().filter(|_| !self.pattern.is_hourly()) else { return false };
        let excepted = contains(self.except, to.div_euclid(super::civil::DAY_S));
        !excepted && self.pattern.first(from, to, self.except).is_some()
    }
}
