//! How many drafts were accepted, by how sure they were and what the request was made of.

use msao_core::chat::Modality;
use msao_core::offload::BINS;
use serde::{Deserialize, Serialize};

/// Combinations of media.
const MIXES: usize = 8;
/// Drafts of a mix after which an earlier one counts `1/e`.
const KEEP: f64 = 1.0 - 1.0 / 20_000.0;

/// What a request holds besides text, which all do.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Mix(u8);

impl Mix {
    /// Text alone.
    pub const TEXT: Mix = Mix(0);

    /// With a modality more.
    #[must_use]
    pub const fn with(self, modality: Modality) -> Mix {
        Mix(self.0 | Mix::bit(modality))
    }

    /// Whether it has a modality. Text, always.
    pub const fn has(self, modality: Modality) -> bool {
        let bit = Mix::bit(modality);
        self.0 & bit == bit
    }

    /// All mixes, text alone first.
    pub fn all() -> impl Iterator<Item = Mix> {
        (0..MIXES as u8).map(Mix)
    }

    const fn bit(modality: Modality) -> u8 {
        match modality {
            Modality::Text => 0,
            Modality::Image => 1,
            Modality::Video => 2,
            Modality::Audio => 4,
        }
    }
}

impl FromIterator<Modality> for Mix {
    fn from_iter<I: IntoIterator<Item = Modality>>(modalities: I) -> Mix {
        modalities.into_iter().fold(Mix::TEXT, Mix::with)
    }
}

/// Drafts of late, older ones counting less: whole numbers no longer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cell {
    /// Judged, at least 0.
    pub drafted: f64,
    /// Of them, accepted.
    pub accepted: f64,
}

impl Cell {
    /// The share that was accepted, in `[0, 1]`. None where there was nothing.
    pub fn rate(&self) -> Option<f64> {
        let rate = self.accepted / self.drafted;
        (rate.is_finite() && self.drafted > 0.0).then(|| rate.clamp(0.0, 1.0))
    }

    fn decay(&mut self) {
        self.drafted *= KEEP;
        self.accepted *= KEEP;
    }
}

/// Drafts judged and accepted, by mix of modalities and by bin of acceptance probability: bin i holds `[i/16,
/// (i+1)/16)`, the last one 1 as well, as in `Outcome`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AcceptanceCounts {
    mixes: [[Cell; BINS]; MIXES],
    ignored: u64,
}

impl Default for AcceptanceCounts {
    fn default() -> AcceptanceCounts {
        AcceptanceCounts {
            mixes: [[Cell::default(); BINS]; MIXES],
            ignored: 0,
        }
    }
}

impl AcceptanceCounts {
    /// A draft of a request was judged. Earlier ones of the mix count a little less. Ignored, and counted, where
    /// `acceptance` is not in `[0, 1]`.
    pub fn judged(&mut self, mix: Mix, acceptance: f64, accepted: bool) {
        let Some(bins) = self.mixes.get_mut(usize::from(mix.0)) else {
            return;
        };
        if !(0.0..=1.0).contains(&acceptance) {
            self.ignored = self.ignored.saturating_add(1);
            return;
        }
        bins.iter_mut().for_each(Cell::decay);
        let bin = ((acceptance * BINS as f64) as usize).min(BINS - 1);
        if let Some(cell) = bins.get_mut(bin) {
            cell.drafted += 1.0;
            cell.accepted += f64::from(u8::from(accepted));
        }
    }

    /// The drafts of a mix, by bin.
    pub fn bins(&self, mix: Mix) -> [Cell; BINS] {
        let bins = self.mixes.get(usize::from(mix.0));
        bins.copied().unwrap_or_default()
    }

    /// The drafts of a mix, all bins together.
    pub fn total(&self, mix: Mix) -> Cell {
        self.bins(mix)
            .iter()
            .fold(Cell::default(), |sum, cell| Cell {
                drafted: sum.drafted + cell.drafted,
                accepted: sum.accepted + cell.accepted,
            })
    }

    /// Drafts that could not be.
    pub fn ignored(&self) -> u64 {
        self.ignored
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mixes_and_bins_are_kept_apart() {
        let mut counts = AcceptanceCounts::default();
        let clip: Mix = [Modality::Text, Modality::Video, Modality::Audio]
            .into_iter()
            .collect();
        assert!(
            clip.has(Modality::Text) && clip.has(Modality::Audio) && !clip.has(Modality::Image)
        );
        counts.judged(clip, 0.5, true);
        counts.judged(clip, 1.0, true);
        counts.judged(clip, 0.999, false);
        counts.judged(Mix::TEXT, 0.0, false);
        for wrong in [f64::NAN, -0.1, 1.1] {
            counts.judged(clip, wrong, true);
        }
        assert_eq!(counts.ignored(), 3);
        let bins = counts.bins(clip);
        assert!((bins[8].drafted - 1.0).abs() < 1e-3 && bins[8].rate() == Some(1.0));
        assert!((bins[15].rate().unwrap() - 0.5).abs() < 1e-4);
        assert_eq!(bins[7], Cell::default());
        assert_eq!(counts.total(Mix::TEXT).rate(), Some(0.0));
        let image = Mix::TEXT.with(Modality::Image);
        assert_eq!(counts.total(image).rate(), None);
        assert_eq!(Mix::all().count(), 8);
        let stored = serde_json::to_string(&counts).unwrap();
        assert_eq!(
            serde_json::from_str::<AcceptanceCounts>(&stored).unwrap(),
            counts
        );
    }

    #[test]
    fn what_was_is_forgotten() {
        let mut counts = AcceptanceCounts::default();
        for _ in 0..60_000 {
            counts.judged(Mix::TEXT, 0.7, true);
        }
        for _ in 0..60_000 {
            counts.judged(Mix::TEXT, 0.7, false);
        }
        let cell = counts.bins(Mix::TEXT)[11];
        // e^-3 of the old.
        assert!((cell.rate().unwrap() - 0.05).abs() < 0.005, "{cell:?}");
        assert!(cell.drafted < 20_000.0);
    }
}
