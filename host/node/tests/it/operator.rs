//! The operators' API, over sockets, on the demo's models.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)] // a test's helpers may panic

use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use msao_core::offload::{Operation, Update};
use msao_hostile::build::Decision;
use msao_registry::SigningKeyFile;
use msao_registry::state::CellsKey;
use serde_json::{Value, json};

use crate::common::{Bench, asking};

const EDGE: u8 = 0;
const CLOUD: u8 = 1;

fn by(route: u8) -> Decision {
    Decision {
        route,
        ..Decision::default()
    }
}

/// A change that must be done: its receipt.
async fn done(bench: &Bench, path: &str, body: Value) -> Value {
    let (status, answer) = bench.operate(path, Some(body)).await;
    assert_eq!(status, 200, "{path}: {answer}");
    answer
}

/// A change that is refused with 409 and this code: why.
async fn refused(bench: &Bench, path: &str, body: Value, code: &str) -> String {
    let (status, answer) = bench.operate(path, Some(body)).await;
    assert_eq!(status, 409, "{path}: {answer}");
    assert_eq!(answer["error"]["code"], code, "{path}: {answer}");
    answer["error"]["message"].as_str().unwrap().to_owned()
}

fn number(receipt: &Value) -> u64 {
    receipt["number"].as_u64().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_is_made_to_the_generation_that_was_seen_or_not_at_all() {
    let bench = Bench::start("").await;
    let (here, there) = (bench.push(&by(EDGE)), bench.push(&by(CLOUD)));
    let first = number(&done(&bench, "/v1/activate", json!({ "policy": here })).await);
    let stale = first - 1;
    let active = || bench.node.plugins.status().active.number;
    for (path, mut body) in [
        ("/v1/activate", json!({ "policy": there })),
        ("/v1/rollback-to", json!({ "policy": there })),
        ("/v1/canary", json!({ "policy": there })),
        ("/v1/shadow", json!({ "policy": there })),
        ("/v1/off", json!({})),
        ("/v1/rollback", json!({ "why": "to see" })),
    ] {
        body["generation"] = json!(stale);
        let why = refused(&bench, path, body, "changed").await;
        for told in [format!("generation {stale}"), format!("generation {first}")] {
            assert!(why.contains(&told), "{path}: {why}");
        }
        assert_eq!(active(), first, "{path}");
    }
    let status = bench.node.plugins.status();
    assert!(status.rollout.is_none() && status.shadow.is_none());

    // A promotion is of the canary that was seen, and a rollback drops that one alone.
    let canary = json!({ "policy": there, "generation": first });
    let candidate = number(&done(&bench, "/v1/canary", canary).await);
    for path in ["/v1/promote", "/v1/rollback"] {
        let named = json!({ "generation": first });
        let why = refused(&bench, path, named, "changed").await;
        assert!(why.contains(&format!("generation {candidate}")), "{why}");
    }
    assert!(bench.node.plugins.status().rollout.is_some());
    done(&bench, "/v1/rollback", json!({ "generation": candidate })).await;
    assert_eq!(active(), first);
    let canary = json!({ "policy": there, "generation": first });
    let candidate = number(&done(&bench, "/v1/canary", canary).await);
    done(&bench, "/v1/promote", json!({ "generation": candidate })).await;
    assert_eq!(active(), candidate);
    done(&bench, "/v1/off", json!({ "generation": candidate })).await;
    assert_eq!(bench.node.plugins.status().active.policy, None);
}

/// Programs tell what is so already from what cannot be now.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_active_already_has_a_code_of_its_own() {
    let bench = Bench::start("").await;
    let already = async |path: &str, body: Value| {
        let why = refused(&bench, path, body, "already_active").await;
        assert!(why.contains("active already"), "{path}: {why}");
    };
    // Nothing but the fallback runs.
    already("/v1/off", json!({})).await;
    let here = bench.push(&by(EDGE));
    let first = number(&done(&bench, "/v1/activate", json!({ "policy": here })).await);
    already("/v1/activate", json!({ "policy": here })).await;
    already("/v1/canary", json!({ "policy": here })).await;
    // A revision of its parameters that changes none of them.
    already("/v1/tune", json!({ "plugin": "hostile", "values": {} })).await;
    assert_eq!(bench.node.plugins.status().active.number, first);
    refused(&bench, "/v1/promote", json!({}), "not_now").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_history_tells_who_and_why() {
    // SHA-256 of "secret".
    let bench = Bench::start(
        "[operator]\n[operator.tokens.alice]\nrole = \"activate\"\n\
         sha256 = \"2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b\"\n",
    )
    .await;
    let as_alice = async |path: &str, body: Option<Value>| {
        let request = Request::builder()
            .method(if body.is_some() { "POST" } else { "GET" })
            .uri(path)
            // With tokens no name is asked for.
            .header("host", "edge.example")
            .header("authorization", "Bearer secret")
            .header("content-type", "application/json");
        let body = body.map_or_else(String::new, |body| body.to_string());
        let request = request.body(Full::new(Bytes::from(body))).unwrap();
        let (status, answer) = bench.ask_operators(request).await;
        assert_eq!(status, 200, "{path}: {answer}");
        answer
    };
    assert_eq!(
        as_alice("/v1/whoami", None).await,
        json!({ "name": "alice", "role": "activate" })
    );
    let (status, answer) = bench.operate("/v1/whoami", None).await;
    let message = answer["error"]["message"].as_str().unwrap();
    assert_eq!(status, 401);
    assert!(
        message.contains("operator token") && message.contains("operator.tokens"),
        "{message}"
    );

    let (here, there) = (bench.push(&by(EDGE)), bench.push(&by(CLOUD)));
    as_alice("/v1/activate", Some(json!({ "policy": here }))).await;
    // Not by an operator: no token made this one.
    bench.plan(&by(CLOUD), 0);
    let back = json!({ "policy": here, "why": "answers got slower" });
    as_alice("/v1/rollback-to", Some(back)).await;
    as_alice("/v1/shadow", Some(json!({ "policy": there }))).await;
    let history = as_alice("/v1/history?last=4", None).await;
    let history = history["history"].as_array().unwrap();
    let by: Vec<&Value> = history.iter().map(|it| &it["by"]).collect();
    assert_eq!(
        by,
        [
            &json!("alice"),
            &json!("alice"),
            &Value::Null,
            &json!("alice")
        ]
    );
    assert_eq!(
        history[1]["event"]["activated"]["why"],
        "answers got slower"
    );
    assert!(history[3]["event"]["activated"].get("why").is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signing_key_is_revoked_while_the_node_runs() {
    let key = SigningKeyFile::generate().unwrap();
    let bench = Bench::start(&format!("[policy.keys]\nops = \"{}\"\n", key.public())).await;
    bench.plan(&by(CLOUD), 0);
    let sound = bench.node.plugins.status().active.number;
    let signed = bench.push_signed(&by(EDGE), &key, 1);
    let active = number(&done(&bench, "/v1/activate", json!({ "policy": signed })).await);
    assert_ne!(active, sound);
    // What is active would not run with these keys: nothing else of the configuration is taken either.
    let mut config = bench.node.config.clone();
    config.policy.keys.clear();
    config.operator.tokens.insert(
        "alice".to_owned(),
        msao_node::config::OperatorToken {
            sha256: "00".repeat(32),
            role: msao_node::config::OperatorRole::Activate,
        },
    );
    let refused = bench.running.renew(&config).unwrap_err().to_string();
    assert!(
        refused.contains("Put the key back into policy.keys"),
        "{refused}"
    );
    let local = json!({ "name": "local", "role": "activate" });
    assert_eq!(bench.operate("/v1/whoami", None).await, (200, local));
    assert_eq!(bench.node.plugins.status().active.number, active);

    let mut config = bench.node.config.clone();
    config.policy.revoked = vec![key.public()];
    bench.running.renew(&config).unwrap();
    assert_eq!(bench.node.plugins.status().active.number, sound);
    let (_, history) = bench.operate("/v1/history?last=1", None).await;
    let newest = &history["history"][0];
    let why = newest["event"]["left"]["why"].as_str().unwrap();
    assert!(why.contains("policy.revoked withdraws"), "{why}");
    assert_eq!(newest["by"], Value::Null);
    let (status, answer) = bench
        .operate("/v1/activate", Some(json!({ "policy": signed })))
        .await;
    assert_eq!(status, 400, "{answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn releases_that_nothing_needs_are_removed_by_who_may_bring_them() {
    // SHA-256 of "secret".
    let bench = Bench::start(
        "[operator]\n[operator.tokens.alice]\nrole = \"push\"\n\
         sha256 = \"2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b\"\n",
    )
    .await;
    let remove = async |body: Value| {
        let request = Request::post("/v1/remove")
            .header("host", "edge.example")
            .header("authorization", "Bearer secret")
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(body.to_string())))
            .unwrap();
        bench.ask_operators(request).await
    };
    bench.plan(&by(EDGE), 0);
    let active = bench.node.plugins.deployment().active;
    let (unused, other) = (bench.push(&by(CLOUD)), bench.push(&by(2)));
    let (status, answer) = remove(json!({ "release": active.policy })).await;
    let why = answer["error"]["message"].as_str().unwrap();
    let told = format!("it is active (generation {})", active.number);
    assert!(status == 409 && why.contains(&told), "{status}: {why}");
    let (status, answer) = remove(json!({ "release": unused })).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(answer["removed"][0]["release"], unused);
    assert!(answer["bytes"].as_u64().unwrap() > 0, "{answer}");
    let (status, answer) = remove(json!({ "release": unused })).await;
    assert_eq!(status, 400, "{answer}");
    let (status, answer) = remove(json!({ "unused": true })).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(answer["removed"][0]["release"], other);
    assert_eq!(answer["kept"][0]["needed"], "active");
    for body in [json!({}), json!({ "release": other, "unused": true })] {
        assert_eq!(remove(body).await.0, 400);
    }
    assert_eq!(bench.node.plugins.releases().unwrap().len(), 1);
    // Each is in the log of what operators changed, refused or done.
    let log = bench.node.config.node.state.join("audit.jsonl");
    let log = std::fs::read_to_string(log).unwrap();
    let removals = log
        .lines()
        .filter(|line| line.contains("\"what\":\"remove\"") && line.contains("\"who\":\"alice\""));
    assert_eq!(removals.count(), 2 * 6);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_tokens_this_machine_alone_is_answered() {
    let bench = Bench::start("").await;
    let local = json!({ "name": "local", "role": "activate" });
    assert_eq!(bench.operate("/v1/whoami", None).await, (200, local));
    for (name, value) in [("host", "evil.example"), ("origin", "https://evil.example")] {
        let mut request = Request::post("/v1/off").header("content-type", "application/json");
        if name != "host" {
            request = request.header("host", "localhost");
        }
        let request = request.header(name, value).body(Full::default()).unwrap();
        let (status, answer) = bench.ask_operators(request).await;
        assert_eq!(status, 403, "{name}: {answer}");
        let message = answer["error"]["message"].as_str().unwrap();
        assert!(
            message.contains(value) && message.contains("operator.tokens"),
            "{message}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_is_explained_whatever_its_id_and_long_after() {
    let bench = Bench::start("").await;
    bench.plan(&by(EDGE), 0);
    let body = asking("Hello", json!({ "max_tokens": 2 }));
    let (_, headers, _) = bench.chat(&body).await;
    let id = headers["x-request-id"].to_str().unwrap();
    // A policy that is neither active nor before it any more is still known by its manifest.
    for route in [CLOUD, 2, 3] {
        bench.plan(&by(route), 0);
    }
    let escaped: String = id.bytes().map(|byte| format!("%{byte:02X}")).collect();
    for id in [id, escaped.as_str()] {
        let (status, words) = bench
            .operate(&format!("/v1/decisions/{id}/words"), None)
            .await;
        let words = words.as_str().unwrap();
        assert_eq!(status, 200, "{words}");
        let name = &bench.node.plugins.status().active.policy.unwrap();
        assert!(words.contains(name.as_str()), "no {name} in\n{words}");
    }
    let (status, _) = bench.operate("/v1/history?l%61st=2", None).await;
    assert_eq!(status, 200);
    let (status, _) = bench.operate("/v1/decisions/%ff", None).await;
    assert_eq!(status, 400);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn totals_tell_times_and_overrides() {
    let bench = Bench::start("").await;
    // The draft model is planned on, and the target demanded.
    bench.plan(&by(EDGE), 0);
    let exact = json!({ "max_tokens": 2, "msao": { "require": "exact" } });
    bench.answer(&asking("Hello", exact)).await;
    bench.rest().await;
    let (_, state) = bench.operate("/v1/state", None).await;
    let totals = &state["totals"];
    assert_eq!(totals["overridden"], 1, "{totals}");
    let (first, last) = (
        totals["ttft-p95-ms"].as_f64().unwrap(),
        totals["total-p95-ms"].as_f64().unwrap(),
    );
    assert!(0.0 < first && first <= last, "{totals}");
}

/// Waits until the edge's peer is so.
async fn peer(edge: &Bench, up: bool, draining: bool) {
    let mut status = edge.node.peers[0].peer().watch();
    let seen = status.wait_for(|status| (status.up, status.draining) == (up, draining));
    let seen = tokio::time::timeout(Duration::from_secs(20), seen).await;
    seen.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn peers_hear_of_a_drain_and_of_its_end() {
    let cloud = Bench::with("cloud", &["draft", "target"], "").await;
    let address = cloud.running.addresses.nodes.unwrap();
    let peers = format!("[[peers]]\nname = \"cloud\"\naddress = \"{address}\"\n");
    let edge = Bench::with("edge", &["draft"], &peers).await;
    peer(&edge, true, false).await;
    let decision = Decision {
        route: CLOUD,
        peer: 1,
        ..Decision::default()
    };
    edge.plan(&decision, 0);
    let route = async || {
        let body = asking("Hello", json!({ "max_tokens": 2 }));
        edge.answer(&body).await["msao"]["route"].clone()
    };
    assert_eq!(route().await, "cloud");

    let drained = done(&cloud, "/v1/drain", json!({})).await;
    assert_eq!(drained["draining"], true);
    peer(&edge, false, true).await;
    assert_eq!(route().await, "edge");
    let hello = asking("Hello", json!({ "max_tokens": 2 }));
    assert_eq!(cloud.chat(&hello).await.0, 503);

    let again = done(&cloud, "/v1/undrain", json!({})).await;
    assert_eq!(again["draining"], false);
    peer(&edge, true, false).await;
    assert_eq!(route().await, "cloud");
    assert_eq!(cloud.chat(&hello).await.0, 200);
    // Twice is no mistake.
    done(&cloud, "/v1/undrain", json!({})).await;

    // Once it is being stopped it is too late.
    cloud.node.stop();
    peer(&edge, false, true).await;
    let why = refused(&cloud, "/v1/undrain", json!({}), "not_now").await;
    assert!(why.contains("being stopped"), "{why}");
    assert!(cloud.node.is_draining());
}

/// Cells stay when a plug-in goes, or comes with another schema.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cells_of_what_is_not_active_are_told_exported_and_forgotten() {
    let bench = Bench::start("").await;
    bench.plan(&by(EDGE), 0);
    let key = |state_schema: u32| CellsKey {
        plugin: "gone".into(),
        state_schema,
        models: "a/b".into(),
        node: "both".into(),
    };
    for schema in [3, 4] {
        let cells = bench.node.calibration.live(&key(schema));
        assert!(cells.update(vec![Update {
            operation: Operation::Add,
            key: 7,
            value: 2.0,
            weight: 1.0,
        }]));
    }
    let kept = async || -> Vec<(Value, Value, Value)> {
        let (status, told) = bench.operate("/v1/calibration/kept", None).await;
        assert_eq!(status, 200, "{told}");
        let all = told["kept"].as_array().unwrap().iter();
        let of = |it: &Value| {
            let schema = it["key"]["state-schema"].clone();
            (schema, it["cells"].clone(), it["active"].clone())
        };
        let gone = all.filter(|it| it["key"]["plugin"] == "gone");
        gone.map(of).collect()
    };
    let one = |schema: u32| (json!(schema), json!(1), json!(false));
    assert_eq!(kept().await, [one(3), one(4)]);
    // As before, an export is of what is active, unless more is asked for.
    let exported = async |query: &str| {
        let path = format!("/v1/calibration/export{query}");
        let (status, told) = bench.operate(&path, None).await;
        let plugins = told["plugins"].as_array().map_or(0, Vec::len);
        (status, plugins)
    };
    assert_eq!(exported("").await, (200, 1));
    assert_eq!(exported("?kept=true").await, (200, 3));
    assert_eq!(exported("?plugin=gone&kept=true").await, (200, 2));
    assert_eq!(exported("?plugin=gone").await.0, 400);
    assert_eq!(exported("?kept=perhaps").await.0, 400);
    let reset = "/v1/calibration/reset";
    let (status, told) = bench
        .operate(reset, Some(json!({ "plugin": "gone" })))
        .await;
    assert_eq!(status, 400, "{told}");
    let one_schema = json!({ "plugin": "gone", "kept": true, "state-schema": 3 });
    let forgotten = done(&bench, reset, one_schema.clone()).await;
    assert_eq!(
        (&forgotten["sets"], &forgotten["cells"]),
        (&json!(1), &json!(1))
    );
    assert_eq!(kept().await, [one(4)]);
    // It is not there any more, and a schema without `kept` says nothing.
    let (status, told) = bench.operate(reset, Some(one_schema)).await;
    assert_eq!(status, 400, "{told}");
    let half = json!({ "plugin": "gone", "state-schema": 4 });
    assert_eq!(bench.operate(reset, Some(half)).await.0, 400);
    let all = json!({ "plugin": "gone", "kept": true });
    assert_eq!(done(&bench, reset, all).await["cells"], 1);
    assert!(kept().await.is_empty());
}
