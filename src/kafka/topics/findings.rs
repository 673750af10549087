//! Finds settings and layouts of topics that can lose or delay schedules.

use std::fmt;

use super::{Entries, Layout, REPLICAS_SAFE, Role, Source};

const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 86_400_000;

/// Below this, an outage over lunch is enough to lose a user's record.
const LAG_MS_MIN: i64 = HOUR_MS;
/// Beyond this, each takeover reads many schedules that have fired long ago.
const SEGMENT_MS_MAX: i64 = 2 * DAY_MS;
/// Kafka's default. A log grows to `1 / (1 - ratio)` times its compacted size.
const DIRTY_RATIO_MAX: f64 = 0.5;

/// Settings of a schedules topic that the engine relies on.
const RELIED_ON: [&str; 3] = ["cleanup.policy", "min.compaction.lag.ms", "delete.retention.ms"];
/// The same, if a partition can change its leader.
const UNCLEAN: &str = "unclean.leader.election.enable";

/// The severity of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Weight {
    /// Schedules can be lost, or all of them wait for one broker. The engine logs it when it starts.
    Warning,
    /// An improvement. Only `topics check` prints it.
    Advice,
}

/// A setting that should be changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    /// The name of the setting.
    pub setting: &'static str,
    /// Its value; `None` if the broker does not know it.
    pub value: Option<String>,
    /// The possible damage, and the remedy.
    pub text: &'static str,
    /// The severity.
    pub weight: Weight,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Some(value) => write!(f, "{}={value}: {}", self.setting, self.text),
            None => write!(f, "{} is unknown to the broker: {}", self.setting, self.text),
        }
    }
}

/// Returns the findings for a topic. A setting that is not among `entries` is not judged, unless the engine relies on
/// it. If there are no entries, reading the settings is not permitted.
#[must_use]
pub(crate) fn findings(role: Role, entries: &Entries, layout: Layout) -> Vec<Finding> {
    let mut judge = Judge { entries, found: Vec::new() };
    match role {
        Role::Schedules => {
            judge.check_policy();
            judge.check_retention();
            judge.check_compaction();
        }
        Role::History | Role::DeadLetter => {
            let compacts = |value: &str| policies(value).contains(&"compact");
            judge.that(
                "cleanup.policy",
                Weight::Warning,
                compacts,
                "only the last record of each key is kept: set delete",
            );
        }
    }
    if role == Role::DeadLetter && !policies(entries.get("cleanup.policy").unwrap_or_default()).contains(&"compact") {
        let short = |value: &str| finite(value) && below(DAY_MS)(value);
        judge.that("retention.ms", Weight::Warning, short, "dead letters are deleted within a day");
    }
    judge.check_replication(role, layout);
    if role == Role::Schedules {
        judge.check_inherited(layout);
    }
    judge.found
}

struct Judge<'a> {
    entries: &'a Entries,
    found: Vec<Finding>,
}

impl Judge<'_> {
    fn that(&mut self, setting: &'static str, weight: Weight, is_wrong: impl Fn(&str) -> bool, text: &'static str) {
        if let Some(value) = self.entries.get(setting).filter(|value| is_wrong(value)) {
            self.found.push(Finding { setting, value: Some(value.to_owned()), text, weight });
        }
    }

    /// Pending schedules must not be deleted.
    fn check_policy(&mut self) {
        self.that(
            "cleanup.policy",
            Weight::Warning,
            |value| !policies(value).contains(&"compact"),
            "schedules that have fired are never removed, and old pending ones are: set compact",
        );
        if policies(self.entries.get("cleanup.policy").unwrap_or_default()).contains(&"delete") {
            let text = "the broker deletes schedules that are still pending: set cleanup.policy=compact alone, or -1";
            self.that("retention.ms", Weight::Warning, finite, text);
            self.that("retention.bytes", Weight::Warning, finite, text);
        }
    }

    /// User records and tombstones must last as long as an outage may.
    fn check_retention(&mut self) {
        for (setting, lost, text) in [
            (
                "min.compaction.lag.ms",
                "an update at the moment of firing can be compacted away while no instance runs: set a day or more",
                "an outage that lasts longer can lose an update at the moment of firing: set a day or more",
            ),
            (
                "delete.retention.ms",
                "a tombstone can be removed before an instance that was down has read it: set a day or more",
                "an outage that lasts longer can lose a tombstone: set a day or more",
            ),
        ] {
            self.that(setting, Weight::Warning, below(LAG_MS_MIN), lost);
            self.that(setting, Weight::Advice, |value| below(DAY_MS)(value) && !below(LAG_MS_MIN)(value), text);
        }
        let is_readable = !self.entries.is_empty();
        for setting in RELIED_ON.into_iter().filter(|setting| is_readable && self.entries.get(setting).is_none()) {
            let text =
                "the broker may compact records and remove tombstones that an instance still needs after an outage";
            self.found.push(Finding { setting, value: None, text, weight: Weight::Warning });
        }
    }

    /// Compaction must run within days. Until then each takeover reads schedules that have fired long ago.
    fn check_compaction(&mut self) {
        // Kafka rolls a compacted topic's segment by the smaller of the two.
        let lag_ms_max = self.entries.number("max.compaction.lag.ms").unwrap_or(i64::MAX);
        if lag_ms_max > SEGMENT_MS_MAX {
            self.that(
                "segment.ms",
                Weight::Advice,
                |value| value.parse::<i64>().is_ok_and(|ms| ms > SEGMENT_MS_MAX),
                "compaction skips the active segment, which stays active for this long unless it reaches \
                 segment.bytes; each takeover reads all of it: set a day",
            );
        }
        if lag_ms_max == i64::MAX {
            self.that(
                "min.cleanable.dirty.ratio",
                Weight::Advice,
                |value| value.parse::<f64>().is_ok_and(|ratio| ratio > DIRTY_RATIO_MAX),
                "compaction waits until this share of the log is new; each takeover reads all of it: set 0.5 or less, \
                 or max.compaction.lag.ms",
            );
        }
        let is_create_time = self.entries.get("message.timestamp.type") == Some("CreateTime");
        // Before Kafka 3.6 there is only the older setting, from 4.0 on only the newer one; between, the smaller one
        // counts.
        let limits = ["message.timestamp.after.max.ms", "message.timestamp.difference.max.ms"];
        let known = limits.into_iter().filter_map(|name| Some((name, self.entries.number(name)?)));
        if let Some((setting, ms)) = known.min_by_key(|(_, ms)| *ms).filter(|(_, ms)| is_create_time && *ms > HOUR_MS) {
            let text = "one record with a timestamp far ahead stops compaction until then: a segment is compacted \
                        after its latest timestamp; set an hour";
            self.found.push(Finding { setting, value: Some(ms.to_string()), text, weight: Weight::Advice });
        }
    }

    /// The topic must survive the loss of a broker.
    fn check_replication(&mut self, role: Role, Layout { replicas, brokers, .. }: Layout) {
        let in_sync = "min.insync.replicas";
        if replicas == 1 && brokers > 1 {
            let text = match role {
                Role::Schedules => {
                    "nothing fires while its broker is down, and schedules are lost with its disk: give the topic \
                     three replicas"
                }
                Role::History => "nothing fires while its broker is down: give the topic three replicas",
                Role::DeadLetter => "dead letters are lost with their broker's disk: give the topic three replicas",
            };
            let value = Some(replicas.to_string());
            self.found.push(Finding { setting: "replication.factor", value, text, weight: Weight::Warning });
        }
        if replicas >= REPLICAS_SAFE {
            let weight = if role == Role::Schedules { Weight::Warning } else { Weight::Advice };
            let text = "a record counts as written when one broker has it, and is lost with that broker: set 2";
            self.that(in_sync, weight, |value| value == "1", text);
        }
        if replicas > 1 {
            let all = |value: &str| value.parse::<usize>().is_ok_and(|least| least >= replicas);
            let text = "the topic accepts no record while one of its brokers is down, and nothing fires: set less than \
                        there are replicas";
            self.that(in_sync, Weight::Advice, all, text);
        }
        if role == Role::Schedules {
            let text = "the loss of a broker can lose acknowledged schedules: set false";
            self.that(UNCLEAN, Weight::Warning, |value| value == "true", text);
        }
    }

    /// The topic itself should set what the engine relies on: brokers may have different defaults, and only one
    /// broker's are known.
    fn check_inherited(&mut self, layout: Layout) {
        let replicated = (layout.replicas > 1).then_some(UNCLEAN);
        for setting in RELIED_ON.into_iter().chain(replicated) {
            let is_judged = self.found.iter().any(|finding| finding.setting == setting);
            if !is_judged && self.entries.source(setting) == Some(Source::Inherited) {
                let text = "this is one broker's default; other brokers may have another: set it on the topic";
                self.that(setting, Weight::Advice, |_| true, text);
            }
        }
    }
}

fn below(least: i64) -> impl Fn(&str) -> bool {
    move |value| value.parse::<i64>().is_ok_and(|value| value < least)
}

fn finite(value: &str) -> bool {
    value.parse::<i64>().is_ok_and(|value| value >= 0)
}

fn policies(value: &str) -> Vec<&str> {
    value.split(',').map(str::trim).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Layout = Layout { partitions: 1, replicas: 1, brokers: 1 };
    const THREE: Layout = Layout { partitions: 1, replicas: 3, brokers: 3 };

    fn entries(changed: &[(&str, &str)]) -> Entries {
        let good = [
            ("cleanup.policy", "compact"),
            ("retention.ms", "604800000"),
            ("retention.bytes", "-1"),
            ("min.compaction.lag.ms", "86400000"),
            ("max.compaction.lag.ms", "9223372036854775807"),
            ("delete.retention.ms", "86400000"),
            ("segment.ms", "86400000"),
            ("min.cleanable.dirty.ratio", "0.5"),
            ("min.insync.replicas", "2"),
            ("message.timestamp.type", "CreateTime"),
            ("message.timestamp.after.max.ms", "3600000"),
            ("unclean.leader.election.enable", "false"),
        ];
        let mut all = Entries::default();
        for (name, value) in good.iter().chain(changed) {
            all.insert((*name).into(), (*value).into(), Source::Topic);
        }
        all
    }

    fn without(mut entries: Entries, name: &str) -> Entries {
        entries.values.remove(name);
        entries
    }

    fn found(changed: &[(&str, &str)]) -> Vec<&'static str> {
        findings(Role::Schedules, &entries(changed), ONE).iter().map(|finding| finding.setting).collect()
    }

    fn weights(role: Role, entries: &Entries, layout: Layout) -> Vec<(&'static str, Weight)> {
        findings(role, entries, layout).iter().map(|finding| (finding.setting, finding.weight)).collect()
    }

    #[test]
    fn every_setting_that_can_lose_schedules_is_found() {
        assert_eq!(found(&[]), [""; 0]);
        assert_eq!(found(&[("cleanup.policy", "delete")]), ["cleanup.policy", "retention.ms"]);
        assert_eq!(found(&[("cleanup.policy", "compact, delete")]), ["retention.ms"]);
        assert_eq!(found(&[("cleanup.policy", "compact,delete"), ("retention.ms", "-1")]), [""; 0]);
        let bytes = [("cleanup.policy", "compact,delete"), ("retention.ms", "-1"), ("retention.bytes", "1")];
        assert_eq!(found(&bytes), ["retention.bytes"]);
        assert_eq!(found(&[("min.compaction.lag.ms", "0")]), ["min.compaction.lag.ms"]);
        assert_eq!(found(&[("delete.retention.ms", "1000")]), ["delete.retention.ms"]);
        assert_eq!(found(&[("unclean.leader.election.enable", "true")]), ["unclean.leader.election.enable"]);
    }

    #[test]
    fn what_is_created_has_no_findings() {
        for role in [Role::Schedules, Role::History, Role::DeadLetter] {
            let created = entries(role.settings());
            assert_eq!(findings(role, &created, ONE), [], "{role:?}");
            assert_eq!(findings(role, &created, THREE), [], "{role:?}");
        }
        let set = |name: &str| Role::Schedules.settings().iter().any(|(setting, _)| *setting == name);
        assert!(RELIED_ON.into_iter().chain([UNCLEAN]).all(set), "what is relied on is set on the topic itself");
        assert_eq!((Role::in_sync_min(1), Role::in_sync_min(2), Role::in_sync_min(3)), (None, None, Some("2")));
    }

    #[test]
    fn a_compacted_history_forgets() {
        assert_eq!(findings(Role::History, &entries(&[]), ONE).len(), 1);
        let short = entries(&[("cleanup.policy", "delete"), ("retention.ms", "1")]);
        assert_eq!(findings(Role::DeadLetter, &short, ONE).len(), 1);
    }

    #[test]
    fn a_day_is_advised_and_an_hour_a_must() {
        for setting in ["min.compaction.lag.ms", "delete.retention.ms"] {
            let judged = |value: &str| weights(Role::Schedules, &entries(&[(setting, value)]), ONE);
            assert_eq!(judged("86400000"), []);
            assert_eq!(judged("86399999"), [(setting, Weight::Advice)]);
            assert_eq!(judged("3599999"), [(setting, Weight::Warning)]);
        }
    }

    #[test]
    fn one_replica_where_there_are_more_brokers_is_warned_about() {
        let plain = entries(&[("cleanup.policy", "delete"), ("retention.ms", "-1")]);
        let layout = Layout { partitions: 6, replicas: 1, brokers: 3 };
        for (role, entries) in [(Role::Schedules, &entries(&[])), (Role::History, &plain), (Role::DeadLetter, &plain)] {
            assert_eq!(weights(role, entries, layout), [("replication.factor", Weight::Warning)], "{role:?}");
            assert_eq!(weights(role, entries, ONE), [], "{role:?}: one broker has no other");
        }
    }

    #[test]
    fn too_few_and_too_many_replicas_in_sync_are_found() {
        let in_sync = |role, value, layout| {
            let policy = if role == Role::Schedules { "compact" } else { "delete" };
            weights(role, &entries(&[("cleanup.policy", policy), ("min.insync.replicas", value)]), layout)
        };
        assert_eq!(in_sync(Role::Schedules, "1", THREE), [("min.insync.replicas", Weight::Warning)]);
        assert_eq!(in_sync(Role::History, "1", THREE), [("min.insync.replicas", Weight::Advice)]);
        assert_eq!(in_sync(Role::Schedules, "2", THREE), []);
        assert_eq!(in_sync(Role::Schedules, "3", THREE), [("min.insync.replicas", Weight::Advice)]);
        assert_eq!(in_sync(Role::Schedules, "1", ONE), []);
        assert_eq!(in_sync(Role::Schedules, "1", Layout { replicas: 2, ..THREE }), []);
    }

    #[test]
    fn what_the_topic_does_not_set_itself_is_found() {
        let mut all = entries(&[]);
        for name in ["cleanup.policy", "delete.retention.ms", "unclean.leader.election.enable", "retention.ms"] {
            all.sources.insert(name.into(), Source::Inherited);
        }
        let own = [("cleanup.policy", Weight::Advice), ("delete.retention.ms", Weight::Advice)];
        assert_eq!(weights(Role::Schedules, &all, ONE), own);
        let unclean = ("unclean.leader.election.enable", Weight::Advice);
        assert_eq!(weights(Role::Schedules, &all, THREE), [own[0], own[1], unclean]);
        all.insert("delete.retention.ms".into(), "1".into(), Source::Inherited);
        let said = findings(Role::Schedules, &all, ONE);
        assert_eq!(said.iter().filter(|finding| finding.setting == "delete.retention.ms").count(), 1, "{said:?}");
    }

    #[test]
    fn a_setting_that_the_broker_lacks_is_named() {
        let lacking = without(entries(&[]), "min.compaction.lag.ms");
        let said = findings(Role::Schedules, &lacking, ONE);
        assert_eq!(said.len(), 1);
        assert!(said[0].to_string().starts_with("min.compaction.lag.ms is unknown to the broker: "), "{}", said[0]);
        assert_eq!(said[0].weight, Weight::Warning);
    }

    #[test]
    fn segments_that_delay_compaction_are_found() {
        assert_eq!(found(&[("segment.ms", "604800000")]), ["segment.ms"]);
        assert_eq!(found(&[("segment.ms", "604800000"), ("max.compaction.lag.ms", "172800000")]), [""; 0]);
        assert_eq!(found(&[("min.cleanable.dirty.ratio", "0.9")]), ["min.cleanable.dirty.ratio"]);
        assert_eq!(found(&[("min.cleanable.dirty.ratio", "0.9"), ("max.compaction.lag.ms", "172800000")]), [""; 0]);
        assert!(
            findings(Role::Schedules, &entries(&[("segment.ms", "604800000")]), ONE)
                .iter()
                .all(|finding| finding.weight == Weight::Advice)
        );
    }

    #[test]
    fn a_record_stamped_years_ahead_is_found_to_be_allowed() {
        let (newer, older) = ("message.timestamp.after.max.ms", "message.timestamp.difference.max.ms");
        const ANY: &str = "9223372036854775807";
        assert_eq!(found(&[(newer, ANY)]), [newer]);
        assert_eq!(found(&[(newer, ANY), ("message.timestamp.type", "LogAppendTime")]), [""; 0]);
        assert_eq!(found(&[(newer, ANY), (older, "3600000")]), [""; 0], "from 3.6 to 3.9 the smaller one counts");
        let before_3_6 = without(entries(&[(older, ANY)]), newer);
        assert_eq!(weights(Role::Schedules, &before_3_6, ONE), [(older, Weight::Advice)]);
    }
}
