//! A target partition without a leader: its only replica is down.

use std::time::Duration;

use crate::alone;
use crate::kit::client::{self, Reader};
use crate::kit::cluster::Cluster;
use crate::kit::wait::{eventually, now_s};
use crate::kit::{Case, Scheduled};

const TIMEOUT: Duration = Duration::from_secs(60);
/// The longest retry interval of a parked schedule, by docs/unfired.md.
const BACK_OFF_MAX: Duration = Duration::from_secs(112);
const GOOD: usize = 20;

#[test]
fn a_schedule_without_a_leader_waits_and_delays_no_other() {
    let Some(mut cluster) = Cluster::start() else { return };
    let _alone = alone();
    let case = Case::on(cluster.broker, "leaderless", 1, 1);
    let (target, dead) = (format!("{}-lonely", case.target), format!("{}-dead", case.target));
    client::create_topic(case.bootstrap(), &target, 1, &[]);
    client::create_replicated_topic(case.bootstrap(), &dead, 1, 3, &[]);
    let mut engine = case.engine_with(&[("DEAD_LETTER_TOPIC", &dead)]);
    case.settled();
    let node = cluster.leader(&target, 0).expect("a leader");
    cluster.kill(node);
    eventually("the partition has no leader", TIMEOUT, || cluster.leader(&target, 0).is_none().then_some(()));
    // By then, the other partitions that this node led have new leaders.
    case.settled();
    let due = now_s() + 2;
    for n in 0..GOOD {
        case.queue(&Scheduled::new(format!("good-{n}"), "v", due, &case.target));
        if n == GOOD / 2 {
            case.queue(&Scheduled::new("lonely", "v", due, &target));
        }
    }
    case.flush();
    eventually("the schedule is counted", TIMEOUT, || (engine.refused("no-leader")? == 1).then_some(()));
    let fired = case.settled();
    assert_eq!(fired.len(), GOOD, "each of the other schedules fires once");
    let late_ms = fired.iter().map(|record| record.timestamp - due * 1_000).max();
    println!("the other schedules were at most {late_ms:?} ms late");
    let parked = engine.ask("GET", "/parked", &[]).json();
    let (id, reason) = (&parked["schedules"][0]["id"], &parked["schedules"][0]["parked"]);
    assert_eq!((id.as_str(), reason.as_str()), (Some("lonely"), Some("no-leader")), "{parked}");
    cluster.restart(node);
    let mut reader = Reader::new(case.bootstrap(), &case.history);
    reader.wait("it fires within its back-off", BACK_OFF_MAX, |records| {
        records.iter().any(|record| record.header("scheduler-key") == Some(b"lonely"))
    });
    assert_eq!(client::read_all(case.bootstrap(), &target).len(), 1, "once");
    assert!(client::read_all(case.bootstrap(), &dead).is_empty(), "a schedule without a leader is not a dead letter");
    engine.stop();
}
