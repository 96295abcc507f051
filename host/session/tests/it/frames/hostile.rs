//! Bytes that nobody meant, and messages from a later release.

use std::collections::BTreeMap;

use ciborium::Value;
use msao_session::frame::{
    Cost, Decoder, Draft, Frame, FrameError, Kind, Verdict, Word, Words, encode, limits,
};
use proptest::prelude::*;

use super::samples::{SESSION, made_open, plain_open, samples};
use super::strategies::frame;

fn written(frame: &Frame) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(frame, limits::NEWEST, &mut bytes).unwrap();
    bytes
}

fn sample(name: &str) -> Frame {
    let mut all = samples().into_iter();
    all.find(|(n, _)| *n == name).unwrap().1
}

/// Feeds everything; what the decoder holds stays within the largest frame.
fn read_all(mut bytes: &[u8]) -> Result<Vec<Frame>, FrameError> {
    let most = Kind::ALL
        .map(limits::max_payload)
        .into_iter()
        .max()
        .unwrap();
    let mut decoder = Decoder::of_version(limits::NEWEST);
    let mut frames = Vec::new();
    while !bytes.is_empty() {
        let fed = decoder.feed(&mut bytes);
        assert!(decoder.buffered() <= limits::HEADER_BYTES + most);
        match fed {
            Ok(frame) => frames.extend(frame),
            Err(error) => {
                assert_eq!(decoder.feed(&mut bytes), Err(error.clone()), "stays broken");
                return Err(error);
            }
        }
    }
    Ok(frames)
}

/// A frame with this payload.
fn framed(kind: Kind, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_le_bytes().to_vec();
    bytes.extend([limits::NEWEST, kind as u8]);
    bytes.extend(payload);
    bytes
}

proptest! {
    #[test]
    fn any_bytes_give_an_answer(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let _ = read_all(&bytes);
    }

    #[test]
    fn any_payload_gives_an_answer(
        kind in prop::sample::select(Kind::ALL.to_vec()),
        payload in prop::collection::vec(any::<u8>(), 0..400),
    ) {
        let _ = read_all(&framed(kind, &payload));
    }

    #[test]
    fn flipped_bits_give_an_answer_that_can_be_written_again(
        frame in frame(),
        flips in prop::collection::vec((any::<prop::sample::Index>(), 0_u8..8), 1..5),
    ) {
        let mut bytes = written(&frame);
        for (place, bit) in flips {
            let place = place.index(bytes.len());
            bytes[place] ^= 1 << bit;
        }
        for frame in read_all(&bytes).unwrap_or_default() {
            let mut again = Vec::new();
            prop_assert_eq!(encode(&frame, limits::NEWEST, &mut again), Ok(()));
        }
    }

    #[test]
    fn a_payload_that_is_cut_is_refused(frame in frame(), share in 0.0..1.0) {
        let bytes = written(&frame);
        let payload = &bytes[limits::HEADER_BYTES..];
        let cut = (share * payload.len() as f64) as usize;
        prop_assert!(read_all(&framed(frame.kind(), &payload[..cut])).is_err());
    }
}

#[test]
fn a_header_that_claims_too_much_is_refused_before_its_payload() {
    for kind in Kind::ALL {
        let limit = limits::max_payload(kind);
        let mut header = (limit as u32 + 1).to_le_bytes().to_vec();
        header.extend([1, kind as u8]);
        let refused = FrameError::TooLarge {
            kind,
            field: "payload",
            limit: limit as u64,
            found: limit as u64 + 1,
        };
        assert_eq!(read_all(&header), Err(refused));
    }
    assert_eq!(
        read_all(&[0xff, 0xff, 0xff, 0xff, 1, 3])
            .unwrap_err()
            .to_string(),
        "DRAFT.payload is 4294967295, and may be 4421 at most"
    );
}

#[test]
fn errors_name_field_and_limit() {
    let Frame::Draft(draft) = sample("draft") else {
        panic!("not a draft")
    };
    let Frame::Verdict(verdict) = sample("verdict-logprobs") else {
        panic!("not a verdict")
    };
    let Frame::Cost(cost) = sample("cost") else {
        panic!("not a cost")
    };
    let mut logprobs = verdict.logprobs.clone();
    logprobs.as_mut().unwrap()[0].chosen.logprob = f64::NAN;
    let mut wide = made_open();
    wide.prompt.media[0].made.as_mut().unwrap().canvas.0 = 641;
    let mut outside = made_open();
    let made = outside.prompt.media[0].made.as_mut().unwrap();
    made.window.as_mut().unwrap().columns = 8;
    let mut keeping = made_open();
    keeping.prompt.media[1].keep = Some(vec![1]);
    let mut hot = plain_open();
    hot.sampling.temperature = 3.0;
    let cases = [
        (
            Frame::Draft(Draft {
                proposed: vec![0; 65],
                ..draft.clone()
            }),
            "DRAFT.proposed is 65, and may be 64 at most",
        ),
        (
            Frame::Draft(Draft { start: 2, ..draft }),
            "DRAFT.start must be not before `committed`, less the forced ids, which end there",
        ),
        (
            Frame::Verdict(Verdict {
                next: vec![0; 512],
                ..verdict.clone()
            }),
            "VERDICT.accepted and next is 513, and may be 512 at most",
        ),
        (
            Frame::Verdict(Verdict {
                logprobs,
                ..verdict
            }),
            "VERDICT.logprobs must be at most 0",
        ),
        (
            Frame::Words(Words {
                session: SESSION,
                words: vec![Word {
                    id: 1,
                    bytes: vec![0; 4097],
                    special: false,
                }],
            }),
            "WORDS.words.bytes is 4097, and may be 4096 at most",
        ),
        (
            Frame::Cost(Cost {
                cache_byte_seconds: f64::NAN,
                ..cost
            }),
            "COST.cache_byte_seconds must be finite and not negative",
        ),
        (
            Frame::Cost(Cost {
                busy_ms: -1.0,
                ..cost
            }),
            "COST.busy_ms must be finite and not negative",
        ),
        (
            Frame::Open(Box::new(wide)),
            "OPEN.prompt.media.made.canvas must be at most `size`, and of as many sides",
        ),
        (
            Frame::Open(Box::new(outside)),
            "OPEN.prompt.media.made.window must be a part of `scaled`",
        ),
        (
            Frame::Open(Box::new(keeping)),
            "OPEN.prompt.media.keep must be nothing where `made` drops the medium",
        ),
        (
            Frame::Open(Box::new(hot)),
            "OPEN.sampling must be within the ranges of the sampler's parameters",
        ),
    ];
    for (frame, message) in cases {
        let mut bytes = vec![1, 2, 3];
        let refused = encode(&frame, limits::NEWEST, &mut bytes).unwrap_err();
        assert_eq!(refused.to_string(), message);
        assert_eq!(bytes, [1, 2, 3], "nothing is left of it");
    }
}

fn map(frame: &Frame) -> BTreeMap<String, Value> {
    let bytes = written(frame);
    ciborium::from_reader(&bytes[limits::HEADER_BYTES..]).unwrap()
}

fn payload(fields: &BTreeMap<String, Value>) -> Vec<u8> {
    let mut bytes = Vec::new();
    ciborium::into_writer(fields, &mut bytes).unwrap();
    bytes
}

#[test]
fn control_messages_can_grow() {
    for name in [
        "hello",
        "open-full",
        "cancel",
        "refused",
        "heartbeat",
        "close",
        "words",
        "open-cost",
        "cost",
        "hello-shipments",
        "open-made",
    ] {
        let frame = sample(name);
        let mut fields = map(&frame);
        let nested = Value::Array(vec![Value::Float(0.5), Value::Null]);
        fields.insert("of-a-later-release".into(), nested);
        let read = read_all(&framed(frame.kind(), &payload(&fields))).unwrap();
        assert_eq!(read, [frame]);
    }
    let mut fields = map(&sample("refused"));
    fields.insert("code".into(), Value::Text("new-reason".into()));
    let read = read_all(&framed(Kind::Refused, &payload(&fields))).unwrap();
    let Frame::Refused(refused) = &read[0] else {
        panic!("{read:?}")
    };
    assert_eq!(refused.code, msao_session::frame::RefusedCode::Other);
}

/// The fields that were there from the beginning say enough.
#[test]
fn what_a_cost_leaves_out_is_nothing() {
    let mut fields = map(&sample("cost"));
    // A node that counts neither tells what it told before there were any.
    assert!(!fields.contains_key("busy_ms") && !fields.contains_key("activation_bytes"));
    for later in ["draft_flops", "cached_tokens", "cache_byte_seconds"] {
        fields.remove(later);
    }
    let read = read_all(&framed(Kind::Cost, &payload(&fields))).unwrap();
    let Frame::Cost(cost) = &read[0] else {
        panic!("{read:?}")
    };
    assert_eq!((cost.draft_flops, cost.cached_tokens), (0, 0));
    assert_eq!((cost.cache_byte_seconds, cost.busy_ms), (0.0, 0.0));
    assert_eq!(cost.activation_bytes, 0);
    assert_eq!(cost.target_flops, 3_000_000_000_000);
}

/// An edge of before COST asks for none, and says nothing that a cloud of before it would have to know.
#[test]
fn whoever_does_not_ask_for_costs_opens_as_before() {
    let fields = map(&sample("open-plain"));
    assert!(!fields.contains_key("cost"));
    let read = read_all(&framed(Kind::Open, &payload(&fields))).unwrap();
    let Frame::Open(open) = &read[0] else {
        panic!("{read:?}")
    };
    assert!(!open.cost);
    let mut asking = open.clone();
    asking.cost = true;
    assert!(open.same_request(&asking));
}

/// A node that does not know how media are made smaller is not told of it; one that does must understand all of it.
#[test]
fn how_a_medium_was_made_is_told_whole_or_not_at_all() {
    for name in ["hello", "open-full"] {
        let bytes = written(&sample(name));
        let says = |word: &[u8]| bytes.windows(word.len()).any(|window| window == word);
        assert!(!says(b"shipments") && !says(b"made"), "{name}");
    }
    let mut fields = map(&sample("open-made"));
    let Some(Value::Map(prompt)) = fields.get_mut("prompt") else {
        panic!("no prompt")
    };
    let Some((_, Value::Array(media))) = prompt.last_mut() else {
        panic!("no media")
    };
    let Some(Value::Map(medium)) = media.first_mut() else {
        panic!("no medium")
    };
    let Some((_, Value::Map(made))) = medium.last_mut() else {
        panic!("not made")
    };
    made.push((Value::Text("turned".into()), Value::Float(90.0)));
    let refused = read_all(&framed(Kind::Open, &payload(&fields))).unwrap_err();
    assert!(refused.to_string().contains("turned"), "{refused}");
}

#[test]
fn an_unknown_sampling_parameter_is_refused() {
    let mut fields = map(&sample("open-plain"));
    let Some(Value::Map(sampling)) = fields.get_mut("sampling") else {
        panic!("no sampling")
    };
    sampling.push((Value::Text("min_p".into()), Value::Float(0.1)));
    let refused = read_all(&framed(Kind::Open, &payload(&fields))).unwrap_err();
    assert!(refused.to_string().contains("min_p"), "{refused}");
}

#[test]
fn what_cannot_be_left_out_is_named() {
    let mut fields = map(&sample("cancel"));
    fields.clear();
    let refused = read_all(&framed(Kind::Cancel, &payload(&fields))).unwrap_err();
    assert!(refused.to_string().contains("`session`"), "{refused}");
    fields.insert("session".into(), Value::Bytes(SESSION.0[..15].to_vec()));
    let refused = read_all(&framed(Kind::Cancel, &payload(&fields))).unwrap_err();
    assert!(refused.to_string().contains("16 bytes"), "{refused}");
}

#[test]
fn deep_nesting_is_refused() {
    let mut bytes = vec![0x81; 900];
    bytes.push(0);
    let refused = read_all(&framed(Kind::Heartbeat, &bytes)).unwrap_err();
    assert!(matches!(refused, FrameError::Cbor { .. }), "{refused}");
}
