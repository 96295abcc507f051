//! What can go wrong between two nodes.

use std::net::SocketAddr;

use msao_core::digest::Digest;
use msao_session::frame::{FrameError, RefusedCode};

/// Why something did not get to a peer, or not whole.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum TransportError {
    /// There is no connection to the peer now; it is being tried anew. Plan without it.
    #[error("peer {peer} is not reachable: {why}")]
    Down {
        /// Its name.
        peer: String,
        /// What the last try met with.
        why: String,
    },
    /// The peer will not, and says so. Before the first token, plan without it.
    #[error("the peer refuses ({code:?}): {message}")]
    Refused {
        /// Why, for programs.
        code: RefusedCode,
        /// After so long it is worth trying again, ms; 0 where it is not known.
        retry_after_ms: f64,
        /// Why, for people.
        message: String,
    },
    /// The connection or the stream broke. The session can be taken up again on a new stream.
    #[error("the stream is cut: {0}")]
    Lost(String),
    /// The other side wants no more of this stream.
    #[error("the peer has cancelled the stream")]
    Cancelled,
    /// Nothing more can be sent: this side has finished or cancelled the stream.
    #[error("the stream was already finished on this side")]
    Finished,
    /// No room for another frame now.
    #[error(
        "frames wait to be sent, and there is no room for more: send later, or wait with `send`"
    )]
    Full,
    /// Too many frames wait to be taken by the receiver here, or they wait for too long to be taken by the peer.
    #[error("{0} does not take the frames that wait for it, so the stream was given up")]
    Unread(&'static str),
    /// What came is no frame, or what is to be sent may not be.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The answer is not one that a node gives.
    #[error("the peer answered {what} with status {status}: {message}")]
    Answer {
        /// What was asked.
        what: &'static str,
        /// The status.
        status: u16,
        /// The answer's words.
        message: String,
    },
    /// The peer took too long.
    #[error("the peer did not answer {what} within {seconds} s")]
    Timeout {
        /// What was asked.
        what: &'static str,
        /// The limit.
        seconds: u64,
    },
    /// A medium's bytes have another digest than the one that they were sent under.
    #[error("the bytes sent as medium {0} have another digest: give a medium's own digest")]
    WrongDigest(Digest),
}

/// Why a node does not take sessions.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Sessions in the clear, beyond this machine.
    #[error(
        "sessions.listen is {0}, which other machines reach, and sessions.tls is not set: name a folder with ca.pem, \
         node.pem and node.key there, or listen on 127.0.0.1"
    )]
    PlainBeyondLoopback(SocketAddr),
    /// A limit that may not be.
    #[error("{field}: {problem}")]
    Config {
        /// Which.
        field: &'static str,
        /// What is wrong and what is allowed.
        problem: String,
    },
    /// The listener does not say where it listens.
    #[error("the session listener cannot be used: {0}")]
    Listener(#[from] std::io::Error),
}
