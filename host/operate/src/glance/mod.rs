//! A node at a glance: what is read of `GET /v1/state`.
//!
//! Nodes and this program are of different age now and then. What is missing is `None`, 0 or empty, what is new is left
//! aside, and nothing that a node can send is an error.

mod read;

/// One model that a node holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Load {
    /// How it is held, for instance `f32`.
    pub held: String,
    /// Its digest, short.
    pub model: String,
    /// Sessions that it works on.
    pub sessions: u64,
    /// Of them, those that wait.
    pub waiting: u64,
    /// Tokens for which the cache has room, and how many it can hold; `None`: not told.
    pub kv: Option<(f64, f64)>,
    /// Passes so far.
    pub passes: u64,
    /// Rows in those passes.
    pub rows: u64,
}

/// Requests that are over, by what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcomes {
    /// Answered.
    pub answered: u64,
    /// Answered without the peer, which was lost.
    pub degraded: u64,
    /// Cancelled by the client.
    pub cancelled: u64,
    /// Refused.
    pub refused: u64,
    /// Failed.
    pub failed: u64,
}

impl Outcomes {
    /// All of them.
    pub fn all(&self) -> u64 {
        self.answered + self.degraded + self.cancelled + self.refused + self.failed
    }

    /// Both together.
    #[must_use]
    pub fn and(self, other: Outcomes) -> Outcomes {
        Outcomes {
            answered: self.answered + other.answered,
            degraded: self.degraded + other.degraded,
            cancelled: self.cancelled + other.cancelled,
            refused: self.refused + other.refused,
            failed: self.failed + other.failed,
        }
    }

    /// What came since `before`.
    #[must_use]
    pub fn since(self, before: Outcomes) -> Outcomes {
        Outcomes {
            answered: self.answered.saturating_sub(before.answered),
            degraded: self.degraded.saturating_sub(before.degraded),
            cancelled: self.cancelled.saturating_sub(before.cancelled),
            refused: self.refused.saturating_sub(before.refused),
            failed: self.failed.saturating_sub(before.failed),
        }
    }
}

/// Another node, as this one sees it. Figures below 0 are not known.
#[derive(Clone, Debug, PartialEq)]
pub struct Peer {
    /// Its name or its address.
    pub name: String,
    /// Whether it answers, where that is told.
    pub up: Option<bool>,
    /// Whether it takes no more requests.
    pub draining: bool,
    /// What is wrong with it.
    pub why: Option<String>,
    /// Round trip.
    pub rtt_ms: Option<f64>,
    /// To it.
    pub uplink_bps: Option<f64>,
    /// From it.
    pub downlink_bps: Option<f64>,
    /// Wait before new work begins there.
    pub queue_ms: Option<f64>,
}

/// Calls of one export of a generation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Calls {
    /// `plan`, `step`, ...
    pub name: String,
    /// `closed`, `open` or `probing`; empty: not told.
    pub breaker: String,
    /// Calls that were asked for.
    pub calls: u64,
    /// Of them, those that failed.
    pub failures: u64,
    /// Of them, those that the open breaker kept away.
    pub skipped: u64,
}

/// A generation: what plans requests.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Generation {
    /// Its number.
    pub number: u64,
    /// The policy's artifact; empty: the built-in fallback.
    pub policy_digest: String,
    /// The post-processor's artifact; empty: none.
    pub postprocessor_digest: String,
    /// The policy's name and version, if it has one.
    pub policy: Option<String>,
    /// The post-processor's.
    pub postprocessor: Option<String>,
    /// The revision of its parameters.
    pub revision: u64,
    /// Requests that it got.
    pub requests: u64,
    /// Requests that are under way.
    pub in_flight: u64,
    /// Inputs that it failed on, and how many it may not fail on.
    pub error_budget: Option<(u64, u64)>,
    /// By export.
    pub exports: Vec<Calls>,
}

impl Generation {
    /// In words: `generation 7: patient 0.2.0 with mas 1.0.0`.
    pub fn words(&self) -> String {
        format!("generation {}: {}", self.number, self.parts())
    }

    /// What it is made of, in words.
    pub fn parts(&self) -> String {
        let policy = self.policy.as_deref().unwrap_or("the built-in fallback");
        match &self.postprocessor {
            Some(postprocessor) => format!("{policy} with {postprocessor}"),
            None => policy.to_owned(),
        }
    }
}

/// Figures of one side of a canary. Below 0: none.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Arm {
    /// Requests that reported.
    pub reported: u64,
    /// Requests that were given up.
    pub lost: u64,
    /// Share of failed and lost.
    pub errors: f64,
    /// Share that the host ran otherwise than planned.
    pub overrides: f64,
    /// 95th percentile of time to first token.
    pub ttft_p95_ms: f64,
    /// 95th percentile of total time.
    pub total_p95_ms: f64,
}

/// What a node makes of its canary.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum VerdictKind {
    /// It waits.
    Hold,
    /// It drops it.
    Worse,
    /// Nothing speaks against the next step.
    Fine,
    /// Not told.
    #[default]
    Unknown,
}

/// A canary.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Canary {
    /// The candidate.
    pub candidate: Generation,
    /// Its step, from 0 on.
    pub step: u64,
    /// Its share of sessions.
    pub share: f64,
    /// What the node makes of it.
    pub verdict_kind: VerdictKind,
    /// What it waits for, or what is wrong.
    pub verdict: String,
    /// The stable generation's figures at this step.
    pub stable_figures: Arm,
    /// Its own.
    pub candidate_figures: Arm,
}

/// What runs beside.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Shadow {
    /// It.
    pub generation: Generation,
    /// Requests that it was asked about.
    pub compared: u64,
    /// Requests that it was not asked about.
    pub dropped: u64,
    /// Its calls that failed.
    pub failed: u64,
    /// Requests on which it would have done the same, and another thing.
    pub alike: (u64, u64),
}

/// A node.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Glance {
    /// Its name.
    pub node: String,
    /// `edge`, `cloud` or `both`.
    pub role: String,
    /// Of the program.
    pub version: String,
    /// When it started, in seconds since 1970.
    pub started_s: Option<f64>,
    /// Whether it takes no more requests.
    pub draining: bool,
    /// Requests that are under way.
    pub under_way: u64,
    /// Requests that may be at once; `None`: not told.
    pub most: Option<u64>,
    /// Requests that are over.
    pub over: u64,
    /// The small model.
    pub draft: Option<Load>,
    /// The large one.
    pub target: Option<Load>,
    /// Sessions of other nodes.
    pub sessions: Option<u64>,
    /// Wait before new work begins, ms; `None`: not known. And so on.
    pub queue_ms: Option<f64>,
    /// Tokens a second of one answer, draft model.
    pub draft_tok_per_s: Option<f64>,
    /// Tokens a second of one answer, target model.
    pub target_tok_per_s: Option<f64>,
    /// Share of drafts accepted of late.
    pub acceptance: Option<f64>,
    /// By route, in the order in which they are listed.
    pub routes: Vec<(String, Outcomes)>,
    /// Drafted tokens that the target judged.
    pub drafted: u64,
    /// Of them, accepted.
    pub accepted: u64,
    /// Tokens committed without the target's word.
    pub unverified: u64,
    /// Rounds of drafts.
    pub rounds: u64,
    /// Bytes to other nodes.
    pub up_bytes: u64,
    /// Bytes from them.
    pub down_bytes: u64,
    /// Clients' connections.
    pub connections: u64,
    /// Requests that ran otherwise than planned, where that is told.
    pub overridden: Option<u64>,
    /// Time within which 95% of the newest requests had their first token.
    pub ttft_p95_ms: Option<f64>,
    /// Likewise their last.
    pub total_p95_ms: Option<f64>,
    /// Other nodes, where they are told.
    pub peers: Vec<Peer>,
    /// What plans requests.
    pub active: Option<Generation>,
    /// What a rollback goes back to.
    pub previous: Option<Generation>,
    /// The canary.
    pub canary: Option<Canary>,
    /// What runs beside.
    pub shadow: Option<Shadow>,
    /// A change that is not on the disk, and why.
    pub not_durable: Option<String>,
    /// Failing inputs that are kept.
    pub failing_inputs: u64,
    /// Decision records that are kept, and those that were lost.
    pub records: Option<(u64, u64)>,
}

impl Glance {
    /// How long requests took of late, in words; none where it is not told.
    pub fn times(&self) -> Option<String> {
        let (first, last) = (self.ttft_p95_ms?, self.total_p95_ms?);
        Some(format!(
            "95% within: first token {first:.0} ms, last {last:.0} ms"
        ))
    }

    /// All routes together.
    pub fn outcomes(&self) -> Outcomes {
        self.routes
            .iter()
            .fold(Outcomes::default(), |sum, (_, it)| sum.and(*it))
    }
}
