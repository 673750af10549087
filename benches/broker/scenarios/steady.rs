//! A steady rate of schedules, each produced a few seconds ahead, with one consumer on the target.

use std::thread;
use std::time::{Duration, Instant};

use rdkafka::consumer::BaseConsumer;
use rdkafka::error::KafkaError;
use rdkafka::message::Message;

use super::running::{Running, time_limit};
use super::{Bench, sweep};
use crate::bare::{self, Landed};
use crate::feed::Feed;
use crate::kit::wait::{now_ms, now_s};
use crate::lateness::Lateness;
use crate::process::{cpu_s, peak_bytes, resident_bytes};
use crate::records::number_of;
use crate::report::Figures;

/// Schedules are produced throughout a second, and are due this long after its end.
const AHEAD_S: i64 = 3;

/// How long to wait after the last due second.
const TIMEOUT: Duration = Duration::from_secs(60);

pub fn run(bench: &Bench, per_s: u32, seconds: u32, is_spread: bool) -> Result<Figures, String> {
    let count = per_s * seconds;
    let case = bench.case("steady");
    let engine = Running::ready(bench, &case, time_limit(0))?;
    let (consumer, _) = bare::consumer(case.bootstrap(), &case.target)?;
    let mut feed = Feed::new(&case, &bench.values)?;
    engine.wait_until_idle();
    let cpu_before = cpu_s(engine.pid());
    let from_s = now_s() + 2;
    let due_ms = |number: u32| {
        let from_ms = (from_s + 1 + AHEAD_S) * 1000;
        let offset_ms = i64::from(number) * 1000 / i64::from(per_s);
        from_ms + if is_spread { offset_ms } else { offset_ms / 1000 * 1000 }
    };
    let limit = TIMEOUT + Duration::from_secs(u64::from(seconds));
    let received = thread::scope(|scope| {
        let receiver = scope.spawn(move || receive(&consumer, count, limit));
        feed.steadily(count, per_s, from_s * 1000, due_ms)?;
        receiver.join().expect("the consumer does not panic")
    })?;
    let resident = resident_bytes(engine.pid());
    engine.wait_until_idle();
    let (cpu, peak) = (cpu_s(engine.pid()) - cpu_before, peak_bytes(engine.pid()));
    engine.stop();

    let landed = Landed::of(&case, count)?;
    let late = |each: &[(u32, i64)]| Lateness::new(each.iter().map(|(n, at_ms)| at_ms - due_ms(*n)).collect());
    let mut figures = late(&landed.each).figures("append");
    figures.extend(late(&received).figures("receipt"));
    figures.extend([
        ("cpu_s_per_million".to_owned(), cpu * 1e6 / f64::from(count)),
        ("cpu_percent_of_a_core".to_owned(), cpu * 100.0 / f64::from(seconds)),
        ("resident_bytes".to_owned(), resident as f64),
        ("resident_peak_bytes".to_owned(), peak as f64),
    ]);
    sweep(&case);
    Ok(figures)
}

/// Records when each triggered record reaches a waiting consumer.
fn receive(consumer: &BaseConsumer, count: u32, limit: Duration) -> Result<Vec<(u32, i64)>, String> {
    let began = Instant::now();
    let mut received = Vec::with_capacity(count as usize);
    while received.len() < count as usize {
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => {
                let at_ms = now_ms();
                let number = message.key().and_then(number_of).ok_or("a foreign record in the target")?;
                received.push((number, at_ms));
            }
            None | Some(Err(KafkaError::PartitionEOF(_))) => {}
            Some(Err(error)) => return Err(format!("reading the target: {error}")),
        }
        if began.elapsed() > limit {
            return Err(format!("of {count} schedules {} were received within {limit:?}", received.len()));
        }
    }
    Ok(received)
}
