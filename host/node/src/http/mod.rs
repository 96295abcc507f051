//! What clients see: the inference API over HTTP/1.1 and HTTP/2 on one port.
//!
//! A connection's version is known before hyper sees it: by ALPN with TLS, else by the preface of HTTP/2, for which there is
//! the same time as for a header. Every wait that a client could draw out has an end.

mod body;
mod connection;
mod respond;
mod routes;

pub use self::connection::{Server, TlsSetup};
