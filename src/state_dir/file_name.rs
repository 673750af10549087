//! The names of snapshot files.

const SUFFIX: &str = ".snapshot";
/// Of a file that is being written. It follows the suffix and a number.
const TEMPORARY_SUFFIX: &str = ".tmp";
/// The longest name that file systems allow.
const NAME_BYTES_MAX: usize = 255;
/// The longest part of a name that follows the topic.
const ENDING_BYTES_MAX: usize = "--2147483648.snapshot.4294967295.tmp".len();
/// The part of a name that replaces the end of a long topic.
const CUT_BYTES: usize = "~00000000".len();

/// Returns the name of a partition's snapshot: as Kafka names the partition's own directory. It is percent-encoded, and
/// the end of a topic that is too long becomes a checksum.
pub(super) fn file_name(topic: &str, partition: i32) -> String {
    const TOPIC_BYTES_MAX: usize = NAME_BYTES_MAX - ENDING_BYTES_MAX;
    let mut name = String::new();
    for byte in topic.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'_' | b'-' => name.push(char::from(byte)),
            _ => name.push_str(&format!("%{byte:02X}")),
        }
    }
    if name.len() > TOPIC_BYTES_MAX {
        name.truncate(TOPIC_BYTES_MAX - CUT_BYTES);
        name.push_str(&format!("~{:08x}", crc32c::crc32c(topic.as_bytes())));
    }
    format!("{name}-{partition}{SUFFIX}")
}

/// Returns the partition of a topic's snapshot with this name; `None` if it is another file.
pub(super) fn partition(topic: &str, name: &str) -> Option<i32> {
    let stem = name.strip_suffix(SUFFIX)?;
    // The number may be negative, and the topic may end with a hyphen.
    let digits = stem.bytes().rev().take_while(u8::is_ascii_digit).count();
    let number = stem.get(stem.len() - digits..)?.parse().ok()?;
    (file_name(topic, number) == name).then_some(number)
}

/// Returns the name of a snapshot that is being written.
pub(super) fn temporary_name(name: &str, number: u32) -> String {
    format!("{name}.{number}{TEMPORARY_SUFFIX}")
}

/// Returns whether a file of this name was being written.
pub(super) fn is_temporary(name: &str) -> bool {
    let number = name.strip_suffix(TEMPORARY_SUFFIX).and_then(|name| name.rsplit_once('.'));
    number.is_some_and(|(name, number)| name.ends_with(SUFFIX) && number.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_names_are_legal_and_at_most_255_bytes() {
        assert_eq!(file_name("schedules", 12), "schedules-12.snapshot");
        assert_eq!(file_name("../a/ü%", 0), "..%2Fa%2F%C3%BC%25-0.snapshot");
        for topic in ["x".repeat(249), "/".repeat(249), "x".repeat(218), "x".repeat(219), "x".repeat(220)] {
            let name = temporary_name(&file_name(&topic, i32::MIN), u32::MAX);
            assert!(name.len() <= NAME_BYTES_MAX, "{name}");
        }
        let (one, other) = ("x".repeat(249), format!("{}y", "x".repeat(248)));
        assert_ne!(file_name(&one, 0), file_name(&other, 0));
    }

    #[test]
    fn a_name_says_its_partition() {
        for topic in ["schedules", "a-1", "a-", "../a", &"x".repeat(249)] {
            for number in [0, 7, 12, i32::MAX] {
                assert_eq!(partition(topic, &file_name(topic, number)), Some(number), "{topic}");
            }
            for name in [file_name("other", 1), "lock".into(), "schedules-01.snapshot".into(), "-.snapshot".into()] {
                assert_eq!(partition(topic, &name), None, "{topic} {name}");
            }
        }
    }

    #[test]
    fn files_of_others_are_not_taken_for_temporary_ones() {
        assert!(is_temporary(&temporary_name(&file_name("a", 0), 17)));
        for name in ["a-0.snapshot", "a.tmp", "lock", "a-0.snapshot.tmp", "a-0.snapshot.x.tmp", "a-0.7.tmp", ".tmp"] {
            assert!(!is_temporary(name), "{name}");
        }
    }
}
