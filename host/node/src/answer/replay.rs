//! What the draft model would have said in place of the target, token by token: what an audit needs to know.
//!
//! While an answer is given the draft model is asked about some of its places only: those that the target did not reach
//! first, on routes on which it drafts at all. An audit has to know of all. So once the answer is whole the draft model is
//! taken back to the prompt, and the target's tokens are laid before it as drafts: it says where it would have chosen
//! otherwise, and how sure it was everywhere. That takes a pass for each [`TOGETHER`] tokens and for each that it would
//! not have chosen, and nobody waits for it.

use std::fmt;
use std::time::Duration;

use msao_core::sampling::{Confidence, Pick};
use msao_engine::service::Verdict;

use crate::models::{Done, Order, Orders};

/// Tokens that the draft model reads in one pass at most: others share its passes.
const TOGETHER: usize = 32;
/// What takes longer is given up. A draft model under load has others to serve.
const WITHIN: Duration = Duration::from_secs(120);
/// Stamps of the orders, so that they are told from those of the answer.
const FIRST_STAMP: u64 = 1 << 63;

/// How sure the draft model is of its choice at a place of a verdict: as it was `told`, or else by the choice itself.
pub fn confidence(told: &[Confidence], place: usize, pick: &Pick) -> Confidence {
    told.get(place).copied().unwrap_or(Confidence {
        top1: pick.top1,
        entropy: pick.entropy,
        margin: pick.margin,
    })
}

/// A place of an answer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Place {
    /// What the draft model says of its own choice there.
    pub confidence: Confidence,
    /// Whether the target chose the same.
    pub accepted: bool,
}

/// An answer of the target's that is to be replayed.
pub struct Replay {
    draft: Orders,
    tokens: Vec<u32>,
    ended: bool,
    most: usize,
}

impl fmt::Debug for Replay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replay")
            .field("tokens", &self.tokens.len())
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}

impl Replay {
    /// Of an answer of these tokens, at most `most`; `ended`: the target ended it behind them. `draft`: the seat of the
    /// draft model, wherever it is in the answer.
    pub fn new(draft: Orders, tokens: Vec<u32>, ended: bool, most: usize) -> Replay {
        Replay {
            draft,
            tokens,
            ended,
            most,
        }
    }

    /// All places, in their order, the end's included. `None`: the draft model was lost, or took too long.
    pub async fn run(self) -> Option<Vec<Place>> {
        tokio::time::timeout(WITHIN, self.places()).await.ok()?
    }

    async fn places(mut self) -> Option<Vec<Place>> {
        let tokens = std::mem::take(&mut self.tokens);
        let mut places = Vec::with_capacity(tokens.len() + 1);
        self.draft.give(Order::RollBack(0));
        let mut stamp = FIRST_STAMP;
        // The answer's last place has nothing behind it that could be asked about.
        let all = (tokens.len() + usize::from(self.ended)).min(self.most);
        while places.len() < all {
            let at = places.len();
            // Behind what is laid before it there must be room for a choice of its own.
            let room = self.most.saturating_sub(at + 1);
            let laid: Vec<u32> = (tokens.iter().skip(at).take(TOGETHER.min(room)))
                .copied()
                .collect();
            let count = laid.len();
            self.draft.give(Order::Verify {
                stamp,
                drafts: laid,
            });
            let verdict = self.verdict(stamp).await?;
            stamp += 1;
            if verdict.picks.is_empty() || verdict.accepted > count {
                return None;
            }
            for (number, pick) in verdict.picks.iter().enumerate() {
                let place = at + number;
                if place >= all {
                    // A choice behind the answer's end.
                    break;
                }
                let ends = verdict.ended && number + 1 == verdict.picks.len();
                let accepted = match tokens.get(place) {
                    Some(token) => *token == pick.id && !ends,
                    None => ends,
                };
                places.push(Place {
                    confidence: confidence(&verdict.confidence, number, pick),
                    accepted,
                });
                if !accepted && let Some(token) = tokens.get(place) {
                    // On with the target's own.
                    self.draft.give(Order::RollBack(place as u32));
                    self.draft.give(Order::Append(vec![*token]));
                }
            }
        }
        Some(places)
    }

    /// The verdict of this stamp; what the answer had ordered before is passed over.
    async fn verdict(&mut self, wanted: u64) -> Option<Verdict> {
        loop {
            match self.draft.done().await {
                Done::Verified { stamp, verdict, .. } if stamp == wanted => return Some(verdict),
                Done::Verified { .. } | Done::Ready { .. } => {}
                Done::Failed(error) => {
                    tracing::info!(%error, "an audit could not be brought to its end");
                    return None;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
