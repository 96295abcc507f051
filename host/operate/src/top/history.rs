//! What a node said lately, and the rates that follow from it.

use std::collections::VecDeque;

use crate::glance::Glance;

/// Looks that are kept: two minutes of them.
const KEPT: usize = 120;
/// Rates of bytes and routes are taken over so long: shorter ones jump, longer ones lag.
pub const SHORT_S: f64 = 5.0;
/// What counts as recent.
pub const RECENT_S: f64 = 60.0;

/// The newest looks at a node.
#[derive(Debug, Default)]
pub struct History {
    looks: VecDeque<(f64, Glance)>,
}

impl History {
    /// Takes a look at `at_s` on a clock that never goes back. After a restart of the node nothing before counts.
    pub fn push(&mut self, at_s: f64, glance: Glance) {
        let restarted = self.latest().is_some_and(|before| {
            before.started_s != glance.started_s || before.over > glance.over
        });
        if restarted {
            self.looks.clear();
        }
        self.looks.push_back((at_s, glance));
        while self.looks.len() > KEPT {
            self.looks.pop_front();
        }
    }

    /// The newest look.
    pub fn latest(&self) -> Option<&Glance> {
        self.looks.back().map(|(_, glance)| glance)
    }

    /// The newest look and the oldest within `window_s` of it, and the time between them.
    fn span(&self, window_s: f64) -> Option<(&Glance, &Glance, f64)> {
        let (end, newest) = self.looks.back()?;
        let (begin, oldest) = self.looks.iter().find(|(at, _)| end - at <= window_s)?;
        let time = end - begin;
        (time > 0.0).then_some((oldest, newest, time))
    }

    /// How fast a count has risen within `window_s`, a second; `None` before the second look.
    pub fn rate(&self, window_s: f64, count: impl Fn(&Glance) -> u64) -> Option<f64> {
        let (oldest, newest, time) = self.span(window_s)?;
        Some(count(newest).saturating_sub(count(oldest)) as f64 / time)
    }

    /// What part of a whole was so within `window_s`; `None` where there was nothing of it.
    pub fn part(&self, window_s: f64, part: impl Fn(&Glance) -> (u64, u64)) -> Option<f64> {
        let (oldest, newest, _) = self.span(window_s)?;
        let ((before, whole_before), (now, whole)) = (part(oldest), part(newest));
        let whole = whole.saturating_sub(whole_before);
        (whole > 0).then(|| now.saturating_sub(before) as f64 / whole as f64)
    }

    /// The same between each look and the one before it, oldest first.
    pub fn rates(&self, count: impl Fn(&Glance) -> u64) -> Vec<f64> {
        let pairs = self.looks.iter().zip(self.looks.iter().skip(1));
        let rate = |((begin, before), (end, after)): (&(f64, Glance), &(f64, Glance))| {
            let time = (end - begin).max(1e-3);
            count(after).saturating_sub(count(before)) as f64 / time
        };
        pairs.map(rate).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(over: u64, drafted: u64, accepted: u64) -> Glance {
        Glance {
            over,
            drafted,
            accepted,
            started_s: Some(1.0),
            ..Glance::default()
        }
    }

    #[test]
    fn rates_are_taken_over_their_window() {
        let mut history = History::default();
        assert_eq!(history.rate(SHORT_S, |it| it.over), None);
        for second in 0..100 {
            // 10 a second, then 2 a second in the last five.
            let over = if second < 95 {
                second * 10
            } else {
                940 + (second - 94) * 2
            };
            history.push(second as f64, look(over, second * 4, second));
        }
        assert_eq!(history.rate(SHORT_S, |it| it.over), Some(2.0));
        assert!(history.rate(RECENT_S, |it| it.over).unwrap() > 9.0);
        assert_eq!(
            history.part(RECENT_S, |it| (it.accepted, it.drafted)),
            Some(0.25)
        );
        assert_eq!(history.rates(|it| it.over).len(), 99);
        assert_eq!(history.rates(|it| it.over).last(), Some(&2.0));
    }

    #[test]
    fn a_restart_begins_anew_and_little_is_kept() {
        let mut history = History::default();
        for second in 0..1000 {
            history.push(second as f64, look(second, 0, 0));
        }
        assert_eq!(history.looks.len(), KEPT);
        assert_eq!(history.part(RECENT_S, |it| (it.accepted, it.drafted)), None);
        let restarted = Glance {
            started_s: Some(2.0),
            ..look(5000, 0, 0)
        };
        history.push(1000.0, restarted);
        assert_eq!(history.rate(SHORT_S, |it| it.over), None);
    }
}
