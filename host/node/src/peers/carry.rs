//! Frames between a link and the task that takes them.

use std::time::Duration;

use msao_session::frame::{Frame, Refused, RefusedCode, SessionId};
use msao_transport::{Stream, TransportError};
use tokio::time::Instant;

use crate::answer::{Channel, Unsent};

/// After the last word of a session its stream has so long to end by itself.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// Who carries frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Whoever asks: what a peer says too fast for it is of a stream that is given up.
    Edge,
    /// Whoever has the target: it refuses, and says so.
    Cloud,
}

/// What a peer that refuses a session says: within the session, or by not taking its stream.
fn refusal(session: Option<SessionId>, error: TransportError) -> Option<Frame> {
    match (session, error) {
        (
            Some(session),
            TransportError::Refused {
                code,
                retry_after_ms,
                message,
            },
        ) => Some(Frame::Refused(Refused {
            session,
            code,
            retry_after_ms,
            message,
        })),
        _ => None,
    }
}

/// What a peer is told whose frames are not taken as fast as it sends them.
fn overrun(session: SessionId) -> Frame {
    Frame::Refused(Refused {
        session,
        code: RefusedCode::Overloaded,
        retry_after_ms: 0.0,
        message: "more frames have come than the session has taken".to_owned(),
    })
}

/// Carries frames between a stream and a channel until both are through. What a peer sends faster than it is taken ends the
/// session's stream: what is held for it is bounded by the channel, and before that by the stream.
pub fn carry(stream: Stream, side: Side) -> Channel {
    let (own, other) = Channel::pair();
    tokio::spawn(async move {
        let (to, mut from) = other.split();
        let mut to = Some(to);
        let (sender, mut receiver) = stream.split();
        let mut ends: Option<Instant> = None;
        let mut session = None;
        loop {
            tokio::select! {
                frame = from.recv(), if ends.is_none() => match frame {
                    Some(frame) => {
                        session = session.or(frame.session());
                        if let Err(error) = sender.send(&frame).await {
                            tracing::debug!(%error, "a session's stream takes nothing more");
                            // The other side may have said why.
                            ends = Some(Instant::now() + LAST_WORDS);
                        }
                    }
                    // Nothing more will be said: the other side hears the end of it, and ends as well.
                    None => {
                        sender.finish();
                        ends = Some(Instant::now() + LAST_WORDS);
                    }
                },
                frame = receiver.recv() => match frame {
                    Some(Ok(frame)) => {
                        session = session.or(frame.session());
                        // Whoever does not listen any more has what it needs.
                        let sent = to.as_ref().map(|to| to.send(frame));
                        if sent != Some(Err(Unsent::Full)) {
                            continue;
                        }
                        tracing::warn!("a session's frames come faster than they are taken: its stream is given up");
                        // Who takes them hears that the way is lost, behind what has come.
                        to = None;
                        let Some(session) = session.filter(|_| side == Side::Cloud) else {
                            break;
                        };
                        // Where there is no room for a word the end alone says it.
                        let _full = sender.try_send(&overrun(session));
                        sender.finish();
                        ends = Some(Instant::now() + LAST_WORDS);
                    }
                    Some(Err(error)) => {
                        tracing::debug!(%error, "a session's stream is lost");
                        if let (Some(refused), Some(to)) = (refusal(session, error), &to) {
                            // Whoever does not listen any more need not know.
                            let _gone = to.send(refused);
                        }
                        break;
                    }
                    None => break,
                },
                () = late(ends) => break,
            }
        }
    });
    own
}

async fn late(ends: Option<Instant>) {
    match ends {
        Some(ends) => tokio::time::sleep_until(ends).await,
        None => std::future::pending().await,
    }
}
