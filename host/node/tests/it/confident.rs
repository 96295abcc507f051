//! What nodes learn of their drafts, and what they commit unverified: two nodes over sockets.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)] // a test's helpers may panic

use std::time::{Duration, Instant};

use http_body_util::BodyExt;
use msao_core::offload::{Node as Row, overrides};
use msao_hostile::build::{Decision, PartPlan, Scores, Treatment};
use msao_node::adapt::PairFigures;
use msao_registry::state::Storage;
use serde_json::{Value, json};

use crate::common::{
    self, Bench, asking, events, get, post, record_of, recorded, text, two, up, whole,
};

const EDGE: u8 = 0;
const CLOUD: u8 = 1;
const SPECULATE: u8 = 3;

const CONFIDENT: u8 = 1;

const DRAFT: u32 = 0;
const SEND: u32 = 1;
const COMMIT: u32 = 2;
const FINISH: u32 = 5;

/// More requests than any of these tests needs, even where the target is ahead of the drafts for whole answers.
const MANY: usize = 300;

fn to(route: u8, mode: u8) -> Decision {
    Decision {
        route,
        mode,
        peer: u32::from(route != EDGE),
        in_flight_max: 8,
        ..Decision::default()
    }
}

/// Questions that are not all alike.
fn question(number: usize) -> Value {
    let (one, other) = (number % 9 + 1, number % 7 + 2);
    let more = json!({ "temperature": 0, "max_tokens": 12 });
    asking(&format!("{one} + {other} = ? Tell me why."), more)
}

/// A cloud node with the target, and an edge node with this draft model and these sections.
async fn pair(draft: &str, sections: &str) -> (Bench, Bench) {
    let cloud = Bench::with("cloud", &["draft", "target"], "").await;
    let address = cloud.running.addresses.nodes.unwrap();
    let peers = format!("[[peers]]\nname = \"cloud\"\naddress = \"{address}\"\n");
    let edge = Bench::with("edge", &[draft], &(peers + sections)).await;
    up(&edge, true).await;
    (cloud, edge)
}

/// What the edge knows of its pair of models, once all that was told is learned.
fn known(edge: &Bench) -> PairFigures {
    edge.node.adapt.checkpoint().unwrap();
    let known = edge.node.adapt.figures();
    assert!(known.len() <= 1, "{known:?}");
    known
        .into_iter()
        .next()
        .unwrap_or_else(|| panic!("nothing was learned"))
}

fn drafts(edge: &Bench) -> u64 {
    edge.node.adapt.checkpoint().unwrap();
    edge.node.adapt.figures().iter().map(|it| it.drafts).sum()
}

/// Has drafts judged until so many were.
async fn teach(edge: &Bench, wanted: u64) {
    edge.plan(&to(SPECULATE, 0), SEND);
    for number in 0..MANY {
        if drafts(edge) >= wanted {
            return;
        }
        edge.answer(&question(number)).await;
    }
    panic!("{} drafts of {wanted} were judged", drafts(edge));
}

fn count(answer: &Value, key: &str) -> u64 {
    answer["msao"][key].as_u64().unwrap()
}

async fn metrics(bench: &Bench) -> String {
    let (status, _, text) = whole(bench.send(get("/metrics")).await).await;
    assert_eq!(status, 200);
    text.as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acceptance_is_learned_and_is_there_after_a_restart() {
    let (cloud, edge) = pair("draft", "").await;
    teach(&edge, 40).await;
    // What the policy is told is a probability, whatever the draft model says.
    let (_, record) = recorded(&edge, &question(1)).await;
    let steps = record["steps"].as_array().unwrap();
    assert!(!steps.is_empty(), "{record}");
    for step in steps {
        let p_accept = step["input"]["p-accept"].as_f64().unwrap();
        assert!((0.0..=1.0).contains(&p_accept), "{step}");
    }
    let before = known(&edge);
    assert!(before.drafts >= 40 && before.ignored == 0);
    assert!(!before.settled && before.classes.is_empty());
    // The first word was the draft model's own.
    assert_ne!(before.weights, [0.0, 1.0, 0.0, 0.0, 0.0]);
    // Policies see it in the target's row, and nothing that they may commit.
    let row = |record: &Value, name: &str| record["nodes"][1][name].as_f64().unwrap();
    let (_, record) = recorded(&edge, &question(2)).await;
    assert!(
        (0.0..=1.0).contains(&row(&record, "acceptance")),
        "{record}"
    );
    assert_eq!(row(&record, "confidence-floor"), 2.0);
    let before = known(&edge);
    let edge = edge.restarted(|_| {}).await;
    assert_eq!(known(&edge), before);
    up(&edge, true).await;
    edge.answer(&question(3)).await;
    edge.rest().await;
    cloud.rest().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_read_is_learned_anew_and_told() {
    let (cloud, edge) = pair("draft", "").await;
    teach(&edge, 10).await;
    let edge = edge
        .restarted(|learned| {
            let mut keys = Vec::new();
            let visit = &mut |key: &[u8], _: &[u8]| {
                keys.push(key.to_vec());
                std::ops::ControlFlow::Continue(())
            };
            learned.scan(b"adapt/pair/", visit).unwrap();
            assert_eq!(keys.len(), 1);
            learned.put(&keys[0], b"{\"version\": 7}").unwrap();
        })
        .await;
    assert_eq!(drafts(&edge), 0);
    let (_, told) = edge.operate("/v1/calibration/acceptance", None).await;
    assert_eq!(told["counted"]["unreadable"], 1, "{told}");
    up(&edge, true).await;
    teach(&edge, 1).await;
    cloud.rest().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_budget_nothing_is_unverified_whatever_a_policy_says() {
    let (cloud, edge) = pair("draft", "").await;
    for number in 0..6 {
        let body = question(number);
        cloud.plan(
            &Decision {
                route: CLOUD,
                ..Decision::default()
            },
            DRAFT,
        );
        let right = text(&cloud.answer(&body).await).to_owned();
        for step in [COMMIT, FINISH] {
            edge.plan(&to(SPECULATE, CONFIDENT), step);
            let (answer, record) = recorded(&edge, &body).await;
            assert_eq!(text(&answer), right, "step {step}");
            assert_eq!(count(&answer, "unverified_tokens"), 0, "{answer}");
            assert_eq!(answer["msao"]["degraded"], false, "{answer}");
            assert_eq!(answer["msao"]["audited"], false, "{answer}");
            let changed = record["outcome"]["overrides"].as_u64().unwrap();
            assert_ne!(changed & u64::from(overrides::EXACT), 0, "{record}");
        }
    }
    // The edge is free to use.
    edge.plan(&to(EDGE, 0), DRAFT);
    let answer = edge.answer(&question(0)).await;
    assert_eq!(answer["msao"]["route"], "edge");
    assert!(count(&answer, "unverified_tokens") > 0, "{answer}");
    assert_eq!(count(&answer, "outside_budget_tokens"), 0, "{answer}");
    edge.rest().await;
    cloud.rest().await;
}

/// The draft model is the target: it is always right, and audits show it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_budget_enough_agreement_opens_the_floor() {
    let sections = "[confident]\nbudget = 0.5\naudit-rate = 0.5\nsettle-drafts = 30\n";
    let (cloud, edge) = pair("draft=demo-target", sections).await;
    // Nothing is known yet: an answer planned for the edge goes to the target.
    edge.plan(&to(EDGE, 0), DRAFT);
    let answer = edge.answer(&question(0)).await;
    assert_eq!(answer["msao"]["route"], "cloud", "{answer}");
    assert_eq!(count(&answer, "unverified_tokens"), 0, "{answer}");
    teach(&edge, 30).await;
    assert!(known(&edge).settled);
    edge.plan(&to(SPECULATE, CONFIDENT), COMMIT);
    let (mut audited, mut unverified, mut floor) = (0, 0, None);
    for number in 0..MANY {
        if unverified > 0 {
            break;
        }
        let answer = edge.answer(&question(number)).await;
        edge.rest().await;
        if answer["msao"]["audited"] == true {
            audited += 1;
            assert_eq!(count(&answer, "unverified_tokens"), 0, "{answer}");
        }
        unverified += count(&answer, "unverified_tokens");
        assert_eq!(count(&answer, "outside_budget_tokens"), 0, "{answer}");
        floor = known(&edge).classes.first().and_then(|class| class.floor);
        assert!(unverified == 0 || floor.is_some());
    }
    assert!(audited >= 5, "{audited} audits opened {floor:?}");
    assert!(unverified > 0 && floor.is_some(), "{unverified} {floor:?}");
    let text = metrics(&edge).await;
    assert!(text.contains("msao_audits_total{end=\"agreed\"}"), "{text}");
    assert!(text.contains("msao_confidence_floor{"), "{text}");
    let told = format!("msao_unverified_tokens_total {unverified}\n");
    assert!(text.contains(&told), "{told} is not in {text}");
    // Now the edge may answer too, as far as it is sure; the rest is the target's.
    edge.plan(&to(EDGE, 0), DRAFT);
    let mut alone = 0;
    for number in 0..MANY {
        let answer = edge.answer(&question(number)).await;
        if answer["msao"]["audited"] == true {
            assert_eq!(count(&answer, "unverified_tokens"), 0, "{answer}");
        }
        alone += count(&answer, "unverified_tokens");
        if alone > 0 {
            break;
        }
    }
    assert!(alone > 0, "the edge was never sure");
    // What audits have shown is there after a restart.
    edge.rest().await;
    let before = known(&edge);
    let edge = edge.restarted(|_| {}).await;
    assert_eq!(known(&edge).classes[0].floor, before.classes[0].floor);
    assert!(known(&edge).classes[0].floor.is_some());
    up(&edge, true).await;
    // To be forgotten by an operator.
    let body = json!({ "acceptance": true });
    let (status, told) = edge.operate("/v1/calibration/reset", Some(body)).await;
    assert_eq!((status, &told["pairs"]), (200, &json!(1)), "{told}");
    edge.plan(&to(SPECULATE, CONFIDENT), COMMIT);
    for number in 0..5 {
        let answer = edge.answer(&question(number)).await;
        assert_eq!(count(&answer, "unverified_tokens"), 0, "{answer}");
    }
    edge.rest().await;
    cloud.rest().await;
}

/// What was open is shut while an answer runs in confident mode: the rest of that answer is exact, and its record says so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_shut_meanwhile_is_shut_for_answers_under_way() {
    let sections = "[confident]\nbudget = 0.5\naudit-rate = 0.5\nsettle-drafts = 30\n";
    let (cloud, edge) = pair("draft=demo-target", sections).await;
    let more = json!({
        "temperature": 0, "max_tokens": 400, "stream": true, "logit_bias": { "602": -100 },
    });
    let body = asking("Tell me a story.", more);
    // It may be audited, or whole before that, or all but so.
    for _ in 0..10 {
        teach(&edge, 30).await;
        edge.plan(&to(SPECULATE, CONFIDENT), COMMIT);
        let mut unverified = 0;
        for number in 0..MANY {
            if unverified > 0 {
                break;
            }
            unverified = count(&edge.answer(&question(number)).await, "unverified_tokens");
            edge.rest().await;
        }
        assert!(unverified > 0, "audits opened nothing");
        let mut begun = edge.send(post(&body)).await;
        let id = begun.headers()["x-request-id"].to_str().unwrap().to_owned();
        let _first = begun.body_mut().frame().await;
        let _second = begun.body_mut().frame().await;
        let reset = json!({ "acceptance": true });
        let (status, told) = edge.operate("/v1/calibration/reset", Some(reset)).await;
        assert_eq!(status, 200, "{told}");
        let events = events(begun).await;
        let end = events.iter().find(|event| event["msao"].is_object());
        let audited = end.unwrap()["msao"]["audited"] == true;
        let record = record_of(&edge, &id).await;
        let outcome = &record["outcome"];
        let changed = outcome["overrides"].as_u64().unwrap();
        let verified = outcome["unverified"].as_u64() < outcome["tokens"].as_u64();
        if !audited && verified && changed & u64::from(overrides::EXACT) != 0 {
            edge.rest().await;
            cloud.rest().await;
            return;
        }
    }
    panic!("no answer under way went on exactly when its floor was shut");
}

const EVERY: &str = "[confident]\nbudget = 0.2\naudit-rate = 1.0\nsettle-drafts = 5\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_audited_request_is_exact_and_every_place_is_judged() {
    let (cloud, edge) = pair("draft", EVERY).await;
    teach(&edge, 5).await;
    edge.rest().await;
    let mut asked = known(&edge).classes.first().map_or(0, |class| class.audits);
    for (route, mode, step) in [
        (EDGE, 0, DRAFT),
        (CLOUD, 0, DRAFT),
        (SPECULATE, CONFIDENT, COMMIT),
        (SPECULATE, 0, FINISH),
    ] {
        let body = question(usize::from(route) + step as usize);
        cloud.plan(
            &Decision {
                route: CLOUD,
                ..Decision::default()
            },
            DRAFT,
        );
        let right = text(&cloud.answer(&body).await).to_owned();
        edge.plan(&to(route, mode), step);
        let answer = edge.answer(&body).await;
        assert_eq!(answer["msao"]["audited"], true, "{answer}");
        assert_eq!(count(&answer, "unverified_tokens"), 0, "{answer}");
        assert_ne!(answer["msao"]["route"], "edge", "{answer}");
        assert_eq!(text(&answer), right);
        // It comes to its end, on a route without drafts too.
        edge.rest().await;
        asked += 1;
        let class = known(&edge).classes[0].clone();
        assert_eq!((class.audits, class.pending), (asked, 0), "{class:?}");
    }
    let text = metrics(&edge).await;
    assert!(!text.contains("end=\"unfinished\""), "{text}");
    // What may not leave is outside of it.
    edge.plan(&to(EDGE, 0), DRAFT);
    let stays = json!({ "temperature": 0, "max_tokens": 5, "msao": { "media": "edge-only" } });
    let answer = edge
        .answer(&common::about_picture("Describe the scene.", stays))
        .await;
    assert_eq!(answer["msao"]["route"], "edge", "{answer}");
    assert_eq!(answer["msao"]["audited"], false, "{answer}");
    let outside = count(&answer, "outside_budget_tokens");
    assert!(
        outside > 0 && outside == count(&answer, "unverified_tokens"),
        "{answer}"
    );
    // And so is what is asked while the link is down.
    drop(cloud);
    up(&edge, false).await;
    let answer = edge.answer(&question(0)).await;
    assert_eq!(answer["msao"]["route"], "edge", "{answer}");
    assert_eq!(answer["msao"]["audited"], false, "{answer}");
    assert!(count(&answer, "outside_budget_tokens") > 0, "{answer}");
    edge.rest().await;
}

/// What the draft model would have drafted it says behind the probe, whose seat waits for the audit. What looking has cost is
/// told before that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_audit_of_a_draft_that_keeps_less_goes_on_from_the_probe() {
    let (cloud, edge) = pair("draft", EVERY).await;
    teach(&edge, 5).await;
    edge.rest().await;
    let last_first = Scores {
        items: vec![(0.75, (0..256).rev().collect())],
        updates: Vec::new(),
    };
    let medium = PartPlan {
        draft: Treatment::keeping(0.25),
        target: Treatment::default(),
    };
    let more = json!({ "temperature": 0, "max_tokens": 8, "n": 2 });
    let body = common::about_picture("Describe the scene.", more);
    for (route, audits) in [(CLOUD, 1), (EDGE, 2)] {
        let plan = Decision {
            parts: vec![medium, PartPlan::default()],
            ..to(route, 0)
        };
        edge.plan_probed(&plan, DRAFT, &last_first);
        let (answer, record) = recorded(&edge, &body).await;
        assert_eq!(answer["msao"]["route"], "cloud", "{answer}");
        assert_eq!(answer["msao"]["audited"], true, "{answer}");
        let flops = record["outcome"]["edge-flops"].as_f64().unwrap();
        assert!(flops > 0.0, "{record}");
        edge.rest().await;
        let classes = known(&edge).classes.into_iter();
        let mut classes = classes.filter(|it| it.name == "draft quarter, target whole, greedy");
        let class = classes.next().unwrap();
        assert_eq!((class.audits, class.pending), (audits, 0), "{class:?}");
    }
    let text = metrics(&edge).await;
    assert!(!text.contains("end=\"unfinished\""), "{text}");
    cloud.rest().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_that_is_cut_in_an_audit_counts_as_disagreement() {
    let more = json!({
        "temperature": 1.2, "seed": 1, "max_tokens": 400, "stream": true, "logit_bias": { "0": -100 },
        "stream_options": { "include_usage": true },
    });
    let body = asking("Tell me a story.", more);
    // An answer may be whole before its cloud goes.
    for _ in 0..5 {
        let (cloud, edge) = pair("draft", EVERY).await;
        teach(&edge, 5).await;
        edge.rest().await;
        let mut begun = edge.send(post(&body)).await;
        let _first = begun.body_mut().frame().await;
        let _second = begun.body_mut().frame().await;
        drop(cloud);
        let events = events(begun).await;
        let end = events
            .iter()
            .find(|event| event["msao"].is_object())
            .unwrap();
        edge.rest().await;
        if end["msao"]["degraded"] == true {
            let text = metrics(&edge).await;
            assert!(
                text.contains("msao_audits_total{end=\"unfinished\"} 1\n"),
                "{text}"
            );
            // The draft model went on, or said that this was all.
            let said = count(end, "outside_budget_tokens") > 0;
            assert!(
                said || end["choices"][0]["finish_reason"] == "stop",
                "{end}"
            );
            // Other classes of temperature have not heard of it.
            let hot: Vec<_> = known(&edge).classes;
            let hot: Vec<_> = hot.iter().filter(|it| it.name.ends_with("hot")).collect();
            assert_eq!(hot.len(), 1, "{hot:?}");
            assert_eq!((hot[0].audits, hot[0].disagreements), (1, 1), "{hot:?}");
            return;
        }
    }
    panic!("the answer was always whole before its cloud went");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_learned_of_other_models_is_not_taken() {
    let (cloud, edge) = pair("draft", "").await;
    teach(&edge, 20).await;
    let before = known(&edge);
    let (status, exported) = edge.operate("/v1/calibration/export", None).await;
    assert_eq!(
        (status, &exported["version"]),
        (200, &json!(1)),
        "{exported}"
    );
    assert_eq!(exported["acceptance"].as_array().unwrap().len(), 1);
    let reset = json!({ "acceptance": true });
    let (status, _) = edge.operate("/v1/calibration/reset", Some(reset)).await;
    assert_eq!((status, drafts(&edge)), (200, 0));

    let mut other = exported.clone();
    other["acceptance"][0]["pair"]["target"] = json!("ab".repeat(32));
    let import = |body: Value| edge.operate("/v1/calibration/import", Some(body));
    let (status, told) = import(other).await;
    assert_eq!(
        (status, told["taken"].as_array().unwrap().len()),
        (200, 1),
        "{told}"
    );
    let why = told["refused"][0]["why"].as_str().unwrap();
    assert!(
        why.contains("abababababab") && why.contains("this node serves"),
        "{why}"
    );
    assert_eq!(drafts(&edge), 0);
    let mut odd = exported.clone();
    odd["version"] = json!(2);
    let (status, told) = import(odd).await;
    assert_eq!(
        (status, &told["error"]["param"]),
        (400, &json!("version")),
        "{told}"
    );

    let (status, told) = import(exported).await;
    assert_eq!((status, &told["refused"]), (200, &json!([])), "{told}");
    let after = known(&edge);
    assert_eq!((after.drafts, &after.knots), (before.drafts, &before.knots));
    let (status, told) = edge
        .operate("/v1/calibration/export?plugin=nobody", None)
        .await;
    assert_eq!(status, 400, "{told}");
    cloud.rest().await;
}

/// Work that was planned onto a peer counts until the peer says something, and no longer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn planned_work_counts_until_it_has_begun() {
    let (cloud, edge) = two(
        "[peers.shape]\n[peers.shape.up]\ndelay-ms = 150.0\n[peers.shape.down]\ndelay-ms = 150.0\n",
    )
    .await;
    edge.plan(&to(CLOUD, 0), DRAFT);
    let row = || {
        let mut row = Row::default();
        edge.node.peers[0].peer().fill(&mut row);
        row
    };
    edge.answer(&question(0)).await;
    // How fast the cloud reads comes with a heartbeat.
    let end = Instant::now() + Duration::from_secs(20);
    while row().prefill_tok_per_s <= 0.0 {
        assert!(Instant::now() < end, "{:?}", row());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(row().planned_ms, 0.0);
    let body = question(1);
    let watched = async {
        let mut most = 0.0_f64;
        loop {
            most = most.max(row().planned_ms);
            if most > 0.0 {
                return most;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let answered = edge.answer(&body);
    let (answer, planned) = tokio::join!(
        answered,
        tokio::time::timeout(Duration::from_secs(20), watched)
    );
    assert!(planned.is_ok(), "nothing was ever planned: {answer}");
    edge.rest().await;
    assert_eq!(row().planned_ms, 0.0);
    cloud.rest().await;
}
