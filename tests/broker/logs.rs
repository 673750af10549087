//! The engine's log on stderr, also when its reader stops.

use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::kit::case::TIMEOUT;
use crate::kit::process::{configuration, free_port, outliving_shell, signal};
use crate::kit::wait::{eventually, now_s};
use crate::kit::{Case, Scheduled};

#[test]
fn json_logs_begin_with_version_and_masked_configuration() {
    let Some(case) = Case::new("json-log", 1) else { return };
    let path = crate::kit::process::target_dir().join("tmp").join(format!("{}.yaml", case.group));
    let settings =
        "kafka.common.configuration:\n  client.id: me\n  sasl.password: hunter2\n  ssl.key.password: hunter2\n";
    std::fs::write(&path, settings).expect("a file");
    let dead = format!("{}-dead", case.target);
    let mut engine = case.engine_with(&[
        ("LOG_FORMAT", "json"),
        ("CONFIGURATION_FILE", path.to_str().expect("UTF-8")),
        ("GRAYLOG_SERVER", "graylog:12201"),
        ("SCHEDULE_GRACE_INTERVAL", "60"),
        ("MAX_HORIZON", "P400D"),
        ("MEMORY_WARN_BYTES", "1000000"),
        ("CREATE_TOPICS", "true"),
        ("DEAD_LETTER_TOPIC", &dead),
        ("REST_TOKEN", "hunter2hunter2"),
    ]);
    engine.ready();
    case.produce(&[
        case.due_in("\u{1b}[31mhostile\n{\"level\":\"x\"}", "secret value", 0),
        case.due_in("other", "v", 0),
    ]);
    case.fired(2);
    engine.stop();
    let output = engine.output();
    let lines: Vec<Value> = output.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    let start = lines.iter().find(|line| line["message"] == "starting").expect("a first line");
    assert_eq!(start["version"], env!("CARGO_PKG_VERSION"));
    let effective = json!({
        "bootstrap_servers": case.bootstrap(), "group_id": case.group, "history_topic": case.history,
        "schedules_topics": format!("{:?}", case.schedules), "since_delta_days": -1,
        "server_addr": format!("127.0.0.1:{}", engine.port), "metrics_addr": format!("127.0.0.1:{}", engine.metrics_port),
        "session_timeout_ms": case.broker.session_timeout_ms, "grace_s": 60, "horizon_s": 400 * 86_400,
        "memory_warn_bytes": 1_000_000, "create_topics": true, "dead_letter_topic": dead, "rest_token": "***",
        "log_level": "info",
    });
    for (setting, value) in effective.as_object().expect("settings") {
        assert_eq!(&start[setting], value, "{setting} in {start}");
    }
    let common = start["kafka_common"].as_str().expect("settings");
    assert!(common.contains("\"client.id\": \"me\"") && common.contains("\"sasl.password\": \"***\""), "{common}");
    let severities = [("ERROR", "ERROR"), ("WARN", "WARNING"), ("INFO", "INFO")];
    for line in &lines {
        let pair = (line["level"].as_str().expect("a level"), line["severity"].as_str().expect("a severity"));
        assert!(severities.contains(&pair), "{line}");
    }
    let warned = lines.iter().any(|line| {
        line["level"] == "WARN" && line["message"].as_str().is_some_and(|m| m.contains("GRAYLOG_SERVER is ignored"))
    });
    assert!(warned, "{output}");
    for state in ["partitions assigned", "partition live", "stopped"] {
        assert_eq!(lines.iter().filter(|line| line["message"] == state).count(), 1, "{state}: {output}");
    }
    for secret in ["hunter2", "secret value", "hostile"] {
        assert!(!output.contains(secret), "{secret} in {output}");
    }
    std::fs::remove_file(path).expect("removed");
}

#[test]
fn errors_that_prevent_the_start_are_json_too() {
    let run = |args: &[&str], env: &[(&str, &str)]| {
        let output = Command::new(env!("CARGO_BIN_EXE_kafka-scheduler"))
            .args(args)
            .env_clear()
            .env("LOG_FORMAT", "JSON")
            .envs(env.iter().copied())
            .stdin(Stdio::null())
            .output()
            .expect("the program runs");
        let said = String::from_utf8(output.stderr).expect("UTF-8");
        let lines: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
        let last = lines.last().cloned().expect("the log has the reason");
        assert_eq!((&last["severity"], &last["level"]), (&json!("ERROR"), &json!("ERROR")), "{said}");
        assert!(last["timestamp"].as_str().is_some_and(|at| at.ends_with('Z')), "{said}");
        (output.status.code(), last["message"].as_str().expect("a text").to_owned())
    };
    let (code, why) = run(&[], &[("SINCE_DELTA", "1")]);
    assert!(code == Some(2) && why.starts_with("SINCE_DELTA is \"1\""), "{code:?} {why}");
    let (code, why) = run(&[], &[("LOG_LEVEL", "loud")]);
    assert!(code == Some(2) && why.starts_with("LOG_LEVEL is \"loud\""), "{code:?} {why}");
    let (code, why) = run(&["--nonsense"], &[]);
    assert!(code == Some(2) && why.contains("--nonsense"), "{code:?} {why}");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let (code, why) = run(&["run"], &[("SERVER_ADDR", &address)]);
    assert!(code == Some(1) && why.contains("cannot listen on"), "{code:?} {why}");
    // A command cannot reach its broker: messages of librdkafka go through the same log.
    let nowhere = format!("127.0.0.1:{}", free_port());
    let (code, _) = run(&["export", "--to", "/dev/null"], &[("BOOTSTRAP_SERVERS", &nowhere)]);
    assert_eq!(code, Some(1));
}

/// Kills a process that the kit did not start.
struct Killed(std::process::Child, std::process::Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.1.kill();
        let _ = self.1.wait();
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_stalled_reader_of_stderr_does_not_stop_the_engine() {
    // A pipe holds 64 KiB, about 600 lines; the other lines of the 10,000 are queued.
    const PENDING: usize = 3_000;
    let Some(case) = Case::new("blocked-log", 1) else { return };
    let (port, metrics_port) = (free_port(), free_port());
    // librdkafka logs several lines per batch of records. The test never reads from the pipe.
    let talkative = configuration("talkative", "kafka.common.configuration:\n  debug: all\n");
    let child = Command::new(env!("CARGO_BIN_EXE_kafka-scheduler"))
        .env_clear()
        .env("SERVER_ADDR", format!("127.0.0.1:{port}"))
        .env("METRICS_HTTP_ADDR", format!("127.0.0.1:{metrics_port}"))
        .env("BOOTSTRAP_SERVERS", case.bootstrap())
        .env("SCHEDULES_TOPICS", case.schedules.join(","))
        .env("HISTORY_TOPIC", &case.history)
        .env("GROUP_ID", &case.group)
        .env("TZ", "UTC")
        .env("SINCE_DELTA", "-1")
        .env("LOG_LEVEL", "trace")
        .env("CONFIGURATION_FILE", talkative)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the engine starts");
    let pid = child.id();
    let engine = Killed(child, outliving_shell("read _; kill -9 \"$1\"", &[&pid.to_string()]));
    let ask = |path: &str| crate::kit::http::ask(port, "GET", path, &[]).ok();
    eventually("the engine is ready", TIMEOUT, || ask("/readiness").filter(|answer| answer.status == 200));
    let dropped = || {
        let body = crate::kit::http::get(metrics_port, "/metrics")?.1;
        let line = body.lines().find_map(|line| line.strip_prefix("kafka_scheduler_log_lines_dropped_total "))?;
        line.parse::<u64>().ok()
    };
    eventually("lines are given up, and counted", TIMEOUT * 2, || {
        for n in 0..PENDING {
            case.queue(&case.due_in(format!("pending{n}"), "v", 3_600));
        }
        case.flush();
        dropped().filter(|count| *count > 0)
    });
    let due = now_s() + 1;
    case.produce(&[Scheduled::new("fires", "v", due, &case.target).target_key("fires")]);
    let fired = case.fired(1);
    assert!(fired[0].timestamp / 1000 < due + 5, "the schedule fires on time: {fired:?}");
    assert_eq!(ask("/liveness").map(|answer| answer.status), Some(200));
    signal(pid, "TERM");
    let mut engine = engine;
    eventually("the engine stops", TIMEOUT, || engine.0.try_wait().expect("a status"));
}
