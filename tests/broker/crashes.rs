//! The engine is killed while it fires.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::kit::client::Reader;
use crate::kit::wait::now_s;
use crate::kit::{Case, Record, Scheduled};

fn distinct(records: &[Record]) -> usize {
    records.iter().map(|r| r.header("scheduler-key").expect("scheduler-key").to_vec()).collect::<BTreeSet<_>>().len()
}

#[test]
fn killed_five_times_while_firing_20000_each_fires_once() {
    const COUNT: usize = 20_000;
    const LAST_WAVE: usize = 1_000;
    let Some(case) = Case::new("crashes", 4) else { return };
    let begin = now_s() + 4;
    for n in 0..COUNT {
        // Five waves, far enough apart for the engine to restart between them, and a last one much later.
        let wave = if n < LAST_WAVE { 8 } else { i64::try_from(n % 5).expect("small") };
        let key = format!("k{n}");
        case.queue(&Scheduled::new(&key, &key, begin + wave * 5, &case.target).target_key(&key));
    }
    case.flush();
    let (mut in_flight, mut committed) = (0, 0);
    for kill in 1..=5 {
        // Odd kills come after a committed firing. Even ones come when a record appears that is not committed, so while
        // a transaction is open.
        let mut reader =
            if kill % 2 == 1 { case.target_reader() } else { Reader::uncommitted(case.bootstrap(), &case.target) };
        reader.read_to_end();
        let before = reader.records.len();
        let mut engine = case.engine();
        reader.wait(&format!("firing continues before kill {kill}"), Duration::from_secs(60), |r| r.len() > before);
        engine.kill();
        let fired = case.read_target().len();
        let open = kill % 2 == 0 && reader.records.len() > before && fired == committed;
        committed = fired;
        in_flight += usize::from(open);
        eprintln!("kill {kill} after {fired} fired, with an open transaction: {open}");
        assert!(0 < fired && fired < COUNT, "kill {kill} was not between the first firing and the last");
    }
    assert!(in_flight > 0, "no kill hit an open transaction, so the test proves nothing");
    let mut engine = case.engine();
    let mut reader = case.target_reader();
    reader.wait("all have fired", Duration::from_secs(60), |r| r.len() >= COUNT);
    let target = case.settled();
    assert_eq!((target.len(), distinct(&target)), (COUNT, COUNT), "in the target");
    assert!(target.iter().all(|r| r.key_text() == r.value_text()));
    engine.stop();
    let without_probes = |mut records: Vec<Record>| {
        records.retain(|r| !r.key_text().starts_with("probe-"));
        records
    };
    let history = without_probes(case.read_history());
    assert_eq!((history.len(), distinct(&history)), (COUNT, COUNT), "in the history");
    let tombstones = without_probes(case.tombstones());
    let keys: BTreeSet<_> = tombstones.iter().map(|r| r.key.clone()).collect();
    assert_eq!((tombstones.len(), keys.len()), (COUNT, COUNT), "tombstones");
}
