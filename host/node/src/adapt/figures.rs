//! What is known, for people: operators and metrics.

use std::sync::atomic::Ordering;

use msao_adapt::acceptance::Mix;
use msao_adapt::audit;
use msao_core::chat::Modality;
use serde::Serialize;

use super::known::{Known, Trial};
use super::{Adapt, Class, Pair};

/// What is known of a pair.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct PairFigures {
    /// Which.
    pub pair: Pair,
    /// Drafts learned from.
    pub drafts: u64,
    /// Drafts that could not be.
    pub ignored: u64,
    /// Weights of the score, as in [`msao_adapt::acceptance::Map::weights`].
    pub weights: Vec<f64>,
    /// Scores and acceptance probabilities between which the map is linear.
    pub knots: Vec<(f64, f64)>,
    /// By what requests were made of, those of which any draft was judged.
    pub mixes: Vec<MixFigures>,
    /// Whether the map has been held still, so that audits can be.
    pub settled: bool,
    /// How many times it has been.
    pub revision: u64,
    /// Drift alarms so far.
    pub alarms: u64,
    /// Audits, by class.
    pub classes: Vec<ClassFigures>,
}

/// Drafts of requests of one mix of modalities, older ones counting less.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct MixFigures {
    /// Such as `text+image`.
    pub mix: String,
    /// Judged.
    pub drafted: f64,
    /// Of them, accepted.
    pub accepted: f64,
    /// Judged and accepted by acceptance probability, in sixteenths.
    pub bins: Vec<(f64, f64)>,
}

/// What audits have shown of a class.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct ClassFigures {
    /// Which.
    pub class: Class,
    /// The same in words.
    pub name: String,
    /// Drafts from this acceptance probability on may be committed unverified; None: none may.
    pub floor: Option<f64>,
    /// Requests so far.
    pub requests: u64,
    /// Audits counted.
    pub audits: u64,
    /// Audits under way.
    pub pending: usize,
    /// Of those counted, that disagreed at the floor, or at the highest threshold where there is none.
    pub disagreements: u64,
    /// What is known against the next lower threshold being over budget, as a share of what opens it; at most 1.
    pub progress: f64,
    /// The drift detector's level as a share of an alarm's.
    pub drift: f64,
    /// Of the coin.
    pub seed: u64,
}

/// What the thread that learns has done since the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Counted {
    /// Checkpoints that reached the disk, or had nothing to write.
    pub checkpoints: u64,
    /// Checkpoints that failed.
    pub failed_checkpoints: u64,
    /// Kept values that could not be read at the start.
    pub unreadable: u64,
    /// Judged drafts that were not learned from, because there were too many.
    pub lost: u64,
}

/// A mix in words.
fn name(mix: Mix) -> String {
    let media = [Modality::Image, Modality::Video, Modality::Audio].into_iter();
    let media = media.filter(|modality| mix.has(*modality));
    media.fold("text".to_owned(), |name, modality| {
        name + "+" + modality.name()
    })
}

fn pair(pair: &Pair, known: &Known) -> PairFigures {
    let map = known.learner.map();
    let mixes = Mix::all().map(|mix| {
        let total = known.counts.total(mix);
        let bins = known.counts.bins(mix);
        MixFigures {
            mix: name(mix),
            drafted: total.drafted,
            accepted: total.accepted,
            bins: bins.iter().map(|bin| (bin.drafted, bin.accepted)).collect(),
        }
    });
    PairFigures {
        pair: pair.clone(),
        drafts: known.learner.judged(),
        ignored: known.learner.ignored() + known.counts.ignored(),
        weights: map.weights().to_vec(),
        knots: map.knots().to_vec(),
        mixes: mixes.filter(|mix| mix.drafted > 0.0).collect(),
        settled: known.settled.is_some(),
        revision: known.revision,
        alarms: known.alarms,
        classes: (known.classes.iter())
            .map(|(class, trial)| shown(*class, trial))
            .collect(),
    }
}

fn shown(class: Class, trial: &Trial) -> ClassFigures {
    let audit::Figures {
        audits,
        pending,
        disagreements,
        progress,
        drift,
        ..
    } = trial.audit.figures();
    ClassFigures {
        class,
        name: class.to_string(),
        floor: trial.audit.open_threshold(),
        requests: trial.next,
        audits,
        pending,
        disagreements,
        progress,
        drift,
        seed: trial.audit.config().seed,
    }
}

impl Adapt {
    /// All pairs of which anything is known.
    pub fn figures(&self) -> Vec<PairFigures> {
        let learned = self.shared.learned();
        let pairs = learned.pairs.iter();
        let known = pairs.filter(|(_, known)| known.learner.judged() > 0 || known.revision > 0);
        known.map(|(of, known)| pair(of, known)).collect()
    }

    /// What the thread has done.
    pub fn counted(&self) -> Counted {
        let counts = &self.shared.counts;
        Counted {
            checkpoints: counts.checkpoints.load(Ordering::Relaxed),
            failed_checkpoints: counts.failed_checkpoints.load(Ordering::Relaxed),
            unreadable: counts.unreadable.load(Ordering::Relaxed),
            lost: self.shared.lost.count(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mixes_have_names() {
        let mixes: Vec<String> = Mix::all().map(name).collect();
        assert_eq!(mixes[0], "text");
        assert_eq!(mixes[7], "text+image+video+audio");
    }
}
