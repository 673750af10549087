//! Secrets appear nowhere.

use crate::kit::Case;
use crate::kit::case::TIMEOUT;
use crate::kit::process::configuration;
use crate::kit::wait::eventually;
use crate::secured::{PASSWORD, secured};

const TOKEN: &str = "rest-token-51ac";

#[test]
fn no_secret_is_in_logs_answers_or_process_arguments() {
    let Some(secured) = secured() else { return };
    let case = Case::on(secured.broker, "secrets", 1, 1);
    // Nothing is granted, so every denial is logged too, and librdkafka logs at its most verbose level.
    let file = configuration("secrets", &format!("{}  debug: all\n", secured.scram_text("keeps-secrets")));
    let engine = case.engine_with(&[
        ("BOOTSTRAP_SERVERS", &secured.address),
        ("CONFIGURATION_FILE", &file),
        ("REST_TOKEN", TOKEN),
        ("LOG_LEVEL", "trace"),
    ]);
    eventually("the engine has logged in and lacks permissions", TIMEOUT, || {
        engine.output().contains("grant").then_some(())
    });
    let bearer = format!("Bearer {TOKEN}");
    for path in ["/", "/liveness", "/readiness", "/info", "/schedules", "/parked", "/status", "/openapi.json"] {
        for headers in [&[("Authorization", bearer.as_str())][..], &[]] {
            let answer = engine.ask("GET", path, headers).text();
            assert!(!answer.contains(PASSWORD) && !answer.contains(TOKEN), "{path}: {answer}");
        }
    }
    let metrics: Vec<String> = engine.metrics().into_keys().collect();
    let arguments = std::fs::read_to_string(format!("/proc/{}/cmdline", engine.pid())).expect("Linux");
    let output = engine.output();
    assert!(output.contains("librdkafka"), "the output has lines of librdkafka: {output}");
    for text in [metrics.concat(), arguments, output] {
        let at = text.find(PASSWORD).or_else(|| text.find(TOKEN));
        assert_eq!(at.map(|at| &text[at.saturating_sub(300)..at]), None);
    }
}

#[test]
fn an_unknown_librdkafka_setting_is_named_without_its_value() {
    let Some(secured) = secured() else { return };
    let case = Case::on(secured.broker, "typo", 1, 1);
    let text = secured.scram_text("keeps-secrets").replace("sasl.password", "sasl.passwordd");
    let file = configuration(&case.group, &text);
    let mut engine = case.engine_with(&[("CONFIGURATION_FILE", &file)]);
    assert!(!engine.wait(TIMEOUT).success());
    let output = engine.output();
    assert!(output.contains("sasl.passwordd") && !output.contains(PASSWORD), "{output}");
}
