//! A prompt as a model of this node reads it, laid out when that is first needed.

use std::sync::Arc;

use msao_core::chat::Message;
use msao_processor::Processor;
use tokio::sync::OnceCell;

use super::cargo::Means;
use super::prepare::Prompt;
use super::retain::Sight;
use super::shown::{Given, Laid, lay_out};

/// See the module. Several answers to one prompt share it.
pub struct Reading {
    laid: OnceCell<Arc<Laid>>,
    /// What is laid out, where that is not the prompt as it is.
    given: Arc<(Vec<Message>, Vec<Given>)>,
    processor: Arc<Processor>,
    means: Means,
}

impl Reading {
    /// Of a prompt that was laid out for the same processor, of whose media so much is read.
    pub fn new(
        prompt: &Prompt,
        sight: &Sight,
        processor: &Arc<Processor>,
        means: &Means,
    ) -> Reading {
        let (mut given, mut laid) = ((Vec::new(), Vec::new()), OnceCell::new());
        if sight.is_plain() {
            laid = OnceCell::new_with(Some(Arc::new(Laid {
                inputs: Arc::clone(&prompt.inputs),
                media: prompt.media.iter().map(|medium| medium.tokens).collect(),
                kept: sight.lists().clone(),
            })));
        } else {
            let told = prompt.told(sight, processor);
            let bytes = prompt.media.iter().map(|medium| Some(medium.bytes.clone()));
            let media = told.media.into_iter().zip(bytes);
            let media = media.map(|(medium, bytes)| Given { medium, bytes });
            given = (told.messages, media.collect());
        }
        Reading {
            laid,
            given: Arc::new(given),
            processor: Arc::clone(processor),
            means: means.clone(),
        }
    }

    /// What is read.
    ///
    /// # Errors
    /// It cannot be laid out, or the client has left.
    pub async fn laid(&self) -> Result<Arc<Laid>, String> {
        let laid = self.laid.get_or_try_init(|| async {
            let (given, processor) = (Arc::clone(&self.given), Arc::clone(&self.processor));
            let work = move |means: &Means| {
                let (messages, media) = &*given;
                lay_out(&processor, messages, media, &means.limits)
            };
            self.means.run("read", work).await.map(Arc::new)
        });
        laid.await.map(Arc::clone)
    }
}
