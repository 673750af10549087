//! `preview`

use std::io::Write;

use jiff::Timestamp;
use jiff::tz::{TimeZone, TimeZoneDatabase};

use super::failure::Failure;
use super::rule_args::{self, RuleArgs};
use crate::calendar::{UTC, ZoneCalendar};
use crate::client::{Delay, Moment, Schedule};
use crate::core::calendar::{Calendar, Rule};
use crate::core::io::Millis;
use crate::core::when::{self, Spec, When};

const AFTER: &str = "\
preview computes the dates as the engine does, for a schedule that is produced at this moment, or at --from. It needs
neither Kafka nor settings. It prints each date in the zone and in UTC; exit code 4 if there is none within 100 years.

Examples:
  kafka-scheduler preview --cron '0 9 * * MON-FRI' --timezone Europe/Paris
  kafka-scheduler preview --cron '30 2 * * *' --timezone Europe/Paris --from 2027-03-27T12:00:00Z --number 3
  kafka-scheduler preview --every 36h --start 2030-01-01T00:00:00Z --count 4";

#[derive(Debug, clap::Args)]
#[command(after_help = AFTER)]
#[command(group(clap::ArgGroup::new("rule").required(true).args(["cron", "every"])))]
pub(super) struct Args {
    #[command(flatten)]
    rule: RuleArgs,
    /// Accepted, and ignored: dates are printed without the random delay
    #[arg(long, value_name = "DURATION", value_parser = rule_args::span)]
    jitter: Option<Delay>,
    /// The date at which the schedule is produced [default: now]
    #[arg(long, value_name = "DATE", value_parser = rule_args::moment)]
    from: Option<Moment>,
    /// The most dates to print
    #[arg(long, value_name = "NUMBER", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    number: u64,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let from = args.from.unwrap_or_else(Moment::now);
    let spec = spec(&args.rule, from)?;
    let calendar = ZoneCalendar::default();
    let dates = dates(&calendar, &spec, args.number);
    if dates.is_empty() {
        let text =
            "it never fires: it has no date within 100 years, or none before --until; the engine would reject it";
        return Err(Failure::problems(text));
    }
    let mut out = std::io::stdout().lock();
    let zone = zone_of(&spec);
    for at in &dates {
        writeln!(out, "{}", line(*at, &zone))?;
    }
    if dates.len() as u64 == spec.count || (dates.len() as u64) < args.number {
        writeln!(out, "no date follows")?;
    }
    Ok(())
}

/// Parses the arguments as the engine parses a schedule with this timestamp.
fn spec(rule: &RuleArgs, from: Moment) -> Result<Spec, Failure> {
    let schedule = rule.apply(Schedule::new("preview").to("preview").value(""));
    let record = schedule.build_at(from).map_err(|e| Failure::usage(e.to_string()))?;
    match when::parse(&record.raw_headers(), Millis(from.epoch_ms()), &ZoneCalendar::default()) {
        Ok(When::Recurring(spec)) => Ok(*spec),
        Ok(When::Once { .. }) => Err(Failure::usage("--cron or --every is missing: set one of them")),
        Err(reason) => Err(Failure::usage(reason.detail())),
    }
}

fn dates(calendar: &ZoneCalendar, spec: &Spec, number: u64) -> Vec<Millis> {
    let mut dates = Vec::new();
    let Some(rule) = &spec.rule else { return dates };
    let (mut after, mut until) = (spec.after, spec.first_until());
    while (dates.len() as u64) < number.min(spec.count) {
        let Some(at) = calendar.next(rule, &spec.except, after, until) else { break };
        dates.push(at);
        (after, until) = (at, spec.until);
    }
    dates
}

fn zone_of(spec: &Spec) -> TimeZone {
    let zone = match &spec.rule {
        Some(Rule::Cron { zone, .. } | Rule::Every { zone, .. }) => zone,
        None => UTC,
    };
    TimeZoneDatabase::bundled().get(zone).unwrap_or(TimeZone::UTC)
}

/// Returns a date in a zone, and in UTC if that is another one.
fn line(at: Millis, zone: &TimeZone) -> String {
    let Ok(utc) = Timestamp::from_millisecond(at.0) else { return format!("{} ms after 1970", at.0) };
    let local = utc.to_zoned(zone.clone());
    if *zone == TimeZone::UTC || zone.iana_name() == Some(UTC) {
        return format!("{}  {utc}", local.strftime("%a"));
    }
    format!("{}  {local}  {utc}", local.strftime("%a"))
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, FromArgMatches, Parser};

    use super::*;

    #[derive(Debug, Parser)]
    struct Only {
        #[command(flatten)]
        args: Args,
    }

    fn printed(args: &[&str]) -> Vec<String> {
        let matches = Only::command().try_get_matches_from([&["preview"], args].concat()).expect("arguments");
        let Only { args } = Only::from_arg_matches(&matches).expect("arguments");
        let from = args.from.expect("each test has --from");
        let spec = spec(&args.rule, from).expect("a rule");
        let zone = zone_of(&spec);
        dates(&ZoneCalendar::default(), &spec, args.number).into_iter().map(|at| line(at, &zone)).collect()
    }

    #[test]
    fn dates_follow_the_clocks_of_the_zone() {
        let args = ["--cron", "30 2 * * *", "--timezone", "Europe/Paris", "--from", "2027-03-27T12:00:00Z"];
        assert_eq!(
            printed(&[&args[..], &["--number", "2"]].concat()),
            [
                "Sun  2027-03-28T03:00:00+02:00[Europe/Paris]  2027-03-28T01:00:00Z",
                "Mon  2027-03-29T02:30:00+02:00[Europe/Paris]  2027-03-29T00:30:00Z",
            ]
        );
    }

    #[test]
    fn intervals_count_from_the_record_and_end() {
        let from = ["--from", "2030-01-01T00:00:00.5Z", "--jitter", "1m"];
        let every = |more: &[&str]| printed(&[&from[..], &["--every", "36h"], more].concat());
        assert_eq!(every(&["--count", "2"]), ["Wed  2030-01-02T12:00:00.5Z", "Fri  2030-01-04T00:00:00.5Z"]);
        assert_eq!(every(&["--until", "2030-01-03T00:00:00Z"]), ["Wed  2030-01-02T12:00:00.5Z"]);
        assert_eq!(printed(&[&from[..], &["--cron", "0 0 30 2 *"]].concat()), [""; 0]);
    }
}
