//! Accuracy in rounds: what the looks behind them say, and who is asked further.
//!
//! A specification fixes beforehand after how many items it is looked ([`crate::spec::Accuracy::rounds`]). At a look a policy is
//! judged by all items so far, which the baseline was asked too, with bounds that are made for so many looks
//! ([`crate::stats::qualify_in_rounds`]). Who is decided is asked no further; the baseline goes on as long as another does. What is
//! asked behind a look counts at the next one, when it is whole, and not before.
//!
//! All of it follows from the rows of finished turns: a run that is gone on with asks what it would have asked anyway.

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::plan::{Purpose, Turn};
use crate::rows::Row;
use crate::spec::{Accuracy, Data, Spec};
use crate::stats::{Decided, Scores, Verdict, qualify_in_rounds};

/// An item that two policies were asked in turns of the same purpose.
pub(crate) struct Both<'a> {
    /// [`crate::rows::Key::repeat`]: of turns about accuracy the chunk.
    repeat: u32,
    group: Cow<'a, str>,
    /// One's score and the other's. None: nobody scored one of them.
    scores: Option<(f64, f64)>,
}

/// What both were asked.
pub(crate) fn both<'a>(one: &[&'a Row], other: &[&'a Row]) -> Vec<Both<'a>> {
    fn key(row: &Row) -> (Purpose, &str, u32, u32) {
        let key = &row.key;
        (key.purpose, key.arrival.as_str(), key.repeat, key.index)
    }
    let others: BTreeMap<_, &Row> = other.iter().map(|row| (key(row), *row)).collect();
    let paired = one.iter().filter_map(|row| {
        let other = others.get(&key(row))?;
        Some(Both {
            repeat: row.key.repeat,
            group: row.group(),
            scores: row.score().zip(other.score()),
        })
    });
    paired.collect()
}

/// The scores of those that have them.
pub(crate) fn scores<'b, 'a: 'b>(all: impl IntoIterator<Item = &'b Both<'a>>) -> Scores<'b> {
    let pairs = all.into_iter().filter_map(|it| {
        let (one, other) = it.scores?;
        Some((&*it.group, one, other))
    });
    Scores {
        pairs: pairs.collect(),
    }
}

/// What the looks say of a policy.
pub(crate) struct Told {
    /// None: nobody scored anything.
    pub(crate) verdict: Option<Verdict>,
    /// Rounds that are finished or wanted.
    pub(crate) rounds: u32,
    /// More may be wanted when these are finished.
    pub(crate) open: bool,
}

/// Judges a policy by what it and the baseline were both asked about accuracy.
pub(crate) fn judge(spec: &Spec, accuracy: &Accuracy, data: &Data, all: &[Both]) -> Told {
    let looks = accuracy.looks(spec.accuracy_data(data).n);
    let until = |items: u32| {
        let chunk = u64::from(accuracy.chunk);
        (all.iter()).filter(move |it| u64::from(it.repeat) * chunk < u64::from(items))
    };
    let is_whole = |items: &u32| until(*items).count() == *items as usize;
    let whole: Vec<u32> = looks.iter().copied().take_while(is_whole).collect();
    let judged = |reached: Vec<Scores>| {
        let margin = spec.margin_points();
        qualify_in_rounds(reached, looks.len(), margin)
    };
    if whole.is_empty() {
        // Before the first look nothing is decided, however it seems to be.
        let first = u64::from(looks.first().copied().unwrap_or(0));
        let verdict = judged(vec![scores(all)]).map(|it| Verdict {
            decided: Decided::Undecided {
                more: Some(first.saturating_sub(it.items as u64)),
            },
            ..it
        });
        return Told {
            verdict,
            rounds: 1,
            open: looks.len() > 1,
        };
    }
    let verdict = judged(whole.iter().map(|items| scores(until(*items))).collect());
    let goes_on = verdict.is_some_and(|it| !it.is_decided()) && whole.len() < looks.len();
    let rounds = whole.len() + usize::from(goes_on);
    Told {
        verdict,
        rounds: rounds as u32,
        open: goes_on && rounds < looks.len(),
    }
}

/// Which turns are wanted, by what is known.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// By data set, link (none where links are pooled) and policy, where there is more than the first round.
    rounds: BTreeMap<(String, String, String), u32>,
    pooled: bool,
    open: bool,
}

impl Wanted {
    /// By these rows, all of finished turns.
    pub fn of(spec: &Spec, rows: &[Row]) -> Wanted {
        let mut wanted = Wanted {
            pooled: spec.is_pooled(),
            ..Wanted::default()
        };
        let Some(accuracy) = spec.accuracy.as_ref().filter(|it| !it.rounds.is_empty()) else {
            return wanted;
        };
        let pooled = wanted.pooled;
        let asked: Vec<&Row> = (rows.iter())
            .filter(|it| it.key.purpose == Purpose::Accuracy)
            .collect();
        // Where links are pooled, rows are of all of them.
        let links: Vec<&str> = match pooled {
            true => vec![""],
            false => (spec.accuracy_links().into_iter())
                .map(|it| it.name.as_str())
                .collect(),
        };
        for data in &spec.data {
            for &link in &links {
                let is_here =
                    |it: &&Row| it.key.data == data.name && (pooled || it.key.link == link);
                let here: Vec<&Row> = asked.iter().copied().filter(is_here).collect();
                let of = |policy: &str| -> Vec<&Row> {
                    let rows = here.iter().copied();
                    rows.filter(|it| it.key.policy == policy).collect()
                };
                let baseline = of(&spec.baseline);
                let mut most = 1;
                for policy in spec.policies.iter().map(|it| it.name.as_str()) {
                    if policy == spec.baseline || !accuracy.grows(policy) {
                        continue;
                    }
                    let told = judge(spec, accuracy, data, &both(&of(policy), &baseline));
                    wanted.open |= told.open;
                    wanted.set(&data.name, link, policy, told.rounds);
                    most = most.max(told.rounds);
                }
                wanted.set(&data.name, link, &spec.baseline, most);
            }
        }
        wanted
    }

    fn set(&mut self, data: &str, link: &str, policy: &str, rounds: u32) {
        let key = (data.to_owned(), link.to_owned(), policy.to_owned());
        self.rounds.insert(key, rounds);
    }

    /// Whether a turn of the plan is.
    pub fn wants(&self, turn: &Turn) -> bool {
        if turn.purpose != Purpose::Accuracy || turn.round == 0 {
            return true;
        }
        let link = if self.pooled {
            ""
        } else {
            turn.link.name.as_str()
        };
        let key = (
            turn.data.name.clone(),
            link.to_owned(),
            turn.policy.name.clone(),
        );
        self.rounds.get(&key).is_some_and(|it| turn.round < *it)
    }

    /// More turns may be wanted when these are finished.
    pub fn is_open(&self) -> bool {
        self.open
    }
}

#[cfg(test)]
mod tests;
