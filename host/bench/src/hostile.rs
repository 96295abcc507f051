//! Bad input to the `msao` command: a clear error, exit code not 0, no panic, memory bounded.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use wait4::Wait4;

use crate::report::Row;

/// Memory that a refused input may cost above a run that only fails to find its model.
const MEMORY_LIMIT_MB: f64 = 256.0;

/// One thing done wrong.
struct Attack {
    name: &'static str,
    args: Vec<String>,
    /// What the message must name: the file and the limit or key.
    must_say: Vec<String>,
}

/// What became of a run.
struct Outcome {
    code: Option<i32>,
    message: String,
    peak_mb: f64,
}

/// Attacks `msao` (the program's path) with broken copies of the checkpoint in `model` and of media in `dir`.
///
/// `model` must be a Qwen2.5-Omni checkpoint, so that every modality is taken.
pub fn rows(msao: &Path, model: &Path) -> Result<Vec<Row>> {
    let dir = tempfile::tempdir().context("a folder for broken files")?;
    let base = run(
        msao,
        &["chat", "--model", "/nonexistent", "x"].map(String::from),
    )?;
    let mut rows = Vec::new();
    let mut largest = (0f64, "");
    for attack in attacks(dir.path(), model)? {
        let outcome = run(msao, &attack.args)?;
        let mut problems = Vec::new();
        match outcome.code {
            Some(0) => problems.push("exit code 0".to_owned()),
            None => problems.push("killed by a signal".to_owned()),
            Some(_) => {}
        }
        if outcome.message.contains("panicked") || outcome.message.contains("RUST_BACKTRACE") {
            problems.push("it panicked".to_owned());
        }
        for word in &attack.must_say {
            if !outcome.message.contains(word.as_str()) {
                problems.push(format!("the message does not say \"{word}\""));
            }
        }
        if outcome.peak_mb > largest.0 {
            largest = (outcome.peak_mb, attack.name);
        }
        let says = outcome
            .message
            .lines()
            .next()
            .unwrap_or_default()
            .to_owned();
        rows.push(Row {
            name: attack.name.to_owned(),
            figure: if problems.is_empty() {
                "refused".into()
            } else {
                "wrong".into()
            },
            value: outcome.code.map(f64::from),
            aim: "refused".into(),
            met: problems.is_empty(),
            details: problems
                .into_iter()
                .chain([format!("says: {says}")])
                .collect(),
        });
    }
    let (peak, name) = largest;
    rows.push(
        Row::at_most(
            "most memory above a run that reads nothing",
            peak - base.peak_mb,
            MEMORY_LIMIT_MB,
            " MB",
        )
        .with_details(vec![format!("by: {name}")]),
    );
    Ok(rows)
}

fn run(msao: &Path, args: &[String]) -> Result<Outcome> {
    let log = tempfile::NamedTempFile::new()?;
    let mut child = Command::new(msao)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log.reopen()?)
        .spawn()
        .with_context(|| msao.display().to_string())?;
    let ended = child.wait4()?;
    Ok(Outcome {
        code: ended.status.code(),
        message: String::from_utf8_lossy(&std::fs::read(log.path())?).into_owned(),
        peak_mb: ended.rusage.maxrss as f64 / 1e6,
    })
}

/// The attacks, as they are gathered, and the folder that their broken files are written to.
struct Attacks<'a> {
    dir: &'a Path,
    model: &'a Path,
    all: Vec<Attack>,
}

impl Attacks<'_> {
    fn add(&mut self, name: &'static str, args: &[&str], must_say: &[&str]) {
        self.all.push(Attack {
            name,
            args: args.iter().map(ToString::to_string).collect(),
            must_say: must_say.iter().map(ToString::to_string).collect(),
        });
    }

    /// A file of these bytes, given as a medium of that kind; the message must name it and say `says`.
    fn media(
        &mut self,
        name: &'static str,
        kind: &str,
        file: &str,
        bytes: &[u8],
        says: &[&str],
    ) -> Result<()> {
        let path = self.dir.join(file);
        std::fs::write(&path, bytes)?;
        let (model, flag, path) = (text(self.model), format!("--{kind}"), text(&path));
        let args = ["chat", "--model", &model, &flag, &path, "What is it?"];
        self.add(name, &args, &[says, &[file]].concat());
        Ok(())
    }

    /// A copy of the checkpoint in which one file has other bytes, or is gone; the message must say `says`.
    fn checkpoint(
        &mut self,
        name: &'static str,
        file: &str,
        bytes: Option<Vec<u8>>,
        says: &[&str],
    ) -> Result<()> {
        let copy = self.dir.join(name.replace(' ', "-"));
        std::fs::create_dir_all(&copy)?;
        for entry in std::fs::read_dir(self.model)? {
            let entry = entry?;
            std::fs::copy(entry.path(), copy.join(entry.file_name()))?;
        }
        match bytes {
            Some(bytes) => std::fs::write(copy.join(file), bytes)?,
            None => std::fs::remove_file(copy.join(file))?,
        }
        self.add(name, &["chat", "--model", &text(&copy), "Hello"], says);
        Ok(())
    }
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

fn attacks(dir: &Path, model: &Path) -> Result<Vec<Attack>> {
    let mut attacks = Attacks {
        dir,
        model,
        all: Vec::new(),
    };
    let picture = msao_golden::root().join("decoders/baseline.jpg");
    let picture = std::fs::read(&picture).with_context(|| text(&picture))?;
    let half = picture.get(..picture.len() / 2).unwrap_or_default();
    attacks.media("broken JPEG", "image", "broken.jpg", half, &[])?;
    attacks.media(
        "100-megapixel PNG",
        "image",
        "huge.png",
        &png_header(10_000, 10_000),
        &["10000", "33177600"],
    )?;
    attacks.media(
        "3-hour WAV",
        "audio",
        "long.wav",
        &wav_header(3 * 3600),
        &["600"],
    )?;
    attacks.media("empty picture", "image", "empty.png", b"", &["empty"])?;
    attacks.media("empty clip", "video", "empty.mp4", b"", &["empty"])?;
    attacks.media("empty sound", "audio", "empty.wav", b"", &["empty"])?;
    attacks.media(
        "text named .mp4",
        "video",
        "notes.mp4",
        b"This is not a clip.\n",
        &["MP4"],
    )?;
    attacks.media(
        "picture as sound",
        "audio",
        "picture.wav",
        &picture,
        &["WAV"],
    )?;
    let gone = text(&dir.join("gone.png"));
    attacks.add(
        "missing picture",
        &[
            "chat",
            "--model",
            &text(model),
            "--image",
            &gone,
            "What is it?",
        ],
        &["gone.png"],
    );

    let weights =
        std::fs::read(model.join("model.safetensors")).context("the checkpoint to break")?;
    let config = std::fs::read_to_string(model.join("config.json"))?;
    let cut = weights
        .get(..weights.len() * 2 / 3)
        .unwrap_or_default()
        .to_vec();
    let file = "model.safetensors";
    attacks.checkpoint(
        "truncated safetensors",
        file,
        Some(cut),
        &[file, "fetch it again"],
    )?;
    let renamed = replace(
        &weights,
        b"layers.0.mlp.down_proj",
        b"layers.0.mlp.drop_proj",
    );
    attacks.checkpoint(
        "missing tensor",
        file,
        Some(renamed),
        &[file, "layers.0.mlp.down_proj", "missing"],
    )?;
    let mut wider: serde_json::Value = serde_json::from_str(&config)?;
    widen(&mut wider);
    let wider = serde_json::to_vec(&wider)?;
    // It is the weights that have the wrong shape, by the config's word.
    attacks.checkpoint(
        "wrong shape",
        "config.json",
        Some(wider),
        &[file, "has shape", "config.json"],
    )?;
    let llama = br#"{"model_type": "llama"}"#.to_vec();
    attacks.checkpoint(
        "unknown family",
        "config.json",
        Some(llama),
        &["config.json", "llama", "qwen2_5_vl"],
    )?;
    attacks.checkpoint(
        "config that is not JSON",
        "config.json",
        Some(b"{".to_vec()),
        &["config.json"],
    )?;
    attacks.checkpoint("no tokenizer", "tokenizer.json", None, &["tokenizer.json"])?;
    // The other commands.
    let words = dir.join("words.safetensors");
    std::fs::write(&words, "These are not tensors, whatever the name says.")?;
    let (words, out) = (text(&words), text(&dir.join("out.safetensors")));
    let args = [
        "model",
        "forward",
        "--model",
        &text(model),
        "--inputs",
        &words,
        "--out",
        &out,
    ];
    attacks.add(
        "forward over a text file",
        &args,
        &["words.safetensors", "safetensors"],
    );
    let chat = dir.join("chat.json");
    std::fs::write(
        &chat,
        r#"[{"role": "user", "content": [{"type": "image", "image": "gone.png"}]}]"#,
    )?;
    let chat = text(&chat);
    let args = [
        "model",
        "preprocess",
        "--model",
        &text(model),
        "--messages",
        &chat,
        "--out",
        &out,
    ];
    attacks.add("chat that names a missing picture", &args, &["gone.png"]);
    attacks.checkpoint(
        "truncated tokenizer",
        "tokenizer.json",
        Some(b"{\"model\":".to_vec()),
        &["tokenizer.json"],
    )?;
    let endless = "one two three ".repeat(8000);
    attacks.add(
        "prompt longer than the context",
        &["chat", "--model", &text(model), &endless],
        &["context", "4096"],
    );
    Ok(attacks.all)
}

/// A PNG that claims a size and holds no pixels.
fn png_header(width: u32, height: u32) -> Vec<u8> {
    let mut body = b"IHDR".to_vec();
    body.extend(width.to_be_bytes());
    body.extend(height.to_be_bytes());
    body.extend([8, 2, 0, 0, 0]);
    let mut png = b"\x89PNG\r\n\x1a\n".to_vec();
    png.extend(13u32.to_be_bytes());
    let checksum = crc32(&body);
    png.extend(body);
    png.extend(checksum.to_be_bytes());
    png.extend([0; 64]);
    png
}

/// PNG's checksum (ISO 3309), bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg())
        })
    })
}

/// A 16 kHz mono WAV that claims to last so many seconds and holds a fraction of one.
fn wav_header(seconds: u32) -> Vec<u8> {
    let bytes = seconds * 32_000;
    let mut wav = b"RIFF".to_vec();
    wav.extend((bytes + 36).to_le_bytes());
    wav.extend(b"WAVEfmt ");
    wav.extend(16u32.to_le_bytes());
    for word in [1u16, 1] {
        wav.extend(word.to_le_bytes());
    }
    for word in [16_000u32, 32_000] {
        wav.extend(word.to_le_bytes());
    }
    for word in [2u16, 16] {
        wav.extend(word.to_le_bytes());
    }
    wav.extend(b"data");
    wav.extend(bytes.to_le_bytes());
    wav.extend([0; 4096]);
    wav
}

/// All occurrences of `from` replaced by `to`, which is as long.
fn replace(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut out = bytes.to_vec();
    let mut at = 0;
    while let Some(found) = out
        .get(at..)
        .and_then(|rest| rest.windows(from.len()).position(|window| window == from))
    {
        at += found;
        for (byte, new) in out.iter_mut().skip(at).zip(to) {
            *byte = *new;
        }
    }
    out
}

/// Makes the language model's MLP four wider than its weights, wherever the layout keeps it.
fn widen(config: &mut serde_json::Value) {
    for path in ["/thinker_config/text_config", "/text_config", ""] {
        if let Some(width) = config
            .pointer_mut(path)
            .and_then(|text| text.get_mut("intermediate_size"))
        {
            *width = serde_json::json!(width.as_u64().unwrap_or(0) + 4);
            return;
        }
    }
}
