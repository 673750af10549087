//! Counters and pending schedules over HTTP.

use serde_json::Value;

use crate::kit::case::TIMEOUT;
use crate::kit::wait::{eventually, now_s};
use crate::kit::{Case, Scheduled};

#[test]
fn the_counters_count() {
    let Some(case) = Case::new("counters", 1) else { return };
    case.produce(&[case.due_in("missed", "v", -5)]);
    let engine = case.engine();
    eventually("the missed one is counted", TIMEOUT, || (engine.counter("missed_schedule")? == 1).then_some(()));
    let soon = now_s() + 2;
    case.produce(&[
        Scheduled::new("fires", "v", soon, &case.target),
        Scheduled::new("cancelled", "v", soon + 3_600, &case.target),
        Scheduled::cancel("cancelled"),
        Scheduled::cancel("never-was"),
        Scheduled::new("invalid", "v", 0, &case.target).header("scheduler-epoch", "x"),
        Scheduled { headers: Vec::new(), ..Scheduled::new("no-headers", "v", 0, "-") },
    ]);
    for (event, count) in
        [("triggered_schedule", 1), ("missed_schedule", 1), ("deleted_schedule", 1), ("invalid_schedule", 2)]
    {
        eventually(&format!("{event} is {count}"), TIMEOUT, || (engine.counter(event)? == count).then_some(()));
    }
    assert_eq!(engine.counter("planned_schedule"), Some(3));
    // The cancel had no schedule; the engine's own records are not counted.
    assert_eq!(engine.counter("other"), Some(1));
}

#[test]
fn rest_serves_liveness_info_and_pending_schedules() {
    let Some(case) = Case::new("rest", 2) else { return };
    let engine = case.engine();
    eventually("liveness is served", TIMEOUT, || engine.get("/liveness"));
    let info: Value = serde_json::from_str(&engine.get("/info").expect("an answer")).expect("JSON");
    assert!(info["hostname"].is_string() && info["address"].is_array(), "{info}");
    assert!(info["server_address"].as_str().is_some_and(|a| a.ends_with(&engine.port.to_string())), "{info}");
    assert_eq!(info["kafka"]["topics"], serde_json::json!(case.schedules));
    assert_eq!(info["kafka"]["history_topic"], case.history.as_str());
    assert!(info["kafka"]["bootstrap_servers"].to_string().contains(case.bootstrap()), "{info}");
    let epoch = now_s() + 3_600;
    let schedule = Scheduled::new("id", "video 1", epoch, &case.target).target_key("tk").timestamp(1_607_918_336_000);
    case.produce(&[schedule]);
    let listed = eventually("the schedule is listed", TIMEOUT, || {
        let listed: Vec<Value> = serde_json::from_str(&engine.get("/schedules")?).ok()?;
        listed.first().cloned()
    });
    assert_eq!(listed["id"], "id");
    assert_eq!(listed["epoch"], epoch);
    assert_eq!(listed["timestamp"], 1_607_918_336);
    assert_eq!(listed["topic"], case.schedules[0].as_str());
    assert_eq!(listed["target-topic"], case.target.as_str());
    assert_eq!(listed["target-key"], "tk");
    assert_eq!(listed["value"], "dmlkZW8gMQ==");
}
