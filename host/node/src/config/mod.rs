//! What a node is told: one TOML file, and the environment over it.
//!
//! Every key is known: a wrong one is an error that names the key, its line and what is allowed. [`load`](load::load) reads and
//! checks everything before anything is opened. Sections that belong to another crate are that crate's own types.

mod check;
pub mod hosts;
pub mod load;
pub mod origin;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use msao_link::shaper::LinkConfig;
use msao_registry::PolicyConfig;
use msao_registry::sandbox::SandboxConfig;
use msao_registry::state::RecordConfig;
use serde::{Deserialize, Serialize};

pub use self::load::{ConfigError, Loaded, load};

/// What a node is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Answers clients, drafts, and sends work to its peers.
    #[default]
    Edge,
    /// Answers clients and edge nodes with the target model.
    Cloud,
    /// Both in one process.
    Both,
}

impl Role {
    /// Whether it takes sessions from other nodes.
    pub fn serves_nodes(self) -> bool {
        matches!(self, Role::Cloud | Role::Both)
    }
}

/// A node's whole configuration.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct NodeConfig {
    /// Who it is.
    pub node: Node,
    /// The models: `draft`, `target`, or both.
    pub models: Models,
    /// What clients see.
    pub api: Api,
    /// What a request's media may be.
    pub media: Media,
    /// How the draft model looks at them.
    pub probe: Probe,
    /// Sessions with other nodes.
    pub sessions: Sessions,
    /// The cloud nodes that this node may turn to.
    pub peers: Vec<Peer>,
    /// What operators see.
    pub operator: Operator,
    /// Plug-ins.
    pub policy: PolicyConfig,
    /// What plug-ins may use.
    pub sandbox: SandboxConfig,
    /// Which decisions are kept.
    pub records: RecordConfig,
    /// What may be committed without the target's word.
    pub confident: Confident,
    /// How what is learned is kept.
    pub calibration: Calibration,
    /// What is written to standard error.
    pub log: Log,
}

/// `[node]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Node {
    /// A name for people, in answers, logs and metrics. Letters, digits, `-`, `_` and `.`; at most 64.
    pub name: String,
    /// What it is for.
    pub role: Role,
    /// Where the registry, calibration and decision records lie.
    pub state: PathBuf,
    /// How long requests may go on after SIGTERM, s.
    pub drain_s: u32,
}

impl Default for Node {
    fn default() -> Node {
        Node {
            name: "node".into(),
            role: Role::default(),
            state: "state".into(),
            drain_s: 30,
        }
    }
}

/// `[models]`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Models {
    /// The small model, which answers and drafts.
    pub draft: Option<Model>,
    /// The large model, which answers and verifies.
    pub target: Option<Model>,
}

/// `[models.draft]` and `[models.target]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Model {
    /// A local Hugging Face folder.
    pub path: PathBuf,
    /// How weights are held: `model` (as stored), `f32`, `bf16`, `f16`.
    #[serde(default = "defaults::precision")]
    pub precision: String,
    /// `none` or `int8`.
    #[serde(default = "defaults::quantize")]
    pub quantize: String,
    /// `cpu`, `cuda`, `cuda:N`.
    #[serde(default = "defaults::device")]
    pub device: String,
    /// Threads of an operation; 0 for all cores.
    #[serde(default)]
    pub threads: u32,
    /// Keys and values, MiB.
    #[serde(default = "defaults::cache_mib")]
    pub cache_mib: u32,
    /// Encoded media kept for later requests, MiB.
    #[serde(default = "defaults::media_cache_mib")]
    pub media_cache_mib: u32,
    /// Prompts whose beginnings are kept for later requests.
    #[serde(default = "defaults::prefixes")]
    pub prefixes: u32,
    /// Prompts that may wait for room.
    #[serde(default = "defaults::waiting")]
    pub waiting: u32,
}

mod defaults {
    pub fn precision() -> String {
        "model".into()
    }
    pub fn quantize() -> String {
        "none".into()
    }
    pub fn device() -> String {
        "cpu".into()
    }
    pub fn cache_mib() -> u32 {
        1024
    }
    pub fn media_cache_mib() -> u32 {
        64
    }
    pub fn prefixes() -> u32 {
        64
    }
    pub fn waiting() -> u32 {
        64
    }
}

/// `[api]`: what clients see.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Api {
    /// Address and port; port 0 takes any that is free.
    pub listen: SocketAddr,
    /// The name by which clients ask for the model.
    pub model: String,
    /// Certificate chain, PEM. With it HTTP/1.1 and HTTP/2 by ALPN; without, HTTP/1.1 and HTTP/2 with prior knowledge.
    pub tls_cert: Option<PathBuf>,
    /// Its key, PEM.
    pub tls_key: Option<PathBuf>,
    /// API keys by a name for people. None: nobody has to show one.
    pub keys: BTreeMap<String, ApiKey>,
    /// Bytes of a body, MiB.
    pub body_mib: u32,
    /// Bytes of the bodies of all requests under way, MiB; who finds no room gets 429.
    pub bodies_mib: u32,
    /// A body must have come after so long, s.
    pub body_within_s: u32,
    /// A connection's header must have come after so long, s.
    pub headers_within_s: u32,
    /// Bytes of a request's header, KiB.
    pub headers_kib: u32,
    /// Connections at once.
    pub connections: u32,
    /// Requests under way at once; more get 429.
    pub requests: u32,
    /// Tokens of an answer where the client names no limit.
    pub default_max_tokens: u32,
    /// Tokens of an answer at most.
    pub max_tokens: u32,
    /// A client that takes nothing for so long is left, s.
    pub unread_s: u32,
}

impl Default for Api {
    fn default() -> Api {
        Api {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            model: "msao".into(),
            tls_cert: None,
            tls_key: None,
            keys: BTreeMap::new(),
            body_mib: 64,
            bodies_mib: 1024,
            body_within_s: 30,
            headers_within_s: 10,
            headers_kib: 64,
            connections: 4096,
            requests: 256,
            default_max_tokens: 256,
            max_tokens: 4096,
            unread_s: 30,
        }
    }
}

/// `[api.keys.NAME]`: one client.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ApiKey {
    /// SHA-256 of the key, in hexadecimal: the file holds no secret.
    pub sha256: String,
    /// A number for the client that policies see; 0 for none.
    #[serde(default)]
    pub tenant: u32,
    /// Only exact answers, whatever the client asks.
    #[serde(default)]
    pub exact: bool,
    /// Nothing but text leaves the edge, whatever the client asks.
    #[serde(default)]
    pub media_edge_only: bool,
}

/// `[media]`: what a request's media may be, each, and from where they may be fetched.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Media {
    /// Media of a request.
    pub items: u32,
    /// Encoded size, MiB.
    pub mib: u32,
    /// Pixels of a picture or a frame, in millions.
    pub megapixels: f64,
    /// Frames that are kept of a clip.
    pub frames: u32,
    /// Length of a clip, s.
    pub video_s: f64,
    /// Length of a sound, s.
    pub audio_s: f64,
    /// Frames a second that are looked at in clips, where the model's files say nothing.
    pub fps: f64,
    /// Decoded size of all media of a request, MiB.
    pub decoded_mib: u32,
    /// Requests and sessions of other nodes whose media are decoded at once; 0 for as many as there are cores.
    pub decoders: u32,
    /// Hosts from which media may be fetched by URL, each a [`HostPattern`](hosts::HostPattern). Addresses that are not
    /// public are refused whatever stands here. Empty: nothing is fetched.
    pub fetch: Vec<String>,
    /// A medium must have been fetched after so long, redirects included, s.
    pub fetch_s: u32,
    /// Fetch by `http://` too, not by `https://` alone.
    pub fetch_plain: bool,
    /// Media that are fetched at once. Others wait as long as a fetch may take, and then get 429.
    pub fetches: u32,
}

impl Default for Media {
    fn default() -> Media {
        Media {
            items: 16,
            mib: 32,
            megapixels: 34.0,
            frames: 256,
            video_s: 120.0,
            audio_s: 300.0,
            fps: 2.0,
            decoded_mib: 1024,
            decoders: 0,
            fetch: Vec::new(),
            fetch_s: 10,
            fetch_plain: false,
            fetches: 8,
        }
    }
}

/// `[probe]`: how the draft model looks at media, in the probe and in its own prefill. The target reads what is there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Probe {
    /// Frames of a clip that differ from the last one that was encoded by no more than this, on average over any block of
    /// some 7 x 7 pixels, are not encoded and take its features: grey levels of 255. 0: those alone that are equal to the bit.
    pub near_duplicates: f64,
}

impl Default for Probe {
    fn default() -> Probe {
        Probe {
            near_duplicates: 2.0,
        }
    }
}

/// `[sessions]`: the listener for other nodes, and how sessions are held.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Sessions {
    /// Where nodes connect; needed with role `cloud` and `both`.
    pub listen: SocketAddr,
    /// The folder of `ca.pem`, `node.pem` and `node.key`. None: plain HTTP/2, on loopback alone.
    pub tls: Option<PathBuf>,
    /// How long a lost session's cache is kept, ms.
    pub lease_ms: u32,
    /// Time between two heartbeats, ms.
    pub heartbeat_ms: u32,
    /// A peer of which nothing was heard for so long is gone, ms.
    pub gone_after_ms: u32,
    /// Sessions at once.
    pub most: u32,
    /// Media kept by digest, MiB.
    pub media_mib: u32,
}

impl Default for Sessions {
    fn default() -> Sessions {
        Sessions {
            listen: SocketAddr::from(([127, 0, 0, 1], 7443)),
            tls: None,
            lease_ms: 2000,
            heartbeat_ms: 250,
            gone_after_ms: 1000,
            most: 512,
            media_mib: 256,
        }
    }
}

/// `[[peers]]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Peer {
    /// A name for people.
    pub name: String,
    /// `HOST:PORT` of its session listener.
    pub address: String,
    /// Price of a million tokens there, in the operator's unit; -1 if not known.
    #[serde(default = "unknown")]
    pub price_per_mtok: f64,
    /// A link within this process that the connections go over: to try out what a slow, distant or broken one does. None:
    /// the network as it is.
    #[serde(default)]
    pub shape: Option<LinkConfig>,
}

fn unknown() -> f64 {
    -1.0
}

/// `[operator]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Operator {
    /// Where; None: no operator's interface.
    pub listen: Option<SocketAddr>,
    /// Certificate chain, PEM: operators then speak TLS.
    pub tls_cert: Option<PathBuf>,
    /// Its key, PEM.
    pub tls_key: Option<PathBuf>,
    /// Tokens by a name for people.
    pub tokens: BTreeMap<String, OperatorToken>,
}

impl Default for Operator {
    fn default() -> Operator {
        Operator {
            listen: Some(SocketAddr::from(([127, 0, 0, 1], 8081))),
            tls_cert: None,
            tls_key: None,
            tokens: BTreeMap::new(),
        }
    }
}

/// What an operator may do; each includes the ones before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OperatorRole {
    /// Look.
    Read,
    /// Bring plug-ins.
    Push,
    /// Change what is active.
    Activate,
}

/// `[operator.tokens.NAME]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct OperatorToken {
    /// SHA-256 of the token, in hexadecimal.
    pub sha256: String,
    /// What it allows.
    pub role: OperatorRole,
}

/// `[confident]`: what may be committed without the target's word, and how that is watched.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Confident {
    /// Share of requests that may have a token committed unverified that the target would not have chosen. None: a session
    /// never commits anything unverified, and route `edge` is free to use.
    pub budget: Option<f64>,
    /// Share of requests that run in exact mode to show what confident mode would have done.
    pub audit_rate: f64,
    /// Chance, at most, that more is committed unverified than the budget allows: of each class of requests, and each time that
    /// it begins anew after a drift alarm.
    pub delta: f64,
    /// Drafts judged by the target before the acceptance map is held still and audits begin.
    pub settle_drafts: u32,
}

impl Default for Confident {
    fn default() -> Confident {
        Confident {
            budget: None,
            audit_rate: 0.1,
            delta: 0.05,
            settle_drafts: 20_000,
        }
    }
}

/// `[calibration]`: how what is learned is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Calibration {
    /// What was learned lies on the disk after so long, ms: a stop at any moment loses no more.
    pub checkpoint_ms: u32,
}

impl Default for Calibration {
    fn default() -> Calibration {
        Calibration {
            checkpoint_ms: 1000,
        }
    }
}

/// `[log]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Log {
    /// What is said: `error`, `warn`, `info`, `debug`, or a filter such as `info,msao_node=debug`.
    pub filter: String,
    /// One JSON object a line instead of text.
    pub json: bool,
    /// A line as each phase of a request ends, with the time that it took.
    pub phases: bool,
}

impl Default for Log {
    fn default() -> Log {
        Log {
            filter: "info".into(),
            json: false,
            phases: false,
        }
    }
}
