//! Whether the probe is asked for: only where what it says can change the plan.
//!
//! - On routes `edge` and `speculate` the draft model goes on from the probe, so that it costs next to nothing, and
//!   what it says shortens what the draft model reads. Before it has run its time is counted with theirs.
//! - On others it is thrown away. It is worth its time only where what is spared for the target is thought to take more than
//!   that off, and a share of the whole time: `prune-worth` where tokens are only left out, `worth` where media are made anew.
//!
//! Where nothing but this node's draft model can answer, there is no plan to change, and no target to mend what leaving tokens out
//! would cost the answer. Nor is it asked for where it has run, for a few tokens, or where a plan was just refused by its peer: the host
//! asks once more then, without that peer, and lets no policy ask for the probe again.

use msao_plugin::{Node, PlanInput, Route, capability};

use crate::arms::{Arm, Weighed};
use crate::cells::{self, seen};
use crate::model::{Link, Machine, amount};
use crate::retention::{Media, PRUNED, Peer, SMALL};
use crate::{Settings, within};

/// What the probe takes of the time in which the draft model reads a prompt: the encoders, most of what a small model does with media,
/// and an eighth of the layers. What it does take is learned.
pub(crate) const SHARE: f64 = 0.5;
/// A prediction is never taken to be further off than by this factor.
const FAR_OFF: f64 = 10.0;

/// Time of the probe as predicted from this node's figures, in ms.
pub(crate) fn predicted_ms(input: &PlanInput, media: &Media) -> f64 {
    let Some(tokens) = media.tokens.first() else {
        return 0.0;
    };
    SHARE * tokens * Machine::of(input.here()).read_ms
}

/// The same as such predictions were off before: the time that it takes, once it has begun.
pub(crate) fn time_ms(input: &PlanInput, media: &Media) -> f64 {
    let off = seen(input.calibration.get(cells::PROBE)).map_or(1.0, |(mean, _)| mean);
    predicted_ms(input, media) * within(off, 1.0 / FAR_OFF, FAR_OFF)
}

/// Whether it may be asked for.
pub(crate) fn is_open(input: &PlanInput, settings: &Settings, media: &Media) -> bool {
    let few = media.media_tokens < f64::from(settings.probe_tokens.max(1));
    !media.scored && !few && somebody_is(input, capability::TARGET) && !was_refused(input)
}

/// Whether this node, or a peer that is up and may have the media, can do all of this.
pub(crate) fn somebody_is(input: &PlanInput, can: u32) -> bool {
    let there = || {
        let mut peers = input.peers();
        !input.bound_here() && peers.any(|(_, node)| node.up && node.is(can))
    };
    input.here().is(can) || there()
}

/// Whether a peer is down that has not been lost: what a lost one says of itself is forgotten, so this one has refused just
/// now.
pub(crate) fn was_refused(input: &PlanInput) -> bool {
    let has_refused =
        |node: &Node| !node.up && (node.queue_ms >= 0.0 || node.target_tok_per_s > 0.0);
    input.nodes.iter().skip(1).any(has_refused)
}

/// Whether `arm` should not run before the probe has.
pub(crate) fn is_wanted(
    input: &PlanInput,
    settings: &Settings,
    weighed: &Weighed,
    arm: &Arm,
) -> bool {
    let media = &weighed.media;
    if !is_open(input, settings, media) {
        return false;
    }
    if matches!(arm.route, Route::Edge | Route::Speculate) {
        return true;
    }
    let Some(node) = input.nodes.get(arm.row as usize) else {
        return false;
    };
    let machine = Machine::of(node);
    let peer = Peer {
        link: &Link::of(arm.row, node, settings.bandwidth_caution),
        machine: &machine,
        cached: amount(node.cached_bytes, 0.0),
    };
    let gain_ms = settings.worth * arm.total_ms;
    let prune_ms = settings.prune_worth * arm.total_ms;
    let level = media.pick(&peer, gain_ms, prune_ms, SMALL);
    let (upload_ms, read_ms) = media.times_ms(level, &peer);
    // A draft model beside the target reads as much.
    let readers = match arm.route {
        Route::CloudDraft => 1.0 + machine.beside_share(),
        _ => 1.0,
    };
    let saved_ms = arm.upload_ms + arm.read_ms - upload_ms - readers * read_ms;
    let probe_ms = Machine::of(input.here()).waits_ms + time_ms(input, media);
    let gain_ms = if level == PRUNED { prune_ms } else { gain_ms };
    saved_ms - probe_ms >= gain_ms && saved_ms > probe_ms
}
