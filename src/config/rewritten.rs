//! Detects that files which settings come from were rewritten after the start.

use std::collections::BTreeMap;

use super::Config;
use super::file::{File, digest};

/// Settings of librdkafka that name a file. It is read when a client is made.
const NAMING: &[&str] =
    &["ssl.ca.location", "ssl.certificate.location", "ssl.key.location", "ssl.keystore.location", "ssl.crl.location"];

/// What each of these files held when the engine started.
#[derive(Debug, Default)]
pub(crate) struct Files {
    configuration: Option<String>,
    known: BTreeMap<String, u64>,
    /// Their digests at the last check.
    seen: BTreeMap<String, u64>,
}

impl Files {
    /// Reads the files that the configuration file names now; that file itself was read before.
    #[must_use]
    pub(crate) fn of(config: &Config) -> Self {
        let settings = config.kafka_common.iter().chain(&config.kafka_producer).chain(&config.kafka_consumer);
        let named = settings.filter(|(name, _)| NAMING.contains(&name.as_str())).map(|(_, path)| path);
        let mut known: BTreeMap<String, u64> = named.filter_map(|path| Some((path.clone(), read(path)?))).collect();
        let file = config.configuration_file.as_ref();
        known.extend(file.map(|file| (file.path.clone(), file.digest)));
        Self { configuration: file.map(|file| file.path.clone()), known, seen: BTreeMap::new() }
    }

    /// Returns a file whose content changed, once two checks in a row found the same: it is incomplete while it is
    /// being written. A file that cannot be read, or a wrong configuration file, does not count.
    pub(crate) fn rewritten(&mut self) -> Option<String> {
        let now: BTreeMap<String, u64> =
            self.known.keys().filter_map(|path| Some((path.clone(), read(path)?))).collect();
        let is_at_rest = self.seen == now;
        self.seen = now;
        let rewritten = self.seen.iter().find(|(path, digest)| self.known.get(*path) != Some(*digest));
        let is_right = |path: &String| File::read(path, &|path| std::fs::read_to_string(path)).is_ok();
        let found = rewritten.map(|(path, _)| path.clone()).filter(|_| is_at_rest);
        found.filter(|_| self.configuration.as_ref().is_none_or(is_right))
    }
}

fn read(path: &str) -> Option<u64> {
    std::fs::read(path).ok().map(|bytes| digest(&bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_rewritten_once_it_rests_and_is_right() {
        let directory = std::env::temp_dir().join(format!("kafka-scheduler-files-{}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("a directory");
        let (file, ca) = (directory.join("kafka.yaml"), directory.join("ca.pem"));
        let text = format!("kafka.common.configuration:\n  ssl.ca.location: {}\n", ca.display());
        std::fs::write(&file, &text).expect("written");
        std::fs::write(&ca, "one").expect("written");
        let path = file.to_str().expect("UTF-8").to_owned();
        let env = |name: &str| (name == "CONFIGURATION_FILE").then(|| path.clone());
        let mut files = Files::of(&Config::load(&env).expect("it is right"));
        assert_eq!((files.rewritten(), files.rewritten()), (None, None));

        std::fs::write(&ca, "two").expect("written");
        assert_eq!(files.rewritten(), None, "it may be only a part");
        assert_eq!(files.rewritten().as_deref(), ca.to_str());
        std::fs::write(&ca, "one").expect("written");
        assert_eq!((files.rewritten(), files.rewritten()), (None, None), "it is as it was");

        std::fs::write(&file, "nonsense: [").expect("written");
        assert_eq!((files.rewritten(), files.rewritten()), (None, None), "an engine could not start with it");
        std::fs::write(&file, format!("{text}  client.id: me\n")).expect("written");
        assert_eq!((files.rewritten(), files.rewritten().as_ref()), (None, Some(&path)));
        std::fs::remove_dir_all(directory).expect("removed");
    }
}
