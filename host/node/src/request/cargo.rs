//! What of a request goes to the node with the target: what its OPEN says of the prompt, and the bytes of its media.
//!
//! Where a plan wants media made smaller that takes decoding and coding them, milliseconds to seconds, which is done on a
//! thread for it when a way to the target is first looked for: beside whatever else goes on, and not at all for an answer
//! that needs no target. Where a shipment has no fewer bytes than the medium itself, the medium is sent; what its tokens are
//! does not depend on that, but for pixels and samples that would have been left out. What was made is kept as long as the
//! answer may need it: it is what another node is sent that goes on where one was lost.

use std::sync::Arc;

use bytes::Bytes;
use msao_core::digest::Digest;
use msao_core::offload::{Rest, Treatment};
use msao_media::Limits;
use msao_processor::Processor;
use msao_session::frame::{self, Medium};
use tokio::sync::{OnceCell, Semaphore};
use tokio_util::sync::CancellationToken;

use super::prepare::Prompt;
use super::retain::Sight;
use super::ship::ship;
use super::treatment::is_shipped;
use super::view::{View, is_tight};

/// What it takes to make things of media.
#[derive(Clone)]
pub struct Means {
    /// What a medium may be.
    pub limits: Limits,
    /// Who may decode media.
    pub decoders: Arc<Semaphore>,
    /// The client has gone: nothing more is made for it.
    pub gone: CancellationToken,
}

impl Means {
    /// Does slow work on a thread for it, once it may.
    ///
    /// # Errors
    /// Those of the work; it panicked, or the client has left before it began.
    pub async fn run<T: Send + 'static>(
        &self,
        what: &'static str,
        work: impl FnOnce(&Means) -> Result<T, String> + Send + 'static,
    ) -> Result<T, String> {
        let decoder = Arc::clone(&self.decoders).acquire_owned().await;
        let decoder = decoder.map_err(|error| error.to_string())?;
        let (means, span) = (self.clone(), tracing::info_span!("made", what));
        let work = move || {
            let (_decoder, _phase) = (decoder, span.entered());
            if means.gone.is_cancelled() {
                return Err(left());
            }
            work(&means)
        };
        let done = tokio::task::spawn_blocking(work).await;
        done.map_err(|error| error.to_string())?
    }
}

fn left() -> String {
    "the client has left".to_owned()
}

/// What goes over.
#[derive(Clone, Debug)]
pub struct Sent {
    /// What OPEN says.
    pub prompt: frame::Prompt,
    /// Its digest.
    pub target_input: Digest,
    /// The media that must be there, by their digests.
    pub uploads: Vec<(Digest, Bytes)>,
    /// The media that go as they came though a shipment was asked for, by number.
    pub as_they_came: Vec<usize>,
}

/// See the module.
pub struct Cargo {
    load: Arc<Load>,
    sent: OnceCell<Arc<Sent>>,
    means: Means,
}

/// All that decides what goes over.
struct Load {
    prompt: Arc<Prompt>,
    processor: Arc<Processor>,
    sight: Sight,
    /// How each medium gets there, where shipments are made.
    ways: Option<Vec<Treatment>>,
}

impl Cargo {
    /// Of a prompt that was laid out for the same processor, of whose media the target reads so much. `ways`: how they are
    /// sent to where shipments are opened, one for each medium; none of them is made into one without.
    pub fn new(
        prompt: &Arc<Prompt>,
        sight: &Sight,
        processor: &Arc<Processor>,
        ways: Option<Vec<Treatment>>,
        means: Means,
    ) -> Cargo {
        let load = Load {
            prompt: Arc::clone(prompt),
            processor: Arc::clone(processor),
            sight: sight.clone(),
            ways: ways.filter(|ways| ways.iter().any(is_shipped)),
        };
        let sent = load.ways.is_none().then(|| Arc::new(load.as_it_is()));
        Cargo {
            load: Arc::new(load),
            sent: OnceCell::new_with(sent),
            means,
        }
    }

    /// The prompt that it is of.
    pub fn prompt(&self) -> &Arc<Prompt> {
        &self.load.prompt
    }

    /// Whether only a node that knows how media are made smaller can read it.
    pub fn is_made(&self) -> bool {
        !self.load.sight.is_plain()
    }

    /// What goes over, made if it has not been.
    ///
    /// # Errors
    /// It cannot be made because the client has left, or a thread failed.
    pub async fn sent(&self) -> Result<Arc<Sent>, String> {
        let sent = self.sent.get_or_try_init(|| async {
            let load = Arc::clone(&self.load);
            let work = move |means: &Means| load.make(means);
            self.means.run("shipments", work).await.map(Arc::new)
        });
        sent.await.map(Arc::clone)
    }

    /// The same, if it has been made.
    pub fn made(&self) -> Option<&Arc<Sent>> {
        self.sent.get()
    }

    /// The bytes of a medium, sent or not.
    pub fn bytes(&self, digest: &Digest) -> Option<Bytes> {
        let sent = self.made().into_iter().flat_map(|sent| &sent.uploads);
        let media = self.load.prompt.media.iter();
        let media = media.map(|medium| (&medium.digest, &medium.bytes));
        let mut all = sent.map(|(digest, bytes)| (digest, bytes)).chain(media);
        let found = all.find(|(other, _)| *other == digest);
        found.map(|(_, bytes)| bytes.clone())
    }
}

impl Load {
    /// Without shipments.
    fn as_it_is(&self) -> Sent {
        let prompt = self.prompt.told(&self.sight, &self.processor);
        let media = prompt.media.iter().zip(&self.prompt.media);
        let needed = media.filter(|(told, _)| told.is_uploaded());
        let uploads = needed.map(|(_, medium)| (medium.digest, medium.bytes.clone()));
        Sent {
            uploads: uploads.collect(),
            target_input: prompt.digest(),
            as_they_came: Vec::new(),
            prompt,
        }
    }

    /// With shipments where they are asked for and have fewer bytes.
    fn make(&self, means: &Means) -> Result<Sent, String> {
        let mut sent = Sent {
            uploads: Vec::new(),
            ..self.as_it_is()
        };
        let ways = self.ways.as_deref().unwrap_or_default();
        for (number, told) in sent.prompt.media.iter_mut().enumerate() {
            if !told.is_uploaded() {
                continue;
            }
            let Some(medium) = self.prompt.media.get(number) else {
                continue;
            };
            let wanted = ways.get(number).filter(|how| is_shipped(how));
            let Some((how, view)) = wanted.zip(self.sight.view(number)) else {
                sent.uploads.push((medium.digest, medium.bytes.clone()));
                continue;
            };
            if means.gone.is_cancelled() {
                return Err(left());
            }
            let shipment = ship(medium, view, how, &self.processor, &means.limits);
            match shipment {
                Ok(bytes) if bytes.len() < medium.bytes.len() => {
                    tracing::debug!(
                        number,
                        bytes = bytes.len(),
                        of = medium.bytes.len(),
                        "made a shipment"
                    );
                    *told = shipped(&bytes, view, how.rest, &self.processor, told);
                    sent.uploads.push((told.digest, bytes.into()));
                }
                other => {
                    match other {
                        Ok(bytes) => tracing::debug!(
                            number,
                            bytes = bytes.len(),
                            of = medium.bytes.len(),
                            "a shipment would be no smaller"
                        ),
                        Err(error) => {
                            tracing::warn!(number, %error, "there is no shipment of a medium")
                        }
                    }
                    sent.uploads.push((medium.digest, medium.bytes.clone()));
                    sent.as_they_came.push(number);
                }
            }
        }
        sent.target_input = sent.prompt.digest();
        Ok(sent)
    }
}

/// How a medium is told of whose shipment this is.
fn shipped(bytes: &[u8], view: &View, rest: Rest, processor: &Processor, told: &Medium) -> Medium {
    let (made, keep) = view.made(processor, true, is_tight(rest));
    Medium {
        digest: Digest::of(bytes),
        modality: told.modality,
        keep,
        made: Some(made),
    }
}

impl Prompt {
    /// The same as the side with the target is told it that gets its media, or this node's own models, as they came; with what
    /// is read of them, and how they are laid out where that is another way.
    pub fn told(&self, sight: &Sight, processor: &Processor) -> frame::Prompt {
        let mut prompt = self.for_peer(sight.lists());
        for (number, told) in prompt.media.iter_mut().enumerate() {
            if let Some(view) = sight.view(number) {
                let (made, keep) = view.made(processor, false, false);
                told.keep = keep;
                // One that is as large as ever needs no more than its list.
                told.made = (!view.is_whole(processor)).then_some(made);
            }
        }
        prompt
    }
}
