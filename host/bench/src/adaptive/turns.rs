//! What a pair of nodes is asked by several ways in turn, so that what else the machine does meets all of them alike; and
//! whether the adaptive policy declines what cannot pay.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::phases::{asked_of, mean};
use super::progress::Progress;
use super::questions::Draw;
use super::setting::Setting;
use crate::nodes::client::{Answer, ask, is_already_active, operate, push, question};
use crate::nodes::pair::{Pair, Wanted};
use crate::report::Row;
use crate::vqa::{Question, read};

/// The part of a policy that declines.
pub const DECLINES: &str = "declines";
/// Round trip in ms of these parts.
const ROUND_TRIP_MS: f64 = 20.0;
/// The ways of [`declines`], ours first. Each comes first with every question in one of as many rounds, each on a pair of nodes of its own.
const DECLINING: [&str; 3] = ["msao", "cloud-only", "cloud-draft"];
/// Questions to get used to a pair with, and questions that count.
const USED_TO: usize = 30;
const COUNTED: usize = 120;
/// How much slower the adaptive policy may be than the best.
const SLOWER: f64 = 1.03;
/// Points of accuracy that it may lose meanwhile.
const POINTS: f64 = 0.4;
const SEED: u64 = 0xdec1;

/// Something active: a policy, and a post-processor or `"nothing"`.
pub(super) struct Way {
    /// For people.
    pub name: &'static str,
    /// Its release.
    pub policy: Value,
    /// Likewise.
    pub postprocessor: Value,
}

impl Way {
    /// Makes it active, and has it plan once: what an exchange costs the first request after it is no part of how a policy
    /// plans.
    pub async fn choose(&self, pair: &Pair) -> Result<()> {
        let body = json!({ "policy": self.policy, "postprocessor": self.postprocessor });
        match operate(pair.operator, "/v1/activate", Some(&body)).await {
            Err(error) if !is_already_active(&error) => return Err(error),
            _ => {}
        }
        let mut greeting = question("demo", &[], "Hello.")?;
        if let Value::Object(fields) = &mut greeting {
            fields.insert("max_completion_tokens".into(), json!(1));
        }
        answered(pair, &greeting).await?;
        Ok(())
    }
}

/// A link of the parts' round trip and so many bits a second each way, as TOML of an edge's peer.
pub(super) fn shape(bps: &str) -> String {
    let way = format!(
        "delay-ms = {:?}\nbandwidth = \"{bps}\"\n",
        ROUND_TRIP_MS / 2.0
    );
    format!("[peers.shape.up]\n{way}[peers.shape.down]\n{way}")
}

/// A whole answer, of a link that was not lost.
///
/// # Errors
/// It is none.
pub async fn answered(pair: &Pair, body: &Value) -> Result<Answer> {
    let answer = ask(pair.edge.api, body).await?;
    ensure!(answer.is_whole(), "{} {:?}", answer.status, answer.error);
    let degraded = answer.report.get("degraded") == Some(&json!(true));
    ensure!(!degraded, "the link was lost to an answer");
    Ok(answer)
}

/// Does a part's work, which waits for nodes.
///
/// # Errors
/// The work's, or no thread starts.
pub fn run<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(work)
}

/// The adaptive policy where speculation cannot pay: the demo pair over a link of 20 ms.
///
/// # Errors
/// A node does not come up, or a request fails.
pub fn declines(setting: &Setting) -> Result<Vec<Row>> {
    setting.interrupt.check("this part had not begun")?;
    let places = setting.places()?;
    run(async {
        let wanted = Wanted {
            shape: shape("200 Mbit/s"),
            ..Wanted::default()
        };
        let mut all: Vec<Question> = read(&setting.heldout)?;
        all.retain(|question| question.seen_mix && !question.media.is_empty());
        Draw(SEED).shuffle(&mut all);
        all.truncate(USED_TO + COUNTED);
        let rounds = DECLINING.len();
        let mut progress = Progress::new("questions, each by three ways", rounds * all.len(), 0);
        let mut times: Vec<Vec<f64>> = vec![Vec::new(); DECLINING.len()];
        // Of short answers, whether they are right, each way's in the order of the questions.
        let mut right: Vec<Vec<bool>> = vec![Vec::new(); DECLINING.len()];
        let mut routes: Vec<String> = Vec::new();
        let mut looked = 0;
        for round in 0..rounds {
            let pair = Pair::start(&places, &wanted).await?;
            let mas = push(pair.operator, &places.plugins, "mas-joint").await?;
            let mut ways = Vec::new();
            for name in DECLINING {
                ways.push(Way {
                    name,
                    policy: push(pair.operator, &places.plugins, name).await?,
                    postprocessor: match name {
                        "msao" => mas.clone(),
                        _ => json!("nothing"),
                    },
                });
            }
            for (number, question) in all.iter().enumerate() {
                setting.interrupt.check("this part is shown as a whole")?;
                // Who comes first sends the picture and has it encoded: each does so with every question, in one round.
                for turn in 0..ways.len() {
                    let chosen = (number + round + turn) % ways.len();
                    let (Some(way), Some(times), Some(right)) = (
                        ways.get(chosen),
                        times.get_mut(chosen),
                        right.get_mut(chosen),
                    ) else {
                        continue;
                    };
                    way.choose(&pair).await?;
                    let answer = answered(&pair, &asked_of(question)?).await;
                    let answer =
                        answer.with_context(|| format!("{}, {}", way.name, question.id))?;
                    if number >= USED_TO {
                        times.push(answer.total.as_secs_f64() * 1000.0);
                        if !question.long {
                            right.push(answer.text.trim() == question.answer);
                        }
                        if chosen == 0 {
                            let route = answer.report.get("route").and_then(Value::as_str);
                            routes.push(route.unwrap_or_default().to_owned());
                            looked += usize::from(is_probed(&answer.report));
                        }
                    }
                }
                progress.step();
            }
        }
        progress.end();
        let means: Vec<f64> = times.iter().map(|it| mean(it.iter().copied())).collect();
        let ours = means.first().copied().unwrap_or(f64::NAN);
        let others = means.iter().skip(1).copied();
        let best = others.fold(f64::INFINITY, f64::min);
        let told = DECLINING.into_iter().zip(&means);
        let told: Vec<String> = told
            .map(|(name, ms)| format!("{name} {ms:.1} ms"))
            .collect();
        let speculated = routes.iter().filter(|route| *route == "speculate").count();
        routes.sort();
        routes.dedup();
        Ok(vec![
            Row::at_most(
                "msao beside the best of cloud-only and cloud-draft, demo pair, 20 ms",
                ours / best,
                SLOWER,
                "",
            )
            .with_details(vec![
                told.join(", "),
                format!(
                    "its routes: {}; {speculated} times it speculated, and {looked} times it asked for the probe",
                    routes.join(", ")
                ),
            ]),
            kept(&right),
        ])
    })
}

/// How much less often the first way's short answers are right than the second's, which are the target's: to be quick by being
/// wrong would be no declining. `right` has the same questions in the same order.
fn kept(right: &[Vec<bool>]) -> Row {
    let name = "points of accuracy that msao loses to cloud-only there";
    let (Some(own), Some(other)) = (right.first(), right.get(1)) else {
        return Row::failed(name, "<= 0.4", "no short answer was compared");
    };
    if own.is_empty() || own.len() != other.len() {
        return Row::failed(name, "<= 0.4", "no short answer was compared");
    }
    let share = |right: &[bool]| 100.0 * mean(right.iter().map(|right| f64::from(*right)));
    let lost = |(own, other): (&bool, &bool)| f64::from(*other) - f64::from(*own);
    let lost: Vec<f64> = own.iter().zip(other).map(lost).collect();
    let points = 100.0 * mean(lost.iter().copied());
    let square = mean(lost.iter().map(|it| (100.0 * it - points).powi(2)));
    // Each question is asked once a round, and answers to it are much alike: they count as one.
    let questions = lost.len() as f64 / DECLINING.len() as f64;
    let error = (square / questions.max(1.0)).sqrt();
    Row::at_most(name, points, POINTS, "").with_more(Some(format!(
        "{:.1}% of {} short answers are right, beside {:.1}%; standard error of the difference {error:.2} points",
        share(own),
        own.len(),
        share(other)
    )))
}

/// Whether anybody has looked at the media of an answer's request.
pub(super) fn is_probed(report: &Value) -> bool {
    let items = report.get("items").and_then(Value::as_array);
    let is_scored = |item: &Value| item.get("necessity").is_some_and(Value::is_number);
    items.is_some_and(|items| items.iter().any(is_scored))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn being_wrong_is_no_declining() {
        let cloud = vec![true; 300];
        let mut own = cloud.clone();
        own[7] = false;
        let row = kept(&[own.clone(), cloud.clone(), cloud.clone()]);
        assert!(row.met && row.value.unwrap() > 0.3, "{row:?}");
        own[8] = false;
        assert!(!kept(&[own, cloud.clone(), cloud.clone()]).met);
        // Nothing compared, or not the same.
        assert!(!kept(&[vec![], vec![]]).met && !kept(&[vec![true], cloud]).met && !kept(&[]).met);
    }

    #[test]
    fn what_was_looked_at_has_a_necessity() {
        let report = |necessity: Value| json!({ "items": [{ "necessity": necessity }] });
        assert!(is_probed(&report(json!(0.5))) && !is_probed(&report(Value::Null)));
        assert!(!is_probed(&json!({ "items": [] })) && !is_probed(&Value::Null));
    }
}
