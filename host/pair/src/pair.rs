//! Two nodes with a link between them, as proofs run them: the edge on one core, the cloud on the other.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::between::Between;
use super::client::{activate, operate, push};
use super::process::NodeProcess;

/// Where programs, models and components are.
#[derive(Clone, Debug)]
pub struct Places {
    /// The program.
    pub msao: PathBuf,
    /// `models`.
    pub models: PathBuf,
    /// The folder of components.
    pub plugins: PathBuf,
}

/// What a pair is to be like.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// The draft model's folder where it is not the demo's.
    pub draft: Option<PathBuf>,
    /// Likewise.
    pub target: Option<PathBuf>,
    /// How models are held, as keys of theirs; in f32 where nothing is said.
    pub held: String,
    /// Threads of each model; one where nothing is said. Nodes with more are not kept on a core each.
    pub threads: Option<u16>,
    /// Keys and values of each of the cloud's models, MiB, where that matters.
    pub cache_mib: Option<u32>,
    /// The link, as TOML under `[peers.shape]`.
    pub shape: String,
    /// Other sections of the edge's, as TOML.
    pub sections: String,
    /// The folder of both nodes' states, where that matters.
    pub state: Option<PathBuf>,
    /// Keys of the edge's `[api]`.
    pub api: String,
    /// The folders of the cloud's and of the edge's certificates; in the clear where there are none.
    pub tls: Option<[PathBuf; 2]>,
    /// What the edge connects over, where the link is to change.
    pub between: Option<Arc<Between>>,
}

/// Both of them.
pub struct Pair {
    /// The edge.
    pub edge: NodeProcess,
    /// The cloud; `None` once it was killed.
    pub cloud: Option<NodeProcess>,
    /// The edge's operators' listener.
    pub operator: SocketAddr,
    work: tempfile::TempDir,
    places: Places,
    wanted: Wanted,
}

/// Keys and values of a model, MiB, where nothing is said.
pub const CACHE_MIB: u32 = 512;
/// Prompts that may wait for room on a model.
pub const WAITING: u32 = 256;
/// The core of each, and of the load's client the edge's.
const EDGE_CORE: usize = 0;
const CLOUD_CORE: usize = 1;

impl Pair {
    /// Starts both and waits until the edge reaches the cloud.
    ///
    /// # Errors
    /// One does not come up.
    pub async fn start(places: &Places, wanted: &Wanted) -> Result<Pair> {
        let work = tempfile::tempdir()?;
        let cloud = start_cloud(places, wanted, work.path(), "127.0.0.1:0")?;
        let nodes = cloud.nodes.context("the cloud takes no sessions")?;
        let between = wanted.between.as_ref();
        let nodes = between.map_or(nodes, |between| between.towards(nodes));
        let draft = wanted.draft.clone();
        let draft = draft.unwrap_or_else(|| places.models.join("demo-draft"));
        let mut text = head("edge", "edge", wanted) + &model("draft", &draft, wanted, CACHE_MIB);
        let _ = write!(
            text,
            "[api]\nlisten = \"127.0.0.1:0\"\nmodel = \"demo\"\n{}\n[operator]\nlisten = \"127.0.0.1:0\"\n[policy]\n\
             allow-unsigned = true\nwarm = 2\n[records]\nsample = 0.0\n",
            wanted.api
        );
        if let Some([_, own]) = &wanted.tls {
            let _ = write!(text, "[sessions]\ntls = \"{}\"\n", own.display());
        }
        let _ = write!(text, "[[peers]]\nname = \"cloud\"\naddress = \"{nodes}\"\n");
        // The link is a peer's; what follows is not.
        text += &wanted.shape;
        text += &wanted.sections;
        let core = core_of(wanted, EDGE_CORE);
        let edge = start(places, work.path(), "edge", &text, core)?;
        let operator = edge
            .operator
            .context("the edge has no operators' listener")?;
        let pair = Pair {
            edge,
            cloud: Some(cloud),
            operator,
            work,
            places: places.clone(),
            wanted: wanted.clone(),
        };
        pair.wait(true).await?;
        Ok(pair)
    }

    /// Waits until the edge sees the cloud so.
    ///
    /// # Errors
    /// It does not within a time.
    pub async fn wait(&self, up: bool) -> Result<()> {
        until(self.operator, up).await
    }

    /// Brings a policy to the edge and makes it active.
    ///
    /// # Errors
    /// The edge refuses.
    pub async fn policy(&self, name: &str) -> Result<Value> {
        let release = push(self.operator, &self.places.plugins, name).await?;
        activate(self.operator, &release).await?;
        Ok(release)
    }

    /// The same with a post-processor for what it has probed.
    ///
    /// # Errors
    /// The edge refuses.
    pub async fn policy_beside(&self, name: &str, postprocessor: &str) -> Result<()> {
        let plugins = &self.places.plugins;
        let policy = push(self.operator, plugins, name).await?;
        let postprocessor = push(self.operator, plugins, postprocessor).await?;
        let body = json!({ "policy": policy, "postprocessor": postprocessor });
        operate(self.operator, "/v1/activate", Some(&body)).await?;
        Ok(())
    }

    /// Kills the cloud, as a power cut would.
    ///
    /// # Errors
    /// The system refuses.
    pub fn kill_cloud(&mut self) -> Result<SocketAddr> {
        let cloud = self.cloud.take().context("the cloud is dead already")?;
        let nodes = cloud.nodes.context("the cloud takes no sessions")?;
        cloud.kill()?;
        Ok(nodes)
    }

    /// Starts the cloud again where it was, and waits until the edge reaches it.
    ///
    /// # Errors
    /// It does not come up.
    pub async fn revive_cloud(&mut self, nodes: SocketAddr) -> Result<()> {
        self.restart_cloud(nodes)?;
        self.wait(true).await
    }

    /// Starts the cloud again where it was, whether or not the edge reaches it.
    ///
    /// # Errors
    /// It does not come up.
    pub fn restart_cloud(&mut self, nodes: SocketAddr) -> Result<()> {
        let address = nodes.to_string();
        let work = self.work.path();
        self.cloud = Some(start_cloud(&self.places, &self.wanted, work, &address)?);
        Ok(())
    }

    /// Why the edge does not reach the cloud, once this is among the words; nothing if it never is.
    ///
    /// # Errors
    /// The edge does not answer.
    pub async fn why_down(&self, word: &str) -> Result<Option<String>> {
        let end = Instant::now() + Duration::from_secs(20);
        while Instant::now() < end {
            let state = operate(self.operator, "/v1/state", None).await?;
            let why = state.pointer("/peers/0/why").and_then(Value::as_str);
            if let Some(why) = why.filter(|why| why.contains(word)) {
                return Ok(Some(why.to_owned()));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(None)
    }
}

/// Waits until the edge of these operators sees its first peer so.
///
/// # Errors
/// It does not within a time.
pub async fn until(operator: SocketAddr, up: bool) -> Result<()> {
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        let state = operate(operator, "/v1/state", None).await?;
        if state.pointer("/peers/0/up") == Some(&json!(up)) {
            return Ok(());
        }
        let why = state.pointer("/peers/0/why").cloned().unwrap_or_default();
        ensure!(
            Instant::now() < end,
            "the edge's link is not as it should be: {why}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn start_cloud(places: &Places, wanted: &Wanted, work: &Path, nodes: &str) -> Result<NodeProcess> {
    let mut text = head("cloud", "cloud", wanted);
    // The cloud drafts with the pair's own draft model, whoever drafts at the edge.
    let (draft, target) = match &wanted.target {
        Some(target) => (wanted.draft.clone(), target.clone()),
        None => (None, places.models.join("demo-target")),
    };
    let draft = draft.unwrap_or_else(|| places.models.join("demo-draft"));
    let cache_mib = wanted.cache_mib.unwrap_or(CACHE_MIB);
    text += &model("draft", &draft, wanted, cache_mib);
    text += &model("target", &target, wanted, cache_mib);
    text +=
        "[api]\nlisten = \"127.0.0.1:0\"\nmodel = \"demo\"\n[operator]\nlisten = \"127.0.0.1:0\"\n";
    let _ = write!(text, "[sessions]\nlisten = \"{nodes}\"\n");
    if let Some([own, _]) = &wanted.tls {
        let _ = writeln!(text, "tls = \"{}\"", own.display());
    }
    start(places, work, "cloud", &text, core_of(wanted, CLOUD_CORE))
}

/// Where a node is kept: nowhere if it has more threads than one core can run.
fn core_of(wanted: &Wanted, core: usize) -> Option<usize> {
    (wanted.threads.unwrap_or(1) == 1).then_some(core)
}

fn head(name: &str, role: &str, wanted: &Wanted) -> String {
    // Seen from where the configuration lies, which is gone with the pair.
    let states = wanted.state.as_deref().unwrap_or(Path::new(""));
    let state = states.join(name);
    let state = state.display();
    format!("[node]\nname = \"{name}\"\nrole = \"{role}\"\nstate = \"{state}\"\n")
}

fn model(role: &str, folder: &Path, wanted: &Wanted, cache_mib: u32) -> String {
    let held = match wanted.held.as_str() {
        "" => "precision = \"f32\"\n",
        held => held,
    };
    format!(
        "[models.{role}]\npath = \"{}\"\n{held}cache-mib = {cache_mib}\nthreads = {}\nwaiting = {WAITING}\n",
        folder.display(),
        wanted.threads.unwrap_or(1)
    )
}

fn start(
    places: &Places,
    work: &Path,
    name: &str,
    text: &str,
    core: Option<usize>,
) -> Result<NodeProcess> {
    let file = work.join(format!("{name}.toml"));
    std::fs::write(&file, text).with_context(|| file.display().to_string())?;
    let log = work.join(format!("{name}.log"));
    NodeProcess::start(&places.msao, &file, &log, core)
}
