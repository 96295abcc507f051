//! Valid requests of all kinds, and how a client would write them.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)] // a test's helpers may panic

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use msao_api::{ChatRequest, Detail, Medium, Sampling, Source, Streaming};
use msao_core::chat::{Content, Message, Modality, Part};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

/// A part before it has its place.
#[derive(Clone, Debug)]
enum Said {
    Text(String),
    Medium(Modality, Source, Detail),
}

fn said() -> impl Strategy<Value = Said> {
    let modality = prop::sample::select(vec![Modality::Image, Modality::Video, Modality::Audio]);
    let source = prop_oneof![
        prop::collection::vec(any::<u8>(), 1..40).prop_map(Source::Bytes),
        "https?://[a-z]{1,9}(\\.[a-z]{1,3})?(/[a-zA-Z0-9?=&%]{0,9}){0,3}".prop_map(Source::Url),
    ];
    let detail = prop::sample::select(vec![
        Detail::Auto,
        Detail::Low,
        Detail::High,
        Detail::Original,
    ]);
    prop_oneof![
        any::<String>().prop_map(Said::Text),
        (modality, source, detail)
            .prop_map(|(modality, source, detail)| Said::Medium(modality, source, detail)),
    ]
}

fn conversation() -> impl Strategy<Value = (Vec<Message>, Vec<Medium>)> {
    let spoken = (
        prop::sample::select(vec!["system", "user", "assistant"]),
        any::<String>(),
    )
        .prop_map(|(role, text)| (role, Err(text)));
    let shown = prop::collection::vec(said(), 1..5).prop_map(|parts| ("user", Ok(parts)));
    let messages = prop::collection::vec(prop_oneof![spoken, shown], 1..5);
    messages.prop_map(|messages| {
        let mut media = Vec::new();
        let messages = messages.into_iter().enumerate().map(|(at, (role, said))| {
            let content = match said {
                Err(text) => Content::Text(text),
                Ok(parts) => {
                    let parts = parts.into_iter().enumerate();
                    let parts = parts.map(|(part, said)| {
                        place(said, format!("messages[{at}].content[{part}]"), &mut media)
                    });
                    Content::Parts(parts.collect())
                }
            };
            Message {
                role: role.to_owned(),
                content,
            }
        });
        (messages.collect(), media)
    })
}

fn place(said: Said, field: String, media: &mut Vec<Medium>) -> Part {
    let (modality, source, detail) = match said {
        Said::Text(text) => return Part::Text { text },
        Said::Medium(modality, source, detail) => (modality, source, detail),
    };
    let reference = field.clone();
    media.push(Medium {
        modality,
        source,
        field,
        detail,
    });
    match modality {
        Modality::Image => Part::Image { image: reference },
        Modality::Video => Part::Video { video: reference },
        _ => Part::Audio { audio: reference },
    }
}

fn sampling() -> impl Strategy<Value = Sampling> {
    (
        prop::option::of(0.0..=2.0),
        prop::option::of(0.0..=1.0),
        -2.0..=2.0,
        -2.0..=2.0,
        prop::collection::btree_map(any::<u32>(), -100.0_f32..=100.0, 0..5),
        prop::option::of(any::<u64>()),
    )
        .prop_map(
            |(temperature, top_p, frequency_penalty, presence_penalty, logit_bias, seed)| {
                Sampling {
                    temperature,
                    top_p,
                    frequency_penalty,
                    presence_penalty,
                    logit_bias,
                    seed,
                }
            },
        )
}

/// Requests that keep the default limits.
pub fn request() -> impl Strategy<Value = ChatRequest> {
    let name = || prop::option::of("[a-zA-Z0-9é:/_-]{1,20}");
    let streaming = any::<bool>().prop_map(|include_usage| Streaming { include_usage });
    let numbers = (
        prop::option::of(1..=u32::MAX),
        1..=8_u32,
        prop::option::of(0..=20_u32),
    );
    let deadline = prop::option::of(1..=3_600_000_u32);
    let demands = (any::<bool>(), any::<bool>(), deadline);
    (
        "[a-zA-Z0-9./:-]{1,20}",
        conversation(),
        sampling(),
        numbers,
        prop::collection::vec(".{1,9}", 0..=4),
        prop::option::of(streaming),
        (name(), name()),
        demands,
    )
        .prop_map(
            |(model, conversation, sampling, numbers, stop, stream, names, demands)| ChatRequest {
                model,
                messages: conversation.0,
                media: conversation.1,
                sampling,
                max_tokens: numbers.0,
                n: numbers.1,
                logprobs: numbers.2,
                stop,
                stream,
                user: names.0,
                prompt_cache_key: names.1,
                exact: demands.0,
                media_at_edge: demands.1,
                deadline_ms: demands.2,
            },
        )
}

/// What a client would send for a request.
pub fn body(request: &ChatRequest) -> Value {
    let mut media = request.media.iter();
    let messages: Vec<Value> = request
        .messages
        .iter()
        .map(|message| {
            let content = match &message.content {
                Content::Text(text) => json!(text),
                Content::Parts(parts) => parts.iter().map(|it| part(it, &mut media)).collect(),
            };
            json!({"role": message.role, "content": content})
        })
        .collect();
    let sampling = &request.sampling;
    let biases: Map<String, Value> = sampling
        .logit_bias
        .iter()
        .map(|(id, bias)| (id.to_string(), json!(bias)))
        .collect();
    let mut body = json!({
        "model": request.model,
        "messages": messages,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "frequency_penalty": sampling.frequency_penalty,
        "presence_penalty": sampling.presence_penalty,
        "logit_bias": biases,
        "seed": sampling.seed,
        "max_completion_tokens": request.max_tokens,
        "stop": request.stop,
        "n": request.n,
        "logprobs": request.logprobs.is_some(),
        "top_logprobs": request.logprobs,
        "stream": request.stream.is_some(),
        "user": request.user,
        "prompt_cache_key": request.prompt_cache_key,
        "msao": {
            "require": request.exact.then_some("exact"),
            "media": request.media_at_edge.then_some("edge-only"),
            "deadline_ms": request.deadline_ms,
        },
    });
    if let Some(streaming) = request.stream {
        body["stream_options"] = json!({"include_usage": streaming.include_usage});
    }
    body
}

fn part<'a>(part: &Part, media: &mut impl Iterator<Item = &'a Medium>) -> Value {
    if let Part::Text { text } = part {
        return json!({"type": "text", "text": text});
    }
    let medium = media.next().unwrap();
    let kind = match medium.modality {
        Modality::Image => "image_url",
        Modality::Video => "video_url",
        _ => "audio_url",
    };
    let url = match &medium.source {
        Source::Bytes(bytes) => format!("data:;base64,{}", STANDARD.encode(bytes)),
        Source::Url(url) => url.clone(),
    };
    let detail = match medium.detail {
        Detail::Auto => None,
        Detail::Low => Some("low"),
        Detail::High => Some("high"),
        Detail::Original => Some("original"),
    };
    json!({"type": kind, kind: {"url": url, "detail": detail}})
}
