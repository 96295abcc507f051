//! Twins: made, loaded, and as agreed as was asked.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // a test's helpers may panic

use std::path::{Path, PathBuf};

use msao_engine::twin::{Twin, TwinOptions, agreement, make, random_prompts};
use msao_engine::weights::Weights;
use msao_engine::{LoadOptions, Model};

fn demo_target() -> PathBuf {
    msao_golden::root().join("../../models/demo-target")
}

/// A shape smaller than the demo's, as a directory with a `config.json`.
fn small_shape(dir: &Path) -> String {
    let text = std::fs::read_to_string(demo_target().join("config.json")).unwrap();
    let mut config: serde_json::Value = serde_json::from_str(&text).unwrap();
    let text = &mut config["text_config"];
    text["hidden_size"] = 64.into();
    text["intermediate_size"] = 160.into();
    text["num_attention_heads"] = 4.into();
    text["num_key_value_heads"] = 2.into();
    text["num_hidden_layers"] = 4.into();
    text["layer_types"] = vec!["full_attention"; 4].into();
    text["rope_parameters"]["mrope_section"] = vec![2, 3, 3].into();
    text["vocab_size"] = 2000.into();
    config["vision_config"]["out_hidden_size"] = 64.into();
    config["audio_config"]["output_dim"] = 64.into();
    config["tie_word_embeddings"] = true.into();
    let shape = dir.join("shape");
    std::fs::create_dir_all(&shape).unwrap();
    std::fs::write(shape.join("config.json"), config.to_string()).unwrap();
    shape.display().to_string()
}

fn options(dir: &Path, out: &str) -> TwinOptions {
    TwinOptions {
        shape: small_shape(dir),
        draft_layers: 2,
        agreement: 0.7,
        seed: 3,
        bf16: false,
        tokenizer: demo_target(),
        out: dir.join(out),
    }
}

fn twin(options: &TwinOptions) -> Twin {
    make(options, &mut |_| {}).unwrap()
}

fn load(dir: &Path) -> Model {
    Model::load(dir, &LoadOptions::default()).unwrap()
}

#[test]
fn draft_and_target_agree_as_often_as_asked_on_texts_that_the_search_has_not_seen() {
    let dir = tempfile::tempdir().unwrap();
    for (bf16, asked) in [(false, 0.7), (true, 0.4)] {
        let options = TwinOptions {
            bf16,
            agreement: asked,
            ..options(dir.path(), &format!("twin-{bf16}"))
        };
        let told = twin(&options);
        let (target, draft) = (options.out.join("target"), options.out.join("draft"));
        // 64 answers of 32 tokens: a standard error of one point.
        let prompts = random_prompts(&target, 64, 24, 99).unwrap();
        let found = agreement(&load(&target), &load(&draft), &prompts, 32).unwrap();
        assert!(
            (found.rate - asked).abs() < 0.05,
            "{asked}: {found:?}, {told:?}"
        );
        assert!(found.fresh > 0.5, "answers run in circles: {found:?}");
    }
}

#[test]
fn full_agreement_is_exact() {
    let dir = tempfile::tempdir().unwrap();
    let told = twin(&TwinOptions {
        agreement: 1.0,
        ..options(dir.path(), "twin")
    });
    assert_eq!(told.reached, 1.0);
}

#[test]
fn the_same_seed_writes_the_same_bytes_and_the_draft_is_the_target_cut_short() {
    let dir = tempfile::tempdir().unwrap();
    let first = options(dir.path(), "first");
    let told = twin(&first);
    assert_eq!((told.target_layers, told.draft_layers), (4, 2));
    let again = TwinOptions {
        out: dir.path().join("again"),
        ..first.clone()
    };
    twin(&again);
    let other = TwinOptions {
        out: dir.path().join("other"),
        seed: 4,
        ..first.clone()
    };
    twin(&other);
    let read = |options: &TwinOptions, file: &str| std::fs::read(options.out.join(file)).unwrap();
    for file in [
        "target/model.safetensors",
        "draft/model.safetensors",
        "twin.json",
    ] {
        assert!(read(&first, file) == read(&again, file), "{file}");
        assert!(read(&first, file) != read(&other, file), "{file}");
    }

    let mut target = Weights::open(&first.out.join("target")).unwrap();
    let mut draft = Weights::open(&first.out.join("draft")).unwrap();
    for stored in draft.stored() {
        let ours = draft.take(&stored.name, &stored.shape).unwrap();
        let whole = target.take(&stored.name, &stored.shape).unwrap();
        assert_eq!(ours, whole, "{}", stored.name);
    }
    assert!(target.has("model.layers.3.mlp.down_proj.weight"));
    assert!(!draft.has("model.layers.2.mlp.down_proj.weight"));
    let card = std::fs::read_to_string(first.out.join("draft/README.md")).unwrap();
    assert!(card.contains("speed only, at retention 1"), "{card}");
}

#[test]
fn what_cannot_be_made_is_refused_with_the_limit() {
    let dir = tempfile::tempdir().unwrap();
    let good = options(dir.path(), "bad");
    let refused = |options: TwinOptions| make(&options, &mut |_| {}).unwrap_err().to_string();
    let cases = [
        (
            TwinOptions {
                agreement: 1.01,
                ..good.clone()
            },
            "agreement is 1.01; it must be above 0 and at most 1",
        ),
        (
            TwinOptions {
                agreement: f64::NAN,
                ..good.clone()
            },
            "agreement is NaN",
        ),
        (
            TwinOptions {
                draft_layers: 4,
                ..good.clone()
            },
            "draft-layers is 4; the shape",
        ),
        (
            TwinOptions {
                draft_layers: 0,
                ..good.clone()
            },
            "between 1 and 3",
        ),
        (
            TwinOptions {
                shape: "huge".into(),
                ..good.clone()
            },
            "neither one of demo, 0.5b, 1.5b, 3b, 7b nor",
        ),
        (
            TwinOptions {
                tokenizer: dir.path().into(),
                ..good.clone()
            },
            "--tokenizer",
        ),
        (
            TwinOptions {
                agreement: 1e-6,
                ..good.clone()
            },
            "cannot tell less than 0.0005",
        ),
    ];
    for (options, said) in cases {
        let text = refused(options);
        assert!(text.contains(said), "{text}");
    }
    assert!(
        !good.out.exists(),
        "nothing is written for a wish that is refused"
    );
    std::fs::create_dir_all(good.out.join("draft")).unwrap();
    assert!(refused(good).contains("is there already"));
}
