//! The way of a session's frames from one task to another, be a link between them or not.
//!
//! Neither end waits for the other, so how much is sent is for the one to decide and how much is taken for the other. What
//! waits between them is bounded, in number and in memory: beyond that the way is lost, as one is whose link is cut.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use msao_core::sampling::TopLogprobs;
use msao_session::frame::limits::{MAX_TEXT_BYTES, max_payload};
use msao_session::frame::{Frame, Kind, Word};
use tokio::sync::mpsc;

/// Bytes of frames that may wait one way. An OPEN fits, and some thousands of others behind it: more than come while a client
/// is given time to read.
const ROOM: usize = 4 << 20;

/// Bytes that a frame counts at least, so that no more than 16,384 of them wait.
const FRAME_COST: usize = 256;

/// Why a frame was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsent {
    /// There is no room: too much has come that was not taken.
    Full,
    /// Nobody takes anything any more.
    Over,
}

/// Sends frames one way.
#[derive(Debug)]
pub struct Sender {
    frames: mpsc::UnboundedSender<(usize, Frame)>,
    waiting: Arc<AtomicUsize>,
}

/// Takes what comes one way.
#[derive(Debug)]
pub struct Receiver {
    frames: mpsc::UnboundedReceiver<(usize, Frame)>,
    waiting: Arc<AtomicUsize>,
}

/// One session's way to where the target is.
#[derive(Debug)]
pub struct Channel {
    sender: Sender,
    receiver: Receiver,
    /// Something that was sent found no room.
    overrun: bool,
}

fn one_way() -> (Sender, Receiver) {
    let (to, from) = mpsc::unbounded_channel();
    let waiting = Arc::<AtomicUsize>::default();
    let sender = Sender {
        frames: to,
        waiting: Arc::clone(&waiting),
    };
    let receiver = Receiver {
        frames: from,
        waiting,
    };
    (sender, receiver)
}

impl Sender {
    /// Sends a frame. What was sent before this end is dropped still arrives.
    ///
    /// # Errors
    /// [`Unsent`]: the frame is lost.
    pub fn send(&self, frame: Frame) -> Result<(), Unsent> {
        let cost = cost(&frame);
        // Only this end adds: what is seen here can only have become less.
        if self.waiting.load(Ordering::Relaxed) + cost > ROOM {
            return Err(Unsent::Full);
        }
        self.waiting.fetch_add(cost, Ordering::Relaxed);
        let sent = self.frames.send((cost, frame));
        sent.map_err(|_| Unsent::Over)
    }
}

impl Receiver {
    /// The next frame; none once the other end is gone. May be dropped and called again: nothing is lost.
    pub async fn recv(&mut self) -> Option<Frame> {
        let (cost, frame) = self.frames.recv().await?;
        self.waiting.fetch_sub(cost, Ordering::Relaxed);
        Some(frame)
    }
}

impl Channel {
    /// Two ends that belong together.
    pub fn pair() -> (Channel, Channel) {
        let (up, there) = one_way();
        let (down, here) = one_way();
        let end = |sender, receiver| Channel {
            sender,
            receiver,
            overrun: false,
        };
        (end(up, here), end(down, there))
    }

    /// Sends a frame. Where it cannot be sent the way is lost, which is noticed where it is read.
    pub fn send(&mut self, frame: Frame) {
        self.overrun |= self.sender.send(frame) == Err(Unsent::Full);
    }

    /// The next frame; none once the way is lost. May be dropped and called again: nothing is lost by that.
    pub async fn recv(&mut self) -> Option<Frame> {
        match self.overrun {
            true => None,
            false => self.receiver.recv().await,
        }
    }

    /// The two directions, for who carries frames on.
    pub fn split(self) -> (Sender, Receiver) {
        (self.sender, self.receiver)
    }
}

/// Bytes that a frame takes in memory, roughly.
fn cost(frame: &Frame) -> usize {
    let own = match frame {
        // As many as there may be: its prompt is not looked through for this.
        Frame::Open(_) => max_payload(Kind::Open),
        Frame::Draft(draft) => {
            size_of_val(draft.forced.as_slice()) + size_of_val(draft.proposed.as_slice())
        }
        Frame::Verdict(verdict) => {
            let places = verdict.logprobs.iter().flatten();
            let place =
                |place: &TopLogprobs| size_of_val(place) + size_of_val(place.top.as_slice());
            size_of_val(verdict.next.as_slice()) + places.map(place).sum::<usize>()
        }
        Frame::Words(words) => {
            let word = |word: &Word| size_of_val(word) + word.bytes.len();
            words.words.iter().map(word).sum()
        }
        Frame::Hello(_) | Frame::Refused(_) => MAX_TEXT_BYTES,
        Frame::Cancel(_) | Frame::Heartbeat(_) | Frame::Close(_) | Frame::Cost(_) => 0,
    };
    FRAME_COST + own
}

#[cfg(test)]
mod tests {
    use msao_core::digest::Digest;
    use msao_core::sampling::{SamplingParams, TokenLogprob};
    use msao_session::frame::{Cancel, Open, Prompt, SessionId, Verdict, Wanted, Words};

    use super::*;

    const SESSION: SessionId = SessionId([1; 16]);

    fn small() -> Frame {
        Frame::Cancel(Cancel { session: SESSION })
    }

    fn open() -> Frame {
        Frame::Open(Box::new(Open {
            session: SESSION,
            epoch: 0,
            wanted: Wanted::Verify,
            sampling: SamplingParams::default(),
            top_logprobs: None,
            max_tokens: 4,
            target_input: Digest::of(b""),
            prompt: Prompt::default(),
            deadline_ms: 0.0,
            tokenizer: None,
            request: None,
            cost: false,
            committed: Vec::new(),
        }))
    }

    fn words() -> Frame {
        let word = |id| Word {
            id,
            bytes: vec![b'x'; 4096],
            special: false,
        };
        Frame::Words(Words {
            session: SESSION,
            words: (0..256).map(word).collect(),
        })
    }

    fn verdict() -> Frame {
        let told = TokenLogprob {
            id: 1,
            logprob: -1.0,
        };
        let place = TopLogprobs {
            chosen: told,
            top: vec![told; 20],
        };
        Frame::Verdict(Verdict {
            session: SESSION,
            epoch: 0,
            round: 0,
            start: 0,
            accepted: 0,
            next: vec![1; 512],
            idle: false,
            finish: None,
            logprobs: Some(vec![place; 512]),
        })
    }

    /// How many of these fit where nobody takes any.
    fn fit(frame: fn() -> Frame) -> usize {
        let (sender, _receiver) = one_way();
        (0..100_000)
            .take_while(|_| sender.send(frame()) == Ok(()))
            .count()
    }

    #[test]
    fn what_nobody_takes_is_bounded_in_number_and_in_memory() {
        assert_eq!(fit(small), ROOM / FRAME_COST);
        assert_eq!((fit(open), fit(words)), (1, 3));
        // 512 places of 20 alternatives each are more than 160 KiB.
        assert!((1..26).contains(&fit(verdict)), "{}", fit(verdict));
    }

    #[tokio::test]
    async fn what_is_taken_makes_room() {
        let (sender, mut receiver) = one_way();
        for _ in 0..10 {
            sender.send(open()).unwrap();
            assert_eq!(sender.send(open()), Err(Unsent::Full));
            assert_eq!(receiver.recv().await, Some(open()));
        }
        drop(receiver);
        assert_eq!(sender.send(small()), Err(Unsent::Over));
    }

    #[tokio::test]
    async fn a_way_that_is_overrun_is_lost_and_what_came_before_is_not() {
        let (mut edge, mut cloud) = Channel::pair();
        cloud.send(small());
        for _ in 0..=ROOM / FRAME_COST {
            edge.send(small());
        }
        assert_eq!(edge.recv().await, None);
        drop(edge);
        let mut arrived = 0;
        while let Some(frame) = cloud.recv().await {
            assert_eq!(frame, small());
            arrived += 1;
        }
        assert_eq!(arrived, ROOM / FRAME_COST);
    }
}
