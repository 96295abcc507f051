//! Moves bytes between a wrapped stream and its lanes, in a task of its own, so that they go their way whether or not
//! anybody polls the stream above.

use std::future::poll_fn;
use std::io;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use super::End;
use super::lane::Taken;
use super::shared::Member;
use super::stream::register;

/// Bytes that a pump moves at a time, each way.
const BUFFER: usize = 64 << 10;
/// How long what was written may take to go out once nobody holds the stream any more; an operating system gives its
/// orphaned sockets about as long.
const LINGER: Duration = Duration::from_secs(60);
/// Moves in a row before others get a turn.
const MOVES: usize = 64;

/// Why a pump ends early: the connection was cut, or the stream below failed.
enum Stop {
    Cut,
    Failed(io::ErrorKind),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Stop {
        Stop::Failed(error.kind())
    }
}

/// Bytes that wait for the stream below, or for room in a lane.
#[derive(Default)]
struct Buffer {
    bytes: Vec<u8>,
    done: usize,
}

impl Buffer {
    fn rest(&self) -> &[u8] {
        self.bytes.get(self.done..).unwrap_or_default()
    }

    fn advance(&mut self, bytes: usize) {
        self.done += bytes;
        if self.rest().is_empty() {
            self.bytes.clear();
            self.done = 0;
        }
    }
}

struct Pump<S> {
    below: S,
    member: Arc<Member>,
    end: End,
    out: Buffer,
    back: Buffer,
    /// Where the stream below is read into.
    scratch: Vec<u8>,
    flushed: bool,
    out_done: bool,
    back_done: bool,
    linger: Option<Pin<Box<Sleep>>>,
}

/// Runs until both directions have ended, the connection is cut, or the stream below fails. After a cut `cut` prepares
/// the stream for being dropped.
pub(super) async fn run<S>(below: S, member: Arc<Member>, end: End, cut: fn(&mut S))
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut pump = Pump {
        below,
        member,
        end,
        out: Buffer::default(),
        back: Buffer::default(),
        scratch: vec![0; BUFFER],
        flushed: true,
        out_done: false,
        back_done: false,
        linger: None,
    };
    let stop = poll_fn(|cx| pump.poll(cx)).await;
    let (reads, writes, number) = (end.reads(), end.writes(), pump.member.number);
    match stop {
        Err(Stop::Cut) => cut(&mut pump.below),
        // Lanes that a cut has failed keep their reset.
        Err(Stop::Failed(kind)) => pump.member.shared.with(|state, _| {
            state.pipe(reads).fail(number, kind);
            state.pipe(writes).fail(number, kind);
        }),
        // What has come can still be read, what is written goes nowhere.
        Ok(()) => pump.member.shared.with(|state, _| {
            state.pipe(writes).fail(number, io::ErrorKind::BrokenPipe);
        }),
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Pump<S> {
    fn poll(&mut self, cx: &mut Context) -> Poll<Result<(), Stop>> {
        if self.watch(cx)? {
            let linger = self.linger.get_or_insert_with(|| Box::pin(sleep(LINGER)));
            if linger.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Ok(()));
            }
        }
        if !self.out_done {
            self.out_done = self.poll_out(cx)?.is_ready();
        }
        if !self.back_done {
            self.back_done = self.poll_back(cx)?.is_ready();
        }
        if self.out_done && self.back_done {
            return Poll::Ready(Ok(()));
        }
        Poll::Pending
    }

    /// Registers for whatever the stream above or the link may do. Says whether nobody holds the stream any more.
    fn watch(&self, cx: &Context) -> Result<bool, Stop> {
        let (reads, writes, number) = (self.end.reads(), self.end.writes(), self.member.number);
        self.member.shared.with(|state, _| {
            let mut failed = false;
            if let Some(lane) = state.pipe(writes).lane(number) {
                register(&mut lane.reader, cx);
                failed |= lane.failure().is_some();
            }
            let mut abandoned = false;
            if let Some(lane) = state.pipe(reads).lane(number) {
                register(&mut lane.writer, cx);
                failed |= lane.failure().is_some();
                abandoned = lane.is_abandoned();
            }
            if failed {
                Err(Stop::Cut)
            } else {
                Ok(abandoned)
            }
        })
    }

    /// From the lane to the stream below, until the lane has ended.
    fn poll_out(&mut self, cx: &mut Context) -> Poll<Result<(), Stop>> {
        for _ in 0..MOVES {
            if self.out.rest().is_empty() {
                match self.fetch() {
                    Taken::Bytes(_) => {}
                    Taken::Nothing => {
                        if !self.flushed {
                            ready!(Pin::new(&mut self.below).poll_flush(cx))?;
                            self.flushed = true;
                        }
                        return Poll::Pending;
                    }
                    Taken::End => {
                        ready!(Pin::new(&mut self.below).poll_shutdown(cx))?;
                        return Poll::Ready(Ok(()));
                    }
                }
            }
            let written = ready!(Pin::new(&mut self.below).poll_write(cx, self.out.rest()))?;
            if written == 0 {
                return Poll::Ready(Err(Stop::Failed(io::ErrorKind::WriteZero)));
            }
            self.flushed = false;
            self.out.advance(written);
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn fetch(&mut self) -> Taken {
        let (writes, number) = (self.end.writes(), self.member.number);
        let bytes = &mut self.out.bytes;
        self.member.shared.with(|state, now| {
            (state.pipe(writes)).take(now, number, BUFFER, |piece| bytes.extend_from_slice(piece))
        })
    }

    /// From the stream below to the lane, until the stream ends or nobody reads the lane.
    fn poll_back(&mut self, cx: &mut Context) -> Poll<Result<(), Stop>> {
        for _ in 0..MOVES {
            if self.back.rest().is_empty() && ready!(self.read(cx))?.is_break() {
                return Poll::Ready(Ok(()));
            }
            let (reads, number) = (self.end.reads(), self.member.number);
            let rest = self.back.rest();
            let accepted =
                (self.member.shared).with(|state, now| state.pipe(reads).push(now, number, rest));
            if accepted == 0 {
                return Poll::Pending;
            }
            self.back.advance(accepted);
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Reads what the lane has room for.
    fn read(&mut self, cx: &mut Context) -> Poll<Result<ControlFlow<()>, Stop>> {
        let (reads, number) = (self.end.reads(), self.member.number);
        let room = self.member.shared.with(|state, _| {
            let pipe = state.pipe(reads);
            let open = pipe.lane(number).is_some_and(|lane| !lane.is_abandoned());
            open.then(|| pipe.room(number))
        });
        let room = match room {
            None => return Poll::Ready(Ok(ControlFlow::Break(()))),
            Some(0) => return Poll::Pending,
            Some(room) => room.min(BUFFER),
        };
        let mut buf = ReadBuf::new(self.scratch.get_mut(..room).unwrap_or_default());
        ready!(Pin::new(&mut self.below).poll_read(cx, &mut buf))?;
        if buf.filled().is_empty() {
            (self.member.shared).with(|state, now| state.pipe(reads).close(now, number));
            return Poll::Ready(Ok(ControlFlow::Break(())));
        }
        self.back.bytes.extend_from_slice(buf.filled());
        Poll::Ready(Ok(ControlFlow::Continue(())))
    }
}
