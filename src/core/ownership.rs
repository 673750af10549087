//! The metadata of a partition's committed offset, which names the partition's owner.
//!
//! It tells a successor which owners' open transactions it has to *fence* (`init_transactions` makes brokers abort them
//! and reject the old producers). Fencing is not needed for safety: an open transaction of a dead owner holds back the
//! last stable offset, and so loading, until `transaction.timeout.ms`; `init_transactions` aborts it at once.
//!
//! The metadata also carries the topic's `since`, in case the start markers are gone.

use std::fmt;

use super::types::Millis;

/// Maximum number of former owners in the metadata. Dropping older ones costs time, not safety.
pub(super) const FENCE_MAX: usize = 16;

/// Well below 4,096 bytes: brokers reject longer metadata, so no transaction of the partition could commit.
const METADATA_BYTES_MAX: usize = 2_048;

/// Longest member name in the metadata, after encoding.
const MEMBER_BYTES_MAX: usize = 255;

/// Longest valid owner; this engine writes none that is longer.
const OWNER_BYTES_MAX: usize = 48;

/// Longest run.
const RUN_BYTES_MAX: usize = 32;

/// Identifies one start of the process, as the first part of an owner's name: 1 to 32 characters of `0-9a-f`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunId(String);

impl RunId {
    /// Returns the run of this name; `None` if the name is not allowed.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        (text.len() <= RUN_BYTES_MAX && is_hexadecimal(text)).then(|| Self(text.to_owned()))
    }

    /// Returns the run of a random number.
    #[must_use]
    pub fn from_random(number: u64) -> Self {
        Self(format!("{number:016x}"))
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The decoded metadata of a committed offset.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ownership {
    /// `{run}.{incarnation}` of the instance that committed it; empty if there was none.
    pub owner: String,
    /// Former owners that this owner still had to fence, newest first.
    pub owners_to_fence: Vec<String>,
    /// The owner has given the partition back with nothing in flight, so it need not be fenced.
    pub clean: bool,
    /// Schedules due at or after this time fire, however late: local midnight of the engine's first start on the topic,
    /// plus `SINCE_DELTA` days.
    pub since: Option<Millis>,
}

impl Ownership {
    /// Returns the metadata string: `v1 owner=… clean=0 since=… fence=…,…`.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut text = format!("v1 owner={} clean={}", self.owner, u8::from(self.clean));
        if let Some(Millis(since)) = self.since {
            text.push_str(&format!(" since={since}"));
        }
        for (i, owner) in self.owners_to_fence.iter().take(FENCE_MAX).enumerate() {
            if text.len() + owner.len() + " fence=".len() > METADATA_BYTES_MAX {
                break;
            }
            text.push_str(if i == 0 { " fence=" } else { "," });
            text.push_str(owner);
        }
        text
    }

    /// Reads metadata of this format; returns `None` for any other, which another program may have committed. Ignores
    /// unknown fields, which a later version may have added.
    #[must_use]
    pub fn decode(metadata: &[u8]) -> Option<Self> {
        let mut fields = std::str::from_utf8(metadata).ok()?.split(' ');
        if fields.next() != Some("v1") {
            return None;
        }
        let mut ownership = Self::default();
        for field in fields {
            match field.split_once('=').unwrap_or((field, "")) {
                ("owner", owner) if is_owner(owner) => ownership.owner = owner.to_owned(),
                ("clean", "0") => ownership.clean = false,
                ("clean", "1") => ownership.clean = true,
                ("since", since) => ownership.since = Some(Millis(since.parse().ok()?)),
                ("fence", owners) if owners.split(',').all(is_owner) => {
                    ownership.owners_to_fence = owners.split(',').take(FENCE_MAX).map(str::to_owned).collect();
                }
                ("owner" | "clean" | "fence", _) => return None,
                _ => {}
            }
        }
        (!ownership.owner.is_empty()).then_some(ownership)
    }

    /// Returns the owners that a successor has to fence: this owner, unless it left cleanly, and those that it had not
    /// fenced.
    #[must_use]
    pub fn to_fence(&self, me: &str) -> Vec<String> {
        let owner = (!self.clean).then_some(&self.owner);
        let mut fence: Vec<String> = Vec::new();
        for former in owner.into_iter().chain(&self.owners_to_fence) {
            if former != me && !fence.contains(former) && fence.len() < FENCE_MAX {
                fence.push(former.clone());
            }
        }
        fence
    }
}

/// Returns the metadata with the group member that commits it, by which other instances recognize the member. Metadata
/// that would become too long is returned unchanged.
#[must_use]
pub fn with_member(metadata: &str, member: &[u8]) -> String {
    let text = format!("{metadata} member={}", member_name(member));
    if text.len() <= METADATA_BYTES_MAX { text } else { metadata.to_owned() }
}

/// Returns whether this group member committed the metadata.
#[must_use]
pub fn names_member(metadata: &[u8], member: &[u8]) -> bool {
    let is_ours = Ownership::decode(metadata).is_some();
    let text = std::str::from_utf8(metadata).unwrap_or_default();
    let mut fields = text.split(' ').filter_map(|field| field.strip_prefix("member="));
    is_ours && !member.is_empty() && fields.next_back() == Some(&member_name(member))
}

/// Percent-encodes the member id, except alphanumeric bytes, `.`, `_` and `-`. Of a long one it keeps the end, in which
/// members of the same client id differ.
fn member_name(member: &[u8]) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let encode = |byte: &u8| if is_plain(*byte) { char::from(*byte).to_string() } else { format!("%{byte:02X}") };
    let name: String = member.iter().map(encode).collect();
    name[name.len().saturating_sub(MEMBER_BYTES_MAX)..].to_owned()
}

/// Returns whether this is a valid `{run}.{incarnation}`. Others must not become part of a transactional id, since any
/// program can write metadata.
fn is_owner(text: &str) -> bool {
    text.len() <= OWNER_BYTES_MAX
        && text.split_once('.').is_some_and(|(run, incarnation)| {
            is_hexadecimal(run) && !incarnation.is_empty() && incarnation.bytes().all(|b| b.is_ascii_digit())
        })
}

fn is_hexadecimal(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_part_of_a_valid_owner() {
        for run in [RunId::from_random(0), RunId::from_random(u64::MAX), RunId::parse(&"f".repeat(32)).expect("a run")]
        {
            assert!(is_owner(&format!("{run}.{}", i16::MAX)), "{run}");
        }
        assert_eq!(RunId::from_random(0xab).to_string(), "00000000000000ab");
        for text in ["", "g", "AB", "a.b", "a b", &"0".repeat(33)] {
            assert_eq!(RunId::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn metadata_is_read_back() {
        let ownership = Ownership {
            owner: "ab12.0".into(),
            owners_to_fence: vec!["cd.1".into(), "ef.22".into()],
            clean: true,
            since: Some(Millis(-5)),
        };
        assert_eq!(Ownership::decode(ownership.encode().as_bytes()), Some(ownership));
        let bare = Ownership { owner: "0.0".into(), ..Ownership::default() };
        assert_eq!(Ownership::decode(bare.encode().as_bytes()), Some(bare));
    }

    #[test]
    fn foreign_metadata_is_not_believed() {
        for text in ["", "v1", "v2 owner=ab.0", "v1 owner=../x.0", "v1 owner=ab.0 fence=UP.1", "v1 owner=ab.0 clean=2"]
        {
            assert_eq!(Ownership::decode(text.as_bytes()), None, "{text:?}");
        }
        assert_eq!(Ownership::decode(b"\xff\xfe"), None);
    }

    #[test]
    fn fields_of_a_later_version_are_ignored() {
        let decoded = Ownership::decode(b"v1 owner=ab.0 x=1 clean=1 y= member=kafka-scheduler-1");
        assert_eq!(decoded, Some(Ownership { owner: "ab.0".into(), clean: true, ..Ownership::default() }));
    }

    #[test]
    fn metadata_names_the_member_that_commits_it() {
        let ownership = Ownership { owner: "ab.0".into(), since: Some(Millis(7)), ..Ownership::default() };
        for member in [&b"kafka-scheduler-1c"[..], b"my app/\xff=%-2 ", &[b'/'; 400]] {
            let text = with_member(&ownership.encode(), member);
            assert_eq!(Ownership::decode(text.as_bytes()).as_ref(), Some(&ownership), "{text}");
            assert!(names_member(text.as_bytes(), member), "{text}");
            assert!(!names_member(text.as_bytes(), b"kafka-scheduler-1"), "{text}");
            assert!(text.len() <= ownership.encode().len() + " member=".len() + MEMBER_BYTES_MAX);
        }
        assert!(!names_member(ownership.encode().as_bytes(), b"kafka-scheduler-1c"));
        assert!(!names_member(b"member=m", b"m"), "another program's metadata");
        assert!(!names_member(with_member(&ownership.encode(), b"").as_bytes(), b""));
    }

    #[test]
    fn owners_to_fence_are_bounded_and_metadata_is_below_2_kib() {
        let former = |n: usize| format!("{n:032x}.{n}");
        let mut ownership = Ownership { owner: former(0), ..Ownership::default() };
        for n in 1..100 {
            let fence = ownership.to_fence(&former(n));
            ownership =
                Ownership { owner: former(n), owners_to_fence: fence, since: Some(Millis(i64::MIN)), clean: false };
            assert!(ownership.encode().len() <= METADATA_BYTES_MAX);
            let text = with_member(&ownership.encode(), &[b'm'; 300]);
            assert!(text.len() <= METADATA_BYTES_MAX && names_member(text.as_bytes(), &[b'm'; 300]));
            assert!(Ownership::decode(ownership.encode().as_bytes()).is_some());
        }
        assert_eq!(ownership.owners_to_fence.len(), FENCE_MAX);
        assert_eq!(ownership.owners_to_fence[0], former(98), "the newest is kept");
    }
}
