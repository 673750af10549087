//! Moments, as dates and times with an offset or a zone.

use std::fmt;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::fmt::temporal::{Pieces, PiecesOffset, TimeZoneAnnotationKind};

use super::zone::Zone;
use crate::core::types::Millis;

/// Longer texts are refused unread.
const TEXT_BYTES_MAX: usize = 200;

/// Why a text is not a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MomentError {
    /// The text is not a date with a time.
    Malformed,
    /// It has neither an offset nor a zone, so it says nothing about which moment it is.
    NoZone,
    /// The zone in brackets is not in the zone database.
    UnknownZone,
    /// The zone never has this offset at that time.
    OffsetContradictsZone,
    /// It is a leap second.
    LeapSecond,
    /// It is outside of the years 0000 to 9999.
    OutOfRange,
}

impl fmt::Display for MomentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => {
                "not a date with a time: write one such as 2027-03-28T09:00:00+02:00, 2027-03-28T07:00:00Z or \
                 2027-03-28T09:00:00[Europe/Paris]"
            }
            Self::NoZone => "no offset and no zone: add Z, an offset such as +02:00, or a zone such as [Europe/Paris]",
            Self::UnknownZone => "the zone in brackets is unknown: write a name of the IANA database, as Europe/Paris",
            Self::OffsetContradictsZone => {
                "the zone in brackets has another offset at that time: correct the offset, or leave it out"
            }
            Self::LeapSecond => "leap seconds are not supported: write second 59, or 00 of the next minute",
            Self::OutOfRange => "not within the years 0000 to 9999",
        })
    }
}

impl std::error::Error for MomentError {}

/// Parses a date with a time, and returns it in milliseconds since 1970, finer fractions rounded up.
///
/// It has an offset (`2027-03-28T09:00:00.250+02:00`, `2027-03-28T07:00:00Z`), or a zone in brackets
/// (`2027-03-28T09:00:00[Europe/Paris]`), or both. Seconds may be left out if they are 0. A local time that a change of
/// the clocks leaves out is the end of that gap, and the first of two if it occurs twice.
///
/// # Errors
/// If the text is not such a date, has neither an offset nor a zone, or has an offset that the zone does not have at
/// that time; for leap seconds, and for zones that the compiled zone database does not know.
pub fn moment(text: &str) -> Result<Millis, MomentError> {
    let text = text.trim();
    check_shape(text)?;
    let pieces = Pieces::parse(text).map_err(|_| MomentError::Malformed)?;
    let local = pieces.date().to_datetime(pieces.time().ok_or(MomentError::Malformed)?);
    let zone = match pieces.time_zone_annotation().map(|annotation| annotation.kind()) {
        None => None,
        Some(TimeZoneAnnotationKind::Named(name)) => Some(Zone::find(name.as_str()).ok_or(MomentError::UnknownZone)?),
        Some(_) => return Err(MomentError::UnknownZone),
    };
    rounded_up(resolve(local, pieces.offset(), zone)?)
}

fn resolve(local: DateTime, offset: Option<PiecesOffset>, zone: Option<Zone>) -> Result<Timestamp, MomentError> {
    let Some(written) = offset else {
        let zone = zone.ok_or(MomentError::NoZone)?;
        return zone.moment(local).ok_or(MomentError::OutOfRange);
    };
    let offset = written.to_numeric_offset();
    let at = offset.to_timestamp(local).map_err(|_| MomentError::OutOfRange)?;
    // Z leaves the local offset open (RFC 9557), so it contradicts no zone.
    let contradicts = |zone: &Zone| !matches!(written, PiecesOffset::Zulu) && !zone.has_offset(at, offset);
    if zone.as_ref().is_some_and(contradicts) { Err(MomentError::OffsetContradictsZone) } else { Ok(at) }
}

fn rounded_up(at: Timestamp) -> Result<Millis, MomentError> {
    let ns = at.as_nanosecond();
    let ms = ns.div_euclid(1_000_000) + i128::from(ns.rem_euclid(1_000_000) > 0);
    i64::try_from(ms).map(Millis).map_err(|_| MomentError::OutOfRange)
}

/// Checks for `YYYY-MM-DDThh:mm`, and for seconds below 60 if there are any. jiff takes more forms than RFC 3339 does,
/// and turns leap seconds into second 59.
fn check_shape(text: &str) -> Result<(), MomentError> {
    if text.len() > TEXT_BYTES_MAX || !text.is_ascii() {
        return Err(MomentError::Malformed);
    }
    let bytes = text.as_bytes();
    let shape = b"0000-00-00T00:00";
    let fits = |(byte, shape): (&u8, &u8)| match shape {
        b'0' => byte.is_ascii_digit(),
        b'T' => matches!(byte, b'T' | b't' | b' '),
        other => byte == other,
    };
    if bytes.len() < shape.len() || !bytes.iter().zip(shape).all(fits) {
        return Err(MomentError::Malformed);
    }
    match &bytes[shape.len()..] {
        [] | [b'Z' | b'z' | b'+' | b'-' | b'[', ..] => Ok(()),
        [b':', b'6', b'0', ..] => Err(MomentError::LeapSecond),
        [b':', tens, ones, ..] if tens.is_ascii_digit() && ones.is_ascii_digit() => Ok(()),
        _ => Err(MomentError::Malformed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(text: &str) -> Result<i64, MomentError> {
        moment(text).map(|at| at.0)
    }

    #[test]
    fn moments_have_an_offset_or_a_zone() {
        // 07:00 UTC.
        let nine_in_paris = 1_806_217_200_000;
        for text in [
            "2027-03-28T07:00:00Z",
            "2027-03-28t07:00:00z",
            "2027-03-28 07:00Z",
            "2027-03-28T09:00:00+02:00",
            "2027-03-28T09:00:00.000000000+02:00",
            "2027-03-28T09:00:00[Europe/Paris]",
            "2027-03-28T09:00+02:00[Europe/Paris]",
            "2027-03-28T07:00:00Z[Europe/Paris]",
            "2027-03-28T09:00:00[!Europe/Paris]",
            " 2027-03-28T09:00:00[europe/paris] ",
        ] {
            assert_eq!(ms(text), Ok(nine_in_paris), "{text}");
        }
    }

    #[test]
    fn fractions_below_a_millisecond_are_rounded_up() {
        for (text, expected) in [
            ("1970-01-01T00:00:00.250Z", 250),
            ("1970-01-01T00:00:00.2500001Z", 251),
            ("1970-01-01T00:00:00.000000001Z", 1),
            ("1969-12-31T23:59:59.9990001Z", 0),
            ("1969-12-31T23:59:59.999Z", -1),
        ] {
            assert_eq!(ms(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn a_time_in_a_gap_is_its_end_and_the_first_of_two_counts() {
        for text in ["2027-03-28T02:00:00", "2027-03-28T02:30:00.5", "2027-03-28T02:59:59.999"] {
            assert_eq!(ms(&format!("{text}[Europe/Paris]")), ms("2027-03-28T01:00:00Z"), "{text}");
        }
        assert_eq!(ms("2011-12-30T12:00:00[Pacific/Apia]"), ms("2011-12-30T10:00:00Z"));
        assert_eq!(ms("2027-10-31T02:30:00[Europe/Paris]"), ms("2027-10-31T00:30:00Z"));
        assert_eq!(ms("2027-10-31T02:30:00+01:00[Europe/Paris]"), ms("2027-10-31T01:30:00Z"));
    }

    #[test]
    fn other_texts_are_errors() {
        use MomentError::{LeapSecond, Malformed, NoZone, OffsetContradictsZone, OutOfRange, UnknownZone};
        let long = format!("2027-03-28T09:00:00.{}Z", "0".repeat(TEXT_BYTES_MAX));
        for (text, error) in [
            ("", Malformed),
            ("2027-03-28", Malformed),
            ("2027-03-28Z", Malformed),
            ("20270328T090000Z", Malformed),
            ("2027-03-28T09Z", Malformed),
            ("2027-03-28T0900Z", Malformed),
            ("2027-02-29T09:00:00Z", Malformed),
            ("2027-03-28T24:00:00Z", Malformed),
            ("2027-03-28T09:00:61Z", Malformed),
            ("2027-03-28T09:00:00.Z", Malformed),
            ("2027-03-28T09:00:00.0000000001Z", Malformed),
            ("2027-03-28T09:00:00Zx", Malformed),
            ("+002027-03-28T09:00:00Z", Malformed),
            ("1806217200", Malformed),
            (long.as_str(), Malformed),
            ("2027-03-28T09:00:00", NoZone),
            ("2027-03-28T09:00", NoZone),
            ("2027-03-28T09:00:00[Mars/Olympus]", UnknownZone),
            ("2027-03-28T09:00:00[+02:00]", UnknownZone),
            ("2027-03-28T09:00:00+01:00[Europe/Paris]", OffsetContradictsZone),
            ("2027-03-28T02:30:00+01:00[Europe/Paris]", OffsetContradictsZone),
            ("2016-12-31T23:59:60Z", LeapSecond),
            ("2016-12-31T23:59:60.5+00:00[UTC]", LeapSecond),
            ("9999-12-31T23:59:59-12:00", OutOfRange),
        ] {
            assert_eq!(ms(text), Err(error), "{text}");
        }
    }
}
