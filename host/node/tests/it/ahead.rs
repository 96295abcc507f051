//! Sessions that are opened while the probe runs: what goes on with them, what cancels them, what is told of them. Two nodes over
//! sockets, the draft model's probe held back until the test lets it go.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)] // a test's helpers may panic

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use msao_core::digest::Digest;
use msao_core::meter::Meter;
use msao_core::probe::ProbeReport;
use msao_engine::Keep;
use msao_engine::service::{Load, Open, Verdict};
use msao_hostile::build::{Decision, PartPlan, Scores, Treatment};
use msao_node::models::{Awaited, Engine, Seat};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use crate::common::{
    Bench, about_picture, asking, get, picture, post, recorded, tokens, up, whole,
};

const EDGE: u8 = 0;
const CLOUD: u8 = 1;
const CLOUD_DRAFT: u8 = 2;
const SPECULATE: u8 = 3;

const DRAFT: u32 = 0;
const SEND: u32 = 1;

/// What a million tokens cost at the cloud.
const PRICE: f64 = 1000.0;

/// A draft model whose probes wait for leave.
struct Held {
    inner: Arc<dyn Engine>,
    leave: Arc<Semaphore>,
}

struct HeldSeat {
    inner: Box<dyn Seat>,
    leave: Arc<Semaphore>,
}

impl Engine for Held {
    fn open(&self, open: Open) -> Awaited<'_, Box<dyn Seat>> {
        Box::pin(async {
            let inner = self.inner.open(open).await?;
            let leave = Arc::clone(&self.leave);
            Ok(Box::new(HeldSeat { inner, leave }) as Box<dyn Seat>)
        })
    }

    fn load(&self) -> Load {
        self.inner.load()
    }

    fn capacity(&self) -> usize {
        self.inner.capacity()
    }
}

impl Seat for HeldSeat {
    fn read(&self) -> Awaited<'_, ()> {
        self.inner.read()
    }

    fn verify(&self, drafts: Vec<u32>) -> Awaited<'_, Verdict> {
        self.inner.verify(drafts)
    }

    fn append(&self, tokens: Vec<u32>) -> Awaited<'_, ()> {
        self.inner.append(tokens)
    }

    fn roll_back(&self, tokens: usize) -> Awaited<'_, ()> {
        self.inner.roll_back(tokens)
    }

    fn probed(&self) -> Awaited<'_, ProbeReport> {
        Box::pin(async {
            self.leave.acquire().await.unwrap().forget();
            self.inner.probed().await
        })
    }

    fn keep(&self, keep: Keep) -> Awaited<'_, ()> {
        self.inner.keep(keep)
    }

    fn meter(&self) -> Awaited<'_, Meter> {
        self.inner.meter()
    }
}

/// Two nodes.
struct Nodes {
    cloud: Bench,
    edge: Bench,
    leave: Arc<Semaphore>,
}

impl Nodes {
    /// A session that is not cancelled is held by the cloud for longer than a test waits.
    async fn start() -> Nodes {
        Nodes::with("[sessions]\nlease-ms = 60000\n").await
    }

    async fn with(sections: &str) -> Nodes {
        let cloud = Bench::with("cloud", &["draft", "target"], sections).await;
        let address = cloud.running.addresses.nodes.unwrap();
        let leave = Arc::new(Semaphore::new(0));
        let sections = format!(
            "[[peers]]\nname = \"cloud\"\naddress = \"{address}\"\nprice-per-mtok = {PRICE:?}\n"
        );
        let held = Arc::clone(&leave);
        let edge = Bench::changed("edge", &["draft"], &sections, |models| {
            let draft = models.draft.as_mut().unwrap();
            let inner = Arc::clone(&draft.engine);
            draft.engine = Arc::new(Held { inner, leave: held });
        });
        let edge = edge.await;
        up(&edge, true).await;
        Nodes { cloud, edge, leave }
    }

    /// An answer, and its record, whose probe ends when the cloud has begun to answer.
    async fn answer_behind(&self, body: &Value) -> (Value, Value) {
        let probe = async {
            opened(&self.cloud).await;
            self.leave.add_permits(1);
        };
        tokio::join!(recorded(&self.edge, body), probe).0
    }

    /// The same without anything to wait for.
    async fn answer(&self, body: &Value) -> (Value, Value) {
        self.leave.add_permits(1);
        recorded(&self.edge, body).await
    }

    async fn rest(&self) {
        self.edge.rest().await;
        self.cloud.rest().await;
    }

    /// Sessions that were opened ahead: used, wasted.
    async fn counted(&self) -> (f64, f64) {
        let of = |end| format!("msao_sessions_opened_ahead_total{{end=\"{end}\"}}");
        let (_, _, page) = whole(self.edge.send(get("/metrics")).await).await;
        let page = page.as_str().unwrap().to_owned();
        let count = |series: String| -> f64 {
            let line = page.lines().find(|line| line.starts_with(&series));
            line.map_or(0.0, |line| {
                line.rsplit_once(' ').unwrap().1.parse().unwrap()
            })
        };
        (count(of("used")), count(of("wasted")))
    }
}

/// Waits until a cloud's first session is there and its target has chosen tokens for it: the prompt takes fewer passes.
async fn opened(cloud: &Bench) {
    let target = cloud.node.models.target.as_ref().unwrap();
    let sessions = cloud.node.sessions.as_ref().unwrap();
    let end = Instant::now() + Duration::from_secs(20);
    while sessions.count() != 1 || target.engine.load().passes < 10 {
        assert!(
            Instant::now() < end,
            "within 20 s the cloud does not answer"
        );
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn to(route: u8, target: f64) -> Decision {
    let medium = PartPlan {
        target: Treatment::keeping(target),
        ..PartPlan::default()
    };
    Decision {
        route,
        peer: u32::from(route != EDGE),
        in_flight_max: 8,
        parts: vec![medium, PartPlan::default()],
        ..Decision::default()
    }
}

fn scores() -> Scores {
    Scores {
        items: vec![(0.75, (0..256).collect())],
        updates: Vec::new(),
    }
}

/// A question whose answer has 24 tokens, whatever they are: its end is forbidden.
fn describing(more: Value) -> Value {
    let mut body = about_picture(
        "Describe the scene.",
        json!({
            "temperature": 0.8, "seed": 11, "max_tokens": 24, "logprobs": true, "top_logprobs": 2,
            "logit_bias": { "602": -100 },
        }),
    );
    for (key, value) in more.as_object().unwrap() {
        body[key] = value.clone();
    }
    body
}

/// The same for a long answer.
fn asking_long() -> Value {
    let more = json!({ "temperature": 0.8, "seed": 11, "max_tokens": 1000, "logit_bias": { "602": -100 } });
    about_picture("Describe the scene.", more)
}

fn bytes_up(answer: &Value) -> u64 {
    answer["msao"]["bytes_up"].as_u64().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plan_that_agrees_goes_on_with_the_session_and_its_tokens_are_the_same() {
    let body = describing(json!({}));
    for (route, step) in [(CLOUD, DRAFT), (SPECULATE, DRAFT), (SPECULATE, SEND)] {
        let nodes = Nodes::start().await;
        nodes.edge.plan_ahead(&to(route, 1.0), step, &scores());
        let (answer, record) = nodes.answer_behind(&body).await;
        assert_eq!(answer["msao"]["ahead"], "used", "{answer}");
        assert_eq!(
            (&record["ahead"], &record["version"]),
            (&json!("used"), &json!(3))
        );
        assert_eq!(answer["msao"]["degraded"], false);
        assert!(bytes_up(&answer) > picture().len() as u64, "{answer}");
        nodes.rest().await;
        assert_eq!(nodes.counted().await, (1.0, 0.0));
        let path = format!("/v1/decisions/{}/words", record["id"].as_str().unwrap());
        let (_, words) = nodes.edge.operate(&path, None).await;
        let words = words.as_str().unwrap();
        assert!(
            words.contains("opened the session while the probe ran, and went on"),
            "{words}"
        );
        // Without, on the same nodes; and nothing is told of it.
        nodes.edge.plan_probed(&to(route, 1.0), step, &scores());
        let (right, record) = nodes.answer(&body).await;
        assert_eq!(tokens(&answer), tokens(&right), "{route} {step}");
        assert_eq!(
            (right["msao"].get("ahead"), record.get("ahead")),
            (None, None)
        );
        nodes.rest().await;
    }
}

/// The session is the first answer's. The others open their own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_several_answers_the_first_goes_on_with_it() {
    let nodes = Nodes::start().await;
    let body = describing(json!({ "n": 3 }));
    let texts = |answer: &Value| -> Vec<Value> {
        let choices = answer["choices"].as_array().unwrap();
        choices
            .iter()
            .map(|it| it["message"]["content"].clone())
            .collect()
    };
    nodes.edge.plan_ahead(&to(SPECULATE, 1.0), SEND, &scores());
    let (answer, _) = nodes.answer_behind(&body).await;
    assert_eq!(answer["msao"]["ahead"], "used", "{answer}");
    nodes.edge.plan_probed(&to(SPECULATE, 1.0), SEND, &scores());
    let (right, _) = nodes.answer(&body).await;
    assert_eq!(texts(&answer), texts(&right));
    assert_eq!(texts(&right).len(), 3);
    nodes.rest().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_another_plan_it_is_cancelled_and_what_it_took_is_counted() {
    let body = describing(json!({}));
    for (route, share) in [
        (EDGE, 1.0),
        (CLOUD, 0.5),
        (SPECULATE, 0.5),
        (CLOUD_DRAFT, 1.0),
    ] {
        let nodes = Nodes::start().await;
        nodes.edge.plan_ahead(&to(route, share), SEND, &scores());
        let (answer, record) = nodes.answer_behind(&body).await;
        assert_eq!(answer["msao"]["ahead"], "wasted", "{answer}");
        assert_eq!(record["ahead"], "wasted");
        // The cloud does not wait for it to be taken up.
        nodes.rest().await;
        assert_eq!(nodes.counted().await, (0.0, 1.0));
        assert!(bytes_up(&answer) > picture().len() as u64, "{answer}");
        nodes.edge.plan_probed(&to(route, share), SEND, &scores());
        let (right, alone) = nodes.answer(&body).await;
        assert_eq!(tokens(&answer), tokens(&right), "{route} {share}");
        // It was to read all of the prompt.
        let cost = |record: &Value| record["outcome"]["cost"].as_f64().unwrap();
        let prompt = answer["usage"]["prompt_tokens"].as_f64().unwrap();
        let more = cost(&record) - cost(&alone);
        assert!(
            (more - PRICE * prompt / 1e6).abs() < 1e-9,
            "{more} for {prompt} tokens"
        );
        // And it had told what it had done.
        let flops = |record: &Value| record["outcome"]["cloud-flops"].as_f64().unwrap();
        assert!(flops(&record) > flops(&alone), "{record}");
        nodes.rest().await;
    }
}

/// A client that has gone before there is a plan leaves nothing behind at the cloud.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_leaves_during_the_probe_cancels_it() {
    let nodes = Nodes::start().await;
    nodes.edge.plan_ahead(&to(SPECULATE, 1.0), SEND, &scores());
    let body = describing(json!({})).to_string();
    let mut client = TcpStream::connect(nodes.edge.address).await.unwrap();
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    );
    client.write_all((head + &body).as_bytes()).await.unwrap();
    opened(&nodes.cloud).await;
    drop(client);
    nodes.rest().await;
    assert_eq!(nodes.counted().await, (0.0, 1.0));
    // What crossed is not lost to the node's own sum.
    let (_, _, page) = whole(nodes.edge.send(get("/metrics")).await).await;
    let page = page.as_str().unwrap();
    let line = page
        .lines()
        .find(|line| line.starts_with("msao_link_bytes_total{direction=\"up\"}"));
    let bytes: f64 = line.unwrap().rsplit_once(' ').unwrap().1.parse().unwrap();
    assert!(bytes > picture().len() as f64, "{bytes}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cloud_that_is_lost_during_the_probe_is_a_cloud_that_is_lost() {
    for (route, step) in [(SPECULATE, SEND), (CLOUD, DRAFT)] {
        let Nodes { cloud, edge, leave } = Nodes::start().await;
        edge.plan_ahead(&to(route, 1.0), step, &scores());
        // More than the cloud decodes until it is gone.
        let body = asking_long();
        let begun = edge.send(post(&body));
        let kill = async {
            opened(&cloud).await;
            drop(cloud);
            leave.add_permits(1);
        };
        let (begun, ()) = tokio::join!(begun, kill);
        let (status, _, answer) = whole(begun).await;
        assert_eq!(status, 200, "{answer}");
        assert_eq!(answer["msao"]["degraded"], true, "{answer}");
        assert_eq!(answer["usage"]["completion_tokens"], 1000, "{answer}");
        edge.rest().await;
    }
}

/// A cloud that has forgotten the medium says so to a session that is opened ahead too, and gets it again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_medium_that_was_forgotten_is_sent_again_by_the_answer() {
    let nodes = Nodes::with("[sessions]\nmedia-mib = 1\n").await;
    let body = describing(json!({}));
    let peer = nodes.edge.node.peers[0].peer();
    let mut said = Vec::new();
    for (number, route) in [CLOUD, SPECULATE].into_iter().enumerate() {
        nodes.edge.plan_ahead(&to(route, 1.0), SEND, &scores());
        let (first, _) = nodes.answer(&body).await;
        // All that is kept: nothing else stays beside it.
        let other = Bytes::from(vec![number as u8; 1 << 20]);
        peer.media(Digest::of(&other), other).await.unwrap();
        assert!(peer.has(Digest::of(&picture())).is_some());
        let (answer, _) = nodes.answer(&body).await;
        assert_eq!(answer["msao"]["degraded"], false, "{answer}");
        assert!(bytes_up(&answer) > picture().len() as u64, "{answer}");
        said.extend([tokens(&first), tokens(&answer)]);
        nodes.rest().await;
    }
    assert!(said.iter().all(|tokens| *tokens == said[0]), "{said:?}");
}

/// Nothing leaves the edge for a request whose media may not, nor for one that has nothing to be probed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_sent_of_media_that_stay() {
    let nodes = Nodes::start().await;
    nodes.edge.plan_ahead(&to(CLOUD, 1.0), DRAFT, &scores());
    let stays = describing(json!({ "msao": { "media": "edge-only" } }));
    let sessions = nodes.cloud.node.sessions.as_ref().unwrap();
    let target = nodes.cloud.node.models.target.as_ref().unwrap();
    let passes = target.engine.load().passes;
    let waits = async {
        // As long as a session would take to come.
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(sessions.count(), 0);
        nodes.leave.add_permits(1);
    };
    let ((answer, record), ()) = tokio::join!(recorded(&nodes.edge, &stays), waits);
    assert_eq!(answer["msao"]["route"], "edge", "{answer}");
    assert_eq!(
        (answer["msao"].get("ahead"), record.get("ahead")),
        (None, None)
    );
    assert_eq!(bytes_up(&answer), 0);
    let peer = nodes.edge.node.peers[0].peer();
    assert_eq!(peer.has(Digest::of(&picture())), None);
    assert_eq!(target.engine.load().passes, passes);
    let text = asking("7 + 6 = ?", json!({ "max_tokens": 4 }));
    nodes.edge.plan_ahead(
        &Decision {
            parts: Vec::new(),
            ..to(CLOUD, 1.0)
        },
        DRAFT,
        &scores(),
    );
    let (answer, _) = recorded(&nodes.edge, &text).await;
    assert_eq!(
        (&answer["msao"]["route"], answer["msao"].get("ahead")),
        (&json!("cloud"), None)
    );
    assert_eq!(nodes.counted().await, (0.0, 0.0));
    nodes.rest().await;
}
