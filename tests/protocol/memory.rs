//! What the core keeps of a log in memory, and for how long.

use std::collections::BTreeSet;

use kafka_scheduler::core::batch::Kind;
use kafka_scheduler::core::io::{Abort, Cursor, Input, Output};
use kafka_scheduler::core::listing::{CursorExpired, Filter};
use kafka_scheduler::core::origin::BARRIER_KEY;
use kafka_scheduler::core::{Config, headers};

use crate::rig::*;

#[test]
fn cancels_before_a_barrier_of_the_group_are_forgotten() {
    let mut rig = Rig::new(config());
    rig.assign(&[P]);
    rig.tell_committed(&[P]);
    for n in 0..100 {
        rig.schedule(P, &format!("k{n}"), NOW + 60);
        rig.cancel(P, &format!("k{n}"));
    }
    rig.read(P);
    let before = held_bytes(&rig);
    assert!(before > 100 * 100, "an engine record may still come after them: {before}");
    barrier(&mut rig, "another");
    rig.read(P);
    assert_eq!(held_bytes(&rig), before, "another group may still write");
    barrier(&mut rig, "g");
    rig.cancel(P, "later");
    rig.read(P);
    assert!(held_bytes(&rig) < 300, "only the last one is left: {}", held_bytes(&rig));
}

#[test]
fn a_cancel_overtaken_before_a_barrier_is_rewritten() {
    let mut rig = Rig::new(config());
    let schedule = rig.schedule(P, "k", NOW + 60);
    let like = rig.kept(P, schedule);
    let cancel = rig.cancel(P, "k");
    rig.engine(P, "k", schedule, Some(&like));
    barrier(&mut rig, "g");
    rig.bring_up_keeping_outputs(&[P]);
    let batch = rig.work();
    let cancels: Vec<i64> =
        batch.items.iter().filter(|i| matches!(i.kind, Kind::RewriteCancel { .. })).map(|i| i.origin_offset).collect();
    assert_eq!(cancels, [cancel]);
}

#[test]
fn tables_shrink_after_loading_and_keep_due_order() {
    let mut rig = Rig::new(Config { batch_items_max: 100_000, batch_bytes_max: 1 << 24, ..config() });
    let mut expected = Vec::new();
    for n in 0..20_000 {
        let key = format!("k{n}");
        let offset = rig.schedule(P, &key, NOW + 5 + n % 7);
        if n % 1_000 == 3 {
            expected.push((NOW + 5 + n % 7, offset));
        } else {
            rig.cancel(P, &key);
        }
    }
    rig.bring_up(&[P]);
    expected.sort_unstable();
    let listed: BTreeSet<i64> = rig.core.list(Cursor::default(), 100).0.iter().map(|listed| listed.offset).collect();
    assert_eq!(listed, expected.iter().map(|(_, offset)| *offset).collect());
    assert_eq!(rig.core.find(0, b"k3").len(), 1);
    let more = rig.schedule(P, "more", NOW + 6);
    rig.read(P);
    expected.push((NOW + 6, more));
    expected.sort_unstable();
    rig.at(NOW + 20);
    assert_eq!(fired(&rig.work()), expected.iter().map(|(_, offset)| *offset).collect::<Vec<_>>());
}

#[test]
fn tables_shrink_when_most_has_fired_and_a_listing_begins_again() {
    let mut rig = Rig::live_with(Config { batch_items_max: 100_000, batch_bytes_max: 1 << 24, ..config() });
    for n in 0..20_000 {
        rig.schedule(P, &format!("k{n}"), NOW + 5);
    }
    let left = rig.schedule(P, "left", NOW + 60);
    rig.read(P);
    let page = rig.core.page(Cursor::default(), 10, &Filter::default()).expect("the first page");
    let cursor = page.next.expect("there is more");
    rig.at(NOW + 5);
    let batch = rig.work();
    rig.commit(&batch);
    rig.input(Input::Tick);
    assert!(rig.core.page(cursor, 10, &Filter::default()).is_ok(), "the tombstones are not read yet");
    rig.read(P);
    rig.input(Input::Tick);
    assert_eq!(rig.core.page(cursor, 10, &Filter::default()).err(), Some(CursorExpired), "entries have moved");
    let all = rig.core.list(Cursor::default(), 10).0;
    assert_eq!(all.iter().map(|listed| listed.offset).collect::<Vec<_>>(), [left]);
    rig.at(NOW + 60);
    assert_eq!(fired(&rig.work()), [left]);
}

#[test]
fn records_before_the_log_start_do_not_fire() {
    let mut rig = Rig::live();
    let gone = rig.schedule(P, "gone", NOW + 60);
    let moved = rig.schedule(P, "moved", NOW + 60);
    let like = rig.kept(P, moved);
    rig.read(P);
    let copy = rig.engine(P, "moved", moved, Some(&like));
    let stays = rig.schedule(P, "stays", NOW + 60);
    rig.read(P);
    (0..copy).for_each(|offset| rig.compact(P, offset));
    rig.input(Input::Trimmed { partition: P, start: copy });
    rig.reads.insert(P, 0);
    rig.run_until_quiet(&[P]);
    rig.outs.clear();
    let pending: Vec<i64> = rig.core.list(Cursor::default(), 10).0.iter().map(|listed| listed.offset).collect();
    assert_eq!(pending.iter().copied().collect::<BTreeSet<_>>(), BTreeSet::from([moved, stays]), "not {gone}");
    // A batch is in flight, so the engine rereads after it has settled, and fires nothing until then.
    rig.schedule(P, "soon", NOW + 5);
    rig.schedule(P, "later", NOW + 6);
    rig.read(P);
    rig.at(NOW + 5);
    let batch = rig.work();
    let start = rig.logs[&P].len() as i64;
    rig.input(Input::Trimmed { partition: P, start });
    rig.at(NOW + 6);
    rig.no_batch("it waits to be read again");
    rig.abort(&batch, Abort::Retry);
    let seeks = rig.outs.iter().filter(|o| matches!(o, Output::Seek(P))).count();
    assert_eq!((seeks, rig.saw(|o| matches!(o, Output::Rejoin(_)))), (1, false));
    (0..start).for_each(|offset| rig.compact(P, offset));
    rig.reads.insert(P, 0);
    rig.run_until_quiet(&[P]);
    rig.outs.clear();
    assert_eq!(rig.core.status()[0].pending, 0, "all schedules were deleted");
    // No entry is below this offset, so the engine need not reread.
    let before = rig.core.status()[0].position;
    rig.input(Input::Trimmed { partition: P, start: 1 });
    assert_eq!(rig.core.status()[0].position, before);
}

/// Appends a barrier of a former owner.
fn barrier(rig: &mut Rig, group: &str) -> i64 {
    let headers = vec![
        (headers::BARRIER.to_vec(), Some(b"cd.0.1".to_vec())),
        (headers::GROUP.to_vec(), Some(group.as_bytes().to_vec())),
    ];
    let timestamp = rig.now;
    rig.append(P, Kept { timestamp, key: Some(BARRIER_KEY.to_vec()), value: None, headers })
}

fn held_bytes(rig: &Rig) -> usize {
    rig.core.status()[0].bytes
}
