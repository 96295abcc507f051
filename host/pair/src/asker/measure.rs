//! A question as an OpenAI client sends it, and what its answer came to.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Result};
use base64::Engine as _;
use msao_core::chat::Modality;
use msao_datasets::{Item, Reference, Source, score};
use msao_evaluate::rows::{Class, Measured, Route, Status};
use serde_json::{Value, json};

use crate::client::Answer;

/// The body of a request: the media in their order, then the words, one turn.
///
/// # Errors
/// A medium cannot be read.
pub fn question(item: &Item) -> Result<Value> {
    let mut parts = Vec::with_capacity(item.media.len() + 1);
    for (modality, source) in &item.media {
        let bytes = source
            .bytes()
            .with_context(|| format!("item {}", item.id))?;
        let data = base64::engine::general_purpose::STANDARD.encode(bytes);
        let url = format!("data:{};base64,{data}", source.mime());
        parts.push(match modality {
            Modality::Image => json!({ "type": "image_url", "image_url": { "url": url } }),
            Modality::Video => json!({ "type": "video_url", "video_url": { "url": url } }),
            // Words are no medium.
            Modality::Text => continue,
            Modality::Audio => match source.mime() {
                "audio/wav" | "audio/x-wav" => input_audio(&data, "wav"),
                "audio/mpeg" | "audio/mp3" => input_audio(&data, "mp3"),
                _ => json!({ "type": "audio_url", "audio_url": { "url": url } }),
            },
        });
    }
    parts.push(json!({ "type": "text", "text": item.text }));
    Ok(json!({ "model": "demo", "messages": [{ "role": "user", "content": parts }] }))
}

/// OpenAI's own part, which knows two formats.
fn input_audio(data: &str, format: &str) -> Value {
    json!({ "type": "input_audio", "input_audio": { "data": data, "format": format } })
}

/// A request that was sent.
pub(super) struct Asked<'a> {
    pub data: &'a Item,
    /// Its answers mean something: those of random weights do not.
    pub judged: bool,
    /// Since the turn's first that counts might be asked; none where it was sent when a client was free.
    pub due_ms: Option<f64>,
    /// Since the same moment.
    pub sent_ms: f64,
}

/// What it came to. An answer that could not be had is one that failed.
pub(super) fn measured(asked: &Asked, answer: Result<Answer>) -> Measured {
    let data = asked.data;
    let media: BTreeSet<&str> = data
        .media
        .iter()
        .map(|(modality, _)| modality.name())
        .collect();
    let kind = match media.len() {
        0 => "text".to_owned(),
        _ => Vec::from_iter(media).join("+"),
    };
    let row = Measured {
        item: format!("{}:{}", data.set, data.id),
        group: group(data),
        kind,
        mix: data.mix.to_string(),
        long: data.long,
        seen_mix: Some(data.seen_mix),
        arrival_ms: asked.due_ms,
        sent_ms: Some(asked.sent_ms),
        ..Measured::default()
    };
    match answer {
        Err(error) => Measured {
            status: match error.downcast_ref::<super::NoAnswer>() {
                Some(_) => Status::Late,
                None => Status::Failed,
            },
            error: format!("{error:#}"),
            ..row
        },
        Ok(answer) if !answer.is_whole() => {
            let word = |key: &str| {
                let told = answer.error.as_ref().and_then(|it| it.get(key));
                told.and_then(Value::as_str).unwrap_or_default()
            };
            // What goes wrong within a stream has a code alone.
            Measured {
                status: match (answer.status, word("code")) {
                    (429 | 503, _) | (_, "overloaded" | "rate_limit_exceeded") => Status::Shed,
                    (408 | 504, _) | (_, "deadline_exceeded") => Status::Late,
                    _ => Status::Failed,
                },
                error: format!("{} {}: {}", answer.status, word("code"), word("message")),
                ..row
            }
        }
        Ok(answer) => answered(asked, row, &answer),
    }
}

fn answered(asked: &Asked, row: Measured, answer: &Answer) -> Measured {
    let ms = |time: Duration| time.as_secs_f64() * 1000.0;
    // Who comes late to the node has waited from when it was due.
    let waited = (asked.due_ms).map_or(0.0, |due| (asked.sent_ms - due).max(0.0));
    let report = &answer.report;
    let number = |path: &str| report.pointer(path).and_then(Value::as_f64);
    let count = |path: &str| report.pointer(path).and_then(Value::as_u64);
    let small = |path: &str| count(path).and_then(|it| u32::try_from(it).ok());
    let route = report.get("route").and_then(Value::as_str);
    let route = route.and_then(|route| match route {
        "edge" => Some(Route::Edge),
        "cloud" => Some(Route::Cloud),
        "cloud-draft" => Some(Route::CloudDraft),
        "speculate" => Some(Route::Speculate),
        _ => None,
    });
    let tokens = u32::try_from(answer.tokens).ok();
    let unverified = small("/unverified_tokens");
    let class = route.map(|route| match (route, unverified) {
        (Route::Edge, _) => Class::Edge,
        (_, Some(1..)) => Class::Confident,
        _ => Class::Exact,
    });
    let mut gaps: Vec<f64> = answer.gaps.iter().copied().map(ms).collect();
    gaps.sort_unstable_by(f64::total_cmp);
    let quantile = |share: f64| {
        let rank = (gaps.len() as f64 * share).ceil() as usize;
        gaps.get(rank.saturating_sub(1)).copied()
    };
    let scored = (asked.judged).then(|| score(asked.data, &answer.text));
    Measured {
        status: Status::Answered,
        score: scored.as_ref().map(|it| it.value),
        parsed: scored.as_ref().map(|it| it.parsed),
        route,
        class,
        degraded: report.get("degraded").and_then(Value::as_bool),
        total_ms: Some(waited + ms(answer.total)),
        // An answer without a word has none that is first.
        ttft_ms: (!answer.text.is_empty()).then(|| waited + ms(answer.first)),
        itl_p50_ms: quantile(0.5),
        itl_p95_ms: quantile(0.95),
        itl_p99_ms: quantile(0.99),
        prompt_tokens: u32::try_from(answer.prompt_tokens).ok(),
        tokens,
        bytes_up: count("/bytes_up"),
        bytes_down: count("/bytes_down"),
        flops_edge: number("/cost/edge/flops"),
        flops_cloud: number("/cost/cloud/flops"),
        // Of drafts that are made beside the target nobody tells which were thrown away.
        flops_wasted: (route != Some(Route::CloudDraft))
            .then(|| number("/cost/edge/wasted_flops"))
            .flatten(),
        cache_byte_seconds_edge: number("/cost/edge/cache_byte_seconds"),
        cache_byte_seconds_cloud: number("/cost/cloud/cache_byte_seconds"),
        activation_bytes_edge: count("/cost/edge/activation_bytes"),
        activation_bytes_cloud: count("/cost/cloud/activation_bytes"),
        busy_edge_ms: number("/cost/edge/busy_ms"),
        busy_cloud_ms: number("/cost/cloud/busy_ms"),
        probe_ms: number("/cost/probe_ms"),
        drafted: small("/drafted_tokens"),
        accepted: small("/accepted_tokens"),
        unverified_share: unverified
            .zip(tokens.filter(|tokens| *tokens > 0))
            .map(|(unverified, tokens)| (f64::from(unverified) / f64::from(tokens)).min(1.0)),
        ..row
    }
}

/// Questions that share a picture, or are rotations of one another, depend on each other; so does one with itself.
fn group(item: &Item) -> String {
    if let Reference::Choice(choice) = &item.reference {
        return format!("{}:{}", item.set, choice.group);
    }
    match item.media.first() {
        Some((_, Source::File(path))) => {
            let name = path.file_name().unwrap_or_default();
            name.to_string_lossy().into_owned()
        }
        _ => format!("{}:{}", item.set, item.id),
    }
}
