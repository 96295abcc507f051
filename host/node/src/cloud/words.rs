//! What ids say, for an edge that reads by another tokenizer.

use std::collections::HashSet;
use std::sync::Arc;

use msao_processor::Processor;
use msao_session::frame::limits::MAX_WORDS;
use msao_session::frame::{Verdict, Word, Words};

/// Tells of each id once.
pub struct Teller {
    processor: Arc<Processor>,
    told: HashSet<u32>,
}

impl Teller {
    /// Of a target that reads by this.
    pub fn new(processor: &Arc<Processor>) -> Teller {
        Teller {
            processor: Arc::clone(processor),
            told: HashSet::new(),
        }
    }

    /// Nothing of what was told is known.
    pub fn begin_anew(&mut self) {
        self.told.clear();
    }

    /// What has to be told before this.
    pub fn tell(&mut self, verdict: &Verdict) -> Vec<Words> {
        // Drafts are not accepted from such an edge: every id of the answer stands in `next`.
        let places = verdict.logprobs.iter().flatten();
        let ranked = places.flat_map(|place| place.top.iter().chain([&place.chosen]));
        let ids = verdict.next.iter().copied();
        let new: Vec<u32> = ids
            .chain(ranked.map(|told| told.id))
            .filter(|id| self.told.insert(*id))
            .collect();
        let tokenizer = self.processor.tokenizer();
        let word = |&id: &u32| Word {
            id,
            bytes: tokenizer.token_bytes(id).unwrap_or_default().to_vec(),
            special: tokenizer.is_special(id),
        };
        let session = verdict.session;
        let words = |ids: &[u32]| Words {
            session,
            words: ids.iter().map(word).collect(),
        };
        new.chunks(MAX_WORDS).map(words).collect()
    }
}
