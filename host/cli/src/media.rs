//! Media files into decoded media, with errors that name the file.

use std::path::Path;

use anyhow::{Context, Result};
use msao_core::chat::{Message, Modality};
use msao_media::Limits;
use msao_processor::{Media, Processor};

/// Reads and decodes one file as a medium of the given kind.
pub fn load(processor: &Processor, modality: Modality, path: &Path) -> Result<Media> {
    let limits = Limits::default();
    let bytes = msao_media::read_file(path, &limits)?;
    processor.decode(modality, &bytes, &limits).with_context(|| path.display().to_string())
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
