//! The command `mini`.

use std::io::{self, Write};

use super::demo::{self, DEMO_TARGET};
use super::firing::Firings;
use super::{Cluster, Topic, topic};
use crate::app::{self, ProgramError, Stopper};
use crate::config::Config;
use crate::http::Listeners;
use crate::kafka::Clock;
use crate::runner::Runner;

/// Runs broker and engine until a signal.
///
/// # Errors
/// If one of them cannot start or go on.
pub(crate) fn run(config: Config, topics: &[Topic], with_demos: bool) -> Result<(), ProgramError> {
    let stopper = Stopper::start()?;
    let listeners = Listeners::bind(&config)?;
    // Declared first, and so dropped last: clients must not outlive it.
    let cluster = Cluster::new(1).map_err(ProgramError::Mini)?;
    let config = config.with_embedded_broker(cluster.bootstrap_servers());
    let demo = with_demos.then(|| Topic { name: DEMO_TARGET.into(), partitions: 1 });
    let topics = topic::with_needed(topics.iter().cloned().chain(demo), &config);
    topic::create(&cluster, &topics).map_err(ProgramError::Mini)?;
    print_banner(&config, &listeners, &topics, with_demos).map_err(|e| ProgramError::System("stdout", e))?;
    let clock = Clock::default();
    if with_demos {
        demo::schedule(&config, &config.schedules_topics()[0])?;
    }
    let firings = Firings::start()?;
    let runner = Runner::new(config).clock(clock.clone()).observer(Box::new(firings));
    app::run(runner, listeners, &stopper, Some(clock))?;
    // stdout may have been closed, which must not make the program fail.
    let _ = writeln!(io::stdout(), "Stopped. The embedded broker and its data are gone.");
    Ok(())
}

fn print_banner(config: &Config, listeners: &Listeners, topics: &[Topic], with_demos: bool) -> io::Result<()> {
    let (rest, metrics) = listeners.addresses()?;
    let names: Vec<String> = topics.iter().map(Topic::to_string).collect();
    let demos = if with_demos { "Three demo schedules fire every 5, 10 and 30 s:\n" } else { "" };
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "A scheduler with a Kafka broker inside this process. Ctrl-C ends both.

  bootstrap server  {}
  topics            {}
  REST              http://localhost:{port}/schedules (also /info, /liveness)
  metrics           http://localhost:{}/metrics
  move the clock    curl -X POST 'http://localhost:{port}/advance?by=1h'

The embedded broker is for trying things out, not for production: it does not fence, so it cannot prove
exactly-once; it does not compact; it keeps at most 5 MB a partition and drops the oldest records; it shows
aborted records; and it keeps nothing after exit.

{demos}",
        config.bootstrap_servers(),
        names.join(", "),
        metrics.port(),
        port = rest.port(),
    )?;
    out.flush()
}
