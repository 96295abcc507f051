//! One direction of a link: lanes that share a bottleneck, then a delay. Knows no clock: it is told the time.

use std::collections::BTreeMap;
use std::io;
use std::task::Waker;

use msao_core::sampling::philox4x32_10;

use super::lane::{Lane, Taken};
use super::supply::{Cursor, Supply};
use super::{Nanos, SEGMENT};

/// How long bytes take once they have passed the bottleneck.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Delay {
    pub(super) mean: Nanos,
    /// At most `mean`.
    pub(super) jitter: Nanos,
}

impl Delay {
    /// How long one thing is under way: uniform about the mean, a function of counter and key.
    pub(super) fn takes(self, counter: [u32; 4], key: [u32; 2]) -> Nanos {
        let Delay { mean, jitter } = self;
        if jitter == 0 {
            return mean;
        }
        let [low, high, ..] = philox4x32_10(counter, key);
        let draw = (u64::from(high) << 32) | u64::from(low);
        let spread = (u128::from(draw) * (2 * u128::from(jitter) + 1)) >> 64;
        (mean - jitter.min(mean)).saturating_add(spread as Nanos)
    }
}

/// A segment that passes the bottleneck.
#[derive(Clone, Copy, Debug)]
struct Passing {
    lane: u64,
    bytes: usize,
    /// Once it has passed.
    cursor: Cursor,
}

/// The lanes of a direction by the number of their connection, and what they share.
#[derive(Debug)]
pub(super) struct Pipe {
    supply: Supply,
    delay: Delay,
    /// Key and direction of the jitter's randomness.
    key: [u32; 2],
    direction: u32,
    queue_bytes: usize,
    window_bytes: usize,
    lanes: BTreeMap<u64, Lane>,
    cursor: Cursor,
    passing: Option<Passing>,
    /// Who had the last turn.
    turn: u64,
    /// Nothing begins to pass before: the end of a stall, or when the first byte came after nothing had waited.
    not_before: Nanos,
    idle: bool,
    /// Bytes that came in and that came out.
    pub(super) accepted: u64,
    pub(super) delivered: u64,
    /// Whoever has something new to see, to be woken once the lock is free.
    pub(super) wake: Vec<Waker>,
}

impl Pipe {
    pub(super) fn new(
        supply: Supply,
        delay: Delay,
        seed: u64,
        direction: u32,
        queue_bytes: usize,
        window_bytes: usize,
    ) -> Pipe {
        Pipe {
            supply,
            delay,
            key: [seed as u32, (seed >> 32) as u32],
            direction,
            queue_bytes,
            window_bytes,
            lanes: BTreeMap::new(),
            cursor: Cursor::default(),
            passing: None,
            turn: 0,
            not_before: 0,
            idle: true,
            accepted: 0,
            delivered: 0,
            wake: Vec::new(),
        }
    }

    pub(super) fn open(&mut self, lane: u64) {
        self.lanes.insert(lane, Lane::new());
    }

    pub(super) fn remove(&mut self, lane: u64) {
        self.forget_passing(lane);
        if let Some(mut gone) = self.lanes.remove(&lane) {
            // Dropping a waker may run anything; that must not happen under the lock.
            self.wake.extend(gone.reader.take());
            self.wake.extend(gone.writer.take());
        }
    }

    pub(super) fn lane(&mut self, lane: u64) -> Option<&mut Lane> {
        self.lanes.get_mut(&lane)
    }

    pub(super) fn mean_delay(&self) -> Nanos {
        self.delay.mean
    }

    /// Bytes that wait, are under way or are unread.
    pub(super) fn held(&self) -> usize {
        (self.lanes.values())
            .map(|lane| lane.queued() + lane.sent())
            .sum()
    }

    /// What a lane may still queue: its share among those that have something waiting, if nobody holds more than theirs
    /// yet. A segment it may always have, so that all of them move.
    pub(super) fn room(&self, lane: u64) -> usize {
        let (mut own, mut total, mut waiting) = (0, 0, 1);
        for (&number, other) in &self.lanes {
            let queued = other.queued();
            total += queued;
            if number == lane {
                own = queued;
            } else if queued > 0 {
                waiting += 1;
            }
        }
        let free = self.queue_bytes.saturating_sub(total);
        let share = (self.queue_bytes / waiting).saturating_sub(own);
        share.min(free).max(SEGMENT.saturating_sub(own))
    }

    /// Queues as much of `bytes` as there is room for, and says how much that is.
    pub(super) fn push(&mut self, now: Nanos, lane: u64, bytes: &[u8]) -> usize {
        // What happened before comes first: it makes room.
        self.advance(now);
        let bytes = bytes.get(..self.room(lane)).unwrap_or(bytes);
        let Some(open) = self.lanes.get_mut(&lane) else {
            return 0;
        };
        open.push(bytes);
        self.accepted += bytes.len() as u64;
        self.advance(now);
        bytes.len()
    }

    /// Reads what has arrived.
    pub(super) fn take(
        &mut self,
        now: Nanos,
        lane: u64,
        most: usize,
        put: impl FnMut(&[u8]),
    ) -> Taken {
        self.advance(now);
        let Some(open) = self.lanes.get_mut(&lane) else {
            return Taken::End;
        };
        let taken = open.take(most, put);
        // The window has room again.
        self.advance(now);
        taken
    }

    pub(super) fn close(&mut self, now: Nanos, lane: u64) {
        self.advance(now);
        let number = self.lanes.get_mut(&lane).map_or(0, Lane::next_segment);
        let arrival = now.saturating_add(self.takes(lane, number));
        if let Some(open) = self.lanes.get_mut(&lane) {
            open.close(arrival);
        }
        self.advance(now);
    }

    pub(super) fn fail(&mut self, lane: u64, failure: io::ErrorKind) {
        self.forget_passing(lane);
        if let Some(failed) = self.lanes.get_mut(&lane) {
            failed.fail(failure);
            self.wake.extend(failed.reader.take());
            self.wake.extend(failed.writer.take());
        }
    }

    pub(super) fn fail_all(&mut self, failure: io::ErrorKind) {
        let lanes: Vec<u64> = self.lanes.keys().copied().collect();
        lanes.into_iter().for_each(|lane| self.fail(lane, failure));
    }

    pub(super) fn abandon(&mut self, lane: u64) {
        self.forget_passing(lane);
        if let Some(left) = self.lanes.get_mut(&lane) {
            left.abandon();
            self.wake.extend(left.writer.take());
        }
    }

    /// Nothing passes or arrives from `now` until `until`. What was passing begins again after that.
    pub(super) fn stall(&mut self, now: Nanos, until: Nanos) {
        self.advance(now);
        self.passing = None;
        self.not_before = self.not_before.max(until);
        self.lanes.values_mut().for_each(|lane| lane.hold(until));
    }

    pub(super) fn set_supply(&mut self, now: Nanos, supply: Supply) {
        self.advance(now);
        self.passing = None;
        self.supply = supply;
        self.cursor = self.cursor.anew();
        self.not_before = self.not_before.max(now);
    }

    pub(super) fn set_delay(&mut self, now: Nanos, delay: Delay) {
        self.advance(now);
        self.delay = delay;
    }

    /// Does what is due by `now`.
    pub(super) fn advance(&mut self, now: Nanos) {
        self.pass(now);
        for lane in self.lanes.values_mut() {
            let (bytes, news) = lane.arrive(now);
            self.delivered += bytes as u64;
            if news {
                self.wake.extend(lane.reader.take());
            }
        }
    }

    /// When something is due next; `Nanos::MAX` if nothing is.
    pub(super) fn due(&self) -> Nanos {
        let arrivals = self.lanes.values().map(Lane::next_arrival);
        let passing = self.passing.map(|passing| passing.cursor.free_at);
        arrivals.chain(passing).min().unwrap_or(Nanos::MAX)
    }

    /// Lets segments through the bottleneck, in turns.
    fn pass(&mut self, now: Nanos) {
        loop {
            let Some(passing) = self.passing.or_else(|| self.begin(now)) else {
                return;
            };
            if passing.cursor.free_at > now {
                self.passing = Some(passing);
                return;
            }
            self.passing = None;
            self.cursor = passing.cursor;
            let number = (self.lanes.get_mut(&passing.lane)).map_or(0, Lane::next_segment);
            let takes = self.takes(passing.lane, number);
            if let Some(lane) = self.lanes.get_mut(&passing.lane) {
                lane.send(passing.bytes, passing.cursor.free_at.saturating_add(takes));
                self.wake.extend(lane.writer.take());
            }
        }
    }

    /// The next segment, if one may begin.
    fn begin(&mut self, now: Nanos) -> Option<Passing> {
        let window = self.window_bytes;
        let may_send = |(number, lane): (&u64, &Lane)| {
            let room = window.saturating_sub(lane.sent()).min(lane.queued());
            (room > 0).then_some((*number, room))
        };
        let after = self.lanes.range(self.turn.saturating_add(1)..);
        let next = (after.chain(self.lanes.range(..=self.turn))).find_map(may_send);
        let Some((lane, most)) = next else {
            self.idle = true;
            return None;
        };
        if self.idle {
            self.idle = false;
            self.not_before = self.not_before.max(now);
        }
        self.turn = lane;
        let bytes = match self.supply {
            Supply::Unlimited => most,
            Supply::Constant(_) | Supply::Trace(..) => most.min(SEGMENT),
        };
        let start = self.cursor.free_at.max(self.not_before);
        Some(Passing {
            lane,
            bytes,
            cursor: self.supply.serve(self.cursor, start, bytes as u64),
        })
    }

    /// How long a segment is under way: a function of seed, direction, connection and number.
    fn takes(&self, lane: u64, segment: u64) -> Nanos {
        let counter = [
            segment as u32,
            (segment >> 32) as u32,
            lane as u32,
            self.direction,
        ];
        self.delay.takes(counter, self.key)
    }

    fn forget_passing(&mut self, lane: u64) {
        if self.passing.is_some_and(|passing| passing.lane == lane) {
            self.passing = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::NANOS_PER_MS as MS;
    use super::*;

    fn pipe(bandwidth: &str, delay: Delay) -> Pipe {
        let supply = Supply::Constant(bandwidth.parse().unwrap());
        let mut pipe = Pipe::new(supply, delay, 7, 0, 64 << 10, 1 << 20);
        pipe.open(1);
        pipe.open(2);
        pipe
    }

    fn read(pipe: &mut Pipe, now: Nanos, lane: u64) -> usize {
        match pipe.take(now, lane, usize::MAX, |_| {}) {
            Taken::Bytes(bytes) => bytes,
            Taken::Nothing | Taken::End => 0,
        }
    }

    #[test]
    fn a_lane_that_comes_later_does_not_pass_before_it_came() {
        // A packet takes 12 ms. The small one waits for the large one that has begun.
        let mut pipe = pipe("1 Mbit/s", Delay::default());
        assert_eq!(pipe.push(0, 1, &[0; 3000]), 3000);
        assert_eq!(pipe.push(6 * MS, 2, &[0; 125]), 125);
        assert_eq!(pipe.due(), 12 * MS);
        assert_eq!(read(&mut pipe, 12 * MS, 2), 0);
        assert_eq!(read(&mut pipe, 13 * MS, 2), 125);
        assert_eq!(read(&mut pipe, 24 * MS, 1), 1500);
        assert_eq!(read(&mut pipe, 25 * MS, 1), 1500);
        // What an idle link could have carried is lost.
        assert_eq!(pipe.push(100 * MS, 1, &[0; 1500]), 1500);
        assert_eq!(pipe.due(), 112 * MS);
    }

    #[test]
    fn a_full_window_stops_a_lane_and_not_the_other() {
        let mut pipe = Pipe::new(Supply::Unlimited, Delay::default(), 0, 0, 8 << 10, 4 << 10);
        pipe.open(1);
        pipe.open(2);
        // The queue and the window.
        let mut accepted = 0;
        for _ in 0..10 {
            accepted += pipe.push(0, 1, &[0; 4096]);
        }
        assert_eq!((accepted, pipe.held()), (12_288, 12_288));
        assert_eq!(pipe.push(0, 2, &[0; 100]), 100);
        assert_eq!(read(&mut pipe, 0, 2), 100);
        assert_eq!(read(&mut pipe, 0, 1), 4096);
        assert_eq!(pipe.push(0, 1, &[0; 4096]), 4096);
    }

    #[test]
    fn a_stall_delays_all_that_is_there_or_comes() {
        let delay = Delay {
            mean: 10 * MS,
            jitter: 0,
        };
        let mut pipe = pipe("12 Mbit/s", delay);
        pipe.push(0, 1, &[0; 3000]);
        pipe.stall(MS, 50 * MS);
        pipe.push(2 * MS, 2, &[0; 1500]);
        pipe.advance(49 * MS);
        assert_eq!(pipe.delivered, 0);
        // The one under way arrives at the end of the stall, the others a packet's time and the delay after it.
        for (at, delivered) in [(50, 1500), (61, 3000), (62, 4500)] {
            pipe.advance(at * MS - 1);
            assert!(pipe.delivered < delivered);
            pipe.advance(at * MS);
            assert_eq!(pipe.delivered, delivered, "{at}");
        }
    }

    #[test]
    fn jitter_is_uniform_and_its_own_for_each_seed_and_lane() {
        let delay = Delay {
            mean: 20 * MS,
            jitter: 5 * MS,
        };
        let pipe = pipe("1 Gbit/s", delay);
        let mut draws: Vec<Nanos> = (0..10_000).map(|segment| pipe.takes(1, segment)).collect();
        assert_ne!(
            draws[..100],
            (0..100).map(|s| pipe.takes(2, s)).collect::<Vec<_>>()[..]
        );
        draws.sort_unstable();
        // Kolmogorov and Smirnov's distance of 10,000 draws: below 0.0195 in 999 of 1,000 cases.
        let distance = draws.iter().enumerate().fold(0.0_f64, |most, (i, &draw)| {
            let expected = (draw as f64 / MS as f64 - 15.0) / 10.0;
            most.max((expected - i as f64 / 1e4).abs())
        });
        assert!(distance < 0.0195, "{distance}");
    }
}
