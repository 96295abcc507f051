//! Whether a peer can be used, and why not.

use std::sync::Arc;

use msao_session::frame::{Hello, RefusedCode};
use msao_session::hello::Agreement;

use crate::error::TransportError;

/// How a peer is.
#[derive(Clone, Debug, PartialEq)]
pub struct Status {
    /// Whether sessions can be opened.
    pub up: bool,
    /// Whether it drains: running sessions go on, and it takes no new ones, for now or because it goes down.
    pub draining: bool,
    /// What may be done with it; of the last connection, if there is none now.
    pub agreement: Option<Agreement>,
    /// What it said of itself; as above.
    pub hello: Option<Arc<Hello>>,
    /// Why it is not up, in words.
    pub why: Option<Arc<str>>,
}

impl Status {
    pub(super) fn first() -> Status {
        Status {
            up: false,
            draining: false,
            agreement: None,
            hello: None,
            why: Some("not connected yet".into()),
        }
    }

    pub(super) fn went_up(&mut self, hello: Arc<Hello>, agreement: Agreement) {
        *self = Status {
            up: true,
            draining: false,
            agreement: Some(agreement),
            hello: Some(hello),
            why: None,
        };
    }

    pub(super) fn went_down(&mut self, why: &str) {
        self.up = false;
        self.draining = false;
        self.why = Some(why.into());
    }

    pub(super) fn drains(&mut self, message: &str) {
        self.up = false;
        self.draining = true;
        self.why = Some(message.into());
    }

    /// It drains no more. False: it did not, or says another thing of itself than when it was connected to.
    pub(super) fn serves_again(&mut self, hello: &Hello) -> bool {
        if !self.draining || self.hello.as_deref() != Some(hello) {
            return false;
        }
        self.up = true;
        self.draining = false;
        self.why = None;
        true
    }

    /// Why no session can be opened.
    pub(super) fn error(&self, peer: &str) -> TransportError {
        let why = self
            .why
            .as_deref()
            .unwrap_or("the connection has just ended");
        if self.draining {
            return TransportError::Refused {
                code: RefusedCode::Draining,
                retry_after_ms: 0.0,
                message: why.to_owned(),
            };
        }
        TransportError::Down {
            peer: peer.to_owned(),
            why: why.to_owned(),
        }
    }
}
