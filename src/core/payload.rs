//! Key, value and headers of a record, as the core keeps them.

use std::hash::{DefaultHasher, Hasher};

use super::types::Header;

/// Headers that the engine adds to a record, to reserve room for: a dead letter's.
const ADDED_HEADERS_MAX: usize = 8;

/// A record's key, value and headers: the bytes, or a reference to them.
///
/// The core never reads bytes outside memory; [`Batch::resolve`](super::batch::Batch::resolve) lets a shell read them.
/// No shell of this crate stores payloads outside memory yet.
pub trait Payload: Sized {
    /// Stores bytes outside memory; `()` if none are. It must not block, because the core calls it on the event loop.
    type Store;
    /// Packs `parts`, and stores them.
    fn pack(parts: &Parts<'_>, store: &mut Self::Store) -> Self;
    /// Stores parts that are packed already, as [`Parts::write`] packs them.
    fn from_packed(packed: &[u8], store: &mut Self::Store) -> Self;
    /// Returns the hash of a key.
    fn hash_of(key: &[u8], seed: u64) -> u64;
    /// Returns [`Payload::hash_of`] of the record's key.
    fn hash(&self, seed: u64) -> u64;
    /// Returns whether the record has this key.
    fn has_key(&self, key: &[u8]) -> bool;
    /// Returns its memory in bytes, without the allocator's overhead.
    fn memory_bytes(&self) -> usize;
    /// Returns the packed bytes, or a reference to them.
    fn stored(&self) -> Stored<'_>;
}

/// A payload's packed bytes, which [`Parts::unpack`] reads, or a reference to them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored<'a> {
    /// The bytes are in memory.
    Memory(&'a [u8]),
    /// The bytes are in the shell's store.
    Outside(PayloadRef),
}

impl Stored<'_> {
    /// Returns the length of the packed bytes.
    #[must_use]
    pub fn packed_bytes(&self) -> usize {
        match self {
            Self::Memory(packed) => packed.len(),
            Self::Outside(reference) => reference.packed_bytes as usize,
        }
    }
}

/// A reference to packed bytes in the shell's store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PayloadRef {
    /// Their position, as the store defines it.
    pub place: u64,
    /// Their length in bytes.
    pub packed_bytes: u32,
}

/// Key, value and headers of a record, borrowed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parts<'a> {
    /// The record's key.
    pub key: &'a [u8],
    /// The triggered record's key; `None` is null.
    pub target_key: Option<&'a [u8]>,
    /// User headers in order; for an invalid record, all of its headers.
    pub headers: Vec<Header<'a>>,
    /// The value. A schedule's is never null: a null value is a cancel.
    pub value: &'a [u8],
}

impl<'a> Parts<'a> {
    /// Appends the packed form to `buffer`.
    pub fn write(&self, buffer: &mut Vec<u8>) {
        put_bytes(buffer, self.key);
        put_nullable(buffer, self.target_key);
        put_length(buffer, self.headers.len());
        for header in &self.headers {
            put_bytes(buffer, header.name);
            put_nullable(buffer, header.value);
        }
        buffer.extend_from_slice(self.value);
    }

    /// Returns the exact length of the packed form, so one allocation is enough.
    fn packed_len(&self) -> usize {
        let nullable =
            |bytes: Option<&[u8]>| length_len(bytes.map_or(0, |b| b.len() + 1)) + bytes.map_or(0, <[u8]>::len);
        let headers: usize =
            self.headers.iter().map(|h| length_len(h.name.len()) + h.name.len() + nullable(h.value)).sum();
        length_len(self.key.len())
            + self.key.len()
            + nullable(self.target_key)
            + length_len(self.headers.len())
            + headers
            + self.value.len()
    }

    /// Reads the packed form, which [`Parts::write`] wrote.
    ///
    /// # Panics
    /// If `packed` has another form. Packed bytes never leave the process.
    #[must_use]
    pub fn unpack(packed: &'a [u8]) -> Self {
        let mut reader = Reader(packed);
        let key = reader.bytes();
        let target_key = reader.nullable();
        let count = reader.length();
        let mut headers = Vec::with_capacity(count + ADDED_HEADERS_MAX);
        headers.extend((0..count).map(|_| Header { name: reader.bytes(), value: reader.nullable() }));
        Self { key, target_key, headers, value: reader.0 }
    }

    /// Reads bytes that may be of another form: then it returns `None`.
    #[must_use]
    pub fn try_unpack(packed: &'a [u8]) -> Option<Self> {
        let mut reader = CheckedReader(packed);
        let key = reader.bytes()?;
        let target_key = reader.nullable()?;
        let count = reader.length()?;
        // A header takes two bytes at least.
        let mut headers = Vec::with_capacity(count.min(packed.len() / 2));
        for _ in 0..count {
            headers.push(Header { name: reader.bytes()?, value: reader.nullable()? });
        }
        Some(Self { key, target_key, headers, value: reader.0 })
    }

    /// Reads the key alone.
    pub(super) fn key_of(packed: &'a [u8]) -> &'a [u8] {
        Reader(packed).bytes()
    }

    /// Reads the packed form; returns empty parts if there are no bytes, as for barriers, start markers
    /// and payloads outside memory.
    pub(super) fn unpack_or_empty(packed: &'a [u8]) -> Self {
        if packed.is_empty() { Self::default() } else { Self::unpack(packed) }
    }
}

/// A payload in memory, in one allocation.
#[derive(Clone, Debug)]
pub struct Packed(Box<[u8]>);

impl Payload for Packed {
    type Store = ();

    fn pack(parts: &Parts<'_>, (): &mut ()) -> Self {
        let mut buffer = Vec::with_capacity(parts.packed_len());
        parts.write(&mut buffer);
        debug_assert_eq!(buffer.len(), parts.packed_len());
        Self(buffer.into_boxed_slice())
    }

    fn from_packed(packed: &[u8], (): &mut ()) -> Self {
        Self(packed.into())
    }

    fn hash_of(key: &[u8], seed: u64) -> u64 {
        let mut hasher = DefaultHasher::new();
        hasher.write_u64(seed);
        hasher.write(key);
        hasher.finish()
    }

    fn hash(&self, seed: u64) -> u64 {
        Self::hash_of(Parts::key_of(&self.0), seed)
    }

    fn has_key(&self, key: &[u8]) -> bool {
        Parts::key_of(&self.0) == key
    }

    fn memory_bytes(&self) -> usize {
        self.0.len()
    }

    fn stored(&self) -> Stored<'_> {
        Stored::Memory(&self.0)
    }
}

/// Lengths are unsigned LEB128. If a value can be null, 0 means null and n + 1 means a length of n.
fn put_length(buffer: &mut Vec<u8>, mut length: usize) {
    while length >= 0x80 {
        buffer.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    buffer.push(length as u8);
}

const fn length_len(mut length: usize) -> usize {
    let mut bytes = 1;
    while length >= 0x80 {
        length >>= 7;
        bytes += 1;
    }
    bytes
}

fn put_bytes(buffer: &mut Vec<u8>, bytes: &[u8]) {
    put_length(buffer, bytes.len());
    buffer.extend_from_slice(bytes);
}

fn put_nullable(buffer: &mut Vec<u8>, bytes: Option<&[u8]>) {
    match bytes {
        None => put_length(buffer, 0),
        Some(bytes) => {
            put_length(buffer, bytes.len() + 1);
            buffer.extend_from_slice(bytes);
        }
    }
}

/// Reads bytes that were packed by another process.
struct CheckedReader<'a>(&'a [u8]);

impl<'a> CheckedReader<'a> {
    fn length(&mut self) -> Option<usize> {
        let (mut length, mut shift) = (0, 0);
        loop {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            // No payload has 2^56 bytes.
            if shift >= 56 {
                return None;
            }
            length |= usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(length);
            }
            shift += 7;
        }
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = self.length()?;
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn nullable(&mut self) -> Option<Option<&'a [u8]>> {
        let length = self.length()?;
        if length == 0 {
            return Some(None);
        }
        let (taken, rest) = self.0.split_at_checked(length - 1)?;
        self.0 = rest;
        Some(Some(taken))
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn length(&mut self) -> usize {
        let mut length = 0;
        let mut shift = 0;
        loop {
            let byte = self.0[0];
            self.0 = &self.0[1..];
            length |= usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return length;
            }
            shift += 7;
        }
    }

    fn take(&mut self, length: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(length);
        self.0 = rest;
        taken
    }

    fn bytes(&mut self) -> &'a [u8] {
        let length = self.length();
        self.take(length)
    }

    fn nullable(&mut self) -> Option<&'a [u8]> {
        let length = self.length();
        (length > 0).then(|| self.take(length - 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_is_read_back() {
        let long = vec![7; 300];
        let parts = Parts {
            key: &long,
            target_key: Some(b""),
            headers: vec![
                Header { name: b"a", value: None },
                Header { name: b"a", value: Some(b"") },
                Header { name: &long, value: Some(&long) },
            ],
            value: b"",
        };
        let packed = Packed::pack(&parts, &mut ());
        assert_eq!(Parts::unpack(&packed.0), parts);
        assert!(packed.has_key(&long) && !packed.has_key(b"k"));
        let bare = Parts { key: b"k", ..Parts::default() };
        assert_eq!(Parts::unpack(&Packed::pack(&bare, &mut ()).0), bare);
    }
}
