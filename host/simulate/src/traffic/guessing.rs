//! How well a draft model guesses an answer, and what it says of its guesses.

use std::sync::Arc;

use msao_core::offload::BINS;
use serde::{Deserialize, Serialize};

use crate::error::{Result, must, within};

/// How well the draft model guesses an answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Guessing {
    /// Drawn place by place.
    Drawn(Drawn),
    /// As a recorded answer was guessed.
    Recorded {
        /// What the draft model said of its guesses, one after the other; begun anew at the end.
        said: Arc<[Said]>,
        /// How often guesses stood of which it said so much, by [`BINS`] of acceptance probability.
        stood: [f64; BINS],
        /// As [`Drawn::blind`].
        blind: f64,
    },
}

/// What a draft model says of a guess.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Said {
    /// Probability that the target accepts it.
    pub p_accept: f64,
    /// Its probability in the draft model.
    pub top1: f64,
    /// Entropy of the draft's distribution.
    pub entropy_nats: f64,
    /// Between the draft's two best, in logits.
    pub margin: f64,
}

/// Guesses that are drawn. Place by place a *doubt* is drawn, the probability that the guess is wrong there:
///
/// ```text
/// fresh = doubt * ((1 - spread) + spread * 4 * u * u')      u, u' uniform: its mean is doubt
/// level = correlation * level before + (1 - correlation) * fresh
/// said  = level * (1 - overconfidence) * (1 + blur * (2 u'' - 1))
/// ```
///
/// The guess is wrong with probability `level`, and the draft model says that it is with probability `said`. So hard places
/// come together, as they do in texts, and what a draft says of itself has to be learned.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Drawn {
    /// Mean probability that a guess is wrong, in `[0, 1]`.
    pub doubt: f64,
    /// How much places differ, in `[0, 1]`; 0: all are alike.
    pub spread: f64,
    /// How much a place is like the one before, in `[0, 1)`.
    pub correlation: f64,
    /// The share of its doubt that the draft does not own up to, in `(-1, 1)`; below 0 it doubts more than it need.
    pub overconfidence: f64,
    /// How far what it says is off, either way, in `[0, 1)`.
    pub blur: f64,
    /// Probability of a wrong guess at a place that would have been right, where all that the answer needs of the media was dropped
    /// from the draft's input; less of it where less was dropped. Not measured yet: an assumption.
    pub blind: f64,
}

impl Default for Drawn {
    fn default() -> Drawn {
        Drawn {
            doubt: 0.2,
            spread: 0.7,
            correlation: 0.5,
            overconfidence: 0.2,
            blur: 0.2,
            blind: 0.5,
        }
    }
}

impl Drawn {
    /// Guesses that are right with the same probability everywhere, and say so.
    pub fn even(acceptance: f64) -> Drawn {
        Drawn {
            doubt: 1.0 - acceptance,
            spread: 0.0,
            correlation: 0.0,
            overconfidence: 0.0,
            blur: 0.0,
            blind: 0.0,
        }
    }

    fn check(&self, at: &str) -> Result<()> {
        const BELOW_ONE: f64 = 1.0 - 1e-6;
        for (name, value, least, most) in [
            ("doubt", self.doubt, 0.0, 1.0),
            ("spread", self.spread, 0.0, 1.0),
            ("correlation", self.correlation, 0.0, BELOW_ONE),
            ("overconfidence", self.overconfidence, -BELOW_ONE, BELOW_ONE),
            ("blur", self.blur, 0.0, BELOW_ONE),
            ("blind", self.blind, 0.0, 1.0),
        ] {
            within(|| format!("{at}.{name}"), value, least, most)?;
        }
        Ok(())
    }
}

impl Default for Guessing {
    fn default() -> Guessing {
        Guessing::Drawn(Drawn::default())
    }
}

impl Guessing {
    /// Checks every value.
    pub(crate) fn check(&self, at: &str) -> Result<()> {
        let (said, stood, blind) = match self {
            Guessing::Drawn(drawn) => return drawn.check(at),
            Guessing::Recorded { said, stood, blind } => (said, stood, *blind),
        };
        within(|| format!("{at}.blind"), blind, 0.0, 1.0)?;
        must(
            !said.is_empty(),
            || format!("{at}.said"),
            || "is empty; allowed: what was said of one guess or more".to_owned(),
        )?;
        for (place, said) in said.iter().enumerate() {
            for (name, value, most) in [
                ("p-accept", said.p_accept, 1.0),
                ("top1", said.top1, 1.0),
                ("entropy-nats", said.entropy_nats, 1e6),
                ("margin", said.margin, 1e6),
            ] {
                within(|| format!("{at}.said[{place}].{name}"), value, 0.0, most)?;
            }
        }
        for (bin, share) in stood.iter().enumerate() {
            within(|| format!("{at}.stood[{bin}]"), *share, 0.0, 1.0)?;
        }
        Ok(())
    }
}
