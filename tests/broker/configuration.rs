//! Passing the configuration file's settings to librdkafka.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::kit::client::{self, Producer};
use crate::kit::process::target_dir;
use crate::kit::{Case, Record, Scheduled};

fn file(case: &Case, content: &str) -> PathBuf {
    let path = target_dir().join("tmp").join(format!("{}.yaml", case.group));
    std::fs::write(&path, content).expect("a file");
    path
}

#[test]
fn the_file_sets_the_partitioner_but_not_the_servers() {
    const KEYS: usize = 30;
    let Some(case) = Case::new("file", 6) else { return };
    let path = file(
        &case,
        "kafka.common.configuration:\n  bootstrap.servers: 127.0.0.1:1\n  client.id: from-the-file\n\
         kafka.producer.configuration:\n  partitioner: consistent\n  enable.idempotence: false\n",
    );
    let _engine = case.engine_with(&[("CONFIGURATION_FILE", path.to_str().expect("UTF-8"))]);
    let reference = format!("{}-reference", case.target);
    client::create_topic(case.bootstrap(), &reference, case.partitions, &[]);
    let consistent = Producer::new(case.bootstrap(), &[("partitioner", "consistent")]);
    for n in 0..KEYS {
        consistent.send(&reference, &Scheduled::new(format!("t{n}"), "v", 0, "-"));
        case.queue(&case.due_in(format!("k{n}"), "v", 1).target_key(format!("t{n}")));
    }
    consistent.flush();
    case.flush();
    let places =
        |records: &[Record]| -> BTreeMap<String, i32> { records.iter().map(|r| (r.key_text(), r.partition)).collect() };
    assert_eq!(places(&case.fired(KEYS)), places(&client::read_all(case.bootstrap(), &reference)));
    std::fs::remove_file(path).expect("removed");
}

#[test]
fn a_setting_that_librdkafka_rejects_ends_the_start() {
    let Some(case) = Case::new("bad-file", 1) else { return };
    let path = file(&case, "kafka.common.configuration:\n  socket.timeout.ms: banana\n");
    let mut engine = case.engine_with(&[("CONFIGURATION_FILE", path.to_str().expect("UTF-8"))]);
    let status = engine.wait(Duration::from_secs(20));
    assert!(!status.success(), "{status}");
    let output = engine.output();
    assert!(output.contains("socket.timeout.ms"), "{output}");
    std::fs::remove_file(path).expect("removed");
}
