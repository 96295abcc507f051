//! `msao model twin` as people use it: made, chatted with, inspected.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // a test's helpers may panic

use std::process::{Command, Output};

fn msao(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_msao"))
        .args(args)
        .output()
        .unwrap()
}

fn models(path: &str) -> String {
    let models = msao_golden::root().join("../../models");
    models.join(path).display().to_string()
}

#[test]
fn a_twin_is_made_and_both_halves_answer_about_a_picture_and_a_sound() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("twin").display().to_string();
    let (tokenizer, picture, sound) = (
        models("demo-target"),
        models("demo-media/scene.png"),
        models("demo-media/beeps.wav"),
    );
    let made = msao(&[
        "model",
        "twin",
        "--shape",
        "demo",
        "--draft-layers",
        "1",
        "--agreement",
        "0.6",
        "--tokenizer",
        &tokenizer,
        "--out",
        &out,
    ]);
    assert!(
        made.status.success(),
        "{}",
        String::from_utf8_lossy(&made.stderr)
    );
    let told = String::from_utf8(made.stdout).unwrap();
    assert!(
        told.contains("asked for 60.0 %") && told.contains("speed only"),
        "{told}"
    );
    for half in ["target", "draft"] {
        let model = format!("{out}/{half}");
        let answered = msao(&[
            "chat",
            "--model",
            &model,
            "--image",
            &picture,
            "--audio",
            &sound,
            "--max-new-tokens",
            "40",
            "--json",
            "What?",
        ]);
        assert!(
            answered.status.success(),
            "{}",
            String::from_utf8_lossy(&answered.stderr)
        );
        let answer: serde_json::Value = serde_json::from_slice(&answered.stdout).unwrap();
        assert_eq!(answer["tokens"]["answer"], 40, "no answer ends by itself");
        assert!(!answer["answer"].as_str().unwrap().is_empty());
    }
}

#[test]
fn bad_arguments_are_named_with_their_limits() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().display().to_string();
    let tokenizer = models("demo-target");
    let refused = |layers: &str, agreement: &str| {
        let output = msao(&[
            "model",
            "twin",
            "--shape",
            "demo",
            "--draft-layers",
            layers,
            "--agreement",
            agreement,
            "--tokenizer",
            &tokenizer,
            "--out",
            &out,
        ]);
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(refused("2", "1.5").contains("agreement is 1.5; it must be above 0 and at most 1"));
    assert!(refused("9", "0.5").contains("draft-layers is 9; the shape demo has 5 layers"));
}
