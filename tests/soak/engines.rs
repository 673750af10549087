//! Faults of engines.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::faults::Faults;
use crate::kit::Case;
use crate::kit::clock::SteppedClock;
use crate::kit::engine::Engine;
use crate::kit::process::{configuration, signal};
use crate::random::Random;

/// An engine must stop within this time.
const END_MAX: Duration = Duration::from_secs(2);

/// The engines, which are killed, stopped, paused and run with stepping clocks.
pub struct Engines<'a> {
    case: &'a Case,
    faults: &'a Faults,
    random: Random,
    /// The settings in which the engines differ.
    environments: Vec<Vec<(&'static str, String)>>,
    /// The engines, where they run.
    running: Vec<Option<Engine>>,
    /// The clock of the second engine.
    clock: SteppedClock,
    /// How long each orderly stop took.
    pub ends: Vec<Duration>,
    pub logs: Vec<PathBuf>,
}

impl<'a> Engines<'a> {
    /// Starts the engines: two connect to the brokers directly, the others through proxies. The second one's clock can
    /// be stepped.
    pub fn start(case: &'a Case, dead: &str, routes: &[String], faults: &'a Faults, random: Random) -> Self {
        let common = [
            (
                "CONFIGURATION_FILE",
                configuration("soak", "kafka.producer.configuration:\n  transaction.timeout.ms: 60000\n"),
            ),
            ("DEAD_LETTER_TOPIC", dead.to_owned()),
            ("LOG_LEVEL", "debug".to_owned()),
        ];
        let mut environments = vec![common.to_vec(), common.to_vec()];
        for route in routes {
            let mut environment = common.to_vec();
            environment.push(("BOOTSTRAP_SERVERS", route.clone()));
            environments.push(environment);
        }
        let clock = SteppedClock::new();
        environments[1].extend(clock.environment());
        let running = environments.iter().map(|_| None).collect();
        let (ends, logs) = (Vec::new(), Vec::new());
        let mut engines = Self { case, faults, random, environments, running, clock, ends, logs };
        engines.all().for_each(|n| engines.run(n));
        engines
    }

    /// Injects faults repeatedly. At the end all engines run.
    pub fn work(&mut self) {
        loop {
            let pause = self.random.span(1_000..10_000);
            self.faults.sleep(pause);
            self.check_running();
            if self.faults.over() {
                break;
            }
            let n = self.random.index(self.running.len());
            match self.random.of(0..100) {
                0..25 => self.kill(n),
                25..45 => self.stop(n),
                45..65 => self.pause(n),
                65..80 => self.storm(),
                80..90 => {
                    self.faults.happens("kill -9 all engines", "at once");
                    self.running.iter_mut().filter_map(Option::take).for_each(|mut engine| engine.kill());
                }
                _ => {
                    let (by, lasts) = (self.random.of(1..8), self.random.span(2_000..10_000));
                    self.faults.happens("step the clock back and forth", &format!("engine 2 by {by} s for {lasts:?}"));
                    self.clock.set(-by);
                    self.faults.sleep(lasts);
                    self.clock.set(0);
                }
            }
            let pause = self.random.span(0..5_000);
            self.faults.sleep(pause);
            self.all().for_each(|n| self.run(n));
        }
        self.all().for_each(|n| self.run(n));
    }

    /// Stops all engines.
    pub fn end(&mut self) {
        self.check_running();
        self.all().for_each(|n| self.stop(n));
    }

    /// Returns how many engines are ready.
    pub fn ready(&self) -> usize {
        self.running.iter().flatten().filter(|engine| engine.get("/readiness").is_some()).count()
    }

    fn all(&self) -> std::ops::Range<usize> {
        0..self.running.len()
    }

    fn run(&mut self, n: usize) {
        if self.running[n].is_none() {
            let environment: Vec<(&str, &str)> = self.environments[n].iter().map(|(k, v)| (*k, v.as_str())).collect();
            let mut engine = self.case.engine_with(&environment);
            self.logs.push(engine.keep_log().to_owned());
            self.running[n] = Some(engine);
        }
    }

    /// Checks that no engine has exited by itself.
    fn check_running(&mut self) {
        for n in self.all() {
            if self.running[n].as_mut().is_some_and(|engine| !engine.running()) {
                let mut engine = self.running[n].take().expect("an engine");
                let status = engine.wait(Duration::ZERO);
                let log = engine.keep_log().display().to_string();
                self.faults.complain(format!("engine {} exited by itself: {status}; see {log}", n + 1));
            }
        }
    }

    fn kill(&mut self, n: usize) {
        if let Some(mut engine) = self.running[n].take() {
            self.faults.happens("kill -9 an engine", &name(n));
            engine.kill();
        }
    }

    fn stop(&mut self, n: usize) {
        let Some(mut engine) = self.running[n].take() else { return };
        if !self.faults.over() {
            self.faults.happens("SIGTERM to an engine", &name(n));
        }
        let asked = Instant::now();
        let status = engine.terminate();
        let took = asked.elapsed();
        self.ends.push(took);
        if status.code() != Some(0) || took > END_MAX {
            self.faults.say(&format!("engine {} took {took:?} to stop, with {status}", n + 1));
        }
    }

    fn pause(&mut self, n: usize) {
        let Some(pid) = self.running[n].as_ref().map(Engine::pid) else { return };
        let lasts = self.random.span(500..20_000);
        self.faults.happens("pause an engine (SIGSTOP)", &format!("{} for {lasts:?}", name(n)));
        signal(pid, "STOP");
        self.faults.sleep(lasts);
        signal(pid, "CONT");
    }

    /// Starts, stops and kills instances every few seconds.
    fn storm(&mut self) {
        self.faults.happens("a storm of comings and goings", "20 s");
        let until = Instant::now() + Duration::from_secs(20);
        while Instant::now() < until && !self.faults.over() {
            self.check_running();
            let n = self.random.index(self.running.len());
            match (self.running[n].is_some(), self.random.percent(50)) {
                (false, _) => self.run(n),
                (true, true) => self.kill(n),
                (true, false) => self.stop(n),
            }
            let pause = self.random.span(500..3_000);
            self.faults.sleep(pause);
        }
    }
}

fn name(n: usize) -> String {
    format!("engine {}", n + 1)
}
