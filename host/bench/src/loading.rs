//! Memory while a checkpoint is loaded.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use msao_engine::{LoadOptions, Model, Precision};
use safetensors::Dtype;
use safetensors::tensor::TensorView;

use crate::report::Row;

/// The hidden command that loads a model in a fresh process and prints what it took.
pub const LOAD_COMMAND: &str = "load-memory";

/// Peak anonymous memory above the process before it, in units of the weights as held.
const AIM: f64 = 1.2;

/// Loads a checkpoint of some 300 MB, made of zeros, in two precisions. `prover` is this program.
pub fn rows(prover: &Path) -> Result<Vec<Row>> {
    let dir = tempfile::tempdir().context("a folder for a large checkpoint")?;
    write_checkpoint(dir.path())?;
    let mut rows = Vec::new();
    for precision in ["bf16", "f32"] {
        let output = Command::new(prover)
            .arg(LOAD_COMMAND)
            .arg(dir.path())
            .arg(precision)
            .output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        let mut numbers = text
            .split_whitespace()
            .filter_map(|word| word.parse::<f64>().ok());
        let name = format!("peak anonymous memory while loading bf16 files as {precision}");
        match (numbers.next(), numbers.next()) {
            (Some(weights), Some(peak)) => rows.push(
                Row::at_most(name, peak / weights, AIM, " x weights").with_details(vec![format!(
                    "{:.0} MB for {:.0} MB of weights",
                    peak / 1e6,
                    weights / 1e6
                )]),
            ),
            _ => rows.push(Row::failed(
                name,
                "<= 1.2",
                String::from_utf8_lossy(&output.stderr),
            )),
        }
    }
    Ok(rows)
}

/// Loads `dir` while a thread watches this process's anonymous memory; prints the weights' bytes and the peak above
/// the start.
pub fn load_and_tell(dir: &Path, precision: &str) -> Result<()> {
    // Libraries' own buffers belong to the process before.
    msao_engine::set_threads(1);
    let before = anonymous_bytes()?;
    let done = AtomicBool::new(false);
    let (loaded, peak) = std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut peak = 0;
            while !done.load(Ordering::Relaxed) {
                peak = peak.max(anonymous_bytes().unwrap_or(0));
                std::thread::sleep(Duration::from_micros(200));
            }
            peak
        });
        let options = LoadOptions {
            precision: precision.parse::<Precision>().map_err(|e| anyhow!(e))?,
            ..Default::default()
        };
        let loaded = Model::load(dir, &options);
        done.store(true, Ordering::Relaxed);
        let peak = watcher.join().map_err(|_| anyhow!("the watcher failed"))?;
        anyhow::Ok((loaded?, peak))
    })?;
    println!(
        "{} {}",
        loaded.weight_bytes(),
        peak.max(anonymous_bytes()?).saturating_sub(before)
    );
    Ok(())
}

/// Anonymous memory of this process, in bytes.
pub fn anonymous_bytes() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"))
        .context("no RssAnon")?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kib * 1024)
}

/// A Qwen2-VL checkpoint of realistic proportions whose weights are all zero, in bf16.
fn write_checkpoint(dir: &Path) -> Result<()> {
    let (hidden, mlp, vocabulary, layers, vision, patch) = (
        1024usize,
        2816usize,
        32_768usize,
        8usize,
        256usize,
        1176usize,
    );
    let config = serde_json::json!({
        "model_type": "qwen2_vl", "vocab_size": vocabulary, "hidden_size": hidden, "intermediate_size": mlp,
        "num_hidden_layers": layers, "num_attention_heads": 16, "num_key_value_heads": 4,
        "max_position_embeddings": 4096, "rms_norm_eps": 1e-6, "rope_theta": 1e6, "tie_word_embeddings": false,
        "rope_scaling": {"type": "mrope", "mrope_section": [8, 12, 12]},
        "image_token_id": 1, "video_token_id": 2,
        "vision_config": {"depth": 2, "embed_dim": vision, "hidden_size": hidden, "mlp_ratio": 4, "num_heads": 4},
    });
    std::fs::write(dir.join("config.json"), config.to_string())?;
    let kv = hidden / 4;
    let mut shapes: Vec<(String, Vec<usize>)> = vec![
        ("model.embed_tokens.weight".into(), vec![vocabulary, hidden]),
        ("model.norm.weight".into(), vec![hidden]),
        ("lm_head.weight".into(), vec![vocabulary, hidden]),
        (
            "visual.patch_embed.proj.weight".into(),
            vec![vision, 3, 2, 14, 14],
        ),
        (
            "visual.merger.mlp.0.weight".into(),
            vec![4 * vision, 4 * vision],
        ),
        ("visual.merger.mlp.0.bias".into(), vec![4 * vision]),
        (
            "visual.merger.mlp.2.weight".into(),
            vec![hidden, 4 * vision],
        ),
        ("visual.merger.mlp.2.bias".into(), vec![hidden]),
        ("visual.merger.ln_q.weight".into(), vec![vision]),
        ("visual.merger.ln_q.bias".into(), vec![vision]),
    ];
    for layer in 0..layers {
        let mut add = |name: &str, shape: &[usize]| {
            shapes.push((format!("model.layers.{layer}.{name}"), shape.to_vec()))
        };
        for (name, out) in [("q", hidden), ("k", kv), ("v", kv)] {
            add(&format!("self_attn.{name}_proj.weight"), &[out, hidden]);
            add(&format!("self_attn.{name}_proj.bias"), &[out]);
        }
        add("self_attn.o_proj.weight", &[hidden, hidden]);
        add("mlp.gate_proj.weight", &[mlp, hidden]);
        add("mlp.up_proj.weight", &[mlp, hidden]);
        add("mlp.down_proj.weight", &[hidden, mlp]);
        add("input_layernorm.weight", &[hidden]);
        add("post_attention_layernorm.weight", &[hidden]);
    }
    for block in 0..2 {
        let mut add = |name: &str, shape: &[usize]| {
            shapes.push((format!("visual.blocks.{block}.{name}"), shape.to_vec()))
        };
        for (name, out, inputs) in [
            ("attn.qkv", 3 * vision, vision),
            ("attn.proj", vision, vision),
            ("mlp.fc1", 4 * vision, vision),
            ("mlp.fc2", vision, 4 * vision),
        ] {
            add(&format!("{name}.weight"), &[out, inputs]);
            add(&format!("{name}.bias"), &[out]);
        }
        for norm in ["norm1", "norm2"] {
            add(&format!("{norm}.weight"), &[vision]);
            add(&format!("{norm}.bias"), &[vision]);
        }
    }
    debug_assert_eq!(patch, 3 * 2 * 14 * 14);
    let largest = shapes
        .iter()
        .map(|(_, shape)| shape.iter().product::<usize>())
        .max()
        .unwrap_or(0);
    let zeros = vec![0u8; 2 * largest];
    let views: Vec<(String, TensorView)> = shapes
        .into_iter()
        .map(|(name, shape)| {
            let bytes = zeros
                .get(..2 * shape.iter().product::<usize>())
                .unwrap_or_default();
            Ok((name, TensorView::new(Dtype::BF16, shape, bytes)?))
        })
        .collect::<Result<_>>()?;
    safetensors::serialize_to_file(views, None, &dir.join("model.safetensors"))?;
    Ok(())
}
