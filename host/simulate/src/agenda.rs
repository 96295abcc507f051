//! The virtual clock: what happens when. Nothing here waits.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

struct Entry<E> {
    at_ms: f64,
    number: u64,
    event: E,
}

impl<E> PartialEq for Entry<E> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl<E> Eq for Entry<E> {}

impl<E> PartialOrd for Entry<E> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> Ord for Entry<E> {
    /// The heap gives the greatest first, so the earliest is the greatest.
    fn cmp(&self, other: &Self) -> Ordering {
        let earlier = other.at_ms.total_cmp(&self.at_ms);
        earlier.then(other.number.cmp(&self.number))
    }
}

/// What is going to happen. Of two events at one moment the one that was put in first comes first.
pub(crate) struct Agenda<E> {
    heap: BinaryHeap<Entry<E>>,
    now_ms: f64,
    put: u64,
}

impl<E> Agenda<E> {
    pub fn new() -> Agenda<E> {
        Agenda {
            heap: BinaryHeap::new(),
            now_ms: 0.0,
            put: 0,
        }
    }

    /// Time since the beginning. Never goes back.
    pub fn now_ms(&self) -> f64 {
        self.now_ms
    }

    /// Has something happen at a moment, or now if that is past or no number. Gives the moment.
    pub fn at(&mut self, at_ms: f64, event: E) -> f64 {
        let at_ms = self.now_ms.max(at_ms);
        self.put += 1;
        self.heap.push(Entry {
            at_ms,
            number: self.put,
            event,
        });
        at_ms
    }

    /// When something happens next.
    pub fn next_ms(&self) -> Option<f64> {
        self.heap.peek().map(|entry| entry.at_ms)
    }

    /// How much is going to happen.
    pub fn count(&self) -> usize {
        self.heap.len()
    }

    /// Lets so much time pass, but not beyond what happens next; none where nothing does.
    pub fn pass(&mut self, ms: f64) {
        if let Some(next_ms) = self.next_ms() {
            self.now_ms = next_ms.min(self.now_ms + ms);
        }
    }

    /// Goes on to what happens next.
    pub fn pop(&mut self) -> Option<E> {
        let entry = self.heap.pop()?;
        self.now_ms = entry.at_ms;
        Some(entry.event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_by_time_and_then_as_they_were_put_in() {
        let mut agenda = Agenda::new();
        for (at_ms, name) in [
            (5.0, 'd'),
            (1.0, 'a'),
            (5.0, 'e'),
            (1.0, 'b'),
            (f64::NAN, 'x'),
        ] {
            agenda.at(at_ms, name);
        }
        assert_eq!(agenda.pop(), Some('x'));
        let early: String = std::iter::from_fn(|| agenda.pop()).take(2).collect();
        assert_eq!((early.as_str(), agenda.now_ms()), ("ab", 1.0));
        // What should have happened before happens now, behind what was put in for now.
        assert_eq!(agenda.at(0.5, 'c'), 1.0);
        let rest: String = std::iter::from_fn(|| agenda.pop()).collect();
        assert_eq!((rest.as_str(), agenda.now_ms()), ("cde", 5.0));
    }

    #[test]
    fn time_passes_up_to_what_happens_next() {
        let mut agenda = Agenda::new();
        agenda.pass(3.0);
        assert_eq!((agenda.now_ms(), agenda.next_ms()), (0.0, None));
        agenda.at(5.0, 'a');
        agenda.pass(3.0);
        assert_eq!((agenda.now_ms(), agenda.next_ms()), (3.0, Some(5.0)));
        agenda.pass(3.0);
        assert_eq!((agenda.now_ms(), agenda.count()), (5.0, 1));
        assert_eq!((agenda.pop(), agenda.count()), (Some('a'), 0));
    }
}
