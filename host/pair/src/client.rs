//! A client of nodes: chat requests with their times, and what operators ask.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use base64::Engine as _;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;

/// An answer, as it was seen from outside.
#[derive(Clone, Debug)]
pub struct Answer {
    /// HTTP's status.
    pub status: u16,
    /// What was said.
    pub text: String,
    /// Why it ended; nothing if it did not.
    pub finish: Option<String>,
    /// What the node tells of it (`msao`); null where it went wrong.
    pub report: Value,
    /// Tokens of the answer, where told.
    pub tokens: u64,
    /// Tokens of the prompt, where told; media have theirs before anything is left out.
    pub prompt_tokens: u64,
    /// Each token's text, where log-probabilities were asked for; of several choices one after the other.
    pub words: Vec<String>,
    /// What went wrong: `message`, `type`, `code` and so on.
    pub error: Option<Value>,
    /// When to come back, where the node says so.
    pub retry_after: Option<Duration>,
    /// Until the first text.
    pub first: Duration,
    /// Between one piece of text and the next.
    pub gaps: Vec<Duration>,
    /// Until the end.
    pub total: Duration,
}

impl Answer {
    /// Whether it is whole.
    pub fn is_whole(&self) -> bool {
        self.status == 200 && self.error.is_none() && self.finish.is_some()
    }
}

/// Sends a request over a connection of its own.
async fn send(
    address: SocketAddr,
    request: Request<Full<Bytes>>,
) -> Result<hyper::Response<Incoming>> {
    let stream = TcpStream::connect(address)
        .await
        .with_context(|| address.to_string())?;
    stream.set_nodelay(true)?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender.send_request(request).await?)
}

fn post(address: SocketAddr, path: &str, body: &Value) -> Result<Request<Full<Bytes>>> {
    let request = Request::post(path)
        .header("host", address.to_string())
        .header("content-type", "application/json");
    Ok(request.body(Full::new(Bytes::from(body.to_string())))?)
}

/// Asks a node, streaming.
///
/// # Errors
/// The node cannot be reached, or breaks off. What it refuses is an answer.
pub async fn ask(address: SocketAddr, body: &Value) -> Result<Answer> {
    let mut body = body.clone();
    if let Value::Object(fields) = &mut body {
        fields.insert("stream".into(), json!(true));
        fields.insert("stream_options".into(), json!({ "include_usage": true }));
    }
    let began = Instant::now();
    let mut response = send(address, post(address, "/v1/chat/completions", &body)?).await?;
    let header = |name: &str| response.headers().get(name)?.to_str().ok()?.parse().ok();
    let retry_after = header("retry-after-ms").map(Duration::from_millis);
    let mut answer = Answer {
        status: response.status().as_u16(),
        retry_after: retry_after.or_else(|| header("retry-after").map(Duration::from_secs)),
        text: String::new(),
        finish: None,
        report: Value::Null,
        tokens: 0,
        prompt_tokens: 0,
        words: Vec::new(),
        error: None,
        first: Duration::ZERO,
        gaps: Vec::new(),
        total: Duration::ZERO,
    };
    // When the last piece of text came.
    let mut last = None;
    let mut held = Vec::new();
    let mut done = false;
    while let Some(frame) = response.body_mut().frame().await {
        let Ok(data) = frame?.into_data() else {
            continue;
        };
        held.extend_from_slice(&data);
        if answer.status != 200 {
            continue;
        }
        while let Some(end) = held.windows(2).position(|pair| pair == b"\n\n") {
            let block: Vec<u8> = held.drain(..end + 2).collect();
            let block = String::from_utf8_lossy(&block);
            let Some(data) = block.trim_end().strip_prefix("data: ") else {
                continue;
            };
            if data == "[DONE]" {
                done = true;
                continue;
            }
            let had = answer.text.len();
            take(&mut answer, &serde_json::from_str(data)?, began);
            if answer.text.len() > had {
                let now = began.elapsed();
                answer.gaps.extend(last.replace(now).map(|last| now - last));
            }
        }
    }
    answer.total = began.elapsed();
    // A stable sort: choice after choice, each in its order.
    answer
        .words
        .sort_by_key(|word| word.split(':').next().map(str::to_owned));
    if answer.status != 200 {
        let told: Value = serde_json::from_slice(&held).unwrap_or_default();
        // As in a stream: what stands under `error`.
        answer.error = Some(told.get("error").cloned().unwrap_or(told));
    } else if !done && answer.error.is_none() {
        bail!("the answer breaks off after {:?}", answer.text);
    }
    Ok(answer)
}

fn take(answer: &mut Answer, chunk: &Value, began: Instant) {
    if let Some(error) = chunk.get("error") {
        answer.error = Some(error.clone());
    }
    if let Some(report) = chunk.get("msao") {
        answer.report = report.clone();
    }
    for (path, tokens) in [
        ("/usage/completion_tokens", &mut answer.tokens),
        ("/usage/prompt_tokens", &mut answer.prompt_tokens),
    ] {
        if let Some(told) = chunk.pointer(path).and_then(Value::as_u64) {
            *tokens = told;
        }
    }
    let choice = chunk.pointer("/choices/0");
    let told = choice.and_then(|choice| choice.pointer("/logprobs/content"));
    let index = choice
        .and_then(|choice| choice.get("index"))
        .and_then(Value::as_u64);
    for token in told.and_then(Value::as_array).into_iter().flatten() {
        let text = token
            .get("token")
            .and_then(Value::as_str)
            .unwrap_or_default();
        // Choices come in any order: each token says whose it is.
        answer.words.push(format!("{}:{text}", index.unwrap_or(0)));
    }
    let text = choice.and_then(|choice| choice.pointer("/delta/content"));
    if let Some(text) = text.and_then(Value::as_str).filter(|text| !text.is_empty()) {
        if answer.text.is_empty() {
            answer.first = began.elapsed();
        }
        answer.text.push_str(text);
    }
    let finish = choice.and_then(|choice| choice.get("finish_reason"));
    if let Some(finish) = finish.and_then(Value::as_str) {
        answer.finish = Some(finish.to_owned());
    }
}

/// What an operators' listener refuses.
#[derive(Debug)]
pub struct Refusal {
    /// What was asked.
    pub path: String,
    /// HTTP's status.
    pub status: u16,
    /// The error's code.
    pub code: String,
    /// Its words.
    pub message: String,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        let Refusal {
            path,
            status,
            code,
            message,
        } = self;
        write!(f, "{path}: {status} {code}: {message}")
    }
}

impl std::error::Error for Refusal {}

/// Asks an operators' listener; a body makes it a change.
///
/// # Errors
/// The node cannot be reached, or refuses ([`Refusal`]).
pub async fn operate(address: SocketAddr, path: &str, body: Option<&Value>) -> Result<Value> {
    let request = match body {
        Some(body) => post(address, path, body)?,
        None => Request::get(path)
            .header("host", address.to_string())
            .body(Full::default())?,
    };
    let response = send(address, request).await?;
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    let value: Value = serde_json::from_slice(&body).unwrap_or_default();
    if !status.is_success() {
        let word = |path: &str| {
            value
                .pointer(path)
                .and_then(Value::as_str)
                .unwrap_or_default()
        };
        return Err(anyhow::Error::new(Refusal {
            path: path.to_owned(),
            status: status.as_u16(),
            code: word("/error/code").to_owned(),
            message: word("/error/message").to_owned(),
        }));
    }
    Ok(value)
}

/// What an operators' listener has at `path`, as text.
///
/// # Errors
/// The node cannot be reached, or refuses.
pub async fn text(address: SocketAddr, path: &str) -> Result<String> {
    let request = Request::get(path)
        .header("host", address.to_string())
        .body(Full::default())?;
    let response = send(address, request).await?;
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    if !status.is_success() {
        bail!("{path}: {status}");
    }
    Ok(String::from_utf8(body.to_vec())?)
}

/// A node's metrics: each by its name and labels, as they are written.
///
/// # Errors
/// The node cannot be reached.
pub async fn figures(api: SocketAddr) -> Result<HashMap<String, f64>> {
    let request = Request::get("/metrics")
        .header("host", api.to_string())
        .body(Full::default())?;
    let body = send(api, request).await?.into_body().collect().await?;
    let text = String::from_utf8(body.to_bytes().to_vec())?;
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let pairs = lines.filter_map(|line| line.rsplit_once(' '));
    let figures = pairs.filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?)));
    Ok(figures.collect())
}

/// Brings a plug-in to a node; gives its release.
///
/// # Errors
/// As [`operate`], or the files are not there.
pub async fn push(operator: SocketAddr, plugins: &Path, name: &str) -> Result<Value> {
    let read = |extension: &str| {
        let path = plugins.join(format!("{name}.{extension}"));
        std::fs::read(&path).with_context(|| path.display().to_string())
    };
    let manifest = String::from_utf8(read("toml")?)?;
    bring(operator, &read("wasm")?, &manifest).await
}

/// The same of a component and a manifest that are at hand.
///
/// # Errors
/// As [`operate`].
pub async fn bring(operator: SocketAddr, component: &[u8], manifest: &str) -> Result<Value> {
    let component = base64::engine::general_purpose::STANDARD.encode(component);
    let body = json!({ "component": component, "manifest": manifest });
    let pushed = operate(operator, "/v1/policies", Some(&body)).await?;
    Ok(pushed.get("release").cloned().unwrap_or_default())
}

/// Makes a policy active, unless it is.
///
/// # Errors
/// As [`operate`].
pub async fn activate(operator: SocketAddr, release: &Value) -> Result<()> {
    let body = json!({ "policy": release });
    match operate(operator, "/v1/activate", Some(&body)).await {
        Ok(_) => Ok(()),
        Err(error) if is_already_active(&error) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Whether what was to be made active is active already.
pub fn is_already_active(error: &anyhow::Error) -> bool {
    (error.downcast_ref::<Refusal>()).is_some_and(|it| it.code == "already_active")
}

/// A question about files, as an OpenAI client sends it.
///
/// # Errors
/// A file cannot be read.
pub fn question(model: &str, files: &[(&str, &Path)], text: &str) -> Result<Value> {
    let mut parts = Vec::new();
    for (kind, path) in files {
        let bytes = std::fs::read(path).with_context(|| path.display().to_string())?;
        let data = base64::engine::general_purpose::STANDARD.encode(bytes);
        parts.push(match *kind {
            "image" => json!({ "type": "image_url", "image_url": { "url": format!("data:image/png;base64,{data}") } }),
            "video" => json!({ "type": "video_url", "video_url": { "url": format!("data:video/mp4;base64,{data}") } }),
            _ => json!({ "type": "input_audio", "input_audio": { "data": data, "format": "wav" } }),
        });
    }
    parts.push(json!({ "type": "text", "text": text }));
    Ok(json!({ "model": model, "messages": [{ "role": "user", "content": parts }] }))
}
