//! The engine inside another program, and mini inside a test.

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use kafka_scheduler::client::{Moment, Schedule, cancel};
use kafka_scheduler::config::Config;
use kafka_scheduler::mini::Mini;
use kafka_scheduler::{Event, Runner};

use crate::kit::client::{Producer, Reader};
use crate::kit::wait::{eventually, now_s};
use crate::kit::{Case, Scheduled};

const LIMIT: Duration = Duration::from_secs(40);

fn config(variables: &[(&str, &str)]) -> Config {
    let env = |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned());
    Config::load(&env).expect("legal settings")
}

fn of_case(case: &Case) -> Config {
    config(&[
        ("BOOTSTRAP_SERVERS", case.bootstrap()),
        ("SCHEDULES_TOPICS", &case.schedules.join(",")),
        ("HISTORY_TOPIC", &case.history),
        ("GROUP_ID", &case.group),
        ("SESSION_TIMEOUT", &case.broker.session_timeout_ms.to_string()),
        ("SINCE_DELTA", "-1"),
    ])
}

/// Formats an event as a line.
fn line(event: &Event<'_>) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match event {
        Event::Accepted { key, target, .. } => format!("planned {} for {target}", text(key)),
        Event::Cancelled { key, .. } => format!("cancelled {}", text(key)),
        Event::Fired { firing, .. } if firing.is_missed => {
            format!("missed {} = {}", text(firing.key), text(firing.value))
        }
        Event::Fired { firing, .. } => format!("fired {} = {}", text(firing.key), text(firing.value)),
        Event::Invalid { reason, .. } => format!("invalid: {}", reason.code()),
        Event::Live { pending, overdue, .. } => format!("live with {pending}, {overdue} overdue"),
        Event::TargetChanged { target, state, .. } => format!("{target} is {state:?}"),
        _ => "something new".into(),
    }
}

#[test]
fn two_engines_in_one_process_count_apart() {
    let (Some(one), Some(two)) = (Case::new("library-one", 1), Case::new("library-two", 1)) else { return };
    one.produce(&[one.due_in("missed", "m", -5)]);
    let registry = prometheus::Registry::new();
    // A registry with metrics of the process, which the `prometheus` crate's default registry has too.
    let process = prometheus::process_collector::ProcessCollector::for_self();
    registry.register(Box::new(process)).expect("the registry is empty");
    let start = |case: &Case, registry: Option<&prometheus::Registry>| {
        let (tell, told) = mpsc::channel();
        let runner = Runner::new(of_case(case)).on_event(move |event| tell.send(line(event)).expect("a listener"));
        let runner = if let Some(registry) = registry { runner.registry(registry) } else { runner };
        (runner.start().expect("the engine starts"), told)
    };
    let (first, told_by_first) = start(&one, Some(&registry));
    let (second, told_by_second) = start(&two, None);
    let expect = |told: &mpsc::Receiver<String>, lines: &[&str]| {
        let heard: Vec<String> = lines.iter().map_while(|_| told.recv_timeout(LIMIT).ok()).collect();
        assert_eq!(heard, lines);
    };
    expect(&told_by_first, &["live with 1, 1 overdue", "missed missed = m"]);
    expect(&told_by_second, &["live with 0, 0 overdue"]);
    let target = &one.target;
    one.produce(&[
        one.due_in("cancelled", "v", 3_600),
        Scheduled::cancel("cancelled"),
        Scheduled::new("bad", "v", 0, target).header("scheduler-epoch", "1"),
        one.due_in("k", "v", 2),
    ]);
    expect(
        &told_by_first,
        &[
            &format!("planned cancelled for {target}"),
            "cancelled cancelled",
            "invalid: duplicate-header",
            &format!("planned k for {target}"),
            "fired k = v",
        ],
    );
    assert_eq!(one.fired(2).len(), 2);
    let missing = format!("{target}-missing");
    one.produce(&[Scheduled::new("early", "v", 1, &missing)]);
    expect(&told_by_first, &[&format!("planned early for {missing}"), &format!("{missing} is Missing")]);
    let triggered = "kafka_scheduler_event_total{type=\"kafka_scheduler_triggered_schedule\"}";
    eventually("the registry passed in counts", LIMIT, || {
        let text = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).expect("text");
        let held = format!("kafka_scheduler_parked_schedules{{partition=\"0\",topic=\"{}\"}} 0\n", one.schedules[0]);
        assert_eq!(text.matches("\nprocess_threads ").count(), 1, "{text}");
        (text.contains(&format!("{triggered} 1\n")) && text.contains(&held)).then_some(())
    });
    assert!(second.metrics().contains(&format!("{triggered} 0\n")), "{}", second.metrics());
    assert!(told_by_second.try_recv().is_err(), "the second engine reports no events of the first one");
    first.close().expect("the engine stops cleanly");
    assert!(!second.is_finished(), "an engine does not stop with another");
    second.close().expect("the engine stops cleanly");
}

/// Starts mini, schedules a message for next year, and advances the clock by a year.
fn a_year_in_a_moment(name: &str) {
    let mini = Mini::with_topics(["mine:1".parse().expect("a topic")]).expect("mini starts");
    let producer = Producer::new(mini.bootstrap_servers(), &[]);
    let mut reader = Reader::new(mini.bootstrap_servers(), "mine");
    let in_a_year = mini.now().epoch_s() + 365 * 86_400;
    let schedule = Schedule::new("k").to("mine").value(name).at(Moment::from_epoch_s(in_a_year)).build();
    for record in [schedule.expect("a schedule"), cancel("other")] {
        let headers = record.headers.iter().map(|header| (header.name.clone(), header.value.clone())).collect();
        producer
            .send("schedules", &Scheduled { key: record.key, value: record.value, headers, ..Scheduled::default() });
    }
    producer.flush();
    eventually("the schedule is accepted", LIMIT, || {
        let planned = "{type=\"kafka_scheduler_planned_schedule\"} 1\n";
        mini.running().metrics().contains(planned).then_some(())
    });
    reader.read_to_end();
    assert!(reader.records.is_empty(), "a schedule fired early");
    let now = mini.advance(Duration::from_secs(u64::try_from(in_a_year - now_s()).expect("later") + 1));
    assert!(now.epoch_s() >= in_a_year);
    let began = Instant::now();
    reader.wait("it fires", LIMIT, |records| !records.is_empty());
    assert!(began.elapsed() < Duration::from_secs(1), "advancing the clock took {:?}", began.elapsed());
    assert_eq!(reader.records[0].value_text(), name);
    let metrics = mini.running().metrics();
    assert!(metrics.contains("kafka_scheduler_loop_missed_deadlines_total 0\n"), "{metrics}");
    mini.close().expect("mini stops cleanly");
}

#[test]
fn two_minis_fire_within_a_second_of_moving_their_clocks() {
    thread::scope(|scope| {
        let both = ["one", "two"].map(|name| scope.spawn(move || a_year_in_a_moment(name)));
        for one in both {
            one.join().expect("no panic");
        }
    });
}
