//! A circuit breaker, one for each export of each generation.
//!
//! An export that fails again and again is not called for a while: a call that runs into its deadline costs a request
//! more than the fallback does. After the back-off one call is let through. If it succeeds all are; if not, the back-off
//! doubles.
//!
//! Failures are counted by input, as the error budget counts them: one bad request that is sent again and again does not
//! close an export to everybody else.
//!
//! Pure: time comes as an argument. A result is only news to the state in which its call was let through; results of calls
//! that began earlier change nothing. A call that decides and never comes back is given up, and another one let through.

use crate::config::BreakerConfig;

/// A call that decides is given up after the longest back-off, and not before this: no deadline that an operator may give
/// is longer, ms.
const LOST_MS: u64 = 60_000;

/// Where a breaker stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Breaker {
    /// Calls go through.
    Closed {
        /// Failures since the last success.
        failures: u32,
    },
    /// No call goes through.
    Open {
        /// Until then, in ms of the caller's clock.
        until_ms: u64,
        /// How long that is, in ms.
        back_off_ms: u64,
    },
    /// One call is out; its result decides.
    Probing {
        /// The back-off before it, in ms.
        back_off_ms: u64,
        /// When it was let through, in ms of the caller's clock.
        since_ms: u64,
    },
}

/// What a breaker is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Somebody wants to call.
    Asked,
    /// A call that [`Permit`] let through succeeded.
    Succeeded(Permit),
    /// A call failed, it was the plug-in's fault, and no call since the last success failed on the same input.
    Failed(Permit),
    /// A call says nothing of the plug-in: there was no room for it.
    Void(Permit),
}

/// How a call was let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permit {
    /// As one of many.
    Normal,
    /// As the one that decides, at this time of the caller's clock in ms.
    Probe(u64),
}

impl Default for Breaker {
    fn default() -> Self {
        Breaker::Closed { failures: 0 }
    }
}

impl Breaker {
    /// The state after `event`, and whether a call that asked may go.
    #[must_use]
    pub fn advance(
        self,
        event: Event,
        now_ms: u64,
        config: &BreakerConfig,
    ) -> (Breaker, Option<Permit>) {
        let open = |back_off_ms: u64| Breaker::Open {
            until_ms: now_ms.saturating_add(back_off_ms),
            back_off_ms,
        };
        let probe = |back_off_ms: u64| {
            let probing = Breaker::Probing {
                back_off_ms,
                since_ms: now_ms,
            };
            (probing, Some(Permit::Probe(now_ms)))
        };
        match (self, event) {
            (Breaker::Closed { .. }, Event::Asked) => (self, Some(Permit::Normal)),
            (
                Breaker::Open {
                    until_ms,
                    back_off_ms,
                },
                Event::Asked,
            ) if now_ms >= until_ms => probe(back_off_ms),
            // A call runs for milliseconds: who has not come back by now never will.
            (
                Breaker::Probing {
                    back_off_ms,
                    since_ms,
                },
                Event::Asked,
            ) if now_ms.saturating_sub(since_ms) > config.longest_ms.max(LOST_MS) => {
                probe(back_off_ms)
            }
            (_, Event::Asked) => (self, None),

            (Breaker::Closed { .. }, Event::Succeeded(_)) => (Breaker::default(), None),
            (Breaker::Closed { failures }, Event::Failed(_)) => {
                let failures = failures.saturating_add(1);
                if failures >= config.failures {
                    (open(config.back_off_ms), None)
                } else {
                    (Breaker::Closed { failures }, None)
                }
            }

            (Breaker::Probing { since_ms, .. }, Event::Succeeded(Permit::Probe(at)))
                if at == since_ms =>
            {
                (Breaker::default(), None)
            }
            (
                Breaker::Probing {
                    back_off_ms,
                    since_ms,
                },
                Event::Failed(Permit::Probe(at)),
            ) if at == since_ms => {
                let longer = back_off_ms.saturating_mul(2).min(config.longest_ms);
                (open(longer), None)
            }
            // The next who asks is let through instead.
            (
                Breaker::Probing {
                    back_off_ms,
                    since_ms,
                },
                Event::Void(Permit::Probe(at)),
            ) if at == since_ms => (
                Breaker::Open {
                    until_ms: now_ms,
                    back_off_ms,
                },
                None,
            ),
            _ => (self, None),
        }
    }

    /// As status pages and metrics call it.
    pub fn name(self) -> &'static str {
        match self {
            Breaker::Closed { .. } => "closed",
            Breaker::Open { .. } => "open",
            Breaker::Probing { .. } => "probing",
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CONFIG: BreakerConfig = BreakerConfig {
        failures: 3,
        back_off_ms: 100,
        longest_ms: 350,
    };

    #[test]
    fn it_opens_backs_off_probes_and_closes() {
        use Event::{Asked, Failed, Succeeded, Void};
        use Permit::Normal;
        let probe = Permit::Probe;
        let mut breaker = Breaker::default();
        for (now, event, state, permit) in [
            (0, Asked, "closed", Some(Normal)),
            (0, Failed(Normal), "closed", None),
            (0, Failed(Normal), "closed", None),
            // A success in between starts the count anew.
            (0, Succeeded(Normal), "closed", None),
            (1, Failed(Normal), "closed", None),
            (1, Failed(Normal), "closed", None),
            (1, Failed(Normal), "open", None),
            (100, Asked, "open", None),
            (101, Asked, "probing", Some(probe(101))),
            (101, Asked, "probing", None),
            // Late results of calls from before say nothing.
            (102, Succeeded(Normal), "probing", None),
            (102, Failed(Normal), "probing", None),
            (103, Failed(probe(101)), "open", None),
            (302, Asked, "open", None),
            (303, Asked, "probing", Some(probe(303))),
            (303, Void(probe(303)), "open", None),
            (303, Asked, "probing", Some(probe(303))),
            (304, Failed(probe(303)), "open", None),
            // Doubled again, but not beyond the longest.
            (653, Asked, "open", None),
            (654, Asked, "probing", Some(probe(654))),
            // Who never comes back is given up, and is no news later.
            (60_654, Asked, "probing", None),
            (60_655, Asked, "probing", Some(probe(60_655))),
            (60_656, Failed(probe(654)), "probing", None),
            (60_656, Succeeded(probe(60_655)), "closed", None),
        ] {
            let (next, may) = breaker.advance(event, now, &CONFIG);
            assert_eq!(
                (next.name(), may),
                (state, permit),
                "{now} {event:?} on {breaker:?}"
            );
            breaker = next;
        }
    }

    proptest! {
        #[test]
        fn at_most_one_probe_is_out_and_an_open_breaker_always_ends(
            events in prop::collection::vec((0_u8..4, any::<bool>(), 0_u64..200), 0..200),
        ) {
            let mut breaker = Breaker::default();
            let mut now = 0;
            let mut out = None;
            for (kind, about_probe, later) in events {
                now += later;
                // Only a probe that is out can report.
                let permit = match (about_probe, out) {
                    (true, Some(at)) => Permit::Probe(at),
                    (true, None) => continue,
                    (false, _) => Permit::Normal,
                };
                let event = match kind {
                    0 => Event::Asked,
                    1 => Event::Succeeded(permit),
                    2 => Event::Failed(permit),
                    _ => Event::Void(permit),
                };
                let lost = out.is_some_and(|at| now - at > LOST_MS);
                let (next, permit) = breaker.advance(event, now, &CONFIG);
                if kind != 0 && about_probe {
                    out = None;
                }
                if let Some(Permit::Probe(at)) = permit {
                    prop_assert!(out.is_none() || lost);
                    out = Some(at);
                }
                prop_assert_eq!(matches!(next, Breaker::Probing { .. }), out.is_some());
                if let Breaker::Open { until_ms, back_off_ms } = next {
                    prop_assert!(until_ms <= now + CONFIG.longest_ms && back_off_ms <= CONFIG.longest_ms);
                    let (_, later) = next.advance(Event::Asked, until_ms, &CONFIG);
                    prop_assert_eq!(later, Some(Permit::Probe(until_ms)));
                }
                breaker = next;
            }
        }
    }
}
