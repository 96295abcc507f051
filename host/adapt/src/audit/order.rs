//! Audits in the order in which they were admitted.
//!
//! Short answers end first, and long ones are more often wrong. Counted as they end, a class could open on its short
//! answers alone. So an audit is counted only after all that were admitted before it.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::grid::THRESHOLDS;

/// Audits that may wait for their turn; beyond that the oldest counts as unfinished.
pub const MAX_PENDING: usize = 4096;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Pending {
    request: u64,
    /// The highest threshold at which it disagreed, once it is known.
    first: Option<usize>,
}

/// A queue of audits: admitted at one end, counted at the other.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Order(VecDeque<Pending>);

impl Order {
    /// A request is audited. Nothing where it is already there.
    pub(super) fn admit(&mut self, request: u64) {
        if self.0.iter().any(|pending| pending.request == request) {
            return;
        }
        if self.0.len() >= MAX_PENDING
            && let Some(oldest) = self.0.iter_mut().find(|pending| pending.first.is_none())
        {
            oldest.first = Some(0);
        }
        self.0.push_back(Pending {
            request,
            first: None,
        });
    }

    /// The audit of a request disagreed at the thresholds from `first` on. Whether it was being waited for.
    pub(super) fn finish(&mut self, request: u64, first: usize) -> bool {
        let open = |pending: &&mut Pending| pending.request == request && pending.first.is_none();
        match self.0.iter_mut().find(open) {
            Some(pending) => {
                pending.first = Some(first);
                true
            }
            None => false,
        }
    }

    /// The next to be counted, if it has ended.
    pub(super) fn next(&mut self) -> Option<usize> {
        let first = self.0.front()?.first?;
        self.0.pop_front();
        Some(first)
    }

    /// Nobody will end any more.
    pub(super) fn abandon(&mut self) {
        for pending in &mut self.0 {
            pending.first.get_or_insert(0);
        }
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Audits that are not counted yet.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether this can have come about.
    pub(super) fn is_sound(&self) -> bool {
        let known = |pending: &Pending| pending.first.is_none_or(|first| first <= THRESHOLDS);
        self.0.len() <= MAX_PENDING && self.0.iter().all(known)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_came_first_is_counted_first() {
        let mut order = Order::default();
        for request in [5, 2, 9] {
            order.admit(request);
        }
        order.admit(2);
        assert_eq!(order.len(), 3);
        assert!(order.finish(2, 7) && order.finish(9, THRESHOLDS));
        assert!(!order.finish(2, 8), "once is enough");
        assert!(!order.finish(3, 8), "not audited");
        assert_eq!(order.next(), None);
        order.abandon();
        assert_eq!(order.next(), Some(0));
        assert_eq!(order.next(), Some(7));
        assert_eq!(order.next(), Some(THRESHOLDS));
        assert_eq!((order.next(), order.len()), (None, 0));
    }

    #[test]
    fn what_waits_is_bounded() {
        let mut order = Order::default();
        let mut counted = 0;
        for request in 0..3 * MAX_PENDING as u64 {
            order.admit(request);
            while let Some(first) = order.next() {
                assert_eq!(first, 0);
                counted += 1;
            }
            assert!(order.is_sound());
        }
        assert_eq!(counted, 2 * MAX_PENDING);
    }
}
