//! What is taken, what is refused, and in which words.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)] // a test's helpers may panic

use msao_api::{ApiError, ChatRequest, Detail, Limits, Source, Streaming};
use msao_core::chat::{Content, Message, Modality, Part};
use msao_core::offload::flag;
use serde_json::{Value, json};

fn parse(body: &Value) -> Result<ChatRequest, ApiError> {
    ChatRequest::parse(body.to_string().as_bytes(), &Limits::default())
}

/// A request that says "Hi", with these fields besides.
fn with(fields: Value) -> Value {
    let mut body = json!({"model": "m", "messages": [{"role": "user", "content": "Hi"}]});
    let (Value::Object(body_fields), Value::Object(fields)) = (&mut body, fields) else {
        panic!("fields are an object");
    };
    body_fields.extend(fields);
    body
}

fn saying(content: Value) -> Value {
    json!({"model": "m", "messages": [{"role": "user", "content": content}]})
}

fn refused(body: &Value) -> (u16, String, &'static str) {
    match parse(body) {
        Ok(_) => panic!("taken: {body}"),
        Err(error) => (error.status, error.param.unwrap_or_default(), error.code),
    }
}

#[test]
fn the_least_request_has_openai_s_defaults() {
    let request = parse(&with(json!({}))).unwrap();
    let hi = Message {
        role: "user".into(),
        content: Content::Text("Hi".into()),
    };
    assert_eq!(request.model, "m");
    assert_eq!(request.messages, [hi]);
    assert_eq!((request.n, request.max_tokens), (1, None));
    assert_eq!((request.logprobs, request.stream), (None, None));
    assert!(request.media.is_empty() && request.stop.is_empty());
    assert_eq!(request.sampling, Default::default());
    assert!(!request.exact && !request.media_at_edge);
    assert_eq!(request.flags(), 0);
}

#[test]
fn everything_that_is_honoured() {
    let request = parse(&with(json!({
        "max_completion_tokens": 9, "temperature": 0.5, "top_p": 1, "seed": -1, "stop": ["a", "b"], "n": 2,
        "stream": true, "stream_options": {"include_usage": true, "include_obfuscation": false},
        "logprobs": true, "top_logprobs": 20, "frequency_penalty": -2, "presence_penalty": 2.0,
        "logit_bias": {"7": -100, "4294967295": 0.5}, "user": "u", "prompt_cache_key": "k",
        "msao": {"require": "exact", "media": "edge-only", "deadline_ms": 1500},
    })))
    .unwrap();
    assert_eq!((request.max_tokens, request.n), (Some(9), 2));
    assert_eq!(request.stop, ["a", "b"]);
    assert_eq!(request.logprobs, Some(20));
    assert_eq!(request.deadline_ms, Some(1500));
    let streaming = Streaming {
        include_usage: true,
    };
    assert_eq!(request.stream, Some(streaming));
    let sampling = &request.sampling;
    assert_eq!(
        (sampling.temperature, sampling.top_p),
        (Some(0.5), Some(1.0))
    );
    assert_eq!(sampling.seed, Some(u64::MAX));
    assert_eq!(sampling.frequency_penalty, -2.0);
    assert_eq!(sampling.presence_penalty, 2.0);
    assert_eq!(
        sampling.logit_bias,
        [(7, -100.0), (u32::MAX, 0.5)].into_iter().collect()
    );
    assert_eq!(request.user.as_deref(), Some("u"));
    assert_eq!(request.prompt_cache_key.as_deref(), Some("k"));
    assert_eq!(
        request.flags(),
        flag::EXACT | flag::MEDIA_AT_EDGE | flag::LOGPROBS | flag::STREAMED
    );
    let older = parse(&with(
        json!({"max_tokens": 9, "stop": "x", "seed": u64::MAX}),
    ))
    .unwrap();
    assert_eq!(older.max_tokens, Some(9));
    assert_eq!(older.stop, ["x"]);
    assert_eq!(older.sampling.seed, Some(u64::MAX));
}

#[test]
fn parts_and_media_in_reading_order() {
    let request = parse(&json!({"model": "m", "messages": [
        {"role": "developer", "content": "Be brief.", "name": "d"},
        {"role": "user", "content": [
            {"type": "text", "text": "Look:", "prompt_cache_breakpoint": {"mode": "explicit"}},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,AQI=", "detail": "low"}},
            {"type": "image_url", "image_url": "https://host/cat.png"},
            {"type": "video_url", "video_url": {"url": "data:video/mp4;base64,Aw=="}},
            {"type": "input_audio", "input_audio": {"data": "BA==", "format": "wav"}},
            {"type": "audio_url", "audio_url": "http://host/a.mp3"},
        ]},
        // As an answer of OpenAI's API comes back.
        {"role": "assistant", "content": "A cat.", "refusal": null, "annotations": [], "audio": null, "function_call": null, "tool_calls": null},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]},
        {"role": "assistant", "content": null, "refusal": "No!"},
    ]}))
    .unwrap();
    let text = |text: &str| Content::Text(text.into());
    let at = |part: u32| format!("messages[1].content[{part}]");
    let parts = vec![
        Part::Text {
            text: "Look:".into(),
        },
        Part::Image { image: at(1) },
        Part::Image { image: at(2) },
        Part::Video { video: at(3) },
        Part::Audio { audio: at(4) },
        Part::Audio { audio: at(5) },
    ];
    let declined = vec![Part::Text { text: "No.".into() }];
    let said: Vec<(&str, Content)> = vec![
        ("system", text("Be brief.")),
        ("user", Content::Parts(parts)),
        ("assistant", text("A cat.")),
        ("assistant", Content::Parts(declined)),
        ("assistant", text("No!")),
    ];
    let messages: Vec<(&str, Content)> = request
        .messages
        .iter()
        .map(|message| (message.role.as_str(), message.content.clone()))
        .collect();
    assert_eq!(messages, said);
    let media: Vec<_> = request
        .media
        .iter()
        .map(|medium| (medium.modality, medium.source.clone(), medium.detail))
        .collect();
    let url = |url: &str| Source::Url(url.into());
    assert_eq!(
        media,
        [
            (Modality::Image, Source::Bytes(vec![1, 2]), Detail::Low),
            (Modality::Image, url("https://host/cat.png"), Detail::Auto),
            (Modality::Video, Source::Bytes(vec![3]), Detail::Auto),
            (Modality::Audio, Source::Bytes(vec![4]), Detail::Auto),
            (Modality::Audio, url("http://host/a.mp3"), Detail::Auto),
        ]
    );
    let named: Vec<&str> = request.media.iter().map(|it| it.field.as_str()).collect();
    assert_eq!(named, [at(1), at(2), at(3), at(4), at(5)]);
    assert!(format!("{:?}", request.media).contains("Bytes(2 bytes)"));
}

#[test]
fn what_changes_nothing_is_ignored() {
    let plain = parse(&with(json!({}))).unwrap();
    for fields in [
        json!({"store": true, "metadata": {"a": "b"}, "service_tier": "auto", "safety_identifier": "x", "verbosity": "low",
               "reasoning_effort": "low", "parallel_tool_calls": false, "prediction": {}, "prompt_cache_retention": "24h",
               "prompt_cache_options": {}}),
        json!({"tools": [], "functions": null, "tool_choice": "none", "function_call": "none", "audio": null}),
        json!({"response_format": {"type": "text"}, "modalities": ["text"]}),
        json!({"temperature": null, "max_tokens": null, "stop": null, "n": null, "stream": null, "stream_options": null,
               "logprobs": null, "top_logprobs": null, "logit_bias": null, "seed": null, "user": null, "msao": null}),
        json!({"stream": false, "logprobs": false, "stop": [], "logit_bias": {}, "msao": {"require": null}}),
    ] {
        assert_eq!(parse(&with(fields.clone())), Ok(plain.clone()), "{fields}");
    }
}

#[test]
fn what_is_not_supported_is_named() {
    for (name, value) in [
        ("tools", json!([{"type": "function"}])),
        ("tool_choice", json!("auto")),
        ("functions", json!([{}])),
        ("function_call", json!({"name": "f"})),
        ("response_format", json!({"type": "json_object"})),
        (
            "response_format",
            json!({"type": "text", "json_schema": {}}),
        ),
        ("modalities", json!(["text", "audio"])),
        ("audio", json!({"voice": "alloy"})),
        ("web_search_options", json!({})),
        ("moderation", json!({})),
    ] {
        let expected = (400, name.to_owned(), "unsupported_parameter");
        assert_eq!(refused(&with(json!({ name: value }))), expected);
    }
    let tool_calls = json!({"model": "m", "messages": [{"role": "assistant", "content": "x", "tool_calls": [{}]}]});
    let at = "messages[0].tool_calls".to_owned();
    assert_eq!(refused(&tool_calls), (400, at, "unsupported_parameter"));
    let file = saying(json!([{"type": "file", "file": {}}]));
    let at = "messages[0].content[0].type".to_owned();
    assert_eq!(refused(&file), (400, at, "unsupported_value"));
}

#[test]
fn what_is_wrong_is_named() {
    let image = |value: Value| saying(json!([{"type": "image_url", "image_url": value}]));
    let sound = |value: Value| saying(json!([{"type": "input_audio", "input_audio": value}]));
    let message = |value: Value| json!({"model": "m", "messages": [value]});
    let (missing, kind, value) = (
        "missing_required_parameter",
        "invalid_type",
        "invalid_value",
    );
    let cases = [
        (json!({}), "model", missing),
        (json!({"model": "m"}), "messages", missing),
        (json!([]), "", kind),
        (
            json!({"model": "", "messages": []}),
            "model",
            "empty_string",
        ),
        (
            json!({"model": "m", "messages": []}),
            "messages",
            "empty_array",
        ),
        (json!({"model": "m", "messages": "Hi"}), "messages", kind),
        (message(json!("Hi")), "messages[0]", kind),
        (
            message(json!({"content": "Hi"})),
            "messages[0].role",
            missing,
        ),
        (
            message(json!({"role": "user"})),
            "messages[0].content",
            missing,
        ),
        (
            message(json!({"role": "user", "content": null})),
            "messages[0].content",
            missing,
        ),
        (
            message(json!({"role": "user", "refusal": "x"})),
            "messages[0].content",
            missing,
        ),
        (
            message(json!({"role": "tool", "content": "x"})),
            "messages[0].role",
            "unsupported_value",
        ),
        (
            message(json!({"role": "King", "content": "x"})),
            "messages[0].role",
            value,
        ),
        (
            message(json!({"role": "user", "content": "x", "mood": 1})),
            "messages[0].mood",
            "unknown_parameter",
        ),
        (
            message(
                json!({"role": "system", "content": [{"type": "image_url", "image_url": "x"}]}),
            ),
            "messages[0].content[0].type",
            "unsupported_value",
        ),
        (saying(json!(1)), "messages[0].content", kind),
        (saying(json!([])), "messages[0].content", "empty_array"),
        (saying(json!(["x"])), "messages[0].content[0]", kind),
        (
            saying(json!([{"type": "smell"}])),
            "messages[0].content[0].type",
            value,
        ),
        (
            saying(json!([{"type": "refusal", "refusal": "x"}])),
            "messages[0].content[0].type",
            value,
        ),
        (
            saying(json!([{"type": "text"}])),
            "messages[0].content[0].text",
            missing,
        ),
        (
            saying(json!([{"type": "text", "text": "x", "size": 1}])),
            "messages[0].content[0].size",
            "unknown_parameter",
        ),
        (image(json!(1)), "messages[0].content[0].image_url", kind),
        (
            image(json!({})),
            "messages[0].content[0].image_url.url",
            missing,
        ),
        (
            image(json!("ftp://host/x")),
            "messages[0].content[0].image_url",
            value,
        ),
        (
            image(json!({"url": "data:;base64,?"})),
            "messages[0].content[0].image_url.url",
            "invalid_base64",
        ),
        (
            image(json!({"url": "data:;base64,AQ==", "detail": "huge"})),
            "messages[0].content[0].image_url.detail",
            value,
        ),
        (
            image(json!({"url": "data:;base64,AQ==", "width": 1})),
            "messages[0].content[0].image_url.width",
            "unknown_parameter",
        ),
        (
            sound(json!({"data": "AQ==", "format": "ogg"})),
            "messages[0].content[0].input_audio.format",
            value,
        ),
        (
            sound(json!({"data": "AQ=="})),
            "messages[0].content[0].input_audio.format",
            missing,
        ),
        (
            sound(json!({"data": "", "format": "mp3"})),
            "messages[0].content[0].input_audio.data",
            value,
        ),
        (
            with(json!({"Temperature": 1})),
            "Temperature",
            "unknown_parameter",
        ),
        (with(json!({"temperature": "hot"})), "temperature", kind),
        (with(json!({"temperature": 2.1})), "temperature", value),
        (with(json!({"top_p": -0.1})), "top_p", value),
        (
            with(json!({"frequency_penalty": 3})),
            "frequency_penalty",
            value,
        ),
        (
            with(json!({"presence_penalty": -3})),
            "presence_penalty",
            value,
        ),
        (with(json!({"logit_bias": [1]})), "logit_bias", kind),
        (
            with(json!({"logit_bias": {"1": "x"}})),
            "logit_bias.1",
            kind,
        ),
        (with(json!({"logit_bias": {"1": 101}})), "logit_bias", value),
        (
            with(json!({"logit_bias": {"1": 1e300}})),
            "logit_bias",
            value,
        ),
        (with(json!({"logit_bias": {"01": 1}})), "logit_bias", value),
        (with(json!({"logit_bias": {"-1": 1}})), "logit_bias", value),
        (with(json!({"seed": 1.5})), "seed", kind),
        (with(json!({"seed": 1e30})), "seed", kind),
        (with(json!({"n": 0})), "n", "integer_below_min_value"),
        (with(json!({"n": -1})), "n", "integer_below_min_value"),
        (with(json!({"n": 1.0})), "n", kind),
        (
            with(json!({"max_tokens": 0})),
            "max_tokens",
            "integer_below_min_value",
        ),
        (
            with(json!({"max_completion_tokens": 1_u64 << 32})),
            "max_completion_tokens",
            "integer_above_max_value",
        ),
        (
            with(json!({"max_tokens": 1, "max_completion_tokens": 1})),
            "max_tokens",
            "invalid_parameter_combination",
        ),
        (with(json!({"stop": ""})), "stop", "empty_string"),
        (with(json!({"stop": ["a", ""]})), "stop[1]", "empty_string"),
        (with(json!({"stop": [1]})), "stop[0]", kind),
        (with(json!({"stop": 1})), "stop", kind),
        (with(json!({"top_logprobs": 1})), "top_logprobs", value),
        (with(json!({"logprobs": 1})), "logprobs", kind),
        (
            with(json!({"logprobs": true, "top_logprobs": -1})),
            "top_logprobs",
            "integer_below_min_value",
        ),
        (with(json!({"stream": "yes"})), "stream", kind),
        (with(json!({"stream_options": {}})), "stream_options", value),
        (
            with(json!({"stream": true, "stream_options": {"x": 1}})),
            "stream_options.x",
            "unknown_parameter",
        ),
        (with(json!({"user": 7})), "user", kind),
        (with(json!({"msao": true})), "msao", kind),
        (
            with(json!({"msao": {"require": "fast"}})),
            "msao.require",
            value,
        ),
        (with(json!({"msao": {"media": true}})), "msao.media", kind),
        (
            with(json!({"msao": {"seed": 1}})),
            "msao.seed",
            "unknown_parameter",
        ),
    ];
    for (body, param, code) in cases {
        assert_eq!(refused(&body), (400, param.to_owned(), code), "{body}");
    }
}

/// Each limit: a request that just keeps it, one that does not, and what is said then.
#[test]
fn every_limit_is_kept_to_and_named() {
    let texts = |count: usize| vec![json!({"role": "user", "content": "ab"}); count];
    let messages = |count: usize| json!({"model": "m", "messages": texts(count)});
    let parts = |count: usize| saying(vec![json!({"type": "text", "text": "x"}); count].into());
    let image = |size: usize| json!({"type": "image_url", "image_url": format!("data:;base64,{}", "AAAA".repeat(size / 3))});
    let images = |count: usize| saying(vec![image(3); count].into());
    let url = |bytes: usize| {
        let url = format!("http://{}", "h".repeat(bytes - 7));
        saying(json!([{"type": "audio_url", "audio_url": {"url": url}}]))
    };
    let biases = |count: u32| {
        let entries = (0..count).map(|id| (id.to_string(), json!(1)));
        with(json!({"logit_bias": entries.collect::<serde_json::Map<_, _>>()}))
    };
    let least = Limits {
        max_messages: 2,
        max_parts: 3,
        max_media: 1,
        max_text_bytes: 4,
        max_medium_bytes: 6,
        max_url_bytes: 20,
        max_name_bytes: 5,
        max_stops: 2,
        max_stop_bytes: 3,
        max_logit_bias: 2,
        max_n: 3,
        max_top_logprobs: 4,
        ..Limits::default()
    };
    let name = |bytes: usize| "x".repeat(bytes);
    let cases = [
        (
            messages(2),
            messages(3),
            400,
            "messages",
            "2",
            "max_messages",
        ),
        (
            parts(3),
            parts(4),
            400,
            "messages[0].content",
            "3",
            "max_parts",
        ),
        (
            images(1),
            images(2),
            400,
            "messages[0].content[1]",
            "1",
            "max_media",
        ),
        (
            saying(json!("abcd")),
            saying(json!("abcde")),
            413,
            "messages[0].content",
            "4",
            "max_text_bytes",
        ),
        (
            saying(json!([image(6)])),
            saying(json!([image(9)])),
            413,
            "messages[0].content[0].image_url",
            "6",
            "max_medium_bytes",
        ),
        (
            url(20),
            url(21),
            400,
            "messages[0].content[0].audio_url.url",
            "20",
            "max_url_bytes",
        ),
        (
            with(json!({"user": name(5)})),
            with(json!({"user": name(6)})),
            400,
            "user",
            "5",
            "max_name_bytes",
        ),
        (
            with(json!({"model": name(5)})),
            with(json!({"model": name(6)})),
            400,
            "model",
            "5",
            "max_name_bytes",
        ),
        (
            with(json!({"stop": ["a", "b"]})),
            with(json!({"stop": ["a", "b", "c"]})),
            400,
            "stop",
            "2",
            "max_stops",
        ),
        (
            with(json!({"stop": name(3)})),
            with(json!({"stop": name(4)})),
            400,
            "stop",
            "3",
            "max_stop_bytes",
        ),
        (
            biases(2),
            biases(3),
            400,
            "logit_bias",
            "2",
            "max_logit_bias",
        ),
        (
            with(json!({"n": 3})),
            with(json!({"n": 4})),
            400,
            "n",
            "3",
            "<=",
        ),
        (
            with(json!({"logprobs": true, "top_logprobs": 4})),
            with(json!({"logprobs": true, "top_logprobs": 5})),
            400,
            "top_logprobs",
            "4",
            "<=",
        ),
    ];
    for (kept, broken, status, param, limit, setting) in cases {
        let parse = |body: &Value| ChatRequest::parse(body.to_string().as_bytes(), &least);
        assert!(parse(&kept).is_ok(), "{kept}: {:?}", parse(&kept));
        let error = parse(&broken).unwrap_err();
        assert_eq!(
            (error.status, error.param.as_deref()),
            (status, Some(param)),
            "{error}"
        );
        for word in [param, limit, setting] {
            assert!(error.message.contains(word), "{word}: {error}");
        }
    }
    // Parts are counted over all messages, bare strings too.
    let limits = Limits {
        max_parts: 2,
        ..Limits::default()
    };
    let error = ChatRequest::parse(messages(3).to_string().as_bytes(), &limits).unwrap_err();
    assert_eq!(error.param.as_deref(), Some("messages[2].content"));

    let body = with(json!({})).to_string();
    let limits = |max_body_bytes| Limits {
        max_body_bytes,
        ..Limits::default()
    };
    assert!(ChatRequest::parse(body.as_bytes(), &limits(body.len())).is_ok());
    let error = ChatRequest::parse(body.as_bytes(), &limits(body.len() - 1)).unwrap_err();
    assert_eq!((error.status, error.param), (413, None));
}

#[test]
fn messages_repeat_little_of_what_was_sent() {
    let long = "x\n".repeat(100_000);
    for body in [
        with(json!({ long.as_str(): 1 })),
        with(json!({"logit_bias": {long.as_str(): 1}})),
        with(json!({"logit_bias": {"1": 1, "msao": long.as_str()}})),
        json!({"model": "m", "messages": [{"role": long.as_str(), "content": ""}]}),
        saying(json!([{"type": long.as_str()}])),
        saying(json!([{"type": "image_url", "image_url": long.as_str()}])),
        with(json!({"msao": {"require": long.as_str()}})),
    ] {
        let error = parse(&body).unwrap_err();
        let said = msao_api::sse::json(&error);
        assert!(said.len() < 1000 && !said.contains("\\n"), "{said}");
    }
}
