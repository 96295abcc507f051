//! What holds for every stream: an event is one line, a choice has its role once and ends once.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)] // a test's helpers may panic

use msao_api::{
    ApiError, Chunk, ChunkStream, FinishReason, Head, Logprobs, Piece, TopLogprob, sse,
};
use proptest::prelude::*;

/// Exactly one line of data, by anybody's notion of a line.
fn one_line(event: &str) -> &str {
    let data = event.strip_prefix("data: ").unwrap();
    let data = data.strip_suffix("\n\n").unwrap();
    // Python's str.splitlines knows the most of them.
    let breaks = [
        '\n', '\r', '\u{b}', '\u{c}', '\u{1c}', '\u{1d}', '\u{1e}', '\u{85}', '\u{2028}',
        '\u{2029}',
    ];
    assert!(!data.contains(breaks), "{data:?}");
    data
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        prop::collection::vec(
            prop::sample::select(vec![
                '\n', '\r', '\u{85}', '\u{2028}', '\u{2029}', '\0', '"', '\\', 'é', '😀', 'a'
            ]),
            0..20
        )
        .prop_map(String::from_iter),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn an_error_is_one_line(text in text()) {
        let events = [ApiError::model_not_found(&text), ApiError::invalid("x", Some(text.clone()), text)];
        for error in events {
            let event = sse::error(&error);
            let read: serde_json::Value = serde_json::from_str(one_line(&event)).unwrap();
            prop_assert_eq!(&read["error"]["message"], &error.message);
        }
    }

    #[test]
    fn an_event_is_one_line_and_reads_back(
        texts in prop::collection::vec((text(), prop::collection::vec(any::<u8>(), 0..5)), 0..5),
        include_usage in any::<bool>(),
    ) {
        let head = Head {
            id: texts.first().map(|(text, _)| text.clone()).unwrap_or_default(),
            created: 0,
            model: "m\n".into(),
            system_fingerprint: String::new(),
        };
        let mut stream = ChunkStream::new(head, 1, include_usage);
        let mut pieces: Vec<Piece> = texts
            .into_iter()
            .map(|(text, bytes)| {
                let token = TopLogprob::new(&bytes, -0.1);
                Piece::Text(text, Some(Logprobs::new(vec![token.clone().chosen(vec![token])])))
            })
            .collect();
        pieces.push(Piece::Finish(FinishReason::Stop));
        for piece in pieces {
            let chunk = stream.advance(0, piece).unwrap();
            let event = sse::event(&chunk);
            prop_assert_eq!(serde_json::from_str::<Chunk>(one_line(&event)).unwrap(), chunk);
        }
    }

    #[test]
    fn each_choice_has_its_role_once_and_ends_once(
        steps in prop::collection::vec((0..4_u32, 0..3_u8), 0..40),
        n in 0..4_u32,
    ) {
        let head = Head { id: String::new(), created: 0, model: String::new(), system_fingerprint: String::new() };
        let mut stream = ChunkStream::new(head, n, false);
        let mut told: Vec<Vec<(bool, bool)>> = vec![Vec::new(); n as usize];
        for (index, step) in steps {
            let piece = match step {
                0 => Piece::Begin,
                1 => Piece::Text("x".into(), None),
                _ => Piece::Finish(FinishReason::Length),
            };
            if let Some(chunk) = stream.advance(index, piece) {
                let choice = &chunk.choices[0];
                prop_assert_eq!(choice.index, index);
                told[index as usize].push((choice.delta.role.is_some(), choice.finish_reason.is_some()));
            }
        }
        let mut finished = true;
        for choice in told {
            for (place, (role, end)) in choice.iter().enumerate() {
                prop_assert_eq!(*role, place == 0);
                prop_assert!(!end || place + 1 == choice.len());
            }
            finished &= choice.last().is_some_and(|(_, end)| *end);
        }
        prop_assert_eq!(stream.is_finished(), finished);
    }
}
