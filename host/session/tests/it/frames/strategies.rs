//! Frames within their limits, of any content.

use msao_core::chat::{Content, Message, Modality};
use msao_core::digest::Digest;
use msao_core::sampling::{SamplingParams, TokenLogprob, TopLogprobs};
use msao_session::frame::{
    Cancel, Close, Cost, Draft, Finish, Frame, Heartbeat, Hello, Identity, Made, Medium, Open,
    Prompt, Refused, RefusedCode, SessionId, Verdict, Wanted, Window, Word, Words,
};
use proptest::prelude::*;

fn session() -> impl Strategy<Value = SessionId> {
    any::<[u8; 16]>().prop_map(SessionId)
}

fn digest() -> impl Strategy<Value = Digest> {
    any::<[u8; 32]>().prop_map(Digest)
}

fn ids(most: usize) -> impl Strategy<Value = Vec<u32>> {
    prop::collection::vec(any::<u32>(), 0..=most)
}

fn identity() -> impl Strategy<Value = Option<Identity>> {
    prop::option::of(
        (digest(), digest(), digest()).prop_map(|(model, tokenizer, processor)| Identity {
            model,
            tokenizer,
            processor,
        }),
    )
}

fn hello() -> impl Strategy<Value = Frame> {
    let versions = (1_u8..9, 0_u8..9, any::<u8>());
    (versions, ".{0,60}", identity(), identity()).prop_map(
        |((oldest, more, shipments), software, draft, target)| {
            Frame::Hello(Hello {
                oldest,
                newest: oldest + more,
                software,
                draft,
                target,
                shipments,
            })
        },
    )
}

fn sampling() -> impl Strategy<Value = SamplingParams> {
    (
        0.0..=2.0,
        prop::option::of(1_u32..),
        -2.0..=2.0,
        prop::collection::btree_map(any::<u32>(), -100.0_f32..=100.0, 0..9),
        any::<u64>(),
        any::<u32>(),
    )
        .prop_map(
            |(temperature, top_k, presence_penalty, logit_bias, seed, choice)| SamplingParams {
                temperature,
                top_k,
                presence_penalty,
                logit_bias,
                seed,
                choice,
                ..SamplingParams::default()
            },
        )
}

/// A part of something: where it begins, and how much of how much it is.
fn part() -> impl Strategy<Value = (u32, u32, u32)> {
    (0_u32..99, 1_u32..99, 0_u32..99)
        .prop_map(|(from, count, behind)| (from, count, from + count + behind))
}

fn made() -> impl Strategy<Value = Made> {
    let side = || prop_oneof![Just((0, 0, 0)), part()];
    let steps = prop::collection::vec(1_u8.., 1..9);
    let sizes = (side(), any::<bool>());
    let length = (1_u32.., any::<u32>(), 0.0..1e6);
    let whole = (1_u32.., 1_u32.., 1_u32..);
    let window = (part(), part(), prop::option::of(steps));
    (any::<bool>(), sizes, length, whole, window).prop_map(
        |(shipped, ((_, less, side), wide), (length, frames, fps), whole, window)| {
            let ((top, rows, down), (left, columns, across), steps) = window;
            Made {
                shipped: shipped && steps.is_some(),
                size: if wide { (side, less) } else { (side, side) },
                length,
                frames,
                fps,
                whole,
                canvas: (less, less),
                scaled: (down, across),
                window: steps.map(|steps| Window {
                    top,
                    left,
                    rows,
                    columns,
                    steps,
                }),
            }
        },
    )
}

fn prompt() -> impl Strategy<Value = Prompt> {
    let message = ("[a-z]{1,9}", ".{0,200}").prop_map(|(role, text)| Message {
        role,
        content: Content::Text(text),
    });
    let modality = prop_oneof![
        Just(Modality::Image),
        Just(Modality::Video),
        Just(Modality::Audio)
    ];
    let keep = prop::option::of(prop::collection::vec(any::<u8>(), 0..40));
    let made = prop::option::of(made());
    let medium =
        (digest(), modality, keep, made).prop_map(|(digest, modality, keep, made)| Medium {
            digest,
            modality,
            keep: keep.filter(|_| made.as_ref().is_none_or(|made| made.window.is_some())),
            made,
        });
    (
        prop::collection::vec(message, 0..4),
        prop::collection::vec(medium, 0..4),
    )
        .prop_map(|(messages, media)| Prompt { messages, media })
}

fn open() -> impl Strategy<Value = Frame> {
    let wanted = prop_oneof![
        Just(Wanted::Verify),
        Just(Wanted::Decode),
        Just(Wanted::DecodeWithDraft)
    ];
    let request = (session(), any::<u32>(), wanted, digest());
    let rest = (
        sampling(),
        prop::option::of(0_u32..=20),
        prompt(),
        0.0..1e9,
        ids(90),
        prop::option::of(digest()),
        any::<bool>(),
    );
    (request, rest).prop_map(|(request, rest)| {
        let (session, epoch, wanted, target_input) = request;
        let (sampling, top_logprobs, prompt, deadline_ms, committed, tokenizer, cost) = rest;
        Frame::Open(Box::new(Open {
            session,
            epoch,
            wanted,
            sampling,
            top_logprobs,
            max_tokens: committed.len() as u32 + 1,
            target_input,
            prompt,
            deadline_ms,
            tokenizer,
            request: tokenizer.map(|digest| digest.to_string()),
            cost,
            committed,
        }))
    })
}

fn draft() -> impl Strategy<Value = Frame> {
    let places = (0..1_u32 << 20, 0..1_u32 << 20);
    let head = (
        session(),
        any::<u32>(),
        any::<u32>(),
        digest(),
        any::<bool>(),
    );
    (head, places, ids(80), ids(64)).prop_map(|(head, (from, more), forced, proposed)| {
        let (session, epoch, round, prefix, last) = head;
        let (committed, start) = match forced.len() as u32 {
            0 => (from, from + more),
            forced => (from + forced, from),
        };
        Frame::Draft(Draft {
            session,
            epoch,
            round,
            committed,
            prefix,
            start,
            forced,
            proposed,
            last,
        })
    })
}

fn told() -> impl Strategy<Value = TokenLogprob> {
    let logprob = prop_oneof![-1e3..=0.0, Just(f64::NEG_INFINITY)];
    (any::<u32>(), logprob).prop_map(|(id, logprob)| TokenLogprob { id, logprob })
}

fn verdict() -> impl Strategy<Value = Frame> {
    let finish = prop_oneof![
        Just(None),
        Just(Some(Finish::EndOfSequence)),
        Just(Some(Finish::Length))
    ];
    let place = (told(), prop::collection::vec(told(), 0..=20))
        .prop_map(|(chosen, top)| TopLogprobs { chosen, top });
    let head = (session(), any::<u32>(), any::<u32>(), 0..1_u32 << 20);
    let next = prop::collection::vec(any::<u32>(), 1..20);
    let places = prop::collection::vec(place, 40);
    (
        head,
        0_u32..20,
        next,
        any::<bool>(),
        finish,
        prop::option::of(places),
    )
        .prop_map(|(head, accepted, next, idle, finish, logprobs)| {
            let (session, epoch, round, start) = head;
            let tokens = accepted as usize + next.len();
            Frame::Verdict(Verdict {
                session,
                epoch,
                round,
                start,
                accepted,
                next,
                idle,
                finish,
                logprobs: logprobs.map(|mut places| {
                    places.truncate(tokens);
                    places
                }),
            })
        })
}

fn refused() -> impl Strategy<Value = Frame> {
    let code = prop_oneof![
        Just(RefusedCode::Overloaded),
        Just(RefusedCode::TargetInput),
        Just(RefusedCode::Other)
    ];
    (session(), code, 0.0..1e9, ".{0,60}").prop_map(|(session, code, retry_after_ms, message)| {
        Frame::Refused(Refused {
            session,
            code,
            retry_after_ms,
            message,
        })
    })
}

fn heartbeat() -> impl Strategy<Value = Frame> {
    (prop::array::uniform9(0.0..1e12), prop::option::of(0.0..1e9)).prop_map(|(each, echo_ms)| {
        let [
            sent_ms,
            held_ms,
            queue_ms,
            planned_ms,
            kv_free,
            a,
            b,
            c,
            verify_ms,
        ] = each;
        Frame::Heartbeat(Heartbeat {
            sent_ms,
            echo_ms,
            held_ms,
            queue_ms,
            planned_ms,
            kv_free,
            prefill_tok_per_s: a,
            draft_tok_per_s: b,
            target_tok_per_s: c,
            verify_ms,
        })
    })
}

fn words() -> impl Strategy<Value = Frame> {
    let word = (
        any::<u32>(),
        prop::collection::vec(any::<u8>(), 0..40),
        any::<bool>(),
    )
        .prop_map(|(id, bytes, special)| Word { id, bytes, special });
    (session(), prop::collection::vec(word, 0..9))
        .prop_map(|(session, words)| Frame::Words(Words { session, words }))
}

fn cost() -> impl Strategy<Value = Frame> {
    let counts = (any::<u64>(), any::<u64>(), any::<u64>(), any::<u32>());
    (session(), any::<u64>(), counts, 0.0..1e18, 0.0..1e12).prop_map(
        |(session, account, counts, cache_byte_seconds, busy_ms)| {
            let (target_flops, draft_flops, activation_bytes, cached_tokens) = counts;
            Frame::Cost(Cost {
                session,
                account,
                target_flops,
                draft_flops,
                cached_tokens,
                cache_byte_seconds,
                busy_ms,
                activation_bytes,
            })
        },
    )
}

pub fn frame() -> impl Strategy<Value = Frame> {
    prop_oneof![
        hello(),
        open(),
        draft(),
        verdict(),
        refused(),
        heartbeat(),
        words(),
        cost(),
        session().prop_map(|session| Frame::Cancel(Cancel { session })),
        session().prop_map(|session| Frame::Close(Close { session })),
    ]
}
