//! A circuit breaker, one for each export of each generation.
//!
//! An export that fails again and again is not called for a while: a call that runs into its deadline costs a request
//! more than the fallback does. After the back-off one call is let through. If it succeeds all are; if not, the back-off
//! doubles.
//!
//! Pure: time comes as an argument. A result is only news to the state in which its call was let through; results of calls
//! that began earlier change nothing.

use crate::config::BreakerConfig;

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
    },
}

/// What a breaker is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Somebody wants to call.
    Asked,
    /// A call that [`Permit`] let through succeeded.
    Succeeded(Permit),
    /// A call failed, and it was the plug-in's fault.
    Failed(Permit),
    /// A call says nothing of the plug-in: there was no room for it.
    Void(Permit),
}

/// How a call was let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permit {
    /// As one of many.
    Normal,
    /// As the one that decides.
    Probe,
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
        match (self, event) {
            (Breaker::Closed { .. }, Event::Asked) => (self, Some(Permit::Normal)),
            (
                Breaker::Open {
                    until_ms,
                    back_off_ms,
                },
                Event::Asked,
            ) if now_ms >= until_ms => (Breaker::Probing { back_off_ms }, Some(Permit::Probe)),
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

            (Breaker::Probing { .. }, Event::Succeeded(Permit::Probe)) => {
                (Breaker::default(), None)
            }
            (Breaker::Probing { back_off_ms }, Event::Failed(Permit::Probe)) => {
                let longer = back_off_ms.saturating_mul(2).min(config.longest_ms);
                (open(longer), None)
            }
            // The next who asks is let through instead.
            (Breaker::Probing { back_off_ms }, Event::Void(Permit::Probe)) => (
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
        use Permit::{Normal, Probe};
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
            (101, Asked, "probing", Some(Probe)),
            (101, Asked, "probing", None),
            // Late results of calls from before say nothing.
            (102, Succeeded(Normal), "probing", None),
            (102, Failed(Normal), "probing", None),
            (103, Failed(Probe), "open", None),
            (302, Asked, "open", None),
            (303, Asked, "probing", Some(Probe)),
            (303, Void(Probe), "open", None),
            (303, Asked, "probing", Some(Probe)),
            (304, Failed(Probe), "open", None),
            // Doubled again, but not beyond the longest.
            (653, Asked, "open", None),
            (654, Asked, "probing", Some(Probe)),
            (655, Succeeded(Probe), "closed", None),
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

    fn event() -> impl Strategy<Value = Event> {
        let permit = prop_oneof![Just(Permit::Normal), Just(Permit::Probe)];
        (0..4, permit).prop_map(|(kind, permit)| match kind {
            0 => Event::Asked,
            1 => Event::Succeeded(permit),
            2 => Event::Failed(permit),
            _ => Event::Void(permit),
        })
    }

    proptest! {
        #[test]
        fn at_most_one_probe_is_out_and_an_open_breaker_always_ends(
            events in prop::collection::vec((event(), 0_u64..200), 0..200),
        ) {
            let mut breaker = Breaker::default();
            let mut now = 0;
            let mut probe_out = false;
            for (event, later) in events {
                now += later;
                // Only a probe that is out can report.
                let about_probe = matches!(
                    event,
                    Event::Succeeded(Permit::Probe) | Event::Failed(Permit::Probe) | Event::Void(Permit::Probe)
                );
                if about_probe && !probe_out {
                    continue;
                }
                let (next, permit) = breaker.advance(event, now, &CONFIG);
                if about_probe {
                    probe_out = false;
                }
                if permit == Some(Permit::Probe) {
                    prop_assert!(!probe_out);
                    probe_out = true;
                }
                prop_assert_eq!(matches!(next, Breaker::Probing { .. }), probe_out);
                if let Breaker::Open { until_ms, back_off_ms } = next {
                    prop_assert!(until_ms <= now + CONFIG.longest_ms && back_off_ms <= CONFIG.longest_ms);
                    let (_, later) = next.advance(Event::Asked, until_ms, &CONFIG);
                    prop_assert_eq!(later, Some(Permit::Probe));
                }
                breaker = next;
            }
        }
    }
}
