//! Errors of brokers appear once in the log, and in readiness.

use crate::kit::Case;
use crate::kit::broker::broker_with;
use crate::kit::case::TIMEOUT;
use crate::kit::engine::Engine;
use crate::kit::wait::eventually;

/// Waits until readiness has a warning with this text, and returns it.
fn shown(engine: &Engine, text: &str) -> String {
    eventually(&format!("readiness warns of {text}"), TIMEOUT, || {
        let answer = engine.probe("/readiness")?.json();
        let warnings = answer["warnings"].as_array()?.iter().filter_map(|warning| warning.as_str());
        warnings.filter(|warning| warning.contains(text)).map(str::to_owned).next()
    })
}

fn lines(engine: &Engine, text: &str) -> usize {
    engine.output().lines().filter(|line| line.contains(" WARN ") && line.contains(text)).count()
}

#[test]
fn a_rejected_session_timeout_names_the_brokers_settings() {
    let Some(case) = Case::with_defaults("short-session", 1) else { return };
    let engine = case.engine_with(&[("SESSION_TIMEOUT", "3000"), ("LOG_LEVEL", "debug")]);
    let warning = shown(&engine, "SESSION_TIMEOUT (3000 ms)");
    assert!(warning.contains("group.min.session.timeout.ms"), "{warning}");
    assert!(warning.contains("group.max.session.timeout.ms"), "{warning}");
    assert_eq!(engine.probe("/readiness").map(|answer| answer.status), Some(503));
    eventually("joining is rejected again", TIMEOUT, || {
        let rejections = engine.output().lines().filter(|line| line.contains("consumer error")).count();
        (rejections > 2).then_some(())
    });
    assert_eq!(lines(&engine, &warning), 1, "{}", engine.output());
}

#[test]
fn a_group_that_is_full_is_named_until_there_is_room() {
    let Some(broker) = broker_with("group.max.size=1\n") else { return };
    let case = Case::on(broker, "full-group", 1, 1);
    let mut first = case.engine();
    first.ready();
    let second = case.engine();
    let warning = shown(&second, "group.max.size");
    assert_eq!(lines(&second, &warning), 1, "{}", second.output());
    first.stop();
    second.ready();
    let answer = second.ask("GET", "/readiness", &[]).json();
    assert_eq!(answer["warnings"].as_array().map(Vec::len), Some(0), "{answer}");
}
