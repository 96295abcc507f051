//! Bodies: whole ones in, whole and streamed ones out.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Body, Frame, Incoming};
use msao_api::ApiError;
use tokio::sync::mpsc;

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

/// Reads a body.
///
/// # Errors
/// 413 past `most` bytes, 408 past `within`, 400 where it breaks off.
pub async fn read(body: Incoming, most: usize, within: Duration) -> Result<Bytes, ApiError> {
    let too_large = || {
        ApiError::too_large(
            None,
            format!("The body has more than the {most} bytes that this node takes (api.body-mib)."),
        )
    };
    if body.size_hint().lower() > most as u64 {
        return Err(too_large());
    }
    let read = Limited::new(body, most).collect();
    match tokio::time::timeout(within, read).await {
        Err(_) => Err(ApiError::slow_body(within.as_millis() as u64)),
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(error)) => {
            let why = format!("The body breaks off: {error}.");
            Err(ApiError::invalid("invalid_body", None, why))
        }
    }
}
