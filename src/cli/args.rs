//! Arguments of several commands.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use clap::{Args, ValueEnum};

use super::failure::Failure;
use crate::config::is_topic;
use crate::kafka::publish::Placement;

/// The key that a command is about.
#[derive(Clone, Debug, Args)]
pub(super) struct KeyArgs {
    /// The schedule's key
    #[arg(value_name = "KEY")]
    key: String,
    /// KEY is in base64, for keys that are not text
    #[arg(long)]
    base64: bool,
}

impl KeyArgs {
    /// Returns the key's bytes.
    pub(super) fn bytes(&self) -> Result<Vec<u8>, Failure> {
        decode("KEY", &self.key, self.base64)
    }
}

/// Returns the bytes of an argument: its text, or what that encodes in base64.
pub(super) fn decode(argument: &str, text: &str, base64: bool) -> Result<Vec<u8>, Failure> {
    if !base64 {
        return Ok(text.as_bytes().to_vec());
    }
    BASE64_STANDARD
        .decode(text)
        .map_err(|e| Failure::usage(format!("{argument} is {text:?}, but must be base64 (--base64 was given): {e}")))
}

/// librdkafka's partitioners.
#[derive(Clone, Copy, Debug, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(super) enum Partitioner {
    /// By CRC32 of the key
    Consistent,
    /// By CRC32 of the key; librdkafka's own default
    ConsistentRandom,
    /// By murmur2 of the key
    Murmur2,
    /// By murmur2 of the key, as Java producers do
    Murmur2Random,
    /// By FNV-1a of the key
    #[value(name = "fnv1a")]
    Fnv1a,
    /// By FNV-1a of the key, as Sarama does
    #[value(name = "fnv1a_random")]
    Fnv1aRandom,
    /// At random
    Random,
}

impl Partitioner {
    /// Returns librdkafka's name.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Consistent => "consistent",
            Self::ConsistentRandom => "consistent_random",
            Self::Murmur2 => "murmur2",
            Self::Murmur2Random => "murmur2_random",
            Self::Fnv1a => "fnv1a",
            Self::Fnv1aRandom => "fnv1a_random",
            Self::Random => "random",
        }
    }
}

/// Returns the placement that `--partition` selects. A command may read for as long as the topic takes.
pub(super) fn placement(partition: Option<i32>) -> Placement {
    partition.map_or(Placement::ByKey { deadline: None }, Placement::Partition)
}

/// Parses a topic's name.
pub(super) fn topic(text: &str) -> Result<String, String> {
    if is_topic(text) {
        return Ok(text.to_owned());
    }
    Err("must be 1 to 249 of the characters a-z A-Z 0-9 . _ - (and not . or .. alone)".into())
}
