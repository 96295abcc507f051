//! What stands where a case is silent, and the whole input that a case becomes.

use anyhow::{Context, bail};
use msao_core::offload::manifest::{self, Manifest, Probe, World};
use msao_core::offload::{
    BINS, Calibration, Item, Node, Outcome, Part, Plan, PlanInput, Report, Request, Route,
    StepInput, capability, flag, modality,
};
use serde::Serialize;
use serde_json::{Map, Value};

use super::sparse::{over, unknown};
use super::{Call, Given, calibration};

/// All that any function of the contract can be given.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Situation {
    /// The function that is called.
    pub call: Call,
    /// What is asked.
    pub request: Request,
    /// Media in prompt order, then all text.
    pub parts: Vec<Part>,
    /// This node, then each peer.
    pub nodes: Vec<Node>,
    /// Values of the manifest's parameters.
    pub params: Vec<f64>,
    /// What was learned.
    pub calibration: Calibration,
    /// What happened, for `step`.
    pub step: StepInput,
    /// What became of the request, for `observe`. Its memo is [`Situation::memo`], or the plan's.
    pub outcome: Outcome,
    /// What the probe saw, for `score`.
    pub report: Report,
    /// The memo for `step` and `observe`; None: the plan's.
    pub memo: Option<Vec<u8>>,
    /// The plan to explain; None: the plug-in's own.
    pub plan: Option<Plan>,
}

impl Situation {
    /// The arguments of `plan`.
    pub fn plan_input(&self) -> PlanInput<'_> {
        PlanInput {
            request: &self.request,
            parts: &self.parts,
            nodes: &self.nodes,
            params: &self.params,
            calibration: &self.calibration,
        }
    }
}

/// A part of each modality where a case gives no more than that. `probed`: whether it carries scores.
pub fn default_part(kind: u8, probed: bool) -> Part {
    let (necessity, mas, unusual) = match probed {
        true => (1.0, 0.0, 0.0),
        false => (-1.0, -1.0, -1.0),
    };
    let part = Part {
        modality: kind,
        necessity,
        mas,
        unusual,
        ..Part::default()
    };
    match kind {
        modality::IMAGE => Part {
            tokens: 400,
            frames: 1,
            width_px: 640,
            height_px: 480,
            bytes: 120_000.0,
            ..part
        },
        modality::VIDEO => Part {
            tokens: 1200,
            frames: 8,
            width_px: 640,
            height_px: 480,
            duration_ms: 4000.0,
            bytes: 800_000.0,
            ..part
        },
        modality::AUDIO => Part {
            tokens: 250,
            frames: 10,
            duration_ms: 10_000.0,
            bytes: 160_000.0,
            ..part
        },
        _ => Part {
            tokens: 32,
            bytes: 128.0,
            ..part
        },
    }
}

/// This node where a case says nothing of it: a small box with the draft model.
pub fn default_here() -> Node {
    Node {
        up: true,
        can: capability::DRAFT | capability::SAME_TOKENIZER,
        uplink_bps: -1.0,
        uplink_sd_bps: -1.0,
        downlink_bps: -1.0,
        rtt_ms: 0.0,
        jitter_ms: 0.0,
        stalled: 0.0,
        age_ms: 0.0,
        queue_ms: 0.0,
        planned_ms: 0.0,
        kv_free: 32_768.0,
        prefill_tok_per_s: 800.0,
        draft_tok_per_s: 40.0,
        target_tok_per_s: -1.0,
        verify_ms: -1.0,
        acceptance: -1.0,
        price_per_mtok: 0.0,
        cached_bytes: 0.0,
        confidence_floor: 2.0,
    }
}

/// A peer where a case says nothing of it: a fast node with both models behind a good link.
pub fn default_peer() -> Node {
    Node {
        up: true,
        can: capability::DRAFT
            | capability::TARGET
            | capability::VERIFY
            | capability::SAME_TOKENIZER,
        uplink_bps: 50e6,
        uplink_sd_bps: 5e6,
        downlink_bps: 100e6,
        rtt_ms: 20.0,
        jitter_ms: 2.0,
        stalled: 0.0,
        age_ms: 500.0,
        queue_ms: 5.0,
        planned_ms: 0.0,
        kv_free: 262_144.0,
        prefill_tok_per_s: 8000.0,
        draft_tok_per_s: 150.0,
        target_tok_per_s: 40.0,
        verify_ms: 30.0,
        acceptance: 0.7,
        price_per_mtok: 1.0,
        cached_bytes: 0.0,
        confidence_floor: 2.0,
    }
}

/// A drafted token in the middle of an answer.
pub fn default_step() -> StepInput {
    StepInput {
        kind: 0,
        p_accept: 0.8,
        top1: 0.8,
        entropy_nats: 0.6,
        margin: 2.0,
        judged: 8,
        accepted: 6,
        unsent: 1,
        in_flight: 0,
        committed: 8,
        waited_ms: 0.0,
        elapsed_ms: 400.0,
        rtt_ms: 20.0,
        queue_ms: 5.0,
    }
}

/// An answer of 64 tokens by route `cloud`.
pub fn default_outcome() -> Outcome {
    Outcome {
        route: Route::Cloud as u8,
        peer: 1,
        ttft_ms: 200.0,
        total_ms: 1800.0,
        upload_ms: 30.0,
        queue_ms: 5.0,
        sent_bytes: 120_128.0,
        received_bytes: 512.0,
        cloud_flops: 1e12,
        cost: 1e-4,
        tokens: 64,
        drafted: vec![0; BINS],
        accepted: vec![0; BINS],
        ..Outcome::default()
    }
}

/// What the probe saw of `items`, where a case gives no lists: every token alike, in rows as square as may be, and half of the
/// attention paid to all items.
pub fn default_report(items: Vec<Item>) -> Report {
    let mut report = Report {
        dim: 1,
        ..Report::default()
    };
    for item in &items {
        let frames = item.frames.max(1);
        let each = item.tokens.div_ceil(frames).max(1);
        let columns = (1..=each)
            .find(|side| side.saturating_mul(*side) >= each)
            .unwrap_or(1);
        let share = 0.5 / item.tokens.max(1) as f32 / items.len() as f32;
        for token in 0..item.tokens {
            let (frame, place) = (token / each, token % each);
            report.saliency.push(1.0);
            report.relevance.push(share);
            report.baseline.push(share);
            report.frame.push(frame);
            report.y.push(place / columns);
            report.x.push(place % columns);
            report.similarity.push(if frame == 0 { 2.0 } else { 0.5 });
            report.features.push(0.0);
        }
    }
    report.items = items;
    report
}

/// Tokens that a case's report may have: what the largest request can bring.
const MAX_TOKENS: u64 = 1 << 20;

fn report(given: &Map<String, Value>) -> anyhow::Result<Report> {
    let items = match given.get("items") {
        None => vec![Item {
            modality: modality::IMAGE,
            tokens: 64,
            frames: 1,
            relevance: 1.0,
        }],
        Some(Value::Array(list)) => {
            let default = Item {
                modality: modality::IMAGE,
                tokens: 64,
                frames: 1,
                relevance: 1.0,
            };
            let mut items = Vec::new();
            for (i, item) in list.iter().enumerate() {
                let at = format!("report.items[{i}]");
                let fields = item
                    .as_object()
                    .with_context(|| format!("{at}: a table is expected"))?;
                items.push(over(&default, fields, &at)?);
            }
            items
        }
        Some(_) => bail!("report.items: a list of tables is expected"),
    };
    let tokens: u64 = items.iter().map(|item| u64::from(item.tokens)).sum();
    if tokens > MAX_TOKENS {
        bail!("report.items: {tokens} tokens; at most {MAX_TOKENS} are allowed");
    }
    let mut default = default_report(items);
    let mut rest = given.clone();
    rest.remove("items");
    if let Some(dim) = rest.get("dim").and_then(Value::as_u64)
        && (1..=64).contains(&dim)
    {
        default.features.resize(dim as usize * tokens as usize, 0.0);
    }
    // One number fills a list.
    for (name, value) in &mut rest {
        if name != "dim" && value.is_number() {
            let length = match name.as_str() {
                "features" => default.features.len(),
                _ => tokens as usize,
            };
            *value = Value::Array(vec![value.clone(); length]);
        }
    }
    let report = over(&default, &rest, "report")?;
    let lists = [
        ("saliency", report.saliency.len()),
        ("relevance", report.relevance.len()),
        ("baseline", report.baseline.len()),
        ("frame", report.frame.len()),
        ("y", report.y.len()),
        ("x", report.x.len()),
        ("similarity", report.similarity.len()),
    ];
    if let Some((name, length)) = lists.iter().find(|(_, length)| *length as u64 != tokens) {
        bail!("report.{name}: has {length} values; the items have {tokens} tokens");
    }
    let wanted = u64::from(report.dim) * tokens;
    if report.features.len() as u64 != wanted {
        bail!(
            "report.features: has {} values; {} tokens of {} values are {wanted}",
            report.features.len(),
            tokens,
            report.dim
        );
    }
    Ok(report)
}

/// The manifest's parameters with those of `given`, by name, in place of their defaults.
///
/// # Errors
/// Naming a parameter that does not exist, or a value out of its range.
pub fn params(manifest: &Manifest, given: &Map<String, Value>) -> anyhow::Result<Vec<f64>> {
    let mut values = manifest.defaults();
    for (name, value) in given {
        let known = || manifest.parameters.iter().map(|p| p.name.as_str());
        let number = (manifest.parameter(name))
            .with_context(|| format!("params: {}", unknown(name, known())))?;
        let value = match value {
            Value::Bool(x) => manifest::Value::Bool(*x),
            Value::Number(x) => match x.as_i64() {
                Some(x) => manifest::Value::Int(x),
                None => manifest::Value::Float(x.as_f64().context("a number is expected")?),
            },
            Value::String(x) => manifest::Value::Text(x.clone()),
            _ => bail!("params.{name}: a number, true, false or a choice's name is expected"),
        };
        if let (Some(parameter), Some(place)) =
            (manifest.parameters.get(number), values.get_mut(number))
        {
            *place = parameter
                .number(&value)
                .map_err(|problem| anyhow::anyhow!("params.{name}: {problem}"))?;
        }
    }
    Ok(values)
}

/// The whole input that `given` stands for.
///
/// Scores are there where the manifest says `probe = "full"` or a part gives one; `flags` and `prompt-tokens` follow from
/// the parts unless they are given.
///
/// # Errors
/// Naming the field that is wrong and what is allowed.
pub fn situation(given: &Given, manifest: &Manifest) -> anyhow::Result<Situation> {
    let scored = |part: &Map<String, Value>| {
        ["necessity", "mas", "unusual"]
            .iter()
            .any(|score| part.contains_key(*score))
    };
    let probed = manifest.probe == Probe::Full || given.part.iter().any(scored);
    let mut parts = Vec::new();
    for (i, part) in given.part.iter().enumerate() {
        let at = format!("part[{i}]");
        if !part.contains_key("modality") {
            bail!("{at}.modality is missing; allowed: image, video, audio");
        }
        // The modality decides over the defaults of the rest.
        let modality = over(&Part::default(), part, &at)?.modality;
        parts.push(over(&default_part(modality, probed), part, &at)?);
    }
    parts.push(over(
        &default_part(modality::TEXT, probed),
        &given.text,
        "text",
    )?);
    let media = parts.len() > 1;
    let default = Request {
        seed: 1,
        // A fixed moment: a case must give the same answer tomorrow.
        now_ms: 1.75e12,
        prompt_tokens: parts
            .iter()
            .fold(0_u32, |sum, part| sum.saturating_add(part.tokens)),
        max_tokens: 128,
        flags: flag::STREAMED | if probed && media { flag::PROBED } else { 0 },
        ..Request::default()
    };
    let mut nodes = vec![over(&default_here(), &given.here, "here")?];
    let one = [Map::new()];
    for (i, peer) in given.peer.as_deref().unwrap_or(&one).iter().enumerate() {
        nodes.push(over(&default_peer(), peer, &format!("peer[{i}]"))?);
    }
    let call = given.call.unwrap_or(match manifest.world {
        World::OffloadPolicy => Call::Plan,
        World::ProbePostprocessor => Call::Score,
    });
    let plan = match given.plan.is_empty() {
        true => None,
        false => Some(over(&Plan::plain(Route::Cloud, 1), &given.plan, "plan")?),
    };
    Ok(Situation {
        call,
        request: over(&default, &given.request, "request")?,
        parts,
        nodes,
        params: params(manifest, &given.params)?,
        calibration: calibration(&given.cell)?,
        step: over(&default_step(), &given.step, "step")?,
        outcome: over(&default_outcome(), &given.outcome, "outcome")?,
        report: report(&given.report)?,
        memo: given.memo.clone(),
        plan,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANIFEST: &str = r#"
        name = "a"
        version = "1.0.0"
        world = "offload-policy"
        description = ""
        state-schema = 0
        [[parameter]]
        name = "limit"
        type = "float"
        default = 60.0
        min = 1.0
        max = 100.0
        meaning = ""
    "#;

    fn made(text: &str) -> anyhow::Result<Situation> {
        let given: Given = toml::from_str(text)?;
        situation(&given, &Manifest::parse(MANIFEST)?)
    }

    #[test]
    fn a_silent_case_is_a_text_question_with_one_good_peer() {
        let all = made("").unwrap();
        assert_eq!(all.parts.len(), 1);
        assert_eq!(all.nodes.len(), 2);
        assert_eq!(all.request.prompt_tokens, 32);
        assert_eq!(all.request.flags, flag::STREAMED);
        assert_eq!(all.params, [60.0]);
        assert!(made("peer = []").unwrap().nodes.len() == 1);
    }

    #[test]
    fn a_score_means_that_the_probe_has_run() {
        let all =
            made("part = [{ modality = \"image\", mas = 0.5 }, { modality = \"audio\" }]").unwrap();
        assert_eq!(all.request.flags, flag::STREAMED | flag::PROBED);
        assert_eq!((all.parts[0].necessity, all.parts[0].mas), (1.0, 0.5));
        assert_eq!(all.parts[1].mas, 0.0);
        let all = made("part = [{ modality = \"image\" }]").unwrap();
        assert_eq!(all.parts[0].mas, -1.0);
        assert_eq!(all.request.prompt_tokens, 432);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, named) in [
            ("part = [{ tokens = 3 }]", "part[0].modality is missing"),
            (
                "params = { limit = 0 }",
                "params.limit: 0 is out of range; allowed: 1 to 100",
            ),
            ("params = { limits = 5 }", "did you mean \"limit\"?"),
            ("cell = [{ key = 1 }, { key = 1 }]", "key 1 is there twice"),
            (
                "report = { saliency = [1.0] }",
                "report.saliency: has 1 values; the items have 64 tokens",
            ),
            ("colour = 1", "unknown field `colour`"),
        ] {
            let error = made(text).unwrap_err();
            assert!(
                format!("{error:#}").contains(named),
                "{error:#}\nshould name {named}"
            );
        }
    }

    #[test]
    fn one_number_fills_a_list_of_the_report() {
        let report = made("report = { items = [{ tokens = 9 }], saliency = 0.5, dim = 2 }")
            .unwrap()
            .report;
        assert_eq!(report.saliency, [0.5; 9]);
        assert_eq!(report.features.len(), 18);
        assert_eq!((report.y[8], report.x[8]), (2, 2));
    }
}
