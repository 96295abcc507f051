//! The stream that a client or a server sees.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::End;
use super::lane::Taken;
use super::shared::Member;

/// A stream over a [`super::Link`].
///
/// Reads and writes fail with `ConnectionReset` after a cut. Writes fail with `BrokenPipe` after a shutdown of one's own
/// or once the other end is gone, as on a socket. Dropping it closes it: what was written is still delivered.
pub struct ShapedStream {
    member: Arc<Member>,
    end: End,
}

impl ShapedStream {
    pub(super) fn new(member: Arc<Member>, end: End) -> ShapedStream {
        ShapedStream { member, end }
    }
}

impl fmt::Debug for ShapedStream {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.debug_struct("ShapedStream")
            .field("connection", &self.member.number)
            .field("end", &self.end)
            .finish()
    }
}

/// Notes who is to be woken.
pub(super) fn register(slot: &mut Option<Waker>, cx: &Context) {
    match slot {
        Some(waker) => waker.clone_from(cx.waker()),
        None => *slot = Some(cx.waker().clone()),
    }
}

impl AsyncRead for ShapedStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context,
        buf: &mut ReadBuf,
    ) -> Poll<io::Result<()>> {
        let (direction, number) = (self.end.reads(), self.member.number);
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        self.member.shared.with(|state, now| {
            let pipe = state.pipe(direction);
            if let Some(failure) = pipe.lane(number).and_then(|lane| lane.failure()) {
                return Poll::Ready(Err(failure.into()));
            }
            let taken = pipe.take(now, number, buf.remaining(), |piece| buf.put_slice(piece));
            match (taken, pipe.lane(number)) {
                (Taken::Nothing, Some(lane)) => {
                    register(&mut lane.reader, cx);
                    Poll::Pending
                }
                (Taken::Bytes(_) | Taken::End | Taken::Nothing, _) => Poll::Ready(Ok(())),
            }
        })
    }
}

impl AsyncWrite for ShapedStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let (direction, number) = (self.end.writes(), self.member.number);
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        self.member.shared.with(|state, now| {
            let pipe = state.pipe(direction);
            match pipe.lane(number) {
                Some(lane) if lane.failure().is_none() && !lane.is_closed() => {}
                lane => {
                    let failure = lane.and_then(|lane| lane.failure());
                    return Poll::Ready(Err(failure.unwrap_or(io::ErrorKind::BrokenPipe).into()));
                }
            }
            match (pipe.push(now, number, bytes), pipe.lane(number)) {
                (0, Some(lane)) => {
                    register(&mut lane.writer, cx);
                    Poll::Pending
                }
                (accepted, _) => Poll::Ready(Ok(accepted)),
            }
        })
    }

    /// What was written goes its way without it.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Sends the end of the stream after what was written; does not wait until it has arrived.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context) -> Poll<io::Result<()>> {
        let (direction, number) = (self.end.writes(), self.member.number);
        self.member.shared.with(|state, now| {
            let pipe = state.pipe(direction);
            match pipe.lane(number).and_then(|lane| lane.failure()) {
                // The other end being gone is what a shutdown wants.
                Some(failure) if failure != io::ErrorKind::BrokenPipe => {
                    Poll::Ready(Err(failure.into()))
                }
                Some(_) => Poll::Ready(Ok(())),
                None => {
                    pipe.close(now, number);
                    Poll::Ready(Ok(()))
                }
            }
        })
    }
}

impl Drop for ShapedStream {
    fn drop(&mut self) {
        let (reads, writes) = (self.end.reads(), self.end.writes());
        let number = self.member.number;
        self.member.shared.with(|state, now| {
            state.pipe(writes).close(now, number);
            state.pipe(reads).abandon(number);
        });
    }
}
