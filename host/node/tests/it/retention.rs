//! Plans that keep less than all of a medium: what the models read, what that saves, and what is told of it.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)] // a test's helpers may panic

use std::time::{Duration, Instant};

use base64::Engine as _;
use http_body_util::BodyExt;
use msao_core::chat::Modality;
use msao_core::digest::Digest;
use msao_hostile::build::{Decision, PartPlan, Scores, Treatment};
use msao_session::frame::{Frame, Medium, RefusedCode, keep_bits};
use serde_json::{Value, json};

use crate::common::{
    Bench, CUTS, about_picture, asking, edge_of, first_about, get, models, picture, post, recorded,
    text, through_cuts, tokens, two, whole,
};

const EDGE: u8 = 0;
const CLOUD: u8 = 1;
const CLOUD_DRAFT: u8 = 2;
const SPECULATE: u8 = 3;

/// Numbers of actions.
const DRAFT: u32 = 0;
const SEND: u32 = 1;
const ESCALATE: u32 = 4;

/// Tokens of the demo's picture.
const TOKENS: u32 = 256;
/// The bit of another retention than planned.
const RETENTION: u64 = 8;

/// A medium and its question, of which the draft model and the target keep these shares.
fn keeping(draft: f64, target: f64) -> Vec<PartPlan> {
    let medium = PartPlan {
        draft: Treatment::keeping(draft),
        target: Treatment::keeping(target),
    };
    vec![medium, PartPlan::default()]
}

/// On a node that has the target itself.
fn here(route: u8, parts: Vec<PartPlan>) -> Decision {
    Decision {
        route,
        in_flight_max: 8,
        parts,
        ..Decision::default()
    }
}

/// On an edge node.
fn there(route: u8, parts: Vec<PartPlan>) -> Decision {
    Decision {
        peer: u32::from(route != EDGE),
        ..here(route, parts)
    }
}

/// A post-processor that wants the last tokens of the picture most.
fn last_first() -> Scores {
    Scores {
        items: vec![(0.75, (0..TOKENS).rev().collect())],
        updates: Vec::new(),
    }
}

/// A question whose answer has so many tokens, whatever they are: its end is forbidden.
fn describing(max_tokens: u32) -> Value {
    let more = json!({
        "temperature": 0.8, "seed": 11, "max_tokens": max_tokens, "logprobs": true, "logit_bias": { "602": -100 },
    });
    about_picture("Describe the scene.", more)
}

/// The shares of the only medium that the draft model and the target have read.
fn kept(answer: &Value) -> (Option<f64>, Option<f64>) {
    let retention = &answer["msao"]["items"][0]["retention"];
    (retention["draft"].as_f64(), retention["target"].as_f64())
}

/// How much of the medium the outcome says was kept by plan.
fn planned(record: &Value) -> (f64, f64) {
    let part = &record["outcome"]["parts"][0];
    let keep = |side: &str| part[side]["keep"].as_f64().unwrap();
    (keep("draft"), keep("target"))
}

fn flops(record: &Value, side: &str) -> f64 {
    record["outcome"][format!("{side}-flops")].as_f64().unwrap()
}

fn overrides(record: &Value) -> u64 {
    record["outcome"]["overrides"].as_u64().unwrap()
}

async fn metric(bench: &Bench, series: &str) -> f64 {
    let (_, _, page) = whole(bench.send(get("/metrics")).await).await;
    let page = page.as_str().unwrap();
    let line = page.lines().find(|line| line.starts_with(series));
    let line = line.unwrap_or_else(|| panic!("no {series} in {page}"));
    line.rsplit_once(' ').unwrap().1.parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_target_keeps_decides_its_answer_whatever_drafts_it_and_costs_less() {
    let body = describing(20);
    let mut cost = Vec::new();
    let mut billed = Vec::new();
    for share in [1.0, 0.5] {
        // Nobody has read anything yet.
        let (cloud, edge) = two("").await;
        edge.plan(&there(CLOUD, keeping(0.2, share)), DRAFT);
        let (right, record) = recorded(&edge, &body).await;
        assert_eq!(kept(&right), (None, Some(share)), "{right}");
        assert_eq!(overrides(&record), 0, "{record}");
        assert_eq!(planned(&record), (0.2, share), "{record}");
        cost.push(flops(&record, "cloud"));
        billed.push(right["usage"]["prompt_tokens"].clone());
        let image = &right["usage"]["prompt_tokens_details"]["image_tokens"];
        assert_eq!(*image, json!(TOKENS));
        for (route, step, by_plan, by_draft) in [
            (CLOUD_DRAFT, DRAFT, share, share),
            // 52 of 256 tokens are the fewest that are a fifth.
            (SPECULATE, DRAFT, 0.2, 52.0 / 256.0),
            (SPECULATE, SEND, 0.2, 52.0 / 256.0),
        ] {
            edge.plan(&there(route, keeping(0.2, share)), step);
            let (answer, record) = recorded(&edge, &body).await;
            assert_eq!(tokens(&answer), tokens(&right), "{route} at {share}");
            assert_eq!(kept(&answer), (Some(by_draft), Some(share)), "{answer}");
            assert_eq!(overrides(&record), 0, "{record}");
            // Beside the target the draft model reads what the target reads.
            if (by_plan, share) == (1.0, 1.0) {
                assert_eq!(record["outcome"]["parts"], json!([]));
            } else {
                assert_eq!(planned(&record), (by_plan, share), "{record}");
            }
        }
        let series = "msao_media_tokens_total{modality=\"image\",side=\"cloud\",kept=\"no\"}";
        let dropped = f64::from(TOKENS) * (1.0 - share);
        assert_eq!(metric(&edge, series).await, 4.0 * dropped);
        let series = "msao_media_tokens_total{modality=\"image\",side=\"edge\",kept=\"yes\"}";
        assert_eq!(metric(&edge, series).await, 2.0 * 52.0);
        edge.rest().await;
        cloud.rest().await;
    }
    assert!(cost[1] < cost[0], "{cost:?}");
    // A policy does not change a bill.
    assert_eq!(billed[0], billed[1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_kept_is_as_if_nothing_was_planned_and_nothing_kept_is_an_answer_too() {
    let bench = Bench::start("").await;
    let body = describing(12);
    bench.plan(&here(CLOUD, Vec::new()), DRAFT);
    let right = bench.answer(&body).await;
    bench.plan(&here(CLOUD, keeping(1.0, 1.0)), DRAFT);
    let (answer, record) = recorded(&bench, &body).await;
    assert_eq!(text(&answer), text(&right));
    assert_eq!(record["outcome"]["parts"], json!([]));
    assert_eq!(kept(&answer), (None, Some(1.0)));
    // Whole but for less than a token.
    bench.plan(&here(CLOUD, keeping(1.0, 0.999)), DRAFT);
    let answer = bench.answer(&body).await;
    assert_eq!(text(&answer), text(&right));
    assert_eq!(kept(&answer), (None, Some(1.0)));
    let mut dropped = Vec::new();
    for (route, step) in [(CLOUD, DRAFT), (CLOUD_DRAFT, DRAFT), (SPECULATE, SEND)] {
        bench.plan(&here(route, keeping(0.0, 0.0)), step);
        let answer = bench.answer(&body).await;
        assert_eq!(kept(&answer).1, Some(0.0), "{answer}");
        dropped.push(text(&answer).to_owned());
    }
    assert!(
        dropped.iter().all(|answer| *answer == dropped[0]),
        "{dropped:?}"
    );
    bench.plan(&here(EDGE, keeping(0.0, 1.0)), DRAFT);
    let answer = bench.answer(&body).await;
    assert_eq!(kept(&answer), (Some(0.0), None));
    bench.rest().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn segments_of_a_sound_are_dropped_too() {
    let bench = Bench::start("").await;
    let sound = std::fs::read(models().join("demo-media/beeps.wav")).unwrap();
    let data = base64::engine::general_purpose::STANDARD.encode(sound);
    let body = json!({
        "model": "msao", "temperature": 0, "max_tokens": 8,
        "messages": [{ "role": "user", "content": [
            { "type": "input_audio", "input_audio": { "data": data, "format": "wav" } },
            { "type": "text", "text": "How many beeps are there?" },
        ]}],
    });
    let half = Treatment {
        frames: 0.5,
        ..Treatment::default()
    };
    let parts = vec![
        PartPlan {
            target: half,
            ..PartPlan::default()
        },
        PartPlan::default(),
    ];
    bench.plan(&here(CLOUD, parts), DRAFT);
    let (answer, record) = recorded(&bench, &body).await;
    let all = answer["msao"]["items"][0]["tokens"].as_u64().unwrap();
    let expected = all.div_ceil(2) as f64 / all as f64;
    assert_eq!(kept(&answer), (None, Some(expected)), "{answer}");
    // A policy has seen how many there are.
    assert_eq!(record["parts"][0]["frames"], json!(all));
    assert_eq!(overrides(&record), 0);
    bench.rest().await;
}

/// Nothing is sent to a target in the same process: what it reads may be smaller, and how it would be coded is of no account.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_one_process_media_are_made_smaller_where_that_saves_work() {
    let bench = Bench::start("").await;
    let body = describing(4);
    bench.plan(&here(CLOUD, Vec::new()), DRAFT);
    let (_, whole) = recorded(&bench, &body).await;
    let smaller = Treatment {
        scale: 0.5,
        quality: 70,
        rest: 2,
        ..Treatment::keeping(0.5)
    };
    let of = |draft, target| vec![PartPlan { draft, target }, PartPlan::default()];
    bench.plan(&here(CLOUD, of(Treatment::default(), smaller)), DRAFT);
    let (answer, record) = recorded(&bench, &body).await;
    assert_eq!(overrides(&record), 0, "{record}");
    let ran = &record["outcome"]["parts"][0]["target"];
    assert_eq!((&ran["scale"], &ran["keep"]), (&json!(0.5), &json!(0.5)));
    assert_eq!((&ran["quality"], &ran["rest"]), (&json!(0), &json!("send")));
    // A quarter of the tokens, and half of those.
    assert_eq!(kept(&answer), (None, Some(0.125)), "{answer}");
    assert!(
        flops(&record, "cloud") < 0.5 * flops(&whole, "cloud"),
        "{record}"
    );
    // The draft model, too, reads what it is given, whatever the other one reads.
    let right = tokens(&answer);
    for (route, step) in [(CLOUD_DRAFT, DRAFT), (SPECULATE, SEND)] {
        bench.plan(&here(route, of(smaller, smaller)), step);
        let answer = bench.answer(&body).await;
        assert_eq!(tokens(&answer), right, "{route}");
        assert_eq!(kept(&answer), (Some(0.125), Some(0.125)), "{answer}");
    }
    bench.plan(&here(EDGE, of(smaller, Treatment::default())), DRAFT);
    let (answer, record) = recorded(&bench, &body).await;
    assert_eq!(overrides(&record), 0, "{record}");
    assert_eq!(kept(&answer), (Some(0.125), None), "{answer}");
    // What a probe has read in full goes on from there, and that is said.
    let plan = here(EDGE, of(smaller, Treatment::default()));
    bench.plan_probed(&plan, DRAFT, &last_first());
    let (answer, record) = recorded(&bench, &body).await;
    assert_eq!(overrides(&record), RETENTION, "{record}");
    let ran = &record["outcome"]["parts"][0]["draft"];
    assert_eq!((&ran["scale"], &ran["keep"]), (&json!(1.0), &json!(0.5)));
    assert_eq!(kept(&answer), (Some(0.5), None), "{answer}");
    bench.rest().await;
}

/// The draft model has looked at all of it: what it then keeps is dropped behind the layers that looked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_probe_ranks_first_is_kept_on_every_route() {
    let bench = Bench::start("[records]\nreports = 1.0\n").await;
    let mut body = describing(24);
    body["n"] = json!(2);
    let said = |answer: &Value| -> Vec<String> {
        let choices = answer["choices"].as_array().unwrap();
        let texts = choices.iter().map(|it| &it["message"]["content"]);
        texts.map(|it| it.as_str().unwrap().to_owned()).collect()
    };
    let probed = |route, step, draft, target| {
        bench.plan_probed(&here(route, keeping(draft, target)), step, &last_first());
    };
    probed(CLOUD, DRAFT, 0.25, 0.5);
    let (right, record) = recorded(&bench, &body).await;
    assert_eq!(kept(&right), (None, Some(0.5)), "{right}");
    let item = &right["msao"]["items"][0];
    assert_eq!(
        (&item["necessity"], &item["mas"]),
        (&json!(0.75), &json!(0.0))
    );
    // Here the probe is pure cost: the target does not go on from it.
    assert!(flops(&record, "edge") > 0.0, "{record}");
    assert_eq!(said(&right).len(), 2);
    // What is asked is held against what asks nothing.
    let report = &record["scoring"]["report"];
    let sum = |list: &str| -> f64 {
        let values = report[list].as_array().unwrap();
        values.iter().map(|value| value.as_f64().unwrap()).sum()
    };
    let (asked, of_nothing) = (sum("relevance"), sum("baseline"));
    assert!(asked > 0.0 && of_nothing > 0.0, "{asked} {of_nothing}");
    let relevance = report["items"][0]["relevance"].as_f64().unwrap();
    assert!((relevance - asked / of_nothing).abs() < 1e-4 * relevance);
    for (route, step, draft) in [
        (CLOUD_DRAFT, DRAFT, 0.5),
        (SPECULATE, SEND, 0.25),
        (SPECULATE, DRAFT, 0.25),
    ] {
        probed(route, step, 0.25, 0.5);
        let answer = bench.answer(&body).await;
        assert_eq!(said(&answer), said(&right), "{route}");
        assert_eq!(kept(&answer), (Some(draft), Some(0.5)), "{answer}");
    }
    // As many tokens, but spread over all of it.
    bench.plan(&here(CLOUD, keeping(0.25, 0.5)), DRAFT);
    let spread = bench.answer(&body).await;
    let sure = |answer: &Value| answer["choices"][0]["logprobs"]["content"][0]["logprob"].clone();
    assert_ne!(sure(&spread), sure(&right));
    bench.rest().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_draft_model_that_keeps_less_behind_a_probe_computes_less() {
    let bench = Bench::start("").await;
    let body = describing(8);
    let mut cost = Vec::new();
    for share in [1.0, 1.0, 0.25, 0.0] {
        bench.plan_probed(&here(EDGE, keeping(share, 1.0)), DRAFT, &last_first());
        let (answer, record) = recorded(&bench, &body).await;
        assert_eq!(kept(&answer), (Some(share), None), "{answer}");
        assert_eq!(answer["usage"]["completion_tokens"], 8);
        cost.push(flops(&record, "edge"));
    }
    // The first has encoded the picture for all. All have looked at all of it.
    let [_, whole, quarter, nothing] = cost[..] else {
        panic!("{cost:?}");
    };
    assert!(quarter < whole && nothing < quarter, "{cost:?}");
    // What was begun with a part of it the target goes on with, with its own part.
    bench.plan_probed(&here(EDGE, keeping(0.25, 0.5)), ESCALATE, &last_first());
    let answer = bench.answer(&body).await;
    assert_eq!(answer["msao"]["route"], "cloud");
    assert_eq!(kept(&answer), (Some(0.25), Some(0.5)), "{answer}");
    bench.rest().await;
}

/// Sessions on the draft model.
fn drafting(bench: &Bench) -> usize {
    let draft = bench.node.models.draft.as_ref().unwrap();
    draft.engine.load().sessions
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_probe_from_which_nothing_goes_on_holds_nothing() {
    let bench = Bench::start("").await;
    bench.plan_probed(&here(CLOUD, keeping(0.25, 0.5)), DRAFT, &last_first());
    let mut long = describing(3000);
    long["stream"] = json!(true);
    let mut begun = bench.send(post(&long)).await;
    assert!(begun.body_mut().frame().await.is_some());
    let end = Instant::now() + Duration::from_secs(20);
    while drafting(&bench) > 0 {
        assert!(Instant::now() < end, "the probe's seat is still taken");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(bench.node.under_way(), 1);
    drop(begun);
    bench.rest().await;
}

/// What was ranked for the first plan holds for the second, without another look.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_plans_again_keeps_what_the_probe_has_ranked() {
    let cloud = Bench::with("cloud", &["draft", "target"], "[sessions]\nmost = 1\n").await;
    let edge = edge_of(&cloud, "").await;
    let body = describing(8);
    edge.plan_probed(&there(EDGE, keeping(0.25, 0.5)), SEND, &last_first());
    edge.answer(&body).await;
    // The picture is encoded for all.
    let (_, record) = recorded(&edge, &body).await;
    let once = flops(&record, "edge");
    edge.plan(&there(CLOUD, Vec::new()), DRAFT);
    let long = json!({
        "stream": true, "temperature": 1.2, "max_tokens": 3000, "logit_bias": { "602": -100 },
    });
    let mut first = edge.send(post(&asking("Tell me a story.", long))).await;
    assert_eq!(first.status(), 200);
    first.body_mut().frame().await.unwrap().unwrap();
    edge.plan_probed(&there(SPECULATE, keeping(0.25, 0.5)), SEND, &last_first());
    // What was done before the refusal counts as well. On a machine that is busy the draft model may not say so in time, but
    // not again and again.
    let mut spent = Vec::new();
    while spent.len() < 4 && spent.iter().all(|spent| *spent <= once) {
        let (planned_again, record) = recorded(&edge, &body).await;
        assert_eq!(planned_again["msao"]["route"], "edge", "{planned_again}");
        assert_eq!(kept(&planned_again), (Some(0.25), None), "{planned_again}");
        spent.push(flops(&record, "edge"));
    }
    assert!(
        spent.iter().any(|spent| *spent > once),
        "{spent:?} beside {once}"
    );
    drop(first);
    cloud.rest().await;
    edge.rest().await;
}

/// A cut in mid-answer: what is taken up again, or begun anew, reads what was read before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_over_a_link_that_is_cut_keeps_what_was_planned() {
    let cloud = Bench::with("cloud", &["draft", "target"], "").await;
    let mut body = describing(150);
    body["msao"] = json!({ "require": "exact" });
    cloud.plan(&here(CLOUD, keeping(1.0, 0.5)), DRAFT);
    let right = text(&cloud.answer(&body).await).to_owned();
    for (route, step) in [(CLOUD, DRAFT), (SPECULATE, SEND)] {
        let edge = edge_of(&cloud, CUTS).await;
        edge.plan(&there(route, keeping(0.25, 0.5)), step);
        assert_eq!(text(&through_cuts(&edge, &body).await), right);
        edge.rest().await;
    }
    cloud.rest().await;
}

/// Opens a session on the picture by hand; gives the first frame that comes.
async fn opened(cloud: &Bench, keep: Vec<u8>) -> Frame {
    let medium = Medium {
        digest: Digest::of(&picture()),
        modality: Modality::Image,
        keep: Some(keep),
        made: None,
    };
    first_about(cloud, medium).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_keep_list_for_another_picture_is_refused() {
    let (cloud, edge) = two("").await;
    edge.plan(&there(CLOUD, Vec::new()), DRAFT);
    // Now the cloud has the picture.
    edge.answer(&describing(1)).await;
    edge.rest().await;
    cloud.rest().await;
    match opened(&cloud, vec![0xff; 3]).await {
        Frame::Refused(refused) => {
            assert_eq!(refused.code, RefusedCode::Request);
            let why = "prompt.media[0].keep has 3 bytes, and its 256 tokens take 32";
            assert_eq!(refused.message, why);
        }
        other => panic!("{other:?}"),
    }
    let right = keep_bits(&[0, 100, 255], TOKENS as usize);
    let answered = opened(&cloud, right).await;
    assert!(matches!(answered, Frame::Verdict(_)), "{answered:?}");
}
