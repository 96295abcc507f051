//! The built command as people and scripts use it, on a golden checkpoint.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)] // a test's helpers may panic

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn msao(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_msao"))
        .args(args)
        .output()
        .unwrap()
}

fn golden(path: &str) -> String {
    msao_golden::root().join(path).display().to_string()
}

fn stdout(output: &Output) -> String {
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn chat(more: &[&str]) -> serde_json::Value {
    let (model, image, audio) = (
        golden("models/omni-thinker"),
        golden("media/a.png"),
        golden("media/chirp_0s64.wav"),
    );
    let fixed = [
        "chat",
        "--model",
        &model,
        "--image",
        &image,
        "--audio",
        &audio,
        "--json",
        "--max-new-tokens",
        "24",
    ];
    let output = msao(&[&fixed, more, &["Tell me."]].concat());
    serde_json::from_str(&stdout(&output)).unwrap()
}

#[test]
fn chat_tells_what_it_cost() {
    let told = chat(&["--temperature", "0"]);
    assert_eq!(told["tokens"]["answer"], 24);
    assert_eq!(told["finish_reason"], "length");
    for phase in ["vision", "audio", "prefill", "decode"] {
        assert!(
            told["phases"][phase]["flops"].as_u64().unwrap() > 0,
            "{phase}"
        );
    }
    let total: u64 = ["vision", "audio", "prefill", "decode"]
        .iter()
        .map(|phase| told["phases"][phase]["flops"].as_u64().unwrap())
        .sum();
    assert_eq!(told["flops"].as_u64(), Some(total));
    assert!(told["memory"]["cache_byte_seconds"].as_f64().unwrap() > 0.0);
    assert!(told["memory"]["weight_bytes"].as_u64().unwrap() > 100_000);
}

#[test]
fn the_same_seed_gives_the_same_answer_in_another_process() {
    let sample = |seed: &str| {
        chat(&["--temperature", "1.2", "--top-p", "0.9", "--seed", seed])["answer"].clone()
    };
    assert_eq!(sample("7"), sample("7"));
    assert_ne!(sample("7"), sample("8"));
}

#[test]
fn a_drawn_seed_is_told_and_repeats_the_answer() {
    let first = chat(&["--temperature", "1"]);
    let seed = first["seed"].to_string();
    assert_eq!(
        chat(&["--temperature", "1", "--seed", &seed])["answer"],
        first["answer"]
    );
}

#[test]
fn a_stop_string_ends_the_answer_before_itself() {
    let whole = chat(&["--temperature", "0"])["answer"]
        .as_str()
        .unwrap()
        .to_owned();
    let middle: String = whole
        .chars()
        .skip(whole.chars().count() / 2)
        .take(2)
        .collect();
    let cut = chat(&["--temperature", "0", "--stop", &middle]);
    let expected = &whole[..whole.find(&middle).unwrap()];
    assert_eq!(cut["answer"], expected);
    assert_eq!(cut["stop"], middle);
    assert_eq!(cut["finish_reason"], "stop");
}

#[test]
fn logprobs_are_those_of_the_model() {
    let told = chat(&["--temperature", "0", "--logprobs=3"]);
    let each = told["logprobs"].as_array().unwrap();
    assert_eq!(each.len(), 24);
    for place in each {
        let top = place["top_logprobs"].as_array().unwrap();
        assert_eq!(top.len(), 3);
        // Greedy: the chosen token is the most likely one.
        assert_eq!(top[0]["id"], place["id"]);
        assert!(place["logprob"].as_f64().unwrap() <= 0.0);
    }
}

#[test]
fn preprocess_and_forward_meet_in_files() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let picture: PathBuf = Path::new(&golden("media/b.png")).into();
    std::fs::copy(&picture, dir.path().join("b.png")).unwrap();
    let chat = r#"[{"role": "user", "content": [{"type": "image", "image": "b.png"}, {"type": "text", "text": "What?"}]}]"#;
    std::fs::write(dir.path().join("chat.json"), chat).unwrap();
    let model = golden("models/qwen25-vl-windows");
    let (messages, inputs, out) = (
        path("chat.json"),
        path("x.safetensors"),
        path("y.safetensors"),
    );
    stdout(&msao(&[
        "model",
        "preprocess",
        "--model",
        &model,
        "--messages",
        &messages,
        "--out",
        &inputs,
    ]));
    stdout(&msao(&[
        "model", "forward", "--model", &model, "--inputs", &inputs, "--out", &out,
    ]));
    let bytes = std::fs::read(&inputs).unwrap();
    let inputs = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let length = inputs.tensor("input_ids").unwrap().shape()[1];
    assert_eq!(inputs.tensor("image_grid_thw").unwrap().shape(), [1, 3]);
    let bytes = std::fs::read(&out).unwrap();
    let outputs = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let logits = outputs.tensor("logits").unwrap();
    assert_eq!(logits.shape()[..2], [1, length]);
    assert_eq!(logits.dtype(), safetensors::Dtype::F32);
}

#[test]
fn inspect_tells_the_parts() {
    let told = stdout(&msao(&[
        "model",
        "inspect",
        &golden("models/omni-whole"),
        "--json",
    ]));
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    assert_eq!(told["family"], "Qwen2.5-Omni thinker");
    for part in ["vision", "audio", "language", "not used"] {
        assert!(told["parameters"][part].as_u64().unwrap() > 0, "{part}");
    }
}

#[test]
fn the_loss_of_coarser_weights_is_told() {
    let model = golden("models/omni-thinker");
    let loss = |more: &[&str]| -> serde_json::Value {
        let fixed = [
            "model",
            "inspect",
            &model,
            "--quantize",
            "int8",
            "--against",
            "f32",
            "--json",
        ];
        serde_json::from_str(&stdout(&msao(&[&fixed, more].concat()))).unwrap()
    };
    let told = loss(&["--precision", "f32"]);
    assert_eq!(told["quantized"], "int8 with f32 activations");
    let [coarse, exact] = [0, 1].map(|at| told["weight_bytes"][at].as_u64().unwrap_or_default());
    assert!(0 < coarse && coarse < exact, "{told}");
    // Something is lost, and not much.
    let divergence = told["divergence"].as_f64().unwrap();
    assert!(divergence > 0.0 && divergence < 0.5, "{told}");
    let coarser = loss(&["--precision", "bf16"]);
    assert_eq!(coarser["quantized"], "int8 with bf16 activations");
    assert_ne!(coarser["divergence"], told["divergence"]);
    let both = msao(&[
        "model",
        "inspect",
        &model,
        "--quantize",
        "int8",
        "--tensors",
    ]);
    assert_eq!(both.status.code(), Some(2));
}

#[test]
fn help_teaches() {
    for (args, word) in [
        (vec!["--help"], "models/demo-target"),
        (vec!["chat", "--help"], "generation_config.json"),
        (vec!["calibrate", "--help"], "msao policy tune --from"),
    ] {
        assert!(stdout(&msao(&args)).contains(word));
    }
    let output = msao(&[]);
    assert!(!output.status.success());
}

#[test]
fn a_reader_that_has_had_enough_is_no_failure() {
    use std::io::Read;
    use std::process::Stdio;

    let model = golden("models/omni-whole");
    let mut child = Command::new(env!("CARGO_BIN_EXE_msao"))
        .args(["model", "inspect", &model, "--tensors"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let mut said = String::new();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut said)
        .unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(said, "");
}

#[test]
fn hostile_numbers_are_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let model = msao_golden::root().join("models/omni-thinker");
    for entry in std::fs::read_dir(&model).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), dir.path().join(entry.file_name())).unwrap();
    }
    let config = std::fs::read_to_string(model.join("config.json")).unwrap();
    let config: serde_json::Value = serde_json::from_str(&config).unwrap();
    let half = u64::MAX / 2 + 1;
    let attacks = [
        (
            "/text_config/rope_parameters/mrope_section",
            serde_json::json!([half, half, 2]),
            "mrope_section",
        ),
        (
            "/text_config/num_hidden_layers",
            serde_json::json!(u64::MAX),
            "num_hidden_layers",
        ),
        (
            "/text_config/hidden_size",
            serde_json::json!(0),
            "hidden_size",
        ),
        (
            "/position_id_per_seconds",
            serde_json::json!(1e300),
            "per second",
        ),
        (
            "/vision_config/spatial_merge_size",
            serde_json::json!(0),
            "spatial_merge_size",
        ),
        (
            "/audio_config/n_window",
            serde_json::json!(1u64 << 40),
            "n_window",
        ),
    ];
    let path = dir.path().display().to_string();
    for (pointer, value, named) in attacks {
        let mut broken = config.clone();
        *broken
            .pointer_mut(pointer)
            .unwrap_or_else(|| panic!("{pointer}")) = value;
        std::fs::write(dir.path().join("config.json"), broken.to_string()).unwrap();
        let output = msao(&["chat", "--model", &path, "Hello"]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{pointer}: {said}");
        assert!(
            said.contains("config.json") && said.contains(named),
            "{pointer}: {said}"
        );
    }
}

#[test]
fn a_configuration_is_checked_and_shown() {
    let edge = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs/edge.toml");
    let edge = edge.to_str().unwrap();
    assert!(stdout(&msao(&["config", "check", edge])).contains("good; node \"edge\", role edge"));
    let shown = Command::new(env!("CARGO_BIN_EXE_msao"))
        .args(["config", "show", edge, "--changed", "--json"])
        .env("MSAO_API__BODY_MIB", "3")
        .output()
        .unwrap();
    let shown: serde_json::Value = serde_json::from_str(&stdout(&shown)).unwrap();
    assert_eq!(
        shown["api.body-mib"],
        serde_json::json!({ "value": 3, "from": "MSAO_API__BODY_MIB" })
    );
    assert!(
        shown["node.name"]["from"]
            .as_str()
            .unwrap()
            .starts_with("line ")
    );
    assert!(shown.get("api.connections").is_none(), "{shown}");
    let output = Command::new(env!("CARGO_BIN_EXE_msao"))
        .args(["config", "check", edge])
        .env("MSAO_API__BODY_MIB", "0")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        said.contains("MSAO_API__BODY_MIB: api.body-mib is 0; allowed: 1 to 1024"),
        "{said}"
    );
}
