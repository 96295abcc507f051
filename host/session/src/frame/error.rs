//! What is wrong with a frame.

use super::Kind;

/// Why bytes are no frame, or a frame cannot be written. After one of these a stream is of no more use: close it and
/// open another.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The header names no kind of this version.
    #[error(
        "{found} is no kind of frame: the peer is no MSAO node, or speaks a version that was not agreed"
    )]
    Kind {
        /// What stands there.
        found: u8,
    },
    /// The header names another version than was agreed.
    #[error("a {kind} frame of version {found} came where {agreed} was agreed in HELLO")]
    Version {
        /// The frame.
        kind: Kind,
        /// Its version.
        found: u8,
        /// The version agreed.
        agreed: u8,
    },
    /// A frame other than HELLO came before a version was agreed.
    #[error("a {kind} frame came before HELLO: a stream begins with HELLO")]
    BeforeHello {
        /// The frame.
        kind: Kind,
    },
    /// Something is larger than it may be.
    #[error("{kind}.{field} is {found}, and may be {limit} at most")]
    TooLarge {
        /// The frame.
        kind: Kind,
        /// Its field; `payload` for all of it.
        field: &'static str,
        /// The limit.
        limit: u64,
        /// What was found.
        found: u64,
    },
    /// A field contradicts its range or another field.
    #[error("{kind}.{field} must be {allowed}")]
    Range {
        /// The frame.
        kind: Kind,
        /// Its field.
        field: &'static str,
        /// What it may be, in words.
        allowed: &'static str,
    },
    /// The payload, or the stream, ends inside a field.
    #[error("a {kind} frame ends in the middle of {field}")]
    Truncated {
        /// The frame.
        kind: Kind,
        /// The field.
        field: &'static str,
    },
    /// The stream ends inside a header.
    #[error("the stream ends in the middle of a frame's header")]
    TruncatedHeader,
    /// The payload goes on after its last field.
    #[error("a {kind} frame has {bytes} bytes after its last field")]
    Trailing {
        /// The frame.
        kind: Kind,
        /// How many.
        bytes: usize,
    },
    /// A control message is no CBOR, lacks a field or has one of another type.
    #[error("a {kind} frame cannot be read: {why}")]
    Cbor {
        /// The frame.
        kind: Kind,
        /// What the decoder says.
        why: String,
    },
}
