//! Each guardrail, on a recorded state that is changed in one place.

use serde_json::{Value, json};

use super::*;

const LIMITS: Limits = Limits {
    failed: 0.01,
    degraded: 0.05,
    overridden: 0.1,
    slower: 0.25,
    latency: 0.5,
    budget: 0.5,
};

fn state(change: impl FnOnce(&mut Value)) -> Glance {
    let mut value: Value =
        serde_json::from_str(include_str!("../../../tests/data/state.json")).unwrap();
    value["plugins"]["active"]["exports"] =
        json!({"plan": {"breaker": "closed", "calls": 1000, "failures": 0}});
    value["plugins"]["rollout"] = Value::Null;
    change(&mut value);
    Glance::read(&value)
}

fn ours() -> Ours {
    Ours {
        number: 7,
        policy: Some("5b1c0cd78c43b9f480aa7109412cf39fb05c5e94db0a79b0e96a837e6bad3bda".into()),
        postprocessor: None,
    }
}

fn told(change: impl FnOnce(&mut Value)) -> &'static str {
    match judge(&state(|_| ()), &state(change), &ours(), &LIMITS) {
        Ok(()) => "fine",
        Err(tripped) => tripped.guardrail,
    }
}

#[test]
fn each_guardrail_gives_way_to_its_own_trouble_alone() {
    let answered = |value: &mut Value, more: u64| {
        value["totals"]["routes"]["edge"]["answered"] = json!(410 + more)
    };
    assert_eq!(told(|_| ()), "fine");
    assert_eq!(told(|it| answered(it, 100)), "fine");
    assert_eq!(told(|it| it["started-s"] = json!(1_767_225_999)), "restart");
    assert_eq!(told(|it| it["draining"] = json!(true)), "draining");
    assert_eq!(
        told(|it| it["plugins"]["not-durable"] = json!("no space")),
        "journal"
    );
    assert_eq!(
        told(|it| it["plugins"]["active"] = it["plugins"]["previous"].clone()),
        "left"
    );
    // Tuned since by somebody: another generation, and still the policy of the rollout.
    assert_eq!(
        told(|it| it["plugins"]["active"]["number"] = json!(12)),
        "fine"
    );
    assert_eq!(
        told(|it| it["plugins"]["active"]["exports"]["plan"]["breaker"] = json!("open")),
        "breaker"
    );
    assert_eq!(
        told(|it| it["plugins"]["active"]["exports"]["plan"]["failures"] = json!(11)),
        "calls"
    );
    assert_eq!(
        told(|it| it["plugins"]["active"]["error-budget"] = json!([5, 8])),
        "error-budget"
    );
    assert_eq!(
        told(|it| it["plugins"]["active"]["error-budget"] = json!([4, 8])),
        "fine"
    );
    // 3 of 103 fail after 3 of 1240 before.
    assert_eq!(
        told(|it| {
            answered(it, 100);
            it["totals"]["routes"]["edge"]["failed"] = json!(3)
        }),
        "failed"
    );
    // Two are bad luck.
    assert_eq!(
        told(|it| {
            answered(it, 20);
            it["totals"]["routes"]["edge"]["failed"] = json!(2)
        }),
        "fine"
    );
    assert_eq!(
        told(|it| {
            answered(it, 30);
            it["totals"]["routes"]["speculate"]["degraded"] = json!(8)
        }),
        "degraded"
    );
    // A node of another version may leave out everything.
    assert_eq!(told(|it| it["totals"] = Value::Null), "fine");
}

#[test]
fn overrides_count_where_a_node_tells_them() {
    let with = |overridden: u64, answered: u64| {
        state(|it| {
            it["totals"]["overridden"] = json!(overridden);
            it["totals"]["routes"]["edge"]["answered"] = json!(answered);
        })
    };
    let judged = judge(&with(10, 410), &with(60, 510), &ours(), &LIMITS);
    assert_eq!(judged.unwrap_err().guardrail, "overridden");
    assert_eq!(
        judge(&with(10, 410), &with(15, 510), &ours(), &LIMITS),
        Ok(())
    );
}

#[test]
fn the_nodes_own_times_count_once_enough_requests_are_over() {
    let told = |key: &str, ms: Value, answered: u64| {
        told(|it| {
            it["totals"][key] = ms;
            it["totals"]["routes"]["edge"]["answered"] = json!(410 + answered);
        })
    };
    // 182 ms to the first token before, 2140 to the last.
    assert_eq!(told("ttft-p95-ms", json!(270.0), 100), "fine");
    assert_eq!(told("ttft-p95-ms", json!(280.0), 100), "latency");
    assert_eq!(told("total-p95-ms", json!(3300.0), 100), "latency");
    // Too few to say.
    assert_eq!(told("ttft-p95-ms", json!(280.0), 19), "fine");
    // A node of another version does not tell it.
    assert_eq!(told("ttft-p95-ms", Value::Null, 100), "fine");
}

#[test]
fn a_canary_is_held_against_what_it_is_to_replace() {
    let all: Value = serde_json::from_str(include_str!("../../../tests/data/state.json")).unwrap();
    let ours = Ours {
        number: 8,
        ..ours()
    };
    let told = |change: &dyn Fn(&mut Value)| {
        let glance = state(|it| {
            it["plugins"]["rollout"] = all["plugins"]["rollout"].clone();
            change(&mut it["plugins"]["rollout"]);
        });
        judge(&state(|_| ()), &glance, &ours, &LIMITS).map_or_else(|it| it.guardrail, |()| "fine")
    };
    assert_eq!(told(&|_| ()), "fine");
    assert_eq!(
        told(&|it| it["candidate-figures"]["errors"] = json!(0.2)),
        "canary-errors"
    );
    assert_eq!(
        told(&|it| it["candidate-figures"]["overrides"] = json!(0.5)),
        "canary-overridden"
    );
    assert_eq!(
        told(&|it| it["candidate-figures"]["ttft-p95-ms"] = json!(400.0)),
        "canary-latency"
    );
    // Too few to say.
    assert_eq!(
        told(&|it| {
            it["candidate-figures"]["reported"] = json!(10);
            it["candidate-figures"]["ttft-p95-ms"] = json!(400.0);
        }),
        "fine"
    );
    assert_eq!(
        told(&|it| it["candidate"]["exports"]["plan"]["breaker"] = json!("open")),
        "breaker"
    );
}

#[test]
fn a_promoted_canary_is_found_again() {
    let glance = state(|_| ());
    assert!(matches!(ours().find(&glance), Found::Active(active) if active.number == 7));
    let other = Ours {
        number: 99,
        policy: Some("00".into()),
        postprocessor: None,
    };
    assert_eq!(other.find(&glance), Found::Gone);
}
