//! One request, from its arrival until nothing of it is left anywhere.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use msao_core::offload::{Calibration, Node, Part, Plan, Request, Route, Update};
use msao_session::cloud::Cloud;
use msao_session::depth::{Acceptance, Pace};
use msao_session::edge::Edge;
use msao_session::frame::Frame;

use crate::retention::Treated;
use crate::script::Script;
use crate::slab::Key;

/// A seat on a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub engine: usize,
    pub sequence: Key,
}

/// Where the target is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Way {
    pub node: usize,
    /// None: in the same process.
    pub link: Option<usize>,
    /// Among the nodes that the policy saw.
    pub row: usize,
}

/// Whether frames can go to the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Channel {
    /// Nobody has asked for it.
    Closed,
    /// Media go first.
    Uploading,
    Open,
}

/// Media on their way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Upload {
    pub left_bytes: u64,
    pub bytes: u64,
    pub began_ms: f64,
    /// When the first byte goes: at once, or, where the peer is asked whether it has a large medium, once it has said so.
    pub goes_ms: f64,
    /// When the last byte so far had passed.
    pub passed_ms: f64,
}

/// What the policy saw and said.
pub(crate) struct Decided {
    pub request: Request,
    pub parts: Vec<Part>,
    pub nodes: Vec<Node>,
    /// What was learned when the request came.
    pub calibration: Arc<Calibration>,
    pub score_calibration: Arc<Calibration>,
    /// What the post-processor learned.
    pub score_updates: Vec<Update>,
    pub plan: Plan,
    pub overrides: u32,
    /// The probe has run, or nobody may ask for it any more.
    pub asked: bool,
    /// The first peer refused.
    pub replanned: bool,
    /// A call has failed: the fallback takes the steps.
    pub stepless: bool,
}

/// What it came to so far.
#[derive(Debug, Default)]
pub(crate) struct Account {
    pub first_ms: Option<f64>,
    pub last_ms: Option<f64>,
    pub probe_ms: f64,
    /// Of it, what the draft model's seat goes on from.
    pub looked_ms: f64,
    pub upload_ms: f64,
    pub queue_ms: f64,
    pub sent_bytes: u64,
    pub received_bytes: u64,
    pub edge_flops: f64,
    pub cloud_flops: f64,
    /// Of the draft model: passes and the time that they took, the wait for a seat and the reading of the prompt.
    pub draft_passes: (u32, f64),
    pub draft_ready: Option<(f64, f64)>,
    /// Tokens that are not the target's.
    pub wrong: u32,
}

/// See the module.
pub(crate) struct Run {
    pub question: u32,
    pub edge: usize,
    /// Grows when it is planned anew: what is under way from before is void.
    pub attempt: u32,
    pub arrived_ms: f64,
    pub decided: Decided,
    pub account: Account,
    pub treated: Treated,
    pub script: Rc<Script>,
    pub machine: Option<Edge>,
    /// The policy has no say in its steps: routes `cloud` and `cloud-draft`.
    pub stepped: bool,
    /// The draft model's seat, and the tokens that it has to know once there is one.
    pub seat: Option<Place>,
    pub known: u32,
    pub probe_began_ms: f64,
    pub way: Option<Way>,
    /// What it counts as where the policy escalates and there is no way.
    pub withheld: u32,
    /// The link on which its work is noted as planned.
    pub ahead: Option<usize>,
    pub channel: Channel,
    pub upload: Option<Upload>,
    pub outbox: Vec<Frame>,
    /// The peer has laid the prompt out by then; frames before it wait.
    pub laid_out_ms: f64,
    /// Where the peer's cores are shared nobody knows when that is: frames that have come behind the OPEN whose prompt is being
    /// laid out. None: no prompt is.
    pub behind: Option<u32>,
    /// Under way, with their bytes.
    pub up: VecDeque<Frame>,
    pub down: VecDeque<(Frame, u64)>,
    /// The peer has refused, and nobody is asked again.
    pub refused: bool,
    pub cloud: Option<Box<Served>>,
    pub tick_ms: Option<f64>,
    /// The client's time is up.
    pub overdue: bool,
    pub ended: bool,
}

/// A session on its cloud.
pub(crate) struct Served {
    pub machine: Cloud,
    /// None: there was no room.
    pub target: Option<Place>,
    pub pair: Option<Pair>,
    /// Any work of the target's is wanted, drafts or not.
    pub decodes: bool,
    /// It is counted among those for which the target works.
    pub busy: bool,
    /// What it was told of the target's capacity.
    pub spare: bool,
    /// Orders under way, by stamp: where in the answer, and with how many drafts.
    pub orders: Vec<(u64, u32, u32)>,
    pub acceptance: Acceptance,
    pub verdicts: u32,
    pub tick_ms: Option<f64>,
}

/// The draft model beside the target, and what the two are doing: one order after the other.
pub(crate) struct Pair {
    pub place: Place,
    pub pace: Pace,
    pub queue: VecDeque<PairOrder>,
    pub doing: Doing,
    /// Tokens of the draft model's answer.
    pub written: u32,
    /// Wait and reading of whichever has read the prompt first.
    pub half_ready: Option<(f64, f64)>,
}

pub(crate) enum PairOrder {
    Verify {
        stamp: u64,
        drafts: Vec<u32>,
        given_ms: f64,
    },
    RollBack(u32),
    Append(u32),
}

pub(crate) enum Doing {
    Nothing,
    /// Making so many drafts.
    Drafting {
        stamp: u64,
        given_ms: f64,
        began_ms: f64,
        wanted: usize,
        drafts: Vec<u32>,
    },
    /// Waiting for the target.
    Verifying {
        given_ms: f64,
        began_ms: f64,
        /// Drafts that were made here, and in what time.
        drafted: u32,
        draft_ms: f64,
        /// It says something of how fast the two are.
        counts: bool,
    },
}

impl Run {
    /// A request that has just come.
    pub fn new(
        question: u32,
        edge: usize,
        now_ms: f64,
        request: Request,
        parts: Vec<Part>,
        (calibration, score_calibration): (Arc<Calibration>, Arc<Calibration>),
        script: Rc<Script>,
    ) -> Run {
        Run {
            question,
            edge,
            attempt: 0,
            arrived_ms: now_ms,
            decided: Decided {
                request,
                parts,
                nodes: Vec::new(),
                calibration,
                score_calibration,
                score_updates: Vec::new(),
                plan: Plan::plain(Route::Edge, 0),
                overrides: 0,
                asked: false,
                replanned: false,
                stepless: false,
            },
            account: Account::default(),
            treated: Treated::default(),
            script,
            machine: None,
            stepped: false,
            seat: None,
            known: 0,
            probe_began_ms: now_ms,
            way: None,
            withheld: 0,
            ahead: None,
            channel: Channel::Closed,
            upload: None,
            outbox: Vec::new(),
            laid_out_ms: 0.0,
            behind: None,
            up: VecDeque::new(),
            down: VecDeque::new(),
            refused: false,
            cloud: None,
            tick_ms: None,
            overdue: false,
            ended: false,
        }
    }

    /// Time that the client leaves for the answer, in ms; 0: it named none.
    pub fn left_ms(&self, deadline_ms: f64, now_ms: f64) -> f64 {
        if deadline_ms == 0.0 {
            return 0.0;
        }
        (self.arrived_ms + deadline_ms - now_ms).max(1.0)
    }
}
