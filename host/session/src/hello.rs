//! What two HELLOs agree on.
//!
//! Two nodes speak the newest version that both know; a node of version N speaks N-1 too, so neighbours always
//! understand each other. Digests decide what may be done together: what does not fit is left out by name, never
//! guessed at.

use crate::frame::limits::{NEWEST, OLDEST, SHIPMENTS};
use crate::frame::{Hello, Identity};

/// What may be done with a peer, seen from the node that calls itself the edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Agreement {
    /// The version that both speak.
    pub version: u8,
    /// The peer has a target: routes `cloud` and, with `drafts`, `speculate`.
    pub cloud: bool,
    /// Our draft model's ids mean the same to the peer's target: it may verify our drafts.
    pub drafts: bool,
    /// The peer has a draft model that fits its own target: route `cloud-draft`.
    pub cloud_draft: bool,
    /// Media have the same tokens on both sides: the edge's keep lists name the same tokens there.
    pub keep_lists: bool,
    /// The peer's target takes media that were made smaller for it ([`crate::frame::Made`]). To one of before that they go as
    /// they came, and keep lists say what is read of them.
    pub shipments: bool,
}

/// Two nodes have no version in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the peer speaks versions {} to {} of the protocol and this node {} to {}: upgrade the older one",
    theirs.0, theirs.1, ours.0, ours.1
)]
pub struct NoVersion {
    /// Oldest and newest of this node.
    pub ours: (u8, u8),
    /// Oldest and newest of the peer.
    pub theirs: (u8, u8),
}

impl Hello {
    /// Of this program, with the models that a node has.
    pub fn of(software: String, draft: Option<Identity>, target: Option<Identity>) -> Hello {
        Hello {
            oldest: OLDEST,
            newest: NEWEST,
            software,
            draft,
            target,
            shipments: SHIPMENTS,
        }
    }

    /// What this node (`self`, whose draft model drafts) may do with `peer` (whose target verifies).
    ///
    /// # Errors
    /// There is no common version.
    pub fn agree(&self, peer: &Hello) -> Result<Agreement, NoVersion> {
        let version = self.newest.min(peer.newest);
        if version < self.oldest.max(peer.oldest) {
            return Err(NoVersion {
                ours: (self.oldest, self.newest),
                theirs: (peer.oldest, peer.newest),
            });
        }
        let fits = |draft: Option<Identity>, same: fn(&Identity) -> _| match (draft, peer.target) {
            (Some(draft), Some(target)) => same(&draft) == same(&target),
            _ => false,
        };
        // Whoever lays the prompt out for the target on this side does so as its own models would.
        let layout = self.draft.or(self.target);
        Ok(Agreement {
            version,
            cloud: peer.target.is_some(),
            drafts: fits(self.draft, |identity| identity.tokenizer),
            cloud_draft: fits(peer.draft, |identity| identity.tokenizer),
            keep_lists: fits(layout, |identity| identity.processor),
            shipments: peer.target.is_some() && peer.shipments >= SHIPMENTS,
        })
    }
}

#[cfg(test)]
mod tests {
    use msao_core::digest::Digest;

    use super::*;

    fn identity(model: &str, tokenizer: &str, processor: &str) -> Option<Identity> {
        Some(Identity {
            model: Digest::of(model.as_bytes()),
            tokenizer: Digest::of(tokenizer.as_bytes()),
            processor: Digest::of(processor.as_bytes()),
        })
    }

    fn speaks(oldest: u8, newest: u8) -> Hello {
        Hello {
            oldest,
            newest,
            ..Hello::of(String::new(), None, None)
        }
    }

    #[test]
    fn neighbours_speak_the_older_ones_newest_version() {
        let cases = [
            ((1, 1), (1, 1), Some(1)),
            ((2, 3), (1, 2), Some(2)),
            ((1, 2), (2, 3), Some(2)),
            ((2, 3), (2, 3), Some(3)),
            ((3, 4), (1, 2), None),
            ((1, 2), (3, 4), None),
        ];
        for (ours, theirs, expected) in cases {
            let agreed = speaks(ours.0, ours.1).agree(&speaks(theirs.0, theirs.1));
            assert_eq!(agreed.ok().map(|agreed| agreed.version), expected);
        }
        let refused = speaks(3, 4).agree(&speaks(1, 2)).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "the peer speaks versions 1 to 2 of the protocol and this node 3 to 4: upgrade the older one"
        );
    }

    #[test]
    fn this_code_speaks_the_version_before_its_own() {
        assert!(OLDEST + 1 == NEWEST || (OLDEST, NEWEST) == (1, 1));
    }

    #[test]
    fn digests_decide_what_is_done_together() {
        let edge = Hello::of("edge".into(), identity("small", "t", "p"), None);
        let with = |draft, target| {
            let cloud = Hello::of("cloud".into(), draft, target);
            let agreed = edge.agree(&cloud).unwrap();
            (
                agreed.cloud,
                agreed.drafts,
                agreed.cloud_draft,
                agreed.keep_lists,
            )
        };
        let small = identity("small", "t", "p");
        let same = identity("large", "t", "p");
        assert_eq!(with(small, same), (true, true, true, true));
        let other_ids = identity("large", "u", "p");
        assert_eq!(with(small, other_ids), (true, false, false, true));
        let other_layout = identity("large", "t", "q");
        assert_eq!(with(None, other_layout), (true, true, false, false));
        assert_eq!(with(small, None), (false, false, false, false));
    }

    #[test]
    fn a_node_of_before_shipments_is_sent_none() {
        let edge = Hello::of("edge".into(), identity("small", "t", "p"), None);
        let cloud = Hello::of("cloud".into(), None, identity("large", "t", "p"));
        assert!(edge.agree(&cloud).unwrap().shipments);
        // What a later one takes, it takes besides.
        for (shipments, taken) in [(0, false), (SHIPMENTS, true), (SHIPMENTS + 1, true)] {
            let peer = Hello {
                shipments,
                ..cloud.clone()
            };
            assert_eq!(edge.agree(&peer).unwrap().shipments, taken);
        }
        // Who has no target reads nothing.
        assert!(!cloud.agree(&edge).unwrap().shipments);
    }
}
