//! One question over HTTP/1.1, and its answer.

use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Empty;
use hyper::body::{Body as _, Incoming};
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, ACCEPT_ENCODING, CONNECTION, HOST, LOCATION, USER_AGENT};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::FetchError;
use super::target::Target;
use crate::http::body::{Broken, gather};

/// Who asks.
const AGENT: &str = concat!("msao/", env!("CARGO_PKG_VERSION"));
/// Bytes of an answer's header.
const HEADER_BYTES: usize = 64 << 10;

/// A medium's bytes, and the room that they take.
pub(super) type Fetched = (Vec<u8>, Option<OwnedSemaphorePermit>);

/// What a server says.
pub(super) enum Answer {
    /// Here it is.
    Medium(Fetched),
    /// It is there.
    Elsewhere(String),
}

/// Asks for a target over a connection of its own; takes `most` bytes, and room for them out of `room`, a permit a byte.
pub(super) async fn ask<S>(
    stream: S,
    target: &Target,
    most: usize,
    room: &Arc<Semaphore>,
) -> Result<Answer, FetchError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let request = question(target)?;
    let mut http = http1::Builder::new();
    http.max_buf_size(HEADER_BYTES);
    let shaken = http.handshake::<_, Empty<Bytes>>(TokioIo::new(stream));
    let (mut sender, connection) = shaken.await.map_err(FetchError::Broken)?;
    let answer = async move {
        let response = sender.send_request(request).await;
        taken(response.map_err(FetchError::Broken)?, most, room).await
    };
    let mut answer = pin!(answer);
    let mut connection = pin!(connection);
    tokio::select! {
        biased;
        answered = &mut answer => return answered,
        // What went wrong with it, or its last bytes, are on their way to the answer.
        _ = &mut connection => {}
    }
    answer.await
}

/// Says no more than a server has to know: neither who the client is nor where the URL was found.
fn question(target: &Target) -> Result<Request<Empty<Bytes>>, FetchError> {
    Request::get(target.path.as_str())
        .header(HOST, target.authority())
        .header(USER_AGENT, AGENT)
        .header(ACCEPT, "*/*")
        // Nothing is unpacked here.
        .header(ACCEPT_ENCODING, "identity")
        .header(CONNECTION, "close")
        .body(Empty::new())
        .map_err(|_| FetchError::Malformed)
}

async fn taken(
    response: Response<Incoming>,
    most: usize,
    room: &Arc<Semaphore>,
) -> Result<Answer, FetchError> {
    if let Some(location) = location(&response) {
        return Ok(Answer::Elsewhere(location));
    }
    if response.status() != StatusCode::OK {
        return Err(FetchError::Status(response.status().as_u16()));
    }
    let body = response.into_body();
    let expected = body.size_hint().lower();
    if expected > most as u64 {
        return Err(FetchError::TooLarge { most });
    }
    let gathered = gather(body, expected as usize, most, room).await;
    let (bytes, room) = gathered.map_err(|broken| match broken {
        Broken::TooLarge => FetchError::TooLarge { most },
        Broken::NoRoom => FetchError::NoRoom,
        Broken::Off(error) => FetchError::Broken(error),
    })?;
    if bytes.is_empty() {
        return Err(FetchError::Empty);
    }
    Ok(Answer::Medium((Vec::from(bytes), room)))
}

/// Where a redirect leads.
fn location(response: &Response<Incoming>) -> Option<String> {
    let is_redirect = matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308);
    let location = response.headers().get(LOCATION).filter(|_| is_redirect)?;
    String::from_utf8(location.as_bytes().to_vec()).ok()
}
