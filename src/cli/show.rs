//! `show`

use std::io::Write;

use super::args::{self, KeyArgs};
use super::entry::{Entry, Rules, date, shown};
use super::failure::Failure;
use super::find;
use super::fold::Pending;
use super::line::Line;
use super::link::Link;
use super::topics_of;
use crate::config::Config;
use crate::core::io::Header;

const AFTER: &str = "\
Examples:
  kafka-scheduler show reminder-17
  kafka-scheduler show reminder-17 --json";

#[derive(Debug, clap::Args)]
#[command(after_help = AFTER)]
pub struct Args {
    #[command(flatten)]
    key: KeyArgs,
    /// The schedules topic; otherwise all of SCHEDULES_TOPICS are looked at
    #[arg(long, value_parser = args::topic)]
    topic: Option<String>,
    /// As a line of JSON that `import` takes, with the whole value
    #[arg(long)]
    json: bool,
}

pub fn run(config: Config, args: &Args) -> Result<(), Failure> {
    let key = args.key.bytes()?;
    let topics = topics_of(&config, args.topic.as_ref());
    let rules = Rules::new(&config);
    let link = Link::new(config)?;
    link.fix_ends(&topics)?;
    let mut out = std::io::stdout().lock();
    let mut found = 0;
    for topic in &topics {
        found += find::each(&link, topic, &key, |word| {
            if args.json {
                let line = serde_json::to_string(&Line::of(topic, word)).map_err(|e| Failure::new(e.to_string()))?;
                return Ok(writeln!(out, "{line}")?);
            }
            Ok(out.write_all(text(topic, &rules, word).as_bytes())?)
        })?;
    }
    if found == 0 {
        let topics = topics.join(", ");
        return Err(Failure::nothing(format!("nothing is pending for the key {} in {topics}", shown(&key))));
    }
    Ok(())
}

fn text(topic: &str, rules: &Rules, word: &Pending<'_>) -> String {
    let mut lines = vec![
        ("key", shown(word.key)),
        ("lies in", format!("{topic}, partition {}, offset {}", word.partition, word.offset)),
        ("written", date(u64::try_from(word.timestamp.0.div_euclid(1000)).unwrap_or(0))),
    ];
    match Entry::of(topic, rules, word) {
        Ok(entry) => {
            lines.push(("due", date(entry.due_s)));
            lines.extend(entry.warning().map(|warning| ("warning", warning.to_owned())));
            lines.extend([
                ("target topic", entry.target),
                ("target key", entry.target_key.as_deref().map_or("null".into(), shown)),
            ]);
        }
        Err(reason) => lines.push(("cannot fire", format!("{}: {}", reason.code(), reason.detail()))),
    }
    let value = |header: &Header<'_>| header.value.map_or("null".into(), shown);
    let headers = word.headers.iter().filter(|header| !header.name.starts_with(b"scheduler-"));
    lines.extend(headers.map(|header| ("header", format!("{} = {}", shown(header.name), value(header)))));
    lines.push(("value", format!("{} ({} bytes)", shown(word.value), word.value.len())));
    lines.iter().map(|(name, text)| format!("{name:<12}  {text}\n")).collect()
}
