//! Hiding the link: what an answer gains by drafts that are made while verdicts are on their way.
//!
//! Two kinds of pairs. One is a twin of real size on two processes, a core each, so that its passes share the machine's memory.
//! The other has engines of given speed, in which nothing is shared. Each is asked by every way at each link, and beside what
//! was measured stands what `system.md`'s formulas say with the passes' times measured in the same answers.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use msao_engine::twin::{TwinOptions, make};
use msao_node::config::load::parse;
use msao_node::node::Models;
use msao_node::serve::Running;
use serde_json::{Value, json};

use super::client::{Answer, activate, ask, figures, is_already_active, operate, push, question};
use super::paced::Paced;
use super::pair::{Pair, Places, Wanted};
use super::swaps::percentile;
use crate::report::Row;
use crate::vqa::read;

/// Round trip in ms and bits a second.
const LINKS: [(f64, f64); 4] = [(20.0, 20e6), (20.0, 200e6), (80.0, 20e6), (80.0, 200e6)];
/// Answers by each way, and their tokens.
const ANSWERS: u64 = 4;
/// Answers by each setting that is tried.
const TRIES: u64 = 2;
const TOKENS: u64 = 96;
/// Bytes of a round on the wire, about.
const ROUND_BYTES: f64 = 200.0;
/// Drafts of a synchronous round, and drafts of ours under way, that are tried: the best are measured.
const GAMMAS: [u32; 4] = [3, 5, 8, 12];
const DEPTHS: [u32; 4] = [8, 16, 32, 64];
/// Of the engines of given speed.
const DRAFT_PASS: Duration = Duration::from_millis(8);
const VERIFY_PASS: Duration = Duration::from_millis(40);
const AGREEMENT: f64 = 0.9;
const VOCABULARY: usize = 8192;

/// A target of Qwen2.5-0.5B's layers with a draft of its own first ones.
pub struct Twin {
    name: &'static str,
    /// Where it is kept.
    folder: &'static str,
    layers: usize,
    draft_layers: usize,
    /// How nodes hold both models.
    pub held: &'static str,
}

/// The one computes on a core (each draft makes a pass longer), the other waits for its memory (as targets on a GPU do, and as
/// the formulas have it).
pub const TWINS: [Twin; 2] = [
    Twin {
        name: "twin in int8",
        folder: "twin-link",
        layers: 24,
        draft_layers: 2,
        held: "precision = \"f32\"\nquantize = \"int8\"\n",
    },
    Twin {
        name: "twin in f32",
        folder: "twin-link-f32",
        layers: 8,
        draft_layers: 1,
        held: "precision = \"f32\"\n",
    },
];

/// A way to answer.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    Cloud,
    CloudDraft,
    /// Waits for each verdict before it drafts on; so many drafts a round.
    Synchronous(u32),
    /// Sends each draft at once and drafts on; at most so many under way.
    Ours(u32),
}

impl Way {
    fn name(self) -> String {
        match self {
            Way::Cloud => "cloud".into(),
            Way::CloudDraft => "cloud-draft".into(),
            Way::Synchronous(gamma) => format!("synchronous, {gamma} drafts a round"),
            Way::Ours(depth) => format!("ours, up to {depth} drafts under way"),
        }
    }

    fn policy(self) -> &'static str {
        match self {
            Way::Cloud => "cloud-only",
            Way::CloudDraft => "cloud-draft",
            Way::Synchronous(_) | Way::Ours(_) => "fixed-speculate",
        }
    }

    /// Parameters of the policy, if it has any.
    fn parameters(self) -> Option<Value> {
        match self {
            Way::Cloud | Way::CloudDraft => None,
            Way::Synchronous(gamma) => Some(json!({ "gamma": gamma, "in-flight": 1 })),
            Way::Ours(depth) => Some(json!({ "gamma": 1, "in-flight": depth })),
        }
    }
}

/// What is asked, and where.
struct Side {
    edge: SocketAddr,
    operator: SocketAddr,
    cloud: SocketAddr,
    releases: HashMap<&'static str, Value>,
}

/// What was measured of one way, in sums over its answers.
#[derive(Clone, Debug, Default)]
struct Sums {
    tokens: u64,
    time: Duration,
    firsts: Vec<f64>,
    picture_ms: Vec<f64>,
    drafted: f64,
    accepted: f64,
    /// Times of passes in seconds and their number: of the draft model, of the target over drafts, and over one token.
    passes: [(f64, f64); 3],
}

/// Figures of one way.
#[derive(Clone, Copy, Debug)]
struct Measured {
    per_s: f64,
    first_ms: f64,
    picture_ms: f64,
    draft_ms: f64,
    verify_ms: f64,
    step_ms: f64,
    acceptance: f64,
}

impl Sums {
    fn figures(&self) -> Measured {
        let [draft, verify, step] = self.passes.map(|(sum, count)| 1000.0 * sum / count);
        let median = |values: &[f64]| match values {
            [] => f64::NAN,
            values => percentile(values, 0.5),
        };
        Measured {
            per_s: self.tokens as f64 / self.time.as_secs_f64(),
            first_ms: median(&self.firsts),
            picture_ms: median(&self.picture_ms),
            draft_ms: draft,
            verify_ms: verify,
            step_ms: step,
            acceptance: self.accepted / self.drafted,
        }
    }
}

/// The rows of the twin.
///
/// # Errors
/// A node does not come up, or a request fails.
pub async fn rows(places: &Places, scratch: &Path) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for twin in &TWINS {
        rows.extend(rows_of(twin, places, scratch).await?);
    }
    Ok(rows)
}

async fn rows_of(twin: &Twin, places: &Places, scratch: &Path) -> Result<Vec<Row>> {
    let made = twin.made(places, scratch)?;
    let mut rows = Vec::new();
    for (rtt_ms, bps) in LINKS {
        let wanted = Wanted {
            draft: Some(made.join("draft")),
            target: Some(made.join("target")),
            held: twin.held.into(),
            shape: shape(rtt_ms, bps),
            ..Wanted::default()
        };
        let pair = Pair::start(places, &wanted).await?;
        let cloud = pair.cloud.as_ref().context("the cloud")?.api;
        let side = Side::new(places, pair.edge.api, pair.operator, cloud).await?;
        let what = format!("{}, {rtt_ms} ms, {} Mbit/s", twin.name, bps / 1e6);
        rows.extend(compare(places, &side, &what, rtt_ms, bps, true).await?);
    }
    Ok(rows)
}

/// The rows of engines of given speed, in this process.
///
/// # Errors
/// As [`rows`].
pub async fn paced(places: &Places) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (rtt_ms, bps) in LINKS {
        let folder = tempfile::tempdir()?;
        let cloud = node(places, folder.path(), "cloud", "").await?;
        let nodes = cloud
            .addresses
            .nodes
            .context("the cloud takes no sessions")?;
        let peers = format!(
            "[[peers]]\nname = \"cloud\"\naddress = \"{nodes}\"\n{}",
            shape(rtt_ms, bps)
        );
        let edge = node(places, folder.path(), "edge", &peers).await?;
        let operator = edge.addresses.operator.context("the edge's operators")?;
        let (api, cloud_api) = (edge.addresses.api, cloud.addresses.api);
        super::pair::until(operator, true).await?;
        let side = Side::new(places, api, operator, cloud_api).await?;
        let what = format!(
            "engines paced to {} and {} ms, {rtt_ms} ms, {} Mbit/s",
            DRAFT_PASS.as_millis(),
            VERIFY_PASS.as_millis(),
            bps / 1e6
        );
        rows.extend(compare(places, &side, &what, rtt_ms, bps, false).await?);
        edge.drain().await;
        cloud.drain().await;
    }
    Ok(rows)
}

async fn node(places: &Places, folder: &Path, role: &str, peers: &str) -> Result<Running> {
    let models = match role {
        "edge" => vec!["draft"],
        _ => vec!["draft", "target"],
    };
    let mut text = format!("[node]\nname = \"{role}\"\nrole = \"{role}\"\nstate = \"{role}\"\n");
    for model in &models {
        let path = places.models.join(format!("demo-{model}"));
        text += &format!(
            "[models.{model}]\npath = \"{}\"\ncache-mib = 16\n",
            path.display()
        );
    }
    text += "[api]\nlisten = \"127.0.0.1:0\"\nmodel = \"demo\"\n[operator]\nlisten = \"127.0.0.1:0\"\n[policy]\nallow-unsigned = true\n";
    if role == "cloud" {
        text += "[sessions]\nlisten = \"127.0.0.1:0\"\n";
    }
    text += peers;
    let config = parse(&text, &folder.join(format!("{role}.toml")), [])?.config;
    let mut loaded = Models::load(&config).await?;
    if let Some(draft) = &mut loaded.draft {
        let script = draft
            .processor
            .tokenizer()
            .encode("There are four shapes, and the largest of them is red. ")?;
        let script: Arc<[u32]> = script.into();
        draft.engine = Paced::new(Arc::clone(&script), DRAFT_PASS, AGREEMENT);
        if let Some(target) = &mut loaded.target {
            target.engine = Paced::new(script, VERIFY_PASS, 1.0);
        }
    }
    Ok(Running::start(config, loaded).await?)
}

fn shape(rtt_ms: f64, bps: f64) -> String {
    let (delay_ms, mbps) = (rtt_ms / 2.0, bps / 1e6);
    let way = format!("delay-ms = {delay_ms:?}\nbandwidth = \"{mbps} Mbit/s\"\n");
    format!("[peers.shape.up]\n{way}[peers.shape.down]\n{way}")
}

impl Twin {
    /// Makes it, once; its folder. Its passes take long enough on one core; its vocabulary is small, since a draft pays for the whole head as
    /// well.
    ///
    /// # Errors
    /// The disk, or a shape that cannot be.
    pub fn made(&self, places: &Places, scratch: &Path) -> Result<PathBuf> {
        // The nodes' configurations lie elsewhere.
        let out = std::path::absolute(scratch.join(self.folder))?;
        if out.join("twin.json").is_file() {
            return Ok(out);
        }
        // What an interrupted run has left.
        if out.exists() {
            std::fs::remove_dir_all(&out).with_context(|| out.display().to_string())?;
        }
        let shape = tempfile::tempdir()?;
        let base = places.models.join("demo-target/config.json");
        let mut config: Value = serde_json::from_slice(&std::fs::read(&base)?)?;
        for (place, value) in [
            ("/text_config/hidden_size", 896_usize),
            ("/text_config/intermediate_size", 4864),
            ("/text_config/num_hidden_layers", self.layers),
            ("/text_config/num_attention_heads", 14),
            ("/text_config/num_key_value_heads", 2),
            ("/text_config/vocab_size", VOCABULARY),
            ("/audio_config/output_dim", 896),
            ("/vision_config/out_hidden_size", 896),
        ] {
            let at = config.pointer_mut(place);
            *at.with_context(|| format!("{}: {place} is not there", base.display()))? =
                json!(value);
        }
        if let Some(sections) = config.pointer_mut("/text_config/rope_parameters/mrope_section") {
            *sections = json!([8, 12, 12]);
        }
        if let Some(text) = config.get_mut("text_config").and_then(Value::as_object_mut) {
            text.remove("layer_types");
            text.remove("head_dim");
        }
        std::fs::write(shape.path().join("config.json"), config.to_string())?;
        eprintln!("making a twin in {}, once", out.display());
        let wish = TwinOptions {
            shape: shape.path().display().to_string(),
            draft_layers: self.draft_layers,
            agreement: AGREEMENT,
            seed: 0,
            bf16: true,
            tokenizer: places.models.join("demo-target"),
            out: out.clone(),
        };
        make(&wish, &mut |step| eprintln!("  {step}"))?;
        Ok(out)
    }
}

impl Side {
    async fn new(
        places: &Places,
        edge: SocketAddr,
        operator: SocketAddr,
        cloud: SocketAddr,
    ) -> Result<Side> {
        let mut releases = HashMap::new();
        for name in ["cloud-only", "cloud-draft", "fixed-speculate"] {
            releases.insert(name, push(operator, &places.plugins, name).await?);
        }
        Ok(Side {
            edge,
            operator,
            cloud,
            releases,
        })
    }

    async fn choose(&self, way: Way) -> Result<()> {
        let name = way.policy();
        activate(self.operator, self.releases.get(name).context("a policy")?).await?;
        if let Some(values) = way.parameters() {
            let body = json!({ "plugin": name, "values": values });
            match operate(self.operator, "/v1/tune", Some(&body)).await {
                // They are so already.
                Err(error) if !is_already_active(&error) => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Asks by these ways in turn, so many times, so that what else the machine does meets all of them alike.
    async fn in_turn(&self, ways: &[Way], times: u64) -> Result<Vec<Sums>> {
        let mut sums = vec![Sums::default(); ways.len()];
        for number in 0..times {
            for (way, sums) in ways.iter().zip(&mut sums) {
                self.measure(*way, number, sums).await?;
            }
        }
        Ok(sums)
    }

    /// The fastest of several ways, and what each came to.
    async fn best(&self, ways: &[Way]) -> Result<(Way, Vec<String>)> {
        let sums = self.in_turn(ways, TRIES).await?;
        let rates: Vec<f64> = sums.iter().map(|sums| sums.figures().per_s).collect();
        let best = ways
            .iter()
            .zip(&rates)
            .max_by(|one, other| one.1.total_cmp(other.1));
        let (best, _) = best.context("no way to try")?;
        let tried = ways.iter().zip(&rates);
        let told = tried.map(|(way, rate)| format!("tried: {}: {rate:.1} tokens/s", way.name()));
        Ok((*best, told.collect()))
    }

    /// Asks one question by one way.
    async fn measure(&self, way: Way, number: u64, sums: &mut Sums) -> Result<()> {
        self.choose(way).await?;
        let (edge, cloud) = (figures(self.edge).await?, figures(self.cloud).await?);
        let body = json!({
            "model": "demo", "messages": [{ "role": "user", "content": format!("Tell me about number {number}.") }],
            "temperature": 0, "max_completion_tokens": TOKENS,
        });
        let answer = self.ask(&body).await?;
        let (edge_after, cloud_after) = (figures(self.edge).await?, figures(self.cloud).await?);
        let of = |figures: &HashMap<String, f64>, what: &str, work: &str| {
            let key = format!("msao_pass_seconds_{what}{{work=\"{work}\"}}");
            figures.get(&key).copied().unwrap_or(0.0)
        };
        for ((before, after, work), (sum, count)) in [
            (&edge, &edge_after, "Draft"),
            (&cloud, &cloud_after, "Verify"),
            (&cloud, &cloud_after, "Decode"),
        ]
        .into_iter()
        .zip(&mut sums.passes)
        {
            *sum += of(after, "sum", work) - of(before, "sum", work);
            *count += of(after, "count", work) - of(before, "count", work);
        }
        let number = |key: &str| answer.report.get(key).and_then(Value::as_f64);
        sums.tokens += answer.tokens.saturating_sub(1);
        sums.time += answer.total - answer.first;
        sums.firsts.push(answer.first.as_secs_f64() * 1000.0);
        sums.drafted += number("drafted_tokens").unwrap_or(0.0);
        sums.accepted += number("accepted_tokens").unwrap_or(0.0);
        Ok(())
    }

    /// Asks about a picture that has not been there before.
    async fn picture(&self, way: Way, picture: &Path, sums: &mut Sums) -> Result<()> {
        self.choose(way).await?;
        let mut body = question("demo", &[("image", picture)], "Describe the scene.")?;
        if let Value::Object(fields) = &mut body {
            fields.insert("max_completion_tokens".into(), json!(4));
        }
        let first = self.ask(&body).await?.first;
        sums.picture_ms.push(first.as_secs_f64() * 1000.0);
        Ok(())
    }

    async fn ask(&self, body: &Value) -> Result<Answer> {
        let answer = ask(self.edge, body).await?;
        ensure!(answer.is_whole(), "an answer failed: {:?}", answer.error);
        let degraded = answer.report.get("degraded") == Some(&json!(true));
        ensure!(!degraded, "the link was lost to an answer");
        Ok(answer)
    }
}

/// All ways over one link.
async fn compare(
    places: &Places,
    side: &Side,
    what: &str,
    rtt_ms: f64,
    bps: f64,
    pictures: bool,
) -> Result<Vec<Row>> {
    let held_out = read(&places.models.join("heldout"))?;
    let mut seen = held_out.iter().filter_map(|question| {
        let (_, path) = question.media.first()?;
        (path.extension()? == "jpg").then_some(path)
    });
    let mut shown: Vec<&PathBuf> = Vec::new();
    let mut unseen = move || {
        let new = seen.find(|path| !shown.contains(path))?;
        shown.push(new);
        Some(new)
    };
    // Estimates and caches are warm after it.
    side.in_turn(&[Way::Cloud], 1).await?;
    let (sync_way, mut tried) = side.best(&GAMMAS.map(Way::Synchronous)).await?;
    let (our_way, more) = side.best(&DEPTHS.map(Way::Ours)).await?;
    tried.extend(more);
    let ways = [Way::Cloud, Way::CloudDraft, sync_way, our_way];
    let mut sums = side.in_turn(&ways, ANSWERS).await?;
    if pictures {
        for (way, sums) in ways.iter().zip(&mut sums) {
            let picture = unseen().context("a picture")?;
            side.picture(*way, picture, sums).await?;
        }
    }
    let figures: Vec<Measured> = sums.iter().map(Sums::figures).collect();
    let &[cloud, beside, sync, ours] = figures.as_slice() else {
        anyhow::bail!("four ways were asked");
    };
    let sent_ms = 8000.0 * ROUND_BYTES / bps;
    // A draft finds the target in the middle of a pass: of a stream's one before it, or of one that the idle target made.
    let a = ours.acceptance.clamp(0.0, 0.999);
    let wait_ms = rtt_ms + 1.5 * ours.verify_ms + sent_ms;
    let stream = 1000.0 / (ours.draft_ms + (1.0 - a) * wait_ms);
    let idle_ms = if sync.step_ms.is_finite() {
        sync.step_ms
    } else {
        0.0
    };
    let wait_ms = rtt_ms + sync.verify_ms + idle_ms / 2.0 + sent_ms;
    let a = sync.acceptance.clamp(0.0, 0.999);
    let sync_says = match sync_way {
        Way::Synchronous(gamma) => {
            let expected = (1.0 - a.powi(gamma as i32 + 1)) / (1.0 - a);
            1000.0 * expected / (f64::from(gamma) * sync.draft_ms + wait_ms)
        }
        _ => f64::NAN,
    };
    // Ours has both cores work at once, which makes each pass longer: this much of the cloud's speed would be lost by that.
    let shared = (cloud.step_ms / ours.step_ms).min(1.0);
    // Engines of given speed share nothing.
    let shared = if pictures && shared.is_finite() {
        shared
    } else {
        1.0
    };
    let told = |way: Way, measured: &Measured, formula: f64| {
        let times = [
            ("draft", measured.draft_ms),
            ("verify", measured.verify_ms),
            ("step", measured.step_ms),
        ];
        let times = times.iter().filter(|(_, ms)| ms.is_finite());
        let mut more: Vec<String> = times
            .map(|(name, ms)| format!("{name} {ms:.1} ms"))
            .collect();
        if measured.acceptance.is_finite() {
            more.push(format!("acceptance {:.3}", measured.acceptance));
        }
        if formula.is_finite() {
            more.push(format!("the formula says {formula:.1} tokens/s"));
        }
        more.push(format!("first token {:.0} ms", measured.first_ms));
        if measured.picture_ms.is_finite() {
            more.push(format!("{:.0} ms about a picture", measured.picture_ms));
        }
        Row::told(
            format!("{what}: {}", way.name()),
            measured.per_s,
            " tokens/s",
        )
        .with_more(Some(more.join(", ")))
    };
    Ok(vec![
        told(Way::Cloud, &cloud, 1000.0 / cloud.step_ms),
        told(Way::CloudDraft, &beside, f64::NAN),
        told(sync_way, &sync, sync_says),
        told(our_way, &ours, stream),
        Row::at_least(
            format!("{what}: a pass over drafts"),
            ours.verify_ms,
            30.0,
            " ms",
        )
        .with_details(tried),
        Row::at_least(
            format!("{what}: ours beside the stream's formula"),
            ours.per_s / stream,
            0.85,
            "",
        ),
        Row::at_least(
            format!("{what}: ours beside synchronous speculation"),
            ours.per_s / sync.per_s,
            1.0,
            "",
        ),
        Row::at_least(
            format!("{what}: ours beside cloud"),
            ours.per_s / cloud.per_s,
            0.97 * shared,
            "",
        )
        .with_more(Some(format!(
            "sharing the cores explains {:.0}%",
            100.0 * (1.0 - shared)
        ))),
    ])
}
