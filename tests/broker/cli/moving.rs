//! Export and import.

use std::collections::BTreeMap;
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::{on, on_with, path};
use crate::kit::Case;
use crate::kit::Scheduled;
use crate::kit::client::{HeaderPair, Producer, Reader, Record};
use crate::kit::wait::now_s;

type Content = BTreeMap<Vec<u8>, (Option<Vec<u8>>, Vec<HeaderPair>)>;

fn content(records: &[Record]) -> Content {
    records
        .iter()
        .map(|record| (record.key.clone().expect("a key"), (record.value.clone(), record.headers.clone())))
        .collect()
}

#[test]
fn what_is_exported_is_imported_byte_for_byte() {
    let (Some(from), Some(to)) = (Case::new("cli-export", 3), Case::new("cli-import", 4)) else { return };
    let due = now_s() + 3_600;
    let at = |key: &[u8], value: &[u8]| Scheduled::new(key, value, due, "elsewhere");
    let kept = [
        at(b"text", "é\n\"".as_bytes()).header("a", "1").null_header("a").header("b", ""),
        at(&[0xff, 0, 1], &[0xfe]).target_key([0xfd]).header("bytes", [0xfc]),
        at(b"empty", b""),
        at(b"invalid", b"v").header("scheduler-epoch", "x"),
    ];
    from.produce(&kept);
    from.produce(&[at(b"replaced", b"old"), at(b"gone", b"v"), Scheduled::cancel("gone"), at(b"replaced", b"new")]);
    let file = path(&from, "schedules.jsonl");
    let name = file.to_str().expect("UTF-8");
    let ran = on(&from, &["export", "--to", name]);
    assert!(ran.err.contains("5 schedules exported"), "{}", ran.err);
    ran.ok();
    assert_eq!(on(&from, &["export"]).ok(), std::fs::read_to_string(&file).expect("a file"));
    // One of the keys exists already, with a later due time, in a partition that no hash selects.
    let hashed = {
        let producer = Producer::new(to.bootstrap(), &[]);
        producer.send(&to.target, &at(b"replaced", b""));
        producer.flush();
        to.fired(1)[0].partition
    };
    let elsewhere = (hashed + 1) % 4;
    to.produce(&[at(b"replaced", b"older").partition(elsewhere)]);
    let ran = on(&to, &["import", name]);
    assert!(ran.err.contains("5 schedules imported"), "{}", ran.err);
    ran.ok();
    let mut expected: Vec<Record> = from.read_schedules(0);
    expected.retain(|record| record.key_text() != "gone");
    let imported = to.read_schedules(0);
    assert_eq!(content(&imported), content(&expected));
    let replaced: Vec<_> = imported.iter().filter(|record| record.key_text() == "replaced").collect();
    assert_eq!(replaced.iter().map(|record| record.partition).collect::<Vec<_>>(), [elsewhere, elsewhere]);
    std::fs::remove_file(file).expect("removed");
}

#[test]
fn same_partitions_keeps_partitions() {
    let (Some(from), Some(to)) = (Case::new("cli-same", 3), Case::new("cli-same-too", 3)) else { return };
    for partition in 0..3 {
        let key = format!("k{partition}");
        from.produce(&[Scheduled::new(&key, "v", now_s() + 3_600, "elsewhere").partition(partition)]);
    }
    let lines = on(&from, &["export"]).ok();
    on_with(&to, &["import", "-", "--same-partitions"], lines.as_bytes()).ok();
    for record in to.read_schedules(0) {
        assert_eq!(record.key_text(), format!("k{}", record.partition));
    }
    let Some(small) = Case::new("cli-same-small", 1) else { return };
    on_with(&small, &["import", "-", "--same-partitions"], lines.as_bytes()).failed(1, &["line ", "no partition"]);
}

#[test]
fn a_bad_line_is_named_and_earlier_lines_are_counted() {
    let Some(case) = Case::new("cli-bad-line", 1) else { return };
    let good = r#"{"key":"k","value":"v","headers":[["scheduler-epoch","4102444800"],["scheduler-target-topic","t"]]}"#;
    for (bad, reason) in [
        ("nonsense", "expected"),
        (r#"{"key":"k"}"#, "no value"),
        (r#"{"value":"v"}"#, "no key"),
        (r#"{"key":"__scheduler.start-marker","value":"v"}"#, "reserved for the engine"),
        (r#"{"key":{"base64":"!"},"value":"v"}"#, "Invalid"),
        (r#"{"key":"k","value":"v","haeders":[]}"#, "haeders"),
    ] {
        let input = format!("{good}\n\n{bad}\n{good}\n");
        on_with(&case, &["import", "-"], input.as_bytes()).failed(1, &["line 3", reason, "1 schedules imported"]);
    }
}

/// Runs the program, and measures its peak memory in KiB.
pub fn measured(case: &Case, args: &[&str]) -> (u64, String) {
    let said = path(case, "said");
    let mut child = Command::new(env!("CARGO_BIN_EXE_kafka-scheduler"))
        .args(args)
        .env("BOOTSTRAP_SERVERS", case.bootstrap())
        .env("SCHEDULES_TOPICS", &case.schedules[0])
        .env("GROUP_ID", &case.group)
        .stdout(Stdio::null())
        .stderr(File::create(&said).expect("a file"))
        .spawn()
        .expect("the program starts");
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    let ended = loop {
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let held = text.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse().ok());
        peak = held.unwrap_or(0).max(peak);
        if let Some(ended) = child.try_wait().expect("a status") {
            break ended;
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let text = std::fs::read_to_string(&said).expect("the output");
    std::fs::remove_file(said).expect("removed");
    let said = text;
    assert!(ended.success(), "{said}");
    (peak, said)
}

/// Returns the number of records, and a checksum of their contents that does not depend on their order.
fn sum(case: &Case) -> (u64, u64) {
    let (mut count, mut sum) = (0, 0u64);
    Reader::new(case.bootstrap(), &case.schedules[0]).drain(|record| {
        let mut hash = DefaultHasher::new();
        (record.key, record.value, record.headers).hash(&mut hash);
        (count, sum) = (count + 1, sum.wrapping_add(hash.finish()));
    });
    (count, sum)
}

#[test]
fn a_million_schedules_are_moved_in_little_memory() {
    const COUNT: u64 = 1_000_000;
    const PEAK_KIB: u64 = 200 * 1024;
    let (Some(from), Some(to)) = (Case::new("cli-million", 2), Case::new("cli-million-too", 3)) else { return };
    let due = now_s() + 86_400;
    for n in 0..COUNT {
        let mut value = n.to_be_bytes().to_vec();
        value.resize(200, 0xff);
        let second = due + i64::try_from(n % 1_000).expect("small");
        from.queue(&Scheduled::new(format!("key-{n}"), value, second, "elsewhere").target_key("k").header("h", "x"));
    }
    from.flush();
    let expected = sum(&from);
    assert_eq!(expected.0, COUNT);
    let file = path(&from, "million.jsonl");
    let name = file.to_str().expect("UTF-8");
    for (case, args, verb) in
        [(&from, ["export", "--to", name], "exported"), (&to, ["import", name, "--topic"], "imported")]
    {
        let args: Vec<&str> = match verb {
            "imported" => args.into_iter().chain([case.schedules[0].as_str()]).collect(),
            _ => args.to_vec(),
        };
        let (peak, said) = measured(case, &args);
        eprintln!("{verb}: at most {peak} KiB");
        assert!(said.contains(&format!("{COUNT} schedules {verb}")), "{said}");
        assert!(said.lines().count() > 2, "progress is printed: {said}");
        assert!(peak > 0 && peak <= PEAK_KIB, "{peak} KiB");
    }
    assert_eq!(sum(&to), expected);
    std::fs::remove_file(file).expect("removed");
}
