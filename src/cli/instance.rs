//! Asking a running instance.

use std::io::{BufReader, Read};
use std::str::FromStr;
use std::time::Duration;

use serde::de::{Deserializer, SeqAccess, Visitor};
use serde_json::Value;

use super::entry::Entry;
use super::failure::Failure;

/// How long a connection may take, and the answer's first byte.
const ANSWER_MAX: Duration = Duration::from_secs(8);

/// Where an instance serves REST.
#[derive(Clone, Debug)]
pub struct Instance(String);

impl FromStr for Instance {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let host = text.strip_prefix("http://").unwrap_or_default();
        if host.trim_end_matches('/').is_empty() || host.contains(char::is_whitespace) {
            return Err("must be the address of an instance's REST, such as http://localhost:8000");
        }
        Ok(Self(text.trim_end_matches('/').to_owned()))
    }
}

/// Shows each schedule that the instance holds, as it comes.
///
/// # Errors
/// When it does not answer, or not with schedules; whatever `take` returns.
pub fn schedules(instance: &Instance, take: &mut impl FnMut(Entry) -> Result<(), Failure>) -> Result<(), Failure> {
    let url = format!("{}/schedules", instance.0);
    let failed = |why: String| Failure::new(format!("--server {}: {why}", instance.0));
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .timeout_connect(Some(ANSWER_MAX))
        .timeout_recv_response(Some(ANSWER_MAX))
        .build()
        .into();
    let mut request = agent.get(&url);
    if let Ok(token) = std::env::var("REST_TOKEN") {
        request = request.header("Authorization", format!("Bearer {}", token.trim()));
    }
    let answer = request.call().map_err(|e| match e {
        ureq::Error::StatusCode(401 | 403) => failed("it wants a token: set REST_TOKEN".into()),
        e => failed(e.to_string()),
    })?;
    let mut ended = Ok(());
    let reader: Box<dyn Read> = Box::new(answer.into_body().into_reader());
    let mut json = serde_json::Deserializer::from_reader(BufReader::new(reader));
    let read = json.deserialize_seq(Each(|value: Value| {
        let entry = Entry::from_json(&value).ok_or("an entry is no schedule")?;
        take(entry).map_err(|failure| {
            ended = Err(failure);
            "stopped"
        })
    }));
    ended?;
    read.map_err(|e| failed(format!("the answer is not a list of schedules: {e}")))
}

/// Shows each element of a list.
struct Each<F>(F);

impl<'de, F: FnMut(Value) -> Result<(), &'static str>> Visitor<'de> for Each<F> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<(), A::Error> {
        while let Some(value) = list.next_element()? {
            (self.0)(value).map_err(serde::de::Error::custom)?;
        }
        Ok(())
    }
}
