//! The digest of a prefix of token ids, kept up as the prefix grows.

use msao_core::digest::Digest;
use sha2::{Digest as _, Sha256};

/// SHA-256 over ids as little-endian `u32`, one after the other.
///
/// Both sides name a prefix by it and never by a place in a cache: pruning makes those differ.
#[derive(Clone, Debug, Default)]
pub struct PrefixDigest {
    hasher: Sha256,
    len: usize,
}

impl PrefixDigest {
    /// Of `ids`.
    pub fn of(ids: &[u32]) -> Self {
        let mut digest = PrefixDigest::default();
        digest.extend(ids);
        digest
    }

    /// Appends one id.
    pub fn push(&mut self, id: u32) {
        self.hasher.update(id.to_le_bytes());
        self.len += 1;
    }

    /// Appends ids in their order.
    pub fn extend(&mut self, ids: &[u32]) {
        ids.iter().for_each(|&id| self.push(id));
    }

    /// Ids taken in.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no id has been taken in.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The digest so far.
    pub fn digest(&self) -> Digest {
        Digest(self.hasher.clone().finalize().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_digest_of_little_endian_ids() {
        let ids = [1, 0x0102_0304, u32::MAX];
        let bytes = [1, 0, 0, 0, 4, 3, 2, 1, 255, 255, 255, 255];
        assert_eq!(PrefixDigest::of(&ids).digest(), Digest::of(&bytes));
        let mut grown = PrefixDigest::of(&ids[..1]);
        assert_ne!(grown.digest(), Digest::of(&bytes));
        grown.extend(&ids[1..]);
        assert_eq!(grown.digest(), Digest::of(&bytes));
        assert_eq!((grown.len(), grown.is_empty()), (3, false));
    }
}
