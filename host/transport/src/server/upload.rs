//! What peers send in bulk.

use std::sync::Arc;

use http_body_util::BodyExt;
use hyper::body::{Body, Bytes, Incoming};
use hyper::{Request, Response, StatusCode};
use msao_core::digest::Digest;
use tokio::time::{Instant, timeout};

use super::connection::{Connection, count, refuse};
use crate::body::Payload;
use crate::limits::{ASKED_FROM, MAX_PROBE_BYTES};
use crate::media_store::StoreError;
use crate::routes::{self, refusal};
use crate::stream::lost;

/// Why an upload ended early.
struct Refusal {
    status: StatusCode,
    name: &'static str,
    words: String,
}

impl Refusal {
    fn answer(self) -> Response<Payload> {
        refuse(self.status, self.name, self.words)
    }
}

/// Takes a medium in.
pub(super) async fn medium(
    connection: &Arc<Connection>,
    digest: Digest,
    request: Request<Incoming>,
) -> Response<Payload> {
    let store = &connection.server.config.media;
    if store.size(digest).is_some() {
        // Somebody has sent it before. A small one comes without a question, and is under way as a whole: breaking it off would
        // cost more than reading it does. Of a large one the rest is not needed.
        let body = request.into_body();
        let small = body
            .size_hint()
            .upper()
            .is_some_and(|most| most < ASKED_FROM);
        let read = match small {
            true => take(connection, body, |_| Ok(())).await,
            false => Ok(()),
        };
        return match read {
            Ok(()) => Response::new(Payload::Empty),
            Err(refusal) => refusal.answer(),
        };
    }
    let mut coming = store.begin(digest);
    let mut meter = Meter::from(0);
    let taken = take(connection, request.into_body(), |piece| {
        coming.add(&piece).map_err(refused)?;
        meter.saw(connection, piece.len());
        Ok(())
    })
    .await;
    match taken.and_then(|()| coming.finish().map_err(refused)) {
        Ok(()) => meter.report(StatusCode::CREATED),
        Err(refusal) => refusal.answer(),
    }
}

/// Takes bytes of no meaning, and says how fast the latter half of them came.
pub(super) async fn probe(
    connection: &Arc<Connection>,
    request: Request<Incoming>,
) -> Response<Payload> {
    let body = request.into_body();
    let announced = body.size_hint().exact().unwrap_or(0);
    let mut meter = Meter::from(announced / 2);
    let mut sum = 0;
    let taken = take(connection, body, |piece| {
        sum += piece.len() as u64;
        if sum > MAX_PROBE_BYTES {
            return Err(Refusal {
                status: StatusCode::PAYLOAD_TOO_LARGE,
                name: refusal::TOO_LARGE,
                words: format!("a probe has at most {MAX_PROBE_BYTES} bytes"),
            });
        }
        meter.saw(connection, piece.len());
        Ok(())
    })
    .await;
    match taken {
        Ok(()) => meter.report(StatusCode::OK),
        Err(refusal) => refusal.answer(),
    }
}

async fn take(
    connection: &Connection,
    mut body: Incoming,
    mut with: impl FnMut(Bytes) -> Result<(), Refusal>,
) -> Result<(), Refusal> {
    let within = connection.server.config.body_within;
    loop {
        let next = timeout(within, body.frame()).await.map_err(|_| Refusal {
            status: StatusCode::REQUEST_TIMEOUT,
            name: refusal::SLOW,
            words: format!("nothing of the body came for {} s", within.as_secs()),
        })?;
        match next {
            None => return Ok(()),
            Some(Ok(frame)) => {
                if let Ok(piece) = frame.into_data() {
                    with(piece)?;
                }
            }
            Some(Err(error)) => {
                return Err(Refusal {
                    status: StatusCode::BAD_REQUEST,
                    name: refusal::CUT,
                    words: lost(&error, &connection.wire).to_string(),
                });
            }
        }
    }
}

fn refused(error: StoreError) -> Refusal {
    let (status, name) = match error {
        StoreError::TooLarge(_) => (StatusCode::PAYLOAD_TOO_LARGE, refusal::TOO_LARGE),
        StoreError::Full(_) => (StatusCode::INSUFFICIENT_STORAGE, refusal::FULL),
        StoreError::Digest { .. } => (StatusCode::BAD_REQUEST, refusal::DIGEST),
    };
    Refusal {
        status,
        name,
        words: error.to_string(),
    }
}

/// How fast bytes come over a connection while one of its uploads is under way.
///
/// Uploads share a connection's bandwidth, so what the others bring meanwhile is counted as well. The clock is this
/// side's and begins when the first bytes are there: no round trip is in it.
struct Meter {
    /// Bytes of this upload that go by before it begins.
    skip: u64,
    seen: u64,
    begun: Option<(Instant, u64)>,
    last: Option<(Instant, u64)>,
}

impl Meter {
    fn from(skip: u64) -> Meter {
        Meter {
            skip,
            seen: 0,
            begun: None,
            last: None,
        }
    }

    fn saw(&mut self, connection: &Connection, bytes: usize) {
        let now = (Instant::now(), count(connection, bytes));
        self.seen += bytes as u64;
        if self.begun.is_none() && self.seen > self.skip {
            self.begun = Some(now);
        }
        self.last = Some(now);
    }

    fn report(&self, status: StatusCode) -> Response<Payload> {
        let mut answer = Response::new(Payload::Empty);
        *answer.status_mut() = status;
        if let (Some((begun, before)), Some((ended, after))) = (self.begun, self.last) {
            let ms = (ended - begun).as_secs_f64() * 1000.0;
            let headers = [
                (
                    routes::RECEIVED_BYTES,
                    after.saturating_sub(before).to_string(),
                ),
                (routes::RECEIVED_MS, format!("{ms:.3}")),
            ];
            for (name, value) in headers {
                if let Ok(value) = value.parse() {
                    answer.headers_mut().insert(name, value);
                }
            }
        }
        answer
    }
}
