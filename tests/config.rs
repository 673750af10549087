//! The settings, and the message for each invalid value.
#![cfg(feature = "cli")]

use std::error::Error;
#[cfg(unix)]
use std::ffi::OsStr;
#[cfg(unix)]
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
#[cfg(unix)]
use std::process::Command;
use std::time::Duration;

use kafka_scheduler::config::Config;
use kafka_scheduler::internal::Logging;

fn load(variables: &[(&str, &str)]) -> Result<Config, String> {
    let env = |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned());
    Config::load(&env).map_err(|e| match e.source() {
        Some(source) => format!("{e}: {source}"),
        None => e.to_string(),
    })
}

#[track_caller]
fn good(variables: &[(&str, &str)]) -> Config {
    load(variables).expect("the settings are valid")
}

#[track_caller]
fn wrong(variables: &[(&str, &str)], message: &str) {
    assert_eq!(load(variables).expect_err("the settings are invalid"), message);
}

/// A configuration file that is deleted when it goes out of scope.
struct File(PathBuf);

impl File {
    fn new(name: &str, text: &str) -> Self {
        let path = std::env::temp_dir().join(format!("kafka-scheduler-{}-{name}.yaml", std::process::id()));
        std::fs::write(&path, text).expect("the temporary directory is writable");
        Self(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().expect("the temporary directory's name is UTF-8")
    }

    #[track_caller]
    fn good(&self) -> Config {
        good(&[("CONFIGURATION_FILE", self.path())])
    }

    #[track_caller]
    fn unreadable(&self, allowed: &str) {
        wrong(
            &[("CONFIGURATION_FILE", self.path())],
            &format!("CONFIGURATION_FILE is {:?}, but {allowed}", self.path()),
        );
    }

    /// The message without the file's name at its beginning.
    #[track_caller]
    fn wrong(&self, message: &str) {
        wrong(&[("CONFIGURATION_FILE", self.path())], &format!("CONFIGURATION_FILE is {:?}: {message}", self.path()));
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

const TOPIC: &str = "1 to 249 of the characters a-z A-Z 0-9 . _ - (and not . or .. alone)";

#[test]
fn defaults() {
    let config = good(&[]);
    assert_eq!(config.bootstrap_servers(), "localhost:9092");
    assert_eq!(config.schedules_topics(), ["schedules"]);
    assert_eq!(config.since_delta_days(), 0);
    assert_eq!(config.group_id(), "scheduler-cg");
    assert_eq!(config.metrics_addr().to_string(), "[::]:8001");
    assert_eq!(config.history_topic(), "history");
    assert_eq!(config.server_addr().to_string(), "[::]:8000");
    assert_eq!(config.session_timeout().as_millis(), 6000);
    assert_eq!(config.grace_interval(), None);
    assert_eq!(config.max_horizon(), None);
}

#[test]
fn memory_warn_bytes() {
    assert_eq!(good(&[]).memory_warn_bytes(), None);
    assert_eq!(good(&[("MEMORY_WARN_BYTES", " 2000000000 ")]).memory_warn_bytes(), Some(2_000_000_000));
    for bytes in ["0", "-1", "2G", "1e9", "1125899906842625"] {
        let allowed = "must be a whole number of bytes from 1 to 1125899906842624";
        wrong(&[("MEMORY_WARN_BYTES", bytes)], &format!("MEMORY_WARN_BYTES is {bytes:?}, but {allowed}"));
    }
}

#[test]
fn an_empty_variable_is_not_set() {
    let config = good(&[
        ("BOOTSTRAP_SERVERS", ""),
        ("SCHEDULES_TOPICS", " "),
        ("GROUP_ID", ""),
        ("DEAD_LETTER_TOPIC", ""),
        ("METRICS_ADDR", ""),
        ("METRICS_HTTP_ADDR", ":9001"),
        ("CONFIGURATION_FILE", ""),
        ("SCHEDULE_GRACE_INTERVAL", ""),
    ]);
    assert_eq!(config.bootstrap_servers(), "localhost:9092");
    assert_eq!(config.schedules_topics(), ["schedules"]);
    assert_eq!(config.grace_interval(), None);
}

#[test]
fn lists_may_have_spaces_around_commas() {
    let config = good(&[("BOOTSTRAP_SERVERS", " a:1 , b:2"), ("SCHEDULES_TOPICS", "one , two")]);
    assert_eq!(config.bootstrap_servers(), "a:1,b:2");
    assert_eq!(config.schedules_topics(), ["one", "two"]);
}

#[test]
fn valid_servers() {
    for servers in ["broker", "broker:9092", "SASL_SSL://broker:9093", "[::1]:9092", "[::1]", "10.0.0.1:1,b"] {
        assert_eq!(good(&[("BOOTSTRAP_SERVERS", servers)]).bootstrap_servers(), servers);
    }
}

#[test]
fn invalid_servers() {
    for servers in [",", "a:1,,b:2", "a:x", "a:0", "a:99999", "a b:1", ":9092", "::1", "http://a/b"] {
        let message = format!("BOOTSTRAP_SERVERS is {servers:?}, but must be a comma list of host:port");
        wrong(&[("BOOTSTRAP_SERVERS", servers)], &message);
    }
}

#[test]
fn an_empty_list_of_topics() {
    wrong(
        &[("SCHEDULES_TOPICS", ",")],
        &format!("SCHEDULES_TOPICS is \",\", but must be a comma list of topic names; \"\" is not one: {TOPIC}"),
    );
}

#[test]
fn an_illegal_schedules_topic() {
    wrong(
        &[("SCHEDULES_TOPICS", "good,b d")],
        &format!(
            "SCHEDULES_TOPICS is \"good,b d\", but must be a comma list of topic names; \"b d\" is not one: {TOPIC}"
        ),
    );
}

#[test]
fn a_repeated_topic() {
    wrong(
        &[("SCHEDULES_TOPICS", "a,b, a")],
        "SCHEDULES_TOPICS is \"a,b, a\", but must be a list without repeats, and \"a\" occurs twice",
    );
}

#[test]
fn too_many_topics() {
    let topics: Vec<String> = (0..1_001).map(|i| format!("t{i}")).collect();
    wrong(&[("SCHEDULES_TOPICS", &topics.join(","))], "SCHEDULES_TOPICS names 1001 topics, but must name at most 1000");
}

#[test]
fn an_illegal_history_topic() {
    let long = "x".repeat(250);
    for topic in [".", "..", "a/b", "ü", "a,b", &long] {
        wrong(&[("HISTORY_TOPIC", topic)], &format!("HISTORY_TOPIC is {topic:?}, but must be {TOPIC}"));
    }
}

#[test]
fn history_among_the_schedules_topics() {
    wrong(
        &[("SCHEDULES_TOPICS", "a,history")],
        "HISTORY_TOPIC is \"history\", but must be a topic that is not among SCHEDULES_TOPICS: its records would be taken \
         for schedules",
    );
}

#[test]
fn the_dead_letter_topic() {
    assert_eq!(good(&[("DEAD_LETTER_TOPIC", "dead")]).dead_letter_topic(), Some("dead"));
    assert_eq!(good(&[]).dead_letter_topic(), None);
    wrong(&[("DEAD_LETTER_TOPIC", "a/b")], &format!("DEAD_LETTER_TOPIC is \"a/b\", but must be {TOPIC}"));
    wrong(
        &[("DEAD_LETTER_TOPIC", "schedules")],
        "DEAD_LETTER_TOPIC is \"schedules\", but must be a topic that is not among SCHEDULES_TOPICS: its records would \
         be taken for schedules",
    );
    wrong(
        &[("DEAD_LETTER_TOPIC", "history")],
        "DEAD_LETTER_TOPIC is \"history\", but must be another topic than HISTORY_TOPIC",
    );
}

#[test]
fn creating_topics() {
    assert!(!good(&[]).create_topics());
    for (text, create) in [("true", true), ("1", true), ("yes", true), ("false", false), ("0", false), ("no", false)] {
        assert_eq!(good(&[("CREATE_TOPICS", text)]).create_topics(), create);
    }
    wrong(&[("CREATE_TOPICS", "maybe")], "CREATE_TOPICS is \"maybe\", but must be true or false");
    assert_eq!(good(&[]).create_topics_replicas(), None);
    assert_eq!(good(&[("CREATE_TOPICS_REPLICATION_FACTOR", "3")]).create_topics_replicas(), Some(3));
    for text in ["0", "-1", "three"] {
        wrong(
            &[("CREATE_TOPICS_REPLICATION_FACTOR", text)],
            &format!(
                "CREATE_TOPICS_REPLICATION_FACTOR is {text:?}, but must be a whole number of replicas from 1 to 10000"
            ),
        );
    }
}

#[test]
fn addresses() {
    for (text, address) in [
        (":80", "[::]:80"),
        ("127.0.0.1:80", "127.0.0.1:80"),
        ("0.0.0.0:80", "0.0.0.0:80"),
        ("[::1]:80", "[::1]:80"),
        (":0", "[::]:0"),
    ] {
        assert_eq!(good(&[("SERVER_ADDR", text)]).server_addr().to_string(), address);
    }
    assert!(good(&[("SERVER_ADDR", "localhost:80")]).server_addr().ip().is_loopback());
}

#[test]
fn a_wrong_server_address() {
    for text in ["8000", ":", ":x", ":70000", "::1:80", "a b:1", "http://a:1"] {
        let message =
            format!("SERVER_ADDR is {text:?}, but must be host:port, or :port for every address of this machine");
        wrong(&[("SERVER_ADDR", text)], &message);
    }
}

#[test]
fn a_wrong_metrics_address_names_the_variable_that_was_set() {
    for name in ["METRICS_HTTP_ADDR", "METRICS_ADDR"] {
        let message = format!("{name} is \"x\", but must be host:port, or :port for every address of this machine");
        wrong(&[(name, "x")], &message);
    }
}

#[test]
fn both_names_of_the_metrics_address() {
    wrong(
        &[("METRICS_HTTP_ADDR", ":1"), ("METRICS_ADDR", ":2")],
        "METRICS_HTTP_ADDR is \":1\" and METRICS_ADDR is \":2\", but they mean the same: set one of them",
    );
    assert_eq!(good(&[("METRICS_HTTP_ADDR", ":1"), ("METRICS_ADDR", ":1")]).metrics_addr().port(), 1);
    assert_eq!(good(&[("METRICS_ADDR", ":2")]).metrics_addr().port(), 2);
}

#[test]
fn one_address_for_both_servers() {
    wrong(&[("METRICS_ADDR", ":8000")], "METRICS_ADDR is \":8000\", but must be another address than SERVER_ADDR");
}

#[test]
fn a_wrong_since_delta() {
    assert_eq!(good(&[("SINCE_DELTA", "-1")]).since_delta_days(), -1);
    for text in ["1", "x", "-1.5", "-36501", "99999999999"] {
        let message = format!(
            "SINCE_DELTA is {text:?}, but must be 0 (today) or less: -1 goes back to yesterday, and so on, down to -36500"
        );
        wrong(&[("SINCE_DELTA", text)], &message);
    }
}

#[test]
fn a_wrong_group() {
    let long = "g".repeat(201);
    for text in [long.as_str(), "a\nb"] {
        let message =
            format!("GROUP_ID is {text:?}, but must be 1 to 200 characters, none of them a control character");
        wrong(&[("GROUP_ID", text)], &message);
    }
}

#[test]
fn a_wrong_session_timeout() {
    for text in ["0", "6s", "-1", "3600001"] {
        let message =
            format!("SESSION_TIMEOUT is {text:?}, but must be a whole number of milliseconds from 1 to 3600000");
        wrong(&[("SESSION_TIMEOUT", text)], &message);
    }
}

#[test]
fn a_wrong_grace() {
    assert_eq!(good(&[("SCHEDULE_GRACE_INTERVAL", "0")]).grace_interval(), Some(Duration::ZERO));
    for text in ["-1", "1h", "1.5", "3153600001"] {
        let message =
            format!("SCHEDULE_GRACE_INTERVAL is {text:?}, but must be a whole number of seconds from 0 to 3153600000");
        wrong(&[("SCHEDULE_GRACE_INTERVAL", text)], &message);
    }
}

#[test]
fn a_horizon_in_seconds_or_as_a_duration() {
    for (text, seconds) in [("60", 60), ("P400D", 400 * 86_400), ("P2W", 14 * 86_400), ("P1DT1H", 90_000)] {
        assert_eq!(good(&[("MAX_HORIZON", text)]).max_horizon(), Some(Duration::from_secs(seconds)), "{text}");
    }
}

#[test]
fn a_wrong_horizon() {
    for text in ["0", "-5", "P1Y", "P1M", "-P1D", "PT0S", "PT1.5S", "P99999D", "soon"] {
        let message = format!(
            "MAX_HORIZON is {text:?}, but must be 1 to 3153600000 seconds, or an ISO 8601 duration of weeks, days, \
             hours, minutes and seconds, such as P400D"
        );
        wrong(&[("MAX_HORIZON", text)], &message);
    }
}

#[test]
fn variables_of_later_versions_are_not_ignored() {}

#[test]
fn a_token_that_no_header_can_carry_is_rejected_and_not_shown() {
    for token in ["two words", "gehéim", "line\nbreak", "tab\there"] {
        wrong(&[("REST_TOKEN", token)], "REST_TOKEN must be ASCII without spaces and control characters");
    }
    assert!(good(&[("REST_TOKEN", " abc-123 ")]).rest_token().is_some_and(|token| token.matches(b"abc-123")));
    assert!(good(&[("REST_TOKEN", "")]).rest_token().is_none());
}

#[test]
fn a_host_that_cannot_be_resolved() {
    for name in ["SERVER_ADDR", "METRICS_ADDR"] {
        wrong(
            &[(name, "no-such-host.invalid:80")],
            &format!(
                "{name} is \"no-such-host.invalid:80\", but must be host:port with a host that this machine can resolve"
            ),
        );
    }
}

#[cfg(unix)]
#[test]
fn a_variable_that_is_not_utf8_stops_the_program() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    for (name, message) in [
        ("GROUP_ID", "GROUP_ID is \"g\\xFF\", but must be UTF-8 text"),
        ("SCHEDULES_TOPICS", "SCHEDULES_TOPICS is \"g\\xFF\", but must be UTF-8 text"),
        ("CONFIGURATION_FILE", "CONFIGURATION_FILE is \"g\\xFF\", but must be UTF-8 text"),
        ("LOG_LEVEL", "LOG_LEVEL is \"g\\xFF\", but must be UTF-8 text"),
        ("REST_TOKEN", "REST_TOKEN is set, but must be UTF-8 text"),
    ] {
        for args in [&["run"][..], &["list"], &["mini"]] {
            let program = std::process::Command::new(env!("CARGO_BIN_EXE_kafka-scheduler"))
                .args(args)
                .env(name, OsStr::from_bytes(b"g\xff"))
                .output()
                .expect("the program starts");
            assert_eq!(program.status.code(), Some(2), "{name} {args:?}");
            let said = String::from_utf8(program.stderr).expect("stderr is UTF-8");
            assert_eq!(said, format!("kafka-scheduler: {message}\n"), "{name} {args:?}");
        }
    }
}

#[test]
fn a_file_that_is_not_utf8() {
    let file = File::new("binary", "");
    std::fs::write(file.path(), b"kafka:\xff").expect("the file can be written");
    file.unreadable("must be the path of a readable text file: stream did not contain valid UTF-8");
}

#[test]
fn log_settings() {
    use tracing::level_filters::LevelFilter;
    let load = |name: &str, value: &str| {
        Logging::load(&|n: &str| (n == name).then(|| value.to_owned())).map_err(|e| e.to_string())
    };
    for (name, level) in [
        ("", LevelFilter::INFO),
        ("trace", LevelFilter::TRACE),
        ("debug", LevelFilter::DEBUG),
        ("INFO", LevelFilter::INFO),
        ("warn", LevelFilter::WARN),
        ("warning", LevelFilter::WARN),
        ("error", LevelFilter::ERROR),
        ("fatal", LevelFilter::ERROR),
        ("panic", LevelFilter::ERROR),
    ] {
        assert_eq!(load("LOG_LEVEL", name).map(|l| l.level), Ok(level), "{name}");
    }
    assert_eq!(
        load("LOG_LEVEL", "loud").expect_err("no level"),
        "LOG_LEVEL is \"loud\", but must be trace, debug, info, warn, warning, error, fatal or panic"
    );
    assert_eq!(load("LOG_FORMAT", "json").map(|l| l.json), Ok(true));
    assert_eq!(
        load("LOG_FORMAT", "xml").expect_err("xml is not a format"),
        "LOG_FORMAT is \"xml\", but must be text or json"
    );
}

#[test]
fn a_file_with_dots_or_nested_maps_and_scalars_of_any_kind() {
    for (name, text) in [
        (
            "dots",
            "kafka.common.configuration: {ssl.ca.location: /ca, socket.keepalive.enable: true}\n\
             kafka.producer.configuration: {linger.ms: 5}\n\
             kafka.consumer.configuration:\n",
        ),
        (
            "nested",
            "kafka:\n  common:\n    configuration: {ssl.ca.location: /ca}\n  \
             common.configuration: {socket.keepalive.enable: true}\n  \
             producer:\n    configuration: {linger.ms: 5}\n",
        ),
    ] {
        let config = File::new(name, text).good();
        assert_eq!(config.kafka_common()["ssl.ca.location"], "/ca");
        assert_eq!(config.kafka_common()["socket.keepalive.enable"], "true");
        assert_eq!(config.kafka_producer()["linger.ms"], "5");
        assert!(config.kafka_consumer().is_empty());
    }
    assert!(File::new("empty", "# nothing\n").good().kafka_common().is_empty());
}

#[test]
fn the_environment_overrides_the_file_and_the_file_defaults() {
    let file = File::new(
        "wins",
        "kafka.common.configuration: {bootstrap.servers: 'file:1'}\n\
         kafka.consumer.configuration: {group.id: from-file, session.timeout.ms: 10000}\n",
    );
    let config = file.good();
    assert_eq!(config.bootstrap_servers(), "file:1");
    assert_eq!(config.group_id(), "from-file");
    assert_eq!(config.session_timeout().as_millis(), 10_000);
    assert!(config.kafka_common().is_empty() && config.kafka_consumer().is_empty());
    let config = good(&[
        ("CONFIGURATION_FILE", file.path()),
        ("BOOTSTRAP_SERVERS", "env:2"),
        ("GROUP_ID", "from-env"),
        ("SESSION_TIMEOUT", "7000"),
    ]);
    assert_eq!(config.bootstrap_servers(), "env:2");
    assert_eq!(config.group_id(), "from-env");
    assert_eq!(config.session_timeout().as_millis(), 7_000);
}

#[test]
fn an_error_in_the_file_names_the_file() {
    let file = File::new("session", "kafka.consumer.configuration: {session.timeout.ms: soon}\n");
    wrong(
        &[("CONFIGURATION_FILE", file.path())],
        &format!(
            "session.timeout.ms in CONFIGURATION_FILE {:?} is \"soon\", but must be a whole number of milliseconds from \
             1 to 3600000",
            file.path()
        ),
    );
}

#[test]
fn two_values_for_one_setting_in_the_file() {
    File::new("two", "kafka.common.configuration: {group.id: a}\nkafka.consumer.configuration: {group.id: b}\n")
        .wrong("\"group.id\" is set to different values: \"a\", \"b\"");
    File::new("twice", "kafka.common.configuration: {a: 1}\nkafka: {common.configuration: {a: 2}}\n")
        .wrong("\"kafka.common.configuration: a\" is set twice");
}

#[test]
fn values_of_the_file_that_are_not_scalars() {
    let all = "it must be text, a number or a boolean";
    let name = "\"kafka.common.configuration: a\"";
    for (file, value, message) in [
        ("null", "", format!("has no value; {all}")),
        ("list", "[1]", format!("is a list; {all}")),
        ("map", "{b: 1}", format!("is a map; {all}, with dots in its key")),
        ("tag", "!x 1", format!("has a tag; {all}")),
        ("nul", "\"\\0\"", "holds a null character".into()),
    ] {
        let text = format!("kafka.common.configuration:\n  a: {value}\n");
        File::new(file, &text).wrong(&format!("{name} {message}"));
    }
}

#[test]
fn unknown_keys_in_the_file() {
    let allowed = "is unknown; allowed are kafka.common.configuration, kafka.producer.configuration, kafka.consumer.configuration";
    File::new("unknown", "kafka.commmon.configuration: {}\n")
        .wrong(&format!("\"kafka.commmon.configuration\" {allowed}"));
    File::new("deep", "kafka: {admin: {configuration: {}}}\n").wrong(&format!("\"kafka.admin\" {allowed}"));
    File::new("number", "1: {}\n").wrong("must have text as keys");
    File::new("key", "kafka.common.configuration: {1: a}\n")
        .wrong("\"kafka.common.configuration\" must have text as keys");
}

#[test]
fn a_file_of_another_shape() {
    File::new("list-top", "[1]\n").wrong("must hold a map at its top");
    File::new("scalar", "kafka.common.configuration: 5\n").wrong("\"kafka.common.configuration\" must be a map");
    File::new("half", "kafka: {common: 5}\n").wrong("\"kafka.common\" must be a map");
}

#[test]
fn a_file_that_is_missing_or_not_yaml() {
    wrong(
        &[("CONFIGURATION_FILE", "/nowhere/at.all")],
        "CONFIGURATION_FILE is \"/nowhere/at.all\", but must be the path of a readable text file: No such file or \
         directory (os error 2)",
    );
    let file = File::new("broken", "kafka: [\n");
    let message = load(&[("CONFIGURATION_FILE", file.path())]).expect_err("this is no YAML");
    let start = format!("CONFIGURATION_FILE is {:?}, but must be the path of a YAML file: ", file.path());
    assert!(message.starts_with(&start) && !message.contains('\n'), "{message}");
}

#[test]
fn an_error_names_its_variable() {
    let file = File::new("variable", "kafka.common.configuration:\n  group.id: \"\"\n");
    for (set, value, variable) in [
        ("GROUP_ID", "\u{7}", "GROUP_ID"),
        ("METRICS_ADDR", "nowhere", "METRICS_ADDR"),
        ("REST_TOKEN", "a b", "REST_TOKEN"),
        ("CONFIGURATION_FILE", file.path(), "CONFIGURATION_FILE"),
    ] {
        let error = Config::load(&|name| (name == set).then(|| value.to_owned())).expect_err(set);
        assert_eq!(error.variable(), variable, "{error}");
    }
}

/// A process has one environment, which all its threads share: this test runs itself again in processes of its own.
#[cfg(unix)]
#[test]
fn the_environment_is_read_and_must_be_unicode() {
    const NAME: &str = "the_environment_is_read_and_must_be_unicode";
    let cases = [
        (OsStr::from_bytes(b"from-env"), "from-env"),
        (OsStr::from_bytes(b"g\xFF"), "GROUP_ID is \"g\\xFF\", but must be UTF-8 text"),
    ];
    let current = std::env::var_os("GROUP_ID");
    if let Some((_, expected)) = cases.iter().find(|(value, _)| current.as_deref() == Some(value)) {
        let read = Config::from_env().map_or_else(|e| e.to_string(), |config| config.group_id().to_owned());
        assert_eq!(read, *expected);
        return;
    }
    for (value, expected) in cases {
        let this = std::env::current_exe().expect("the path of this test");
        let output = Command::new(this).args(["--exact", NAME]).env("GROUP_ID", value).output().expect("it runs");
        let passed = String::from_utf8_lossy(&output.stdout).contains("1 passed");
        assert!(output.status.success() && passed, "{expected}: {output:?}");
    }
}
