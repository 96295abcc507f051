//! What a pair of nodes is asked by several ways in turn, so that what else the machine does meets all of them alike: whether
//! the adaptive policy declines what cannot pay, and what the probe costs.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::phases::{asked_of, mean};
use super::progress::Progress;
use super::questions::Draw;
use super::setting::Setting;
use crate::nodes::client::{Answer, ask, bring, is_already_active, operate, push, question};
use crate::nodes::link::TWINS;
use crate::nodes::pair::{Pair, Wanted};
use crate::report::Row;
use crate::vqa::{Question, read};

/// The part of a policy that declines.
pub const DECLINES: &str = "declines";
/// The part of what the probe costs.
pub const COST: &str = "cost";
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
/// Pictures that each way is asked about, of which the first counts for nothing; no picture is asked about twice.
const PICTURES: usize = 15;
/// Tokens of an answer about one.
const TOKENS: u64 = 32;
/// Of the cloud's time, what probe and plug-ins may add.
const ADDED: f64 = 0.02;

/// What the manifest says of a policy that has everything probed.
const PROBED: &str = "probe = \"full\"";
/// The same of one that goes on at the target meanwhile.
const PROBED_AHEAD: &str = "probe = \"full\"\nahead = \"session\"";

/// Something active: a policy, and a post-processor or `"nothing"`.
struct Way {
    name: &'static str,
    policy: Value,
    postprocessor: Value,
}

impl Way {
    /// Makes it active, and has it plan once: what an exchange costs the first request after it is no part of how a policy
    /// plans.
    async fn choose(&self, pair: &Pair) -> Result<()> {
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

/// What probe and plug-ins add: a twin of a 0.5B model over a link of 20 ms and 200 Mbit/s.
///
/// # Errors
/// A node does not come up, or a request fails.
pub fn cost(setting: &Setting) -> Result<Vec<Row>> {
    setting.interrupt.check("this part had not begun")?;
    let places = setting.places()?;
    let [twin, _] = &TWINS;
    let made = twin.made(&places, &setting.scratch)?;
    run(async {
        let wanted = Wanted {
            draft: Some(made.join("draft")),
            target: Some(made.join("target")),
            held: twin.held.into(),
            shape: shape("200 Mbit/s"),
            ..Wanted::default()
        };
        let pair = Pair::start(&places, &wanted).await?;
        let mas = push(pair.operator, &places.plugins, "mas-joint").await?;
        let mut ways = Vec::new();
        for (name, policy, keys) in [
            ("speculate", "fixed-speculate", None),
            ("speculate, probed", "fixed-speculate", Some(PROBED_AHEAD)),
            ("cloud", "cloud-only", None),
            ("cloud, probed", "cloud-only", Some(PROBED)),
        ] {
            let (component, manifest) = setting.shelf.files(policy)?;
            let (manifest, postprocessor) = match keys {
                Some(keys) => (probing(&manifest, keys)?, mas.clone()),
                None => (manifest, json!("nothing")),
            };
            let policy = bring(pair.operator, &component, &manifest).await?;
            ways.push(Way {
                name,
                policy,
                postprocessor,
            });
        }
        let mut pictures = large_pictures(&setting.heldout)?;
        ensure!(
            pictures.len() >= ways.len() * PICTURES,
            "{} has {} large pictures, and {} are needed",
            setting.heldout.display(),
            pictures.len(),
            ways.len() * PICTURES
        );
        Draw(SEED).shuffle(&mut pictures);
        let mut progress = Progress::new("pictures", ways.len() * PICTURES, 0);
        let mut times: Vec<Vec<f64>> = vec![Vec::new(); ways.len()];
        let (mut ahead, mut probe_ms) = (0, Vec::new());
        for (number, pictures) in pictures.chunks(ways.len()).take(PICTURES).enumerate() {
            for (turn, picture) in pictures.iter().enumerate() {
                setting.interrupt.check("this part is shown as a whole")?;
                let chosen = (number + turn) % ways.len();
                let (Some(way), Some(times)) = (ways.get(chosen), times.get_mut(chosen)) else {
                    continue;
                };
                way.choose(&pair).await?;
                let mut body = question("demo", &[("image", picture)], "Describe the scene.")?;
                if let Value::Object(fields) = &mut body {
                    fields.insert("temperature".into(), json!(0));
                    fields.insert("max_completion_tokens".into(), json!(TOKENS));
                }
                let answer = answered(&pair, &body).await.context(way.name)?;
                if number > 0 {
                    times.push(answer.total.as_secs_f64() * 1000.0);
                    let report = &answer.report;
                    if chosen == 1 {
                        ahead += usize::from(report.get("ahead") == Some(&json!("used")));
                        probe_ms.extend(report.pointer("/cost/probe_ms").and_then(Value::as_f64));
                    }
                }
                progress.step();
            }
        }
        progress.end();
        let means: Vec<f64> = times.iter().map(|it| mean(it.iter().copied())).collect();
        let &[plain, probed, cloud, cloud_probed] = means.as_slice() else {
            anyhow::bail!("four ways were asked");
        };
        let error = |one: usize, other: usize| -> f64 {
            let spread = |of: usize| {
                let times = times.get(of).map(Vec::as_slice).unwrap_or_default();
                let own = mean(times.iter().copied());
                let square = mean(times.iter().map(|ms| (ms - own).powi(2)));
                square / (times.len() as f64 - 1.0).max(1.0)
            };
            100.0 * (spread(one) + spread(other)).sqrt() / cloud
        };
        let told = ways.iter().zip(&means);
        let told: Vec<String> = told
            .map(|(way, ms)| format!("{}: {ms:.0} ms", way.name))
            .collect();
        Ok(vec![
            Row::at_most(
                "where the edge's prefill goes on from it: probe and plug-ins, of cloud-only's time (0.5B twin, 20 ms, 200 Mbit/s)",
                100.0 * (probed - plain) / cloud,
                100.0 * ADDED,
                "%",
            )
            .with_details(vec![
                told.join(", "),
                format!("standard error {:.2} points", error(0, 1)),
                format!(
                    "{ahead} of {} answers went on with a session that was opened while the probe ran, for {:.0} ms on average",
                    PICTURES - 1,
                    mean(probe_ms.into_iter())
                ),
            ]),
            Row::told(
                "where it is thrown away (route cloud): the same",
                100.0 * (cloud_probed - cloud) / cloud,
                "%",
            )
            .with_more(Some(format!(
                "standard error {:.2} points; a policy that asks for the probe can do without",
                error(2, 3)
            ))),
        ])
    })
}

/// Whether anybody has looked at the media of an answer's request.
fn is_probed(report: &Value) -> bool {
    let items = report.get("items").and_then(Value::as_array);
    let is_scored = |item: &Value| item.get("necessity").is_some_and(Value::is_number);
    items.is_some_and(|items| items.iter().any(is_scored))
}

/// A manifest of a policy that has everything probed, under a name of its own. `keys`: what it says of that.
fn probing(manifest: &str, keys: &str) -> Result<String> {
    let mut lines: Vec<String> = manifest.lines().map(str::to_owned).collect();
    let name = lines.iter_mut().find(|line| line.starts_with("name = \""));
    let name = name.context("the manifest has no name")?;
    name.insert_str(name.len() - 1, "-probed");
    let place = lines
        .iter()
        .position(|line| line.starts_with("state-schema"));
    lines.insert(
        place.context("the manifest has no state-schema")?,
        keys.into(),
    );
    Ok(lines.join("\n") + "\n")
}

/// Pictures of 256 tokens: those of the largest files' size in pixels.
fn large_pictures(heldout: &Path) -> Result<Vec<PathBuf>> {
    let mut sized = Vec::new();
    let folder = heldout.join("images");
    let limits = msao_media::Limits::default();
    for entry in std::fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        let bytes = std::fs::read(&path)?;
        let image = msao_media::decode_image(&bytes, &limits)
            .with_context(|| path.display().to_string())?;
        sized.push((image.width * image.height, path));
    }
    let most = sized.iter().map(|(pixels, _)| *pixels).max().unwrap_or(0);
    sized.retain(|(pixels, _)| *pixels == most);
    sized.sort();
    Ok(sized.into_iter().map(|(_, path)| path).collect())
}

#[cfg(test)]
mod tests {
    use msao_core::offload::manifest::{Ahead, Manifest, Probe};

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

    #[test]
    fn a_policy_that_has_everything_probed_is_another() {
        let manifest = "name = \"cloud-only\"\nversion = \"0.1.0\"\nstate-schema = 0\n";
        let expected = "name = \"cloud-only-probed\"\nversion = \"0.1.0\"\nprobe = \"full\"\nstate-schema = 0\n";
        assert_eq!(probing(manifest, PROBED).unwrap(), expected);
        assert!(probing("version = \"1\"\n", PROBED).is_err());
        let manifest = format!("{manifest}world = \"offload-policy\"\ndescription = \"\"\n");
        let ahead = Manifest::parse(&probing(&manifest, PROBED_AHEAD).unwrap()).unwrap();
        assert_eq!((ahead.probe, ahead.ahead), (Probe::Full, Ahead::Session));
    }
}
