//! Configures an engine and answers its questions about the first start: the same for all instances and for the
//! oracle's fresh engine.

use kafka_scheduler::calendar::ZoneCalendar;
use kafka_scheduler::core::calendar::Calendar;
use kafka_scheduler::core::io::{Millis, TopicPartition};
use kafka_scheduler::core::origin::{self, START_MARKER_KEY};
use kafka_scheduler::core::ownership::{Ownership, RunId};
use kafka_scheduler::core::start_marker::StartMarker;
use kafka_scheduler::core::{Config, SchedulesTopic};

use crate::kafka::{Kafka, LogId};
use crate::names::{self, CLUSTER, DAY_MS, DEAD_LETTERS, HISTORY, TOPICS};
use crate::scenario::Setup;

pub(crate) fn calendar() -> Box<dyn Calendar> {
    Box::new(ZoneCalendar::default())
}

pub(crate) fn config(number: usize, run: u64, setup: &Setup, hash_seed: u64) -> Config {
    Config {
        cluster: CLUSTER.into(),
        topics: TOPICS.iter().take(usize::from(setup.topics)).map(|topic| SchedulesTopic::new(*topic)).collect(),
        history: HISTORY.into(),
        dead_letter: setup.dead_letters.then(|| DEAD_LETTERS.to_owned()),
        group: "g".into(),
        run: RunId::parse(&format!("{number:x}a{run:x}")).expect("hexadecimal digits"),
        grace_s: setup.grace_s.map(u64::from),
        horizon_s: setup.horizon_hs.map(|hundreds| u64::from(hundreds) * 100),
        transactors: usize::from(setup.transactors),
        batch_items_max: usize::from(setup.items_max),
        batch_bytes_max: 1 << 16,
        adds_due_header: false,
        hash_seed,
    }
}

/// Returns local midnight before a time, moved back by the days of `SINCE_DELTA`.
pub(crate) fn leftover_cutoff_ms(at_ms: i64, setup: &Setup) -> i64 {
    at_ms.div_euclid(DAY_MS) * DAY_MS - i64::from(setup.since_days) * DAY_MS
}

/// Returns every `since` that the group's metadata has for a topic.
pub(crate) fn committed_since(kafka: &Kafka, topic: u16) -> Vec<Millis> {
    let committed = kafka.committed.iter().filter(|(partition, _)| partition.topic == topic);
    committed.filter_map(|(_, (_, metadata))| Ownership::decode(metadata.as_bytes())?.since).collect()
}

/// Returns the earliest `since` in the group's metadata or, if there is none, in the start markers of the topic's
/// partitions that are not in `known`.
pub(crate) fn since_of(kafka: &Kafka, partitions: &[TopicPartition], topic: u16, known: &[i32]) -> Option<Millis> {
    let mut since = committed_since(kafka, topic);
    if since.is_empty() {
        let unknown = |p: &&TopicPartition| p.topic == topic && !known.contains(&p.number);
        for partition in partitions.iter().filter(unknown) {
            let hash = origin::partition_hash(CLUSTER, names::topic(*partition), partition.number);
            let (found, _) = kafka.log(LogId::Schedules(*partition)).read_uncommitted(0, usize::MAX);
            let start_markers = found.into_iter().filter(|(_, s)| s.key.as_deref() == Some(START_MARKER_KEY));
            since
                .extend(start_markers.filter_map(|(_, s)| Some(StartMarker::decode(s.value.as_deref()?, hash)?.since)));
        }
    }
    since.into_iter().min()
}
