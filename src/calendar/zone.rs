//! Time zones, as pieces of time with one offset each.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, Offset, TimeZone, TimeZoneDatabase};

/// First second since 1970 that jiff knows, in the year -9999.
pub(super) const FIRST_S: i64 = -377_705_023_201;

/// Last second since 1970 that jiff knows, in the year 9999.
pub(super) const LAST_S: i64 = 253_402_207_200;

/// No offset from UTC is as large, in seconds.
pub(super) const OFFSET_S_MAX: i64 = 26 * 3_600;

/// A time zone of the data that is compiled in: the same on every machine.
#[derive(Clone, Debug)]
pub(super) struct Zone(TimeZone);

/// The time between two changes of a zone's offset. All values are in seconds, moments since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    /// Its first second.
    pub(super) start: i64,
    /// The first second after it.
    pub(super) end: i64,
    /// What to add to UTC for local time.
    pub(super) offset: i64,
    /// The offset just before `start`.
    pub(super) offset_before: i64,
}

impl Piece {
    /// Returns the civil seconds that the change at `start` leaves out.
    pub(super) fn gap(&self) -> Option<(i64, i64)> {
        (self.offset > self.offset_before).then(|| (self.start + self.offset_before, self.start + self.offset))
    }

    /// Returns the first civil second that did not occur just before `start` as well.
    pub(super) fn first_new(&self) -> i64 {
        self.start + self.offset.max(self.offset_before)
    }
}

impl Zone {
    /// Returns the zone of an IANA name, in upper or lower case.
    pub(super) fn find(name: &str) -> Option<Self> {
        // Never jiff's own choice of a database, which reads files of this machine.
        let zone = TimeZoneDatabase::bundled().get(name).ok()?;
        (!zone.is_unknown()).then_some(Self(zone))
    }

    /// Returns the offset at a second, clamped to those that jiff knows.
    pub(super) fn offset(&self, at_s: i64) -> i64 {
        self.0.to_offset(timestamp(at_s)).seconds().into()
    }

    /// Returns the piece that a second is in, clamped to those that jiff knows.
    pub(super) fn bounded_page(&self, at_s: i64) -> Piece {
        let at_s = at_s.clamp(FIRST_S, LAST_S);
        let end = self.0.following(timestamp(at_s)).next().map_or(LAST_S + 1, |change| change.timestamp().as_second());
        // `preceding` leaves out a change at the second itself. In the last second there is none.
        let start = self.0.preceding(timestamp(at_s + 1)).next().map(|change| change.timestamp().as_second());
        let offset = self.offset(at_s);
        let (start, offset_before) = match start {
            Some(start) if start > FIRST_S => (start, self.offset(start - 1)),
            _ => (FIRST_S, offset),
        };
        Piece { start, end, offset, offset_before }
    }

    /// Returns the moment of a local time: the first of two, and the end of the gap for a time that a gap leaves out.
    pub(super) fn moment(&self, local: DateTime) -> Option<Timestamp> {
        match self.0.to_ambiguous_timestamp(local).offset() {
            AmbiguousOffset::Unambiguous { offset } => offset.to_timestamp(local).ok(),
            AmbiguousOffset::Fold { before, .. } => before.to_timestamp(local).ok(),
            AmbiguousOffset::Gap { before, .. } => {
                let later = before.to_timestamp(local).ok()?;
                Timestamp::from_second(self.bounded_page(later.as_millisecond().div_euclid(1_000)).start).ok()
            }
        }
    }

    /// Returns whether local time has this offset at a moment.
    pub(super) fn has_offset(&self, at: Timestamp, offset: Offset) -> bool {
        self.0.to_offset(at) == offset
    }
}

fn timestamp(at_s: i64) -> Timestamp {
    let at_s = at_s.clamp(FIRST_S, LAST_S);
    Timestamp::from_second(at_s).unwrap_or(Timestamp::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limits_are_those_of_jiff() {
        assert_eq!((FIRST_S, LAST_S), (Timestamp::MIN.as_second(), Timestamp::MAX.as_second()));
    }

    #[test]
    fn only_names_of_the_zone_database_are_zones() {
        for name in ["UTC", "Etc/UTC", "Europe/Paris", "europe/paris", "America/Argentina/Buenos_Aires", "GMT"] {
            assert!(Zone::find(name).is_some(), "{name}");
        }
        for name in ["", "Local", "Etc/Unknown", "Mars/Olympus", "EST5EDT4,M3.2.0,M11.1.0", "+02:00", "Europe/Paris "] {
            assert!(Zone::find(name).is_none(), "{name}");
        }
    }

    #[test]
    fn pieces_meet_and_cover_all_time() {
        for name in ["UTC", "Europe/Paris", "Africa/Casablanca", "Australia/Lord_Howe", "Pacific/Apia", "Asia/Manila"] {
            let zone = Zone::find(name).expect(name);
            let (mut at, mut before) = (i64::MIN, None);
            while at <= LAST_S {
                let piece = zone.bounded_page(at);
                assert!(piece.end > piece.start && piece.start <= at.max(FIRST_S), "{name} {piece:?}");
                assert_eq!(zone.bounded_page(piece.end - 1), piece, "{name}");
                if let Some(before) = before.replace(piece) {
                    assert_eq!((piece.start, piece.offset_before), (before.end, before.offset), "{name}");
                }
                at = piece.end;
            }
        }
    }
}
