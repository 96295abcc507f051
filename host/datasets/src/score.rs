//! From an answer to a number.

use serde::Serialize;

use crate::facts::Comparison;
use crate::item::{Item, Reference};

/// How good an answer is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Score {
    /// In `[0, 1]`: VQAv2's soft accuracy; 1 or 0 for multiple choice; the share of facts of a description.
    pub value: f64,
    /// Whether there was anything to score: a word, one option, one fact. If not, the value is 0, but for a set whose own
    /// answer is empty.
    pub parsed: bool,
    /// Facts stated rightly and wrongly, for descriptions.
    pub facts: Option<Comparison>,
}

/// Scores the whole text that a model answered with.
pub fn score(item: &Item, answer: &str) -> Score {
    match &item.reference {
        Reference::Vqa(answers) => {
            let (value, parsed) = answers.score(answer);
            Score {
                value,
                parsed,
                facts: None,
            }
        }
        Reference::Choice(choice) => {
            let picked = choice.extract(answer);
            Score {
                value: f64::from(u8::from(picked == Some(choice.letter))),
                parsed: picked.is_some(),
                facts: None,
            }
        }
        Reference::Facts(description) => {
            let facts = description.compare(answer);
            Score {
                value: facts.share(),
                parsed: facts.right + facts.wrong > 0,
                facts: Some(facts),
            }
        }
    }
}
