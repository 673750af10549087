//! Credentials are replaced while the engine runs. The running clients keep the old ones, so the engine exits, and the
//! next start reads the new ones.

use std::fs;
use std::time::Duration;

use kafka_scheduler::config::Config;
use kafka_scheduler::runner::RunnerError;
use kafka_scheduler::{Runner, Running};

use crate::certificates::{self, STORE_PASSWORD};
use crate::connection::grant_all;
use crate::kit::Case;
use crate::kit::broker::text;
use crate::kit::case::TIMEOUT;
use crate::kit::process::configuration;
use crate::kit::proxy::Proxy;
use crate::kit::wait::{eventually, now_ms, until_ms};
use crate::secured::{PASSWORD, Secured, secured};

const USER: &str = "rotates";
/// The message at its end.
const REWRITTEN: &str = "has changed since the engine read it";
const NEW_PASSWORD: &str = "sesameopen-b3f9";
/// Enough time to create a certificate and to start with it on a busy machine.
const CERTIFICATE_S: u32 = 40;

fn change_password(secured: &Secured) {
    let change = format!("SCRAM-SHA-512=[password={NEW_PASSWORD}]");
    let args = ["--alter", "--entity-type", "users", "--entity-name", USER, "--add-config", &change];
    secured.broker.tool("kafka.admin.ConfigCommand", &args).expect("Kafka's tools are available");
}

fn interrupt(proxy: &Proxy) {
    proxy.cut();
    proxy.pass(Duration::ZERO);
}

/// Starts an engine inside this program.
fn embedded(case: &Case, address: &str, file: &str) -> Running {
    let env = |name: &str| {
        Some(match name {
            "BOOTSTRAP_SERVERS" => address.to_owned(),
            "SCHEDULES_TOPICS" => case.schedules.join(","),
            "HISTORY_TOPIC" => case.history.clone(),
            "GROUP_ID" => case.group.clone(),
            "SINCE_DELTA" => "-1".to_owned(),
            "CONFIGURATION_FILE" => file.to_owned(),
            _ => return None,
        })
    };
    Runner::new(Config::load(&env).expect("the settings are valid")).start().expect("the engine starts")
}

#[test]
fn a_changed_password_ends_the_engine_and_the_next_logs_in() {
    let Some(secured) = secured() else { return };
    grant_all(secured, USER);
    let case = Case::on(secured.broker, USER, 1, 1);
    let old = secured.scram_text(USER);
    let file = configuration(&case.group, &old);
    let address = format!("127.0.0.1:{}", secured.cut.port);
    let running = embedded(&case, &address, &file);
    case.produce(&[case.due_in("before", "v", 0)]);
    case.fired(1);
    change_password(secured);
    interrupt(&secured.cut);
    eventually("the brokers refuse the old password", TIMEOUT, || {
        let warnings = running.handle().status().warnings;
        warnings.iter().any(|warning| warning.contains("reject the credentials")).then_some(())
    });
    assert!(!running.is_finished(), "the file was not rewritten, so a restart would not help");
    fs::write(&file, old.replace(PASSWORD, NEW_PASSWORD)).expect("written");
    eventually("the engine stops", TIMEOUT, || running.is_finished().then_some(()));
    let error = running.wait().expect_err("it says why");
    assert!(matches!(error, RunnerError::Engine(_)), "{error:?}");
    let said = error.to_string();
    assert!(said.contains(REWRITTEN) && !said.contains(PASSWORD) && !said.contains(NEW_PASSWORD), "{said}");
    case.produce(&[case.due_in("after", "v", 0)]);
    let running = embedded(&case, &address, &file);
    assert_eq!(case.fired(2).len(), 2);
    running.close().expect("the engine stops cleanly");
}

#[test]
fn a_replaced_certificate_ends_the_program_and_is_used_next() {
    let Some(secured) = secured() else { return };
    let (dir, name) = (&secured.dir, "short-lived");
    for user in [name, "renewed"] {
        grant_all(secured, &format!("CN={user}"));
    }
    let case = Case::on(secured.broker, name, 1, 1);
    certificates::client(dir, "renewed", 86_400);
    let expired_ms = now_ms() + i64::from(CERTIFICATE_S) * 1_000;
    certificates::client(dir, name, CERTIFICATE_S);
    let store = text(&dir.join(format!("{name}.p12")));
    let file = configuration(
        &case.group,
        &format!(
            "kafka.common.configuration:\n  security.protocol: SSL\n  ssl.ca.location: {}\n  \
             ssl.keystore.location: {store}\n  ssl.keystore.password: {STORE_PASSWORD}\n",
            secured.ca()
        ),
    );
    let address = format!("127.0.0.1:{}", secured.mutual.port);
    let start = || case.engine_with(&[("BOOTSTRAP_SERVERS", &address), ("CONFIGURATION_FILE", &file)]);
    let mut engine = start();
    case.produce(&[case.due_in("before", "v", 0)]);
    case.fired(1);
    // The certificate is replaced in time, before it expires; open connections keep working.
    fs::rename(dir.join("renewed.p12"), &store).expect("renamed");
    until_ms(expired_ms + 2_000);
    assert!(engine.running());
    interrupt(&secured.mutual);
    let status = engine.wait(TIMEOUT);
    assert_eq!(status.code(), Some(1), "the exit code makes a supervisor restart the program: {}", engine.output());
    assert!(engine.output().contains(REWRITTEN), "{}", engine.output());
    case.produce(&[case.due_in("after", "v", 0)]);
    let mut engine = start();
    assert_eq!(case.fired(2).len(), 2);
    engine.stop();
}
