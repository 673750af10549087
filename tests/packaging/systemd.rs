//! systemd-analyze accepts the unit, if it is installed.

use std::fs;
use std::path::Path;

use crate::{read, tool};

const UNIT: &str = "packaging/systemd/kafka-scheduler.service";
const INSTALLED: &str = "/usr/local/bin/kafka-scheduler";

#[test]
fn systemd_accepts_the_unit() {
    let unit = read(UNIT);
    assert!(unit.contains(&format!("\nExecStart={INSTALLED} run\n")), "{unit}");
    // systemd-analyze checks that the program exists, so the copy names an existing one.
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("packaging");
    fs::create_dir_all(&folder).expect("a folder");
    let copy = folder.join("kafka-scheduler.service");
    let here = unit
        .replace(&format!("ExecStart={INSTALLED}"), &format!("ExecStart={}", env!("CARGO_BIN_EXE_kafka-scheduler")));
    fs::write(&copy, here).expect("a copy");
    let copy = copy.to_str().expect("UTF-8");
    if let Some(said) = tool("systemd-analyze", &["verify", copy]) {
        assert_eq!(said.trim(), "", "systemd-analyze only warns of unknown settings");
    }
    // The exposure level in tenths, from 0 (best) to 100.
    tool("systemd-analyze", &["security", "--offline=true", "--threshold=20", "--no-pager", copy]);
}
