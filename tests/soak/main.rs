//! Injects random faults of every kind for a chosen time into the whole program and three brokers:
//!
//! ```sh
//! cargo test --release --test soak -- --seed 1 --minutes 30
//! ```
//! The test records every schedule, update and cancel that the brokers acknowledged. It exits with 1 if one is lost,
//! doubled or early, or if target, history and tombstones disagree. The seed determines records and faults, but not
//! their timing.
//! meet is up to the machine.

#[path = "../broker/kit/mod.rs"]
mod kit;

mod engines;
mod faults;
mod ledger;
mod random;
mod traffic;
mod watch;

use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use engines::Engines;
use faults::Faults;
use kit::Case;
use kit::client;
use kit::cluster::Cluster;
use kit::wait::now_ms;
use ledger::{Seen, Verdict, judge};
use random::Random;
use traffic::{Traffic, UserRecords};
use watch::Watch;

/// Each of these engines connects through proxies.
const ROUTES: usize = 2;
const TOPICS: usize = 2;
const PARTITIONS: i32 = 3;
/// User records per second, besides bursts.
const RATE: u32 = 100;
/// The time limit for recovery after the last fault.
const HEAL_MAX: Duration = Duration::from_secs(300);

/// The shortest compaction lag that the promises allow: no fault lasts as long.
const COMPACTED: [(&str, &str); 4] = [
    ("min.compaction.lag.ms", "600000"),
    ("segment.ms", "60000"),
    ("min.cleanable.dirty.ratio", "0.01"),
    ("max.compaction.lag.ms", "700000"),
];

struct Options {
    seed: u64,
    minutes: f64,
}

fn options() -> Result<Options, String> {
    let mut options = Options { seed: u64::try_from(now_ms()).expect("after 1970"), minutes: 2.0 };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let value = args.next().ok_or(format!("{arg} needs a value"))?;
        let wrong = |e: &dyn std::fmt::Display| format!("{arg} {value}: {e}");
        match arg.as_str() {
            "--seed" => options.seed = value.parse().map_err(|e| wrong(&e))?,
            "--minutes" => options.minutes = value.parse().map_err(|e| wrong(&e))?,
            _ => return Err(format!("{arg} is not known; there are --seed N and --minutes M")),
        }
    }
    Ok(options)
}

fn main() -> ExitCode {
    let options = match options() {
        Ok(options) => options,
        Err(e) => {
            eprintln!("{e}");
            return ExitCode::from(2);
        }
    };
    println!("seed {}, {} minutes", options.seed, options.minutes);
    let Some(cluster) = Cluster::with_routes(ROUTES) else { return ExitCode::from(2) };
    let case = Case::configured(cluster.broker, "soak", PARTITIONS, TOPICS, &COMPACTED);
    if run(cluster, &case, &options) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run(cluster: Cluster, case: &Case, options: &Options) -> bool {
    let dead = format!("{}-dead", case.target);
    client::create_replicated_topic(case.bootstrap(), &dead, 1, cluster.broker.replicas, &[]);
    let faults = Faults::new();
    let records: UserRecords = Arc::new(Mutex::new(Vec::new()));
    let watch = Watch::start(case, &dead);
    let routes = cluster.routes.clone();
    let addresses: Vec<String> = (0..ROUTES).map(|route| cluster.bootstrap_of(route)).collect();
    let end_ms = now_ms() + (options.minutes * 60_000.0) as i64;
    let chance = |lane| Random::new(options.seed, lane);
    let mut engines = Engines::start(case, &dead, &addresses, &faults, chance(1));
    let cluster = thread::scope(|scope| {
        let brokers = scope.spawn(|| faults::brokers(cluster, case, &faults, chance(2)));
        scope.spawn(|| faults::network(&routes, &faults, chance(3)));
        let traffic = Traffic::new(case, &records, chance(4), RATE, end_ms);
        scope.spawn(|| {
            let _end = faults.end_on_drop();
            traffic.run();
        });
        scope.spawn(|| progress(&records, &watch, &faults));
        engines.work();
        brokers.join().expect("the broker thread does not panic")
    });
    faults.say("no more faults");
    let healed = Instant::now();
    let converged = loop {
        let verdict = judge(&records.lock().expect("no panic"), &watch.seen.lock().expect("no panic"));
        if verdict.lost.is_empty() && verdict.unequal.is_empty() {
            break true;
        }
        if healed.elapsed() > HEAL_MAX {
            break false;
        }
        thread::sleep(Duration::from_secs(2));
    };
    faults.say(&format!("recovered: {converged}, after {:?}; {} engines ready", healed.elapsed(), engines.ready()));
    // An engine that fires a schedule twice does so within this time.
    thread::sleep(Duration::from_secs(10));
    engines.end();
    let seen = watch.finish(case);
    let verdict = judge(&records.lock().expect("no panic"), &seen);
    report(options, &verdict, &seen, &faults, &engines);
    drop(cluster);
    let good = verdict.good() && faults.complaints.lock().expect("no panic").is_empty();
    if good {
        engines.logs.iter().for_each(|log| drop(std::fs::remove_file(log)));
    } else {
        println!("\nthe engines' logs: {:?}", engines.logs);
    }
    good
}

fn progress(records: &UserRecords, watch: &Watch, faults: &Faults) {
    while !faults.over() {
        faults.sleep(Duration::from_secs(30));
        let verdict = judge(&records.lock().expect("no panic"), &watch.seen.lock().expect("no panic"));
        faults.say(&format!(
            "{} records, {} acknowledged; {} fired, {} doubled, {} early, p99 {} ms",
            verdict.schedules + verdict.cancels,
            verdict.acknowledged,
            verdict.fired,
            verdict.doubled.len(),
            verdict.early.len(),
            verdict.percentile(99.0),
        ));
    }
}

fn report(options: &Options, verdict: &Verdict, seen: &Seen, faults: &Faults, engines: &Engines<'_>) {
    const SHOWN_MAX: usize = 20;
    println!("\nseed                 {}", options.seed);
    println!("minutes              {}", options.minutes);
    println!("schedules produced   {}", verdict.schedules);
    println!("cancels produced     {}", verdict.cancels);
    println!("acknowledged         {}", verdict.acknowledged);
    println!("not acknowledged     {}, of which {} were in the log", verdict.unknown, verdict.unknown_in_log);
    println!("fired                {}", verdict.fired);
    println!("superseded           {}", verdict.superseded);
    println!("rewritten            {}", seen.copies);
    println!("compacted away       {} records of the schedules topics", seen.compacted);
    for (kind, found) in verdict.findings() {
        println!("{kind:<20} {}", found.len());
    }
    println!(
        "overlapped           {} fired more than 1 s after a newer record was acknowledged, at most {} ms",
        verdict.overlapped, verdict.overlapped_ms_max
    );
    let late: Vec<String> =
        [50.0, 99.0, 99.9, 100.0].into_iter().map(|p| format!("p{p} {} ms", verdict.percentile(p))).collect();
    println!("late                 {}", late.join(", "));
    let slow = engines.ends.iter().filter(|took| **took > Duration::from_secs(2)).count();
    let slowest = engines.ends.iter().max().copied().unwrap_or_default();
    println!("ends after SIGTERM   {}, of which {slow} took more than 2 s, at most {slowest:?}", engines.ends.len());
    println!("\nfaults");
    for (kind, count) in faults.counts() {
        println!("{count:>6}  {kind}");
    }
    let complaints = faults.complaints.lock().expect("no panic");
    complaints.iter().for_each(|complaint| println!("{complaint}"));
    for (kind, found) in verdict.findings() {
        found.iter().take(SHOWN_MAX).for_each(|finding| println!("{kind}: {finding}"));
    }
}
