//! What librdkafka says, as log lines: each trouble once, until things are well again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel as Level;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::producer::{DeliveryResult, ProducerContext};

use crate::handle::board::Board;
use crate::observe::statistics;

/// Shared by all clients of the engine, so that each of them does not say the same.
#[derive(Debug, Default)]
pub struct Voice {
    /// The troubles that have been told, a bit each.
    told: AtomicU32,
    /// Where clients put up how they do.
    board: Arc<Board>,
}

impl Voice {
    /// One that has said nothing.
    pub fn new(board: Arc<Board>) -> Self {
        Self { told: AtomicU32::default(), board }
    }

    /// What the group's consumer has to say beyond [`Voice::error`].
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
        self.board.reached(statistics.brokers_up > 0);
        self.board.client("consumer", statistics);
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
        let (bit, advice) = match error.rdkafka_error_code() {
            Some(Code::AllBrokersDown) => (0, "no broker answers; trying again until one does"),
            Some(Code::Authentication) => (1, "the brokers refuse the credentials; see CONFIGURATION_FILE"),
            Some(Code::SSL) => (2, "no TLS connection can be made; see CONFIGURATION_FILE"),
            Some(Code::Resolve) => (3, "a broker's name cannot be resolved; see BOOTSTRAP_SERVERS"),
            Some(Code::TopicAuthorizationFailed) => (4, "a topic may not be used: grant Describe, Read and Write"),
            Some(Code::GroupAuthorizationFailed) => (5, "the group may not be used: grant Read on GROUP_ID"),
            Some(Code::UnknownTopicOrPartition | Code::UnknownTopic) => (6, "a schedules topic is missing"),
            Some(Code::TransactionalIdAuthorizationFailed) => {
                (7, "no transaction is allowed: grant Write on transactional ids that begin with GROUP_ID")
            }
            _ => return tracing::debug!(%error, reason, "client error"),
        };
        if self.first(bit) {
            tracing::warn!(%error, reason, "{advice}");
        }
    }

    /// A topic of the engine's own refuses records.
    pub fn unwritable(&self, topic: &str, code: Code) {
        if self.first(8) {
            tracing::warn!(topic, %code, "the topic takes no records; trying again until it does");
        }
    }

    /// Things work: the next trouble is news.
    pub fn well(&self) {
        if self.told.load(Ordering::Relaxed) != 0 && self.told.swap(0, Ordering::Relaxed) != 0 {
            tracing::info!("the brokers answer");
        }
    }

    fn first(&self, bit: u32) -> bool {
        self.told.fetch_or(1 << bit, Ordering::Relaxed) & (1 << bit) == 0
    }
}

/// For clients that only ask.
#[derive(Clone, Debug)]
pub struct Asking(pub Arc<Voice>);

impl ClientContext for Asking {
    fn log(&self, level: Level, facility: &str, message: &str) {
        Voice::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.0.error(&error, reason);
    }
}

impl ConsumerContext for Asking {}

impl ProducerContext for Asking {
    type DeliveryOpaque = ();

    fn delivery(&self, _: &DeliveryResult<'_>, (): ()) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trouble_is_told_once_until_things_are_well() {
        let voice = Voice::default();
        assert!(voice.first(0) && !voice.first(0) && voice.first(1));
        voice.well();
        assert!(voice.first(0));
    }
}
