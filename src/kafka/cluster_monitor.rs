//! What may change around a running engine without any client saying so: schedules topics that are made anew, and members
//! of the group that are another program's.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaResult;
use rdkafka::groups::GroupMemberInfo;

use super::client_config::CLIENT_ID;
use super::diagnostics::QueryContext;
use super::ffi;
use super::foreign_members::{Member, Suspects, assignment};
use super::log_start_offsets::LogStartOffsets;
use super::worker::{REQUEST_MAX, Worker, WorkerResult};

/// Between two looks.
const EVERY: Duration = Duration::from_secs(5);
/// Members that a line names at the most.
const NAMED_MAX: usize = 10;
/// The state of a group that is not in a rebalance.
const STABLE: &str = "Stable";

/// What was seen so far.
struct ClusterMonitor {
    worker: Worker,
    group: String,
    /// Members of the group that call themselves so are kin.
    client_ids: BTreeSet<String>,
    /// The ids of the schedules topics.
    topics: BTreeMap<String, (i64, i64)>,
    /// Those that the log has named.
    strangers: BTreeSet<String>,
    log_starts: LogStartOffsets,
    /// Members that may be.
    suspects: Suspects,
    /// The rebalance after which it was clear what every member is.
    settled_after: Option<u64>,
}

/// Looks until the engine ends.
pub fn start(worker: &Worker) {
    worker.spawn("cluster-monitor", |worker| {
        let mut client = None;
        let config = worker.settings.consumer();
        let configured = |name: &str| config.get(name).unwrap_or_default().to_owned();
        let (group, client_ids) = (configured("group.id"), BTreeSet::from([configured("client.id"), CLIENT_ID.into()]));
        let (topics, strangers) = (BTreeMap::new(), BTreeSet::new());
        let (suspects, log_starts) = (Suspects::default(), LogStartOffsets::default());
        let mut monitor =
            ClusterMonitor { worker, group, client_ids, topics, strangers, suspects, log_starts, settled_after: None };
        while !monitor.worker.is_closing() {
            if client.is_none() {
                client = monitor.worker.uncommitted().ok();
            }
            if let Some(client) = &client {
                monitor.topics(client);
                if let Err(error) = monitor.members(client) {
                    monitor.worker.settings.voice.failing("the group's members cannot be listed", &error);
                }
            }
            std::thread::sleep(EVERY);
        }
    });
}

impl ClusterMonitor {
    /// The consumer goes on at its offset in a topic that was made anew where that is long enough, and passes over what
    /// lies before it.
    fn topics(&mut self, client: &BaseConsumer<QueryContext>) {
        let names: Vec<&str> = self.worker.topics.iter().map(String::as_str).collect();
        let described = ffi::describe(client.client(), &names, REQUEST_MAX).unwrap_or_default();
        let count = |topic: &ffi::Description| 0..i32::try_from(topic.in_sync.len()).unwrap_or(0);
        let partitions: Vec<(&str, i32)> =
            described.iter().flat_map(|topic| count(topic).map(|number| (topic.name.as_str(), number))).collect();
        self.log_starts.look(&self.worker, client, &partitions);
        for topic in described {
            let Some(id) = topic.id else { continue };
            if self.topics.insert(topic.name.clone(), id).is_some_and(|before| before != id) {
                self.worker.tell(WorkerResult::Anew { topic: topic.name });
            }
        }
    }

    /// A program that divides partitions in the same way joins the group without a word, and nothing fences what it fires.
    /// It takes part in a rebalance then. To look more often would cost: every broker is asked for all of its groups.
    fn members(&mut self, client: &BaseConsumer<QueryContext>) -> KafkaResult<()> {
        let rebalances = Some(self.worker.rebalances.load(Ordering::Acquire));
        if self.settled_after == rebalances {
            return Ok(());
        }
        let Some(members) = self.others(client)? else { return Ok(()) };
        let committed = committed(client, &members)?;
        let now = Instant::now();
        let strangers = self.suspects.look(now, &members, &committed);
        if !strangers.is_subset(&self.strangers) {
            let members: Vec<&String> = strangers.iter().take(NAMED_MAX).collect();
            tracing::warn!(
                group = self.group,
                ?members,
                "the group has members that do not call themselves kafka-scheduler and do not commit as it does: if they \
                 are another program, stop them or set another GROUP_ID, since what they fire may fire twice"
            );
        }
        self.strangers = strangers;
        if self.suspects.is_settled(now) {
            self.settled_after = rebalances;
            tracing::debug!(group = self.group, "every member of the group is known");
        }
        Ok(())
    }

    /// The members of the group whose client ids are not known as ours, with what they hold of the schedules topics.
    /// `None` while the group rebalances.
    fn others(&self, client: &BaseConsumer<QueryContext>) -> KafkaResult<Option<Vec<Member>>> {
        let list = client.fetch_group_list(Some(&self.group), REQUEST_MAX)?;
        let group = list.groups().iter().find(|found| found.name() == self.group);
        let Some(group) = group.filter(|group| group.state() == STABLE) else { return Ok(None) };
        let is_ours = |topic: &String| self.worker.topics.contains(topic);
        let others = group.members().iter().filter(|member| !self.client_ids.contains(member.client_id()));
        let member = |member: &GroupMemberInfo| Member {
            id: member.id().to_owned(),
            client_id: member.client_id().to_owned(),
            host: member.client_host().to_owned(),
            holds: assignment(member.assignment().unwrap_or_default())
                .map(|holds| holds.into_iter().filter(|(topic, _)| is_ours(topic)).collect()),
        };
        Ok(Some(others.map(member).collect()))
    }
}

/// The metadata of the committed offsets of all partitions that these members hold.
fn committed(client: &BaseConsumer<QueryContext>, members: &[Member]) -> KafkaResult<BTreeMap<(String, i32), Vec<u8>>> {
    let mut list = TopicPartitionList::new();
    for (topic, number) in members.iter().flat_map(|member| member.holds.iter().flatten()) {
        list.add_partition(topic, *number);
    }
    if list.count() == 0 {
        return Ok(BTreeMap::new());
    }
    let list = client.committed_offsets(list, REQUEST_MAX)?;
    let places = list.elements().into_iter().map(|element| (element.topic().to_owned(), element.partition()));
    Ok(places.zip(ffi::metadata(&list)).collect())
}
