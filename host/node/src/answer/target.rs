//! Where the target is: in this process, or behind a link.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use msao_session::frame::RefusedCode;

use super::channel::Channel;
use crate::request::Cargo;

/// While the one asked for cannot be reached, it is looked for others so often.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Counts the bytes of one stream each way: sent, received.
type Meter = Box<dyn Fn() -> (u64, u64) + Send + Sync>;

/// What a request caused on a link.
#[derive(Default)]
pub struct Traffic {
    media: Arc<AtomicU64>,
    upload_us: AtomicU64,
    streams: Mutex<Vec<Meter>>,
}

impl Traffic {
    /// Where bytes of media are added that go to the other node, as they go.
    pub fn media(&self) -> &Arc<AtomicU64> {
        &self.media
    }

    /// Media were uploaded for so long.
    pub fn uploaded(&self, took: Duration) {
        let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.upload_us.fetch_add(took, Ordering::Relaxed);
    }

    /// Another stream carries the request; the meter is read when the sum is asked for.
    pub fn meter(&self, meter: impl Fn() -> (u64, u64) + Send + Sync + 'static) {
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        streams.push(Box::new(meter));
    }

    /// Bytes so far to the other node and from it, headers of frames included.
    pub fn bytes(&self) -> (u64, u64) {
        let streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        let media = self.media.load(Ordering::Relaxed);
        streams.iter().fold((media, 0), |(sent, received), meter| {
            let (up, down) = meter();
            (sent + up, received + down)
        })
    }

    /// Time spent uploading, in ms.
    pub fn upload_ms(&self) -> f64 {
        self.upload_us.load(Ordering::Relaxed) as f64 / 1000.0
    }
}

/// Why there is no way.
#[derive(Clone, Debug, PartialEq)]
pub enum NoWay {
    /// The link is cut, or the other side is down: it is worth trying again soon.
    Lost(String),
    /// The other side will not.
    Refused {
        /// Why, for programs.
        code: RefusedCode,
        /// After so long it is worth trying again, in ms; 0 where it is not known.
        retry_after_ms: f64,
        /// Why, for people.
        message: String,
    },
}

impl NoWay {
    /// What is to go over cannot be made: trying again would not help.
    pub fn unmade(message: String) -> NoWay {
        NoWay::Refused {
            code: RefusedCode::Failed,
            retry_after_ms: 0.0,
            message,
        }
    }
}

/// A way that is being made.
pub type Connecting = Pin<Box<dyn Future<Output = Result<Channel, NoWay>> + Send>>;

/// Media on their way.
pub type Bringing = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Somebody who has the target.
pub trait Target: Send + Sync {
    /// Brings the prompt's media there, made as they are to be, and opens a way. While the other side is down it waits, if it is
    /// `patient`, for as long as it takes; else the way is lost. Once there is a way, [`Cargo::made`] has what OPEN says of the
    /// prompt.
    fn connect(&self, patient: bool, cargo: &Arc<Cargo>, traffic: &Arc<Traffic>) -> Connecting;
    /// Brings the prompt's media there, made as they are to be, in case a way is opened later. Whoever opens one finds them there,
    /// or on their way; that they do not get there is told then. Where nothing has to go anywhere, nothing is done.
    fn bring(&self, _cargo: &Arc<Cargo>, _traffic: &Arc<Traffic>) -> Bringing {
        Box::pin(std::future::ready(()))
    }
    /// The other side does not have the prompt's media, whatever was known of that.
    fn forget(&self, cargo: &Cargo);
    /// Round trip and wait before new work begins, in ms; -1 for what is not known.
    fn figures(&self) -> (f64, f64);
    /// Whether it can be reached now, so far as is known.
    fn is_there(&self) -> bool;
}

/// Somebody who has the target, and in which row of the nodes.
#[derive(Clone)]
pub struct Way {
    /// The row.
    pub row: usize,
    /// Who.
    pub target: Arc<dyn Target>,
}

/// Who else has the same target as the node in that row, and can be reached.
pub type Elsewhere = Arc<dyn Fn(usize) -> Option<Way> + Send + Sync>;

/// A way that was made, or why not; and to whom it leads, where that is somebody else than was asked for.
pub type Found = (Option<Way>, Result<Channel, NoWay>);

/// A way that is being looked for.
pub type Finding = Pin<Box<dyn Future<Output = Found> + Send>>;

impl Way {
    /// Opens a way after so long: there, or, while nobody is there, to somebody else who has the same. Where there is nobody at
    /// all it waits, if it is `patient`, for as long as it takes; else the way is lost.
    pub fn find(
        &self,
        after: Duration,
        patient: bool,
        elsewhere: Elsewhere,
        cargo: &Arc<Cargo>,
        traffic: &Arc<Traffic>,
    ) -> Finding {
        let (mut way, mut moved) = (self.clone(), None);
        let (cargo, traffic) = (Arc::clone(cargo), Arc::clone(traffic));
        Box::pin(async move {
            // A timer rounds up to the next millisecond, nothing included.
            if !after.is_zero() {
                tokio::time::sleep(after).await;
            }
            if !patient {
                // It may go between this look and the next step: then too nobody waits for it.
                if !way.target.is_there() {
                    let Some(other) = elsewhere(way.row) else {
                        let why = "it is down, and nobody else has the same target";
                        return (None, Err(NoWay::Lost(why.into())));
                    };
                    moved = Some(other.clone());
                    way = other;
                }
                let made = way.target.connect(patient, &cargo, &traffic).await;
                return (moved, made);
            }
            let mut made = way.target.connect(patient, &cargo, &traffic);
            let mut looks = tokio::time::interval(LOOK_EVERY);
            loop {
                tokio::select! {
                    biased;
                    made = &mut made => return (moved, made),
                    _ = looks.tick(), if !way.target.is_there() => {
                        if let Some(other) = elsewhere(way.row) {
                            // What was begun is let go of: what is sent is made once, and whoever has begun to keeps others
                            // from it.
                            made = other.target.connect(patient, &cargo, &traffic);
                            moved = Some(other.clone());
                            way = other;
                        }
                    }
                }
            }
        })
    }
}
