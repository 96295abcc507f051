//! Where the target is: in this process, or behind a link.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use msao_session::frame::Frame;
use tokio::sync::mpsc;

use crate::request::Prompt;

/// Bytes that a request caused on a link, headers of frames included.
#[derive(Debug, Default)]
pub struct Traffic {
    /// To the other node.
    pub sent: AtomicU64,
    /// From it.
    pub received: AtomicU64,
    /// Spent uploading media, in µs.
    pub upload_us: AtomicU64,
}

impl Traffic {
    /// Adds to what was sent.
    pub fn sent(&self, bytes: u64) {
        self.sent.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Adds to what came.
    pub fn received(&self, bytes: u64) {
        self.received.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// One session's way to where the target is.
#[derive(Debug)]
pub struct Channel {
    /// To the target. What was sent before it is dropped still arrives.
    pub sender: mpsc::UnboundedSender<Frame>,
    /// From the target; ends where the way is lost.
    pub receiver: mpsc::UnboundedReceiver<Frame>,
}

impl Channel {
    /// Two ends that belong together.
    pub fn pair() -> (Channel, Channel) {
        let (up, there) = mpsc::unbounded_channel();
        let (down, here) = mpsc::unbounded_channel();
        let edge = Channel {
            sender: up,
            receiver: here,
        };
        let cloud = Channel {
            sender: down,
            receiver: there,
        };
        (edge, cloud)
    }
}

/// A way that is being made; `Err` says why there is none.
pub type Connecting = Pin<Box<dyn Future<Output = Result<Channel, String>> + Send>>;

/// Somebody who has the target.
pub trait Target: Send + Sync {
    /// Brings the prompt's media there and opens a way. Waits while the other side is down, for as long as it takes.
    fn connect(&self, prompt: &Arc<Prompt>, traffic: &Arc<Traffic>) -> Connecting;
    /// Round trip and wait before new work begins, in ms; -1 for what is not known.
    fn figures(&self) -> (f64, f64);
}
