//! Drafts as they come: which are void, which wait, which the target has overtaken.

use std::collections::VecDeque;

use super::Effect;
use super::machine::Cloud;
use crate::PrefixDigest;
use crate::frame::{Draft, RefusedCode};

/// Drafts that follow what the target has chosen.
#[derive(Clone, Debug)]
pub(super) struct Pending {
    ids: VecDeque<u32>,
    most: usize,
    epoch: u32,
    /// A draft of this epoch lost against the target: what still comes of it is void.
    lost: bool,
    round: u32,
}

impl Pending {
    pub fn new(epoch: u32, most: usize) -> Self {
        Pending {
            ids: VecDeque::new(),
            most,
            epoch,
            lost: false,
            round: 0,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    /// The newest round taken in; 0 before the first.
    pub fn round(&self) -> u32 {
        self.round
    }

    pub fn first(&self, count: usize) -> Vec<u32> {
        self.ids.iter().take(count).copied().collect()
    }

    pub fn clear(&mut self) {
        self.ids.clear();
    }

    pub fn begin(&mut self, epoch: u32) {
        self.ids.clear();
        self.epoch = epoch;
        self.lost = false;
    }

    /// Lays the target's next choice over the drafts; true if the first of them says the same.
    pub fn meet(&mut self, id: u32) -> bool {
        match self.ids.pop_front() {
            Some(draft) if draft == id => true,
            Some(_) => {
                self.lose();
                false
            }
            None => false,
        }
    }

    fn lose(&mut self) {
        self.ids.clear();
        self.lost = true;
    }
}

/// What contradicts the protocol in a draft.
type Wrong = (RefusedCode, &'static str);

impl Cloud {
    pub(super) fn drafted(&mut self, draft: Draft, out: &mut Vec<Effect>) {
        if let Err((code, why)) = self.take_draft(draft, out) {
            self.refuse(code, 0.0, why, out);
        }
    }

    fn take_draft(&mut self, draft: Draft, out: &mut Vec<Effect>) -> Result<(), Wrong> {
        if draft.session != self.request.session {
            return Err((RefusedCode::Protocol, "a draft belongs to another session"));
        }
        let pending = &mut self.pending;
        if draft.round <= pending.round || draft.epoch < pending.epoch {
            self.counters.stale_rounds += 1;
            return Ok(());
        }
        pending.round = draft.round;
        // Even a round whose drafts are void says that no more will come.
        self.decode_on |= draft.last;
        if draft.epoch > pending.epoch {
            pending.begin(draft.epoch);
        } else if pending.lost {
            self.counters.stale_rounds += 1;
            return Ok(());
        }
        let start = draft.start as usize;
        if start > self.chosen.len() + self.pending.ids.len() {
            return Err((RefusedCode::Protocol, "a draft leaves a gap before it"));
        }
        if !draft.forced.is_empty() {
            if start > self.chosen.len() {
                return Err((RefusedCode::Protocol, "forced ids follow drafts"));
            }
            if start + draft.forced.len() > self.request.max_tokens as usize {
                let why = "forced ids go on behind the last token of the answer";
                return Err((RefusedCode::Protocol, why));
            }
            self.pending.ids.clear();
            self.take_to(start, &draft.forced, out);
        }
        self.check_prefix(&draft)?;
        self.propose(start + draft.forced.len(), &draft.proposed)
    }

    /// The edge's committed prefix must be the answer here, as far as it goes.
    fn check_prefix(&mut self, draft: &Draft) -> Result<(), Wrong> {
        let committed = draft.committed as usize;
        let ids = self.chosen.get(..committed).ok_or((
            RefusedCode::Prefix,
            "the edge has committed more than the target has chosen",
        ))?;
        match ids.get(self.prefix.len()..) {
            // Forced ids may have changed what was hashed, and an earlier place cannot be taken out of a hash.
            Some(new) if draft.forced.is_empty() => self.prefix.extend(new),
            _ => self.prefix = PrefixDigest::of(ids),
        }
        if self.prefix.digest() != draft.prefix {
            let why = "the committed prefix is another one here";
            return Err((RefusedCode::Prefix, why));
        }
        Ok(())
    }

    /// Takes drafts in that begin at place `start`.
    fn propose(&mut self, start: usize, proposed: &[u32]) -> Result<(), Wrong> {
        let end = self.chosen.len() + self.pending.ids.len();
        if !self.pending.is_empty() && start != end {
            let why = "a draft overlaps those before it";
            return Err((RefusedCode::Protocol, why));
        }
        self.counters.drafts += proposed.len() as u32;
        // The target may have gone on: as far as it did, the drafts must say the same.
        let overtaken = self.chosen.get(start..).unwrap_or_default();
        let over = overtaken.len().min(proposed.len());
        let (passed, waiting) = proposed.split_at_checked(over).unwrap_or((proposed, &[]));
        if passed.iter().zip(overtaken).any(|(a, b)| a != b) {
            self.pending.lose();
            return Ok(());
        }
        self.counters.accepted += over as u32;
        let room = (self.request.max_tokens as usize).saturating_sub(start);
        if proposed.len() > room {
            let why = "drafts go on behind the last token of the answer";
            return Err((RefusedCode::Protocol, why));
        }
        if self.pending.ids.len() + waiting.len() > self.pending.most {
            return Err((RefusedCode::Protocol, "too many drafts are in flight"));
        }
        self.pending.ids.extend(waiting);
        Ok(())
    }
}
