//! Bodies: whole ones in, whole and streamed ones out.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::header::EXPECT;
use hyper::{Request, Version};
use msao_api::ApiError;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

/// A body that is sent.
pub type Outgoing = UnsyncBoxBody<Bytes, Infallible>;

/// A text as a body.
pub fn whole(text: impl Into<Bytes>) -> Outgoing {
    Full::new(text.into()).boxed_unsync()
}

/// A body that comes piece by piece; dropped by hyper when the client leaves.
pub struct Streamed {
    pieces: mpsc::Receiver<Bytes>,
}

impl Streamed {
    /// What is sent to `pieces`, until its senders are gone.
    pub fn body(pieces: mpsc::Receiver<Bytes>) -> Outgoing {
        Streamed { pieces }.boxed_unsync()
    }
}

impl Body for Streamed {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let next = self.pieces.poll_recv(context);
        next.map(|piece| piece.map(|piece| Ok(Frame::data(piece))))
    }
}

/// Bytes of a body nobody wants that are still taken.
const LINGER_BYTES: usize = 64 << 20;
/// For so long they are.
const LINGER: Duration = Duration::from_secs(5);

/// A request's body.
///
/// Over HTTP/1.1 what was not read of it is taken and thrown away, within bounds: closing a connection with unread bytes
/// resets it, and a client that is still sending would see that instead of the answer that refuses it.
pub struct Arriving {
    /// `None` once dropped.
    body: Option<Incoming>,
    lingers: bool,
    /// The client sends nothing until the body is asked for.
    waits: bool,
}

impl Arriving {
    /// The body of a request, which says how it comes.
    pub fn of(request: Request<Incoming>) -> Request<Arriving> {
        let lingers = request.version() <= Version::HTTP_11;
        let waits = request.headers().contains_key(EXPECT);
        request.map(|body| Arriving {
            body: Some(body),
            lingers,
            waits,
        })
    }
}

impl Body for Arriving {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        self.waits = false;
        match &mut self.body {
            Some(body) => Pin::new(body).poll_frame(context),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map(Body::size_hint).unwrap_or_default()
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        let Some(body) = self.body.take() else { return };
        if !self.lingers || self.waits || body.is_end_stream() {
            return;
        }
        // Without a runtime its connection is gone too.
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(tokio::time::timeout(LINGER, throw_away(body)));
        }
    }
}

async fn throw_away(mut body: Incoming) {
    let mut taken = 0;
    while let Some(Ok(frame)) = body.frame().await {
        taken += frame.data_ref().map_or(0, Bytes::len);
        if taken > LINGER_BYTES {
            return;
        }
    }
}

/// Why a body was not read.
#[derive(Debug)]
pub enum Unread {
    /// What the client is told.
    Refused(ApiError),
    /// Bodies of other requests take all the room.
    NoRoom,
}

impl From<ApiError> for Unread {
    fn from(refused: ApiError) -> Unread {
        Unread::Refused(refused)
    }
}

/// Reads a body.
///
/// # Errors
/// 413 past `most` bytes, 408 past `within`, 400 where it breaks off.
pub async fn read(body: Arriving, most: usize, within: Duration) -> Result<Bytes, ApiError> {
    let room = Arc::new(Semaphore::new(most));
    match read_into(body, most, within, &room).await {
        Ok((body, _)) => Ok(body),
        Err(Unread::Refused(error)) => Err(error),
        // There is room for what it may have.
        Err(Unread::NoRoom) => Err(ApiError::internal()),
    }
}

/// Reads a body, and takes room for it out of `room`, a permit a byte, as it comes.
///
/// # Errors
/// As [`read`], or there is no room.
pub async fn read_into(
    body: Arriving,
    most: usize,
    within: Duration,
    room: &Arc<Semaphore>,
) -> Result<(Bytes, Option<OwnedSemaphorePermit>), Unread> {
    let too_large = || {
        ApiError::too_large(
            None,
            format!("The body has more than the {most} bytes that this node takes (api.body-mib)."),
        )
    };
    if body.size_hint().lower() > most as u64 {
        return Err(too_large().into());
    }
    let expected = body.size_hint().lower() as usize;
    let gathered = gather(body, expected, most, room);
    match tokio::time::timeout(within, gathered).await {
        Err(_) => Err(ApiError::slow_body(within.as_millis() as u64).into()),
        Ok(Ok(read)) => Ok(read),
        Ok(Err(Broken::TooLarge)) => Err(too_large().into()),
        Ok(Err(Broken::NoRoom)) => Err(Unread::NoRoom),
        Ok(Err(Broken::Off(error))) => {
            let why = format!("The body breaks off: {error}.");
            Err(ApiError::invalid("invalid_body", None, why).into())
        }
    }
}

/// Why a body was not gathered.
pub(crate) enum Broken {
    /// It has more bytes than it may have.
    TooLarge,
    /// Others take all the room.
    NoRoom,
    /// It ends before its end.
    Off(hyper::Error),
}

/// A body that says how long it is gets its memory at once only up to this: whoever says it need not send it.
const BELIEVED: usize = 1 << 20;

/// Gathers a body of `most` bytes at most, `expected` if it keeps its word, and takes room for it out of `room`, a permit a
/// byte, as it comes.
pub(crate) async fn gather<B>(
    mut body: B,
    expected: usize,
    most: usize,
    room: &Arc<Semaphore>,
) -> Result<(Bytes, Option<OwnedSemaphorePermit>), Broken>
where
    B: Body<Data = Bytes, Error = hyper::Error> + Unpin,
{
    let mut bytes = BytesMut::with_capacity(expected.min(BELIEVED));
    let mut taken: Option<OwnedSemaphorePermit> = None;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(Broken::Off)?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        if bytes.len() + data.len() > most {
            return Err(Broken::TooLarge);
        }
        // A body is far below what 32 bits hold, and so is a part of it.
        let more = Arc::clone(room).try_acquire_many_owned(data.len() as u32);
        let more = more.map_err(|_| Broken::NoRoom)?;
        match &mut taken {
            Some(taken) => taken.merge(more),
            None => taken = Some(more),
        }
        bytes.extend_from_slice(&data);
    }
    Ok((bytes.freeze(), taken))
}
