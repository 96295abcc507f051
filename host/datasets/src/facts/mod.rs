//! Descriptions of the demo world's scenes, scored by the share of facts that they state rightly.
//!
//! A description is split into clauses (at `.`, `:`, `,`, `;`, line ends and "and"). A clause that is understood states a fact: a
//! *value* about a *subject*.
//!
//! | subject | value | clause |
//! |---|---|---|
//! | background | dark or light | "the picture has a dark background" |
//! | number of shapes in the picture | a number | "shows three shapes" |
//! | a ninth of the picture | colour and shape | "a red square at the top left" |
//! | the card | none, or where it is, digit or letter, and which | "a card in the center shows the digit 4" |
//! | number of shapes in the clip | a number | "the clip shows two shapes" |
//! | what moves | colour, shape and direction | "a green cross moves up" |
//! | a ninth of the clip | colour and shape | "a blue ring stays at the bottom" |
//! | the rest of the clip | nothing | "nothing else is there" |
//! | number of beeps | a number | "the sound has two beeps" |
//! | the first, second, ... beep | low, middle or high | "the second is low" |
//!
//! The reference states one value about each of its subjects. A subject counts as right if the answer states that value about it
//! and no other. The score is `right / subjects of the reference`; order, case and articles do not matter, nor does what is said
//! twice. `wrong` counts the different values stated that are not right: invented things, and both sides of a contradiction. A
//! clause that is not understood (cut off, or about something else) is neither, and is counted apart.
//!
//! All or nothing within a clause: "a red square at the top" for one at the top left is wrong, and the one at the top left is
//! missing.

mod clause;

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use self::clause::Medium;
pub use self::clause::{Subject, Value};

/// What a text says about a scene.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Statements {
    about: BTreeMap<Subject, BTreeSet<Value>>,
    unread: Vec<String>,
}

fn statements(text: &str) -> Statements {
    let mut all = Statements::default();
    let mut medium = Medium::Picture;
    for clause in clauses(text) {
        if let Some(named) = clause::medium(&clause) {
            medium = named;
        }
        match clause::read(&clause, medium) {
            Some((subject, value)) => {
                all.about.entry(subject).or_default().insert(value);
            }
            None => all.unread.push(clause.join(" ")),
        }
    }
    all
}

/// The words of each clause, in lower case.
fn clauses(text: &str) -> Vec<Vec<String>> {
    let lower = text.to_lowercase();
    let mut all = Vec::new();
    for part in lower.split(['.', ':', ',', ';', '\n']) {
        let words = part.split(|c: char| !c.is_alphanumeric());
        let words: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
        for clause in words.split(|word| *word == "and") {
            if !clause.is_empty() {
                all.push(clause.iter().map(|word| (*word).to_owned()).collect());
            }
        }
    }
    all
}

/// The facts of a reference answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    facts: BTreeMap<Subject, Value>,
}

/// How the facts of an answer compare with those of a reference.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Comparison {
    /// Facts that the reference has; at least 1.
    pub total: u32,
    /// Of those, stated and not contradicted.
    pub right: u32,
    /// Different facts stated that are not right.
    pub wrong: u32,
    /// Clauses that state no fact.
    pub unread: u32,
}

impl Comparison {
    /// The score: `right / total`.
    pub fn share(&self) -> f64 {
        f64::from(self.right) / f64::from(self.total.max(1))
    }
}

impl Description {
    /// Splits a reference answer into its facts.
    ///
    /// # Errors
    /// There is none, a clause states none, or two contradict each other.
    pub fn read(reference: &str) -> Result<Description, String> {
        let all = statements(reference);
        if let Some(clause) = all.unread.first() {
            return Err(format!(
                "{clause:?} is no fact of a scene: long answers are descriptions as models/recipe writes them"
            ));
        }
        let mut facts = BTreeMap::new();
        for (subject, values) in all.about {
            let mut values = values.into_iter();
            match (values.next(), values.next()) {
                (Some(value), None) => facts.insert(subject, value),
                _ => return Err(format!("says two things about {subject:?}")),
            };
        }
        if facts.is_empty() {
            return Err("there is no fact in it: it describes nothing".into());
        }
        Ok(Description { facts })
    }

    /// The facts.
    pub fn facts(&self) -> &BTreeMap<Subject, Value> {
        &self.facts
    }

    /// Holds an answer against this.
    pub fn compare(&self, answer: &str) -> Comparison {
        let said = statements(answer);
        let is_right = |(subject, value): (&Subject, &Value)| {
            let values = said.about.get(subject);
            values.is_some_and(|values| values.len() == 1 && values.contains(value))
        };
        let right = self.facts.iter().filter(|&fact| is_right(fact)).count();
        let stated: usize = said.about.values().map(BTreeSet::len).sum();
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        Comparison {
            total: count(self.facts.len()),
            right: count(right),
            wrong: count(stated - right),
            unread: count(said.unread.len()),
        }
    }
}

#[cfg(test)]
mod tests;
