//! A session that is opened at another node before there is a plan.
//!
//! While the probe looks at the prompt here, its media go over and the target reads it there: whole, and for drafts to be
//! verified. A plan that wants just that goes on with the session ([`Opened::go_on`]); by any other the session is cancelled
//! ([`Opened::leave`]), and so it is where no plan comes at all. What went over for it counts for the request either way, on
//! the [`Traffic`] that the answers then go on with.
//!
//! There is no task of its own: it goes on while whoever has it waits for something else ([`Opened::beside`]).

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use msao_session::frame::{Cancel, Frame, Open, SessionId};
use tokio::task::JoinHandle;

use super::bill::{Bill, Charges};
use super::channel::Channel;
use super::drive::addressed;
use super::target::{Elsewhere, Finding, Traffic, Way};
use crate::metrics::Metrics;
use crate::peers::Ahead;
use crate::request::Cargo;

/// The other node has so long to say what a session has cost that was cancelled.
const LAST_TOLD: Duration = Duration::from_secs(1);

/// How far it has come.
enum State {
    /// Media are on their way, and nothing was said. Never contended: the lock lets whoever has it be looked at from two threads.
    Finding(Mutex<Finding>),
    /// OPEN was said, and this is what comes.
    Open(Channel),
    /// There is no way, or somebody else has it.
    Over,
}

/// See the module. Dropped, it is cancelled.
pub struct Opened {
    way: Way,
    open: Open,
    cargo: Arc<Cargo>,
    traffic: Arc<Traffic>,
    state: State,
    /// Counts as work that the peer is going to get.
    work: Ahead,
    /// Where it is counted if nobody decides about it.
    metrics: Option<Metrics>,
}

/// A session to go on with.
pub struct GoneOn {
    /// What it is opened with.
    pub open: Open,
    /// Its way, or the way that is still being made: then OPEN is yet to be said.
    pub way: Result<Channel, Finding>,
}

impl Opened {
    /// Begins to look for the way there: to nobody else. `open`: what is said once there is a way; `cargo`: the whole prompt as
    /// it came, which need not be made first.
    pub fn begin(way: Way, open: Open, cargo: Arc<Cargo>, work: Ahead, metrics: Metrics) -> Opened {
        let traffic = Arc::<Traffic>::default();
        let nobody: Elsewhere = Arc::new(|_| None);
        let finding = way.find(Duration::ZERO, false, nobody, &cargo, &traffic);
        Opened {
            way,
            open,
            cargo,
            traffic,
            state: State::Finding(Mutex::new(finding)),
            work,
            metrics: Some(metrics),
        }
    }

    /// Goes on while something else is waited for, and gives that.
    pub async fn beside<T>(&mut self, other: impl Future<Output = T>) -> T {
        let mut other = std::pin::pin!(other);
        while let State::Finding(finding) = &mut self.state {
            let finding = finding.get_mut().unwrap_or_else(PoisonError::into_inner);
            tokio::select! {
                biased;
                done = &mut other => return done,
                (_, made) = finding => match made {
                    Ok(mut channel) => {
                        let open = Frame::Open(Box::new(self.open.clone()));
                        channel.send(addressed(&self.cargo, open));
                        tracing::debug!(session = %self.open.session, "a session is opened ahead of the plan");
                        self.state = State::Open(channel);
                    }
                    Err(why) => {
                        tracing::info!(?why, "no session can be opened ahead of the plan");
                        self.state = State::Over;
                    }
                },
            }
        }
        other.await
    }

    /// In which row of the nodes the target is.
    pub fn row(&self) -> usize {
        self.way.row
    }

    /// What goes over of the request is counted here.
    pub fn traffic(&self) -> &Arc<Traffic> {
        &self.traffic
    }

    /// There is a plan: work that the peer is going to get is counted by that.
    pub fn settle(&self) {
        self.work.settle();
    }

    /// Whether OPEN was said, so that the peer has begun to read.
    pub fn is_open(&self) -> bool {
        matches!(self.state, State::Open(_))
    }

    /// Whether an answer can go on with it whose target is in that row and is sent this.
    pub fn fits(&self, row: usize, cargo: &Cargo) -> bool {
        let read = |cargo: &Cargo| cargo.made().map(|sent| sent.target_input);
        let own = read(&self.cargo);
        let over = matches!(self.state, State::Over);
        !over && row == self.way.row && own.is_some() && own == read(cargo)
    }

    /// Hands it over to the answer that goes on with it; `None` where there is nothing to go on with.
    pub fn go_on(mut self) -> Option<GoneOn> {
        self.metrics = None;
        let open = self.open.clone();
        let way = match std::mem::replace(&mut self.state, State::Over) {
            State::Finding(finding) => Err(inner(finding)),
            State::Open(channel) => Ok(channel),
            State::Over => return None,
        };
        Some(GoneOn { open, way })
    }

    /// Cancels it; gives what the other node says it has cost. `brings`: media that are on their way go on, since the answer
    /// wants the same of them there and would send them once more.
    pub fn leave(mut self, brings: bool) -> JoinHandle<Charges> {
        self.metrics = None;
        let session = self.open.session;
        let state = std::mem::replace(&mut self.state, State::Over);
        tokio::spawn(async move {
            match state {
                State::Open(channel) => cancelled(channel, session).await,
                State::Finding(finding) if brings => {
                    // Its way is let go of without a word.
                    drop(inner(finding).await);
                    Charges::default()
                }
                State::Finding(_) | State::Over => Charges::default(),
            }
        })
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        let session = self.open.session;
        if let State::Open(channel) = &mut self.state {
            // It arrives though the way is let go of now; without it the other node would wait for another way.
            channel.send(Frame::Cancel(Cancel { session }));
        }
        if let Some(metrics) = self.metrics.take() {
            // No answer tells of it.
            metrics.withdrew_ahead(self.traffic.bytes());
        }
    }
}

fn inner(finding: Mutex<Finding>) -> Finding {
    finding.into_inner().unwrap_or_else(PoisonError::into_inner)
}

async fn cancelled(mut channel: Channel, session: SessionId) -> Charges {
    channel.send(Frame::Cancel(Cancel { session }));
    let mut bill = Bill::default();
    let told = async {
        while let Some(frame) = channel.recv().await {
            if let Frame::Cost(cost) = frame {
                bill.take(cost);
            }
        }
    };
    // What was not said until then is not waited for.
    let _late = tokio::time::timeout(LAST_TOLD, told).await;
    bill.total()
}
