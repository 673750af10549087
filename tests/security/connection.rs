//! TLS and credentials in the configuration file.

use crate::guide;
use crate::kit::Case;
use crate::kit::case::TIMEOUT;
use crate::kit::process::configuration;
use crate::kit::wait::eventually;
use crate::secured::{PASSWORD, PLAIN_USER, Secured, TOKEN_USER, secured};

/// Grants a user everything.
pub fn grant_all(secured: &Secured, user: &str) {
    let user = format!("User:{user}");
    let all = ["--add", "--allow-principal", &user, "--operation", "All"];
    for on in ["--topic", "--group", "--transactional-id"] {
        let args = [&all[..], &[on, "*"]].concat();
        secured.broker.tool("org.apache.kafka.tools.AclCommand", &args).expect("Kafka's tools are available");
    }
}

fn fires(user: &str, text: &str, secured: &'static Secured) {
    grant_all(secured, user);
    let case = Case::on(secured.broker, user, 1, 1);
    let file = configuration(user, text);
    case.produce(&[case.due_in("k", "v", 0)]);
    let mut engine = case.engine_with(&[("BOOTSTRAP_SERVERS", &secured.address), ("CONFIGURATION_FILE", &file)]);
    assert_eq!(case.fired(1).len(), 1);
    engine.stop();
}

#[test]
fn plain_within_tls() {
    let Some(secured) = secured() else { return };
    let text = secured.scram_text(PLAIN_USER).replace("SCRAM-SHA-512", "PLAIN");
    fires(PLAIN_USER, &text, secured);
}

#[test]
fn unsecured_tokens() {
    let Some(secured) = secured() else { return };
    let text = guide::block("yaml", "OAUTHBEARER")
        .replace("principal=scheduler", &format!("principal={TOKEN_USER}"))
        .replace("/etc/kafka-scheduler/ca.pem", &secured.ca());
    fires(TOKEN_USER, &text, secured);
}

/// Starts an engine that cannot connect, and waits for a log line with the reason. Returns the output.
fn refused(name: &str, text: &str, why: &str) {
    let Some(secured) = secured() else { return };
    let case = Case::on(secured.broker, name, 1, 1);
    let file = configuration(&case.group, text);
    let engine = case.engine_with(&[("BOOTSTRAP_SERVERS", &secured.address), ("CONFIGURATION_FILE", &file)]);
    eventually(&format!("the log says: {why}"), TIMEOUT, || engine.output().contains(why).then_some(()));
    assert!(!engine.output().contains(PASSWORD));
}

#[test]
fn a_wrong_password_is_named() {
    let Some(secured) = secured() else { return };
    let text = secured.scram_text("connects").replace(PASSWORD, "wrong");
    refused("wrong-password", &text, "the brokers reject the credentials; see CONFIGURATION_FILE");
}

#[test]
fn a_certificate_of_another_ca_is_named() {
    let Some(secured) = secured() else { return };
    let text = secured.scram_text("connects").replace(&secured.ca(), &secured.other_ca());
    refused("wrong-ca", &text, "no TLS connection can be made; see CONFIGURATION_FILE");
}

#[test]
fn oidc_is_reported_as_missing_from_the_build() {
    let Some(secured) = secured() else { return };
    let text = guide::block("yaml", "OAUTHBEARER")
        .replace("enable.sasl.oauthbearer.unsecure.jwt: true", "sasl.oauthbearer.method: oidc")
        .replace("/etc/kafka-scheduler/ca.pem", &secured.ca());
    refused("oidc", &text, "sasl.oauthbearer.method");
}
