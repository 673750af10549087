//! The headers that say when a schedule fires.

use super::super::{Delay, Header, Moment, name};
use super::ScheduleError;
use crate::core::due::EPOCH_S_MAX;
use crate::core::headers;

/// The longest span that the engine reads: 100 years of 365.25 days.
const SPAN_MS_MAX: i64 = 36_525 * 86_400_000;

/// The shortest interval of a schedule that recurs.
const INTERVAL_MS_MIN: i64 = 1_000;

/// What happens to missed occurrences of a schedule that recurs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Misfire {
    /// All of them become one firing.
    Once,
    /// They do not fire. An occurrence has been missed if it fires more than a minute late.
    Skip,
    /// They do not fire. An occurrence has been missed if it fires later than this.
    SkipAfter(Delay),
    /// Each of them fires.
    All,
}

/// How a schedule says when it fires.
#[derive(Clone, Debug)]
pub(super) enum Form {
    At(Moment),
    After(Delay),
    Delay(Delay),
    Zoned(String),
    Every(Delay),
    Cron(String),
}

#[derive(Clone, Debug)]
pub(super) enum Expiry {
    After(Delay),
    At(String),
}

#[derive(Clone, Debug, Default)]
pub(super) struct Options {
    pub(super) timezone: Option<String>,
    pub(super) start: Option<String>,
    pub(super) until: Option<String>,
    pub(super) count: Option<u64>,
    pub(super) except: Option<String>,
    pub(super) misfire: Option<Misfire>,
    pub(super) jitter: Option<Delay>,
    pub(super) expires: Option<Expiry>,
}

/// Returns the header of the form, and those of the options.
pub(super) fn headers(form: Form, options: Options, now: Moment) -> Result<(Header, Vec<Header>), ScheduleError> {
    let recurs = matches!(form, Form::Every(_) | Form::Cron(_));
    let rule_options = rule_options(&options)?;
    if let Some((header, _)) = rule_options.first().filter(|_| !recurs) {
        return Err(ScheduleError::StrayOption(header));
    }
    let mut all = rule_options;
    if let Some(jitter) = options.jitter {
        all.push((name(headers::JITTER), span(headers::JITTER, jitter)?));
    }
    match options.expires {
        Some(Expiry::After(after)) => all.push((name(headers::EXPIRES), span(headers::EXPIRES, after)?)),
        Some(Expiry::At(date)) => all.push((name(headers::EXPIRES), filled(headers::EXPIRES, date)?)),
        None => {}
    }
    let (form_name, text) = form_header(form, !all.is_empty(), now)?;
    let header = |(name, text): (&str, String)| Header::new(name, text);
    Ok((Header::new(name(form_name), text), all.into_iter().map(header).collect()))
}

/// Returns the options of schedules that recur.
fn rule_options(options: &Options) -> Result<Vec<(&'static str, String)>, ScheduleError> {
    let texts = [
        (headers::TIMEZONE, &options.timezone),
        (headers::START, &options.start),
        (headers::UNTIL, &options.until),
        (headers::EXCEPT, &options.except),
    ];
    let mut all = Vec::new();
    for (header, text) in texts {
        if let Some(text) = text {
            all.push((name(header), filled(header, text.clone())?));
        }
    }
    match options.count {
        Some(0) => return Err(ScheduleError::ZeroCount),
        count => all.extend(count.map(|count| (name(headers::COUNT), count.to_string()))),
    }
    if let Some(misfire) = options.misfire {
        let text = match misfire {
            Misfire::Once => "once".to_owned(),
            Misfire::Skip => "skip".to_owned(),
            Misfire::SkipAfter(tolerance) => format!("skip;{}", span(headers::MISFIRE, tolerance)?),
            Misfire::All => "all".to_owned(),
        };
        all.push((name(headers::MISFIRE), text));
    }
    Ok(all)
}

fn form_header(form: Form, has_options: bool, now: Moment) -> Result<(&'static [u8], String), ScheduleError> {
    Ok(match form {
        Form::At(moment) => epoch(moment, has_options, now)?,
        Form::After(delay) => epoch(now.plus(delay), has_options, now)?,
        Form::Delay(delay) => (headers::DELAY, span(headers::DELAY, delay)?),
        Form::Zoned(date) => (headers::AT, filled(headers::AT, date)?),
        Form::Every(interval) if interval.ms() < INTERVAL_MS_MIN => {
            return Err(ScheduleError::ShortInterval(interval.ms()));
        }
        Form::Every(interval) => (headers::EVERY, span(headers::EVERY, interval)?),
        Form::Cron(expression) => (headers::CRON, filled(headers::CRON, expression)?),
    })
}

/// Whole seconds without options have the form that every version of the engine reads.
fn epoch(due: Moment, has_options: bool, now: Moment) -> Result<(&'static [u8], String), ScheduleError> {
    let (due_ms, now_ms) = (due.epoch_ms(), now.epoch_ms());
    if due_ms < now_ms.max(0) {
        return Err(ScheduleError::Past { due_ms, now_ms });
    }
    if due.epoch_s().unsigned_abs() > EPOCH_S_MAX {
        return Err(ScheduleError::TooFar);
    }
    Ok(if due_ms % 1000 == 0 && !has_options {
        (headers::EPOCH, (due_ms / 1000).to_string())
    } else {
        (headers::EPOCH_MS, due_ms.to_string())
    })
}

/// Returns a span as the engine reads it, in the largest unit that fits.
fn span(header: &'static [u8], delay: Delay) -> Result<String, ScheduleError> {
    let ms = delay.ms();
    if !(0..=SPAN_MS_MAX).contains(&ms) {
        return Err(ScheduleError::BadDuration { header: name(header), ms });
    }
    let units = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)];
    let unit = units.into_iter().find(|(_, unit_ms)| ms > 0 && ms % unit_ms == 0);
    let (unit, unit_ms) = unit.unwrap_or(("ms", 1));
    Ok(format!("{}{unit}", ms / unit_ms))
}

fn filled(header: &'static [u8], text: String) -> Result<String, ScheduleError> {
    if text.trim().is_empty() { Err(ScheduleError::EmptyText(name(header))) } else { Ok(text) }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn spans_have_the_largest_unit_that_fits() {
        for (ms, text) in [
            (0, "0ms"),
            (1, "1ms"),
            (1_500, "1500ms"),
            (90_000, "90s"),
            (5_400_000, "90m"),
            (7_200_000, "2h"),
            (172_800_000, "2d"),
            (SPAN_MS_MAX as u64, "36525d"),
        ] {
            assert_eq!(span(headers::DELAY, Duration::from_millis(ms).into()), Ok(text.into()));
            #[cfg(feature = "calendar")]
            assert_eq!(crate::calendar::span(text), Ok(ms as i64));
        }
        let long = span(headers::DELAY, Duration::from_millis(SPAN_MS_MAX as u64 + 1).into());
        assert_eq!(long, Err(ScheduleError::BadDuration { header: "scheduler-delay", ms: SPAN_MS_MAX + 1 }));
    }
}
