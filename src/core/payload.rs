//! Key, value and headers of a record, as the core keeps them.

use std::hash::{DefaultHasher, Hasher};

use super::types::Header;

/// Room for the headers that the engine adds to a user's.
const ROOM: usize = 6;

/// What the core keeps of a record's key, value and headers: the bytes, or where they lie.
///
/// The core never reads them itself. Bytes outside memory are read by the shell, when it writes a batch's records:
/// [`Batch::resolve`](super::batch::Batch::resolve).
pub trait Payload: Sized {
    /// Keeps bytes that lie outside memory; `()` if there are none. It must not do I/O: the core calls it from its event
    /// loop.
    type Store;
    /// Keeps `parts`.
    fn pack(parts: &Parts<'_>, store: &mut Self::Store) -> Self;
    /// Hashes a key for the index.
    fn hash_of(key: &[u8], seed: u64) -> u64;
    /// Returns [`Payload::hash_of`] of the record's key.
    fn hash(&self, seed: u64) -> u64;
    /// Whether the record has this key.
    fn has_key(&self, key: &[u8]) -> bool;
    /// Returns the memory that it takes, in bytes, without the allocator's overhead.
    fn memory_bytes(&self) -> usize;
    /// Returns the packed bytes, or where they lie.
    fn stored(&self) -> Stored<'_>;
}

/// A payload's packed bytes, which [`Parts::unpack`] reads, or where they lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored<'a> {
    /// The bytes.
    Memory(&'a [u8]),
    /// Where they lie.
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

/// Names packed bytes outside memory to the shell's store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PayloadRef {
    /// Where they lie, in the store's own terms.
    pub place: u64,
    /// Their length.
    pub packed_bytes: u32,
}

/// A schedule's bytes, borrowed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parts<'a> {
    /// The schedule record's key.
    pub key: &'a [u8],
    /// The triggered record's key; `None` is null.
    pub target_key: Option<&'a [u8]>,
    /// User headers in order; of an invalid record, all of its headers.
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

    /// The exact length of the packed form, for one allocation.
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

    /// Reads packed bytes: those of [`Parts::write`] or [`Stored`].
    ///
    /// # Panics
    /// If `packed` is not such bytes; it never leaves this process.
    #[must_use]
    pub fn unpack(packed: &'a [u8]) -> Self {
        let mut reader = Reader(packed);
        let key = reader.bytes();
        let target_key = reader.nullable();
        let count = reader.length();
        let mut headers = Vec::with_capacity(count + ROOM);
        headers.extend((0..count).map(|_| Header { name: reader.bytes(), value: reader.nullable() }));
        Self { key, target_key, headers, value: reader.0 }
    }

    /// The key alone.
    pub(super) fn key_of(packed: &'a [u8]) -> &'a [u8] {
        Reader(packed).bytes()
    }

    /// As [`Parts::unpack`], and nothing from nothing: barriers and start markers carry no payload.
    pub(super) fn unpack_or_empty(packed: &'a [u8]) -> Self {
        if packed.is_empty() { Self::default() } else { Self::unpack(packed) }
    }
}

/// The payload in memory: one boxed slice.
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

/// Lengths take seven bits a byte, lowest first. Null is 0 and a length n is n + 1 where null can occur.
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
