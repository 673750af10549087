//! The group's consumer, and its rebalances, which wait in line until the loop answers them.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{Offset, TopicPartitionList};

use super::client_config::Settings;
use super::diagnostics::Diagnostics;
use super::ffi::queue::ForwardedQueue;
use crate::handle::Wake;

/// Between two looks whether the loop has let go of a consumer.
const TURN: Duration = Duration::from_millis(1);

/// The consumer of one membership, and what it reads.
pub type Member = ForwardedQueue<Context>;

/// What the group wants.
#[derive(Debug)]
pub enum Rebalance {
    /// Take these.
    Assign(TopicPartitionList),
    /// Give these back.
    Revoke(TopicPartitionList),
    /// These are gone.
    Lost(TopicPartitionList),
}

/// Keeps rebalances for the loop.
#[derive(Debug)]
pub struct Context {
    waiting: Mutex<VecDeque<Rebalance>>,
    /// The consumer is being closed: whatever comes is answered at once.
    closing: AtomicBool,
    rebalances: Arc<AtomicU64>,
    voice: Arc<Diagnostics>,
}

impl Context {
    /// The next rebalance to answer.
    pub fn next(&self) -> Option<Rebalance> {
        self.lock().pop_front()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<Rebalance>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        Diagnostics::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.voice.consumer_error(&error);
        self.voice.error(&error, reason);
    }

    fn stats_raw(&self, json: &[u8]) {
        self.voice.consumer_statistics(json);
    }
}

impl ConsumerContext for Context {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, error: RDKafkaRespErr, list: &mut TopicPartitionList) {
        self.rebalances.fetch_add(1, Ordering::AcqRel);
        let assign = error == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
        let event = match (assign, consumer.assignment_lost()) {
            (true, _) => Rebalance::Assign(list.clone()),
            (false, true) => Rebalance::Lost(list.clone()),
            (false, false) => Rebalance::Revoke(list.clone()),
        };
        if self.closing.load(Ordering::Acquire) {
            let _ = answer(consumer, &event);
        } else {
            self.lock().push_back(event);
        }
    }
}

/// Gives librdkafka its one answer to one event. False if it was not taken: what is assigned and what is read differ now,
/// which only another consumer mends.
#[must_use]
pub fn answer(consumer: &BaseConsumer<Context>, event: &Rebalance) -> bool {
    let answered = match event {
        Rebalance::Assign(list) => consumer.incremental_assign(list),
        Rebalance::Revoke(list) | Rebalance::Lost(list) => consumer.incremental_unassign(list),
    };
    if let Err(error) = &answered {
        tracing::warn!(%error, "the answer to a rebalance was not taken");
    }
    answered.is_ok()
}

/// Takes an assignment, to be read from the beginning of each partition. False as for [`answer`].
#[must_use]
pub fn take(member: &Member, mut list: TopicPartitionList) -> bool {
    if let Err(error) = list.set_all_offsets(Offset::Beginning) {
        tracing::error!(%error, "an assignment cannot be read from its beginning");
    }
    let led = list.elements().iter().all(|element| member.lead(element.topic(), element.partition()));
    answer(member.consumer(), &Rebalance::Assign(list)) && led
}

/// A consumer that has asked to join. `wake` is called when it has something to say.
pub fn join(
    settings: &Settings,
    topics: &[String],
    rebalances: &Arc<AtomicU64>,
    wake: &Wake,
) -> KafkaResult<Arc<Member>> {
    let context = Context {
        waiting: Mutex::default(),
        closing: AtomicBool::new(false),
        rebalances: Arc::clone(rebalances),
        voice: Arc::clone(&settings.voice),
    };
    let mut consumer: BaseConsumer<Context> = settings.reporting_consumer().create_with_context(context)?;
    let events = Arc::clone(wake);
    consumer.set_nonempty_callback(move || events());
    consumer.subscribe(&topics.iter().map(String::as_str).collect::<Vec<_>>())?;
    Ok(Arc::new(ForwardedQueue::new(consumer, Arc::clone(wake))))
}

/// Leaves the group, on a thread of its own: with no broker in reach it takes long. The receiver disconnects at the end.
pub fn leave(member: Arc<Member>, pending: Option<Rebalance>) -> crossbeam_channel::Receiver<()> {
    let (alive, left) = crossbeam_channel::bounded(0);
    // Before the thread begins: where none can be started the consumer is dropped right here, which serves rebalances.
    member.consumer().context().closing.store(true, Ordering::Release);
    let spawned = std::thread::Builder::new().name("leave".into()).spawn(move || {
        let consumer = member.consumer();
        let unanswered = pending.into_iter().chain(std::iter::from_fn(|| consumer.context().next()));
        for event in unanswered {
            let _ = answer(consumer, &event);
        }
        // The loop may hold it until the end of its turn, and must not be the one that closes it.
        while Arc::strong_count(&member) > 1 {
            std::thread::sleep(TURN);
        }
        drop(member);
        drop(alive);
    });
    if let Err(error) = spawned {
        tracing::error!(%error, "no thread could be started to leave the group");
    }
    left
}
