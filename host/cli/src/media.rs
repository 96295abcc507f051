//! Media files into decoded media, with errors that name the file.

use std::path::Path;

use anyhow::{Context, Result};
use msao_core::chat::{Message, Modality};
use msao_media::Limits;
use msao_processor::{Media, Options, Processor, ProcessorError, VideoSampling};

/// Frames a second that Qwen's own tools sample.
pub const USUAL_FPS: f64 = 2.0;

/// Has the processor sample clips at `fps`, where that is given.
pub fn sample_at(processor: Processor, fps: Option<f64>) -> Result<Processor> {
    let Some(fps) = fps else { return Ok(processor) };
    anyhow::ensure!(
        fps > 0.0 && fps <= 240.0,
        "--fps is {fps}; it must be above 0 and at most 240"
    );
    let options = Options {
        sampling: VideoSampling::Fps(fps),
        ..processor.options().clone()
    };
    Ok(processor.with_options(options))
}

/// Reads and decodes one file as a medium of the given kind.
pub fn load(processor: &Processor, modality: Modality, path: &Path) -> Result<Media> {
    let limits = Limits::default();
    let bytes = msao_media::read_file(path, &limits)?;
    processor
        .decode(modality, &bytes, &limits)
        .with_context(|| path.display().to_string())
}

/// Reads and decodes every file that the messages name, in order; paths are relative to `base`.
pub fn load_all(processor: &Processor, messages: &[Message], base: &Path) -> Result<Vec<Media>> {
    let parts = messages.iter().flat_map(Message::parts);
    let mut media = Vec::new();
    for part in parts {
        if let (modality, Some(reference)) = part.modality() {
            media.push(load(processor, modality, &base.join(reference))?);
        }
    }
    Ok(media)
}

/// Puts the file's name before an error about one of the media.
pub fn name_file(error: ProcessorError, files: &[String]) -> anyhow::Error {
    let file = match &error {
        ProcessorError::Media { index, .. } => files.get(*index).cloned(),
        _ => None,
    };
    match file {
        Some(file) => anyhow::Error::new(error).context(file),
        None => error.into(),
    }
}
