//! A connection's bytes, with a handle that can end it and that remembers why it ended.
//!
//! HTTP/2's own errors lose their causes on the way, and hyper lets a connection go on as long as a stream of it does.
//! So the first failure is noted where it happens, and whoever declares a peer gone ends the connection here, below
//! HTTP/2: all of its streams then fail at once, on this side.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::net::Io;
use crate::{explain, lock};

const CLOSED: &str = "the peer has closed the connection";

/// What is kept of a connection's beginning, to tell who called.
const FIRST: usize = 8;

pub(crate) struct Wire {
    inner: Box<dyn Io>,
    state: Arc<State>,
}

struct State {
    inner: Mutex<Inner>,
    /// How it ended. Nothing as long as it has not.
    ended: watch::Sender<Option<Ended>>,
    server: bool,
    /// Whether the bytes seen here are the connection's own, not what TLS made of them.
    plain: bool,
}

/// How a connection ended.
#[derive(Clone, Debug)]
pub(crate) struct Ended {
    pub(crate) why: Arc<str>,
    /// The other side takes nothing new, and what is under way goes on to its end.
    pub(crate) orderly: bool,
}

struct Inner {
    killed: bool,
    waker: Option<Waker>,
    first: Vec<u8>,
    read_at: Instant,
}

/// Ends a connection, and says why it ended. Clones are the same connection.
#[derive(Clone)]
pub(crate) struct WireHandle(Arc<State>);

impl Wire {
    pub(crate) fn new(inner: Box<dyn Io>, server: bool, plain: bool) -> (Wire, WireHandle) {
        let state = Arc::new(State {
            inner: Mutex::new(Inner {
                killed: false,
                waker: None,
                first: Vec::with_capacity(FIRST),
                read_at: Instant::now(),
            }),
            ended: watch::Sender::new(None),
            server,
            plain,
        });
        let handle = WireHandle(Arc::clone(&state));
        (Wire { inner, state }, handle)
    }

    /// Fails if the connection was ended; otherwise notes whom to wake when it is.
    fn alive(&self, cx: &Context) -> io::Result<()> {
        let mut inner = lock(&self.state.inner);
        if inner.killed {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        match &mut inner.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            None => inner.waker = Some(cx.waker().clone()),
        }
        Ok(())
    }

    fn noted<T>(&self, result: io::Result<T>) -> io::Result<T> {
        if let Err(error) = &result {
            self.state.end(explain::words(error), false);
        }
        result
    }
}

impl State {
    fn end(&self, why: String, orderly: bool) {
        self.ended.send_if_modified(|ended| {
            let first = ended.is_none();
            if first {
                let why = why.into();
                *ended = Some(Ended { why, orderly });
            }
            first
        });
    }
}

impl WireHandle {
    /// Ends the connection, if it has not ended.
    pub(crate) fn kill(&self, why: impl Into<String>) {
        self.0.end(why.into(), false);
        let waker = {
            let mut inner = lock(&self.0.inner);
            inner.killed = true;
            inner.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// HTTP/2 has come to an end: in good order, or with an error.
    pub(crate) fn ended(&self, error: Option<String>) {
        let orderly = error.is_none();
        self.0.end(error.unwrap_or_else(|| CLOSED.into()), orderly);
    }

    /// Why it has ended, if it has.
    pub(crate) fn why(&self) -> Option<String> {
        let ended = self.0.ended.borrow().clone()?;
        // What a stranger's first bytes were says more than how HTTP/2 failed on them.
        let said = self.suspicion().map(str::to_owned);
        Some(said.unwrap_or_else(|| ended.why.to_string()))
    }

    /// Waits until it has ended.
    pub(crate) async fn closed(&self) -> Ended {
        let mut ended = self.0.ended.subscribe();
        // The sender lives as long as this handle.
        let _ = ended.wait_for(Option::is_some).await;
        let orderly = ended.borrow().as_ref().is_some_and(|ended| ended.orderly);
        let why = self.why().unwrap_or_default().into();
        Ended { why, orderly }
    }

    /// When bytes came last.
    pub(crate) fn read_at(&self) -> Instant {
        lock(&self.0.inner).read_at
    }

    fn suspicion(&self) -> Option<&'static str> {
        let inner = lock(&self.0.inner);
        // Of a connection that this node ended, the reason is known.
        if !self.0.plain || inner.killed {
            return None;
        }
        explain::first_bytes(&inner.first, self.0.server)
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context,
        buf: &mut ReadBuf,
    ) -> Poll<io::Result<()>> {
        self.alive(cx)?;
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.inner).poll_read(cx, buf);
        let Poll::Ready(result) = polled else {
            return Poll::Pending;
        };
        if result.is_ok() {
            let bytes = buf.filled().get(before..).unwrap_or_default();
            if bytes.is_empty() && buf.remaining() > 0 {
                self.state.end(CLOSED.into(), false);
            } else {
                let mut inner = lock(&self.state.inner);
                inner.read_at = Instant::now();
                let room = FIRST.saturating_sub(inner.first.len());
                inner.first.extend(bytes.iter().take(room));
            }
        }
        Poll::Ready(self.noted(result))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.alive(cx)?;
        let polled = Pin::new(&mut self.inner).poll_write(cx, bytes);
        polled.map(|result| self.noted(result))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context,
        slices: &[IoSlice],
    ) -> Poll<io::Result<usize>> {
        self.alive(cx)?;
        let polled = Pin::new(&mut self.inner).poll_write_vectored(cx, slices);
        polled.map(|result| self.noted(result))
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context) -> Poll<io::Result<()>> {
        self.alive(cx)?;
        let polled = Pin::new(&mut self.inner).poll_flush(cx);
        polled.map(|result| self.noted(result))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test]
    async fn a_connection_that_is_ended_fails_at_once_and_says_why() {
        let (here, _there) = duplex(16);
        let (mut wire, handle) = Wire::new(Box::new(here), false, true);
        let reader = tokio::spawn(async move { wire.read_u8().await });
        tokio::task::yield_now().await;
        assert_eq!(handle.why(), None);
        handle.kill("enough");
        assert!(reader.await.unwrap().is_err());
        handle.kill("something else");
        let ended = handle.closed().await;
        assert_eq!((&*ended.why, ended.orderly), ("enough", false));
    }

    #[tokio::test]
    async fn whoever_calls_without_http2_is_named() {
        let (here, mut there) = duplex(64);
        let (mut wire, handle) = Wire::new(Box::new(here), true, true);
        there.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
        wire.read_u8().await.unwrap();
        wire.read_u8().await.unwrap();
        wire.read_u8().await.unwrap();
        handle.ended(Some("protocol error".into()));
        assert!(handle.why().unwrap().contains("HTTP/1 client"));
    }
}
