//! Fetches records in batches, from a queue that partitions are forwarded to.
//!
//! rust-rdkafka returns one message at a time, each as an event, with a shared counter and several reads of the clock:
//! that costs more than keeping a schedule. librdkafka's batch call must not be used on the consumer's queue, on which
//! it would answer rebalances by itself. So partitions are forwarded to a queue that holds only records.

use std::ffi::{CStr, CString, c_void};
use std::ptr;

use rdkafka::bindings as rd;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::RDKafkaErrorCode as Code;
use rdkafka::types::RDKafkaRespErr;

use super::push_headers;
use crate::core::io::{Header, Millis};
use crate::handle::Wake;

/// A consumer, and the queue that its partitions are forwarded to.
pub(crate) struct ForwardedQueue<C: ConsumerContext + 'static> {
    queue: *mut rd::rd_kafka_queue_t,
    /// Ours, and lent to librdkafka until the queue's callback is disabled.
    wake: *mut Wake,
    consumer: BaseConsumer<C>,
}

// SAFETY: librdkafka locks its queues itself; wakes are called from any thread.
unsafe impl<C: ConsumerContext + 'static> Send for ForwardedQueue<C> {}
// SAFETY: as above.
unsafe impl<C: ConsumerContext + 'static> Sync for ForwardedQueue<C> {}

impl<C: ConsumerContext + 'static> ForwardedQueue<C> {
    /// Takes a consumer that has no partitions yet. `wake` is called when records have arrived.
    pub(crate) fn new(consumer: BaseConsumer<C>, wake: Wake) -> Self {
        let wake = Box::into_raw(Box::new(wake));
        // SAFETY: the client lives for as long as the queue, which is destroyed first; the wake lives until the queue's
        // callback is disabled.
        let queue = unsafe {
            let queue = rd::rd_kafka_queue_new(consumer.client().native_ptr());
            rd::rd_kafka_queue_cb_event_enable(queue, Some(woken), wake.cast());
            queue
        };
        Self { queue, wake, consumer }
    }

    /// Returns the underlying consumer: poll it for rebalances and errors.
    pub(crate) fn base(&self) -> &BaseConsumer<C> {
        &self.consumer
    }

    /// Forwards a partition for its next assignment, which must not have started. Call it before each assignment.
    /// Returns false if there is no such partition.
    #[must_use]
    pub(crate) fn forward_partition(&self, topic: &str, partition: i32) -> bool {
        let Ok(topic) = CString::new(topic) else { return false };
        // SAFETY: the name is copied; the partition's queue is ours until it is destroyed here.
        unsafe {
            let client = self.consumer.client().native_ptr();
            let source = rd::rd_kafka_queue_get_partition(client, topic.as_ptr(), partition);
            if source.is_null() {
                return false;
            }
            rd::rd_kafka_queue_forward(source, self.queue);
            rd::rd_kafka_queue_destroy(source);
            true
        }
    }

    /// Returns records that have arrived, at most `max`.
    pub(crate) fn fetched(&self, max: usize) -> FetchedRecords<'_> {
        let mut messages = Vec::with_capacity(max);
        // SAFETY: there is room for as many; those that were written are ours until they are destroyed.
        unsafe {
            let count = rd::rd_kafka_consume_batch_queue(self.queue, 0, messages.as_mut_ptr(), max);
            messages.set_len(usize::try_from(count).unwrap_or(0));
        }
        FetchedRecords { messages: messages.into_iter(), _queue: std::marker::PhantomData }
    }
}

impl<C: ConsumerContext + 'static> Drop for ForwardedQueue<C> {
    fn drop(&mut self) {
        // SAFETY: forwarded partitions hold the queue until they stop, but its callback is disabled; the consumer is
        // dropped after this.
        unsafe {
            rd::rd_kafka_queue_cb_event_enable(self.queue, None, ptr::null_mut());
            rd::rd_kafka_queue_destroy(self.queue);
            drop(Box::from_raw(self.wake));
        }
    }
}

/// # Safety
/// `wake` is that of an [`ForwardedQueue`].
unsafe extern "C" fn woken(_client: *mut rd::rd_kafka_t, wake: *mut c_void) {
    // SAFETY: as the caller promises.
    let wake = unsafe { &*wake.cast::<Wake>() };
    wake();
}

/// Records in the order of arrival, which for each partition is that of its log.
#[derive(Debug)]
pub(crate) struct FetchedRecords<'a> {
    messages: std::vec::IntoIter<*mut rd::rd_kafka_message_t>,
    _queue: std::marker::PhantomData<&'a ()>,
}

impl<'a> Iterator for FetchedRecords<'a> {
    type Item = Message<'a>;

    fn next(&mut self) -> Option<Message<'a>> {
        self.messages.next().map(|message| Message(message, self._queue))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.messages.size_hint()
    }
}

impl ExactSizeIterator for FetchedRecords<'_> {}

impl Drop for FetchedRecords<'_> {
    fn drop(&mut self) {
        self.for_each(drop);
    }
}

/// A record, or a partition's error.
#[derive(Debug)]
pub(crate) struct Message<'a>(*mut rd::rd_kafka_message_t, std::marker::PhantomData<&'a ()>);

impl Drop for Message<'_> {
    fn drop(&mut self) {
        // SAFETY: the message is ours, and no longer borrowed.
        unsafe { rd::rd_kafka_message_destroy(self.0) }
    }
}

impl Message<'_> {
    fn raw(&self) -> &rd::rd_kafka_message_t {
        // SAFETY: it lives until it is dropped.
        unsafe { &*self.0 }
    }

    /// Returns the partition's error, with librdkafka's text, if this is no record.
    pub(crate) fn error(&self) -> Option<(Code, String)> {
        let error = self.raw().err;
        if error == RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
            return None;
        }
        // SAFETY: the message lives, and holds the text, which is copied.
        let text = unsafe { CStr::from_ptr(rd::rd_kafka_message_errstr(self.0)) };
        Some((error.into(), text.to_string_lossy().into_owned()))
    }

    pub(crate) fn topic(&self) -> &[u8] {
        if self.raw().rkt.is_null() {
            return &[];
        }
        // SAFETY: the message holds its topic, and the topic its name.
        unsafe { CStr::from_ptr(rd::rd_kafka_topic_name(self.raw().rkt)).to_bytes() }
    }

    pub(crate) fn partition(&self) -> i32 {
        self.raw().partition
    }

    pub(crate) fn offset(&self) -> i64 {
        self.raw().offset
    }

    /// Returns the leader epoch of the record batch; `None` if the broker does not say.
    pub(crate) fn leader_epoch(&self) -> Option<i32> {
        // SAFETY: the message lives.
        let epoch = unsafe { rd::rd_kafka_message_leader_epoch(self.0) };
        (epoch >= 0).then_some(epoch)
    }

    /// Returns the timestamp, of whichever type the topic has; -1 if the broker is too old to say.
    pub(crate) fn timestamp(&self) -> Millis {
        let mut kind = rd::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
        // SAFETY: the message lives.
        let at_ms = unsafe { rd::rd_kafka_message_timestamp(self.0, &mut kind) };
        Millis(if kind == rd::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE { -1 } else { at_ms })
    }

    pub(crate) fn key(&self) -> Option<&[u8]> {
        bytes(self.raw().key, self.raw().key_len)
    }

    pub(crate) fn value(&self) -> Option<&[u8]> {
        bytes(self.raw().payload, self.raw().len)
    }

    /// Appends the headers. Their names may be any bytes.
    pub(crate) fn headers<'m>(&'m self, into: &mut Vec<Header<'m>>) {
        let mut headers = ptr::null_mut();
        // SAFETY: the message lives, and keeps its headers.
        unsafe {
            let error = rd::rd_kafka_message_headers(self.0, &mut headers);
            if error == RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
                push_headers(headers, into);
            }
        }
    }
}

fn bytes<'a>(from: *const c_void, length: usize) -> Option<&'a [u8]> {
    // SAFETY: a message's key or value, which lives as long as the message.
    (!from.is_null()).then(|| unsafe { std::slice::from_raw_parts(from.cast::<u8>(), length) })
}
