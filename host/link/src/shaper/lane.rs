//! One direction of one connection: bytes that wait, that are under way, and that have arrived.

use std::collections::VecDeque;
use std::io;
use std::task::Waker;

use super::Nanos;

/// The end of a stream, on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fin {
    /// More may be written.
    Open,
    /// Follows what waits.
    Queued,
    /// Comes out then.
    Sent(Nanos),
    /// Has come out.
    Arrived,
}

/// What a reader finds.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// So many bytes, at least one.
    Bytes(usize),
    /// Nothing yet.
    Nothing,
    /// The end of the stream.
    End,
}

/// In one ring lie, from the front: what has arrived, what is under way, what waits to be sent.
#[derive(Debug)]
pub(super) struct Lane {
    bytes: VecDeque<u8>,
    arrived: usize,
    /// Bytes under way, by when they arrive.
    under_way: VecDeque<(Nanos, usize)>,
    under_way_bytes: usize,
    fin: Fin,
    /// Nothing overtakes what arrives then.
    last_arrival: Nanos,
    /// Segments so far, by which jitter is drawn.
    segments: u64,
    failure: Option<io::ErrorKind>,
    /// Nobody will read any more.
    abandoned: bool,
    /// Who writes into the lane, if there was no room.
    pub(super) writer: Option<Waker>,
    /// Who reads from it, if there was nothing.
    pub(super) reader: Option<Waker>,
}

impl Lane {
    pub(super) fn new() -> Lane {
        Lane {
            bytes: VecDeque::new(),
            arrived: 0,
            under_way: VecDeque::new(),
            under_way_bytes: 0,
            fin: Fin::Open,
            last_arrival: 0,
            segments: 0,
            failure: None,
            abandoned: false,
            writer: None,
            reader: None,
        }
    }

    /// Bytes that wait to be sent.
    pub(super) fn queued(&self) -> usize {
        self.bytes.len() - self.sent()
    }

    /// Bytes that are under way or unread.
    pub(super) fn sent(&self) -> usize {
        self.arrived + self.under_way_bytes
    }

    pub(super) fn failure(&self) -> Option<io::ErrorKind> {
        self.failure
    }

    pub(super) fn is_abandoned(&self) -> bool {
        self.abandoned
    }

    /// Whether nothing more may be written.
    pub(super) fn is_closed(&self) -> bool {
        self.fin != Fin::Open
    }

    /// Queues `bytes`, for which the caller has seen that there is room.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend(bytes);
    }

    /// The number by which the jitter of the next segment is drawn.
    pub(super) fn next_segment(&mut self) -> u64 {
        self.segments += 1;
        self.segments
    }

    /// Sends the first `bytes` that wait; they arrive at `arrival`, or with those before them if that is later.
    pub(super) fn send(&mut self, bytes: usize, arrival: Nanos) {
        let bytes = bytes.min(self.queued());
        self.last_arrival = self.last_arrival.max(arrival);
        self.under_way.push_back((self.last_arrival, bytes));
        self.under_way_bytes += bytes;
        if self.fin == Fin::Queued && self.queued() == 0 {
            self.fin = Fin::Sent(self.last_arrival);
        }
    }

    /// Ends the stream after what waits; with nothing waiting the end arrives at `arrival`.
    pub(super) fn close(&mut self, arrival: Nanos) {
        if self.fin != Fin::Open {
            return;
        }
        self.fin = Fin::Queued;
        if self.queued() == 0 {
            self.last_arrival = self.last_arrival.max(arrival);
            self.fin = Fin::Sent(self.last_arrival);
        }
    }

    /// Nothing that is under way arrives before `until`.
    pub(super) fn hold(&mut self, until: Nanos) {
        self.last_arrival = self.last_arrival.max(until);
        for (arrival, _) in &mut self.under_way {
            *arrival = (*arrival).max(until);
        }
        if let Fin::Sent(arrival) = &mut self.fin {
            *arrival = (*arrival).max(until);
        }
    }

    /// Lets in what arrives by `now`; the bytes of it, and whether the reader has something new to see.
    pub(super) fn arrive(&mut self, now: Nanos) -> (usize, bool) {
        let mut new = 0;
        while let Some((_, bytes)) = self.under_way.pop_front_if(|(arrival, _)| *arrival <= now) {
            new += bytes;
        }
        self.under_way_bytes -= new;
        self.arrived += new;
        let ends = matches!(self.fin, Fin::Sent(arrival) if arrival <= now);
        if ends {
            self.fin = Fin::Arrived;
        }
        (new, ends || new > 0)
    }

    /// When something arrives next; `Nanos::MAX` if nothing is under way.
    pub(super) fn next_arrival(&self) -> Nanos {
        let bytes = self.under_way.front().map(|(arrival, _)| *arrival);
        let end = match self.fin {
            Fin::Sent(arrival) => Some(arrival),
            _ => None,
        };
        bytes.or(end).unwrap_or(Nanos::MAX)
    }

    /// Reads up to `most` bytes that have arrived, in one or two pieces.
    pub(super) fn take(&mut self, most: usize, mut put: impl FnMut(&[u8])) -> Taken {
        let bytes = most.min(self.arrived);
        if bytes == 0 {
            let ended = self.fin == Fin::Arrived && self.arrived == 0;
            return if ended { Taken::End } else { Taken::Nothing };
        }
        let (front, back) = self.bytes.as_slices();
        let of_front = bytes.min(front.len());
        put(front.get(..of_front).unwrap_or_default());
        if bytes > of_front {
            put(back.get(..bytes - of_front).unwrap_or_default());
        }
        self.bytes.drain(..bytes);
        self.arrived -= bytes;
        if self.bytes.is_empty() {
            // An idle connection holds no memory.
            self.bytes = VecDeque::new();
        }
        Taken::Bytes(bytes)
    }

    /// Drops all bytes; from now on both sides see `failure`, the first one if there are several.
    pub(super) fn fail(&mut self, failure: io::ErrorKind) {
        self.failure.get_or_insert(failure);
        self.clear();
    }

    /// Nobody reads any more: what is there is dropped.
    pub(super) fn abandon(&mut self) {
        self.abandoned = true;
        self.clear();
    }

    fn clear(&mut self) {
        self.bytes = VecDeque::new();
        self.under_way = VecDeque::new();
        (self.arrived, self.under_way_bytes) = (0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(lane: &mut Lane, most: usize) -> (Taken, Vec<u8>) {
        let mut bytes = Vec::new();
        let taken = lane.take(most, |piece| bytes.extend_from_slice(piece));
        (taken, bytes)
    }

    #[test]
    fn bytes_arrive_in_order_and_the_end_after_them() {
        let mut lane = Lane::new();
        lane.push(b"abcdef");
        lane.send(4, 20);
        lane.close(0);
        // Drawn to arrive earlier, but does not overtake.
        lane.send(2, 10);
        assert_eq!(
            (lane.queued(), lane.sent(), lane.next_arrival()),
            (0, 6, 20)
        );
        assert_eq!(lane.arrive(19), (0, false));
        assert_eq!(take(&mut lane, 9).0, Taken::Nothing);
        assert_eq!(lane.arrive(20), (6, true));
        assert_eq!(take(&mut lane, 5), (Taken::Bytes(5), b"abcde".to_vec()));
        assert_eq!(take(&mut lane, 5), (Taken::Bytes(1), b"f".to_vec()));
        assert_eq!(take(&mut lane, 5).0, Taken::End);
    }

    #[test]
    fn a_stall_holds_what_is_under_way() {
        let mut lane = Lane::new();
        lane.push(b"ab");
        lane.send(1, 10);
        lane.hold(50);
        lane.send(1, 30);
        lane.close(40);
        assert_eq!(lane.arrive(49), (0, false));
        assert_eq!(lane.arrive(50), (2, true));
    }

    #[test]
    fn a_failure_drops_everything() {
        let mut lane = Lane::new();
        lane.push(b"abc");
        lane.send(1, 0);
        lane.fail(io::ErrorKind::ConnectionReset);
        lane.fail(io::ErrorKind::BrokenPipe);
        assert_eq!(lane.failure(), Some(io::ErrorKind::ConnectionReset));
        assert_eq!(
            (lane.queued(), lane.sent(), lane.next_arrival()),
            (0, 0, Nanos::MAX)
        );
    }
}
