//! Problems of the first days in production: quotas, slow links, wrong clocks and wrong topic settings.

use std::time::Duration;

use crate::kit::client;
use crate::kit::clock::SteppedClock;
use crate::kit::engine::Engine;
use crate::kit::process::configuration;
use crate::kit::proxy::Proxy;
use crate::kit::wait::{eventually, now_ms, now_s};
use crate::kit::{Case, Record, Scheduled};
use crate::ledger::alone;

const TIMEOUT: Duration = Duration::from_secs(120);
const HOUR_S: i64 = 3_600;
const CONFIGS: &str = "kafka.admin.ConfigCommand";

/// Waits until `/readiness` shows a warning with this text.
fn warned(engine: &Engine, text: &str) {
    eventually(&format!("a warning of {text:?}"), TIMEOUT, || engine.get("/readiness")?.contains(text).then_some(()));
}

fn lines(engine: &Engine, text: &str) -> usize {
    engine.output().lines().filter(|line| line.contains(text)).count()
}

/// Creates a dead-letter topic for the case.
fn dead_letters(case: &Case) -> String {
    let topic = format!("{}-dead", case.target);
    client::create_topic(case.bootstrap(), &topic, 1, &[]);
    topic
}

/// Large schedules, delayed by limited throughput, fire once and in due order; small ones do not wait for all of them.
struct Load {
    large: usize,
    small: usize,
}

impl Load {
    const LARGE_BYTES: usize = 4_000;

    fn produce(&self, case: &Case) {
        let due = now_s() + 6;
        for n in 0..self.large {
            // The second half is due one second later.
            let due = due + i64::from(n >= self.large / 2);
            let key = format!("large-{due}-{n}");
            case.queue(&Scheduled::new(&key, vec![b'v'; Self::LARGE_BYTES], due, &case.target).target_key(&key));
        }
        for n in 0..self.small {
            let key = format!("small-{n}");
            case.queue(&Scheduled::new(&key, "v", due + 1 + n as i64, &case.target).target_key(&key));
        }
        case.flush();
    }

    fn check(&self, case: &Case) {
        let mut reader = case.target_reader();
        let count = self.large + self.small;
        reader.wait("everything fires", TIMEOUT, |records| records.len() >= count);
        let mut keys: Vec<String> = reader.records.iter().map(Record::key_text).collect();
        let large = keys.iter().filter(|key| key.starts_with("large-"));
        let due: Vec<&str> = large.map(|key| key.split('-').nth(1).expect("the due second")).collect();
        let out_of_order = due.windows(2).position(|two| two[0] > two[1]);
        assert_eq!(out_of_order, None, "{} large schedules fired out of due order", due.len());
        let at = |record: &&Record| record.timestamp;
        let of = |kind: &'static str| reader.records.iter().filter(move |r| r.key_text().starts_with(kind));
        let last_small = of("small-").map(|r| at(&r)).max().expect("some");
        let last_large = of("large-").map(|r| at(&r)).max().expect("some");
        assert!(
            last_small < last_large,
            "the last small schedule fired {} ms after all large ones",
            last_small - last_large
        );
        keys.sort();
        keys.dedup();
        assert_eq!((keys.len(), case.read_target().len()), (count, count), "each schedule fires once");
    }
}

#[test]
fn a_produce_quota_slows_firing_down_and_stops_nothing() {
    let _alone = alone();
    let Some(case) = Case::new("quota", 1) else { return };
    let client_id = format!("{}-client", case.group);
    let quota = ["--alter", "--add-config", "producer_byte_rate=1048576"];
    let entity = ["--entity-type", "clients", "--entity-name", &client_id];
    let Some(_) = case.broker.tool(CONFIGS, &[&quota[..], &entity[..]].concat()) else { return };
    let file = configuration("quota", &format!("kafka.common.configuration:\n  client.id: {client_id}\n"));
    let mut engine = case.engine_with(&[("CONFIGURATION_FILE", &file)]);
    engine.ready();
    let load = Load { large: 4_000, small: 5 };
    load.produce(&case);
    load.check(&case);
    assert_eq!(lines(&engine, "throughput is the limit"), 1);
    warned(&engine, "throughput is the limit");
    engine.stop();
}

#[test]
fn a_slow_link_slows_firing_down_and_stops_nothing() {
    let _alone = alone();
    let Some(case) = Case::new("slow-link", 1) else { return };
    let Some((port, upstream)) = case.broker.proxied else { return };
    let proxy = Proxy::shared(port, upstream);
    proxy.pass(Duration::ZERO);
    // The sender regards data in a socket's buffer as sent.
    let file = configuration("slow-link", "kafka.common.configuration:\n  socket.send.buffer.bytes: 65536\n");
    let through = format!("127.0.0.1:{port}");
    let mut engine = case.engine_with(&[("CONFIGURATION_FILE", &file), ("BOOTSTRAP_SERVERS", &through)]);
    engine.ready();
    // A record has 5 s, and in that time the link does not even deliver one full request of librdkafka.
    proxy.limit(100_000);
    let load = Load { large: 300, small: 3 };
    load.produce(&case);
    load.check(&case);
    proxy.limit(0);
    engine.stop();
}

#[test]
fn a_wrong_clock_makes_no_dead_letters() {
    let _alone = alone();
    // Either the history topic rejects the timestamps too, or only the target does.
    for (name, history, in_s) in
        [("clock-all", &[][..], 15), ("clock-target", &[("message.timestamp.type", "LogAppendTime")][..], 25)]
    {
        let Some(case) = Case::with_defaults(name, 1) else { return };
        let (dead, history_topic) = (dead_letters(&case), format!("{}-history-2", case.target));
        client::create_topic(case.bootstrap(), &history_topic, 1, history);
        let clock = SteppedClock::new();
        let [preload, file] = clock.environment();
        let more = [
            (preload.0, &*preload.1),
            (file.0, &*file.1),
            ("DEAD_LETTER_TOPIC", &*dead),
            ("HISTORY_TOPIC", &*history_topic),
        ];
        let mut engine = case.engine_with(&more);
        case.settled();
        clock.set(2 * HOUR_S);
        const LINE: &str = "the brokers reject the timestamps of this machine's clock";
        // By the wrong clock they are due now.
        let due = now_s() + in_s;
        let schedules: Vec<_> = (0..20).map(|n| Scheduled::new(format!("k{n}"), "v", due, &case.target)).collect();
        case.produce(&schedules);
        warned(&engine, LINE);
        // Enough time for three rejections; after three, a record whose rejection has no known cause would be a dead
        // letter.
        let aborted = "kafka_scheduler_transaction_duration_seconds_count{outcome=\"";
        eventually("the schedule is retried several times", TIMEOUT, || {
            let count = |outcome: &str| engine.metric(&format!("{aborted}{outcome}\"}}")).unwrap_or(0);
            (count("aborted") + count("rejected") >= 4).then_some(())
        });
        clock.set(0);
        let mut reader = case.target_reader();
        reader.wait("all fire", TIMEOUT, |r| r.iter().filter(|r| r.value_text() == "v").count() >= 20);
        let fired = case.settled();
        assert_eq!(fired.len(), 20, "each schedule fires once");
        assert!(
            fired.iter().all(|r| r.timestamp >= due * 1_000 && r.timestamp < (due + 10) * 1_000),
            "a schedule fired early or late"
        );
        assert!(client::read_all(case.bootstrap(), &dead).is_empty(), "a schedule became a dead letter");
        assert_eq!(lines(&engine, LINE), 1, "the warning is logged once");
        assert!(!engine.get("/readiness").expect("an answer").contains(LINE), "the warning ends");
        engine.stop();
    }
}

#[test]
fn a_history_that_rejects_records_is_named_and_schedules_wait() {
    let _alone = alone();
    let Some(case) = Case::new("compacted-history", 1) else { return };
    let (dead, history) = (dead_letters(&case), format!("{}-compacted", case.target));
    client::create_topic(case.bootstrap(), &history, 1, &[("cleanup.policy", "compact")]);
    let mut engine = case.engine_with(&[("DEAD_LETTER_TOPIC", &dead), ("HISTORY_TOPIC", &history)]);
    engine.ready();
    let due = now_s() + 1;
    for n in 0..10 {
        case.queue(&Scheduled::new(format!("keyless-{n}"), "keyless", due, &case.target));
        case.queue(&Scheduled::new(format!("keyed-{n}"), "keyed", due, &case.target).target_key("k"));
    }
    case.flush();
    let mut reader = case.target_reader();
    reader.wait("those with a key fire", TIMEOUT, |records| records.len() >= 10);
    assert!(reader.records.iter().all(|record| record.value_text() == "keyed"));
    eventually("the others are parked", TIMEOUT, || (engine.refused("own-topic")? == 10).then_some(()));
    warned(&engine, &history);
    // Longer than three rejections of a single schedule take.
    let begun = now_ms();
    eventually("some time has passed", TIMEOUT, || (now_ms() > begun + 20_000).then_some(()));
    let fix =
        ["--alter", "--add-config", "cleanup.policy=delete", "--entity-type", "topics", "--entity-name", &history];
    if case.broker.tool(CONFIGS, &fix).is_some() {
        reader.wait("they fire once the topic takes them", TIMEOUT, |records| records.len() >= 20);
        assert_eq!(case.read_target().len(), 20, "each schedule fires once");
    }
    assert!(client::read_all(case.bootstrap(), &dead).is_empty(), "a schedule became a dead letter");
    assert_eq!(lines(&engine, "the topic rejects records"), 1, "the warning is logged once");
    engine.stop();
}
