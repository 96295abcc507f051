//! What is to be evaluated: a TOML file, one struct for each of its sections.
//!
//! Files in `configs/bench/` are examples, with comments. [`Spec::parse`] checks everything that can be checked without other
//! files, [`Spec::read`] also that the files it names are there.

mod check;
mod locate;
mod read;

use std::collections::BTreeMap;
use std::path::PathBuf;

pub use self::read::SpecError;
use crate::random::digest;
use serde::{Deserialize, Serialize};

/// A whole specification.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Spec {
    /// Of the evaluation; in the report's title.
    pub name: String,
    /// Of all draws: items, arrivals, order, sampling.
    #[serde(default = "Spec::first_seed")]
    pub seed: u64,
    /// How often each cell is measured. It may be raised when a run is gone on with.
    pub repeats: u32,
    /// Requests at the beginning of each turn that do not count.
    #[serde(default)]
    pub warm_up: u32,
    /// Requests that a policy is asked over a link before its first turn there, and that do not count: what its nodes and itself learn
    /// from them they know in all turns over that link. 0: they begin with nothing. A run that is gone on with asks them anew.
    #[serde(default)]
    pub learn: u32,
    /// Requests of a turn that count: of one cell in one repeat.
    pub requests: u32,
    /// Seconds that requests which come at a rate (`poisson`, `bursty`) go on coming at least, on average: a turn has more of them where
    /// `requests` are fewer. A rate that is over before a queue has filled would be carried by anybody.
    #[serde(default, skip_serializing_if = "is_nothing")]
    pub lasts_s: f64,
    /// The pair of models.
    pub pair: Pair,
    /// The policy that the others are held against.
    #[serde(default = "Spec::usual_baseline")]
    pub baseline: String,
    /// The policy that the aims are about.
    #[serde(default = "Spec::usual_subject")]
    pub subject: String,
    /// How answers are decoded.
    #[serde(default)]
    pub decoding: Decoding,
    /// What counts as served in time.
    #[serde(default)]
    pub goal: Goal,
    /// Turns that are about accuracy alone. None: the timed ones tell it.
    #[serde(default)]
    pub accuracy: Option<Accuracy>,
    /// What things cost. None: no costs are reported.
    #[serde(default)]
    pub prices: Option<Prices>,
    /// What is asked.
    pub data: Vec<Data>,
    /// Who decides.
    pub policies: Vec<Policy>,
    /// Over which links.
    pub links: Vec<Link>,
    /// How requests come.
    pub arrivals: Vec<Arrival>,
}

/// `pair = "demo"` or `pair = { twin = "NAME" }`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pair {
    /// The project's own trained models.
    Demo,
    /// Models of real sizes with random weights: they have speed, but no accuracy.
    Twin(String),
}

impl Pair {
    /// Only exact policies are ranked on it.
    pub fn is_twin(&self) -> bool {
        matches!(self, Pair::Twin(_))
    }
}

/// `[decoding]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Decoding {
    /// Tokens of an answer at most.
    pub max_tokens: u32,
    /// 0: the likeliest token.
    pub temperature: f64,
}

impl Default for Decoding {
    fn default() -> Decoding {
        Decoding {
            max_tokens: 128,
            temperature: 0.0,
        }
    }
}

/// `[goal]`: a request is served in time if its answer is complete within `times` the unloaded baseline's median (its cell with
/// `closed`, concurrency 1, of the same data and link) of requests of the same kind: with the same media, and with a short or a long
/// answer; a rate is carried if `share` of all its requests are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Goal {
    /// Of the unloaded baseline's median of the kind.
    pub times: f64,
    /// Of the requests.
    pub share: f64,
}

impl Default for Goal {
    fn default() -> Goal {
        Goal {
            times: 2.0,
            share: 0.95,
        }
    }
}

/// `[accuracy]`: turns in which nothing is timed.
///
/// Either all of `requests` are asked of every policy, or items come in `rounds`: behind each it is looked who is decided, and
/// only who is not goes on, with the baseline beside it. [`crate::rounds`] says how looking several times is paid for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Accuracy {
    /// Items of each data set, asked of each policy over each link; no more than the data set's `n` are. It may be raised when a
    /// run is gone on with. 0: there are `rounds`.
    #[serde(default)]
    pub requests: u32,
    /// Instead of `requests`: after how many items it is looked, ascending; the last is the most that are asked. Those above a data
    /// set's `n` are none of its own. What was looked at once cannot be looked at otherwise: they stay as they are when a run is
    /// gone on with.
    #[serde(default)]
    pub rounds: Vec<u32>,
    /// Names of policies that are asked beyond the first round while they are not decided. Empty: all of them.
    #[serde(default)]
    pub grow: Vec<String>,
    /// Items of one turn.
    #[serde(default = "Accuracy::usual_chunk")]
    pub chunk: u32,
    /// Requests at once.
    #[serde(default = "Accuracy::usual_concurrency")]
    pub concurrency: u32,
    /// Names of links. Empty: all of them.
    #[serde(default)]
    pub links: Vec<String>,
    /// The links take turns, chunk by chunk, and a policy is judged by all that it was asked over any of them: one verdict, for every
    /// link of the specification. Otherwise every item is asked over each link, and each has a verdict of its own.
    #[serde(default)]
    pub pooled: bool,
    /// How much less accurate than the baseline a policy may be to be ranked, in points of 100.
    #[serde(default = "Accuracy::usual_margin")]
    pub margin_points: f64,
    /// Other questions than those of the timed turns.
    #[serde(default)]
    pub data: Vec<AccuracyData>,
}

/// `[[accuracy.data]]`: what accuracy is asked with in place of a data set's own items. Format and workload are that one's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct AccuracyData {
    /// The data set's name. Rows and tables go by it.
    pub instead_of: String,
    /// Where its files are, seen from the specification.
    pub folder: PathBuf,
    /// The command that makes them; told where they are missing.
    #[serde(default)]
    pub made_by: String,
    /// How many items at most.
    pub n: u32,
}

/// `[prices]`, in any currency.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Prices {
    /// Of the money.
    pub currency: String,
    /// Of the edge's work.
    pub edge: Rate,
    /// Of the cloud's work.
    pub cloud: Rate,
    /// Of a GB (10^9 bytes) that leaves the cloud.
    #[serde(default)]
    pub egress_per_gb: f64,
}

/// What a node's work costs: one of both.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rate {
    /// For 1,000 seconds in which the node computes.
    #[serde(rename = "per-1000-node-s")]
    NodeSeconds(f64),
    /// For 10^15 floating-point operations.
    #[serde(rename = "per-pflop")]
    Pflop(f64),
}

/// `[[data]]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Data {
    /// As tables call it [default: SET-WORKLOAD].
    #[serde(default)]
    pub name: String,
    /// In which format it is.
    pub set: Set,
    /// Where its files are, seen from the specification. `demo` needs none.
    #[serde(default)]
    pub folder: Option<PathBuf>,
    /// Which of its items.
    #[serde(default = "Data::usual_workload")]
    pub workload: String,
    /// How many items at most.
    pub n: u32,
}

/// Formats of data sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Set {
    /// The demo world's own.
    Demo,
    /// Questions and annotations as VQAv2 publishes them.
    Vqav2,
    /// The TSV of MMBench.
    Mmbench,
}

/// `[[policies]]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Policy {
    /// As tables call it.
    pub name: String,
    /// The component's name.
    pub policy: String,
    /// The component that makes scores of the probe's report. None: the host's own.
    #[serde(default)]
    pub postprocessor: Option<String>,
    /// Values for what it declares as tunable.
    #[serde(default)]
    pub parameters: BTreeMap<String, Parameter>,
    /// Commits only what the target confirmed. Only such ones are ranked on twins.
    #[serde(default)]
    pub exact: bool,
    /// The subject without what this names. It is no baseline.
    #[serde(default)]
    pub ablation: Option<String>,
    /// A baseline of the paper's kind: the goodput's aim is about those.
    #[serde(default)]
    pub paper_kind: bool,
}

/// A parameter's value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Parameter {
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A number.
    Number(f64),
    /// One of the words that it declares.
    Text(String),
}

/// `[[links]]`. Each direction has either a bandwidth or a trace.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Link {
    /// As tables call it.
    pub name: String,
    /// From the edge to the cloud, in Mbit/s (10^6).
    #[serde(default)]
    pub up_mbit: Option<f64>,
    /// From the cloud to the edge, in Mbit/s (10^6).
    #[serde(default)]
    pub down_mbit: Option<f64>,
    /// Instead of `up-mbit`.
    #[serde(default)]
    pub up_trace: Option<LinkTrace>,
    /// Instead of `down-mbit`.
    #[serde(default)]
    pub down_trace: Option<LinkTrace>,
    /// Both ways together, in ms.
    pub rtt_ms: f64,
    /// A delay one way is uniform within so many ms of its mean.
    #[serde(default)]
    pub jitter_ms: f64,
}

/// A recorded link, replayed in a loop.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct LinkTrace {
    /// The file, seen from the specification.
    pub file: PathBuf,
    /// How it is written.
    pub format: LinkFormat,
}

/// Formats of recorded links. `msao_link` says how each is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LinkFormat {
    /// A line is a moment in ms at which 1500 bytes may go.
    Mahimahi,
    /// `unix_s ms lat lon bytes ms_elapsed`.
    Hsdpa,
}

/// `[[arrivals]]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(
    tag = "kind",
    rename_all = "kebab-case",
    rename_all_fields = "kebab-case",
    deny_unknown_fields
)]
pub enum Arrival {
    /// So many clients, each of which asks as soon as it has its answer.
    Closed {
        /// As tables call it [default: closed-CONCURRENCY].
        #[serde(default)]
        name: String,
        /// Clients.
        concurrency: u32,
    },
    /// Requests come independently of each other.
    Poisson {
        /// As tables call it [default: poisson-RATE].
        #[serde(default)]
        name: String,
        /// Requests a second.
        rate_per_s: f64,
    },
    /// Requests come independently of each other while it is on, and not at all while it is off; how long it is either is
    /// exponential.
    Bursty {
        /// As tables call it [default: bursty-RATE].
        #[serde(default)]
        name: String,
        /// Requests a second, on and off together.
        rate_per_s: f64,
        /// How long it is on, on average, in ms.
        on_ms: f64,
        /// How long it is off, on average, in ms.
        off_ms: f64,
    },
    /// Requests come when recorded ones came.
    Trace {
        /// As tables call it [default: trace-FORMAT].
        #[serde(default)]
        name: String,
        /// The file, seen from the specification.
        file: PathBuf,
        /// How it is written.
        format: ArrivalFormat,
        /// How many times faster than recorded.
        #[serde(default = "Arrival::usual_speed")]
        speed: f64,
        /// Requests at the recording's beginning that are left out.
        #[serde(default)]
        skip: u32,
    },
}

/// Formats of recorded requests. [`crate::trace`] says how each is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ArrivalFormat {
    /// Azure's traces of inference, 2023 to 2025, as CSV.
    Azure,
    /// BurstGPT's CSV.
    Burstgpt,
    /// Mooncake's JSON lines.
    Mooncake,
}

/// What is not written: what a specification without it has the digest of.
fn is_nothing(value: &f64) -> bool {
    *value == 0.0
}

impl Spec {
    /// Requests that count of a turn in which they come so. No more than [`u32::MAX`].
    pub fn counted(&self, arrival: &Arrival) -> u32 {
        match arrival {
            Arrival::Poisson { rate_per_s, .. } | Arrival::Bursty { rate_per_s, .. } => {
                self.requests.max((rate_per_s * self.lasts_s).ceil() as u32)
            }
            Arrival::Closed { .. } | Arrival::Trace { .. } => self.requests,
        }
    }

    fn first_seed() -> u64 {
        1
    }

    fn usual_baseline() -> String {
        "cloud-only".to_owned()
    }

    fn usual_subject() -> String {
        "msao".to_owned()
    }

    /// SHA-256 of all that results depend on: comments, names of files, and what may be raised while a run is gone on with
    /// (`repeats`, `accuracy.requests`) do not count.
    ///
    /// # Errors
    /// It cannot be written as JSON, which no checked one does.
    pub fn digest(&self) -> Result<String, serde_json::Error> {
        let mut fixed = self.clone();
        fixed.repeats = 0;
        if let Some(accuracy) = &mut fixed.accuracy {
            accuracy.requests = 0;
        }
        Ok(digest(&serde_json::to_vec(&fixed)?))
    }

    /// How much less accurate than the baseline a ranked policy may be, in points of 100.
    pub fn margin_points(&self) -> f64 {
        (self.accuracy.as_ref()).map_or(Accuracy::usual_margin(), |it| it.margin_points)
    }

    /// What tells the accuracy on a data set: itself, or what `[[accuracy.data]]` has in its place, under the same name.
    pub fn accuracy_data(&self, data: &Data) -> Data {
        let mut others = self.accuracy.iter().flat_map(|it| &it.data);
        match others.find(|it| it.instead_of == data.name) {
            Some(other) => Data {
                folder: Some(other.folder.clone()),
                n: other.n,
                ..data.clone()
            },
            None => data.clone(),
        }
    }

    /// The links that accuracy is asked over.
    pub fn accuracy_links(&self) -> Vec<&Link> {
        let wanted = (self.accuracy.as_ref()).map_or(&[][..], |it| it.links.as_slice());
        let asked = |link: &&Link| wanted.is_empty() || wanted.contains(&link.name);
        self.links.iter().filter(asked).collect()
    }

    /// One verdict on accuracy holds for every link.
    pub fn is_pooled(&self) -> bool {
        self.accuracy.as_ref().is_some_and(|it| it.pooled)
    }
}

impl Accuracy {
    /// Items that a policy is asked at most.
    pub fn most(&self) -> u32 {
        self.rounds.last().copied().unwrap_or(self.requests)
    }

    /// After how many items of a data set with `n` it is looked who is decided. Empty: there are no rounds.
    pub fn looks(&self, n: u32) -> Vec<u32> {
        self.rounds.iter().copied().filter(|it| *it <= n).collect()
    }

    /// The round, from 0, in which an item is asked that so many come before.
    pub fn round_of(&self, first: u32) -> u32 {
        self.rounds.iter().filter(|it| **it <= first).count() as u32
    }

    /// Whether a policy is asked beyond the first round. The baseline is if another is.
    pub fn grows(&self, policy: &str) -> bool {
        self.grow.is_empty() || self.grow.iter().any(|it| it == policy)
    }

    fn usual_chunk() -> u32 {
        100
    }

    pub(crate) fn usual_concurrency() -> u32 {
        4
    }

    fn usual_margin() -> f64 {
        0.4
    }
}

impl Data {
    fn usual_workload() -> String {
        "mixed".to_owned()
    }
}

impl Arrival {
    fn usual_speed() -> f64 {
        1.0
    }

    /// As tables call it.
    pub fn name(&self) -> &str {
        match self {
            Arrival::Closed { name, .. }
            | Arrival::Poisson { name, .. }
            | Arrival::Bursty { name, .. }
            | Arrival::Trace { name, .. } => name,
        }
    }

    fn name_mut(&mut self) -> &mut String {
        match self {
            Arrival::Closed { name, .. }
            | Arrival::Poisson { name, .. }
            | Arrival::Bursty { name, .. }
            | Arrival::Trace { name, .. } => name,
        }
    }

    /// One request at a time.
    pub fn is_unloaded(&self) -> bool {
        matches!(self, Arrival::Closed { concurrency: 1, .. })
    }
}

#[cfg(test)]
mod tests;
