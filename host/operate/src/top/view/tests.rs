//! Frames in terminals of several sizes.

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use serde_json::{Value, json};

use super::*;
use crate::top::app::News;

const NOW_S: f64 = 1_767_229_200.0;

fn state() -> Value {
    serde_json::from_str(include_str!("../../../tests/data/state.json")).unwrap()
}

/// A minute of a node: ever more requests, with a lull.
fn app() -> App {
    let mut app = App {
        url: "http://10.0.0.1:8081".into(),
        ..App::default()
    };
    let mut over = 1240 - 300;
    let mut value = state();
    for second in 0..60_u64 {
        over += if (30..40).contains(&second) {
            0
        } else {
            second / 5
        };
        value["requests"]["over"] = json!(over);
        value["totals"]["routes"]["edge"]["answered"] = json!(410 + second);
        value["totals"]["drafted"] = json!(48210 + second * 100);
        value["totals"]["accepted"] = json!(34373 + second * 80);
        value["totals"]["link-up-bytes"] = json!(73_400_320 + second * 250_000);
        value["models"]["draft"]["passes"] = json!(51200 + second * 40);
        value["models"]["draft"]["rows"] = json!(98304 + second * 120);
        app.take(News::Look(second as f64, Box::new(Glance::read(&value))));
    }
    app
}

fn drawn(app: &App, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    let view = |app| View {
        app,
        clock_s: 60.0,
        now_s: NOW_S,
    };
    terminal
        .draw(|frame| frame.render_widget(view(app), frame.area()))
        .unwrap();
    lines(terminal.backend().buffer())
}

#[test]
fn a_recorded_minute_looks_like_this() {
    let text = drawn(&app(), 100, 30);
    assert_eq!(
        text,
        include_str!("../../../tests/data/top.txt"),
        "\n{text}"
    );
}

#[test]
fn a_small_terminal_shows_what_matters_most() {
    let text = drawn(&app(), 80, 24);
    for told in [
        "edge-1 (edge)",
        "under way",
        "speculate",
        "accepted 80.0%",
        "generation 7",
        "more lines",
        "q quit",
    ] {
        assert!(text.contains(told), "no {told} in\n{text}");
    }
}

#[test]
fn a_question_and_silence_are_seen() {
    let mut app = app();
    app.question = Some("Roll back on edge-1? generation 7 goes".into());
    app.silent = Some((48.0, "connection refused".into()));
    app.paused = true;
    let text = drawn(&app, 140, 30);
    for told in [
        "y = yes, any other key = no",
        "NO ANSWER for 12 s: connection refused",
        "paused",
    ] {
        assert!(text.contains(told), "no {told} in\n{text}");
    }
}

#[test]
fn nothing_breaks_on_an_odd_terminal_or_an_empty_state() {
    for (width, height) in [(1, 1), (10, 3), (40, 8), (300, 100)] {
        let _drawn = drawn(&app(), width, height);
        let _empty = drawn(&App::default(), width, height);
    }
    let mut many = app();
    let mut value = state();
    value["peers"] = json!(
        (0..40)
            .map(|it| json!({"name": format!("peer-{it}")}))
            .collect::<Vec<_>>()
    );
    many.take(News::Look(60.0, Box::new(Glance::read(&value))));
    assert!(drawn(&many, 100, 30).contains("Routes"));
}
