//! The cores of a node that has few: all work of the node has its share of them.
//!
//! They are shared as an operating system shares them among threads that all want to run: of `n` cores each of `k` jobs has
//! `min(1, n / k)`. A job keeps one core busy at most, as a model's thread does, and a thread that decodes media. Nothing goes
//! first, and nothing is lost: cores with enough to do are never idle, so that what is done is what was begun.
//!
//! As many requests have media decoded at once as there are cores, as nodes have it (`media.decoders`). Others wait their turn.

use std::collections::VecDeque;

use crate::agenda::Agenda;

struct Job<E> {
    decodes: bool,
    /// What happens once it is over.
    event: E,
}

/// See the module.
pub(crate) struct Cores<E> {
    count: usize,
    /// Jobs under way. The clock is one that tells how much each job has had that was there from its beginning: it goes the
    /// slower the more jobs there are, and so they are over in an order that does not change.
    under_way: Agenda<Job<E>>,
    /// Jobs that decode, and those that wait to: how long they take, and what happens then.
    decoding: usize,
    waiting: VecDeque<(f64, E)>,
    /// When that clock was looked at last.
    looked_ms: f64,
    /// Grows whenever jobs come or go: when one is over next is another moment then.
    round: u32,
    /// That moment has been told.
    told: bool,
}

impl<E> Cores<E> {
    pub fn new(count: u32) -> Cores<E> {
        Cores {
            count: count.max(1) as usize,
            under_way: Agenda::new(),
            decoding: 0,
            waiting: VecDeque::new(),
            looked_ms: 0.0,
            round: 0,
            told: false,
        }
    }

    /// Begins a job that would take so long on a core of its own.
    pub fn begin(&mut self, now_ms: f64, takes_ms: f64, event: E) {
        self.look(now_ms);
        self.put(takes_ms, false, event);
    }

    /// Begins one that decodes media, or has it wait its turn.
    pub fn decode(&mut self, now_ms: f64, takes_ms: f64, event: E) {
        self.look(now_ms);
        if self.decoding < self.count {
            self.decoding += 1;
            self.put(takes_ms, true, event);
        } else {
            self.waiting.push_back((takes_ms, event));
        }
    }

    /// When the next job is over if none comes before, and the round that is to be named then. None: no job is under way, or
    /// that has been told.
    pub fn due(&mut self) -> Option<(f64, u32)> {
        let left_ms = self.under_way.next_ms()? - self.under_way.now_ms();
        if std::mem::replace(&mut self.told, true) {
            return None;
        }
        Some((self.looked_ms + left_ms / self.share(), self.round))
    }

    /// The moment of a round has come: what happens now. None: jobs have come or gone since it was told.
    pub fn over(&mut self, now_ms: f64, round: u32) -> Option<E> {
        if round != self.round {
            return None;
        }
        // Its end is the job's own, whatever rounding has made of the moment.
        let job = self.under_way.pop()?;
        self.looked_ms = now_ms;
        self.changed();
        if job.decodes {
            match self.waiting.pop_front() {
                Some((takes_ms, event)) => self.put(takes_ms, true, event),
                None => self.decoding -= 1,
            }
        }
        Some(job.event)
    }

    fn put(&mut self, takes_ms: f64, decodes: bool, event: E) {
        let over_ms = self.under_way.now_ms() + takes_ms;
        self.under_way.at(over_ms, Job { decodes, event });
        self.changed();
    }

    fn changed(&mut self) {
        self.round = self.round.wrapping_add(1);
        self.told = false;
    }

    /// Gives all jobs what they have had since it was looked last.
    fn look(&mut self, now_ms: f64) {
        let passed_ms = now_ms - self.looked_ms;
        self.under_way.pass(passed_ms * self.share());
        self.looked_ms = now_ms;
    }

    /// What each job has of a core.
    fn share(&self) -> f64 {
        let (cores, jobs) = (self.count as f64, self.under_way.count() as f64);
        if jobs > cores { cores / jobs } else { 1.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// When what comes at a moment and takes so long is over, by name; of these names the capital ones decode.
    fn over(count: u32, jobs: &[(f64, f64, char)]) -> Vec<(char, f64)> {
        let mut cores = Cores::new(count);
        let mut agenda = Agenda::new();
        for (at_ms, takes_ms, name) in jobs {
            agenda.at(*at_ms, Happens::Comes(*takes_ms, *name));
        }
        let mut found = Vec::new();
        while let Some(happens) = agenda.pop() {
            let now_ms = agenda.now_ms();
            match happens {
                Happens::Comes(takes_ms, name) if name.is_uppercase() => {
                    cores.decode(now_ms, takes_ms, name);
                }
                Happens::Comes(takes_ms, name) => cores.begin(now_ms, takes_ms, name),
                Happens::Due(round) => {
                    found.extend(cores.over(now_ms, round).map(|name| (name, now_ms)));
                }
            }
            if let Some((due_ms, round)) = cores.due() {
                agenda.at(due_ms, Happens::Due(round));
            }
            // It is told once.
            assert_eq!(cores.due(), None);
        }
        found
    }

    enum Happens {
        Comes(f64, char),
        Due(u32),
    }

    #[test]
    fn jobs_have_equal_shares_of_one_core() {
        // The second has its 4 in 8, while the first has 4 too and then its last 4 alone.
        let found = over(1, &[(0.0, 10.0, 'a'), (2.0, 4.0, 'b')]);
        assert_eq!(found, [('b', 10.0), ('a', 14.0)]);
        // Nobody is kept waiting by what is over.
        let found = over(1, &[(0.0, 10.0, 'a'), (20.0, 4.0, 'b')]);
        assert_eq!(found, [('a', 10.0), ('b', 24.0)]);
    }

    #[test]
    fn with_cores_to_spare_nobody_is_in_anybodys_way() {
        let jobs = [(0.0, 10.0, 'a'), (2.0, 4.0, 'b'), (3.0, 8.0, 'c')];
        assert_eq!(over(3, &jobs), [('b', 6.0), ('a', 10.0), ('c', 11.0)]);
        // Of two cores three jobs have two thirds each: from 3 on the second needs 3 more, and from 7.5 on there are two.
        assert_eq!(over(2, &jobs), [('b', 7.5), ('a', 11.5), ('c', 12.5)]);
    }

    #[test]
    fn media_are_decoded_by_as_many_at_once_as_there_are_cores() {
        let jobs = [(0.0, 4.0, 'A'), (0.0, 4.0, 'B'), (0.0, 4.0, 'c')];
        // The second begins when the first is over, and so is the third.
        assert_eq!(over(1, &jobs), [('A', 8.0), ('c', 8.0), ('B', 12.0)]);
        assert_eq!(over(2, &jobs), [('A', 6.0), ('B', 6.0), ('c', 6.0)]);
    }

    #[test]
    fn what_was_begun_is_done_and_cores_are_not_idle_meanwhile() {
        // Each comes while there is work of those before: the last is over when all of it has been done, one after the other.
        let mut state = 7_u64;
        let mut draw = move |most: f64| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            most * (state >> 11) as f64 / (1_u64 << 53) as f64
        };
        for _ in 0..100 {
            let (mut jobs, mut all_ms) = (Vec::new(), 0.0);
            for number in 0..40 {
                let (at_ms, takes_ms) = (draw(1.0) * all_ms, 0.01 + draw(10.0));
                let name = if number % 3 == 0 { 'D' } else { 'd' };
                jobs.push((at_ms, takes_ms, name));
                all_ms += takes_ms;
            }
            let found = over(1, &jobs);
            assert_eq!(found.len(), jobs.len());
            let (_, last_ms) = found[found.len() - 1];
            // Rounding of some hundred sums.
            assert!((last_ms - all_ms).abs() < 1e-6, "{last_ms} and {all_ms}");
        }
    }
}
