//! Frames that wait to be handed to HTTP/2.
//!
//! HTTP/2 asks for more when it has room, so what the other side does not read stays here, and [`OUTBOX_BYTES`] bound
//! it. What waits together leaves as one piece: small frames share a DATA frame, of which the other side can afford
//! only so many that are small.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use hyper::body::Frame;
use tokio::sync::Notify;

use crate::limits::{OUTBOX_BYTES, PIECE_BYTES};
use crate::lock;

#[derive(Default)]
pub(crate) struct Outbox {
    state: Mutex<State>,
    room: Notify,
    /// Bytes that were handed to HTTP/2.
    sent: AtomicU64,
}

#[derive(Default)]
struct State {
    waiting: BytesMut,
    end: End,
    /// Of the task that sends.
    waker: Option<Waker>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum End {
    /// More may come.
    #[default]
    Open,
    /// What waits is sent, and then the end.
    Finished,
    /// Nothing more is sent, and the stream is reset.
    Cancelled,
    /// HTTP/2 takes nothing more: the stream is over.
    Gone,
}

/// What became of bytes that were to be sent.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Push {
    Taken,
    Full,
    Over(End),
}

impl Outbox {
    pub(crate) fn push(&self, bytes: &[u8]) -> Push {
        let mut state = lock(&self.state);
        if state.end != End::Open {
            return Push::Over(state.end);
        }
        let waiting = state.waiting.len();
        if waiting > 0 && waiting + bytes.len() > OUTBOX_BYTES {
            return Push::Full;
        }
        state.waiting.extend_from_slice(bytes);
        wake(state);
        Push::Taken
    }

    /// Sends what waits, and then the end.
    pub(crate) fn finish(&self) {
        self.end(End::Finished);
    }

    /// Resets the stream.
    pub(crate) fn cancel(&self) {
        self.end(End::Cancelled);
    }

    fn end(&self, end: End) {
        let mut state = lock(&self.state);
        match (state.end, end) {
            (End::Open, _) | (End::Finished, End::Cancelled) => state.end = end,
            _ => return,
        }
        if end == End::Cancelled {
            state.waiting = BytesMut::new();
        }
        wake(state);
        self.room.notify_waiters();
    }

    /// There may be room; wait for this before asking again.
    pub(crate) fn room(&self) -> tokio::sync::futures::Notified<'_> {
        self.room.notified()
    }

    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }
}

fn wake(mut state: std::sync::MutexGuard<State>) {
    let waker = state.waker.take();
    drop(state);
    if let Some(waker) = waker {
        waker.wake();
    }
}

/// What HTTP/2 takes from. When it is dropped the stream is over on this side.
pub(crate) struct OutboxBody(pub(crate) Arc<Outbox>);

impl OutboxBody {
    pub(crate) fn poll(&mut self, cx: &Context) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        let outbox = &self.0;
        let mut state = lock(&outbox.state);
        match (state.waiting.len(), state.end) {
            (_, End::Cancelled) => Poll::Ready(Some(Err(h2::Reason::CANCEL.into()))),
            (0, End::Open) => {
                match &mut state.waker {
                    Some(waker) => waker.clone_from(cx.waker()),
                    None => state.waker = Some(cx.waker().clone()),
                }
                Poll::Pending
            }
            (0, End::Finished | End::Gone) => Poll::Ready(None),
            (waiting, _) => {
                let piece = state.waiting.split_to(waiting.min(PIECE_BYTES)).freeze();
                drop(state);
                outbox.sent.fetch_add(piece.len() as u64, Ordering::Relaxed);
                outbox.room.notify_waiters();
                Poll::Ready(Some(Ok(Frame::data(piece))))
            }
        }
    }

    pub(crate) fn is_end(&self) -> bool {
        let state = lock(&self.0.state);
        state.waiting.is_empty() && state.end == End::Finished
    }
}

impl Drop for OutboxBody {
    fn drop(&mut self) {
        let mut state = lock(&self.0.state);
        // One that was sent to its end stays finished: sending more is a mistake of this side, not a cut.
        if state.end == End::Open || !state.waiting.is_empty() {
            state.end = End::Gone;
        }
        state.waiting = BytesMut::new();
        drop(state);
        self.0.room.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(body: &mut OutboxBody) -> Option<Bytes> {
        match body.poll(&Context::from_waker(Waker::noop())) {
            Poll::Ready(Some(Ok(frame))) => frame.into_data().ok(),
            _ => None,
        }
    }

    #[test]
    fn what_waits_together_leaves_together() {
        let outbox = Arc::new(Outbox::default());
        let mut body = OutboxBody(Arc::clone(&outbox));
        for byte in 0..100 {
            assert_eq!(outbox.push(&[byte; 50]), Push::Taken);
        }
        assert_eq!(taken(&mut body).map(|piece| piece.len()), Some(5000));
        assert_eq!(taken(&mut body), None);
        outbox.finish();
        assert!(body.is_end());
        assert_eq!(
            (outbox.push(b"more"), outbox.sent()),
            (Push::Over(End::Finished), 5000)
        );
    }

    #[test]
    fn what_nobody_takes_is_bounded_and_one_frame_always_fits() {
        let outbox = Arc::new(Outbox::default());
        let mut body = OutboxBody(Arc::clone(&outbox));
        assert_eq!(outbox.push(&vec![0; 2 * OUTBOX_BYTES]), Push::Taken);
        assert_eq!(outbox.push(b"x"), Push::Full);
        while taken(&mut body).is_some() {}
        assert_eq!(outbox.push(b"x"), Push::Taken);
        outbox.cancel();
        let polled = body.poll(&Context::from_waker(Waker::noop()));
        assert!(
            matches!(polled, Poll::Ready(Some(Err(error))) if error.reason() == Some(h2::Reason::CANCEL))
        );
        drop(body);
        assert_eq!(outbox.push(b"x"), Push::Over(End::Cancelled));
    }

    #[test]
    fn a_stream_that_is_over_takes_nothing() {
        let outbox = Arc::new(Outbox::default());
        drop(OutboxBody(Arc::clone(&outbox)));
        assert_eq!(outbox.push(b"x"), Push::Over(End::Gone));
    }
}
