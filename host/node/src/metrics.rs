//! What is counted, for Prometheus: everything begins with `msao_`.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use msao_core::chat::Modality;
use msao_core::offload::record::OpenedAhead;
use msao_core::offload::{Outcome, Route, Status, overrides};
use msao_session::edge::Counters;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

/// A route, as a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
enum RouteLabel {
    Edge,
    Cloud,
    CloudDraft,
    Speculate,
}

impl From<Route> for RouteLabel {
    fn from(route: Route) -> RouteLabel {
        match route {
            Route::Edge => RouteLabel::Edge,
            Route::Cloud => RouteLabel::Cloud,
            Route::CloudDraft => RouteLabel::CloudDraft,
            Route::Speculate => RouteLabel::Speculate,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByOutcome {
    route: RouteLabel,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByRoute {
    route: RouteLabel,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByCode {
    status: u16,
    code: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByDirection {
    direction: &'static str,
}

/// What a pass of a model was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Work {
    /// The draft model chose one token.
    Draft,
    /// The target judged drafts.
    Verify,
    /// The target went on without drafts of an edge: it chose one token, or in a `cloud-draft` session both models made a round.
    Decode,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByWork {
    work: Work,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BySide {
    /// `edge`: the draft model of this node; `cloud`: the models where the target is, be it this node.
    side: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByRetention {
    modality: &'static str,
    /// As in [`BySide`].
    side: &'static str,
    /// `yes` or `no`.
    kept: &'static str,
}

/// A sum of what may be large and broken.
type Sums = Family<BySide, Counter<f64, AtomicU64>>;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByPeer {
    peer: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByPlace {
    /// Unjudged drafts that one was made behind; 15 stands for more as well.
    behind: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByModel {
    model: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByExport {
    export: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByFailure {
    export: &'static str,
    kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByPlugin {
    role: &'static str,
    /// Its name and version.
    plugin: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByEnd {
    /// Of an audit `agreed`, `rejected` (the target rejected a draft) or `unfinished`; of a session that was opened ahead `used`
    /// or `wasted`.
    end: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByClass {
    /// Draft and target in short.
    pair: String,
    /// Class of requests.
    class: String,
}

/// A figure that is set when it is asked for.
type Figure = Family<ByPeer, Gauge<f64, AtomicU64>>;

/// The same of a class of requests.
type OfClass = Family<ByClass, Gauge<f64, AtomicU64>>;

/// What audits have shown of a class of requests.
#[derive(Clone, Debug)]
pub struct Watched {
    /// Draft and target in short.
    pub pair: String,
    /// The class, in words.
    pub class: String,
    /// From which acceptance probability on drafts may be committed unverified; above 1: none may.
    pub floor: f64,
    /// Audits counted since evidence was last forgotten.
    pub audits: u64,
    /// Of them, those that disagreed at the floor, or at the highest threshold where none is open.
    pub disagreements: u64,
}

/// What is known of the way to a peer.
#[derive(Clone, Debug)]
pub struct Way<'a> {
    /// Its name.
    pub peer: &'a str,
    /// Whether it can be reached.
    pub up: bool,
    /// In ms; negative: unknown.
    pub rtt_ms: f64,
    /// Bits a second to it; negative: unknown.
    pub uplink_bps: f64,
    /// Bits a second from it; likewise.
    pub downlink_bps: f64,
    /// How long work waits there, in ms; likewise.
    pub queue_ms: f64,
    /// How far the delay wanders, in ms; likewise.
    pub jitter_ms: f64,
}

type Times = Family<ByRoute, Histogram, fn() -> Histogram>;

/// Requests whose times are kept for percentiles.
const RECENT: usize = 1024;

/// The newest times of a kind, in ms.
#[derive(Debug, Default)]
struct Recent(VecDeque<f64>);

impl Recent {
    fn push(&mut self, ms: f64) {
        if self.0.len() == RECENT {
            self.0.pop_front();
        }
        self.0.push_back(ms);
    }

    /// The time within which 95% of them were; none before the first.
    fn p95_ms(&self) -> Option<f64> {
        let mut sorted: Vec<f64> = self.0.iter().copied().collect();
        sorted.sort_unstable_by(f64::total_cmp);
        let rank = (sorted.len() * 95).div_ceil(100);
        sorted.get(rank.checked_sub(1)?).copied()
    }
}

/// Times of the newest requests that got a first token.
#[derive(Debug, Default)]
struct RecentTimes {
    first_token: Recent,
    total: Recent,
}

/// All of a node's metrics.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Arc<Registry>,
    requests: Family<ByOutcome, Counter>,
    errors: Family<ByCode, Counter>,
    first_token: Times,
    total: Times,
    between: Times,
    probe: Histogram,
    passes: Family<ByWork, Histogram, fn() -> Histogram>,
    peer_up: Figure,
    peer_rtt: Figure,
    peer_uplink: Figure,
    peer_downlink: Figure,
    peer_queue: Figure,
    peer_jitter: Figure,
    queue: Family<ByModel, Histogram, fn() -> Histogram>,
    calls: Family<ByExport, Histogram, fn() -> Histogram>,
    failures: Family<ByFailure, Counter>,
    active: Family<ByPlugin, Gauge>,
    fallbacks: Counter,
    tokens: Family<ByRoute, Counter>,
    drafted_behind: Family<ByPlace, Counter>,
    accepted_behind: Family<ByPlace, Counter>,
    drafted: Counter,
    accepted: Counter,
    unverified: Counter,
    outside: Counter,
    audits: Family<ByEnd, Counter>,
    ahead: Family<ByEnd, Counter>,
    drift_alarms: Counter,
    class_floor: OfClass,
    class_audits: OfClass,
    class_disagreements: OfClass,
    rounds: Counter,
    flops: Sums,
    cache: Sums,
    prompt_tokens: Counter,
    cached_tokens: Counter,
    media_tokens: Family<ByRetention, Counter>,
    link: Family<ByDirection, Counter>,
    connections: Gauge,
    refused_connections: Counter,
    overridden: Counter,
    answered: Arc<AtomicU64>,
    recent: Arc<Mutex<RecentTimes>>,
}

/// From 1 ms to some 65 s.
fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 2.0, 17))
}

/// From 1 us to some 130 ms.
fn microseconds() -> Histogram {
    Histogram::new(exponential_buckets(1e-6, 2.0, 18))
}

impl Default for Metrics {
    fn default() -> Metrics {
        let times = || Times::new_with_constructor(seconds as fn() -> Histogram);
        let mut metrics = Metrics {
            registry: Arc::default(),
            requests: Family::default(),
            errors: Family::default(),
            first_token: times(),
            total: times(),
            between: times(),
            probe: seconds(),
            passes: Family::new_with_constructor(seconds as fn() -> Histogram),
            peer_up: Family::default(),
            peer_rtt: Family::default(),
            peer_uplink: Family::default(),
            peer_downlink: Family::default(),
            peer_queue: Family::default(),
            peer_jitter: Family::default(),
            queue: Family::new_with_constructor(seconds as fn() -> Histogram),
            calls: Family::new_with_constructor(microseconds as fn() -> Histogram),
            failures: Family::default(),
            active: Family::default(),
            fallbacks: Counter::default(),
            drafted_behind: Family::default(),
            accepted_behind: Family::default(),
            tokens: Family::default(),
            drafted: Counter::default(),
            accepted: Counter::default(),
            unverified: Counter::default(),
            outside: Counter::default(),
            audits: Family::default(),
            ahead: Family::default(),
            drift_alarms: Counter::default(),
            class_floor: Family::default(),
            class_audits: Family::default(),
            class_disagreements: Family::default(),
            rounds: Counter::default(),
            flops: Family::default(),
            cache: Family::default(),
            prompt_tokens: Counter::default(),
            cached_tokens: Counter::default(),
            media_tokens: Family::default(),
            link: Family::default(),
            connections: Gauge::default(),
            refused_connections: Counter::default(),
            overridden: Counter::default(),
            answered: Arc::default(),
            recent: Arc::default(),
        };
        let mut registry = Registry::with_prefix("msao");
        registry.register(
            "requests",
            "Chat requests by the route that they ran by and what became of them",
            metrics.requests.clone(),
        );
        registry.register("errors", "Errors told to clients", metrics.errors.clone());
        registry.register_with_unit(
            "time_to_first_token",
            "From arrival to the first token",
            Unit::Seconds,
            metrics.first_token.clone(),
        );
        registry.register_with_unit(
            "end_to_end",
            "From arrival to the last token",
            Unit::Seconds,
            metrics.total.clone(),
        );
        registry.register_with_unit(
            "inter_token",
            "From one token to the next, on average over an answer",
            Unit::Seconds,
            metrics.between.clone(),
        );
        registry.register_with_unit(
            "pass",
            "A pass of a model for one answer, its wait for others' passes included",
            Unit::Seconds,
            metrics.passes.clone(),
        );
        registry.register(
            "peer_up",
            "Whether a peer can be reached",
            metrics.peer_up.clone(),
        );
        registry.register_with_unit(
            "peer_rtt",
            "Round trip to a peer, estimated",
            Unit::Seconds,
            metrics.peer_rtt.clone(),
        );
        registry.register(
            "peer_uplink_bits_per_second",
            "Bandwidth to a peer, estimated",
            metrics.peer_uplink.clone(),
        );
        registry.register(
            "peer_downlink_bits_per_second",
            "Bandwidth from a peer, estimated",
            metrics.peer_downlink.clone(),
        );
        registry.register_with_unit(
            "peer_queue",
            "How long work waits at a peer, as it says",
            Unit::Seconds,
            metrics.peer_queue.clone(),
        );
        registry.register_with_unit(
            "probe",
            "Time in the probe",
            Unit::Seconds,
            metrics.probe.clone(),
        );
        registry.register("tokens", "Tokens of answers", metrics.tokens.clone());
        registry.register(
            "drafted_tokens",
            "Drafted tokens that the target judged, by how many unjudged ones they were made behind",
            metrics.drafted_behind.clone(),
        );
        registry.register(
            "accepted_tokens",
            "Of them, accepted",
            metrics.accepted_behind.clone(),
        );
        registry.register_with_unit(
            "queue",
            "From asking for a model's seat to having it",
            Unit::Seconds,
            metrics.queue.clone(),
        );
        registry.register_with_unit(
            "peer_jitter",
            "How far a peer's delay wanders, estimated",
            Unit::Seconds,
            metrics.peer_jitter.clone(),
        );
        registry.register_with_unit(
            "plugin_call",
            "A call of a plug-in that gave an answer or failed",
            Unit::Seconds,
            metrics.calls.clone(),
        );
        registry.register(
            "plugin_failures",
            "Calls of plug-ins that failed, by kind",
            metrics.failures.clone(),
        );
        registry.register(
            "active_plugin",
            "1 for each plug-in of the active generation",
            metrics.active.clone(),
        );
        registry.register(
            "fallback_requests",
            "Requests of which a fallback decided something",
            metrics.fallbacks.clone(),
        );
        registry.register(
            "unverified_tokens",
            "Tokens committed without the target's word",
            metrics.unverified.clone(),
        );
        registry.register(
            "outside_budget_tokens",
            "Of them, those that the operator's budget does not cover: the link was down, or media may not leave",
            metrics.outside.clone(),
        );
        registry.register(
            "audits",
            "Requests that ran in exact mode to show what confident mode would have done, by how they ended",
            metrics.audits.clone(),
        );
        registry.register(
            "sessions_opened_ahead",
            "Sessions that were opened at a peer before there was a plan, by whether an answer went on with them",
            metrics.ahead.clone(),
        );
        registry.register(
            "drift_alarms",
            "Times that audits disagreed more often than the budget allows, and confident mode began anew",
            metrics.drift_alarms.clone(),
        );
        registry.register(
            "confidence_floor",
            "The lowest acceptance probability at which a draft may be committed unverified; 2: at none",
            metrics.class_floor.clone(),
        );
        registry.register(
            "counted_audits",
            "Audits on which a class's floor rests",
            metrics.class_audits.clone(),
        );
        registry.register(
            "audit_disagreements",
            "Of them, those that disagreed at the floor, or at the highest threshold where none is open",
            metrics.class_disagreements.clone(),
        );
        registry.register("rounds", "Rounds of drafts sent", metrics.rounds.clone());
        registry.register(
            "flops",
            "Floating-point operations for requests that came to this node, by the side that did them",
            metrics.flops.clone(),
        );
        registry.register(
            "cache_byte_seconds",
            "Bytes of keys and values held for requests that came to this node, times the seconds that they were",
            metrics.cache.clone(),
        );
        registry.register(
            "prompt_tokens",
            "Tokens of prompts",
            metrics.prompt_tokens.clone(),
        );
        registry.register(
            "cached_prompt_tokens",
            "Of them, read before and kept",
            metrics.cached_tokens.clone(),
        );
        registry.register(
            "media_tokens",
            "Tokens of media, by modality, by the side that was to read them, and by whether a plan kept them",
            metrics.media_tokens.clone(),
        );
        registry.register_with_unit(
            "link",
            "Bytes between nodes",
            Unit::Bytes,
            metrics.link.clone(),
        );
        registry.register(
            "connections",
            "Clients' connections",
            metrics.connections.clone(),
        );
        registry.register(
            "refused_connections",
            "Connections that there was no room for",
            metrics.refused_connections.clone(),
        );
        registry.register(
            "overridden_plans",
            "Requests that ran otherwise than planned",
            metrics.overridden.clone(),
        );
        metrics.registry = Arc::new(registry);
        metrics
    }
}

impl Metrics {
    /// A request with so many choices is over.
    pub fn answered(&self, route: Route, outcome: &Outcome, choices: u32) {
        let route = RouteLabel::from(route);
        let by = ByOutcome {
            route,
            outcome: match outcome.status {
                status if status == Status::Answered as u8 => "answered",
                status if status == Status::Degraded as u8 => "degraded",
                status if status == Status::Cancelled as u8 => "cancelled",
                status if status == Status::Refused as u8 => "refused",
                _ => "failed",
            },
        };
        self.requests.get_or_create(&by).inc();
        self.answered.fetch_add(1, Ordering::Relaxed);
        let by = ByRoute { route };
        if outcome.ttft_ms >= 0.0 {
            self.first_token
                .get_or_create(&by)
                .observe(outcome.ttft_ms / 1000.0);
            self.total
                .get_or_create(&by)
                .observe(outcome.total_ms / 1000.0);
            {
                let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
                recent.first_token.push(outcome.ttft_ms);
                recent.total.push(outcome.total_ms);
            }
            // The choices are answered side by side.
            let gaps = f64::from(outcome.tokens) / f64::from(choices.max(1)) - 1.0;
            if gaps > 0.0 {
                let took_ms = outcome.total_ms - outcome.ttft_ms;
                self.between
                    .get_or_create(&by)
                    .observe(took_ms / gaps / 1000.0);
            }
        }
        if outcome.probe_ms > 0.0 {
            self.probe.observe(outcome.probe_ms / 1000.0);
        }
        self.tokens
            .get_or_create(&by)
            .inc_by(u64::from(outcome.tokens));
        let sum = |bins: &[u32]| bins.iter().map(|&count| u64::from(count)).sum();
        self.drafted.inc_by(sum(&outcome.drafted));
        self.accepted.inc_by(sum(&outcome.accepted));
        self.unverified.inc_by(u64::from(outcome.unverified));
        self.rounds.inc_by(u64::from(outcome.rounds));
        self.crossed(outcome.sent_bytes as u64, outcome.received_bytes as u64);
        for (side, flops) in [("edge", outcome.edge_flops), ("cloud", outcome.cloud_flops)] {
            self.flops.get_or_create(&BySide { side }).inc_by(flops);
        }
        if outcome.overrides != 0 {
            self.overridden.inc();
        }
        if outcome.overrides & overrides::FALLBACK != 0 {
            self.fallbacks.inc();
        }
    }

    fn crossed(&self, sent: u64, received: u64) {
        for (direction, bytes) in [("up", sent), ("down", received)] {
            self.link
                .get_or_create(&ByDirection { direction })
                .inc_by(bytes);
        }
    }

    /// This has become of a session that was opened before there was a plan.
    pub fn opened_ahead(&self, became: OpenedAhead) {
        let end = match became {
            OpenedAhead::Used => "used",
            OpenedAhead::Wasted => "wasted",
        };
        self.ahead.get_or_create(&ByEnd { end }).inc();
    }

    /// There was no plan for a request after all, and so no use for its session; these bytes went to the peer and came from it.
    pub fn withdrew_ahead(&self, (sent, received): (u64, u64)) {
        self.opened_ahead(OpenedAhead::Wasted);
        self.crossed(sent, received);
    }

    /// Caches have held a request's prompt and answers: bytes times seconds, here and where the target is.
    pub fn held(&self, edge: f64, cloud: f64) {
        for (side, byte_seconds) in [("edge", edge), ("cloud", cloud)] {
            self.cache
                .get_or_create(&BySide { side })
                .inc_by(byte_seconds);
        }
    }

    /// A request's prompt had so many tokens, of which so many had been read before.
    pub fn read(&self, prompt_tokens: u64, cached_tokens: u64) {
        self.prompt_tokens.inc_by(prompt_tokens);
        self.cached_tokens.inc_by(cached_tokens);
    }

    /// On one side (`edge` or `cloud`) so many tokens of a medium were kept, and so many dropped.
    pub fn retained(&self, modality: Modality, side: &'static str, kept: u32, dropped: u32) {
        let modality = modality.name();
        for (kept, tokens) in [("yes", kept), ("no", dropped)] {
            let by = ByRetention {
                modality,
                side,
                kept,
            };
            self.media_tokens
                .get_or_create(&by)
                .inc_by(u64::from(tokens));
        }
    }

    /// Drafts of a request were held against the target's choices.
    pub fn judged(&self, counters: &Counters) {
        for (family, counts) in [
            (&self.drafted_behind, &counters.drafted_behind),
            (&self.accepted_behind, &counters.accepted_behind),
        ] {
            for (behind, count) in (0..).zip(counts).filter(|(_, count)| **count > 0) {
                let by = ByPlace { behind };
                family.get_or_create(&by).inc_by(u64::from(*count));
            }
        }
    }

    /// So many tokens were committed unverified outside the operator's budget.
    pub fn outside(&self, tokens: u32) {
        self.outside.inc_by(u64::from(tokens));
    }

    /// An audit has ended: `agreed`, `rejected` or `unfinished`.
    pub fn audited(&self, end: &'static str) {
        self.audits.get_or_create(&ByEnd { end }).inc();
    }

    /// Audits disagreed more often than the budget allows.
    pub fn drifted(&self) {
        self.drift_alarms.inc();
    }

    /// What audits have shown, now.
    pub fn watched(&self, classes: impl Iterator<Item = Watched>) {
        let families = [
            &self.class_floor,
            &self.class_audits,
            &self.class_disagreements,
        ];
        families.iter().for_each(|family| family.clear());
        for watched in classes {
            let by = ByClass {
                pair: watched.pair,
                class: watched.class,
            };
            let values = [
                watched.floor,
                watched.audits as f64,
                watched.disagreements as f64,
            ];
            for (family, value) in families.iter().zip(values) {
                family.get_or_create(&by).set(value);
            }
        }
    }

    /// Somebody has waited so long for a seat of a model.
    pub fn waited(&self, model: &'static str, ms: f64) {
        self.queue
            .get_or_create(&ByModel { model })
            .observe(ms / 1000.0);
    }

    /// A plug-in was called; `failure` names what went wrong.
    pub fn called(&self, export: &'static str, took: Duration, failure: Option<&'static str>) {
        self.calls
            .get_or_create(&ByExport { export })
            .observe(took.as_secs_f64());
        if let Some(kind) = failure {
            self.failures
                .get_or_create(&ByFailure { export, kind })
                .inc();
        }
    }

    /// Which plug-ins plan, by name and version.
    pub fn plugins(&self, policy: Option<&str>, postprocessor: Option<&str>) {
        self.active.clear();
        let there = [("policy", policy), ("postprocessor", postprocessor)];
        for (role, plugin) in there {
            if let Some(plugin) = plugin {
                let plugin = plugin.to_owned();
                self.active.get_or_create(&ByPlugin { role, plugin }).set(1);
            }
        }
    }

    /// Takes times of passes, in seconds.
    pub fn passes(&self, work: Work) -> Histogram {
        self.passes.get_or_create(&ByWork { work }).clone()
    }

    /// What is known of the ways to the peers, now.
    pub fn ways<'a>(&self, ways: impl Iterator<Item = Way<'a>>) {
        for way in ways {
            let peer = way.peer.to_owned();
            let by = ByPeer { peer };
            self.peer_up
                .get_or_create(&by)
                .set(f64::from(u8::from(way.up)));
            for (figure, value) in [
                (&self.peer_rtt, way.rtt_ms / 1000.0),
                (&self.peer_uplink, way.uplink_bps),
                (&self.peer_downlink, way.downlink_bps),
                (&self.peer_queue, way.queue_ms / 1000.0),
                (&self.peer_jitter, way.jitter_ms / 1000.0),
            ] {
                // What is unknown is left out, not told as a number that nobody measured.
                if value < 0.0 {
                    figure.remove(&by);
                } else {
                    figure.get_or_create(&by).set(value);
                }
            }
        }
    }

    /// An error was told to a client.
    pub fn refused(&self, status: u16, code: &'static str) {
        self.errors.get_or_create(&ByCode { status, code }).inc();
    }

    /// A client has connected; it counts as long as the answer lives.
    pub fn connected(&self) -> Connected {
        self.connections.inc();
        Connected(self.connections.clone())
    }

    /// A connection was closed at once.
    pub fn no_room(&self) {
        self.refused_connections.inc();
    }

    /// Requests that are over.
    pub fn count(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    /// Sums for people, and percentiles of the newest 1,024 requests that got a first token (null before there was one).
    pub fn totals(&self) -> serde_json::Value {
        let routes = [
            ("edge", RouteLabel::Edge),
            ("cloud", RouteLabel::Cloud),
            ("cloud-draft", RouteLabel::CloudDraft),
            ("speculate", RouteLabel::Speculate),
        ];
        let by_route = routes.map(|(name, route)| {
            let outcomes = ["answered", "degraded", "cancelled", "refused", "failed"];
            let counts = outcomes.map(|outcome| {
                let count = self
                    .requests
                    .get_or_create(&ByOutcome { route, outcome })
                    .get();
                (outcome.to_owned(), count.into())
            });
            let counts: serde_json::Map<String, serde_json::Value> = counts.into_iter().collect();
            (name.to_owned(), counts.into())
        });
        let link = |direction| self.link.get_or_create(&ByDirection { direction }).get();
        let (ttft_p95_ms, total_p95_ms) = {
            let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
            (recent.first_token.p95_ms(), recent.total.p95_ms())
        };
        serde_json::json!({
            "routes": by_route.into_iter().collect::<serde_json::Map<String, serde_json::Value>>(),
            "drafted": self.drafted.get(),
            "accepted": self.accepted.get(),
            "unverified": self.unverified.get(),
            "outside-budget": self.outside.get(),
            "drift-alarms": self.drift_alarms.get(),
            "rounds": self.rounds.get(),
            "link-up-bytes": link("up"),
            "link-down-bytes": link("down"),
            "connections": self.connections.get(),
            "overridden": self.overridden.get(),
            "ttft-p95-ms": ttft_p95_ms,
            "total-p95-ms": total_p95_ms,
        })
    }

    /// All of them in the format of OpenMetrics, and `now`: figures that are read when they are asked for, by name and
    /// help.
    pub fn text(&self, now: &[(&str, &str, f64)]) -> String {
        let mut text = String::new();
        for (name, help, value) in now {
            let _ = write!(
                text,
                "# HELP msao_{name} {help}.\n# TYPE msao_{name} gauge\nmsao_{name} {value}\n"
            );
        }
        if encode(&mut text, &self.registry).is_err() {
            tracing::error!("metrics could not be written");
        }
        text
    }
}

/// A connection that is there.
#[derive(Debug)]
pub struct Connected(Gauge);

impl Drop for Connected {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn took(metrics: &Metrics, ttft_ms: f64, total_ms: f64, overrides: u32) {
        let outcome = Outcome {
            ttft_ms,
            total_ms,
            overrides,
            ..Outcome::default()
        };
        metrics.answered(Route::Edge, &outcome, 1);
    }

    #[test]
    fn totals_tell_the_95th_percentile_of_the_newest_requests() {
        let metrics = Metrics::default();
        assert!(metrics.totals()["ttft-p95-ms"].is_null());
        // A request without a first token has no times.
        took(&metrics, -1.0, 9000.0, 0);
        assert!(metrics.totals()["total-p95-ms"].is_null());
        for ms in 1..=100 {
            took(&metrics, f64::from(ms), f64::from(ms) * 10.0, 0);
        }
        let totals = metrics.totals();
        assert_eq!(totals["ttft-p95-ms"], 95.0);
        assert_eq!(totals["total-p95-ms"], 950.0);
        // The old ones go.
        for _ in 0..RECENT {
            took(&metrics, 7.0, 70.0, 0);
        }
        assert_eq!(metrics.totals()["ttft-p95-ms"], 7.0);
    }

    #[test]
    fn totals_count_requests_that_ran_otherwise_than_planned() {
        let metrics = Metrics::default();
        took(&metrics, 1.0, 2.0, 0);
        took(&metrics, 1.0, 2.0, 4);
        assert_eq!(metrics.totals()["overridden"], 1);
    }
}
