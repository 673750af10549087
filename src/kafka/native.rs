//! What rust-rdkafka does not offer, straight from librdkafka. The only unsafe code of the crate.

pub mod inbox;

use std::ffi::{CStr, CString, c_void};
use std::os::raw::c_char;
use std::ptr;
use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::bindings as rd;
use rdkafka::client::{Client, ClientContext};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, ConsumerGroupMetadata};
use rdkafka::message::BorrowedHeaders;
use rdkafka::producer::{BaseProducer, Producer, ProducerContext};
use rdkafka::types::RDKafkaRespErr;

use crate::core::batch::OutRecord;
use crate::core::io::Header;

/// The group metadata with the generation and the member id it stands for. `None` while the consumer has no membership:
/// the broker would accept such metadata without checking anything.
pub fn membership<C: ConsumerContext>(consumer: &BaseConsumer<C>) -> Option<(ConsumerGroupMetadata, i32, Vec<u8>)> {
    let before = generation(consumer)?;
    let metadata = consumer.group_metadata()?;
    // The wrapper hides what it took. Equal before and after, it was this.
    (generation(consumer)? == before).then_some((metadata, before.0, before.1))
}

/// The generation and member id, where there are any.
pub fn generation<C: ConsumerContext>(consumer: &BaseConsumer<C>) -> Option<(i32, Vec<u8>)> {
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

/// Appends a message's headers. Unlike the wrapper's, their names may be any bytes.
pub fn headers<'a>(headers: &'a BorrowedHeaders, into: &mut Vec<Header<'a>>) {
    // SAFETY: a reference to the wrapper's empty type is librdkafka's own pointer.
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

/// The metadata of each element, which the wrapper reads only where it is UTF-8.
pub fn metadata(list: &TopicPartitionList) -> Vec<Vec<u8>> {
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
/// librdkafka's code; nothing was queued.
pub fn produce<C>(producer: &BaseProducer<C>, record: &OutRecord<'_>) -> Result<(), RDKafkaRespErr>
where
    C: ClientContext + ProducerContext<DeliveryOpaque = usize>,
{
    use rd::rd_kafka_vtype_t as V;
    let topic = CString::new(record.topic).map_err(|_| RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_EXCEPTION)?;
    let (key, key_size) = raw(record.key);
    let (value, value_size) = raw(record.value);
    // SAFETY: every pointer is valid for its length during the call, which copies key and value. The headers are
    // librdkafka's once the call has succeeded and are destroyed here where it has not.
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

/// What the cluster says of a topic.
#[derive(Debug)]
pub struct Description {
    /// Its name.
    pub name: String,
    /// What tells it from another one of that name. Brokers before Kafka 2.8 do not say.
    pub id: Option<(i64, i64)>,
    /// The topic cannot be used, or may not be seen.
    pub error: Option<RDKafkaRespErr>,
    /// Every partition has a leader.
    pub is_led: bool,
    /// By partition, how many of its replicas are in sync, and how many it has.
    pub in_sync: Vec<(usize, usize)>,
    /// We may not write to it. Brokers do not always tell.
    pub is_denied: bool,
}

/// Asks about topics, in one request.
///
/// # Errors
/// librdkafka's code; a broker that does not answer in time is one.
pub fn describe<C: ClientContext>(
    client: &Client<C>,
    topics: &[&str],
    limit: Duration,
) -> Result<Vec<Description>, RDKafkaRespErr> {
    use rd::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS;
    let names: Vec<CString> = topics.iter().filter_map(|topic| CString::new(*topic).ok()).collect();
    let mut names: Vec<*const c_char> = names.iter().map(|name| name.as_ptr()).collect();
    let limit_ms = i32::try_from(limit.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: what is made here is destroyed here, after its last use; the names outlive the collection, which copies
    // them; what the event holds is read before the event is destroyed. A late answer goes to the queue, which
    // librdkafka keeps until then.
    unsafe {
        let rk = client.native_ptr();
        let options = rd::rd_kafka_AdminOptions_new(rk, RD_KAFKA_ADMIN_OP_DESCRIBETOPICS);
        rd::rd_kafka_AdminOptions_set_request_timeout(options, limit_ms, ptr::null_mut(), 0);
        let error = rd::rd_kafka_AdminOptions_set_include_authorized_operations(options, 1);
        if !error.is_null() {
            rd::rd_kafka_error_destroy(error);
        }
        let collection = rd::rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), names.len());
        let queue = rd::rd_kafka_queue_new(rk);
        rd::rd_kafka_DescribeTopics(rk, collection, options, queue);
        let event = rd::rd_kafka_queue_poll(queue, limit_ms);
        let answer = if event.is_null() {
            Err(RDKafkaRespErr::RD_KAFKA_RESP_ERR__TIMED_OUT)
        } else {
            match rd::rd_kafka_event_error(event) {
                RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR => {
                    Ok(descriptions(rd::rd_kafka_event_DescribeTopics_result(event)))
                }
                error => Err(error),
            }
        };
        if !event.is_null() {
            rd::rd_kafka_event_destroy(event);
        }
        rd::rd_kafka_queue_destroy(queue);
        rd::rd_kafka_TopicCollection_destroy(collection);
        rd::rd_kafka_AdminOptions_destroy(options);
        answer
    }
}

/// Asks where each of these partitions begins, in one request a broker. What a broker does not say is left out.
///
/// # Errors
/// librdkafka's code; a broker that does not answer in time is one.
pub fn log_starts<C: ClientContext>(
    client: &Client<C>,
    partitions: &[(&str, i32)],
    limit: Duration,
) -> Result<Vec<(String, i32, i64)>, RDKafkaRespErr> {
    use rd::rd_kafka_OffsetSpec_t::RD_KAFKA_OFFSET_SPEC_EARLIEST;
    use rd::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_LISTOFFSETS;
    let limit_ms = i32::try_from(limit.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: what is made here is destroyed here, after its last use; the list copies the names, and the request copies
    // the list. What the event holds is read before the event is destroyed. A late answer goes to the queue, which
    // librdkafka keeps until then.
    unsafe {
        let rk = client.native_ptr();
        let list = rd::rd_kafka_topic_partition_list_new(i32::try_from(partitions.len()).unwrap_or(0));
        for (topic, number) in partitions {
            let Ok(topic) = CString::new(*topic) else { continue };
            let element = rd::rd_kafka_topic_partition_list_add(list, topic.as_ptr(), *number);
            (*element).offset = RD_KAFKA_OFFSET_SPEC_EARLIEST as i64;
        }
        let options = rd::rd_kafka_AdminOptions_new(rk, RD_KAFKA_ADMIN_OP_LISTOFFSETS);
        rd::rd_kafka_AdminOptions_set_request_timeout(options, limit_ms, ptr::null_mut(), 0);
        let queue = rd::rd_kafka_queue_new(rk);
        rd::rd_kafka_ListOffsets(rk, list, options, queue);
        let event = rd::rd_kafka_queue_poll(queue, limit_ms);
        let answer = if event.is_null() {
            Err(RDKafkaRespErr::RD_KAFKA_RESP_ERR__TIMED_OUT)
        } else {
            match rd::rd_kafka_event_error(event) {
                RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR => Ok(starts(rd::rd_kafka_event_ListOffsets_result(event))),
                error => Err(error),
            }
        };
        if !event.is_null() {
            rd::rd_kafka_event_destroy(event);
        }
        rd::rd_kafka_queue_destroy(queue);
        rd::rd_kafka_AdminOptions_destroy(options);
        rd::rd_kafka_topic_partition_list_destroy(list);
        answer
    }
}

/// # Safety
/// `result` is null, or belongs to an event that lives.
unsafe fn starts(result: *const rd::rd_kafka_ListOffsets_result_t) -> Vec<(String, i32, i64)> {
    if result.is_null() {
        return Vec::new();
    }
    // SAFETY: as the caller promises; the array has the length that comes with it, and names are copied.
    unsafe {
        let mut count = 0usize;
        let infos = rd::rd_kafka_ListOffsets_result_infos(result, &mut count);
        (0..count)
            .map(|index| &*rd::rd_kafka_ListOffsetsResultInfo_topic_partition(*infos.add(index)))
            .filter(|found| found.err == RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR && found.offset >= 0)
            .map(|found| (CStr::from_ptr(found.topic).to_string_lossy().into_owned(), found.partition, found.offset))
            .collect()
    }
}

/// # Safety
/// `result` is null, or belongs to an event that lives.
unsafe fn descriptions(result: *const rd::rd_kafka_DescribeTopics_result_t) -> Vec<Description> {
    if result.is_null() {
        return Vec::new();
    }
    // SAFETY: as the caller promises; the array has the length that comes with it.
    unsafe {
        let mut count = 0usize;
        let described = rd::rd_kafka_DescribeTopics_result_topics(result, &mut count);
        (0..count).map(|index| description(*described.add(index))).collect()
    }
}

/// # Safety
/// `topic` belongs to an event that lives.
unsafe fn description(topic: *const rd::rd_kafka_TopicDescription_t) -> Description {
    use rd::rd_kafka_AclOperation_t::{RD_KAFKA_ACL_OPERATION_ALL, RD_KAFKA_ACL_OPERATION_WRITE};
    // SAFETY: as the caller promises; arrays have the lengths that come with them, and texts are copied.
    unsafe {
        let error = rd::rd_kafka_TopicDescription_error(topic);
        let error = if error.is_null() { None } else { Some(rd::rd_kafka_error_code(error)) };
        let mut count = 0usize;
        let operations = rd::rd_kafka_TopicDescription_authorized_operations(topic, &mut count);
        // Null where the broker does not tell, or does not know the topic.
        let told = !operations.is_null() && count > 0;
        let writes = told
            && (0..count)
                .any(|n| matches!(*operations.add(n), RD_KAFKA_ACL_OPERATION_ALL | RD_KAFKA_ACL_OPERATION_WRITE));
        let (mut partitions, mut is_led) = (0usize, true);
        let infos = rd::rd_kafka_TopicDescription_partitions(topic, &mut partitions);
        let mut in_sync = Vec::with_capacity(partitions);
        for index in 0..partitions {
            let (mut synced, mut all) = (0usize, 0usize);
            let info = *infos.add(index);
            is_led &= !rd::rd_kafka_TopicPartitionInfo_leader(info).is_null();
            rd::rd_kafka_TopicPartitionInfo_isr(info, &mut synced);
            rd::rd_kafka_TopicPartitionInfo_replicas(info, &mut all);
            in_sync.push((synced, all));
        }
        let text = |text: *const c_char| match text.is_null() {
            true => String::new(),
            false => CStr::from_ptr(text).to_string_lossy().into_owned(),
        };
        let id = rd::rd_kafka_TopicDescription_topic_id(topic);
        let id = (!id.is_null())
            .then(|| (rd::rd_kafka_Uuid_most_significant_bits(id), rd::rd_kafka_Uuid_least_significant_bits(id)));
        Description {
            id: id.filter(|id| *id != (0, 0)),
            name: text(rd::rd_kafka_TopicDescription_name(topic)),
            error: error.filter(|error| *error != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR),
            is_led,
            in_sync,
            is_denied: told && !writes,
        }
    }
}

/// Gives memory that was freed back to the operating system, where the allocator can be told to: glibc keeps what
/// fetching took.
pub fn give_back_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it has no preconditions.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Null stays null, and empty stays empty: librdkafka tells them apart by the pointer.
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
        assert!(consumer.group_metadata().is_some(), "the wrapper gives metadata that the broker would not check");
        assert!(membership(&consumer).is_none());
    }
}
