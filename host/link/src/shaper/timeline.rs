//! When stalls and cuts come.

use super::config::{LinkConfig, Pause};
use super::{NANOS_PER_MS, Nanos};

/// What happens to a link at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// Nothing passes for so long.
    Stall(Nanos),
    /// Connections are reset, and none can be had for so long.
    Cut(Nanos),
}

/// The planned events, one after the other.
#[derive(Debug, Default)]
pub(super) struct Timeline {
    /// In the order of time.
    events: Vec<(Nanos, Event)>,
    period: Option<Nanos>,
    /// The event that comes next, and when its round began.
    next: usize,
    round: Nanos,
}

impl Timeline {
    /// The configuration has been checked.
    pub(super) fn new(config: &LinkConfig) -> Timeline {
        let nanos = |ms: u64| ms.saturating_mul(NANOS_PER_MS);
        let event = |pause: &Pause, event: fn(Nanos) -> Event| {
            (nanos(pause.at_ms), event(nanos(pause.for_ms)))
        };
        let stalls = config.stalls.iter().map(|pause| event(pause, Event::Stall));
        let cuts = config.cuts.iter().map(|pause| event(pause, Event::Cut));
        let mut events: Vec<_> = stalls.chain(cuts).collect();
        events.sort_by_key(|(at, _)| *at);
        Timeline {
            events,
            period: config.repeat_ms.map(nanos),
            next: 0,
            round: 0,
        }
    }

    /// When the next event comes; `Nanos::MAX` if none does.
    pub(super) fn due(&self) -> Nanos {
        let event = self.events.get(self.next);
        event.map_or(Nanos::MAX, |(at, _)| self.round.saturating_add(*at))
    }

    /// The next event, if it is due by `now`, and its moment.
    pub(super) fn pop(&mut self, now: Nanos) -> Option<(Nanos, Event)> {
        let at = self.due();
        if at > now {
            return None;
        }
        let (_, event) = self.events.get(self.next).copied()?;
        self.next += 1;
        if let Some(period) = self.period
            && self.next == self.events.len()
        {
            self.next = 0;
            self.round = self.round.saturating_add(period);
        }
        Some((at, event))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_in_order_and_again() {
        let config: LinkConfig = toml::from_str(
            "stalls = [{ at-ms = 5, for-ms = 2 }]\ncuts = [{ at-ms = 3 }]\nrepeat-ms = 10",
        )
        .unwrap();
        let mut timeline = Timeline::new(&config);
        assert_eq!(timeline.pop(2 * NANOS_PER_MS), None);
        let moments: Vec<_> = std::iter::from_fn(|| timeline.pop(16 * NANOS_PER_MS))
            .map(|(at, event)| (at / NANOS_PER_MS, event))
            .collect();
        let (cut, stall) = (Event::Cut(0), Event::Stall(2 * NANOS_PER_MS));
        assert_eq!(moments, [(3, cut), (5, stall), (13, cut), (15, stall)]);
        assert_eq!(timeline.due(), 23 * NANOS_PER_MS);
        assert_eq!(Timeline::default().due(), Nanos::MAX);
    }
}
