//! Careless and hostile HTTP clients do no harm.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::kit::case::TIMEOUT;
use crate::kit::engine::Engine;
use crate::kit::http;
use crate::kit::wait::{eventually, now_s};
use crate::kit::{Case, Record};

const IDLE: usize = 1_000;
const SLOW: usize = 100;
const HUGE: usize = 100 << 20;
const GROWTH_MAX: u64 = 64 << 20;
/// The server must answer again within this time.
const RECOVERY_MAX: Duration = Duration::from_secs(5);
/// The largest lateness allowed during an attack, on a busy machine: firing must not wait for the attack's end.
const LATE_MAX_MS: i64 = 5_000;

fn limit_files(pid: u32, limit: usize) {
    let status = Command::new("prlimit").args(["--pid", &pid.to_string(), &format!("--nofile={limit}:")]).status();
    assert!(status.expect("prlimit of util-linux runs").success(), "prlimit {pid} {limit}");
}

fn wait_for_liveness(engine: &Engine) {
    let since = Instant::now();
    loop {
        let answer = http::connect(engine.port).ok().and_then(|mut stream| {
            stream.set_read_timeout(Some(Duration::from_secs(1))).ok()?;
            stream.write_all(b"GET /liveness HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").ok()?;
            let mut raw = Vec::new();
            stream.read_to_end(&mut raw).ok()?;
            http::parse(&raw, false).ok()
        });
        if answer.is_some_and(|answer| answer.status == 200) {
            return;
        }
        assert!(since.elapsed() < RECOVERY_MAX, "/liveness does not answer again");
    }
}

/// Produces one schedule per second, from now on.
fn plan(case: &Case, name: &str, seconds: i64) -> i64 {
    let from = now_s() + 1;
    for second in 0..seconds {
        let key = format!("{name}{second}");
        case.queue(&crate::kit::Scheduled::new(&key, "v", from + second, &case.target).target_key(&key));
    }
    case.flush();
    from
}

fn fired_in_time(case: &Case, name: &str, from: i64, seconds: i64) {
    let mut reader = case.target_reader();
    let ours = |record: &&Record| record.key_text().starts_with(name);
    let count = usize::try_from(seconds).expect("a count");
    reader.wait("all of them fire", TIMEOUT, |records| records.iter().filter(ours).count() == count);
    for record in reader.records.iter().filter(ours) {
        let second: i64 = record.key_text()[name.len()..].parse().expect("a number");
        let late_ms = record.timestamp - (from + second) * 1_000;
        assert!((0..LATE_MAX_MS).contains(&late_ms), "{} fired {late_ms} ms late", record.key_text());
    }
}

#[test]
fn idle_and_slow_connections_and_huge_requests_disturb_nothing() {
    const SECONDS: i64 = 12;
    let Some(case) = Case::new("hardening", 2) else { return };
    limit_files(std::process::id(), 4_096);
    let engine = case.engine();
    engine.ready();
    // The list is too long for the socket buffers, so a client that stops reading stalls it.
    let far = now_s() + 86_400;
    let value = "v".repeat(2_000);
    for n in 0..5_000 {
        case.queue(&crate::kit::Scheduled::new(format!("far{n}"), &value, far, &case.target));
    }
    case.flush();
    eventually("they are pending", TIMEOUT, || (engine.counter("planned_schedule")? >= 5_000).then_some(()));
    wait_for_liveness(&engine);
    engine.forget_peak();
    let before = engine.peak_memory();
    let from = plan(&case, "conn", SECONDS);

    let mut idle: Vec<TcpStream> = (0..IDLE).filter_map(|_| http::connect(engine.port).ok()).collect();
    assert_eq!(idle.len(), IDLE);
    let mut slow: Vec<TcpStream> = (0..SLOW).filter_map(|_| http::connect(engine.port).ok()).collect();
    for (n, stream) in slow.iter_mut().enumerate() {
        // Half of the clients never end their headers; the others never read the list that they request.
        let request = if n % 2 == 0 { "GET /liveness HTTP/1.1\r\nX: " } else { "GET /schedules HTTP/1.0\r\n\r\n" };
        let _ = stream.write_all(request.as_bytes());
    }
    let huge = huge_requests(engine.port);
    // Lists are still served up to their limit, and liveness always.
    for _ in 0..20 {
        for stream in slow.iter_mut().step_by(2) {
            let _ = stream.write_all(b"x");
        }
        assert_eq!(engine.ask("GET", "/liveness", &[]).status, 200, "meanwhile");
    }
    huge.into_iter().for_each(|thread| thread.join().expect("a request ends"));
    fired_in_time(&case, "conn", from, SECONDS);
    idle.clear();
    slow.clear();
    wait_for_liveness(&engine);
    let metrics = engine.metrics();
    assert!(metrics["kafka_scheduler_http_connections_cut_total{server=\"rest\",why=\"evicted\"}"] > 500.0);
    let grown = engine.peak_memory().saturating_sub(before);
    assert!(grown <= GROWTH_MAX, "memory grew by {} KiB", grown >> 10);
    assert_eq!(engine.ask("GET", "/schedules", &[]).json().as_array().map(Vec::len), Some(5_000));
}

/// Sends requests of 100 MB: as a header, as a body with a length, and as a chunked body. Each must fail.
fn huge_requests(port: u16) -> Vec<std::thread::JoinHandle<()>> {
    let beginnings = [
        "GET /liveness HTTP/1.1\r\nHost: x\r\nX: ".to_owned(),
        format!("GET /{}", "x".repeat(100)),
        format!("GET /info HTTP/1.1\r\nHost: x\r\nContent-Length: {HUGE}\r\n\r\n"),
        format!("POST /info HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n{HUGE:x}\r\n"),
    ];
    let send = move |beginning: String| {
        let mut stream = http::connect(port).expect("a connection");
        let piece = vec![b'x'; 1 << 20];
        let mut sent = stream.write_all(beginning.as_bytes());
        for _ in 0..HUGE >> 20 {
            sent = sent.and_then(|()| stream.write_all(&piece));
        }
        assert!(sent.is_err(), "the server does not read 100 MB of {beginning:?}");
    };
    beginnings.into_iter().map(|beginning| std::thread::spawn(move || send(beginning))).collect()
}

#[test]
fn a_ninth_list_is_rejected_until_readers_that_stall_are_cut() {
    const LISTS: usize = 8;
    let Some(case) = Case::new("lists", 1) else { return };
    let engine = case.engine();
    engine.ready();
    // The list is too long for the socket buffers, so a client that stops reading stalls it.
    let (far, value) = (now_s() + 86_400, "v".repeat(2_000));
    for n in 0..5_000 {
        case.queue(&crate::kit::Scheduled::new(format!("far{n}"), &value, far, &case.target));
    }
    case.flush();
    eventually("they are pending", TIMEOUT, || (engine.counter("planned_schedule")? >= 5_000).then_some(()));
    let begin = |_| {
        let mut reader = http::connect(engine.port).expect("a connection");
        reader.write_all(b"GET /schedules HTTP/1.1\r\nHost: x\r\n\r\n").expect("sent");
        reader.read_exact(&mut [0; 12]).expect("the response begins");
        reader
    };
    let readers: Vec<TcpStream> = (0..LISTS).map(begin).collect();
    for path in ["/schedules", "/schedules?limit=1", "/parked"] {
        let refused = engine.ask("GET", path, &[]);
        assert_eq!(refused.status, 503, "{path}");
        assert_eq!(refused.json()["error"], "too many lists are being read; try again later", "{path}");
    }
    assert_eq!(engine.ask("GET", "/readiness", &[]).status, 200);
    eventually("a reader that stalls is cut", TIMEOUT, || {
        let cut = engine.metrics()["kafka_scheduler_http_connections_cut_total{server=\"rest\",why=\"stalled\"}"];
        (cut >= LISTS as f64).then_some(())
    });
    assert_eq!(engine.ask("GET", "/schedules", &[]).json().as_array().map(Vec::len), Some(5_000));
    drop(readers);
}

#[test]
fn oversized_headers_and_malformed_http_are_rejected() {
    // This needs no broker.
    let nowhere = format!("127.0.0.1:{}", crate::kit::process::free_port());
    let engine = Engine::start("headers", &[], &[("BOOTSTRAP_SERVERS".to_owned(), nowhere)]);
    eventually("the server answers", TIMEOUT, || engine.get("/info"));
    assert_eq!(engine.ask("GET", "/info", &[("X", &"x".repeat(8_000))]).status, 200);
    let many: Vec<(&str, &str)> = (0..200).map(|_| ("X", "x")).collect();
    for headers in [&[("X", "x".repeat(20_000).as_str())][..], &many] {
        let refused = engine.ask("GET", "/info", headers);
        assert_eq!((refused.status, refused.header("content-type")), (431, "application/json"));
        assert!(refused.json()["error"].as_str().is_some_and(|e| e.contains("too long")), "{}", refused.text());
    }
    for (port, request) in [(engine.port, "GET / HTTP/9\r\n\r\n"), (engine.metrics_port, "no HTTP at all\r\n\r\n")] {
        let mut stream = http::connect(port).expect("a connection");
        stream.write_all(request.as_bytes()).expect("sent");
        let mut raw = Vec::new();
        stream.read_to_end(&mut raw).expect("an answer");
        let refused = http::parse(&raw, false).expect("an answer");
        assert_eq!((refused.status, refused.header("content-type")), (400, "application/json"), "{request:?}");
        assert_eq!(refused.json()["error"], "this is not an HTTP request");
    }
}

#[test]
fn idle_connections_are_kept_and_slow_headers_are_cut() {
    // A connection that sends nothing is idle, so the 10 s for slow headers do not apply to it.
    const IDLE: Duration = Duration::from_secs(11);
    let nowhere = format!("127.0.0.1:{}", crate::kit::process::free_port());
    let engine = Engine::start("keep-alive", &[], &[("BOOTSTRAP_SERVERS".to_owned(), nowhere)]);
    eventually("the server answers", TIMEOUT, || engine.get("/info"));
    for (port, path) in [(engine.port, "/info"), (engine.metrics_port, "/metrics")] {
        let mut stream = http::connect(port).expect("a connection");
        exchange(&mut stream, path);
        exchange(&mut stream, path);
        std::thread::sleep(IDLE);
        exchange(&mut stream, path);
        let begun = Instant::now();
        stream.write_all(b"GET /info HTTP/1.1\r\nX: ").expect("sent");
        stream.set_read_timeout(Some(Duration::from_millis(500))).expect("a limit");
        let ended = eventually("slow headers end it", Duration::from_secs(14), || {
            let _ = stream.write_all(b"x");
            match stream.read(&mut [0; 64]) {
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => None,
                _ => Some(begun.elapsed()),
            }
        });
        assert!(ended > Duration::from_secs(9), "{path}: a client has 10 s for its headers, not {ended:?}");
    }
}

/// Sends a request and reads the response; the connection stays open.
fn exchange(stream: &mut TcpStream, path: &str) {
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").expect("sent");
    let mut raw = Vec::new();
    let answer = loop {
        let mut piece = [0; 4_096];
        let count = stream.read(&mut piece).expect("an answer");
        assert!(count > 0, "{path}: closed without an answer");
        raw.extend_from_slice(&piece[..count]);
        if let Ok(answer) = http::parse(&raw, false) {
            break answer;
        }
    };
    assert_eq!(answer.status, 200, "{path}");
}

#[test]
fn descriptors_may_run_out_and_come_back() {
    const SECONDS: i64 = 8;
    let Some(case) = Case::new("descriptors", 1) else { return };
    let engine = case.engine();
    engine.ready();
    limit_files(std::process::id(), 4_096);
    let open = std::fs::read_dir(format!("/proc/{}/fd", engine.pid())).expect("its files").count();
    engine.forget_peak();
    let before = engine.peak_memory();
    let from = plan(&case, "file", SECONDS);
    limit_files(engine.pid(), open);
    // No more than the listener's backlog: more clients would hang while connecting.
    let held: Vec<TcpStream> = (0..100).filter_map(|_| http::connect(engine.port).ok()).collect();
    fired_in_time(&case, "file", from, SECONDS);
    limit_files(engine.pid(), 1_024);
    drop(held);
    wait_for_liveness(&engine);
    assert!(engine.peak_memory().saturating_sub(before) <= GROWTH_MAX);
    let said = engine.output();
    assert_eq!(said.matches("connections cannot be accepted").count(), 1, "the error is logged once: {said}");
    assert!(said.contains("connections are accepted again"), "{said}");
}
