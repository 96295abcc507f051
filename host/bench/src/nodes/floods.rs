//! Clients and peers that mean harm, against real processes, while honest clients go on asking.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, ensure};
use msao_transport::pki::{self, Existing};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::time::timeout;

use super::client::{Answer, ask};
use super::overload::{forget_peak, memory};
use super::pair::{Pair, Places, Wanted};
use super::swaps::percentile;
use crate::report::Row;

/// Clients that are slow, at once.
const SLOW: usize = 1000;
/// Frames of a body of one byte each.
const TINY: usize = 100_000;
/// Honest clients that ask all the time.
const HONEST: u64 = 2;
/// An attack is over, or was ended, within.
const LONGEST: Duration = Duration::from_secs(40);
/// Requests of h2load.
const LOADS: usize = 2000;
/// Requests of an edge whose ids say something else.
const OTHER_IDS: u64 = 5;
/// The certificate that runs out is valid for so long.
const SHORT_VALID: Duration = Duration::from_secs(12);
/// What an attack may add to a node's memory, in MB.
const MEMORY_MB: f64 = 256.0;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Attack {
    SlowHeaders,
    SlowBodies,
    LargeHeader,
    Garbage,
    Resets,
    Continuation,
    TinyData,
}

impl Attack {
    const ALL: [Attack; 7] = [
        Attack::SlowHeaders,
        Attack::SlowBodies,
        Attack::LargeHeader,
        Attack::Garbage,
        Attack::Resets,
        Attack::Continuation,
        Attack::TinyData,
    ];

    fn name(self) -> String {
        match self {
            Attack::SlowHeaders => format!("{SLOW} clients whose header never ends"),
            Attack::SlowBodies => format!("{SLOW} clients whose body never ends"),
            Attack::LargeHeader => "a header of 1 MB".into(),
            Attack::Garbage => "random bytes".into(),
            Attack::Resets => "streams opened and reset without end".into(),
            Attack::Continuation => "a header that is continued without end".into(),
            Attack::TinyData => format!("{TINY} frames of one byte"),
        }
    }

    /// What it does to a port; gives what it was told.
    async fn run(self, port: SocketAddr) -> Result<String> {
        match self {
            Attack::SlowHeaders => {
                slow(
                    port,
                    "POST /v1/chat/completions HTTP/1.1\r\nhost: node\r\nx-a: ",
                )
                .await
            }
            Attack::SlowBodies => {
                let header = "POST /v1/chat/completions HTTP/1.1\r\nhost: node\r\ncontent-type: application/json\r\ncontent-length: 4000\r\n\r\n";
                slow(port, header).await
            }
            Attack::LargeHeader => {
                let header = format!(
                    "GET /health HTTP/1.1\r\nhost: node\r\nx-a: {}\r\n\r\n",
                    "a".repeat(1 << 20)
                );
                let told = said(port, &[header.as_bytes()]).await?;
                Ok(in_words(&told))
            }
            Attack::Garbage => {
                let mut told = Vec::new();
                let mut state = 7_u64;
                for length in [1, 24, 400, 100_000] {
                    let random = std::iter::repeat_with(|| {
                        // xorshift64: any bytes will do.
                        state ^= state << 13;
                        state ^= state >> 7;
                        state ^= state << 17;
                        state as u8
                    });
                    let bytes: Vec<u8> = random.take(length).collect();
                    let answer = said(port, &[PREFACE, &bytes]).await?;
                    told.push(in_words(&answer));
                    let answer = said(port, &[&bytes]).await?;
                    told.push(in_words(&answer));
                }
                told.sort_unstable();
                told.dedup();
                Ok(told.join("; "))
            }
            Attack::Resets => {
                flood(port, Vec::new(), |number| {
                    let stream = 2 * number + 1;
                    let mut frames = frame(HEADERS, END_HEADERS, stream, &head());
                    frames.extend(frame(RESET, 0, stream, &8_u32.to_be_bytes()));
                    frames
                })
                .await
            }
            Attack::Continuation => {
                let begin = frame(HEADERS, END_STREAM, 1, &head());
                // A field that is never finished: no index, a name of one letter, a value.
                let more = [&[0, 1, b'a', 100][..], &[b'a'; 100]].concat();
                flood(port, begin, |_| frame(CONTINUATION, 0, 1, &more)).await
            }
            Attack::TinyData => {
                let mut begin = frame(HEADERS, END_HEADERS, 1, &head());
                begin.extend(frame(DATA, 0, 1, b"{"));
                flood(port, begin, |number| match number as usize {
                    number if number + 1 < TINY => frame(DATA, 0, 1, b" "),
                    number if number + 1 == TINY => frame(DATA, END_STREAM, 1, b"x"),
                    _ => Vec::new(),
                })
                .await
            }
        }
    }
}

/// The part's rows.
///
/// # Errors
/// A node does not come up.
pub async fn rows(places: &Places) -> Result<Vec<Row>> {
    let wanted = Wanted {
        // Shorter than the defaults, so that the proof need not wait as long.
        api: "headers-within-s = 3\nbody-within-s = 5\n".into(),
        ..Wanted::default()
    };
    let mut pair = Pair::start(places, &wanted).await?;
    pair.policy("fixed-speculate").await?;
    let cloud = pair.cloud.as_ref().context("the cloud")?;
    let nodes = cloud.nodes.context("the cloud takes no sessions")?;
    let ports = [
        ("clients' port", pair.edge.api, pair.edge.id()),
        ("nodes' port", nodes, cloud.id()),
    ];
    let mut rows = Vec::new();
    for (port, address, process) in ports {
        // One for all attacks on it: what each leaves behind adds up.
        let before = memory(process)?;
        for attack in Attack::ALL {
            forget_peak(process)?;
            let stop = Arc::new(AtomicBool::new(false));
            let meanwhile = tokio::spawn(honest(pair.edge.api, Arc::clone(&stop)));
            let told = timeout(LONGEST, attack.run(address)).await;
            tokio::time::sleep(Duration::from_millis(500)).await;
            stop.store(true, Ordering::Relaxed);
            let (firsts, mut failed) = meanwhile.await??;
            let told = match told {
                Ok(Ok(told)) => told,
                Ok(Err(error)) => {
                    failed.push(format!("not done: {error:#}"));
                    String::new()
                }
                Err(_) => {
                    failed.push(format!("still under way after {LONGEST:?}"));
                    String::new()
                }
            };
            let added = memory(process)? - before;
            if added > MEMORY_MB {
                failed.push(format!("the node's memory grew by {added:.0} MB"));
            }
            if firsts.is_empty() {
                failed.push("nobody was answered meanwhile".into());
            }
            rows.push(
                Row::all(format!("{port}: {}", attack.name()), firsts.len(), failed).with_more(
                    Some(format!(
                        "told: {told}; meanwhile honest clients' first token p99 {:.0} ms, memory {added:+.0} MB",
                        percentile(&firsts, 0.99)
                    )),
                ),
            );
        }
    }
    let alive =
        !pair.edge.has_ended() && !pair.cloud.as_mut().is_none_or(|cloud| cloud.has_ended());
    rows.push(Row::all(
        "both nodes are still the same processes",
        2,
        (!alive)
            .then(|| "one has ended".to_owned())
            .into_iter()
            .collect(),
    ));
    drop(pair);
    rows.push(h2load(places).await?);
    rows.push(another_tokenizer(places).await?);
    rows.push(expired(places).await?);
    rows.push(full_disk(places).await?);
    Ok(rows)
}

/// Clients that ask until they are stopped: times to first tokens in ms, and what went wrong.
async fn honest(api: SocketAddr, stop: Arc<AtomicBool>) -> Result<(Vec<f64>, Vec<String>)> {
    let mut clients = Vec::new();
    for client in 0..HONEST {
        let stop = Arc::clone(&stop);
        clients.push(tokio::spawn(async move {
            let (mut firsts, mut failed) = (Vec::new(), Vec::new());
            let mut number = client << 32;
            while !stop.load(Ordering::Relaxed) {
                number += 1;
                match ask(api, &sum(number)).await {
                    Ok(answer) if answer.is_whole() && has_target(&answer) => {
                        firsts.push(answer.first.as_secs_f64() * 1000.0);
                    }
                    Ok(answer) => failed.push(format!(
                        "{}: {:?} {}",
                        answer.status, answer.error, answer.report
                    )),
                    Err(error) => failed.push(format!("{error:#}")),
                }
            }
            (firsts, failed)
        }));
    }
    let mut all = (Vec::new(), Vec::new());
    for client in clients {
        let (firsts, failed) = client.await?;
        all.0.extend(firsts);
        all.1.extend(failed);
    }
    Ok(all)
}

/// Whether both models gave an answer, as planned.
pub fn has_target(answer: &Answer) -> bool {
    let says = |key: &str, value: Value| answer.report.get(key) == Some(&value);
    says("route", json!("speculate")) && !says("degraded", json!(true))
}

fn sum(number: u64) -> Value {
    json!({
        "model": "demo", "messages": [{ "role": "user", "content": format!("{} + 4 = ?", number % 1000) }],
        "max_completion_tokens": 8,
    })
}

fn greedy(number: u64) -> Value {
    let mut body = sum(number);
    if let Some(body) = body.as_object_mut() {
        body.insert("temperature".into(), json!(0));
    }
    body
}

/// Many connections that send a beginning, and then a byte each second, until they are hung up on. What they were told.
async fn slow(port: SocketAddr, beginning: &str) -> Result<String> {
    let mut clients = Vec::new();
    for _ in 0..SLOW {
        let beginning = beginning.to_owned();
        clients.push(tokio::spawn(async move {
            let stream = TcpStream::connect(port).await?;
            let (mut from, mut to) = stream.into_split();
            let sending = async {
                to.write_all(beginning.as_bytes()).await?;
                loop {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    to.write_all(b"a").await?;
                }
                #[allow(unreachable_code)] // gives the block its type
                std::io::Result::Ok(())
            };
            let mut told = Vec::new();
            tokio::select! {
                // The node's last words may still come.
                _ = sending => drop(timeout(Duration::from_secs(1), from.read_to_end(&mut told)).await),
                _ = from.read_to_end(&mut told) => {}
            }
            anyhow::Ok(in_words(&told))
        }));
    }
    let mut told: Vec<(String, usize)> = Vec::new();
    for client in clients {
        let words = client.await??;
        match told.iter_mut().find(|(known, _)| *known == words) {
            Some((_, count)) => *count += 1,
            None => told.push((words, 1)),
        }
    }
    let told = told
        .iter()
        .map(|(words, count)| format!("{count} times {words}"));
    Ok(told.collect::<Vec<_>>().join(", "))
}

/// What a port says to these bytes until it hangs up, or for two seconds.
async fn said(port: SocketAddr, pieces: &[&[u8]]) -> Result<Vec<u8>> {
    let (mut from, mut to) = TcpStream::connect(port).await?.into_split();
    for piece in pieces {
        // It may have hung up already.
        let _gone = to.write_all(piece).await;
    }
    let mut told = Vec::new();
    let _late = timeout(Duration::from_secs(2), from.read_to_end(&mut told)).await;
    Ok(told)
}

/// Sends without end, until the node ends the connection or there is nothing more to send. What it said last.
async fn flood(
    port: SocketAddr,
    begin: Vec<u8>,
    mut next: impl FnMut(u32) -> Vec<u8>,
) -> Result<String> {
    let (mut from, mut to) = TcpStream::connect(port).await?.into_split();
    let reading = tokio::spawn(async move {
        let mut told = Vec::new();
        let _cut = from.read_to_end(&mut told).await;
        told
    });
    let sent = send_all(&mut to, begin, &mut next).await;
    // It has said all that it will soon.
    let told = match timeout(Duration::from_secs(10), reading).await {
        Ok(told) => told?,
        Err(_) => Vec::new(),
    };
    ensure!(sent > 0, "nothing was taken of it");
    Ok(format!("{} after {sent} frames", in_words(&told)))
}

async fn send_all(
    to: &mut OwnedWriteHalf,
    begin: Vec<u8>,
    next: &mut impl FnMut(u32) -> Vec<u8>,
) -> u32 {
    if to.write_all(PREFACE).await.is_err() || to.write_all(&begin).await.is_err() {
        return 0;
    }
    let mut number = 0;
    loop {
        // Some at a time: a call to the system for each would be the slower part.
        let mut bytes = Vec::new();
        for _ in 0..64 {
            let more = next(number);
            if more.is_empty() {
                break;
            }
            bytes.extend(more);
            number += 1;
        }
        if bytes.is_empty() {
            // Nothing more will come from here: the node need not wait for it.
            let _gone = to.shutdown().await;
            return number;
        }
        if to.write_all(&bytes).await.is_err() {
            return number;
        }
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [_, length @ ..] = (payload.len() as u32).to_be_bytes();
    let mut frame = length.to_vec();
    frame.extend_from_slice(&[kind, flags]);
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// `POST /v1/chat/completions` with a body of JSON, in HPACK's literals.
fn head() -> Vec<u8> {
    let mut block = vec![0x83, 0x86];
    for (name, value) in [
        (&[0x04_u8][..], "/v1/chat/completions"),
        (&[0x01], "node"),
        (&[0x0f, 0x10], "application/json"),
    ] {
        block.extend_from_slice(name);
        block.push(value.len() as u8);
        block.extend_from_slice(value.as_bytes());
    }
    block
}

fn first_line(told: &[u8]) -> String {
    let end = told.iter().position(|&byte| byte == b'\r' || byte == b'\n');
    match told.get(..end.unwrap_or(told.len())) {
        Some(line) if !line.is_empty() => String::from_utf8_lossy(line).into_owned(),
        _ => "nothing, and hung up on".into(),
    }
}

/// What HTTP/1 or HTTP/2 says.
fn in_words(told: &[u8]) -> String {
    if told.starts_with(b"HTTP/1") {
        return first_line(told);
    }
    let mut rest = told;
    let mut words = Vec::new();
    while let Some((&[a, b, c, kind, _, ..], after)) = rest.split_first_chunk::<9>() {
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        let payload = after.get(..length).unwrap_or_default();
        let code = |from: usize| payload.get(from..from + 4).and_then(|code| code.last());
        match kind {
            GOAWAY => words.push(format!("GOAWAY, code {:?}", code(4).unwrap_or(&0))),
            RESET => words.push(format!("RST_STREAM, code {:?}", code(0).unwrap_or(&0))),
            HEADERS => words.push("an answer".into()),
            _ => {}
        }
        rest = after.get(length..).unwrap_or_default();
    }
    let count = words.len();
    words.dedup();
    words.truncate(3);
    match count {
        0 => "nothing, and hung up on".into(),
        _ => words.join(", "),
    }
}

/// nghttp2's own client, which shares nothing with ours.
async fn h2load(places: &Places) -> Result<Row> {
    let name = format!("h2load: {LOADS} chats over 8 connections of HTTP/2, 16 at once on each");
    let folder = tempfile::tempdir()?;
    let body = folder.path().join("body.json");
    std::fs::write(&body, greedy(3).to_string())?;
    let pair = Pair::start(places, &Wanted::default()).await?;
    pair.policy("fixed-speculate").await?;
    let mut command = Command::new("h2load");
    command
        .args(["-n", &LOADS.to_string(), "-c", "8", "-m", "16"])
        .args(["-H", "content-type: application/json", "-d"])
        .arg(&body)
        .arg(format!("http://{}/v1/chat/completions", pair.edge.api));
    let ran = tokio::task::spawn_blocking(move || command.output()).await?;
    let ran = match ran {
        Ok(ran) => ran,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let why = "not tried: h2load is not there (Debian's nghttp2-client has it)";
            return Ok(Row::told(name, f64::NAN, "").with_more(Some(why.into())));
        }
        Err(error) => return Err(error).context("h2load"),
    };
    let told = String::from_utf8_lossy(&ran.stdout);
    let line = |begin: &str| told.lines().find(|line| line.starts_with(begin));
    let requests = line("requests:").unwrap_or_default();
    let good = requests.contains(&format!(
        "{LOADS} succeeded, 0 failed, 0 errored, 0 timeout"
    ));
    let wrong = (!good).then(|| format!("{requests} {}", String::from_utf8_lossy(&ran.stderr)));
    let more = line("finished in").map(str::to_owned);
    Ok(Row::all(name, LOADS, wrong.into_iter().collect()).with_more(more))
}

/// An edge whose draft model has another tokenizer: nothing that it drafts can be verified, and the target answers.
async fn another_tokenizer(places: &Places) -> Result<Row> {
    let folder = tempfile::tempdir()?;
    let draft = other_tokenizer(&places.models.join("demo-draft"), folder.path())?;
    let wanted = Wanted {
        draft: Some(draft),
        ..Wanted::default()
    };
    let pair = Pair::start(places, &wanted).await?;
    pair.policy("fixed-speculate").await?;
    let cloud = pair.cloud.as_ref().context("the cloud")?;
    let mut wrong = Vec::new();
    for number in 0..OTHER_IDS {
        let answer = ask(pair.edge.api, &greedy(number)).await?;
        let right = ask(cloud.api, &greedy(number)).await?;
        if !answer.is_whole() {
            wrong.push(format!("{:?}", answer.error));
        } else if answer.report.get("route") != Some(&json!("cloud")) {
            wrong.push(format!("it ran by {}", answer.report));
        } else if answer.text != right.text {
            wrong.push(format!("{:?} in place of {:?}", answer.text, right.text));
        }
    }
    let name = "a draft model with another tokenizer: the target answers in its own words";
    Ok(Row::all(name, OTHER_IDS as usize, wrong))
}

/// The edge's certificate runs out while both nodes run.
async fn expired(places: &Places) -> Result<Row> {
    let folder = tempfile::tempdir()?;
    let [ca, own] = ["cloud", "edge"].map(|name| folder.path().join(name));
    let host = ["127.0.0.1"];
    pki::init(&ca, &host, Existing::Keep)?;
    let issue = |existing, lasting| {
        pki::issue_valid(&ca, &own, &host, existing, SystemTime::now(), lasting)
    };
    issue(Existing::Keep, SHORT_VALID)?;
    let begun = Instant::now();
    let wanted = Wanted {
        tls: Some([ca.clone(), own.clone()]),
        ..Wanted::default()
    };
    let mut pair = Pair::start(places, &wanted).await?;
    pair.policy("fixed-speculate").await?;
    let mut wrong = Vec::new();
    let mut must = |good: bool, what: String| {
        if !good {
            wrong.push(what);
        }
    };
    let before = ask(pair.edge.api, &sum(1)).await?;
    must(has_target(&before), format!("before: {}", before.report));
    tokio::time::sleep((SHORT_VALID + Duration::from_secs(1)).saturating_sub(begun.elapsed()))
        .await;
    // Connections that stand stay: only a new one is refused.
    let nodes = pair.kill_cloud()?;
    pair.restart_cloud(nodes)?;
    let why = pair.why_down("expired").await?;
    must(
        why.is_some(),
        "the edge does not say that its certificate has expired".into(),
    );
    let alone = ask(pair.edge.api, &sum(2)).await?;
    must(
        alone.is_whole() && !has_target(&alone),
        format!("without the link: {}", alone.report),
    );
    let cloud = pair.cloud.as_ref().context("the cloud")?.api;
    must(
        ask(cloud, &sum(3)).await?.is_whole(),
        "the cloud does not answer its own clients".into(),
    );
    issue(Existing::Replace, Duration::from_secs(3600))?;
    pair.wait(true).await?;
    let again = ask(pair.edge.api, &sum(4)).await?;
    must(
        has_target(&again),
        format!("with a new certificate: {}", again.report),
    );
    let name = "a certificate that runs out: both nodes go on, and the link is back with a new one";
    Ok(Row::all(name, 4, wrong).with_more(why.map(|why| format!("the edge said: {why}"))))
}

/// A copy of a model in whose tokenizer two ordinary entries have changed places.
fn other_tokenizer(model: &Path, into: &Path) -> Result<PathBuf> {
    let folder = into.join("draft");
    std::fs::create_dir_all(&folder)?;
    for entry in std::fs::read_dir(model)? {
        let path = entry?.path();
        std::fs::copy(
            &path,
            folder.join(path.file_name().context("a file's name")?),
        )?;
    }
    let file = folder.join("tokenizer.json");
    let mut tokenizer: Value = serde_json::from_slice(&std::fs::read(&file)?)?;
    let entries = tokenizer.pointer_mut("/model/vocab");
    let entries = entries
        .and_then(Value::as_object_mut)
        .context("the vocabulary")?;
    let mut found: Vec<_> = entries.values_mut().take(2).collect();
    if let [one, other] = found.as_mut_slice() {
        std::mem::swap(*one, *other);
    }
    std::fs::write(&file, tokenizer.to_string())?;
    Ok(folder)
}

/// The edge's state lies on a disk that is full.
async fn full_disk(places: &Places) -> Result<Row> {
    let name = "the disk of the edge's state is full: requests are answered all the same";
    let folder = tempfile::tempdir()?;
    let Some(disk) = Disk::mount(folder.path())? else {
        return Ok(Row::told(name, f64::NAN, "")
            .with_more(Some("not tried: mounting a small disk needs root".into())));
    };
    let wanted = Wanted {
        state: Some(disk.0.clone()),
        ..Wanted::default()
    };
    let mut pair = Pair::start(places, &wanted).await?;
    pair.policy("fixed-speculate").await?;
    let mut wrong = Vec::new();
    disk.fill()?;
    let mut asked = 0;
    for number in 0..200 {
        let answer = ask(pair.edge.api, &sum(number)).await?;
        asked += 1;
        if !answer.is_whole() {
            wrong.push(format!("{}: {:?}", answer.status, answer.error));
        }
    }
    // A change that cannot be written down is refused, with the reason, and is not made.
    let refused = pair.policy("edge-only").await;
    let said = match refused {
        Ok(_) => {
            wrong.push("a policy was taken that could not be kept".into());
            String::new()
        }
        Err(error) => format!("{error:#}"),
    };
    if pair.edge.has_ended() {
        wrong.push("the edge has ended".into());
    }
    drop(pair);
    Ok(Row::all(name, asked, wrong).with_more(Some(format!("another policy: {said}"))))
}

/// A small disk, unmounted when it is dropped.
struct Disk(PathBuf);

impl Disk {
    fn mount(at: &Path) -> Result<Option<Disk>> {
        let mut mount = Command::new("mount");
        mount
            .args(["-t", "tmpfs", "-o", "size=24m", "msao-proof"])
            .arg(at);
        // Without the right to mount, or without `mount`, there is no such disk here.
        let done = mount.output().is_ok_and(|output| output.status.success());
        Ok(done.then(|| Disk(at.to_owned())))
    }

    fn fill(&self) -> Result<()> {
        use std::io::Write as _;
        let mut file = std::fs::File::create(self.0.join("filler"))?;
        let piece = vec![0; 4096];
        let mut written = 0;
        while file.write_all(&piece).is_ok() {
            written += piece.len();
            ensure!(written < 1 << 30, "the disk does not fill");
        }
        Ok(())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // The proof is over; what stays mounted is told by the system.
        let _left = Command::new("umount").arg(&self.0).status();
    }
}
