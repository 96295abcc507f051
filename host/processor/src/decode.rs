//! From encoded media to what [`Processor::prepare`] takes, decoding no more than the model will look at.

use msao_core::chat::Modality;
use msao_media::{Limits, MediaError};

use crate::error::ProcessorError;
use crate::prepare::Media;
use crate::processor::Processor;

/// Why a medium was not decoded.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// The bytes are not what they should be, or too much.
    #[error(transparent)]
    Media(#[from] MediaError),
    /// The model cannot make use of it.
    #[error(transparent)]
    Processor(#[from] ProcessorError),
    /// Text is not a medium.
    #[error("text is not decoded")]
    Text,
}

impl Processor {
    /// Decodes the bytes of a file as a medium of the given kind; of a clip only the frames that the model samples.
    ///
    /// # Errors
    /// If the bytes are damaged, of another kind, or exceed `limits`.
    pub fn decode(
        &self,
        modality: Modality,
        bytes: &[u8],
        limits: &Limits,
    ) -> Result<Media, DecodeError> {
        Ok(match modality {
            Modality::Text => return Err(DecodeError::Text),
            Modality::Image => Media::Image(msao_media::decode_image(bytes, limits)?),
            Modality::Audio => Media::Audio(msao_media::decode_audio(bytes, limits)?),
            Modality::Video => {
                let info = msao_media::probe_video(bytes, limits)?;
                let frames = self.frames_to_sample(&info)?;
                Media::Video(msao_media::decode_video(bytes, limits, &mut |_| {
                    frames.clone()
                })?)
            }
        })
    }
}
