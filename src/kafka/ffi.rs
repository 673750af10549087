//! Calls to librdkafka that rust-rdkafka lacks. The only unsafe code of the crate.

pub(crate) mod admin;
pub(crate) mod queue;

use std::ffi::{CStr, CString, c_void};
use std::os::raw::c_char;
use std::ptr;
use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::bindings as rd;
use rdkafka::client::ClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, ConsumerGroupMetadata};
use rdkafka::message::BorrowedHeaders;
use rdkafka::producer::{BaseProducer, Producer, ProducerContext};
use rdkafka::types::RDKafkaRespErr;

use crate::core::batch::OutRecord;
use crate::core::io::Header;

/// Returns the group metadata with its generation and member id. `None` while the consumer has no membership: the
/// broker would accept such metadata without checking it.
pub(crate) fn membership<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
) -> Option<(ConsumerGroupMetadata, i32, Vec<u8>)> {
    let before = generation(consumer)?;
    let metadata = consumer.group_metadata()?;
    // rust-rdkafka hides which generation it took. If it is equal before and after, it was this one.
    (generation(consumer)? == before).then_some((metadata, before.0, before.1))
}

/// Returns the generation and member id, if the consumer has any.
pub(crate) fn generation<C: ConsumerContext>(consumer: &BaseConsumer<C>) -> Option<(i32, Vec<u8>)> {
    // SAFETY: the client outlives the call; the metadata is ours until it is destroyed, and its member id is copied
    // before that.
    unsafe {
        let metadata = rd::rd_kafka_consumer_group_metadata(consumer.client().native_ptr());
        if metadata.is_null() {
            return None;
        }
        let generation = rd::rd_kafka_consumer_group_metadata_generation_id(metadata);
        let member = rd::rd_kafka_consumer_group_metadata_member_id(metadata);
        let member = if member.is_null() { Vec::new() } else { CStr::from_ptr(member).to_bytes().to_vec() };
        rd::rd_kafka_consumer_group_metadata_destroy(metadata);
        (generation >= 0 && !member.is_empty()).then_some((generation, member))
    }
}

/// Seeks an assigned partition to an offset. With the leader epoch of the record before it, librdkafka first asks the
/// leader whether its log still has that record: if not, the partition fails as it does for an offset out of range.
/// Without a timeout this returns at once, and it is unknown whether the partition was sought.
///
/// # Errors
/// If the partition is not assigned, or its assignment is ending, or has not started within the timeout: librdkafka's
/// code.
pub(crate) fn seek<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    (topic, partition): (&str, i32),
    offset: i64,
    leader_epoch: Option<i32>,
    timeout: Duration,
) -> Result<(), RDKafkaRespErr> {
    use RDKafkaRespErr::{RD_KAFKA_RESP_ERR__IN_PROGRESS, RD_KAFKA_RESP_ERR_NO_ERROR};
    let topic = CString::new(topic).map_err(|_| RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_EXCEPTION)?;
    let timeout_ms = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: the client outlives the call. The list copies the name, has one element, and is destroyed after its last
    // use, as the error is.
    unsafe {
        let list = rd::rd_kafka_topic_partition_list_new(1);
        let element = rd::rd_kafka_topic_partition_list_add(list, topic.as_ptr(), partition);
        (*element).offset = offset;
        rd::rd_kafka_topic_partition_set_leader_epoch(element, leader_epoch.unwrap_or(-1));
        let error = rd::rd_kafka_seek_partitions(consumer.client().native_ptr(), list, timeout_ms);
        let code = if error.is_null() { (*element).err } else { rd::rd_kafka_error_code(error) };
        if !error.is_null() {
            rd::rd_kafka_error_destroy(error);
        }
        rd::rd_kafka_topic_partition_list_destroy(list);
        match code {
            RD_KAFKA_RESP_ERR_NO_ERROR | RD_KAFKA_RESP_ERR__IN_PROGRESS => Ok(()),
            code => Err(code),
        }
    }
}

/// Appends a message's headers. Unlike rust-rdkafka's, their names may be any bytes.
pub(crate) fn headers<'a>(headers: &'a BorrowedHeaders, into: &mut Vec<Header<'a>>) {
    // SAFETY: a reference to rust-rdkafka's empty type is librdkafka's own pointer.
    unsafe { push_headers(ptr::from_ref(headers).cast(), into) }
}

/// # Safety
/// The headers are librdkafka's, and live for as long as what is appended.
unsafe fn push_headers<'a>(headers: *const rd::rd_kafka_headers_t, into: &mut Vec<Header<'a>>) {
    for index in 0.. {
        let (mut name, mut value, mut size) = (ptr::null::<c_char>(), ptr::null::<c_void>(), 0usize);
        // SAFETY: as the caller promises.
        unsafe {
            let error = rd::rd_kafka_header_get_all(headers, index, &mut name, &mut value, &mut size);
            if error != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
                return;
            }
            into.push(Header {
                name: CStr::from_ptr(name).to_bytes(),
                value: (!value.is_null()).then(|| std::slice::from_raw_parts(value.cast::<u8>(), size)),
            });
        }
    }
}

/// Returns the metadata of each element, which rust-rdkafka reads only if it is UTF-8.
pub(crate) fn metadata(list: &TopicPartitionList) -> Vec<Vec<u8>> {
    // SAFETY: the list and its elements live while it is borrowed; bytes are copied.
    unsafe {
        let list = &*list.ptr();
        let count = usize::try_from(list.cnt).unwrap_or(0);
        (0..count)
            .map(|index| {
                let element = &*list.elems.add(index);
                if element.metadata.is_null() {
                    return Vec::new();
                }
                std::slice::from_raw_parts(element.metadata.cast::<u8>(), element.metadata_size).to_vec()
            })
            .collect()
    }
}

/// Queues a record, copying it. Its delivery report carries the item's index.
///
/// # Errors
/// If the record was not queued: librdkafka's code.
pub(crate) fn produce<C>(producer: &BaseProducer<C>, record: &OutRecord<'_>) -> Result<(), RDKafkaRespErr>
where
    C: ClientContext + ProducerContext<DeliveryOpaque = usize>,
{
    use rd::rd_kafka_vtype_t as V;
    let topic = CString::new(record.topic).map_err(|_| RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_EXCEPTION)?;
    let (key, key_size) = raw(record.key);
    let (value, value_size) = raw(record.value);
    // SAFETY: every pointer is valid for its length during the call, which copies key and value. The headers are
    // librdkafka's once the call has succeeded and are destroyed here if it has not.
    unsafe {
        let headers = rd::rd_kafka_headers_new(record.headers.len());
        for header in record.headers {
            let (data, size) = raw(header.value);
            rd::rd_kafka_header_add(
                headers,
                header.name.as_ptr().cast(),
                header.name.len() as isize,
                data,
                size as isize,
            );
        }
        let error = rd::rd_kafka_producev(
            producer.client().native_ptr(),
            V::RD_KAFKA_VTYPE_TOPIC,
            topic.as_ptr(),
            V::RD_KAFKA_VTYPE_PARTITION,
            record.partition.map_or(-1, |partition| partition.number),
            V::RD_KAFKA_VTYPE_MSGFLAGS,
            rd::RD_KAFKA_MSG_F_COPY,
            V::RD_KAFKA_VTYPE_VALUE,
            value,
            value_size,
            V::RD_KAFKA_VTYPE_KEY,
            key,
            key_size,
            V::RD_KAFKA_VTYPE_OPAQUE,
            record.item as usize as *mut c_void,
            V::RD_KAFKA_VTYPE_HEADERS,
            headers,
            V::RD_KAFKA_VTYPE_END,
        );
        if error == RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
            return Ok(());
        }
        rd::rd_kafka_headers_destroy(headers);
        Err(error)
    }
}

/// Returns freed memory to the operating system, if the allocator can do so: glibc keeps what fetching took.
pub(crate) fn give_back_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it has no preconditions.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Keeps null and empty apart: librdkafka distinguishes them by the pointer.
fn raw(bytes: Option<&[u8]>) -> (*mut c_void, usize) {
    bytes.map_or((ptr::null_mut(), 0), |bytes| (bytes.as_ptr().cast_mut().cast(), bytes.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_consumer_that_has_not_joined_has_no_membership_to_give() {
        let mut config = rdkafka::ClientConfig::new();
        config.set("bootstrap.servers", "127.0.0.1:1").set("group.id", "g").set("log_level", "0");
        let consumer: BaseConsumer = config.create().expect("these settings are legal");
        assert!(consumer.group_metadata().is_some(), "rust-rdkafka returns metadata that the broker would not check");
        assert!(membership(&consumer).is_none());
    }
}
