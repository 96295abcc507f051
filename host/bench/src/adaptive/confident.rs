//! What confident mode breaks on the demo pair, beside the operator's budget.
//!
//! The edge answers within a budget: from the acceptance probability on that audits have opened its tokens are its own, the first one
//! below leaves the rest to the target. Whoever got an unverified token asks again for the target's answer: greedy, the two
//! differ exactly where the target would have chosen an unverified token otherwise, numerical ties aside.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::phases::asked_of;
use super::progress::Progress;
use super::questions::Draw;
use super::setting::Setting;
use super::turns::{answered, run};
use crate::nodes::client::operate;
use crate::nodes::pair::{Pair, Wanted};
use crate::report::Row;
use crate::vqa::{Question, read};

/// The part's name.
pub const PART: &str = "confident";
/// Share of requests that may be broken; of all, those that are audited.
const BUDGET: f64 = 0.05;
const RATE: f64 = 0.3;
/// Chance that a threshold over budget opens, at most.
const DELTA: f64 = 0.05;
/// Drafts that are judged before audits begin, and questions that are asked for that at most.
const SETTLE: u64 = 1_000;
const TAUGHT: usize = 600;
/// Questions within the budget: so many, or as many as are left, and no fewer than these.
const ASKED: usize = 1_500;
const FEWEST: usize = 500;
const SEED: u64 = 0xc0f;

/// What came of a request.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    audited: bool,
    tokens: u64,
    unverified: u64,
    /// The target's answer is another one.
    broken: bool,
}

/// The part's rows.
///
/// # Errors
/// A node does not come up, or a request fails.
pub fn rows(setting: &Setting) -> Result<Vec<Row>> {
    setting.interrupt.check("this part had not begun")?;
    let places = setting.places()?;
    run(async {
        let wanted = Wanted {
            more: format!(
                "[confident]\nbudget = {BUDGET:?}\naudit-rate = {RATE:?}\ndelta = {DELTA:?}\nsettle-drafts = {SETTLE}\n"
            ),
            ..Wanted::default()
        };
        let pair = Pair::start(&places, &wanted).await?;
        let mut all: Vec<Question> = read(&setting.heldout)?;
        all.retain(|question| question.seen_mix);
        Draw(SEED).shuffle(&mut all);
        let mut left = all.into_iter();
        // Drafts are judged where they are sent.
        pair.policy("fixed-speculate").await?;
        if !teach(setting, &pair, &mut left).await? {
            let why = format!("fewer than {SETTLE} drafts were judged in {TAUGHT} answers");
            return Ok(vec![Row::failed(name(), &aim(), why)]);
        }
        pair.policy("edge-only").await?;
        // Of a description nearly every one has a word that the target has not.
        let asked: Vec<Question> = left.filter(|question| !question.long).take(ASKED).collect();
        ensure!(
            asked.len() >= FEWEST,
            "{} has {} short questions left, and {FEWEST} are asked: make a larger set with models/recipe/data.py",
            setting.heldout.display(),
            asked.len()
        );
        let mut progress = Progress::new("requests within the budget", asked.len(), 0);
        let mut seen = Vec::new();
        for question in &asked {
            setting.interrupt.check("this part is shown as a whole")?;
            seen.push(one(&pair, question).await?);
            progress.step();
        }
        progress.end();
        Ok(told(&seen))
    })
}

/// Has drafts judged until the map of their acceptance is held still. False: too few were.
async fn teach(
    setting: &Setting,
    pair: &Pair,
    questions: &mut impl Iterator<Item = Question>,
) -> Result<bool> {
    for question in questions.take(TAUGHT) {
        setting.interrupt.check("this part is shown as a whole")?;
        let told = operate(pair.operator, "/v1/calibration/acceptance", None).await?;
        if told.pointer("/pairs/0/settled") == Some(&json!(true)) {
            return Ok(true);
        }
        answered(pair, &asked_of(&question)?).await?;
    }
    Ok(false)
}

/// Asks within the budget, and, where something of the answer was not verified, for the target's.
async fn one(pair: &Pair, question: &Question) -> Result<Seen> {
    let mut body = asked_of(question)?;
    let answer = answered(pair, &body).await?;
    let count = |key: &str| answer.report.get(key).and_then(Value::as_u64).unwrap_or(0);
    ensure!(
        count("outside_budget_tokens") == 0,
        "question {} was answered outside the budget",
        question.id
    );
    let unverified = count("unverified_tokens");
    let mut seen = Seen {
        audited: answer.report.get("audited") == Some(&json!(true)),
        tokens: answer.tokens,
        unverified,
        broken: false,
    };
    if unverified > 0 {
        if let Value::Object(fields) = &mut body {
            fields.insert("msao".into(), json!({ "require": "exact" }));
        }
        seen.broken = answered(pair, &body).await?.text != answer.text;
    }
    Ok(seen)
}

fn name() -> String {
    let percent = 100.0 * BUDGET;
    format!(
        "demo pair, answers of the edge under a budget of {percent} %: requests with an unverified token that is not the target's"
    )
}

fn aim() -> String {
    format!("<= {} %", 100.0 * BUDGET)
}

/// What came of all of them.
fn told(seen: &[Seen]) -> Vec<Row> {
    let requests = seen.len() as f64;
    let audits = seen.iter().filter(|it| it.audited).count();
    let confident = seen.iter().filter(|it| it.unverified > 0).count();
    let broken = seen.iter().filter(|it| it.broken).count();
    let Some(first) = seen.iter().position(|it| it.unverified > 0) else {
        // What never happens keeps any budget.
        let why = format!("nothing was committed unverified: {audits} audits opened no threshold");
        return vec![Row::failed(name(), &aim(), why)];
    };
    let sum = |of: fn(&Seen) -> u64| seen.iter().map(of).sum::<u64>() as f64;
    let share = 100.0 * sum(|it| it.unverified) / sum(|it| it.tokens).max(1.0);
    vec![
        Row::at_most(name(), 100.0 * broken as f64 / requests, 100.0 * BUDGET, " %").with_details(
            vec![format!(
                "{broken} of {} requests; {confident} had unverified tokens, the first one after {first}; {audits} were audited",
                seen.len()
            )],
        ),
        Row::told("the same: tokens that were committed unverified", share, " %"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXACT: Seen = Seen {
        audited: true,
        tokens: 4,
        unverified: 0,
        broken: false,
    };
    const FREE: Seen = Seen {
        audited: false,
        unverified: 2,
        ..EXACT
    };
    const BROKEN: Seen = Seen {
        broken: true,
        ..FREE
    };

    #[test]
    fn what_is_broken_is_held_against_the_budget() {
        let mut seen = vec![EXACT; 10];
        seen.extend([FREE; 9]);
        seen.push(BROKEN);
        let rows = told(&seen);
        // One of twenty is just the budget.
        assert_eq!((rows[0].value, rows[0].met), (Some(5.0), true));
        assert!(rows[0].details[0].contains("the first one after 10; 10 were audited"));
        assert_eq!(rows[1].value, Some(25.0));
        seen.push(BROKEN);
        assert!(!told(&seen)[0].met);
    }

    #[test]
    fn where_nothing_goes_unverified_nothing_is_shown() {
        let rows = told(&[EXACT; 20]);
        assert!(rows.len() == 1 && !rows[0].met && rows[0].value.is_none());
        assert!(!told(&[])[0].met);
    }
}
