//! Identity: whatever drafts, wherever, and whatever the link does, the tokens are the target's.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use safetensors::SafeTensors;
use serde_json::{Value, json};

use super::client::{Answer, ask, question};
use super::pair::{Pair, Places, Wanted};
use crate::report::Row;
use crate::vqa::{Question, read};

/// Requests of the main comparison, and of each axis beside it.
const REQUESTS: usize = 200;
const ASIDE: usize = 40;
/// A connection's life where answers are to go on over cuts, in ms: some answers' time.
const CUT_MS: u32 = 1000;
/// Of answers that go on over cuts, so many at least are compared.
const OVER_CUTS: usize = 30;
/// Who asks while there is no connection is refused, and asks again after so long, so many times: a connection that never lasts
/// is tried again after five seconds at last.
const AGAIN: Duration = Duration::from_millis(50);
const TRIES: usize = 200;
/// Of so many tokens one may be a tie.
const TOKENS_A_TIE: f64 = 10_000.0;

/// What was compared.
#[derive(Default)]
struct Tally {
    requests: usize,
    tokens: usize,
    /// Answers that differ, and where.
    differ: Vec<String>,
    degraded: usize,
    drafted: u64,
    accepted: u64,
}

impl Tally {
    fn row(self, name: &str) -> Row {
        let ties = (self.tokens as f64 / TOKENS_A_TIE).max(1.0).floor();
        let told = format!(
            "{} answers of {} tokens; {} of {} drafts accepted; {} answers given or finished without the peer, which say so and do not count",
            self.requests, self.tokens, self.accepted, self.drafted, self.degraded
        );
        let mut row = Row::at_most(
            format!("{name}: answers that differ"),
            self.differ.len() as f64,
            if self.tokens as f64 >= TOKENS_A_TIE {
                ties
            } else {
                0.0
            },
            "",
        );
        // Nothing compared shows nothing.
        row.met &= self.tokens > 0;
        row.details = self.differ;
        row.details.truncate(5);
        row.details.insert(0, told);
        row
    }

    fn compare(&mut self, right: &Answer, other: &Answer, what: &str) -> Result<()> {
        ensure!(other.is_whole(), "{what}: {:?}", other.error);
        let alone = other.report.get("route") == Some(&json!("edge"));
        if alone || other.report.get("degraded") == Some(&json!(true)) {
            // The link was down when it was planned, or for too long: the answer says so and is nobody else's.
            self.degraded += 1;
            return Ok(());
        }
        self.requests += 1;
        self.tokens += right.words.len();
        let number = |key: &str| other.report.get(key).and_then(Value::as_u64).unwrap_or(0);
        self.drafted += number("drafted_tokens");
        self.accepted += number("accepted_tokens");
        if right.words != other.words {
            let place = right
                .words
                .iter()
                .zip(&other.words)
                .take_while(|(a, b)| a == b)
                .count();
            self.differ.push(format!(
                "{what}: at token {place} of {}: {:?} and {:?}",
                right.words.len(),
                right.words.get(place),
                other.words.get(place)
            ));
        }
        Ok(())
    }
}

/// The part's rows.
///
/// # Errors
/// A node does not come up, or a request fails.
pub async fn rows(places: &Places) -> Result<Vec<Row>> {
    let questions = read(&places.models.join("heldout"))?;
    let chosen = spread(&questions, REQUESTS);
    let mut rows = Vec::new();
    let pair = Pair::start(places, &Wanted::default()).await?;
    let mut sides = vec![("greedy", 0.0), ("at temperature 0.8", 0.8)];
    let mut rights: Vec<Vec<Answer>> = Vec::new();
    for (name, temperature) in sides.drain(..) {
        pair.policy("cloud-only").await?;
        let mut right = Vec::new();
        for (number, question) in chosen.iter().enumerate() {
            right.push(answer(&pair, question, temperature, number, &Value::Null).await?);
        }
        for policy in ["cloud-draft", "fixed-speculate"] {
            pair.policy(policy).await?;
            let mut tally = Tally::default();
            for (number, (question, right)) in chosen.iter().zip(&right).enumerate() {
                let other = answer(&pair, question, temperature, number, &Value::Null).await?;
                tally.compare(right, &other, &format!("question {}", question.id))?;
            }
            rows.push(tally.row(&format!("cloud and {policy}, {name}")));
        }
        rights.push(right);
    }
    let right = rights.pop().unwrap_or_default();
    drop(pair);
    rows.extend(axes(places, &chosen, &right).await?);
    Ok(rows)
}

/// One thing at a time is otherwise.
async fn axes(places: &Places, chosen: &[&Question], right: &[Answer]) -> Result<Vec<Row>> {
    let noise = tempfile::tempdir()?;
    let random = shuffled(&places.models.join("demo-draft"), noise.path())?;
    let delay = |ms: u32| {
        format!("[peers.shape.up]\ndelay-ms = {ms}.0\n[peers.shape.down]\ndelay-ms = {ms}.0\n")
    };
    let shaped = |shape: String| Wanted {
        shape,
        ..Wanted::default()
    };
    let drafted_by = |draft: PathBuf| Wanted {
        draft: Some(draft),
        ..Wanted::default()
    };
    let axes = [
        ("a random drafter", drafted_by(random)),
        (
            "a perfect drafter",
            drafted_by(places.models.join("demo-target")),
        ),
        ("20 ms round trip", shaped(delay(10))),
        ("80 ms round trip", shaped(delay(40))),
        (
            "stalls of 150 ms",
            shaped(
                "[peers.shape]\nstalls = [{ at-ms = 200, for-ms = 150 }]\nrepeat-ms = 400\n"
                    .to_owned()
                    + &delay(5),
            ),
        ),
        (
            "connections cut each 300 ms",
            shaped(
                "[peers.shape]\ncuts = [{ at-ms = 300 }]\nrepeat-ms = 300\n".to_owned() + &delay(5),
            ),
        ),
    ];
    let mut rows = vec![over_cuts(places, chosen, right).await?];
    for (name, wanted) in axes {
        let pair = Pair::start(places, &wanted).await?;
        pair.policy("fixed-speculate").await?;
        let mut tally = Tally::default();
        for (number, (question, right)) in chosen.iter().zip(right).take(ASIDE).enumerate() {
            let other = answer(&pair, question, 0.8, number, &Value::Null).await?;
            tally.compare(right, &other, &format!("question {}", question.id))?;
        }
        rows.push(tally.row(&format!("fixed-speculate, {name}")));
    }
    let pair = Pair::start(places, &Wanted::default()).await?;
    for (name, more) in [
        ("two answers each", json!({ "n": 2 })),
        (
            "penalties and biases",
            json!({ "frequency_penalty": 0.8, "presence_penalty": 0.4, "logit_bias": { "50": 3.0 } }),
        ),
    ] {
        let mut tally = Tally::default();
        let mut right = Vec::new();
        for policy in ["cloud-only", "fixed-speculate"] {
            pair.policy(policy).await?;
            for (number, question) in chosen.iter().take(ASIDE).enumerate() {
                let other = answer(&pair, question, 0.8, number, &more).await?;
                match policy {
                    "cloud-only" => right.push(other),
                    _ => {
                        let right = right.get(number).context("an answer of the cloud")?;
                        tally.compare(right, &other, &format!("question {}", question.id))?;
                    }
                }
            }
        }
        rows.push(tally.row(&format!("fixed-speculate, {name}")));
    }
    Ok(rows)
}

/// Answers that may not be finished without the target, so that each goes on when the connection is back.
async fn over_cuts(places: &Places, chosen: &[&Question], right: &[Answer]) -> Result<Row> {
    let shape = format!(
        "[peers.shape]\ncuts = [{{ at-ms = {CUT_MS} }}]\nrepeat-ms = {CUT_MS}\n[peers.shape.up]\ndelay-ms = 40.0\n\
         [peers.shape.down]\ndelay-ms = 40.0\n"
    );
    let wanted = Wanted {
        shape,
        ..Wanted::default()
    };
    let pair = Pair::start(places, &wanted).await?;
    pair.policy("fixed-speculate").await?;
    let exact = json!({ "msao": { "require": "exact" } });
    let (mut tally, mut refused, mut asked_ms) = (Tally::default(), 0, 0.0);
    // From the longest on: they are cut most often.
    let mut order: Vec<_> = chosen.iter().zip(right).enumerate().collect();
    order.sort_by_key(|(_, (_, right))| std::cmp::Reverse(right.words.len()));
    for (number, (question, right)) in order.into_iter().take(ASIDE) {
        for _ in 0..TRIES {
            let other = answer(&pair, question, 0.8, number, &exact).await?;
            if other.is_whole() {
                asked_ms += other.total.as_secs_f64() * 1000.0;
                tally.compare(right, &other, &format!("question {}", question.id))?;
                break;
            }
            refused += 1;
            tokio::time::sleep(AGAIN).await;
        }
    }
    let compared = tally.requests;
    let mut row = tally.row("fixed-speculate, exact, connections cut in mid-answer");
    row.met &= compared >= OVER_CUTS;
    row.details.push(format!(
        "the {ASIDE} longest answers took {:.1} s in all, with a cut each {CUT_MS} ms: some {:.0} cuts; {refused} times there was no connection and the edge said so",

        asked_ms / 1000.0,
        asked_ms / f64::from(CUT_MS)
    ));
    Ok(row)
}

/// Short and long questions of all kinds, evenly.
fn spread(questions: &[Question], count: usize) -> Vec<&Question> {
    let (long, short): (Vec<_>, Vec<_>) = questions.iter().partition(|question| question.long);
    let longs = evenly(&long, count / 3);
    let shorts = evenly(&short, count - longs.len());
    // One after the other, so that a part of them has both.
    let mut all = Vec::new();
    let (mut longs, mut shorts) = (longs.into_iter().peekable(), shorts.into_iter().peekable());
    while longs.peek().is_some() || shorts.peek().is_some() {
        all.extend(shorts.next());
        all.extend(shorts.next());
        all.extend(longs.next());
    }
    all
}

/// So many of them, at equal distances.
fn evenly<'a>(from: &[&'a Question], count: usize) -> Vec<&'a Question> {
    let step = from.len() as f64 / count.max(1) as f64;
    let places = (0..count.min(from.len())).map(|number| (number as f64 * step) as usize);
    places
        .filter_map(|place| from.get(place).copied())
        .collect()
}

async fn answer(
    pair: &Pair,
    asked: &Question,
    temperature: f64,
    seed: usize,
    more: &Value,
) -> Result<Answer> {
    let files: Vec<(&str, &Path)> = asked
        .media
        .iter()
        .map(|(modality, path)| (modality.name(), path.as_path()))
        .collect();
    let mut body = question("demo", &files, &asked.text)?;
    if let Value::Object(fields) = &mut body {
        fields.insert("temperature".into(), json!(temperature));
        fields.insert("seed".into(), json!(seed));
        fields.insert("max_completion_tokens".into(), json!(80));
        fields.insert("logprobs".into(), json!(true));
        if let Value::Object(more) = more {
            fields.extend(more.clone());
        }
    }
    ask(pair.edge.api, &body).await
}

/// A copy of a model whose matrices are shuffled: it drafts, and is never right but by chance.
fn shuffled(model: &Path, into: &Path) -> Result<PathBuf> {
    let folder = into.join("random-draft");
    std::fs::create_dir_all(&folder)?;
    for entry in std::fs::read_dir(model)? {
        let path = entry?.path();
        let name = path.file_name().context("a file's name")?;
        std::fs::copy(&path, folder.join(name))?;
    }
    let file = folder.join("model.safetensors");
    let mut bytes = std::fs::read(&file)?;
    let length = bytes.first_chunk::<8>().context("a header")?;
    let begin = 8 + u64::from_le_bytes(*length) as usize;
    let places: Vec<(usize, usize, usize)> = {
        let tensors = SafeTensors::deserialize(&bytes)?;
        let base = bytes.as_ptr() as usize;
        let matrices = tensors
            .tensors()
            .into_iter()
            .filter(|(_, view)| view.shape().len() == 2);
        matrices
            .map(|(_, view)| {
                let width = view.data().len() / view.shape().iter().product::<usize>().max(1);
                (
                    view.data().as_ptr() as usize - base,
                    view.data().len(),
                    width.max(1),
                )
            })
            .collect()
    };
    ensure!(
        places.iter().all(|(at, ..)| *at >= begin),
        "tensors lie behind the header"
    );
    let mut state = 7_u64;
    for (at, length, width) in places {
        let count = length / width;
        for place in (1..count).rev() {
            // xorshift64: any order will do.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let other = (state % (place as u64 + 1)) as usize;
            for byte in 0..width {
                bytes.swap(at + place * width + byte, at + other * width + byte);
            }
        }
    }
    std::fs::write(&file, bytes)?;
    Ok(folder)
}
