//! Worlds and traffic that cannot be: refused before anything runs, by the name of the field.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // a test's helpers may panic

use std::sync::Arc;

use msao_core::offload::Route;
use msao_simulate::traffic::{Arrivals, Guessing, Question, Traffic};
use msao_simulate::{Options, SimulateError, run};

use crate::common::{by, pair, round_trip};

#[test]
fn what_cannot_be_is_refused_by_name() {
    let good = || Question::plain(0, 10, 5);
    let refused = |question: Question| {
        let traffic = Traffic {
            questions: vec![good(), question],
            ..Traffic::default()
        };
        let world = pair(1.0, 1.0, round_trip(0.0));
        let refused = run(&world, &traffic, &mut by(Route::Edge), Options::default());
        refused.unwrap_err().to_string()
    };
    for (question, named) in [
        (
            Question { edge: 1, ..good() },
            "questions[1].edge: is 1; allowed: 0 to 0",
        ),
        (
            Question {
                arrives_ms: f64::NAN,
                ..good()
            },
            "questions[1].arrives-ms: is NaN",
        ),
        (
            Question {
                text_tokens: 0,
                ..good()
            },
            "questions[1].text-tokens: is 0",
        ),
        (
            Question {
                answer_tokens: 6,
                ..good()
            },
            "questions[1].answer-tokens: is 6; allowed: 1 to 5",
        ),
        (
            Question {
                max_tokens: 1 << 20,
                ..good()
            },
            "questions[1].max-tokens: is 1048576",
        ),
        (
            Question {
                deadline_ms: -1.0,
                ..good()
            },
            "questions[1].deadline-ms: is -1",
        ),
        (
            Question {
                guessing: Guessing::Recorded {
                    said: Arc::new([]),
                    stood: [0.0; 16],
                    blind: 0.0,
                },
                ..good()
            },
            "questions[1].guessing.said: is empty",
        ),
    ] {
        let error = refused(question);
        assert!(
            error.starts_with(named),
            "{error}\nshould begin with {named}"
        );
    }
    let traffic = Traffic {
        questions: vec![good()],
        arrivals: Arrivals::InTurn {
            clients: 0,
            think_ms: 0.0,
        },
    };
    let mut world = pair(1.0, 1.0, round_trip(0.0));
    let error = run(&world, &traffic, &mut by(Route::Edge), Options::default()).unwrap_err();
    assert!(
        error.to_string().starts_with("arrivals.clients: is 0"),
        "{error}"
    );
    let later = Question {
        arrives_ms: 5.0,
        ..good()
    };
    let traffic = Traffic {
        questions: vec![later, good()],
        ..Traffic::default()
    };
    let error = run(&world, &traffic, &mut by(Route::Edge), Options::default()).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("questions[1].arrives-ms: is 0; allowed: 5"),
        "{error}"
    );
    world
        .profile
        .as_mut()
        .unwrap()
        .engines
        .get_mut("target")
        .unwrap()
        .row_ms = -1.0;
    let error = run(&world, &traffic, &mut by(Route::Edge), Options::default()).unwrap_err();
    assert!(
        matches!(error, SimulateError::Value { ref field, .. } if field == "engines.target.row-ms"),
        "{error}"
    );
}
