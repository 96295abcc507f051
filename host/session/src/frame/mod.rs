//! Frames: what two nodes say to each other, as bytes.
//!
//! A frame is a header of six bytes and a payload:
//!
//! | bytes | what |
//! |---|---|
//! | 4 | length of the payload, `u32` little-endian |
//! | 1 | version of the protocol; always 1 for HELLO, which every version reads alike |
//! | 1 | [`Kind`] |
//!
//! Control messages are CBOR maps with named fields; unknown fields are passed over, so that a message can grow within
//! a version. DRAFT and VERDICT, which are sent for every few tokens, are fixed little-endian fields: to change one
//! takes a new version. Kinds that came later (WORDS, COST) go only to an edge whose OPEN has the field that asks for
//! them: to one that does not know them they would be the end of the stream. Fields that came later and must not be passed
//! over ([`Medium::made`]) go only to a cloud whose HELLO says that it knows them: to another one media go as they came.
//!
//! What [`encode`] writes [`Decoder`] reads: both hold a frame against the same limits ([`limits`]).
//!
//! ```
//! use msao_session::frame::{Cancel, Decoder, Frame, SessionId, encode, limits};
//!
//! let frame = Frame::Cancel(Cancel { session: SessionId([7; 16]) });
//! let mut bytes = Vec::new();
//! encode(&frame, limits::NEWEST, &mut bytes)?;
//!
//! let mut decoder = Decoder::of_version(limits::NEWEST);
//! let (mut first, mut second) = bytes.split_at(9);
//! assert_eq!(decoder.feed(&mut first)?, None);
//! assert_eq!(decoder.feed(&mut second)?, Some(frame));
//! # Ok::<(), msao_session::frame::FrameError>(())
//! ```

mod cbor;
mod control;
mod cost;
mod decoder;
mod error;
mod keep;
pub mod limits;
mod made;
mod open;
mod tokens;
mod wire;
mod words;

use std::fmt;

pub use self::control::{
    Cancel, Close, Heartbeat, Hello, Identity, Refused, RefusedCode, SessionId,
};
pub use self::cost::Cost;
pub use self::decoder::Decoder;
pub use self::error::FrameError;
pub use self::keep::{KeepError, keep_bits, kept_tokens};
pub use self::made::{Made, Window};
pub use self::open::{Medium, Open, Prompt, Wanted};
pub use self::tokens::{Draft, Finish, Verdict};
pub use self::words::{Word, Words};

/// The version in the header of a HELLO, whatever versions it offers.
const HELLO_VERSION: u8 = 1;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// [`Hello`].
    Hello = 1,
    /// [`Open`].
    Open = 2,
    /// [`Draft`].
    Draft = 3,
    /// [`Verdict`].
    Verdict = 4,
    /// [`Cancel`].
    Cancel = 5,
    /// [`Refused`].
    Refused = 6,
    /// [`Heartbeat`].
    Heartbeat = 7,
    /// [`Close`].
    Close = 8,
    /// [`Words`].
    Words = 9,
    /// [`Cost`].
    Cost = 10,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 10] = [
        Kind::Hello,
        Kind::Open,
        Kind::Draft,
        Kind::Verdict,
        Kind::Cancel,
        Kind::Refused,
        Kind::Heartbeat,
        Kind::Close,
        Kind::Words,
        Kind::Cost,
    ];

    fn of(number: u8) -> Result<Kind, FrameError> {
        let known = Kind::ALL.into_iter().find(|&kind| kind as u8 == number);
        known.ok_or(FrameError::Kind { found: number })
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Kind::Hello => "HELLO",
            Kind::Open => "OPEN",
            Kind::Draft => "DRAFT",
            Kind::Verdict => "VERDICT",
            Kind::Cancel => "CANCEL",
            Kind::Refused => "REFUSED",
            Kind::Heartbeat => "HEARTBEAT",
            Kind::Close => "CLOSE",
            Kind::Words => "WORDS",
            Kind::Cost => "COST",
        })
    }
}

/// One message.
#[derive(Clone, Debug, PartialEq)]
pub enum Frame {
    /// Either side, first.
    Hello(Hello),
    /// The edge begins a session or takes one up again.
    Open(Box<Open>),
    /// The edge's drafts.
    Draft(Draft),
    /// The cloud's tokens.
    Verdict(Verdict),
    /// The edge wants no more.
    Cancel(Cancel),
    /// The cloud will not.
    Refused(Refused),
    /// How a node is.
    Heartbeat(Heartbeat),
    /// The answer is whole.
    Close(Close),
    /// What the target's ids say.
    Words(Words),
    /// What a session has cost.
    Cost(Cost),
}

impl Frame {
    /// What it is.
    pub fn kind(&self) -> Kind {
        match self {
            Frame::Hello(_) => Kind::Hello,
            Frame::Open(_) => Kind::Open,
            Frame::Draft(_) => Kind::Draft,
            Frame::Verdict(_) => Kind::Verdict,
            Frame::Cancel(_) => Kind::Cancel,
            Frame::Refused(_) => Kind::Refused,
            Frame::Heartbeat(_) => Kind::Heartbeat,
            Frame::Close(_) => Kind::Close,
            Frame::Words(_) => Kind::Words,
            Frame::Cost(_) => Kind::Cost,
        }
    }

    /// The session that it belongs to; none for HELLO and HEARTBEAT.
    pub fn session(&self) -> Option<SessionId> {
        match self {
            Frame::Hello(_) | Frame::Heartbeat(_) => None,
            Frame::Open(open) => Some(open.session),
            Frame::Draft(draft) => Some(draft.session),
            Frame::Verdict(verdict) => Some(verdict.session),
            Frame::Cancel(cancel) => Some(cancel.session),
            Frame::Refused(refused) => Some(refused.session),
            Frame::Close(close) => Some(close.session),
            Frame::Words(words) => Some(words.session),
            Frame::Cost(cost) => Some(cost.session),
        }
    }

    fn check(&self) -> Result<(), FrameError> {
        match self {
            Frame::Hello(hello) => hello.check(),
            Frame::Open(open) => open.check(),
            Frame::Draft(draft) => draft.check(),
            Frame::Verdict(verdict) => verdict.check(),
            Frame::Refused(refused) => refused.check(),
            Frame::Heartbeat(heartbeat) => heartbeat.check(),
            Frame::Words(words) => words.check(),
            Frame::Cost(cost) => cost.check(),
            Frame::Cancel(_) | Frame::Close(_) => Ok(()),
        }
    }

    fn read(kind: Kind, payload: &[u8]) -> Result<Frame, FrameError> {
        let frame = match kind {
            Kind::Hello => Frame::Hello(cbor::read(kind, payload)?),
            Kind::Open => Frame::Open(Box::new(cbor::read(kind, payload)?)),
            Kind::Draft => return Draft::read(payload).map(Frame::Draft),
            Kind::Verdict => return Verdict::read(payload).map(Frame::Verdict),
            Kind::Cancel => Frame::Cancel(cbor::read(kind, payload)?),
            Kind::Refused => Frame::Refused(cbor::read(kind, payload)?),
            Kind::Heartbeat => Frame::Heartbeat(cbor::read(kind, payload)?),
            Kind::Close => Frame::Close(cbor::read(kind, payload)?),
            Kind::Words => Frame::Words(cbor::read(kind, payload)?),
            Kind::Cost => Frame::Cost(cbor::read(kind, payload)?),
        };
        frame.check()?;
        Ok(frame)
    }

    fn write(&self, out: &mut Vec<u8>) -> Result<(), FrameError> {
        let kind = self.kind();
        match self {
            Frame::Hello(hello) => cbor::write(kind, hello, out),
            Frame::Open(open) => cbor::write(kind, open, out),
            Frame::Draft(draft) => {
                draft.write(out);
                Ok(())
            }
            Frame::Verdict(verdict) => {
                verdict.write(out);
                Ok(())
            }
            Frame::Cancel(cancel) => cbor::write(kind, cancel, out),
            Frame::Refused(refused) => cbor::write(kind, refused, out),
            Frame::Heartbeat(heartbeat) => cbor::write(kind, heartbeat, out),
            Frame::Close(close) => cbor::write(kind, close, out),
            Frame::Words(words) => cbor::write(kind, words, out),
            Frame::Cost(cost) => cbor::write(kind, cost, out),
        }
    }
}

/// Appends a frame in the given version, which HELLO does not look at.
///
/// # Errors
/// The version is not spoken, or a field is outside its limits; `out` is as it was.
pub fn encode(frame: &Frame, version: u8, out: &mut Vec<u8>) -> Result<(), FrameError> {
    let kind = frame.kind();
    let version = match kind {
        Kind::Hello => HELLO_VERSION,
        _ if (limits::OLDEST..=limits::NEWEST).contains(&version) => version,
        _ => {
            return Err(FrameError::Version {
                kind,
                found: version,
                agreed: limits::NEWEST,
            });
        }
    };
    frame.check()?;
    let before = out.len();
    out.extend_from_slice(&[0, 0, 0, 0, version, kind as u8]);
    let from = out.len();
    let written = frame.write(out).and_then(|()| {
        let bytes = out.len() - from;
        wire::at_most(kind, "payload", limits::max_payload(kind), bytes)
    });
    if let Err(error) = written {
        out.truncate(before);
        return Err(error);
    }
    // The limits are far below what 32 bits hold.
    let bytes = (out.len() - from) as u32;
    if let Some(length) = out.get_mut(before..before + 4) {
        length.copy_from_slice(&bytes.to_le_bytes());
    }
    Ok(())
}
