//! Reading a state: every field by itself, so that one that is odd spoils no other.

use serde_json::Value;

use super::{Arm, Calls, Canary, Generation, Glance, Load, Outcomes, Peer, Shadow, VerdictKind};
use crate::output::plain;

fn count(value: &Value, at: &str) -> u64 {
    maybe_count(value, at).unwrap_or(0)
}

fn maybe_count(value: &Value, at: &str) -> Option<u64> {
    let number = value.pointer(at)?;
    number
        .as_u64()
        .or_else(|| number.as_f64().filter(|it| *it >= 0.0).map(|it| it as u64))
}

/// A figure that is known: not below 0.
fn figure(value: &Value, at: &str) -> Option<f64> {
    value
        .pointer(at)
        .and_then(Value::as_f64)
        .filter(|it| *it >= 0.0)
}

fn word(value: &Value, at: &str) -> String {
    maybe_word(value, at).unwrap_or_default()
}

fn maybe_word(value: &Value, at: &str) -> Option<String> {
    value.pointer(at).and_then(Value::as_str).map(plain)
}

fn some<'a>(value: &'a Value, at: &str) -> Option<&'a Value> {
    value.pointer(at).filter(|it| !it.is_null())
}

fn load(value: &Value) -> Load {
    Load {
        held: word(value, "/held"),
        model: word(value, "/model"),
        sessions: count(value, "/sessions"),
        waiting: count(value, "/waiting"),
        kv: figure(value, "/kv-free").zip(figure(value, "/kv-capacity")),
        passes: count(value, "/passes"),
        rows: count(value, "/rows"),
    }
}

fn outcomes(value: &Value) -> Outcomes {
    Outcomes {
        answered: count(value, "/answered"),
        degraded: count(value, "/degraded"),
        cancelled: count(value, "/cancelled"),
        refused: count(value, "/refused"),
        failed: count(value, "/failed"),
    }
}

/// The order in which routes are listed; those that are not in it come after.
const ROUTES: [&str; 4] = ["edge", "cloud", "cloud-draft", "speculate"];

fn routes(value: &Value) -> Vec<(String, Outcomes)> {
    let Some(map) = value.pointer("/totals/routes").and_then(Value::as_object) else {
        return Vec::new();
    };
    let mut routes: Vec<_> = map
        .iter()
        .map(|(name, it)| (plain(name), outcomes(it)))
        .collect();
    let place = |name: &str| {
        ROUTES
            .iter()
            .position(|it| *it == name)
            .unwrap_or(ROUTES.len())
    };
    routes.sort_by(|(a, _), (b, _)| place(a).cmp(&place(b)).then_with(|| a.cmp(b)));
    routes
}

fn peer(name: Option<&str>, value: &Value) -> Peer {
    let named = ["/name", "/node", "/address"]
        .iter()
        .find_map(|at| maybe_word(value, at));
    Peer {
        name: name.map(plain).or(named).unwrap_or_else(|| "?".to_owned()),
        up: value.pointer("/up").and_then(Value::as_bool),
        draining: value.pointer("/draining").and_then(Value::as_bool) == Some(true),
        why: maybe_word(value, "/why"),
        rtt_ms: figure(value, "/rtt-ms"),
        uplink_bps: figure(value, "/uplink-bps"),
        downlink_bps: figure(value, "/downlink-bps"),
        queue_ms: figure(value, "/queue-ms"),
    }
}

fn peers(value: &Value) -> Vec<Peer> {
    match value.pointer("/peers") {
        Some(Value::Array(peers)) => peers.iter().map(|it| peer(None, it)).collect(),
        Some(Value::Object(peers)) => peers
            .iter()
            .map(|(name, it)| peer(Some(name), it))
            .collect(),
        _ => Vec::new(),
    }
}

fn generation(value: &Value) -> Generation {
    let exports = value.pointer("/exports").and_then(Value::as_object);
    let exports = exports.into_iter().flatten().map(|(name, it)| Calls {
        name: plain(name),
        breaker: word(it, "/breaker"),
        calls: count(it, "/calls"),
        failures: count(it, "/failures"),
        skipped: count(it, "/skipped"),
    });
    Generation {
        number: count(value, "/number"),
        policy_digest: word(value, "/id/policy"),
        postprocessor_digest: word(value, "/id/postprocessor"),
        policy: maybe_word(value, "/policy"),
        postprocessor: maybe_word(value, "/postprocessor"),
        revision: count(value, "/id/revision"),
        requests: count(value, "/requests"),
        in_flight: count(value, "/in-flight"),
        error_budget: maybe_count(value, "/error-budget/0")
            .zip(maybe_count(value, "/error-budget/1")),
        exports: exports.collect(),
    }
}

fn arm(value: Option<&Value>) -> Arm {
    let Some(value) = value else {
        return Arm::default();
    };
    Arm {
        reported: count(value, "/reported"),
        lost: count(value, "/lost"),
        errors: figure(value, "/errors").unwrap_or(0.0),
        overrides: figure(value, "/overrides").unwrap_or(0.0),
        ttft_p95_ms: figure(value, "/ttft-p95-ms").unwrap_or(-1.0),
        total_p95_ms: figure(value, "/total-p95-ms").unwrap_or(-1.0),
    }
}

fn canary(value: &Value) -> Canary {
    Canary {
        candidate: some(value, "/candidate")
            .map(generation)
            .unwrap_or_default(),
        step: count(value, "/step"),
        share: figure(value, "/share").unwrap_or(0.0),
        verdict_kind: match value.pointer("/verdict-kind").and_then(Value::as_str) {
            Some("hold") => VerdictKind::Hold,
            Some("worse") => VerdictKind::Worse,
            Some("fine") => VerdictKind::Fine,
            _ => VerdictKind::Unknown,
        },
        verdict: word(value, "/verdict"),
        stable_figures: arm(some(value, "/stable-figures")),
        candidate_figures: arm(some(value, "/candidate-figures")),
    }
}

fn shadow(value: &Value) -> Shadow {
    let by_reason = value.pointer("/1/by-reason").and_then(Value::as_object);
    let alike = by_reason
        .into_iter()
        .flatten()
        .fold((0, 0), |(alike, otherwise), (_, it)| {
            (
                alike + count(it, "/alike"),
                otherwise + count(it, "/otherwise"),
            )
        });
    Shadow {
        generation: some(value, "/0").map(generation).unwrap_or_default(),
        compared: count(value, "/1/compared"),
        dropped: count(value, "/1/dropped"),
        failed: count(value, "/1/failed"),
        alike,
    }
}

impl Glance {
    /// Reads a node's state.
    pub fn read(value: &Value) -> Glance {
        Glance {
            node: word(value, "/node"),
            role: word(value, "/role"),
            version: word(value, "/version"),
            started_s: figure(value, "/started-s"),
            draining: value
                .pointer("/draining")
                .and_then(Value::as_bool)
                .unwrap_or(false),
            under_way: count(value, "/requests/under-way"),
            most: maybe_count(value, "/requests/most"),
            over: count(value, "/requests/over"),
            draft: some(value, "/models/draft").map(load),
            target: some(value, "/models/target").map(load),
            sessions: maybe_count(value, "/sessions"),
            queue_ms: figure(value, "/speeds/queue-ms"),
            draft_tok_per_s: figure(value, "/speeds/draft-tok-per-s"),
            target_tok_per_s: figure(value, "/speeds/target-tok-per-s"),
            acceptance: figure(value, "/speeds/acceptance"),
            routes: routes(value),
            drafted: count(value, "/totals/drafted"),
            accepted: count(value, "/totals/accepted"),
            unverified: count(value, "/totals/unverified"),
            rounds: count(value, "/totals/rounds"),
            up_bytes: count(value, "/totals/link-up-bytes"),
            down_bytes: count(value, "/totals/link-down-bytes"),
            connections: count(value, "/totals/connections"),
            overridden: maybe_count(value, "/totals/overridden"),
            ttft_p95_ms: figure(value, "/totals/ttft-p95-ms"),
            total_p95_ms: figure(value, "/totals/total-p95-ms"),
            peers: peers(value),
            active: some(value, "/plugins/active").map(generation),
            previous: some(value, "/plugins/previous").map(generation),
            canary: some(value, "/plugins/rollout").map(canary),
            shadow: some(value, "/plugins/shadow").map(shadow),
            not_durable: maybe_word(value, "/plugins/not-durable"),
            failing_inputs: count(value, "/plugins/failing-inputs"),
            records: some(value, "/plugins/records").map(|it| {
                (
                    count(it, "/kept"),
                    count(it, "/dropped") + count(it, "/failed"),
                )
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_whole_state_is_read() {
        let text = include_str!("../../tests/data/state.json");
        let glance = Glance::read(&serde_json::from_str(text).unwrap());
        assert_eq!((&*glance.node, &*glance.role), ("edge-1", "edge"));
        assert_eq!(
            (glance.under_way, glance.most, glance.over),
            (5, Some(64), 1240)
        );
        let names: Vec<_> = glance
            .routes
            .iter()
            .map(|(name, _)| name.as_str())
            .collect();
        assert_eq!(names, ROUTES);
        assert_eq!(glance.outcomes().all(), 1240);
        assert_eq!(glance.peers[0].rtt_ms, Some(21.4));
        let active = glance.active.unwrap();
        assert_eq!(
            active.words(),
            "generation 7: patient 0.2.0 with mas-joint 0.1.0"
        );
        assert_eq!(active.error_budget, Some((1, 8)));
        let canary = glance.canary.unwrap();
        assert_eq!((canary.share, canary.candidate.number), (0.1, 8));
        assert_eq!(canary.verdict_kind, VerdictKind::Hold);
        assert_eq!(glance.overridden, Some(14));
        assert_eq!(
            (glance.ttft_p95_ms, glance.total_p95_ms),
            (Some(182.0), Some(2140.0))
        );
        assert_eq!(glance.shadow.unwrap().alike, (180, 20));
        // -1 says that something is not known.
        assert_eq!(glance.target_tok_per_s, None);
    }

    #[test]
    fn nothing_that_a_node_sends_is_an_error() {
        for value in [
            json!(null),
            json!("text"),
            json!({}),
            json!({"requests": 3, "models": [], "totals": {"routes": 7}, "peers": 1, "plugins": []}),
            json!({"totals": {"routes": {"teleport": {"answered": 1.0e30, "failed": -4}}}}),
            json!({"peers": {"cloud-1": {"up": true}}, "plugins": {"active": {"error-budget": [1]}, "shadow": [null]}}),
        ] {
            let _read = Glance::read(&value);
        }
        let odd = json!({"peers": {"cloud-1": {"up": true}}, "totals": {"routes": {"teleport": {"answered": 2}}}});
        let glance = Glance::read(&odd);
        assert_eq!(
            (glance.peers[0].name.as_str(), glance.peers[0].up),
            ("cloud-1", Some(true))
        );
        assert_eq!(
            glance.routes,
            [(
                "teleport".to_owned(),
                Outcomes {
                    answered: 2,
                    ..Default::default()
                }
            )]
        );
    }
}
