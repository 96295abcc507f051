//! What an answer has cost where its target is, as that side tells it.

use std::collections::VecDeque;

use msao_session::frame::Cost;

/// Accounts that are kept apart. A session has one for each time that it began anew at a node with the target.
const MOST: usize = 16;

/// What was told of one answer, over all accounts that it has had.
#[derive(Debug, Default)]
pub struct Bill {
    /// In the order in which they were first heard of.
    accounts: VecDeque<Cost>,
    /// Of accounts that are not kept apart any more.
    settled: Charges,
}

/// What an answer has cost at the node with the target.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Charges {
    /// Floating-point operations, those of a draft model there included.
    pub flops: f64,
    /// Tokens of the prompt that the target did not read because an earlier prompt had been read; `None` where nothing was
    /// told. Where the session began anew, its own prompt was the earlier one: so it is what was told first.
    pub cached_tokens: Option<u64>,
    /// Bytes of keys and values times the seconds for which they were held.
    pub cache_byte_seconds: f64,
    /// Time in which a model computed for it, in ms.
    pub busy_ms: f64,
    /// Most bytes of intermediate results at once.
    pub activation_bytes: u64,
}

impl Charges {
    fn add(&mut self, cost: &Cost) {
        // As floating-point numbers they cannot overflow, whatever is told.
        self.flops += cost.target_flops as f64 + cost.draft_flops as f64;
        self.cache_byte_seconds += cost.cache_byte_seconds;
        self.busy_ms += cost.busy_ms;
        self.activation_bytes = self.activation_bytes.max(cost.activation_bytes);
        self.cached_tokens
            .get_or_insert(u64::from(cost.cached_tokens));
    }
}

impl Bill {
    /// Takes in what was told. All figures of an account only grow: what comes late or twice changes nothing.
    pub fn take(&mut self, told: Cost) {
        let mut accounts = self.accounts.iter_mut();
        match accounts.find(|known| known.account == told.account) {
            Some(known) => {
                known.target_flops = known.target_flops.max(told.target_flops);
                known.draft_flops = known.draft_flops.max(told.draft_flops);
                known.cached_tokens = known.cached_tokens.max(told.cached_tokens);
                known.cache_byte_seconds = known.cache_byte_seconds.max(told.cache_byte_seconds);
                known.busy_ms = known.busy_ms.max(told.busy_ms);
                known.activation_bytes = known.activation_bytes.max(told.activation_bytes);
            }
            None => {
                if self.accounts.len() == MOST
                    && let Some(oldest) = self.accounts.pop_front()
                {
                    self.settled.add(&oldest);
                }
                self.accounts.push_back(told);
            }
        }
    }

    /// All of it.
    pub fn total(&self) -> Charges {
        self.accounts.iter().fold(self.settled, |mut sum, cost| {
            sum.add(cost);
            sum
        })
    }
}

#[cfg(test)]
mod tests {
    use msao_session::frame::SessionId;

    use super::*;

    fn told(account: u64, target_flops: u64, draft_flops: u64, cached_tokens: u32) -> Cost {
        Cost {
            session: SessionId([1; 16]),
            account,
            target_flops,
            draft_flops,
            cached_tokens,
            cache_byte_seconds: target_flops as f64,
            busy_ms: draft_flops as f64,
            activation_bytes: target_flops,
        }
    }

    #[test]
    fn what_comes_late_or_twice_is_not_counted_again() {
        let mut bill = Bill::default();
        assert_eq!(bill.total(), Charges::default());
        for cost in [
            told(1, 100, 10, 30),
            told(1, 300, 20, 30),
            told(1, 300, 20, 30),
            // Overtaken on the way.
            told(1, 200, 10, 30),
        ] {
            bill.take(cost);
        }
        let total = bill.total();
        assert_eq!((total.flops, total.cached_tokens), (320.0, Some(30)));
        assert_eq!((total.cache_byte_seconds, total.busy_ms), (300.0, 20.0));
    }

    #[test]
    fn a_session_that_begins_anew_costs_what_both_did() {
        let mut bill = Bill::default();
        bill.take(told(1, 100, 0, 0));
        // Elsewhere, and back where the first still was.
        bill.take(told(2, 70, 0, 40));
        bill.take(told(1, 150, 0, 0));
        let total = bill.total();
        assert_eq!((total.flops, total.activation_bytes), (220.0, 150));
        // What the second found read was read for this very answer.
        assert_eq!(total.cached_tokens, Some(0));
    }

    #[test]
    fn however_often_it_begins_anew_nothing_is_lost_and_little_is_held() {
        let mut bill = Bill::default();
        for account in 0..100 {
            bill.take(told(account, 10, 1, 7));
        }
        assert_eq!(bill.accounts.len(), MOST);
        assert_eq!(bill.total().flops, 1100.0);
        assert_eq!(bill.total().cached_tokens, Some(7));
    }
}
