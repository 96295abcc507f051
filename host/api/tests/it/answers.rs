//! Answers, chunks, models and errors, held against texts in the form of OpenAI's API reference.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)] // a test's helpers may panic

use msao_api::{
    ApiError, ChatCompletion, Choice, Chunk, ChunkStream, FinishReason, Head, ItemReport, Logprobs,
    Model, ModelList, Piece, PromptTokens, Report, Retention, TopLogprob, Usage, sse,
};
use msao_core::digest::Digest;
use msao_core::offload::record::GenerationId;
use msao_core::offload::{Outcome, Part, Route, Status, modality};
use serde::Serialize;
use serde_json::Value;

#[track_caller]
fn same<T: Serialize>(value: &T, golden: &str) {
    let written: Value = serde_json::from_str(&sse::json(value)).unwrap();
    let golden: Value = serde_json::from_str(golden).unwrap();
    assert_eq!(
        written,
        golden,
        "{}",
        serde_json::to_string_pretty(&written).unwrap()
    );
}

fn head() -> Head {
    Head {
        id: "chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT".into(),
        created: 1741569952,
        model: "qwen2.5-vl-7b".into(),
        system_fingerprint: "fp_44709d6fcb12".into(),
    }
}

fn usage() -> Usage {
    let prompt = PromptTokens {
        text: 19,
        image: 64,
        video: 8,
        audio: 25,
        cached: 16,
    };
    Usage::new(prompt, 10)
}

fn generation() -> GenerationId {
    GenerationId {
        policy: Some(Digest([0xab; 32])),
        postprocessor: None,
        revision: 3,
    }
}

fn report() -> Report {
    let part = |modality, necessity, mas| Part {
        modality,
        tokens: 64,
        necessity,
        mas,
        ..Part::default()
    };
    let kept = Retention {
        draft: Some(0.25),
        target: Some(1.0),
    };
    let items = [
        (part(modality::IMAGE, 0.875, 0.5), kept),
        (part(modality::VIDEO, -1.0, -1.0), Retention::default()),
        (part(modality::TEXT, 1.0, 0.0), Retention::default()),
    ];
    let outcome = Outcome {
        status: Status::Degraded as u8,
        sent_bytes: 181_234.0,
        received_bytes: 420.0,
        tokens: 10,
        unverified: 2,
        rounds: 4,
        drafted: vec![0, 3, 9],
        accepted: vec![0, 1, 8],
        edge_flops: 2.5e9,
        cloud_flops: 7.5e11,
        probe_ms: 6.5,
        upload_ms: 12.25,
        queue_ms: 0.5,
        ..Outcome::default()
    };
    let items = items
        .iter()
        .filter_map(|(part, kept)| ItemReport::of(part, *kept));
    let report = Report::of(
        Route::CloudDraft,
        generation(),
        42,
        items.collect(),
        &outcome,
    );
    assert!(!report.audited && report.outside_budget_tokens == 0);
    let mut report = Report {
        outside_budget_tokens: 1,
        audited: true,
        ..report
    };
    report.cost.cloud.cache_byte_seconds = 1.5;
    report.cost.edge.busy_ms = 7.5;
    report.cost.edge.wasted_flops = Some(5e8);
    report.cost.cloud.activation_bytes = 4096;
    report
}

const REPORT: &str = r#"{
  "route": "cloud-draft",
  "generation": {
    "policy": "abababababababababababababababababababababababababababababababab",
    "postprocessor": null,
    "revision": 3
  },
  "seed": 42,
  "items": [
    {"modality": "image", "tokens": 64, "necessity": 0.875, "mas": 0.5, "retention": {"draft": 0.25, "target": 1.0}},
    {"modality": "video", "tokens": 64, "necessity": null, "mas": null, "retention": {"draft": null, "target": null}}
  ],
  "rounds": 4,
  "drafted_tokens": 12,
  "accepted_tokens": 9,
  "unverified_tokens": 2,
  "outside_budget_tokens": 1,
  "audited": true,
  "bytes_up": 181234,
  "bytes_down": 420,
  "degraded": true,
  "cost": {
    "edge": {"flops": 2500000000.0, "wasted_flops": 500000000.0, "cache_byte_seconds": 0.0, "busy_ms": 7.5, "activation_bytes": 0},
    "cloud": {"flops": 7.5e11, "cache_byte_seconds": 1.5, "busy_ms": 0.0, "activation_bytes": 4096},
    "probe_ms": 6.5,
    "upload_ms": 12.25,
    "queue_ms": 0.5
  }
}"#;

const USAGE: &str = r#"{
  "prompt_tokens": 116,
  "completion_tokens": 10,
  "total_tokens": 126,
  "prompt_tokens_details": {"text_tokens": 19, "image_tokens": 72, "audio_tokens": 25, "cached_tokens": 16}
}"#;

#[test]
fn a_whole_answer() {
    let choice = Choice::new(0, "Hello!".into(), None, FinishReason::Stop);
    let answer = ChatCompletion::new(head(), vec![choice], usage(), report());
    let golden = r#"{
      "id": "chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT",
      "object": "chat.completion",
      "created": 1741569952,
      "model": "qwen2.5-vl-7b",
      "choices": [
        {
          "index": 0,
          "message": {"role": "assistant", "content": "Hello!", "refusal": null},
          "logprobs": null,
          "finish_reason": "stop"
        }
      ],
      "usage": USAGE,
      "system_fingerprint": "fp_44709d6fcb12",
      "msao": REPORT
    }"#;
    let golden = golden.replace("USAGE", USAGE).replace("REPORT", REPORT);
    same(&answer, &golden);
    assert_eq!(
        serde_json::from_str::<ChatCompletion>(&golden).unwrap(),
        answer
    );
}

#[test]
fn log_probabilities() {
    let euro = TopLogprob::new(&[0xe2, 0x82, 0xac], -0.125);
    let part = TopLogprob::new(&[0xe2], f64::NEG_INFINITY);
    let logprobs = Logprobs::new(vec![
        euro.clone().chosen(vec![euro, part.clone()]),
        part.chosen(Vec::new()),
    ]);
    let choice = Choice::new(1, "€".into(), Some(logprobs), FinishReason::Length);
    same(
        &choice,
        r#"{
          "index": 1,
          "message": {"role": "assistant", "content": "€", "refusal": null},
          "logprobs": {
            "content": [
              {
                "token": "€", "logprob": -0.125, "bytes": [226, 130, 172],
                "top_logprobs": [
                  {"token": "€", "logprob": -0.125, "bytes": [226, 130, 172]},
                  {"token": "\ufffd", "logprob": -9999.0, "bytes": [226]}
                ]
              },
              {"token": "\ufffd", "logprob": -9999.0, "bytes": [226], "top_logprobs": []}
            ],
            "refusal": null
          },
          "finish_reason": "length"
        }"#,
    );
}

/// All chunks of an answer as JSON, one a line.
fn streamed(mut stream: ChunkStream, pieces: Vec<(u32, Piece)>) -> Vec<Chunk> {
    let mut chunks: Vec<Chunk> = pieces
        .into_iter()
        .filter_map(|(index, piece)| {
            let mut chunk = stream.advance(index, piece)?;
            chunk.msao = stream.is_finished().then(report);
            Some(chunk)
        })
        .collect();
    chunks.extend(stream.usage(usage()));
    chunks
}

#[test]
fn chunks_name_what_computes_the_answer_from_there_on() {
    let mut stream = ChunkStream::new(head(), 1, true);
    let before = stream.advance(0, Piece::Begin).unwrap();
    stream.computed_by("fp_2".into());
    let after = [
        stream.advance(0, Piece::Finish(FinishReason::Stop)),
        stream.usage(usage()),
    ];
    assert_eq!(before.system_fingerprint, head().system_fingerprint);
    for chunk in after {
        assert_eq!(chunk.unwrap().system_fingerprint, "fp_2");
    }
}

#[test]
fn a_streamed_answer() {
    let pieces = || {
        vec![
            (0, Piece::Begin),
            (0, Piece::Text("Hello".into(), None)),
            (0, Piece::Finish(FinishReason::Stop)),
        ]
    };
    const HEAD: &str = r#""id": "chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT", "object": "chat.completion.chunk", "created": 1741569952,
        "model": "qwen2.5-vl-7b", "system_fingerprint": "fp_44709d6fcb12""#;
    let choices = [
        r#"[{"index": 0, "delta": {"role": "assistant", "content": ""}, "logprobs": null, "finish_reason": null}]"#,
        r#"[{"index": 0, "delta": {"content": "Hello"}, "logprobs": null, "finish_reason": null}]"#,
        r#"[{"index": 0, "delta": {}, "logprobs": null, "finish_reason": "stop"}]"#,
    ];
    let plain = streamed(ChunkStream::new(head(), 1, false), pieces());
    let counted = streamed(ChunkStream::new(head(), 1, true), pieces());
    assert_eq!((plain.len(), counted.len()), (3, 4));
    for (index, choices) in choices.iter().enumerate() {
        let own = if index == 2 {
            format!(r#", "msao": {REPORT}"#)
        } else {
            String::new()
        };
        same(
            &plain[index],
            &format!(r#"{{{HEAD}, "choices": {choices}{own}}}"#),
        );
        let golden = format!(r#"{{{HEAD}, "choices": {choices}, "usage": null{own}}}"#);
        same(&counted[index], &golden);
        assert_eq!(
            serde_json::from_str::<Chunk>(&golden).unwrap(),
            counted[index]
        );
    }
    same(
        &counted[3],
        &format!(r#"{{{HEAD}, "choices": [], "usage": {USAGE}}}"#),
    );
}

#[test]
fn several_choices_in_one_stream() {
    let text = |text: &str| Piece::Text(text.into(), None);
    let finish = Piece::Finish(FinishReason::Length);
    let chunks = streamed(
        ChunkStream::new(head(), 2, false),
        vec![
            (1, text("b")),
            (0, Piece::Begin),
            (1, Piece::Begin),
            (1, finish.clone()),
            (1, text("too late")),
            (2, text("no such choice")),
            (0, finish),
        ],
    );
    let told: Vec<_> = chunks
        .iter()
        .map(|chunk| {
            let choice = &chunk.choices[0];
            (
                choice.index,
                choice.delta.role.is_some(),
                choice.delta.content.as_deref(),
                choice.finish_reason.is_some(),
                chunk.msao.is_some(),
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            (1, true, Some("b"), false, false),
            (0, true, Some(""), false, false),
            (1, false, None, true, false),
            (0, false, None, true, true),
        ]
    );
}

#[test]
fn the_text_of_a_stream() {
    let head = Head {
        id: "chatcmpl-1".into(),
        created: 1,
        model: "m".into(),
        system_fingerprint: "fp_1".into(),
    };
    let mut stream = ChunkStream::new(head, 1, false);
    let chunk = stream
        .advance(0, Piece::Text("a\r\nb".into(), None))
        .unwrap();
    let mut text = sse::event(&chunk);
    text += sse::PING;
    text += &sse::error(&ApiError::exact_unavailable("the link is down"));
    text += sse::DONE;
    let golden = concat!(
        r#"data: {"object":"chat.completion.chunk","id":"chatcmpl-1","created":1,"model":"m","system_fingerprint":"fp_1","choices":[{"index":0,"delta":{"role":"assistant","content":"a\r\nb"},"logprobs":null,"finish_reason":null}]}"#,
        "\n\n",
        ": ping\n\n",
        r#"data: {"error":{"message":"An exact answer is required and cannot be had now: the link is down. Try again later, or leave msao.require out.","type":"server_error","param":"msao.require","code":"exact_unavailable"}}"#,
        "\n\n",
        "data: [DONE]\n\n",
    );
    assert_eq!(text, golden);
}

#[test]
fn models() {
    let model = |id: &str| Model {
        id: id.into(),
        created: 1686935002,
        owned_by: "organization-owner".into(),
    };
    let list = ModelList {
        data: vec![model("draft"), model("target")],
    };
    same(
        &list,
        r#"{"object": "list", "data": [
          {"id": "draft", "object": "model", "created": 1686935002, "owned_by": "organization-owner"},
          {"id": "target", "object": "model", "created": 1686935002, "owned_by": "organization-owner"}
        ]}"#,
    );
    assert_eq!(list.get("target"), Ok(&list.data[1]));
    assert_eq!(list.get("gpt").unwrap_err().code, "model_not_found");
}

#[test]
fn errors_have_stable_codes() {
    let cases = [
        (
            ApiError::unauthorized(),
            401,
            "invalid_request_error",
            "invalid_api_key",
        ),
        (
            ApiError::forbidden("media from URLs"),
            403,
            "invalid_request_error",
            "permission_denied",
        ),
        (
            ApiError::model_not_found("x"),
            404,
            "invalid_request_error",
            "model_not_found",
        ),
        (
            ApiError::not_found("/v2"),
            404,
            "invalid_request_error",
            "not_found",
        ),
        (
            ApiError::method_not_allowed("POST"),
            405,
            "invalid_request_error",
            "method_not_allowed",
        ),
        (
            ApiError::slow_body(30_000),
            408,
            "invalid_request_error",
            "body_timeout",
        ),
        (
            ApiError::too_large(None, "x"),
            413,
            "invalid_request_error",
            "request_too_large",
        ),
        (
            ApiError::unsupported_media_type(None, "x"),
            415,
            "invalid_request_error",
            "unsupported_media_type",
        ),
        (
            ApiError::overloaded(250),
            429,
            "rate_limit_error",
            "overloaded",
        ),
        (ApiError::internal(), 500, "server_error", "internal_error"),
        (
            ApiError::loading(None),
            503,
            "server_error",
            "model_loading",
        ),
        (ApiError::draining(Some(5)), 503, "server_error", "draining"),
        (
            ApiError::exact_unavailable("x"),
            503,
            "server_error",
            "exact_unavailable",
        ),
        (
            ApiError::deadline_exceeded(1),
            504,
            "server_error",
            "deadline_exceeded",
        ),
        (
            ApiError::context_length_exceeded(10, 5, 12),
            400,
            "invalid_request_error",
            "context_length_exceeded",
        ),
        (
            ApiError::invalid_media_url("p", "x"),
            400,
            "invalid_request_error",
            "invalid_media_url",
        ),
        (
            ApiError::invalid_media("p", "x"),
            400,
            "invalid_request_error",
            "invalid_media",
        ),
    ];
    for (error, status, kind, code) in cases {
        let body: Value = serde_json::from_str(&sse::json(&error)).unwrap();
        let inner = body["error"].as_object().unwrap();
        assert_eq!(body.as_object().unwrap().len(), 1);
        let mut keys: Vec<&str> = inner.keys().map(String::as_str).collect();
        keys.sort_unstable();
        assert_eq!(keys, ["code", "message", "param", "type"]);
        assert_eq!(
            (error.status, &inner["type"], &inner["code"]),
            (status, &kind.into(), &code.into())
        );
        assert_eq!(inner["message"], error.message);
    }
}

#[test]
fn the_report_in_headers() {
    let expected = [
        ("x-msao-route", "cloud-draft"),
        ("x-msao-generation", "abababababab/3"),
        ("x-msao-seed", "42"),
        ("x-msao-rounds", "4"),
        ("x-msao-drafted-tokens", "12"),
        ("x-msao-accepted-tokens", "9"),
        ("x-msao-unverified-tokens", "2"),
        ("x-msao-outside-budget-tokens", "1"),
        ("x-msao-audited", "true"),
        ("x-msao-bytes-up", "181234"),
        ("x-msao-bytes-down", "420"),
        ("x-msao-degraded", "true"),
        (
            "x-msao-items",
            "image;necessity=0.875;mas=0.500;draft=0.250;target=1.000, video",
        ),
    ];
    let headers = report().headers();
    let headers: Vec<(&str, &str)> = headers
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    assert_eq!(headers, expected);
    let builtin = GenerationId {
        policy: None,
        postprocessor: Some(Digest([0xcd; 32])),
        revision: 1,
    };
    let opening = Report::opening_headers(Route::Edge, &builtin, 1);
    assert_eq!(opening[0].1, "edge");
    assert_eq!(opening[1].1, "builtin+cdcdcdcdcdcd/1");
    // However many items there are.
    let mut long = report();
    long.items = vec![long.items[0].clone(); 10_000];
    assert!(
        long.headers()
            .iter()
            .all(|(_, value)| value.len() < 2000 && value.is_ascii())
    );
}
