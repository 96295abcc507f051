//! A text without content: what any text would draw from a medium.
//!
//! What a model's attention says of a question is what it pays beyond what it pays anyway. So it is held against that of
//! an input that asks nothing, as predictions are in contextual calibration (Zhao et al. 2021, arXiv 2102.09690), whose
//! input is "N/A": here in the frame of the model's own chat template.

use msao_core::chat::{Content, Message, Modality, Part};

use crate::error::ProcessorError;
use crate::processor::Processor;

/// What the user says in it.
const NOTHING: &str = "N/A";

impl Processor {
    /// The ids that stand behind a medium of this modality in a chat that asks nothing: from the marker that closes it to
    /// the header of the answer. None for text.
    ///
    /// # Errors
    /// If the directory has no template, the template fails, or the model does not take such media.
    pub fn content_free(&self, modality: Modality) -> Result<Vec<u32>, ProcessorError> {
        let name = String::new();
        let medium = match modality {
            Modality::Text => return Ok(Vec::new()),
            Modality::Image => Part::Image { image: name },
            Modality::Video => Part::Video { video: name },
            Modality::Audio => Part::Audio { audio: name },
        };
        let mut known = self.placeholders.iter();
        let Some(placeholder) = known.find(|placeholder| placeholder.modality == modality) else {
            return Err(ProcessorError::Modality {
                index: 0,
                family: self.family.rules().name(),
                modality,
            });
        };
        let nothing = Part::Text {
            text: NOTHING.to_owned(),
        };
        let message = Message {
            role: "user".to_owned(),
            content: Content::Parts(vec![medium, nothing]),
        };
        let ids = self.tokenizer.encode(&self.render(&[message], true)?)?;
        let place = ids.iter().rposition(|&id| id == placeholder.id);
        let behind = place.and_then(|place| ids.get(place + 1..));
        let behind = behind.ok_or_else(|| ProcessorError::Placeholders {
            modality,
            token: placeholder.token.clone(),
            found: 0,
            given: 1,
        })?;
        Ok(behind.to_vec())
    }
}
