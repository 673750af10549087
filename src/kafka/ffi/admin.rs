//! Admin requests that rust-rdkafka lacks.

use std::ffi::{CStr, CString};
use std::os::raw::c_char;
use std::ptr;
use std::time::Duration;

use rdkafka::bindings as rd;
use rdkafka::client::{Client, ClientContext};
use rdkafka::types::RDKafkaRespErr;

/// A topic, as the cluster describes it.
#[derive(Debug)]
pub(crate) struct TopicDescription {
    pub name: String,
    /// The topic id, as Kafka's tools print it. It differs after the topic was recreated. Brokers before Kafka 2.8 have
    /// none.
    pub id: Option<String>,
    /// The topic is not usable, or describing it is not permitted.
    pub error: Option<RDKafkaRespErr>,
    /// Every partition has a leader.
    pub has_leaders: bool,
    /// By partition: how many replicas are in sync, and how many there are.
    pub in_sync: Vec<(usize, usize)>,
    /// Writing is not permitted. Not every broker says so.
    pub is_write_denied: bool,
}

/// Describes topics, in one request.
///
/// # Errors
/// If the brokers reject the request or do not answer in time: librdkafka's code.
pub(crate) fn describe_topics<C: ClientContext>(
    client: &Client<C>,
    topics: &[&str],
    timeout: Duration,
) -> Result<Vec<TopicDescription>, RDKafkaRespErr> {
    let names: Vec<CString> = topics.iter().filter_map(|topic| CString::new(*topic).ok()).collect();
    let mut names: Vec<*const c_char> = names.iter().map(|name| name.as_ptr()).collect();
    // SAFETY: the names outlive the collection, which copies them; the collection is destroyed after its last use.
    unsafe {
        let collection = rd::rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), names.len());
        let answer = request(
            client.native_ptr(),
            rd::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS,
            timeout,
            |rk, options, queue| {
                let error = rd::rd_kafka_AdminOptions_set_include_authorized_operations(options, 1);
                if !error.is_null() {
                    rd::rd_kafka_error_destroy(error);
                }
                rd::rd_kafka_DescribeTopics(rk, collection, options, queue);
            },
            |event| descriptions(rd::rd_kafka_event_DescribeTopics_result(event)),
        );
        rd::rd_kafka_TopicCollection_destroy(collection);
        answer
    }
}

/// Returns the log start offset of each of these partitions, with one request to each broker. Partitions without an
/// answer are left out.
///
/// # Errors
/// If the brokers reject the request or do not answer in time: librdkafka's code.
pub(crate) fn log_start_offsets<C: ClientContext>(
    client: &Client<C>,
    partitions: &[(&str, i32)],
    timeout: Duration,
) -> Result<Vec<(String, i32, i64)>, RDKafkaRespErr> {
    // SAFETY: the list copies the names, and the request copies the list, which is destroyed after its last use.
    unsafe {
        let list = rd::rd_kafka_topic_partition_list_new(i32::try_from(partitions.len()).unwrap_or(0));
        for (topic, number) in partitions {
            let Ok(topic) = CString::new(*topic) else { continue };
            let element = rd::rd_kafka_topic_partition_list_add(list, topic.as_ptr(), *number);
            (*element).offset = rd::rd_kafka_OffsetSpec_t::RD_KAFKA_OFFSET_SPEC_EARLIEST as i64;
        }
        let answer = request(
            client.native_ptr(),
            rd::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_LISTOFFSETS,
            timeout,
            |rk, options, queue| rd::rd_kafka_ListOffsets(rk, list, options, queue),
            |event| offsets(rd::rd_kafka_event_ListOffsets_result(event)),
        );
        rd::rd_kafka_topic_partition_list_destroy(list);
        answer
    }
}

/// Sends a request and waits for its answer.
///
/// # Safety
/// The client lives. `send` passes its arguments to one admin call, which is the one that `read` reads the event of.
unsafe fn request<T>(
    rk: *mut rd::rd_kafka_t,
    operation: rd::rd_kafka_admin_op_t,
    timeout: Duration,
    send: impl FnOnce(*mut rd::rd_kafka_t, *mut rd::rd_kafka_AdminOptions_t, *mut rd::rd_kafka_queue_t),
    read: impl FnOnce(*mut rd::rd_kafka_event_t) -> T,
) -> Result<T, RDKafkaRespErr> {
    let timeout_ms = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: options, queue and event are destroyed here, after their last use; the event is read before that. A late
    // answer goes to the queue, which librdkafka keeps until then.
    unsafe {
        let options = rd::rd_kafka_AdminOptions_new(rk, operation);
        rd::rd_kafka_AdminOptions_set_request_timeout(options, timeout_ms, ptr::null_mut(), 0);
        let queue = rd::rd_kafka_queue_new(rk);
        send(rk, options, queue);
        let event = rd::rd_kafka_queue_poll(queue, timeout_ms);
        let answer = if event.is_null() {
            Err(RDKafkaRespErr::RD_KAFKA_RESP_ERR__TIMED_OUT)
        } else {
            match rd::rd_kafka_event_error(event) {
                RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR => Ok(read(event)),
                error => Err(error),
            }
        };
        if !event.is_null() {
            rd::rd_kafka_event_destroy(event);
        }
        rd::rd_kafka_queue_destroy(queue);
        rd::rd_kafka_AdminOptions_destroy(options);
        answer
    }
}

/// # Safety
/// `result` is null, or belongs to an event that lives.
unsafe fn offsets(result: *const rd::rd_kafka_ListOffsets_result_t) -> Vec<(String, i32, i64)> {
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
unsafe fn descriptions(result: *const rd::rd_kafka_DescribeTopics_result_t) -> Vec<TopicDescription> {
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
unsafe fn description(topic: *const rd::rd_kafka_TopicDescription_t) -> TopicDescription {
    use rd::rd_kafka_AclOperation_t::{RD_KAFKA_ACL_OPERATION_ALL, RD_KAFKA_ACL_OPERATION_WRITE};
    // SAFETY: as the caller promises; arrays have the lengths that come with them, and texts are copied.
    unsafe {
        let error = rd::rd_kafka_TopicDescription_error(topic);
        let error = if error.is_null() { None } else { Some(rd::rd_kafka_error_code(error)) };
        let mut count = 0usize;
        let operations = rd::rd_kafka_TopicDescription_authorized_operations(topic, &mut count);
        // Null if the broker does not say, or does not know the topic.
        let is_told = !operations.is_null() && count > 0;
        let may_write = is_told
            && (0..count)
                .any(|n| matches!(*operations.add(n), RD_KAFKA_ACL_OPERATION_ALL | RD_KAFKA_ACL_OPERATION_WRITE));
        let (mut partitions, mut has_leaders) = (0usize, true);
        let infos = rd::rd_kafka_TopicDescription_partitions(topic, &mut partitions);
        let mut in_sync = Vec::with_capacity(partitions);
        for index in 0..partitions {
            let (mut synced, mut all) = (0usize, 0usize);
            let info = *infos.add(index);
            has_leaders &= !rd::rd_kafka_TopicPartitionInfo_leader(info).is_null();
            rd::rd_kafka_TopicPartitionInfo_isr(info, &mut synced);
            rd::rd_kafka_TopicPartitionInfo_replicas(info, &mut all);
            in_sync.push((synced, all));
        }
        let text = |text: *const c_char| match text.is_null() {
            true => String::new(),
            false => CStr::from_ptr(text).to_string_lossy().into_owned(),
        };
        TopicDescription {
            id: topic_id(rd::rd_kafka_TopicDescription_topic_id(topic)),
            name: text(rd::rd_kafka_TopicDescription_name(topic)),
            error: error.filter(|error| *error != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR),
            has_leaders,
            in_sync,
            is_write_denied: is_told && !may_write,
        }
    }
}

/// # Safety
/// `id` is null, or belongs to an event that lives.
unsafe fn topic_id(id: *const rd::rd_kafka_Uuid_t) -> Option<String> {
    if id.is_null() {
        return None;
    }
    // SAFETY: as the caller promises; the text belongs to the id, and is copied.
    unsafe {
        let text = rd::rd_kafka_Uuid_base64str(id);
        let bits = (rd::rd_kafka_Uuid_most_significant_bits(id), rd::rd_kafka_Uuid_least_significant_bits(id));
        if text.is_null() || bits == (0, 0) {
            return None;
        }
        // Kafka's tools use the alphabet for URLs.
        Some(CStr::from_ptr(text).to_string_lossy().replace('+', "-").replace('/', "_"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topic_ids_read_as_kafkas_tools_print_them() {
        let text = |most, least| {
            // SAFETY: the id lives until it is destroyed.
            unsafe {
                let id = rd::rd_kafka_Uuid_new(most, least);
                let text = topic_id(id);
                rd::rd_kafka_Uuid_destroy(id);
                text
            }
        };
        assert_eq!(text(0, 0), None, "the broker has no topic ids");
        assert_eq!(text(0, 1).as_deref(), Some("AAAAAAAAAAAAAAAAAAAAAQ"));
        assert_eq!(text(-1, -5).as_deref(), Some("____________________-w"));
        // SAFETY: null is allowed.
        assert_eq!(unsafe { topic_id(ptr::null()) }, None);
    }
}
