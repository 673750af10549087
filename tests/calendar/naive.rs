//! An independent reading of cron expressions: one moment at a time, field by field.

use jiff::ToSpan;
use jiff::civil::{Date, DateTime, Weekday};

/// Returns whether a local time matches an expression of five or six fields.
pub fn matches(expression: &str, local: DateTime) -> bool {
    let mut fields: Vec<&str> = expression.split_whitespace().collect();
    if fields.len() == 5 {
        fields.insert(0, "0");
    }
    let time =
        [(fields[0], local.second(), 0, 59), (fields[1], local.minute(), 0, 59), (fields[2], local.hour(), 0, 23)];
    let months = ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"];
    let month = names(fields[4], &months, 1);
    time.iter().all(|(field, value, min, max)| any(field, i64::from(*value), *min, *max))
        && any(&month, i64::from(local.month()), 1, 12)
        && day_matches(fields[3], fields[5], local.date())
}

fn names(field: &str, names: &[&str], first: usize) -> String {
    let numbered = names.iter().enumerate();
    numbered.fold(field.to_owned(), |field, (at, name)| field.replace(name, &(at + first).to_string()))
}

fn any(field: &str, value: i64, min: i64, max: i64) -> bool {
    field.split(',').any(|item| item_matches(item, value, min, max))
}

fn item_matches(item: &str, value: i64, min: i64, max: i64) -> bool {
    let (range, step) = item.split_once('/').unwrap_or((item, "1"));
    let (from, to) = match range.split_once('-') {
        None if range == "*" => (min, max),
        None => (number(range), number(range)),
        Some((from, to)) => (number(from), number(to)),
    };
    (from..=to).contains(&value) && (value - from) % number(step) == 0
}

fn number(text: &str) -> i64 {
    text.parse().unwrap_or_else(|_| panic!("not a number: {text}"))
}

fn day_matches(of_month: &str, of_week: &str, date: Date) -> bool {
    let (both, of_week) = of_week.strip_prefix('+').map_or((false, of_week), |of_week| (true, of_week));
    let by_month = of_month.split(',').any(|item| of_month_matches(item, date));
    let of_week_numbers = names(of_week, &["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"], 0);
    let by_week = of_week_numbers.split(',').any(|item| of_week_matches(item, date));
    let free = |field| field == "*" || field == "?";
    match (free(of_month), free(of_week)) {
        (true, true) => true,
        (true, false) => by_week,
        (false, true) => by_month,
        (false, false) if both => by_month && by_week,
        (false, false) => by_month || by_week,
    }
}

fn of_month_matches(item: &str, date: Date) -> bool {
    let is_working = |date: &Date| !matches!(date.weekday(), Weekday::Saturday | Weekday::Sunday);
    match item {
        "?" => true,
        "L" => date == date.last_of_month(),
        "LW" => {
            let back = (0..31).map(|days| date.last_of_month() - days.days());
            Some(date) == back.into_iter().find(is_working)
        }
        _ => match item.strip_suffix('W') {
            None => item_matches(item, date.day().into(), 1, 31),
            Some(day) => {
                let Ok(named) = Date::new(date.year(), date.month(), number(day) as i8) else { return false };
                // The nearest working day of the same month.
                let near = [0, -1, 1, -2, 2].map(|days: i64| named + days.days());
                Some(&date) == near.iter().find(|near| near.month() == named.month() && is_working(near))
            }
        },
    }
}

fn of_week_matches(item: &str, date: Date) -> bool {
    let weekday = i64::from(date.weekday().to_sunday_zero_offset());
    let is = |day: &str| number(day) % 7 == weekday;
    let last = date.day() + 7 > date.days_in_month();
    if item == "?" {
        true
    } else if let Some((day, nth)) = item.split_once('#') {
        is(day) && if nth == "L" { last } else { i64::from(date.day() - 1) / 7 + 1 == number(nth) }
    } else if let Some(day) = item.strip_suffix('L') {
        is(day) && last
    } else {
        // 7 is Sunday as well.
        item_matches(item, weekday, 0, 7) || (weekday == 0 && item_matches(item, 7, 0, 7))
    }
}
