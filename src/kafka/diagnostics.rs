//! Logs the errors of Kafka clients, each once until the clients have recovered, and shows them in `/readiness`.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::config::RDKafkaLogLevel as Level;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

use crate::handle::status_board::StatusBoard;

/// For this long after a committed transaction, a client that finds no broker is ignored unless the consumer's
/// statistics agree: while brokers restart, clients lose and find them at different times.
const RECENT_COMMIT_AGE_MAX: Duration = Duration::from_secs(5);
/// How long `/readiness` shows a warning after its cause was last seen: longer than the longest retry interval of a
/// parked schedule.
const WARNING_EXPIRY: Duration = Duration::from_secs(150);
/// After this long without an answer, credentials may have been replaced: a broker that restarts is back sooner.
const UNREACHABLE_TIMEOUT: Duration = Duration::from_secs(60);
/// The name of the warning about rejected timestamps.
const CLOCK: &str = "clock";

/// An error without a line of its own is logged once it has come this often, over this long: single ones are part of
/// every broker restart.
const REPEATS_MIN: u32 = 3;
const REPEATS_SPAN_MIN: Duration = Duration::from_secs(5);
/// After this long without a repeat, an error has ended. librdkafka suppresses identical errors of a broker for 30 s.
const REPEAT_EXPIRY: Duration = Duration::from_secs(90);

/// An error that has a line of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Problem {
    NoBroker,
    Credentials,
    Tls,
    NameResolution,
    ReadNotPermitted,
    GroupNotPermitted,
    TopicMissing,
    TransactionsNotPermitted,
    OffsetsNotPermitted,
    ForeignGroupProtocol,
    SessionTimeout,
    GroupFull,
}

impl Problem {
    /// Problems that are over when the group has answered.
    const OF_THE_GROUP: [Self; 4] =
        [Self::GroupNotPermitted, Self::ForeignGroupProtocol, Self::SessionTimeout, Self::GroupFull];

    fn of(code: Code) -> Option<Self> {
        Some(match code {
            Code::AllBrokersDown => Self::NoBroker,
            Code::Authentication => Self::Credentials,
            Code::SSL => Self::Tls,
            Code::Resolve => Self::NameResolution,
            Code::TopicAuthorizationFailed => Self::ReadNotPermitted,
            Code::GroupAuthorizationFailed => Self::GroupNotPermitted,
            Code::UnknownTopicOrPartition | Code::UnknownTopic => Self::TopicMissing,
            Code::TransactionalIdAuthorizationFailed => Self::TransactionsNotPermitted,
            Code::InconsistentGroupProtocol => Self::ForeignGroupProtocol,
            Code::InvalidSessionTimeout => Self::SessionTimeout,
            Code::GroupMaxSizeReached => Self::GroupFull,
            _ => return None,
        })
    }

    /// Its name among the board's warnings, which are shown in the order of their names.
    fn warning(self) -> String {
        format!("client {:02}", self as u8)
    }
}

/// Shared by all clients of the engine, so each error is logged once, and not by each client.
#[derive(Debug, Default)]
pub(crate) struct Diagnostics {
    board: Arc<StatusBoard>,
    /// The consumer group, which is also the prefix of transactional ids.
    group: String,
    session_timeout: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Problems that the log has.
    reported: BTreeSet<Problem>,
    /// Errors without a line of their own.
    repeats: BTreeMap<String, Repeat>,
    /// When a broker last rejected a client's credentials or its TLS handshake.
    locked_out_at: Option<Instant>,
    /// Since when no broker has answered.
    unreachable_since: Option<Instant>,
    /// When a transaction was last committed, or the start-up checks passed.
    recovered_at: Option<Instant>,
    /// A topic that rejects this machine's timestamps.
    topic_rejecting_clock: Option<String>,
}

#[derive(Debug)]
struct Repeat {
    first: Instant,
    last: Instant,
    count: u32,
}

impl Diagnostics {
    pub(crate) fn new(board: Arc<StatusBoard>, group: String, session_timeout: Duration) -> Self {
        Self { board, group, session_timeout, state: Mutex::default() }
    }

    /// The board, on which clients also put their statistics.
    pub(crate) fn board(&self) -> &StatusBoard {
        &self.board
    }

    /// Notes whether the group's consumer has a broker that answers.
    pub(crate) fn on_reachability(&self, is_reachable: bool) {
        self.board.reached(is_reachable);
        if !is_reachable && self.is_new(Problem::NoBroker) {
            tracing::warn!("{}", self.advice(Problem::NoBroker));
        }
    }

    /// Logs a line of librdkafka's. It carries no payload; it can be frequent while brokers are away.
    pub(crate) fn log(level: Level, facility: &str, message: &str) {
        if matches!(level, Level::Emerg | Level::Alert | Level::Critical) {
            tracing::error!(facility, message);
        } else {
            tracing::debug!(facility, message);
        }
    }

    /// Notes an error of the group's consumer, beside [`Diagnostics::on_error`].
    pub(crate) fn on_consumer_error(&self, error: &KafkaError) {
        if error.rdkafka_error_code() == Some(Code::AllBrokersDown) {
            self.board.reached(false);
        }
    }

    /// Notes an error that concerns a whole client.
    pub(crate) fn on_error(&self, error: &KafkaError, reason: &str) {
        let code = match error.rdkafka_error_code() {
            // A broker that rejects our certificate says so after the handshake, in an alert of TLS 1.3.
            Some(Code::BrokerTransportFailure) if reason.contains(" alert ") => Some(Code::SSL),
            code => code,
        };
        if matches!(code, Some(Code::Authentication | Code::SSL)) {
            self.lock().locked_out_at = Some(Instant::now());
        }
        let Some(problem) = code.and_then(Problem::of) else {
            let what = code.map_or("a Kafka client fails".into(), |code| format!("a Kafka client reports {code:?}"));
            return self.on_failure(&what, &reason);
        };
        if problem == Problem::NoBroker && self.has_committed_recently() {
            return tracing::debug!(%error, reason, "client error");
        }
        let advice = self.advice(problem);
        if self.report(problem, &advice) {
            tracing::warn!(%error, reason, "{advice}");
        }
    }

    fn advice(&self, problem: Problem) -> Cow<'static, str> {
        let group = &self.group;
        match problem {
            Problem::NoBroker => "no broker answers; trying again until one does".into(),
            Problem::Credentials => "the brokers reject the credentials; see CONFIGURATION_FILE".into(),
            Problem::Tls => "no TLS connection can be made; see CONFIGURATION_FILE".into(),
            Problem::NameResolution => "a broker's name cannot be resolved; see BOOTSTRAP_SERVERS".into(),
            Problem::ReadNotPermitted => {
                "reading a schedules topic is not permitted: grant Read on each of SCHEDULES_TOPICS".into()
            }
            Problem::GroupNotPermitted => {
                format!("using the group is not permitted: grant Read on the group {group:?}").into()
            }
            Problem::TopicMissing => "a schedules topic is missing".into(),
            Problem::TransactionsNotPermitted => {
                format!("transactions are not permitted: grant Write on transactional ids with the prefix \"{group}.\"")
                    .into()
            }
            Problem::OffsetsNotPermitted => {
                "committing offsets is not permitted: grant Read on each of these topics".into()
            }
            Problem::ForeignGroupProtocol => {
                "the group has members that are not kafka-scheduler: stop them, or set another GROUP_ID; trying again \
                 until they are gone"
                    .into()
            }
            Problem::SessionTimeout => format!(
                "the brokers reject SESSION_TIMEOUT ({} ms): set it to at least their group.min.session.timeout.ms \
                 (6000 by default) and at most their group.max.session.timeout.ms (1800000 by default)",
                self.session_timeout.as_millis()
            )
            .into(),
            Problem::GroupFull => {
                "the group has as many members as the brokers' group.max.size allows: raise it, or run fewer \
                 instances; trying again until there is room"
                    .into()
            }
        }
    }

    /// Notes a failed operation that will be retried. It is logged and shown in `/readiness` if it keeps failing,
    /// unless no broker answers, which is a problem of its own.
    pub(crate) fn on_failure(&self, what: &str, why: &dyn Display) {
        tracing::debug!(%why, "{what}");
        if self.board.is_unreachable() || !self.keeps_failing(what) {
            return;
        }
        if self.board.warn(what, &format!("{what} (repeated): {why}"), Some(REPEAT_EXPIRY)) {
            tracing::warn!(%why, "{what} (repeated); trying again until it works");
        }
    }

    /// Shows in `/readiness` a failure that the log already has.
    pub(crate) fn show(&self, what: &str, why: &dyn Display) {
        self.board.warn(what, &format!("{what}: {why}"), Some(REPEAT_EXPIRY));
    }

    fn keeps_failing(&self, what: &str) -> bool {
        let repeats = &mut self.lock().repeats;
        repeats.retain(|_, repeat| repeat.last.elapsed() < REPEAT_EXPIRY);
        let now = Instant::now();
        let repeat = repeats.entry(what.into()).or_insert(Repeat { first: now, last: now, count: 0 });
        (repeat.last, repeat.count) = (now, repeat.count.saturating_add(1));
        repeat.count >= REPEATS_MIN && now - repeat.first >= REPEATS_SPAN_MIN
    }

    /// Notes that one of the engine's own topics rejects records.
    pub(crate) fn on_topic_rejection(&self, topic: &str, code: Code) {
        let advice = match code {
            Code::TopicAuthorizationFailed => "grant Write on it",
            Code::InvalidRecord => {
                "check its settings: with cleanup.policy=compact it rejects records without a key, for instance"
            }
            Code::UnknownTopicOrPartition | Code::UnknownTopic => "create it",
            _ => "check its settings",
        };
        let text = format!("topic {topic:?} rejects records ({code}): {advice}; schedules wait until it accepts them");
        if self.board.warn(&format!("topic {topic}"), &text, Some(WARNING_EXPIRY)) {
            tracing::warn!(topic, %code, "the topic rejects records: {advice}; schedules wait until it accepts them");
        }
    }

    /// Notes that a topic rejects the timestamps of this machine's clock.
    pub(crate) fn on_timestamp_rejection(&self, topic: &str) {
        const TEXT: &str = "the brokers reject the timestamps of this machine's clock: correct this machine's clock, \
                            or theirs. If both are right, raise message.timestamp.after.max.ms and \
                            message.timestamp.before.max.ms of the topic. Schedules wait until then";
        self.lock().topic_rejecting_clock = Some(topic.to_owned());
        if self.board.warn(CLOCK, &format!("topic {topic:?}: {TEXT}"), Some(WARNING_EXPIRY)) {
            tracing::warn!(topic, "{TEXT}");
        }
    }

    /// Notes accepted records. `has_accepted` returns whether a topic is among those that have accepted them.
    pub(crate) fn on_accepted(&self, has_accepted: impl FnOnce(&str) -> bool) {
        let topic = &mut self.lock().topic_rejecting_clock;
        if topic.as_deref().is_some_and(has_accepted) {
            *topic = None;
            if self.board.unwarn(CLOCK) {
                tracing::info!("the brokers accept the timestamps of this machine's clock again");
            }
        }
    }

    /// Notes that the brokers accept records more slowly than schedules become due.
    pub(crate) fn on_throughput_limit(&self) {
        const TEXT: &str = "throughput is the limit: the brokers accept records more slowly than schedules become due. \
                            Batches are made smaller until they fit; look for a produce quota (producer_byte_rate) or \
                            a slow link";
        if self.board.warn("throughput", TEXT, Some(WARNING_EXPIRY)) {
            tracing::warn!("{TEXT}");
        }
    }

    /// Notes that offsets of these schedules topics were rejected, and the transaction with them.
    pub(crate) fn on_offset_rejection(&self, topics: &[&str], error: &KafkaError) {
        match error.rdkafka_error_code() {
            Some(Code::TopicAuthorizationFailed) => {
                let line = self.advice(Problem::OffsetsNotPermitted);
                if self.report(Problem::OffsetsNotPermitted, &format!("{line}: {}", topics.join(", "))) {
                    tracing::warn!(?topics, "{line}");
                }
            }
            Some(Code::GroupAuthorizationFailed) => self.on_error(error, "offsets"),
            _ => {}
        }
    }

    /// Notes that the brokers answer and transactions commit: every problem is over.
    pub(crate) fn on_recovery(&self) {
        let reported = {
            let mut state = self.lock();
            state.recovered_at = Some(Instant::now());
            std::mem::take(&mut state.reported)
        };
        if !reported.is_empty() {
            for problem in reported {
                self.board.unwarn(&problem.warning());
            }
            tracing::info!("the brokers answer");
        }
    }

    /// Notes that the group has answered.
    pub(crate) fn on_group_joined(&self) {
        for problem in Problem::OF_THE_GROUP {
            self.lock().reported.remove(&problem);
            self.board.unwarn(&problem.warning());
        }
    }

    /// Returns whether brokers reject clients' connections, as far as clients can tell: one with an expired certificate
    /// may see only connections that close.
    pub(crate) fn is_locked_out(&self) -> bool {
        let mut state = self.lock();
        let is_after_recovery = |at| state.recovered_at.is_none_or(|recovered_at| recovered_at < at);
        let is_rejected = state.locked_out_at.is_some_and(|at| at.elapsed() < REPEAT_EXPIRY && is_after_recovery(at));
        let since = self.board.is_unreachable().then(|| state.unreachable_since.unwrap_or_else(Instant::now));
        state.unreachable_since = since;
        is_rejected || since.is_some_and(|since| since.elapsed() >= UNREACHABLE_TIMEOUT)
    }

    fn has_committed_recently(&self) -> bool {
        self.lock().recovered_at.is_some_and(|at| at.elapsed() < RECENT_COMMIT_AGE_MAX)
    }

    /// Shows a problem in `/readiness`, which has a text of its own if no broker answers. librdkafka reports some
    /// errors only once, so the warning stays until the clients have recovered. Returns true if the log does not have
    /// it yet.
    fn report(&self, problem: Problem, text: &str) -> bool {
        if problem != Problem::NoBroker {
            self.board.warn(&problem.warning(), text, None);
        }
        self.is_new(problem)
    }

    fn is_new(&self, problem: Problem) -> bool {
        self.lock().reported.insert(problem)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_new_once_until_recovery() {
        let diagnostics = Diagnostics::default();
        let is_new = |problem| diagnostics.is_new(problem);
        assert!(is_new(Problem::NoBroker) && !is_new(Problem::NoBroker) && is_new(Problem::Credentials));
        diagnostics.on_recovery();
        assert!(is_new(Problem::NoBroker));
    }

    #[test]
    fn readiness_shows_a_problem_until_recovery() {
        let board = Arc::<StatusBoard>::default();
        let diagnostics = Diagnostics::new(Arc::clone(&board), "g".into(), Duration::from_secs(3));
        let error = |code| diagnostics.on_error(&KafkaError::Global(code), "why");
        error(Code::InvalidSessionTimeout);
        error(Code::InvalidSessionTimeout);
        error(Code::Authentication);
        let shown = board.warnings();
        assert_eq!(shown.len(), 2, "{shown:?}");
        assert!(shown.iter().any(|text| text.contains("SESSION_TIMEOUT (3000 ms)")), "{shown:?}");
        diagnostics.on_group_joined();
        assert_eq!(board.warnings(), ["the brokers reject the credentials; see CONFIGURATION_FILE"]);
        diagnostics.on_recovery();
        assert_eq!(board.warnings(), [""; 0]);
    }

    #[test]
    fn an_error_without_a_line_is_reported_if_it_repeats() {
        let board = Arc::<StatusBoard>::default();
        let diagnostics = Diagnostics::new(Arc::clone(&board), "g".into(), Duration::from_secs(6));
        let error = || diagnostics.on_error(&KafkaError::Global(Code::ClusterAuthorizationFailed), "why");
        (0..REPEATS_MIN * 2).for_each(|_| error());
        assert_eq!(board.warnings(), [""; 0], "all of them within a moment");
        for repeat in diagnostics.lock().repeats.values_mut() {
            repeat.first -= REPEATS_SPAN_MIN;
        }
        error();
        assert_eq!(board.warnings(), ["a Kafka client reports ClusterAuthorizationFailed (repeated): why"]);
    }
}
