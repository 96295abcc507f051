//! The stream that tells a peer that this node is there, and this node that the peer is.

use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::HeaderValue;
use hyper::{Request, Response};
use msao_session::frame::{Frame, Heartbeat, Hello, Refused, RefusedCode, SessionId};
use tokio::time::{Instant, sleep_until, timeout};

use super::connection::{Connection, UnderWay};
use super::{PeerInfo, Phase};
use crate::body::Payload;
use crate::error::TransportError;
use crate::figures::to_heartbeat;
use crate::routes;
use crate::stream::{Negotiation, Stream};

/// Beats that a peer may leave out before it is gone.
const BEATS: u32 = 4;
/// However slowly a peer says that it beats, it is waited for no longer.
const MOST_BEAT: Duration = Duration::from_secs(60);
/// A peer finishes its side of the stream within, after this side has.
const PARTING: Duration = Duration::from_secs(1);

/// Answers at once; the stream goes on in a task of its own.
pub(super) fn answer(
    connection: &Arc<Connection>,
    request: Request<Incoming>,
) -> Response<Payload> {
    let headers = request.headers();
    let name = routes::name(headers).unwrap_or_else(|| connection.address.to_string());
    let beat = routes::number(headers, routes::HEARTBEAT_MS).map_or(Duration::ZERO, |ms: u32| {
        Duration::from_millis(ms.into()).min(MOST_BEAT)
    });
    let server = &connection.server;
    let ours = server.handler.hello();
    let under_way: Box<dyn Send + Sync> = Box::new(UnderWay::begin(connection));
    let (stream, mut answer) = connection.stream(
        request.into_body(),
        Negotiation::by_hello(ours.clone()),
        Some(under_way),
    );
    if let Ok(instance) = HeaderValue::from_str(&server.instance) {
        answer.headers_mut().insert(routes::INSTANCE, instance);
    }
    let pulse = Pulse {
        connection: Arc::clone(connection),
        name,
        patience: server.config.gone_after.max(beat * BEATS),
    };
    tokio::spawn(pulse.run(stream, ours));
    answer
}

struct Pulse {
    connection: Arc<Connection>,
    name: String,
    patience: Duration,
}

impl Pulse {
    async fn run(self, mut stream: Stream, ours: Hello) {
        if let Err(error) = self.beat(&mut stream, ours).await {
            return self.connection.wire.kill(error.to_string());
        }
        // A good end: the peer has finished, or this node closes. What was sent last is to arrive.
        stream.finish();
        let rest = async { while let Some(Ok(_)) = stream.recv().await {} };
        // A peer that does not finish its side is left all the same.
        let _ = timeout(PARTING, rest).await;
    }

    async fn beat(&self, stream: &mut Stream, ours: Hello) -> Result<(), TransportError> {
        stream.send(&Frame::Hello(ours.clone())).await?;
        let theirs = match self.next(stream).await? {
            Some(Frame::Hello(theirs)) => theirs,
            Some(other) => return Err(odd(&other)),
            None => return Ok(()),
        };
        // Seen from the edge, which the peer is.
        let agreement = match theirs.agree(&ours) {
            Ok(agreement) => agreement,
            Err(refused) => {
                // It has our HELLO and finds the same.
                self.connection
                    .server
                    .complain(self.connection.address, &refused.to_string());
                return Ok(());
            }
        };
        tracing::info!(peer = %self.name, address = %self.connection.address, software = %theirs.software, "a node has connected");
        self.connection.peer.send_replace(Some(PeerInfo {
            name: self.name.clone(),
            address: self.connection.address,
            certificate: self.connection.certificate(),
            hello: theirs,
            agreement,
        }));
        self.go_on(stream, &ours).await
    }

    async fn go_on(&self, stream: &mut Stream, ours: &Hello) -> Result<(), TransportError> {
        let mut phase = self.connection.server.phase.subscribe();
        let mut told = Phase::Serving;
        loop {
            let changes = async {
                let changed = phase.wait_for(|phase| *phase != told).await;
                changed.map_or(Phase::Closing, |phase| *phase)
            };
            let frame = tokio::select! {
                frame = self.next(stream) => frame?,
                now = changes => {
                    match (told, now) {
                        // The same HELLO as at the beginning: a peer that does not know it as an answer to draining
                        // connects anew, and so finds out as well.
                        (_, Phase::Serving) => stream.send(&Frame::Hello(ours.clone())).await?,
                        (Phase::Serving, _) => stream.send(&draining()).await?,
                        _ => {}
                    }
                    if now == Phase::Closing {
                        return Ok(());
                    }
                    told = now;
                    continue;
                }
            };
            match frame {
                Some(Frame::Heartbeat(theirs)) => {
                    let received_ms = self.connection.server.clock.now_ms();
                    let figures = self.connection.server.handler.figures();
                    let sent_ms = self.connection.server.clock.now_ms();
                    let ours = Heartbeat {
                        sent_ms,
                        echo_ms: Some(theirs.sent_ms),
                        held_ms: (sent_ms - received_ms).max(0.0),
                        ..to_heartbeat(figures)
                    };
                    stream.send(&Frame::Heartbeat(ours)).await?;
                }
                Some(other) => return Err(odd(&other)),
                None => return Ok(()),
            }
        }
    }

    /// The next frame, as long as anything comes from the peer on this connection.
    async fn next(&self, stream: &mut Stream) -> Result<Option<Frame>, TransportError> {
        let begun = Instant::now();
        loop {
            let until = self.connection.wire.read_at().max(begun) + self.patience;
            tokio::select! {
                frame = stream.recv() => return frame.transpose(),
                () = sleep_until(until) => {
                    let until = self.connection.wire.read_at().max(begun) + self.patience;
                    if until <= Instant::now() {
                        let ms = self.patience.as_millis();
                        return Err(TransportError::Lost(format!("no heartbeat came for {ms} ms")));
                    }
                }
            }
        }
    }
}

fn odd(frame: &Frame) -> TransportError {
    TransportError::Lost(format!("a {} frame came among heartbeats", frame.kind()))
}

/// What a node that takes no new sessions says on the stream of heartbeats. It is of no session, whose number is therefore 0.
fn draining() -> Frame {
    Frame::Refused(Refused {
        session: SessionId([0; 16]),
        code: RefusedCode::Draining,
        retry_after_ms: 0.0,
        message: "the node is draining and takes no new sessions".into(),
    })
}
