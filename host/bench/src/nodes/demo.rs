//! What `cargo xtask demo` shows: a cloud node and an edge node as two processes with a slow link between them, every route,
//! and another policy while requests run.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::client::{Answer, activate, ask, operate, push, question};
use super::process::NodeProcess;

/// The link between the two.
const ONE_WAY_MS: u32 = 20;
const UP: &str = "20 Mbit/s";
/// Each of these policies has one route.
const POLICIES: [(&str, &str); 4] = [
    ("edge-only", "the small model here"),
    ("cloud-only", "the large model there"),
    ("cloud-draft", "both models there"),
    ("fixed-speculate", "drafts here, verdicts there"),
];
/// For so long, and by so many clients, policies are exchanged under load.
const LOAD: Duration = Duration::from_secs(6);
const CLIENTS: usize = 4;

/// Where things are.
pub struct Places {
    /// The program.
    pub msao: PathBuf,
    /// `models`.
    pub models: PathBuf,
    /// The folder of components.
    pub plugins: PathBuf,
    /// A folder of the demo's own.
    pub work: PathBuf,
    /// Whether both nodes go on running at the end, until Ctrl-C.
    pub stay: bool,
}

/// Shows it.
///
/// # Errors
/// A node does not come up, or a request fails.
pub async fn run(places: &Places) -> Result<()> {
    let out = |text: &str| -> Result<()> { Ok(writeln!(std::io::stdout(), "{text}")?) };
    std::fs::create_dir_all(&places.work)?;
    out("\nTwo nodes, a process each")?;
    let cloud = start(places, "cloud", &cloud_config(places))?;
    let nodes = cloud.nodes.context("the cloud takes no sessions")?;
    let edge = start(places, "edge", &edge_config(places, &nodes.to_string()))?;
    let operator = edge
        .operator
        .context("the edge has no operators' listener")?;
    out(&format!(
        "  cloud  the large model (and a small one), at {nodes} for other nodes\n  edge   the small model, at http://{}/v1 \
         for clients\n  link   {} ms round trip, {UP} up",
        edge.api,
        2 * ONE_WAY_MS
    ))?;
    wait_for_peer(operator).await?;

    let media = places.models.join("demo-media");
    let (scene, clip, beeps) = (
        media.join("scene.png"),
        media.join("clip.mp4"),
        media.join("beeps.wav"),
    );
    let questions = [
        (vec![("image", scene.as_path())], "Describe the scene."),
        (vec![("video", clip.as_path())], "Which way does it move?"),
        (
            vec![("audio", beeps.as_path())],
            "Which pitches do you hear, in order?",
        ),
        (
            vec![("image", scene.as_path()), ("audio", beeps.as_path())],
            "Which are more, the beeps or the shapes?",
        ),
    ];
    let mut releases = Vec::new();
    for (policy, _) in POLICIES {
        releases.push(push(operator, &places.plugins, policy).await?);
    }
    for (files, text) in &questions {
        let kinds: Vec<&str> = files.iter().map(|(kind, _)| *kind).collect();
        out(&format!("\n{} ({})", text, kinds.join(" and ")))?;
        out("  route        first    total   bytes up   down   drafts     answer")?;
        for ((policy, _), release) in POLICIES.iter().zip(&releases) {
            activate(operator, release).await?;
            let mut body = question("msao-demo", files, text)?;
            settle(&mut body);
            let answer = ask(edge.api, &body).await?;
            ensure!(answer.is_whole(), "{policy}: {:?}", answer.error);
            out(&row(&answer))?;
        }
    }
    out(
        "\nroutes: edge: the small model here; cloud: the large one there; cloud-draft: both there; speculate: drafts here, verdicts there.\n\
         A medium goes up once: the first route that needs it pays. \"drafts\" are accepted of drafted.",
    )?;

    out(&format!(
        "\nAnother policy while {CLIENTS} clients ask, for {} s",
        LOAD.as_secs()
    ))?;
    let (swaps, answered, failed) = exchange(&edge, operator, &releases).await?;
    out(&format!(
        "  {swaps} policies taken over, {answered} requests answered meanwhile, {failed} failed"
    ))?;
    ensure!(failed == 0, "requests failed while policies were exchanged");
    out(&next(places, &edge, operator))?;
    if places.stay {
        out("\nBoth nodes go on. Ctrl-C ends them.")?;
        tokio::signal::ctrl_c().await?;
    }
    Ok(())
}

/// A place where both nodes keep things.
pub(super) fn start(places: &Places, name: &str, config: &str) -> Result<NodeProcess> {
    let file = places.work.join(format!("{name}.toml"));
    std::fs::write(&file, config).with_context(|| file.display().to_string())?;
    let log = places.work.join(format!("{name}.log"));
    NodeProcess::start(&places.msao, &file, &log, None)
}

fn model(places: &Places, role: &str) -> String {
    format!(
        "[models.{role}]\npath = \"{}\"\nprecision = \"f32\"\ncache-mib = 256\nthreads = 1\n",
        places.models.join(format!("demo-{role}")).display()
    )
}

pub(super) fn cloud_config(places: &Places) -> String {
    format!(
        "[node]\nname = \"cloud\"\nrole = \"cloud\"\nstate = \"cloud\"\n{}{}[api]\nlisten = \"127.0.0.1:0\"\nmodel = \
         \"msao-demo\"\n[sessions]\nlisten = \"127.0.0.1:0\"\n[operator]\nlisten = \"127.0.0.1:0\"\n",
        model(places, "draft"),
        model(places, "target")
    )
}

pub(super) fn edge_config(places: &Places, cloud: &str) -> String {
    format!(
        "[node]\nname = \"edge\"\nrole = \"edge\"\nstate = \"edge\"\n{}[api]\nlisten = \"127.0.0.1:0\"\nmodel = \
         \"msao-demo\"\n[operator]\nlisten = \"127.0.0.1:0\"\n[policy]\nallow-unsigned = true\n[[peers]]\nname = \"cloud\"\n\
         address = \"{cloud}\"\n[peers.shape.up]\nbandwidth = \"{UP}\"\ndelay-ms = {ONE_WAY_MS}.0\n[peers.shape.down]\n\
         delay-ms = {ONE_WAY_MS}.0\n",
        model(places, "draft")
    )
}

/// Greedy, so that the routes can be compared.
fn settle(body: &mut Value) {
    if let Value::Object(fields) = body {
        fields.insert("temperature".into(), json!(0));
        fields.insert("max_completion_tokens".into(), json!(60));
    }
}

async fn wait_for_peer(operator: std::net::SocketAddr) -> Result<()> {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        let state = operate(operator, "/v1/state", None).await?;
        if state.pointer("/peers/0/up") == Some(&json!(true)) {
            return Ok(());
        }
        let why = state.pointer("/peers/0/why").cloned().unwrap_or_default();
        ensure!(
            Instant::now() < end,
            "the edge does not reach the cloud: {why}"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn row(answer: &Answer) -> String {
    let report = &answer.report;
    let number = |key: &str| report.get(key).and_then(Value::as_u64).unwrap_or(0);
    let drafted = number("drafted_tokens");
    let drafts = match drafted {
        0 => "-".to_owned(),
        _ => format!("{} of {drafted}", number("accepted_tokens")),
    };
    format!(
        "  {:<11} {:>4} ms  {:>4} ms  {:>8}  {:>6}  {:<9}  {}",
        report.get("route").and_then(Value::as_str).unwrap_or("?"),
        answer.first.as_millis(),
        answer.total.as_millis(),
        number("bytes_up"),
        number("bytes_down"),
        drafts,
        answer.text.trim()
    )
}

/// Exchanges policies while clients ask. Gives exchanges, answers, failures.
async fn exchange(
    edge: &NodeProcess,
    operator: std::net::SocketAddr,
    releases: &[Value],
) -> Result<(u64, u64, u64)> {
    let stop = Arc::new(AtomicBool::new(false));
    let counts = Arc::new((AtomicU64::new(0), AtomicU64::new(0)));
    let mut clients = Vec::new();
    for client in 0..CLIENTS {
        let (stop, counts, api) = (Arc::clone(&stop), Arc::clone(&counts), edge.api);
        clients.push(tokio::spawn(async move {
            let mut number = 0_u64;
            while !stop.load(Ordering::Relaxed) {
                number += 1;
                let body = json!({
                    "model": "msao-demo",
                    "messages": [{ "role": "user", "content": format!("{client} + {number} = ?") }],
                    "max_completion_tokens": 12,
                });
                let whole = ask(api, &body).await.is_ok_and(|answer| answer.is_whole());
                let count = if whole { &counts.0 } else { &counts.1 };
                count.fetch_add(1, Ordering::Relaxed);
            }
        }));
    }
    let end = Instant::now() + LOAD;
    let mut swaps = 0;
    for release in releases.iter().cycle() {
        if Instant::now() >= end {
            break;
        }
        activate(operator, release).await?;
        swaps += 1;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.await?;
    }
    let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
    Ok((swaps, count(&counts.0), count(&counts.1)))
}

fn next(places: &Places, edge: &NodeProcess, operator: std::net::SocketAddr) -> String {
    let shown = |path: &Path| {
        let here = std::env::current_dir().unwrap_or_default();
        path.strip_prefix(&here)
            .unwrap_or(path)
            .display()
            .to_string()
    };
    let msao = shown(&places.msao);
    if places.stay {
        format!(
            "\nAn OpenAI client: base_url=http://{}/v1, model msao-demo, any key. Try next:\n  {msao} top --node http://{operator}\n  \
             {msao} policy list --node http://{operator}\n  curl http://{}/metrics",
            edge.api, edge.api
        )
    } else {
        format!(
            "\nWhat to try next:\n  {msao} serve --config configs/single.toml\n      both models in one node; an OpenAI client: \
             base_url=http://127.0.0.1:8080/v1, model msao-demo, any key\n  {msao} serve --config configs/cloud.toml    and, \
             beside it,    {msao} serve --config configs/edge.toml\n      the same two nodes as above, without a slow link\n  \
             {msao} policy new mine --lang rust\n      a policy of your own: docs/tutorial-policy.md"
        )
    }
}
