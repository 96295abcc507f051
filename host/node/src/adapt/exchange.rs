//! Taking what was learned to another node that serves the same models, and forgetting it.
//!
//! What audits have shown is never taken: it is evidence of one node's own traffic.

use std::sync::Arc;

use msao_adapt::acceptance::{AcceptanceCounts, Learner, Mix};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::known::Known;
use super::{Adapt, Pair};

/// What was learned of a pair of models.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Exported {
    /// Which.
    pub pair: Pair,
    /// The acceptance map and what it was learned from.
    pub learner: Learner,
    /// Drafts by what requests were made of.
    pub counts: AcceptanceCounts,
}

/// Why what was learned elsewhere is not taken.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NotTaken {
    /// It was learned of other models.
    #[error(
        "it was learned of the draft model {draft} ({held}) and the target {target}, and this node serves {served}; \
         take it to a node that serves those, or have this one learn by itself"
    )]
    OtherModels {
        /// The draft model's digest, in short.
        draft: String,
        /// How it was held.
        held: String,
        /// The target's digest, in short.
        target: String,
        /// The pairs that are served here.
        served: String,
    },
    /// Nobody can have learned it.
    #[error("its counts do not fit together; export it anew")]
    Counts,
}

/// Whether drafts can have been counted so.
fn is_sound(counts: &AcceptanceCounts) -> bool {
    let cells = Mix::all().flat_map(|mix| counts.bins(mix));
    cells.into_iter().all(|cell| {
        let most = cell.drafted * (1.0 + 1e-9);
        cell.drafted.is_finite() && cell.drafted >= 0.0 && (0.0..=most).contains(&cell.accepted)
    })
}

impl Adapt {
    /// What was learned of every pair, without audits.
    pub fn export(&self) -> Vec<Exported> {
        let learned = self.shared.learned();
        let pairs = learned.pairs.iter();
        let known = pairs.filter(|(_, known)| known.learner.judged() > 0);
        known
            .map(|(pair, known)| Exported {
                pair: pair.clone(),
                learner: known.learner.clone(),
                counts: known.counts.clone(),
            })
            .collect()
    }

    /// Goes on from what was learned elsewhere of one of the pairs that are `served` here, in place of what was learned
    /// here. A map that audits hold to stays, and so do the audits. Gives how many drafts it was learned from.
    ///
    /// # Errors
    /// [`NotTaken`]: nothing has changed.
    pub fn import(&self, exported: Exported, served: &[Pair]) -> Result<u64, NotTaken> {
        let Exported {
            pair,
            learner,
            counts,
        } = exported;
        if !served.contains(&pair) {
            let here: Vec<String> = served
                .iter()
                .map(|pair| format!("{pair} ({})", pair.held))
                .collect();
            return Err(NotTaken::OtherModels {
                draft: pair.draft.short(),
                held: pair.held.chars().take(80).collect(),
                target: pair.target.short(),
                served: match here.is_empty() {
                    true => "no such pair".to_owned(),
                    false => here.join(", "),
                },
            });
        }
        if !is_sound(&counts) {
            return Err(NotTaken::Counts);
        }
        let drafts = learner.judged();
        let mut learned = self.shared.learned();
        let known = learned.of(&pair);
        known.learner = learner;
        known.counts = counts;
        known.unseen = true;
        known.unwritten = true;
        known.settle(self.shared.terms.as_ref());
        known.publish();
        Ok(drafts)
    }

    /// Forgets what was learned of a pair, audits included: nothing is committed unverified until new ones have shown
    /// that it may be. Gives from how many drafts it was learned; None: nothing is known of that pair.
    pub fn forget(&self, pair: &Pair) -> Option<u64> {
        let mut learned = self.shared.learned();
        let known = learned.pairs.get_mut(pair)?;
        let drafts = known.learner.judged();
        known.shut();
        let fresh = Known {
            live: Arc::clone(&known.live),
            // Audits that are under way are of maps before.
            revision: known.revision,
            used: known.used,
            unseen: true,
            unwritten: true,
            ..Known::default()
        };
        *known = fresh;
        known.publish();
        Some(drafts)
    }

    /// The pairs of which anything is known.
    pub fn pairs(&self) -> Vec<Pair> {
        self.shared.learned().pairs.keys().cloned().collect()
    }
}
