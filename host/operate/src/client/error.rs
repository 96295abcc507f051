//! Why a node did not do what it was asked, and what to do next.

use thiserror::Error;

/// Why a node did not do what it was asked.
#[derive(Debug, Error)]
pub enum ClientError {
    /// What cannot be an address.
    #[error(
        "\"{url}\" is no node's address: {problem}; write it as http://HOST:PORT, for instance {}",
        crate::connect::DEFAULT
    )]
    Address {
        /// As it was given.
        url: String,
        /// Why.
        problem: String,
    },
    /// Certificates that cannot be read.
    #[error("the certificates to trust do not do: {0}; give a file of PEM certificates")]
    Certificates(String),
    /// Nobody answers.
    #[error(
        "no node answers at {url} ({problem}): is `msao serve` running there, and is that its operator.listen? --node or \
         MSAO_OPERATOR_URL names another"
    )]
    Unreachable {
        /// Where.
        url: String,
        /// Why.
        problem: String,
    },
    /// It answers too slowly.
    #[error(
        "{url} did not answer {doing} within {after_s} s: `msao node state` tells whether it is busy; a change may still take effect"
    )]
    Slow {
        /// Where.
        url: String,
        /// What was asked.
        doing: String,
        /// How long was waited.
        after_s: u64,
    },
    /// 401.
    #[error(
        "{url} {}: --token-file FILE or MSAO_OPERATOR_TOKEN gives one whose SHA-256 stands under [operator.tokens] in the node's configuration",
        if *.had_token { "does not know this token" } else { "wants a token" }
    )]
    NoToken {
        /// Where.
        url: String,
        /// Whether one was sent.
        had_token: bool,
    },
    /// 403.
    #[error(
        "the token may not do that at {url}: {message} Use a token of that role; each role includes those below it (read, push, \
         activate), and `msao node whoami` tells which this one has"
    )]
    Role {
        /// Where.
        url: String,
        /// The node's words.
        message: String,
    },
    /// 409.
    #[error("not now: {message} `msao policy list --node {url}` shows what is under way")]
    NotNow {
        /// Where.
        url: String,
        /// The node's words.
        message: String,
    },
    /// 404 of a path that every node has.
    #[error(
        "{url} answers, but not as a node's operator API: is it the port of operator.listen (8081 by default), not that of api.listen?"
    )]
    NotOperators {
        /// Where.
        url: String,
    },
    /// 404 of something that is not there.
    #[error("{message}")]
    NotFound {
        /// The node's words.
        message: String,
    },
    /// 400 and its like.
    #[error("{url} refuses: {message}")]
    Refused {
        /// Where.
        url: String,
        /// Its status.
        status: u16,
        /// The node's words.
        message: String,
    },
    /// 500 and its like.
    #[error("{url} failed (status {status}): {message} Its log says more")]
    Failed {
        /// Where.
        url: String,
        /// Its status.
        status: u16,
        /// The node's words.
        message: String,
    },
    /// An answer that is none.
    #[error("the answer of {url} to {doing} is not understood: {problem}")]
    Answer {
        /// Where.
        url: String,
        /// What was asked.
        doing: String,
        /// Why.
        problem: String,
    },
    /// An answer that cannot be passed on.
    #[error("the answer cannot be passed on")]
    Local(#[from] std::io::Error),
}

impl ClientError {
    /// Whether the node could not be spoken to, so that it may be so in a moment again.
    pub fn is_silence(&self) -> bool {
        matches!(
            self,
            ClientError::Unreachable { .. } | ClientError::Slow { .. }
        )
    }
}
