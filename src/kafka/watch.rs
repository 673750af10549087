//! What may change around a running engine without any client saying so: schedules topics that are made anew, and members
//! of the group that are another program's.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaResult;

use super::native;
use super::settings::CLIENT_ID;
use super::voice::Asking;
use super::worker::{Found, REQUEST_MAX, Worker};

/// Between two looks.
const EVERY: Duration = Duration::from_secs(5);
/// Members that a line names at the most.
const NAMED_MAX: usize = 10;
/// Characters of each name in it.
const NAME_MAX: usize = 100;

/// What was seen so far.
struct Watch {
    worker: Worker,
    group: String,
    /// Members of the group that call themselves so are kin.
    client_ids: BTreeSet<String>,
    /// The ids of the schedules topics.
    topics: BTreeMap<String, (i64, i64)>,
    /// Those that have been told of.
    strangers: BTreeSet<String>,
    /// The rebalance after which the members were looked at.
    looked_after: Option<u64>,
}

/// Looks until the engine ends.
pub fn watch(worker: &Worker) {
    worker.spawn("watch", |worker| {
        let mut client = None;
        let config = worker.settings.consumer();
        let configured = |name: &str| config.get(name).unwrap_or_default().to_owned();
        let (group, client_ids) = (configured("group.id"), BTreeSet::from([configured("client.id"), CLIENT_ID.into()]));
        let (topics, strangers) = (BTreeMap::new(), BTreeSet::new());
        let mut watch = Watch { worker, group, client_ids, topics, strangers, looked_after: None };
        while !watch.worker.is_closing() {
            if client.is_none() {
                client = watch.worker.uncommitted().ok();
            }
            if let Some(client) = &client {
                watch.topics(client);
                if let Err(error) = watch.members(client) {
                    watch.worker.settings.voice.failing("the group's members cannot be listed", &error);
                }
            }
            std::thread::sleep(EVERY);
        }
    });
}

impl Watch {
    /// The consumer goes on at its offset in a topic that was made anew where that is long enough, and passes over what
    /// lies before it.
    fn topics(&mut self, client: &BaseConsumer<Asking>) {
        let names: Vec<&str> = self.worker.topics.iter().map(String::as_str).collect();
        for topic in native::describe(client.client(), &names, REQUEST_MAX).unwrap_or_default() {
            let Some(id) = topic.id else { continue };
            if self.topics.insert(topic.name.clone(), id).is_some_and(|before| before != id) {
                self.worker.tell(Found::Anew { topic: topic.name });
            }
        }
    }

    /// A program that divides partitions in the same way joins the group without a word, and nothing fences what it fires.
    /// It takes part in a rebalance then. To look more often would cost: every broker is asked for all of its groups.
    fn members(&mut self, client: &BaseConsumer<Asking>) -> KafkaResult<()> {
        let rebalances = Some(self.worker.rebalances.load(Ordering::Acquire));
        if self.looked_after == rebalances {
            return Ok(());
        }
        let group = self.group.as_str();
        let list = client.fetch_group_list(Some(group), REQUEST_MAX)?;
        let members = list.groups().iter().filter(|found| found.name() == group).flat_map(|found| found.members());
        let strangers: BTreeSet<String> = members
            .filter(|member| !self.client_ids.contains(member.client_id()))
            .map(|member| {
                let name = format!("{}{}", member.client_id(), member.client_host());
                name.chars().take(NAME_MAX).collect()
            })
            .collect();
        if !strangers.is_subset(&self.strangers) {
            let members: Vec<&String> = strangers.iter().take(NAMED_MAX).collect();
            tracing::warn!(
                group,
                ?members,
                "the group has members that do not call themselves kafka-scheduler: if they are another program, stop \
                 them or set another GROUP_ID, since what they fire may fire twice"
            );
        }
        (self.strangers, self.looked_after) = (strangers, rebalances);
        Ok(())
    }
}
