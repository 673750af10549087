//! An engine that has had nothing to do for long.

use std::time::Duration;

use crate::kit::broker::broker_with;
use crate::kit::wait::{eventually, now_s};
use crate::kit::Case;
use crate::ledger::alone;

const PATIENCE: Duration = Duration::from_secs(90);

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
            broker.tool("org.apache.kafka.tools.TransactionsCommand", &["list"]).expect("Kafka's tools are at hand");
        list.matches(&case.group).count()
    };
    assert!(ids() > 0, "the engine has transactional ids");
    eventually("the brokers forget them", PATIENCE, || (ids() == 0).then_some(()));
    let due = [2, 4, 6].map(|seconds| now_s() + seconds);
    let schedules: Vec<_> = due.iter().map(|due| case.due_in(format!("at-{due}"), "v", due - now_s())).collect();
    case.produce(&schedules);
    let fired = case.fired(1 + due.len());
    assert_eq!(fired.len(), 1 + due.len(), "each of them once");
    for (record, due) in fired[1..].iter().zip(due) {
        let late_ms = record.timestamp - due * 1_000;
        assert!((0..2_000).contains(&late_ms), "{} fired {late_ms} ms late", record.key_text());
    }
    engine.stop();
}
