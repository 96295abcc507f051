//! What is asked, when, and what is true of it that no policy sees.

mod draw;
mod generate;
mod guessing;
mod recorded;

use std::sync::Arc;

use msao_core::offload::{Part, Report, Score, Scores, modality};
use msao_registry::driver::Random;

pub use self::generate::{Generator, Mix, Pattern};
pub use self::guessing::{Drawn, Guessing, Said};
pub use self::recorded::{Recorded, link_of};
use crate::error::{Result, must, within};

/// Tokens of a prompt, and of an answer, at most: what a session's frames allow.
pub const MOST_TOKENS: u32 = 1 << 17;
/// Media of a question at most.
const MOST_MEDIA: usize = 256;
/// Questions at most.
const MOST_QUESTIONS: usize = 10_000_000;
/// Latest arrival, and longest deadline: a year.
const MOST_MS: f64 = 366.0 * 86_400_000.0;

/// Questions, and how they come.
#[derive(Clone, Debug, Default)]
pub struct Traffic {
    /// In the order in which they come, if they come by the clock.
    pub questions: Vec<Question>,
    /// How they come.
    pub arrivals: Arrivals,
}

/// How questions come.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Arrivals {
    /// Each at its own moment, whatever became of the others.
    #[default]
    ByClock,
    /// Each edge has so many clients. A client asks its edge's next question so long after the answer before; moments of
    /// questions do not count.
    InTurn {
        /// Clients of an edge.
        clients: u32,
        /// Between an answer and the next question, in ms.
        think_ms: f64,
    },
}

/// One question.
#[derive(Clone, Debug)]
pub struct Question {
    /// The edge that it comes to, from 0.
    pub edge: u32,
    /// When, in ms since the beginning.
    pub arrives_ms: f64,
    /// Its own randomness: what it is asked with, and what is drawn for it. Equal seeds are equal under every policy.
    pub seed: u64,
    /// Pictures, clips and sounds, in reading order.
    pub media: Vec<Medium>,
    /// Tokens of all text, 1 or more.
    pub text_tokens: u32,
    /// Bytes of all text.
    pub text_bytes: f64,
    /// Tokens of the answer at most.
    pub max_tokens: u32,
    /// Tokens after which the target ends it; `max_tokens` if it would go on.
    pub answer_tokens: u32,
    /// Time for the whole answer, in ms; 0 for none.
    pub deadline_ms: f64,
    /// Sampling temperature, as policies are told.
    pub temperature: f64,
    /// The operator's number for the client.
    pub tenant: u32,
    /// Bits of [`msao_core::offload::flag`], as it comes.
    pub flags: u32,
    /// How well the draft model guesses the answer.
    pub guessing: Guessing,
    /// What a probe sees, for a post-processor that is a plug-in. None: the truth takes its answer's place.
    pub report: Option<Arc<Report>>,
}

/// A picture, a clip or a sound.
#[derive(Clone, Debug, PartialEq)]
pub struct Medium {
    /// A number of [`modality`], not text.
    pub modality: u8,
    /// Tokens in the prompt.
    pub tokens: u32,
    /// Frames or segments; 1 for a picture.
    pub frames: u32,
    /// Pixels across; 0 for a sound.
    pub width_px: u32,
    /// Pixels down; 0 for a sound.
    pub height_px: u32,
    /// Length of a clip or a sound, in ms.
    pub duration_ms: f64,
    /// Bytes as the client sends them.
    pub bytes: f64,
    /// Whether peers have it already.
    pub cached: bool,
    /// How much the answer needs it, in `[0, 1]`.
    pub necessity: f64,
    /// The share of it that can go, in `[0, 1]`.
    pub mas: f64,
    /// How far it is from what calibration has seen, in `[0, 1]`.
    pub unusual: f64,
}

impl Question {
    /// A question of text alone that arrives at once: what tests and examples begin with.
    pub fn plain(edge: u32, prompt_tokens: u32, answer_tokens: u32) -> Question {
        Question {
            edge,
            arrives_ms: 0.0,
            seed: 1,
            media: Vec::new(),
            text_tokens: prompt_tokens,
            text_bytes: 4.0 * f64::from(prompt_tokens),
            max_tokens: answer_tokens,
            answer_tokens,
            deadline_ms: 0.0,
            temperature: 0.0,
            tenant: 0,
            flags: 0,
            guessing: Guessing::default(),
            report: None,
        }
    }

    /// Tokens of the prompt before anything is dropped.
    pub fn prompt_tokens(&self) -> u32 {
        self.media.iter().map(|medium| medium.tokens).sum::<u32>() + self.text_tokens
    }

    /// As a policy sees it before the probe.
    pub(crate) fn parts(&self) -> Vec<Part> {
        let unprobed = Part {
            necessity: -1.0,
            mas: -1.0,
            unusual: -1.0,
            ..Part::default()
        };
        let media = self.media.iter().map(|medium| Part {
            modality: medium.modality,
            tokens: medium.tokens,
            frames: medium.frames,
            width_px: medium.width_px,
            height_px: medium.height_px,
            duration_ms: medium.duration_ms,
            bytes: medium.bytes,
            ..unprobed.clone()
        });
        let text = Part {
            modality: modality::TEXT,
            tokens: self.text_tokens,
            bytes: self.text_bytes,
            ..unprobed.clone()
        };
        media.chain([text]).collect()
    }

    /// What a post-processor that is always right would say.
    pub(crate) fn truth(&self) -> Scores {
        let score = |medium: &Medium| Score {
            necessity: medium.necessity,
            mas: medium.mas,
            spatial: medium.mas,
            temporal: 0.0,
            unusual: medium.unusual,
            keep_order: Vec::new(),
        };
        Scores {
            items: self.media.iter().map(score).collect(),
            updates: Vec::new(),
        }
    }

    fn check(&self, at: &str, edges: u32) -> Result<()> {
        let whole = |name: &str, value: u32, least: u32, most: u32| {
            must(
                (least..=most).contains(&value),
                || format!("{at}.{name}"),
                || format!("is {value}; allowed: {least} to {most}"),
            )
        };
        let number =
            |name: &str, value: f64, most: f64| within(|| format!("{at}.{name}"), value, 0.0, most);
        whole("edge", self.edge, 0, edges.saturating_sub(1))?;
        number("arrives-ms", self.arrives_ms, MOST_MS)?;
        whole("text-tokens", self.text_tokens, 1, MOST_TOKENS)?;
        number("text-bytes", self.text_bytes, 1e12)?;
        whole("max-tokens", self.max_tokens, 1, MOST_TOKENS)?;
        whole("answer-tokens", self.answer_tokens, 1, self.max_tokens)?;
        number("deadline-ms", self.deadline_ms, MOST_MS)?;
        number("temperature", self.temperature, 2.0)?;
        let count = self.media.len();
        must(
            count <= MOST_MEDIA,
            || format!("{at}.media"),
            || format!("has {count} entries; allowed: up to {MOST_MEDIA}"),
        )?;
        for (place, medium) in self.media.iter().enumerate() {
            let kind = medium.modality;
            must(
                (modality::IMAGE..=modality::AUDIO).contains(&kind),
                || format!("{at}.media[{place}].modality"),
                || format!("is {kind}; allowed: 1 (image), 2 (video), 3 (audio)"),
            )?;
            whole(
                &format!("media[{place}].tokens"),
                medium.tokens,
                1,
                MOST_TOKENS,
            )?;
            for (name, value, most) in [
                ("duration-ms", medium.duration_ms, MOST_MS),
                ("bytes", medium.bytes, 1e12),
                ("necessity", medium.necessity, 1.0),
                ("mas", medium.mas, 1.0),
                ("unusual", medium.unusual, 1.0),
            ] {
                number(&format!("media[{place}].{name}"), value, most)?;
            }
        }
        let media: u64 = self.media.iter().map(|it| u64::from(it.tokens)).sum();
        let tokens = media + u64::from(self.text_tokens);
        must(
            tokens <= u64::from(MOST_TOKENS),
            || format!("{at}.media"),
            || format!("and text have {tokens} tokens; allowed: up to {MOST_TOKENS}"),
        )?;
        self.guessing.check(&format!("{at}.guessing"))
    }
}

impl Traffic {
    /// The same questions so many times, one round behind the other. In the first round everything is as it was; in later ones
    /// answers are drawn anew, so that they say more of what usually happens.
    #[must_use]
    pub fn repeated(&self, rounds: u32) -> Traffic {
        let first = self.questions.first().map_or(0.0, |it| it.arrives_ms);
        let last = self.questions.last().map_or(0.0, |it| it.arrives_ms);
        let gaps = self.questions.len().saturating_sub(1).max(1) as f64;
        let round_ms = (last - first) * (1.0 + 1.0 / gaps);
        let mut questions = self.questions.clone();
        for round in 1..rounds {
            questions.extend(self.questions.iter().map(|question| Question {
                arrives_ms: question.arrives_ms + f64::from(round) * round_ms,
                seed: Random::fork(question.seed, u64::from(round)).bits(),
                ..question.clone()
            }));
        }
        Traffic {
            questions,
            arrivals: self.arrivals,
        }
    }

    /// Checks every question, for a world of so many edges.
    ///
    /// # Errors
    /// [`crate::SimulateError::Value`], naming the field and what is allowed.
    pub fn check(&self, edges: u32) -> Result<()> {
        let count = self.questions.len();
        must(
            (1..=MOST_QUESTIONS).contains(&count),
            || "questions".to_owned(),
            || format!("has {count} entries; allowed: 1 to {MOST_QUESTIONS}"),
        )?;
        if let Arrivals::InTurn { clients, think_ms } = self.arrivals {
            must(
                (1..=1_000_000).contains(&clients),
                || "arrivals.clients".to_owned(),
                || format!("is {clients}; allowed: 1 to 1000000"),
            )?;
            within(|| "arrivals.think-ms".to_owned(), think_ms, 0.0, MOST_MS)?;
        }
        let mut before_ms = 0.0;
        for (number, question) in self.questions.iter().enumerate() {
            question.check(&format!("questions[{number}]"), edges)?;
            let at_ms = question.arrives_ms;
            must(
                at_ms >= before_ms || self.arrivals != Arrivals::ByClock,
                || format!("questions[{number}].arrives-ms"),
                || format!("is {at_ms}; allowed: {before_ms}, that of the one before, or later"),
            )?;
            before_ms = at_ms;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_follow_each_other_and_are_drawn_anew() {
        let at = |arrives_ms, seed| Question {
            arrives_ms,
            seed,
            ..Question::plain(0, 10, 5)
        };
        let once = Traffic {
            questions: vec![at(10.0, 1), at(30.0, 2), at(50.0, 3)],
            ..Traffic::default()
        };
        let thrice = once.repeated(3);
        assert!(thrice.check(1).is_ok());
        let moments: Vec<f64> = thrice.questions.iter().map(|it| it.arrives_ms).collect();
        assert_eq!(
            moments,
            [10.0, 30.0, 50.0, 70.0, 90.0, 110.0, 130.0, 150.0, 170.0]
        );
        let mut seeds: Vec<u64> = thrice.questions.iter().map(|it| it.seed).collect();
        assert_eq!(seeds[..3], [1, 2, 3]);
        seeds.sort_unstable();
        seeds.dedup();
        assert_eq!(seeds.len(), 9);
        assert_eq!(once.repeated(0).questions.len(), 3);
        assert!(Traffic::default().repeated(4).questions.is_empty());
    }
}
