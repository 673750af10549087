//! `/status`: the data of the status page.

use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};

use super::ask;
use super::readiness::Readiness;
use super::schedules::base64_unless_text;
use crate::core::Status;
use crate::core::io::Millis;
use crate::core::listing::Upcoming;
use crate::handle::Handle;
use crate::handle::status_board::StatusBoard;
use crate::metrics::partitions::{progress, state};
use crate::observe::activity::{Activity, Firing, LATE_MS, RecentActivity, Rejection, SECONDS_MAX};

/// The most partitions in the response; the sums count all of them.
const PARTITIONS_MAX: usize = 500;
/// The most schedules of those that fire next.
const UPCOMING_MAX: usize = 20;
/// How long to wait for the loop: the page has other things to show.
const UPCOMING_TIMEOUT: Duration = Duration::from_secs(1);

#[derive(Serialize)]
struct Partition<'a> {
    topic: &'a str,
    partition: i32,
    state: &'static str,
    progress: f64,
    pending: usize,
    overdue: usize,
    parked: usize,
    next_due: Option<u64>,
    lag: Option<u64>,
}

/// Returns the response, at this time of the engine's clock.
pub(super) async fn status(
    handle: &Handle,
    activity: &Activity,
    topics: &[String],
    hostname: &str,
    Millis(now_ms): Millis,
) -> Value {
    let board = handle.board();
    let next = tokio::time::timeout(UPCOMING_TIMEOUT, ask::upcoming(handle, UPCOMING_MAX)).await;
    let next = next.ok().and_then(Result::ok).unwrap_or_default();
    let recent = activity.recent();
    let snapshot = board.snapshot();
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "hostname": hostname,
        "now": now_ms,
        "uptime": board.uptime().as_secs(),
        "readiness": Readiness::of(board, topics),
        "loop_age": board.since_heartbeat().as_secs_f64(),
        "total": total(&snapshot.partitions),
        "partitions": partitions(board, &snapshot.partitions, topics),
        "seconds": seconds(&recent, now_ms.div_euclid(1000)),
        "lateness": { "until_ms": LATE_MS, "counts": lateness(&recent, now_ms.div_euclid(1000)) },
        "next": next.iter().map(|next| upcoming(next, topics)).collect::<Vec<_>>(),
        "firings": recent.firings.iter().map(firing).collect::<Vec<_>>(),
        "rejections": recent.rejections.iter().map(rejection).collect::<Vec<_>>(),
    })
}

fn total(partitions: &[Status]) -> Value {
    let sum = |value: fn(&Status) -> usize| partitions.iter().map(value).sum::<usize>();
    json!({
        "partitions": partitions.len(),
        "pending": sum(|status| status.pending),
        "overdue": sum(|status| status.overdue),
        "parked": sum(|status| status.parked),
        "next_due": partitions.iter().filter_map(|status| status.next_due_s).min(),
    })
}

fn partitions<'a>(board: &StatusBoard, held: &[Status], topics: &'a [String]) -> Vec<Partition<'a>> {
    let clients = board.clients();
    let consumer = clients.get("consumer");
    let shown = |status: &Status| {
        let topic = topics.get(usize::from(status.partition.topic)).map_or("", String::as_str);
        let number = status.partition.number;
        Partition {
            topic,
            partition: number,
            state: state(status.state),
            progress: progress(status),
            pending: status.pending,
            overdue: status.overdue,
            parked: status.parked,
            next_due: status.next_due_s,
            lag: consumer.and_then(|consumer| consumer.lag.get(&(topic.to_owned(), number)).copied()),
        }
    };
    held.iter().take(PARTITIONS_MAX).map(shown).collect()
}

fn seconds(recent: &RecentActivity, now_s: i64) -> Vec<Value> {
    let recent = recent.seconds.iter().filter(|second| second.at_s > now_s - SECONDS_MAX);
    recent.map(|s| json!({ "at": s.at_s, "live": s.live, "missed": s.missed, "late_max_ms": s.late_max_ms })).collect()
}

fn lateness(recent: &RecentActivity, now_s: i64) -> [u64; LATE_MS.len() + 1] {
    let mut counts = [0; LATE_MS.len() + 1];
    for second in recent.seconds.iter().filter(|second| second.at_s > now_s - SECONDS_MAX) {
        counts.iter_mut().zip(second.late).for_each(|(count, more)| *count += more);
    }
    counts
}

fn upcoming(next: &Upcoming, topics: &[String]) -> Value {
    let topic = topics.get(usize::from(next.partition.topic)).map_or("", String::as_str);
    keyed(
        &next.key,
        json!({
            "topic": topic, "partition": next.partition.number, "target": &*next.target, "due": next.due.epoch_s(),
            "due_ms": next.due.epoch_ms(), "occurrence": next.occurrence, "recurrence": next.recurrence,
        }),
    )
}

fn firing(firing: &Firing) -> Value {
    keyed(
        &firing.key,
        json!({
            "at": firing.at.0, "topic": firing.topic, "partition": firing.partition, "target": &*firing.target,
            "due": firing.due.epoch_s(), "due_ms": firing.due.epoch_ms(), "missed": firing.missed,
        }),
    )
}

fn keyed(key: &[u8], mut value: Value) -> Value {
    value["key"] = String::from_utf8_lossy(key).into();
    if let Some(base64) = base64_unless_text(key) {
        value["key_base64"] = base64.into();
    }
    value
}

fn rejection(rejection: &Rejection) -> Value {
    json!({
        "at": rejection.at.0, "topic": rejection.topic, "partition": rejection.partition, "offset": rejection.offset,
        "reason": rejection.reason, "parked": rejection.parked,
    })
}
