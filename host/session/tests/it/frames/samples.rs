//! One frame of each shape, with fixed content.

use std::collections::BTreeMap;

use msao_core::chat::{Content, Message, Modality, Part};
use msao_core::digest::Digest;
use msao_core::sampling::{SamplingParams, TokenLogprob, TopLogprobs};
use msao_session::PrefixDigest;
use msao_session::frame::{
    Cancel, Close, Cost, Draft, Finish, Frame, Heartbeat, Hello, Identity, Made, Medium, Open,
    Prompt, Refused, RefusedCode, SessionId, Verdict, Wanted, Window, Word, Words,
};

pub const SESSION: SessionId = SessionId([
    0, 17, 34, 51, 68, 85, 102, 119, 136, 153, 170, 187, 204, 221, 238, 255,
]);

fn identity(name: &str) -> Identity {
    Identity {
        model: Digest::of(name.as_bytes()),
        tokenizer: Digest::of(b"tokenizer"),
        processor: Digest::of(b"processor"),
    }
}

pub fn plain_open() -> Open {
    Open {
        session: SESSION,
        epoch: 0,
        wanted: Wanted::Verify,
        sampling: SamplingParams::default(),
        top_logprobs: None,
        max_tokens: 64,
        target_input: Digest::of(b"input"),
        prompt: Prompt::default(),
        deadline_ms: 0.0,
        tokenizer: None,
        request: None,
        cost: false,
        committed: Vec::new(),
    }
}

fn full_open() -> Open {
    let picture = Part::Image { image: "0".into() };
    let question = Part::Text {
        text: "What colour is the circle?".into(),
    };
    Open {
        epoch: 3,
        wanted: Wanted::DecodeWithDraft,
        sampling: SamplingParams {
            temperature: 0.8,
            top_k: Some(40),
            top_p: 0.95,
            frequency_penalty: 0.5,
            logit_bias: BTreeMap::from([(7, -1.5), (70_000, 2.0)]),
            seed: u64::MAX,
            choice: 1,
            ..SamplingParams::default()
        },
        top_logprobs: Some(2),
        prompt: Prompt {
            messages: vec![Message {
                role: "user".into(),
                content: Content::Parts(vec![picture, question]),
            }],
            media: vec![Medium {
                digest: Digest::of(b"picture"),
                modality: Modality::Image,
                keep: Some(vec![0b1010_0101, 1]),
                made: None,
            }],
        },
        deadline_ms: 1500.5,
        committed: vec![1, 2, 300_000],
        ..plain_open()
    }
}

/// A picture of which a part is sent at half its size, and a clip that is dropped.
pub fn made_open() -> Open {
    let picture = Made {
        shipped: true,
        size: (640, 480),
        length: 1,
        frames: 0,
        fps: 0.0,
        whole: (1, 17, 23),
        canvas: (320, 240),
        scaled: (9, 11),
        window: Some(Window {
            top: 3,
            left: 4,
            rows: 6,
            columns: 7,
            steps: vec![1],
        }),
    };
    let clip = Made {
        shipped: false,
        size: (112, 112),
        length: 6,
        frames: 12,
        fps: 29.97,
        whole: (3, 4, 4),
        canvas: (112, 112),
        scaled: (4, 4),
        window: None,
    };
    let question = Part::Text {
        text: "What moves?".into(),
    };
    Open {
        prompt: Prompt {
            messages: vec![Message {
                role: "user".into(),
                content: Content::Parts(vec![
                    Part::Image { image: "0".into() },
                    Part::Video { video: "1".into() },
                    question,
                ]),
            }],
            media: vec![
                Medium {
                    digest: Digest::of(b"shipment"),
                    modality: Modality::Image,
                    keep: Some(vec![1, 2, 3, 4, 5, 1]),
                    made: Some(picture),
                },
                Medium {
                    digest: Digest::of(b"clip"),
                    modality: Modality::Video,
                    keep: None,
                    made: Some(clip),
                },
            ],
        },
        ..plain_open()
    }
}

fn place(id: u32, logprob: f64, top: &[(u32, f64)]) -> TopLogprobs {
    let told = |(id, logprob)| TokenLogprob { id, logprob };
    TopLogprobs {
        chosen: told((id, logprob)),
        top: top.iter().copied().map(told).collect(),
    }
}

fn word(id: u32, bytes: &[u8], special: bool) -> Word {
    Word {
        id,
        bytes: bytes.to_vec(),
        special,
    }
}

/// What the golden vectors hold, each with its name.
pub fn samples() -> Vec<(&'static str, Frame)> {
    let prefix = PrefixDigest::of(&[5, 6, 7]).digest();
    let draft = Draft {
        session: SESSION,
        epoch: 1,
        round: 2,
        committed: 3,
        prefix,
        start: 5,
        forced: Vec::new(),
        proposed: vec![10, 11, 0x0102_0304],
        last: false,
    };
    let verdict = Verdict {
        session: SESSION,
        epoch: 1,
        round: 2,
        start: 5,
        accepted: 2,
        next: vec![12],
        idle: false,
        finish: None,
        logprobs: None,
    };
    vec![
        (
            "hello",
            Frame::Hello(Hello {
                oldest: 1,
                newest: 1,
                software: "msao 0.1.0".into(),
                draft: Some(identity("draft")),
                target: None,
                shipments: 0,
            }),
        ),
        ("open-plain", Frame::Open(Box::new(plain_open()))),
        ("open-full", Frame::Open(Box::new(full_open()))),
        ("draft", Frame::Draft(draft.clone())),
        (
            "draft-forced",
            Frame::Draft(Draft {
                start: 1,
                forced: vec![6, 7],
                ..draft.clone()
            }),
        ),
        (
            "draft-last",
            Frame::Draft(Draft {
                proposed: Vec::new(),
                last: true,
                ..draft
            }),
        ),
        ("verdict", Frame::Verdict(verdict.clone())),
        (
            "verdict-idle",
            Frame::Verdict(Verdict {
                accepted: 0,
                idle: true,
                finish: Some(Finish::EndOfSequence),
                ..verdict.clone()
            }),
        ),
        (
            "verdict-logprobs",
            Frame::Verdict(Verdict {
                accepted: 1,
                finish: Some(Finish::Length),
                logprobs: Some(vec![
                    place(10, -0.25, &[(10, -0.25), (3, -2.0)]),
                    place(12, f64::NEG_INFINITY, &[]),
                ]),
                ..verdict
            }),
        ),
        ("cancel", Frame::Cancel(Cancel { session: SESSION })),
        (
            "refused",
            Frame::Refused(Refused {
                session: SESSION,
                code: RefusedCode::MediaMissing,
                retry_after_ms: 250.0,
                message: "upload it first".into(),
            }),
        ),
        (
            "heartbeat",
            Frame::Heartbeat(Heartbeat {
                sent_ms: 1000.25,
                echo_ms: Some(900.0),
                held_ms: 3.5,
                queue_ms: 12.0,
                planned_ms: 40.0,
                kv_free: 4096.0,
                prefill_tok_per_s: 2000.0,
                draft_tok_per_s: 120.0,
                target_tok_per_s: 33.3,
                verify_ms: 31.0,
            }),
        ),
        ("close", Frame::Close(Close { session: SESSION })),
        (
            "open-tokenizer",
            Frame::Open(Box::new(Open {
                tokenizer: Some(Digest::of(b"tokenizer")),
                request: Some("req_1".into()),
                ..plain_open()
            })),
        ),
        (
            "words",
            Frame::Words(Words {
                session: SESSION,
                words: vec![word(7, b" blue", false), word(602, b"<|end|>", true)],
            }),
        ),
        (
            "open-cost",
            Frame::Open(Box::new(Open {
                cost: true,
                ..plain_open()
            })),
        ),
        (
            "cost",
            Frame::Cost(Cost {
                session: SESSION,
                account: u64::MAX,
                target_flops: 3_000_000_000_000,
                draft_flops: 0,
                cached_tokens: 300,
                cache_byte_seconds: 1.5e9,
                busy_ms: 0.0,
                activation_bytes: 0,
            }),
        ),
        (
            "hello-shipments",
            Frame::Hello(Hello {
                oldest: 1,
                newest: 1,
                software: "msao 0.1.0".into(),
                draft: Some(identity("draft")),
                target: None,
                shipments: 1,
            }),
        ),
        ("open-made", Frame::Open(Box::new(made_open()))),
    ]
}
