//! What the shell adds to a snapshot of the core: which log it was read from, and where reading goes on.

/// Which log a snapshot was read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SourceLog {
    /// The topic's id, which changes when the topic is recreated.
    pub topic_id: String,
    /// The log start offset.
    pub start: i64,
    /// The leader epoch of the last record that was read.
    pub leader_epoch: Option<i32>,
}

impl SourceLog {
    /// Returns its bytes: a line of text.
    #[must_use]
    pub(super) fn encode(&self) -> Vec<u8> {
        let Self { topic_id, start, leader_epoch } = self;
        format!("v1 {topic_id} {start} {}\n", leader_epoch.unwrap_or(-1)).into_bytes()
    }

    /// Reads the line at the beginning of `bytes`. Returns it with the rest.
    #[must_use]
    pub(super) fn decode(bytes: &[u8]) -> Option<(Self, &[u8])> {
        const LINE_BYTES_MAX: usize = 256;
        let end = bytes.iter().take(LINE_BYTES_MAX).position(|byte| *byte == b'\n')?;
        let (line, rest) = (std::str::from_utf8(&bytes[..end]).ok()?, &bytes[end + 1..]);
        let mut fields = line.strip_prefix("v1 ")?.split(' ');
        let topic_id = fields.next()?.to_owned();
        let start = fields.next()?.parse().ok()?;
        let leader_epoch: i32 = fields.next()?.parse().ok()?;
        let source = Self { topic_id, start, leader_epoch: (leader_epoch >= 0).then_some(leader_epoch) };
        fields.next().is_none().then_some((source, rest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_log_is_read_back() {
        for leader_epoch in [None, Some(0), Some(7)] {
            let source = SourceLog { topic_id: "AAAAAAAAAAAAAAAAAAAAAQ".into(), start: 12, leader_epoch };
            let bytes = [source.encode(), b"rest\n".to_vec()].concat();
            assert_eq!(SourceLog::decode(&bytes), Some((source, &b"rest\n"[..])));
        }
        for bytes in [&b""[..], b"v1 a 1 2", b"v2 a 1 2\n", b"v1 a 1\n", b"v1 a 1 2 3\n", b"v1 a x 2\n"] {
            assert_eq!(SourceLog::decode(bytes), None, "{bytes:?}");
        }
    }
}
