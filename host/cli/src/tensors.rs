//! `msao model preprocess` and `msao model forward`: our half of a comparison with Hugging Face, as tensor files.

use std::io::Write as _;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use msao_core::chat::Message;
use msao_processor::{Processor, safetensors_io};

use crate::{Holding, ModelDir, media};

/// Turn a chat and its media into the tensors that the model reads.
///
/// The chat is JSON in Hugging Face's form: [{"role": "user", "content": [{"type": "image", "image": "cat.png"},
/// {"type": "text", "text": "What is this?"}]}]. Media paths are relative to the chat's file. The tensors are named
/// as Hugging Face's processors name them (input_ids, pixel_values, image_grid_thw, input_features, ...).
#[derive(Args)]
pub struct PreprocessArgs {
    #[command(flatten)]
    model: ModelDir,
    /// The chat, a JSON list of messages.
    #[arg(long, value_name = "FILE")]
    messages: PathBuf,
    /// Frames a second to look at in clips [default: the model's, else every frame, as Hugging Face does].
    #[arg(long, value_name = "FPS")]
    fps: Option<f64>,
    /// The safetensors file to write.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// Run the model over given tensors and write the logits of every position.
///
/// Reads a safetensors file with Hugging Face's names (input_ids, attention_mask, pixel_values, image_grid_thw,
/// pixel_values_videos, video_grid_thw, second_per_grid_ts, input_features, feature_attention_mask) and writes
/// `logits`, [1, L, vocabulary] in f32.
#[derive(Args)]
pub struct ForwardArgs {
    #[command(flatten)]
    model: ModelDir,
    /// The safetensors file with the model's inputs.
    #[arg(long, value_name = "FILE")]
    inputs: PathBuf,
    /// The safetensors file to write.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    #[command(flatten)]
    holding: Holding,
}

pub fn preprocess(args: &PreprocessArgs) -> Result<()> {
    let named = || args.messages.display().to_string();
    let text = std::fs::read_to_string(&args.messages).with_context(named)?;
    let messages: Vec<Message> = serde_json::from_str(&text)
        .with_context(|| format!("{}: not a list of messages", named()))?;
    let processor = media::sample_at(Processor::load(&args.model.model)?, args.fps)?;
    let base = args.messages.parent().unwrap_or_else(|| ".".as_ref());
    let media = media::load_all(&processor, &messages, base)?;
    let files: Vec<String> = messages
        .iter()
        .flat_map(Message::parts)
        .filter_map(|part| Some(part.modality().1?.to_owned()))
        .collect();
    let prepared = processor
        .prepare(&messages, &media)
        .map_err(|error| media::name_file(error, &files))?;
    for note in &prepared.notes {
        eprintln!("note: {note}");
    }
    safetensors_io::write(&args.out, &prepared.inputs, processor.family())?;
    writeln!(
        std::io::stdout(),
        "{}: {} tokens, {} media",
        args.out.display(),
        prepared.inputs.input_ids.len(),
        media.len()
    )?;
    Ok(())
}

pub fn forward(args: &ForwardArgs) -> Result<()> {
    let inputs = safetensors_io::read(&args.inputs)?;
    let model = args.holding.load(&args.model.model)?;
    let logits = model
        .forward(&inputs)
        .with_context(|| args.inputs.display().to_string())?;
    let bytes: Vec<u8> = logits
        .data
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect();
    let shape = std::iter::once(1)
        .chain(logits.shape.iter().copied())
        .collect();
    let view = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape, &bytes)?;
    safetensors::serialize_to_file([("logits", view)], None, &args.out)
        .with_context(|| args.out.display().to_string())?;
    writeln!(
        std::io::stdout(),
        "{}: logits {:?} in {}",
        args.out.display(),
        logits.shape,
        model.precision()
    )?;
    Ok(())
}
