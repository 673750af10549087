//! HTTP responses of an engine whose loop is blocked, whose brokers are down, or that loses a partition during a list.
//! The tests need only the embedded broker, and block the loop with an observer that does not return.
#![cfg(feature = "http")]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use kafka_scheduler::config::Config;
use kafka_scheduler::core::due::Due;
use kafka_scheduler::core::io::{Cursor, Millis, TopicPartition};
use kafka_scheduler::core::listing::{CursorExpired, Listed, Page};
use kafka_scheduler::core::payload::Parts;
use kafka_scheduler::handle::{EngineState, Handle, PartitionState};
use kafka_scheduler::internal::{self, Clock, Engine, Listeners, Metrics, Observer, Query};
use rdkafka::mocking::MockCluster;

const TIMEOUT: Duration = Duration::from_secs(40);

/// Blocks the loop from the first message until the sender is dropped.
struct Blocking(Receiver<()>);

impl Observer for Blocking {
    fn on_iteration(&mut self, _: Duration) {
        if self.0.try_recv().is_ok() {
            let _ = self.0.recv();
        }
    }
}

/// An engine in this process, with the embedded broker.
struct Rig {
    cluster: MockCluster<'static, rdkafka::producer::DefaultProducerContext>,
    port: u16,
    handle: Handle,
    engine: thread::JoinHandle<()>,
}

fn rig(observer: Box<dyn Observer>) -> Rig {
    let cluster = MockCluster::new(1).expect("an embedded broker");
    for topic in ["schedules", "history"] {
        cluster.create_topic(topic, 2, 1).expect("a topic");
    }
    let servers = cluster.bootstrap_servers();
    let config = Config::load(&|name| match name {
        "BOOTSTRAP_SERVERS" => Some(servers.clone()),
        "SERVER_ADDR" | "METRICS_HTTP_ADDR" => Some("127.0.0.1:0".into()),
        _ => None,
    });
    let config = config.expect("the settings are valid");
    let listeners = Listeners::bind(&config).expect("free ports");
    let port = listeners.addresses().expect("addresses").0.port();
    let engine = Engine::new(config.clone(), Clock::default(), observer).expect("an engine");
    let handle = engine.handle();
    listeners.serve(&config, handle.clone(), Metrics::new(), Arc::default(), None).expect("servers");
    let engine = thread::spawn(move || engine.run().expect("the engine runs"));
    Rig { cluster, port, handle, engine }
}

impl Rig {
    /// Returns the status and body of a response.
    fn get(&self, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).expect("a connection");
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        let (head, body) = answer.split_once("\r\n\r\n").expect("headers");
        (head.split(' ').nth(1).and_then(|s| s.parse().ok()).expect("a status"), body.to_owned())
    }

    fn until(&self, path: &str, status: u16, text: &str) {
        let since = Instant::now();
        loop {
            let answer = self.get(path);
            if answer.0 == status && answer.1.contains(text) {
                return;
            }
            assert!(since.elapsed() < TIMEOUT, "{path} returned {answer:?} instead of {status} with {text:?}");
            thread::sleep(Duration::from_millis(50));
        }
    }

    fn end(self) {
        self.handle.stop();
        self.engine.join().expect("the engine ends");
    }
}

#[test]
fn liveness_fails_while_the_loop_is_blocked() {
    let (block, blocked) = channel();
    let rig = rig(Box::new(Blocking(blocked)));
    rig.until("/readiness", 200, "\"live\":2");
    assert_eq!(rig.get("/liveness").0, 200);
    let status = rig.handle.status();
    assert!(status.state == EngineState::Member && !status.are_brokers_unreachable, "{status:?}");
    let partitions: Vec<_> = status.partitions.iter().map(|p| (p.topic.as_str(), p.partition, p.state)).collect();
    assert_eq!(partitions, [("schedules", 0, PartitionState::Live), ("schedules", 1, PartitionState::Live)]);
    assert!(status.since_heartbeat < Duration::from_secs(10), "{status:?}");
    block.send(()).expect("the observer is running");
    rig.until("/liveness", 503, "has not run");
    rig.until("/readiness", 503, "does not run");
    // Requests that do not need the loop are still answered.
    let blocked = rig.handle.status();
    assert!(blocked.since_heartbeat > Duration::from_secs(10) && blocked.partitions == status.partitions);
    assert_eq!(rig.get("/info").0, 200);
    assert_eq!(rig.get("/status").0, 200);
    drop(block);
    rig.until("/liveness", 200, "");
    rig.until("/readiness", 200, "true");
    rig.end();
}

#[test]
fn an_instance_without_brokers_is_alive_and_not_ready() {
    let (_never, nothing) = channel();
    let rig = rig(Box::new(Blocking(nothing)));
    rig.until("/readiness", 200, "true");
    rig.cluster.broker_down(1).expect("down");
    rig.until("/readiness", 503, "no broker answers");
    assert_eq!(rig.get("/liveness").0, 200);
    rig.cluster.broker_up(1).expect("up");
    rig.until("/readiness", 200, "true");
    rig.end();
}

fn listed() -> Listed {
    let parts = Parts { key: b"k", value: b"v", ..Parts::default() };
    Listed::new(
        TopicPartition { topic: 0, number: 0 },
        0,
        Due::from_epoch_s(1).expect("a second"),
        Millis(0),
        "t".into(),
        &parts,
        None,
    )
}

/// A loop that sends one part of a list, and then reports that the partition is gone.
#[test]
fn an_incomplete_list_breaks_off_in_every_http_version() {
    let config = Config::load(&|name| name.ends_with("_ADDR").then(|| "127.0.0.1:0".to_owned()));
    let config = config.expect("the settings are valid");
    let listeners = Listeners::bind(&config).expect("free ports");
    let port = listeners.addresses().expect("addresses").0.port();
    let (handle, asks) = internal::handle(Arc::new(|| ()), &["schedules".into()]);
    listeners.serve(&config, handle, Metrics::new(), Arc::default(), None).expect("servers");
    thread::spawn(move || {
        let mut first = true;
        for query in asks {
            let Query::Page { reply, .. } = query else { continue };
            let page = Page { entries: vec![listed()], next: Some(Cursor::default()) };
            reply.send(if first { Ok(page) } else { Err(CursorExpired) });
            first = !first;
        }
    });
    for version in ["1.0", "1.1"] {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("a connection");
        write!(stream, "GET /schedules HTTP/{version}\r\nHost: x\r\n\r\n").expect("sent");
        let mut answer = Vec::new();
        let ended = stream.read_to_end(&mut answer);
        assert!(
            ended.is_err(),
            "HTTP/{version}: the response ended cleanly after {:?}",
            String::from_utf8_lossy(&answer)
        );
    }
}
