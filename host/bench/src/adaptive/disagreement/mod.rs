//! Confident mode on the demo pair: how many of its answers are not the target's, beside the operator's budget.
//!
//! Each budget has a pair of nodes of its own. Its questions are first asked for the target's own answers, which teaches the
//! edge what its drafts are worth; then requests are drawn from them, each from all, so that they are exchangeable. The policy
//! speculates always, in confident mode, and commits whatever the host lets it: what holds it back is the host alone.

mod told;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use msao_core::chat::Modality;
use msao_hostile::MANIFEST;
use msao_hostile::build::{Core, Decision};
use serde_json::{Value, json};

use self::told::{Audits, Counts, Seen, Shown, told};
use super::phases::asked_of;
use super::progress::Progress;
use super::questions::Draw;
use super::setting::Setting;
use super::turns::shape;
use crate::nodes::client::{activate, ask, bring, operate};
use crate::nodes::pair::{Pair, Places, Wanted};
use crate::report::Row;
use crate::vqa::{Question, read};

/// The part's name.
pub const PART: &str = "disagreement";
/// Shares of requests that may be broken, and requests under each. So many that the audits among them are about twice those
/// that it takes, all agreeing, to open anything: 70 at 5%, 354 at 1%.
const BUDGETS: [(f64, usize); 2] = [(0.05, 3_000), (0.01, 7_000)];
/// Share of requests that are audited.
const RATE: f64 = 0.1;
/// Chance, at most, that a threshold over budget opens.
const DELTA: f64 = 0.05;
/// Drafts judged before audits begin.
const SETTLE: u64 = 2_000;
/// Questions that requests are drawn from.
const QUESTIONS: usize = 800;
/// Requests between two looks at the audits.
const ROUND: usize = 200;
/// Clients that share a round.
const CLIENTS: usize = 8;
/// What the requests under a budget may take; fewer are asked where it is not enough.
const WITHIN: Duration = Duration::from_secs(270);
/// Rounds of questions for the target alone, beyond the first of each, until the map has settled.
const MORE_ROUNDS: usize = 20;
/// What audits under way at the end may take.
const ENDING: Duration = Duration::from_secs(30);
const SEED: u64 = 0xd15a;

/// Numbers of a route, a mode and an action.
const SPECULATE: u8 = 3;
const CONFIDENT: u8 = 1;
const COMMIT: u32 = 2;

/// The part's rows.
///
/// # Errors
/// A node does not come up, or a request fails.
pub fn rows(setting: &Setting) -> Result<Vec<Row>> {
    setting.interrupt.check("this part had not begun")?;
    let places = setting.places()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let questions = questions(&setting.heldout)?;
        let requests: usize = BUDGETS.iter().map(|(_, requests)| requests).sum();
        let all = requests + BUDGETS.len() * questions.len();
        let mut progress = Progress::new("requests", all, 0);
        let mut rows = Vec::new();
        for (budget, requests) in BUDGETS {
            let shown = under(
                setting,
                &places,
                budget,
                requests,
                &questions,
                &mut progress,
            );
            let shown = shown
                .await
                .with_context(|| format!("under a budget of {budget}"))?;
            rows.extend(told(&shown));
        }
        progress.end();
        Ok(rows)
    })
}

/// Short questions about a picture, or about nothing.
fn questions(folder: &Path) -> Result<Vec<Question>> {
    let still = |question: &Question| {
        let mut kinds = question.media.iter().map(|(modality, _)| *modality);
        kinds.all(|modality| modality == Modality::Image)
    };
    let mut all: Vec<Question> = read(folder)?
        .into_iter()
        .filter(|question| question.seen_mix && !question.long && still(question))
        .collect();
    ensure!(
        all.len() >= QUESTIONS,
        "{} has {} short questions about a picture or about nothing, and {QUESTIONS} are asked: make a larger set with \
         models/recipe/data.py",
        folder.display(),
        all.len()
    );
    Draw(SEED).shuffle(&mut all);
    all.truncate(QUESTIONS);
    Ok(all)
}

/// A policy that always speculates in confident mode, and commits what it may.
fn committing() -> Core {
    let decision = Decision {
        route: SPECULATE,
        peer: 1,
        mode: CONFIDENT,
        in_flight_max: 8,
        patience_ms: 1000.0,
        ..Decision::default()
    };
    Core {
        step: format!("(i32.const {COMMIT})"),
        ..Core::deciding(&decision)
    }
}

/// A budget, on a pair of nodes of its own.
async fn under(
    setting: &Setting,
    places: &Places,
    budget: f64,
    requests: usize,
    questions: &[Question],
    progress: &mut Progress,
) -> Result<Shown> {
    let wanted = Wanted {
        shape: shape("200 Mbit/s"),
        sections: format!(
            "[confident]\nbudget = {budget:?}\naudit-rate = {RATE:?}\ndelta = {DELTA:?}\nsettle-drafts = {SETTLE}\n"
        ),
        ..Wanted::default()
    };
    let pair = Pair::start(places, &wanted).await?;
    let release = bring(pair.operator, &committing().build()?, MANIFEST).await?;
    activate(pair.operator, &release).await?;
    let bodies: Result<Vec<Value>> = questions.iter().map(asked_of).collect();
    let bodies = Arc::new(bodies?);
    let asking = Asking {
        setting,
        pair: &pair,
        draw: Draw(SEED),
    };
    asking.all(bodies, budget, requests, progress).await
}

/// Somebody who asks a pair.
struct Asking<'a> {
    setting: &'a Setting,
    pair: &'a Pair,
    draw: Draw,
}

impl Asking<'_> {
    async fn all(
        mut self,
        bodies: Arc<Vec<Value>>,
        budget: f64,
        requests: usize,
        progress: &mut Progress,
    ) -> Result<Shown> {
        let right = self.targets_own(&bodies, progress).await?;
        let mut shown = Shown {
            budget,
            all: Counts::default(),
            open: Counts::default(),
            audits: audits(self.pair.operator).await?,
        };
        let began = Instant::now();
        while shown.all.requests < requests && began.elapsed() < WITHIN {
            let drawn = self.drawn(bodies.len(), ROUND.min(requests - shown.all.requests));
            let before = shown.audits;
            let seen = self.round(&bodies, &drawn, progress).await?;
            shown.audits = audits(self.pair.operator).await?;
            let floors = [before.floor, shown.audits.floor];
            let open =
                floors.iter().any(Option::is_some) || seen.iter().any(|it| it.unverified > 0);
            for one in &seen {
                let right = right.get(one.question).context("no such question")?;
                shown.all.add(one, right);
                if open {
                    shown.open.add(one, right);
                }
            }
        }
        let end = Instant::now() + ENDING;
        while shown.audits.pending > 0 && Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(50)).await;
            shown.audits = audits(self.pair.operator).await?;
        }
        Ok(shown)
    }

    /// The target's own answer to each question. The edge learns from them until its map has settled.
    async fn targets_own(
        &mut self,
        bodies: &[Value],
        progress: &mut Progress,
    ) -> Result<Vec<String>> {
        let demanding = bodies.iter().cloned().map(|mut body| {
            if let Value::Object(fields) = &mut body {
                fields.insert("msao".into(), json!({ "require": "exact" }));
            }
            body
        });
        let demanding: Arc<Vec<Value>> = Arc::new(demanding.collect());
        let mut right = vec![String::new(); bodies.len()];
        let each: Vec<usize> = (0..bodies.len()).collect();
        for some in each.chunks(ROUND) {
            for seen in self.round(&demanding, some, progress).await? {
                ensure!(
                    seen.unverified == 0,
                    "an answer that had to be exact has {} unverified tokens",
                    seen.unverified
                );
                let place = right.get_mut(seen.question);
                *place.context("no such question")? = seen.text;
            }
        }
        for _ in 0..MORE_ROUNDS {
            if audits(self.pair.operator).await?.settled {
                return Ok(right);
            }
            let drawn = self.drawn(bodies.len(), ROUND);
            // These are beside those that progress is told of.
            self.asked(&demanding, &drawn).await?;
        }
        let told = audits(self.pair.operator).await?;
        ensure!(
            told.settled,
            "the target has judged {} drafts, and audits begin after {SETTLE}",
            told.drafts
        );
        Ok(right)
    }

    /// So many questions by number, each drawn from all.
    fn drawn(&mut self, questions: usize, count: usize) -> Vec<usize> {
        (0..count).map(|_| self.draw.below(questions)).collect()
    }

    async fn round(
        &self,
        bodies: &Arc<Vec<Value>>,
        numbers: &[usize],
        progress: &mut Progress,
    ) -> Result<Vec<Seen>> {
        let interrupt = &self.setting.interrupt;
        interrupt.check("this part is shown as a whole")?;
        let seen = self.asked(bodies, numbers).await?;
        seen.iter().for_each(|_| progress.step());
        Ok(seen)
    }

    /// Asks questions, by number, by several clients at once.
    async fn asked(&self, bodies: &Arc<Vec<Value>>, numbers: &[usize]) -> Result<Vec<Seen>> {
        let api = self.pair.edge.api;
        let clients = (0..CLIENTS).map(|client| {
            let own = numbers.iter().skip(client).step_by(CLIENTS);
            let (own, bodies) = (own.copied().collect::<Vec<usize>>(), Arc::clone(bodies));
            tokio::spawn(async move {
                let mut seen = Vec::with_capacity(own.len());
                for question in own {
                    let body = bodies.get(question).context("no such question")?;
                    seen.push(one(api, question, body).await?);
                }
                anyhow::Ok(seen)
            })
        });
        let clients: Vec<_> = clients.collect();
        let mut all = Vec::with_capacity(numbers.len());
        for client in clients {
            all.extend(client.await??);
        }
        Ok(all)
    }
}

/// What the edge tells of its audits.
async fn audits(operator: SocketAddr) -> Result<Audits> {
    Audits::of(&operate(operator, "/v1/calibration/acceptance", None).await?)
}

async fn one(api: SocketAddr, question: usize, body: &Value) -> Result<Seen> {
    let answer = ask(api, body).await?;
    ensure!(answer.is_whole(), "{} {:?}", answer.status, answer.error);
    let told = |key: &str| {
        let told = answer.report.get(key);
        told.with_context(|| format!("the answer does not tell {key}"))
    };
    ensure!(
        *told("degraded")? == json!(false) && *told("outside_budget_tokens")? == json!(0),
        "the link was lost to an answer"
    );
    let unverified = told("unverified_tokens")?.as_u64();
    Ok(Seen {
        question,
        tokens: answer.tokens,
        unverified: unverified.context("unverified_tokens is no number")?,
        audited: *told("audited")? == json!(true),
        text: answer.text,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_policy_is_a_component() {
        assert!(!committing().build().unwrap().is_empty());
    }
}
