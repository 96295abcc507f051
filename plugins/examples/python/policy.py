"""The worked example: estimate how long each route would take, take the quickest, learn how wrong the estimate was.

The same policy stands beside this one in Rust, C and JavaScript. All four give the same plans to the last bit, so each
does its arithmetic in the same order, with nothing but + - * / and comparisons.

The package `wit_world` is made from the contract when the component is built.
"""

import struct
from bisect import bisect_left

from wit_world import exports
from wit_world.exports.policy import Action
from wit_world.imports.types import Decision_Run, Mode, Operation, Plan, Route, Update

# The manifest's reasons, by number.
UNKNOWN, EDGE_QUICKEST, OWN_TARGET_QUICKEST, CLOUD_QUICKEST, SPECULATION_QUICKEST = range(5)

# Bits of node.can and request.flags.
DRAFT = 1
TARGET = 2
VERIFIES_OURS = 4 | 8
EXACT = 1
MEDIA_AT_EDGE = 2

# Below this acceptance probability a draft is sent at once: what follows it would likely be wasted.
DOUBTFUL = 0.3

# The memo: the route by number, the drafts a round, and the estimate that `observe` compares with.
NOTE = struct.Struct("<BId")


def at_least_0(value):
    return value if value > 0.0 else 0.0


def wait_ms(node):
    return at_least_0(node.queue_ms) + at_least_0(node.planned_ms)


def learned(calibration, route):
    """The mean of what was learned about a route, 1 where nothing was. Keys are sorted."""
    key = route.value
    at = bisect_left(calibration.keys, key)
    if at < len(calibration.keys) and calibration.keys[at] == key:
        return calibration.mean[at]
    return 1.0


def yields(acceptance, gamma):
    """Tokens that a round of `gamma` drafts yields when each is accepted with probability `acceptance`."""
    all_accepted = 1.0
    tokens = 1.0
    for _ in range(gamma):
        all_accepted *= acceptance
        tokens += all_accepted
    return tokens


def quicker(before, candidate):
    """`candidate`, if it is less or there was none."""
    return candidate if before < 0.0 or candidate < before else before


class Choice:
    """The best so far."""

    def __init__(self):
        self.route = Route.EDGE
        self.peer = 0
        self.reason = UNKNOWN
        self.estimate_ms = 0.0
        # The estimate with what leaving this node must gain; below 0: nothing was chosen.
        self.compared_ms = -1.0

    def offer(self, route, peer, reason, estimate_ms, margin):
        compared_ms = estimate_ms * margin
        if self.compared_ms < 0.0 or compared_ms < self.compared_ms:
            self.route = route
            self.peer = peer
            self.reason = reason
            self.estimate_ms = estimate_ms
            self.compared_ms = compared_ms


def make_plan(request, parts, nodes, params, calibration):
    margin = params[0]
    gamma = int(params[1])
    here = nodes[0]
    prompt = float(request.prompt_tokens)
    tokens = float(request.max_tokens)
    media_bytes = 0.0
    has_media = False
    for part in parts:
        if part.modality != 0:
            media_bytes += part.bytes
            has_media = True
    bound = has_media and request.flags & MEDIA_AT_EDGE != 0

    edge_ms = cloud_ms = speculate_ms = -1.0
    choice = Choice()

    reads = here.prefill_tok_per_s > 0.0
    drafts = here.can & DRAFT != 0 and here.draft_tok_per_s > 0.0
    if drafts and reads:
        read_ms = prompt * 1000.0 / here.prefill_tok_per_s
        write_ms = tokens * 1000.0 / here.draft_tok_per_s
        edge_ms = (wait_ms(here) + read_ms + write_ms) * learned(calibration, Route.EDGE)
        # The draft model's own answer is quick, and not what the target would have said.
        if request.flags & EXACT == 0:
            choice.offer(Route.EDGE, 0, EDGE_QUICKEST, edge_ms, 1.0)
    if here.can & TARGET != 0 and here.target_tok_per_s > 0.0 and reads:
        read_ms = prompt * 1000.0 / here.prefill_tok_per_s
        write_ms = tokens * 1000.0 / here.target_tok_per_s
        cloud_ms = (wait_ms(here) + read_ms + write_ms) * learned(calibration, Route.CLOUD)
        choice.offer(Route.CLOUD, 0, OWN_TARGET_QUICKEST, cloud_ms, 1.0)
    for row in range(1, len(nodes)):
        node = nodes[row]
        known = node.uplink_bps > 0.0 and node.rtt_ms >= 0.0 and node.prefill_tok_per_s > 0.0
        if not node.up or node.can & TARGET == 0 or not known or bound:
            continue
        missing_bytes = at_least_0(media_bytes - at_least_0(node.cached_bytes))
        upload_ms = missing_bytes * 8000.0 / node.uplink_bps
        read_ms = prompt * 1000.0 / node.prefill_tok_per_s
        begins_ms = node.rtt_ms + wait_ms(node) + upload_ms + read_ms
        if node.target_tok_per_s > 0.0:
            write_ms = tokens * 1000.0 / node.target_tok_per_s
            estimate_ms = (begins_ms + write_ms) * learned(calibration, Route.CLOUD)
            cloud_ms = quicker(cloud_ms, estimate_ms)
            choice.offer(Route.CLOUD, row, CLOUD_QUICKEST, estimate_ms, margin)
        verifies = node.can & VERIFIES_OURS == VERIFIES_OURS
        if drafts and verifies and node.verify_ms > 0.0 and node.acceptance >= 0.0:
            draft_ms = gamma * 1000.0 / here.draft_tok_per_s
            round_ms = draft_ms + node.rtt_ms + wait_ms(node) + node.verify_ms
            write_ms = tokens * round_ms / yields(node.acceptance, gamma)
            estimate_ms = (begins_ms + write_ms) * learned(calibration, Route.SPECULATE)
            speculate_ms = quicker(speculate_ms, estimate_ms)
            choice.offer(Route.SPECULATE, row, SPECULATION_QUICKEST, estimate_ms, margin)
    if choice.compared_ms < 0.0:
        peers = (row for row in range(1, len(nodes)) if nodes[row].up and nodes[row].can & TARGET != 0 and not bound)
        peer = next(peers, 0)
        if here.can & TARGET != 0:
            choice.route = Route.CLOUD
        elif peer > 0:
            choice.route = Route.CLOUD
            choice.peer = peer

    return Plan(
        route=choice.route,
        peer=choice.peer,
        mode=Mode.EXACT,
        gamma_max=gamma,
        in_flight_max=1,
        patience_ms=1000.0,
        parts=[],
        memo=NOTE.pack(choice.route.value, gamma, choice.estimate_ms),
        reason=choice.reason,
        terms=[edge_ms, cloud_ms, speculate_ms],
    )


class Policy(exports.Policy):
    def plan(self, request, parts, nodes, params, calibration):
        return Decision_Run(make_plan(request, parts, nodes, params, calibration))

    def step(self, kind, p_accept, top1, entropy_nats, margin, judged, accepted, unsent, in_flight, committed,
             waited_ms, elapsed_ms, rtt_ms, queue_ms, memo):
        # A fallback plan has no note: it speculates with four drafts a round.
        route, gamma = Route.SPECULATE.value, 4
        if len(memo) == NOTE.size:
            route, gamma, _ = NOTE.unpack(memo)
        if route == Route.EDGE.value or kind in (3, 5):
            return Action.FINISH
        if kind == 2 or in_flight >= gamma:
            return Action.WAIT
        if unsent >= gamma or (unsent > 0 and p_accept < DOUBTFUL):
            return Action.SEND
        return Action.DRAFT

    def observe(self, outcome, params, calibration):
        if len(outcome.memo) != NOTE.size:
            return []
        route, _, estimate_ms = NOTE.unpack(outcome.memo)
        if outcome.status != 0 or outcome.route != route:
            return []
        if not outcome.total_ms > 0.0 or not estimate_ms > 0.0:
            return []
        return [Update(Operation.SAMPLE, route, outcome.total_ms / estimate_ms, params[2])]
