//! A node with the demo's models in this process, and a client for it.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)] // a test's helpers may panic

use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use msao_core::chat::{Content, Message, Part};
use msao_core::sampling::SamplingParams;
use msao_hostile::build::{Core, Decision, Scores};
use msao_hostile::{MANIFEST, SCORE_MANIFEST};
use msao_node::answer::Channel;
use msao_node::config::Media;
use msao_node::config::load::parse;
use msao_node::node::{Models, Node};
use msao_node::request::fetch::Fetcher;
use msao_node::serve::Running;
use msao_registry::state::SledStorage;
use msao_registry::{Bundle, Choice, Pick, SigningKeyFile};
use msao_session::frame::{Frame, Medium, Open, Prompt, SessionId, Wanted};
use serde_json::{Value, json};
use tokio::net::TcpStream;

/// Nothing that is asked of a node in a test takes so long, however busy the machine is.
const LONG: Duration = Duration::from_secs(300);

/// Connections are reset again and again, and less and less often: on a fast machine and on a slow one answers are cut in the
/// middle, and behind the last cut they get through. At one pace for ever a busy machine gets no more than a token or two over
/// between two cuts.
pub const CUTS: &str = "[peers.shape]\ncuts = [{ at-ms = 300 }, { at-ms = 800 }, { at-ms = 1500 }, { at-ms = 2500 }, \
     { at-ms = 4000 }, { at-ms = 6000 }, { at-ms = 9000 }, { at-ms = 13000 }]\n\
     [peers.shape.up]\ndelay-ms = 4.0\n[peers.shape.down]\ndelay-ms = 4.0\n";

/// Waits for what comes soon or never.
async fn in_time<T>(what: &str, coming: impl Future<Output = T>) -> T {
    match tokio::time::timeout(LONG, coming).await {
        Ok(come) => come,
        Err(_) => panic!("{what} did not come within {} s", LONG.as_secs()),
    }
}

pub fn models() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models")
}

/// A node that serves.
pub struct Bench {
    pub node: Arc<Node>,
    pub running: Running,
    pub address: SocketAddr,
    _folder: tempfile::TempDir,
    /// The configuration.
    text: String,
}

impl Bench {
    /// With both models and these sections beside.
    pub async fn start(sections: &str) -> Bench {
        Bench::with("both", &["draft", "target"], sections).await
    }

    /// With a role and these of the demo's models: `draft`, `target`, or for instance `draft=demo-target` for another one.
    pub async fn with(role: &str, models_there: &[&str], sections: &str) -> Bench {
        Bench::changed(role, models_there, sections, |_| {}).await
    }

    /// Likewise, after something was done to the models.
    pub async fn changed(
        role: &str,
        models_there: &[&str],
        sections: &str,
        change: impl FnOnce(&mut Models),
    ) -> Bench {
        let fetcher = |rules: &Media| Fetcher::new(rules).unwrap();
        Bench::assembled(role, models_there, sections, change, fetcher).await
    }

    /// With both models, and a fetcher that is made of the rules for media.
    pub async fn fetching(sections: &str, fetcher: impl FnOnce(&Media) -> Fetcher) -> Bench {
        Bench::assembled("both", &["draft", "target"], sections, |_| {}, fetcher).await
    }

    async fn assembled(
        role: &str,
        models_there: &[&str],
        sections: &str,
        change: impl FnOnce(&mut Models),
        fetcher: impl FnOnce(&Media) -> Fetcher,
    ) -> Bench {
        let folder = tempfile::tempdir().unwrap();
        let mut text = format!(
            "[node]\nname = \"{role}\"\nrole = \"{role}\"\nstate = \"state\"\ndrain-s = 10\n"
        );
        for model in models_there {
            let own = format!("demo-{model}");
            let (model, demo) = model.split_once('=').unwrap_or((*model, own.as_str()));
            text += &format!(
                "[models.{model}]\npath = \"{}/{demo}\"\nprecision = \"f32\"\ncache-mib = 64\n",
                models().display()
            );
        }
        for (section, ours) in [
            ("[api]", "listen = \"127.0.0.1:0\""),
            ("[operator]", "listen = \"127.0.0.1:0\""),
            ("[sessions]", "listen = \"127.0.0.1:0\""),
            ("[policy]", "allow-unsigned = true"),
        ] {
            if !sections.contains(section) {
                text += &format!("{section}\n{ours}\n");
            }
        }
        let given = [
            ("[api]", "listen"),
            ("[operator]", "listen"),
            ("[sessions]", "listen"),
        ]
        .into_iter()
        .fold(sections.to_owned(), |text, (section, key)| {
            text.replace(section, &format!("{section}\n{key} = \"127.0.0.1:0\""))
        });
        text += &given;
        Bench::begun(folder, text, change, fetcher).await
    }

    async fn begun(
        folder: tempfile::TempDir,
        text: String,
        change: impl FnOnce(&mut Models),
        fetcher: impl FnOnce(&Media) -> Fetcher,
    ) -> Bench {
        let loaded = parse(&text, &folder.path().join("node.toml"), []);
        let config = loaded
            .unwrap_or_else(|error| panic!("{error}\n{text}"))
            .config;
        let mut models = Models::load(&config).await.unwrap();
        change(&mut models);
        let fetcher = fetcher(&config.media);
        let running = Running::fetching(config, models, fetcher).await;
        let running = running.unwrap_or_else(|error| panic!("{error}"));
        Bench {
            node: Arc::clone(&running.node),
            address: running.addresses.api,
            running,
            _folder: folder,
            text,
        }
    }

    /// The same node after a stop, as an operator stops it. `meanwhile` is done to what it has learned.
    pub async fn restarted(self, meanwhile: impl FnOnce(&SledStorage)) -> Bench {
        let Bench {
            node,
            running,
            _folder: folder,
            text,
            ..
        } = self;
        running.drain().await;
        drop(node);
        let learned = folder.path().join("state/learned");
        let end = Instant::now() + Duration::from_secs(30);
        // As long as anybody holds the node its database is in use.
        let opened = loop {
            match SledStorage::open(&learned) {
                Ok(opened) => break opened,
                Err(error) => assert!(Instant::now() < end, "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        assert_eq!(opened.set_aside, None);
        meanwhile(&opened.storage);
        drop(opened);
        let fetcher = |rules: &Media| Fetcher::new(rules).unwrap();
        Bench::begun(folder, text, |_| {}, fetcher).await
    }

    /// Makes a policy active that always plans this, and does `step` (an action's number) while drafting.
    pub fn plan(&self, decision: &Decision, step: u32) {
        self.activate(self.choice(decision, step));
    }

    /// The same behind a probe, of which a post-processor always thinks this.
    pub fn plan_probed(&self, decision: &Decision, step: u32, scores: &Scores) {
        self.plan_behind("probe = \"full\"\n", decision, step, scores);
    }

    /// The same, and a session is opened while the probe runs.
    pub fn plan_ahead(&self, decision: &Decision, step: u32, scores: &Scores) {
        let keys = "probe = \"full\"\nahead = \"session\"\n";
        self.plan_behind(keys, decision, step, scores);
    }

    fn plan_behind(&self, keys: &str, decision: &Decision, step: u32, scores: &Scores) {
        let push = |bundle: &Bundle| Pick::Take(self.node.plugins.push(bundle).unwrap());
        let manifest = format!("{MANIFEST}{keys}");
        let scorer = Core::scoring(scores).build().unwrap();
        let scorer = Bundle::new(scorer, SCORE_MANIFEST.to_owned(), None).unwrap();
        self.activate(Choice {
            policy: push(&bundle_as(manifest, decision, step)),
            postprocessor: push(&scorer),
        });
    }

    fn activate(&self, choice: Choice) {
        match self.node.plugins.activate(choice) {
            Ok(_) => {}
            Err(error) => assert!(error.to_string().contains("active"), "{error}"),
        }
    }

    /// Brings a policy that always plans this; its release, as operators name it.
    pub fn push(&self, decision: &Decision) -> Value {
        match self.choice(decision, 0).policy {
            Pick::Take(release) => json!(release),
            other => panic!("{other:?} is no release"),
        }
    }

    /// The same, signed.
    pub fn push_signed(&self, decision: &Decision, key: &SigningKeyFile, serial: u64) -> Value {
        let bundle = bundle(decision, 0);
        let signature = Some(key.sign(bundle.release(), serial));
        let bundle = Bundle {
            signature,
            ..bundle
        };
        json!(self.node.plugins.push(&bundle).unwrap())
    }

    fn choice(&self, decision: &Decision, step: u32) -> Choice {
        let bundle = bundle(decision, step);
        Choice::policy(self.node.plugins.push(&bundle).unwrap())
    }

    /// Has a policy that always plans this run as a canary.
    pub fn canary(&self, decision: &Decision) {
        let choice = self.choice(decision, 0);
        self.node.plugins.canary(choice).unwrap();
    }

    /// Has a policy that always plans this run beside.
    pub fn shadow(&self, decision: &Decision) {
        let choice = self.choice(decision, 0);
        self.node.plugins.shadow(choice).unwrap();
    }

    /// How many requests the shadow was asked about, and how many not, once it is so many in all.
    pub async fn shadowed(&self, all: u64) -> (u64, u64) {
        let end = Instant::now() + Duration::from_secs(20);
        loop {
            let (_, stats) = self.node.plugins.status().shadow.unwrap();
            if stats.compared + stats.dropped >= all {
                return (stats.compared, stats.dropped);
            }
            assert!(Instant::now() < end, "{stats:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// One request over a connection of its own.
    pub async fn send(&self, request: Request<Full<Bytes>>) -> Response<Incoming> {
        send_to(self.address, request).await
    }

    /// The same over HTTP/2, known beforehand.
    pub async fn send_h2(&self, request: Request<Full<Bytes>>) -> Response<Incoming> {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let handshake =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
        let (mut sender, connection) = handshake.await.unwrap();
        tokio::spawn(connection);
        let begun = in_time("the head of an answer", sender.send_request(request));
        begun.await.unwrap()
    }

    /// A chat request's status, headers and answer.
    pub async fn chat(&self, body: &Value) -> (u16, HeaderMap, Value) {
        whole(self.send(post(body)).await).await
    }

    /// A chat request that must be answered.
    pub async fn answer(&self, body: &Value) -> Value {
        let (status, _, answer) = self.chat(body).await;
        assert_eq!(status, 200, "{answer}");
        answer
    }

    /// What the operators' listener answers: to a change where there is a body, else to a look.
    pub async fn operate(&self, path: &str, body: Option<Value>) -> (u16, Value) {
        let request = match &body {
            Some(_) => Request::post(path),
            None => Request::get(path),
        };
        let body = body.map_or_else(String::new, |body| body.to_string());
        let request = request
            .header("host", "localhost")
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(body)));
        self.ask_operators(request.unwrap()).await
    }

    /// The same for any request.
    pub async fn ask_operators(&self, request: Request<Full<Bytes>>) -> (u16, Value) {
        let address = self.running.addresses.operator.unwrap();
        let (status, _, answer) = whole(send_to(address, request).await).await;
        (status, answer)
    }

    /// Waits until nothing of a request is left.
    pub async fn rest(&self) {
        let end = Instant::now() + Duration::from_secs(20);
        let is_busy = || {
            let models = &self.node.models;
            let engines = [&models.draft, &models.target].into_iter().flatten();
            let sessions: usize = engines.map(|model| model.engine.load().sessions).sum();
            let served = self.node.sessions.as_ref().map_or(0, |it| it.count());
            sessions + served + self.node.under_way() > 0
        };
        while is_busy() {
            assert!(Instant::now() < end, "something goes on");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// A policy that always plans this, and does `step` (an action's number) while drafting.
fn bundle(decision: &Decision, step: u32) -> Bundle {
    bundle_as(MANIFEST.to_owned(), decision, step)
}

/// Among steps: drafts on, and leaves the third token and all behind it to the target.
pub const ESCALATE_THIRD: u32 = 100;

fn bundle_as(manifest: String, decision: &Decision, step: u32) -> Bundle {
    let core = Core {
        step: match step {
            // The scalar in question is how many tokens are committed.
            ESCALATE_THIRD => {
                "(select (i32.const 4) (i32.const 0) (i32.ge_u (local.get 9) (i32.const 2)))"
                    .to_owned()
            }
            step => format!("(i32.const {step})"),
        },
        ..Core::deciding(decision)
    };
    Bundle::new(core.build().unwrap(), manifest, None).unwrap()
}

/// A cloud node with both models, and an edge node that knows it over a link of this shape.
pub async fn two(shape: &str) -> (Bench, Bench) {
    let cloud = Bench::with("cloud", &["draft", "target"], "").await;
    let edge = edge_of(&cloud, shape).await;
    (cloud, edge)
}

/// An edge node that knows a cloud over a link of this shape.
pub async fn edge_of(cloud: &Bench, shape: &str) -> Bench {
    let address = cloud.running.addresses.nodes.unwrap();
    let edge = Bench::with(
        "edge",
        &["draft"],
        &format!("[[peers]]\nname = \"cloud\"\naddress = \"{address}\"\n{shape}"),
    )
    .await;
    up(&edge, true).await;
    edge
}

/// An edge node that knows two clouds and sees both.
pub async fn edge_of_both(clouds: [&Bench; 2]) -> Bench {
    let mut peers = String::new();
    for (name, cloud) in ["first", "second"].into_iter().zip(clouds) {
        let address = cloud.running.addresses.nodes.unwrap();
        peers += &format!("[[peers]]\nname = \"{name}\"\naddress = \"{address}\"\n");
    }
    let edge = Bench::with("edge", &["draft"], &peers).await;
    for peer in 0..2 {
        is_up(&edge, peer, true).await;
    }
    edge
}

/// Waits until the edge sees its peer so.
pub async fn up(edge: &Bench, wanted: bool) {
    is_up(edge, 0, wanted).await;
}

async fn is_up(edge: &Bench, peer: usize, wanted: bool) {
    let mut status = edge.node.peers[peer].peer().watch();
    let seen = status.wait_for(|status| status.up == wanted);
    let seen = tokio::time::timeout(Duration::from_secs(20), seen).await;
    let state = if wanted { "up" } else { "down" };
    assert!(
        matches!(seen, Ok(Ok(_))),
        "within 20 s the peer is not {state}"
    );
}

/// What [`opening`] opens.
pub const SESSION: SessionId = SessionId([7; 16]);

/// Opens a session by hand, for four tokens about a picture, or without one.
pub fn opening(question: &str, picture: Option<Medium>) -> Frame {
    let mut parts = vec![Part::Text {
        text: question.into(),
    }];
    if picture.is_some() {
        parts.insert(0, Part::Image { image: "".into() });
    }
    let prompt = Prompt {
        messages: vec![Message {
            role: "user".into(),
            content: Content::Parts(parts),
        }],
        media: picture.into_iter().collect(),
    };
    Frame::Open(Box::new(Open {
        session: SESSION,
        epoch: 0,
        wanted: Wanted::Decode,
        sampling: SamplingParams::default(),
        top_logprobs: None,
        max_tokens: 4,
        target_input: prompt.digest(),
        prompt,
        deadline_ms: 0.0,
        tokenizer: None,
        request: None,
        cost: false,
        committed: Vec::new(),
    }))
}

/// The first frame that comes to who asks for a picture's description by hand.
pub async fn first_about(cloud: &Bench, picture: Medium) -> Frame {
    let (mut own, other) = Channel::pair();
    cloud.node.sessions.as_ref().unwrap().accept(other);
    own.send(opening("Describe the scene.", Some(picture)));
    let first = tokio::time::timeout(Duration::from_secs(20), own.recv());
    let first = first.await.unwrap().unwrap();
    drop(own);
    cloud.rest().await;
    first
}

/// An exact answer over a link that is shaped as [`CUTS`] has it.
pub async fn through_cuts(edge: &Bench, body: &Value) -> Value {
    for _ in 0..20 {
        up(edge, true).await;
        let (status, _, answer) = edge.chat(body).await;
        if status == 200 {
            return answer;
        }
        // Where the policy looks in the very moment of a cut, or the peer is not back in time, it cannot be promised.
        let code = &answer["error"]["code"];
        assert_eq!((status, code), (503, &json!("exact_unavailable")));
    }
    panic!("no answer came through, and the link has long been whole");
}

/// An answer, and the record of its request, once it is complete.
pub async fn recorded(bench: &Bench, body: &Value) -> (Value, Value) {
    let (status, headers, answer) = bench.chat(body).await;
    assert_eq!(status, 200, "{answer}");
    let id = headers["x-request-id"].to_str().unwrap();
    (answer, record_of(bench, id).await)
}

/// The record of a request, once it is complete.
pub async fn record_of(bench: &Bench, id: &str) -> Value {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        let (_, record) = bench.operate(&format!("/v1/decisions/{id}"), None).await;
        if record["outcome"].is_object() {
            return record;
        }
        assert!(Instant::now() < end, "{record}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The tokens of an answer that tells log-probabilities.
pub fn tokens(answer: &Value) -> Vec<String> {
    let content = answer["choices"][0]["logprobs"]["content"]
        .as_array()
        .unwrap();
    content
        .iter()
        .map(|it| it["token"].as_str().unwrap().to_owned())
        .collect()
}

async fn send_to(address: SocketAddr, request: Request<Full<Bytes>>) -> Response<Incoming> {
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection);
    let begun = in_time("the head of an answer", sender.send_request(request));
    begun.await.unwrap()
}

pub fn post(body: &Value) -> Request<Full<Bytes>> {
    Request::post("/v1/chat/completions")
        .header("host", "localhost")
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from(body.to_string())))
        .unwrap()
}

pub fn get(path: &str) -> Request<Full<Bytes>> {
    Request::get(path)
        .header("host", "localhost")
        .body(Full::default())
        .unwrap()
}

pub async fn whole(response: Response<Incoming>) -> (u16, HeaderMap, Value) {
    let (parts, body) = response.into_parts();
    let body = in_time("the end of an answer", body.collect()).await;
    let body = body.unwrap().to_bytes();
    let value = serde_json::from_slice(&body);
    let value = value.unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&body).into()));
    (parts.status.as_u16(), parts.headers, value)
}

/// The events of a stream, `[DONE]` as a string.
pub async fn events(response: Response<Incoming>) -> Vec<Value> {
    let body = in_time("the end of a stream", response.into_body().collect()).await;
    let body = body.unwrap().to_bytes();
    let text = String::from_utf8(body.to_vec()).unwrap();
    let blocks = text
        .split("\n\n")
        .filter(|block| !block.is_empty() && !block.starts_with(':'));
    let data = blocks.map(|block| block.strip_prefix("data: ").unwrap());
    data.map(|data| serde_json::from_str(data).unwrap_or_else(|_| json!(data)))
        .collect()
}

/// A question, with what else is asked for.
pub fn asking(question: &str, more: Value) -> Value {
    let mut body = json!({
        "model": "msao",
        "messages": [{ "role": "user", "content": question }],
    });
    merge(&mut body, more);
    body
}

/// The first picture of the demo.
pub fn picture() -> Vec<u8> {
    let folder = models().join("demo-media");
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.extension()
                .is_some_and(|it| it == "png" || it == "jpg")
        })
        .collect();
    files.sort();
    std::fs::read(&files[0]).unwrap()
}

/// A question about the first picture of the demo.
pub fn about_picture(question: &str, more: Value) -> Value {
    let url = format!(
        "data:image/png;base64,{}",
        base64::engine::general_purpose::STANDARD.encode(picture())
    );
    about_picture_at(&url, question, more)
}

/// A question about a picture that a URL names.
pub fn about_picture_at(url: &str, question: &str, more: Value) -> Value {
    let mut body = json!({
        "model": "msao",
        "messages": [{ "role": "user", "content": [
            { "type": "image_url", "image_url": { "url": url } },
            { "type": "text", "text": question },
        ]}],
    });
    merge(&mut body, more);
    body
}

fn merge(body: &mut Value, more: Value) {
    let (Value::Object(body), Value::Object(more)) = (body, more) else {
        panic!("objects are merged");
    };
    body.extend(more);
}

pub fn text(answer: &Value) -> &str {
    answer["choices"][0]["message"]["content"].as_str().unwrap()
}
