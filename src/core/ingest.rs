//! Receives records from the consumer: sorts out barriers and start markers, and folds all others into the key table.

use std::collections::BTreeSet;

use super::bugs::{self, Bug};
use super::due::Due;
use super::fold::Writer;
use super::key_table::{NewEntry, UserRequest};
use super::origin::{BARRIER_KEY, Origin, PROGRESS_PREFIX, RESERVED_PREFIX, START_MARKER_KEY};
use super::partition::Stage;
use super::payload::{Parts, Payload};
use super::progress::{KnownProgress, Progress};
use super::reason::Reason;
use super::recurrence::{self, JitterSeed};
use super::report::Report;
use super::start_marker::StartMarker;
use super::takeover::LOADED_REPORTED_MAX;
use super::types::{Record, TopicPartition};
use super::warm::canary_label;
use super::when::{Form, When};
use super::{Millis, Scheduler, headers, schedule};

impl<P: Payload> Scheduler<P> {
    pub(super) fn on_record(&mut self, record: &Record<'_>) {
        let Some(owned) = self.partitions.get_mut(&record.partition) else { return };
        if record.offset < owned.position {
            return self.reread(record.partition, "an offset was delivered twice: the log was truncated or recreated");
        }
        owned.position = record.offset + 1;
        match record.key {
            None => self.invalid(record, Reason::NoKey),
            Some(key) if key.starts_with(RESERVED_PREFIX) => self.reserved(record, key),
            Some(key) => self.keyed(record, key),
        }
        if let Some(owned) = self.partitions.get_mut(&record.partition) {
            owned.clear_read();
            if owned.stage == Stage::Loading && owned.is_loaded() {
                self.loaded(record.partition);
            }
        }
    }

    /// Handles barriers, start markers and progress records. Any other record under a reserved key is a user's and
    /// invalid, or a later version's: it is left alone.
    fn reserved(&mut self, record: &Record<'_>, key: &[u8]) {
        if let Some(key) = key.strip_prefix(PROGRESS_PREFIX) {
            return self.progress(record, key);
        }
        if let Some(label) = canary_label(key) {
            return self.canary(record, label);
        }
        let Some(owned) = self.partitions.get_mut(&record.partition) else { return };
        if key == START_MARKER_KEY
            && let Some(start_marker) = record.value.and_then(|value| StartMarker::decode(value, owned.partition_hash))
        {
            if !bugs::on(Bug::StartMarkerForgotten) {
                owned.start_marker = Some(start_marker);
            }
            return;
        }
        let group = record.headers.iter().find(|h| h.name == headers::GROUP).and_then(|h| h.value);
        match group {
            Some(group) if key == BARRIER_KEY && record.value.is_none() => {
                let after_our_own = owned.barrier.is_some_and(|barrier| record.offset > barrier);
                if group == self.names.group.as_bytes() {
                    if owned.is_live() && after_our_own {
                        // Another owner decides by now, and knows cancels that a live table has dropped.
                        owned.freshness.kill();
                    }
                    owned.keys.passed_barrier(record.offset);
                } else if after_our_own {
                    self.foreign(record, group);
                }
            }
            _ => self.invalid(record, Reason::ReservedKey),
        }
    }

    /// Folds a record under the progress key of `key`.
    fn progress(&mut self, record: &Record<'_>, key: &[u8]) {
        let Some(owned) = self.partitions.get_mut(&record.partition) else { return };
        let Writer::Engine(origin) = Writer::of(record, owned.partition_hash) else {
            owned.keys.foreign_progress(key);
            return self.invalid(record, Reason::ReservedKey);
        };
        let Some(value) = record.value else { return owned.keys.progress_tombstone(key, origin.offset) };
        let Some(progress) = Progress::decode(value) else {
            // A later version's, for which an operator goes back by the steps in docs/operations.md.
            return self.invalid(record, Reason::ReservedKey);
        };
        let known = KnownProgress::new(key, origin.offset, origin.timestamp, progress);
        // A restored fold may know more than the records before its position.
        if record.offset < owned.known_to && owned.keys.knows_progress(&known) {
            return owned.keys.known_progress_record(key, origin.offset);
        }
        if owned.keys.progress_record(known) {
            self.counters.progress_replayed += 1;
        }
    }

    fn foreign(&mut self, record: &Record<'_>, group: &[u8]) {
        const NAMED_MAX: usize = 64;
        // Longest name that a client can use.
        let group = String::from_utf8_lossy(&group[..group.len().min(255)]).into_owned();
        if self.foreign_groups.len() < NAMED_MAX && self.foreign_groups.insert(group.clone()) {
            self.report(Report::ForeignGroup { partition: record.partition, group });
        }
    }

    /// Counts and reports an invalid record.
    fn invalid(&mut self, record: &Record<'_>, reason: Reason) {
        self.counters.invalid += 1;
        self.counters.by_reason[reason] += 1;
        self.report(Report::Invalid { partition: record.partition, offset: record.offset, reason });
    }

    fn keyed(&mut self, record: &Record<'_>, key: &[u8]) {
        let Some(owned) = self.partitions.get(&record.partition) else { return };
        match Writer::of(record, owned.partition_hash) {
            Writer::User => self.user_record(record, key),
            Writer::Engine(origin) => self.engine_record(record, key, &origin),
        }
    }

    fn engine_record(&mut self, record: &Record<'_>, key: &[u8], origin: &Origin) {
        let timestamp = if bugs::on(Bug::CopyTakesNewTimestamp) { record.timestamp } else { origin.timestamp };
        let takes_new = bugs::on(Bug::CopyTakesNewOriginOffset) && record.value.is_some();
        let offset = if takes_new { record.offset } else { origin.offset };
        let read = record.value.map(|value| self.read(record, value, offset, timestamp, true));
        let Some(owned) = self.partitions.get_mut(&record.partition) else { return };
        owned.keys.engine_record(key, &Writer::Engine(Origin { offset, ..*origin }), read);
    }

    fn user_record(&mut self, record: &Record<'_>, key: &[u8]) {
        let new = match record.value {
            None => NewEntry {
                origin_offset: record.offset,
                timestamp: record.timestamp,
                request: UserRequest::Cancel,
                payload: P::pack(&Parts { key, ..Parts::default() }, &mut self.store),
                spec: None,
            },
            Some(value) => {
                let owned = self.partitions.get(&record.partition);
                // An engine has read it before, and did not find it invalid for its syntax if it is still there.
                let was_accepted = owned.is_some_and(|owned| record.offset < owned.accepted_before);
                self.read(record, value, record.offset, record.timestamp, was_accepted)
            }
        };
        let request = new.request;
        if bugs::on(Bug::InvalidLeftOut) && matches!(request, UserRequest::Invalid(_)) {
            return;
        }
        let Some(owned) = self.partitions.get_mut(&record.partition) else { return };
        // A partition that is being released was mostly live before, so the records that it still reads are new.
        let counts_events = owned.is_live() || matches!(owned.stage, Stage::Releasing { .. });
        let ended_pending = owned.keys.user_record(key, new);
        if !counts_events {
            // Loading counts what is left at its end: a schedule that is replaced meanwhile is no event.
            return;
        }
        let (partition, offset) = (record.partition, record.offset);
        match request {
            // It is counted once its first occurrence is known: it may have none.
            UserRequest::Schedule { form: Form::Recurring, .. } => {}
            UserRequest::Schedule { due, target, .. } => {
                self.counters.planned += 1;
                self.report(Report::Accepted { partition, offset, due, target: self.targets.name(target) });
                self.check_far_ahead(partition, offset, due, record.timestamp);
            }
            UserRequest::Unknown(reason) => {
                self.counters.by_reason[reason] += 1;
                self.report(Report::UnknownSyntax { partition, offset, reason });
            }
            UserRequest::Cancel if ended_pending => {
                self.counters.deleted += 1;
                self.report(Report::Cancelled { partition, offset });
            }
            UserRequest::Cancel => self.counters.other += 1,
            UserRequest::Invalid(reason) => self.invalid(record, reason),
        }
    }

    /// Counts and reports a schedule that is due so far ahead that its unit is probably wrong.
    fn check_far_ahead(&mut self, partition: TopicPartition, offset: i64, due: Due, timestamp: Millis) {
        if let Some(why) = schedule::far_ahead(due.epoch_s(), timestamp) {
            self.counters.far_ahead += 1;
            self.report(Report::FarAhead { partition, offset, why });
        }
    }

    /// Does the same for all schedules of a partition that was just loaded.
    pub(super) fn check_far_ahead_of_loaded(&mut self, id: TopicPartition) {
        let Some(owned) = self.partitions.get(&id) else { return };
        // `far_ahead` takes a negative timestamp as 0, so a schedule that is due earlier cannot be far ahead.
        let far = owned.keys.due_from(schedule::FAR_S);
        let far: Vec<_> = far.filter_map(|entry| Some((entry.origin_offset, entry.due()?, entry.timestamp))).collect();
        far.into_iter().for_each(|(offset, due, timestamp)| self.check_far_ahead(id, offset, due, timestamp));
    }

    /// Reports the schedules of a partition that was just loaded whose zone or syntax this version does not know.
    pub(super) fn report_unknown_of_loaded(&mut self, id: TopicPartition) {
        let Some(owned) = self.partitions.get(&id) else { return };
        for (number, (offset, reason)) in owned.keys.unknown().into_iter().enumerate() {
            self.counters.by_reason[reason] += 1;
            if number < LOADED_REPORTED_MAX {
                self.report(Report::UnknownSyntax { partition: id, offset, reason });
            }
        }
    }

    /// Parses a record with a value. If it was accepted by an engine before, an unknown zone or syntax is a later
    /// version's.
    fn read(
        &mut self,
        record: &Record<'_>,
        value: &[u8],
        origin_offset: i64,
        timestamp: Millis,
        was_accepted: bool,
    ) -> NewEntry<P> {
        let parsed = schedule::parse(record, value, timestamp, &self.names.topics, &self.rules, self.calendar.as_ref());
        match parsed {
            Ok(parsed) => {
                let (target, new) = self.targets.intern(parsed.target);
                if new {
                    self.check_target(target);
                    self.sweep_targets(target);
                }
                let (form, jitter_seed) = (parsed.form(), self.jitter_seed(record.partition, origin_offset));
                let (due, spec) = match parsed.when {
                    When::Once { due, options, .. } => {
                        let jitter_ms = options.as_ref().map_or(0, |spec| spec.jitter_ms);
                        (recurrence::jittered(due, jitter_ms, jitter_seed), options)
                    }
                    // The calendar computes it once the partition is live.
                    When::Recurring(spec) => (Due::LAST, Some(spec)),
                };
                let request = UserRequest::Schedule { due, target, form };
                NewEntry { origin_offset, timestamp, request, payload: P::pack(&parsed.parts, &mut self.store), spec }
            }
            Err(reason) => NewEntry {
                origin_offset,
                timestamp,
                request: match reason {
                    _ if was_accepted && reason.may_be_of_later_version() => UserRequest::Unknown(reason),
                    _ => UserRequest::Invalid(reason),
                },
                payload: P::pack(&schedule::verbatim(record, value), &mut self.store),
                spec: None,
            },
        }
    }

    pub(super) fn jitter_seed(&self, partition: TopicPartition, offset: i64) -> JitterSeed {
        let partition_hash = self.partitions.get(&partition).map_or(0, |owned| owned.partition_hash);
        JitterSeed { partition_hash, offset }
    }

    /// Forgets the target names that no entry uses any more, once there are many.
    fn sweep_targets(&mut self, new: u32) {
        if !self.targets.is_full() {
            return;
        }
        let all = self.partitions.values().chain(self.retired.values());
        let mut used: BTreeSet<u32> = all.flat_map(|owned| owned.keys.targets()).collect();
        used.insert(new);
        used.extend(self.dead_letter_target);
        self.targets.sweep(&used);
    }
}
