//! `import`

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;

use super::args::{self, Partitioner};
use super::export_line::ExportLine;
use super::failure::Failure;
use super::progress::Progress;
use super::topic_of;
use crate::config::Config;
use crate::core::origin::RESERVED_PREFIX;
use crate::kafka::broker_client::BrokerClient;
use crate::kafka::fold::{KeyHasher, fold};
use crate::kafka::publish::{NewRecord, Publisher};
use crate::logging;

/// The longest line: a record of 100 MB in base64, more than any broker accepts.
const LINE_BYTES_MAX: u64 = 200 << 20;

const AFTER: &str = "\
Records get the time of the import as their timestamp, because compaction goes by timestamps; scheduler-timestamp of the
triggered records is that time too. Overdue schedules fire at once. If a key is pending in the topic, the record goes to the
partition of the pending one and replaces it. --partitioner chooses the partition of a new key; --same-partitions keeps the
one that it came from: use it if the producers of these keys do not hash as Java's do, and both topics have the same number
of partitions.

Examples:
  kafka-scheduler import schedules.jsonl
  zcat schedules.jsonl.gz | kafka-scheduler import - --topic other-schedules";

#[derive(Debug, clap::Args)]
#[command(after_help = AFTER)]
pub(super) struct Args {
    /// A file that `export` has written; - for standard input
    #[arg(value_name = "PATH")]
    from: PathBuf,
    /// The schedules topic to import to; required if SCHEDULES_TOPICS has several
    #[arg(long, value_parser = args::topic)]
    topic: Option<String>,
    /// The partitioner for new keys
    #[arg(long, value_enum, conflicts_with = "same_partitions")]
    partitioner: Option<Partitioner>,
    /// Produce new keys to the partitions that they came from
    #[arg(long)]
    same_partitions: bool,
}

pub(super) fn run(config: Config, args: &Args) -> Result<(), Failure> {
    let topic = topic_of(&config, args.topic.as_ref())?;
    let mut lines: BufReader<Box<dyn Read>> = BufReader::with_capacity(
        1 << 16,
        if args.from.as_os_str() == "-" {
            Box::new(std::io::stdin())
        } else {
            let opened = File::open(&args.from);
            Box::new(opened.map_err(|e| Failure::usage(format!("PATH {}: {e}", args.from.display())))?)
        },
    );
    let broker = BrokerClient::connect(&config)?;
    let mut import = Import::new(&broker, topic, args)?;
    let mut progress = Progress::new("schedules imported", None);
    let mut text = Vec::new();
    let sent = each_line(&mut lines, &mut text, |number, text| {
        import.line(text).map_err(|why| Failure::new(format!("line {number}: {why}")))?;
        progress.step();
        Ok(())
    });
    progress.end();
    // The lines before a bad one have been produced, and count.
    let deliveries = import.publisher.flush();
    logging::note(&format!("{} schedules imported to {}", deliveries.delivered, import.topic));
    sent?;
    deliveries.confirmed()?;
    Ok(())
}

struct Import {
    publisher: Publisher,
    topic: String,
    partitions: Vec<i32>,
    same_partitions: bool,
    hasher: KeyHasher,
    /// The partitions of the keys that are pending in the topic.
    pending: BTreeMap<u128, i32>,
}

impl Import {
    fn new(broker: &BrokerClient, topic: String, args: &Args) -> Result<Self, Failure> {
        broker.fix_ends([&topic])?;
        let partitions = broker.partitions(&topic)?;
        let hasher = KeyHasher::default();
        let mut pending = BTreeMap::new();
        for partition in &partitions {
            let fold = fold::<Failure>(broker, &hasher, &topic, *partition, false, None, |_| true)?;
            pending.extend(fold.pending_keys().map(|key_hash| (key_hash, *partition)));
        }
        let publisher = Publisher::new(broker.clients(), args.partitioner.map(Partitioner::name))?;
        Ok(Self { publisher, topic, partitions, same_partitions: args.same_partitions, hasher, pending })
    }

    /// Queues the record of a line.
    fn line(&mut self, text: &[u8]) -> Result<(), Failure> {
        let line: ExportLine = serde_json::from_slice(text).map_err(|e| Failure::new(e.to_string()))?;
        let key = line.key.as_ref().ok_or_else(|| Failure::new("there is no key"))?;
        let value =
            line.value.as_ref().ok_or_else(|| Failure::new("there is no value, and null would cancel the key"))?;
        if key.0.starts_with(RESERVED_PREFIX) {
            return Err(Failure::new("the key begins with \"__scheduler.\", which is reserved for the engine"));
        }
        let partition = match self.pending.get(&self.hasher.hash(&key.0)) {
            Some(partition) => Some(*partition),
            None if self.same_partitions => Some(self.same_partition(line.partition)?),
            None => None,
        };
        let record = NewRecord { key: &key.0, value: Some(&value.0), headers: &line.headers() };
        Ok(self.publisher.send(&self.topic, partition, record)?)
    }

    fn same_partition(&self, partition: Option<i32>) -> Result<i32, Failure> {
        let known = partition.filter(|partition| self.partitions.contains(partition));
        known.ok_or_else(|| {
            let topic = &self.topic;
            let partition = partition.map_or_else(|| "null".to_owned(), |partition| partition.to_string());
            Failure::new(format!("{topic:?} has no partition {partition}: import without --same-partitions"))
        })
    }
}

/// Passes each line that is not blank to `visit`, with its number from 1.
fn each_line(
    lines: &mut BufReader<Box<dyn Read>>,
    text: &mut Vec<u8>,
    mut visit: impl FnMut(u64, &[u8]) -> Result<(), Failure>,
) -> Result<(), Failure> {
    for number in 1.. {
        text.clear();
        let read = lines.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', text);
        let read = read.map_err(|e| Failure::new(format!("line {number}: {e}")))?;
        if read == 0 {
            break;
        }
        if read as u64 == LINE_BYTES_MAX {
            return Err(Failure::new(format!("line {number}: longer than {LINE_BYTES_MAX} bytes")));
        }
        if !text.trim_ascii().is_empty() {
            visit(number, text)?;
        }
    }
    Ok(())
}
