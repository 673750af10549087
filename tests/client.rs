//! The client library: the records that it builds, and the errors that it returns.

use std::time::{Duration, UNIX_EPOCH};

use kafka_scheduler::client::retry::{ATTEMPT_HEADER, Next, ORIGINAL_TIMESTAMP_HEADER, Retry, RetryError};
use kafka_scheduler::client::retry::{Constant, Exponential, Strategy};
use kafka_scheduler::client::{
    Header, Misfire, Moment, Record, RecordPosition, Schedule, ScheduleError, Triggered, cancel, is_retried,
    is_schedule, is_triggered,
};
use kafka_scheduler::core::calendar::NoCalendar;
use kafka_scheduler::core::io::{self, Millis, TopicPartition};
use kafka_scheduler::core::schedule::{AcceptanceRules, parse};
use kafka_scheduler::core::when::is_when;

const NOW: Moment = Moment::from_epoch_ms(1_607_918_336_500);

/// Parses a record as the engine does: due millisecond, target, target key and user headers.
fn engine_reads(record: &Record) -> (u64, String, Option<Vec<u8>>, Vec<Header>) {
    let headers: Vec<io::Header<'_>> = record
        .headers
        .iter()
        .map(|header| io::Header { name: header.name.as_bytes(), value: header.value.as_deref() })
        .collect();
    let read = io::Record {
        partition: TopicPartition { topic: 0, number: 0 },
        offset: 0,
        timestamp: Millis(NOW.epoch_ms()),
        key: record.key.as_deref(),
        value: record.value.as_deref(),
        headers: &headers,
    };
    let value = read.value.expect("a schedule has a value");
    let request = parse(&read, value, read.timestamp, &["schedules".into()], &AcceptanceRules::default(), &NoCalendar);
    let request = request.expect("the engine accepts a record of the client library");
    let due_ms = request.due().expect("it fires once").epoch_ms();
    let customer = request.parts.headers.iter().filter(|header| !is_when(header.name)).map(|header| Header {
        name: String::from_utf8_lossy(header.name).into_owned(),
        value: header.value.map(<[u8]>::to_vec),
    });
    (due_ms, request.target.to_owned(), request.parts.target_key.map(<[u8]>::to_vec), customer.collect())
}

#[test]
fn the_engine_reads_records_of_the_client_library() {
    let record = Schedule::new([0xff, 0])
        .to("videos")
        .target_key([0xfe])
        .header("a", "1")
        .null_header("a")
        .header("b", [0xfd])
        .value("")
        .at(UNIX_EPOCH + Duration::from_millis(4_102_444_800_001))
        .build_at(NOW)
        .expect("the schedule is complete");
    let customer = vec![Header::new("a", "1"), Header { name: "a".into(), value: None }, Header::new("b", vec![0xfd])];
    assert_eq!(engine_reads(&record), (4_102_444_800_001, "videos".into(), Some(vec![0xfe]), customer));
    assert_eq!((record.key, record.value), (Some(vec![0xff, 0]), Some(Vec::new())));
}

#[test]
fn each_mistake_has_an_error_of_its_own() {
    let whole = || Schedule::new("k").to("t").value("v").after(Duration::ZERO);
    whole().build_at(NOW).expect("a delay of 0 is allowed");
    for (schedule, error) in [
        (Schedule::new("").to("t").value("v").after(Duration::ZERO), ScheduleError::NoKey),
        (Schedule::new("__scheduler.x").to("t").value("v").after(Duration::ZERO), ScheduleError::ReservedKey),
        (Schedule::new("k").value("v").after(Duration::ZERO), ScheduleError::NoTarget),
        (whole().to(""), ScheduleError::NoTarget),
        (whole().to("no topic"), ScheduleError::BadTarget("no topic".into())),
        (Schedule::new("k").to("t").after(Duration::ZERO), ScheduleError::NoValue),
        (Schedule::new("k").to("t").value("v"), ScheduleError::NoDate),
        (
            whole().at(Moment::from_epoch_s(1_607_918_336)),
            ScheduleError::Past { due_ms: 1_607_918_336_000, now_ms: NOW.epoch_ms() },
        ),
        (whole().after(Duration::MAX), ScheduleError::TooFar),
        (whole().every(Duration::from_millis(999)), ScheduleError::ShortInterval(999)),
        (
            whole().delay(Duration::from_secs(101 * 366 * 86_400)),
            ScheduleError::BadDuration { header: "scheduler-delay", ms: 101 * 366 * 86_400_000 },
        ),
        (whole().cron(" "), ScheduleError::EmptyText("scheduler-cron")),
        (whole().cron("* * * * *").timezone(""), ScheduleError::EmptyText("scheduler-timezone")),
        (whole().cron("* * * * *").count(0), ScheduleError::ZeroCount),
        (whole().count(1), ScheduleError::StrayOption("scheduler-count")),
        (whole().delay(Duration::ZERO).misfire(Misfire::All), ScheduleError::StrayOption("scheduler-misfire")),
        (whole().at_zoned("2030-01-01T00:00Z").timezone("UTC"), ScheduleError::StrayOption("scheduler-timezone")),
        (whole().header("scheduler-x", ""), ScheduleError::ReservedHeader("scheduler-x".into())),
    ] {
        assert_eq!(schedule.build_at(NOW), Err(error));
    }
    let message = ScheduleError::Past { due_ms: 1_607_918_336_000, now_ms: NOW.epoch_ms() }.to_string();
    assert!(message.contains("1607918336.000") && message.contains("1607918336.500"), "{message}");
}

#[cfg(feature = "calendar")]
#[test]
fn the_engine_reads_each_form() {
    use kafka_scheduler::calendar::ZoneCalendar;
    use kafka_scheduler::core::calendar::{Day, Rule};
    use kafka_scheduler::core::due::Due;
    use kafka_scheduler::core::when::{self, Expiry, Form, Spec, When};

    let when = |schedule: Schedule| {
        let record = schedule.to("t").value("v").build_at(NOW).expect("the schedule is complete");
        assert!(is_schedule(&record));
        let header =
            |header: &Header| (header.name.clone().into_bytes(), header.value.clone().expect("no header is null"));
        let headers: Vec<(Vec<u8>, Vec<u8>)> = record.headers.iter().map(header).collect();
        let headers: Vec<io::Header<'_>> =
            headers.iter().map(|(name, value)| io::Header { name, value: Some(value) }).collect();
        when::parse(&headers, Millis(NOW.epoch_ms()), &ZoneCalendar::default()).expect("the engine reads it")
    };
    let once = |schedule: Schedule| match when(schedule) {
        When::Once { due, form, options } => (due, form, options.map(|options| *options)),
        other => panic!("{other:?}"),
    };
    let recurring = |schedule: Schedule| match when(schedule) {
        When::Recurring(spec) => *spec,
        other => panic!("{other:?}"),
    };
    let due = |ms: u64| Due::from_epoch_ms(ms).expect("a due time");
    let begun = || Schedule::new("k");
    let minute = Duration::from_secs(60);
    assert_eq!(once(begun().at(Moment::from_epoch_s(4_000_000_000))), (due(4_000_000_000_000), Form::Epoch, None));
    assert_eq!(once(begun().after(minute)), (due(1_607_918_396_500), Form::Once, None));
    assert_eq!(once(begun().delay(Duration::from_millis(1_500))), (due(1_607_918_338_000), Form::Once, None));
    assert_eq!(once(begun().at_zoned("2030-01-01T01:00[Europe/Paris]")).0, due(1_893_456_000_000));
    let (_, form, options) = once(begun().at(Moment::from_epoch_s(4_000_000_000)).jitter(minute).expires(minute));
    let options = options.expect("it has options");
    assert_eq!((form, options.jitter_ms, options.expiry), (Form::Once, 60_000, Expiry::After(60_000)));

    let cron = begun().cron("0 9 * * MON-FRI").timezone("Europe/Paris").count(3).except("1970-01-02, 1970-01-01");
    let Spec { rule, count, except, .. } = recurring(cron);
    assert_eq!(rule, Some(Rule::Cron { expression: "0 9 * * MON-FRI".into(), zone: "Europe/Paris".into() }));
    assert_eq!((count, &except[..]), (3, &[Day(0), Day(1)][..]));
    let every = begun().every(minute * 90).start("2030-01-01T00:00Z").until("2030-01-02T00:00Z");
    let every = every.misfire(Misfire::SkipAfter(minute.into())).expires_at("2030-01-01T12:00Z");
    let Spec { rule, until, misfire, tolerance_ms, .. } = recurring(every);
    let first = Millis(1_893_456_000_000);
    assert_eq!(rule, Some(Rule::Every { interval_ms: 5_400_000, first, zone: "UTC".into() }));
    assert_eq!(until, Millis(1_893_456_000_000 + 43_200_000));
    assert_eq!((misfire, tolerance_ms), (when::Misfire::Skip, 60_000));
}

#[test]
fn a_wrapped_message_comes_back_without_the_schedulers_headers() {
    let message = Record::new("k", "v")
        .with_header("x", "1")
        .with_header("scheduler-key", "old")
        .with_header("scheduler-epoch", "7");
    let record = Schedule::wrap("s", message).to("t").after(Duration::from_secs(2)).build_at(NOW).expect("complete");
    assert_eq!(
        engine_reads(&record),
        (1_607_918_338_500, "t".into(), Some(b"k".to_vec()), vec![Header::new("x", "1")])
    );
    let without_key = Record { key: None, ..Record::new("", "v") };
    let record = Schedule::wrap("s", without_key).to("t").after(Duration::ZERO).build_at(NOW).expect("complete");
    assert_eq!(record.header("scheduler-target-key"), None);
}

#[test]
fn kinds_of_records_are_told_apart() {
    let plain = Record::new("k", "v");
    let schedule = Schedule::new("k").to("t").value("v").after(Duration::ZERO).build_at(NOW).expect("complete");
    let triggered = plain
        .clone()
        .with_header("scheduler-key", [0xff])
        .with_header("scheduler-topic", "schedules")
        .with_header("scheduler-timestamp", "1607918336");
    let retried = plain.clone().with_header(ATTEMPT_HEADER, "1");
    let kinds = |record: &Record| (is_triggered(record), is_schedule(record), is_retried(record));
    assert_eq!(kinds(&plain), (false, false, false));
    assert_eq!(kinds(&cancel("k")), (false, false, false));
    assert_eq!(kinds(&schedule), (false, true, false));
    assert_eq!(kinds(&triggered), (true, false, false));
    assert_eq!(kinds(&retried), (false, false, true));
    let read = Triggered::from_record(&triggered).expect("it is a triggered record");
    assert_eq!((read.key, read.topic, read.timestamp_s), (&[0xff][..], "schedules", 1_607_918_336));
    assert_eq!((read.due_ms(), read.id(), read.occurrence(), read.missed()), (None, None, None, 0));
    let recurring = triggered
        .with_header("scheduler-due", "1607918336250")
        .with_header("scheduler-id", "3-41")
        .with_header("scheduler-occurrence", "7")
        .with_header("scheduler-missed", "2");
    let read = Triggered::from_record(&recurring).expect("it is a triggered record");
    assert_eq!(
        (read.due_ms(), read.id(), read.occurrence(), read.missed()),
        (Some(1_607_918_336_250), Some("3-41"), Some(7), 2)
    );
    let forged = plain
        .with_header("scheduler-key", "k")
        .with_header("scheduler-topic", "s")
        .with_header("scheduler-timestamp", "soon");
    assert_eq!(Triggered::from_record(&forged), None);
}

const POSITION: RecordPosition<'_> = RecordPosition { topic: "payments", partition: 3, offset: 41 };

/// Returns the triggered record of a schedule, as the engine writes it.
fn comes_back(schedule: &Record) -> Record {
    let (_, target, key, headers) = engine_reads(schedule);
    assert_eq!(target, "payments");
    Record { key, value: schedule.value.clone(), headers, timestamp_ms: Some(NOW.epoch_ms() + 60_000) }
}

#[test]
fn a_record_is_retried_with_growing_delays_until_it_is_given_up() {
    let retry = Retry::default();
    let mut failed = Record { timestamp_ms: Some(1_600_000_000_000), ..Record::new("k", "v").with_header("x", "1") };
    let mut delays = Vec::new();
    loop {
        match retry.after_failure_at(&failed, POSITION, NOW).expect("the retry can be scheduled") {
            Next::Again { record, attempt, delay } => {
                delays.push(delay.as_secs());
                assert_eq!(attempt as usize, delays.len());
                assert_eq!(record.key.as_deref(), Some(&b"retry.payments.3.41"[..]));
                failed = comes_back(&record);
                assert_eq!(failed.key.as_deref(), Some(&b"k"[..]));
                assert_eq!(failed.header("x"), Some(&b"1"[..]));
                assert_eq!(failed.header(ORIGINAL_TIMESTAMP_HEADER), Some(&b"1600000000000"[..]));
                assert_eq!(failed.headers.len(), 3, "the attempt header is replaced, not repeated: {failed:?}");
            }
            Next::Exhausted { attempts, since } => {
                assert_eq!((attempts, since), (50, Some(Moment::from_epoch_s(1_600_000_000))));
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(delays[..12], [5, 10, 20, 40, 80, 160, 320, 640, 1_280, 2_560, 3_600, 3_600]);
    assert_eq!((delays.len(), delays[49]), (50, 3_600));
}

#[test]
fn a_record_that_cannot_be_retried_has_an_error() {
    let retry = Retry::default();
    let of = |record: &Record| retry.after_failure_at(record, POSITION, NOW);
    assert_eq!(of(&cancel("k")), Err(RetryError::Schedule(ScheduleError::NoValue)));
    let miscounted = Record::new("k", "v").with_header(ATTEMPT_HEADER, "many");
    assert_eq!(of(&miscounted), Err(RetryError::BadAttempt(b"many".to_vec())));
    let overflowing = Record::new("k", "v").with_header(ATTEMPT_HEADER, u32::MAX.to_string());
    assert!(matches!(of(&overflowing), Ok(Next::Exhausted { attempts: u32::MAX, since: None })));
}

#[test]
fn strategies_accept_extreme_values() {
    let steep = Exponential { first: Duration::from_secs(5), factor: f64::MAX };
    let century = steep.delay(u32::MAX).expect("the strategy never gives up");
    assert!(century > Duration::from_secs(99 * 365 * 86_400) && century < Duration::MAX / 2);
    assert_eq!(Exponential { first: Duration::ZERO, factor: f64::INFINITY }.delay(3), Some(Duration::ZERO));
    assert_eq!(steep.capped(Duration::from_secs(9)).delay(2), Some(Duration::from_secs(9)));
    let jittered = Constant(Duration::from_secs(1_000)).jittered(0.5);
    let delays: Vec<u64> =
        (1..=100).map(|n| jittered.delay(n).expect("the strategy never gives up").as_secs()).collect();
    assert!(delays.iter().all(|delay| (500..=1_500).contains(delay)), "{delays:?}");
    assert!(delays.iter().any(|delay| *delay < 900) && delays.iter().any(|delay| *delay > 1_100), "{delays:?}");
    assert_eq!(Constant(Duration::from_secs(7)).jittered(f64::NAN).delay(1), Some(Duration::from_secs(7)));
    assert_eq!(Constant(Duration::ZERO).limited(0).delay(1), None);
}
