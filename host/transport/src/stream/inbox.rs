//! Frames as they come.
//!
//! A task of its own takes a stream's bytes from HTTP/2 at once, whatever its receiver does. It never waits for the
//! receiver: bytes that lie unread use up the connection's window, and then heartbeats and all other streams stand
//! still. So a stream of which too much lies untaken is given up instead.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use msao_session::frame::{Decoder, Frame, Hello};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::outbox::Outbox;
use crate::error::TransportError;
use crate::explain::{self, Cut};
use crate::limits::{FRAME_COST, INBOX_BYTES};
use crate::wire::WireHandle;

/// What the reader tells the receiver.
#[derive(Debug)]
pub(crate) enum Item {
    /// A frame, and the room that it takes.
    Frame(Frame, OwnedSemaphorePermit),
    /// The end, in good order or not. Nothing comes after it.
    End(Option<TransportError>),
}

/// Where the bytes come from.
pub(crate) enum Source {
    /// They are there to be read.
    Body(Incoming),
    /// They come with an answer.
    Answer(Pin<Box<dyn Future<Output = Result<Incoming, TransportError>> + Send>>),
}

/// Which version the frames are of.
#[derive(Clone)]
pub(crate) enum Negotiation {
    /// Of one that was agreed on before.
    Agreed(u8),
    /// HELLO comes first; with this one it decides. The version is put where the sender finds it.
    ByHello(Box<Hello>, Arc<AtomicU8>),
}

impl Negotiation {
    pub(crate) fn by_hello(ours: Hello) -> Negotiation {
        Negotiation::ByHello(Box::new(ours), Arc::default())
    }

    pub(crate) fn version(&self) -> Arc<AtomicU8> {
        match self {
            Negotiation::Agreed(version) => Arc::new(AtomicU8::new(*version)),
            Negotiation::ByHello(_, version) => Arc::clone(version),
        }
    }

    fn decoder(&self) -> Decoder {
        match self {
            Negotiation::Agreed(version) => Decoder::of_version(*version),
            Negotiation::ByHello(..) => Decoder::new(),
        }
    }

    /// Says whether frames after this one can be understood.
    fn hears(&self, frame: &Frame, decoder: &mut Decoder) -> bool {
        match (self, frame) {
            (Negotiation::ByHello(ours, agreed), Frame::Hello(theirs)) => {
                let Ok(agreement) = ours.agree(theirs) else {
                    return false;
                };
                decoder.agree(agreement.version);
                agreed.store(agreement.version, Ordering::Release);
                true
            }
            _ => true,
        }
    }
}

/// The reading side of a stream.
pub(crate) struct Inbound {
    pub(crate) source: Source,
    pub(crate) negotiation: Negotiation,
    pub(crate) wire: WireHandle,
    pub(crate) received: Arc<AtomicU64>,
    /// Told of whatever comes.
    pub(crate) news: Option<Arc<dyn Fn() + Send + Sync>>,
}

impl Inbound {
    /// Reads to the end. A bad one ends the other direction as well, at once: the receiver may be the reason.
    pub(super) async fn run(self, to: mpsc::UnboundedSender<Item>, outbox: Arc<Outbox>) {
        let end = self.read(&to).await;
        if end.is_err() {
            outbox.cancel();
        }
        // Nobody listens any more: then nobody wants to know.
        let _ = to.send(Item::End(end.err()));
    }

    async fn read(self, to: &mpsc::UnboundedSender<Item>) -> Result<(), TransportError> {
        let Inbound {
            source,
            negotiation,
            wire,
            received,
            news,
        } = self;
        let mut body = match source {
            Source::Body(body) => body,
            Source::Answer(answer) => answer.await?,
        };
        let room = Arc::new(Semaphore::new(INBOX_BYTES));
        let mut decoder = negotiation.decoder();
        // Bytes since the last whole frame, which is what the next one took on the wire.
        let mut since = 0;
        while let Some(piece) = body.frame().await {
            let piece = piece.map_err(|error| lost(&error, &wire))?;
            let Ok(bytes) = piece.into_data() else {
                continue;
            };
            received.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            if let Some(news) = &news {
                news();
            }
            let mut rest = &*bytes;
            while !rest.is_empty() {
                let before = rest.len();
                let fed = decoder.feed(&mut rest)?;
                since += before - rest.len();
                let Some(frame) = fed else {
                    continue;
                };
                let understood = negotiation.hears(&frame, &mut decoder);
                let cost = since.clamp(FRAME_COST, INBOX_BYTES);
                since = 0;
                let Ok(permit) = Arc::clone(&room).try_acquire_many_owned(cost as u32) else {
                    return Err(TransportError::Unread("the receiver"));
                };
                if to.send(Item::Frame(frame, permit)).is_err() || !understood {
                    return Ok(());
                }
            }
        }
        // hyper takes a reset with NO_ERROR, as a connection that timed out gives it, for an end in good order.
        if !body.is_end_stream() {
            return Err(wire
                .why()
                .map_or(TransportError::Cancelled, TransportError::Lost));
        }
        decoder.end()?;
        Ok(())
    }
}

/// Why a body broke off. What ended the connection says more than how HTTP/2 saw it.
pub(crate) fn lost(error: &hyper::Error, wire: &WireHandle) -> TransportError {
    match (explain::cut(error), wire.why()) {
        (Cut::Cancelled, _) => TransportError::Cancelled,
        (Cut::Lost(_), Some(why)) => TransportError::Lost(why),
        (Cut::Lost(why), None) => TransportError::Lost(why),
    }
}
