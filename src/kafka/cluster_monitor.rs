//! Checks for changes that no client reports: recreated schedules topics, deleted records, and members of the group
//! that are another program's.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaResult;
use rdkafka::groups::GroupMemberInfo;

use super::admin::Admin;
use super::client_config::CLIENT_ID;
use super::clients::QueryConsumer;
use super::ffi;
use super::ffi::admin::TopicDescription;
use super::foreign_members::{Member, UnidentifiedMembers, parse_assignment};
use super::log_start_offsets::LogStartOffsets;
use super::worker::{JOB_REQUEST_TIMEOUT, Worker, WorkerResult};

const CHECK_INTERVAL: Duration = Duration::from_secs(5);
/// Checks between two of the topics' cleaning settings.
const CLEANING_CHECKS: u32 = 6;
/// Members that a log line names at most.
const NAMED_MAX: usize = 10;
/// The state of a group that is not in a rebalance.
const STABLE: &str = "Stable";

struct ClusterMonitor {
    worker: Worker,
    group: String,
    /// Members of the group with these client ids are instances of this program.
    our_client_ids: BTreeSet<String>,
    topic_ids: BTreeMap<String, String>,
    log_start_offsets: LogStartOffsets,
    /// Members that the log has named.
    foreign_members: BTreeSet<String>,
    unidentified: UnidentifiedMembers,
    /// The rebalance after which every member was identified.
    settled_after: Option<u64>,
}

/// Starts the thread, which runs until the engine ends.
pub(super) fn start(worker: &Worker, has_snapshots: bool) {
    worker.spawn("cluster-monitor", move |worker| {
        let mut client = None;
        // The settings have just been read.
        let mut checks = 1_u32;
        let config = worker.clients.configs.consumer();
        let configured = |name: &str| config.get(name).unwrap_or_default().to_owned();
        let mut monitor = ClusterMonitor {
            group: configured("group.id"),
            our_client_ids: BTreeSet::from([configured("client.id"), CLIENT_ID.into()]),
            worker,
            topic_ids: BTreeMap::new(),
            log_start_offsets: LogStartOffsets::default(),
            foreign_members: BTreeSet::new(),
            unidentified: UnidentifiedMembers::default(),
            settled_after: None,
        };
        while !monitor.worker.is_closing() {
            if client.is_none() {
                client = monitor.worker.clients.read_uncommitted_consumer().ok();
            }
            if let Some(client) = &client {
                monitor.check_topics(client, has_snapshots);
                if has_snapshots && checks.is_multiple_of(CLEANING_CHECKS) {
                    monitor.check_cleaning();
                }
                if let Err(error) = monitor.check_members(client) {
                    monitor.worker.clients.diagnostics.on_failure("the group's members cannot be listed", &error);
                }
            }
            checks = checks.wrapping_add(1);
            std::thread::sleep(CHECK_INTERVAL);
        }
    });
}

impl ClusterMonitor {
    /// In a recreated topic the consumer continues at its old offset, if the topic is long enough, and skips the
    /// records before it.
    fn check_topics(&mut self, client: &QueryConsumer, has_snapshots: bool) {
        let names: Vec<&str> = self.worker.topics.iter().map(String::as_str).collect();
        let described = ffi::admin::describe_topics(client.client(), &names, JOB_REQUEST_TIMEOUT).unwrap_or_default();
        let count = |topic: &TopicDescription| 0..i32::try_from(topic.in_sync.len()).unwrap_or(0);
        let partitions: Vec<(&str, i32)> =
            described.iter().flat_map(|topic| count(topic).map(|number| (topic.name.as_str(), number))).collect();
        self.log_start_offsets.check(&self.worker, client, &partitions);
        for topic in described {
            let Some(id) = topic.id else { continue };
            if self.topic_ids.insert(topic.name.clone(), id.clone()).is_some_and(|before| before != id) {
                self.worker.send(WorkerResult::TopicRecreated { topic: topic.name });
            }
        }
        if has_snapshots {
            let (topic_ids, starts) = (self.topic_ids.clone(), self.log_start_offsets.known().clone());
            self.worker.send(WorkerResult::Logs { topic_ids, starts });
        }
    }

    /// Reads the settings that say how long folds stay usable. What cannot be read now is as it was.
    fn check_cleaning(&self) {
        let Ok(admin) = Admin::new(&self.worker.clients) else { return };
        for topic in self.worker.topics.iter() {
            if let Ok(cleaning) = admin.cleaning(topic) {
                self.worker.send(WorkerResult::Cleaning { topic: topic.clone(), cleaning });
            }
        }
    }

    /// A program with the same assignor joins the group silently, and nothing fences its records. It joins in a
    /// rebalance, so only then are members checked: the request lists all groups of every broker.
    fn check_members(&mut self, client: &QueryConsumer) -> KafkaResult<()> {
        let rebalances = Some(self.worker.rebalances.load(Ordering::Acquire));
        if self.settled_after == rebalances {
            return Ok(());
        }
        let Some(members) = self.other_members(client)? else { return Ok(()) };
        let committed = committed(client, &members)?;
        let now = Instant::now();
        let foreign = self.unidentified.check(now, &members, &committed);
        if !foreign.is_subset(&self.foreign_members) {
            let members: Vec<&String> = foreign.iter().take(NAMED_MAX).collect();
            tracing::warn!(
                group = self.group,
                ?members,
                "the group has members that do not call themselves kafka-scheduler and do not commit as it does: if \
                 they are another program, stop them or set another GROUP_ID; otherwise schedules may fire twice"
            );
        }
        self.foreign_members = foreign;
        if self.unidentified.is_settled(now) {
            self.settled_after = rebalances;
            tracing::debug!(group = self.group, "every member of the group is identified");
        }
        Ok(())
    }

    /// Returns the members of the group whose client ids are not ours, with their partitions of the schedules topics.
    /// `None` while the group rebalances.
    fn other_members(&self, client: &QueryConsumer) -> KafkaResult<Option<Vec<Member>>> {
        let list = client.fetch_group_list(Some(&self.group), JOB_REQUEST_TIMEOUT)?;
        let group = list.groups().iter().find(|found| found.name() == self.group);
        let Some(group) = group.filter(|group| group.state() == STABLE) else { return Ok(None) };
        let is_ours = |topic: &String| self.worker.topics.contains(topic);
        let others = group.members().iter().filter(|member| !self.our_client_ids.contains(member.client_id()));
        let member = |member: &GroupMemberInfo| Member {
            id: member.id().to_owned(),
            client_id: member.client_id().to_owned(),
            host: member.client_host().to_owned(),
            assignment: parse_assignment(member.assignment().unwrap_or_default())
                .map(|assigned| assigned.into_iter().filter(|(topic, _)| is_ours(topic)).collect()),
        };
        Ok(Some(others.map(member).collect()))
    }
}

/// Reads the metadata of the committed offsets of all partitions of these members.
fn committed(client: &QueryConsumer, members: &[Member]) -> KafkaResult<BTreeMap<(String, i32), Vec<u8>>> {
    let mut list = TopicPartitionList::new();
    for (topic, number) in members.iter().flat_map(|member| member.assignment.iter().flatten()) {
        list.add_partition(topic, *number);
    }
    if list.count() == 0 {
        return Ok(BTreeMap::new());
    }
    let list = client.committed_offsets(list, JOB_REQUEST_TIMEOUT)?;
    let places = list.elements().into_iter().map(|element| (element.topic().to_owned(), element.partition()));
    Ok(places.zip(ffi::metadata(&list)).collect())
}
