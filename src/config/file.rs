//! The configuration file: YAML whose entries go to librdkafka.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use serde_yaml_ng::{Mapping, Value};

use super::{CONFIGURATION_FILE, ConfigError, Env, ReadFile};

const COMMON: &str = "kafka.common.configuration";
const PRODUCER: &str = "kafka.producer.configuration";
const CONSUMER: &str = "kafka.consumer.configuration";

/// The configuration file as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigurationFile {
    /// The file's path, as `CONFIGURATION_FILE` gives it.
    pub path: String,
    pub(super) digest: u64,
}

impl ConfigurationFile {
    fn new(path: &str, text: &str) -> Self {
        Self { path: path.to_owned(), digest: digest(text.as_bytes()) }
    }
}

#[derive(Debug, Default)]
pub(super) struct File {
    path: String,
    pub read: Option<ConfigurationFile>,
    pub common: BTreeMap<String, String>,
    pub producer: BTreeMap<String, String>,
    pub consumer: BTreeMap<String, String>,
}

impl File {
    pub(super) fn read(path: &str, read: ReadFile<'_>) -> Result<Self, ConfigError> {
        let text = read(path).map_err(|e| {
            ConfigError::wrong("CONFIGURATION_FILE", path, "the path of a readable text file").caused_by(e)
        })?;
        let parsed = serde_yaml_ng::from_str(&text).map_err(|e| {
            ConfigError::wrong("CONFIGURATION_FILE", path, &format!("the path of a YAML file: {}", line(&e)))
        })?;
        let mut file =
            Self { path: path.to_owned(), read: Some(ConfigurationFile::new(path, &text)), ..Self::default() };
        match parsed {
            // An empty file, or one of comments only.
            Value::Null => Ok(file),
            Value::Mapping(top) => file.walk("", &top).map(|()| file),
            _ => Err(file.error("", "must hold a map at its top")),
        }
    }

    /// Reads a map. The names of the three maps may be written with dots, as nested maps, or both.
    fn walk(&mut self, prefix: &str, map: &Mapping) -> Result<(), ConfigError> {
        for (key, value) in map {
            let Value::String(key) = key else { return Err(self.error(prefix, "must have text as keys")) };
            let path = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
            let into = match path.as_str() {
                COMMON => &mut self.common,
                PRODUCER => &mut self.producer,
                CONSUMER => &mut self.consumer,
                _ if [COMMON, PRODUCER, CONSUMER].iter().any(|name| name.starts_with(&format!("{path}."))) => {
                    match value {
                        Value::Null => {}
                        Value::Mapping(map) => self.walk(&path, map)?,
                        _ => return Err(self.error(&path, "must be a map")),
                    }
                    continue;
                }
                _ => {
                    return Err(self.error(&path, &format!("is unknown; allowed are {COMMON}, {PRODUCER}, {CONSUMER}")));
                }
            };
            let mut entries = std::mem::take(into);
            self.entries(&path, value, &mut entries)?;
            match path.as_str() {
                COMMON => self.common = entries,
                PRODUCER => self.producer = entries,
                _ => self.consumer = entries,
            }
        }
        Ok(())
    }

    fn entries(&self, path: &str, value: &Value, into: &mut BTreeMap<String, String>) -> Result<(), ConfigError> {
        let map = match value {
            // A name with nothing under it.
            Value::Null => return Ok(()),
            Value::Mapping(map) => map,
            _ => return Err(self.error(path, "must be a map")),
        };
        for (key, value) in map {
            let Value::String(key) = key else { return Err(self.error(path, "must have text as keys")) };
            let name = format!("{path}: {key}");
            // Values may be secrets and are not shown.
            let text = match value {
                Value::String(text) => text.clone(),
                Value::Number(number) => number.to_string(),
                Value::Bool(flag) => flag.to_string(),
                Value::Null => return Err(self.error(&name, "has no value; it must be text, a number or a boolean")),
                Value::Sequence(_) => {
                    return Err(self.error(&name, "is a list; it must be text, a number or a boolean"));
                }
                Value::Mapping(_) => {
                    return Err(
                        self.error(&name, "is a map; it must be text, a number or a boolean, with dots in its key")
                    );
                }
                Value::Tagged(_) => return Err(self.error(&name, "has a tag; it must be text, a number or a boolean")),
            };
            if key.contains('\0') || text.contains('\0') {
                return Err(self.error(&name, "holds a null character"));
            }
            if into.insert(key.clone(), text).is_some() {
                return Err(self.error(&name, "is set twice"));
            }
        }
        Ok(())
    }

    /// Returns a setting and its name: from the variable or, if that is not set, from the file. It is removed from the
    /// file's maps either way, because the engine sets it itself.
    pub(super) fn setting(
        &mut self,
        env: Env<'_>,
        variable: &str,
        keys: &[&str],
    ) -> Result<(String, Option<String>), ConfigError> {
        let maps = [&mut self.common, &mut self.producer, &mut self.consumer];
        let found: BTreeSet<String> =
            maps.into_iter().flat_map(|map| keys.iter().filter_map(|key| map.remove(*key))).collect();
        if let Some(value) = env(variable) {
            return Ok((variable.to_owned(), Some(value)));
        }
        if found.len() > 1 {
            let values: Vec<String> = found.iter().map(|value| format!("{value:?}")).collect();
            return Err(self.error(keys[0], &format!("is set to different values: {}", values.join(", "))));
        }
        Ok(match found.into_iter().next() {
            Some(value) => (format!("{} in CONFIGURATION_FILE {:?}", keys[0], self.path), Some(value)),
            None => (variable.to_owned(), None),
        })
    }

    fn error(&self, key: &str, message: &str) -> ConfigError {
        let key = if key.is_empty() { String::new() } else { format!("{:?} ", key) };
        ConfigError::new(CONFIGURATION_FILE, format!("CONFIGURATION_FILE is {:?}: {key}{message}", self.path))
    }
}

/// Returns the parser's message on one line.
fn line(error: &serde_yaml_ng::Error) -> String {
    error.to_string().split_whitespace().collect::<Vec<_>>().join(" ")
}

pub(super) fn digest(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}
