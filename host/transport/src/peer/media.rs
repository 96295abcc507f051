//! Media by digest: sent once. A large one that may have come from another node is asked for first.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use hyper::header::CONTENT_LENGTH;
use hyper::{Method, StatusCode};
use msao_core::digest::Digest;
use msao_link::estimate::Transfer;
use tokio::sync::OnceCell;
use tokio::time::timeout;

use super::line::Line;
use super::{Inner, Peer, answer, probe};
use crate::body::{Counted, Payload};
use crate::error::TransportError;
use crate::limits::{ANSWER_WITHIN, ASKED_FROM, STUCK};
use crate::{lock, routes};

/// What it took to get a medium to a peer.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Uploaded {
    /// Bytes of it that went over the link for this caller: none where the peer had it, or where another caller sent it
    /// at the same time.
    pub sent_bytes: u64,
    /// How long it took to ask the peer whether it has it, ms; 0 where nobody asked.
    pub asked_ms: f64,
    /// How long it took to send, the peer's answer included, ms.
    pub sent_ms: f64,
}

impl Peer {
    /// Sees to it that the peer has a medium. What it was seen to have is taken to be there until [`Peer::forget`]. Callers
    /// with the same digest share one upload; where the one that sends is dropped, another begins anew.
    ///
    /// # Errors
    /// The peer is down or goes down meanwhile, has no room, or finds another digest.
    pub async fn media(&self, digest: Digest, bytes: Bytes) -> Result<Uploaded, TransportError> {
        self.media_counted(digest, bytes, &Arc::default()).await
    }

    /// The same. What goes over for this caller is added to `sent` as it goes, in bytes: an upload that fails, or is dropped on
    /// the way, has been counted as far as it came.
    ///
    /// # Errors
    /// Those of [`Peer::media`].
    pub async fn media_counted(
        &self,
        digest: Digest,
        bytes: Bytes,
        sent: &Arc<AtomicU64>,
    ) -> Result<Uploaded, TransportError> {
        let inner = &self.inner;
        let flight = inner.flight(digest);
        let mut mine = Uploaded::default();
        let flown = flight
            .get_or_try_init(|| async {
                mine = inner.bring(digest, bytes, sent).await?;
                Ok(())
            })
            .await
            .map(|()| mine);
        inner.landed(digest, &flight);
        flown
    }

    /// The size of a medium in bytes, if the peer was seen to have it. It may have forgotten it since.
    pub fn has(&self, digest: Digest) -> Option<u64> {
        lock(&self.inner.known).has(digest)
    }

    /// Bytes of these media that the peer was seen to have: `cached_bytes` of its row.
    pub fn cached_bytes(&self, media: impl IntoIterator<Item = Digest>) -> f64 {
        let known = lock(&self.inner.known);
        let bytes: u64 = media
            .into_iter()
            .filter_map(|digest| known.has(digest))
            .sum();
        bytes as f64
    }

    /// The peer has said that it does not have a medium: the next caller sends it again.
    pub fn forget(&self, digest: Digest) {
        lock(&self.inner.known).forget(digest);
    }
}

impl Inner {
    fn flight(&self, digest: Digest) -> Arc<OnceCell<()>> {
        let mut flights = lock(&self.flights);
        if let Some(flight) = flights.get(&digest).and_then(|flight| flight.upgrade()) {
            return flight;
        }
        let flight = Arc::new(OnceCell::new());
        // Those of callers that were dropped go here.
        flights.retain(|_, flight| flight.strong_count() > 0);
        flights.insert(digest, Arc::downgrade(&flight));
        flight
    }

    /// Later callers look anew: what the peer was seen to have may have been forgotten since.
    fn landed(&self, digest: Digest, flight: &Arc<OnceCell<()>>) {
        let mut flights = lock(&self.flights);
        let same = flights
            .get(&digest)
            .is_some_and(|other| std::ptr::eq(other.as_ptr(), Arc::as_ptr(flight)));
        if same && (flight.initialized() || Arc::strong_count(flight) == 1) {
            flights.remove(&digest);
        }
    }

    async fn bring(
        &self,
        digest: Digest,
        bytes: Bytes,
        all: &Arc<AtomicU64>,
    ) -> Result<Uploaded, TransportError> {
        if lock(&self.known).has(digest).is_some() {
            return Ok(Uploaded::default());
        }
        let line = self.bulk_line().await?;
        let path = format!("{}{digest}", routes::MEDIA);
        let begun_ms = self.estimates.now_ms();
        let size = bytes.len() as u64;
        let mut asked_ms = 0.0;
        if size >= ASKED_FROM {
            let there = self.ask(&line, &path).await?;
            asked_ms = self.estimates.now_ms() - begun_ms;
            if there {
                lock(&self.known).learn(digest, size);
                return Ok(Uploaded {
                    asked_ms,
                    ..Uploaded::default()
                });
            }
        }
        let sent_bytes = self.send(&line, &path, digest, (bytes, all)).await?;
        lock(&self.known).learn(digest, size);
        Ok(Uploaded {
            sent_bytes,
            asked_ms,
            sent_ms: self.estimates.now_ms() - begun_ms - asked_ms,
        })
    }

    async fn bulk_line(&self) -> Result<Line, TransportError> {
        let mut lines = self.bulk.subscribe();
        let there = timeout(
            self.config.connect_within,
            lines.wait_for(|line| line.as_ref().is_some_and(|line| line.over().is_none())),
        )
        .await;
        match there {
            Ok(Ok(line)) => line.clone().ok_or_else(|| self.no_bulk()),
            _ => Err(self.no_bulk()),
        }
    }

    fn no_bulk(&self) -> TransportError {
        let status = self.status.borrow();
        if status.up || status.draining {
            return TransportError::Down {
                peer: self.config.name.clone(),
                why: "there is no connection for media".into(),
            };
        }
        status.error(&self.config.name)
    }

    /// Whether the peer has a medium.
    async fn ask(&self, line: &Line, path: &str) -> Result<bool, TransportError> {
        let asked = line.ask(Method::HEAD, path, &[], Payload::Empty);
        let late = TransportError::Timeout {
            what: "whether it has a medium",
            seconds: ANSWER_WITHIN.as_secs(),
        };
        let answer = timeout(ANSWER_WITHIN, asked).await.map_err(|_| late)??;
        if answer.status() == StatusCode::NOT_FOUND {
            return Ok(false);
        }
        let answer = answer::checked(answer, routes::MEDIA).await?;
        Ok(answer.headers().contains_key(CONTENT_LENGTH))
    }

    /// Sends a medium; the bytes of it that went.
    async fn send(
        &self,
        line: &Line,
        path: &str,
        digest: Digest,
        (bytes, all): (Bytes, &Arc<AtomicU64>),
    ) -> Result<u64, TransportError> {
        let (body, sent) = Counted::new(bytes);
        let body = Payload::Bytes(body.beside(all));
        let asked = line.ask(Method::PUT, path, &[], body);
        let mut asked = pin!(asked);
        let mut before = 0;
        let answer = loop {
            if let Ok(answer) = timeout(STUCK, asked.as_mut()).await {
                break answer?;
            }
            let now = sent.load(Ordering::Relaxed);
            if now == before {
                return Err(TransportError::Timeout {
                    what: "an upload that does not move",
                    seconds: STUCK.as_secs(),
                });
            }
            before = now;
        };
        let refusal = routes::text(answer.headers(), routes::ERROR);
        if refusal == Some(routes::refusal::DIGEST) {
            return Err(TransportError::WrongDigest(digest));
        }
        let answer = answer::checked(answer, routes::MEDIA).await?;
        if let Some((bytes, ms)) = probe::reported(answer.headers()) {
            self.estimates.uplink(Transfer {
                bytes,
                start_ms: 0.0,
                end_ms: ms,
                acknowledged: false,
            });
        }
        Ok(sent.load(Ordering::Relaxed))
    }
}
