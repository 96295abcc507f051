//! Which media a peer was seen to have.

use std::collections::{HashMap, VecDeque};

use msao_core::digest::Digest;

use crate::limits::MAX_KNOWN;

/// The latest [`MAX_KNOWN`] digests, of this run of its program. They are not sent again. A peer forgets media too: it says so
/// when a session names one that it does not have.
#[derive(Debug, Default)]
pub(super) struct Known {
    bytes: HashMap<Digest, u64>,
    /// In the order in which they came.
    order: VecDeque<Digest>,
}

impl Known {
    pub(super) fn has(&self, digest: Digest) -> Option<u64> {
        self.bytes.get(&digest).copied()
    }

    pub(super) fn learn(&mut self, digest: Digest, bytes: u64) {
        if self.bytes.insert(digest, bytes).is_some() {
            return;
        }
        self.order.push_back(digest);
        while self.order.len() > MAX_KNOWN {
            if let Some(oldest) = self.order.pop_front() {
                self.bytes.remove(&oldest);
            }
        }
    }

    pub(super) fn forget(&mut self, digest: Digest) {
        if self.bytes.remove(&digest).is_some() {
            self.order.retain(|other| *other != digest);
        }
    }

    pub(super) fn clear(&mut self) {
        *self = Known::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_are_forgotten() {
        let mut known = Known::default();
        let digest = |number: usize| Digest::of(&number.to_le_bytes());
        for number in 0..=MAX_KNOWN {
            known.learn(digest(number), 7);
            known.learn(digest(number), 8);
        }
        assert_eq!(known.has(digest(0)), None);
        assert_eq!(known.has(digest(MAX_KNOWN)), Some(8));
        known.forget(digest(MAX_KNOWN));
        assert_eq!(
            (known.has(digest(MAX_KNOWN)), known.bytes.len()),
            (None, MAX_KNOWN - 1)
        );
        assert_eq!(known.order.len(), MAX_KNOWN - 1);
    }
}
