//! The format of a snapshot: blocks of bytes with checksums, so damage is noticed, and told apart from a later version.
//!
//! | part | bytes |
//! |---|---|
//! | header | 8: [`MAGIC`]; 2: [`VERSION`]; 4: partition; 2: length of the topic's name; the name; 4: checksum |
//! | each block | 4: length, from 1 to [`BLOCK_BYTES_MAX`]; the block; 4: checksum |
//! | trailer | 4: zero; 8: number of blocks; 8: number of bytes in them; 4: checksum |
//!
//! Numbers are little-endian. A checksum is the CRC-32C of all bytes before it that are not checksums. So the trailer's
//! is that of the whole file, and a block that was moved, left out or taken from another file is noticed at once.

use std::fmt;
use std::io::{self, Read, Write};

/// The first bytes of a snapshot.
pub const MAGIC: [u8; 8] = *b"ksnapsht";
/// The version of the format.
pub const VERSION: u16 = 1;
/// The longest block.
pub const BLOCK_BYTES_MAX: usize = 1 << 20;

const NUMBER_BYTES: usize = size_of::<u32>();
const TRAILER_BYTES: usize = 2 * size_of::<u64>();

/// Writes a snapshot.
#[derive(Debug)]
pub struct BlockWriter<W> {
    target: W,
    checksum: u32,
    blocks: u64,
    bytes: u64,
    /// The next block, after space for its length.
    block: Vec<u8>,
    has_failed: bool,
}

impl<W: Write> BlockWriter<W> {
    /// Writes the header.
    ///
    /// # Errors
    /// If writing fails, or the topic's name has more than 65,535 bytes.
    pub fn new(target: W, topic: &str, partition: i32) -> io::Result<Self> {
        let length = u16::try_from(topic.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        let mut writer = Self { target, checksum: 0, blocks: 0, bytes: 0, block: Vec::new(), has_failed: false };
        let mut header = MAGIC.to_vec();
        header.extend(VERSION.to_le_bytes());
        header.extend(partition.to_le_bytes());
        header.extend(length.to_le_bytes());
        header.extend(topic.as_bytes());
        writer.write_checked(&mut header)?;
        writer.block.resize(NUMBER_BYTES, 0);
        Ok(writer)
    }

    /// Appends bytes. The reader gets the same bytes, but not in the same pieces.
    ///
    /// # Errors
    /// If writing fails, or has failed before.
    pub fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let room = NUMBER_BYTES + BLOCK_BYTES_MAX - self.block.len();
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.block.extend_from_slice(now);
            bytes = later;
            if now.len() == room {
                self.write_block()?;
            }
        }
        Ok(())
    }

    /// Writes the last block and the trailer, and returns the target, which is not flushed.
    ///
    /// # Errors
    /// If writing fails, or has failed before.
    pub fn finish(mut self) -> io::Result<W> {
        if self.block.len() > NUMBER_BYTES {
            self.write_block()?;
        }
        let mut trailer = vec![0; NUMBER_BYTES];
        trailer.extend(self.blocks.to_le_bytes());
        trailer.extend(self.bytes.to_le_bytes());
        self.write_checked(&mut trailer)?;
        Ok(self.target)
    }

    fn write_block(&mut self) -> io::Result<()> {
        let mut block = std::mem::take(&mut self.block);
        let length = block.len() - NUMBER_BYTES;
        block[..NUMBER_BYTES].copy_from_slice(&(length as u32).to_le_bytes());
        let written = self.write_checked(&mut block);
        self.blocks += 1;
        self.bytes += length as u64;
        block.truncate(NUMBER_BYTES);
        self.block = block;
        written
    }

    /// Writes the bytes with their checksum, which it appends to them.
    fn write_checked(&mut self, bytes: &mut Vec<u8>) -> io::Result<()> {
        if self.has_failed {
            return Err(io::Error::other("an earlier write failed"));
        }
        self.checksum = crc32c::crc32c_append(self.checksum, bytes);
        bytes.extend(self.checksum.to_le_bytes());
        let written = self.target.write_all(bytes);
        self.has_failed = written.is_err();
        written
    }
}

/// Why a snapshot cannot be used.
#[derive(Debug)]
#[non_exhaustive]
pub enum Problem {
    /// Reading failed.
    Io(io::Error),
    /// It does not begin as a snapshot does.
    NotASnapshot,
    /// It has a format that this version of the program does not know.
    UnknownVersion(u16),
    /// It is of another partition.
    OtherPartition {
        /// The topic's name.
        topic: String,
        /// The partition.
        partition: i32,
    },
    /// It ends before its trailer does: writing it was interrupted, or its end was cut off.
    Truncated,
    /// The checksum of a part does not match.
    Checksum {
        /// Where the part begins, in bytes from the start of the file.
        at: u64,
    },
    /// A length is not that of a block.
    BlockLength {
        /// Where the block begins, in bytes from the start of the file.
        at: u64,
        /// The length.
        bytes: u32,
    },
    /// The trailer gives other numbers of blocks and bytes than were read.
    Trailer,
    /// Something comes after the trailer.
    TooLong,
    /// An earlier read failed.
    Abandoned,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(_) => f.write_str("it cannot be read"),
            Self::NotASnapshot => f.write_str("it does not begin as a snapshot does"),
            Self::UnknownVersion(version) => {
                write!(f, "it has format version {version}, and this program reads version {VERSION}")
            }
            Self::OtherPartition { topic, partition } => write!(f, "it is a snapshot of {topic:?} [{partition}]"),
            Self::Truncated => f.write_str("it ends too early"),
            Self::Checksum { at } => write!(f, "it is damaged: a checksum does not match, after byte {at}"),
            Self::BlockLength { at, bytes } => {
                write!(f, "it is damaged: at byte {at}, a block of {bytes} bytes is longer than blocks are")
            }
            Self::Trailer => f.write_str("it is damaged: its trailer does not match its blocks"),
            Self::TooLong => f.write_str("it is damaged: something comes after its trailer"),
            Self::Abandoned => f.write_str("reading it failed before"),
        }
    }
}

impl std::error::Error for Problem {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io(error) => Some(error),
            _ => None,
        }
    }
}

impl From<io::Error> for Problem {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::Truncated,
            _ => Self::Io(error),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Reading,
    Complete,
    Failed,
}

/// Reads a snapshot.
#[derive(Debug)]
pub struct BlockReader<R> {
    source: R,
    state: State,
    /// The position in the file.
    at: u64,
    checksum: u32,
    blocks: u64,
    bytes: u64,
    /// Space for a block and its checksum. It grows to the longest block so far.
    block: Vec<u8>,
}

impl<R: Read> BlockReader<R> {
    /// Reads the header.
    ///
    /// # Errors
    /// If this is not a snapshot of the partition in a known version.
    pub fn new(source: R, topic: &str, partition: i32) -> Result<Self, Problem> {
        let mut reader =
            Self { source, state: State::Reading, at: 0, checksum: 0, blocks: 0, bytes: 0, block: Vec::new() };
        if reader.read_array()? != MAGIC {
            return Err(Problem::NotASnapshot);
        }
        // Before the checksum: another version may have another header.
        let version = u16::from_le_bytes(reader.read_array()?);
        if version != VERSION {
            return Err(Problem::UnknownVersion(version));
        }
        let partition_found = i32::from_le_bytes(reader.read_array()?);
        let length = u16::from_le_bytes(reader.read_array()?);
        reader.read_checked(0, length.into())?;
        let name = &reader.block[..length.into()];
        if name != topic.as_bytes() || partition_found != partition {
            let topic = String::from_utf8_lossy(name).into_owned();
            return Err(Problem::OtherPartition { topic, partition: partition_found });
        }
        Ok(reader)
    }

    /// Returns the next block, whose checksum matches; `None` after the last one, if the whole file is as it was
    /// written. If it is not, forget all blocks.
    ///
    /// # Errors
    /// If the rest cannot be read, or is not as it was written.
    pub fn next_block(&mut self) -> Result<Option<&[u8]>, Problem> {
        match self.state {
            State::Reading => {}
            State::Complete => return Ok(None),
            State::Failed => return Err(Problem::Abandoned),
        }
        self.state = State::Failed;
        let at = self.at;
        let length = u32::from_le_bytes(self.read_array()?);
        if length == 0 {
            self.read_trailer(at)?;
            self.state = State::Complete;
            return Ok(None);
        }
        let bytes = usize::try_from(length).ok().filter(|bytes| *bytes <= BLOCK_BYTES_MAX);
        let bytes = bytes.ok_or(Problem::BlockLength { at, bytes: length })?;
        self.read_checked(at, bytes)?;
        self.blocks += 1;
        self.bytes += u64::from(length);
        self.state = State::Reading;
        Ok(Some(&self.block[..bytes]))
    }

    fn read_trailer(&mut self, at: u64) -> Result<(), Problem> {
        self.read_checked(at, TRAILER_BYTES)?;
        let expected = [self.blocks.to_le_bytes(), self.bytes.to_le_bytes()].concat();
        if self.block[..TRAILER_BYTES] != expected {
            return Err(Problem::Trailer);
        }
        match self.source.read_exact(&mut [0]) {
            Ok(()) => Err(Problem::TooLong),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(()),
            Err(error) => Err(Problem::Io(error)),
        }
    }

    /// Reads bytes that no checksum follows yet.
    fn read_array<const N: usize>(&mut self) -> Result<[u8; N], Problem> {
        let mut bytes = [0; N];
        self.source.read_exact(&mut bytes)?;
        self.at += N as u64;
        self.checksum = crc32c::crc32c_append(self.checksum, &bytes);
        Ok(bytes)
    }

    /// Reads as many bytes into `self.block`, and checks them and what comes before them, from `at`.
    fn read_checked(&mut self, at: u64, bytes: usize) -> Result<(), Problem> {
        let end = bytes + NUMBER_BYTES;
        if self.block.len() < end {
            self.block.resize(end, 0);
        }
        self.source.read_exact(&mut self.block[..end])?;
        self.at += end as u64;
        let (content, stored) = self.block[..end].split_at(bytes);
        self.checksum = crc32c::crc32c_append(self.checksum, content);
        if stored != self.checksum.to_le_bytes() {
            return Err(Problem::Checksum { at });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOPIC: &str = "schedules";

    fn written(pieces: &[&[u8]]) -> Vec<u8> {
        let mut writer = BlockWriter::new(Vec::new(), TOPIC, 3).expect("a Vec takes everything");
        for piece in pieces {
            writer.write(piece).expect("a Vec takes everything");
        }
        writer.finish().expect("a Vec takes everything")
    }

    fn blocks(file: &[u8]) -> Result<Vec<Vec<u8>>, Problem> {
        let mut reader = BlockReader::new(file, TOPIC, 3)?;
        let mut blocks = Vec::new();
        while let Some(block) = reader.next_block()? {
            blocks.push(block.to_vec());
        }
        Ok(blocks)
    }

    /// The file of two short blocks.
    fn two_blocks() -> Vec<u8> {
        let mut writer = BlockWriter::new(Vec::new(), TOPIC, 3).expect("a Vec takes everything");
        for block in [&b"first"[..], b"second"] {
            writer.write(block).expect("a Vec takes everything");
            writer.write_block().expect("a Vec takes everything");
        }
        writer.finish().expect("a Vec takes everything")
    }

    #[test]
    fn what_was_written_is_read() {
        assert_eq!(blocks(&written(&[])).expect("it is whole"), Vec::<Vec<u8>>::new());
        assert_eq!(blocks(&written(&[b"ab", b"", b"c"])).expect("it is whole"), [b"abc"]);
        assert_eq!(blocks(&two_blocks()).expect("it is whole"), [&b"first"[..], b"second"]);
    }

    #[test]
    fn blocks_are_at_most_1_mib() {
        let long: Vec<u8> = (0..2 * BLOCK_BYTES_MAX + 7).map(|n| (n % 251) as u8).collect();
        let read = blocks(&written(&[&long[..9], &long[9..]])).expect("it is whole");
        assert_eq!(read.iter().map(Vec::len).collect::<Vec<_>>(), [BLOCK_BYTES_MAX, BLOCK_BYTES_MAX, 7]);
        assert_eq!(read.concat(), long);
        let exact = blocks(&written(&[&long[..BLOCK_BYTES_MAX]])).expect("it is whole");
        assert_eq!(exact.len(), 1);
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let file = two_blocks();
        for at in 0..file.len() {
            for bit in 0..8 {
                let mut flipped = file.clone();
                flipped[at] ^= 1 << bit;
                assert!(blocks(&flipped).is_err(), "bit {bit} of byte {at}");
            }
        }
    }

    #[test]
    fn a_file_that_ends_too_early_is_noticed() {
        let file = two_blocks();
        for length in 0..file.len() {
            assert!(matches!(blocks(&file[..length]), Err(Problem::Truncated)), "{length} bytes");
        }
    }

    #[test]
    fn what_comes_after_the_trailer_is_noticed() {
        let file = two_blocks();
        for rest in [&b"\0"[..], &file] {
            assert!(matches!(blocks(&[&file, rest].concat()), Err(Problem::TooLong)));
        }
    }

    #[test]
    fn blocks_that_moved_are_noticed() {
        let file = two_blocks();
        let header = MAGIC.len() + 2 + 4 + 2 + TOPIC.len() + 4;
        let (first, second) = (header + 4 + 5 + 4, header + 4 + 5 + 4 + 4 + 6 + 4);
        let parts = [&file[..header], &file[header..first], &file[first..second], &file[second..]];
        for order in [&[0, 2, 1, 3][..], &[0, 1, 3], &[0, 2, 3], &[0, 1, 1, 2, 3], &[0, 3]] {
            let moved: Vec<u8> = order.iter().flat_map(|part| parts[*part]).copied().collect();
            assert!(matches!(blocks(&moved), Err(Problem::Checksum { .. })), "{order:?}");
        }
    }

    #[test]
    fn a_later_version_is_not_taken_for_damage() {
        let mut later = two_blocks();
        later[MAGIC.len()] = 2;
        assert!(matches!(blocks(&later), Err(Problem::UnknownVersion(2))));
        assert!(matches!(blocks(b"PK\x03\x04 and more of it"), Err(Problem::NotASnapshot)));
    }

    #[test]
    fn another_partitions_snapshot_is_not_used() {
        let file = two_blocks();
        for (topic, partition) in [(TOPIC, 4), ("schedule", 3), ("", 3)] {
            let opened = BlockReader::new(&file[..], topic, partition);
            assert!(matches!(opened, Err(Problem::OtherPartition { partition: 3, .. })), "{topic} {partition}");
        }
    }

    #[test]
    fn a_wrong_length_takes_no_memory() {
        let mut file = two_blocks();
        let at = MAGIC.len() + 2 + 4 + 2 + TOPIC.len() + 4;
        for bytes in [BLOCK_BYTES_MAX as u32 + 1, u32::MAX] {
            file[at..at + 4].copy_from_slice(&bytes.to_le_bytes());
            let mut reader = BlockReader::new(&file[..], TOPIC, 3).expect("the header is whole");
            let read = reader.next_block().map(|_| ());
            assert!(matches!(read, Err(Problem::BlockLength { bytes: found, .. }) if found == bytes), "{read:?}");
            assert!(reader.block.capacity() < 100, "{}", reader.block.capacity());
        }
    }

    #[test]
    fn a_writer_that_has_failed_does_not_finish() {
        /// Has space for so many bytes.
        struct Disk(usize);
        impl Write for Disk {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                let taken = bytes.len().min(self.0);
                self.0 -= taken;
                Ok(taken)
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut writer = BlockWriter::new(Disk(100), TOPIC, 3).expect("the header fits");
        writer.write(&[0; BLOCK_BYTES_MAX]).expect_err("the disk is full");
        writer.target.0 = usize::MAX;
        writer.write(b"short").expect("it is not written yet");
        assert!(writer.finish().is_err(), "a block is missing");
    }

    #[test]
    fn a_reader_that_has_failed_does_not_report_the_end() {
        let file = two_blocks();
        let mut reader = BlockReader::new(&file[..file.len() - 1], TOPIC, 3).expect("the header is whole");
        while let Ok(Some(_)) = reader.next_block() {}
        assert!(matches!(reader.next_block(), Err(Problem::Abandoned)));
        let mut reader = BlockReader::new(&file[..], TOPIC, 3).expect("the header is whole");
        while reader.next_block().expect("it is whole").is_some() {}
        assert!(matches!(reader.next_block(), Ok(None)), "the end stays the end");
    }
}
