//! Two nodes over real sockets, over memory, over bad links, and strangers who call.
//!
//! What depends on time runs over memory under tokio's paused clock; with real sockets limits are generous, since a busy
//! machine may be slow.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests may panic"
)]

mod certificates;
mod draining;
mod estimates;
mod floods;
mod hostile;
mod log;
mod media;
mod peers;
mod raw;
mod streams;
mod support;
mod tls;
mod unread;
