//! One stream of frames, as its two users see it.

mod inbox;
mod outbox;

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use msao_session::frame::{Frame, encode};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::timeout;

pub(crate) use self::inbox::{Inbound, Negotiation, Source, lost};
pub(crate) use self::outbox::{Outbox, OutboxBody};

use self::inbox::Item;
use self::outbox::{End, Push};
use crate::error::TransportError;
use crate::limits::UNREAD;

/// A session's frames, both ways at once.
///
/// To end one in good order, [`Sender::finish`] and receive until nothing comes. Dropped before that it is cancelled:
/// the other side's receiver gets [`TransportError::Cancelled`].
#[derive(Debug)]
pub struct Stream {
    // The receiver goes first: so a stream that is dropped whole is cancelled, not finished.
    receiver: Receiver,
    sender: Sender,
}

/// Sends frames. Dropped alone, it finishes its direction.
#[derive(Debug)]
pub struct Sender {
    shared: Arc<Shared>,
}

/// Receives frames. Dropped before the end, it cancels the stream, both ways.
#[derive(Debug)]
pub struct Receiver {
    items: mpsc::UnboundedReceiver<Item>,
    shared: Arc<Shared>,
    reader: AbortHandle,
    ended: bool,
}

struct Shared {
    outbox: Arc<Outbox>,
    received: Arc<AtomicU64>,
    /// The version of the protocol; 0 before it is agreed on.
    version: Arc<AtomicU8>,
    /// Frees the stream's place among the sessions of a server.
    _place: Option<Box<dyn Send + Sync>>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("sent", &self.outbox.sent())
            .field("received", &self.received.load(Ordering::Relaxed))
            .finish_non_exhaustive()
    }
}

/// Counts a stream's bytes, its frames' headers included and those of HTTP/2 and TLS not. Goes on counting when the
/// stream is split.
#[derive(Clone, Debug)]
pub struct Meter {
    shared: Arc<Counted>,
}

struct Counted(Arc<Outbox>, Arc<AtomicU64>);

impl std::fmt::Debug for Counted {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(
            f,
            "{} sent, {} received",
            self.0.sent(),
            self.1.load(Ordering::Relaxed)
        )
    }
}

impl Meter {
    /// Bytes of frames that were handed to the connection; what still waits is not among them.
    pub fn sent_bytes(&self) -> u64 {
        self.shared.0.sent()
    }

    /// Bytes of frames that have come, taken or not.
    pub fn received_bytes(&self) -> u64 {
        self.shared.1.load(Ordering::Relaxed)
    }
}

/// What a stream is made of besides its outbox.
pub(crate) struct Parts {
    pub(crate) outbox: Arc<Outbox>,
    pub(crate) inbound: Inbound,
    pub(crate) place: Option<Box<dyn Send + Sync>>,
}

impl Stream {
    /// Starts to read. Needs a runtime.
    pub(crate) fn start(parts: Parts) -> Stream {
        let Parts {
            outbox,
            inbound,
            place,
        } = parts;
        let shared = Arc::new(Shared {
            outbox,
            received: Arc::clone(&inbound.received),
            version: inbound.negotiation.version(),
            _place: place,
        });
        let (to, items) = mpsc::unbounded_channel();
        let reading = inbound.run(to, Arc::clone(&shared.outbox));
        let reader = tokio::spawn(reading).abort_handle();
        Stream {
            receiver: Receiver {
                items,
                shared: Arc::clone(&shared),
                reader,
                ended: false,
            },
            sender: Sender { shared },
        }
    }

    /// The two halves, for two tasks.
    pub fn split(self) -> (Sender, Receiver) {
        (self.sender, self.receiver)
    }

    /// As [`Sender::send`].
    ///
    /// # Errors
    /// As there.
    pub async fn send(&self, frame: &Frame) -> Result<(), TransportError> {
        self.sender.send(frame).await
    }

    /// As [`Receiver::recv`].
    pub async fn recv(&mut self) -> Option<Result<Frame, TransportError>> {
        self.receiver.recv().await
    }

    /// As [`Sender::try_send`].
    ///
    /// # Errors
    /// As there.
    pub fn try_send(&self, frame: &Frame) -> Result<(), TransportError> {
        self.sender.try_send(frame)
    }

    /// As [`Sender::finish`].
    pub fn finish(&self) {
        self.sender.finish();
    }

    /// The next frame, `None` at the end.
    pub(crate) async fn recv_within(
        &mut self,
        limit: Duration,
        what: &'static str,
    ) -> Result<Option<Frame>, TransportError> {
        let late = TransportError::Timeout {
            what,
            seconds: limit.as_secs(),
        };
        let received = timeout(limit, self.recv()).await.map_err(|_| late)?;
        received.transpose()
    }

    /// Counts its bytes.
    pub fn meter(&self) -> Meter {
        let shared = &self.sender.shared;
        let counted = Counted(Arc::clone(&shared.outbox), Arc::clone(&shared.received));
        Meter {
            shared: Arc::new(counted),
        }
    }
}

impl Sender {
    /// Sends a frame, as soon as there is room. Several tasks may send; each frame goes whole.
    ///
    /// # Errors
    /// [`TransportError::Frame`] if the frame is outside its limits; then the stream goes on. Otherwise the stream is
    /// over: finished or cancelled here, lost, or given up because the peer took nothing for [`UNREAD`].
    pub async fn send(&self, frame: &Frame) -> Result<(), TransportError> {
        let bytes = self.encode(frame)?;
        loop {
            let room = self.shared.outbox.room();
            tokio::pin!(room);
            // Registered before asking, so that no room is missed in between.
            room.as_mut().enable();
            match self.shared.outbox.push(&bytes) {
                Push::Taken => return Ok(()),
                Push::Over(end) => return Err(over(end)),
                Push::Full => {}
            }
            if timeout(UNREAD, room).await.is_err() {
                self.shared.outbox.cancel();
                return Err(TransportError::Unread("the peer"));
            }
        }
    }

    /// Sends a frame if there is room at once. Does not need a runtime.
    ///
    /// # Errors
    /// [`TransportError::Full`], after which the stream goes on; otherwise as [`Sender::send`].
    pub fn try_send(&self, frame: &Frame) -> Result<(), TransportError> {
        match self.shared.outbox.push(&self.encode(frame)?) {
            Push::Taken => Ok(()),
            Push::Full => Err(TransportError::Full),
            Push::Over(end) => Err(over(end)),
        }
    }

    /// Nothing more comes from this side. What waits is still sent, then the end.
    pub fn finish(&self) {
        self.shared.outbox.finish();
    }

    /// Ends the stream at once, both ways.
    pub fn cancel(&self) {
        self.shared.outbox.cancel();
    }

    fn encode(&self, frame: &Frame) -> Result<Vec<u8>, TransportError> {
        let mut bytes = Vec::new();
        encode(
            frame,
            self.shared.version.load(Ordering::Acquire),
            &mut bytes,
        )?;
        Ok(bytes)
    }
}

fn over(end: End) -> TransportError {
    match end {
        End::Open | End::Finished => TransportError::Finished,
        End::Cancelled => TransportError::Cancelled,
        End::Gone => TransportError::Lost("the peer takes nothing more".into()),
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.finish();
    }
}

impl Receiver {
    /// The next frame. `None`: the peer has finished its direction in good order, or an error was told before. Can be
    /// dropped and called again; nothing is lost.
    pub async fn recv(&mut self) -> Option<Result<Frame, TransportError>> {
        if self.ended {
            return None;
        }
        match self.items.recv().await {
            Some(Item::Frame(frame, _room)) => Some(Ok(frame)),
            Some(Item::End(None)) => {
                self.ended = true;
                None
            }
            Some(Item::End(Some(error))) => {
                self.ended = true;
                Some(Err(error))
            }
            // The reader went without a word: its runtime is shutting down.
            None => {
                self.ended = true;
                self.shared.outbox.cancel();
                Some(Err(TransportError::Lost("this node is stopping".into())))
            }
        }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        if !self.ended {
            self.shared.outbox.cancel();
        }
        self.reader.abort();
    }
}
