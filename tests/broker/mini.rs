//! A stock client in another process than `mini` schedules a message and receives it. Needs no broker but mini's own.

use std::time::Duration;

use crate::kit::Scheduled;
use crate::kit::client::{Producer, Reader};
use crate::kit::engine::Engine;
use crate::kit::wait::{eventually, now_s};

#[test]
fn a_stock_client_schedules_and_receives_through_mini() {
    let limit = Duration::from_secs(30);
    let mut mini = Engine::start("mini", &["mini", "--topic", "mine:2"], &[]);
    let bootstrap = eventually("mini prints its address", limit, || {
        let output = mini.output();
        let line = output.lines().find(|line| line.contains("bootstrap server"))?;
        line.split_whitespace().find(|word| word.contains(':')).map(str::to_owned)
    });
    // The embedded broker does not know idempotent producers well enough to be asked for one.
    let producer = Producer::new(&bootstrap, &[("enable.idempotence", "false")]);
    let due = now_s() + 2;
    producer.send("schedules", &Scheduled::new("id", "hello", due, "mine").target_key("k").header("h", "x"));
    producer.flush();
    let mut reader = Reader::new(&bootstrap, "mine");
    let fired = reader.wait("the message arrives", limit, |records| !records.is_empty());
    assert_eq!((fired[0].key_text(), fired[0].value_text()), ("k".to_owned(), "hello".to_owned()));
    assert_eq!(fired[0].header("h"), Some(&b"x"[..]));
    assert!(mini.get("/schedules").is_some() && mini.counter("triggered_schedule").is_some());
    mini.stop();
}
