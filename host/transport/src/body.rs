//! What is sent as a request's or an answer's body.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

use crate::limits::PIECE_BYTES;
use crate::stream::OutboxBody;

/// A body of one of our kinds, so that a connection has one type of it.
pub(crate) enum Payload {
    /// Nothing.
    Empty,
    /// Bytes that are there.
    Bytes(Counted),
    /// Frames as they come.
    Frames(OutboxBody),
    /// Bytes of no meaning.
    Noise {
        /// How many are left.
        left: u64,
    },
}

/// Bytes, and how many of them have been handed over.
pub(crate) struct Counted {
    bytes: Bytes,
    sent: Arc<AtomicU64>,
    /// They are counted here too, beside those of others.
    all: Option<Arc<AtomicU64>>,
}

impl Counted {
    pub(crate) fn new(bytes: Bytes) -> (Counted, Arc<AtomicU64>) {
        let sent = Arc::new(AtomicU64::new(0));
        let counted = Counted {
            bytes,
            sent: Arc::clone(&sent),
            all: None,
        };
        (counted, sent)
    }

    /// Adds them to this sum as well.
    pub(crate) fn beside(self, all: &Arc<AtomicU64>) -> Counted {
        Counted {
            all: Some(Arc::clone(all)),
            ..self
        }
    }
}

impl Payload {
    /// A text, in an answer.
    pub(crate) fn text(text: impl Into<String>) -> Payload {
        Payload::Bytes(Counted::new(Bytes::from(text.into())).0)
    }
}

impl Body for Payload {
    type Data = Bytes;
    /// Only frames fail: with [`h2::Error`], which tells hyper how to reset the stream.
    type Error = h2::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context,
    ) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        let piece = match self.get_mut() {
            Payload::Empty => return Poll::Ready(None),
            Payload::Frames(frames) => return frames.poll(cx),
            Payload::Bytes(Counted { bytes, sent, all }) => {
                let piece = bytes.split_to(bytes.len().min(PIECE_BYTES));
                for sum in [Some(sent), all.as_mut()].into_iter().flatten() {
                    sum.fetch_add(piece.len() as u64, Ordering::Relaxed);
                }
                piece
            }
            Payload::Noise { left } => {
                let noise = noise();
                let length = (noise.len() as u64).min(*left);
                *left -= length;
                noise.slice(..length as usize)
            }
        };
        // An empty DATA frame that is not the last one is counted against us by the other side.
        Poll::Ready((!piece.is_empty()).then(|| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Payload::Empty => true,
            Payload::Frames(frames) => frames.is_end(),
            Payload::Bytes(Counted { bytes, .. }) => bytes.is_empty(),
            Payload::Noise { left } => *left == 0,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Payload::Empty => SizeHint::with_exact(0),
            Payload::Frames(_) => SizeHint::default(),
            Payload::Bytes(Counted { bytes, .. }) => SizeHint::with_exact(bytes.len() as u64),
            Payload::Noise { left } => SizeHint::with_exact(*left),
        }
    }
}

/// Bytes that nothing on the way can compress (xorshift64, G. Marsaglia, "Xorshift RNGs", 2003).
fn noise() -> Bytes {
    static NOISE: std::sync::OnceLock<Bytes> = std::sync::OnceLock::new();
    let make = || {
        let mut state = 0x9E37_79B9_7F4A_7C15_u64;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        };
        (0..PIECE_BYTES / 8).flat_map(|_| next()).collect()
    };
    NOISE.get_or_init(make).clone()
}

/// For services that always have an answer.
pub(crate) type Never = Infallible;
