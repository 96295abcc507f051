//! Where another stream of a session waits until the session takes it up.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use msao_session::frame::Open;
use tokio::sync::Notify;

use crate::answer::Channel;

/// Another stream for a session that is there.
pub struct Attach {
    pub channel: Channel,
    pub open: Box<Open>,
}

/// The newest of a session's streams. An edge that opens another has left those before it, which are dropped: one waits at
/// most, however often a session is opened that cannot go on.
#[derive(Default)]
pub struct Newest {
    state: Mutex<State>,
    news: Notify,
}

#[derive(Default)]
struct State {
    waits: Option<Attach>,
    over: bool,
}

impl Newest {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has it wait for the session.
    ///
    /// # Errors
    /// The session has ended: it is given back.
    pub fn put(&self, attach: Attach) -> Result<(), Attach> {
        let mut state = self.state();
        if state.over {
            return Err(attach);
        }
        state.waits = Some(attach);
        drop(state);
        self.news.notify_one();
        Ok(())
    }
}

/// The session's end. Once it is dropped the session has ended.
pub struct Attached(pub Arc<Newest>);

impl Attached {
    /// The newest stream, once there is one. May be dropped and called again.
    pub async fn next(&self) -> Attach {
        loop {
            let waits = self.0.state().waits.take();
            if let Some(attach) = waits {
                return attach;
            }
            self.0.news.notified().await;
        }
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.over = true;
        state.waits = None;
    }
}
