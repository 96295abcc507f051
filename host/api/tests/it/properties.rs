//! What holds for every body: nothing panics, and what is valid is read as it was meant.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)] // a test's helpers may panic

use msao_api::{ApiError, ChatRequest, Limits, sse};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use crate::support::{body, request};

/// Whatever was sent: a request within the limits, or an error that a client can read.
fn holds(bytes: &[u8], limits: &Limits) {
    match ChatRequest::parse(bytes, limits) {
        Ok(request) => {
            assert!(!request.messages.is_empty());
            assert!((1..=limits.max_n).contains(&request.n));
            assert!(request.media.len() <= limits.max_media);
            assert!(
                request
                    .logprobs
                    .is_none_or(|top| top <= limits.max_top_logprobs)
            );
        }
        Err(error) => readable(&error),
    }
}

fn readable(error: &ApiError) {
    assert!(matches!(error.status, 400 | 413), "{error:?}");
    let said: Value = serde_json::from_str(&sse::json(error)).unwrap();
    assert_eq!(said["error"]["code"], error.code);
    assert!(error.message.len() < 1000, "{error}");
}

/// Limits that small requests reach.
fn tight() -> Limits {
    Limits {
        max_depth: 6,
        max_values: 60,
        max_messages: 2,
        max_parts: 3,
        max_media: 1,
        max_text_bytes: 40,
        max_medium_bytes: 8,
        max_name_bytes: 8,
        ..Limits::default()
    }
}

/// Values that look like something that belongs into a request.
fn json_like() -> impl Strategy<Value = Value> {
    let key = prop_oneof![
        4 => prop::sample::select(vec![
            "model", "messages", "role", "content", "type", "text", "image_url", "url", "detail", "video_url", "input_audio",
            "data", "format", "audio_url", "refusal", "stop", "n", "stream", "stream_options", "include_usage", "logprobs",
            "top_logprobs", "logit_bias", "temperature", "seed", "max_tokens", "msao", "require", "media", "tools",
            "response_format", "1", "user",
        ]).prop_map(str::to_owned),
        1 => any::<String>(),
    ];
    let word = prop_oneof![
        4 => prop::sample::select(vec![
            "user", "assistant", "developer", "text", "image_url", "input_audio", "wav", "exact", "edge-only", "low", "",
            "data:image/png;base64,AAAA", "data:,", "http://host/a", "AAAA", "https://",
        ]).prop_map(str::to_owned),
        1 => any::<String>(),
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (0..10_i64).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        word.prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 64, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::vec((key.clone(), inner), 0..6)
                .prop_map(|entries| Value::from(entries.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_bytes_are_a_request_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        holds(&bytes, &Limits::default());
    }

    #[test]
    fn any_json_is_a_request_or_an_error(value in json_like()) {
        holds(value.to_string().as_bytes(), &Limits::default());
        holds(value.to_string().as_bytes(), &tight());
    }

    #[test]
    fn any_json_in_a_field_is_taken_or_named(
        value in json_like(),
        field in prop::sample::select(vec![
            "messages", "temperature", "stop", "n", "stream", "stream_options", "logprobs", "top_logprobs", "logit_bias",
            "seed", "max_tokens", "msao", "user", "tools", "response_format",
        ]),
        within in 0..3_u8,
    ) {
        let mut body = json!({"model": "m", "messages": [{"role": "user", "content": "x"}]});
        match within {
            0 => body[field] = value,
            1 => body["messages"][0]["content"] = value,
            _ => body["messages"][0]["content"] = json!([value]),
        }
        let bytes = body.to_string();
        holds(bytes.as_bytes(), &Limits::default());
        holds(bytes.as_bytes(), &tight());
        if let Err(error) = ChatRequest::parse(bytes.as_bytes(), &Limits::default()) {
            let param = error.param.unwrap_or_default();
            let expected = if within == 0 { field } else { "messages[0].content" };
            prop_assert!(param.starts_with(expected), "{param}: {}", error.message);
        }
    }

    #[test]
    fn a_damaged_request_is_a_request_or_an_error(
        request in request(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        cut in any::<bool>(),
    ) {
        let mut bytes = body(&request).to_string().into_bytes();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if cut {
            bytes.truncate(at);
        }
        holds(&bytes, &Limits::default());
        holds(&bytes, &tight());
    }

    #[test]
    fn a_valid_request_is_read_as_it_was_meant(request in request()) {
        let text = body(&request).to_string();
        prop_assert_eq!(ChatRequest::parse(text.as_bytes(), &Limits::default()), Ok(request.clone()));
        // Escaped, so that nothing can be borrowed.
        let escaped = text.replace('/', "\\/");
        prop_assert_eq!(ChatRequest::parse(escaped.as_bytes(), &Limits::default()), Ok(request));
    }
}
