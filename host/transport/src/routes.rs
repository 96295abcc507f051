//! Paths and headers that both sides know.

use hyper::header::HeaderMap;

pub(crate) const HEARTBEAT: &str = "/node/v1/heartbeat";
pub(crate) const SESSION: &str = "/node/v1/session";
pub(crate) const MEDIA: &str = "/node/v1/media/";
pub(crate) const PROBE: &str = "/node/v1/probe";

/// What a body of frames is.
pub(crate) const FRAMES: &str = "application/vnd.msao.frames";

/// The name that a node goes by, for people.
pub(crate) const NODE: &str = "msao-node";
/// How often the asking side sends heartbeats, ms.
pub(crate) const HEARTBEAT_MS: &str = "msao-heartbeat-ms";
/// Drawn when a server starts: whoever sees another one knows that what it held is gone.
pub(crate) const INSTANCE: &str = "msao-instance";
/// Why a request is refused, for programs.
pub(crate) const ERROR: &str = "msao-error";
/// When it is worth trying again, ms.
pub(crate) const RETRY_AFTER_MS: &str = "msao-retry-after-ms";
/// Bytes of all uploads of the connection that came between two moments of this one, and the time between these, ms.
pub(crate) const RECEIVED_BYTES: &str = "msao-received-bytes";
pub(crate) const RECEIVED_MS: &str = "msao-received-ms";

/// Values of [`ERROR`].
pub(crate) mod refusal {
    pub(crate) const DRAINING: &str = "draining";
    pub(crate) const OVERLOADED: &str = "overloaded";
    pub(crate) const VERSION: &str = "version";
    pub(crate) const HELLO: &str = "hello-first";
    pub(crate) const DIGEST: &str = "digest";
    pub(crate) const FULL: &str = "store-full";
    pub(crate) const TOO_LARGE: &str = "too-large";
    pub(crate) const SLOW: &str = "too-slow";
    pub(crate) const CUT: &str = "cut";
    pub(crate) const REQUEST: &str = "request";
}

/// A header's value, if it is there and can be read.
pub(crate) fn number<T: std::str::FromStr>(headers: &HeaderMap, name: &str) -> Option<T> {
    text(headers, name)?.parse().ok()
}

pub(crate) fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// A name that a peer gives itself, if it is one.
pub(crate) fn name(headers: &HeaderMap) -> Option<String> {
    let name = text(headers, NODE)?;
    is_name(name).then(|| name.to_owned())
}

/// Whether a node may have this name, as `node.name` in the configuration.
pub(crate) fn is_name(name: &str) -> bool {
    let good = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    (1..=crate::limits::MAX_NAME).contains(&name.len()) && name.chars().all(good)
}
