//! What two nodes say to each other, without I/O.
//!
//! Promises: whatever bytes come, the decoder answers with a frame or an error that names field and limit, in bounded
//! memory.
//!
//! Read first: [`frame::Frame`] (what is said), [`frame::Decoder`], [`frame::Hello::agree`].
#![forbid(unsafe_code)]

pub mod frame;
pub mod hello;
mod prefix;

pub use self::prefix::PrefixDigest;
