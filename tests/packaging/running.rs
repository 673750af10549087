//! The running program: an engine with the embedded broker, and its REST.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use kafka_scheduler::config::Config;
use kafka_scheduler::internal::{Listeners, Metrics};
use kafka_scheduler::mini::Mini;

const TIMEOUT: Duration = Duration::from_secs(40);

pub struct Running {
    pub mini: Mini,
    port: u16,
}

impl Running {
    pub fn start() -> Self {
        let mini = Mini::with_topics(["target:1".parse().expect("a topic")]).expect("mini starts");
        let config = Config::load(&|name| name.ends_with("_ADDR").then(|| "127.0.0.1:0".to_owned()));
        let config = config.expect("the settings are valid");
        let listeners = Listeners::bind(&config).expect("free ports");
        let port = listeners.addresses().expect("addresses").0.port();
        let handle = mini.running().handle().clone();
        listeners.serve(&config, handle, Metrics::new(), Arc::default(), None).expect("servers");
        Self { mini, port }
    }

    /// Returns the status of a response.
    pub fn status(&self, path: &str) -> u16 {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).expect("a connection");
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status")
    }
}

/// Waits until the list is empty.
#[track_caller]
pub fn until_none<T: std::fmt::Debug>(what: &str, missing: impl Fn() -> Vec<T>) {
    let since = Instant::now();
    loop {
        let missing = missing();
        if missing.is_empty() {
            return;
        }
        assert!(since.elapsed() < TIMEOUT, "{what}: {missing:#?}");
        thread::sleep(Duration::from_millis(100));
    }
}
