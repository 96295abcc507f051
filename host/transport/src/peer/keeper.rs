//! Keeps a peer's connections, and finds out when it is gone.

use std::sync::Arc;
use std::time::Duration;

use hyper::header::HeaderValue;
use msao_session::frame::{Frame, Hello};
use msao_session::hello::Agreement;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::line::{Bound, Line};
use super::status::Status;
use super::{Inner, bulk};
use crate::error::TransportError;
use crate::figures::to_heartbeat;
use crate::limits::{BACKOFF_LEAST, BACKOFF_MOST};
use crate::routes;
use crate::stream::{Negotiation, Stream};
use crate::wire::Ended;

/// A connection that lasted for so long was of use.
const GOOD: Duration = Duration::from_secs(10);

/// Waits between tries to connect: longer each time, and different for each node, so that those that lost a peer together
/// do not come back together.
#[derive(Debug, Default)]
pub(super) struct Backoff(u32);

impl Backoff {
    fn next(&mut self) -> Duration {
        let whole = BACKOFF_LEAST
            .saturating_mul(1 << self.0.min(16))
            .min(BACKOFF_MOST);
        self.0 += 1;
        // Without random bytes the longest wait is a good one too.
        let share = getrandom::u32().map_or(1.0, |drawn| f64::from(drawn) / f64::from(u32::MAX));
        whole.mul_f64(0.5 + share / 2.0)
    }

    /// The wait after a try that lasted for so long, connection included. After one that was of use there is hardly any;
    /// a peer that accepts and falls over each time is given time.
    pub(super) fn after(&mut self, lasted: Duration) -> Duration {
        if lasted >= GOOD {
            self.0 = 0;
        }
        self.next()
    }
}

pub(super) async fn keep(inner: Arc<Inner>, mut over: watch::Receiver<()>) {
    let keeping = async {
        let mut backoff = Backoff::default();
        loop {
            let began = Instant::now();
            let why = inner.attempt().await;
            inner.down(&why);
            sleep(backoff.after(began.elapsed())).await;
        }
    };
    tokio::select! {
        // Fails when the last `Peer` is gone, which is what it is for.
        _ = over.changed() => {}
        () = keeping => {}
    }
}

impl Inner {
    fn down(&self, why: &str) {
        self.sessions.send_replace(None);
        self.bulk.send_replace(None);
        self.estimates.lost();
        let name = &self.config.name;
        self.status.send_modify(|status| {
            if status.up || status.draining {
                tracing::warn!(peer = %name, why, "peer is down");
            } else if status.why.as_deref() != Some(why) {
                tracing::info!(peer = %name, why, "peer cannot be reached");
            }
            status.went_down(why);
        });
    }

    /// One connection, from its beginning to its end; why it ended, or never was.
    async fn attempt(self: &Arc<Inner>) -> String {
        let line = match Line::connect(&self.config, &self.target).await {
            Ok(line) => line,
            Err(why) => return why,
        };
        // Whatever happens from here on, the connection ends with it.
        let bound = Bound::new(line);
        let line = &bound.line;
        let met = tokio::select! {
            met = self.meet(line) => met,
            ended = line.wire.closed() => Err(TransportError::Lost(ended.why.to_string())),
        };
        let (mut stream, hello, agreement) = match met {
            Ok(met) => met,
            Err(error) => return line.over().unwrap_or_else(|| words(error)),
        };
        self.up(line, hello, agreement);
        let ended = tokio::select! {
            end = self.beat(&mut stream) => match end {
                Ok(()) => Ended {
                    why: "the peer has closed the connection".into(),
                    orderly: true,
                },
                Err(error) => Ended {
                    why: line.over().unwrap_or_else(|| words(error)).into(),
                    orderly: false,
                },
            },
            ended = line.wire.closed() => ended,
            never = bulk::keep(self) => match never {},
        };
        let why = ended.why.to_string();
        if ended.orderly {
            stream.finish();
            bound.release();
        } else {
            // What is under way is told the reason.
            line.wire.kill(&*why);
        }
        why
    }

    /// Exchanges HELLOs.
    async fn meet(
        self: &Arc<Inner>,
        line: &Line,
    ) -> Result<(Stream, Hello, Agreement), TransportError> {
        let ours = self.local.hello();
        // Checked to fit when the peer was started.
        let beat_ms = HeaderValue::from(self.config.heartbeat.as_millis() as u64);
        let mut stream = self.stream(
            line,
            routes::HEARTBEAT,
            &[(routes::HEARTBEAT_MS, beat_ms)],
            Negotiation::by_hello(ours.clone()),
        );
        stream.send(&Frame::Hello(ours.clone())).await?;
        match stream
            .recv_within(self.config.hello_within, "HELLO")
            .await?
        {
            Some(Frame::Hello(theirs)) => match ours.agree(&theirs) {
                Ok(agreement) => Ok((stream, theirs, agreement)),
                Err(refused) => Err(TransportError::Lost(refused.to_string())),
            },
            Some(other) => Err(odd(&other)),
            None => Err(TransportError::Lost(
                "the peer ended the stream of heartbeats instead of saying HELLO".into(),
            )),
        }
    }

    fn up(&self, line: &Line, hello: Hello, agreement: Agreement) {
        tracing::info!(
            peer = %self.config.name,
            software = %hello.software,
            version = agreement.version,
            drafts = agreement.drafts,
            "peer is up"
        );
        self.estimates.connected();
        self.sessions
            .send_replace(Some((line.clone(), agreement.version)));
        self.status
            .send_modify(|status| status.went_up(Arc::new(hello), agreement));
    }

    /// Heartbeats, until the peer ends them or is gone.
    async fn beat(&self, stream: &mut Stream) -> Result<(), TransportError> {
        let mut beats = interval(self.config.heartbeat);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let silent = Duration::from_secs_f64(self.estimates.silent_ms().max(0.0) / 1000.0);
            let left = self.config.gone_after.saturating_sub(silent);
            if left.is_zero() {
                let ms = silent.as_millis();
                return Err(TransportError::Lost(format!(
                    "nothing was heard for {ms} ms"
                )));
            }
            tokio::select! {
                frame = stream.recv() => match frame.transpose()? {
                    Some(Frame::Heartbeat(theirs)) => self.estimates.heartbeat(&theirs),
                    Some(Frame::Refused(refused)) => {
                        tracing::warn!(peer = %self.config.name, message = %refused.message, "peer takes no new sessions");
                        self.status.send_modify(|status| status.drains(&refused.message));
                    }
                    Some(Frame::Hello(theirs)) => {
                        let again = |status: &mut Status| status.serves_again(&theirs);
                        if !self.status.send_if_modified(again) {
                            return Err(odd(&Frame::Hello(theirs)));
                        }
                        tracing::info!(peer = %self.config.name, "peer takes sessions again");
                    }
                    Some(other) => return Err(odd(&other)),
                    None => return Ok(()),
                },
                _ = beats.tick() => {
                    let mut ours = to_heartbeat(self.local.figures());
                    self.estimates.stamp(&mut ours);
                    match stream.try_send(&Frame::Heartbeat(ours)) {
                        // A link that stands still has enough of them to carry; that it does, silence tells.
                        Ok(()) | Err(TransportError::Full) => {}
                        Err(error) => return Err(error),
                    }
                }
                () = sleep(left) => {}
            }
        }
    }
}

/// Of a connection that ended the reason alone counts.
fn words(error: TransportError) -> String {
    match error {
        TransportError::Lost(why) => why,
        error => error.to_string(),
    }
}

fn odd(frame: &Frame) -> TransportError {
    TransportError::Lost(format!("a {} frame came among heartbeats", frame.kind()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_limit() {
        let mut backoff = Backoff::default();
        let first = backoff.next();
        assert!(first >= BACKOFF_LEAST / 2 && first <= BACKOFF_LEAST);
        let last = (0..100).map(|_| backoff.next()).last().unwrap();
        assert!(last >= BACKOFF_MOST / 2 && last <= BACKOFF_MOST);
        assert!(backoff.after(Duration::from_secs(1)) >= BACKOFF_MOST / 2);
        assert!(backoff.after(GOOD) <= BACKOFF_LEAST);
    }
}
