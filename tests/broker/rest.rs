//! REST: every route responds as openapi.json documents, with correct values.

use std::collections::BTreeSet;
use std::time::Duration;

use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer as _, ThreadedProducer};
use serde_json::{Value, json};

use crate::kit::case::TIMEOUT;
use crate::kit::client;
use crate::kit::engine::Engine;
use crate::kit::http::Answer;
use crate::kit::wait::{eventually, now_s};
use crate::kit::{Case, Scheduled};

/// The specification of a path in openapi.json.
struct Spec(Value);

impl Spec {
    fn of(engine: &Engine) -> Self {
        Self(engine.ask("GET", "/openapi.json", &[]).json())
    }

    fn paths(&self) -> BTreeSet<&str> {
        self.0["paths"].as_object().expect("paths").keys().map(String::as_str).collect()
    }

    /// Checks a response against the specification of its path and status.
    fn holds(&self, path: &str, answer: &Answer) {
        let said = &self.0["paths"][path]["get"]["responses"][answer.status.to_string()];
        assert!(said.is_object(), "{path}: {} is not documented: {}", answer.status, answer.text());
        let Some(content) = said["content"].as_object() else {
            return assert!(answer.body.is_empty(), "{path}: a body that is not documented");
        };
        let media_type = answer.header("content-type").split(';').next().expect("a type");
        let schema =
            &content.get(media_type).unwrap_or_else(|| panic!("{path}: {media_type} is not documented"))["schema"];
        if media_type != "application/json" {
            return;
        }
        let mut schema = schema.clone();
        schema["components"] = self.0["components"].clone();
        let validator = jsonschema::validator_for(&schema).expect("a schema");
        let body = answer.json();
        let wrong: Vec<String> =
            validator.iter_errors(&body).map(|e| format!("{} at {}", e, e.instance_path())).collect();
        assert!(wrong.is_empty(), "{path}: {wrong:?} in {body}");
    }
}

#[test]
fn every_route_answers_as_documented() {
    let Some(case) = Case::new("rest", 2) else { return };
    let engine = case.engine();
    let hour = now_s() + 3_600;
    case.produce(&[
        Scheduled::new("id", "video 1", hour, &case.target).target_key("tk").timestamp(1_607_918_336_000).partition(0),
        Scheduled::new([0xff, b'/', b'x'], "", hour + 1, &case.target).target_key([0xfe]).partition(1),
        Scheduled::new("a b/ü", "v", hour + 2, &case.target).partition(0),
        Scheduled::new("a b/ü", "v", hour + 3, &case.target).partition(1),
        Scheduled::new("lost", "v", now_s(), "no-such-topic").partition(1),
        Scheduled::new("bad", "v", 0, &case.target).header("scheduler-epoch", "x").partition(0),
        case.due_in("fires", "v", 0).partition(0),
    ]);
    engine.ready();
    let parked = eventually("one is parked", TIMEOUT, || {
        let parked = engine.ask("GET", "/parked", &[]).json();
        (parked["schedules"].as_array()?.len() == 1).then_some(parked)
    });
    assert_eq!(parked["schedules"][0]["id"], "lost");
    assert_eq!(parked["schedules"][0]["parked"], "unknown-target");
    case.fired(1);
    let topic = case.schedules[0].as_str();
    let key = "a%20b%2F%C3%BC";
    let answers = [
        ("/", "/".to_owned(), 200),
        ("/liveness", "/liveness".to_owned(), 200),
        ("/readiness", "/readiness".to_owned(), 200),
        ("/info", "/info".to_owned(), 200),
        ("/status", "/status".to_owned(), 200),
        ("/openapi.json", "/openapi.json".to_owned(), 200),
        ("/parked", "/parked?limit=1".to_owned(), 200),
        ("/parked", "/parked?due-before=1".to_owned(), 400),
        ("/parked", "/parked?after=0.7.0.".to_owned(), 410),
        ("/schedules", "/schedules".to_owned(), 200),
        ("/schedules", "/schedules?limit=2".to_owned(), 200),
        ("/schedules", "/schedules?limit=none".to_owned(), 400),
        ("/schedules", "/schedules?after=0.0.0.99999".to_owned(), 410),
        ("/schedules/{topic}/{key}", format!("/schedules/{topic}/{key}"), 200),
        ("/schedules/{topic}/{key}", format!("/schedules/{topic}/%FF%2Fx"), 200),
        ("/schedules/{topic}/{key}", format!("/schedules/{topic}/none"), 404),
        ("/schedules/{topic}/{key}", "/schedules/other/id".to_owned(), 404),
    ];
    let spec = Spec::of(&engine);
    assert_eq!(
        spec.paths(),
        answers.iter().map(|(path, ..)| *path).collect(),
        "the documented paths, and the paths that this test requests"
    );
    for (path, asked, status) in &answers {
        let answer = engine.ask("GET", asked, &[]);
        assert_eq!(answer.status, *status, "{asked}: {}", answer.text());
        spec.holds(path, &answer);
        let head = engine.ask("HEAD", asked, &[]);
        assert_eq!((head.status, head.body.len()), (*status, 0), "HEAD {asked}");
        assert_eq!(head.header("content-type"), answer.header("content-type"), "HEAD {asked}");
        let post = engine.ask("POST", asked, &[]);
        assert_eq!((post.status, post.header("allow")), (405, "GET, HEAD"), "POST {asked}");
        assert!(post.json()["error"].is_string());
    }
    let missing = engine.ask("GET", "/nowhere", &[]);
    assert_eq!(missing.status, 404);
    assert!(missing.json()["error"].is_string());
    lists(&case, &engine, hour);
    status_says(&case, &engine);
}

fn ids(page: &Value) -> BTreeSet<String> {
    let list = page.get("schedules").unwrap_or(page).as_array().expect("a list");
    list.iter().map(|entry| format!("{}@{}", entry["id"].as_str().expect("an id"), entry["partition"])).collect()
}

/// Checks the lists of [`every_route_answers_as_documented`].
fn lists(case: &Case, engine: &Engine, hour: i64) {
    let get = |path: &str| engine.ask("GET", path, &[]).json();
    let all = ["id@0", "\u{fffd}/x@1", "a b/ü@0", "a b/ü@1", "lost@1"].map(str::to_owned).into();
    let whole = get("/schedules");
    assert_eq!(ids(&whole), all);
    let entry = |id: &str| whole.as_array().expect("a list").iter().find(|e| e["id"] == id).expect("listed").clone();
    let offset = entry("id")["offset"].clone();
    let expected = json!({
        "id": "id", "epoch": hour, "next": hour * 1_000, "timestamp": 1_607_918_336, "topic": case.schedules[0], "partition": 0,
        "offset": offset, "target-topic": case.target, "target-key": "tk", "value": "dmlkZW8gMQ==",
    });
    assert_eq!(entry("id"), expected);
    assert_eq!(entry("\u{fffd}/x")["id-base64"], "/y94");
    assert_eq!(entry("\u{fffd}/x")["target-key-base64"], "/g==");
    // Pages of every size have the same entries, each once.
    for limit in 1..=6 {
        let (mut seen, mut count, mut after) = (BTreeSet::new(), 0, String::new());
        loop {
            let page = get(&format!("/schedules?limit={limit}{after}"));
            let entries = page["schedules"].as_array().expect("a page").len();
            assert!(entries <= limit);
            count += entries;
            seen.extend(ids(&page));
            let Some(next) = page["next"].as_str() else { break };
            after = format!("&after={next}");
        }
        assert_eq!((&seen, count), (&all, all.len()), "pages of {limit}");
    }
    let filtered = |query: &str| ids(&get(&format!("/schedules?{query}")));
    let set = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<BTreeSet<String>>();
    assert_eq!(
        filtered(&format!("due-after={}&due-before={}", hour, hour + 3)),
        set(&["id@0", "\u{fffd}/x@1", "a b/ü@0"])
    );
    assert_eq!(filtered("key-prefix=a+b%2F"), set(&["a b/ü@0", "a b/ü@1"]));
    assert_eq!(filtered("key-prefix=%FF"), set(&["\u{fffd}/x@1"]));
    assert_eq!(filtered(&format!("topic={}", case.schedules[0])), all);
    let found = get(&format!("/schedules/{}/a%20b%2F%C3%BC", case.schedules[0]));
    assert_eq!(ids(&found), set(&["a b/ü@0", "a b/ü@1"]));
}

#[test]
fn new_forms_answer_as_documented() {
    let Some(case) = Case::new("rest-forms", 1) else { return };
    let engine = case.engine();
    engine.ready();
    let due_ms = (now_s() + 1_800) * 1_000 + 250;
    let form = |key: &str| Scheduled::new(key, "v", 0, &case.target).without("scheduler-epoch");
    case.produce(&[
        form("once").header("scheduler-epoch-ms", due_ms.to_string()).header("scheduler-expires", "10m"),
        form("every").header("scheduler-every", "1h").header("scheduler-count", "3"),
        form("cron").header("scheduler-cron", "0 9 1 1 *").header("scheduler-timezone", "Europe/Paris"),
    ]);
    let next = eventually("all have a date", TIMEOUT, || {
        let status = engine.ask("GET", "/status", &[]).json();
        (status["next"].as_array()?.len() == 3).then(|| status["next"].clone())
    });
    let spec = Spec::of(&engine);
    ["/status", "/schedules"].iter().for_each(|path| spec.holds(path, &engine.ask("GET", path, &[])));
    let shown = |n: usize| [&next[n]["key"], &next[n]["occurrence"], &next[n]["recurrence"]].map(Value::clone);
    assert_eq!(shown(0), [json!("once"), json!(null), json!(null)]);
    assert_eq!(next[0]["due_ms"], due_ms);
    assert_eq!(shown(1), [json!("every"), json!(1), json!("every 1h")]);
    assert_eq!(shown(2), [json!("cron"), json!(1), json!("cron 0 9 1 1 * Europe/Paris")]);
    let listed = engine.ask("GET", "/schedules", &[]).json();
    let entry = |id: &str| listed.as_array().expect("a list").iter().find(|e| e["id"] == id).expect("listed").clone();
    let once = entry("once");
    assert_eq!([&once["epoch"], &once["next"]], [&json!(due_ms / 1_000), &json!(due_ms)]);
    assert_eq!([&once["epoch-ms"], &once["expires"]], [&json!(due_ms.to_string()), &json!("10m")]);
    assert_eq!([&entry("every")["occurrence"], &entry("every")["count"]], [&json!(1), &json!("3")]);
    assert_eq!([&entry("cron")["cron"], &entry("cron")["timezone"]], [&json!("0 9 1 1 *"), &json!("Europe/Paris")]);
}

fn status_says(case: &Case, engine: &Engine) {
    let status = eventually("the status is up to date", TIMEOUT, || {
        let status = engine.ask("GET", "/status", &[]).json();
        // The snapshot is up to half a second older than the list of firings, so it may still have schedules that have
        // fired.
        let total = &status["total"];
        (total["parked"] == 1 && total["pending"] == 5 && !status["firings"].as_array()?.is_empty()).then_some(status)
    });
    assert_eq!(status["total"]["partitions"], 2);
    assert_eq!(status["next"][0]["key"], "id");
    assert_eq!(status["firings"][0]["key"], "fires");
    assert_eq!(status["firings"][0]["target"], case.target.as_str());
    assert!(status["partitions"].as_array().expect("a list").iter().all(|p| p["state"] == "live"));
}

#[test]
fn readiness_names_waiting_partitions_and_their_progress() {
    let Some(case) = Case::new("readiness", 2) else { return };
    // On a first start, partitions wait for each other's start markers; later each loads independently.
    let mut first = case.engine();
    first.ready();
    first.stop();
    // A user's open transaction blocks all read_committed consumers before the records after it.
    let producer: ThreadedProducer<DefaultProducerContext> =
        client::config(case.bootstrap()).set("transactional.id", &case.group).create().expect("a producer");
    let limit = Duration::from_secs(30);
    producer.init_transactions(limit).expect("init");
    producer.begin_transaction().expect("begin");
    let record: BaseRecord<'_, str, str> = BaseRecord::to(&case.schedules[0]).key("k").payload("v").partition(1);
    producer.send(record).map_err(|(e, _)| e).expect("sent");
    producer.flush(limit).expect("written");
    let engine = case.engine();
    let waiting = eventually("partition 1 alone is loading", TIMEOUT, || {
        let answer = crate::kit::http::ask(engine.port, "GET", "/readiness", &[]).ok()?;
        assert_eq!(answer.status, 503, "{}", answer.text());
        Spec::of(&engine).holds("/readiness", &answer);
        let body = answer.json();
        (body["assigned"] == 2 && body["live"] == 1 && body["waiting"][0]["state"] == "loading").then_some(body)
    });
    assert_eq!(waiting["waiting"][0]["partition"], 1, "{waiting}");
    assert_eq!(waiting["waiting"][0]["topic"], case.schedules[0].as_str());
    assert!(waiting["waiting"][0]["progress"].as_f64().is_some_and(|p| p < 1.0), "{waiting}");
    assert!(waiting["reason"].as_str().is_some_and(|reason| reason.contains("do not fire")), "{waiting}");
    producer.commit_transaction(limit).expect("commit");
    engine.ready();
}

#[test]
fn memory_above_the_bound_only_warns() {
    const COUNT: usize = 50;
    const SAID: &str = "pending schedules use more memory than MEMORY_WARN_BYTES held_bytes=";
    let Some(case) = Case::new("memory", 1) else { return };
    let engine = case.engine_with(&[("MEMORY_WARN_BYTES", "20000")]);
    engine.ready();
    let spec = Spec::of(&engine);
    let warnings = |count: usize| {
        eventually(&format!("{count} warnings"), TIMEOUT, || {
            let answer = engine.ask("GET", "/readiness", &[]);
            assert_eq!(answer.status, 200, "{}", answer.text());
            spec.holds("/readiness", &answer);
            let warnings = answer.json()["warnings"].as_array()?.clone();
            (warnings.len() == count).then_some(warnings)
        })
    };
    warnings(0);
    let keys = || (0..COUNT).map(|n| format!("k{n}"));
    let later: Vec<Scheduled> = keys().map(|key| case.due_in(key, vec![b'v'; 1_000], 3_600)).collect();
    case.produce(&later);
    let warning = warnings(1)[0].as_str().expect("a text").to_owned();
    assert!(warning.contains("more than MEMORY_WARN_BYTES (20000)"), "{warning}");
    let held = format!("kafka_scheduler_held_bytes{{partition=\"0\",topic=\"{}\"}}", case.schedules[0]);
    eventually("all of them are held", TIMEOUT, || {
        let metrics = engine.metrics();
        assert_eq!(metrics["kafka_scheduler_memory_warn_bytes"], 20_000.0);
        let each = metrics[&held] / COUNT as f64;
        (1_000.0..1_400.0).contains(&each).then_some(())
    });
    let due = now_s() + 1;
    case.produce(&[Scheduled::new("fires", "v", due, &case.target)]);
    assert!(case.fired(1)[0].timestamp < (due + 1) * 1_000, "the schedule fires on time");
    let cancelled: Vec<Scheduled> = keys().map(Scheduled::cancel).collect();
    case.produce(&cancelled);
    warnings(0);
    eventually("that it is over is said", TIMEOUT, || engine.output().contains("less memory than").then_some(()));
    assert_eq!(engine.output().matches(SAID).count(), 1, "the warning is logged once: {}", engine.output());
}

#[test]
fn no_instance_is_ready_without_brokers() {
    let nowhere = format!("127.0.0.1:{}", crate::kit::process::free_port());
    let engine = Engine::start("unreachable", &[], &[("BOOTSTRAP_SERVERS".to_owned(), nowhere)]);
    let body = eventually("readiness has a reason", TIMEOUT, || {
        let answer = crate::kit::http::ask(engine.port, "GET", "/readiness", &[]).ok()?;
        assert_eq!(answer.status, 503);
        let body = answer.json();
        body["reason"].as_str()?.contains("BOOTSTRAP_SERVERS").then_some(body)
    });
    assert_eq!(body["ready"], false);
    assert_eq!(engine.ask("GET", "/liveness", &[]).status, 200, "an instance that waits for brokers is alive");
    assert_eq!(engine.ask("GET", "/schedules", &[]).json(), json!([]));
}

#[test]
fn a_token_is_required_and_never_shown() {
    const TOKEN: &str = "hunter2-0123456789";
    let Some(case) = Case::new("token", 1) else { return };
    let mut engine = case.engine_with(&[("REST_TOKEN", TOKEN), ("LOG_LEVEL", "trace")]);
    engine.ready();
    assert_eq!(engine.ask("GET", "/liveness", &[]).status, 200);
    for path in ["/info", "/status", "/schedules", "/schedules?limit=1", "/schedules/t/k", "/parked", "/openapi.json"] {
        for headers in [
            &[][..],
            &[("Authorization", "Bearer wrong")],
            &[("Authorization", "Bearer hunter2-012345678")],
            &[("Authorization", "Basic hunter2-0123456789")],
        ] {
            let refused = engine.ask("GET", path, headers);
            assert_eq!(refused.status, 401, "{path} {headers:?}");
            assert_eq!(refused.header("www-authenticate"), "Bearer");
            assert!(refused.json()["error"].is_string());
        }
        let allowed = engine.ask("GET", path, &[("Authorization", &format!("bearer {TOKEN}"))]);
        assert_ne!(allowed.status, 401, "{path}");
    }
    let page = engine.ask("GET", "/", &[]);
    assert_eq!(page.status, 401);
    assert!(page.text().contains("token-form"), "the page asks for the token");
    assert!(engine.metrics().len() > 50, "metrics need no token");
    engine.stop();
    let output = engine.output();
    assert!(output.contains("rest_token=\"***\""), "{output}");
    assert!(!output.contains("hunter2"), "{output}");
}
