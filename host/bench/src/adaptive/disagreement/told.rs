//! What was seen under a budget, and the rows that it makes.

use anyhow::{Result, bail, ensure};
use msao_adapt::audit::bound;
use serde_json::{Value, json};

use super::DELTA;
use crate::report::Row;

/// What came of one request.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    /// Which question it was.
    pub question: usize,
    pub text: String,
    pub tokens: u64,
    pub unverified: u64,
    pub audited: bool,
}

/// What came of many.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub requests: usize,
    pub audited: usize,
    /// With a token committed unverified, and of those the ones that are not the target's own answer.
    pub unverified: usize,
    pub disagreed: usize,
    pub tokens: u64,
    pub unverified_tokens: u64,
    /// All of them the target's word, and not its own answer of before: numerical ties.
    pub ties: usize,
}

impl Counts {
    /// `right`: the target's own answer.
    pub fn add(&mut self, seen: &Seen, right: &str) {
        let differs = usize::from(seen.text != right);
        self.requests += 1;
        self.audited += usize::from(seen.audited);
        self.tokens += seen.tokens;
        self.unverified_tokens += seen.unverified;
        if seen.unverified > 0 {
            self.unverified += 1;
            self.disagreed += differs;
        } else {
            self.ties += differs;
        }
    }

    /// Requests that disagree, as a share of all; not a number of none.
    fn disagreement(&self) -> f64 {
        self.disagreed as f64 / self.requests as f64
    }

    fn unverified_share(&self) -> f64 {
        self.unverified_tokens as f64 / self.tokens as f64
    }
}

/// What the edge tells of its audits.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Audits {
    /// Drafts judged.
    pub drafts: u64,
    pub settled: bool,
    pub floor: Option<f64>,
    pub counted: u64,
    pub pending: u64,
    pub disagreed: u64,
    pub alarms: u64,
}

impl Audits {
    /// From `/v1/calibration/acceptance`.
    pub fn of(told: &Value) -> Result<Audits> {
        let list = |value: &Value, name: &str| -> Vec<Value> {
            let list = value.get(name).and_then(Value::as_array);
            list.cloned().unwrap_or_default()
        };
        let number = |value: &Value, name: &str| value.get(name).and_then(Value::as_u64);
        let pairs = list(told, "pairs");
        let pair = match pairs.as_slice() {
            [] => return Ok(Audits::default()),
            [pair] => pair,
            _ => bail!("the edge knows {} pairs of models", pairs.len()),
        };
        let classes = list(pair, "classes");
        // All requests are alike: another class would have audits of its own.
        ensure!(
            classes.len() <= 1,
            "there are {} classes of requests",
            classes.len()
        );
        let class = classes.first();
        let of_class = |name: &str| class.and_then(|class| number(class, name)).unwrap_or(0);
        Ok(Audits {
            drafts: number(pair, "drafts").unwrap_or(0),
            settled: pair.get("settled") == Some(&json!(true)),
            floor: class.and_then(|class| class.get("floor")?.as_f64()),
            counted: of_class("audits"),
            pending: of_class("pending"),
            disagreed: of_class("disagreements"),
            alarms: number(pair, "alarms").unwrap_or(0),
        })
    }
}

/// All that was seen under a budget.
#[derive(Clone, Debug)]
pub(super) struct Shown {
    pub budget: f64,
    /// From the first request on.
    pub all: Counts,
    /// In the rounds in which something was open.
    pub open: Counts,
    pub audits: Audits,
}

/// Audits without any disagreement that it takes to open something under a budget.
fn needed(budget: f64) -> u64 {
    const MOST: u64 = 100_000;
    let mut counts = 1..=MOST;
    counts
        .find(|count| bound(*count, 0, DELTA) <= budget)
        .unwrap_or(MOST)
}

/// The rows of a budget.
pub(super) fn told(shown: &Shown) -> Vec<Row> {
    let Shown {
        budget,
        all,
        open,
        audits,
    } = shown;
    let percent = 100.0 * budget;
    let name = |what: &str| format!("budget {percent}%: {what}");
    let mut rows = Vec::new();
    let while_open = name("requests that disagree, of those asked while something was open");
    rows.push(if open.requests > 0 {
        let share = open.disagreement();
        let error = (share * (1.0 - share) / open.requests as f64).sqrt();
        Row::at_most(while_open, 100.0 * share, percent, "%").with_details(vec![format!(
            "{} of {} requests, {} of which had a token committed unverified; standard error {:.2} points",
            open.disagreed,
            open.requests,
            open.unverified,
            100.0 * error
        )])
    } else {
        let why = format!(
            "nothing opened in {} requests: {} of {} audits disagreed at the highest threshold, and it takes {} without any",
            all.requests,
            audits.disagreed,
            audits.counted,
            needed(*budget)
        );
        Row::failed(while_open, &format!("<= {percent}%"), why)
    });
    rows.push(Row::at_most(
        name("the same of all requests under the budget"),
        100.0 * all.disagreement(),
        percent,
        "%",
    ));
    rows.push(Row::above(
        name("requests with a token committed unverified"),
        all.unverified as f64,
        0.0,
        "",
    ));
    rows.push(
        Row::told(
            name("unverified tokens, of all under the budget"),
            100.0 * all.unverified_share(),
            "%",
        )
        .with_more((open.tokens > 0).then(|| {
            let share = 100.0 * open.unverified_share();
            format!("{share:.1}% while something was open")
        })),
    );
    let floor = match audits.floor {
        Some(floor) => format!("open from an acceptance probability of {floor:.6} on"),
        None => "nothing is open".to_owned(),
    };
    rows.push(
        Row::told(name("audits counted"), audits.counted as f64, "").with_details(vec![format!(
            "{floor}; {} disagreed there; {} drift alarms; {} of {} requests were audited",
            audits.disagreed, audits.alarms, all.audited, all.requests
        )]),
    );
    rows.push(Row::told(
        name("answers that are all the target's word and differ from its own of before: ties"),
        all.ties as f64,
        "",
    ));
    rows
}

#[cfg(test)]
mod tests {
    use super::super::{BUDGETS, RATE};
    use super::*;

    #[test]
    fn audits_enough_to_open_something_are_among_the_requests() {
        assert_eq!((needed(0.05), needed(0.01)), (70, 354));
        for (budget, requests) in BUDGETS {
            let audits = RATE * requests as f64;
            assert!(audits > 1.5 * needed(budget) as f64, "{budget}: {audits}");
        }
    }

    #[test]
    fn what_the_edge_tells_of_audits_is_read() {
        assert_eq!(
            Audits::of(&json!({ "pairs": [] })).unwrap(),
            Audits::default()
        );
        let class = json!({
            "floor": 0.98, "requests": 500, "audits": 40, "pending": 2, "disagreements": 3, "progress": 0.5,
        });
        let pair = |classes: Vec<Value>| json!({ "pairs": [{ "drafts": 2_100, "settled": true, "alarms": 1, "classes": classes }] });
        let told = Audits::of(&pair(vec![class.clone()])).unwrap();
        let expected = Audits {
            drafts: 2_100,
            settled: true,
            floor: Some(0.98),
            counted: 40,
            pending: 2,
            disagreed: 3,
            alarms: 1,
        };
        assert_eq!(told, expected);
        // Learned from, and no request under the budget yet.
        let none = Audits::of(&pair(Vec::new())).unwrap();
        assert_eq!((none.settled, none.floor, none.counted), (true, None, 0));
        let closed = json!({ "floor": null, "audits": 7 });
        assert_eq!(Audits::of(&pair(vec![closed])).unwrap().floor, None);
        assert!(Audits::of(&pair(vec![class.clone(), class])).is_err());
    }

    fn seen(text: &str, unverified: u64, audited: bool) -> Seen {
        Seen {
            question: 0,
            text: text.to_owned(),
            tokens: 2,
            unverified,
            audited,
        }
    }

    #[test]
    fn only_an_answer_with_unverified_tokens_can_disagree() {
        let mut counts = Counts::default();
        for one in [
            seen("red", 1, false),
            seen("blue", 1, false),
            seen("blue", 0, false),
            seen("red", 0, true),
        ] {
            counts.add(&one, "red");
        }
        let expected = Counts {
            requests: 4,
            audited: 1,
            unverified: 2,
            disagreed: 1,
            tokens: 8,
            unverified_tokens: 2,
            ties: 1,
        };
        assert_eq!(counts, expected);
        assert_eq!(
            (counts.disagreement(), counts.unverified_share()),
            (0.25, 0.25)
        );
    }

    /// So many requests while something was open, of which so many disagreed, behind 100 before.
    fn shown(requests: usize, disagreed: usize) -> Shown {
        let mut all = Counts::default();
        for _ in 0..100 {
            all.add(&seen("red", 0, false), "red");
        }
        let mut open = Counts::default();
        for number in 0..requests {
            let text = if number < disagreed { "blue" } else { "red" };
            for counts in [&mut all, &mut open] {
                counts.add(&seen(text, 1, false), "red");
            }
        }
        Shown {
            budget: 0.05,
            all,
            open,
            audits: Audits::default(),
        }
    }

    #[test]
    fn the_share_is_held_against_the_budget() {
        let met = |shown: &Shown| -> Vec<bool> { told(shown).iter().map(|row| row.met).collect() };
        assert_eq!(met(&shown(100, 5)), [true; 6]);
        // Those before anything was open make it look smaller.
        let rows = told(&shown(100, 6));
        assert_eq!((rows[0].met, rows[1].met), (false, true), "{rows:?}");
        assert_eq!((rows[0].value, rows[1].value), (Some(6.0), Some(3.0)));
        assert!(!told(&shown(100, 11))[1].met);
        // Where nothing opened nothing is shown.
        let rows = told(&shown(0, 0));
        assert_eq!((rows[0].met, rows[0].value), (false, None), "{rows:?}");
        assert!(rows[0].details[0].contains("it takes 70"), "{rows:?}");
        assert!(rows[1].met && !rows[2].met, "{rows:?}");
    }
}
