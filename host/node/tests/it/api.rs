//! The inference API, over sockets, on the demo's models.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)] // a test's helpers may panic

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use msao_engine::service::{Load, Open, ServiceError};
use msao_hostile::build::Decision;
use msao_node::models::{Awaited, Engine, Seat};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::common::{Bench, ESCALATE_THIRD, about_picture, asking, events, get, post, text, whole};

const EDGE: u8 = 0;
const CLOUD: u8 = 1;
const CLOUD_DRAFT: u8 = 2;
const SPECULATE: u8 = 3;

/// Numbers of actions.
const DRAFT: u32 = 0;
const SEND: u32 = 1;
const ESCALATE: u32 = 4;

fn by(route: u8) -> Decision {
    Decision {
        route,
        ..Decision::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_comes_whole_and_in_pieces_alike() {
    let bench = Bench::start("").await;
    let question = "What shapes are there?";
    let (status, headers, answer) = bench
        .chat(&about_picture(
            question,
            json!({ "temperature": 0, "max_tokens": 40 }),
        ))
        .await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(answer["object"], "chat.completion");
    assert_eq!(headers["x-msao-route"], "cloud");
    assert_eq!(answer["msao"]["route"], "cloud");
    let mut usage = answer["usage"].clone();
    assert!(usage["prompt_tokens_details"]["image_tokens"].as_u64() > Some(0));
    assert_eq!(
        usage["total_tokens"].as_u64().unwrap(),
        usage["prompt_tokens"].as_u64().unwrap() + usage["completion_tokens"].as_u64().unwrap()
    );
    let said = text(&answer).to_owned();
    assert!(!said.is_empty());

    let streamed = json!({
        "temperature": 0, "max_tokens": 40,
        "stream": true, "stream_options": { "include_usage": true },
    });
    for h2 in [false, true] {
        let request = post(&about_picture(question, streamed.clone()));
        let response = if h2 {
            bench.send_h2(request).await
        } else {
            bench.send(request).await
        };
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        assert!(response.headers().contains_key("x-request-id"));
        let events = events(response).await;
        assert_eq!(events.last().unwrap(), "[DONE]");
        let chunks = &events[..events.len() - 1];
        assert_eq!(chunks[0]["choices"][0]["delta"]["role"], "assistant");
        let pieces = chunks
            .iter()
            .filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str());
        assert_eq!(pieces.collect::<String>(), said);
        let last = &chunks[chunks.len() - 1];
        // The first request has read the prompt for these.
        let cached = &last["usage"]["prompt_tokens_details"]["cached_tokens"];
        assert!(cached.as_u64() > Some(0), "{last}");
        usage["prompt_tokens_details"]["cached_tokens"] = cached.clone();
        assert_eq!((&last["choices"], &last["usage"]), (&json!([]), &usage));
        let end = &chunks[chunks.len() - 2];
        assert_eq!(
            end["choices"][0]["finish_reason"],
            answer["choices"][0]["finish_reason"]
        );
        assert_eq!(end["msao"]["route"], "cloud");
    }
    bench.rest().await;
}

/// What was committed is the target's, whatever drafted it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_route_with_the_target_gives_the_targets_answer() {
    let bench = Bench::start("").await;
    for temperature in [0.0, 0.8] {
        for (number, question) in ["Describe the scene.", "How many circles are there?"]
            .iter()
            .enumerate()
        {
            let more = json!({
                "temperature": temperature, "seed": 11 + number, "max_tokens": 60,
                "logprobs": true, "top_logprobs": 2,
            });
            let body = about_picture(question, more);
            bench.plan(&by(CLOUD), DRAFT);
            let cloud = bench.answer(&body).await;
            assert_eq!(cloud["msao"]["drafted_tokens"], 0);
            for (route, step, name) in [
                (CLOUD_DRAFT, DRAFT, "cloud-draft"),
                (SPECULATE, DRAFT, "speculate"),
                (SPECULATE, SEND, "speculate"),
            ] {
                bench.plan(&by(route), step);
                let other = bench.answer(&body).await;
                assert_eq!(other["msao"]["route"], name);
                assert_eq!(text(&other), text(&cloud), "{name} at {temperature}");
                assert_eq!(
                    other["choices"][0]["finish_reason"],
                    cloud["choices"][0]["finish_reason"]
                );
                let tokens = |answer: &Value| -> Vec<String> {
                    let content = answer["choices"][0]["logprobs"]["content"]
                        .as_array()
                        .unwrap();
                    let named = content
                        .iter()
                        .map(|it| it["token"].as_str().unwrap().to_owned());
                    named.collect()
                };
                assert_eq!(tokens(&other), tokens(&cloud));
                assert_eq!(other["msao"]["unverified_tokens"], 0);
            }
        }
    }
    bench.rest().await;
}

/// One of two answers reads the prompt and the other finds it read: that is nothing that was there before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_answer_of_a_request_reads_for_another_was_not_read_before() {
    let bench = Bench::start("").await;
    let more = json!({ "temperature": 0.9, "seed": 4, "n": 2, "max_tokens": 8 });
    let body = about_picture("Describe the scene.", more);
    for route in [CLOUD, EDGE] {
        bench.plan(&by(route), DRAFT);
        for before in [false, true] {
            let answer = bench.answer(&body).await;
            let details = &answer["usage"]["prompt_tokens_details"];
            let cached = details["cached_tokens"].as_u64().unwrap();
            assert_eq!(cached > 0, before, "{answer}");
        }
    }
    bench.rest().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_edge_answers_alone_and_is_escalated() {
    let bench = Bench::start("").await;
    let body = about_picture(
        "Describe the scene.",
        json!({ "temperature": 0, "max_tokens": 50 }),
    );
    bench.plan(&by(EDGE), DRAFT);
    let alone = bench.answer(&body).await;
    assert_eq!(alone["msao"]["route"], "edge");
    assert_eq!(
        alone["msao"]["unverified_tokens"],
        alone["usage"]["completion_tokens"]
    );
    bench.plan(&by(EDGE), ESCALATE_THIRD);
    let escalated = bench.answer(&body).await;
    assert_eq!(escalated["msao"]["route"], "cloud");
    // What the edge had committed stays; the token in question is the target's.
    assert_eq!(escalated["msao"]["unverified_tokens"], 2, "{escalated}");
    let first: String = text(&alone).chars().take(1).collect();
    assert!(text(&escalated).starts_with(&first));
    // An exact answer is never the draft's.
    let exact = about_picture(
        "Describe the scene.",
        json!({ "temperature": 0, "max_tokens": 50, "msao": { "require": "exact" } }),
    );
    let exact = bench.answer(&exact).await;
    assert_eq!(exact["msao"]["route"], "cloud");
    assert_eq!(exact["msao"]["unverified_tokens"], 0);
    // So is an answer of which the very first token was in question.
    bench.plan(&by(EDGE), ESCALATE);
    let left = bench.answer(&body).await;
    assert_eq!(left["msao"]["unverified_tokens"], 0, "{left}");
    assert_eq!(text(&left), text(&exact));
    bench.rest().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn choices_stops_and_logprobs_are_as_asked() {
    let bench = Bench::start("").await;
    for route in [EDGE, CLOUD, SPECULATE] {
        bench.plan(&by(route), DRAFT);
        let more = json!({ "temperature": 0.9, "seed": 5, "n": 3, "max_tokens": 12, "logprobs": true, "top_logprobs": 3 });
        let answer = bench.answer(&asking("Describe the scene.", more)).await;
        let choices = answer["choices"].as_array().unwrap();
        assert_eq!(choices.len(), 3);
        let mut tokens = 0;
        for (index, choice) in choices.iter().enumerate() {
            assert_eq!(choice["index"], index);
            let content = choice["logprobs"]["content"].as_array().unwrap();
            tokens += content.len();
            assert!(
                content
                    .iter()
                    .all(|it| it["top_logprobs"].as_array().unwrap().len() == 3)
            );
            let said = choice["message"]["content"].as_str().unwrap();
            let joined: Vec<u8> = content
                .iter()
                .flat_map(|it| it["bytes"].as_array().unwrap())
                .map(|byte| byte.as_u64().unwrap() as u8)
                .collect();
            assert_eq!(String::from_utf8_lossy(&joined), said, "{route}");
        }
        assert_eq!(answer["usage"]["completion_tokens"], tokens);

        let whole = bench
            .answer(&asking(
                "Describe the scene.",
                json!({ "temperature": 0, "max_tokens": 40 }),
            ))
            .await;
        let said = text(&whole);
        let stop: String = said.chars().skip(3).take(3).collect();
        let more = json!({ "temperature": 0, "max_tokens": 40, "stop": [stop] });
        let stopped = bench.answer(&asking("Describe the scene.", more)).await;
        let end = said.find(&stop).unwrap();
        assert_eq!(text(&stopped), &said[..end]);
        assert_eq!(stopped["choices"][0]["finish_reason"], "stop");
    }
    bench.rest().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_had_is_said_in_openais_form() {
    let bench = Bench::start(
        "[api]\nbody-mib = 1\nbody-within-s = 1\nmax-tokens = 64\ndefault-max-tokens = 8\n",
    )
    .await;
    let error = |status: u16, answer: &Value| {
        let error = &answer["error"];
        assert!(error["message"].is_string(), "{answer}");
        (
            status,
            error["code"].as_str().unwrap().to_owned(),
            error["param"].clone(),
        )
    };
    let cases = [
        (
            asking("x", json!({ "model": "gpt-4" })),
            (404, "model_not_found", json!("model")),
        ),
        (
            asking("x", json!({ "max_tokens": 65 })),
            (400, "invalid_value", json!("max_completion_tokens")),
        ),
        (
            asking("x", json!({ "logit_bias": { "999999": 1 } })),
            (400, "invalid_value", json!("logit_bias")),
        ),
        (
            asking(
                "x",
                json!({ "tools": [{ "type": "function", "function": { "name": "x" } }] }),
            ),
            (400, "unsupported_parameter", json!("tools")),
        ),
        (
            about_picture(
                "x",
                json!({ "messages": [{ "role": "user", "content": [
            { "type": "image_url", "image_url": { "url": "data:image/png;base64,AAAA" } }] }] }),
            ),
            (
                415,
                "unsupported_media_type",
                json!("messages[0].content[0]"),
            ),
        ),
        (
            about_picture(
                "x",
                json!({ "messages": [{ "role": "user", "content": [
            { "type": "image_url", "image_url": { "url": "http://127.0.0.1/x.png" } }] }] }),
            ),
            (400, "invalid_media_url", json!("messages[0].content[0]")),
        ),
    ];
    for (body, (status, code, param)) in cases {
        let (got, _, answer) = bench.chat(&body).await;
        let said = error(got, &answer);
        assert_eq!((said.0, said.1.as_str()), (status, code), "{answer}");
        let named = said.2.as_str().unwrap_or_default();
        assert!(named.starts_with(param.as_str().unwrap()), "{answer}");
    }
    let raw = |method: &str, path: &str, kind: &str, body: Vec<u8>| {
        Request::builder()
            .method(method)
            .uri(path)
            .header("host", "localhost")
            .header("content-type", kind)
            .body(Full::new(Bytes::from(body)))
            .unwrap()
    };
    let chat = "/v1/chat/completions";
    for (request, status, code) in [
        (
            raw("POST", chat, "application/json", b"{".to_vec()),
            400,
            "invalid_json",
        ),
        (
            raw("POST", chat, "text/plain", b"{}".to_vec()),
            415,
            "unsupported_media_type",
        ),
        (
            raw("POST", chat, "application/json", vec![b' '; 1 << 21]),
            413,
            "request_too_large",
        ),
        (
            raw("GET", chat, "application/json", Vec::new()),
            405,
            "method_not_allowed",
        ),
        (
            raw("GET", "/nothing", "application/json", Vec::new()),
            404,
            "not_found",
        ),
    ] {
        let (got, headers, answer) = whole(bench.send(request).await).await;
        assert_eq!((got, error(got, &answer).1.as_str()), (status, code));
        assert!(headers.contains_key("x-request-id"));
    }
    // Who sends much more than is wanted still reads why it is not.
    for path in [chat, "/nothing"] {
        let mut eager = TcpStream::connect(bench.address).await.unwrap();
        let count = 32 << 20;
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {count}\r\n\r\n"
        );
        eager.write_all(head.as_bytes()).await.unwrap();
        eager.write_all(&vec![b' '; count]).await.unwrap();
        let mut said = vec![0; 4096];
        let count = eager.read(&mut said).await.unwrap();
        assert!(said[..count].starts_with(b"HTTP/1.1 4"), "{path}");
    }
    // A body that does not come.
    let mut slow = TcpStream::connect(bench.address).await.unwrap();
    let head = "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 10\r\n\r\n{";
    slow.write_all(head.as_bytes()).await.unwrap();
    let mut said = vec![0; 4096];
    let count = slow.read(&mut said).await.unwrap();
    let said = String::from_utf8_lossy(&said[..count]).into_owned();
    assert!(said.starts_with("HTTP/1.1 408"), "{said}");
    // An id that may be echoed is.
    let request = Request::get("/v1/models")
        .header("host", "x")
        .header("x-request-id", "mine-1");
    let (status, headers, models) =
        whole(bench.send(request.body(Full::default()).unwrap()).await).await;
    assert_eq!(
        (status, &headers["x-request-id"]),
        (200, &"mine-1".parse().unwrap())
    );
    assert_eq!(models["data"][0]["id"], "msao");
    assert_eq!(whole(bench.send(get("/v1/models/msao")).await).await.0, 200);
    assert_eq!(whole(bench.send(get("/v1/models/none")).await).await.0, 404);
    for path in ["/health", "/ready", "/version", "/metrics"] {
        assert_eq!(whole(bench.send(get(path)).await).await.0, 200, "{path}");
    }
    bench.rest().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_open_doors_and_bind_their_holders() {
    // SHA-256 of "secret" and of "exact".
    let bench = Bench::start(
        "[api.keys.plain]\nsha256 = \"2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b\"\n\
         [api.keys.careful]\nsha256 = \"fa79d4746c21cd960a17b92db8976ddef95a7e20b590721f8e0fa7847a05e486\"\nexact = true\n",
    )
    .await;
    let body = asking("Hello", json!({ "max_tokens": 4 }));
    let (status, headers, answer) = bench.chat(&body).await;
    assert_eq!(
        (status, &answer["error"]["code"]),
        (401, &json!("invalid_api_key"))
    );
    assert_eq!(headers["www-authenticate"], "Bearer");
    let with = |key: &str| {
        let mut request = post(&body);
        let value = format!("Bearer {key}").parse().unwrap();
        request.headers_mut().insert("authorization", value);
        request
    };
    assert_eq!(whole(bench.send(with("wrong")).await).await.0, 401);
    assert_eq!(whole(bench.send(with("secret")).await).await.0, 200);
    // Health is nobody's secret.
    assert_eq!(whole(bench.send(get("/health")).await).await.0, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_leaves_stops_the_work() {
    let bench = Bench::start("").await;
    for route in [EDGE, CLOUD, SPECULATE, CLOUD_DRAFT] {
        bench.plan(&by(route), DRAFT);
        let more = json!({ "temperature": 1.5, "max_tokens": 500, "stream": true });
        let mut response = bench.send(post(&asking("Describe the scene.", more))).await;
        let first = response.body_mut().frame().await;
        assert!(first.is_some());
        drop(response);
        bench.rest().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_too_much_is_shed_and_comes_back_later() {
    let bench = Bench::start("[api]\nrequests = 1\n").await;
    let long = json!({ "temperature": 1.5, "max_tokens": 400, "stream": true });
    let mut first = bench.send(post(&asking("Describe the scene.", long))).await;
    assert!(first.body_mut().frame().await.is_some());
    let (status, headers, answer) = bench
        .chat(&asking("Hello", json!({ "max_tokens": 2 })))
        .await;
    assert_eq!(
        (status, &answer["error"]["code"]),
        (429, &json!("overloaded"))
    );
    let after: u64 = headers["retry-after-ms"].to_str().unwrap().parse().unwrap();
    assert!((1..=60_000).contains(&after));
    drop(first);
    bench.rest().await;
    assert_eq!(
        bench
            .chat(&asking("Hello", json!({ "max_tokens": 2 })))
            .await
            .0,
        200
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_shadow_gives_way_when_places_are_short() {
    let bench = Bench::start("[api]\nrequests = 4\n").await;
    bench.shadow(&by(EDGE));
    let hello = asking("Hello", json!({ "max_tokens": 2 }));
    let places = Arc::clone(&bench.node.places);
    let taken = places.acquire_many_owned(3).await.unwrap();
    bench.answer(&hello).await;
    assert_eq!(bench.shadowed(1).await, (0, 1));
    // With the places free again it is asked.
    drop(taken);
    bench.answer(&hello).await;
    assert_eq!(bench.shadowed(2).await, (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_are_refused_while_they_are_planned_charge_no_canary() {
    // The client wants the target's own tokens, and no node has the target.
    let bench = Bench::with(
        "edge",
        &["draft"],
        "[policy]\nallow-unsigned = true\n[policy.canary]\nsteps = [0.9, 1.0]\n",
    )
    .await;
    bench.canary(&by(EDGE));
    for number in 0..30 {
        let request = asking(
            "Hello",
            json!({ "max_tokens": 2, "user": number.to_string(), "msao": { "require": "exact" } }),
        );
        let (status, _, answer) = bench.chat(&request).await;
        assert_eq!(status, 503, "{answer}");
    }
    bench.rest().await;
    let rollout = bench.node.plugins.status().rollout.unwrap();
    let figures = rollout.candidate_figures;
    assert!(rollout.candidate.requests > 10, "{rollout:?}");
    assert_eq!((figures.started, figures.lost, figures.errors), (0, 0, 0.0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_is_late_ends_with_an_error() {
    let bench = Bench::start("").await;
    let late = |stream: bool| {
        // Nothing ends it early.
        json!({
            "stream": stream, "max_tokens": 3000, "logit_bias": { "602": -100 }, "msao": { "deadline_ms": 300 },
        })
    };
    for route in [EDGE, SPECULATE, CLOUD] {
        bench.plan(&by(route), SEND);
        let (status, _, answer) = bench.chat(&asking("Tell me all.", late(false))).await;
        assert_eq!(
            (status, &answer["error"]["code"]),
            (504, &json!("deadline_exceeded"))
        );
        let message = answer["error"]["message"].as_str().unwrap();
        assert!(message.contains("300 ms"), "{message}");
        let streamed = bench.send(post(&asking("Tell me all.", late(true)))).await;
        let events = events(streamed).await;
        // What came in time has come.
        assert!(events.len() > 3, "{events:?}");
        let error = events.iter().find(|event| event.get("error").is_some());
        assert_eq!(error.unwrap()["error"]["code"], "deadline_exceeded");
    }
    let more = json!({ "max_tokens": 4, "msao": { "deadline_ms": 60_000 } });
    assert_eq!(bench.chat(&asking("Hello", more)).await.0, 200);
    let wrong = json!({ "msao": { "deadline_ms": 0 } });
    let (status, _, answer) = bench.chat(&asking("Hello", wrong)).await;
    assert_eq!(
        (status, &answer["error"]["param"]),
        (400, &json!("msao.deadline_ms"))
    );
    // Both models have let it go.
    for _ in 0..200 {
        if held(&bench) == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("sessions are left over");
}

/// Sessions on either model.
fn held(bench: &Bench) -> usize {
    let models = [&bench.node.models.draft, &bench.node.models.target];
    let models = models.into_iter().flatten();
    models.map(|model| model.engine.load().sessions).sum()
}

/// Its events fill what lies between node and client long before its deadline.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_nobody_reads_is_late_too() {
    let bench = Bench::start("").await;
    let body = asking(
        "Tell me all.",
        json!({
            "stream": true, "max_tokens": 3000, "logit_bias": { "602": -100 }, "logprobs": true, "top_logprobs": 20,
            "msao": { "deadline_ms": 1500 },
        }),
    )
    .to_string();
    for route in [EDGE, CLOUD] {
        bench.plan(&by(route), SEND);
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let mut client = socket.connect(bench.address).await.unwrap();
        let request = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len(),
        );
        client.write_all(request.as_bytes()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(2500)).await;
        let mut told = Vec::new();
        client.read_to_end(&mut told).await.unwrap();
        let told = String::from_utf8_lossy(&told);
        let tokens = told.matches("top_logprobs").count();
        assert!((1..3000).contains(&tokens), "{tokens}");
        let last = &told[told.len().saturating_sub(600)..];
        assert!(
            last.contains("deadline_exceeded"),
            "{tokens} tokens, then {last}"
        );
    }
}

/// A model whose device has failed.
struct Failed;

impl Engine for Failed {
    fn open(&self, _open: Open) -> Awaited<'_, Box<dyn Seat>> {
        Box::pin(async { Err(ServiceError::Stopped) })
    }

    fn load(&self) -> Load {
        Load {
            ended: true,
            ..Load::default()
        }
    }

    fn capacity(&self) -> usize {
        1 << 20
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_model_is_lost_is_not_ready_and_says_why() {
    let bench = Bench::changed("edge", &["draft"], "", |models| {
        models.draft.as_mut().unwrap().engine = Arc::new(Failed);
    })
    .await;
    assert_eq!(whole(bench.send(get("/health")).await).await.0, 200);
    let (status, _, body) = whole(bench.send(get("/ready")).await).await;
    assert_eq!(status, 503);
    assert_eq!(body["error"]["code"], "model_lost");
    assert!(body.to_string().contains("draft"), "{body}");
    let (status, _, answer) = bench.chat(&asking("Hello", json!({}))).await;
    assert_eq!(
        (status, &answer["error"]["code"]),
        (503, &json!("model_lost"))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_stops_finishes_what_it_began() {
    let bench = Bench::start("").await;
    let more = json!({ "temperature": 0, "max_tokens": 60, "stream": true });
    let mut begun = bench.send(post(&asking("Describe the scene.", more))).await;
    assert!(begun.body_mut().frame().await.is_some());
    bench.node.drain();
    let (status, _, answer) = bench.chat(&asking("Hello", json!({}))).await;
    assert_eq!(
        (status, &answer["error"]["code"]),
        (503, &json!("draining"))
    );
    assert_eq!(whole(bench.send(get("/ready")).await).await.0, 503);
    let address = bench.address;
    let drained = tokio::spawn(bench.running.drain());
    let rest = begun.into_body().collect().await.unwrap().to_bytes();
    assert!(String::from_utf8_lossy(&rest).ends_with("data: [DONE]\n\n"));
    tokio::time::timeout(Duration::from_secs(20), drained)
        .await
        .unwrap()
        .unwrap();
    assert!(TcpStream::connect(address).await.is_err());
}

/// Whatever comes first on a port.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_harms_nobody() {
    let bench = Bench::start("[api]\nheaders-within-s = 1\nheaders-kib = 8\n").await;
    let huge = format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(1 << 20));
    for bytes in [
        &b"\x16\x03\x01\x02\x00\x01"[..],
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\ngarbage that is no frame",
        b"PR",
        b"",
        huge.as_bytes(),
        &[0; 4096],
    ] {
        let mut stream = TcpStream::connect(bench.address).await.unwrap();
        let _may_fail = stream.write_all(bytes).await;
        let mut answer = Vec::new();
        let ended = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut answer));
        assert!(
            ended.await.is_ok(),
            "{:?} is still connected",
            &bytes[..bytes.len().min(20)]
        );
    }
    assert_eq!(
        bench
            .chat(&asking("Hello", json!({ "max_tokens": 2 })))
            .await
            .0,
        200
    );
}

/// A connection on which a request's header and a part of its body were sent.
async fn begun(bench: &Bench, length: usize, sent: usize) -> TcpStream {
    let mut stream = TcpStream::connect(bench.address).await.unwrap();
    let header = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
         content-length: {length}\r\n\r\n"
    );
    stream.write_all(header.as_bytes()).await.unwrap();
    stream.write_all(&vec![b' '; sent]).await.unwrap();
    stream
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_have_so_much_room_together_and_no_more() {
    let bench = Bench::start("[api]\nbody-mib = 1\nbodies-mib = 1\n").await;
    let slow = begun(&bench, 900_000, 700_000).await;
    let taken = || (1 << 20) - bench.node.bodies.available_permits();
    for _ in 0..500 {
        if taken() == 700_000 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(taken(), 700_000);
    let large = asking(&"a".repeat(500_000), json!({ "max_tokens": 1 }));
    let (status, headers, answer) = bench.chat(&large).await;
    assert_eq!(
        (status, &answer["error"]["code"]),
        (429, &json!("overloaded"))
    );
    assert!(headers.contains_key("retry-after"));
    bench
        .answer(&asking("Hello", json!({ "max_tokens": 1 })))
        .await;
    drop(slow);
    for _ in 0..500 {
        if taken() == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // Far too long for the model, but it was read.
    let (status, _, answer) = bench.chat(&large).await;
    assert_eq!(
        (status, &answer["error"]["code"]),
        (400, &json!("context_length_exceeded"))
    );
    bench.rest().await;
    assert_eq!(taken(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_requests_media_take_once_decoded_is_bounded() {
    let bench = Bench::start("[media]\ndecoded-mib = 1\n").await;
    let mut body = about_picture("What is there?", json!({ "max_tokens": 1 }));
    bench.answer(&body).await;
    let parts = body["messages"][0]["content"].as_array_mut().unwrap();
    for _ in 0..8 {
        parts.insert(0, parts[0].clone());
    }
    let (status, _, answer) = bench.chat(&body).await;
    assert_eq!(
        (status, &answer["error"]["code"]),
        (413, &json!("request_too_large"))
    );
    let message = answer["error"]["message"].as_str().unwrap();
    assert!(message.contains("media.decoded-mib"), "{message}");
    assert!(message.starts_with("messages[0].content["), "{message}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_tell_of_plug_ins_queues_and_places() {
    let bench = Bench::start("").await;
    bench.plan(&by(SPECULATE), SEND);
    let exact = json!({ "temperature": 0, "max_tokens": 60, "msao": { "require": "exact" } });
    for _ in 0..20 {
        let answer = bench
            .answer(&about_picture("Describe the scene.", exact.clone()))
            .await;
        // On a busy machine the target may have been ahead of the drafts for a whole answer.
        if answer["msao"]["drafted_tokens"].as_u64() > Some(0) {
            break;
        }
    }
    bench.rest().await;
    let (_, _, text) = whole(bench.send(get("/metrics")).await).await;
    let text = text.as_str().unwrap();
    let value = |series: &str| {
        let line = text.lines().find(|line| line.starts_with(series));
        let line = line.unwrap_or_else(|| panic!("no {series} in {text}"));
        line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap()
    };
    assert!(value("msao_plugin_call_seconds_count{export=\"plan\"}") >= 1.0);
    assert!(value("msao_plugin_call_seconds_count{export=\"step\"}") >= 1.0);
    assert!(value("msao_queue_seconds_count{model=\"target\"}") >= 1.0);
    assert!(value("msao_queue_seconds_count{model=\"draft\"}") >= 1.0);
    assert_eq!(value("msao_active_plugin{role=\"policy\""), 1.0);
    assert!(value("msao_drafted_tokens_total{behind=\"0\"}") >= 1.0);
    assert!(value("msao_flops_total{side=\"cloud\"}") > 0.0);
    assert!(value("msao_flops_total{side=\"edge\"}") > 0.0);
    assert!(value("msao_cache_byte_seconds_total{side=\"cloud\"}") > 0.0);
    assert!(value("msao_prompt_tokens_total") > value("msao_cached_prompt_tokens_total"));
    assert_eq!(value("msao_fallback_requests_total"), 0.0);
    assert!(!text.contains("msao_plugin_failures_total{"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_are_exchanged_while_the_node_runs() {
    let sha256 = |key: &str| msao_core::digest::Digest::of(key.as_bytes()).to_string();
    let keys = format!("[api.keys.one]\nsha256 = \"{}\"\n", sha256("first"));
    let bench = Bench::start(&format!("[api]\n{keys}")).await;
    let status = async |key: &str| {
        let mut request = post(&asking("Hello", json!({ "max_tokens": 1 })));
        let bearer = format!("Bearer {key}").parse().unwrap();
        request.headers_mut().insert("authorization", bearer);
        whole(bench.send(request).await).await.0
    };
    assert_eq!((status("first").await, status("second").await), (200, 401));
    let mut config = bench.node.config.clone();
    config.api.keys.get_mut("one").unwrap().sha256 = sha256("second");
    bench.running.renew(&config).unwrap();
    assert_eq!((status("first").await, status("second").await), (401, 200));
    // What cannot be renewed changes nothing.
    let mut encrypted = bench.node.config.clone();
    encrypted.api.tls_cert = Some("cert.pem".into());
    encrypted.api.tls_key = Some("key.pem".into());
    let error = bench.running.renew(&encrypted).unwrap_err().to_string();
    assert!(error.starts_with("api.tls-cert"), "{error}");
    assert!(error.contains("starting the node anew"), "{error}");
    assert_eq!((status("first").await, status("second").await), (401, 200));
}
