//! Whether a session is opened at a peer before there is a plan, at which, and with what.
//!
//! Only for a policy whose manifest asks for it, and only where nothing forbids it:
//!
//! | nothing is opened | why |
//! |---|---|
//! | media may not leave this node | they would |
//! | this node has the target itself | there is no link to hide |
//! | no peer is up whose target takes drafts from here | nobody could go on with it |
//! | the peer's cache has no room for the prompt and the answer | it would stand in a queue |
//! | work waits at the peer for longer than the look takes here, or the media take longer to go up | at most the look is saved, and more would be lost where the plan is another one |
//!
//! What is not known forbids nothing. The peer is the first that fits: the one that the host itself would take.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use msao_core::digest::Digest;
use msao_core::offload::manifest::Ahead;
use msao_core::offload::{self, Part, Route, capability, flag, modality};
use msao_core::sampling::SamplingParams;
use msao_session::frame::{self, Open, SessionId, Wanted};
use tokio_util::sync::CancellationToken;

use super::Asked;
use crate::answer::Opened;
use crate::node::{Node, media_limits};
use crate::request::{Cargo, Means, Prompt, Sight};

/// What a session of an answer to a prompt is opened with: a new name, and all that does not depend on a plan.
pub fn opening(
    asked: &Asked,
    prompt: &Prompt,
    params: SamplingParams,
    max_tokens: u32,
    left_ms: f64,
) -> Open {
    Open {
        session: session(),
        epoch: 0,
        wanted: Wanted::Verify,
        sampling: params,
        top_logprobs: asked.request.logprobs,
        max_tokens,
        // Filled in when it goes out: what is sent of the prompt may have to be made first.
        target_input: Digest([0; 32]),
        prompt: frame::Prompt::default(),
        deadline_ms: left_ms,
        tokenizer: Some(prompt.identity.tokenizer),
        request: Some(asked.id.clone()),
        cost: true,
        committed: Vec::new(),
    }
}

/// A request as far as it is known before the probe.
#[derive(Clone, Copy)]
pub struct Known<'a> {
    /// As the client asked it.
    pub asked: &'a Asked,
    /// Laid out.
    pub prompt: &'a Arc<Prompt>,
    /// How the first answer's tokens are chosen.
    pub params: &'a SamplingParams,
    /// As the policy sees it.
    pub request: &'a offload::Request,
    /// Likewise.
    pub parts: &'a [Part],
    /// Likewise.
    pub nodes: &'a [offload::Node],
}

/// Opens a session for the first answer of a request, where the policy wants one and nothing forbids it.
pub fn open(node: &Node, wanted: Ahead, known: Known<'_>) -> Option<Opened> {
    let (asked, prompt) = (known.asked, known.prompt);
    if wanted == Ahead::None {
        return None;
    }
    let row = peer(known.request, known.parts, known.nodes)?;
    let way = node.target(row, Route::Speculate, asked.request.media_at_edge)?;
    let processor = &node.models.first()?.processor;
    let means = Means {
        limits: media_limits(&node.config.media),
        decoders: Arc::clone(&node.decoders),
        gone: CancellationToken::new(),
    };
    let cargo = Cargo::new(prompt, &Sight::default(), processor, None, means);
    let left_ms = asked.left_ms(node.clock.now_ms());
    let max_tokens = known.request.max_tokens;
    let open = opening(asked, prompt, known.params.clone(), max_tokens, left_ms);
    let work = node.ahead(row, Route::Speculate, known.request.prompt_tokens);
    let metrics = node.metrics.clone();
    Some(Opened::begin(way, open, Arc::new(cargo), work, metrics))
}

/// In which row the peer is; `None` where the module says so.
fn peer(request: &offload::Request, parts: &[Part], nodes: &[offload::Node]) -> Option<usize> {
    let media = || parts.iter().filter(|part| part.modality != modality::TEXT);
    if request.flags & flag::MEDIA_AT_EDGE != 0 && media().next().is_some() {
        return None;
    }
    let (own, peers) = nodes.split_first()?;
    let takes = |node: &offload::Node, bits: u32| node.up && node.can & bits == bits;
    if own.can & capability::TARGET != 0 {
        return None;
    }
    let wanted = capability::TARGET | capability::VERIFY;
    let (place, peer) = (peers.iter().enumerate()).find(|(_, peer)| takes(peer, wanted))?;
    let room = f64::from(request.prompt_tokens) + f64::from(request.max_tokens);
    if (0.0..room).contains(&peer.kv_free) {
        return None;
    }
    // The probe is the beginning of what this takes.
    let look_ms = ratio(f64::from(request.prompt_tokens), own.prefill_tok_per_s);
    let bytes: f64 = media().map(|part| part.bytes).sum();
    let upload_ms = ratio(8.0 * (bytes - peer.cached_bytes).max(0.0), peer.uplink_bps);
    let longer = |ms: Option<f64>| look_ms.zip(ms).is_some_and(|(look_ms, ms)| ms > look_ms);
    let waits_ms = (peer.queue_ms >= 0.0).then_some(peer.queue_ms + peer.planned_ms.max(0.0));
    (!longer(upload_ms) && !longer(waits_ms)).then_some(place + 1)
}

/// Time in ms for so much at so much a second; `None` where that is not known.
fn ratio(much: f64, per_s: f64) -> Option<f64> {
    (per_s > 0.0).then(|| 1000.0 * much / per_s)
}

/// A name that nobody can guess.
fn session() -> SessionId {
    let mut id = [0; 16];
    if getrandom::fill(&mut id).is_err() {
        // Without randomness sessions still must not be taken for each other.
        let count = NEXT.fetch_add(1, Ordering::Relaxed);
        id = (u128::from(count) << 64 | u128::from(std::process::id())).to_le_bytes();
    }
    SessionId(id)
}

static NEXT: AtomicU64 = AtomicU64::new(0);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_have_names_of_their_own() {
        assert_ne!(session(), session());
    }

    /// A request with a picture of 250,000 bytes, an edge that looks for a second at most, and a cloud to which they take 200 ms.
    fn known() -> (offload::Request, Vec<Part>, Vec<offload::Node>) {
        let request = offload::Request {
            prompt_tokens: 300,
            max_tokens: 100,
            ..offload::Request::default()
        };
        let picture = Part {
            modality: modality::IMAGE,
            bytes: 250_000.0,
            ..Part::default()
        };
        let edge = offload::Node {
            up: true,
            can: capability::DRAFT,
            prefill_tok_per_s: 300.0,
            ..offload::Node::default()
        };
        let cloud = offload::Node {
            up: true,
            can: capability::TARGET | capability::VERIFY,
            uplink_bps: 1e7,
            queue_ms: 10.0,
            kv_free: 400.0,
            ..offload::Node::default()
        };
        (request, vec![picture, Part::default()], vec![edge, cloud])
    }

    #[test]
    fn a_session_goes_to_the_first_peer_that_takes_drafts() {
        let (request, parts, mut nodes) = known();
        assert_eq!(peer(&request, &parts, &nodes), Some(1));
        nodes.push(nodes[1].clone());
        assert_eq!(peer(&request, &parts, &nodes), Some(1));
        nodes[1].up = false;
        assert_eq!(peer(&request, &parts, &nodes), Some(2));
    }

    #[test]
    fn what_forbids_it_opens_nothing() {
        type Change = fn(&mut offload::Request, &mut Vec<offload::Node>);
        let changes: [(&str, Change); 8] = [
            ("media stay", |request, _| {
                request.flags |= flag::MEDIA_AT_EDGE
            }),
            ("the target is here", |_, nodes| {
                nodes[0].can |= capability::TARGET
            }),
            ("lost", |_, nodes| nodes[1].up = false),
            ("other ids", |_, nodes| nodes[1].can = capability::TARGET),
            ("no room", |_, nodes| nodes[1].kv_free = 399.0),
            ("a queue", |_, nodes| nodes[1].queue_ms = 1001.0),
            ("work before it", |_, nodes| nodes[1].planned_ms = 991.0),
            ("a slow link", |_, nodes| nodes[1].uplink_bps = 1.9e6),
        ];
        for (why, change) in changes {
            let (mut request, parts, mut nodes) = known();
            change(&mut request, &mut nodes);
            assert_eq!(peer(&request, &parts, &nodes), None, "{why}");
        }
    }

    #[test]
    fn what_is_not_known_or_is_there_already_forbids_nothing() {
        type Change = fn(&mut Vec<offload::Node>);
        let changes: [(&str, Change); 5] = [
            ("its room", |nodes| nodes[1].kv_free = -1.0),
            ("its queue", |nodes| nodes[1].queue_ms = -1.0),
            ("the link", |nodes| nodes[1].uplink_bps = -1.0),
            ("how fast this node is", |nodes| {
                nodes[0].prefill_tok_per_s = -1.0;
                nodes[1].uplink_bps = 1e3;
            }),
            ("the media are there", |nodes| {
                nodes[1].cached_bytes = 250_000.0;
                nodes[1].uplink_bps = 1e3;
            }),
        ];
        for (what, change) in changes {
            let (request, parts, mut nodes) = known();
            change(&mut nodes);
            assert_eq!(peer(&request, &parts, &nodes), Some(1), "{what}");
        }
    }
}
