//! An engine that has been idle for a long time.

use std::time::{Duration, Instant};

use crate::kit::broker::broker_with;
use crate::kit::engine::Engine;
use crate::kit::process::configuration;
use crate::kit::wait::{eventually, now_s};
use crate::kit::{Case, Scheduled, client};
use crate::ledger::alone;

const TIMEOUT: Duration = Duration::from_secs(90);
/// Longer than librdkafka's interval for refreshing all metadata, as the engine sets it.
const REFRESH: Duration = Duration::from_secs(33);

#[test]
fn transactional_ids_that_have_expired_delay_nothing() {
    let _alone = alone();
    let expiring = "transactional.id.expiration.ms=20000\n\
                    transaction.remove.expired.transaction.cleanup.interval.ms=1000\n";
    let Some(broker) = broker_with(expiring) else { return };
    let case = Case::on(broker, "expired-ids", 1, 1);
    let mut engine = case.engine();
    case.produce(&[case.due_in("before", "v", 0)]);
    case.fired(1);
    let ids = || {
        let list =
            broker.tool("org.apache.kafka.tools.TransactionsCommand", &["list"]).expect("Kafka's tools are available");
        list.matches(&case.group).count()
    };
    assert!(ids() > 0, "the engine has transactional ids");
    eventually("the brokers forget them", TIMEOUT, || (ids() == 0).then_some(()));
    let due = [2, 4, 6].map(|seconds| now_s() + seconds);
    let schedules: Vec<_> = due.iter().map(|due| case.due_in(format!("at-{due}"), "v", due - now_s())).collect();
    case.produce(&schedules);
    let fired = case.fired(1 + due.len());
    assert_eq!(fired.len(), 1 + due.len(), "each schedule fires once");
    for (record, due) in fired[1..].iter().zip(due) {
        let late_ms = record.timestamp - due * 1_000;
        assert!((0..2_000).contains(&late_ms), "{} fired {late_ms} ms late", record.key_text());
    }
    engine.stop();
}

/// Returns the number of bytes that each producer has sent since its creation.
fn sent(engine: &Engine) -> [f64; 2] {
    let metrics = engine.metrics();
    let of = |n: u32| format!("kafka_scheduler_client_sent_bytes_total{{client=\"transactor-{n}\"}}");
    [metrics[&of(0)], metrics[&of(1)]]
}

/// Measures how many bytes per second the producers send. Sleeping is the measurement itself.
fn rate(engine: &Engine, over: Duration) -> Option<f64> {
    let (before, began) = (sent(engine), Instant::now());
    std::thread::sleep(over);
    let after = sent(engine);
    let grown = std::array::from_fn::<f64, 2, _>(|n| after[n] - before[n]);
    // A lower count means that a producer was replaced.
    grown.iter().all(|bytes| *bytes >= 0.0).then(|| grown.iter().sum::<f64>() / began.elapsed().as_secs_f64())
}

#[test]
fn targets_that_were_deleted_cost_nothing_later() {
    const TARGETS: usize = 50;
    let _alone = alone();
    let Some(case) = Case::new("deleted-targets", 2) else { return };
    let file = configuration("reports", "kafka.producer.configuration:\n  statistics.interval.ms: 1000\n");
    let mut engine = case.engine_with(&[("CONFIGURATION_FILE", &file)]);
    engine.ready();
    let targets: Vec<String> = (0..TARGETS).map(|n| format!("{}-{n}", case.target)).collect();
    targets.iter().for_each(|target| client::create_topic(case.bootstrap(), target, 1, &[]));
    // Produce twice, so each of the two producers knows about as many targets.
    for round in 0..2 {
        let due = now_s() + 1;
        let to = |(n, target): (usize, &String)| Scheduled::new(format!("{round}-{n}"), "v", due, target);
        case.produce(&targets.iter().enumerate().map(to).collect::<Vec<_>>());
        eventually("all have fired", TIMEOUT, || {
            (engine.counter("triggered_schedule")? == ((round + 1) * TARGETS) as u64).then_some(())
        });
    }
    eventually("the firings are in the producers' reports", TIMEOUT, || {
        rate(&engine, Duration::from_millis(2_500)).filter(|rate| *rate == 0.0)
    });
    let before = rate(&engine, REFRESH).expect("no producer is replaced while its topics exist");
    targets.iter().for_each(|target| client::delete_topic(case.bootstrap(), target));
    let after = eventually("deleted topics are no longer asked for", TIMEOUT * 2, || {
        rate(&engine, Duration::from_secs(12)).filter(|after| *after <= before * 1.5)
    });
    eprintln!("the producers sent {before:.0} B/s before {TARGETS} targets were deleted, and {after:.0} B/s later");
    case.produce(&[case.due_in("after", "v", 0)]);
    assert_eq!(case.fired(1).len(), 1);
    engine.stop();
}
