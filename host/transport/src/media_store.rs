//! Media by digest.
//!
//! A medium is taken in piece by piece and kept only if its bytes have the digest that it came under. What is kept and
//! what is coming in is bounded together; room is made by forgetting what was used longest ago. A medium that somebody
//! holds stays usable, forgotten or not.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex};

use bytes::{Bytes, BytesMut};
use msao_core::digest::Digest;
use sha2::{Digest as _, Sha256};

use crate::lock;

/// Why a medium is not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// It is larger than all that may be kept.
    #[error("the medium has more than {0} bytes, all that this node keeps (sessions.media-mib)")]
    TooLarge(u64),
    /// Others that are coming in take all the room.
    #[error(
        "other media that are coming in take all of the {0} bytes kept (sessions.media-mib); send it again later"
    )]
    Full(u64),
    /// Its bytes have another digest.
    #[error("the bytes have the digest {found}, not {expected} under which they came")]
    Digest {
        /// Under which it came.
        expected: Digest,
        /// Of the bytes.
        found: Digest,
    },
}

/// Media by digest. Clones are the same store.
#[derive(Clone)]
pub struct MediaStore {
    inner: Arc<Mutex<Inner>>,
}

struct Inner {
    limit: u64,
    /// Bytes kept and coming in.
    used: u64,
    /// Counts uses; what was used last has the highest number.
    clock: u64,
    media: HashMap<Digest, (Bytes, u64)>,
    by_use: BTreeMap<u64, Digest>,
}

impl fmt::Debug for MediaStore {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let inner = lock(&self.inner);
        f.debug_struct("MediaStore")
            .field("media", &inner.media.len())
            .field("used", &inner.used)
            .field("limit", &inner.limit)
            .finish()
    }
}

impl MediaStore {
    /// Keeps up to `limit` bytes.
    pub fn new(limit: u64) -> MediaStore {
        let inner = Inner {
            limit,
            used: 0,
            clock: 0,
            media: HashMap::new(),
            by_use: BTreeMap::new(),
        };
        MediaStore {
            inner: Arc::new(Mutex::new(inner)),
        }
    }

    /// A medium, if it is here. It counts as used.
    pub fn get(&self, digest: Digest) -> Option<Bytes> {
        lock(&self.inner).touch(digest)
    }

    /// Its size in bytes, if it is here. It counts as used: whoever asks is about to need it.
    pub fn size(&self, digest: Digest) -> Option<u64> {
        lock(&self.inner)
            .touch(digest)
            .map(|bytes| bytes.len() as u64)
    }

    /// Bytes kept and coming in.
    pub fn used(&self) -> u64 {
        lock(&self.inner).used
    }

    /// Keeps a medium of this process, and gives its digest.
    ///
    /// # Errors
    /// There is no room.
    pub fn put(&self, bytes: Bytes) -> Result<Digest, StoreError> {
        let digest = Digest::of(&bytes);
        let mut inner = lock(&self.inner);
        if inner.touch(digest).is_none() {
            inner.make_room(bytes.len() as u64)?;
            inner.keep(digest, bytes);
        }
        Ok(digest)
    }

    /// Begins to take one in.
    pub(crate) fn begin(&self, digest: Digest) -> Incoming {
        Incoming {
            store: self.clone(),
            digest,
            bytes: BytesMut::new(),
            hash: Sha256::new(),
        }
    }
}

impl Inner {
    fn touch(&mut self, digest: Digest) -> Option<Bytes> {
        let (bytes, used) = self.media.get_mut(&digest)?;
        let bytes = bytes.clone();
        self.by_use.remove(used);
        self.clock += 1;
        *used = self.clock;
        self.by_use.insert(self.clock, digest);
        Some(bytes)
    }

    /// Counts `bytes` more, after what was used longest ago has made room for them.
    fn make_room(&mut self, bytes: u64) -> Result<(), StoreError> {
        if bytes > self.limit {
            return Err(StoreError::TooLarge(self.limit));
        }
        while self.used.saturating_add(bytes) > self.limit {
            let Some((_, oldest)) = self.by_use.pop_first() else {
                return Err(StoreError::Full(self.limit));
            };
            if let Some((bytes, _)) = self.media.remove(&oldest) {
                self.used = self.used.saturating_sub(bytes.len() as u64);
            }
        }
        self.used += bytes;
        Ok(())
    }

    /// What is counted already.
    fn keep(&mut self, digest: Digest, bytes: Bytes) {
        self.clock += 1;
        self.media.insert(digest, (bytes, self.clock));
        self.by_use.insert(self.clock, digest);
    }
}

/// A medium on its way in. Dropped, it leaves nothing.
pub(crate) struct Incoming {
    store: MediaStore,
    digest: Digest,
    bytes: BytesMut,
    hash: Sha256,
}

impl Incoming {
    /// Takes the next piece. Room is taken as bytes come, not as they are announced.
    pub(crate) fn add(&mut self, piece: &[u8]) -> Result<(), StoreError> {
        {
            let mut inner = lock(&self.store.inner);
            if (self.bytes.len() + piece.len()) as u64 > inner.limit {
                return Err(StoreError::TooLarge(inner.limit));
            }
            inner.make_room(piece.len() as u64)?;
        }
        self.hash.update(piece);
        self.bytes.extend_from_slice(piece);
        Ok(())
    }

    /// It is whole.
    pub(crate) fn finish(mut self) -> Result<(), StoreError> {
        let found = Digest(std::mem::take(&mut self.hash).finalize().into());
        let expected = self.digest;
        if found != expected {
            return Err(StoreError::Digest { expected, found });
        }
        // Copied once more, to give back the room that a growing buffer keeps in reserve.
        let bytes = Bytes::copy_from_slice(&self.bytes);
        let store = self.store.clone();
        let mut inner = lock(&store.inner);
        // The same one may have come on another connection meanwhile; then this one's bytes are given back.
        if inner.touch(expected).is_none() {
            inner.keep(expected, bytes);
            self.bytes = BytesMut::new();
        }
        Ok(())
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        let bytes = self.bytes.len() as u64;
        if bytes > 0 {
            let mut inner = lock(&self.store.inner);
            inner.used = inner.used.saturating_sub(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn medium(byte: u8, size: usize) -> (Digest, Bytes) {
        let bytes = Bytes::from(vec![byte; size]);
        (Digest::of(&bytes), bytes)
    }

    #[test]
    fn what_was_used_longest_ago_goes_first_and_stays_usable() {
        let store = MediaStore::new(100);
        let [(a, bytes_a), (b, bytes_b), (c, bytes_c)] = [1, 2, 3].map(|byte| medium(byte, 40));
        store.put(bytes_a).unwrap();
        store.put(bytes_b).unwrap();
        let held = store.get(a).unwrap();
        let held_b = store.get(b).unwrap();
        assert!(store.get(a).is_some());
        store.put(bytes_c).unwrap();
        assert!(store.get(b).is_none());
        assert_eq!((held.len(), held_b.len()), (40, 40));
        assert!(store.get(a).is_some() && store.get(c).is_some());
        assert_eq!(store.used(), 80);
        assert_eq!(store.put(medium(4, 101).1), Err(StoreError::TooLarge(100)));
        assert_eq!(store.used(), 80);
    }

    #[test]
    fn a_wrong_digest_and_a_broken_upload_leave_nothing() {
        let store = MediaStore::new(100);
        let (digest, bytes) = medium(1, 60);
        let mut coming = store.begin(Digest([7; 32]));
        coming.add(&bytes).unwrap();
        assert_eq!(store.used(), 60);
        assert!(
            matches!(coming.finish(), Err(StoreError::Digest { found, .. }) if found == digest)
        );
        let mut coming = store.begin(digest);
        coming.add(&bytes[..30]).unwrap();
        drop(coming);
        assert_eq!((store.used(), store.size(digest)), (0, None));
        let mut coming = store.begin(digest);
        coming.add(&bytes[..30]).unwrap();
        coming.add(&bytes[30..]).unwrap();
        let mut twin = store.begin(digest);
        twin.add(&bytes[..10]).unwrap();
        coming.finish().unwrap();
        drop(twin);
        assert_eq!((store.used(), store.size(digest)), (60, Some(60)));
    }

    #[test]
    fn media_that_are_coming_in_share_the_bound() {
        let store = MediaStore::new(100);
        let (kept, bytes) = medium(9, 50);
        store.put(bytes).unwrap();
        let mut one = store.begin(Digest([1; 32]));
        let mut other = store.begin(Digest([2; 32]));
        one.add(&[0; 60]).unwrap();
        assert_eq!(store.get(kept), None);
        other.add(&[0; 40]).unwrap();
        assert_eq!(other.add(&[0; 1]), Err(StoreError::Full(100)));
        assert_eq!(one.add(&[0; 50]), Err(StoreError::TooLarge(100)));
        drop((one, other));
        assert_eq!(store.used(), 0);
    }
}
