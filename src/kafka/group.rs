//! The group's consumer, and its rebalances, which are queued until the loop answers them.

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

use super::clients::Clients;
use super::diagnostics::Diagnostics;
use super::ffi::queue::ForwardedQueue;
use super::statistics;
use crate::handle::Wake;

/// Between two checks of whether the loop has dropped a consumer.
const CLOSE_INTERVAL: Duration = Duration::from_millis(1);

/// The consumer of one membership.
pub(super) type GroupConsumer = ForwardedQueue<GroupContext>;

/// A rebalance event.
#[derive(Debug)]
pub(super) enum Rebalance {
    Assign(TopicPartitionList),
    Revoke(TopicPartitionList),
    /// The group has already given these partitions to other members.
    Lost(TopicPartitionList),
}

/// Queues rebalances for the loop.
#[derive(Debug)]
pub(super) struct GroupContext {
    queue: Mutex<VecDeque<Rebalance>>,
    /// The consumer is being closed: rebalances are answered at once.
    closing: AtomicBool,
    rebalances: Arc<AtomicU64>,
    diagnostics: Arc<Diagnostics>,
}

impl GroupContext {
    /// Takes the next rebalance to answer.
    pub(super) fn next(&self) -> Option<Rebalance> {
        self.lock().pop_front()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<Rebalance>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientContext for GroupContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        Diagnostics::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.diagnostics.on_consumer_error(&error);
        self.diagnostics.on_error(&error, reason);
    }

    fn stats_raw(&self, json: &[u8]) {
        let Some(statistics) = statistics::parse(json) else { return };
        let is_reachable = statistics.brokers_up > 0;
        self.diagnostics.board().client("consumer", statistics);
        self.diagnostics.on_reachability(is_reachable);
    }
}

impl ConsumerContext for GroupContext {
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

/// Answers an event. Returns false if librdkafka does not accept the answer: then the assigned partitions and those
/// that are read differ, and only another consumer helps.
#[must_use]
pub(super) fn answer(consumer: &BaseConsumer<GroupContext>, event: &Rebalance) -> bool {
    let answered = match event {
        Rebalance::Assign(list) => consumer.incremental_assign(list),
        Rebalance::Revoke(list) | Rebalance::Lost(list) => consumer.incremental_unassign(list),
    };
    if let Err(error) = &answered {
        tracing::warn!(%error, "librdkafka rejected the answer to a rebalance");
    }
    answered.is_ok()
}

/// Accepts an assignment. Each partition is read from its beginning, or from the offset that `starts` has for it: a
/// seek right after an assignment to the beginning is undone by the answer that says where the beginning is. Returns
/// false as [`answer`] does.
#[must_use]
pub(super) fn assign(consumer: &GroupConsumer, mut list: TopicPartitionList, starts: &[(&str, i32, i64)]) -> bool {
    let set = list.set_all_offsets(Offset::Beginning).and_then(|()| {
        starts
            .iter()
            .try_for_each(|(topic, number, offset)| list.set_partition_offset(topic, *number, Offset::Offset(*offset)))
    });
    if let Err(error) = set {
        tracing::error!(%error, "the offsets of an assignment cannot be set");
    }
    let is_forwarded =
        list.elements().iter().all(|element| consumer.forward_partition(element.topic(), element.partition()));
    answer(consumer.base(), &Rebalance::Assign(list)) && is_forwarded
}

/// Makes a consumer that joins the group. `wake` is called when it has events.
pub(super) fn join(
    clients: &Clients,
    topics: &[String],
    rebalances: &Arc<AtomicU64>,
    wake: &Wake,
) -> KafkaResult<Arc<GroupConsumer>> {
    let context = GroupContext {
        queue: Mutex::default(),
        closing: AtomicBool::new(false),
        rebalances: Arc::clone(rebalances),
        diagnostics: Arc::clone(&clients.diagnostics),
    };
    let mut consumer: BaseConsumer<GroupContext> = clients.configs.group_consumer().create_with_context(context)?;
    let events = Arc::clone(wake);
    consumer.set_nonempty_callback(move || events());
    consumer.subscribe(&topics.iter().map(String::as_str).collect::<Vec<_>>())?;
    Ok(Arc::new(GroupConsumer::new(consumer, Arc::clone(wake))))
}

/// Leaves the group, on a thread of its own: without a broker that takes long. The receiver disconnects at the end.
pub(super) fn leave(consumer: Arc<GroupConsumer>, pending: Option<Rebalance>) -> crossbeam_channel::Receiver<()> {
    let (alive, left) = crossbeam_channel::bounded(0);
    // Before the thread starts: if it cannot be started, the consumer is dropped here, and answers rebalances
    // meanwhile.
    consumer.base().context().closing.store(true, Ordering::Release);
    let spawned = std::thread::Builder::new().name("leave".into()).spawn(move || {
        let inner = consumer.base();
        let unanswered = pending.into_iter().chain(std::iter::from_fn(|| inner.context().next()));
        for event in unanswered {
            let _ = answer(inner, &event);
        }
        // The loop may hold it until the end of its iteration, and must not be the thread that closes it.
        while Arc::strong_count(&consumer) > 1 {
            std::thread::sleep(CLOSE_INTERVAL);
        }
        drop(consumer);
        drop(alive);
    });
    if let Err(error) = spawned {
        tracing::error!(%error, "no thread could be started to leave the group");
    }
    left
}
