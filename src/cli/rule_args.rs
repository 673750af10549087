//! Arguments that say when a schedule fires, shared by `schedule` and `preview`.

use std::time::Duration;

use clap::Args;

use crate::calendar::{MomentError, UTC, ZoneCalendar, dates, moment as parse_moment, span as parse_span};
use crate::client::{Delay, Misfire, Moment, Schedule};

/// A rule by which a schedule recurs. Dates stay as their user wrote them: the engine reads them.
#[derive(Clone, Debug, Args)]
pub(super) struct RuleArgs {
    /// Recur by a cron expression: '0 9 * * MON-FRI', with seconds '30 0 9 * * *', or @daily
    #[arg(long, value_name = "EXPRESSION", value_parser = cron)]
    cron: Option<String>,
    /// Recur at an interval of 1 s or more: 90s, 10m, 1h30m, 2d or PT10M
    #[arg(long, value_name = "DURATION", value_parser = interval)]
    every: Option<Delay>,
    /// The zone of --cron and --except, such as Europe/Paris [default: UTC]
    #[arg(long, value_name = "ZONE", value_parser = zone)]
    timezone: Option<String>,
    /// No occurrence before this date; --every begins with it
    #[arg(long, value_name = "DATE", value_parser = date)]
    start: Option<String>,
    /// No occurrence after this date
    #[arg(long, value_name = "DATE", value_parser = date)]
    until: Option<String>,
    /// The number of occurrences
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// No occurrence on these dates: 2027-12-25,2028-01-01
    #[arg(long, value_name = "DATES", value_parser = days)]
    except: Option<String>,
}

impl RuleArgs {
    /// Adds the rule to a schedule, if there is one, and its options.
    pub(super) fn apply(&self, mut schedule: Schedule) -> Schedule {
        if let Some(expression) = &self.cron {
            schedule = schedule.cron(expression);
        }
        if let Some(interval) = self.every {
            schedule = schedule.every(interval);
        }
        if let Some(zone) = &self.timezone {
            schedule = schedule.timezone(zone);
        }
        if let Some(date) = &self.start {
            schedule = schedule.start(date);
        }
        if let Some(date) = &self.until {
            schedule = schedule.until(date);
        }
        if let Some(count) = self.count {
            schedule = schedule.count(count);
        }
        if let Some(dates) = &self.except {
            schedule = schedule.except(dates);
        }
        schedule
    }
}

/// When a schedule is too late to fire.
#[derive(Clone, Debug)]
pub(super) enum Expiry {
    After(Delay),
    At(String),
}

fn cron(text: &str) -> Result<String, String> {
    ZoneCalendar::default().cron(text, UTC).map(|_| text.to_owned()).map_err(|e| e.to_string())
}

fn zone(text: &str) -> Result<String, String> {
    ZoneCalendar::default().cron("@daily", text).map(|_| text.to_owned()).map_err(|e| e.to_string())
}

fn days(text: &str) -> Result<String, String> {
    dates(text).map(|_| text.to_owned()).map_err(|e| e.to_string())
}

fn interval(text: &str) -> Result<Delay, String> {
    match parse_span(text) {
        Ok(ms) if ms < crate::calendar::INTERVAL_MS_MIN => Err("must be 1 second or more".into()),
        _ => span(text),
    }
}

/// Parses a duration of a fixed length.
pub(super) fn span(text: &str) -> Result<Delay, String> {
    let ms = parse_span(text).map_err(|e| e.to_string())?;
    // It is not negative.
    Ok(Duration::from_millis(ms.unsigned_abs()).into())
}

/// Parses a date.
pub(super) fn moment(text: &str) -> Result<Moment, String> {
    parse_moment(text).map(|at| Moment::from_epoch_ms(at.0)).map_err(|e| match e {
        MomentError::Malformed => {
            "must be a date with its zone, such as 2030-01-01T00:00:00Z or 2030-01-01T00:00:00[Europe/Berlin]".into()
        }
        _ => e.to_string(),
    })
}

fn date(text: &str) -> Result<String, String> {
    moment(text).map(|_| text.to_owned())
}

pub(super) fn misfire(text: &str) -> Result<Misfire, String> {
    match text.split_once(';').map_or((text, None), |(policy, tolerance)| (policy, Some(tolerance))) {
        ("once", None) => Ok(Misfire::Once),
        ("all", None) => Ok(Misfire::All),
        ("skip", None) => Ok(Misfire::Skip),
        ("skip", Some(tolerance)) => span(tolerance).map(Misfire::SkipAfter),
        _ => Err("must be once, skip, skip;10m or all".into()),
    }
}

pub(super) fn expiry(text: &str) -> Result<Expiry, String> {
    let after = span(text).map(Expiry::After);
    after
        .or_else(|_| date(text).map(Expiry::At))
        .map_err(|_| "must be a duration such as 10m, or a date with its zone, such as 2030-01-01T00:00:00Z".into())
}
