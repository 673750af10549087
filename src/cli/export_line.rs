//! Records as JSON lines, which `import` produces again byte for byte.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::core::io::{Header, Record};
use crate::kafka::fold::Pending;

/// Bytes: text if they are UTF-8, else `{"base64": "..."}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Bytes(pub Vec<u8>);

#[derive(Serialize, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
enum Encoded {
    Text(String),
    Base64 { base64: String },
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(&self.0) {
            Ok(text) => serializer.serialize_str(text),
            Err(_) => Encoded::Base64 { base64: BASE64_STANDARD.encode(&self.0) }.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Encoded::deserialize(deserializer) {
            Ok(Encoded::Text(text)) => Ok(Self(text.into_bytes())),
            Ok(Encoded::Base64 { base64 }) => {
                BASE64_STANDARD.decode(base64).map(Self).map_err(serde::de::Error::custom)
            }
            Err(_) => Err(serde::de::Error::custom("must be text, or {\"base64\": \"...\"}")),
        }
    }
}

/// A record. `topic`, `partition`, `offset` and `timestamp` are those of the exported one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ExportLine {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partition: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<i64>,
    /// Milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<i64>,
    pub key: Option<Bytes>,
    pub value: Option<Bytes>,
    /// Names and values, in order.
    #[serde(default)]
    pub headers: Vec<(Bytes, Option<Bytes>)>,
}

impl ExportLine {
    /// Converts a pending record.
    pub(super) fn of(topic: &str, record: &Pending<'_>) -> Self {
        Self {
            topic: Some(topic.to_owned()),
            partition: Some(record.partition),
            offset: Some(record.offset),
            timestamp: Some(record.timestamp.0),
            key: Some(Bytes(record.key.to_vec())),
            value: Some(Bytes(record.value.to_vec())),
            headers: pairs(&record.headers),
        }
    }

    /// Converts a record of any topic.
    pub(super) fn of_record(topic: &str, record: &Record<'_>) -> Self {
        Self {
            topic: Some(topic.to_owned()),
            partition: Some(record.partition.number),
            offset: Some(record.offset),
            timestamp: Some(record.timestamp.0),
            key: record.key.map(|key| Bytes(key.to_vec())),
            value: record.value.map(|value| Bytes(value.to_vec())),
            headers: pairs(record.headers),
        }
    }

    /// Borrows the headers.
    pub(super) fn headers<'a>(&'a self) -> Vec<Header<'a>> {
        let header = |pair: &'a (Bytes, Option<Bytes>)| Header {
            name: &pair.0.0,
            value: pair.1.as_ref().map(|value| value.0.as_slice()),
        };
        self.headers.iter().map(header).collect()
    }
}

fn pairs(headers: &[Header<'_>]) -> Vec<(Bytes, Option<Bytes>)> {
    let pair = |header: &Header<'_>| (Bytes(header.name.to_vec()), header.value.map(|value| Bytes(value.to_vec())));
    headers.iter().map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_bytes_round_trip() {
        let line = ExportLine {
            topic: None,
            partition: Some(3),
            offset: None,
            timestamp: None,
            key: Some(Bytes(vec![0xff, 0])),
            value: Some(Bytes("{\"base64\": \"no\"}\n\0é".into())),
            headers: vec![(Bytes(b"a".to_vec()), None), (Bytes(vec![0xfe]), Some(Bytes(Vec::new())))],
        };
        let text = serde_json::to_string(&line).expect("JSON");
        assert!(!text.contains('\n') && text.contains("\"key\":{\"base64\":\"/wA=\"}"), "{text}");
        assert_eq!(serde_json::from_str::<ExportLine>(&text).expect("a line"), line);
    }

    #[test]
    fn errors_name_the_field() {
        for (text, part) in [
            ("{", "EOF"),
            (r#"{"key": 1, "value": "v"}"#, "base64"),
            (r#"{"key": {"base64": "?"}, "value": "v"}"#, "Invalid"),
            (r#"{"value": "v", "headres": []}"#, "headres"),
        ] {
            let error = serde_json::from_str::<ExportLine>(text).expect_err(text).to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
