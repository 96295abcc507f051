//! What two nodes say to each other, and speculation between them, as state machines without I/O.
//!
//! Nothing here opens a socket, reads a clock or touches a tensor. A node feeds in what happened ([`edge::Event`],
//! [`cloud::Event`], bytes for [`frame::Decoder`]) with the time, and does what comes out ([`edge::Effect`],
//! [`cloud::Effect`]). So every schedule of drafts, verdicts, stalls and cuts can be played from a seed, and is: see
//! `tests/it/simulator`.
//!
//! Promises:
//! - In exact mode the committed tokens are the target's own choices, whatever drafted them and whatever the link did.
//!   None is committed twice, none is lost.
//! - Whatever bytes come, the decoder answers with a frame or an error that names field and limit, in bounded memory.
//! - After a cancel, or when the lease has ended, the cloud's side holds nothing.
//!
//! Read first: [`frame::Frame`] (what is said), [`edge::Edge`] (the side that drafts and owns the committed prefix),
//! [`cloud::Cloud`] (the side that verifies). [`depth`] says how many drafts are worth a pass.
#![forbid(unsafe_code)]

pub mod cloud;
pub mod depth;
pub mod edge;
pub mod frame;
pub mod hello;
mod prefix;

pub use self::prefix::PrefixDigest;
