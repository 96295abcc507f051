//! Work that was planned onto a node and has not begun.

use std::collections::BTreeMap;

use super::amount;

/// What policies have planned onto a node, request by request, so that the next request sees it before the node's own
/// queue does.
///
/// Whoever plans must also say when the work has begun, or that it never will.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PlannedWork {
    requests: BTreeMap<u64, f64>,
}

impl PlannedWork {
    /// Request number `request` will take about `work_ms`. Another plan for the same request takes its place; work that
    /// cannot be counts as none.
    pub fn plan(&mut self, request: u64, work_ms: f64) {
        let work_ms = if amount(work_ms) { work_ms } else { 0.0 };
        self.requests.insert(request, work_ms);
    }

    /// The request has begun there, ran elsewhere, or is gone. Says whether it was planned.
    pub fn settle(&mut self, request: u64) -> bool {
        self.requests.remove(&request).is_some()
    }

    /// The node is gone, and with it all that was planned.
    pub fn clear(&mut self) {
        self.requests.clear();
    }

    /// All of it, in ms. Summed anew each time: a running sum would drift away from 0.
    pub fn total_ms(&self) -> f64 {
        self.requests.values().sum::<f64>().clamp(0.0, f64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_settled_leaves_nothing_behind() {
        let mut planned = PlannedWork::default();
        assert_eq!(planned.total_ms(), 0.0);
        planned.plan(1, 0.1);
        planned.plan(2, 0.2);
        planned.plan(2, 0.3);
        planned.plan(3, f64::NAN);
        assert_eq!(planned.total_ms(), 0.4);
        assert!(planned.settle(1) && planned.settle(2) && planned.settle(3));
        assert!(!planned.settle(3));
        assert_eq!(planned.total_ms(), 0.0);
        planned.plan(4, f64::MAX);
        planned.plan(5, f64::MAX);
        assert_eq!(planned.total_ms(), f64::MAX);
        planned.clear();
        assert_eq!(planned.total_ms(), 0.0);
    }
}
