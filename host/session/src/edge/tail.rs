//! The drafts that nobody has judged yet: first those in flight, then those that were not sent.

use std::collections::VecDeque;

use super::Drafted;

/// A drafted token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Token {
    pub drafted: Drafted,
    /// Unjudged drafts that it was made behind.
    pub behind: usize,
}

/// A round in flight.
#[derive(Clone, Copy, Debug)]
struct Round {
    /// Drafts of it and of all rounds before it, counted from the tail's first.
    end: usize,
    sent_ms: f64,
}

/// See the module. Follows the committed prefix without a gap.
#[derive(Clone, Debug, Default)]
pub(super) struct Tail {
    tokens: VecDeque<Token>,
    rounds: VecDeque<Round>,
}

impl Tail {
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    pub fn in_flight(&self) -> usize {
        self.rounds.back().map_or(0, |round| round.end)
    }

    pub fn unsent(&self) -> usize {
        self.len().saturating_sub(self.in_flight())
    }

    pub fn rounds(&self) -> usize {
        self.rounds.len()
    }

    /// When the oldest round that has no answer was sent.
    pub fn oldest_ms(&self) -> Option<f64> {
        self.rounds.front().map(|round| round.sent_ms)
    }

    /// Whether the last draft ends the answer: nothing can follow it.
    pub fn ends(&self) -> bool {
        self.tokens.back().is_some_and(|token| token.drafted.ends)
    }

    pub fn front(&self) -> Option<&Token> {
        self.tokens.front()
    }

    pub fn push(&mut self, token: Token) {
        self.tokens.push_back(token);
    }

    /// The first ids.
    pub fn first(&self, count: usize) -> Vec<u32> {
        let first = self.tokens.iter().take(count);
        first.map(|token| token.drafted.id).collect()
    }

    /// Makes the next `count` unsent drafts a round in flight, and gives their ids.
    pub fn send(&mut self, count: usize, now_ms: f64) -> Vec<u32> {
        let from = self.in_flight();
        let ids: Vec<u32> = self
            .tokens
            .iter()
            .skip(from)
            .take(count)
            .map(|token| token.drafted.id)
            .collect();
        if !ids.is_empty() {
            self.rounds.push_back(Round {
                end: from + ids.len(),
                sent_ms: now_ms,
            });
        }
        ids
    }

    /// Takes the first draft off. Rounds that have none left are answered.
    pub fn pop(&mut self) -> Option<Token> {
        let token = self.tokens.pop_front()?;
        for round in &mut self.rounds {
            round.end = round.end.saturating_sub(1);
        }
        while self.rounds.front().is_some_and(|round| round.end == 0) {
            self.rounds.pop_front();
        }
        Some(token)
    }

    /// Forgets all; gives how many there were.
    pub fn clear(&mut self) -> usize {
        let had = self.len();
        *self = Tail::default();
        had
    }

    /// Forgets what was not sent; gives how many there were.
    pub fn drop_unsent(&mut self) -> usize {
        let dropped = self.unsent();
        self.tokens.truncate(self.in_flight());
        dropped
    }

    /// What was in flight is lost on the way: all has yet to be sent.
    pub fn unsend(&mut self) {
        self.rounds.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_are_answered_as_their_last_draft_goes() {
        let mut tail = Tail::default();
        for id in 0..5 {
            tail.push(Token {
                behind: 0,
                drafted: Drafted {
                    stamp: u64::from(id),
                    id,
                    ends: id == 4,
                    p_accept: 0.5,
                    sure: 0.5,
                    top1: 0.5,
                    entropy_nats: 1.0,
                    margin: 1.0,
                },
            });
        }
        assert_eq!((tail.in_flight(), tail.unsent(), tail.ends()), (0, 5, true));
        assert_eq!(tail.send(2, 1.0), [0, 1]);
        assert_eq!(tail.send(2, 2.0), [2, 3]);
        assert_eq!((tail.in_flight(), tail.unsent(), tail.rounds()), (4, 1, 2));
        tail.pop();
        assert_eq!((tail.rounds(), tail.oldest_ms()), (2, Some(1.0)));
        tail.pop();
        assert_eq!((tail.rounds(), tail.oldest_ms()), (1, Some(2.0)));
        assert_eq!((tail.in_flight(), tail.first(9)), (2, vec![2, 3, 4]));
        assert_eq!(tail.drop_unsent(), 1);
        tail.unsend();
        assert_eq!((tail.in_flight(), tail.unsent()), (0, 2));
        assert_eq!((tail.clear(), tail.is_empty()), (2, true));
    }
}
