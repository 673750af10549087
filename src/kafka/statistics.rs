//! The part of librdkafka's statistics that the engine shows.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::handle::status_board::ClientStatistics;

#[derive(Deserialize)]
struct Client {
    #[serde(default)]
    msg_cnt: u64,
    #[serde(default)]
    tx_bytes: u64,
    #[serde(default)]
    rx_bytes: u64,
    #[serde(default)]
    brokers: BTreeMap<String, Broker>,
    #[serde(default)]
    topics: BTreeMap<String, Topic>,
}

#[derive(Deserialize)]
struct Broker {
    #[serde(default)]
    state: String,
    #[serde(default)]
    txerrs: u64,
    #[serde(default)]
    rxerrs: u64,
    #[serde(default)]
    req_timeouts: u64,
    rtt: Option<Window>,
}

#[derive(Deserialize)]
struct Window {
    #[serde(default)]
    p99: u64,
}

#[derive(Deserialize)]
struct Topic {
    #[serde(default)]
    partitions: BTreeMap<String, Partition>,
}

#[derive(Deserialize)]
struct Partition {
    partition: i32,
    #[serde(default)]
    desired: bool,
    #[serde(default)]
    fetchq_cnt: u64,
    ls_offset: Option<i64>,
    next_offset: Option<i64>,
}

impl Partition {
    /// Offsets that were not fetched, and records that were fetched and not delivered. Not the difference of
    /// offsets: the offset after the last record delivered stays below the last stable one, because of control records.
    fn lag(&self) -> Option<u64> {
        let end = self.ls_offset.filter(|offset| *offset >= 0)?;
        let next = self.next_offset.filter(|offset| *offset >= 0)?;
        Some(u64::try_from(end.saturating_sub(next)).unwrap_or(0) + self.fetchq_cnt)
    }
}

/// Parses one of librdkafka's reports.
#[must_use]
pub(crate) fn parse(json: &[u8]) -> Option<ClientStatistics> {
    let client: Client = serde_json::from_slice(json).ok()?;
    let brokers = client.brokers.values();
    let mut lag = BTreeMap::new();
    for (name, topic) in client.topics {
        for partition in topic.partitions.values().filter(|partition| partition.desired) {
            if let Some(records) = partition.lag() {
                lag.insert((name.clone(), partition.partition), records);
            }
        }
    }
    Some(ClientStatistics {
        brokers_up: brokers.clone().filter(|broker| broker.state == "UP").count() as u64,
        request_errors: brokers.clone().map(|broker| broker.txerrs + broker.rxerrs + broker.req_timeouts).sum(),
        sent_bytes: client.tx_bytes,
        received_bytes: client.rx_bytes,
        queued_records: client.msg_cnt,
        round_trip_p99_us: brokers.filter_map(|broker| broker.rtt.as_ref().map(|rtt| rtt.p99)).max().unwrap_or(0),
        lag,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_matters_is_read_and_the_rest_is_left() {
        let json = br#"{"name": "x", "msg_cnt": 3, "tx_bytes": 10, "rx_bytes": 20, "brokers": {
            "a/1": {"state": "UP", "txerrs": 1, "rxerrs": 2, "req_timeouts": 3, "rtt": {"p99": 900, "min": 1}},
            "GroupCoordinator": {"state": "DOWN", "txerrs": 0, "rtt": {"p99": 5}}},
            "topics": {"s": {"partitions": {
                "0": {"partition": 0, "desired": true, "fetchq_cnt": 2, "ls_offset": 10, "next_offset": 7},
                "1": {"partition": 1, "desired": true, "fetchq_cnt": 0, "ls_offset": -1001, "next_offset": 0},
                "-1": {"partition": -1, "fetchq_cnt": 0, "ls_offset": 4, "next_offset": 0}}}}}"#;
        let read = parse(json).expect("statistics");
        assert_eq!((read.brokers_up, read.request_errors, read.round_trip_p99_us), (1, 6, 900));
        assert_eq!((read.queued_records, read.sent_bytes, read.received_bytes), (3, 10, 20));
        assert_eq!(read.lag.into_iter().collect::<Vec<_>>(), [(("s".to_owned(), 0), 5)]);
        assert_eq!(parse(b"no statistics"), None);
    }
}
