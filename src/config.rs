//! Settings from the environment and the configuration file.

use std::collections::BTreeMap;
use std::net::SocketAddr;

/// Everything a user can set.
#[derive(Clone, Debug)]
pub struct Config {
    /// `BOOTSTRAP_SERVERS`
    pub bootstrap_servers: String,
    /// `SCHEDULES_TOPICS`: not empty, no repeats.
    pub schedules_topics: Vec<String>,
    /// `SINCE_DELTA`: 0 or less, in days.
    pub since_delta_days: i32,
    /// `GROUP_ID`
    pub group_id: String,
    /// `METRICS_HTTP_ADDR`
    pub metrics_addr: SocketAddr,
    /// `HISTORY_TOPIC`
    pub history_topic: String,
    /// `SERVER_ADDR`
    pub server_addr: SocketAddr,
    /// `SESSION_TIMEOUT`, in milliseconds.
    pub session_timeout_ms: u32,
    /// `SCHEDULE_GRACE_INTERVAL`, in seconds.
    pub grace_s: Option<u64>,
    /// `MAX_HORIZON`, in seconds.
    pub horizon_s: Option<u64>,
    /// `kafka.common.configuration` of the file: entries for librdkafka as they are.
    pub kafka_common: BTreeMap<String, String>,
    /// `kafka.producer.configuration` of the file.
    pub kafka_producer: BTreeMap<String, String>,
    /// `kafka.consumer.configuration` of the file.
    pub kafka_consumer: BTreeMap<String, String>,
}
