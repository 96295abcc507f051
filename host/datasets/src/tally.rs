//! Scores put together.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::item::{Item, Mix, Reference};
use crate::score::Score;

/// A mean that grows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Mean {
    /// Values so far.
    pub count: u64,
    /// Their sum.
    pub sum: f64,
}

impl Mean {
    fn add(&mut self, value: f64) {
        self.count += 1;
        self.sum += value;
    }

    /// The mean; none of nothing.
    pub fn value(&self) -> Option<f64> {
        (self.count > 0).then(|| self.sum / self.count as f64)
    }

    /// In percent, rounded to two decimals as the official `vqaEval.py` does.
    pub fn percent(&self) -> Option<f64> {
        let value = 100.0 * self.sum / self.count as f64;
        // Rounds the exact number, ties to even, which is what Python's `round` does.
        (self.count > 0).then(|| format!("{value:.2}").parse().unwrap_or(value))
    }
}

/// Figures of multiple choice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct ChoiceFigures {
    /// Rows answered rightly, of those answered.
    pub vanilla: Mean,
    /// Questions of which every rotation was answered rightly, of those of which every rotation was answered.
    pub circular: Mean,
    /// Questions of which some rotation was not answered; they do not count in `circular`.
    pub incomplete: u64,
}

/// Figures of descriptions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct FactFigures {
    /// Facts that the references have.
    pub total: u64,
    /// Stated rightly.
    pub right: u64,
    /// Stated wrongly.
    pub wrong: u64,
}

/// What is reported apart: no mean is taken over two of these.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Key {
    /// The set's name.
    pub set: String,
    /// Descriptions, or short answers.
    pub long: bool,
    /// Whether the mix occurs in training.
    pub seen_mix: bool,
}

/// Figures over some answers.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Figures {
    /// The mean score.
    pub accuracy: Mean,
    /// By VQAv2's question type or MMBench's category.
    pub by_kind: BTreeMap<String, Mean>,
    /// By VQAv2's answer type or MMBench's l2-category.
    pub by_answer_type: BTreeMap<String, Mean>,
    /// By mix of media.
    pub by_mix: BTreeMap<Mix, Mean>,
    /// Answers in which there was nothing to score.
    pub unparsed: u64,
    /// For multiple choice.
    pub choice: Option<ChoiceFigures>,
    /// For descriptions.
    pub facts: Option<FactFigures>,
}

impl Figures {
    /// The share of answers in which there was nothing to score; none of nothing.
    pub fn unparsed_rate(&self) -> Option<f64> {
        let count = self.accuracy.count;
        (count > 0).then(|| self.unparsed as f64 / count as f64)
    }
}

/// Of one question, which rotations were answered.
#[derive(Clone, Debug, Default)]
struct Group {
    rotations: u32,
    /// Index of a row, and whether every answer to it was right.
    rows: BTreeMap<u64, bool>,
}

#[derive(Clone, Debug, Default)]
struct Part {
    figures: Figures,
    groups: BTreeMap<u64, Group>,
}

/// Collects scores, in any order.
#[derive(Clone, Debug, Default)]
pub struct Tally(BTreeMap<Key, Part>);

impl Tally {
    /// Counts the score of one answer. An item may come more than once: each time counts in the means, and a rotation of
    /// multiple choice is right if it was each time.
    pub fn add(&mut self, item: &Item, score: &Score) {
        let key = Key {
            set: item.set.to_string(),
            long: item.long,
            seen_mix: item.seen_mix,
        };
        let Part { figures, groups } = self.0.entry(key).or_default();
        let value = score.value;
        figures.accuracy.add(value);
        figures
            .by_kind
            .entry(item.kind.to_string())
            .or_default()
            .add(value);
        let answer_type = item.answer_type.to_string();
        figures
            .by_answer_type
            .entry(answer_type)
            .or_default()
            .add(value);
        figures.by_mix.entry(item.mix).or_default().add(value);
        figures.unparsed += u64::from(!score.parsed);
        if let Some(facts) = score.facts {
            let sums = figures.facts.get_or_insert_default();
            sums.total += u64::from(facts.total);
            sums.right += u64::from(facts.right);
            sums.wrong += u64::from(facts.wrong);
        }
        if let Reference::Choice(choice) = &item.reference {
            let group = groups.entry(choice.group).or_default();
            group.rotations = choice.rotations;
            let right = group.rows.entry(item.id).or_insert(true);
            *right &= value >= 1.0;
        }
    }

    /// All figures so far.
    pub fn figures(&self) -> BTreeMap<Key, Figures> {
        let all = self.0.iter();
        all.map(|(key, part)| (key.clone(), part.finish()))
            .collect()
    }
}

impl Part {
    fn finish(&self) -> Figures {
        let mut figures = self.figures.clone();
        if !self.groups.is_empty() {
            let mut choice = ChoiceFigures {
                vanilla: figures.accuracy,
                ..ChoiceFigures::default()
            };
            for group in self.groups.values() {
                if group.rows.len() == group.rotations as usize {
                    let all = group.rows.values().all(|right| *right);
                    choice.circular.add(f64::from(u8::from(all)));
                } else {
                    choice.incomplete += 1;
                }
            }
            figures.choice = Some(choice);
        }
        figures
    }
}
