//! The effective configuration, with its secrets masked.

use std::collections::BTreeMap;
use std::fmt;

use super::Config;
use super::secret::{MASK, is_secret};

/// Characters shown of a value: a certificate would fill the screen.
const SHOWN_MAX: usize = 200;

/// Secrets are masked.
impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("bootstrap_servers", &self.bootstrap_servers)
            .field("schedules_topics", &self.schedules_topics)
            .field("since_delta_days", &self.since_delta_days)
            .field("group_id", &self.group_id)
            .field("metrics_addr", &self.metrics_addr)
            .field("history_topic", &self.history_topic)
            .field("dead_letter_topic", &self.dead_letter_topic)
            .field("create_topics", &self.create_topics)
            .field("create_topics_replicas", &self.create_topics_replicas)
            .field("server_addr", &self.server_addr)
            .field("session_timeout_ms", &self.session_timeout_ms)
            .field("grace_s", &self.grace_s)
            .field("horizon_s", &self.horizon_s)
            .field("memory_warn_bytes", &self.memory_warn_bytes)
            .field("state_dir", &self.state_dir)
            .field("configuration_file", &self.configuration_file)
            .field("kafka_common", &masked(&self.kafka_common))
            .field("kafka_producer", &masked(&self.kafka_producer))
            .field("kafka_consumer", &masked(&self.kafka_consumer))
            .field("rest_token", &self.rest_token)
            .finish_non_exhaustive()
    }
}

#[cfg(feature = "cli")]
impl Config {
    /// Logs the version, the settings (secrets masked), and the settings without effect.
    pub(crate) fn announce(&self) {
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"),
            bootstrap_servers = self.bootstrap_servers,
            schedules_topics = ?self.schedules_topics,
            since_delta_days = self.since_delta_days,
            group_id = self.group_id,
            metrics_addr = %self.metrics_addr,
            history_topic = self.history_topic,
            dead_letter_topic = self.dead_letter_topic,
            create_topics = self.create_topics,
            create_topics_replicas = self.create_topics_replicas,
            server_addr = %self.server_addr,
            session_timeout_ms = self.session_timeout_ms,
            grace_s = self.grace_s,
            horizon_s = self.horizon_s,
            memory_warn_bytes = self.memory_warn_bytes,
            state_dir = self.state_dir.as_deref().map(|path| tracing::field::display(path.display())),
            rest_token = self.rest_token.as_ref().map(|_| MASK),
            kafka_common = ?masked(&self.kafka_common),
            kafka_producer = ?masked(&self.kafka_producer),
            kafka_consumer = ?masked(&self.kafka_consumer),
            log_level = %tracing::level_filters::LevelFilter::current(),
            "starting"
        );
        for warning in &self.warnings {
            tracing::warn!("{warning}");
        }
    }
}

fn masked(settings: &BTreeMap<String, String>) -> BTreeMap<&str, String> {
    let shown = |name: &str, value: &str| match is_secret(name) {
        true => MASK.to_owned(),
        false if value.chars().count() > SHOWN_MAX => value.chars().take(SHOWN_MAX).chain(['…']).collect(),
        false => value.to_owned(),
    };
    settings.iter().map(|(name, value)| (name.as_str(), shown(name, value))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_masked_and_long_values_cut() {
        let settings = [("sasl.password", "hunter2"), ("client.id", "me"), ("x", &"y".repeat(300))];
        let settings = settings.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let shown = masked(&settings);
        assert_eq!(shown["sasl.password"], MASK);
        assert_eq!(shown["client.id"], "me");
        assert_eq!(shown["x"].chars().count(), SHOWN_MAX + 1);
        let config = Config::builder().librdkafka("sasl.password", "hunter2").build().expect("it is allowed");
        assert!(format!("{config:?}").contains("sasl.password") && !format!("{config:#?}").contains("hunter2"));
    }
}
