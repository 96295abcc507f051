//! What `cargo xtask record` writes: decisions of each policy as real nodes took and kept them, to be replayed.
//!
//! For each policy a cloud and an edge node are started as two processes with a slow link between them. A few requests by other
//! policies come first, so that link and speeds are known; then the same requests to every policy, one after the other, the last
//! ones after the cloud was lost. The edge's records of them are exported as `msao node decisions --jsonl` does it, replayed
//! against the component, and written only if every answer is the recorded one to the bit.

mod questions;

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use msao_author::plugin::Project;
use msao_author::replay::{self, Options};
use msao_core::offload::manifest::Probe;
use msao_sandbox::Plugin;
use msao_state::{Recorded, read_jsonl};
use serde_json::{Value, json};

use self::questions::{Media, asking};
use super::client::{ask, is_already_active, operate, push, text};
use super::demo::{Places, cloud_config, edge_config, start};

/// The post-processor that scores for policies that want the probe, and that has a recording of its own.
const SCORER: &str = "mas-joint";
/// By these the link and both models' speeds become known.
const FIRST: [&str; 2] = ["cloud-draft", "fixed-speculate"];
/// How hard recordings are packed: they are committed.
const PACKING: i32 = 19;
/// A node's debug build on a busy machine: a plug-in's answer that came too late could not be replayed.
const PATIENT: &str =
    "[sandbox.limits]\nscore-ms = 20000\nplan-ms = 5000\nstep-ms = 5000\nobserve-ms = 5000\n";
/// A record is there, and a node sees that another is gone, within.
const WITHIN: Duration = Duration::from_secs(30);
/// What a request has taught is applied after its record is handed over, by a thread of its own.
const LEARNED: Duration = Duration::from_millis(300);
/// Decisions that an export has at most.
const MOST: usize = 10_000;

/// What is recorded.
struct Set {
    /// The recording's name.
    name: String,
    /// The policy, and the folder of its component and manifest.
    policy: String,
    plugins: PathBuf,
    /// Whether the post-processor scores.
    scored: bool,
    /// Share of the records with what the probe saw.
    reports: f64,
    /// So many requests at most, and none once the cloud is lost, where there is a number: what the probe saw is large.
    most: Option<usize>,
}

/// Records every policy that has a folder in `policies`, and the post-processor, into `out`.
///
/// # Errors
/// A node does not come up, a request fails, or a replay answers otherwise than was recorded.
pub async fn record(places: &Places, policies: &Path, out: &Path) -> Result<()> {
    let mut say = std::io::stdout();
    let media = Media::find(&places.models)?;
    let mut sets = Vec::new();
    for policy in names(policies)? {
        let component = places.plugins.join(format!("{policy}.wasm"));
        let manifest = Project::open(&component)?.manifest;
        sets.push(Set {
            name: policy.clone(),
            policy,
            plugins: places.plugins.clone(),
            scored: manifest.probe != Probe::None,
            reports: 0.0,
            most: None,
        });
    }
    ensure!(!sets.is_empty(), "{} has no policies", policies.display());
    sets.push(probing(places)?);
    for set in &sets {
        let lines = recorded(places, set, &media)
            .await
            .with_context(|| format!("recording {}", set.name))?;
        let read = read_jsonl(lines.as_bytes())?;
        verify(places, set, &read).with_context(|| format!("replaying {}", set.name))?;
        let file = out.join(format!("{}.jsonl.zst", set.name));
        let packed = zstd::encode_all(lines.as_bytes(), PACKING)?;
        std::fs::write(&file, &packed).with_context(|| file.display().to_string())?;
        writeln!(
            say,
            "  {:<18} {:>3} decisions, {:>3} KiB",
            set.name,
            read.decisions.len(),
            packed.len().div_ceil(1024)
        )?;
    }
    Ok(())
}

/// Names of the folders that hold a manifest, in order.
fn names(folder: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    let entries = std::fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    for entry in entries {
        let path = entry?.path();
        if path.join("policy.toml").is_file()
            && let Some(name) = path.file_name().and_then(|name| name.to_str())
        {
            names.push(name.to_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// The post-processor's own recording: a policy that has the probe run for each request, with what it saw.
fn probing(places: &Places) -> Result<Set> {
    let policy = "cloud-only";
    let folder = places.work.join("probing");
    std::fs::create_dir_all(&folder)?;
    let named = |ending: &str| format!("{policy}.{ending}");
    std::fs::copy(
        places.plugins.join(named("wasm")),
        folder.join(named("wasm")),
    )
    .with_context(|| named("wasm"))?;
    let manifest = std::fs::read_to_string(places.plugins.join(named("toml")))
        .with_context(|| named("toml"))?;
    let probing = manifest.replacen("state-schema", "probe = \"full\"\nstate-schema", 1);
    ensure!(
        probing != manifest,
        "the manifest of {policy} has no state-schema"
    );
    std::fs::write(folder.join(named("toml")), probing)?;
    Ok(Set {
        name: SCORER.to_owned(),
        policy: policy.to_owned(),
        plugins: folder,
        scored: true,
        reports: 1.0,
        most: Some(4),
    })
}

/// Starts two nodes, has the set's policy decide, and gives what the edge has kept of its decisions.
async fn recorded(places: &Places, set: &Set, media: &Media) -> Result<String> {
    let own = Places {
        msao: places.msao.clone(),
        models: places.models.clone(),
        plugins: set.plugins.clone(),
        work: places.work.join(&set.name),
        stay: false,
    };
    // What nodes of an earlier recording have learned is none of this one's.
    if own.work.exists() {
        std::fs::remove_dir_all(&own.work).with_context(|| own.work.display().to_string())?;
    }
    std::fs::create_dir_all(&own.work)?;
    let cloud = start(&own, "cloud", &cloud_config(&own))?;
    let nodes = cloud.nodes.context("the cloud takes no sessions")?;
    let records = format!("[records]\nreports = {:.1}\n{PATIENT}", set.reports);
    let config = edge_config(&own, &nodes.to_string()) + &records;
    let edge = start(&own, "edge", &config)?;
    let operator = edge
        .operator
        .context("the edge has no operators' listener")?;
    peer_is(operator, true).await?;

    let mut there = 0;
    for policy in FIRST {
        let release = push(operator, &places.plugins, policy).await?;
        activate(operator, json!({ "policy": release })).await?;
        let about = asking(&[("image", &media.scene)], "Describe the scene.", json!({}))?;
        there = answered(edge.api, operator, &about, there).await?;
    }
    let release = push(operator, &set.plugins, &set.policy).await?;
    let choice = if set.scored {
        let scorer = push(operator, &places.plugins, SCORER).await?;
        json!({ "policy": release, "postprocessor": scorer })
    } else {
        json!({ "policy": release })
    };
    activate(operator, choice).await?;
    let before = there;
    let requests = media.requests()?;
    for body in requests.iter().take(set.most.unwrap_or(usize::MAX)) {
        there = answered(edge.api, operator, body, there).await?;
    }
    if set.most.is_none() {
        cloud.kill()?;
        peer_is(operator, false).await?;
        for body in media.when_lost()? {
            there = answered(edge.api, operator, &body, there).await?;
        }
    }
    text(
        operator,
        &format!("/v1/decisions?last={}&as=jsonl", there - before),
    )
    .await
}

/// Makes a choice active, unless it is: the first policies are among those that are recorded.
async fn activate(operator: SocketAddr, choice: Value) -> Result<()> {
    match operate(operator, "/v1/activate", Some(&choice)).await {
        Err(error) if !is_already_active(&error) => Err(error),
        _ => Ok(()),
    }
}

/// Asks, and waits until one more decision is kept than there were. Gives how many there are now.
async fn answered(
    api: SocketAddr,
    operator: SocketAddr,
    body: &Value,
    there: usize,
) -> Result<usize> {
    let answer = ask(api, body).await?;
    ensure!(
        answer.is_whole(),
        "a request failed with {}: {:?}",
        answer.status,
        answer.error
    );
    let end = Instant::now() + WITHIN;
    loop {
        let path = format!("/v1/decisions?last={MOST}");
        let told = operate(operator, &path, None).await?;
        let kept = told.get("decisions").and_then(Value::as_array);
        let kept = kept.map_or(0, Vec::len);
        if kept > there {
            ensure!(kept == there + 1, "more was asked than is known");
            tokio::time::sleep(LEARNED).await;
            return Ok(kept);
        }
        ensure!(Instant::now() < end, "no decision was kept of a request");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Waits until the edge sees its peer so.
async fn peer_is(operator: SocketAddr, up: bool) -> Result<()> {
    let end = Instant::now() + WITHIN;
    loop {
        let state = operate(operator, "/v1/state", None).await?;
        if state.pointer("/peers/0/up") == Some(&json!(up)) {
            return Ok(());
        }
        ensure!(
            Instant::now() < end,
            "the edge does not see its peer {}",
            if up { "come up" } else { "go" }
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Replays a recording against its component: with the recorded calibration, and with what it learns itself.
fn verify(places: &Places, set: &Set, recorded: &Recorded) -> Result<()> {
    let again = "run it again, on a machine with nothing else to do";
    ensure!(recorded.skipped == 0, "lines of it cannot be read");
    let component = set.plugins.join(format!("{}.wasm", set.policy));
    let policy = Project::open(&component)?.policy(true)?;
    for learn in [false, true] {
        let options = Options {
            learn,
            params: None,
        };
        let report = replay::policy(&policy, recorded, &options)?;
        let same = report.count(replay::compare::Verdict::Same);
        ensure!(
            same == report.decisions
                && report.steps.calls == report.steps.same
                && report.observes.calls == report.decisions
                && report.observes.same == report.decisions,
            "{same} of {} decisions, {} of {} steps and {} of {} outcomes were answered as recorded (learning: {learn}); \
             {again}",
            report.decisions,
            report.steps.same,
            report.steps.calls,
            report.observes.same,
            report.observes.calls
        );
    }
    if set.name != SCORER {
        return Ok(());
    }
    let component = places.plugins.join(format!("{SCORER}.wasm"));
    let Plugin::PostProcessor(scorer) = Project::open(&component)?.load(true)? else {
        bail!("{SCORER} is no post-processor");
    };
    for learn in [false, true] {
        let options = Options {
            learn,
            params: None,
        };
        let scored = replay::postprocessor(&scorer, recorded, &options)?;
        ensure!(
            scored.replayed > 0 && scored.same == scored.replayed && scored.host_failed == 0,
            "{} of {} scores were as recorded (learning: {learn}); {again}",
            scored.same,
            scored.replayed
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_are_the_folders_with_a_manifest() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["b", "a", "c"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
        }
        for name in ["a", "b"] {
            std::fs::write(folder.path().join(name).join("policy.toml"), "").unwrap();
        }
        std::fs::write(folder.path().join("policy.toml"), "").unwrap();
        assert_eq!(names(folder.path()).unwrap(), ["a", "b"]);
        assert!(names(&folder.path().join("d")).is_err());
    }
}
