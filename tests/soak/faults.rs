//! Injects faults in three threads that run independently: engines, brokers, and the network between them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::kit::Case;
use crate::kit::cluster::Cluster;
use crate::kit::proxy::Proxy;
use crate::random::Random;

/// The state that all threads share.
pub struct Faults {
    began: Instant,
    over: AtomicBool,
    counts: Mutex<BTreeMap<String, u32>>,
    /// Errors, besides those that the ledger finds.
    pub complaints: Mutex<Vec<String>>,
}

impl Faults {
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            began: Instant::now(),
            over: AtomicBool::new(false),
            counts: Mutex::default(),
            complaints: Mutex::default(),
        })
    }

    /// Prints a line with the time.
    pub fn say(&self, text: &str) {
        println!("{:7.1} s  {text}", self.began.elapsed().as_secs_f64());
    }

    /// Prints and counts a fault.
    pub fn happens(&self, kind: &str, where_to: &str) {
        *self.counts.lock().expect("no panic").entry(kind.to_owned()).or_default() += 1;
        self.say(&format!("{kind}: {where_to}"));
    }

    pub fn complain(&self, text: String) {
        self.say(&text);
        self.complaints.lock().expect("no panic").push(text);
    }

    pub fn counts(&self) -> BTreeMap<String, u32> {
        self.counts.lock().expect("no panic").clone()
    }

    /// Ends the injection of faults; each thread repairs the faults that it has caused.
    pub fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    /// Ends it when the returned guard is dropped, even by a panic.
    pub fn end_on_drop(&self) -> impl Drop + '_ {
        struct End<'a>(&'a Faults);
        impl Drop for End<'_> {
            fn drop(&mut self) {
                self.0.end();
            }
        }
        End(self)
    }

    pub fn over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// Sleeps, but not beyond the end.
    pub fn sleep(&self, span: Duration) {
        let until = Instant::now() + span;
        while Instant::now() < until && !self.over() {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Kills, stops and pauses brokers: one at a time, except for an outage of all.
pub fn brokers(mut cluster: Cluster, case: &Case, faults: &Faults, mut random: Random) -> Cluster {
    loop {
        faults.sleep(random.span(5_000..25_000));
        if faults.over() {
            return cluster;
        }
        let (topic, partition) = (random.index(case.schedules.len()), random.of(0..i64::from(case.partitions)) as i32);
        let topic = &case.schedules[topic];
        let away = random.span(1_000..12_000);
        let any = random.index(cluster.all().len());
        let (kind, node) = match random.of(0..100) {
            0..25 => ("kill -9 the broker that leads a schedules partition", cluster.leader(topic, partition)),
            25..45 => ("kill -9 the group's coordinator", cluster.group_coordinator(&case.group)),
            45..65 => {
                let node = cluster.transaction_coordinator(&case.group, topic, partition);
                ("kill -9 the coordinator of an owner's transactions", node)
            }
            65..80 => {
                faults.happens("pause a broker (SIGSTOP)", &format!("{} for {away:?}", any + 1));
                cluster.signal(any, "STOP");
                faults.sleep(away);
                cluster.signal(any, "CONT");
                cluster.wait_for_replicas();
                continue;
            }
            80..92 => {
                faults.happens("rolling restart of the brokers", "all three");
                for node in cluster.all() {
                    cluster.stop(node);
                    cluster.restart(node);
                    cluster.wait_for_replicas();
                }
                continue;
            }
            _ => {
                let away = random.span(5_000..30_000);
                faults.happens("kill -9 all brokers", &format!("for {away:?}"));
                cluster.all().for_each(|node| cluster.kill(node));
                faults.sleep(away);
                cluster.all().for_each(|node| cluster.restart(node));
                cluster.wait_for_replicas();
                continue;
            }
        };
        // The partition may have no leader at this moment.
        let Some(node) = node else { continue };
        faults.happens(kind, &format!("{} for {away:?}", node + 1));
        cluster.kill(node);
        faults.sleep(away);
        cluster.restart(node);
        cluster.wait_for_replicas();
    }
}

/// Degrades the network between the brokers and the engines that connect through proxies.
pub fn network(routes: &[Vec<Proxy>], faults: &Faults, mut random: Random) {
    loop {
        faults.sleep(random.span(3_000..20_000));
        if faults.over() {
            return;
        }
        let route = random.index(routes.len());
        let whole = random.percent(60);
        let node = random.index(routes[route].len());
        let proxies = if whole { &routes[route][..] } else { &routes[route][node..=node] };
        let lasts = random.span(1_000..15_000);
        let (kind, worsen): (&str, fn(&Proxy)) = match random.of(0..5) {
            0 => ("network delays of 200 ms", |proxy| proxy.pass(Duration::from_millis(200))),
            1 => ("network delays of 2 s", |proxy| proxy.pass(Duration::from_secs(2))),
            2 => ("connections cut", Proxy::cut),
            3 => ("connections half open", Proxy::silence),
            _ => ("connections held up", Proxy::hold),
        };
        let to = if whole { "all brokers".to_owned() } else { format!("broker {}", node + 1) };
        faults.happens(kind, &format!("route {route} to {to} for {lasts:?}"));
        proxies.iter().for_each(worsen);
        faults.sleep(lasts);
        proxies.iter().for_each(|proxy| proxy.pass(Duration::ZERO));
    }
}
