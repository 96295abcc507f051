//! What is played, and what comes of it.

use msao_core::digest::Digest;
use msao_core::sampling::SamplingParams;
use msao_session::cloud;
use msao_session::edge::{self, Committed, Ending};
use msao_session::frame::{Open, Prompt, SessionId, Wanted};

use super::policy::Policy;
use super::toy::{Target, Toy};

/// What a run is made of.
#[derive(Clone, Debug)]
pub struct Scenario {
    pub seed: u64,
    pub toy: Toy,
    pub policy: Policy,
    pub edge: edge::Config,
    pub cloud: cloud::Config,
    pub draft_ms: f64,
    pub verify_ms: f64,
    pub prefill_ms: f64,
    pub one_way_ms: f64,
    pub bandwidth_bps: f64,
    /// At most so much more for a message or an order.
    pub jitter_ms: f64,
    /// A policy's answer takes up to so long.
    pub step_ms: f64,
    /// The target is idle: always, never, or now and then.
    pub spare: Option<bool>,
    /// Mean time between cuts, and how long they last at most.
    pub cuts_ms: Option<(f64, f64)>,
    /// When the client leaves.
    pub stop_ms: Option<f64>,
    /// When the edge dies.
    pub kill_ms: Option<f64>,
}

pub fn open(max_tokens: u32) -> Open {
    Open {
        session: SessionId([9; 16]),
        epoch: 0,
        wanted: Wanted::Verify,
        sampling: SamplingParams::default(),
        top_logprobs: None,
        max_tokens,
        target_input: Digest::of(b"input"),
        prompt: Prompt::default(),
        deadline_ms: 0.0,
        tokenizer: None,
        request: None,
        cost: false,
        committed: Vec::new(),
    }
}

impl Scenario {
    /// An unbroken link, a target that is never idle.
    pub fn plain(toy: Toy, max_tokens: u32) -> Scenario {
        let mut open = open(max_tokens);
        if let Target::Sampled(params) = &toy.target {
            open.sampling = params.clone();
        }
        Scenario {
            seed: 1,
            toy,
            policy: Policy::Stream,
            edge: edge::Config {
                in_flight_max: 64,
                ..edge::Config::exact(open)
            },
            cloud: cloud::Config::default(),
            draft_ms: 2.5,
            verify_ms: 30.0,
            prefill_ms: 0.0,
            one_way_ms: 10.0,
            bandwidth_bps: f64::INFINITY,
            jitter_ms: 0.0,
            step_ms: 0.0,
            spare: Some(false),
            cuts_ms: None,
            stop_ms: None,
            kill_ms: None,
        }
    }
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Report {
    pub committed: Vec<Committed>,
    /// When each token was committed.
    pub at_ms: Vec<f64>,
    pub ending: Option<Ending>,
    pub counters: edge::Counters,
    pub cloud: cloud::Counters,
    /// When the edge ended, or died.
    pub ended_ms: f64,
    /// When the cloud gave everything back for the last time.
    pub freed_ms: f64,
    pub cuts: u32,
}
