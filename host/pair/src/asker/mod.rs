//! Asks what `msao bench run` wants asked.
//!
//! Each turn has node processes of its own: what a policy that was asked the same items before has left in caches would be a
//! gift to the next one. What nodes learn of drafts and of their own speeds, and what the policy learns, stays: their states lie in a folder
//! for each link and policy, where the next turn's nodes find them. Items that do not count come first, so that what a process does for the first
//! time does not count either.

mod facts;
mod measure;
mod sets;
mod twin;

use std::cell::OnceCell;
use std::collections::{HashMap, VecDeque};
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use msao_datasets::Item;
use msao_evaluate::manifest::Facts;
use msao_evaluate::plan::{ItemRef, Purpose, Turn};
use msao_evaluate::rows::Measured;
use msao_evaluate::run::{Asker, Sink};
use msao_evaluate::spec::{self, Arrival, LinkFormat, LinkTrace, Spec};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use self::measure::Asked;
pub use self::measure::question;
use self::sets::Loaded;
use crate::client::{self, is_already_active, operate, push};
use crate::pair::{Pair, Places, Wanted};

/// A request that has no answer after so long never gets one.
const ANSWERED_WITHIN: Duration = Duration::from_secs(120);
/// Between two looks whether somebody wants the run to end.
const LOOKED: Duration = Duration::from_millis(100);
/// How both models are held: as an operator would, who has not said otherwise.
const HELD: &str = "precision = \"bf16\"\n";

/// Asks pairs of node processes.
pub struct PairAsker {
    places: Places,
    spec: Spec,
    base: PathBuf,
    models: Models,
    /// By what turns are for and the data set's name.
    sets: HashMap<(Purpose, String), Arc<Loaded>>,
    runtime: tokio::runtime::Runtime,
    /// What nodes have learned, a folder for each link, and in it one for each policy.
    learned: tempfile::TempDir,
}

impl PairAsker {
    /// Reads the data sets, and makes a twin that is not there yet. `base`: what the specification's files are seen from.
    /// `twins`: where twins are kept.
    ///
    /// # Errors
    /// A data set cannot be read or drawn from, a component is not there, or the twin cannot be made.
    pub fn new(places: Places, twins: &Path, spec: &Spec, base: &Path) -> Result<PairAsker> {
        for policy in &spec.policies {
            let names = [Some(&policy.policy), policy.postprocessor.as_ref()];
            for name in names.into_iter().flatten() {
                let path = places.plugins.join(format!("{name}.wasm"));
                if !path.is_file() {
                    bail!(
                        "policy \"{}\": there is no {}; `cargo xtask plugins` makes it, or name another folder with --plugins",
                        policy.name,
                        path.display()
                    );
                }
            }
        }
        let mut sets = HashMap::new();
        for data in &spec.data {
            let load = |data: &spec::Data| {
                let loaded = sets::load(data, spec.seed, &places.models, base);
                Ok::<_, anyhow::Error>(Arc::new(
                    loaded.with_context(|| format!("data \"{}\"", data.name))?,
                ))
            };
            let timed = load(data)?;
            let other = spec.accuracy_data(data);
            let accuracy = match other == *data {
                true => Arc::clone(&timed),
                false => load(&other).context("accuracy.data")?,
            };
            sets.insert((Purpose::Timed, data.name.clone()), timed);
            sets.insert((Purpose::Accuracy, data.name.clone()), accuracy);
        }
        // What takes longest comes last.
        let models = match &spec.pair {
            spec::Pair::Demo => Models {
                draft: places.models.join("demo-draft"),
                target: places.models.join("demo-target"),
            },
            spec::Pair::Twin(name) => twin::made(&places, twins, name)?,
        };
        Ok(PairAsker {
            places,
            models,
            spec: spec.clone(),
            base: base.to_owned(),
            sets,
            runtime: tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .enable_all()
                .build()?,
            learned: tempfile::tempdir()?,
        })
    }

    /// A pair with the turn's link, and the turn's policy in force; the component's digest.
    async fn start(&self, turn: &Turn) -> Result<(Pair, Value)> {
        let wanted = Wanted {
            draft: Some(self.models.draft.clone()),
            target: Some(self.models.target.clone()),
            held: HELD.to_owned(),
            shape: shape(&turn.link, &self.base),
            sections: self.pins(&turn.policy)?,
            state: Some(
                (self.learned.path())
                    .join(&turn.link.name)
                    .join(&turn.policy.name),
            ),
            ..Wanted::default()
        };
        let pair = Pair::start(&self.places, &wanted).await?;
        let plugins = &self.places.plugins;
        let policy = push(pair.operator, plugins, &turn.policy.policy).await?;
        let postprocessor = match &turn.policy.postprocessor {
            Some(name) => push(pair.operator, plugins, name).await?,
            None => json!("nothing"),
        };
        let body = json!({ "policy": policy, "postprocessor": postprocessor });
        match operate(pair.operator, "/v1/activate", Some(&body)).await {
            Ok(_) => {}
            // The edge goes on with what was active when its state was left.
            Err(error) if is_already_active(&error) => {}
            Err(error) => {
                return Err(error).context("the policy is refused, or one of its parameters");
            }
        }
        let artifact = policy.get("artifact").cloned();
        Ok((pair, artifact.context("a release without a component")?))
    }

    /// The turn's parameters, as an operator's pins in the edge's configuration: what a policy lets nobody tune can be chosen so too.
    fn pins(&self, policy: &spec::Policy) -> Result<String> {
        if policy.parameters.is_empty() {
            return Ok(String::new());
        }
        let manifest = (self.places.plugins).join(format!("{}.toml", policy.policy));
        let text =
            std::fs::read_to_string(&manifest).with_context(|| manifest.display().to_string())?;
        let name = facts::plugin_name(&text)
            .with_context(|| format!("{}: it has no name", manifest.display()))?;
        let mut pins = format!("[policy.pins.{}]\n", json!(name));
        for (name, value) in &policy.parameters {
            // Bools, numbers and plain texts are written alike in both.
            let _ = writeln!(pins, "{} = {}", json!(name), serde_json::to_value(value)?);
        }
        Ok(pins)
    }

    async fn ask(&self, turn: &Turn, items: &[ItemRef], sink: &mut Sink<'_>) -> Result<()> {
        let loaded = self.sets.get(&(turn.purpose, turn.data.name.clone()));
        let loaded = Arc::clone(loaded.context("a data set that the specification does not have")?);
        let (pair, policy) = self.start(turn).await.with_context(|| {
            format!(
                "policy \"{}\" over link \"{}\"",
                turn.policy.name, turn.link.name
            )
        })?;
        let question = |item: &ItemRef| -> Result<(Item, Value)> {
            let data = loaded.item(item.index)?.clone();
            let mut body = question(&data)?;
            if let Value::Object(fields) = &mut body {
                let decoding = &turn.decoding;
                fields.insert("max_completion_tokens".into(), json!(decoding.max_tokens));
                fields.insert("temperature".into(), json!(decoding.temperature));
                // The API's seeds are signed.
                fields.insert("seed".into(), json!(item.seed >> 1));
            }
            Ok((data, body))
        };
        let api = pair.edge.api;
        let judged = !turn.pair.is_twin();
        let (warm, counted): (Vec<_>, Vec<_>) = items.iter().partition(|item| item.warm);
        let clients = match &turn.arrival {
            Arrival::Closed { concurrency, .. } => *concurrency,
            // They come when they are due, each by a client of its own.
            _ => counted.len() as u32,
        };
        let warm = warm.into_iter().map(|item| Ok(question(item)?.1));
        let at_once = match turn.purpose {
            Purpose::Accuracy => clients,
            // As soon as the one before has its answer.
            Purpose::Timed => 1,
        };
        let whose = Whose {
            name: &turn.policy.name,
            policy: &policy,
            decided: OnceCell::new(),
        };
        let answered = warmed(api, warm, at_once as usize, &whose, sink).await?;
        ensure!(
            answered > 0 || turn.counted() > 0,
            "policy \"{}\" answered none of {} questions that it was to learn from; why not is in the edge's log",
            turn.policy.name,
            turn.requests()
        );
        // Read and encoded before the clock starts.
        let mut list = VecDeque::with_capacity(counted.len());
        for item in counted {
            let (data, body) = question(item)?;
            list.push_back((*item, data, body));
        }
        let list = Arc::new(Mutex::new(list));
        let (tell, mut told) = mpsc::unbounded_channel();
        let mut asking = JoinSet::new();
        let began = Instant::now();
        for _ in 0..clients.max(1) {
            let (list, tell) = (Arc::clone(&list), tell.clone());
            asking.spawn(async move {
                loop {
                    let next = list
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .pop_front();
                    let Some((item, data, body)) = next else {
                        return;
                    };
                    let answer = one(api, began, &item, &data, judged, &body).await;
                    // Whoever does not listen any more has been told to end.
                    let _gone = tell.send((item, answer));
                }
            });
        }
        drop(tell);
        loop {
            match tokio::time::timeout(LOOKED, told.recv()).await {
                Ok(Some((item, (measured, generation)))) => {
                    whose.check(generation)?;
                    sink.put(&item, measured)?;
                }
                // Of the last answers some may have been cut short by whoever wants it to end.
                Ok(None) => return Ok(sink.check()?),
                Err(_) => sink.check()?,
            }
        }
    }
}

impl Asker for PairAsker {
    fn facts(&mut self) -> Result<Facts> {
        facts::facts(&self.places, &self.models, &self.spec, &self.base)
    }

    fn turn(&mut self, turn: &Turn, items: &[ItemRef], sink: &mut Sink) -> Result<()> {
        self.runtime.block_on(self.ask(turn, items, sink))
    }
}

/// The folders of the models that are asked.
struct Models {
    draft: PathBuf,
    target: PathBuf,
}

/// A request without an answer.
#[derive(Debug)]
struct NoAnswer;

impl std::fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "no answer within {} s", ANSWERED_WITHIN.as_secs())
    }
}

impl std::error::Error for NoAnswer {}

/// One answer; what the node refuses is one too.
async fn asked(api: SocketAddr, body: &Value) -> Result<client::Answer> {
    tokio::time::timeout(ANSWERED_WITHIN, client::ask(api, body))
        .await
        .unwrap_or_else(|_| Err(NoAnswer.into()))
}

/// Whose answers a turn is about.
struct Whose<'a> {
    name: &'a str,
    /// The component's digest.
    policy: &'a Value,
    /// The first generation that planned an answer.
    decided: OnceCell<Value>,
}

impl Whose<'_> {
    /// Who fails too often is taken out of force: what follows would be another policy's. `generation`: that planned an answer, where
    /// that is told.
    fn check(&self, generation: Option<Value>) -> Result<()> {
        let Some(generation) = generation else {
            return Ok(());
        };
        let first = self.decided.get_or_init(|| generation.clone());
        ensure!(
            generation.get("policy") == Some(self.policy) && *first == generation,
            "policy \"{}\" was taken out of force while it was asked; what failed is in the edge's log",
            self.name
        );
        Ok(())
    }
}

/// Asks what does not count, so many at once; how many were answered. What goes wrong now and then goes wrong where it counts as well.
async fn warmed(
    api: SocketAddr,
    mut bodies: impl Iterator<Item = Result<Value>>,
    at_once: usize,
    whose: &Whose<'_>,
    sink: &mut Sink<'_>,
) -> Result<usize> {
    let mut asking = JoinSet::new();
    let mut answered = 0;
    loop {
        while asking.len() < at_once.max(1)
            && let Some(body) = bodies.next()
        {
            let body = body?;
            asking.spawn(async move { asked(api, &body).await });
        }
        let Some(answer) = asking.join_next().await else {
            return Ok(answered);
        };
        if let Ok(answer) = answer? {
            answered += 1;
            whose.check(answer.report.get("generation").cloned())?;
        }
        sink.warmed()?;
    }
}

/// Asks an item when it is due. What it came to, and whose plan it was where that is told.
async fn one(
    api: SocketAddr,
    began: Instant,
    item: &ItemRef,
    data: &Item,
    judged: bool,
    body: &Value,
) -> (Measured, Option<Value>) {
    if let Some(ms) = item.at_ms {
        let due = began + Duration::from_secs_f64(ms / 1000.0);
        tokio::time::sleep_until(due.into()).await;
    }
    let sent_ms = began.elapsed().as_secs_f64() * 1000.0;
    let answer = asked(api, body).await;
    let generation = answer.as_ref().ok();
    let generation = generation.and_then(|answer| answer.report.get("generation").cloned());
    let asked = Asked {
        data,
        judged,
        due_ms: item.at_ms,
        sent_ms,
    };
    (measure::measured(&asked, answer), generation)
}

/// A link as the edge's configuration has it.
fn shape(link: &spec::Link, base: &Path) -> String {
    let way = |name: &str, mbit: Option<f64>, trace: &Option<LinkTrace>| {
        let mut text = format!("[peers.shape.{name}]\ndelay-ms = {:?}\n", link.rtt_ms / 2.0);
        if link.jitter_ms > 0.0 {
            text += &format!("jitter-ms = {:?}\n", link.jitter_ms);
        }
        if let Some(mbit) = mbit {
            text += &format!("bandwidth = \"{mbit} Mbit/s\"\n");
        }
        if let Some(trace) = trace {
            let format = match trace.format {
                LinkFormat::Mahimahi => "mahimahi",
                LinkFormat::Hsdpa => "hsdpa",
            };
            // JSON's strings are TOML's.
            let file = json!(base.join(&trace.file).display().to_string());
            text += &format!("trace = {{ file = {file}, format = \"{format}\" }}\n");
        }
        text
    };
    way("up", link.up_mbit, &link.up_trace) + &way("down", link.down_mbit, &link.down_trace)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_written_as_the_configuration_reads_it() {
        let link = spec::Link {
            name: "train".into(),
            up_mbit: Some(20.0),
            down_mbit: None,
            up_trace: None,
            down_trace: Some(LinkTrace {
                file: "a \"b\".log".into(),
                format: LinkFormat::Hsdpa,
            }),
            rtt_ms: 80.0,
            jitter_ms: 5.0,
        };
        assert_eq!(
            shape(&link, Path::new("/data")),
            "[peers.shape.up]\ndelay-ms = 40.0\njitter-ms = 5.0\nbandwidth = \"20 Mbit/s\"\n[peers.shape.down]\n\
             delay-ms = 40.0\njitter-ms = 5.0\ntrace = { file = \"/data/a \\\"b\\\".log\", format = \"hsdpa\" }\n"
        );
    }
}
