//! What librdkafka says, as log lines: each trouble once, until things are well again.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel as Level;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::producer::{DeliveryResult, ProducerContext};

use crate::handle::board::Board;
use crate::observe::statistics;

/// So long after a transaction has been committed a client that finds no broker is believed only when the consumer's
/// statistics say the same: while brokers come and go, clients lose and find them at different times.
const BELIEVED_AFTER: Duration = Duration::from_secs(5);
/// How long a warning stays in `/readiness` after its cause was last seen: longer than a parked schedule waits at most.
const WARNED: Duration = Duration::from_secs(150);
/// No answer for so long may have its cause in credentials that were replaced: a broker that restarts is back before.
const UNREACHABLE_MIN: Duration = Duration::from_secs(60);
/// The name of the warning of a wrong clock.
const CLOCK: &str = "clock";
/// Between two questions why a transaction failed.
const ASK_AGAIN: Duration = Duration::from_secs(5);

/// An error without a line of its own is told once it has come so often, over so long: single ones are part of every
/// restart of a broker.
const REPEATS_MIN: u32 = 3;
const REPEATING_MIN: Duration = Duration::from_secs(5);
/// Without a repeat for so long it is over. librdkafka holds identical errors of a broker back for 30 s.
const REPEAT_MAX: Duration = Duration::from_secs(90);
/// librdkafka reports some errors only once, so their warnings stay until things are known to be well.
const UNTIL_WELL: Duration = Duration::from_secs(365 * 86_400);

/// The bit of the trouble that no broker answers, and its line.
const NO_BROKER: u32 = 0;
const NO_BROKER_ADVICE: &str = "no broker answers; trying again until one does";
/// The bits of troubles that are over when the group has answered.
const OF_THE_GROUP: [u32; 4] = [5, 10, 11, 12];

/// Shared by all clients of the engine, so that each of them does not say the same.
#[derive(Debug, Default)]
pub struct Diagnostics {
    /// The troubles that have been told, a bit each.
    told: AtomicU32,
    /// Where clients put up how they do.
    board: Arc<Board>,
    /// The consumer group, with whose name the transactional ids begin.
    group: String,
    /// `SESSION_TIMEOUT`, in milliseconds.
    session_timeout_ms: u32,
    /// Errors without a line of their own, and how often they have come.
    repeats: Mutex<BTreeMap<String, Repeat>>,
    /// When it was last asked why a transaction failed.
    asked: Mutex<Option<Instant>>,
    /// When a broker last refused a client's credentials or its TLS.
    locked_out: Mutex<Option<Instant>>,
    /// Since when no broker has answered.
    unreachable_since: Mutex<Option<Instant>>,
    /// When a transaction was last committed.
    well: Mutex<Option<Instant>>,
    /// A topic that refuses this machine's timestamps.
    refuses_clock: Mutex<Option<String>>,
}

/// An error that has come.
#[derive(Debug)]
struct Repeat {
    first: Instant,
    last: Instant,
    count: u32,
}

impl Diagnostics {
    /// One that has said nothing.
    pub fn new(board: Arc<Board>, group: String, session_timeout_ms: u32) -> Self {
        Self { board, group, session_timeout_ms, ..Self::default() }
    }

    /// What the group's consumer has to say beyond [`Diagnostics::error`].
    pub fn consumer_error(&self, error: &KafkaError) {
        if error.rdkafka_error_code() == Some(Code::AllBrokersDown) {
            self.board.reached(false);
        }
    }

    /// A client's statistics.
    pub fn statistics(&self, client: &str, json: &[u8]) {
        if let Some(statistics) = statistics::parse(json) {
            self.board.client(client, statistics);
        }
    }

    /// The same of the group's consumer.
    pub fn consumer_statistics(&self, json: &[u8]) {
        let Some(statistics) = statistics::parse(json) else { return };
        let reached = statistics.brokers_up > 0;
        self.board.reached(reached);
        self.board.client("consumer", statistics);
        if !reached && self.first(NO_BROKER) {
            tracing::warn!("{NO_BROKER_ADVICE}");
        }
    }

    /// A line of librdkafka's log. It carries no payload; it can be frequent while brokers are away.
    pub fn log(level: Level, facility: &str, message: &str) {
        if matches!(level, Level::Emerg | Level::Alert | Level::Critical) {
            tracing::error!(facility, message);
        } else {
            tracing::debug!(facility, message);
        }
    }

    /// An error that concerns a whole client.
    pub fn error(&self, error: &KafkaError, reason: &str) {
        let code = match error.rdkafka_error_code() {
            // A broker that does not take our certificate says so after the handshake, in an alert of TLS 1.3.
            Some(Code::BrokerTransportFailure) if reason.contains(" alert ") => Some(Code::SSL),
            code => code,
        };
        if matches!(code, Some(Code::Authentication | Code::SSL)) {
            *self.locked_out.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        }
        let group = &self.group;
        let (for_group, for_ids, for_session);
        let (bit, advice) = match code {
            Some(Code::AllBrokersDown) if self.was_well() => return tracing::debug!(%error, reason, "client error"),
            Some(Code::AllBrokersDown) => (NO_BROKER, NO_BROKER_ADVICE),
            Some(Code::Authentication) => (1, "the brokers refuse the credentials; see CONFIGURATION_FILE"),
            Some(Code::SSL) => (2, "no TLS connection can be made; see CONFIGURATION_FILE"),
            Some(Code::Resolve) => (3, "a broker's name cannot be resolved; see BOOTSTRAP_SERVERS"),
            Some(Code::TopicAuthorizationFailed) => {
                (4, "a schedules topic may not be read: grant Read on each of SCHEDULES_TOPICS")
            }
            Some(Code::GroupAuthorizationFailed) => {
                for_group = format!("the group may not be used: grant Read on the group {group:?}");
                (5, for_group.as_str())
            }
            Some(Code::InconsistentGroupProtocol) => (
                10,
                "the group has members that are no kafka-scheduler: stop them, or set another GROUP_ID; trying again \
                 until they are gone",
            ),
            Some(Code::InvalidSessionTimeout) => {
                for_session = format!(
                    "the brokers refuse SESSION_TIMEOUT ({} ms): set it to at least their group.min.session.timeout.ms \
                     (6000 by default) and at most their group.max.session.timeout.ms (1800000 by default)",
                    self.session_timeout_ms
                );
                (11, for_session.as_str())
            }
            Some(Code::GroupMaxSizeReached) => (
                12,
                "the group has as many members as the brokers' group.max.size allows: raise it, or run fewer instances; \
                 trying again until there is room",
            ),
            Some(Code::UnknownTopicOrPartition | Code::UnknownTopic) => (6, "a schedules topic is missing"),
            Some(Code::TransactionalIdAuthorizationFailed) => {
                for_ids =
                    format!("no transaction is allowed: grant Write on transactional ids with the prefix \"{group}.\"");
                (7, for_ids.as_str())
            }
            code => {
                let what =
                    code.map_or("a Kafka client fails".into(), |code| format!("a Kafka client reports {code:?}"));
                return self.failing(&what, &reason);
            }
        };
        if self.news(bit, advice) {
            tracing::warn!(%error, reason, "{advice}");
        }
    }

    /// Something has failed and will be tried again. The log and readiness learn of it when it keeps failing; while no
    /// broker answers, they know why.
    pub fn failing(&self, what: &str, why: &dyn Display) {
        tracing::debug!(%why, "{what}");
        if self.board.is_unreachable() || !self.comes_back(what) {
            return;
        }
        if self.board.warn(what, &format!("{what} (repeated): {why}"), REPEAT_MAX) {
            tracing::warn!(%why, "{what} (repeated); trying again until it works");
        }
    }

    /// Shows in readiness what the log has been told.
    pub fn show(&self, what: &str, why: &dyn Display) {
        self.board.warn(what, &format!("{what}: {why}"), REPEAT_MAX);
    }

    fn comes_back(&self, what: &str) -> bool {
        let mut repeats = self.repeats.lock().unwrap_or_else(PoisonError::into_inner);
        repeats.retain(|_, repeat| repeat.last.elapsed() < REPEAT_MAX);
        let now = Instant::now();
        let repeat = repeats.entry(what.into()).or_insert(Repeat { first: now, last: now, count: 0 });
        (repeat.last, repeat.count) = (now, repeat.count.saturating_add(1));
        repeat.count >= REPEATS_MIN && now - repeat.first >= REPEATING_MIN
    }

    /// A topic of the engine's own refuses records.
    pub fn unwritable(&self, topic: &str, code: Code) {
        let advice = match code {
            Code::TopicAuthorizationFailed => "grant Write on it",
            Code::InvalidRecord => {
                "check its settings: with cleanup.policy=compact it refuses records without a key, for instance"
            }
            Code::UnknownTopicOrPartition | Code::UnknownTopic => "create it",
            _ => "check its settings",
        };
        let text = format!("topic {topic:?} refuses records ({code}): {advice}; schedules wait until it takes them");
        if self.board.warn(&format!("topic {topic}"), &text, WARNED) {
            tracing::warn!(topic, %code, "the topic refuses records: {advice}; schedules wait until it takes them");
        }
    }

    /// A topic refuses the timestamps that this machine's clock gives.
    pub fn wrong_clock(&self, topic: &str) {
        const TEXT: &str = "the brokers refuse the timestamps of this machine's clock: set the clock of this machine, or \
                            theirs, right. If both are, raise message.timestamp.after.max.ms and \
                            message.timestamp.before.max.ms of the topic. Schedules wait until then";
        *self.refuses_clock.lock().unwrap_or_else(PoisonError::into_inner) = Some(topic.to_owned());
        if self.board.warn(CLOCK, &format!("topic {topic:?}: {TEXT}"), WARNED) {
            tracing::warn!(topic, "{TEXT}");
        }
    }

    /// Records were written; `has_written` says whether to this topic.
    pub fn written(&self, has_written: impl FnOnce(&str) -> bool) {
        let mut topic = self.refuses_clock.lock().unwrap_or_else(PoisonError::into_inner);
        if topic.as_deref().is_some_and(has_written) {
            *topic = None;
            if self.board.unwarn(CLOCK) {
                tracing::info!("the brokers take the timestamps of this machine's clock again");
            }
        }
    }

    /// The brokers take records, but more slowly than schedules are due.
    pub fn throughput(&self) {
        const TEXT: &str = "throughput is the limit: the brokers take records more slowly than schedules are due. Batches \
                            are made smaller until they fit; look for a produce quota (producer_byte_rate) or a slow link";
        if self.board.warn("throughput", TEXT, WARNED) {
            tracing::warn!("{TEXT}");
        }
    }

    /// Whether to ask the brokers why a transaction failed: not after each of them.
    pub fn may_ask(&self) -> bool {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let may = asked.is_none_or(|at| at.elapsed() >= ASK_AGAIN);
        if may {
            *asked = Some(Instant::now());
        }
        may
    }

    /// Offsets of these schedules topics are refused, and with them every transaction.
    pub fn unfenced(&self, topics: &[&str], error: &KafkaError) {
        match error.rdkafka_error_code() {
            Some(Code::TopicAuthorizationFailed) => {
                let line = "offsets may not be committed: grant Read on each of these topics";
                if self.news(9, &format!("{line}: {}", topics.join(", "))) {
                    tracing::warn!(?topics, "{line}");
                }
            }
            Some(Code::GroupAuthorizationFailed) => self.error(error, "offsets"),
            _ => {}
        }
    }

    /// Things work: the next trouble is news.
    pub fn well(&self) {
        *self.well.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        if self.told.load(Ordering::Relaxed) == 0 {
            return;
        }
        let told = self.told.swap(0, Ordering::Relaxed);
        if told != 0 {
            for bit in (0..u32::BITS).filter(|bit| told & (1 << bit) != 0) {
                self.board.unwarn(&name(bit));
            }
            tracing::info!("the brokers answer");
        }
    }

    /// The group has answered: its next trouble is news.
    pub fn joined(&self) {
        for bit in OF_THE_GROUP {
            self.told.fetch_and(!(1 << bit), Ordering::Relaxed);
            self.board.unwarn(&name(bit));
        }
    }

    /// Whether brokers do not let clients in, as far as these can tell: one whose certificate has expired may see nothing
    /// but connections that end.
    pub fn is_locked_out(&self) -> bool {
        let refused = *self.locked_out.lock().unwrap_or_else(PoisonError::into_inner);
        let well = *self.well.lock().unwrap_or_else(PoisonError::into_inner);
        let is_refused = refused.is_some_and(|at| at.elapsed() < REPEAT_MAX && well.is_none_or(|well| well < at));
        let mut since = self.unreachable_since.lock().unwrap_or_else(PoisonError::into_inner);
        *since = self.board.is_unreachable().then(|| since.unwrap_or_else(Instant::now));
        is_refused || since.is_some_and(|since| since.elapsed() >= UNREACHABLE_MIN)
    }

    fn was_well(&self) -> bool {
        self.well.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|at| at.elapsed() < BELIEVED_AFTER)
    }

    /// Shows a trouble in readiness, which has its own words for brokers that do not answer. True if the log does not
    /// have it yet.
    fn news(&self, bit: u32, text: &str) -> bool {
        if bit != NO_BROKER {
            self.board.warn(&name(bit), text, UNTIL_WELL);
        }
        self.first(bit)
    }

    fn first(&self, bit: u32) -> bool {
        self.told.fetch_or(1 << bit, Ordering::Relaxed) & (1 << bit) == 0
    }
}

/// What the board knows a trouble by.
fn name(bit: u32) -> String {
    format!("client {bit:02}")
}

/// For clients that only ask.
#[derive(Clone, Debug)]
pub struct QueryContext(pub Arc<Diagnostics>);

impl ClientContext for QueryContext {
    fn log(&self, level: Level, facility: &str, message: &str) {
        Diagnostics::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.0.error(&error, reason);
    }
}

impl ConsumerContext for QueryContext {}

impl ProducerContext for QueryContext {
    type DeliveryOpaque = ();

    fn delivery(&self, _: &DeliveryResult<'_>, (): ()) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trouble_is_told_once_until_things_are_well() {
        let voice = Diagnostics::default();
        assert!(voice.first(0) && !voice.first(0) && voice.first(1));
        voice.well();
        assert!(voice.first(0));
    }

    #[test]
    fn readiness_shows_a_trouble_until_things_are_well() {
        let board = Arc::<Board>::default();
        let voice = Diagnostics::new(Arc::clone(&board), "g".into(), 3_000);
        let error = |code| voice.error(&KafkaError::Global(code), "why");
        error(Code::InvalidSessionTimeout);
        error(Code::InvalidSessionTimeout);
        error(Code::Authentication);
        let shown = board.warnings();
        assert_eq!(shown.len(), 2, "{shown:?}");
        assert!(shown.iter().any(|text| text.contains("SESSION_TIMEOUT (3000 ms)")), "{shown:?}");
        voice.joined();
        assert_eq!(board.warnings(), ["the brokers refuse the credentials; see CONFIGURATION_FILE"]);
        voice.well();
        assert_eq!(board.warnings(), [""; 0]);
    }

    #[test]
    fn any_other_error_is_told_when_it_keeps_coming_back() {
        let board = Arc::<Board>::default();
        let voice = Diagnostics::new(Arc::clone(&board), "g".into(), 6_000);
        let error = || voice.error(&KafkaError::Global(Code::ClusterAuthorizationFailed), "why");
        (0..REPEATS_MIN * 2).for_each(|_| error());
        assert_eq!(board.warnings(), [""; 0], "all of it within a moment");
        for repeat in voice.repeats.lock().expect("no panic").values_mut() {
            repeat.first -= REPEATING_MIN;
        }
        error();
        assert_eq!(board.warnings(), ["a Kafka client reports ClusterAuthorizationFailed (repeated): why"]);
    }
}
