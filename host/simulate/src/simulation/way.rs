//! Between edge and cloud: media first, then frames, each way in its order. Frames have the bytes that they would have.

use msao_core::offload::Status;
use msao_session::edge::Event as EdgeEvent;
use msao_session::frame::{Frame, Refused, RefusedCode, encode, limits};

use super::{Event, Simulation};
use crate::run::{Channel, Upload};
use crate::slab::Key;
use crate::traffic::Question;

/// Bytes of media that go at once: behind them a frame has its turn, as on a connection of its own.
const PIECE: u64 = 8 * 1500;
/// A medium of so many bytes is asked for before it is sent (`msao_transport::limits::ASKED_FROM`).
const ASKED_FROM: u64 = 64 << 10;
/// Bytes of an OPEN for each medium: digest, modality, names of fields.
const MEDIUM_BYTES: u64 = 64;
/// After a way was lost, the next is tried after so long, in ms.
const RETRY_MS: f64 = 50.0;
/// A refused session is not tried again later than this, in ms.
const LONGEST_RETRY_MS: f64 = 60_000.0;

impl Simulation<'_> {
    pub(super) fn bytes_of(&mut self, frame: &Frame) -> u64 {
        self.wire.clear();
        let written = encode(frame, limits::NEWEST, &mut self.wire);
        written.map_or(0, |()| self.wire.len() as u64)
    }

    /// The edge says something to its peer; before the first word media are sent.
    pub(super) fn edge_sends(&mut self, key: Key, frame: Frame) {
        let Some(run) = self.runs.get_mut(key) else {
            return;
        };
        match run.channel {
            Channel::Open => self.send_up(key, frame),
            Channel::Uploading => run.outbox.push(frame),
            Channel::Closed => {
                run.outbox.push(frame);
                self.connect(key);
            }
        }
    }

    pub(super) fn connect(&mut self, key: Key) {
        let now_ms = self.now_ms();
        let Some(run) = self.runs.get_mut(key) else {
            return;
        };
        let Some(way) = run.way else {
            return;
        };
        let bytes = run.treated.upload_bytes;
        // What has been sent once is there.
        let first = run.upload.is_none();
        let link = way.link.and_then(|link| self.links.get(link));
        // What the peer is known to have is neither asked for nor sent.
        if let (Some(link), true) = (link, first && bytes > 0) {
            let goes_ms = match run.treated.largest_bytes >= ASKED_FROM {
                true => now_ms + link.up.delay_ms() + link.down.delay_ms(),
                false => now_ms,
            };
            run.channel = Channel::Uploading;
            run.upload = Some(Upload {
                left_bytes: bytes,
                bytes,
                began_ms: now_ms,
                goes_ms,
                passed_ms: goes_ms,
            });
            let event = Event::Piece(key, run.attempt);
            self.agenda.at(goes_ms, event);
            return;
        }
        self.opens_channel(key);
    }

    /// The next piece of the media goes.
    pub(super) fn piece(&mut self, key: Key) {
        let now_ms = self.now_ms();
        let Some(run) = self.runs.get_mut(key) else {
            return;
        };
        let link = run.way.and_then(|way| way.link);
        let Some(link) = link.and_then(|link| self.links.get_mut(link)) else {
            return;
        };
        let (Some(upload), false) = (&mut run.upload, run.ended) else {
            return;
        };
        let mut passage = None;
        while upload.left_bytes > 0 {
            let bytes = upload.left_bytes.min(PIECE);
            let passed = link.up.send(now_ms, bytes);
            upload.left_bytes -= bytes;
            upload.passed_ms = passed.passed_ms;
            link.sent_bytes += bytes;
            run.account.sent_bytes += bytes;
            passage = Some(passed);
            // Where nothing takes time all of it goes at once.
            if passed.passed_ms > now_ms {
                break;
            }
        }
        let Some(passage) = passage else {
            return;
        };
        let attempt = run.attempt;
        if upload.left_bytes > 0 {
            self.agenda
                .at(passage.passed_ms, Event::Piece(key, attempt));
        } else {
            // The peer says when it has all of it.
            let told_ms = passage.arrives_ms + link.down.delay_ms();
            self.agenda.at(told_ms, Event::Uploaded(key, attempt));
        }
    }

    pub(super) fn uploaded(&mut self, key: Key) {
        let now_ms = self.now_ms();
        let Some(run) = self.runs.get_mut(key) else {
            return;
        };
        if let Some(upload) = run.upload {
            run.account.upload_ms += now_ms - upload.began_ms;
            let link = run.way.and_then(|way| way.link);
            if let Some(link) = link.and_then(|link| self.links.get_mut(link)) {
                link.uploaded(now_ms, upload.bytes, upload.passed_ms - upload.goes_ms);
            }
        }
        if !run.ended {
            self.opens_channel(key);
        }
    }

    fn opens_channel(&mut self, key: Key) {
        let Some(run) = self.runs.get_mut(key) else {
            return;
        };
        run.channel = Channel::Open;
        for frame in std::mem::take(&mut run.outbox) {
            self.send_up(key, frame);
        }
    }

    fn send_up(&mut self, key: Key, frame: Frame) {
        let now_ms = self.now_ms();
        let mut bytes = self.bytes_of(&frame);
        let Some(run) = self.runs.get_mut(key) else {
            return;
        };
        if let Frame::Open(_) = &frame {
            let question = self.traffic.questions.get(run.question as usize);
            bytes += question.map_or(0, prompt_bytes);
        }
        let link = run.way.and_then(|way| way.link);
        let mut arrives_ms = now_ms;
        if let Some(link) = link.and_then(|link| self.links.get_mut(link)) {
            arrives_ms = link.up.send(now_ms, bytes).arrives_ms;
            link.sent_bytes += bytes;
            run.account.sent_bytes += bytes;
            let cores = run.way.and_then(|way| self.cores.get(way.node));
            let shared = cores.is_some_and(Option::is_some);
            // A session that is there already goes on with the prompt that it has.
            if matches!(frame, Frame::Open(_)) && run.cloud.is_none() && !shared {
                run.laid_out_ms = arrives_ms + self.costs.cloud.ms(run.treated.target_media);
            }
            arrives_ms = arrives_ms.max(run.laid_out_ms);
        }
        run.up.push_back(frame);
        let event = Event::ToCloud(key, run.attempt);
        self.agenda.at(arrives_ms, event);
    }

    /// The cloud says something to the edge, and so many bytes beside it.
    pub(super) fn send_down(&mut self, key: Key, frame: Frame, more_bytes: u64) {
        let now_ms = self.now_ms();
        let mut bytes = self.bytes_of(&frame) + more_bytes;
        let Some(run) = self.runs.get_mut(key) else {
            return;
        };
        let link = run.way.and_then(|way| way.link);
        let mut arrives_ms = now_ms;
        match link.and_then(|link| self.links.get_mut(link)) {
            Some(link) => {
                arrives_ms = link.down.send(now_ms, bytes).arrives_ms;
                link.received_bytes += bytes;
            }
            // Within a process nothing is counted.
            None => bytes = 0,
        }
        run.down.push_back((frame, bytes));
        let event = Event::ToEdge(key, run.attempt);
        self.agenda.at(arrives_ms, event);
    }

    pub(super) fn reaches_cloud(&mut self, key: Key) {
        if !self.waits_for_prompt(key) {
            self.cloud_takes(key);
        }
    }

    /// Whether the frame that has come waits until the prompt is laid out, by a peer whose cores are shared. An OPEN has that begin.
    fn waits_for_prompt(&mut self, key: Key) -> bool {
        let Some(run) = self.runs.get_mut(key) else {
            return false;
        };
        if let Some(behind) = &mut run.behind {
            *behind += 1;
            return true;
        }
        let opens = matches!(run.up.front(), Some(Frame::Open(_))) && run.cloud.is_none();
        let Some(way) = run.way.filter(|way| opens && way.link.is_some()) else {
            return false;
        };
        let (media, attempt) = (run.treated.target_media, run.attempt);
        let takes_ms = self.costs.cloud.ms(media);
        let shared = self.cores.get(way.node).is_some_and(Option::is_some);
        if takes_ms <= 0.0 || !shared {
            return false;
        }
        run.behind = Some(0);
        self.prepares(way.node, takes_ms, media, Event::LaidOut(key, attempt));
        true
    }

    /// The session is opened, and then comes what came meanwhile.
    pub(super) fn laid_out(&mut self, key: Key) {
        let run = self.runs.get_mut(key);
        let Some(behind) = run.and_then(|run| run.behind.take()) else {
            return;
        };
        for _ in 0..=behind {
            self.cloud_takes(key);
        }
    }

    fn cloud_takes(&mut self, key: Key) {
        let frame = self.runs.get_mut(key).and_then(|run| run.up.pop_front());
        if let Some(frame) = frame {
            self.arrives_at_cloud(key, frame);
            self.forget(key);
        }
    }

    pub(super) fn reaches_edge(&mut self, key: Key) {
        let Some(run) = self.runs.get_mut(key) else {
            return;
        };
        let Some((frame, bytes)) = run.down.pop_front() else {
            return;
        };
        if run.ended {
            self.tally.late_bytes += bytes;
            return;
        }
        run.account.received_bytes += bytes;
        match frame {
            Frame::Verdict(verdict) => {
                self.tell_of_peer(key);
                self.tell_edge(key, EdgeEvent::Verdict(verdict));
            }
            Frame::Refused(refused) => self.turned_away(key, &refused),
            _ => {}
        }
    }

    /// With each verdict the machine learns how the peer is now.
    fn tell_of_peer(&mut self, key: Key) {
        let now_ms = self.now_ms();
        let Some(way) = self.runs.get(key).and_then(|run| run.way) else {
            return;
        };
        let Some(there) = self.nodes.get(way.node) else {
            return;
        };
        let (rtt_ms, queue_ms) = match way.link {
            Some(link) => {
                let Some(link) = self.links.get_mut(link) else {
                    return;
                };
                link.look(now_ms, &there.told);
                link.figures()
            }
            None => (0.0, there.figures(now_ms, &self.engines).queue_ms),
        };
        let run = self.runs.get_mut(key);
        if let Some(machine) = run.and_then(|run| run.machine.as_mut()) {
            // It only takes note.
            let _nothing = machine.advance(now_ms, EdgeEvent::Peer { rtt_ms, queue_ms });
        }
    }

    /// The peer will not. Before the first token somebody else is asked; later it is tried again where that has sense.
    fn turned_away(&mut self, key: Key, refused: &Refused) {
        let now_ms = self.now_ms();
        let Some(run) = self.runs.get_mut(key) else {
            return;
        };
        run.channel = Channel::Closed;
        run.outbox.clear();
        let silent = run.account.first_ms.is_none();
        if silent && run.decided.replanned {
            return self.finish(key, Status::Refused);
        }
        if silent {
            return self.plan_again(key);
        }
        run.refused = refused.code != RefusedCode::Overloaded;
        if !run.refused {
            let wait_ms = refused.retry_after_ms.clamp(RETRY_MS, LONGEST_RETRY_MS);
            let event = Event::Again(key, run.attempt);
            self.agenda.at(now_ms + wait_ms, event);
        }
        self.tell_edge(key, EdgeEvent::Refused);
    }

    /// There is a way again.
    pub(super) fn again(&mut self, key: Key) {
        let Some(run) = self.runs.get_mut(key) else {
            return;
        };
        if !run.ended && run.channel == Channel::Closed {
            run.channel = Channel::Open;
            self.tell_edge(key, EdgeEvent::PeerBack);
        }
    }
}

/// What an OPEN has of the prompt: the chat's text, and its media by name.
fn prompt_bytes(question: &Question) -> u64 {
    question.text_bytes.ceil() as u64 + MEDIUM_BYTES * question.media.len() as u64
}
