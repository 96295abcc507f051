//! One direction of a link on the caller's clock: when messages arrive. Opens nothing and holds no bytes, for simulations.
//!
//! Bandwidth, traces, delay, jitter and stalls are those of [`super::Link`]. What differs: messages pass one after the
//! other, each whole, where connections take turns of a segment; and jitter is drawn a message.
//!
//! ```
//! use msao_link::shaper::{Course, LinkConfig};
//!
//! let config: LinkConfig = toml::from_str("up = { bandwidth = '12 Mbit/s', delay-ms = 40.0 }")?;
//! let (mut up, _down) = Course::pair(&config)?;
//! let first = up.send(100.0, 1500);
//! let second = up.send(100.0, 1500);
//! assert_eq!((first.passed_ms, first.arrives_ms, second.arrives_ms), (101.0, 141.0, 142.0));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::sync::Arc;

use super::config::{ConfigError, DirectionConfig, LinkConfig};
use super::link::{LinkError, supply};
use super::pipe::Delay;
use super::supply::{Cursor, Supply};
use super::{NANOS_PER_MS, Nanos, SEGMENT, nanos_of_ms};

/// Stalls that may hold one message up; after them it passes. Only where stalls follow each other faster than a segment passes.
const MOST_STALLS: usize = 64;
/// Whose jitter is drawn.
const MESSAGES: u32 = 0;
const GLANCES: u32 = 1;

/// When a message has left its sender, and when it is there.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Passage {
    /// The last byte has passed the bottleneck; the next message may.
    pub passed_ms: f64,
    /// The last byte has arrived.
    pub arrives_ms: f64,
}

/// One direction. Times are ms of a clock of the caller's that does not go back; a negative one counts as 0.
#[derive(Clone, Debug)]
pub struct Course {
    supply: Supply,
    delay: Delay,
    key: [u32; 2],
    direction: u32,
    stalls: Stalls,
    /// How far the schedule is ahead of the caller's clock.
    ahead: Nanos,
    cursor: Cursor,
    /// Nothing overtakes what arrives then.
    last_arrival: Nanos,
    messages: u64,
}

impl Course {
    /// Both directions, up and down. Queues and windows are not looked at: the caller holds what it sends.
    ///
    /// # Errors
    /// [`LinkError`]; there are no cuts here, and stalls must leave a gap.
    pub fn pair(config: &LinkConfig) -> Result<(Course, Course), LinkError> {
        config.check()?;
        if !config.cuts.is_empty() {
            return Err(LinkError::Config(ConfigError {
                field: "cuts".to_owned(),
                problem: "has entries; allowed: none, on a clock that nothing is reset by"
                    .to_owned(),
            }));
        }
        let stalls = Stalls::new(config)?;
        let course = |number: u32, name, direction: &DirectionConfig| {
            Ok::<_, LinkError>(Course {
                supply: supply(name, direction)?,
                delay: Delay {
                    mean: nanos_of_ms(direction.delay_ms),
                    jitter: nanos_of_ms(direction.jitter_ms),
                },
                key: key(config.seed),
                direction: number,
                stalls: stalls.clone(),
                ahead: 0,
                cursor: Cursor::default(),
                last_arrival: 0,
                messages: 0,
            })
        };
        let up = course(0, "up", &config.up)?;
        Ok((up, course(1, "down", &config.down)?))
    }

    /// Another link of the same shape, on which nothing has passed: with jitter of its own, and a schedule that many ms
    /// ahead. What traces hold is shared.
    #[must_use]
    pub fn another(&self, seed: u64, ahead_ms: f64) -> Course {
        Course {
            key: key(seed),
            ahead: nanos_of_ms(ahead_ms.max(0.0)),
            cursor: Cursor::default(),
            last_arrival: 0,
            messages: 0,
            ..self.clone()
        }
    }

    /// Sends a message of so many bytes, behind all that were sent before.
    pub fn send(&mut self, now_ms: f64, bytes: u64) -> Passage {
        let now = self.scheduled(now_ms);
        self.cursor = self.pass(self.cursor.free_at.max(now), bytes);
        let takes = self.takes(MESSAGES, self.messages);
        self.messages += 1;
        let arrival = self.cursor.free_at.saturating_add(takes);
        self.last_arrival = self.last_arrival.max(self.stalls.end(arrival));
        Passage {
            passed_ms: self.told_ms(self.cursor.free_at),
            arrives_ms: self.told_ms(self.last_arrival),
        }
    }

    /// When a few bytes that go at `now_ms` would arrive, if nothing were before them. So a heartbeat need not be sent
    /// when it is due, but can be looked at later. `number` draws its jitter.
    pub fn glance_ms(&self, now_ms: f64, number: u64) -> f64 {
        let start = self.stalls.end(self.scheduled(now_ms));
        let arrival = start.saturating_add(self.takes(GLANCES, number));
        self.told_ms(self.stalls.end(arrival))
    }

    /// From one end to the other, without jitter.
    pub fn delay_ms(&self) -> f64 {
        self.delay.mean as f64 / NANOS_PER_MS as f64
    }

    fn scheduled(&self, now_ms: f64) -> Nanos {
        nanos_of_ms(now_ms.max(0.0)).saturating_add(self.ahead)
    }

    fn told_ms(&self, at: Nanos) -> f64 {
        at.saturating_sub(self.ahead) as f64 / NANOS_PER_MS as f64
    }

    fn takes(&self, whose: u32, number: u64) -> Nanos {
        let counter = [number as u32, (number >> 32) as u32, whose, self.direction];
        self.delay.takes(counter, self.key)
    }

    /// Where the supply is once a message that may begin at `start` has passed. As in a pipe, a segment that a stall comes
    /// upon begins again after it.
    fn pass(&self, start: Nanos, bytes: u64) -> Cursor {
        let mut cursor = self.cursor;
        let mut start = self.stalls.end(start);
        let mut left = bytes;
        let segment = SEGMENT as u64;
        for _ in 0..MOST_STALLS {
            let whole = self.supply.serve(cursor, start, left);
            let stall = self.stalls.next(start).filter(|&at| at < whole.free_at);
            let Some(stall) = stall else {
                return whole;
            };
            while left > segment {
                let one = self.supply.serve(cursor, start, segment);
                if one.free_at > stall {
                    break;
                }
                (cursor, start, left) = (one, one.free_at, left - segment);
            }
            start = self.stalls.end(stall);
        }
        self.supply.serve(cursor, start, left)
    }
}

fn key(seed: u64) -> [u32; 2] {
    [seed as u32, (seed >> 32) as u32]
}

/// When nothing passes: begins and ends, rising.
#[derive(Clone, Debug)]
struct Stalls {
    pauses: Arc<[(Nanos, Nanos)]>,
    period: Option<Nanos>,
}

impl Stalls {
    /// The configuration has been checked.
    fn new(config: &LinkConfig) -> Result<Stalls, ConfigError> {
        let nanos = |ms: u64| ms.saturating_mul(NANOS_PER_MS);
        let pauses = config.stalls.iter().map(|pause| {
            let begin = nanos(pause.at_ms);
            (begin, begin.saturating_add(nanos(pause.for_ms)))
        });
        let stalls = Stalls {
            pauses: pauses.collect(),
            period: config.repeat_ms.map(nanos),
        };
        let stalled: Nanos = stalls.pauses.iter().map(|(begin, end)| end - begin).sum();
        if stalls.period.is_some_and(|period| stalled >= period) {
            return Err(ConfigError {
                field: "stalls".to_owned(),
                problem: "last as long as repeat-ms; allowed: less, or nothing ever passes"
                    .to_owned(),
            });
        }
        Ok(stalls)
    }

    /// A moment within its round, and when that round began.
    fn split(&self, at: Nanos) -> (Nanos, Nanos) {
        let within = self.period.map_or(at, |period| at % period.max(1));
        (within, at - within)
    }

    /// The end of the stall that lasts at that moment, and of those right behind it; the moment itself where none does.
    fn end(&self, at: Nanos) -> Nanos {
        let mut at = at;
        // In each round there is a gap, and one round more is looked at than `at` may lie in.
        for _ in 0..=2 * self.pauses.len() {
            let (within, round) = self.split(at);
            let begun = self.pauses.partition_point(|(begin, _)| *begin <= within);
            let last = begun.checked_sub(1).and_then(|last| self.pauses.get(last));
            match last {
                Some((_, end)) if within < *end => at = round.saturating_add(*end),
                _ => return at,
            }
        }
        at
    }

    /// When the first stall begins from that moment on.
    fn next(&self, at: Nanos) -> Option<Nanos> {
        let (within, round) = self.split(at);
        let next = self.pauses.partition_point(|(begin, _)| *begin < within);
        if let Some((begin, _)) = self.pauses.get(next) {
            return Some(round.saturating_add(*begin));
        }
        let (begin, _) = self.pauses.first()?;
        Some(round.saturating_add(self.period?).saturating_add(*begin))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::NANOS_PER_MS as MS;
    use super::super::pipe::Pipe;
    use super::*;

    fn up(text: &str) -> Course {
        let config: LinkConfig = toml::from_str(text).unwrap();
        Course::pair(&config).unwrap().0
    }

    #[test]
    fn a_stall_holds_what_passes_and_what_is_under_way() {
        // As in the pipe's test: 1 ms a packet, 10 ms of delay, nothing from 1 to 50 ms.
        let mut course = up(
            "up = { bandwidth = '12 Mbit/s', delay-ms = 10.0 }\nstalls = [{ at-ms = 1, for-ms = 49 }]",
        );
        let arrives: Vec<f64> = [0.0, 0.0, 2.0]
            .map(|now_ms| course.send(now_ms, 1500).arrives_ms)
            .to_vec();
        assert_eq!(arrives, [50.0, 61.0, 62.0]);
        assert_eq!(course.glance_ms(45.0, 0), 60.0);
        assert_eq!(course.glance_ms(60.0, 0), 70.0);
        // A large message keeps what had passed before the stall.
        let mut course =
            up("up = { bandwidth = '12 Mbit/s' }\nstalls = [{ at-ms = 4, for-ms = 6 }]");
        assert_eq!(course.send(0.0, 15_000).passed_ms, 16.0);
    }

    #[test]
    fn stalls_come_again_and_what_never_ends_is_refused() {
        let mut course = up("stalls = [{ at-ms = 5, for-ms = 5 }]\nrepeat-ms = 10");
        let arrives = [3.0, 7.0, 12.0, 26.0].map(|now_ms| course.send(now_ms, 10).arrives_ms);
        assert_eq!(arrives, [3.0, 10.0, 12.0, 30.0]);
        let text =
            "stalls = [{ at-ms = 0, for-ms = 4 }, { at-ms = 4, for-ms = 6 }]\nrepeat-ms = 10";
        for (text, named) in [
            (text, "link.stalls: last as long as repeat-ms"),
            ("cuts = [{ at-ms = 1 }]", "link.cuts: has entries"),
        ] {
            let config: LinkConfig = toml::from_str(text).unwrap();
            let error = Course::pair(&config).unwrap_err().to_string();
            assert!(error.starts_with(named), "{error}");
        }
    }

    #[test]
    fn jitter_keeps_the_order_and_is_each_links_own() {
        let course = up("seed = 3\nup = { delay-ms = 20.0, jitter-ms = 10.0 }");
        let times = |mut course: Course| -> Vec<f64> {
            (0..200)
                .map(|step| course.send(f64::from(step), 10).arrives_ms)
                .collect()
        };
        let (one, other) = (times(course.another(1, 0.0)), times(course.another(2, 0.0)));
        assert!(one.is_sorted() && other.is_sorted());
        assert_ne!(one, other);
        assert_eq!(one, times(course.another(1, 0.0)));
        assert!((0..200).all(|step| one[step] - step as f64 <= 30.0 + 1e-9));
    }

    #[test]
    fn a_link_that_is_ahead_is_in_another_part_of_its_schedule() {
        let course = up("stalls = [{ at-ms = 5, for-ms = 5 }]\nrepeat-ms = 100");
        assert_eq!(course.another(0, 0.0).send(1.0, 1).arrives_ms, 1.0);
        assert_eq!(course.another(0, 6.0).send(1.0, 1).arrives_ms, 4.0);
    }

    proptest! {
        /// With one connection and no jitter a pipe delivers the last byte at the same moment.
        #[test]
        fn it_is_a_pipe_with_one_lane(
            messages in prop::collection::vec((0_u64..4, 1_usize..1500), 1..40),
            stall in prop::option::of((0_u64..40, 1_u64..20)),
        ) {
            let stalls = stall.map_or(String::new(), |(at, lasts)| {
                format!("stalls = [{{ at-ms = {at}, for-ms = {lasts} }}]")
            });
            let text = format!("up = {{ bandwidth = '6 Mbit/s', delay-ms = 7.0 }}\n{stalls}");
            let mut course = up(&text);
            let supply = Supply::Constant("6 Mbit/s".parse().unwrap());
            let delay = Delay { mean: 7 * MS, jitter: 0 };
            let mut pipe = Pipe::new(supply, delay, 0, 0, 1 << 20, 1 << 20);
            pipe.open(1);
            let (mut now, mut sum, mut last) = (0, 0, 0);
            let mut coming = stall;
            for (gap, bytes) in messages {
                now += gap * MS;
                if let Some((at, lasts)) = coming
                    && at * MS <= now
                {
                    pipe.stall(at * MS, (at + lasts) * MS);
                    coming = None;
                }
                prop_assert_eq!(pipe.push(now, 1, &vec![0; bytes]), bytes);
                let arrives_ms = course.send(now as f64 / MS as f64, bytes as u64).arrives_ms;
                sum += bytes as u64;
                last = (arrives_ms * MS as f64).round() as u64;
            }
            if let Some((at, lasts)) = coming {
                pipe.stall(at * MS, (at + lasts) * MS);
            }
            if stall.is_none() {
                // Each message is rounded up to a ns, and each segment.
                pipe.advance(last - 100);
                prop_assert!(pipe.delivered < sum);
            }
            // A pipe puts what waits together into segments: after a stall up to one of them begins again, which takes 2 ms.
            pipe.advance(last + 2 * MS);
            prop_assert_eq!(pipe.delivered, sum);
        }
    }
}
