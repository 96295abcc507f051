//! What a node costs by itself: an engine that answers at once, beside a bare server that returns the same bytes.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use msao_core::meter::{Meter, Spent};
use msao_core::probe::ProbeReport;
use msao_core::sampling::{Confidence, Pick};
use msao_engine::service::{Load, Open, Verdict};
use msao_engine::{EngineError, Keep};
use msao_node::config::load::parse;
use msao_node::models::{Awaited, Engine, Seat};
use msao_node::node::Models;
use msao_node::serve::Running;
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};

use super::pair::Places;
use super::swaps::percentile;
use crate::report::Row;

/// Tokens of each answer.
const TOKENS: usize = 8;
/// For so long each side is asked, in turns.
const TURN: Duration = Duration::from_secs(2);
const TURNS: usize = 5;
/// Connections at once where requests a second are counted.
const CONNECTIONS: usize = 8;

/// Chooses its tokens without computing anything.
struct AtOnce {
    ids: Vec<u32>,
    end: u32,
}

struct Place {
    ids: Vec<u32>,
    end: u32,
    written: AtomicUsize,
}

impl Engine for AtOnce {
    fn open(&self, _open: Open) -> Awaited<'_, Box<dyn Seat>> {
        let (ids, end) = (self.ids.clone(), self.end);
        Box::pin(async move {
            Ok(Box::new(Place {
                ids,
                end,
                written: AtomicUsize::new(0),
            }) as Box<dyn Seat>)
        })
    }

    fn load(&self) -> Load {
        Load::default()
    }

    fn capacity(&self) -> usize {
        1 << 20
    }
}

impl Seat for Place {
    fn read(&self) -> Awaited<'_, ()> {
        Box::pin(async { Ok(()) })
    }

    fn verify(&self, _drafts: Vec<u32>) -> Awaited<'_, Verdict> {
        let place = self.written.fetch_add(1, Ordering::Relaxed);
        let id = self.ids.get(place).copied().unwrap_or(self.end);
        let ended = place >= self.ids.len();
        Box::pin(async move {
            Ok(Verdict {
                accepted: 0,
                picks: vec![Pick {
                    id,
                    logprob: 0.0,
                    top1: 1.0,
                    entropy: 0.0,
                    margin: 1.0,
                }],
                logprobs: Vec::new(),
                confidence: vec![Confidence {
                    top1: 1.0,
                    entropy: 0.0,
                    margin: 1.0,
                }],
                ended,
                spent: Spent::default(),
            })
        })
    }

    fn append(&self, tokens: Vec<u32>) -> Awaited<'_, ()> {
        self.written.fetch_add(tokens.len(), Ordering::Relaxed);
        Box::pin(async { Ok(()) })
    }

    fn roll_back(&self, tokens: usize) -> Awaited<'_, ()> {
        self.written.store(tokens, Ordering::Relaxed);
        Box::pin(async { Ok(()) })
    }

    fn probed(&self) -> Awaited<'_, ProbeReport> {
        Box::pin(async { Err(EngineError::Request("nothing is probed".into()).into()) })
    }

    fn keep(&self, _keep: Keep) -> Awaited<'_, ()> {
        Box::pin(async { Ok(()) })
    }

    fn meter(&self) -> Awaited<'_, Meter> {
        Box::pin(async { Ok(Meter::default()) })
    }
}

/// The part's rows.
///
/// # Errors
/// The node does not come up, or does not answer.
pub async fn rows(places: &Places) -> Result<Vec<Row>> {
    let folder = tempfile::tempdir()?;
    let text = format!(
        "[node]\nrole = \"edge\"\nstate = \"state\"\n[models.draft]\npath = \"{}\"\ncache-mib = 16\n[api]\nlisten = \
         \"127.0.0.1:0\"\nmodel = \"demo\"\n[operator]\nlisten = \"127.0.0.1:0\"\n[policy]\nallow-unsigned = true\nwarm = 2\nboot = \"{}\"\n",
        places.models.join("demo-draft").display(),
        places.plugins.join("edge-only.wasm").display()
    );
    let config = parse(&text, &folder.path().join("node.toml"), [])?.config;
    let mut loaded = Models::load(&config).await?;
    let draft = loaded.draft.as_mut().context("the draft model")?;
    let tokenizer = draft.processor.tokenizer();
    let mut ids = tokenizer.encode("The picture has a light background and shows four shapes.")?;
    ids.truncate(TOKENS);
    let end = draft.ends().first().copied().context("an id that ends")?;
    draft.engine = Arc::new(AtOnce { ids, end });
    let node = Running::start(config, loaded).await?;
    let api = node.addresses.api;

    let body = json!({ "model": "demo", "messages": [{ "role": "user", "content": "Describe the scene." }] }).to_string();
    let mut client = Client::connect(api, body.clone()).await?;
    let answer = client.ask().await?;
    ensure!(answer.starts_with(b"{"), "the node answers {answer:?}");
    let bare = bare(answer).await?;

    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let mut other = Client::connect(bare, body.clone()).await?;
    for _ in 0..TURNS {
        for (client, times) in [(&mut client, &mut ours), (&mut other, &mut theirs)] {
            let end = Instant::now() + TURN;
            while Instant::now() < end {
                let began = Instant::now();
                client.ask().await?;
                times.push(began.elapsed().as_secs_f64() * 1e6);
            }
        }
    }
    let (p50, bare_p50) = (percentile(&ours, 0.5), percentile(&theirs, 0.5));
    let (p99, bare_p99) = (percentile(&ours, 0.99), percentile(&theirs, 0.99));
    let rate = busy(api, &body).await?;
    let bare_rate = busy(bare, &body).await?;
    Ok(vec![
        Row::told("bare server: p50", bare_p50, " us"),
        Row::told("bare server: p99", bare_p99, " us"),
        Row::told("node: p50", p50, " us"),
        Row::told("node: p99", p99, " us"),
        Row::at_most("p50, node beside bare server", p50 / bare_p50, 1.5, ""),
        Row::told(
            "bare server: requests a second over 8 connections",
            bare_rate,
            "",
        ),
        Row::told("node: requests a second over 8 connections", rate, ""),
    ])
}

/// One connection that is kept.
struct Client {
    sender: hyper::client::conn::http1::SendRequest<Full<Bytes>>,
    body: Bytes,
}

impl Client {
    async fn connect(address: SocketAddr, body: String) -> Result<Client> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Client {
            sender,
            body: body.into(),
        })
    }

    async fn ask(&mut self) -> Result<Bytes> {
        let request = Request::post("/v1/chat/completions")
            .header("host", "localhost")
            .header("content-type", "application/json")
            .body(Full::new(self.body.clone()))?;
        self.sender.ready().await?;
        let response = self.sender.send_request(request).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        ensure!(status.is_success(), "{status}: {body:?}");
        Ok(body)
    }
}

/// Requests a second over several connections.
async fn busy(address: SocketAddr, body: &str) -> Result<f64> {
    let end = Instant::now() + 2 * TURN;
    let mut clients = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut client = Client::connect(address, body.to_owned()).await?;
        clients.push(tokio::spawn(async move {
            let mut count = 0_u64;
            while Instant::now() < end {
                client.ask().await?;
                count += 1;
            }
            Ok::<_, anyhow::Error>(count)
        }));
    }
    let mut count = 0;
    for client in clients {
        count += client.await??;
    }
    Ok(count as f64 / (2 * TURN).as_secs_f64())
}

/// A server that reads a body and returns these bytes.
async fn bare(answer: Bytes) -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let answer = answer.clone();
            tokio::spawn(async move {
                let _nodelay = stream.set_nodelay(true);
                let service = service_fn(move |request: Request<hyper::body::Incoming>| {
                    let answer = answer.clone();
                    async move {
                        let _body = request.into_body().collect().await;
                        let mut response = Response::new(Full::new(answer));
                        let json = hyper::header::HeaderValue::from_static("application/json");
                        response
                            .headers_mut()
                            .insert(hyper::header::CONTENT_TYPE, json);
                        Ok::<_, Infallible>(response)
                    }
                });
                let http = hyper::server::conn::http1::Builder::new();
                // A client that leaves ends it.
                let _left = http.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    Ok(address)
}
