//! Parses the parameters of a request.

use percent_encoding::percent_decode_str;

use crate::core::io::{Cursor, TopicPartition};
use crate::core::listing::Filter;
use crate::handle::PAGE_ENTRIES_MAX;

/// Entries of a page without `limit`.
const LIMIT_DEFAULT: usize = 100;

/// The request for a page.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct PageQuery {
    /// The first entry.
    pub cursor: Cursor,
    /// The most entries.
    pub limit: usize,
    /// Selects entries.
    pub filter: Filter,
}

impl PageQuery {
    /// Parses parameters; those of `allowed` may occur, each once.
    ///
    /// # Errors
    /// If a parameter is wrong: a message for the client.
    pub(super) fn parse(query: &str, allowed: &[&str], topics: &[String]) -> Result<Self, String> {
        let mut page = Self { cursor: Cursor::default(), limit: LIMIT_DEFAULT, filter: Filter::default() };
        let mut seen: Vec<&str> = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let Some(name) = allowed.iter().find(|allowed| **allowed == name) else {
                return Err(format!("unknown parameter; the parameters are {}", allowed.join(", ")));
            };
            if seen.contains(name) {
                return Err(format!("{name} is given twice"));
            }
            seen.push(name);
            page.set(name, decode(&value.replace('+', " ")), topics)?;
        }
        Ok(page)
    }

    fn set(&mut self, name: &str, value: Vec<u8>, topics: &[String]) -> Result<(), String> {
        let text = std::str::from_utf8(&value).ok();
        match name {
            "limit" => {
                let limit =
                    text.and_then(|text| text.parse().ok()).filter(|limit| (1..=PAGE_ENTRIES_MAX).contains(limit));
                self.limit = limit.ok_or(format!("limit must be a whole number from 1 to {PAGE_ENTRIES_MAX}"))?;
            }
            "after" => {
                let cursor = text.and_then(parse_cursor).ok_or("after must be next of an earlier page")?;
                self.cursor = cursor;
            }
            "due-before" => self.filter.due_before_s = Some(seconds(name, text)?),
            // Inclusive, so windows that share a boundary have no gap and no overlap.
            "due-after" => self.filter.due_from_s = Some(seconds(name, text)?),
            "topic" => {
                let topic = text.and_then(|text| topic_index(text, topics));
                self.filter.topic = Some(topic.ok_or("topic must be one of SCHEDULES_TOPICS; see /info")?);
            }
            _ => self.filter.key_prefix = value,
        }
        Ok(())
    }
}

fn seconds(name: &str, text: Option<&str>) -> Result<u64, String> {
    let seconds = text.and_then(|text| text.parse().ok());
    seconds.ok_or(format!("{name} must be a whole number of seconds since 1970"))
}

/// Returns a schedules topic's index.
pub(super) fn topic_index(name: &str, topics: &[String]) -> Option<u16> {
    topics.iter().position(|topic| topic == name).and_then(|index| u16::try_from(index).ok())
}

/// Decodes percent signs.
pub(super) fn decode(text: &str) -> Vec<u8> {
    percent_decode_str(text).collect()
}

/// Returns a cursor as text that needs no escapes in a URL.
pub(super) fn show_cursor(cursor: Cursor) -> String {
    let TopicPartition { topic, number } = cursor.partition.unwrap_or(TopicPartition { topic: 0, number: 0 });
    let barrier = cursor.barrier.map_or(String::new(), |barrier| barrier.to_string());
    format!("{topic}.{number}.{}.{barrier}", cursor.entry)
}

fn parse_cursor(text: &str) -> Option<Cursor> {
    let mut parts = text.split('.');
    let topic = parts.next()?.parse().ok()?;
    let number = parts.next()?.parse().ok()?;
    let entry = parts.next()?.parse().ok()?;
    let barrier = parts.next()?;
    let barrier = if barrier.is_empty() { None } else { Some(barrier.parse().ok()?) };
    parts.next().is_none().then_some(Cursor { partition: Some(TopicPartition { topic, number }), entry, barrier })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: &[&str] = &["limit", "after", "due-before", "due-after", "topic", "key-prefix"];

    fn parse(query: &str) -> Result<PageQuery, String> {
        PageQuery::parse(query, ALL, &["a".into(), "b".into()])
    }

    #[test]
    fn parameters_are_read() {
        let page = parse("limit=7&due-before=20&due-after=10&topic=b&key-prefix=a%2Fb+%ff%2B").expect("they are legal");
        assert_eq!(page.limit, 7);
        assert_eq!(page.filter.topic, Some(1));
        assert_eq!(
            (page.filter.due_from_s, page.filter.due_before_s),
            (Some(10), Some(20)),
            "from 10 on, and before 20"
        );
        assert_eq!(parse("due-after=0").expect("legal").filter.due_from_s, Some(0), "no schedule is due before 1970");
        assert_eq!(page.filter.key_prefix, b"a/b \xff+");
        assert_eq!(parse("topic=a").expect("legal").limit, LIMIT_DEFAULT);
    }

    #[test]
    fn errors_name_the_parameter_and_do_not_repeat_its_value() {
        for (query, message) in [
            ("limit=0", "limit must be a whole number from 1 to 1000"),
            ("limit=1001", "limit must be a whole number from 1 to 1000"),
            ("limit=<script>", "limit must be a whole number from 1 to 1000"),
            ("limit=1&limit=2", "limit is given twice"),
            ("after=1", "after must be next of an earlier page"),
            ("after=1.2.3.4.5", "after must be next of an earlier page"),
            ("due-before=-1", "due-before must be a whole number of seconds since 1970"),
            ("due-after=", "due-after must be a whole number of seconds since 1970"),
            ("topic=c", "topic must be one of SCHEDULES_TOPICS; see /info"),
            ("sort=x", "unknown parameter; the parameters are limit, after, due-before, due-after, topic, key-prefix"),
        ] {
            assert_eq!(parse(query), Err(message.to_owned()), "{query}");
        }
    }

    #[test]
    fn a_cursor_round_trips_through_text() {
        for barrier in [None, Some(12)] {
            let cursor = Cursor { partition: Some(TopicPartition { topic: 3, number: 4 }), entry: 5, barrier };
            assert_eq!(parse_cursor(&show_cursor(cursor)), Some(cursor));
        }
    }
}
